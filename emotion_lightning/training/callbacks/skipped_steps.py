"""Count optimizer steps that the gradient scaler skips in float16."""

import logging
from collections import deque
from typing import Any

from lightning.pytorch.callbacks import Callback

from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

WINDOW = 100
"""Number of recent optimizer steps that are checked."""

MANY = 20
"""Skipped steps within the window that trigger a warning. A few at the start are normal: the scaler finds its scale."""


class SkippedSteps(Callback):
    """Counts the steps that the gradient scaler skips. Warns at MANY skipped steps, raises if all WINDOW were skipped.

    The network learns nothing from a skipped step, and PyTorch does not report it. Skipped steps are easy to miss
    because the loss still falls slowly through the other steps.

    Attributes:
        steps: optimizer steps so far.
        skipped: how many of them were skipped.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.skipped = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._told = False
        self._scale = 0.0
        self._step = 0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Note the loss scale and the step at which training starts or resumes."""
        if trainer.scaler is not None:
            self._scale, self._step = trainer.scaler.get_scale(), trainer.global_step

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Count an optimizer step; it was skipped if the loss scale has decreased.

        Raises:
            UserError: all of the last WINDOW steps were skipped.
        """
        if trainer.scaler is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        # get_scale waits for the device; this costs little because the scaler has just waited too.
        scale = trainer.scaler.get_scale()
        self._recent.append(scale < self._scale)
        self.steps += 1
        self.skipped += scale < self._scale
        self._scale = scale
        self._look(scale)

    def _look(self, scale: float) -> None:
        lately = sum(self._recent)
        message = (
            f"{lately} of the last {len(self._recent)} optimizer steps were skipped: their gradients were not finite "
            f"in float16, at a loss scale of {scale:.3g} by now. Set model.dtype=bfloat16 where the device has it, "
            "else float32, or lower optimizer.lr."
        )
        if lately == WINDOW:
            raise UserError(message)
        if lately >= MANY and not self._told:
            self._told = True
            log.warning(message)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Log how many steps were skipped in total."""
        if self.skipped:
            log.info("%d of %d optimizer steps were skipped by the gradient scaler.", self.skipped, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts for the checkpoint, so that a resumed run continues them."""
        return {"steps": self.steps, "skipped": self.skipped, "recent": list(self._recent), "told": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.steps, self.skipped, self._told = state_dict["steps"], state_dict["skipped"], state_dict["told"]
        self._recent = deque(state_dict["recent"], maxlen=WINDOW)
