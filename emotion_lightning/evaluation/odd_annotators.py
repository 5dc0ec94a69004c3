"""Annotators who differ from all others: ranked by how far they agree with those who labelled the same texts.

The agreement of an annotator is Cohen's kappa with the other annotators of the same texts, each of whom counts the same
(Schouten, 1982, "Measuring pairwise interobserver agreement when all subjects are judged by the same observers"): 1
minus the squared difference from them over that by chance, which for intensities is the weighted kappa of Cohen (1968)
and for 0 and 1 the usual one. All labels are pooled, with the rates of each in the expectation. The annotator's own
answers are left out of what they are compared with.

A low kappa may be that of texts on which nobody agrees. So it is related to the kappa of the others among themselves,
on the same texts and labels. The difference has a percentile bootstrap interval over texts (Efron and Tibshirani,
1993), and annotators are ranked by its upper end: the first ones differ most even if chance was against them, which
cannot be said of an annotator of a few texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_lightning.data.agreement import Judgements, summed
from emotion_lightning.errors import counted
from emotion_lightning.evaluation import bootstrap
from emotion_lightning.evaluation.bootstrap import Array

FEW = 30
"""Annotators who share fewer texts than this with others are not ranked."""
CONFIDENCE = 0.95
_SAMPLES = 500
_SEED = 0
_LEAST = 1e-9
"""A smaller difference by chance is that of rounding, and no kappa is defined."""


@dataclass
class OddAnnotator:
    """How far an annotator agrees with the others.

    Attributes:
        name: who it is.
        texts: texts that are compared: those with answers of two others, or of one if texts are labelled by two.
        kappa: agreement with the others; None if none is expected to differ, as where everybody always says 0.
        others: agreement of the others among themselves on the same texts; None as for `kappa`, and for pairs.
        difference: `kappa` minus `others`, or `kappa` itself for pairs; None if one of them is.
        low: lower end of the interval of the difference; None for an annotator who is not ranked.
        high: upper end.
        rates: mean answer to each label on these texts, [label]; NaN where nothing is compared.
        rates_of_others: the same of the others.
    """

    name: str
    texts: int
    kappa: float | None
    others: float | None
    difference: float | None
    low: float | None
    high: float | None
    rates: Array
    rates_of_others: Array

    @property
    def ranked(self) -> bool:
        """Whether there are enough texts to rank the annotator."""
        return self.high is not None


@dataclass
class OddAnnotators:
    """Annotators, those who differ most from the others first, and those who are not ranked last.

    Attributes:
        labels: names.
        annotators: all who share a text with others.
        alone: number of annotators who do not.
        paired: whether most texts have two annotators, so that it is not known how far others agree.
    """

    labels: list[str]
    annotators: list[OddAnnotator]
    alone: int
    paired: bool

    @property
    def odd(self) -> list[OddAnnotator]:
        """Those who agree less with the others than these do among themselves, beyond chance; none if paired."""
        return [] if self.paired else [one for one in self.annotators if one.high is not None and one.high < 0]


def rank(judgements: Judgements) -> OddAnnotators | None:
    """Rank annotators; None if the data does not say who they are.

    Args:
        judgements: what each annotator said. Answers of an annotator to one text several times count with their mean;
            answers of unknown annotators count as those of others.
    """
    parts = judgements.labelled()
    if not any(name is not None for rows, _ in parts for name in rows.annotators or []):
        return None
    answers, known, texts, who, names = _by_annotator(judgements)
    counts, sums = summed(known, texts)[texts], summed(answers * known, texts)[texts]
    squares = summed(answers**2 * known, texts)[texts]
    several = (known > 0) & (counts > 2)
    shared = (known > 0) & (counts > 1)
    paired = 2 * int(several.sum()) < int(shared.sum())
    compared = shared if paired else several
    others = np.maximum(counts - 1, 1)
    cells = _summands(answers, (sums - answers) / others, (squares - answers**2) / others, others, compared)
    has_cells = compared.any(axis=1)
    found, alone = [], 0
    for number, name in enumerate(names):
        rows = cells[(who == number) & has_cells]
        if len(rows):
            found.append(_one(name, rows, len(judgements.labels), paired=paired))
        else:
            alone += 1
    unranked = float("inf")
    order = sorted(found, key=lambda one: (unranked if one.high is None else one.high, -one.texts, one.name))
    return OddAnnotators(judgements.labels, order, alone, paired)


def _by_annotator(
    judgements: Judgements,
) -> tuple[Array, Array, npt.NDArray[np.int64], npt.NDArray[np.int64], list[str]]:
    """One row for each annotator of a text: answers and whether they are known, [row, label], text, annotator, names.

    The annotator is -1 where it is not known.
    """
    given, known, texts = judgements.answers()
    said_by = [name for rows, _ in judgements.labelled() for name in rows.annotators or [None] * len(rows)]
    names = sorted({name for name in said_by if name is not None})
    number = {name: place for place, name in enumerate(names)}
    who = np.array([-1 if name is None else number[name] for name in said_by], dtype=np.int64)
    # Rows of unknown annotators stay apart from each other.
    apart = np.where(who < 0, np.arange(len(who)), -1)
    keys, place = np.unique(np.column_stack([texts, who, apart]), axis=0, return_inverse=True)
    place = place.reshape(-1).astype(np.int64)
    times = summed(known, place)
    answers = summed(given.astype(np.float64) * known, place) / np.maximum(times, 1)
    return answers, (times > 0).astype(np.float64), keys[:, 0], keys[:, 1], names


def _summands(own: Array, mean: Array, square: Array, others: Array, compared: npt.NDArray[np.bool_]) -> Array:
    """Per-row sums whose sums over any choice of rows give both kappas, [row, 2 + 5 labels].

    The columns are the disagreement with the others and that of the others among themselves, summed over labels, and
    for each label the number of cells, the own answer, its square, the mean of the others and that of their squares.

    Args:
        own: answers, [row, label].
        mean: mean of the others' answers, [row, label].
        square: mean of their squares, [row, label].
        others: number of the others, [row, label].
        compared: whether a cell counts, [row, label].
    """
    apart = own**2 - 2 * own * mean + square
    # Twice the variance of the others, as of a sample: the squared difference of two different ones.
    among = 2 * (square - mean**2) * others / np.maximum(others - 1, 1)
    parts = [value * compared for value in (np.ones_like(own), own, own**2, mean, square)]
    sums = [(value * compared).sum(1, keepdims=True) for value in (apart, among)]
    return np.concatenate([*sums, *parts], axis=1)


def _kappas(sums: Array, rows: int) -> Array:
    """Both kappas and their difference, [..., 3], from sums of `_summands`; NaN where there is none."""
    number, own, own_square, mean, square = np.moveaxis(sums[..., 2:].reshape(*sums.shape[:-1], 5, -1), -2, 0)
    asked = np.maximum(number, 1)
    # Number of cells times the squared difference of two answers to different texts.
    chance = (own_square - 2 * own * mean / asked + square).sum(-1)
    chance_among = 2 * (square - mean**2 / asked).sum(-1)
    kappa, others = (
        np.where(expected > _LEAST, 1 - sums[..., place] / np.maximum(expected, _LEAST), np.nan)
        for place, expected in enumerate((chance, chance_among))
    )
    return np.stack([kappa, others, kappa - others], axis=-1)


def _one(name: str, rows: Array, labels: int, *, paired: bool) -> OddAnnotator:
    """The agreement of one annotator.

    Args:
        name: who it is.
        rows: of `_summands`, of the texts that are compared.
        labels: number of labels.
        paired: whether most texts have two annotators.
    """
    sums = rows.sum(0)
    reached = _kappas(sums, len(rows))
    axis = 0 if paired else 2
    low = high = None
    if len(rows) >= FEW and not np.isnan(reached[axis]):
        drawn = bootstrap.draws([rows], samples=_SAMPLES, seed=_SEED, measure=_kappas)[0][:, axis]
        low, high = bootstrap.interval(drawn[~np.isnan(drawn)], confidence=CONFIDENCE)
    number, own, _, mean = sums[2 : 2 + 4 * labels].reshape(4, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = own / number, mean / number
    values = [None if np.isnan(value) else float(value) for value in reached]
    others = None if paired else values[1]
    return OddAnnotator(name, len(rows), values[0], others, values[axis], low, high, *rates)


def most_different(one: OddAnnotator, labels: Sequence[str], *, count: int = 2) -> list[str]:
    """The labels that an annotator gives most differently from the others, with both rates, the largest first."""
    apart = np.nan_to_num(np.abs(one.rates - one.rates_of_others), nan=0.0)
    chosen = [place for place in np.argsort(-apart, kind="stable")[:count].tolist() if apart[place] > 0]
    return [f"{labels[place]} {one.rates[place]:.2f} (others {one.rates_of_others[place]:.2f})" for place in chosen]


COLUMNS = ["annotator", "texts", "kappa", "kappa_among_others", "difference", "low", "high", "differs"]


def table(found: OddAnnotators) -> tuple[list[str], list[list[str]]]:
    """All annotators as the names of columns and rows of cells: agreement, and the rates of each label."""
    names = [*COLUMNS, *(f"{kind}_{label}" for label in found.labels for kind in ("rate", "others"))]
    odd = {one.name for one in found.odd}
    rows = []
    for one in found.annotators:
        cells = ["" if value is None else f"{value:.4f}" for value in _numbers(one)]
        differs = "" if found.paired or not one.ranked else "yes" if one.name in odd else "no"
        rates = np.stack([one.rates, one.rates_of_others], axis=1).reshape(-1).tolist()
        shown = ["" if np.isnan(rate) else f"{rate:.4f}" for rate in rates]
        rows.append([one.name, str(one.texts), *cells, differs, *shown])
    return names, rows


def _numbers(one: OddAnnotator) -> list[float | None]:
    return [one.kappa, one.others, one.difference, one.low, one.high]


def sentences(found: OddAnnotators | None) -> list[str]:
    """How many annotators differ, and what could not be compared."""
    if found is None:
        return ["The data does not say who labelled a text, so annotators are not compared."]
    if not found.annotators:
        return ["No text has labels of several annotators who are known, so they are not compared."]
    ranked = sum(one.ranked for one in found.annotators)
    if found.paired:
        said = [
            "Most texts have two annotators, so it is not known which of them differs: "
            f"{counted(ranked, 'annotator')} ranked by agreement alone."
        ]
    else:
        said = [
            f"Of {counted(ranked, 'annotator')}, {len(found.odd):,} agree less with the others than these do among "
            "themselves."
        ]
    few = len(found.annotators) - ranked
    if few:
        said.append(f"Not ranked, with fewer than {FEW} texts to compare or no kappa: {counted(few, 'annotator')}.")
    if found.alone:
        who = "one other" if found.paired else "two others"
        said.append(f"Without a text that {who} labelled too: {counted(found.alone, 'annotator')}.")
    return said


def plain(found: OddAnnotators) -> list[dict[str, Any]]:
    """The annotators as plain values for JSON."""
    return [
        {
            "name": one.name,
            "texts": one.texts,
            "kappa": one.kappa,
            "kappa_among_others": one.others,
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "rates": {
                label: {"own": float(own), "others": float(theirs)}
                for label, own, theirs in zip(found.labels, one.rates, one.rates_of_others, strict=True)
                if not np.isnan(own)
            },
        }
        for one in found.annotators
    ]
