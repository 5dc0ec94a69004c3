"""How a run went, epoch by epoch."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from emotion_lightning.runs.files import atomic_write

Row = dict[str, float]
"""A validation: `epoch` counted from 1, `step`, `train/loss` if there were steps, and every metric under `val/`."""


class History(Callback):
    """A row for each validation, which stands in history.csv and in checkpoints, so that a resumed run has them all.

    Args:
        file: where it is written.

    Attributes:
        rows: of the validations so far; train/loss is the mean over the epoch's steps, in the first process.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[Row] = []
        self._losses: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Start a new mean."""
        self._losses = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Keep the loss of a step, on its device: reading it would wait."""
        # Lightning has divided it among the batches of an optimizer step.
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Add the row. Checkpoint callbacks come later, so that the best one has it too."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        row: Row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        if self._losses:
            row["train/loss"] = sum(float(loss) for loss in self._losses) / len(self._losses)
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.rows.append(row | scores)
        if trainer.is_global_zero:
            write(self.file, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows, and the losses of the epoch so far."""
        return {"rows": [dict(row) for row in self.rows], "losses": [float(loss) for loss in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._losses = [torch.tensor(loss) for loss in state_dict["losses"]]


def write(file: Path, rows: list[Row]) -> None:
    """Write rows as csv, in one step."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
