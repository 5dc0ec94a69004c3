"""The roles of a network's modules: its queries, keys and values, its feed-forward layers and its norms.

They are read from where the linear layers stand in its blocks, from their shapes and from a few names. There is no list
of architectures here.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from emotion_lightning import config
from emotion_lightning.errors import UserError

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


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix that PEFT can adapt and bitsandbytes can quantise."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def attention_part(name: str) -> str | None:
    """Which of query, key and value a module computes by itself, by its name; None for all others.

    >>> attention_part("self_attn.q_proj"), attention_part("attention.self.value"), attention_part("self_attn.qkv_proj")
    ('query', 'value', None)
    """
    last = _last(name)
    patterns = {"query": _QUERY, "key": _KEY, "value": _VALUE}
    return next((part for part, pattern in patterns.items() if pattern.fullmatch(last)), None)


def sizes_of(module: Any) -> tuple[int, int]:
    """Sizes of a linear layer's input and output."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return int(module.weight.shape[0]), int(module.weight.shape[1])  # GPT-2's Conv1D


def roles_of(network: Any) -> dict[str, list[str]]:
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


def layers_of(network: Any) -> list[list[str]]:
    """Names of the modules that make up each layer of the backbone, from the bottom to the top.

    A layer is one module, or several where an architecture keeps the parts of its layers in lists of their own, as XLM
    does. The layers of a decoder follow those of its encoder.

    Args:
        network: with or without an adapter, but not its PEFT model.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for name in _numbered_blocks(network):
        parts = name.split(".")
        found.setdefault((*parts[:-2], parts[-1]), []).append(name)
    return list(found.values())


def chosen_layers(layers: Any, count: int) -> list[int]:
    """Numbers of the layers that `peft.layers` names, from 0, in their order.

    >>> chosen_layers("upper_half", 5), chosen_layers([3, -1], 5)
    ([2, 3, 4], [3, 4])

    Args:
        layers: all, upper_half, or numbers.
        count: number of layers of the network.

    Raises:
        UserError: the network has no such layers.
    """
    if layers == config.ALL:
        return list(range(count))
    if layers == config.UPPER_HALF:
        if count < 2:
            raise UserError(
                "peft.layers=upper_half, but the network has "
                + ("a single layer, which it may use several times; " if count else "no layers that could be told; ")
                + "set peft.layers=all."
            )
        return list(range(count // 2, count))
    if missing := [number for number in layers if not -count <= number < count]:
        there = f"{count} layers, 0 to {count - 1}" if count else "no layers that could be told"
        raise UserError(f"peft.layers={layers} names layer {missing[0]}, but the network has {there}.")
    found = sorted({number % count for number in layers})
    if len(found) < len(layers):
        raise UserError(f"peft.layers={layers} names a layer twice: the network has {count} layers, 0 to {count - 1}.")
    return found


def names_pattern(names: list[str]) -> str:
    r"""A regular expression that matches these names alone, with those that differ in their last part together.

    >>> print(names_pattern(["model.layers.2", "model.layers.3"]))
    model\.layers\.(?:2|3)
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        before, _, last = name.rpartition(".")
        groups.setdefault(before, []).append(last)
    return "|".join(rf"{re.escape(before)}\.(?:{'|'.join(lasts)})" for before, lasts in groups.items())


def _blocks(network: Any) -> Iterator[dict[str, nn.Module]]:
    """The linear layers of each block of the backbone, by name.

    A block is an item of the outermost list that holds linear layers. Layers outside the lists project the embeddings
    or belong to a pooler; they have no role.
    """
    yield from _numbered_blocks(network).values()


def _numbered_blocks(network: Any) -> dict[str, dict[str, nn.Module]]:
    """The linear layers of each block of the backbone, by name, by name of the block."""
    blocks: dict[str, dict[str, nn.Module]] = defaultdict(dict)
    prefix, text = f"{network.base_model_prefix}.", _text_part(network)
    for name, module in network.named_modules():
        numbered = re.match(r"(.*?\.\d+)(\.|$)", name)
        if numbered and name.startswith(prefix) and name.startswith(text) and is_linear(module):
            blocks[numbered[1]][name] = module
    return blocks


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
