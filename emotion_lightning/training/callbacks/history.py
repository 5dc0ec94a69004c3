"""Record the metrics of each epoch in history.csv."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from emotion_lightning.runs.files import atomic_write

Row = dict[str, float]
"""One validation: `epoch` (from 1), `step`, `train/loss` if there were steps, and every metric under `val/`."""


class History(Callback):
    """Records one row per validation, in history.csv and in checkpoints, so that a resumed run has all rows.

    Args:
        file: path of history.csv.

    Attributes:
        rows: one row per validation so far; train/loss is the mean over the epoch's batches in this process.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[Row] = []
        self._losses: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Start a new mean of the training loss."""
        self._losses = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Keep the loss of a batch on its device; reading the value would wait for the device."""
        # Lightning divides the loss by the number of accumulated batches; undo that.
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Add a row. Checkpoint callbacks run later, so the best checkpoint contains it."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        row: Row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        if self._losses:
            row["train/loss"] = sum(float(loss) for loss in self._losses) / len(self._losses)
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.rows.append(row | scores)
        if trainer.is_global_zero:
            write_history(self.file, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, and the training losses of the current epoch."""
        return {"rows": [dict(row) for row in self.rows], "losses": [float(loss) for loss in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows and losses."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._losses = [torch.tensor(loss) for loss in state_dict["losses"]]


def write_history(file: Path, rows: list[Row]) -> None:
    """Write rows as CSV; the file is replaced atomically."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
