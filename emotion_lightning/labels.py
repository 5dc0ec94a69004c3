"""Labels as names and as multi-hot rows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_lightning.errors import UserError

Targets = npt.NDArray[np.float32]
"""Multi-hot labels, [rows, labels], 0 or 1."""


def multi_hot(rows: Iterable[Iterable[int]], *, count: int) -> Targets:
    """Label positions of each row as a [rows, labels] matrix of zeros and ones.

    >>> multi_hot([[0, 2], []], count=3)
    array([[1., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    positions = [list(row) for row in rows]
    targets = np.zeros((len(positions), count), dtype=np.float32)
    for row, columns in enumerate(positions):
        targets[row, columns] = 1
    return targets


def given(together: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Share of the rows with the row's label that have the column's too, [label, label]; NaN where none has.

    Args:
        together: rows that have both labels, [label, label].

    >>> given(np.array([[4, 1], [1, 2]]))
    array([[1.  , 0.25],
           [0.5 , 1.  ]])
    """
    own = np.diag(together).astype(float)
    return together / np.where(own > 0, own, np.nan)[:, None]


def check(labels: Sequence[str], source: str, *, id_column: str | None = None) -> None:
    """Raise UserError for label names that cannot name columns of a prediction file beside its column of ids."""
    if not labels:
        raise UserError(f"{source} has no labels.")
    for name, count in Counter(labels).items():
        if count > 1:
            raise UserError(f"{source} names the label {name} {count} times; label names must differ.")
        if not name.strip():
            raise UserError(f"{source} has a label with an empty name; give it a name.")
        if name in ("row", "text"):
            raise UserError(f"{source} has a label named {name}, as a column of prediction files is; rename it.")
        if id_column is not None and id_column in (name, f"p_{name}"):
            raise UserError(
                f"{source} has a label {name} and an id column {id_column}, which prediction files would hold both; "
                "rename one, or count rows with data.id_column=row."
            )
        if len(name) > 200:
            raise UserError(
                f"{source} has a label whose name has {len(name):,} letters: {name[:50]} …; that is no label."
            )
        if f"p_{name}" in labels:
            raise UserError(
                f"{source} has labels {name} and p_{name}; prediction files hold the probability of {name} under "
                f"p_{name}, so rename one."
            )
