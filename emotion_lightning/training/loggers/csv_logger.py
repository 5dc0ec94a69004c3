"""Metrics in a CSV file."""

import csv
import warnings
from pathlib import Path
from typing import Any

from emotion_lightning.runs import run_folder
from emotion_lightning.training import checkpoint_io


def csv_logger(folder: Path) -> Any:
    """Lightning's CSV logger, which would remove the metrics.csv of a run that goes on; here it goes on too."""
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
    """The step that a run goes on from; those after it are taken, and logged, again. None of a new run."""
    last = folder / run_folder.CHECKPOINTS / "last.ckpt"
    return int(checkpoint_io.load(last)["global_step"]) if last.is_file() else None
