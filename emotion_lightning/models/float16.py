"""Prevents overflow in float16, for GPUs without bfloat16 (Colab's T4).

The largest float16 number is 65,504. Decoders such as Gemma exceed it in three places: in the residual stream, which
starts with embeddings times the square root of the hidden size; in the product of the two halves of the feed-forward
block; and in the output of that block's last layer. They were trained in bfloat16, which has the range of float32.

Here the residual stream stays in float32. Before a layer multiplies in float16, each token's vector is divided by a
power of two that brings it into range, which loses no precision. The result is multiplied by that power in float32.
"""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from emotion_lightning.models.patched import become
from emotion_lightning.models.roles import attention_part

_LENGTH = 256.0
"""A token's vector with a norm up to this is not scaled; nearly all vectors are below it.

An output is at most this norm times the norm of a row of weights. It stays in range for rows with a norm of up to 255;
real rows have a norm of a few units. Relative to a vector of this norm, float16's smallest number is about 1e-10, far
below float16's precision.
"""


def patch_decoder(backbone: nn.Module) -> None:
    """Make a decoder compute in float16 without overflow; call it before an adapter is attached.

    Args:
        backbone: the decoder without its head; changed in place.
    """
    for module in list(backbone.modules()):
        if isinstance(module, nn.Embedding):
            become(module, _Float32Embedding)
        elif _is_gated(module):
            become(module, _Gated)
    gated = {id(layer) for module in backbone.modules() if isinstance(module, _Gated) for layer in module.modules()}
    for module in list(backbone.modules()):
        # With a bias, the output does not scale with the input.
        if isinstance(module, nn.Linear) and module.bias is None and id(module) not in gated:
            become(module, _WideLinear)
    for module in list(backbone.modules()):
        parts = [child for name, child in module.named_children() if attention_part(name)]
        if sum(isinstance(part, _WideLinear) for part in parts) > 1:
            become(module, _SharesRange)


def within_range(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each vector by a power of two that brings it into the range of float16.

    >>> within_range(torch.tensor([[3.0, 4.0], [3e5, 4e5]]))[1].flatten().tolist()
    [1.0, 2048.0]

    Args:
        vectors: [..., hidden].

    Returns:
        The divided vectors, [..., hidden], float16, and the powers, [..., 1], float32.
    """
    length = torch.linalg.vector_norm(vectors.detach(), dim=-1, keepdim=True, dtype=torch.float32)
    _, exponent = torch.frexp(length / _LENGTH)
    power = torch.ldexp(torch.ones_like(length), exponent.clamp(min=0))
    return (vectors.float() / power).half(), power


class _Float32Embedding(nn.Embedding):
    """Embeddings in float32, with Gemma's scale if the layer has one."""

    def forward(self, input: Tensor) -> Tensor:
        """[batch, token] to [batch, token, hidden], float32."""
        vectors = nn.functional.embedding(input, self.weight, self.padding_idx).float()
        scale = getattr(self, "embed_scale", None)
        return vectors if scale is None else vectors * scale.float()


class _WideLinear(nn.Linear):
    """A linear layer without a bias that multiplies in float16 and returns float32."""

    def forward(self, input: Tensor) -> Tensor:
        """[…, in] to […, out], float32."""
        known = _known.get()
        if known is None:
            small, power = within_range(input)
        else:
            if id(input) not in known:
                known[id(input)] = (input, *within_range(input))  # kept, so that no other tensor gets its id
            _, small, power = known[id(input)]
        return super().forward(small).float() * power


_known: ContextVar[dict[int, tuple[Tensor, Tensor, Tensor]] | None] = ContextVar("float16_known", default=None)
"""What an attention has brought into range, with the tensors that it came from, by their ids."""


class _SharesRange(nn.Module):
    """An attention whose queries, keys and values read one tensor, which is brought into range once."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the attention's own."""
        before = _known.set({})
        try:
            return super().forward(*arguments, **named)
        finally:
            _known.reset(before)


class _Gated(nn.Module):
    """A gated feed-forward block, down(act(gate(x)) * up(x)); everything between its layers is in float32."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: Any

    def forward(self, x: Tensor) -> Tensor:
        """[…, hidden] to […, hidden], float32."""
        small, power = within_range(x)
        # Recomputed in the backward pass, so that only the two halves are stored, in float16: these are the widest
        # activations of the network.
        product, power = checkpoint(
            self._product,
            self.gate_proj(small),
            self.up_proj(small),
            power,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return self.down_proj(product).float() * power

    def _product(self, gate: Tensor, up: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        return within_range(self.act_fn(gate.float() * power) * (up.float() * power))


def _is_gated(module: nn.Module) -> bool:
    layers = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    return hasattr(module, "act_fn") and all(isinstance(layer, nn.Linear) and layer.bias is None for layer in layers)
