"""What a logger is told besides Lightning's metrics, and the loggers of MLflow and TensorBoard."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.cli import multirun as jobs
from emotion_lightning.reports.run_facts import RunCard
from emotion_lightning.runs.plain_text import printable

log = logging.getLogger(__name__)


class Run:
    """A logger for Lightning, and the few things that it is told at the end."""

    def __init__(self, lightning_logger: Any) -> None:
        self.lightning_logger = lightning_logger

    def summary(self, values: dict[str, Any]) -> None:
        """Keep final numbers by name."""
        if self.lightning_logger:
            self.lightning_logger.log_metrics({name: value for name, value in values.items() if value is not None})

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Keep a table, where the logger can."""

    def media(self, pictures: dict[str, Path], page: str, card: RunCard) -> None:
        """Keep pictures by name, a page of HTML and what can be drawn of a run, where the logger can."""

    @property
    def sends_texts(self) -> bool:
        """Whether texts may be sent."""
        return False

    def model(self, folder: Path) -> None:
        """Keep the model folder, where the settings say so."""


def confusion(card: RunCard) -> tuple[list[str], list[list[Any]]]:
    """A table: how often each label was found, given wrongly, missed, and rightly left out."""
    truth, decided = card.truth, card.decisions
    cells = [truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided]
    counts = np.stack([cell.sum(axis=0) for cell in cells], axis=1)
    columns = ["emotion", "true_positive", "false_positive", "false_negative", "true_negative"]
    return columns, [[label, *row] for label, row in zip(card.labels, counts.tolist(), strict=True)]


def mistakes(card: RunCard) -> tuple[list[str], list[list[Any]]]:
    """A table: the rows with the largest loss, with their texts."""
    rows: list[list[Any]] = [
        [wrong.identifier, wrong.text, ", ".join(wrong.gold), ", ".join(wrong.predicted), wrong.loss]
        for wrong in card.mistakes()
    ]
    return ["row", "text", "gold", "predicted", "loss"], rows


def thinned(curve: np.ndarray, points: int = 100) -> list[float]:
    """As many points of a curve as a screen can show, both ends among them."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).round().astype(int))
    found: list[float] = curve[kept].tolist()
    return found


def group_and_name(settings: config.WandB | config.MLflow, folder: Path, *, multirun: bool) -> tuple[str | None, str]:
    """What a tracker calls a run: a job of a multirun by what sets it apart, in the multirun's group."""
    found = jobs.name(folder)
    group = found[0] if found else folder.parent.name if multirun else None
    name = found[1] if found else f"{folder.parent.name}/{folder.name}"
    # Folders may be named by others.
    return settings.group or (group and printable(group)), settings.name or printable(name)


def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names.

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
