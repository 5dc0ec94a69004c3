"""Which column of a table is what: a first reading of the whole, then a decision."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data import files
from emotion_lightning.data.cells import binary, is_blank, is_written_list, split_labels
from emotion_lightning.data.rows import Problems, Source
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_NEARLY_ALL = 0.8
_LIST_COLUMNS = ("labels", "label", "emotions", "emotion")
_SEPARATORS = "|;,"
_DIFFERENT = 100_000
"""A column with more different cells than this is no column of labels."""

_LONGEST = 20
"""Letters of a cell that may say 0 or 1; to look closer at long texts would take most of the time."""


@dataclass
class Survey:
    """What a first reading of a source found.

    Attributes:
        names: of the columns, in their order.
        rows: how many there are.
        binary: cells that say 0 or 1, by column.
        blank: cells that say nothing, by column.
        lists: the different cells of columns that may hold a row's labels; lists as tuples.
    """

    names: list[str] = field(default_factory=list)
    rows: int = 0
    binary: Counter[str] = field(default_factory=Counter)
    blank: Counter[str] = field(default_factory=Counter)
    lists: dict[str, set[Any]] = field(default_factory=dict)

    def looks_binary(self, name: str) -> bool:
        """Whether nearly all cells of a column are 0 or 1, so that one that is not is a mistake."""
        return self.binary[name] >= _NEARLY_ALL * self.rows

    def is_blank(self, name: str) -> bool:
        """Whether no row says anything in a column."""
        return name not in self.names or self.blank[name] == self.rows


@dataclass
class Columns:
    """Which column plays which part, and the label names in their order."""

    text: str
    id: str | None
    labels: list[str]
    labels_column: str | None
    separator: str


def survey(source: Source, problems: Problems, *, labels_column: str | None = None) -> Survey:
    """Read a source for the first time.

    Args:
        source: what is read.
        problems: takes rows of a wrong shape.
        labels_column: a column that holds all labels of a row, besides those with the usual names.
    """
    found = Survey()
    candidates = {labels_column} if labels_column else set()
    for chunk in source.chunks(problems):
        # A jsonl row may lack a key that others have.
        for name in chunk.columns:
            if name not in found.binary:
                found.names.append(name)
                found.binary[name] = 0
                found.blank[name] = found.rows
                if name in candidates or (not labels_column and name.lower() in _LIST_COLUMNS):
                    found.lists[name] = set()
        found.rows += len(chunk.rows)
        for name in found.names:
            _count(found, name, chunk.column(name))
    return found


def _count(found: Survey, name: str, cells: list[Any]) -> None:
    for cell, times in _different(cells):
        if is_blank(cell):
            found.blank[name] += times
        elif not (isinstance(cell, str) and len(cell) > _LONGEST) and binary(cell) is not None:
            found.binary[name] += times
    gathered = found.lists.get(name)
    if gathered is not None:
        gathered.update(tuple(cell) if isinstance(cell, list) else cell for cell in _hashable(cells))
        if len(gathered) > _DIFFERENT:
            del found.lists[name]


def _different(cells: list[Any]) -> Iterable[tuple[Any, int]]:
    """Cells that differ, with how often each stands there; structures one by one."""
    try:
        return Counter(cells).items()
    except TypeError:
        return [(cell, 1) for cell in cells]


def _hashable(cells: list[Any]) -> Iterable[Any]:
    return (cell for cell in cells if not isinstance(cell, dict) and not _holds_structures(cell))


def _holds_structures(cell: Any) -> bool:
    return isinstance(cell, list) and any(isinstance(part, list | dict) for part in cell)


def find_columns(path: Path, settings: config.Table, seen: Survey) -> Columns:
    """Decide the columns from the settings and, for what they leave open, from the survey of the first file."""
    names = seen.names
    if settings.separator == "":
        raise UserError("data.separator is empty; give what stands between labels, such as data.separator=,")
    text = files.text_column(path, names, settings.text)
    identifier = files.id_column(path, [name for name in names if name != text], settings.id_column)
    others = [name for name in names if name not in (text, identifier)]
    if settings.labels_column is not None:
        if settings.labels_column not in names:
            meant = files.near(settings.labels_column, names)
            raise UserError(
                f"{path} has no column {settings.labels_column}; its columns are {files.listed(names)}. "
                f"Name the one with the labels: data.labels_column={meant or '…'}"
            )
        return _list_column(path, settings, seen, settings.labels_column, text, identifier)
    if settings.labels is not None:
        absent = [name for name in settings.labels if name not in names]
        if not absent:
            return Columns(text, identifier, list(settings.labels), None, "")
        if len(absent) == len(settings.labels) and (column := _usual_list(seen, others)):
            return _list_column(path, settings, seen, column, text, identifier)
        raise UserError(
            f"{path} has no column {', '.join(absent)} (data.labels); its columns are {files.listed(names)}."
        )
    binaries = [name for name in others if seen.looks_binary(name)]
    aside = [name for name in others if name not in binaries]
    if not binaries:
        if column := _usual_list(seen, others):
            return _list_column(path, settings, seen, column, text, identifier)
        raise UserError(
            f"{path} has no column of zeros and ones to take as a label; its columns are {files.listed(names)}. "
            "Name label columns with data.labels=[…], or one column that lists them with data.labels_column=…"
        )
    log.info("Labels in %s: %s.", path, ", ".join(binaries))
    if aside:
        log.info("Columns of %s left aside: %s.", path, ", ".join(aside))
    return Columns(text, identifier, binaries, None, "")


def _usual_list(seen: Survey, others: list[str]) -> str | None:
    """A column with a usual name for a row's labels; none of zeros and ones."""
    return next((name for name in others if name in seen.lists and not seen.looks_binary(name)), None)


def _list_column(
    path: Path, settings: config.Table, seen: Survey, column: str, text: str, identifier: str | None
) -> Columns:
    if column not in seen.lists:
        raise UserError(
            f"{path}, column {column}: more than {_DIFFERENT:,} different cells; that is no column of labels. Name the "
            "one that is: data.labels_column=…"
        )
    cells = seen.lists[column]
    separator = settings.separator or _separator(cells)
    found = {part for cell in cells for part in split_labels(cell, separator)}
    if not found:
        raise UserError(f"{path}, column {column}: no row has a label.")
    if settings.labels is not None:
        return Columns(text, identifier, list(settings.labels), column, separator)
    names = sorted(found, key=int) if all(part.isdecimal() for part in found) else sorted(found)
    # Cells that were read as one name each, though a separator stands in them, show at once here.
    log.info("Labels in %s, column %s, separated by %r: %s.", path, column, separator, files.listed(names))
    return Columns(text, identifier, names, column, separator)


def _separator(cells: set[Any]) -> str:
    written = [cell for cell in cells if isinstance(cell, str) and not is_written_list(cell)]
    return next((mark for mark in _SEPARATORS if any(mark in cell for cell in written)), ",")


def unlabelled(seen: Survey, columns: Columns) -> bool:
    """Whether no row says anything of any label, as in a test file whose labels are held back."""
    if columns.labels_column is not None:
        return columns.labels_column not in seen.names
    return all(seen.is_blank(name) for name in columns.labels)
