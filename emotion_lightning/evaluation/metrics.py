"""Metrics of a run, in float64, with the conventions of scikit-learn.

The F1 of a label that is neither in gold nor predicted is 0 and counts in the macro F1 (`zero_division=0`);
`f1_macro_supported` leaves such labels out. Jaccard and samples F1 of a row without gold and predicted labels are 1, as
in SemEval-2018's own script.
"""

from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_average_precision,
    multilabel_stat_scores,
)
from torchmetrics.utilities import dim_zero_cat

from emotion_lightning.evaluation import calibration, soft_scores, thresholds
from emotion_lightning.evaluation.gold import Gold, hide_open
from emotion_lightning.runs.metrics_file import ProtocolScores, SplitScores


class Outcomes(Metric):
    """Collects row numbers, logits and targets over batches and processes.

    `gather` returns them in the order of the rows, each row once, also if a row was evaluated twice.
    """

    full_state_update = False
    rows: list[Tensor]
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("rows", "logits", "targets"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, rows: Tensor, logits: Tensor, targets: Tensor | None) -> None:
        """Add a batch: rows [batch], logits and targets [batch, label]; targets are None for unlabelled rows."""
        self.rows.append(rows.detach())
        self.logits.append(logits.detach().float())
        if targets is not None:
            self.targets.append(targets.detach())

    def gather(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Row numbers [row], logits [row, label] and targets [row, label] or None, of all processes, on the CPU.

        Resets the metric for the next split.
        """
        numbers, logits, targets = (None if part is None else part.cpu() for part in self.compute())
        self.reset()
        assert numbers is not None and logits is not None
        # torchmetrics removes the axes of results with one element.
        numbers = numbers.reshape(-1)
        shape = (len(numbers), -1)
        return numbers, logits.reshape(shape), None if targets is None else targets.reshape(shape)

    def compute(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Same as `gather`, but on the device, without a reset, and without the axes of results with one element."""
        rows, logits = dim_zero_cat(self.rows), dim_zero_cat(self.logits)
        numbers, where = torch.unique(rows, return_inverse=True)
        first = torch.full((len(numbers),), len(rows), device=rows.device, dtype=torch.long)
        first = first.scatter_reduce(0, where, torch.arange(len(rows), device=rows.device), "amin")
        # A state is a tensor after it was synchronised between processes, and a list before.
        targets = dim_zero_cat(self.targets)[first] if len(self.targets) else None
        return numbers, logits[first], targets


class Rankings(TypedDict):
    """Metrics that need no thresholds."""

    map: float
    lrap: float


def score(
    probabilities: Tensor,
    targets: Tensor,
    by_protocol: dict[str, Tensor],
    labels: list[str],
    *,
    calibrated: bool = False,
    decisions: Mapping[str, Tensor] | None = None,
    gold: Gold | None = None,
    expected: Tensor | None = None,
) -> SplitScores:
    """All metrics of a split in metrics.json, except its loss.

    In addition to the protocols there is `oracle`, with thresholds fitted on the same rows. It shows what perfect
    thresholds would reach and is not a valid result.

    Args:
        probabilities: [row, label]. Do not pass logits: torchmetrics guesses for each call which of the two it got.
        targets: multi-hot, [row, label].
        by_protocol: thresholds of each protocol, [label].
        labels: names.
        calibrated: whether the probabilities are calibrated; only reported.
        decisions: decisions of each protocol, bool, [row, label], where they do not follow from one threshold for each
            label; the thresholds are then only reported.
        gold: shares, and which labels are left open, beside `targets`; None if there is nothing but these.
        expected: shares that are answered, [row, label], where the probabilities are not these.
    """
    truth = targets.bool()
    decisions = decisions or {}
    known = None if gold is None else gold.known
    by_protocol = by_protocol | {thresholds.ORACLE: thresholds.oracle(probabilities, targets, known=known)}
    found: SplitScores = {
        "rows": len(truth),
        "probabilities": "calibrated" if calibrated else "raw",
        **rankings(probabilities, truth, known=known),
        **calibration.calibration_metrics(probabilities, targets, known=known),
        **{  # type: ignore[typeddict-item]  # the names of the protocols
            protocol: decisions_report(
                decisions[protocol] if protocol in decisions else thresholds.decide(probabilities, threshold),
                truth,
                threshold,
                labels,
                known=known,
            )
            for protocol, threshold in by_protocol.items()
        },
    }
    if gold is not None and gold.shares is not None:
        answered = probabilities if expected is None else expected
        found["soft"] = soft_scores.soft_scores(answered, gold.shares, labels, known=known)
        if gold.scale is not None:
            found["intensity"] = soft_scores.intensity_scores(
                answered, gold.shares, labels, scale=gold.scale, known=known
            )
    return found


def soft_metrics(
    probabilities: Tensor, gold: Gold, labels: list[str], *, expected: Tensor | None = None
) -> dict[str, float]:
    """The scores over all labels against shares and intensities, such as soft_bce; empty if there are only labels.

    The arguments are those of `score`.
    """
    if gold.shares is None:
        return {}
    answered = probabilities if expected is None else expected
    soft = soft_scores.soft_scores(answered, gold.shares, labels, known=gold.known)
    found = {f"soft_{name}": value for name, value in soft.items() if isinstance(value, float)}
    if gold.scale is not None:
        of_scale = soft_scores.intensity_scores(answered, gold.shares, labels, scale=gold.scale, known=gold.known)
        found["intensity_pearson"] = of_scale["pearson"]
    return found


def rankings(probabilities: Tensor, truth: Tensor, *, known: Tensor | None = None) -> Rankings:
    """Mean average precision over the labels that have positives, and label ranking average precision.

    Labels that are left open, where `known` is False, are ranked nowhere.
    """
    supported = truth.any(0)
    rows = [slice(None)] * truth.shape[1] if known is None else list(known.unbind(1))
    # Label by label, because torchmetrics' multilabel function fails with a single label.
    precisions = [
        float(
            binary_average_precision(
                probabilities[rows[label], label], truth[rows[label], label].long(), validate_args=False
            )
        )
        for label in supported.nonzero().flatten().tolist()
    ]
    return {
        "map": sum(precisions) / len(precisions) if precisions else 0.0,
        "lrap": _ranking_precision(probabilities if known is None else torch.where(known, probabilities, -1.0), truth),
    }


def _ranking_precision(probabilities: Tensor, truth: Tensor) -> float:
    # torchmetrics sums rows in float32, with an error of 2e-6 at 5,000 rows, and loops over them. scikit-learn loops
    # over them too, and takes ten times as long as this for 5,000 rows of 28 labels.
    total = torch.zeros(len(truth), dtype=torch.float64, device=truth.device)
    for label in range(truth.shape[1]):
        above = probabilities >= probabilities[:, label, None]
        total += truth[:, label] * (above & truth).sum(1) / above.sum(1).double()
    gold = truth.sum(1)
    return float(torch.where(gold > 0, total / gold.clamp(min=1), 1.0).mean())


def decisions_report(
    decisions: Tensor, truth: Tensor, threshold: Tensor, labels: list[str], *, known: Tensor | None = None
) -> ProtocolScores:
    """Metrics of decisions, bool, [row, label]; the thresholds, [label], are only reported.

    Labels that are left open, where `known` is False, are neither right nor wrong. A row is right as a whole if all
    that is known of it is.
    """
    count = truth.shape[1]
    decisions, truth = hide_open(decisions, known), hide_open(truth, known)
    right = decisions == truth
    # torchmetrics counts; the ratios are computed here because torchmetrics uses float32 for them.
    found, wrong, _, missed, support = (
        multilabel_stat_scores(decisions.long(), truth.long(), num_labels=count, average="none", validate_args=False)
        .double()
        .reshape(count, 5)  # torchmetrics drops the axis of a single label
        .unbind(1)
    )
    f1 = _ratio(2 * found, 2 * found + wrong + missed)
    precision, recall = _ratio(found, found + wrong), _ratio(found, found + missed)
    seen = (found + wrong + missed) > 0
    both = (decisions & truth).sum(1).double()
    sizes = decisions.sum(1) + truth.sum(1)
    return {
        "f1_micro": float(_ratio(2 * found.sum(), (2 * found + wrong + missed).sum())),
        "f1_macro": float(f1.mean()),
        "f1_macro_supported": float(f1[seen].mean()) if seen.any() else 0.0,
        "jaccard": float(thresholds.row_jaccard(decisions, truth).mean()),
        "f1_samples": float(torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 1.0).mean()),
        "subset_accuracy": float(right.all(1).double().mean()),
        "label_accuracy": float((right if known is None else right[known]).double().mean()),
        "predicted_cardinality": float(decisions.sum(1).double().mean()),
        "gold_cardinality": float(truth.sum(1).double().mean()),
        "labels": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
                "threshold": float(threshold[i]),
            }
            for i, name in enumerate(labels)
        },
    }


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0)
