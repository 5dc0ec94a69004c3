"""Runs that are stopped at a chosen moment, and a program of SLURM that notes how it is called."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL

from emotion_lightning.models import model_folder
from emotion_lightning.training.classifier import EmotionClassifier

LORA = [*SMALL, "peft=lora", "optimizer.lr=0.01"]
"""With dropout, whose random numbers must go on too."""


class Killed(Exception):
    """Stands for a SIGKILL: nothing that a run does at its end is done."""


Kill = Callable[[pytest.MonkeyPatch], None]


def in_step(step: int, *, batch: int = 0) -> Kill:
    """In the training step of a batch, counted over its optimizer step."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = EmotionClassifier.training_step

        def training_step(self: Any, of: Any, index: int) -> Any:
            if self.trainer.global_step == step and index % self.trainer.accumulate_grad_batches == batch:
                raise Killed
            return original(self, of, index)

        patch.setattr(EmotionClassifier, "training_step", training_step)

    return plant


def at_epoch(owner: type, hook: str, epoch: int) -> Kill:
    """In a hook of a callback or of the classifier, in an epoch counted from 0."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, hook)

        def replaced(self: Any, *args: Any) -> Any:
            trainer = args[0] if owner is not EmotionClassifier else self.trainer
            if trainer.state.fn == "fit" and trainer.current_epoch == epoch:
                raise Killed
            return original(self, *args)

        patch.setattr(owner, hook, replaced)

    return plant


def at_the_end(patch: pytest.MonkeyPatch) -> None:
    """When all is trained, before the model is written."""

    def save_model(*_: Any, **__: Any) -> None:
        raise Killed

    patch.setattr(model_folder, "save_model", save_model)


def stopped(run: Any, folder: str, kill: Kill, patch: pytest.MonkeyPatch, *asked: str) -> None:
    """A run that is killed."""
    with patch.context() as planted:
        kill(planted)
        assert run("train", *asked, f"hydra.run.dir={folder}") == 1
    assert not (Path(folder) / "metrics.json").exists()


def stand_in_for_scontrol(folder: Path, code: int = 0) -> str:
    """A program on the path that writes down how it was called; the path."""
    program = folder / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/scontrol.log\n[ {code} = 0 ] || echo "no such job" >&2\nexit {code}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{program.parent}:{os.environ['PATH']}"
