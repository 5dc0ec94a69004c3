"""What a network is made of: its modules' roles, its head, its pooling and its attention.

All of it is read from the network that transformers builds for a config, without weights, and from what the head does
with the vectors of the tokens.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emotion_lightning import config
from emotion_lightning.config import Attention, Pooling, Quantization
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import pooling
from emotion_lightning.models.roles import is_linear, pattern_of, roles_of, sizes_of


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


def longest_text(architecture: Any) -> int | None:
    """Number of tokens that a network has positions for; None if its config names none."""
    found = getattr(architecture.get_text_config(), "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    # RoBERTa and its kin count positions from behind the number of their padding token: fewer are left for texts.
    fewer = (
        module.num_embeddings - 1 - module.padding_idx
        for name, module in empty_network(architecture).named_modules()
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2] and module.padding_idx is not None
    )
    return min([found, *fewer])


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
    roles = roles_of(network)
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
