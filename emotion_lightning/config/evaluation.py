"""Settings of the `thresholds` group, of prediction files and of scores."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


class ThresholdMetric(StrEnum):
    """The metric that thresholds are fitted to maximise."""

    macro = "macro"
    micro = "micro"
    jaccard = "jaccard"


class Calibration(StrEnum):
    """Method that calibrates probabilities."""

    none = "none"
    temperature = "temperature"
    per_label = "per_label"


@dataclass
class Thresholds:
    """The `thresholds` group: the threshold protocol of the prediction files and of the first rows of the tables.

    All protocols are fitted and reported, with the same settings.
    """

    metric: ThresholdMetric
    """Metric that the thresholds maximise on validation: macro F1, micro F1 or jaccard (SemEval's accuracy)."""
    min_support: Annotated[int, Bounds(at_least=0)]
    """A label with fewer positives in validation uses the global threshold in the per_label protocol too, because a
    threshold fitted on a few rows is random."""
    cross_fit: Annotated[int | None, Bounds(at_least=2)]
    """Number of folds of validation: each threshold is the mean of those fitted without one fold, so that a few unusual
    rows affect it less. null fits once, on all rows."""
    by: str | None
    """One of the columns in data.groups, such as language: thresholds are fitted for each of its values, on its rows in
    validation. A value with fewer than 30 rows there, or fewer than min_support labels in them (at least 10), has the
    overall ones (with per_label each label with fewer), as has one that is new in prediction. null: no groups."""
    calibration: Calibration
    """Calibration of the predicted probabilities, fitted on validation before the thresholds. temperature: one slope
    for all logits (Guo et al., 2017); per_label: slope and offset for each label (Platt, 1999); none: no calibration,
    with which a weighted loss makes probabilities too high."""


@dataclass
class FixedThreshold(Thresholds):
    """The same fixed threshold for all labels."""

    value: Annotated[float, Bounds(at_least=0, at_most=1)]
    """The threshold. A label is predicted if its probability is greater."""


@dataclass
class GlobalThreshold(Thresholds):
    """One threshold for all labels, fitted on validation."""


@dataclass
class PerLabelThresholds(Thresholds):
    """One threshold for each label, fitted on validation."""


@dataclass
class ExtraMetric:
    """The `extra_metric` group: metrics of your own, beside those of the program."""


@dataclass
class NoExtraMetric(ExtraMetric):
    """No metric of your own."""


class PredictionColumns(StrEnum):
    """Columns of a prediction file."""

    all = "all"
    decisions = "decisions"


@dataclass
class PredictionFile:
    """How a prediction file is written."""

    text: bool
    """Add a column with the texts."""
    columns: PredictionColumns
    """all: decisions and probabilities; decisions: only 0/1 columns, as for a Kaggle submission."""
    intensities: bool
    """For a run that learned intensities (data.scale=N): add a column i_<label> for each label, with its expected
    intensity, from 0 to N."""
    csv_safe: bool
    """Put ' before csv cells that a spreadsheet would run as a formula (= + - @). This changes texts, ids and label
    names, so turn it on only for files that people open in a spreadsheet."""


@dataclass
class Predictions(PredictionFile):
    """How the prediction files of a run are written."""


class PartFormat(StrEnum):
    """Format of the parts in an output folder."""

    parquet = "parquet"
    jsonl = "jsonl"


@dataclass
class LabelledFile(PredictionFile):
    """How `predict` writes its output."""

    keep: list[str] | None
    """Columns of the input to write too, such as [user,date]. From parquet they keep their types; from other formats
    they are text."""
    parts: PartFormat
    """With engine=ray: format of the parts in the output folder, parquet or jsonl."""
    rows_per_part: Annotated[int, Bounds(at_least=1)]
    """With engine=ray: about this many rows of one input file become one part of the output. A part is what a worker
    reads, labels and writes in one go, and what is done again after a kill: parts of a minute or a few are right."""


class EvaluatedSplit(StrEnum):
    """A split of the data."""

    train = "train"
    validation = "validation"
    test = "test"


# Not written as a class, because a member cannot be named after the Python keyword `global`.
Protocol = StrEnum("Protocol", {"fixed": "fixed", "global": "global", "per_label": "per_label"})


class Score(StrEnum):
    """A metric that runs are compared by."""

    f1_macro = "f1_macro"
    f1_micro = "f1_micro"
    jaccard = "jaccard"
    soft_bce = "soft_bce"
    soft_mae = "soft_mae"
    soft_jensen_shannon = "soft_jensen_shannon"
    soft_correlation = "soft_correlation"


SOFT_SCORES = (Score.soft_bce, Score.soft_mae, Score.soft_jensen_shannon, Score.soft_correlation)
"""Metrics of probabilities against shares. Lower is better for all but the correlation."""
HARD_SCORES = tuple(score for score in Score if score not in SOFT_SCORES)
"""Metrics of decisions."""


def falls(score: Score) -> bool:
    """Whether lower values of a metric are better."""
    return score in SOFT_SCORES and score is not Score.soft_correlation


class ScoredSplit(StrEnum):
    """A split that a finished run has scored."""

    validation = "validation"
    test = "test"
