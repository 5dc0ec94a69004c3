"""A callback that stops the training after some minutes."""

import time
from typing import Annotated

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from emotion_lightning.config import Bounds


class TimeBudget(Callback):
    """Ends the training after the first epoch that ends later than the budget allows."""

    def __init__(self, minutes: Annotated[float, Bounds(above=0)] = 60.0) -> None:
        """Build the callback.

        Args:
            minutes: The budget, from the start of the training.
        """
        self.seconds = 60 * minutes
        self.start = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self.start = time.monotonic()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if the budget is used up."""
        if time.monotonic() - self.start > self.seconds:
            trainer.should_stop = True
