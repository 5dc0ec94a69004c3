"""Facts about a finished run: scores, history, precision-recall curves, calibration and largest mistakes."""

from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve

from emotion_lightning import config
from emotion_lightning.data import labels
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import thresholds
from emotion_lightning.evaluation.calibration import BINS
from emotion_lightning.evaluation.explanations import Explanation
from emotion_lightning.runs.metrics_file import LabelScores, RunMetrics, SplitScores, of_protocol, of_split


@dataclass
class Curve:
    """The precision-recall curve of one label.

    Attributes:
        recall: recall at each threshold, increasing, [threshold].
        precision: precision at the same thresholds, [threshold].
        average: average precision, computed as by scikit-learn's average_precision_score.
    """

    recall: np.ndarray
    precision: np.ndarray
    average: float


@dataclass
class Mistake:
    """A row with a large loss.

    Attributes:
        identifier: id of the row.
        text: the text as in the source.
        loss: binary cross-entropy, mean over labels.
        gold: probabilities of the gold labels by name, the largest first.
        predicted: probabilities of the predicted labels by name, the largest first.
        why: explanation of its most wrong label, or None.
    """

    identifier: str
    text: str
    loss: float
    gold: dict[str, float]
    predicted: dict[str, float]
    why: Explanation | None = None


@dataclass
class RunFacts:
    """Facts about a finished run on one split.

    Attributes:
        settings: of the run; None for the command `evaluate`, where `metrics` contains only the evaluated split.
        metrics: content of metrics.json.
        history: one row per validation, as in history.csv.
        labels: label names, in the order of the label axes.
        split: name of the split.
        rows: rows of the split with ids, texts and labels.
        probabilities: [row, label], float64.
        thresholds: thresholds of `protocol`, [label].
        protocol: name of the threshold protocol that makes the decisions.
        train_rows: number of training rows.
        test_rows: number of test rows, scored or not.
        decided: the predicted labels, [row, label], where they do not follow from the thresholds.
        wrong: explanations of the most wrong texts, by number of the row.
        explained: explanations of other texts, for their predicted labels.
    """

    settings: config.Train | None
    metrics: RunMetrics
    history: list[dict[str, float]]
    labels: list[str]
    split: str
    rows: Rows
    probabilities: np.ndarray
    thresholds: np.ndarray
    protocol: str
    train_rows: int
    test_rows: int = 0
    decided: np.ndarray | None = None
    wrong: dict[int, Explanation] = field(default_factory=dict)
    explained: list[Explanation] = field(default_factory=list)

    @property
    def scores(self) -> SplitScores:
        """The metrics of the split."""
        return of_split(self.metrics, self.split)

    @property
    def truth(self) -> np.ndarray:
        """The gold labels, [row, label], bool."""
        assert self.rows.targets is not None
        return self.rows.targets > 0.5

    @property
    def known(self) -> np.ndarray:
        """Whether a label is not left open, [row, label], bool."""
        assert self.rows.targets is not None
        return np.ones(self.rows.targets.shape, dtype=bool) if self.rows.open is None else ~self.rows.open

    @property
    def decisions(self) -> np.ndarray:
        """The predicted labels, [row, label], bool; none where a label is left open."""
        if self.decided is not None:
            return self.decided & self.known
        shares, cuts = torch.from_numpy(self.probabilities), torch.from_numpy(self.thresholds)
        return np.asarray(thresholds.decide(shares, cuts)) & self.known

    def of_rows(self, label: int, have: bool) -> np.ndarray:
        """Return the probabilities of a label in the rows that have it, or that do not, [row]."""
        return self.probabilities[(self.truth[:, label] == have) & self.known[:, label], label]

    def of_label(self, label: int) -> LabelScores:
        """Return precision, recall, F1, support and threshold of a label with `protocol`."""
        return of_protocol(self.scores, self.protocol)["labels"][self.labels[label]]

    def by_support(self) -> list[int]:
        """Return the positions of the labels, the most frequent first."""
        return sorted(range(len(self.labels)), key=lambda label: -self.of_label(label)["support"])

    def best(self) -> dict[str, float] | None:
        """Return the history row of the best epoch; of equal epochs the first, as in ModelCheckpoint."""
        if self.settings is None:
            return None
        monitor = self.settings.callbacks.monitor
        sign = 1 if config.MONITORS[monitor] == "max" else -1
        return max(self.history, key=lambda row: sign * row[monitor], default=None)

    def curve(self, label: int) -> Curve | None:
        """Return the precision-recall curve of a label; None if no row has the label."""
        known = self.known[:, label]
        truth, shares = self.truth[known, label], self.probabilities[known, label]
        if not truth.any():
            return None
        precision, recall, _ = precision_recall_curve(truth, shares)
        # scikit-learn begins with the lowest threshold and adds a point without a threshold at the end.
        return Curve(recall[-2::-1], precision[-2::-1], float(average_precision_score(truth, shares)))

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Group all probabilities into BINS bins of equal width.

        Returns:
            For each bin the number of probabilities, their mean, and their fraction of positives; the last two are NaN
            for an empty bin.
        """
        shares, truth = self.probabilities[self.known], self.truth[self.known]
        place = np.minimum((shares * BINS).astype(int), BINS - 1)
        count = np.bincount(place, minlength=BINS)
        some = np.where(count > 0, count, np.nan)
        mean = np.bincount(place, shares, minlength=BINS) / some
        positive = np.bincount(place, truth, minlength=BINS) / some
        return count, mean, positive

    def given(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the fraction of rows with label i that also have label j, [i, j], for gold and predicted labels."""
        gold, predicted = (part.astype(int) for part in (self.truth, self.decisions))
        return labels.given_labels(gold.T @ gold), labels.given_labels(predicted.T @ predicted)

    def wrong_rows(self, count: int = 30) -> list[int]:
        """Return the numbers of the rows with the largest loss, the largest first."""
        found: list[int] = np.argsort(-self._losses(), kind="stable")[:count].tolist()
        return found

    def most_wrong_label(self, row: int) -> str:
        """Return the label of a row whose probability is farthest from the truth."""
        return self.labels[int((np.abs(self.truth[row] - self.probabilities[row]) * self.known[row]).argmax())]

    def _losses(self) -> np.ndarray:
        """The loss of each row, binary cross-entropy, mean over labels."""
        # Probabilities that were rounded to 0 or 1 in float32 would give an infinite loss.
        shares = np.clip(self.probabilities, 1e-7, 1 - 1e-7)
        losses, known = -np.log(np.where(self.truth, shares, 1 - shares)), self.known
        if known.all():
            return np.asarray(losses.mean(axis=1))
        return np.asarray((losses * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1))

    def mistakes(self, count: int = 30) -> list[Mistake]:
        """Return the rows with the largest loss, the largest first."""
        losses = self._losses()
        return [
            Mistake(
                identifier=self.rows.ids[row],
                text=self.rows.texts[row],
                loss=float(losses[row]),
                gold=self._named(row, self.truth[row]),
                predicted=self._named(row, self.decisions[row]),
                why=self.wrong.get(row),
            )
            for row in self.wrong_rows(count)
        ]

    def _named(self, row: int, chosen: np.ndarray) -> dict[str, float]:
        shares = self.probabilities[row]
        order = sorted(np.flatnonzero(chosen).tolist(), key=lambda label: -shares[label])
        return {self.labels[label]: float(shares[label]) for label in order}
