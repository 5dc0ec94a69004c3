"""What a logger receives besides Lightning's metrics: final numbers, tables, pictures and the model."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.cli import multirun as jobs
from emotion_lightning.reports.run_facts import RunFacts
from emotion_lightning.runs.plain_text import printable

log = logging.getLogger(__name__)


class Run:
    """Wraps a Lightning logger and adds what is logged at the end of a run.

    Args:
        lightning_logger: passed to the Trainer; False for no logger.
    """

    def __init__(self, lightning_logger: Any) -> None:
        self.lightning_logger = lightning_logger

    def summary(self, values: dict[str, Any]) -> None:
        """Log the final numbers by name."""
        if self.lightning_logger:
            self.lightning_logger.log_metrics({name: value for name, value in values.items() if value is not None})

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Log a table, if the logger supports it."""

    def media(self, pictures: dict[str, Path], page: str, facts: RunFacts) -> None:
        """Log pictures, the report as HTML and charts of the run, if the logger supports them."""

    @property
    def sends_texts(self) -> bool:
        """Whether texts of the dataset may be logged."""
        return False

    def model(self, folder: Path) -> None:
        """Log the model folder, if the settings ask for it."""


def confusion(facts: RunFacts) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table with the confusion counts of each label."""
    truth, decided = facts.truth, facts.decisions
    cells = [truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided & facts.known]
    counts = np.stack([cell.sum(axis=0) for cell in cells], axis=1)
    columns = ["emotion", "true_positive", "false_positive", "false_negative", "true_negative"]
    return columns, [[label, *row] for label, row in zip(facts.labels, counts.tolist(), strict=True)]


def mistakes(facts: RunFacts) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table with the texts that have the largest loss."""
    rows: list[list[Any]] = [
        [wrong.identifier, wrong.text, ", ".join(wrong.gold), ", ".join(wrong.predicted), wrong.loss]
        for wrong in facts.mistakes()
    ]
    return ["row", "text", "gold", "predicted", "loss"], rows


def thinned(curve: np.ndarray, points: int = 100) -> list[float]:
    """Return at most `points` evenly spaced points of a curve, including both ends."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).round().astype(int))
    found: list[float] = curve[kept].tolist()
    return found


def group_and_name(settings: config.WandB | config.MLflow, folder: Path, *, multirun: bool) -> tuple[str | None, str]:
    """Return the group and name of a run in W&B or MLflow; a multirun job is named by the settings it varies."""
    found = jobs.wandb_names(folder)
    group = found[0] if found else folder.parent.name if multirun else None
    name = found[1] if found else f"{folder.parent.name}/{folder.name}"
    # Names of folders may contain characters that cannot be printed.
    return settings.group or (group and printable(group)), settings.name or printable(name)


def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names.

    >>> dotted({"optimizer": {"lr": 0.1}, "seed": 1})
    {'optimizer.lr': 0.1, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= dotted(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
