"""What a network is made of: the roles of its modules, its head, its pooling and its attention.

All of it is read from the network that transformers builds for a config, without weights: from where the linear layers
stand in its blocks, from their shapes, and from what the head does with the vectors of the tokens. There is no list of
architectures here.
"""

import dataclasses
import inspect
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emotion_lightning import config
from emotion_lightning.config import Attention, Pooling, Quantization, checks
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import backbone, pooling

log = logging.getLogger(__name__)

ROLES = ("query", "key", "value", "output", "gate", "feedforward_in", "feedforward_out", "norm")
"""All roles, in the order in which they are listed."""

_QUERY, _KEY, _VALUE = (
    re.compile(rf"w?_?({letter}|{word})(_?(lin|linear|proj|projection|layer|b_proj|global))?", re.IGNORECASE)
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))
)
_KEY_VALUE = re.compile(r"w?_?(kv|key_value)(_?(lin|linear|proj|projection|b_proj))?", re.IGNORECASE)
_LOW_RANK = re.compile(r"(q|kv)_a_proj.*", re.IGNORECASE)
_ASIDE = re.compile(r"adapter|bottleneck|router|indexer|lora|norm", re.IGNORECASE)
"""Parts of a block that are neither its attention nor its feed-forward."""


@dataclass
class Structure:
    """What was found in a network.

    Attributes:
        model_type: transformers' name of the architecture.
        class_name: transformers' class that classifies texts.
        roles: names of the modules of each role; a fused matrix, such as `qkv_proj`, is in several roles.
        patterns: a regular expression for each role that matches exactly these names.
        head: modules that the class adds to the backbone and that have weights; the last one gives the logits.
        pooler: module of the backbone whose output the head reads; None if it reads token vectors.
        pooling: what the class itself reads.
        is_stock: whether the class with this pooling gives the same logits for a text with padding as without.
        attention: causal or bidirectional, as in pretraining.
        parameters: number of all parameters.
        linear: number of the weights that a quantization changes.
        other: number of the weights that no quantization changes.
        sizes: sizes of input and output of each linear layer with a role.
        weights: number of the parameters of each norm and of each module of the head.
    """

    model_type: str
    class_name: str
    roles: dict[str, list[str]]
    patterns: dict[str, str]
    head: list[str]
    pooler: str | None
    pooling: Pooling
    is_stock: bool
    attention: Attention
    parameters: int
    linear: int
    other: int
    sizes: dict[str, tuple[int, int]]
    weights: dict[str, int]

    def fused(self) -> dict[str, list[str]]:
        """Roles that share their modules with another role, with the roles they share them with."""
        return {
            role: [other for other in self.roles if other != role and set(self.roles[other]) & set(names)]
            for role, names in self.roles.items()
            if any(set(self.roles[other]) & set(names) for other in self.roles if other != role)
        }

    def trained_by(self, peft: config.Peft) -> int | None:
        """Number of parameters that a training method trains; None if the network has none of its targets."""
        if isinstance(peft, config.Full):
            return self.parameters
        targets = [role for role in getattr(peft, "targets", []) if role in self.roles]
        if getattr(peft, "targets", []) and not targets:
            return None
        names = {name: role for role in targets for name in self.roles[role]}
        of_head = sum(count for name, count in self.weights.items() if name not in self.roles.get("norm", []))
        return of_head + sum(self._added(name, role, peft) for name, role in names.items())

    def _added(self, name: str, role: str, peft: config.Peft) -> int:
        """Number of parameters that a method trains for a module."""
        if isinstance(peft, config.LnTuning):
            return self.weights[name]
        given, made = self.sizes[name]
        match peft:
            case config.IA3():
                return given if role in peft.feedforward else made
            case config.Lora():
                return peft.r * (given + made) + (made if peft.dora else 0)
            case config.Vera():
                return peft.r + made
        return 0

    def bytes_of(self, quantization: Quantization, bytes_each: int = 2) -> int:
        """Memory of the weights, with `bytes_each` for a weight that is not quantised."""
        # NF4 has a 8-bit scale for 64 weights and a 32-bit scale for 256 of these, int8 a 32-bit scale for a row.
        each = {Quantization.nf4: 0.5 + 1 / 64 + 4 / (64 * 256), Quantization.int8: 1.0}.get(quantization, bytes_each)
        return round(self.linear * each + self.other * bytes_each)


