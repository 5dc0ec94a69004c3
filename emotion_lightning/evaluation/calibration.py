"""Whether probabilities mean what they say, and how to make them.

A loss that weighs positives makes probabilities too high on purpose; thresholds take care of decisions, calibration of
the numbers themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from emotion_lightning import config

BINS = 15
"""Of equal width, in which probabilities are compared with what came true."""


@dataclass
class Scaling:
    """Logits times a slope plus an offset, for each label.

    Attributes:
        slope: [label], float64, positive.
        offset: [label], float64.
    """

    slope: Tensor
    offset: Tensor

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits, [row, label]; float32."""
        return torch.sigmoid(logits.double() * self.slope + self.offset).float()

    def plain(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """As it is kept in a model's card, by label."""
        pairs = zip(labels, self.slope.tolist(), self.offset.tolist(), strict=True)
        return {name: {"slope": slope, "offset": offset} for name, slope, offset in pairs}


def from_plain(values: dict[str, dict[str, float]], labels: Sequence[str]) -> Scaling | None:
    """What `plain` made of a scaling, or None of an empty one.

    Raises:
        KeyError: a label is missing.
    """
    if not values:
        return None
    slopes, offsets = ([float(values[name][part]) for name in labels] for part in ("slope", "offset"))
    return Scaling(torch.tensor(slopes, dtype=torch.float64), torch.tensor(offsets, dtype=torch.float64))


def probabilities(logits: Tensor, scaling: Scaling | None) -> Tensor:
    """Probabilities of logits, [row, label], float32; without a scaling as the network gives them."""
    return torch.sigmoid(logits.float()) if scaling is None else scaling.probabilities(logits)


def fit(settings: config.Thresholds, logits: Tensor, targets: Tensor) -> Scaling | None:
    """The scaling with the highest likelihood on validation, or None where none is asked for.

    temperature: one slope for all labels, no offset (Guo et al., 2017). per_label: slope and offset for each (Platt,
    1999), with his smoothed targets, so that a label which the logits part perfectly keeps a finite slope; a label
    without positives or without negatives stays as it is.

    Args:
        settings: which of them.
        logits: [row, label].
        targets: multi-hot, [row, label].
    """
    logits, truth = logits.double().cpu(), targets.double().cpu()
    labels = logits.shape[1]
    match settings.calibration:
        case config.Calibration.none:
            return None
        case config.Calibration.temperature:
            (slope,) = _minimum([torch.zeros(1)], lambda log_slope: _loss(logits * log_slope.exp(), truth))
            return Scaling(slope.exp().expand(labels).clone(), torch.zeros(labels, dtype=torch.float64))
        case config.Calibration.per_label:
            positives = truth.sum(0)
            negatives = len(truth) - positives
            smooth = torch.where(truth > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
            log_slope, offset = _minimum(
                [torch.zeros(labels), torch.zeros(labels)],
                lambda log_slope, offset: _loss(logits * log_slope.exp() + offset, smooth) * labels,
            )
            known = (positives > 0) & (negatives > 0)
            return Scaling(torch.where(known, log_slope.exp(), 1.0), torch.where(known, offset, 0.0))


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, targets)


def _minimum(start: list[Tensor], loss: Any) -> list[Tensor]:
    """Parameters at which a smooth function is lowest."""
    parameters = [value.double().requires_grad_() for value in start]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss(*parameters)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(step)
    return [parameter.detach() for parameter in parameters]


def report(probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """How well probabilities are calibrated: `ece` and `brier`."""
    return {
        "ece": expected_calibration_error(probabilities, targets),
        "brier": float((probabilities.double() - targets.double()).square().mean()),
    }


def expected_calibration_error(probabilities: Tensor, targets: Tensor, *, bins: int = BINS) -> float:
    """Mean over labels of the expected calibration error (Guo et al., 2017), bins of equal width.

    That is the mean distance, over rows, between a bin's mean probability and its share of positives. It is of the
    probability of the label, not of the likelier of yes and no.
    """
    shares, truth = probabilities.double(), targets.double()
    place = (shares * bins).long().clamp(max=bins - 1)
    total = torch.zeros(bins, shares.shape[1], dtype=torch.float64)
    gap = total.scatter_add(0, place, shares - truth)
    return float((gap.abs().sum(0) / len(shares)).mean())
