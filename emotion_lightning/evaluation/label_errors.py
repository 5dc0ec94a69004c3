"""Labels that look wrong, by the probabilities of a model that did not learn from them.

A label is as doubtful as its calibrated probability says: one minus the probability of what is given, which confident
learning calls self-confidence (Northcutt, Jiang and Chuang, 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels"). Relating it to the mean of its class, as proposed for classes that a model is less sure of, found
fewer planted errors in emotion data (docs/how-to/audit.md).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from emotion_lightning.config import Calibration
from emotion_lightning.data.labels import Targets
from emotion_lightning.evaluation import calibration

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelErrors:
    """How many rows of a label look wrong.

    Attributes:
        given: rows that have the label.
        missing: rows that lack it and look as if they should have it.
        unwarranted: rows that have it and look as if they should not.
    """

    given: int
    missing: int
    unwarranted: int


Known = npt.NDArray[np.bool_] | None
"""Whether a label is not left open, [row, label]; None if none is."""


def calibrated(probabilities: Array, targets: Targets, *, known: Known = None) -> Array:
    """Calibrate probabilities on the rows themselves, [row, label].

    Two parameters a label are fitted (Platt, 1999), which a few wrong labels hardly move. Without it, the probabilities
    of a weighted loss would call too many labels missing.

    Args:
        probabilities: of a model that did not learn from these rows, [row, label].
        targets: given labels, [row, label].
        known: which of them are not left open.
    """
    logits = torch.logit(torch.from_numpy(np.asarray(probabilities, dtype=np.float64)), eps=1e-7)
    scaling = calibration.fit_calibration(
        Calibration.per_label,
        logits,
        torch.from_numpy(np.asarray(targets)),
        known=None if known is None else torch.from_numpy(known),
    )
    return calibration.probabilities(logits, scaling).numpy().astype(np.float64)


def doubts(probabilities: Array, targets: Targets, *, known: Known = None) -> Array:
    """Probability that each given label is wrong, [row, label]; 0 for a label that is left open.

    Args:
        probabilities: calibrated probabilities, [row, label].
        targets: given labels, [row, label].
        known: which of them are not left open.

    >>> doubts(np.array([[0.9, 0.2]]), np.array([[0.0, 0.0]], dtype=np.float32)).tolist()
    [[0.9, 0.2]]
    """
    found = np.where(np.asarray(targets) > 0, 1 - probabilities, probabilities)
    return found if known is None else np.where(known, found, 0.0)


def count_errors(probabilities: Array, targets: Targets, *, known: Known = None) -> list[LabelErrors]:
    """Count the rows of each label that look wrong.

    A row is counted where its probability is as high as the mean of the other class: a row without the label whose
    probability reaches the mean of the rows with it, and the other way round. This is the confident joint of Northcutt
    et al. (2021), for each label by itself.
    """
    found = []
    rows = np.ones(probabilities.shape, dtype=bool) if known is None else known
    for shares, given, own in zip(probabilities.T, np.asarray(targets).T > 0, rows.T, strict=True):
        shares, given = shares[own], given[own]
        if not given.any() or given.all():
            found.append(LabelErrors(int(given.sum()), 0, 0))
            continue
        missing = ~given & (shares >= shares[given].mean())
        unwarranted = given & (shares <= shares[~given].mean())
        found.append(LabelErrors(int(given.sum()), int(missing.sum()), int(unwarranted.sum())))
    return found
