"""How well probabilities match shares: of annotators who gave a label, or of the largest intensity.

Scores of decisions, such as F1, cannot tell whether annotators agreed on a label. What to score instead is discussed by
Uma et al. (2021), "Learning from Disagreement: A Survey". The labels of a row are not exclusive, so that each is a
distribution of its own, over present and absent.
"""

import torch
from torch import Tensor

from emotion_lightning.evaluation.calibration import expected_calibration_error
from emotion_lightning.runs.metrics_file import IntensityScores, SoftLabelScores, SoftScores

_SMALLEST = 1e-7
"""Probabilities are clipped to this far from 0 and 1, so that cross-entropy is finite."""


def soft_scores(probabilities: Tensor, shares: Tensor, labels: list[str], *, known: Tensor | None = None) -> SoftScores:
    """Scores of probabilities against shares.

    Over all labels, each is the mean over all that is known, and the correlation the mean of those of the labels, so
    that labels that differ in rate do not count as correlated; 0 if there is none.

    Args:
        probabilities: [row, label].
        shares: [row, label].
        labels: names.
        known: whether a label is not left open, bool, [row, label]; None if none is.
    """
    found, given = probabilities.double(), shares.double()
    cells = torch.ones_like(given, dtype=torch.bool) if known is None else known
    values_of = by_cell(found, given)
    by_label: dict[str, SoftLabelScores] = {}
    for i, name in enumerate(labels):
        own = cells[:, i]
        by_label[name] = {
            **{metric: _mean(values[own, i]) for metric, values in values_of.items()},  # type: ignore[typeddict-item]
            "correlation": pearson(found[own, i], given[own, i]),
            "share": _mean(given[own, i]),
            "probability": _mean(found[own, i]),
        }
    return {
        **{metric: _mean(values[cells]) for metric, values in values_of.items()},  # type: ignore[typeddict-item]
        "correlation": _mean_known([own["correlation"] for own in by_label.values()]),
        "ece": expected_calibration_error(probabilities, shares, known=known),
        "labels": by_label,
    }


def by_cell(probabilities: Tensor, shares: Tensor) -> dict[str, Tensor]:
    """Cross-entropy, absolute error and Jensen-Shannon distance of each probability, [row, label], float64."""
    return {
        "bce": _cross_entropy(probabilities, shares),
        "mae": (probabilities - shares).abs(),
        "jensen_shannon": _distance(probabilities, shares),
    }


def intensity_scores(
    probabilities: Tensor, shares: Tensor, labels: list[str], *, scale: float, known: Tensor | None = None
) -> IntensityScores:
    """Scores of intensities, which are probabilities times the scale.

    `pearson` is the official score of SemEval-2025 task 11, track B: Pearson's r for each label, averaged over the
    labels. `pearson_rounded` is that of whole numbers, which the files of the task hold. A label whose gold or answers
    do not vary has none, and is left out of the mean.

    Args:
        probabilities: [row, label].
        shares: of the scale, [row, label].
        labels: names.
        scale: largest intensity.
        known: whether a label is not left open, bool, [row, label]; None if none is.
    """
    found, given = probabilities.double() * scale, shares.double() * scale
    cells = torch.ones_like(given, dtype=torch.bool) if known is None else known
    by_label = {name: pearson(found[cells[:, i], i], given[cells[:, i], i]) for i, name in enumerate(labels)}
    rounded = [pearson(found[cells[:, i], i].round(), given[cells[:, i], i]) for i in range(len(labels))]
    return {
        "pearson": _mean_known(list(by_label.values())),
        "pearson_rounded": _mean_known(rounded),
        "mae": _mean((found - given).abs()[cells]),
        "scale": scale,
        "labels": by_label,
    }


def pearson(one: Tensor, other: Tensor) -> float | None:
    """Pearson's correlation of two vectors, [row]; None if one of them does not vary.

    >>> round(pearson(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 4.0])), 4)
    0.982
    """
    if len(one) < 2 or bool((one == one[0]).all()) or bool((other == other[0]).all()):
        return None
    one, other = one.double() - one.double().mean(), other.double() - other.double().mean()
    spread = float((one.square().sum() * other.square().sum()).sqrt())
    return float((one * other).sum()) / spread if spread > 0 else None


def _cross_entropy(probabilities: Tensor, shares: Tensor) -> Tensor:
    inside = probabilities.clamp(_SMALLEST, 1 - _SMALLEST)
    return -(shares * inside.log() + (1 - shares) * (1 - inside).log())


def _distance(probabilities: Tensor, shares: Tensor) -> Tensor:
    """Jensen-Shannon distance, from 0 to 1: the root of the divergence in bits (Endres and Schindelin, 2003)."""
    middle = (probabilities + shares) / 2
    divergence = _entropy(middle) - (_entropy(probabilities) + _entropy(shares)) / 2
    return divergence.clamp(min=0).sqrt()


def _entropy(shares: Tensor) -> Tensor:
    """Entropy of present and absent, in bits."""
    return -(torch.special.xlogy(shares, shares) + torch.special.xlogy(1 - shares, 1 - shares)) / torch.log(
        torch.tensor(2.0, dtype=torch.float64)
    )


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0


def _mean_known(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
