"""How a run went, epoch by epoch: every validation once, whatever happened in between."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from helpers.stops import Kill, at_epoch, at_the_end, in_step, stopped

from emotion_lightning.runs import run_folder
from emotion_lightning.training.callbacks import history
from emotion_lightning.training.callbacks.epoch_log import EpochLines

ASKED = [*SMALL, "model.quantization=none", "peft=lora", "trainer.checkpoint_every=1", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs."""
    from conftest import run_in_process

    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_process("train", *ASKED, f"hydra.run.dir={folder}") == 0
    return folder


def test_history_has_a_row_for_each_epoch_with_the_numbers_that_were_logged(whole: Path) -> None:
    rows = run_folder.read_history(whole / "history.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6)]
    lines = re.findall(r"epoch \d/2  step \d  (.*)", (whole / "train.log").read_text())
    for row, line in zip(rows, lines, strict=True):
        raised = dict(re.findall(r"(\S+) (\d\.\d{4})", line))
        assert {"train/loss", "val/loss", "val/f1_macro"} <= set(raised) <= set(row)
        assert raised == {name: f"{row[name]:.4f}" for name in raised}
    assert {"val/map", "val/lrap"} <= set(rows[0])
    scores = json.loads((whole / "metrics.json").read_text())["validation"]
    assert scores["global"]["f1_macro"] == pytest.approx(max(row["val/f1_macro"] for row in rows))


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(in_step(5), id="within the second epoch", marks=pytest.mark.exhaustive),
        pytest.param(at_epoch(EpochLines, "on_validation_end", 1), id="before the best is saved"),
        pytest.param(at_the_end, id="at the end", marks=pytest.mark.exhaustive),
    ],
)
def test_a_resumed_run_has_the_whole_history_once(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, kill: Kill
) -> None:
    stopped(run, "parts", kill, monkeypatch, *ASKED)
    assert run("train", "resume=parts") == 0
    assert (tmp_path / "parts" / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    saved = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["History"]
    assert [row["epoch"] for row in saved["rows"]] == [1, 2]


def test_a_history_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "step": 2, "val/loss": 1 / 3}, {"epoch": 2, "step": 4, "train/loss": 1e-9, "val/loss": 0.1}]
    history.write_history(tmp_path / "history.csv", rows)
    assert run_folder.read_history(tmp_path / "history.csv") == rows
    assert run_folder.read_history(tmp_path / "none.csv") == []
