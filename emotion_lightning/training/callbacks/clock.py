"""Measure the time and memory of training."""

import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from emotion_lightning.runs import environment
from emotion_lightning.runs.metrics_file import Cost


class Clock(Callback):
    """Count time, rows and tokens of training steps, without validation and saving.

    Attributes:
        seconds: time spent in training steps.
        rows: number of texts trained on.
        tokens: number of tokens trained on, without padding.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rows = 0
        self.tokens = 0
        self._since: float | None = None
        self._device = torch.device("cpu")

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Note the training device: a machine with a GPU may train on its CPU."""
        self._device = trainer.strategy.root_device

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        """Start the clock if it is stopped."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Count a batch; other processes are assumed to have batches of the same size."""
        self.rows += len(batch["rows"]) * trainer.world_size
        self.tokens += batch["tokens"] * trainer.world_size

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Stop the clock during validation."""
        self._stop()

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Stop the clock while a checkpoint is written."""
        self._stop()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Stop the clock between epochs."""
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        """Return the counts for the checkpoint, so that a resumed run reports the total."""
        self._stop()
        return {"seconds": self.seconds, "rows": self.rows, "tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.seconds, self.rows, self.tokens = state_dict["seconds"], state_dict["rows"], state_dict["tokens"]

    def cost(self, trained_parameters: int) -> Cost:
        """Return the `cost` section of metrics.json; see `peak_memory` for the memory it reports."""
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
            torch.cuda.synchronize(self._device)  # CUDA runs asynchronously: steps may still be running
        self.seconds += time.perf_counter() - self._since
        self._since = None


def peak_memory(device: torch.device) -> int:
    """Return peak memory in bytes: allocated on the GPU if `device` is one, else main memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return environment.peak_main_memory()
