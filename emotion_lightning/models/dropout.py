"""Fast dropout on a CPU."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16
_KERNEL = "eager_with_quick_dropout"
"""Name under which `_attention` is registered in transformers."""
_LEARNED = ("s_aux", "sinks", "position_bias")
"""Arguments of networks that add learned values to attention scores; these networks keep their own function."""


def speed_up_dropout(network: nn.Module, *, kernels: Sequence[str] = ("eager",)) -> None:
    """Make dropout on a CPU faster: draw 16 random bits for each element, in layers and in attention.

    torch draws a double-precision number for each element on one thread, which takes a fifth of a training step of
    MiniLM. The dropout rate is exact to 1 in 65,536. Do not use this for compiled networks: they have their own
    dropout kernels.

    Args:
        network: its modules are changed in place.
        kernels: attention kernels, by their transformers names, that `_attention` may replace if attention has dropout.
    """
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.__class__ = _Dropout
    settings = getattr(network, "config", None)
    if getattr(settings, "_attn_implementation", None) in kernels and _attention_rate(settings) > 0:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import eager_mask

        AttentionInterface.register(_KERNEL, _attention)
        AttentionMaskInterface.register(_KERNEL, eager_mask)
        settings._attn_implementation = _KERNEL  # type: ignore[union-attr]  # a config of transformers


def _attention_rate(settings: Any) -> float:
    # BERT uses the first name, decoders use the second.
    return getattr(settings, "attention_probs_dropout_prob", 0) or getattr(settings, "attention_dropout", 0) or 0


def dropped_out(values: Tensor, rate: float) -> Tensor:
    """Dropout: set elements to 0 with probability `rate` and divide the others by 1 - `rate`."""
    if rate == 0:
        return values
    if rate == 1:
        return values * 0
    kept = max(1, round((1 - rate) * _LEVELS))
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[: values.numel()].view(values.shape)
    # A multiplication, because masked_fill takes ten times as long.
    return values * (bits < kept - _LEVELS // 2) * (_LEVELS / kept)


class _Dropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        """Apply dropout in training mode."""
        return dropped_out(input, self.p) if self.training else input


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as in transformers' eager kernels, with fast dropout.

    Returns:
        The output, [batch, token, head, size], and the attention weights, [batch, head, token, token].
    """
    if any(others.get(name) is not None for name in _LEARNED):
        own = sys.modules[type(module).__module__].eager_attention_forward
        return own(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **others)
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query, key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:  # Gemma 2
        scores = (scores / softcap).tanh() * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = dropped_out(scores.softmax(dim=-1).to(query.dtype), dropout if module.training else 0.0)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights
