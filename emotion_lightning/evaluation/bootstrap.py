"""Confidence intervals and significance tests for differences between runs: over rows, and over seeds.

Over rows, this is the paired bootstrap (Efron and Tibshirani, 1993, chapters 13 to 16; Koehn, 2004; Dror et al., 2018):
rows are resampled with replacement, the same rows for every run. A group of runs counts with the mean of their metrics,
so groups may have different numbers of runs. The randomisation test of Yeh (2000) does not allow that, because it swaps
the predictions of two runs. The confidence interval is a percentile interval. The p-value is the level at which this
interval would just touch zero, so the two agree before Holm's correction.

Uncertainty over seeds has its own test. The best group is chosen on the same rows, which slightly favours it if many
groups are compared.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.evaluation import soft_scores

METRICS = config.HARD_SCORES
"""The metrics of decisions, in the order of every metric axis."""
SOFT_METRICS = config.SOFT_SCORES
"""The metrics of probabilities against shares, in the order of their metric axis."""

Array = npt.NDArray[np.float64]

_DRAWS_AT_ONCE = 250

_NO_SPREAD = 1e-12
"""Variances whose root of the product is below this are those of rounding, and a correlation has no meaning."""

Measure = Callable[[Array, int], Array]
"""Computes metrics, [..., metric], from sums over rows, [..., summand], and the number of rows."""


@dataclass
class Measured:
    """One metric of the runs of a group.

    Attributes:
        values: metric of each run, [run].
        drawn: mean over the runs on each bootstrap sample, [sample].
        seeds: seed of each run; None if it is not known.
    """

    values: Array
    drawn: Array
    seeds: Sequence[int | None]

    def by_seed(self) -> Array:
        """Mean over the runs of each seed, [seed]; folds of one seed and copies of a run count as one seed."""
        seeds = np.array([-1 if seed is None else seed for seed in self.seeds])
        return np.array([self.values[seeds == seed].mean() for seed in np.unique(seeds)])


@dataclass
class Spread:
    """Summary of one metric over the runs of a group.

    Attributes:
        mean: mean over the runs.
        sd: standard deviation between the runs, with n - 1; None for a single run.
        least: smallest value of a run.
        most: largest value of a run.
        low: lower end of the confidence interval of the mean, over rows.
        high: upper end of that interval.
    """

    mean: float
    sd: float | None
    least: float
    most: float
    low: float
    high: float


@dataclass
class Difference:
    """Difference of one metric between the best group and another.

    Attributes:
        value: difference of the means.
        low: lower end of its confidence interval, over rows.
        high: upper end of that interval.
        p: two-sided p-value, over rows.
        p_holm: the same, corrected for the number of groups compared.
        p_seeds: p-value of Welch's t-test between the means of the seeds; None if a group has fewer than three seeds,
            or if the metric varies in neither group.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    p_seeds: float | None


