"""Checks that stored weights are those that a network needs: transformers fills missing ones with random numbers."""

from collections.abc import Collection, Iterable
from typing import Any

from emotion_lightning.errors import UserError, counted

_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "masked_bias")
"""Constants that older versions of transformers saved with the weights."""


def prefix(network: Any, found: dict[str, Any]) -> str | None:
    """Find a prefix of the stored names, such as `module.`, that keeps the network from finding its weights.

    Args:
        network: as returned by from_pretrained.
        found: its `output_loading_info`.

    Returns:
        The prefix to remove. None if the backbone lacks no weight, if no single prefix explains what it lacks, or if
        the file holds several networks, each with its own prefix.
    """
    missing = [name for name in found["missing_keys"] if _in_backbone(network, name)]
    if not missing:
        return None
    name = max(missing, key=lambda name: (name.count("."), name))
    for ending in (name, _inner(network, name)):
        before = {other[: -len(ending)] for other in found["unexpected_keys"] if other.endswith(f".{ending}")}
        if before:
            return before.pop() if len(before) == 1 else None
    return None


def check_missing(
    network: Any, found: dict[str, Any], *, new: Collection[str], full: bool, head: list[str], path: str
) -> None:
    """Raise UserError if random weights would stay untrained, or if the file has weights that the network lacks.

    Args:
        network: as returned by from_pretrained.
        found: its `output_loading_info`.
        new: modules that may have random weights, because they are trained and stored, or because they are not used.
        full: whether all weights are trained and stored; then every module outside the backbone may be random.
        head: value of model.head, for the message.
        path: folder or hub id of the model, for the message.
    """
    missing = sorted(
        name
        for name in found["missing_keys"]
        if not set(name.split(".")) & set(new) and not (full and not _in_backbone(network, name))
    )
    if missing:
        around = [name.split(".")[0] for name in missing if not _in_backbone(network, name)]
        mend = "; take a whole copy of it, or the config.json that belongs to it."
        if len(around) == len(missing):
            names = ",".join(dict.fromkeys([*around, *head]))
            mend = f", and they would stay random. model.head=[{names}] trains and stores them."
        raise UserError(f"The model {path} lacks {_listed(missing)}{mend}")
    parts = {name for name, _ in _backbone(network).named_children()}
    surplus = sorted(
        name
        for name in found["unexpected_keys"]
        # Other parts belong to heads for other tasks.
        if _inner(network, name).split(".")[0] in parts and name.split(".")[-1] not in _BUFFERS
    )
    if surplus:
        raise UserError(
            f"The model {path} holds {_listed(surplus)} that its network has no place for by its config.json; take the "
            "config.json that belongs to it."
        )


def made_up(found: dict[str, Any]) -> list[str]:
    """Names of the weights that are random because they were missing or had another shape in the file."""
    return [*found["missing_keys"], *(name for name, _, _ in found["mismatched_keys"])]


def check_shapes(network: Any, mismatched: Iterable[tuple[str, Any, Any]], *, head: str, path: str) -> None:
    """Raise UserError if weights have another shape than config.json says; the head may, for other labels."""
    wrong = [(name, there, here) for name, there, here in sorted(mismatched) if head not in name.split(".")]
    for name, part in network.named_modules():
        # transformers does not check the shapes of weights that it quantises.
        if (state := getattr(getattr(part, "weight", None), "quant_state", None)) is not None:
            here = (part.out_features, part.in_features)
            if tuple(state.shape) != here:
                wrong.append((f"{name}.weight", state.shape, here))
    for name, there, here in wrong[:1]:
        raise UserError(
            f"The model {path} cannot be loaded: {name} is {tuple(there)} in its weights and {tuple(here)} by its "
            "config.json."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{counted(len(names), 'weight')} ({', '.join(names[:3])}{more})"


def _backbone(network: Any) -> Any:
    return getattr(network, network.base_model_prefix)


def _in_backbone(network: Any, name: str) -> bool:
    return name.startswith(f"{network.base_model_prefix}.")


def _inner(network: Any, name: str) -> str:
    """A name without the prefix of the backbone, which files of the backbone alone do not have."""
    return name.removeprefix(f"{network.base_model_prefix}.")
