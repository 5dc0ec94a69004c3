"""From probabilities to decisions: the only place that does it.

A label is predicted where its probability is greater than its threshold. Thresholds are fitted on validation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from emotion_lightning import config

PROTOCOLS = ("fixed", "global", "per_label")
FIXED = 0.5
ORACLE = "oracle"
"""Thresholds fitted on the rows that they are scored on: what perfect ones would bring, shown and never used."""

_GRID = torch.arange(1, 100, dtype=torch.float64) / 100
_ROUNDS = 10


def protocol(settings: config.Thresholds) -> str:
    """Name of the protocol that decides prediction files."""
    return {
        config.FixedThreshold: "fixed",
        config.GlobalThreshold: "global",
        config.PerLabelThresholds: "per_label",
    }[type(settings)]


def decide(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """True where a label is predicted, [row, label].

    >>> decide(torch.tensor([[0.5, 0.6]]), torch.tensor([0.5, 0.5]))
    tensor([[False,  True]])
    """
    return probabilities.double() > thresholds.double()


def fit(probabilities: Tensor, targets: Tensor, settings: config.Thresholds) -> dict[str, Tensor]:
    """Thresholds of every protocol, [label] each, float64.

    Args:
        probabilities: of the validation rows, [row, label].
        targets: multi-hot, [row, label].
        settings: what they are fitted for, and with how much care.
    """
    fixed = settings.value if isinstance(settings, config.FixedThreshold) else FIXED
    labels = probabilities.shape[1]
    fitted = [
        _fitted(probabilities[rows], targets[rows], settings) for rows in _parts(len(probabilities), settings.cross_fit)
    ]
    enough = targets.bool().sum(0) >= settings.min_support
    everywhere = torch.stack([cut for cut, _ in fitted]).mean(0)
    per_label = torch.stack([cuts for _, cuts in fitted]).mean(0)
    return {
        "fixed": torch.full((labels,), fixed, dtype=torch.float64),
        "global": everywhere.expand(labels).clone(),
        "per_label": torch.where(enough, per_label, everywhere),
    }


def oracle(probabilities: Tensor, targets: Tensor) -> Tensor:
    """For each label the cut with its highest F1 on these very rows, [label]."""
    return per_label_thresholds(probabilities, targets, fallback=FIXED)


def _fitted(probabilities: Tensor, targets: Tensor, settings: config.Thresholds) -> tuple[Tensor, Tensor]:
    everywhere = global_threshold(probabilities, targets, metric=settings.metric)
    if settings.metric is config.ThresholdMetric.macro:
        per_label = per_label_thresholds(probabilities, targets, fallback=everywhere)
    else:
        per_label = _ascend(probabilities, targets, start=everywhere, metric=settings.metric)
    return torch.tensor(everywhere, dtype=torch.float64), per_label


def _parts(rows: int, folds: int | None) -> list[Tensor]:
    """Row numbers to fit on: all of them, or for each fold all others."""
    if folds is None or rows < 2 * folds:
        return [torch.arange(rows)]
    # Shuffled, since files are often in some order, and always in the same way.
    fold = torch.randperm(rows, generator=torch.Generator().manual_seed(0)) % folds
    return [(fold != number).nonzero().flatten() for number in range(folds)]


def global_threshold(
    probabilities: Tensor, targets: Tensor, *, metric: config.ThresholdMetric = config.ThresholdMetric.macro
) -> float:
    """The cut, of 0.01 to 0.99, with the highest score; of equals the one nearest to 0.5."""
    truth = targets.bool()
    # How many cuts lie below a probability: it is predicted at these, and at no other.
    passed = torch.searchsorted(_GRID.to(probabilities.device), probabilities.double())
    if metric is config.ThresholdMetric.jaccard:
        scores = _jaccard_of_cuts(passed, truth)
    else:
        found, predicted = _above(passed, truth), _above(passed, torch.ones_like(truth))
        total = predicted + truth.sum(0)
        if metric is config.ThresholdMetric.micro:
            found, total = found.sum(1), total.sum(1)
            scores = _f1(found, total)
        else:
            scores = torch.stack([scores.mean() for scores in _f1(found, total)])
    best = (scores >= scores.max() - 1e-12).nonzero().flatten()
    return float(_GRID[best[(_GRID[best] - 0.5).abs().argmin()]])


def _above(passed: Tensor, counted: Tensor) -> Tensor:
    """Cells that are predicted at each cut of the grid, of those that are `counted`, [cut, label], int64.

    Args:
        passed: how many cuts each probability is above, [row, label].
        counted: bool, [row, label].
    """
    labels, cuts = passed.shape[1], len(_GRID)
    cells = torch.arange(labels, device=passed.device) * (cuts + 1) + passed
    histogram = torch.bincount(cells[counted], minlength=labels * (cuts + 1)).view(labels, cuts + 1)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:].T


def _jaccard_of_cuts(passed: Tensor, truth: Tensor) -> Tensor:
    """The mean over the rows of their Jaccard index at each cut of the grid, [cut], float64."""
    rows, labels = passed.shape
    passed, order = passed.sort(dim=1, descending=True)
    gold = truth.sum(1)
    hits, index = torch.zeros_like(gold), torch.where(gold > 0, 0.0, 1.0).double()  # where nothing is predicted
    # A row's index changes at a label's probability and is the same in between; `changes` holds by how much, at the
    # last cut below that probability. Summed from the highest cut down, they give the sum over rows at each cut.
    changes = torch.zeros(len(_GRID) + 1, dtype=torch.float64, device=passed.device)
    start = index.sum()
    for place in range(labels):
        hits = hits + truth.gather(1, order[:, place : place + 1]).squeeze(1)
        after = hits.double() / (gold + place + 1 - hits)
        changes += torch.bincount(passed[:, place], weights=after - index, minlength=len(_GRID) + 1)
        index = after
    return (start + changes.flip(0).cumsum(0).flip(0)[1:]) / rows


def per_label_thresholds(probabilities: Tensor, targets: Tensor, *, fallback: float) -> Tensor:
    """For each label the cut with its highest F1, half-way between two probabilities that occur, [label].

    A label without positives, or of which no cut finds one, gets `fallback`.
    """
    return torch.stack(
        [
            _best_cut(probabilities[:, label].double(), targets[:, label].bool(), fallback)
            for label in range(probabilities.shape[1])
        ]
    )


def _best_cut(probabilities: Tensor, truth: Tensor, fallback: float) -> Tensor:
    positives = truth.sum()
    if positives == 0:
        return torch.tensor(fallback, dtype=torch.float64)
    ordered, order = probabilities.sort(descending=True)
    found = truth[order].cumsum(0)
    f1 = 2 * found / (torch.arange(1, len(ordered) + 1, device=found.device) + positives)
    middle, possible = _middles(ordered)
    f1 = torch.where(possible, f1, 0.0)
    if f1.max() == 0:
        return torch.tensor(fallback, dtype=torch.float64)
    best = (f1 >= f1.max() - 1e-12).nonzero().flatten()
    return middle[best[(middle[best] - 0.5).abs().argmin()]]


def _middles(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts below each probability of a falling row, and whether there is room for one."""
    # A cut is possible only between two different probabilities, and below the last, which may be 0.
    below = torch.cat([ordered[1:], ordered.new_zeros(1)])
    return (ordered + below) / 2, ordered > below


