"""The average of the trained parameters."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SMALL

from emotion_lightning.training.callbacks import WeightAverage


class Module:
    """What the callback needs of a classifier: one trained parameter."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def trained(self) -> dict[str, torch.nn.Parameter]:
        return {"weight": self.weight}


def test_the_average_is_that_of_a_plain_loop() -> None:
    average, module = WeightAverage(0.9), Module()
    trainer = SimpleNamespace(global_step=0, state=SimpleNamespace(fn="fit"))
    average.on_train_start(trainer, module)
    plain = torch.zeros(3, dtype=torch.float64)
    for step in range(1, 200):
        with torch.no_grad():
            module.weight.copy_(torch.full((3,), float(step % 7)) + torch.arange(3))
        trainer.global_step = step
        average.on_train_batch_end(trainer, module, None, None, step)
        average.on_train_batch_end(trainer, module, None, None, step)  # a batch without an optimizer step
        decay = min(0.9, (1 + step) / (10 + step))
        plain = decay * plain + (1 - decay) * module.weight.detach()
        assert torch.allclose(average.average["weight"], plain)


def test_validation_sees_the_average_and_training_goes_on_with_its_own() -> None:
    average, module = WeightAverage(0.5), Module()
    trainer = SimpleNamespace(global_step=0, state=SimpleNamespace(fn="fit"))
    average.on_train_start(trainer, module)
    with torch.no_grad():
        module.weight.fill_(1.0)
    trainer.global_step = 1
    average.on_train_batch_end(trainer, module, None, None, 0)
    expected = average.average["weight"].clone()
    assert not torch.equal(expected, module.weight)
    average.on_validation_start(trainer, module)
    assert torch.equal(module.weight, expected)
    average.on_validation_end(trainer, module)
    assert module.weight.tolist() == [1.0, 1.0, 1.0]
    kept: dict[str, Any] = {"state_dict": {"weight": module.weight.detach()}}
    average.on_save_checkpoint(trainer, module, kept)
    assert torch.equal(kept["state_dict"]["weight"], expected)
    assert kept["training_parameters"]["weight"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.slow
def test_what_is_reported_is_of_the_average(run: Any, tmp_path: Path) -> None:
    asked = [*SMALL, "trainer.max_epochs=2", "optimizer.lr=0.05", "trainer.checkpoint_every=1"]
    assert run("train", *asked, "callbacks.ema_decay=0.95", "hydra.run.dir=average") == 0
    assert run("train", *asked, "hydra.run.dir=plain") == 0
    last = {
        name: torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("average", "plain")
    }
    # Training is the same; what is kept is not.
    for name, value in last["average"]["training_parameters"].items():
        assert torch.equal(value, last["plain"]["state_dict"][name])
        assert not torch.equal(value, last["average"]["state_dict"][name])
    assert run("evaluate", "run=average", "hydra.run.dir=scored") == 0
    own, again = (json.loads((tmp_path / f / "metrics.json").read_text())["test"] for f in ("average", "scored"))
    assert own["global"] == again["global"]
    assert own["map"] != json.loads((tmp_path / "plain" / "metrics.json").read_text())["test"]["map"]


def test_a_checkpoint_grows_by_the_trained_parameters_alone(run: Any, tmp_path: Path) -> None:
    for name, more in (("average", ["callbacks.ema_decay=0.9"]), ("plain", [])):
        assert run("train", *SMALL, "trainer=debug", *more, f"hydra.run.dir={name}") == 0
    sizes = {name: (tmp_path / name / "checkpoints" / "last.ckpt").stat().st_size for name in ("average", "plain")}
    trained = json.loads((tmp_path / "plain" / "metrics.json").read_text())["cost"]["trainable_parameters"]
    assert 0 < sizes["average"] - sizes["plain"] < 4 * trained + 20_000


@pytest.mark.parametrize("value", ["0", "1", "1.5"])
def test_a_decay_outside_its_range_is_refused(run: Any, capfd: Any, value: str) -> None:
    assert run("train", f"callbacks.ema_decay={value}") == 2
    assert "callbacks.ema_decay" in capfd.readouterr().err
