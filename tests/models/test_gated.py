"""Gated blocks with IA3 that keep their halves alone give the same numbers and gradients, bit by bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import Tensor

from emotion_lightning.models import adapter, auto, backbone, gated

LABELS = ["anger", "joy", "trust"]
IDS = torch.randint(5, 250, (3, 9), generator=torch.Generator().manual_seed(3))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def built(settings: Any, folder: Path, *overrides: str) -> Any:
    """A small network with IA3 vectors that are not ones, in training mode."""
    sizes = ["model.architecture.vocab_size=8192", "model.architecture.num_key_value_heads=1"]
    asked = auto.resolve(settings(*SMALL, *sizes, *overrides))
    network = backbone.build_network(
        asked.model, LABELS, tokenizer=backbone.load_tokenizer(asked.model), full=False, device=torch.device("cpu"),
        seed=1, base_folder=folder / "base",
    )  # fmt: skip
    network = adapter.attach_adapter(
        network, asked.peft, roles=asked.model.roles, head=backbone.head_modules(asked.model), seed=1
    )
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def results(network: Any, dtype: torch.dtype) -> tuple[dict[str, Tensor], int]:
    """Logits and gradients by name, and the bytes that are kept for the backward pass."""
    kept: dict[tuple[int, ...], int] = {}

    def keep(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            place = value.untyped_storage()
            kept[(place.data_ptr(), place.nbytes())] = place.nbytes()
        return value

    network.zero_grad()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        torch.autocast("cpu", dtype, enabled=dtype is not torch.float32),
    ):
        logits = network(input_ids=IDS).logits.float()
    logits.square().sum().backward()
    named = network.named_parameters()
    found = {name: value.grad.clone() for name, value in named if value.grad is not None}
    return {"logits": logits.detach(), **found}, sum(kept.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", ["gemma", "gemma2", "gemma3", "llama", "qwen3"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_results_and_gradients_are_the_same(
    settings: Any, tmp_path: Path, model: str, dtype: str, quantization: str
) -> None:
    options = [f"model={model}", f"model.dtype={dtype}", f"model.quantization={quantization}", "peft=ia3"]
    network = built(settings, tmp_path, *options)
    plain, more = results(network, DTYPES[dtype])
    assert gated.keep_halves(network, dtype=DTYPES[dtype]) == 2
    halves, fewer = results(network, DTYPES[dtype])
    assert plain.keys() == halves.keys()
    for name, value in plain.items():
        assert torch.equal(value, halves[name]), name
    inner = 2 * IDS.numel() * 128  # numbers in the inner layers of both blocks
    assert more - fewer >= inner * (6 if dtype == "bfloat16" else 8)


def test_blocks_are_left_alone_where_ia3_is_elsewhere_or_off(settings: Any, tmp_path: Path) -> None:
    network = built(settings, tmp_path, "model=gemma", "peft=lora")
    assert gated.keep_halves(network, dtype=torch.float32) == 0
    network = built(settings, tmp_path / "other", "model=gemma", "model.dtype=float32", "peft=ia3")
    assert gated.keep_halves(network, dtype=torch.float16) == 0
    assert gated.keep_halves(network, dtype=torch.float32) == 2
    block = network.get_base_model().model.layers[0].mlp
    x = torch.randn(1, 2, 64)
    with network.disable_adapter():
        assert block.vector() is None
        off = block(x)
    assert not torch.equal(off, block(x))
    again = copy.deepcopy(block)
    assert torch.equal(again(x), block(x))


def test_a_block_that_does_more_is_left_alone(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = built(settings, tmp_path, "model=gemma", "peft=ia3")
    block = type(network.get_base_model().model.layers[0].mlp)
    own = block.forward
    monkeypatch.setattr(block, "forward", lambda self, x: own(self, x) * 1.5)
    assert gated.keep_halves(network, dtype=torch.float32) == 0
    assert type(network.get_base_model().model.layers[0].mlp) is block


def test_a_frozen_vector_has_no_gradient_and_lower_layers_do(settings: Any, tmp_path: Path) -> None:
    network = built(settings, tmp_path, "model=gemma", "model.dtype=float32", "peft=ia3")
    gated.keep_halves(network, dtype=torch.float32)
    mlp = network.get_base_model().model.layers[1].mlp
    mlp.down_proj.ia3_l["default"].requires_grad = False
    found, _ = results(network, torch.float32)
    assert not any("layers.1.mlp" in name for name in found)
    assert any("layers.0.mlp" in name for name in found)
