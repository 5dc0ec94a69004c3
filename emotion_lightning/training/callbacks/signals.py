"""Save a checkpoint and stop when a signal arrives."""

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from emotion_lightning.cli import jobs
from emotion_lightning.errors import Stopped
from emotion_lightning.runs import run_folder, slurm
from emotion_lightning.training.callbacks.checkpoints import at_whole_step

log = logging.getLogger(__name__)


class StopOnSignal(Callback):
    """Finishes the optimizer step, saves last.ckpt and exits on Ctrl-C, SIGTERM or a cluster's preemption signal.

    Lightning 2.6 exits with code 1 (Ctrl-C) or 0 (SIGTERM) and saves no checkpoint. At the end of an epoch, validation
    is finished first, so that the epoch need not be trained again. A second signal exits at once and leaves the
    previous checkpoint in place. After a preemption signal the job is requeued.

    Args:
        last: path of last.ckpt.
        requeues: whether to wait for the preemption signal.
    """

    def __init__(self, last: Path, *, requeues: bool = True) -> None:
        self.last = last
        self._preemption = slurm.preemption_signal() if requeues else None
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Install our signal handlers; Lightning installs its own after on_fit_start, so ours must come later."""
        jobs.check_stopped()
        if threading.current_thread() is not threading.main_thread():
            return  # signals arrive in the main thread, which is that of another program
        # submitit ignores SIGTERM and waits for its own signal.
        taken = [signal.SIGINT] if slurm.in_submitit() else [signal.SIGINT, signal.SIGTERM]
        for number in [*taken, self._preemption]:
            if number is not None:
                self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Save and stop after this batch if any process received a signal."""
        if at_whole_step(trainer, batch_index) and self._any(trainer):
            trainer.save_checkpoint(self.last, weights_only=False)
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Stop between epochs; the checkpoint at the end of the last epoch is already saved."""
        if trainer.global_step and self._any(trainer):
            self._leave(trainer)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Stop after the last epoch; a resumed run continues with the final scoring."""
        if self._any(trainer):
            self._leave(trainer)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: Any) -> None:
        if self._received is not None:
            # A W&B sweep stops a run with two signals: SIGINT from W&B's own thread and SIGTERM from the agent.
            if slurm.in_wandb_sweep() and number != self._received:
                return
            raise Stopped(number)
        self._received = number
        # Do not use logging here: the signal may have interrupted a logging call.
        with suppress(OSError, ValueError, AttributeError):  # the stream of a notebook may have no file
            os.write(sys.stderr.fileno(), b"Stopping at the next whole step; a second signal leaves at once.\n")

    def _any(self, trainer: Any) -> bool:
        came = self._received is not None
        if trainer.world_size > 1:
            # All processes must stop at the same step, or the others would wait forever for the one that left.
            came = trainer.strategy.reduce_boolean_decision(came, all=False)
        return came

    def _leave(self, trainer: Any) -> None:
        number = self._received or signal.SIGTERM
        warning = number == self._preemption
        if trainer.is_global_zero:
            name, go_on = signal.Signals(number).name, run_folder.resume_command(self.last.parent.parent)
            log.warning("Stopped by %s at step %d; go on with %s", name, trainer.global_step, go_on)
            if warning and slurm.in_submitit():
                self._before[number](number, None)  # submitit's handler requeues the job and exits
            elif warning:
                slurm.requeue()
        raise Stopped(signal.SIGTERM if warning else number)
