"""Finds the module where a network's values first become NaN or infinite."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.models import last_layer


@dataclass
class Cause:
    """The first values that are not finite.

    Attributes:
        text: the module and its values, for a message.
        dtype: dtype of the values.
    """

    text: str
    dtype: torch.dtype


def describe(cause: Cause | None) -> str:
    """End of an error message: the cause, if it is known, and the settings that help."""
    known = f" ({cause.text})" if cause else ""
    if cause is not None and cause.dtype is torch.float16:
        return f"{known}. Set model.dtype=bfloat16 where the device has it, else float32, or lower optimizer.lr."
    return f"{known}. Lower optimizer.lr, lengthen optimizer.warmup or set trainer.gradient_clip_val."


def first_nonfinite(network: nn.Module, compute: Callable[[], Any]) -> Cause | None:
    """Find the first values that are not finite; None if all are finite.

    Parameters are checked before activations: an earlier optimizer step may have made them NaN or infinite.

    Args:
        network: its parameters and modules are checked.
        compute: repeats the forward pass in which the problem appeared.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            return Cause(f"the parameters {_short(name)} are not finite", parameter.dtype)
    # With the last layer as a whole: a pass that ends within it would leave its modules open.
    with torch.no_grad(), last_layer.whole(), _watched(network) as found:
        compute()
    return found[0] if found else None


@contextlib.contextmanager
def _watched(network: nn.Module) -> Iterator[list[Cause]]:
    """Record the first module with an input or output that is not finite, in a list of at most one cause."""
    found: list[Cause] = []
    within: list[str] = []
    names = {module: name for name, module in network.named_modules()}

    def before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        # A bad input that is not the output of a module was computed by the module that calls this one.
        given = (arguments, {name: value for name, value in keywords.items() if "mask" not in name})
        bad = next((value for value in _tensors(given) if _bad(value)), None)
        if not found and bad is not None:
            caller = within[-1] if within else "the batch"
            found.append(Cause(f"{caller} computed {_kind(bad)} for {_short(names[module])}", bad.dtype))
        within.append(_short(names[module]))

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        within.pop()
        bad = next((value for value in _tensors(output) if _bad(value)), None)
        if found or bad is None:
            return
        largest = max((float(value.abs().max()) for value in _tensors(arguments) if value.numel()), default=0.0)
        found.append(Cause(f"{_short(names[module])} gave {_kind(bad)} for input up to {largest:,.4g}", bad.dtype))

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if torch.is_tensor(value):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _bad(value: Tensor) -> bool:
    return not bool(torch.isfinite(value).all())


def _kind(value: Tensor) -> str:
    what = "NaN" if bool(torch.isnan(value).any()) else "infinity"
    return f"{what} in {str(value.dtype).removeprefix('torch.')}"


def _short(name: str) -> str:
    """A module's name without the names of PEFT's wrappers."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "") or "the network"
