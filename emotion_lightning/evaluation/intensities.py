"""From the probability that a label is present to the intensity that is expected of it, and back to what is learned.

Shapes: [row, label]; with cut points, levels are a last axis, [row, label, level], level k standing for "at least k".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_SMALLEST = 1e-9
"""Probabilities are clipped to this far from 0 and 1, so that their logits are finite."""
_FARTHEST = 60.0
"""Largest distance of a cut point from that of presence."""
_CLOSEST = 0.1
"""Smallest distance of two cut points at the start, where train has the one level as often as the next."""


@dataclass
class Intensities:
    """How the intensities of a run are read from its probabilities.

    Attributes:
        scale: largest intensity.
        present: level from which on a label is present; the probability of a label is that of reaching it. Without cut
            points the probability is the expected share of the scale, and this has no meaning.
        cuts: cut points of loss=ordinal, [label, level], float64, increasing, 0 at the level `present`: the probability
            of level k or more has the logit of the label minus its cut point. None for other losses.
    """

    scale: float
    present: int = 1
    cuts: Tensor | None = None

    @classmethod
    def of_train(cls, shares: Tensor, known: Tensor, *, scale: float, present: int) -> "Intensities":
        """Cut points that fit how often train has each level, whatever its texts say.

        They are the maximum likelihood of a network that does not read: the logit of a level is that of its frequency.

        Args:
            shares: intensities of train as shares of the scale, [row, label].
            known: whether a label is not left open, bool, [row, label].
            scale: largest intensity, a whole number.
            present: level from which on a label is present.
        """
        reached = (events(shares.double(), scale) * known[..., None]).sum(0)
        # Half a row more of either kind keeps the logit of a level that no row or every row reaches finite.
        heights = torch.logit((reached + 0.5) / (known.sum(0).double()[:, None] + 1))
        steps = (heights[:, :-1] - heights[:, 1:]).clamp(min=_CLOSEST)
        cuts = torch.cat([torch.zeros_like(heights[:, :1]), steps.cumsum(1)], dim=1)
        return cls(scale, present, cuts - cuts[:, present - 1 : present])

    def shares(self, probabilities: Tensor) -> Tensor:
        """The expected intensity as a share of the scale, [row, label]; without cut points, the probabilities.

        With cut points, the expectation is the sum over the levels of the probabilities of reaching them.
        """
        if self.cuts is None:
            return probabilities
        logits = torch.logit(probabilities.double(), eps=_SMALLEST)
        cuts = self.cuts.to(probabilities.device)
        return torch.sigmoid(logits[..., None] - cuts).mean(-1).float()

    def targets(self, shares: Tensor) -> Tensor:
        """What the probability of a label should be where the intensity is this share of the scale, [row, label]."""
        if self.cuts is None:
            return shares
        return events(shares, self.scale)[..., self.present - 1]

    def expected(self, probabilities: Tensor) -> Tensor:
        """The expected intensities, from 0 to the scale, [row, label]."""
        return self.shares(probabilities) * self.scale

    def shares_beside(self, probabilities: Tensor) -> Tensor | None:
        """What `shares` returns, where that is something else than the probabilities; None without cut points."""
        return None if self.cuts is None else self.shares(probabilities)

    def calibrated(self, probabilities: Tensor, shares: Tensor, known: Tensor | None) -> "Intensities":
        """Cut points for probabilities that were calibrated, fitted on validation as their calibration was.

        A calibration moves the logits of presence; each further level is moved so that the mean probability of reaching
        it is how often it is reached, which is where its cross-entropy is least.

        Args:
            probabilities: calibrated, of validation, [row, label].
            shares: intensities as shares of the scale, [row, label].
            known: whether a label is not left open, bool, [row, label]; None if none is.
        """
        if self.cuts is None:
            return self
        counted = (torch.ones_like(shares, dtype=torch.bool) if known is None else known).double().cpu()[..., None]
        rows = counted.sum(0)
        reached = ((events(shares.double().cpu(), self.scale) * counted).sum(0) + 0.5) / (rows + 1)
        logits = torch.logit(probabilities.double().cpu(), eps=_SMALLEST)[..., None]
        low, high = torch.full_like(reached, -_FARTHEST), torch.full_like(reached, _FARTHEST)
        for _ in range(60):
            middle = (low + high) / 2
            found = ((torch.sigmoid(logits - middle) * counted).sum(0) + 0.5) / (rows + 1)
            low, high = torch.where(found > reached, middle, low), torch.where(found > reached, high, middle)
        cuts, place = (low + high) / 2, self.present - 1
        below = cuts[:, :place].flip(1).clamp(max=0).cummin(1).values.flip(1) if place else cuts[:, :0]
        above = cuts[:, place + 1 :].clamp(min=0)
        above = above.cummax(1).values if above.shape[1] else above
        return replace(self, cuts=torch.cat([below, torch.zeros_like(cuts[:, :1]), above], dim=1))

    def of_labels(self, positions: Sequence[int]) -> "Intensities":
        """The same for some of the labels."""
        return self if self.cuts is None else replace(self, cuts=self.cuts[list(positions)])

    def plain(self, labels: Sequence[str]) -> dict[str, Any]:
        """The form that is stored in the metadata of a model."""
        found: dict[str, Any] = {"scale": self.scale}
        if self.cuts is not None:
            found |= {"present": self.present, "cuts": dict(zip(labels, self.cuts.tolist(), strict=True))}
        return found

    @classmethod
    def from_plain(cls, content: dict[str, Any], labels: Sequence[str]) -> "Intensities":
        """Inverse of `plain`.

        Raises:
            KeyError, TypeError or ValueError: an entry is missing or impossible.
        """
        scale, present, by_label = content["scale"], content.get("present", 1), content.get("cuts")
        if type(scale) not in (int, float) or not 0 < scale < float("inf"):
            raise ValueError(f"the scale of intensities is {scale!r}")
        if by_label is None:
            return cls(float(scale))
        if by_label.keys() != set(labels):
            raise ValueError(f"cut points are of {len(by_label)} labels, not of these {len(labels)}")
        cuts = torch.tensor([by_label[name] for name in labels], dtype=torch.float64)
        if cuts.ndim != 2 or cuts.shape[1] != scale or type(present) is not int or not 1 <= present <= scale:
            raise ValueError(
                f"cut points are of shape {list(cuts.shape)}, with {scale} levels, present from {present!r}"
            )
        if not bool(torch.isfinite(cuts).all()) or bool((cuts.diff(dim=1) < 0).any()):
            raise ValueError("cut points are no increasing numbers")
        return cls(float(scale), present, cuts)


def events(shares: Tensor, scale: float) -> Tensor:
    """Whether an intensity reaches each level, 0 or 1, [row, label, level], from shares of the scale, [row, label].

    Between two levels, as the mean of several annotators may be, it reaches the upper one in part. The sum over the
    levels is the intensity in any case.

    >>> events(torch.tensor([[0.0, 2 / 3, 0.5]]), 3.0)[0]
    tensor([[0.0000, 0.0000, 0.0000],
            [1.0000, 1.0000, 0.0000],
            [1.0000, 0.5000, 0.0000]])
    """
    below = torch.arange(round(scale), device=shares.device, dtype=shares.dtype)
    return (shares[..., None] * scale - below).clamp(0, 1)
