"""RMS norms in bfloat16 that keep their input and one number a token for the backward pass.

transformers' norms compute in float32, and autograd keeps the input in float32: 4 bytes a number. The input itself has
2, and with the inverse of its root mean square the rest is computed again. Results are the same bit by bit, gradients
to rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.models.patched import become


def keep_inputs(network: nn.Module) -> int:
    """Let RMS norms with frozen weights keep only their inputs; the number of norms that do.

    Do not use this for compiled networks, which choose themselves what they keep.
    """
    changed = 0
    for module in list(network.modules()):
        kind = kind_of(module)
        if kind is not None and not module.weight.requires_grad:
            become(module, kind)
            changed += 1
    return changed


def kind_of(module: Any) -> type["_KeepsInput"] | None:
    """Which kind of RMS norm a module is, by what it gives; None if it is none of them."""
    weight = getattr(module, "weight", None)
    if "rmsnorm" not in type(module).__name__.lower() or not isinstance(weight, nn.Parameter):
        return None
    if weight.ndim != 1 or any(True for _ in module.children()):
        return None
    return next((kind for kind in (AfterWeight, BeforeWeight) if _is_same(module, kind)), None)


def epsilon(module: Any) -> float:
    """What a norm adds to the mean square."""
    found = getattr(module, "eps", None)
    return float(module.variance_epsilon if found is None else found)


def _is_same(module: Any, kind: type["_KeepsInput"]) -> bool:
    """Whether a norm is of a kind: its result for a few numbers in bfloat16 is the same bit by bit."""
    chance = torch.Generator().manual_seed(1)
    given = torch.randn(2, len(module.weight), generator=chance).to(module.weight.device, torch.bfloat16)
    try:
        with torch.no_grad():
            return torch.equal(module(given), kind.computed(module, given)[0])
    except Exception:  # each architecture has its own ways
        return False


class _KeepsInput(nn.Module):
    """An RMS norm."""

    weight: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """[…, hidden] to […, hidden]."""
        # In float32 there is nothing to gain. Without a backward pass nothing is kept at all.
        if x.dtype is not torch.bfloat16 or not x.requires_grad:
            return super().forward(x)
        found: Tensor = _Norm.apply(x, self)
        return found

    @classmethod
    def computed(cls, module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and the inverse of the root mean square, […, 1], float32."""
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon(module))
        return cls.weighted(module, wide * inverse, x.dtype), inverse

    @classmethod
    def weighted(cls, module: Any, normal: Tensor, dtype: torch.dtype) -> Tensor:
        """The result, from the normalised input in float32."""
        raise NotImplementedError

    @classmethod
    def factor(cls, module: Any) -> Tensor:
        """What the normalised input is multiplied by, [hidden], float32."""
        raise NotImplementedError


class AfterWeight(_KeepsInput):
    """A norm as Gemma's: multiplied by 1 + weight, then rounded."""

    @classmethod
    def weighted(cls, module: Any, normal: Tensor, dtype: torch.dtype) -> Tensor:
        """The result, from the normalised input in float32."""
        return (normal * cls.factor(module)).to(dtype)

    @classmethod
    def factor(cls, module: Any) -> Tensor:
        """1 + weight."""
        return 1.0 + module.weight.float()


class BeforeWeight(_KeepsInput):
    """A norm as Llama's: rounded, then multiplied by the weight."""

    @classmethod
    def weighted(cls, module: Any, normal: Tensor, dtype: torch.dtype) -> Tensor:
        """The result, from the normalised input in float32."""
        return module.weight * normal.to(dtype)

    @classmethod
    def factor(cls, module: Any) -> Tensor:
        """The weight."""
        return module.weight.float()


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any) -> Tensor:
        found, inverse = module.computed(module, x)
        ctx.save_for_backward(x, inverse)
        ctx.module = module
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, inverse = ctx.saved_tensors
        normal = x.float().mul_(inverse)
        weighted = gradient.float() * ctx.module.factor(ctx.module)
        mean = (weighted * normal).mean(-1, keepdim=True)
        return weighted.sub_(normal.mul_(mean)).mul_(inverse).to(x.dtype), None
