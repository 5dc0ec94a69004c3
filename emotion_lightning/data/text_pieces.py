"""Rows of texts in pieces of one size: what `predict` labels at once."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emotion_lightning.data.carried import as_value
from emotion_lightning.data.conversations import Turns
from emotion_lightning.data.formats.cells import as_text
from emotion_lightning.data.rows import Chunk, Text


@dataclass
class Piece:
    """Some rows of texts.

    Attributes:
        ids: id of each row.
        texts: text of each row.
        groups: value of each row in the column of groups, None where it is empty; None without such a column.
        kept: cells of the columns that are written to the predictions too, by name.
    """

    ids: list[str]
    texts: list[Text]
    groups: list[str | None] | None
    kept: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int | None = None) -> "Piece":
        """Its rows from `start` to before `stop`, None for its end, in lists of their own."""
        rows = slice(start, stop)
        groups = None if self.groups is None else self.groups[rows]
        return Piece(self.ids[rows], self.texts[rows], groups, {name: cells[rows] for name, cells in self.kept.items()})


@dataclass(frozen=True)
class TextColumns:
    """The columns of a table of texts.

    Attributes:
        text: name of the text column.
        id: name of the id column; None means row numbers.
        group: name of the column of groups; None if there is none.
        keep: columns that are written to the predictions too.
    """

    text: str
    id: str | None
    group: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def id_column(self) -> str:
        """Name of the id column in prediction files."""
        return self.id or "row"

    def pieces(
        self, chunks: Iterable[Chunk], size: int, *, turns: Turns | None = None, left_out: Container[int] = ()
    ) -> Iterator[Piece]:
        """Yield the rows of chunks in pieces of this size; the last one may be shorter.

        Args:
            chunks: rows by column.
            size: rows of a piece.
            turns: the turns before each text; None if texts stand alone.
            left_out: numbers of rows that are left out; it is read after each chunk.
        """
        piece = self._empty()
        for chunk in chunks:
            taken = [i for i, row in enumerate(chunk.rows) if row not in left_out] if left_out else None
            self._add(piece, chunk, taken, turns)
            cut = len(piece) - len(piece) % size
            for start in range(0, cut, size):
                yield piece.part(start, start + size)
            piece = piece.part(cut)
        if len(piece):
            yield piece

    def _empty(self) -> Piece:
        return Piece([], [], None if self.group is None else [], {name: [] for name in self.keep})

    def _add(self, piece: Piece, chunk: Chunk, taken: Sequence[int] | None, turns: Turns | None) -> None:
        def cells(column: Sequence[Any]) -> Sequence[Any]:
            return column if taken is None else [column[i] for i in taken]

        rows = cells(chunk.rows)
        piece.ids += [as_text(cell) or "" for cell in (cells(chunk.column(self.id)) if self.id else rows)]
        texts = [as_text(cell) or "" for cell in cells(chunk.column(self.text))]
        if turns is None:
            piece.texts += texts
        else:
            before = [turns.before.get(row, ()) for row in rows]
            piece.texts += [(*turn, text) if turn else text for turn, text in zip(before, texts, strict=True)]
        if piece.groups is not None and self.group is not None:
            piece.groups += map(as_value, cells(chunk.column(self.group)))
        for name, kept in piece.kept.items():
            kept += cells(chunk.column(name))
