"""Log metrics to a CSV file."""

import csv
import warnings
from pathlib import Path
from typing import Any

from emotion_lightning.runs import run_folder
from emotion_lightning.training import checkpoint_io


def csv_logger(folder: Path) -> Any:
    """Return Lightning's CSV logger; a resumed run keeps rows before its checkpoint, which Lightning would delete."""
    from lightning.pytorch.loggers import CSVLogger

    file = folder / "metrics.csv"
    rows: list[dict[str, Any]] = []
    if file.is_file() and (step := last_step(folder)) is not None:
        with file.open(encoding="utf-8", newline="") as opened:
            kept = [row for row in csv.DictReader(opened) if int(float(row["step"])) < step]
        rows = [{name: cell for name, cell in row.items() if cell} for row in kept]
    logger = CSVLogger(folder, name="", version="")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        logger.experiment.metrics = rows
    logger.save()
    return logger


def last_step(folder: Path) -> int | None:
    """Return the step of last.ckpt, from which a resumed run trains and logs again; None for a new run."""
    last = folder / run_folder.CHECKPOINTS / "last.ckpt"
    return int(checkpoint_io.load_checkpoint(last)["global_step"]) if last.is_file() else None