def empty_network(architecture: Any, *, labels: int = 3) -> Any:
    """Build the network of a config for sequence classification without memory for its weights.

    Raises:
        UserError: transformers has no such network.
    """
    from transformers import AutoModelForSequenceClassification

    architecture.num_labels = labels
    # Classes of decoders find the last token of a text by the padding behind it.
    for part in (architecture, architecture.get_text_config()):
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = 0
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(architecture, trust_remote_code=False).eval()
    except Exception as error:  # each architecture checks its config in its own way
        if "Unrecognized configuration class" in str(error):
            raise UserError(
                f"transformers has no class that classifies texts with {architecture.model_type}; choose a model of "
                "another architecture."
            ) from error
        raise UserError(f"The network {architecture.model_type} cannot be built: {first_line(error)[:200]}") from error


def read_structure(architecture: Any, *, labels: int = 3) -> Structure:
    """Read the structure of the network that a config describes.

    Args:
        architecture: the transformers config.
        labels: number of logits; the size of the head depends on it.

    Raises:
        UserError: transformers has no such network, or it cannot be trained here; the message says why.
    """
    network = empty_network(architecture, labels=labels)
    kind = str(architecture.model_type)
    if "attention_mask" not in inspect.signature(network.forward).parameters:
        raise UserError(
            f"{kind} has no attention mask: the padding of a batch would change its answers. Choose a model of another "
            "architecture."
        )
    head = _head(network)
    if not head:
        raise UserError(
            f"{kind} has no head outside its backbone that could be trained alone; choose a model of another "
            "architecture."
        )
    inside = {part for name, _ in pooling.backbone_of(network).named_modules() for part in name.split(".")}
    if twice := [name for name in head if name in inside]:
        raise UserError(
            f"{kind} has a module {twice[0]} in its head and another one in its backbone, which PEFT does not tell "
            "apart; choose a model of another architecture."
        )
    for name in head:
        _materialize(network.get_submodule(name))
    try:
        found = pooling.read_head(network)
    except Exception as error:  # a class that reads more of its backbone than the vectors of tokens
        raise UserError(
            f"The head of {kind} reads more than the vectors of tokens ({first_line(error)[:100]}); choose a model of "
            "another architecture."
        ) from error
    has_pooler = found.reads_pooler and isinstance(getattr(pooling.backbone_of(network), "pooler", None), nn.Module)
    pooler_name = f"{network.base_model_prefix}.pooler"
    roles = _roles(network)
    names = [name for name, _ in network.named_modules()]
    kept = {*head, *(["pooler"] if has_pooler else [])}
    linear = sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if is_linear(module) and not kept & set(name.split("."))
    )
    total = sum(parameter.numel() for parameter in network.parameters())
    causal = pooling.is_decoder(network) and not _sees_all(architecture)
    return Structure(
        model_type=kind,
        class_name=type(network).__name__,
        roles=roles,
        patterns={role: pattern_of(found_names, names) for role, found_names in roles.items()},
        head=head,
        pooler="pooler" if has_pooler else None,
        pooling=found.way,
        is_stock=found.is_stock,
        attention=Attention.causal if causal else Attention.bidirectional,
        parameters=total,
        linear=linear,
        other=total - linear,
        sizes={
            name: sizes_of(network.get_submodule(name))
            for role, found_names in roles.items()
            if role != "norm"
            for name in found_names
        },
        weights={
            name: sum(parameter.numel() for parameter in network.get_submodule(name).parameters())
            for name in [*roles.get("norm", []), *head, *([pooler_name] if has_pooler else [])]
        },
    )


