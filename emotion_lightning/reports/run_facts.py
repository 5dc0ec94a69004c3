"""What a finished run is like, in numbers: scores, history, curves, calibration, and what it got most wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from emotion_lightning import config
from emotion_lightning.data import labels
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import thresholds
from emotion_lightning.evaluation.calibration import BINS


@dataclass
class Curve:
    """Precision over recall of one label.

    Attributes:
        recall: rising, [cut].
        precision: at the same cuts, [cut].
        average: the area under its steps, as scikit-learn's average_precision_score has it.
    """

    recall: np.ndarray
    precision: np.ndarray
    average: float


@dataclass
class Mistake:
    """A row and what was wrong with it.

    Attributes:
        identifier: of the row.
        text: as it stands in the source.
        loss: binary cross-entropy of its probabilities, the mean over labels.
        gold: its labels, each with its probability, the likeliest first.
        predicted: the labels that it was given, the same way.
    """

    identifier: str
    text: str
    loss: float
    gold: dict[str, float]
    predicted: dict[str, float]


@dataclass
class RunCard:
    """A finished run, and the rows of the split that it is looked at on.

    Attributes:
        settings: of the run; None where a finished run is scored on some rows: then `metrics` has their split only.
        metrics: what metrics.json says.
        history: a row for each validation, as in history.csv.
        labels: names, in the order of the label axes.
        split: the one that the rows are of.
        rows: ids, texts and labels.
        probabilities: [row, label], float64.
        thresholds: of the protocol that decides, [label].
        protocol: its name.
        train_rows: how many rows were trained on.
        test_rows: how many there are, scored or not.
    """

    settings: config.Train | None
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    labels: list[str]
    split: str
    rows: Rows
    probabilities: np.ndarray
    thresholds: np.ndarray
    protocol: str
    train_rows: int
    test_rows: int = 0

    @property
    def scores(self) -> dict[str, Any]:
        """The metrics of the split."""
        found: dict[str, Any] = self.metrics[self.split]
        return found

    @property
    def truth(self) -> np.ndarray:
        """Which labels the rows have, [row, label], bool."""
        assert self.rows.targets is not None
        return self.rows.targets > 0.5

    @property
    def decisions(self) -> np.ndarray:
        """Which labels they were given, [row, label], bool."""
        shares, cuts = torch.from_numpy(self.probabilities), torch.from_numpy(self.thresholds)
        return np.asarray(thresholds.decide(shares, cuts))

    def of_label(self, label: int) -> dict[str, Any]:
        """Precision, recall, F1, support and threshold of a label, by the protocol that decides."""
        found: dict[str, Any] = self.scores[self.protocol]["labels"][self.labels[label]]
        return found

    def by_support(self) -> list[int]:
        """Positions of the labels, the most frequent first."""
        return sorted(range(len(self.labels)), key=lambda label: -self.of_label(label)["support"])

    def best(self) -> dict[str, float] | None:
        """The row of the history whose epoch was kept: of equal ones the first, as ModelCheckpoint has it."""
        if self.settings is None:
            return None
        monitor = self.settings.callbacks.monitor
        sign = 1 if config.MONITORS[monitor] == "max" else -1
        return max(self.history, key=lambda row: sign * row[monitor], default=None)

    def curve(self, label: int) -> Curve | None:
        """How precision falls as recall rises, or None of a label that no row has."""
        truth = self.truth[:, label]
        if not truth.any():
            return None
        shares = self.probabilities[:, label]
        order = np.argsort(-shares, kind="stable")
        # Rows of one probability are told apart by no threshold: they come in together.
        last = np.append(np.flatnonzero(np.diff(shares[order])), len(order) - 1)
        found = np.cumsum(truth[order])[last]
        recall, precision = found / truth.sum(), found / (last + 1)
        return Curve(recall, precision, float(np.sum(np.diff(recall, prepend=0) * precision)))

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all probabilities in bins of equal width: how many, their mean, their share of positives; NaN if none."""
        place = np.minimum((self.probabilities * BINS).astype(int), BINS - 1).ravel()
        count = np.bincount(place, minlength=BINS)
        some = np.where(count > 0, count, np.nan)
        mean = np.bincount(place, self.probabilities.ravel(), minlength=BINS) / some
        positive = np.bincount(place, self.truth.ravel(), minlength=BINS) / some
        return count, mean, positive

    def given(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the rows with one label that have another one, [label, label]: gold, predicted."""
        gold, predicted = (part.astype(int) for part in (self.truth, self.decisions))
        return labels.given(gold.T @ gold), labels.given(predicted.T @ predicted)

    def mistakes(self, count: int = 30) -> list[Mistake]:
        """The rows with the largest loss, the largest first."""
        # A float32 that rounds to 0 or 1 would make an infinite loss.
        shares = np.clip(self.probabilities, 1e-7, 1 - 1e-7)
        losses = -np.log(np.where(self.truth, shares, 1 - shares)).mean(axis=1)
        return [
            Mistake(
                identifier=self.rows.ids[row],
                text=self.rows.texts[row],
                loss=float(losses[row]),
                gold=self._named(row, self.truth[row]),
                predicted=self._named(row, self.decisions[row]),
            )
            for row in np.argsort(-losses, kind="stable")[:count].tolist()
        ]

    def _named(self, row: int, chosen: np.ndarray) -> dict[str, float]:
        shares = self.probabilities[row]
        order = sorted(np.flatnonzero(chosen).tolist(), key=lambda label: -shares[label])
        return {self.labels[label]: float(shares[label]) for label in order}
