"""Liger's kernels are used on CUDA where they are installed, and nowhere else."""

import importlib.util
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from emotion_lightning.models import liger


class Block(nn.Module):
    """A gated block as transformers has it."""

    def __init__(self, act: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(64, 128, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(128, 64, bias=False)
        self.act_fn = ACT2FN[act]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def parts(*acts: str) -> nn.Sequential:
    torch.manual_seed(1)
    norms = [GemmaRMSNorm(64), LlamaRMSNorm(64)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.add_(0.3 * torch.randn(64))
    return nn.Sequential(*norms, *(Block(act) for act in acts)).requires_grad_(False)


class StandIn:
    """Liger's functions, computed by torch."""

    class LigerRMSNormFunction:
        @staticmethod
        def apply(x: Tensor, weight: Tensor, eps: float, offset: float, mode: str, in_place: bool) -> Tensor:
            assert not in_place
            assert (offset, mode) in ((1.0, "gemma"), (0.0, "llama"))
            wide = x.float()
            normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
            return (normal * (offset + weight.float())).to(x.dtype)

    class LigerGELUMulFunction:
        @staticmethod
        def apply(gate: Tensor, up: Tensor) -> Tensor:
            return nn.functional.gelu(gate, approximate="tanh") * up

    class LigerSiLUMulFunction:
        @staticmethod
        def apply(gate: Tensor, up: Tensor) -> Tensor:
            return nn.functional.silu(gate) * up


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_module_gets_the_kernel_that_gives_its_results(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    network = parts("gelu_pytorch_tanh", "silu", "relu").to(dtype)
    x = torch.randn(3, 5, 64, dtype=dtype)
    expected = [part(x) for part in network]
    monkeypatch.setattr(liger, "operations", lambda device: StandIn)
    assert liger.use_kernels(network, dtype=dtype) == 4
    kinds = [liger._AfterWeight, liger._BeforeWeight, liger._Gelu, liger._Silu]
    assert all(isinstance(part, kind) for part, kind in zip(network, kinds, strict=False))
    assert type(network[4]) is Block
    for part, before in zip(network, expected, strict=True):
        torch.testing.assert_close(part(x), before, rtol=0.02, atol=0.02)


def test_blocks_with_ia3_at_their_end_and_those_of_float16_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "operations", lambda device: StandIn)
    assert liger.use_kernels(parts("silu").half(), dtype=torch.float16) == 2
    network = parts("silu")
    network[2].down_proj.is_feedforward = True
    assert liger.use_kernels(network, dtype=torch.float32) == 2


def test_a_kernel_that_fails_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(liger, "operations", lambda device: types.SimpleNamespace())
    network = parts("silu")
    kinds = [type(part) for part in network]
    assert liger.use_kernels(network, dtype=torch.float32) == 0
    assert [type(part) for part in network] == kinds
    assert "Liger's kernel for GemmaRMSNorm is not used" in caplog.text


def test_on_a_cpu_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail("looked for it"))
    assert liger.operations(torch.device("cpu")) is None
    assert liger.use_kernels(parts("silu"), dtype=torch.float32) == 0


def test_on_cuda_it_is_taken_where_it_can_be_imported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    cuda = torch.device("cuda", 0)
    for name in [name for name in sys.modules if name.split(".")[0] == "liger_kernel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert liger.operations(cuda) is None
    monkeypatch.undo()
    package = tmp_path / "liger_kernel"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "ops.py").write_text("import no_triton_here")
    assert liger.operations(cuda) is None
    assert "Liger's kernels are not used: No module named 'no_triton_here'" in caplog.text
    (package / "ops.py").write_text("found = True")
    importlib.invalidate_caches()
    taken = liger.operations(cuda)
    assert taken is not None and taken.found
    monkeypatch.delitem(sys.modules, "liger_kernel.ops")
    monkeypatch.delitem(sys.modules, "liger_kernel")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_give_the_results_and_gradients_of_transformers(dtype: Any) -> None:
    pytest.importorskip("liger_kernel")
    network = parts("gelu_pytorch_tanh", "silu").to("cuda", dtype)
    x = torch.randn(3, 5, 64, dtype=dtype, device="cuda")

    def results() -> list[tuple[Tensor, Tensor]]:
        found = []
        for part in network:
            given = x.clone().requires_grad_()
            y = part(given)
            y.float().square().sum().backward()
            assert given.grad is not None
            found.append((y.detach(), given.grad))
        return found

    plain = results()
    assert liger.use_kernels(network, dtype=dtype) == 4
    rounding = 1e-4 if dtype is torch.float32 else 0.03
    for one, other in zip(plain, results(), strict=True):
        for a, b in zip(one, other, strict=True):
            assert float((a - b).abs().max()) <= rounding * float(a.abs().max())
