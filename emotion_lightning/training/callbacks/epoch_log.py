"""Log one line after each epoch."""

import logging
from typing import Any

from lightning.pytorch.callbacks import Callback

from emotion_lightning.training.callbacks.history import History

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Logs one line after each epoch, from the last row of the history."""

    def __init__(self, monitor: str, history: History) -> None:
        self.monitor = monitor
        self.history = history

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Log the losses and the main scores."""
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
