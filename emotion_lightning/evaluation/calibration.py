"""Calibration of probabilities: fit, apply and measure.

A loss that weights positives makes probabilities too high on purpose. Thresholds correct the decisions, calibration
corrects the probabilities themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from emotion_lightning import config

BINS = 15
"""Number of bins of equal width in the expected calibration error."""


@dataclass
class Scaling:
    """A calibration: logits times a slope plus an offset, for each label.

    Attributes:
        slope: [label], float64, positive.
        offset: [label], float64.
    """

    slope: Tensor
    offset: Tensor

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities of logits, [row, label], float32."""
        return torch.sigmoid(logits.double() * self.slope + self.offset).float()

    def plain(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Slope and offset by label, as stored in the metadata of a model."""
        pairs = zip(labels, self.slope.tolist(), self.offset.tolist(), strict=True)
        return {name: {"slope": slope, "offset": offset} for name, slope, offset in pairs}


def from_plain(values: dict[str, dict[str, float]], labels: Sequence[str]) -> Scaling | None:
    """Inverse of `Scaling.plain`; None if `values` is empty.

    Raises:
        KeyError: a label is missing.
    """
    if not values:
        return None
    slopes, offsets = ([float(values[name][part]) for name in labels] for part in ("slope", "offset"))
    return Scaling(torch.tensor(slopes, dtype=torch.float64), torch.tensor(offsets, dtype=torch.float64))


def probabilities(logits: Tensor, scaling: Scaling | None) -> Tensor:
    """Probabilities of logits, [row, label], float32; uncalibrated if `scaling` is None."""
    return torch.sigmoid(logits.float()) if scaling is None else scaling.probabilities(logits)


def fit_calibration(
    kind: config.Calibration, logits: Tensor, targets: Tensor, *, known: Tensor | None = None
) -> Scaling | None:
    """Fit the calibration on validation by maximum likelihood; None if the kind is none.

    temperature: one slope for all labels, no offset (Guo et al., 2017). per_label: slope and offset for each label
    (Platt, 1999), with Platt's smoothed targets, so that a label which the logits separate perfectly keeps a finite
    slope. A label without positives or without negatives is not changed.

    Args:
        kind: kind of calibration.
        logits: [row, label].
        targets: multi-hot, or shares, which are smoothed in the same way, [row, label].
        known: whether a label is not left open, bool, [row, label]; None if none is.
    """
    logits, truth = logits.double().cpu(), targets.double().cpu()
    labels = logits.shape[1]
    if known is not None:
        truth = torch.where(known.cpu(), truth, 0.0)
    match kind:
        case config.Calibration.none:
            return None
        case config.Calibration.temperature:
            (slope,) = _minimum([torch.zeros(1)], lambda log_slope: _loss(logits * log_slope.exp(), truth, known))
            return Scaling(slope.exp().expand(labels).clone(), torch.zeros(labels, dtype=torch.float64))
        case config.Calibration.per_label:
            positives = truth.sum(0)
            negatives = (len(truth) if known is None else known.cpu().sum(0)) - positives
            highest, lowest = (positives + 1) / (positives + 2), 1 / (negatives + 2)
            if bool(((truth > 0) & (truth < 1)).any()):
                smooth = lowest + truth * (highest - lowest)
            else:
                smooth = torch.where(truth > 0, highest, lowest)
            log_slope, offset = _minimum(
                [torch.zeros(labels), torch.zeros(labels)],
                lambda log_slope, offset: _loss(logits * log_slope.exp() + offset, smooth, known) * labels,
            )
            both = (positives > 0) & (negatives > 0)
            return Scaling(torch.where(both, log_slope.exp(), 1.0), torch.where(both, offset, 0.0))


def _loss(logits: Tensor, targets: Tensor, known: Tensor | None) -> Tensor:
    if known is None:
        return binary_cross_entropy_with_logits(logits, targets)
    return binary_cross_entropy_with_logits(logits[known], targets[known])


def _minimum(start: list[Tensor], loss: Any) -> list[Tensor]:
    """Minimise a smooth function with L-BFGS and return its parameters."""
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


class CalibrationMetrics(TypedDict):
    """Metrics of the calibration of a split."""

    ece: float
    brier: float


def calibration_metrics(probabilities: Tensor, targets: Tensor, *, known: Tensor | None = None) -> CalibrationMetrics:
    """Expected calibration error (`ece`) and Brier score (`brier`), of the labels that are not left open."""
    errors = (probabilities.double() - targets.double()).square()
    return {
        "ece": expected_calibration_error(probabilities, targets, known=known),
        "brier": float((errors if known is None else errors[known]).mean()),
    }


def expected_calibration_error(
    probabilities: Tensor, targets: Tensor, *, bins: int = BINS, known: Tensor | None = None
) -> float:
    """Mean over labels of the expected calibration error (Guo et al., 2017), with bins of equal width.

    For each label, it is the mean over rows of the distance between the mean probability and the fraction of positives
    in the row's bin. It uses the probability of the label, not that of the more likely outcome.
    """
    shares, truth = probabilities.double(), targets.double()
    place = (shares * bins).long().clamp(max=bins - 1)
    total = torch.zeros(bins, shares.shape[1], dtype=torch.float64)
    apart = shares - truth if known is None else torch.where(known, shares - truth, 0.0)
    gap = total.scatter_add(0, place, apart)
    rows = len(shares) if known is None else known.sum(0).clamp(min=1)
    return float((gap.abs().sum(0) / rows).mean())
