"""Fits thresholds and turns probabilities into decisions; no other module does this.

A label is predicted if its probability is greater than its threshold. Thresholds are fitted on validation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.evaluation.gold import hide_open

PROTOCOLS = ("fixed", "global", "per_label")
FIXED = 0.5
ORACLE = "oracle"
"""Thresholds fitted on the rows that they are scored on. They show what perfect thresholds would reach; they are
reported but never used for predictions."""

_GRID = torch.arange(1, 100, dtype=torch.float64) / 100
_ROUNDS = 10


def chosen_protocol(settings: config.Thresholds) -> str:
    """Name of the protocol whose thresholds decide prediction files."""
    return {
        config.FixedThreshold: "fixed",
        config.GlobalThreshold: "global",
        config.PerLabelThresholds: "per_label",
    }[type(settings)]


def decide(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """Decisions, [row, label]: True if a label is predicted.

    >>> decide(torch.tensor([[0.5, 0.6]]), torch.tensor([0.5, 0.5]))
    tensor([[False,  True]])
    """
    return probabilities.double() > thresholds.double()


def decide_any(probabilities: Tensor, thresholds: Tensor, members: Sequence[Sequence[int]]) -> Tensor:
    """Decisions for labels that are made of others, [row, new label]: True if any member of a label is predicted.

    Args:
        probabilities: of the members, [row, label].
        thresholds: of the members, [label].
        members: for each new label, the positions of its members.

    >>> decide_any(torch.tensor([[0.2, 0.6], [0.2, 0.1]]), torch.tensor([0.5, 0.5]), [[0, 1], [0]])
    tensor([[ True, False],
            [False, False]])
    """
    return any_of(decide(probabilities, thresholds), members)


def any_of(labels: Tensor, members: Sequence[Sequence[int]]) -> Tensor:
    """Labels that are made of others, bool, [row, new label]: True where any member is.

    Args:
        labels: bool, [row, label].
        members: for each new label, the positions of its members.
    """
    return torch.stack([labels[:, list(own)].any(dim=1) for own in members], dim=1)


def fit_thresholds(
    probabilities: Tensor, targets: Tensor, settings: config.Thresholds, *, known: Tensor | None = None
) -> dict[str, Tensor]:
    """Thresholds of every protocol, [label] each, float64.

    Args:
        probabilities: probabilities of the validation rows, [row, label].
        targets: multi-hot, [row, label]; 0 where a label is open.
        settings: metric, cross-fitting and minimum support, or the fixed threshold.
        known: whether a label is not left open, bool, [row, label]; None if none is.
    """
    # With a probability and a target of 0, a label is neither found nor missed, whatever the threshold.
    probabilities = hide_open(probabilities, known)
    fixed = settings.value if isinstance(settings, config.FixedThreshold) else FIXED
    labels = probabilities.shape[1]
    fitted = [
        _fitted(probabilities[rows], targets[rows], settings)
        for rows in _fitting_rows(len(probabilities), settings.cross_fit)
    ]
    enough = targets.bool().sum(0) >= settings.min_support
    everywhere = torch.stack([threshold for threshold, _ in fitted]).mean(0)
    per_label = torch.stack([current for _, current in fitted]).mean(0)
    return {
        "fixed": torch.full((labels,), fixed, dtype=torch.float64),
        "global": everywhere.expand(labels).clone(),
        "per_label": torch.where(enough, per_label, everywhere),
    }


def oracle(probabilities: Tensor, targets: Tensor, *, known: Tensor | None = None) -> Tensor:
    """For each label the threshold with the highest F1 on these same rows, [label]."""
    return per_label_thresholds(hide_open(probabilities, known), targets, fallback=FIXED)


def _fitted(probabilities: Tensor, targets: Tensor, settings: config.Thresholds) -> tuple[Tensor, Tensor]:
    everywhere = global_threshold(probabilities, targets, metric=settings.metric)
    if settings.metric is config.ThresholdMetric.macro:
        per_label = per_label_thresholds(probabilities, targets, fallback=everywhere)
    else:
        per_label = _ascend(probabilities, targets, start=everywhere, metric=settings.metric)
    return torch.tensor(everywhere, dtype=torch.float64), per_label


def _fitting_rows(rows: int, folds: int | None) -> list[Tensor]:
    """Sets of row numbers to fit on: all rows, or with cross-fitting, for each fold the rows outside it."""
    if folds is None or rows < 2 * folds:
        return [torch.arange(rows)]
    # Shuffled, because files are often sorted, and always with the same seed.
    fold = torch.randperm(rows, generator=torch.Generator().manual_seed(0)) % folds
    return [(fold != number).nonzero().flatten() for number in range(folds)]


def global_threshold(
    probabilities: Tensor, targets: Tensor, *, metric: config.ThresholdMetric = config.ThresholdMetric.macro
) -> float:
    """The threshold between 0.01 and 0.99 with the highest score; of several best ones, the nearest to 0.5."""
    truth = targets.bool()
    # Number of thresholds below each probability: a label is predicted at these thresholds and at no others.
    passed = torch.searchsorted(_GRID.to(probabilities.device), probabilities.double())
    if metric is config.ThresholdMetric.jaccard:
        scores = _jaccard_of_thresholds(passed, truth)
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
    """Count the cells in `counted` that are predicted at each threshold of the grid, [threshold, label], int64.

    Args:
        passed: number of thresholds below each probability, [row, label].
        counted: bool, [row, label].
    """
    labels, steps = passed.shape[1], len(_GRID)
    cells = torch.arange(labels, device=passed.device) * (steps + 1) + passed
    histogram = torch.bincount(cells[counted], minlength=labels * (steps + 1)).view(labels, steps + 1)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:].T


def _jaccard_of_thresholds(passed: Tensor, truth: Tensor) -> Tensor:
    """Mean Jaccard index over the rows at each threshold of the grid, [threshold], float64."""
    rows, labels = passed.shape
    passed, order = passed.sort(dim=1, descending=True)
    gold = truth.sum(1)
    hits, index = torch.zeros_like(gold), torch.where(gold > 0, 0.0, 1.0).double()  # where nothing is predicted
    # The index of a row changes only at the probabilities of its labels. `changes` holds each change at the highest
    # threshold below that probability. Summed from the highest threshold down, the changes give the sum over rows at
    # each threshold.
    changes = torch.zeros(len(_GRID) + 1, dtype=torch.float64, device=passed.device)
    start = index.sum()
    for place in range(labels):
        hits = hits + truth.gather(1, order[:, place : place + 1]).squeeze(1)
        after = hits.double() / (gold + place + 1 - hits)
        changes += torch.bincount(passed[:, place], weights=after - index, minlength=len(_GRID) + 1)
        index = after
    return (start + changes.flip(0).cumsum(0).flip(0)[1:]) / rows


def per_label_thresholds(probabilities: Tensor, targets: Tensor, *, fallback: float) -> Tensor:
    """For each label the threshold with the highest F1, midway between two of its probabilities, [label].

    A label without positives, or for which no threshold finds a positive, gets `fallback`.
    """
    return torch.stack(
        [
            _best_threshold(probabilities[:, label].double(), targets[:, label].bool(), fallback)
            for label in range(probabilities.shape[1])
        ]
    )


def _best_threshold(probabilities: Tensor, truth: Tensor, fallback: float) -> Tensor:
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
    """A threshold below each of the probabilities, which are in descending order, and whether it is possible."""
    # It is possible between two different probabilities, and below the last one unless that is 0.
    below = torch.cat([ordered[1:], ordered.new_zeros(1)])
    return (ordered + below) / 2, ordered > below


# ---------------------------------------------------------------------------- metrics that depend on all labels at once


def _ascend(probabilities: Tensor, targets: Tensor, *, start: float, metric: config.ThresholdMetric) -> Tensor:
    """Thresholds by coordinate ascent from a common start, [label].

    Stops when no change of a single threshold improves the score, or after `_ROUNDS` rounds.
    """
    probabilities, truth = probabilities.double(), targets.bool()
    labels = probabilities.shape[1]
    current = torch.full((labels,), start, dtype=torch.float64)
    decisions = decide(probabilities, current)
    value = float(_SCORES[metric](decisions, truth))
    # For each row, the number of labels that are decided and true, and the number that are decided or true.
    both, either = (decisions & truth).sum(1), (decisions | truth).sum(1)
    sorts = [probabilities[:, label].sort(descending=True) for label in range(labels)]
    for _ in range(_ROUNDS):
        before = value
        for label in range(labels):
            gold = truth[:, label]
            ordered, order = sorts[label]
            decided = decide(probabilities[:, label], current[label])
            others = both - (decided & gold).long(), either - (decided | gold).long()
            middle, scores = _scores_of_thresholds(ordered, gold[order], [part[order] for part in others], metric)
            best = (scores >= scores.max() - 1e-12).nonzero().flatten()
            if float(scores.max()) > value + 1e-12:
                current[label] = middle[best[(middle[best] - 0.5).abs().argmin()]]
                value = float(scores.max())
                decided = decide(probabilities[:, label], current[label])
                both, either = others[0] + (decided & gold), others[1] + (decided | gold)
        if value <= before + 1e-12:
            break
    return current


def _scores_of_thresholds(
    ordered: Tensor, gold: Tensor, others: Sequence[Tensor], metric: config.ThresholdMetric
) -> tuple[Tensor, Tensor]:
    """All thresholds of one label, and the score with each of them while the other labels keep theirs.

    Args:
        ordered: the label's probabilities in descending order, [row].
        gold: whether these rows have the label, [row].
        others: for each row, how many of its other labels are decided and true, and how many are decided or true.
        metric: metric of the score.

    Returns:
        Thresholds and scores, [row + 1] each; the score is -1 where a threshold is not possible.
    """
    middle, possible = _middles(ordered)
    both, either = others

    def summed(yes: Tensor, no: Tensor) -> Tensor:
        # For every k from 0: the sum of `yes` over the first k rows and of `no` over the others.
        zero = yes.new_zeros(1)
        return torch.cat([zero, yes.cumsum(0)]) + no.sum() - torch.cat([zero, no.cumsum(0)])

    if metric is config.ThresholdMetric.jaccard:
        scores = summed(_index(both + gold, either + 1), _index(both, either + gold)) / len(gold)
    else:
        # The number decided plus the number true equals the number of both plus the number of either.
        hits = summed((both + gold).double(), both.double())
        sizes = summed((both + gold + either + 1).double(), (both + either + gold).double())
        scores = torch.where(sizes > 0, 2 * hits / sizes.clamp(min=1), 0.0)
    # Above the highest probability the label is never predicted.
    highest = (1 + ordered[:1]) / 2
    middle = torch.cat([highest, middle])
    possible = torch.cat([torch.ones(1, dtype=torch.bool), possible])
    return middle, torch.where(possible, scores, -1.0)


def row_jaccard(decisions: Tensor, truth: Tensor) -> Tensor:
    """Jaccard index of each row, [row], float64; 1 if a row has neither gold nor decided labels.

    Args:
        decisions: bool, [row, label].
        truth: bool, [row, label].
    """
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