# ------------------------------------------------------------------------------- scores that labels cannot have apart


def _ascend(probabilities: Tensor, targets: Tensor, *, start: float, metric: config.ThresholdMetric) -> Tensor:
    """Cuts that no change of a single one betters, from a common one: coordinate ascent, [label]."""
    probabilities, truth = probabilities.double(), targets.bool()
    labels = probabilities.shape[1]
    cuts = torch.full((labels,), start, dtype=torch.float64)
    decisions = decide(probabilities, cuts)
    value = float(_SCORES[metric](decisions, truth))
    # Labels of each row that are decided and true, and those that are decided or true.
    both, either = (decisions & truth).sum(1), (decisions | truth).sum(1)
    sorts = [probabilities[:, label].sort(descending=True) for label in range(labels)]
    for _ in range(_ROUNDS):
        before = value
        for label in range(labels):
            gold = truth[:, label]
            ordered, order = sorts[label]
            decided = decide(probabilities[:, label], cuts[label])
            others = both - (decided & gold).long(), either - (decided | gold).long()
            middle, scores = _scores_of_cuts(ordered, gold[order], [part[order] for part in others], metric)
            best = (scores >= scores.max() - 1e-12).nonzero().flatten()
            if float(scores.max()) > value + 1e-12:
                cuts[label] = middle[best[(middle[best] - 0.5).abs().argmin()]]
                value = float(scores.max())
                decided = decide(probabilities[:, label], cuts[label])
                both, either = others[0] + (decided & gold), others[1] + (decided | gold)
        if value <= before + 1e-12:
            break
    return cuts


