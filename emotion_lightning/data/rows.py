"""Texts with their ids and labels, and what went wrong while they were read."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emotion_lightning.errors import UserError
from emotion_lightning.labels import Targets

SPLITS = ("train", "validation", "test")
WHOLE = "whole"
"""The split of a file that comes without splits."""


@dataclass
class Rows:
    """Texts in the order of their source.

    Attributes:
        ids: what identifies each row, as text.
        texts: as they stand in the source.
        targets: multi-hot, [rows, labels]; None where the source has no labels.
        id_column: name of the ids' column in prediction files.
    """

    ids: list[str]
    texts: list[str]
    targets: Targets | None
    id_column: str = "row"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: np.ndarray | range) -> "Rows":
        """The rows at these positions, in this order."""
        chosen = np.asarray(positions, dtype=np.int64)
        return Rows(
            ids=[self.ids[i] for i in chosen],
            texts=[self.texts[i] for i in chosen],
            targets=None if self.targets is None else self.targets[chosen],
            id_column=self.id_column,
        )


@dataclass
class Corpus:
    """Label names, splits by name, and the sha256 of every file read."""

    labels: list[str]
    splits: dict[str, Rows]
    hashes: dict[str, str] = field(default_factory=dict)


class Problems:
    """What is wrong in a file, gathered so that one message can name ten problems at once."""

    SHOWN = 10

    def __init__(self) -> None:
        self._messages: list[str] = []
        self.count = 0

    def add(self, file: Path, message: str, *, row: int | None = None, column: str | None = None) -> None:
        """Note a problem. Rows count from 1 and leave the header out."""
        self.count += 1
        if len(self._messages) < self.SHOWN:
            place = "".join([f", row {row}" if row is not None else "", f", column {column}" if column else ""])
            self._messages.append(f"{file}{place}: {message}")

    def raise_any(self) -> None:
        """Raise one UserError for all problems noted, if there are any."""
        if not self.count:
            return
        more = self.count - len(self._messages)
        rest = [f"… and {more:,} more problem{'s' if more > 1 else ''}."] if more else []
        raise UserError("\n".join(self._messages + rest))
