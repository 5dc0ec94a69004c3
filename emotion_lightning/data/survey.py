"""First pass over a table: counts what each column holds, so that the columns can be chosen."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats.cells import PLAIN, LabelCells, is_blank
from emotion_lightning.data.rows import Chunk, Problems, Source
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_NEARLY_ALL = 0.8
LIST_COLUMNS = ("labels", "label", "emotions", "emotion")
"""Usual names of a column that holds all labels of a row."""

DIFFERENT = 100_000
"""A column with more different cells than this is not a column of labels."""

_ENOUGH_ROWS = 10
"""With fewer rows, a column may be constant by chance."""

_VALUES = 200
"""Different short cells that are counted in a column; a column with more of them is no column of labels."""

_REMARKS = 3
"""Maximum number of remarks that are logged; more would hide other messages."""

_LONGEST = 20
"""Longer cells are not tested for 0 or 1: to test long texts would take most of the time."""


@dataclass
class Survey:
    """Result of the first pass over a source.

    Attributes:
        cells: how cells of label columns are read.
        names: column names, in order.
        rows: number of rows.
        binary: number of cells that are read as 0 or 1, or as a share, without empty ones, by column.
        ones: how many of them are read as 1; the sum of the shares.
        blank: number of empty cells, by column.
        values: different short cells of each column as text, with their count and the first row that has them; a column
            with long or many different cells is not in it.
        lists: for each column that may hold all labels of a row, its different cells (lists as tuples) and the first
            row that has each of them.
        first: the first cell of each column that is not empty, for messages.
    """

    cells: LabelCells = PLAIN
    names: list[str] = field(default_factory=list)
    rows: int = 0
    binary: Counter[str] = field(default_factory=Counter)
    ones: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    blank: Counter[str] = field(default_factory=Counter)
    values: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    lists: dict[str, dict[Any, int]] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)

    def looks_binary(self, name: str) -> bool:
        """Whether nearly all cells of a column are 0 or 1, or shares, so that any other cell is a mistake."""
        may_be_blank = self.cells.blank_is_zero or self.cells.blank_is_open
        filled = self.rows - self.blank[name] if may_be_blank else self.rows
        return self.binary[name] > 0 and self.binary[name] >= _NEARLY_ALL * filled

    def is_constant(self, name: str) -> bool:
        """Whether a column of zeros and ones has the same value in all rows, and there are enough rows to say so."""
        known = self.binary[name] + (self.blank[name] if self.cells.blank_is_zero else 0)
        rows = self.rows - (self.blank[name] if self.cells.blank_is_open else 0)
        return known == rows >= _ENOUGH_ROWS and self.ones[name] in (0, rows)

    def is_blank(self, name: str) -> bool:
        """Whether a column is missing or empty in all rows."""
        return name not in self.names or self.blank[name] == self.rows

    def check_filled(self, path: Path, name: str, setting: str) -> None:
        """Raise UserError if the column that a setting names is empty in all rows."""
        if self.is_blank(name):
            raise UserError(f"{path}, column {name} ({setting}): it is empty in every row.")

    def add(self, other: "Survey") -> None:
        """Add the survey of another source with the same columns."""
        for name in other.names:
            if name not in self.names:
                self.names.append(name)
                self.blank[name] = self.rows
                self.values[name] = {}
        for name in self.names:
            present = name in other.names
            self.blank[name] += other.blank[name] if present else other.rows
            self.binary[name] += other.binary[name]
            self.ones[name] += other.ones[name]
            if name in other.first:
                self.first.setdefault(name, other.first[name])
            if name in other.lists:
                self.lists[name] = other.lists[name] | self.lists.get(name, {})
            if present and name not in other.values:
                self.values.pop(name, None)
            elif name in self.values:
                ours = self.values[name]
                for value, (count, row) in other.values.get(name, {}).items():
                    ours[value] = (count + ours[value][0], ours[value][1]) if value in ours else (count, row)
        self.rows += other.rows


def survey(
    source: Source, problems: Problems, *, labels_column: str | None = None, cells: LabelCells = PLAIN
) -> Survey:
    """Read a source for the first time and count what its columns hold.

    Args:
        source: source to read.
        problems: collects rows of a wrong shape.
        labels_column: the column that holds all labels of a row; None considers those with a usual name.
        cells: how cells of label columns are read.
    """
    found = Survey(cells)
    candidates = {labels_column} if labels_column else set()
    for chunk in source.chunks(problems):
        # A jsonl row may lack a key that others have.
        for name in chunk.columns:
            if name not in found.binary:
                found.names.append(name)
                found.binary[name] = 0
                found.blank[name] = found.rows
                found.values[name] = {}
                if name in candidates or (not labels_column and name.lower() in LIST_COLUMNS):
                    found.lists[name] = {}
        found.rows += len(chunk.rows)
        for name in found.names:
            _count(found, name, chunk)
    for remark in problems.remarks[:_REMARKS]:
        log.warning(remark)
    problems.remarks.clear()
    return found


def _count(found: Survey, name: str, chunk: Chunk) -> None:
    cells = chunk.column(name)
    values = found.values.get(name)
    for cell, times in _different(cells):
        if is_blank(cell) or cell == []:
            found.blank[name] += times
            continue
        found.first.setdefault(name, cell)
        short = not (isinstance(cell, str) and len(cell) > _LONGEST)
        value = found.cells.value(cell) if short else None
        if value is not None:
            found.binary[name] += times
            found.ones[name] += value * times
        if values is not None:
            written = str(cell).strip() if short and not isinstance(cell, list | dict) else None
            if written is None or (written not in values and len(values) >= _VALUES):
                values = None
                del found.values[name]
            else:
                known = values.get(written)
                row = chunk.rows[cells.index(cell)] if known is None else known[1]
                values[written] = (times + (known[0] if known else 0), row)
    gathered = found.lists.get(name)
    if gathered is not None:
        for row, cell in zip(chunk.rows, cells, strict=True):
            gathered.setdefault(_hashable(cell), row)
        if len(gathered) > DIFFERENT:
            del found.lists[name]


def _different(cells: list[Any]) -> Iterable[tuple[Any, int]]:
    """Distinct cells and their counts; if a cell is a list or dict, every cell with a count of 1."""
    try:
        return Counter(cells).items()
    except TypeError:
        return [(cell, 1) for cell in cells]


def _hashable(cell: Any) -> Any:
    if isinstance(cell, list):
        # Structures inside a list are reported later, with their row; here only the labels matter.
        return tuple(part for part in cell if not isinstance(part, list | dict))
    return None if isinstance(cell, dict) else cell