def _sees_all(architecture: Any) -> bool:
    """Whether a decoder was trained further with attention to all tokens, as an embedding model is."""
    text = architecture.get_text_config()
    return bool(getattr(text, "use_bidirectional_attention", False)) or getattr(text, "is_causal", True) is False


def _head(network: Any) -> list[str]:
    """Names of the modules beside the backbone that have weights; the one that gives the logits is the last."""
    around = pooling.beside_backbone(network)
    gives = [
        name
        for name, part in around.items()
        for module in part.modules()
        if is_linear(module) and sizes_of(module)[1] == network.config.num_labels
    ]
    return [*(name for name in around if name != gives[-1]), gives[-1]] if gives else []


def _materialize(module: nn.Module) -> None:
    """Give a module random weights on the CPU, without changing the state of the random generator."""
    module.to_empty(device="cpu")
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=chance) / max(1, parameter.shape[-1]) ** 0.5)
        for buffer in module.buffers():
            buffer.zero_()


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix that PEFT can adapt and bitsandbytes can quantise."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def sizes_of(module: Any) -> tuple[int, int]:
    """Sizes of a linear layer's input and output."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return int(module.weight.shape[0]), int(module.weight.shape[1])  # GPT-2's Conv1D


# ------------------------------------------------------------------------------------------------------------- roles


def _roles(network: Any) -> dict[str, list[str]]:
    """Names of the modules of each role, of the roles that the network has."""
    found: dict[str, list[str]] = defaultdict(list)
    for block in _blocks(network):
        attention, rest = _split(network, block)
        used = _attention_roles(attention, found)
        _feedforward_roles([name for name in rest if name not in used], network, found)
    prefix = f"{network.base_model_prefix}."
    text = _text_part(network)
    found["norm"] = [
        name
        for name, module in network.named_modules()
        if name.startswith(prefix) and name.startswith(text) and _is_norm(module)
    ]
    order = {name: position for position, (name, _) in enumerate(network.named_modules())}
    return {role: sorted(set(found[role]), key=order.__getitem__) for role in ROLES if found[role]}


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm with weights, and nothing else."""
    own = dict(module.named_parameters())
    plain = not any(True for _ in module.children()) and "weight" in own and own.keys() <= {"weight", "bias"}
    return plain and "norm" in type(module).__name__.lower() and own["weight"].ndim == 1


def _text_part(network: Any) -> str:
    """Prefix of the modules that texts pass, in a network that also sees pictures; of all modules otherwise."""
    architecture = network.config
    text = architecture.get_text_config()
    if text is architecture or getattr(architecture, "is_encoder_decoder", False):
        return ""
    inner = [name for name, module in network.named_modules() if name and getattr(module, "config", None) is text]
    return f"{inner[0]}." if inner else ""


def _blocks(network: Any) -> Iterator[dict[str, nn.Module]]:
    """The linear layers of each block of the backbone, by name.

    A block is an item of the outermost list that holds linear layers. Layers outside the lists project the embeddings
    or belong to a pooler; they have no role.
    """
    blocks: dict[str, dict[str, nn.Module]] = defaultdict(dict)
    prefix, text = f"{network.base_model_prefix}.", _text_part(network)
    for name, module in network.named_modules():
        numbered = re.match(r"(.*?\.\d+)(\.|$)", name)
        if numbered and name.startswith(prefix) and name.startswith(text) and is_linear(module):
            blocks[numbered[1]][name] = module
    yield from blocks.values()


