"""From probabilities to decisions: the only place that does it.

A label is predicted where its probability is greater than its threshold. Thresholds are fitted on validation.
"""

import torch
from torch import Tensor

from emotion_lightning import config

PROTOCOLS = ("fixed", "global", "per_label")
FIXED = 0.5

_GRID = torch.arange(1, 100, dtype=torch.float64) / 100


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


def fit(probabilities: Tensor, targets: Tensor, *, fixed: float = FIXED) -> dict[str, Tensor]:
    """Thresholds of every protocol, [label] each, float64.

    Args:
        probabilities: of the validation rows, [row, label].
        targets: multi-hot, [row, label].
        fixed: value of the fixed protocol.
    """
    labels = probabilities.shape[1]
    everywhere = global_threshold(probabilities, targets)
    return {
        "fixed": torch.full((labels,), fixed, dtype=torch.float64),
        "global": torch.full((labels,), everywhere, dtype=torch.float64),
        "per_label": per_label_thresholds(probabilities, targets, fallback=everywhere),
    }


def global_threshold(probabilities: Tensor, targets: Tensor) -> float:
    """The cut, of 0.01 to 0.99, with the highest macro F1; of equals the one nearest to 0.5."""
    truth = targets.bool()
    macro = torch.stack([_f1(decide(probabilities, cut), truth).mean() for cut in _GRID])
    best = (macro >= macro.max() - 1e-12).nonzero().flatten()
    return float(_GRID[best[(_GRID[best] - 0.5).abs().argmin()]])


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
    # A cut is possible only between two different probabilities, and below the last, which may be 0.
    below = torch.cat([ordered[1:], ordered.new_zeros(1)])
    f1 = torch.where(ordered > below, f1, 0.0)
    if f1.max() == 0:
        return torch.tensor(fallback, dtype=torch.float64)
    middle = (ordered + below) / 2
    best = (f1 >= f1.max() - 1e-12).nonzero().flatten()
    return middle[best[(middle[best] - 0.5).abs().argmin()]]


def _f1(decisions: Tensor, truth: Tensor) -> Tensor:
    found = (decisions & truth).sum(0).double()
    total = decisions.sum(0) + truth.sum(0)
    return torch.where(total > 0, 2 * found / total.clamp(min=1), 0.0)
