"""RMS norms that keep their input alone give transformers' results bit by bit, and its gradients to rounding."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emotion_lightning.models import rms_norm

NORMS = {
    "gemma": ("GemmaRMSNorm", rms_norm.AfterWeight),
    "gemma2": ("Gemma2RMSNorm", rms_norm.AfterWeight),
    "gemma3": ("Gemma3RMSNorm", rms_norm.AfterWeight),
    "llama": ("LlamaRMSNorm", rms_norm.BeforeWeight),
    "qwen2": ("Qwen2RMSNorm", rms_norm.BeforeWeight),
    "qwen3": ("Qwen3RMSNorm", rms_norm.BeforeWeight),
    "mistral": ("MistralRMSNorm", rms_norm.BeforeWeight),
}


def norm_of(model_type: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    norm = getattr(module, NORMS[model_type][0])(64)
    with torch.no_grad():
        norm.weight.add_(0.3 * torch.randn(64, generator=torch.Generator().manual_seed(1)))
    norm.weight.requires_grad = False
    return nn.Sequential(norm.to(dtype))


def results(norm: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, int]:
    """Result, gradient of the input, and bytes kept for the backward pass."""
    chance = torch.Generator().manual_seed(2)
    x = (3 * torch.randn(4, 7, 64, generator=chance)).to(dtype).requires_grad_()
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        y = norm(x)
    y.backward(torch.randn(y.shape, generator=chance).to(dtype))
    assert x.grad is not None
    return y.detach(), x.grad, sum(kept.values())


@pytest.mark.parametrize("model_type", NORMS)
def test_results_are_the_same_and_gradients_to_rounding(model_type: str) -> None:
    norm = norm_of(model_type)
    y, gradient, more = results(norm, torch.bfloat16)
    assert rms_norm.keep_inputs(norm) == 1
    assert isinstance(norm[0], NORMS[model_type][1])
    again, other, fewer = results(norm, torch.bfloat16)
    assert torch.equal(y, again)
    assert torch.allclose(gradient, other, rtol=1e-2, atol=1e-2 * float(gradient.abs().mean()))
    assert fewer == 4 * 7 * (64 * 2 + 4)
    assert more > 4 * 7 * 64 * 4


@pytest.mark.parametrize("model_type", ["gemma", "llama"])
def test_gradients_are_as_near_to_the_true_ones(model_type: str) -> None:
    exact = results(norm_of(model_type, torch.float32), torch.float32)[1]
    norm = norm_of(model_type)
    plain = results(norm, torch.bfloat16)[1].float()
    rms_norm.keep_inputs(norm)
    ours = results(norm, torch.bfloat16)[1].float()
    assert (ours - exact).norm() <= 1.02 * (plain - exact).norm()


def test_in_float32_nothing_changes() -> None:
    norm = norm_of("gemma", torch.float32)
    before = results(norm, torch.float32)
    assert rms_norm.keep_inputs(norm) == 1
    after = results(norm, torch.float32)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_trained_weights_and_other_norms_are_left_alone() -> None:
    norm = norm_of("gemma")
    norm[0].weight.requires_grad = True
    assert rms_norm.keep_inputs(norm) == 0

    class HalfRMSNorm(type(norm_of("gemma")[0])):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0.5

    other = HalfRMSNorm(64)
    other.weight.requires_grad = False
    assert rms_norm.keep_inputs(nn.Sequential(other.bfloat16())) == 0
    assert rms_norm.keep_inputs(nn.Sequential(nn.LayerNorm(64).requires_grad_(False))) == 0