def _scores_of_cuts(
    ordered: Tensor, gold: Tensor, others: Sequence[Tensor], metric: config.ThresholdMetric
) -> tuple[Tensor, Tensor]:
    """Every cut of one label, and the score that each brings while the other labels keep theirs.

    Args:
        ordered: the label's probabilities from high to low, [row].
        gold: whether those rows have the label.
        others: how many of the rows' other labels are decided and true, and how many are decided or true.
        metric: what is scored.
    """
    middle, possible = _middles(ordered)
    both, either = others

    def summed(yes: Tensor, no: Tensor) -> Tensor:
        # The first k rows say yes, the others no: for every k at once, k from 0.
        zero = yes.new_zeros(1)
        return torch.cat([zero, yes.cumsum(0)]) + no.sum() - torch.cat([zero, no.cumsum(0)])

    if metric is config.ThresholdMetric.jaccard:
        scores = summed(_index(both + gold, either + 1), _index(both, either + gold)) / len(gold)
    else:
        # What is decided and what is true, counted together, is the sum of both kinds.
        hits = summed((both + gold).double(), both.double())
        sizes = summed((both + gold + either + 1).double(), (both + either + gold).double())
        scores = torch.where(sizes > 0, 2 * hits / sizes.clamp(min=1), 0.0)
    # Above the highest probability the label is never predicted.
    highest = (1 + ordered[:1]) / 2
    middle = torch.cat([highest, middle])
    possible = torch.cat([torch.ones(1, dtype=torch.bool), possible])
    return middle, torch.where(possible, scores, -1.0)


def row_jaccard(decisions: Tensor, truth: Tensor) -> Tensor:
    """Jaccard index of each row, [row], float64; 1 where neither has a label. Both bool, [row, label]."""
    return _index((decisions & truth).sum(1), (decisions | truth).sum(1))


def _index(both: Tensor, either: Tensor) -> Tensor:
    return torch.where(either > 0, both.double() / either.clamp(min=1), 1.0)


def _f1(found: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, 2 * found.double() / total.clamp(min=1), 0.0)


def _macro(decisions: Tensor, truth: Tensor) -> Tensor:
    return _f1((decisions & truth).sum(0), decisions.sum(0) + truth.sum(0)).mean()


def _micro(decisions: Tensor, truth: Tensor) -> Tensor:
    return _f1((decisions & truth).sum(), decisions.sum() + truth.sum())


def _jaccard(decisions: Tensor, truth: Tensor) -> Tensor:
    return row_jaccard(decisions, truth).mean()


_SCORES: dict[config.ThresholdMetric, Callable[[Tensor, Tensor], Tensor]] = {
    config.ThresholdMetric.macro: _macro,
    config.ThresholdMetric.micro: _micro,
    config.ThresholdMetric.jaccard: _jaccard,
}
