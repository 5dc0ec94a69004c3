"""Clean stops."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from emotion_lightning.errors import Stopped
from emotion_lightning.runs import run_folder, slurm
from emotion_lightning.training.callbacks.checkpoints import at_whole_step

log = logging.getLogger(__name__)


class StopOnSignal(Callback):
    """On Ctrl-C, SIGTERM and a cluster's warning: finish the optimizer step, save last.ckpt, and leave.

    Lightning 2.6 leaves with 1 and 0 and saves nothing. Validation is finished first, so that no epoch is trained
    again. A second signal leaves at once, with the checkpoint before it. On a cluster's warning the job is requeued.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Take the signals over from Lightning, which has taken them behind on_fit_start."""
        # submitit lets SIGTERM pass and waits for its own signal.
        taken = [signal.SIGINT] if slurm.in_submitit() else [signal.SIGINT, signal.SIGTERM]
        for number in [*taken, slurm.preemption_signal()]:
            if number is not None:
                self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Stop here if a signal came, to any of the processes."""
        if at_whole_step(trainer, batch_index) and self._any(trainer):
            trainer.save_checkpoint(self.last)
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Stop between epochs: the end of the last one has been saved."""
        if trainer.global_step and self._any(trainer):
            self._leave(trainer)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Stop behind the last epoch; a resumed run goes on with the test."""
        if self._any(trainer):
            self._leave(trainer)

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: Any) -> None:
        if self._received is not None:
            # The server of a W&B sweep stops a run by W&B's own thread, with SIGINT, and by the agent, with SIGTERM.
            if slurm.in_wandb_sweep() and number != self._received:
                return
            raise Stopped(number)
        self._received = number
        # Not through logging, in the middle of which the signal may have come.
        os.write(sys.stderr.fileno(), b"Stopping at the next whole step; a second signal leaves at once.\n")

    def _any(self, trainer: Any) -> bool:
        came = self._received is not None
        if trainer.world_size > 1:
            # All leave at one step, or the others would wait for ever for the one that left.
            came = trainer.strategy.reduce_boolean_decision(came, all=False)
        return came

    def _leave(self, trainer: Any) -> None:
        number = self._received or signal.SIGTERM
        warning = number == slurm.preemption_signal()
        if trainer.is_global_zero:
            name, go_on = signal.Signals(number).name, run_folder.resume(self.last.parent.parent)
            log.warning("Stopped by %s at step %d; go on with %s", name, trainer.global_step, go_on)
            if warning and slurm.in_submitit():
                self._before[number](number, None)  # submitit's own, which requeues and leaves
            elif warning:
                slurm.requeue()
        raise Stopped(signal.SIGTERM if warning else number)
