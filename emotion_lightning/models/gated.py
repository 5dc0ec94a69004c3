"""The gated feed-forward block with IA3, down(act(gate(x)) * up(x) * vector), with less kept for the backward pass.

Of the product, autograd keeps the gate, its activation, the other half, and the product in float32 for IA3's vector:
10 bytes a number in bfloat16. Here it keeps the two halves, 4 bytes, and computes the rest again. Results and gradients
are the same bit by bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.models.evaluating import evaluating
from emotion_lightning.models.patched import become, restore


def keep_halves(network: nn.Module, *, dtype: torch.dtype) -> int:
    """Let gated feed-forward blocks with IA3 keep only their halves in training; the number of blocks that do.

    Do not use this for compiled networks, which choose themselves what they keep.

    Args:
        network: with its adapter and weights.
        dtype: compute dtype. In float16, blocks have a forward pass of their own, which keeps the halves too.
    """
    known: dict[Any, bool] = {}
    changed = 0
    for module in list(network.modules()) if dtype is not torch.float16 else []:
        if not _has_vector(module):
            continue
        kind = type(module), type(module.act_fn), type(module.down_proj)
        if kind not in known:  # blocks repeat each other
            known[kind] = _is_same(module, dtype)
        if known[kind]:
            become(module, _KeepsHalves)
            changed += 1
    return changed


def _has_vector(module: Any) -> bool:
    """Whether a module has the parts of a gated feed-forward block, as transformers names them, and IA3 at its end."""
    if not all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
        return False
    return hasattr(module.down_proj, "ia3_l") and bool(getattr(module.down_proj, "is_feedforward", False))


def _is_same(module: Any, dtype: torch.dtype) -> bool:
    """Whether a block gives the same where it keeps its halves: its class may do more than its parts say."""
    device = next(module.parameters()).device
    chance = torch.Generator().manual_seed(1)
    given = torch.randn(1, 2, module.gate_proj.in_features, generator=chance).to(device, dtype)
    try:
        with evaluating(module, dtype):
            expected = module(given)
            become(module, _KeepsHalves)
            try:
                return torch.equal(expected, module.through_halves(given, module.vector()))
            finally:
                restore(module)
    except Exception:  # each architecture has its own ways
        return False


class _KeepsHalves(nn.Module):
    """A gated feed-forward block whose last layer has IA3."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: Any
    act_fn: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """[…, hidden] to […, hidden]."""
        vector = self.vector() if self.training and torch.is_grad_enabled() else None
        return super().forward(x) if vector is None else self.through_halves(x, vector)

    def through_halves(self, x: Tensor, vector: Tensor) -> Tensor:
        """The block's result with IA3's vector, [inner]."""
        product: Tensor = _Product.apply(self.gate_proj(x), self.up_proj(x), vector, self.act_fn)
        return self.down_proj.base_layer(product)

    def vector(self) -> Tensor | None:
        """IA3's vector, [inner]; None where PEFT has turned it off, merged it, or put several into one."""
        layer = self.down_proj
        names = [name for name in layer.active_adapters if name in layer.ia3_l]
        if layer.disable_adapters or layer.merged or len(names) != 1:
            return None
        return layer.ia3_l[names[0]].flatten()


class _Product(torch.autograd.Function):
    """act(gate) * up * vector, multiplied by the vector in its own dtype, as PEFT does."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, vector: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(gate, up, vector)
        ctx.act = act
        kind = gate.device.type
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        product = act(gate) * up
        return (product.to(vector.dtype) * vector).to(product.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, vector = ctx.saved_tensors
        kind, dtype, enabled = ctx.autocast
        # Only the activation needs autograd, since there are many of them.
        with torch.enable_grad(), torch.autocast(kind, dtype, enabled=enabled):
            leaf = gate.detach().requires_grad_()
            activated = ctx.act(leaf)
        hidden = activated.detach()
        wide = gradient.to(vector.dtype)
        of_vector = None
        if ctx.needs_input_grad[2]:
            product = (hidden * up).to(vector.dtype)
            of_vector = (wide * product).flatten(0, -2).sum(0)
        of_product = (wide * vector).to(gradient.dtype)
        of_gate = torch.autograd.grad(activated, leaf, of_product * up)[0] if ctx.needs_input_grad[0] else None
        return of_gate, of_product * hidden if ctx.needs_input_grad[1] else None, of_vector, None
