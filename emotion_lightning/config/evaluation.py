"""Settings of the `thresholds` group, of prediction files and of scores."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


class ThresholdMetric(StrEnum):
    """What thresholds are fitted for."""

    macro = "macro"
    micro = "micro"
    jaccard = "jaccard"


class Calibration(StrEnum):
    """How probabilities are brought to mean what they say."""

    none = "none"
    temperature = "temperature"
    per_label = "per_label"


@dataclass
class Thresholds:
    """The `thresholds` group: which protocol decides the prediction files and heads the table.

    All protocols are fitted and reported, with the same care.
    """

    metric: ThresholdMetric
    """What thresholds make highest on validation: macro F1, micro F1 or Jaccard (SemEval's accuracy)."""
    min_support: Annotated[int, Bounds(at_least=0)]
    """A label with fewer positives in validation takes the global threshold also where each label has its own: fitted
    on a handful of rows it would be chance."""
    cross_fit: Annotated[int | None, Bounds(at_least=2)]
    """Thresholds are the mean of those fitted without each of so many parts of validation, which a few odd rows move
    less; null fits once, on all rows."""
    calibration: Calibration
    """Fitted on validation before the thresholds; predicted probabilities are the calibrated ones. temperature: one
    slope for all logits (Guo et al., 2017); per_label: a slope and an offset for each label (Platt, 1999); none: as the
    network gives them, which a weighted loss makes too high."""


@dataclass
class FixedThreshold(Thresholds):
    """The same cut for every label, set in advance."""

    value: Annotated[float, Bounds(at_least=0, at_most=1)]
    """A label is predicted where its probability is greater."""


@dataclass
class GlobalThreshold(Thresholds):
    """One cut for all labels, fitted on validation."""


@dataclass
class PerLabelThresholds(Thresholds):
    """A cut for each label, fitted on validation."""


class PredictionColumns(StrEnum):
    """What a prediction file holds."""

    all = "all"
    decisions = "decisions"


@dataclass
class Predictions:
    """How prediction files are written."""

    text: bool
    """Add the text."""
    columns: PredictionColumns
    """all: decisions and probabilities; decisions: 0/1 columns only (a Kaggle submission)."""
    csv_safe: bool
    """Put ' before csv cells that a spreadsheet would run as a formula (= + - @). Changes such texts, ids and names of
    labels, so it is off; turn it on for files that people open in a spreadsheet."""


class Split(StrEnum):
    """Which rows are scored."""

    train = "train"
    validation = "validation"
    test = "test"


# As a class it could not have a member named by a word of Python's own.
Protocol = StrEnum("Protocol", {"fixed": "fixed", "global": "global", "per_label": "per_label"})


class Score(StrEnum):
    """What runs are compared by."""

    f1_macro = "f1_macro"
    f1_micro = "f1_micro"
    jaccard = "jaccard"


class ScoredSplit(StrEnum):
    """Which rows of a run are compared."""

    validation = "validation"
    test = "test"