def _split(network: Any, block: dict[str, nn.Module]) -> tuple[dict[str, dict[str, nn.Module]], list[str]]:
    """The linear layers of a block that belong to an attention, by attention, and the others.

    An attention is the outermost module with "att" in its name or its class that holds linear layers.
    """
    attention: dict[str, dict[str, nn.Module]] = defaultdict(dict)
    rest: list[str] = []
    for name, module in block.items():
        parent = network.get_submodule(name.rpartition(".")[0])
        inside = re.sub(r"^.*?\.\d+(\.|$)", "", name)
        if _ASIDE.search(inside) or _mixes_otherwise(parent):
            continue
        around = attention_around(name)
        if around:
            attention[around][name] = module
        else:
            rest.append(name)
    return attention, rest


def _mixes_otherwise(parent: nn.Module) -> bool:
    """Whether a module combines tokens in another way than attention, as a state space model with a convolution."""
    return any(isinstance(child, nn.Conv1d) and child.kernel_size[0] > 1 for child in parent.children())


def attention_around(name: str) -> str | None:
    """Name of the outermost attention around a module; None if it is in none."""
    parts = name.split(".")
    for position, part in enumerate(parts[:-1]):
        if "att" in part.lower():
            return ".".join(parts[: position + 1])
    return None


def _attention_roles(attention: dict[str, dict[str, nn.Module]], found: dict[str, list[str]]) -> set[str]:
    """Put the layers of each attention into their roles, and return their names."""
    used: set[str] = set()
    for layers in attention.values():
        roles = _plain_attention(layers) or _fused_attention(layers)
        for role, names in roles.items():
            found[role] += names
            used |= set(names)
        used |= set(layers)
    return used


def _plain_attention(layers: dict[str, nn.Module]) -> dict[str, list[str]]:
    """Roles in an attention with a matrix each for queries, keys and values; keys and values may share one."""

    def named(pattern: re.Pattern[str]) -> list[str]:
        return [name for name in layers if pattern.fullmatch(name.rpartition(".")[2])]

    query, both = named(_QUERY), named(_KEY_VALUE)
    key, value = named(_KEY) + both, named(_VALUE) + both
    if not key or not value:
        return {}
    low_rank = [name for name in layers if _LOW_RANK.fullmatch(_last(name))]
    others = [name for name in layers if name not in {*query, *key, *value, *low_rank}]
    widths = {sizes_of(layers[name])[1] for name in [*query, *value]}
    outside = {sizes_of(layer)[0] for name, layer in layers.items() if name not in others}
    output = [name for name in others if sizes_of(layers[name])[0] in widths and sizes_of(layers[name])[1] in outside]
    # Where several layers have the shape, the attention's output is the last one.
    output = output[-1:] if output else [name for name in others if sizes_of(layers[name])[1] in outside][-1:]
    roles = {"query": query, "key": key, "value": value, "output": output}
    return {role: names for role, names in roles.items() if names}


def _fused_attention(layers: dict[str, nn.Module]) -> dict[str, list[str]]:
    """Roles in an attention where one matrix computes queries, keys and values."""
    sizes = {name: sizes_of(layer) for name, layer in layers.items()}
    # The fused matrix is the widest: it gives more numbers than it takes, and another layer takes them back.
    wide = [name for name, (given, made) in sizes.items() if made > given]
    if not wide:
        return {}
    fused = max(wide, key=lambda name: sizes[name][1])
    back = [name for name, (given, made) in sizes.items() if name != fused and made == sizes[fused][0]]
    roles = {"query": [fused], "key": [fused], "value": [fused]}
    return roles | ({"output": back[-1:]} if back else {})


