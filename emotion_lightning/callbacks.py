"""What happens beside training: best and last checkpoint, early stopping, clean stops, the clock, lines in the log."""

import logging
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar

from emotion_lightning import config, run_folder
from emotion_lightning.command import Stopped
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


def build(
    settings: config.Selection, trainer: config.Trainer, folder: Path, *, clock: "Clock", logs: bool
) -> list[Callback]:
    """The callbacks of a training run.

    Args:
        settings: which epoch is best and when to stop.
        trainer: how often to save, and whether to show a bar.
        folder: the run folder.
        clock: measures training time.
        logs: whether a logger takes the learning rate.
    """
    checkpoints = folder / run_folder.CHECKPOINTS
    callbacks: list[Callback] = [
        clock,
        FiniteLoss(),
        EpochLines(settings.monitor),
        StopOnSignal(checkpoints / "last.ckpt"),
    ]
    if shows_bar(trainer):
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    if logs:
        callbacks.append(LearningRateMonitor(logging_interval="step"))
    if settings.patience is not None:
        callbacks.append(
            EarlyStopping(
                settings.monitor,
                mode=config.MONITORS[settings.monitor],
                patience=settings.patience,
                min_delta=settings.min_delta,
                # At the end of validation alone: max_steps may end an epoch that has none.
                check_on_train_epoch_end=False,
            )
        )
    callbacks.append(
        ModelCheckpoint(
            checkpoints,
            filename="best",
            monitor=settings.monitor,
            mode=config.MONITORS[settings.monitor],
            save_top_k=1,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
    )
    callbacks.append(ModelCheckpoint(checkpoints, filename="last", save_top_k=1, enable_version_counter=False))
    if trainer.checkpoint_every:
        callbacks.append(_last(checkpoints, every_n_train_steps=trainer.checkpoint_every))
    if trainer.checkpoint_minutes is not None:
        callbacks.append(_last(checkpoints, train_time_interval=timedelta(minutes=trainer.checkpoint_minutes)))
    return callbacks


def shows_bar(trainer: config.Trainer) -> bool:
    """Whether a progress bar is shown: without a terminal it is a heap of lines."""
    return trainer.progress_bar and sys.stderr.isatty()


class _Last(ModelCheckpoint):
    """Saves last.ckpt between the ends of epochs."""

    @property
    def state_key(self) -> str:
        # Lightning tells its checkpoint callbacks apart by these two; the one at the ends of epochs differs.
        return self._generate_state_key(every=self._every_n_train_steps, interval=str(self._train_time_interval))


def _last(checkpoints: Path, **when: Any) -> ModelCheckpoint:
    return _Last(checkpoints, filename="last", save_top_k=1, enable_version_counter=False, **when)


class Clock(Callback):
    """Time, rows and tokens of training steps alone, without validation and saving.

    Attributes:
        seconds: in training steps.
        rows: texts trained on.
        tokens: tokens trained on, padding left out.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rows = 0
        self.tokens = 0
        self._since: float | None = None
        self._uncounted: list[torch.Tensor] = []
        """Tokens of steps since the clock last stood still, on the device: reading them would wait for it."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        """Run from the first step on."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Count a batch; of several processes, all alike."""
        self.rows += len(batch["rows"]) * trainer.world_size
        self._uncounted.append(batch["attention_mask"].sum() * trainer.world_size)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Stand still during validation."""
        self._stop()

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Stand still while a checkpoint is written."""
        self._stop()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Stand still between epochs."""
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints, so that a resumed run reports the whole."""
        self._stop()
        return {"seconds": self.seconds, "rows": self.rows, "tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds, self.rows, self.tokens = state_dict["seconds"], state_dict["rows"], state_dict["tokens"]

    def cost(self, trained_parameters: int) -> dict[str, Any]:
        """The `cost` part of metrics.json; memory is of the GPU where there is one, else of the process."""
        seconds = max(self.seconds, 1e-9)
        return {
            "trainable_parameters": trained_parameters,
            "train_seconds": self.seconds,
            "samples_per_second": self.rows / seconds,
            "tokens_per_second": self.tokens / seconds,
            "peak_memory_bytes": peak_memory(),
        }

    def _stop(self) -> None:
        if self._since is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # steps may still be under way
        self.seconds += time.perf_counter() - self._since
        self._since = None
        self.tokens += sum(int(tokens) for tokens in self._uncounted)
        self._uncounted = []


def peak_memory() -> int:
    """Most bytes held at once: on the GPU, else in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


class FiniteLoss(Callback):
    """Ends a run whose loss is not a number: Lightning would train on and call the ruin its best."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Look at the loss of the step; on a GPU at every tenth only, since looking waits for the device."""
        if trainer.strategy.root_device.type != "cpu" and batch_index % 10:
            return
        loss = outputs["loss"]
        if not bool(torch.isfinite(loss)):
            rates = ", ".join(f"{group['lr']:.2g}" for group in trainer.optimizers[0].param_groups)
            raise UserError(
                f"The loss is {float(loss)} at step {trainer.global_step} (epoch {trainer.current_epoch}), at learning "
                f"rates {rates}, on training rows {batch['rows'].tolist()[:8]} …; lower optimizer.lr, lengthen "
                "optimizer.warmup or set trainer.gradient_clip_val."
            )


class EpochLines(Callback):
    """A line in the log after each epoch, with the mean loss of its steps."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self._losses: list[Any] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Start a new mean."""
        self._losses = []

    def state_dict(self) -> dict[str, Any]:
        """The losses of the epoch so far."""
        return {"losses": [float(loss) for loss in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self._losses = [torch.tensor(loss) for loss in state_dict["losses"]]

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Keep the loss of a step, on its device: reading it would wait."""
        self._losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Write the losses and the main scores."""
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        seen = trainer.callback_metrics
        loss = (
            f"train/loss {sum(float(loss) for loss in self._losses) / len(self._losses):.4f}  " if self._losses else ""
        )
        names = dict.fromkeys(["val/loss", "val/f1_macro", "val/f1_micro", "val/jaccard", self.monitor])
        shown = "  ".join(f"{name} {float(seen[name]):.4f}" for name in names)
        log.info(
            "epoch %d/%d  step %d  %s%s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            trainer.global_step,
            loss,
            shown,
        )


class StopOnSignal(Callback):
    """On Ctrl-C and SIGTERM: finish the batch, save last.ckpt, and leave with 130 or 143.

    Lightning 2.6 leaves with 1 and 0 and saves nothing. A second signal leaves at once.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Take the signals over from Lightning, which has just taken them."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Stop here if a signal came."""
        if self._received is not None:
            trainer.save_checkpoint(self.last)
            go_on = run_folder.resume(self.last.parent.parent)
            log.warning("Stopped by %s; go on with %s", signal.Signals(self._received).name, go_on)
            raise Stopped(self._received)

    def on_validation_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """During validation: the checkpoint before it stands."""
        if self._received is not None:
            log.warning("Stopped by %s during validation.", signal.Signals(self._received).name)
            raise Stopped(self._received)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: Any) -> None:
        if self._received is not None:
            raise Stopped(number)
        self._received = number
