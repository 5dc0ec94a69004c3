"""Stop training if the loss is not finite."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from emotion_lightning.errors import UserError
from emotion_lightning.models import nonfinite


class FiniteLoss(Callback):
    """Stops a run whose loss is NaN or infinite; Lightning would train on and could select a ruined epoch as best."""

    def __init__(self, row_ids: Sequence[str]) -> None:
        self.row_ids = row_ids
        self._batch: Any = None
        self._looks = False

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        """Decide whether to check the loss: on a GPU only every tenth batch, because the check waits for the device."""
        self._batch = batch
        self._looks = trainer.strategy.root_device.type == "cpu" or batch_index % 10 == 0

    def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
        """Check the loss before its gradients ruin the parameters.

        Raises:
            UserError: the loss is not finite.
        """
        if not self._looks or bool(torch.isfinite(loss)):
            return
        rates = ", ".join(f"{group['lr']:.2g}" for group in trainer.optimizers[0].param_groups)
        ids = [self.row_ids[row] for row in self._batch["rows"].tolist()]
        raise UserError(
            f"The loss is {float(loss)} at step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}), at "
            f"learning rates {rates}, on the training rows {', '.join(ids)}"
            + nonfinite.describe(module.cause_in(self._batch))
        )
