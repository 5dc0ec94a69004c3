"""Scores of groups of rows, such as those of each language, with intervals, and whether the largest gap is noise.

Intervals are those of the percentile bootstrap, as in `bootstrap`; the rows of each group are resampled by themselves.
For the gap between the best and the worst group that is not enough: of many groups that are equally good, some two are
apart by chance, and the smaller they are, the more. So the mean is taken off the samples of each group. What is left
are the errors of the groups, as they would be if all were equally good, and the p-value is how often these are as far
apart as the groups are. It is the idea of Tukey's range test (Tukey, 1953), with the bootstrap (Efron and Tibshirani,
1993, chapter 16) in place of the normal distribution.
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
from emotion_lightning.runs.metrics_file import ByColumn, Gap, GroupMetric, Groups, GroupScores

Bools = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
SAMPLES = 1000
SEED = 0

FEW = 30
"""Groups with fewer rows have scores, but no part in the largest gap."""

METRICS: tuple[config.Score, ...] = (config.Score.f1_macro, config.Score.f1_micro, config.Score.jaccard)
_PLACES = {metric: bootstrap.METRICS.index(metric) for metric in METRICS}


def score_groups(rows: Rows, decisions: Tensor, gold: Gold, labels: Sequence[str], *, protocol: str) -> Groups | None:
    """Scores for each value of the columns that the rows carry along; None if they carry none.

    Args:
        rows: ids, texts and columns.
        decisions: predicted labels, bool, [row, label].
        gold: what the rows are scored against.
        labels: names.
        protocol: the threshold protocol that decided.
    """
    if not rows.carried:
        return None
    known = torch.ones_like(gold.labels, dtype=torch.bool) if gold.known is None else gold.known
    truth, decided, asked = (part.numpy() for part in (gold.labels.bool() & known, decisions & known, known))
    return {
        "protocol": protocol,
        "confidence": CONFIDENCE,
        "samples": SAMPLES,
        "columns": {
            name: _of_column(carried.values(column), decided, truth, asked, labels)
            for name, column in rows.carried.items()
        },
    }


def _of_column(of_row: Sequence[str], decided: Bools, truth: Bools, asked: Bools, labels: Sequence[str]) -> ByColumn:
    """Scores for each value of a column, the largest group first.

    Args:
        of_row: value of each row.
        decided: predicted labels, [row, label].
        truth: gold labels, [row, label].
        asked: whether a label is not left open, [row, label].
        labels: names.
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
    return {"values": values, "gaps": _gaps(values, drawn)}


def _metric(value: float, drawn: bootstrap.Array) -> GroupMetric:
    low, high = bootstrap.interval(drawn, confidence=CONFIDENCE)
    return {"value": value, "low": low, "high": high}


def _gaps(values: dict[str, GroupScores], drawn: dict[str, bootstrap.Array]) -> dict[str, Gap]:
    """The largest gap in each metric between groups that are not too small; empty if there are no two of these."""
    names = [name for name, scores in values.items() if scores["rows"] >= FEW]
    if len(names) < 2:
        return {}
    found: dict[str, Gap] = {}
    for metric, axis in _PLACES.items():
        reached = np.array([values[name][metric.value]["value"] for name in names])  # type: ignore[typeddict-item]
        samples = np.stack([drawn[name][:, axis] for name in names])  # [group, sample]
        best, worst = int(reached.argmax()), int(reached.argmin())
        gap = float(reached[best] - reached[worst])
        errors = samples - samples.mean(axis=1, keepdims=True)
        p = chance_of_gap(gap, errors)
        low, high = bootstrap.interval(samples[best] - samples[worst], confidence=CONFIDENCE)
        found[metric.value] = {
            "best": names[best],
            "worst": names[worst],
            "value": gap,
            "low": low,
            "high": high,
            "p": p,
            "more_than_noise": p < 1 - CONFIDENCE,
        }
    return found


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
    chance = f"p {gap['p']:.3f}" if gap["p"] >= 0.001 else "p < 0.001"
    noise = "more than noise" if gap["more_than_noise"] else "no more than noise"
    sentence = (
        f"By {column}, the largest gap in macro F1 is {gap['value']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}], "
        f"{gap['best']} against {gap['worst']}: {noise} ({chance})."
    )
    lacking = {name: values[name]["labels_without_rows"] for name in (gap["best"], gap["worst"])}
    for name, without in lacking.items():
        if without:
            few = ", ".join(without[:3]) + (" …" if len(without) > 3 else "")
            sentence += f" {name} has no row with {few}, which counts as 0 in its macro F1."
        if open_ := values[name].get("labels_left_open"):
            sentence += f" {name} is scored without {', '.join(open_[:3])}{' …' if len(open_) > 3 else ''}."
    return sentence


def table(column: str, found: ByColumn) -> tuple[list[str], list[list[str]]]:
    """The scores of a column's groups as the names of columns and rows of cells, the largest group first."""
    names = [column, "rows", "macro F1", "micro F1", "Jaccard"]
    rows = []
    for value, scores in found["values"].items():
        of_metric: list[GroupMetric] = [scores["f1_macro"], scores["f1_micro"], scores["jaccard"]]
        shown = [f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in of_metric]
        rows.append([value, f"{scores['rows']:,}", *shown])
    return names, rows
