"""Reads rows from the chunks of a table and checks their cells.

A source is read twice: a survey chooses the columns (`columns`), then the rows are read. Memory therefore holds only
texts, ids and targets, not all cells.
"""

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.config import EmptyTexts
from emotion_lightning.data import annotators, labels, memory
from emotion_lightning.data.carried import as_value
from emotion_lightning.data.columns import Columns, normalised, texts_and_ids
from emotion_lightning.data.conversations import Context, Turns, read_turns
from emotion_lightning.data.formats import files, tools
from emotion_lightning.data.formats.cells import as_text, is_blank, number, shown, split_labels
from emotion_lightning.data.overlap import groups_of
from emotion_lightning.data.rows import Chunk, Problems, Rows, Source, Text
from emotion_lightning.data.survey import LIST_COLUMNS, survey
from emotion_lightning.data.text_pieces import Piece, TextColumns
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


def read_rows(
    source: Source,
    columns: Columns,
    problems: Problems,
    *,
    labelled: bool = True,
    empty_texts: EmptyTexts = EmptyTexts.refuse,
    expected: int | None = None,
    most: int | None = None,
    repeated_ids: bool = False,
    turns: Turns | None = None,
) -> Rows:
    """Read the rows of a source.

    Args:
        source: source to read. Rows of a wrong shape are skipped without a message: the survey has reported them.
        columns: columns of texts, ids and labels.
        problems: collects wrong cells.
        labelled: whether targets are read.
        empty_texts: what happens to rows without a text.
        expected: number of rows in the survey, to check early whether they fit into memory.
        most: maximum number of rows to keep; the others are only checked.
        repeated_ids: whether several rows may have the same id.
        turns: the turns of conversations in the source; None if texts stand alone.

    Raises:
        UserError: the rows do not fit into memory, or there are too many problems.
    """
    gathered = _Gathered(source.path, columns, problems, labelled=labelled, empty_texts=empty_texts)
    gathered.turns = turns
    for chunk in source.chunks(Problems()):
        gathered.add(chunk, kept=most is None or len(gathered.texts) < most)
        if expected is not None and most is None:
            gathered.check_memory(expected)
    return gathered.rows(most, repeated_ids=repeated_ids)


