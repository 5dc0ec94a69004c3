"""The head's start and rate by the scale of what it is given."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from emotion_lightning.config import Pooling
from emotion_lightning.errors import UserError
from emotion_lightning.models import backbone, head_start, model_folder
from emotion_lightning.training import optimizer


class Network(nn.Module):
    """A classifier with a head of two layers on vectors of a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(16, 16)
        self.classifier = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.9), nn.Linear(64, 3))
        self.scale = scale


def start_of(network: Network, monkeypatch: pytest.MonkeyPatch) -> head_start.Start:
    def logits(network: Any, batch: Any, *, pooling: Pooling) -> torch.Tensor:
        hidden = network.classifier[0](network.inner(batch["input_ids"].float()))
        hidden = hidden / hidden.square().mean().sqrt() * network.scale
        return network.classifier[2](network.classifier[1](hidden))

    monkeypatch.setattr(head_start.pooling, "logits", logits)
    ids = torch.arange(64).view(4, 16)
    return head_start.measure_head(
        network.train(), {"input_ids": ids, "tokens": 64}, head=["classifier"], way=Pooling.first, dtype=torch.float32
    )


@pytest.mark.parametrize("rms", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_left_to_the_checks_of_training(rms: float) -> None:
    assert head_start.Start(nn.Linear(2, 2), width=2, rms=rms, deviation=rms).factor == 1.0


@pytest.mark.parametrize(
    ("scale", "factor"), [(0.1, 1), (1, 1), (1.99, 1), (2.5, 0.5), (5, 0.25), (5.0001, 0.25), (10, 0.125)]
)
def test_large_vectors_start_and_learn_as_usual_ones_do(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, scale: float, factor: float
) -> None:
    network = Network(scale)
    state = torch.get_rng_state()
    start = start_of(network, monkeypatch)
    assert torch.equal(torch.get_rng_state(), state) and network.training and network.classifier[1].training
    assert start.layer is network.classifier[2] and start.width == 64
    assert start.rms == pytest.approx(scale, rel=1e-5)
    before = start.layer.weight.clone()
    with caplog.at_level(logging.INFO):
        assert head_start.scale_head(start, fresh=False) == factor
        assert torch.equal(start.layer.weight, before)  # of an earlier training
        assert head_start.scale_head(start, fresh=True) == factor
    assert torch.equal(start.layer.weight, before * factor)
    assert f"standard deviation of {start.deviation:.2f}" in caplog.text
    assert ("multiplied" in caplog.text) is (factor != 1)
    again = start_of(network, monkeypatch)
    assert again.rms == start.rms  # a run that goes on comes to the same factor
    if scale > 2:
        usual = start_of(Network(1), monkeypatch)
        assert 0.5 < again.deviation / usual.deviation < 2


@pytest.mark.parametrize(("own", "expected"), [(None, 0.25), (0.03, 0.03)])
def test_a_rate_of_ones_own_is_taken_as_it_is(settings: Any, own: float | None, expected: float) -> None:
    chosen = settings(f"optimizer.head_lr={'null' if own is None else own}")
    built, _ = optimizer.build_optimizer(
        chosen.optimizer, chosen.peft, Network(1), head=["classifier"], steps=9, head_factor=0.25
    )
    rates = {group["name"]: group["initial_lr"] for group in built.param_groups}
    assert rates["head"] == pytest.approx(expected if own else expected * chosen.peft.head_lr)
    assert rates["body"] == chosen.peft.lr


def test_a_run_on_large_hidden_vectors_goes_on_as_it_began(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    architecture = AutoConfig.for_model("gemma", **sizes, num_key_value_heads=1, head_dim=16, vocab_size=8192)
    AutoModel.from_config(architecture).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(backbone.BUNDLED).save_pretrained(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    # Gemma multiplies by 1 + this.
    save_file(load_file(file) | {"norm.weight": torch.full((32,), 4.0)}, file, {"format": "pt"})
    raised = (
        "32 inputs of the head have an RMS of 5.00.\nThese are large: its learning rate and its first weights are "
        "multiplied by 0.25."
    )

    def stops(*_: Any, **__: Any) -> None:
        raise UserError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(model_folder, "save_model", stops)
        assert run("train", "model.path=base", "logger=none", "data.max_rows=96", "trainer.max_epochs=1",
                   "hydra.run.dir=out") == 2  # fmt: skip
    first = capfd.readouterr().err
    assert raised in first and "stopped here" in first
    assert run("train", "resume=out") == 0
    assert raised in capfd.readouterr().err
    (state,) = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    rates = {group["name"].removesuffix("_no_decay"): group["initial_lr"] for group in state["param_groups"]}
    assert rates["head"] == pytest.approx(2e-3 / 4) and rates["body"] == pytest.approx(1e-2)
