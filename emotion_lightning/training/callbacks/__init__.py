"""Lightning callbacks: checkpoints, early stopping, signals, timing, history and checks of each step."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar

from emotion_lightning import config, terminal
from emotion_lightning.config import own_parts
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder
from emotion_lightning.training.callbacks import epoch_log, finite_loss
from emotion_lightning.training.callbacks.checkpoints import (
    LastCheckpoint,
    RelocatableCheckpoint,
    ResumableEarlyStopping,
)
from emotion_lightning.training.callbacks.clock import Clock
from emotion_lightning.training.callbacks.ema import WeightAverage
from emotion_lightning.training.callbacks.history import History
from emotion_lightning.training.callbacks.signals import StopOnSignal
from emotion_lightning.training.callbacks.skipped_steps import SkippedSteps

log = logging.getLogger(__name__)


def build_callbacks(
    settings: config.Selection,
    trainer: config.Trainer,
    folder: Path,
    *,
    clock: Clock,
    logs: bool,
    row_ids: Sequence[str],
    requeues: bool,
    extra: config.ExtraCallback,
    labels: Sequence[str],
) -> list[Callback]:
    """Build the callbacks of a training run.

    Args:
        settings: how the best epoch is selected and when training stops early.
        trainer: how often to save a checkpoint, and whether to show a progress bar.
        folder: the run folder.
        clock: measures training time.
        logs: whether to log the learning rate; needs a logger.
        row_ids: ids of the training rows, used in error messages.
        requeues: whether a cluster's preemption signal requeues the job.
        extra: callbacks of the user's own, which come after those of the program but for the checkpoints.
        labels: names of the labels.

    Raises:
        UserError: callbacks of the user's own are none.
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
        callbacks.append(WeightAverage(settings.ema_decay))
    callbacks.append(StopOnSignal(checkpoints / "last.ckpt", requeues=requeues))
    if shows_bar(trainer):
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    if logs:
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    if settings.patience is not None:
        callbacks.append(
            ResumableEarlyStopping(
                settings.monitor,
                mode=config.MONITORS[settings.monitor],
                patience=settings.patience,
                min_delta=settings.min_delta,
                # Check only after validation: max_steps may end an epoch before its validation.
                check_on_train_epoch_end=False,
            )
        )
    if isinstance(extra, own_parts.OwnPart):
        callbacks += _own_callbacks(extra, folder, labels)
    callbacks.append(
        RelocatableCheckpoint(
            checkpoints,
            filename="best",
            monitor=settings.monitor,
            mode=config.MONITORS[settings.monitor],
            save_top_k=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
    )
    callbacks.append(RelocatableCheckpoint(checkpoints, filename="last", save_top_k=1, enable_version_counter=False))
    if trainer.checkpoint_every:
        callbacks.append(_last(checkpoints, every_n_train_steps=trainer.checkpoint_every))
    if trainer.checkpoint_minutes is not None:
        callbacks.append(_last(checkpoints, train_time_interval=timedelta(minutes=trainer.checkpoint_minutes)))
    return callbacks


def _own_callbacks(settings: own_parts.OwnPart, folder: Path, labels: Sequence[str]) -> list[Callback]:
    found = own_parts.build(settings, folder=folder, labels=list(labels))
    several = list(found) if isinstance(found, list | tuple) else [found]
    if wrong := next((type(one).__name__ for one in several if not isinstance(one, Callback)), None):
        raise UserError(
            f"extra_callback={settings.origin.option}: {settings.part} must return a lightning.pytorch Callback, or a "
            f"list of them; it gave {wrong}."
        )
    return several


def shows_bar(trainer: config.Trainer) -> bool:
    """Return whether to show a progress bar."""
    return trainer.progress_bar and terminal.can_show_bar()


def _last(checkpoints: Path, **when: Any) -> RelocatableCheckpoint:
    return LastCheckpoint(checkpoints, filename="last", save_top_k=1, enable_version_counter=False, **when)