class _Gathered:
    """Rows collected so far."""

    _CHECK_AT = 20_000

    def __init__(
        self, path: Path, columns: Columns, problems: Problems, *, labelled: bool, empty_texts: EmptyTexts
    ) -> None:
        self.path = path
        self.columns = columns
        self.problems = problems
        self.labelled = labelled
        self.empty_texts = empty_texts
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.groups: list[str | None] = []
        self.annotators: list[str | None] = []
        self.carried: dict[str, list[str | None]] = {name: [] for name in columns.carried}
        self.empty = 0
        self.turns: Turns | None = None
        self._numbers: list[int] = []
        self._targets: list[np.ndarray] = []
        self._spelling: dict[str, tuple[str, int]] = {}
        self._checked = False
        self._where = {name: position for position, name in enumerate(columns.labels)}
        if not any(name.isdecimal() for name in columns.labels):
            self._where |= {str(columns.first_id + position): position for position in range(len(columns.labels))}

    def add(self, chunk: Chunk, *, kept: bool) -> None:
        """Check the rows of a chunk, and keep them if `kept`."""
        texts, with_text = self._texts(chunk)
        ids = self._ids(chunk)
        targets = self._labels(chunk) if self.labelled else None
        if not kept:
            return
        taken: Sequence[int] = range(len(texts))
        if self.empty_texts is EmptyTexts.drop and not all(with_text):
            taken = [i for i, filled in enumerate(with_text) if filled]
        self.texts += [texts[i] for i in taken]
        self.ids += [ids[i] for i in taken]
        if self.columns.group is not None:
            values = [as_value(cell) for cell in chunk.column(self.columns.group)]
            self.groups += [values[i] for i in taken]
        if self.columns.annotator is not None:
            values = [as_value(cell) for cell in chunk.column(self.columns.annotator)]
            self.annotators += [values[i] for i in taken]
        for name, carried in self.carried.items():
            values = [as_value(cell) for cell in chunk.column(name)]
            carried += [values[i] for i in taken]
        self._numbers += [chunk.rows[i] for i in taken]
        if targets is not None:
            self._targets.append(targets[list(taken)])

    def rows(self, most: int | None, *, repeated_ids: bool) -> Rows:
        """Return the collected rows, at most `most`; repeated ids are added to the problems unless they are allowed."""
        self.tell_empty()
        if not repeated_ids:
            self._check_ids()
        count = len(self.columns.labels)
        targets = np.concatenate([np.zeros((0, count), np.float32), *self._targets]) if self.labelled else None
        grouped = None if self.columns.group is None else self.groups
        found = Rows(self.ids, self.texts, targets, self.columns.id or "row", groups=grouped, carried=self.carried)
        if self.columns.annotator is not None:
            found.annotators = self.annotators
        if targets is not None:
            self._say_open(found, targets)
        if self.turns is not None:
            found.before = [self.turns.before.get(number, ()) for number in self._numbers]
            known = self.turns.conversations
            found.conversations = [known.get(number, "") for number in self._numbers] if known else None
        return found if most is None or len(found) <= most else found.take(range(most))

    def _say_open(self, rows: Rows, amounts: labels.Targets) -> None:
        """Tell shares from labels, and labels that are open from others, in what was read, where NaN is open."""
        if self.columns.cells.blank_is_open:
            rows.open = np.isnan(amounts)
            rows.targets = np.nan_to_num(amounts)
        if self.columns.present is not None:
            rows.shares, rows.scale = rows.targets, self.columns.cells.scale
            rows.targets = labels.hardened(amounts, self.columns.present)

    def tell_empty(self) -> None:
        """Log how many rows without a text were kept or left out."""
        if self.empty and self.empty_texts is not EmptyTexts.refuse:
            what = "left out" if self.empty_texts is EmptyTexts.drop else "kept"
            log.warning("%s: rows without a text %s: %s.", self.path, what, f"{self.empty:,}")

    def check_memory(self, expected: int) -> None:
        """Raise UserError if all rows would not fit into memory; checked once, as soon as enough rows are read."""
        if self._checked or len(self.texts) < self._CHECK_AT:
            return
        self._checked = True
        held = sum(map(sys.getsizeof, self.texts)) + sum(map(sys.getsizeof, self.ids)) + 24 * len(self.texts)
        # Targets count twice, because they are copied when chunks are concatenated. Tokens take four bytes for about
        # every three characters.
        held += 2 * sum(part.nbytes for part in self._targets) + 4 * sum(map(len, self.texts)) // 3
        needed = held * (expected - len(self.texts)) // len(self.texts)
        memory.check_memory(
            self.path,
            needed,
            f"train on a part of its {expected:,} rows with data.max_rows=…, or on a larger machine (predict reads "
            "files of any size)",
        )

    def _texts(self, chunk: Chunk) -> tuple[list[str], list[bool]]:
        found = [as_text(cell) for cell in chunk.column(self.columns.text)]
        with_text = [text is not None and not text.isspace() and text != "" for text in found]
        if not all(with_text):
            self.empty += with_text.count(False)
            if self.empty_texts is EmptyTexts.refuse:
                for row, text, filled in zip(chunk.rows, found, with_text, strict=True):
                    if not filled:
                        what = "no text; a row needs one" if text is None else "the text is empty; fill it in"
                        self.problems.add(
                            self.path,
                            f"{what}, remove the row, or choose data.empty_texts=drop.",
                            row=row,
                            column=self.columns.text,
                            ways=[{"empty_texts": "drop"}],
                        )
        return [text or "" for text in found], with_text

    def _ids(self, chunk: Chunk) -> list[str]:
        if self.columns.id is None:
            return [str(row) for row in chunk.rows]
        found = [as_text(cell) for cell in chunk.column(self.columns.id)]
        for row, identifier in zip(chunk.rows, found, strict=True):
            if not identifier or identifier.isspace():
                self.problems.add(self.path, "no id; each row needs one.", row=row, column=self.columns.id)
        return [identifier or "" for identifier in found]

    def _check_ids(self) -> None:
        if self.columns.id is None or len(set(self.ids)) == len(self.ids):
            return
        first: dict[str, int] = {}
        again = []
        for position, identifier in enumerate(self.ids):
            if identifier.strip() and first.setdefault(identifier, position) != position:
                again.append(position)
        if not again:
            return
        groups = groups_of(self.texts)
        have = f"{len(again):,} row{'s have' if len(again) > 1 else ' has'}"
        row = self._numbers[again[0]]
        place = f"{self.path}, row {row}, column {self.columns.id}"
        if all(groups[position] == groups[first[self.ids[position]]] for position in again):
            message = (
                f"{place}: {have} the id and the text of an earlier row, {self.ids[again[0]][:60]} for example, as "
                f"rows of several annotators do{annotators.signs(self.columns)}. {annotators.ADVICE}"
            )
            ways = annotators.WAYS
        else:
            shown = "; ".join(
                f"{self.ids[position][:60]} stands in row {self._numbers[first[self.ids[position]]]} and in "
                f"row {self._numbers[position]}"
                for position in again[:3]
            )
            message = (
                f"{place}: {have} the id of an earlier row ({shown}). Name another column as "
                "data.id_column, or count rows with data.id_column=row."
            )
            ways = [{"id_column": files.ROW}]
        self.problems.note(self.path, message, row=row, ways=ways)

    def _labels(self, chunk: Chunk) -> np.ndarray:
        if self.columns.labels_column is None:
            columns = [self._cells(chunk, name) for name in self.columns.labels]
            found = np.stack(columns, axis=1).astype(np.float32)
            return found if self.columns.annotators is None else self._of_annotators(chunk, found)
        cells = chunk.column(self.columns.labels_column)
        positions = [self._from_list(row, cell) for row, cell in zip(chunk.rows, cells, strict=True)]
        return labels.multi_hot(positions, count=len(self.columns.labels))

    def _of_annotators(self, chunk: Chunk, counts: np.ndarray) -> np.ndarray:
        """The counts of a chunk as shares of the annotators of each row."""
        column = self.columns.annotators
        assert column is not None
        shares = counts.copy()
        for i, (row, cell) in enumerate(zip(chunk.rows, chunk.column(column), strict=True)):
            many = number(cell)
            if many is None or many < 1 or many != int(many):
                found = "nothing" if is_blank(cell) else shown(cell)
                self.problems.add(self.path, f"{found} where a number of annotators is due.", row=row, column=column)
                continue
            for name, count in zip(self.columns.labels, counts[i].tolist(), strict=True):
                if count > many:
                    self.problems.add(
                        self.path,
                        f"{count:g} of the {many:g} annotators in column {column} gave the label; there are not so "
                        "many.",
                        row=row,
                        column=name,
                    )
            shares[i] = counts[i] / many
        return shares

    def _cells(self, chunk: Chunk, name: str) -> np.ndarray:
        """The cells of a label column as numbers, [row]; NaN where one is left open, 0 where one is wrong."""
        cells = chunk.column(name)
        how = self.columns.cells
        # If all cells have one type, parse each distinct cell once. With several types this is wrong: 1 equals True.
        types = set(map(type, cells))
        if len(types) == 1 and types <= {str, int, float, bool}:
            meaning = {cell: how.value(cell) for cell in set(cells)}
            values = [meaning[cell] for cell in cells]
            kinds = {how.words(cell) for cell in meaning}
        else:
            values = [how.value(cell) for cell in cells]
            kinds = {how.words(cell) for cell in cells}
        if how.blank_is_open:
            values = [math.nan if is_blank(cell) else value for cell, value in zip(cells, values, strict=True)]
        if None in values:
            for row, cell, value in zip(chunk.rows, cells, values, strict=True):
                if value is None:
                    self._tell_cell(row, name, cell)
        self._check_spelling(chunk, name, cells, kinds - {None})
        return np.array(
            [value or 0 for value in values], dtype=np.float32 if how.soft or how.blank_is_open else np.uint8
        )

    def _tell_cell(self, row: int, name: str, cell: Any) -> None:
        """Add the problem of a cell that is no label."""
        found = "nothing" if is_blank(cell) else shown(cell)
        hint = " (if the column lists labels: data.labels_column)" if name.lower() in LIST_COLUMNS else ""
        ways: list[dict[str, Any]] = [{"missing": "zero"}, {"missing": "mask"}] if is_blank(cell) else []
        self.problems.add(
            self.path, f"{found} where {self.columns.cells.due} is due{hint}.", row=row, column=name, ways=ways
        )

    def _check_spelling(self, chunk: Chunk, name: str, cells: list[Any], kinds: set[Any]) -> None:
        # `true` among 0 and 1 is a sign that files were concatenated, perhaps with different columns.
        known = self._spelling.get(name)
        if not kinds or (known and kinds == {known[0]}):
            return
        for row, cell in zip(chunk.rows, cells, strict=True):
            kind = self.columns.cells.words(cell)
            if kind is None:
                continue
            first, at = self._spelling.setdefault(name, (kind, row))
            if kind != first:
                self.problems.add(
                    self.path,
                    f"{shown(cell)} in a column that has {first} since row {at}; write all of it alike.",
                    row=row,
                    column=name,
                )

    def _from_list(self, row: int, cell: Any) -> list[int]:
        column = self.columns.labels_column
        try:
            parts = split_labels(cell, self.columns.separator)
        except ValueError as error:
            self.problems.add(self.path, f"{shown(cell)} {error}.", row=row, column=column)
            return []
        if self.columns.multi_hot:
            return self._from_zeros_and_ones(row, cell, parts)
        positions = []
        for part in parts:
            position = self._where.get(part)
            if position is None:
                meant = files.near(part, self.columns.labels)
                self.problems.add(
                    self.path,
                    f"the label {shown(part)} is not one of {files.listed(self.columns.labels)}"
                    + (f"; did you mean {meant}?" if meant else "."),
                    row=row,
                    column=column,
                )
            else:
                positions.append(position)
        return positions

    def _from_zeros_and_ones(self, row: int, cell: Any, parts: list[str]) -> list[int]:
        if len(parts) == len(self.columns.labels) and set(parts) <= {"0", "1"}:
            return [position for position, part in enumerate(parts) if part == "1"]
        self.problems.add(
            self.path,
            f"{shown(cell)} where {len(self.columns.labels)} zeros and ones are due.",
            row=row,
            column=self.columns.labels_column,
        )
        return []


