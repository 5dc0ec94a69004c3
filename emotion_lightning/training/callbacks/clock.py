"""Time and memory of training."""

import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from emotion_lightning.runs import environment


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
        self._device = torch.device("cpu")

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Take the device that is trained on: a machine with a GPU may train on its CPU."""
        self._device = trainer.strategy.root_device

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        """Run from the first step on."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Count a batch; of several processes, all alike."""
        self.rows += len(batch["rows"]) * trainer.world_size
        self.tokens += batch["tokens"] * trainer.world_size

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
        """The `cost` part of metrics.json; memory is of the GPU that was trained on, else of the process."""
        seconds = max(self.seconds, 1e-9)
        return {
            "trainable_parameters": trained_parameters,
            "train_seconds": self.seconds,
            "samples_per_second": self.rows / seconds,
            "tokens_per_second": self.tokens / seconds,
            "peak_memory_bytes": peak_memory(self._device),
        }

    def _stop(self) -> None:
        if self._since is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # steps may still be under way
        self.seconds += time.perf_counter() - self._since
        self._since = None


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once: on a GPU, else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return environment.peak_main_memory()
