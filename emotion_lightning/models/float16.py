"""Computing in float16 without leaving its range, for GPUs that have no bfloat16 (Colab's T4).

float16 ends at 65,504. Decoders such as Gemma go beyond it in three places: in the sum that runs through all layers,
which begins with embeddings times the root of the hidden size; in the product of the two halves of the feed-forward
part; and in what its last layer makes of that product. bfloat16, which they were trained in, has the range of float32.

So that sum is kept in float32 here, and tokens are brought into range before a layer's product in float16, each by a
power of two: such a division loses nothing, and the result is multiplied by it again in float32.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_LENGTH = 256.0
"""Length up to which a token's vector stays as it is, as nearly all do.

A product is at most this times the length of a row of weights, so that it stays in range for rows of up to 255; they
have some units. And of a vector this long float16's smallest numbers are a share of 1e-10, far below its precision.
"""


def widen(backbone: nn.Module) -> None:
    """Let a decoder compute in float16 without overflowing; in place, before an adapter is attached.

    Args:
        backbone: without the head: embeddings, layers of attention and feed-forward, norms.
    """
    for module in list(backbone.modules()):
        if isinstance(module, nn.Embedding):
            _become(module, _Float32Embedding)
        elif _is_gated(module):
            _become(module, _Gated)
    gated = {id(layer) for module in backbone.modules() if isinstance(module, _Gated) for layer in module.modules()}
    for module in list(backbone.modules()):
        # With a bias, the result is no longer in proportion to what goes in.
        if isinstance(module, nn.Linear) and module.bias is None and id(module) not in gated:
            _become(module, _WideLinear)


def within_range(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors in float16, each divided by a power of two, and these powers in float32.

    >>> within_range(torch.tensor([[3.0, 4.0], [3e5, 4e5]]))[1].flatten().tolist()
    [1.0, 2048.0]

    Args:
        vectors: [..., hidden].

    Returns:
        [..., hidden] and [..., 1].
    """
    length = torch.linalg.vector_norm(vectors.detach(), dim=-1, keepdim=True, dtype=torch.float32)
    _, exponent = torch.frexp(length / _LENGTH)
    power = torch.ldexp(torch.ones_like(length), exponent.clamp(min=0))
    return (vectors.float() / power).half(), power


class _Float32Embedding(nn.Embedding):
    """Embeddings, scaled as Gemma's are, in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """[batch, token] to [batch, token, hidden], float32."""
        vectors = nn.functional.embedding(input, self.weight, self.padding_idx).float()
        scale = getattr(self, "embed_scale", None)
        return vectors if scale is None else vectors * scale.float()


class _WideLinear(nn.Linear):
    """A linear layer without a bias: the product in float16, the result in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """[…, in] to […, out], float32."""
        small, power = within_range(input)
        return super().forward(small).float() * power


class _Gated(nn.Module):
    """A feed-forward part of the kind down(act(gate(x)) * up(x)): what lies between is computed in float32."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: Any

    def forward(self, x: Tensor) -> Tensor:
        """[…, hidden] to […, hidden], float32."""
        small, power = within_range(x)
        # Computed again in the backward pass: only the two halves are kept, in float16. It is the widest part of all.
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


def _become(module: nn.Module, kind: type) -> None:
    """Give a module the forward pass of another kind; names, weights and what PEFT takes it for stay."""
    if not isinstance(module, kind):
        module.__class__ = _joined(kind, type(module))  # type: ignore[arg-type]  # mypy finds classes not hashable


@functools.cache
def _joined(kind: type, own: type) -> type:
    # The name stays the library's, so that a printed network reads as it does there.
    return type(own.__name__, (kind, own), {"__module__": own.__module__})