@dataclass
class TextRows:
    """Ids and texts of a checked source; each iteration reads the source again.

    Attributes:
        source: source to read.
        columns: its columns.
        count: number of rows.
        turns: the turns before each text; None if texts stand alone.
    """

    source: Source
    columns: TextColumns
    count: int
    turns: Turns | None = None

    @property
    def id_column(self) -> str:
        """Name of the id column in prediction files."""
        return self.columns.id_column

    def __iter__(self) -> Iterator[tuple[str, Text]]:
        for piece in self.pieces(1):
            yield piece.ids[0], piece.texts[0]

    def pieces(self, size: int) -> Iterator[Piece]:
        """Yield the rows in pieces of this size; the last one may be shorter."""
        return self.columns.pieces(self.source.chunks(Problems()), size, turns=self.turns)


def text_file(path: Path, settings: config.InputColumns) -> Source:
    """Open a file of texts for `read_texts`, with the settings of how it is read."""
    return files.source(path, settings.encoding, header=settings.header, columns=settings.columns, table=settings.table)


def read_texts(
    source: Source,
    settings: config.InputColumns,
    *,
    usual: tuple[str | None, str | None] = (None, None),
    context: Context | None = None,
    group: str | None = None,
    keep: Sequence[str] = (),
) -> TextRows:
    """Check every row of a source, except labels, and return its ids and texts; memory does not grow with the source.

    With a context, the texts of the source are held in memory, because turns may stand in any order.

    Args:
        source: source to read.
        settings: column settings.
        usual: names of the text and id columns that are preferred to the usual names, if the source has them.
        context: which turns stand before a text; None if texts stand alone.
        group: name of a column of groups, which the source may have.
        keep: further columns that are read.

    Raises:
        UserError: rows are wrong, no row has a text, or one of `keep` is no column.
    """
    settings = normalised(settings)
    keep = tuple(map(labels.normalised, keep))
    problems = Problems()
    try:
        source = tools.prepared(source, settings, usual=(*usual, *keep), labelled=False)
        seen = survey(source, problems)
    except UserError as error:
        problems.note(source.path, str(error))
        problems.raise_any()
        raise
    problems.raise_any()
    if not seen.rows:
        raise UserError(files.no_rows(source.path))
    wanted = [settings.text, settings.id_column]
    for i, name in enumerate(name and labels.normalised(name) for name in usual):
        if wanted[i] is None and name in (*seen.names, files.ROW):
            wanted[i] = name
    wanted = [name or role for name, role in zip(wanted, (source.roles.text, source.roles.id), strict=True)]
    text, identifier = texts_and_ids(source.path, seen, *wanted)
    for name in keep:
        files.check_column(source.path, name, seen.names, example="predict.keep=[{}]", asked_by="predict.keep")
    columns = Columns(text, identifier, [], None, "")
    turns = None if context is None else read_turns(source, seen.names, context.named(settings), text, problems)
    checked = _Gathered(source.path, columns, problems, labelled=False, empty_texts=settings.empty_texts)
    for chunk in source.chunks(Problems()):
        checked.add(chunk, kept=False)
    checked.tell_empty()
    problems.raise_any()
    if checked.empty == seen.rows:
        raise UserError(f"{source.path}, column {text}: no row has a text; name another column as data.text.")
    group = group if group in seen.names else None
    return TextRows(source, TextColumns(text, identifier, group, keep), seen.rows, turns)


def checked_chunks(
    source: Source, columns: TextColumns, problems: Problems, *, empty_texts: EmptyTexts
) -> Iterator[Chunk]:
    """Yield the chunks of a source whose columns are known; what `read_texts` refuses is added to the problems."""
    known = Columns(columns.text, columns.id, [], None, "")
    checked = _Gathered(source.path, known, problems, labelled=False, empty_texts=empty_texts)
    for chunk in source.chunks(problems):
        checked.add(chunk, kept=False)
        yield chunk
