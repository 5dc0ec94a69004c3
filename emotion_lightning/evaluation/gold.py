"""What rows are scored against: labels, and where they have them, shares and labels that are left open."""

from dataclasses import dataclass

import torch
from torch import Tensor

from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation.intensities import Intensities


@dataclass
class Gold:
    """What rows are scored against.

    Attributes:
        labels: multi-hot, [row, label]; 0 where a label is open.
        shares: from 0 to 1, [row, label]; None if only labels are known.
        known: whether a label is not left open, bool, [row, label]; None if none is.
        scale: largest intensity, if shares are those of intensities.
        hardens: whether labels are learned although there are shares.
    """

    labels: Tensor
    shares: Tensor | None = None
    known: Tensor | None = None
    scale: float | None = None
    hardens: bool = False

    @classmethod
    def of(cls, rows: Rows) -> "Gold":
        """What labelled rows are scored against."""
        assert rows.targets is not None
        return cls(
            torch.from_numpy(rows.targets),
            None if rows.shares is None else torch.from_numpy(rows.shares),
            None if rows.open is None else torch.from_numpy(~rows.open),
            rows.scale,
            rows.hardens,
        )

    def __getitem__(self, place: Tensor | tuple[slice, list[int]]) -> "Gold":
        """Some of the rows, by their numbers, or of the labels, as gold[:, labels]."""
        return Gold(
            self.labels[place],
            None if self.shares is None else self.shares[place],
            None if self.known is None else self.known[place],
            self.scale,
            self.hardens,
        )

    def probable(self, intensities: Intensities | None = None) -> Tensor:
        """What probabilities should be, as calibration makes them, [row, label]: shares, or labels without these.

        With cut points, `intensities`, a probability is that of being present and not the share of the scale.
        """
        if self.shares is None:
            return self.labels
        return self.shares if intensities is None else intensities.targets(self.shares)

    @property
    def learned(self) -> Tensor:
        """What a network learns of the rows, [row, label]: shares or labels, NaN where a label is open."""
        found = self.labels if self.hardens else self.probable()
        return found if self.known is None else torch.where(self.known, found, torch.nan)


def hide_open(values: Tensor, known: Tensor | None) -> Tensor:
    """Probabilities or decisions with 0 where a label is open, so that it is neither right nor wrong, [row, label]."""
    return values if known is None else torch.where(known, values, torch.zeros_like(values))
