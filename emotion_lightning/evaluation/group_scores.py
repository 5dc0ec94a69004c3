"""Scores of groups of rows, such as those of each language, with intervals, and whether the largest gap is noise.

Intervals are those of the percentile bootstrap, as in `bootstrap`; the rows of each group are resampled by themselves.
For the gap between the best and the worst group that is not enough: of many groups that are equally good, some two are
apart by chance, and the smaller they are, the more. So the mean is taken off the samples of each group. What is left
are the errors of the groups, as they would be if all were equally good, and the p-value is how often these are as far
apart as the groups are. It is the idea of Tukey's range test (Tukey, 1953), with the bootstrap (Efron and Tibshirani,
1993, chapter 16) in place of the normal distribution.

Groups whose rows have shares are scored against these too, by probabilities and without thresholds. Cross-entropy and
absolute error depend on how often labels are given and how far annotators agree, which differs between groups; the
correlation does so least, so its gap is the one that is told.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.data import carried
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import bootstrap
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.runs.metrics_file import (
    ByColumn,
    Gap,
    GroupMetric,
    Groups,
    GroupScores,
    GroupSoftScores,
    SoftScore,
)

Bools = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
SAMPLES = 1000
SEED = 0

FEW = 30
"""Groups with fewer rows have scores, but no part in the largest gap."""

METRICS: tuple[config.Score, ...] = (config.Score.f1_macro, config.Score.f1_micro, config.Score.jaccard)
_PLACES = {metric: bootstrap.METRICS.index(metric) for metric in METRICS}
_SOFT: dict[config.Score, tuple[SoftScore, str]] = {
    config.Score.soft_bce: ("bce", "BCE"),
    config.Score.soft_mae: ("mae", "MAE"),
    config.Score.soft_jensen_shannon: ("jensen_shannon", "Jensen-Shannon"),
    config.Score.soft_correlation: ("correlation", "correlation"),
}
"""Metrics against shares, with their names in metrics.json and in tables."""


def score_groups(
    rows: Rows,
    decisions: Tensor,
    gold: Gold,
    labels: Sequence[str],
    *,
    protocol: str,
    answered: Tensor | None = None,
) -> Groups | None:
    """Scores for each value of the columns that the rows carry along; None if they carry none.

    Args:
        rows: ids, texts and columns.
        decisions: predicted labels, bool, [row, label].
        gold: what the rows are scored against.
        labels: names.
        protocol: the threshold protocol that decided.
        answered: the shares that are answered, [row, label], where the gold has shares; None: these are not scored.
    """
    if not rows.carried:
        return None
    known = torch.ones_like(gold.labels, dtype=torch.bool) if gold.known is None else gold.known
    truth, decided, asked = (part.numpy() for part in (gold.labels.bool() & known, decisions & known, known))
    soft = None
    if answered is not None and gold.shares is not None:
        soft = bootstrap.soft_summands(answered, gold.shares, gold.known)
    return {
        "protocol": protocol,
        "confidence": CONFIDENCE,
        "samples": SAMPLES,
        "columns": {
            name: _of_column(
                carried.values(column), decided, truth, asked, labels, soft, intensities=gold.scale is not None
            )
            for name, column in rows.carried.items()
        },
    }


def _of_column(
    of_row: Sequence[str],
    decided: Bools,
    truth: Bools,
    asked: Bools,
    labels: Sequence[str],
    soft: bootstrap.Array | None,
    *,
    intensities: bool,
) -> ByColumn:
    """Scores for each value of a column, the largest group first.

    Args:
        of_row: value of each row.
        decided: predicted labels, [row, label].
        truth: gold labels, [row, label].
        asked: whether a label is not left open, [row, label].
        labels: names.
        soft: of `bootstrap.soft_summands`, [row, summand]; None without shares.
        intensities: whether the shares are those of intensities.
    """
    given = np.array(of_row, dtype=object)
    names, counts = np.unique(given.astype(str), return_counts=True)
    values: dict[str, GroupScores] = {}
    drawn: dict[str, bootstrap.Array] = {}
    for place in np.lexsort((names, -counts)).tolist():
        name = str(names[place])
        own = np.flatnonzero(given == name)
        # A label that no row of the group was asked for, such as one that a language lacks, is no label of it.
        of_group = np.asarray(asked[own].any(axis=0))
        parts = bootstrap.summands(decided[own][:, of_group], truth[own][:, of_group])
        # Seeds differ, because the rows of two groups have nothing to do with each other.
        found = bootstrap.draws([parts], samples=SAMPLES, seed=SEED + place)[0]
        reached = bootstrap.metrics(parts.sum(0), len(own))
        bare = np.asarray(of_group & ~truth[own].any(axis=0))
        values[name] = {
            "rows": len(own),
            **{  # type: ignore[typeddict-item]  # the names of the metrics
                metric.value: _metric(float(reached[axis]), found[:, axis]) for metric, axis in _PLACES.items()
            },
            "labels_without_rows": [label for label, lacks in zip(labels, bare, strict=True) if lacks],
        }
        if not of_group.all():
            values[name]["labels_left_open"] = [label for label, of in zip(labels, of_group, strict=True) if not of]
        drawn[name] = found
        if soft is not None:
            of_soft, drawn_soft = _soft_scores(soft[own], seed=SEED + place)
            values[name]["soft"] = of_soft
            drawn[name] = np.concatenate([found, drawn_soft], axis=1)
            if intensities:
                # Pearson's r does not depend on the scale.
                values[name]["intensity"] = {"pearson": of_soft["correlation"]} if "correlation" in of_soft else {}
    return {"values": values, "gaps": _gaps(values, drawn)}


def _soft_scores(parts: bootstrap.Array, *, seed: int) -> tuple[GroupSoftScores, bootstrap.Array]:
    """Scores of a group against shares, and those of its bootstrap samples, [sample, metric].

    Args:
        parts: of `bootstrap.soft_summands`, [row, summand].
        seed: of the samples.
    """
    measure = bootstrap.defined_soft_metrics
    reached = measure(parts.sum(0), len(parts))
    drawn = bootstrap.draws([parts], samples=SAMPLES, seed=seed, measure=measure)[0]
    found = {
        name: _metric(float(reached[axis]), drawn[:, axis])
        for axis, (name, _) in enumerate(_SOFT.values())
        if not np.isnan(reached[axis])
    }
    return found, drawn  # type: ignore[return-value]  # the names of the metrics


def _metric(value: float, drawn: bootstrap.Array) -> GroupMetric:
    # A sample in which no label varies has no correlation.
    low, high = bootstrap.interval(drawn[~np.isnan(drawn)], confidence=CONFIDENCE)
    return {"value": value, "low": low, "high": high}


def _gaps(values: dict[str, GroupScores], drawn: dict[str, bootstrap.Array]) -> dict[str, Gap]:
    """The largest gap in each metric between groups that are not too small; empty if there are no two of these."""
    enough = {name: scores for name, scores in values.items() if scores["rows"] >= FEW}
    found: dict[str, Gap] = {}
    axes = _PLACES | {metric: len(bootstrap.METRICS) + axis for axis, metric in enumerate(_SOFT)}
    for metric, axis in axes.items():
        reached = {name: value for name, scores in enough.items() if (value := _reached(scores, metric)) is not None}
        if len(reached) > 1:
            found[metric.value] = _gap(metric, reached, {name: drawn[name][:, axis] for name in reached})
    return found


def _reached(scores: GroupScores, metric: config.Score) -> float | None:
    """The value of a metric; None if the group has none."""
    if metric in _PLACES:
        return scores[metric.value]["value"]  # type: ignore[typeddict-item]
    own = scores.get("soft", {}).get(_SOFT[metric][0])
    return None if own is None else own["value"]


def _gap(metric: config.Score, reached: dict[str, float], drawn: dict[str, bootstrap.Array]) -> Gap:
    """The largest gap in a metric.

    Args:
        metric: which one.
        reached: its value, by group.
        drawn: its values on bootstrap samples, [sample], by group.
    """
    names = list(reached)
    found = np.array(list(reached.values()))
    # Where no label varies in a sample, its correlation says nothing: the mean of the others stands for it.
    samples = np.stack([np.where(np.isnan(own), np.nanmean(own), own) for own in drawn.values()])  # [group, sample]
    highest, lowest = int(found.argmax()), int(found.argmin())
    best, worst = (lowest, highest) if config.falls(metric) else (highest, lowest)
    gap = float(found[highest] - found[lowest])
    p = chance_of_gap(gap, samples - samples.mean(axis=1, keepdims=True))
    low, high = bootstrap.interval(samples[highest] - samples[lowest], confidence=CONFIDENCE)
    return {
        "best": names[best],
        "worst": names[worst],
        "value": gap,
        "low": low,
        "high": high,
        "p": p,
        "more_than_noise": p < 1 - CONFIDENCE,
    }


def chance_of_gap(gap: float, errors: bootstrap.Array) -> float:
    """How often the largest gap between equally good groups is at least this large, with one sample added.

    Args:
        gap: the largest gap that was found.
        errors: deviations of each group from its mean on bootstrap samples, [group, sample].

    >>> chance_of_gap(0.1, np.zeros((3, 999))), chance_of_gap(0.0, np.zeros((3, 999)))
    (0.001, 1.0)
    """
    as_large = np.ptp(errors, axis=0) >= gap
    return (int(as_large.sum()) + 1) / (errors.shape[1] + 1)


def sentences(groups: Groups) -> list[str]:
    """What the largest gap of each column is, and whether it is more than noise."""
    return [_sentence(name, found) for name, found in groups["columns"].items()]


def _sentence(column: str, found: ByColumn) -> str:
    values, gap = found["values"], found["gaps"].get(config.Score.f1_macro)
    if gap is None:
        if len(values) < 2:
            return f"By {column} there is one group only, {next(iter(values))}."
        return f"By {column} there are no two groups of at least {FEW} rows, so no gap between them is told."
    sentence = f"By {column}, the largest gap in macro F1 is {_told(gap)}"
    lacking = {name: values[name]["labels_without_rows"] for name in (gap["best"], gap["worst"])}
    for name, without in lacking.items():
        if without:
            few = ", ".join(without[:3]) + (" …" if len(without) > 3 else "")
            sentence += f" {name} has no row with {few}, which counts as 0 in its macro F1."
        if open_ := values[name].get("labels_left_open"):
            sentence += f" {name} is scored without {', '.join(open_[:3])}{' …' if len(open_) > 3 else ''}."
    if (gap := found["gaps"].get(config.Score.soft_correlation)) is not None:
        sentence += f" The largest gap in {_correlation(found)} is {_told(gap)}"
    return sentence


def _told(gap: Gap) -> str:
    """A gap with its interval and groups, and whether it is more than noise, for the end of a sentence."""
    chance = f"p {gap['p']:.3f}" if gap["p"] >= 0.001 else "p < 0.001"
    noise = "more than noise" if gap["more_than_noise"] else "no more than noise"
    return (
        f"{gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}], {gap['best']} against {gap['worst']}: {noise} "
        f"({chance})."
    )


def _correlation(found: ByColumn) -> str:
    """What the correlation with shares is called."""
    of_intensities = any("intensity" in scores for scores in found["values"].values())
    return "Pearson's r of intensities" if of_intensities else "the correlation with the shares"


def table(column: str, found: ByColumn) -> tuple[list[str], list[list[str]]]:
    """The scores of a column's groups as the names of columns and rows of cells, the largest group first."""
    names = [column, "rows", "macro F1", "micro F1", "Jaccard"]
    rows = []
    for value, scores in found["values"].items():
        of_metric: list[GroupMetric] = [scores["f1_macro"], scores["f1_micro"], scores["jaccard"]]
        rows.append([value, f"{scores['rows']:,}", *map(_shown, of_metric)])
    return names, rows


def soft_table(column: str, found: ByColumn) -> tuple[list[str], list[list[str]]] | None:
    """The scores of a column's groups against shares, as `table` returns those of decisions; None without shares."""
    of_group = {value: scores for value, scores in found["values"].items() if "soft" in scores}
    if not of_group:
        return None
    titles = {name: title for name, title in _SOFT.values()}
    if any("intensity" in scores for scores in of_group.values()):
        titles["correlation"] = "Pearson of intensities"
    rows = []
    for value, scores in of_group.items():
        own = scores["soft"]
        shown = [_shown(one) if (one := own.get(name)) is not None else "–" for name in titles]
        rows.append([value, f"{scores['rows']:,}", *shown])
    return [column, "rows", *titles.values()], rows


def _shown(one: GroupMetric) -> str:
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