def _feedforward_roles(names: list[str], network: Any, found: dict[str, list[str]]) -> None:
    """Put layers into the roles of a feed-forward block: one that widens, or two of which one is a gate, and one back.

    Args:
        names: the linear layers of a block outside its attention, in order.
        network: to which they belong.
        found: names by role, to which these are added.
    """
    waiting: list[str] = []
    for name in names:
        given, made = sizes_of(network.get_submodule(name))
        into = [
            other for other in waiting if sizes_of(network.get_submodule(other)) in ((made, given), (made, 2 * given))
        ]
        if not into or given < made:
            waiting.append(name)
            continue
        gate = [other for other in into if "gate" in _last(other)] if len(into) > 1 else []
        if len(into) == 2 and not gate:
            gate = into[:1]  # the activation function is applied to the first, as in T5
        wide = [other for other in into if sizes_of(network.get_submodule(other))[1] == 2 * given]
        found["gate"] += gate or wide
        found["feedforward_in"] += [other for other in into if other not in gate]
        found["feedforward_out"].append(name)
        waiting = [other for other in waiting if other not in into]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def pattern_of(wanted: Iterable[str], names: Iterable[str]) -> str:
    r"""A regular expression that matches the wanted names in full, and none of the others.

    Numbers, which are those of blocks, become `\d+` where no other name would match too.

    >>> names = ["h.0.attn.q", "h.1.attn.q", "h.0.mlp.0", "h.0.mlp.2", "h.1.mlp.0", "h.1.mlp.2"]
    >>> print(pattern_of(["h.0.attn.q", "h.1.attn.q"], names))
    h\.\d+\.attn\.q
    >>> print(pattern_of(["h.0.mlp.2", "h.1.mlp.2"], names))
    h\.\d+\.mlp\.2
    """
    wanted, others = list(dict.fromkeys(wanted)), set(names) - set(wanted)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in wanted:
        groups[re.sub(r"\b\d+\b", "0", name)].append(name)
    parts: list[str] = []
    for group in groups.values():
        columns = list(zip(*(name.split(".") for name in group), strict=True))
        free = [all(part.isdigit() for part in column) for column in columns]
        for candidate in (free, [here and len(set(column)) > 1 for here, column in zip(free, columns, strict=True)]):
            pattern = r"\.".join(
                r"\d+" if here else re.escape(column[0]) for here, column in zip(candidate, columns, strict=True)
            )
            if not any(re.fullmatch(pattern, other) for other in others) and (
                candidate is free or all(re.fullmatch(pattern, name) for name in group)
            ):
                parts.append(pattern)
                break
        else:
            parts += [re.escape(name) for name in group]
    return "|".join(parts)


def pefts_own_targets(model_type: str) -> set[str]:
    """Names of the modules that PEFT's own tables list for IA3 and LoRA in an architecture, to compare with the roles.

    PEFT matches them as the ends of module names.
    """
    from peft.utils import constants

    found: set[str] = set()
    for method in ("IA3", "LORA"):
        table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{method}_TARGET_MODULES_MAPPING")
        named = table.get(model_type, [])
        found |= set(named) if not isinstance(named, str) else set()
    return found


# ---------------------------------------------------------------------------------------------------- filling settings


def resolve(settings: Any) -> Any:
    """The settings of a training with all that model=auto leaves open read from the network.

    Args:
        settings: of `train`; returned as they are if nothing is open.

    Raises:
        UserError: the network cannot be read or trained with these settings; the message says what it has.
    """
    if not settings.model.is_open:
        return settings
    found = read_structure(architecture_of(settings.model))
    model = fill(settings.model, found)
    peft = known_targets(settings.peft, found, model)
    checks.check_model(model, peft)
    log.info("%s", describe(found, model))
    return dataclasses.replace(settings, model=model, peft=peft)


def architecture_of(settings: config.Model) -> Any:
    """The transformers config of a model.

    Raises:
        UserError: there is none, or transformers does not know it.
    """
    from transformers import AutoConfig

    try:
        if not settings.pretrained:
            values = dict(settings.architecture)
            return AutoConfig.for_model(values.pop("model_type"), **values)
        return AutoConfig.from_pretrained(
            backbone.local(settings.path), revision=settings.revision or "main", trust_remote_code=False
        )
    except KeyError as error:
        raise UserError(
            "model.architecture names no architecture that transformers knows; give model.architecture.model_type=TYPE "
            "and its sizes."
        ) from error
    except Exception as error:  # each architecture checks its config in its own way
        raise UserError(
            f"The config of model.path={settings.path} cannot be read: {first_line(error)[:200]}"
        ) from error


