"""What is patched in the libraries is still wrong there.

A test that fails here says that a library has mended its part: the patch that it names can be deleted, once the
smallest version of pyproject.toml is the mended one.
"""

import subprocess
import sys
import time
from pathlib import Path

import peft
import pytest
import torch
from torch import nn

from emotion_lightning.models import dropout

bitsandbytes = pytest.importorskip("bitsandbytes")
HAS_BF16_KERNEL = sys.platform == "linux" and "avx512_bf16" in Path("/proc/cpuinfo").read_text()


class Small(nn.Module):
    """A norm, a 4-bit layer and a head of two layers."""

    is_loaded_in_4bit = True

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        self.head = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2))
        self.to("cpu")  # quantises the layer

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.layer(vectors)


def test_ia3_on_4_bit_weights_returns_float32() -> None:
    network = peft.get_peft_model(Small(), peft.IA3Config(target_modules=["layer"], feedforward_modules=[]))
    assert network(torch.ones(1, 64, dtype=torch.bfloat16)).dtype is torch.float32, "adapter.keep_dtype"


def test_ln_tuning_leaves_its_head_in_a_wrapper_when_merged() -> None:
    network = peft.get_peft_model(Small(), peft.LNTuningConfig(target_modules=["norm"], modules_to_save=["head"]))
    merged = network.merge_and_unload()
    assert type(merged.head) is not nn.Sequential, "adapter.merge_adapter"


@pytest.mark.skipif(not HAS_BF16_KERNEL, reason="needs a CPU with AVX512_BF16")
def test_an_evaluation_pass_takes_the_gradients_of_4_bit_layers_on_a_cpu() -> None:
    layer = Small().layer.eval()
    with torch.no_grad():
        layer(torch.ones(1, 64, dtype=torch.bfloat16))
    vectors = torch.ones(1, 64, dtype=torch.bfloat16, requires_grad=True)
    output = layer(vectors)
    if output.requires_grad:
        # torch 2.13 may record the step all the same, with this warning, but it passes no gradient on.
        with pytest.warns(UserWarning, match="an autograd kernel was not registered"):
            output.sum().backward()
    assert vectors.grad is None, "backbone._keep_gradients_on_cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is a function of glibc")
def test_glibc_gives_large_blocks_back_to_the_system_at_once() -> None:
    code = (
        "import resource\n"
        "from emotion_lightning.runs import environment\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(2):\n"
        "        b'x' * (40 << 20)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "given_back = faults()\n"
        "environment.keep_memory()\n"
        "faults()\n"
        "raise SystemExit(0 if given_back > 10 * faults() else 'environment.keep_memory')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.slow  # a time, which a busy machine changes
def test_dropout_of_torch_is_slow_on_a_cpu() -> None:
    values = torch.ones(100_000)

    def fastest(layer: nn.Module) -> float:
        times = []
        for _ in range(30):
            since = time.perf_counter()
            layer(values)
            times.append(time.perf_counter() - since)
        return min(times)

    ours = nn.Sequential(nn.Dropout(0.1))
    dropout.speed_up_dropout(ours)
    assert fastest(nn.Dropout(0.1)) > 1.5 * fastest(ours), "dropout.speed_up_dropout"
