"""Losses for multi-label classification: from logits and targets, [batch, label], to a scalar."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from emotion_lightning import config
from emotion_lightning.config import own_parts
from emotion_lightning.data.labels import positive_weights
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.evaluation.intensities import Intensities, events


def build_loss(
    settings: config.Loss,
    *,
    label_counts: np.ndarray,
    rows: int | np.ndarray,
    labels: Sequence[str] = (),
    masked: bool = False,
    known_per_row: float | None = None,
    intensities: Intensities | None = None,
) -> nn.Module:
    """Build the loss.

    Args:
        settings: which loss, and its parameters.
        label_counts: number of positives of each label in train, or the sum of its shares, [label].
        rows: number of rows in train; of each label, [label], if some leave it open.
        labels: names of the labels, for a loss of the user's own.
        masked: whether targets may be NaN, for labels that are left open.
        known_per_row: mean number of labels that a row of train does not leave open, for `batch_loss`; None if nothing
            is trained.
        intensities: the cut points that loss=ordinal starts from; other losses have none.

    Raises:
        UserError: a loss of the user's own returns something else than a number for a batch.
    """
    if isinstance(settings, config.Ordinal):
        assert intensities is not None
        weights = positive_weights(settings, label_counts=label_counts, rows=rows)
        loss: nn.Module = Ordinal(intensities, weights=weights, learns=settings.cut_lr is not None)
    else:
        loss = _built(settings, label_counts=label_counts, rows=rows, labels=labels)
    return Masked(loss, known_per_row) if masked else loss


def learned_intensities(loss: nn.Module) -> Intensities | None:
    """The intensities of loss=ordinal with the cut points as they are now; None for any other loss."""
    found = loss.loss if isinstance(loss, Masked) else loss
    return found.intensities() if isinstance(found, Ordinal) else None


def _built(
    settings: config.Loss, *, label_counts: np.ndarray, rows: int | np.ndarray, labels: Sequence[str]
) -> nn.Module:
    match settings:
        case own_parts.OwnPart():
            return _own_loss(settings, label_counts=label_counts, rows=rows, labels=list(labels))
        case config.BCE():
            return WeightedBCE(None)
        case config.WeightedBCE():
            return WeightedBCE(positive_weights(settings, label_counts=label_counts, rows=rows))
        case config.Focal():
            return Focal(gamma=settings.gamma, alpha=settings.alpha)
        case config.Asymmetric():
            return Asymmetric(
                gamma_positive=settings.gamma_positive, gamma_negative=settings.gamma_negative, clip=settings.clip
            )
        case config.ZLPR():
            return ZLPR()
        case config.Correlated():
            return Correlated(alpha=settings.alpha)
    raise TypeError(f"no loss for {type(settings).__name__}")


def _own_loss(
    settings: own_parts.OwnPart, *, label_counts: np.ndarray, rows: int | np.ndarray, labels: list[str]
) -> nn.Module:
    loss = own_parts.build(settings, label_counts=label_counts, rows=rows, labels=labels)
    module = loss if isinstance(loss, nn.Module) else _Function(loss)
    if any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(
            f"loss={settings.origin.option}: {settings.part} has parameters, which no optimizer would train; keep "
            "numbers as buffers."
        )
    targets = torch.zeros(2, len(label_counts))
    try:
        found = module(torch.zeros_like(targets, requires_grad=True), targets) if callable(loss) else loss
    except UserError:
        raise
    except Exception as error:  # whatever the user's code does
        raise UserError(
            f"loss={settings.origin.option}: what {settings.part} returns cannot be computed from logits and targets "
            f"of shape {list(targets.shape)}: {type(error).__name__}: {first_line(error)} "
            "HYDRA_FULL_ERROR=1 shows where."
        ) from error
    is_number = isinstance(found, int | float | np.ndarray | np.generic | Tensor) and np.ndim(found) == 0
    if callable(loss) and is_number and not (isinstance(found, Tensor) and found.requires_grad):
        raise UserError(
            f"loss={settings.origin.option}: what {settings.part} returns computes one number, but the number has no "
            "gradient, so nothing can be learned from it. Compute it from the logits with torch alone: .item(), "
            ".detach() and numpy take the gradient away."
        )
    if not callable(loss) or not isinstance(found, Tensor) or found.ndim:
        shown = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"loss={settings.origin.option}: what {settings.part} returns must compute one number from logits and "
            f"targets, [batch, label], that has a gradient; it gave {shown}."
        )
    return module


class _Function(nn.Module):
    """A loss that is a function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.function(logits, targets)


