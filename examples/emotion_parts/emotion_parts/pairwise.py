"""A loss that ranks labels."""

from typing import Annotated

from torch import Tensor, nn

from emotion_lightning.config import Bounds


class Pairwise(nn.Module):
    """Hinge loss over pairs of a label that a text has and one that it does not have (Weston et al., 2011)."""

    def __init__(self, margin: Annotated[float, Bounds(above=0)] = 1.0) -> None:
        """Build the loss.

        Args:
            margin: By how much the logit of a label that the text has must exceed the other.
        """
        super().__init__()
        self.margin = margin

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the pairs of all texts; 0 for texts with all labels or none."""
        differences = logits[:, None, :] - logits[:, :, None]  # [text, present, absent]: absent minus present
        pairs = targets[:, :, None] * (1 - targets[:, None, :])
        return ((differences + self.margin).clamp(min=0) * pairs).sum() / pairs.sum().clamp(min=1)
