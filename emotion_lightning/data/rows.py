"""Rows as they are read, in pieces; texts with ids and labels; and what went wrong on the way."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning.data.labels import Targets
from emotion_lightning.errors import UserError

SPLITS = ("train", "validation", "test")
WHOLE = "whole"
"""The split of a file that comes without splits."""


@dataclass
class Chunk:
    """Some rows of a source, by column.

    Attributes:
        rows: their numbers, counted from 1 and without the header.
        columns: the cells of each column, in the order of `rows`; None where a row has no such cell.
    """

    rows: Sequence[int]
    columns: dict[str, list[Any]]

    def column(self, name: str) -> list[Any]:
        """The cells of a column; None for each row where there is no such column."""
        return self.columns.get(name) or [None] * len(self.rows)


@dataclass(frozen=True)
class Source:
    """A file or a split of a data set, read in pieces as often as it is asked, so that memory does not grow with it.

    Attributes:
        path: as messages name it.
        chunks: reads from the start. Rows of a wrong shape go to the problems and are left out; UserError where
            nothing more can be read.
        class_names: names of the ids in columns of class labels, where the source has them.
    """

    path: Path
    chunks: Callable[["Problems"], Iterator[Chunk]]
    class_names: dict[str, list[str]] = field(default_factory=dict)


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

    def sha256(self) -> str:
        """A print of ids, texts and labels, by which other rows are told from these."""
        total = hashlib.sha256()
        for identifier, text in zip(self.ids, self.texts, strict=True):
            total.update(f"{len(identifier)} {len(text)} {identifier}{text}".encode())
        if self.targets is not None:
            total.update(np.packbits(self.targets.astype(bool)).tobytes())
        return total.hexdigest()

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
    """Label names, splits by name, and the sha256 of every file read.

    Attributes:
        labels: names, in the order of every label axis.
        splits: train, validation, test, as far as there are; or `whole`.
        hashes: sha256 by what was read.
        cut: the splits that were cut here from a whole, before any row was left out, to be written down.
    """

    labels: list[str]
    splits: dict[str, Rows]
    hashes: dict[str, str] = field(default_factory=dict)
    cut: dict[str, Rows] = field(default_factory=dict)

    def labelled(self, split: str) -> Targets:
        """The labels of train or validation, or a UserError where that has none."""
        targets = self.splits[split].targets
        if targets is None:
            why = "The training split has no labels."
            raise UserError(
                why if split == "train" else "The validation split has no labels; thresholds are fitted on it."
            )
        return targets


class Problems:
    """What is wrong in files, gathered so that one message can name ten problems at once."""

    SHOWN = 10
    ENOUGH = 10_000
    """So many, and the files are not what the settings say: reading on would only take time."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        """What looks odd but may be meant."""
        self._found: list[tuple[int, int, str]] = []
        self._files: dict[Path, int] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._found)

    def add(self, file: Path, message: str, *, row: int | None = None, column: str | None = None) -> None:
        """Note a problem. Rows count from 1 and leave the header out."""
        place = "".join([f", row {row}" if row is not None else "", f", column {column}" if column else ""])
        self.note(file, f"{file}{place}: {message}", row=row)

    def note(self, file: Path, message: str, *, row: int | None = None) -> None:
        """Note a problem whose message says where it is."""
        order = self._files.setdefault(file, len(self._files))
        self._found.append((order, row or 0, message))
        if len(self._found) >= self.ENOUGH:
            raise self._error(f"… and at least {len(self._found) - self.SHOWN:,} more problems; reading stopped there.")

    def raise_any(self) -> None:
        """Raise one UserError for all problems noted, if there are any."""
        if self._found:
            more = self.count - self.SHOWN
            raise self._error(f"… and {more:,} more problem{'s' if more > 1 else ''}." if more > 0 else None)

    def _error(self, rest: str | None) -> UserError:
        # A piece of a file is read column by column; a user looks for rows.
        shown = [message for *_, message in sorted(self._found, key=lambda found: found[:2])[: self.SHOWN]]
        return UserError("\n".join(shown + ([rest] if rest else [])))