def fill(settings: config.Model, found: Structure) -> config.Model:
    """Put what was found in the place of what the settings leave open."""
    return dataclasses.replace(
        settings,
        attention=found.attention if settings.attention is Attention.auto else settings.attention,
        pooling=found.pooling if settings.pooling is Pooling.auto else settings.pooling,
        head=found.head if settings.head is None else settings.head,
        pooler=found.pooler if settings.pooler == config.AUTO else settings.pooler,
        roles={**found.patterns, **settings.roles},
    )


def known_targets(peft: config.Peft, found: Structure, model: config.Model) -> config.Peft:
    """The training method, aimed at the roles that the network has.

    Raises:
        UserError: the network has none of them.
    """
    targets = list(getattr(peft, "targets", []))
    there = [role for role in targets if role in model.roles]
    if there == targets:
        return peft
    lacking = ", ".join(role for role in targets if role not in there)
    if not there:
        raise UserError(
            f"peft.targets={targets}, but {found.model_type} computes {lacking} in no linear layer or norm that PEFT "
            f"can adapt{_alternatives(found)}"
        )
    log.warning(
        "%s computes %s in no linear layer that PEFT can adapt; peft.targets is %s.", found.model_type, lacking,
        ", ".join(there),
    )  # fmt: skip
    changed: dict[str, Any] = {"targets": there}
    if isinstance(peft, config.IA3):
        changed["feedforward"] = [role for role in peft.feedforward if role in there]
    return dataclasses.replace(peft, **changed)


def _alternatives(found: Structure) -> str:
    roles = [role for role in found.roles if role != "norm"]
    ways = [f"peft.targets=[{','.join(roles)}]"] if roles else []
    ways += ["peft=ln_tuning"] if "norm" in found.roles else []
    return f"; choose {', '.join([*ways, 'peft=head'])} or peft=full."


def describe(found: Structure, model: config.Model) -> str:
    """What was found, as one line for the log."""
    head = ", ".join([*([f"{model.pooler} (pooler)"] if model.pooler else []), *(model.head or [])])
    return (
        f"model=auto: {found.class_name}, {found.parameters:,} parameters, attention {model.attention.value}, pooling "
        f"{model.pooling.value}, head {head}, roles {', '.join(model.roles)}."
    )


def tables(found: Structure, methods: dict[str, config.Peft]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of the tables that `inspect` prints.

    Args:
        found: what the network is made of.
        methods: settings of each option of `peft`.
    """
    fused = found.fused()
    roles = [
        [
            role,
            str(len(found.roles[role])),
            found.patterns[role].replace("|", "\n").replace("\\d+", "N").replace("\\", ""),
            ", ".join(sorted(fused.get(role, []))),
        ]
        for role in found.roles
    ]
    facts = [
        ["class", found.class_name],
        ["parameters", f"{found.parameters:,}"],
        ["attention", found.attention.value],
        ["pooling", found.pooling.value + ("" if found.is_stock else " (differs from the class for padded texts)")],
        ["head", ", ".join(found.head)],
        ["pooler", found.pooler or "none"],
        ["never quantised", ", ".join([*([found.pooler] if found.pooler else []), *found.head])],
    ]
    trained = [
        [name, "none of its targets" if (count := found.trained_by(peft)) is None else f"{count:,}"]
        for name, peft in methods.items()
    ]
    memory = [
        [f"{each.value}", f"{found.bytes_of(each) / 1e6:,.1f} MB", f"{found.bytes_of(each, 4) / 1e6:,.1f} MB"]
        for each in Quantization
    ]
    return [
        (found.model_type, ["", "found"], facts),
        ("roles", ["role", "count", "modules", "in one matrix with"], roles),
        ("trained parameters", ["peft", "parameters"], trained),
        ("memory of the weights", ["quantization", "others in bfloat16", "others in float32"], memory),
    ]