@dataclass
class Known:
    """Which labels of a batch are known.

    Attributes:
        cells: whether a label is not left open, bool, [batch, label].
        count: what the sum over these is divided by; their number for a mean.
    """

    cells: Tensor
    count: Tensor | float


class Masked(nn.Module):
    """A loss whose targets are NaN where a label is left open: it counts neither there nor in the mean.

    Args:
        loss: one that takes what is known as `Known`.
        known_per_row: mean number of labels that a row of train does not leave open, for `of_batch`.
    """

    def __init__(self, loss: nn.Module, known_per_row: float | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.known_per_row = known_per_row

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean of the loss over what is known."""
        cells = ~targets.isnan()
        return self._over(logits, targets, Known(cells, cells.sum().clamp(min=1)))

    def of_batch(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of the loss over what is known, divided by how much a batch of so many rows knows on average."""
        assert self.known_per_row is not None
        return self._over(logits, targets, Known(~targets.isnan(), max(len(targets) * self.known_per_row, 1e-9)))

    def _over(self, logits: Tensor, targets: Tensor, known: Known) -> Tensor:
        found: Tensor = self.loss(logits, targets.nan_to_num(0), known)
        return found


def batch_loss(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch, whose gradient is learned from.

    Where labels may be left open, batches differ in how many they know. With a mean over these, those of a batch that
    knows few would weigh more than others, and accumulated gradients would not be those of the whole. So the sum is
    divided by the same for all batches of so many rows. Averaged over all of them, it is the mean.

    Args:
        loss: of `build_loss`.
        logits: [batch, label].
        targets: NaN where a label is left open, [batch, label].
    """
    found: Tensor = loss.of_batch(logits, targets) if isinstance(loss, Masked) else loss(logits, targets)
    return found


def _mean(losses: Tensor, known: Known | None) -> Tensor:
    """Mean over the known labels, all if `known` is None."""
    return losses.mean() if known is None else (losses * known.cells).sum() / known.count


class WeightedBCE(nn.Module):
    """Binary cross-entropy; positives of label i are weighted by `weights[i]`."""

    weights: Tensor | None

    def __init__(self, weights: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
        """Mean over rows and labels, the known ones."""
        if known is None:
            return binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights)
        losses = binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights, reduction="none")
        return _mean(losses, known)


class Ordinal(nn.Module):
    """Cumulative logits for intensities of 0 to N, one logit for each label.

    The model is that of proportional odds (McCullagh, 1980, "Regression Models for Ordinal Data"): the probability of
    level k or more is the sigmoid of the label's logit minus the cut point of the level. Cut points are the same for
    all texts and increase with the level, so that a higher level is never the more probable one. The one of the level
    from which on a label is present is 0, so that the logit is that of the label being present. The loss is the sum of
    binary cross-entropies over the levels, as in CORAL (Cao, Mirjalili and Raschka, 2020, "Rank consistent ordinal
    regression for neural networks with application to age estimation"), divided by their number.

    Args:
        start: scale, level of presence and the cut points to start from, [label, level].
        weights: of positives, [label], the same for all levels of a label.
        learns: whether the distances of the cut points are parameters.
    """

    weights: Tensor

    def __init__(self, start: Intensities, *, weights: Tensor, learns: bool) -> None:
        super().__init__()
        assert start.cuts is not None
        self.scale, self.present = start.scale, start.present
        self.register_buffer("weights", weights, persistent=False)
        # What softplus makes a distance of, so that distances stay positive.
        steps = start.cuts.diff(dim=1)
        raw = (steps + torch.log(-torch.expm1(-steps))).float()
        if learns and raw.numel():
            self.raw_steps = nn.Parameter(raw)
        else:
            self.register_buffer("raw_steps", raw, persistent=False)

    def cuts(self) -> Tensor:
        """The cut points, [label, level], increasing; 0 at the level from which on a label is present."""
        steps = softplus(self.raw_steps)
        cuts = torch.cat([steps.new_zeros(len(steps), 1), steps.cumsum(1)], dim=1)
        return cuts - cuts[:, self.present - 1 : self.present]

    def intensities(self) -> Intensities:
        """How intensities are read from the probabilities of the labels."""
        return Intensities(self.scale, self.present, self.cuts().detach().double().cpu())

    def forward(self, logits: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
        """Mean over rows, labels and levels, the known ones; targets are shares of the scale, [batch, label]."""
        losses = binary_cross_entropy_with_logits(
            logits[..., None] - self.cuts(),
            events(targets.to(logits.dtype), self.scale),
            pos_weight=self.weights[:, None],
            reduction="none",
        )
        return _mean(losses.mean(-1), known)


class Focal(nn.Module):
    """Focal loss (Lin et al., 2017, equation 5): cross-entropy times (1 - p)^gamma, p the probability of the target."""

    def __init__(self, *, gamma: float, alpha: float | None) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
        """Mean over rows and labels, the known ones."""
        cross_entropy = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        losses = _power(1 - torch.exp(-cross_entropy), self.gamma) * cross_entropy
        if self.alpha is not None:
            losses = losses * torch.where(targets > 0, self.alpha, 1 - self.alpha)
        return _mean(losses, known)


class Asymmetric(nn.Module):
    """Asymmetric loss (Ridnik et al., 2021, equations 4 to 6).

    Positives are focused by `gamma_positive`, negatives by `gamma_negative`. Before that, the probability of negatives
    is shifted down by `clip`, so that very easy negatives have no loss.
    """

    def __init__(self, *, gamma_positive: float, gamma_negative: float, clip: float) -> None:
        super().__init__()
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.clip = clip

    def forward(self, logits: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
        """Mean over rows and labels, the known ones."""
        probabilities = torch.sigmoid(logits)
        shifted = (probabilities - self.clip).clamp(0, 1 - torch.finfo(logits.dtype).eps)
        positive = _power(1 - probabilities, self.gamma_positive) * logsigmoid(logits)
        # Without a shift, log(1 - p) is computed from the logit, so that it stays finite where p rounds to 1.
        log_negative = torch.log1p(-shifted) if self.clip > 0 else logsigmoid(-logits)
        negative = _power(shifted, self.gamma_negative) * log_negative
        return -_mean(targets * positive + (1 - targets) * negative, known)


class ZLPR(nn.Module):
    """Zero-bounded log-sum-exp and pairwise rank-based loss (Su et al., 2022, equation 6).

    Pushes every positive logit above every negative one, with 0 between them. The labels of a row are learned jointly,
    not independently.
    """

    def forward(self, logits: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
        """Mean over rows, each with its known labels."""
        out = torch.finfo(logits.dtype).min
        zero = logits.new_zeros(len(logits), 1)
        positives = torch.where(targets > 0, -logits, out)
        negatives = torch.where(targets > 0 if known is None else (targets > 0) | ~known.cells, out, logits)
        losses = torch.cat([zero, positives], 1).logsumexp(1) + torch.cat([zero, negatives], 1).logsumexp(1)
        return losses.mean()


class Correlated(nn.Module):
    """Cross-entropy and the label-correlation aware term of SpanEmo (Alhuzali and Ananiadou, 2021, equations 4 to 6).

    The term is the mean of exp(p_negative - p_positive) over all pairs of a positive and a negative label of a row. It
    is 0 for a row without such a pair.
    """

    def __init__(self, *, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
        """Mean over rows, each with its known labels."""
        probabilities = torch.sigmoid(logits)
        absent = 1 - targets if known is None else (1 - targets) * known.cells
        # The sum over pairs is a product of two sums.
        positives = (targets * torch.exp(-probabilities)).sum(1)
        negatives = (absent * torch.exp(probabilities)).sum(1)
        pairs = targets.sum(1) * absent.sum(1)
        correlation = (positives * negatives / pairs.clamp(min=1)).mean()
        cross_entropy = binary_cross_entropy_with_logits(
            logits, targets, reduction="none" if known is not None else "mean"
        )
        return (1 - self.alpha) * _mean(cross_entropy, known) + self.alpha * correlation


def _power(base: Tensor, exponent: float) -> Tensor:
    # A power with an exponent below 1 has an infinite slope at 0, and infinity times a loss of 0 is NaN.
    return base.clamp(min=torch.finfo(base.dtype).tiny) ** exponent
