"""Scores of a trained model: fits thresholds on validation, writes outcomes and predictions, computes metrics."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from emotion_lightning import config
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import (
    calibration,
    extra_metrics,
    group_scores,
    group_thresholds,
    metrics,
    prediction_files,
    row_outcomes,
    thresholds,
)
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.evaluation.group_thresholds import GroupThresholds
from emotion_lightning.evaluation.intensities import Intensities
from emotion_lightning.runs import run_folder
from emotion_lightning.runs.metrics_file import SplitScores

log = logging.getLogger(__name__)


@dataclass
class Scored:
    """A split and the logits of a model.

    Attributes:
        rows: ids and texts, and the gold.
        logits: [row, label].
    """

    rows: Rows
    logits: Tensor

    @property
    def gold(self) -> Gold | None:
        """What the rows are scored against; None if they are not labelled."""
        return None if self.rows.targets is None else Gold.of(self.rows)


@dataclass
class Scores:
    """Result of `score`.

    Attributes:
        splits: metrics of each labelled split, as in metrics.json.
        probabilities: probabilities of each split, [row, label]; calibrated if the settings ask for it.
        thresholds: thresholds of each protocol, [label].
        scaling: the calibration; None if probabilities are not calibrated.
        intensities: how intensities are read from the probabilities; None if none were learned.
        by_group: thresholds of groups; None if they are the same for all rows.
        decided: predicted labels of each split by the chosen protocol, bool, [row, label].
    """

    splits: dict[str, SplitScores]
    probabilities: dict[str, Tensor]
    thresholds: dict[str, Tensor]
    scaling: calibration.Scaling | None
    intensities: Intensities | None = None
    by_group: GroupThresholds | None = None
    decided: dict[str, Tensor] = field(default_factory=dict)


def score(
    folder: Path,
    splits: dict[str, Scored],
    *,
    labels: list[str],
    thresholding: config.Thresholds,
    predict: config.Predictions,
    loss: Callable[[Tensor, Tensor], float],
    extra_metric: config.ExtraMetric,
    intensities: Intensities | None = None,
) -> Scores:
    """Fit calibration and thresholds on `validation`; write outcomes and predictions of every split into a run folder.

    Args:
        folder: run folder.
        splits: splits by name; `validation` must be labelled.
        labels: names.
        thresholding: how thresholds are fitted, and which protocol decides the predictions.
        predict: how prediction files are written.
        loss: computes the loss from logits and what is learned, [row, label], NaN where a label is open.
        extra_metric: metrics of the user's own.
        intensities: how intensities are read from uncalibrated probabilities; None if none were learned.
    """
    gold = splits["validation"].gold
    assert gold is not None
    scaling = calibration.fit_calibration(
        thresholding.calibration, splits["validation"].logits, gold.probable(intensities), known=gold.known
    )
    shares = {name: calibration.probabilities(split.logits, scaling) for name, split in splits.items()}
    if intensities is not None and scaling is not None and gold.shares is not None:
        intensities = intensities.calibrated(shares["validation"], gold.shares, gold.known)
    expected = {
        name: None if intensities is None else intensities.shares_beside(found) for name, found in shares.items()
    }
    by_protocol = thresholds.fit_thresholds(shares["validation"], gold.labels, thresholding, known=gold.known)
    chosen = thresholds.chosen_protocol(thresholding)
    scores: dict[str, SplitScores] = {}
    column = group_thresholds.column_of(thresholding)
    if column is not None:
        group_thresholds.check(splits["validation"].rows, column)
    values = group_thresholds.groups_of(splits["validation"].rows, column)
    by_group = group_thresholds.fit(
        shares["validation"], gold.labels, thresholding, values=values, overall=by_protocol, known=gold.known
    )
    if by_group is not None and values is not None:
        log.info("%s", group_thresholds.sentence(by_group, values))
    decided: dict[str, Tensor] = {}
    for name, split in splits.items():
        probabilities, gold = shares[name], split.gold
        groups = group_thresholds.groups_of(split.rows, column)
        if by_group is not None and (told := group_thresholds.unseen(by_group, groups)) and name != "validation":
            log.warning("%s: %s", name, told)
        decisions = group_thresholds.decide(probabilities, by_protocol, by_group, groups)
        decided[name] = decisions[chosen]
        row_outcomes.write_outcomes(
            folder,
            name,
            row_outcomes.RowOutcomes.of(
                split.rows.ids, labels, probabilities, gold, expected=expected[name], groups=groups
            ),
        )
        prediction_files.write_decisions(
            folder / run_folder.PREDICTIONS / f"{name}.csv",
            split.rows,
            probabilities,
            decided[name],
            labels=labels,
            settings=predict,
            intensities=None if intensities is None else intensities.expected(probabilities),
        )
        if gold is None:
            log.warning("The %s split has no labels: it is predicted, not scored.", name)
            continue
        scores[name] = metrics.score(
            probabilities,
            gold.labels,
            by_protocol,
            labels,
            calibrated=scaling is not None,
            decisions=decisions,
            gold=gold,
            expected=expected[name],
        )
        scores[name]["loss"] = loss(split.logits, gold.learned)
        decides = by_protocol[chosen]
        if extra := extra_metrics.extra_scores(
            extra_metric, probabilities, gold.labels, decides, labels, decisions=decided[name]
        ):
            scores[name]["extra"] = extra
        answered = probabilities if (beside := expected[name]) is None else beside
        if by_column := group_scores.score_groups(
            split.rows, decided[name], gold, labels, protocol=chosen, answered=answered
        ):
            scores[name]["groups"] = by_column
        if by_group is not None:
            scores[name]["thresholds_by"] = by_group.plain(labels)  # type: ignore[typeddict-item]
    if "test" not in splits:
        log.warning("No test split is scored: metrics.json has none.")
    return Scores(scores, shares, by_protocol, scaling, intensities, by_group, decided)