def summands(decisions: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Array:
    """Per-row counts whose sums over any choice of rows give the metrics of those rows, [row, 2 labels + 1].

    The columns are: for each label, 1 if it is a true positive; for each label, 1 if it is decided plus 1 if it is in
    gold; the Jaccard index of the row.

    Args:
        decisions: [row, label].
        truth: gold labels, [row, label].
    """
    found = decisions & truth
    either = (decisions | truth).sum(1)
    jaccard = np.where(either > 0, found.sum(1) / np.maximum(either, 1), 1.0)
    return np.concatenate([found, decisions.astype(int) + truth, jaccard[:, None]], axis=1).astype(np.float64)


def metrics(sums: Array, rows: int) -> Array:
    """Compute the metrics, [..., metric], from sums of `summands` over `rows` rows, [..., 2 labels + 1].

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


def soft_summands(probabilities: Tensor, shares: Tensor, known: Tensor | None) -> Array:
    """Per-row sums whose sums over any choice of rows give the soft metrics of those rows, [row, 4 + 6 labels].

    The columns are: cross-entropy, absolute error and Jensen-Shannon distance, summed over the labels that are known,
    and the number of these; then for each label its number, probability, share, their squares and their product.

    Args:
        probabilities: [row, label].
        shares: [row, label].
        known: whether a label is not left open, bool, [row, label]; None if none is.
    """
    cells = torch.ones_like(shares, dtype=torch.bool) if known is None else known
    found, given = probabilities.double(), shares.double()
    means = [(values * cells).sum(1, keepdim=True) for values in soft_scores.by_cell(found, given).values()]
    moments = [torch.ones_like(given), found, given, found.square(), given.square(), found * given]
    parts = [*means, cells.double().sum(1, keepdim=True), *[values * cells for values in moments]]
    return np.asarray(torch.cat(parts, dim=1).numpy(), dtype=np.float64)


def soft_metrics(sums: Array, rows: int) -> Array:
    """Compute the soft metrics, [..., metric], from sums of `soft_summands`, as `soft_scores.soft_scores` does.

    >>> parts = soft_summands(torch.tensor([[0.2], [0.6], [0.9]]), torch.tensor([[0.0], [1.0], [1.0]]), None)
    >>> soft_metrics(parts.sum(0), rows=3).round(3)
    array([0.28 , 0.233, 0.348, 0.904])
    """
    found = defined_soft_metrics(sums, rows)
    found[..., -1] = np.nan_to_num(found[..., -1], nan=0.0)
    return found


def defined_soft_metrics(sums: Array, rows: int) -> Array:
    """Same as `soft_metrics`, but with NaN as the correlation where no label varies."""
    cells = np.maximum(sums[..., 3], 1)
    number, p, s, pp, ss, ps = np.moveaxis(sums[..., 4:].reshape(*sums.shape[:-1], 6, -1), -2, 0)
    spread = np.sqrt(np.maximum(number * pp - p**2, 0) * np.maximum(number * ss - s**2, 0))
    varies = spread > _NO_SPREAD * np.maximum(number, 1) ** 2
    correlations = np.where(varies, (number * ps - p * s) / np.where(varies, spread, 1), 0.0)
    count = varies.sum(-1)
    mean = np.where(count > 0, correlations.sum(-1) / np.maximum(count, 1), np.nan)
    return np.stack([sums[..., 0] / cells, sums[..., 1] / cells, sums[..., 2] / cells, mean], axis=-1)


def _f1(found: Array, sizes: Array) -> Array:
    return np.where(sizes > 0, 2 * found / np.maximum(sizes, 1), 0.0)


def scores(runs: Sequence[Array], measure: Measure = metrics) -> Array:
    """Metrics of runs, [run, metric], from their `summands`, or from those of another measure."""
    return np.stack([measure(parts.sum(0), len(parts)) for parts in runs])


def draws(runs: Sequence[Array], *, samples: int, seed: int, measure: Measure = metrics) -> Array:
    """Metrics of runs on bootstrap samples, the same rows for all runs and measures, [run, sample, metric]."""
    rows = len(runs[0])
    random = np.random.default_rng(seed)
    found = np.empty((len(runs), samples, len(measure(runs[0].sum(0), rows))))
    for start in range(0, samples, _DRAWS_AT_ONCE):
        stop = min(start + _DRAWS_AT_ONCE, samples)
        times = random.multinomial(rows, np.full(rows, 1 / rows), size=stop - start).astype(np.float64)
        for run, parts in enumerate(runs):
            found[run, start:stop] = measure(times @ parts, rows)
    return found


def spread(measured: Measured, *, confidence: float) -> Spread:
    """Summarise one metric of a group over its runs and over rows."""
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
    """Differences between the best group and each other group in one metric, on the same bootstrap samples."""
    apart = [best.drawn - other.drawn for other in others]
    chances = [p_value(draw) for draw in apart]
    found = []
    for other, draw, p, corrected in zip(others, apart, chances, holm(chances), strict=True):
        low, high = interval(draw, confidence=confidence)
        value = float(best.values.mean() - other.values.mean())
        found.append(Difference(value, low, high, p, corrected, p_between_seeds(best.by_seed(), other.by_seed())))
    return found


def interval(drawn: Array, *, confidence: float) -> tuple[float, float]:
    """Percentile interval that contains the fraction `confidence` of the samples."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(drawn: Array) -> float:
    """Two-sided p-value from samples of a difference.

    It is twice the fraction of samples on the rarer side of zero, with one sample added, and at most 1.

    >>> p_value(np.zeros(999)), p_value(np.ones(999))
    (1.0, 0.002)
    """
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(drawn) + 1))


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm, 1979).

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
    """p-value of Welch's t-test between the seeds of two groups, [seed] each; None if it is undefined."""
    from scipy.stats import ttest_ind

    if min(len(ours), len(theirs)) < 3 or (np.ptp(ours) == 0 and np.ptp(theirs) == 0):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one group does not vary, which is allowed
        p = float(ttest_ind(ours, theirs, equal_var=False).pvalue)
    return None if math.isnan(p) else p
