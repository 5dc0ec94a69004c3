"""What happens beside training: best and last checkpoint, early stopping, clean stops, the clock, the history."""

import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.models import nonfinite
from emotion_lightning.runs import run_folder
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
        FiniteLoss(row_ids),
        SkippedSteps(),
        history,
        EpochLines(settings.monitor, history),
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


class FiniteLoss(Callback):
    """Ends a run whose loss is not a number: Lightning would train on and call the ruin its best."""

    def __init__(self, row_ids: Sequence[str]) -> None:
        self.row_ids = row_ids
        self._batch: Any = None
        self._looks = False

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        """Decide whether to look at its loss; on a GPU at every tenth only, since looking waits for the device."""
        self._batch = batch
        self._looks = trainer.strategy.root_device.type == "cpu" or batch_index % 10 == 0

    def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
        """Look at the loss before its gradients ruin what it came from."""
        if not self._looks or bool(torch.isfinite(loss)):
            return
        rates = ", ".join(f"{group['lr']:.2g}" for group in trainer.optimizers[0].param_groups)
        ids = [self.row_ids[row] for row in self._batch["rows"].tolist()]
        raise UserError(
            f"The loss is {float(loss)} at step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}), at "
            f"learning rates {rates}, on the training rows {', '.join(ids)}"
            + nonfinite.told(module.cause_in(self._batch))
        )


class EpochLines(Callback):
    """A line in the log after each epoch, from the history's last row."""

    def __init__(self, monitor: str, history: History) -> None:
        self.monitor = monitor
        self.history = history

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Write the losses and the main scores."""
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        seen = self.history.rows[-1]
        names = dict.fromkeys(["train/loss", "val/loss", "val/f1_macro", "val/f1_micro", "val/jaccard", self.monitor])
        log.info(
            "epoch %d/%d  step %d  %s",
            seen["epoch"],
            trainer.max_epochs,
            seen["step"],
            "  ".join(f"{name} {seen[name]:.4f}" for name in names if name in seen),
        )
