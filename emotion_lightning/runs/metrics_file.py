"""metrics.json of a run folder: the types of its content, and how it is read."""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from emotion_lightning.runs import bounded_files, manifest, run_folder

Score = Literal[
    "f1_micro",
    "f1_macro",
    "f1_macro_supported",
    "jaccard",
    "f1_samples",
    "subset_accuracy",
    "label_accuracy",
    "predicted_cardinality",
    "gold_cardinality",
]


SoftScore = Literal["bce", "mae", "jensen_shannon", "correlation"]


class LabelScores(TypedDict):
    """Scores of one label."""

    precision: float
    recall: float
    f1: float
    support: int
    threshold: float


class ProtocolScores(TypedDict):
    """Scores of decisions with the thresholds of one protocol."""

    f1_micro: float
    f1_macro: float
    f1_macro_supported: float
    jaccard: float
    f1_samples: float
    subset_accuracy: float
    label_accuracy: float
    predicted_cardinality: float
    gold_cardinality: float
    labels: dict[str, LabelScores]


class SoftLabelScores(TypedDict):
    """How well the probabilities of a label match its shares; the correlation is null if one of them does not vary."""

    bce: float
    mae: float
    jensen_shannon: float
    correlation: float | None
    share: float
    probability: float


class SoftScores(TypedDict):
    """How well probabilities match shares."""

    bce: float
    mae: float
    jensen_shannon: float
    correlation: float
    ece: float
    labels: dict[str, SoftLabelScores]


class IntensityScores(TypedDict):
    """How well intensities are predicted; `labels` has Pearson's r of each, null if one side does not vary."""

    pearson: float
    pearson_rounded: float
    mae: float
    scale: float
    labels: dict[str, float | None]


class GroupMetric(TypedDict):
    """A score of a group, with the ends of its interval over rows."""

    value: float
    low: float
    high: float


class GroupScores(TypedDict):
    """Scores of the rows with one value in a column; labels without rows have F1 0 and count in the macro F1.

    Labels that every row leaves open do not.
    """

    rows: int
    f1_macro: GroupMetric
    f1_micro: GroupMetric
    jaccard: GroupMetric
    labels_without_rows: list[str]
    labels_left_open: NotRequired[list[str]]
    soft: NotRequired["GroupSoftScores"]
    intensity: NotRequired["GroupIntensityScores"]


class GroupSoftScores(TypedDict):
    """How well probabilities match the shares of a group's rows, over all labels, as in `SoftScores`.

    There is no correlation where no label varies in both.
    """

    bce: GroupMetric
    mae: GroupMetric
    jensen_shannon: GroupMetric
    correlation: NotRequired[GroupMetric]


class GroupIntensityScores(TypedDict):
    """How well intensities of a group's rows are predicted; empty where no label varies."""

    pearson: NotRequired[GroupMetric]


class Gap(TypedDict):
    """The largest gap between groups in one score: its interval over rows, and how likely it is by chance."""

    best: str
    worst: str
    value: float
    low: float
    high: float
    p: float
    more_than_noise: bool


class ByColumn(TypedDict):
    """Scores by the values of a column; gaps by score, none where there are no two groups of enough rows."""

    values: dict[str, GroupScores]
    gaps: dict[str, Gap]


class Groups(TypedDict):
    """Scores of groups, decided by one threshold protocol."""

    protocol: str
    confidence: float
    samples: int
    columns: dict[str, ByColumn]


class ThresholdsBy(TypedDict):
    """Thresholds of groups: by value of the column, threshold protocol and label."""

    column: str
    values: dict[str, dict[str, dict[str, float]]]


SplitScores = TypedDict(
    "SplitScores",
    {
        "rows": int,
        "probabilities": Literal["raw", "calibrated"],
        "map": float,
        "lrap": float,
        "ece": float,
        "brier": float,
        "loss": NotRequired[float],
        "extra": NotRequired[dict[str, float]],
        "soft": NotRequired[SoftScores],
        "intensity": NotRequired[IntensityScores],
        "groups": NotRequired[Groups],
        "thresholds_by": NotRequired[ThresholdsBy],
        "fixed": ProtocolScores,
        "global": ProtocolScores,
        "per_label": ProtocolScores,
        "oracle": ProtocolScores,
    },
)
"""Scores of a split: what needs no thresholds, and the scores of each threshold protocol.

Rows with shares have `soft`, and with intensities `intensity`. `thresholds_by` has thresholds of groups; those of the
labels are then for all other groups."""


class Cost(TypedDict):
    """Cost of a training. A baseline has no tokens."""

    trainable_parameters: int
    train_seconds: float
    samples_per_second: float
    tokens_per_second: NotRequired[float]
    peak_memory_bytes: int


class RunMetrics(TypedDict, total=False):
    """Content of metrics.json.

    `evaluate` writes one split, which may be train, the run, and how labels of the run and the data were mapped to each
    other; baselines have floors.
    """

    train: SplitScores
    validation: SplitScores
    test: SplitScores
    cost: Cost
    floors: dict[str, dict[str, SplitScores]]
    run: str
    mapping: dict[str, Any]


def of_split(metrics: RunMetrics, split: str) -> SplitScores:
    """The scores of a split."""
    return metrics[split]  # type: ignore[literal-required]


def of_protocol(scores: SplitScores, protocol: str) -> ProtocolScores:
    """The scores of a split with the thresholds of a protocol, or of the oracle."""
    return scores[protocol]  # type: ignore[literal-required]


def read_metrics(folder: Path) -> RunMetrics:
    """Read metrics.json of a run folder and compare it with its checksum. Its content is not checked.

    Raises:
        UserError: the file is missing, is no JSON, or has another checksum.
    """
    manifest.check_run_hashes(folder, run_folder.METRICS)
    return cast(RunMetrics, bounded_files.read_json(folder / run_folder.METRICS))
