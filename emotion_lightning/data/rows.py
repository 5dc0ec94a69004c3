"""Data structures for reading: sources and their chunks, rows, a corpus, and the problems found in files."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning.data.decisions import Decisions
from emotion_lightning.data.labels import Targets
from emotion_lightning.errors import UserError

SPLITS = ("train", "validation", "test")
WHOLE = "whole"
"""Name of the single split of a file that has no splits."""


@dataclass
class Chunk:
    """Some rows of a source, by column.

    Attributes:
        rows: row numbers, counted from 1 without the header.
        columns: cells of each column, in the order of `rows`; None if a row has no such cell.
    """

    rows: Sequence[int]
    columns: dict[str, list[Any]]

    def column(self, name: str) -> list[Any]:
        """Cells of a column; None for each row if there is no such column."""
        return self.columns.get(name) or [None] * len(self.rows)


@dataclass(frozen=True)
class Source:
    """A file or a split of a dataset that can be read several times, in chunks, so that memory does not grow with it.

    Attributes:
        path: its name in messages.
        chunks: reads the source from the start. It adds rows of a wrong shape to the problems and skips them; it
            raises UserError if nothing more can be read.
        class_names: names of the label ids in each column of class labels, if the source has them.
        about: how the file is read, for data.json: format, encoding, delimiter.
    """

    path: Path
    chunks: Callable[["Problems"], Iterator[Chunk]]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def where(self, keep: Callable[[Chunk], Sequence[bool]]) -> "Source":
        """The source with only the rows for which `keep` says so; they keep their numbers."""

        def chunks(problems: "Problems") -> Iterator[Chunk]:
            for chunk in self.chunks(problems):
                kept = keep(chunk)
                if all(kept):
                    yield chunk
                elif any(kept):
                    yield Chunk(
                        [row for row, wanted in zip(chunk.rows, kept, strict=True) if wanted],
                        {
                            name: [cell for cell, wanted in zip(cells, kept, strict=True) if wanted]
                            for name, cells in chunk.columns.items()
                        },
                    )

        return replace(self, chunks=chunks)


@dataclass
class Rows:
    """Texts in the order of their source.

    Attributes:
        ids: id of each row, as text.
        texts: texts, unchanged from the source.
        targets: multi-hot, [row, label]; None if the source has no labels.
        id_column: name of the id column in prediction files.
    """

    ids: list[str]
    texts: list[str]
    targets: Targets | None
    id_column: str = "row"

    def __len__(self) -> int:
        return len(self.texts)

    def sha256(self) -> str:
        """Fingerprint of ids, texts and labels; it changes if any of them changes."""
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
        splits: those of train, validation and test that exist; or only `whole`.
        hashes: sha256 or fingerprint of each file or dataset that was read.
        new_splits: splits made by `splitting.split_rows`, before rows are dropped; `splitting.write_splits` saves them.
        decisions: what was decided about the files, for data.json.
    """

    labels: list[str]
    splits: dict[str, Rows]
    hashes: dict[str, str] = field(default_factory=dict)
    new_splits: dict[str, Rows] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)

    def plain_decisions(self) -> dict[str, Any]:
        """What was decided about the files, as the content of data.json."""
        return self.decisions.plain(self.labels, {name: len(rows) for name, rows in self.splits.items()})

    def labelled(self, split: str) -> Targets:
        """Targets of train or validation.

        Raises:
            UserError: the split has no labels.
        """
        targets = self.splits[split].targets
        if targets is None:
            why = "The training split has no labels."
            raise UserError(
                why if split == "train" else "The validation split has no labels; thresholds are fitted on it."
            )
        return targets


class Problems:
    """Collects problems in files, so that one error message can list several of them."""

    SHOWN = 10
    ENOUGH = 10_000
    """With this many problems, reading stops: the files are not what the settings describe."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        """Messages about cells that look wrong but may be intended."""
        self._found: list[tuple[int, int, str]] = []
        self._files: dict[Path, int] = {}
        self._ways: list[dict[str, Any]] = []

    @property
    def count(self) -> int:
        """Number of problems."""
        return len(self._found)

    def add(
        self,
        file: Path,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        ways: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Add a problem. Rows count from 1, without the header."""
        place = "".join([f", row {row}" if row is not None else "", f", column {column}" if column else ""])
        self.note(file, f"{file}{place}: {message}", row=row, ways=ways)

    def note(self, file: Path, message: str, *, row: int | None = None, ways: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add a problem whose message already names its place.

        Args:
            file: where it is.
            message: what it is.
            row: its row, from 1.
            ways: settings that may mend it, as in `UserError`; the error of all problems has those of the first with
                any.

        Raises:
            UserError: there are `ENOUGH` problems.
        """
        order = self._files.setdefault(file, len(self._files))
        self._found.append((order, row or 0, message))
        self._ways = self._ways or [dict(way) for way in ways]
        if len(self._found) >= self.ENOUGH:
            raise self._error(f"… and at least {len(self._found) - self.SHOWN:,} more problems; reading stopped there.")

    def raise_any(self) -> None:
        """Raise one UserError for all problems, if there are any."""
        if self._found:
            more = self.count - self.SHOWN
            raise self._error(f"… and {more:,} more problem{'s' if more > 1 else ''}." if more > 0 else None)

    def _error(self, rest: str | None) -> UserError:
        # Chunks are checked column by column, but users look for rows.
        shown = [message for *_, message in sorted(self._found, key=lambda found: found[:2])[: self.SHOWN]]
        return UserError("\n".join(shown + ([rest] if rest else [])), ways=self._ways)
