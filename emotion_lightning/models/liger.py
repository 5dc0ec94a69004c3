"""Liger's kernels for CUDA: RMS norms and gated products in one pass each, where the extra `liger` is installed.

They are Liger's functions of autograd in the modules of one network. Liger's own `apply_liger_kernel_to_gemma` and its
like also replace classes and functions inside transformers, so that networks on a CPU in the same process would fail.
Its rotary positions can be had in that way alone, so they are not used.
"""

import importlib.util
import logging
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.models import rms_norm
from emotion_lightning.models.evaluating import evaluating
from emotion_lightning.models.patched import become, restore

log = logging.getLogger(__name__)


def operations(device: torch.device) -> Any | None:
    """Liger's functions of autograd; None on other devices than CUDA, and where Liger or Triton is missing."""
    if device.type != "cuda" or importlib.util.find_spec("liger_kernel") is None:
        return None
    try:
        from liger_kernel import ops
    except ImportError as error:
        log.warning("Liger's kernels are not used: %s.", error)
        return None
    return ops


def use_kernels(network: nn.Module, *, dtype: torch.dtype) -> int:
    """Let RMS norms and gated feed-forward blocks on CUDA use Liger's kernels; the number of modules that do.

    Each kind of module is computed both ways first; one whose results differ by more than rounding is left alone.
    Blocks with IA3 on their last layer are left to `gated`, whose function knows its vector.

    Args:
        network: with its adapter and weights, not compiled.
        dtype: compute dtype. In float16, gated blocks have a forward pass of their own.
    """
    device = next(network.parameters()).device
    if operations(device) is None:
        return 0
    known: dict[Any, type | None] = {}
    changed = 0
    for module in list(network.modules()):
        kinds = _kinds(module, dtype)
        if not kinds:
            continue
        if (key := _key(module)) not in known:
            known[key] = next((kind for kind in kinds if _is_same(module, kind, dtype)), None)
        if (kind := known[key]) is not None:
            become(module, kind)
            changed += 1
    if changed:
        log.info("%d modules use Liger's kernels.", changed)
    return changed


def _kinds(module: Any, dtype: torch.dtype) -> list[type]:
    """What a module may become."""
    norm = rms_norm.kind_of(module)
    if norm is not None:
        return [_AfterWeight if norm is rms_norm.AfterWeight else _BeforeWeight]
    parts = all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))
    if not parts or dtype is torch.float16 or getattr(module.down_proj, "is_feedforward", False):
        return []
    return [_Gelu, _Silu]


def _key(module: Any) -> Any:
    """Modules with the same key are of the same kind."""
    parts = [getattr(module, name, None) for name in ("act_fn", "down_proj")]
    return type(module), *map(type, parts), tuple(module.weight.shape) if hasattr(module, "weight") else None


def _is_same(module: Any, kind: type, dtype: torch.dtype) -> bool:
    """Whether a module gives the same with Liger's kernel, to rounding."""
    device = next(module.parameters()).device
    width = len(module.weight) if hasattr(module, "weight") else module.gate_proj.in_features
    given = torch.randn(2, 4, width, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    try:
        with evaluating(module, dtype):
            expected = module(given)
            become(module, kind)
            try:
                found = module(given)
            finally:
                restore(module)
        size = float(expected.abs().max())
        return found.dtype is expected.dtype and float((found - expected).abs().max()) <= _ROUNDING[dtype] * size
    except Exception as error:  # Triton compiles a kernel when it is first called, which needs a C compiler
        log.warning("Liger's kernel for %s is not used: %s", type(module).__name__, error)
        return False


_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.003}
"""Largest difference of results, of their size, that counts as rounding."""


class _Norm(nn.Module):
    """An RMS norm."""

    offset: float
    mode: str

    def forward(self, x: Tensor) -> Tensor:
        """[…, hidden] to […, hidden]."""
        ops = operations(x.device)
        if ops is None:  # moved to another device
            return super().forward(x)
        # Not in place: the gradient that it would write into is also that of the residual.
        found: Tensor = ops.LigerRMSNormFunction.apply(
            x, self.weight, rms_norm.epsilon(self), self.offset, self.mode, False
        )
        return found


class _AfterWeight(_Norm):
    """A norm as Gemma's."""

    offset, mode = 1.0, "gemma"


class _BeforeWeight(_Norm):
    """A norm as Llama's."""

    offset, mode = 0.0, "llama"


class _Gated(nn.Module):
    """A gated feed-forward block."""

    function: str
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """[…, hidden] to […, hidden]."""
        ops = operations(x.device)
        if ops is None:
            return super().forward(x)
        found: Tensor = self.down_proj(getattr(ops, self.function).apply(self.gate_proj(x), self.up_proj(x)))
        return found


class _Gelu(_Gated):
    """A block as Gemma's."""

    function = "LigerGELUMulFunction"


class _Silu(_Gated):
    """A block as Llama's."""

    function = "LigerSiLUMulFunction"
