"""How sure a difference between runs is: intervals and tests over rows, and over seeds.

Rows are drawn anew, with replacement, the same ones for every run (the paired bootstrap of Efron and Tibshirani, 1993,
chapters 13 to 16, as Koehn, 2004, and Dror et al., 2018, use it). Several runs of a group count with the mean of their
metrics, so the groups may differ in number; for that the randomisation test of Yeh (2000), which swaps the answers of
two runs, has no like. Percentiles of the draws are the interval, and the p-value is the level at which that interval
would just touch no difference, so before Holm's correction the two agree. That is uncertainty over rows; seeds have a
test of their own. Which group is best is seen on these very rows, which flatters it a little where many are compared.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emotion_lightning import config

METRICS = tuple(config.Score)
"""In the order of every metric axis."""

Array = npt.NDArray[np.float64]

_DRAWS_AT_ONCE = 250


@dataclass
class Measured:
    """A metric of the runs of a group.

    Attributes:
        values: of each run, [run].
        drawn: mean over the runs, over rows drawn anew, [sample].
        seeds: of each run; None where it is not known.
    """

    values: Array
    drawn: Array
    seeds: Sequence[int | None]

    def by_seed(self) -> Array:
        """The mean of each seed's runs, [seed]: folds of a seed, or copies of a run, are no seeds of their own."""
        seeds = np.array([-1 if seed is None else seed for seed in self.seeds])
        return np.array([self.values[seeds == seed].mean() for seed in np.unique(seeds)])


@dataclass
class Spread:
    """A metric of a group of runs.

    Attributes:
        mean: over the runs.
        sd: between the runs, with n - 1; None of one run.
        least: of the runs.
        most: of the runs.
        low: lower end of the interval of the mean, over rows.
        high: upper end.
    """

    mean: float
    sd: float | None
    least: float
    most: float
    low: float
    high: float


@dataclass
class Difference:
    """How far a metric of one group lies above that of another.

    Attributes:
        value: difference of the means.
        low: lower end of its interval, over rows.
        high: upper end.
        p: two-sided, over rows.
        p_holm: the same, corrected for the number of groups compared.
        p_seeds: Welch's t-test between the means of the seeds; None with fewer than three in either group, or where
            no seed changes anything.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    p_seeds: float | None


def summands(decisions: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Array:
    """What each row adds to the metrics, [row, 2 labels + 1], from 0/1 decisions and gold, [row, label].

    For each label whether it was found, then how often it was found or in gold; last the row's Jaccard index. Metrics
    of any choice of rows follow from their sums.
    """
    found = decisions & truth
    either = (decisions | truth).sum(1)
    jaccard = np.where(either > 0, found.sum(1) / np.maximum(either, 1), 1.0)
    return np.concatenate([found, decisions.astype(int) + truth, jaccard[:, None]], axis=1).astype(np.float64)


def metrics(sums: Array, rows: int) -> Array:
    """The metrics, [..., metric], of sums over so many rows, [..., 2 labels + 1].

    >>> parts = summands(np.array([[True, False], [False, False]]), np.array([[True, True], [False, False]]))
    >>> metrics(parts.sum(0), rows=2).round(3)
    array([0.5  , 0.667, 0.75 ])
    """
    labels = sums.shape[-1] // 2
    found, sizes = sums[..., :labels], sums[..., labels:-1]
    values = {
        config.Score.f1_macro: _f1(found, sizes).mean(-1),
        config.Score.f1_micro: _f1(found.sum(-1), sizes.sum(-1)),
        config.Score.jaccard: sums[..., -1] / rows,
    }
    return np.stack([values[name] for name in METRICS], axis=-1)


def _f1(found: Array, sizes: Array) -> Array:
    return np.where(sizes > 0, 2 * found / np.maximum(sizes, 1), 0.0)


def scores(runs: Sequence[Array]) -> Array:
    """The metrics of runs, [run, metric], from their summands."""
    return np.stack([metrics(parts.sum(0), len(parts)) for parts in runs])


def draws(runs: Sequence[Array], *, samples: int, seed: int) -> Array:
    """The metrics of runs over rows drawn anew, the same ones for all, [run, sample, metric]."""
    rows = len(runs[0])
    random = np.random.default_rng(seed)
    found = np.empty((len(runs), samples, len(METRICS)))
    for start in range(0, samples, _DRAWS_AT_ONCE):
        stop = min(start + _DRAWS_AT_ONCE, samples)
        times = random.multinomial(rows, np.full(rows, 1 / rows), size=stop - start).astype(np.float64)
        for run, parts in enumerate(runs):
            found[run, start:stop] = metrics(times @ parts, rows)
    return found


def spread(measured: Measured, *, confidence: float) -> Spread:
    """How far one metric of a group spreads over its runs and over rows."""
    values = measured.values
    low, high = interval(measured.drawn, confidence=confidence)
    return Spread(
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        least=float(values.min()),
        most=float(values.max()),
        low=low,
        high=high,
    )


def differences(best: Measured, others: Sequence[Measured], *, confidence: float) -> list[Difference]:
    """How far one metric of a group lies above that of each other group, drawn over the same rows."""
    apart = [best.drawn - other.drawn for other in others]
    chances = [p_value(draw) for draw in apart]
    found = []
    for other, draw, p, corrected in zip(others, apart, chances, holm(chances), strict=True):
        low, high = interval(draw, confidence=confidence)
        value = float(best.values.mean() - other.values.mean())
        found.append(Difference(value, low, high, p, corrected, p_between_seeds(best.by_seed(), other.by_seed())))
    return found


def interval(drawn: Array, *, confidence: float) -> tuple[float, float]:
    """The percentiles between which so large a share of the draws lies."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(drawn: Array) -> float:
    """Two-sided, of draws of a difference: twice the share on the rarer side of zero, one draw added, at most 1.

    >>> p_value(np.zeros(999)), p_value(np.ones(999))
    (1.0, 0.002)
    """
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(drawn) + 1))


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979).

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(chances)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        largest = max(largest, min(1.0, chances[place] * (len(chances) - rank)))
        corrected[place] = largest
    return corrected


def p_between_seeds(ours: Array, theirs: Array) -> float | None:
    """Welch's t-test between the seeds of two groups, [seed] each; None where it cannot be had."""
    from scipy.stats import ttest_ind

    if min(len(ours), len(theirs)) < 3 or (np.ptp(ours) == 0 and np.ptp(theirs) == 0):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one group may not vary at all, which Welch's test allows
        p = float(ttest_ind(ours, theirs, equal_var=False).pvalue)
    return None if math.isnan(p) else p
