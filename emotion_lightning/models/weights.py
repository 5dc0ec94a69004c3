"""Whether the weights of a checkpoint are those that its network needs: transformers makes up what is missing."""

from collections.abc import Collection, Iterable
from typing import Any

from emotion_lightning.errors import UserError

_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "masked_bias")
"""Constants that older versions of transformers saved beside the weights."""


def prefix(network: Any, found: dict[str, Any]) -> str | None:
    """What stands before every name in a checkpoint, such as `module.`, if that is why the network found no weights.

    Args:
        network: as from_pretrained gives it.
        found: its `output_loading_info`.

    Returns:
        The prefix to take away; None where nothing in the network is missing, where no single prefix explains it, and
        where the checkpoint holds several networks behind prefixes of their own.
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


def check(network: Any, found: dict[str, Any], *, new: Collection[str], full: bool, head: list[str], path: str) -> None:
    """Raise UserError where the network holds random weights that nothing trains, or a checkpoint holds more than it.

    Args:
        network: as from_pretrained gives it.
        found: its `output_loading_info`.
        new: names of modules that may be new: they are trained and stored, or nothing is computed with them.
        full: whether every weight is trained and stored; then every module around the pretrained network may be new.
        head: what model.head is, to be told.
        path: of the model, to be told.
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
        # Other parts are heads for other tasks.
        if _inner(network, name).split(".")[0] in parts and name.split(".")[-1] not in _BUFFERS
    )
    if surplus:
        raise UserError(
            f"The model {path} holds {_listed(surplus)} that its network has no place for by its config.json; take the "
            "config.json that belongs to it."
        )


def made_up(found: dict[str, Any]) -> list[str]:
    """Names of the weights that are random: missing, or of another shape in the checkpoint."""
    return [*found["missing_keys"], *(name for name, _, _ in found["mismatched_keys"])]


def check_shapes(network: Any, mismatched: Iterable[tuple[str, Any, Any]], *, head: str, path: str) -> None:
    """Raise UserError for weights of another shape than their config.json says; a head may be for other labels."""
    wrong = [(name, there, here) for name, there, here in sorted(mismatched) if head not in name.split(".")]
    for name, part in network.named_modules():
        # transformers does not look at what it quantises.
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
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{more})"


def _backbone(network: Any) -> Any:
    return getattr(network, network.base_model_prefix)


def _in_backbone(network: Any, name: str) -> bool:
    return name.startswith(f"{network.base_model_prefix}.")


def _inner(network: Any, name: str) -> str:
    """A name without the backbone's, which checkpoints of the backbone alone do not have."""
    return name.removeprefix(f"{network.base_model_prefix}.")
