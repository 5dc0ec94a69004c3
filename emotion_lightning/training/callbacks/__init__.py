"""What happens beside training: best and last checkpoint, early stopping, clean stops, the clock, the history."""

import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar

from emotion_lightning import config
from emotion_lightning.runs import run_folder
from emotion_lightning.training.callbacks import epoch_log, finite_loss
from emotion_lightning.training.callbacks.checkpoints import KeptCheckpoint, LastCheckpoint, PatientStopping
from emotion_lightning.training.callbacks.clock import Clock
from emotion_lightning.training.callbacks.ema import Average
from emotion_lightning.training.callbacks.history import History
from emotion_lightning.training.callbacks.signals import StopOnSignal
from emotion_lightning.training.callbacks.skipped_steps import SkippedSteps

log = logging.getLogger(__name__)


def build(
    settings: config.Selection,
    trainer: config.Trainer,
    folder: Path,
    *,
    clock: Clock,
    logs: bool,
    row_ids: Sequence[str],
) -> list[Callback]:
    """The callbacks of a training run.

    Args:
        settings: which epoch is best and when to stop.
        trainer: how often to save, and whether to show a bar.
        folder: the run folder.
        clock: measures training time.
        logs: whether a logger takes the learning rate.
        row_ids: of the training rows.
    """
    checkpoints = folder / run_folder.CHECKPOINTS
    history = History(folder / run_folder.HISTORY)
    callbacks: list[Callback] = [
        clock,
        finite_loss.FiniteLoss(row_ids),
        SkippedSteps(),
        history,
        epoch_log.EpochLines(settings.monitor, history),
    ]
    if settings.ema_decay is not None:
        callbacks.append(Average(settings.ema_decay))
    callbacks.append(StopOnSignal(checkpoints / "last.ckpt"))
    if shows_bar(trainer):
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    if logs:
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    if settings.patience is not None:
        callbacks.append(
            PatientStopping(
                settings.monitor,
                mode=config.MONITORS[settings.monitor],
                patience=settings.patience,
                min_delta=settings.min_delta,
                # At the end of validation alone: max_steps may end an epoch that has none.
                check_on_train_epoch_end=False,
            )
        )
    callbacks.append(
        KeptCheckpoint(
            checkpoints,
            filename="best",
            monitor=settings.monitor,
            mode=config.MONITORS[settings.monitor],
            save_top_k=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
    )
    callbacks.append(KeptCheckpoint(checkpoints, filename="last", save_top_k=1, enable_version_counter=False))
    if trainer.checkpoint_every:
        callbacks.append(_last(checkpoints, every_n_train_steps=trainer.checkpoint_every))
    if trainer.checkpoint_minutes is not None:
        callbacks.append(_last(checkpoints, train_time_interval=timedelta(minutes=trainer.checkpoint_minutes)))
    return callbacks


def shows_bar(trainer: config.Trainer) -> bool:
    """Whether a progress bar is shown: without a terminal it is a heap of lines."""
    return trainer.progress_bar and sys.stderr.isatty()


def _last(checkpoints: Path, **when: Any) -> KeptCheckpoint:
    return LastCheckpoint(checkpoints, filename="last", save_top_k=1, enable_version_counter=False, **when)
