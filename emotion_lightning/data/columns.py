"""Chooses the columns of texts, ids and labels, after a first pass over the whole table."""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data import labels
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import binary, is_blank, is_odd, shown, split_labels
from emotion_lightning.data.rows import Chunk, Problems, Source
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_NEARLY_ALL = 0.8
LIST_COLUMNS = ("labels", "label", "emotions", "emotion")
"""Usual names of a column that holds all labels of a row."""

_SEPARATORS = "|;,"
_ROW_NUMBERS = re.compile(r"Unnamed: \d+$|__index_level_\d+__$")
"""Names that pandas gives to a column of row numbers."""

_DIFFERENT = 100_000
"""A column with more different cells than this is not a column of labels."""

_REMARKS = 3
"""Maximum number of remarks that are logged; more would hide other messages."""

_LONGEST = 20
"""Longer cells are not tested for 0 or 1: to test long texts would take most of the time."""


@dataclass
class Survey:
    """Result of the first pass over a source.

    Attributes:
        names: column names, in order.
        rows: number of rows.
        binary: number of cells that are 0 or 1, by column.
        blank: number of empty cells, by column.
        lists: for each column that may hold all labels of a row, its different cells (lists as tuples) and the first
            row that has each of them.
        first: the first cell of each column that is not empty, for messages.
    """

    names: list[str] = field(default_factory=list)
    rows: int = 0
    binary: Counter[str] = field(default_factory=Counter)
    blank: Counter[str] = field(default_factory=Counter)
    lists: dict[str, dict[Any, int]] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)

    def looks_binary(self, name: str) -> bool:
        """Whether nearly all cells of a column are 0 or 1, so that any other cell is a mistake."""
        return self.binary[name] >= _NEARLY_ALL * self.rows

    def is_blank(self, name: str) -> bool:
        """Whether a column is missing or empty in all rows."""
        return name not in self.names or self.blank[name] == self.rows


@dataclass
class Columns:
    """Columns of texts, ids and labels, and the label names in order."""

    text: str
    id: str | None
    labels: list[str]
    labels_column: str | None
    separator: str
    multi_hot: bool = False
    """Whether the lists of `labels_column` hold a 0 or 1 for each label."""


def survey(source: Source, problems: Problems, *, labels_column: str | None = None) -> Survey:
    """Read a source for the first time and count what its columns hold.

    Args:
        source: source to read.
        problems: collects rows of a wrong shape.
        labels_column: the column that holds all labels of a row; None considers those with a usual name.
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
    for cell, times in _different(cells):
        if is_blank(cell) or cell == []:
            found.blank[name] += times
        else:
            found.first.setdefault(name, cell)
            if not (isinstance(cell, str) and len(cell) > _LONGEST) and binary(cell) is not None:
                found.binary[name] += times
    gathered = found.lists.get(name)
    if gathered is not None:
        for row, cell in zip(chunk.rows, cells, strict=True):
            gathered.setdefault(_hashable(cell), row)
        if len(gathered) > _DIFFERENT:
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


def normalised(settings: Any) -> Any:
    """Normalise the names of columns and labels in table settings, as the readers do with names in files."""
    one = {name: getattr(settings, name, None) for name in ("text", "id_column", "labels_column")}
    changed: dict[str, Any] = {name: labels.normalised(value) for name, value in one.items() if value}
    if getattr(settings, "labels", None):
        changed["labels"] = [labels.normalised(name) for name in settings.labels]
    return dataclasses.replace(settings, **changed)


def find_columns(source: Source, settings: config.Table, seen: Survey) -> Columns:
    """Choose the columns by the settings and, where these leave a choice, by the survey of the first source.

    Raises:
        UserError: a column of the settings does not exist, or no column of labels is found.
    """
    path, names = source.path, seen.names
    if settings.separator == "":
        raise UserError("data.separator is empty; give what stands between labels, such as data.separator=,")
    text = files.text_column(path, names, settings.text)
    identifier = files.id_column(path, names, settings.id_column, text=text)
    others = [name for name in names if name not in (text, identifier) and not _ROW_NUMBERS.match(name)]
    if settings.labels_column is not None:
        if settings.labels_column not in names:
            meant = files.near(settings.labels_column, names)
            raise UserError(
                f"{path} has no column {settings.labels_column}; its columns are {files.listed(names)}. "
                f"Name the one with the labels: data.labels_column={meant or '…'}"
            )
        if settings.labels_column in (settings.labels or []):
            raise UserError(
                f"data.labels_column={settings.labels_column} is one of data.labels={settings.labels}: for columns of "
                "zeros and ones leave data.labels_column out."
            )
        return _list_column(source, settings, seen, settings.labels_column, text, identifier)
    if settings.labels is not None:
        absent = [name for name in settings.labels if name not in names]
        if not absent:
            return Columns(text, identifier, list(settings.labels), None, "")
        if len(absent) == len(settings.labels) and (column := _usual_list(seen, others)):
            return _list_column(source, settings, seen, column, text, identifier)
        raise UserError(
            f"{path} has no column {', '.join(absent)} (data.labels); its columns are {files.listed(names)}."
        )
    binaries = [name for name in others if seen.looks_binary(name)]
    aside = [name for name in others if name not in binaries]
    if not binaries:
        if column := _usual_list(seen, others):
            return _list_column(source, settings, seen, column, text, identifier)
        raise UserError(
            f"{path} has no column of zeros and ones to take as a label; its columns are {files.listed(names)}"
            f"{_what_they_hold(seen, others)}. "
            "Name label columns with data.labels=[…], or one column that lists them with data.labels_column=…"
        )
    log.info("Labels in %s: %s.", path, files.listed(binaries))
    if aside:
        log.info("Columns of %s left aside: %s.", path, files.listed(aside))
    for name in aside:
        if seen.binary[name] >= seen.rows / 4:
            log.warning(
                "%s, column %s: %.0f %% of the cells are 0 or 1, too few to take it for a label; name it in "
                "data.labels to hear of the others.", path, name, 100 * seen.binary[name] / seen.rows,
            )  # fmt: skip
    return Columns(text, identifier, binaries, None, "")


def _usual_list(seen: Survey, others: list[str]) -> str | None:
    """The first column with a usual name for all labels of a row, unless it holds zeros and ones; otherwise None."""
    return next((name for name in others if name in seen.lists and not seen.looks_binary(name)), None)


def _what_they_hold(seen: Survey, names: list[str]) -> str:
    held = [f"{name} {shown(seen.first[name])}" for name in names[:5] if name in seen.first]
    return f" ({', '.join(held)} …)" if held else ""


def _list_column(
    source: Source, settings: config.Table, seen: Survey, column: str, text: str, identifier: str | None
) -> Columns:
    path = source.path
    given = settings.labels or [labels.normalised(name) for name in source.class_names.get(column, [])] or None
    if column not in seen.lists:
        raise UserError(
            f"{path}, column {column}: more than {_DIFFERENT:,} different cells; that is no column of labels. Name the "
            "one that is: data.labels_column=…"
        )
    cells = seen.lists[column]
    separator = settings.separator or _separator(cells)
    parts = {cell: _parts(cell, separator) for cell in cells}
    found = {part for names in parts.values() for part in names}
    if not found:
        raise UserError(f"{path}, column {column}: no row has a label.")
    if found <= {"0", "1"} and _of_one_length(parts.values()):
        return _multi_hot(path, given, column, parts, Columns(text, identifier, [], column, separator))
    if given is not None:
        return Columns(text, identifier, list(given), column, separator)
    for cell, names in parts.items():
        odd = next((name for name in names if is_odd(name) or _holds_others(name, found, separator)), None)
        if odd is not None:
            raise UserError(
                f"{path}, row {cells[cell]}, column {column}: {shown(cell)} gives the label {shown(odd)}; write labels "
                "as joy|love, name what stands between them (data.separator=…), or name all labels (data.labels=[…])."
            )
    names = sorted(found, key=int) if all(part.isdecimal() for part in found) else sorted(found)
    # This log shows at once if cells that contain a separator were read as single names.
    log.info("Labels in %s, column %s, separated by %r: %s.", path, column, separator, files.listed(names))
    return Columns(text, identifier, names, column, separator)


def _parts(cell: Any, separator: str) -> list[str]:
    try:
        return split_labels(cell, separator)
    except ValueError:
        return []  # reported with its row when the rows are read


def _separator(cells: Iterable[Any]) -> str:
    written = [cell for cell in cells if isinstance(cell, str)]
    return next((mark for mark in _SEPARATORS if any(mark in cell and cell[0] not in "[({" for cell in written)), ",")


def _holds_others(name: str, found: set[str], separator: str) -> bool:
    """Whether a name consists of several of the others, joined by another separator."""
    for mark in _SEPARATORS.replace(separator, ""):
        parts = [part.strip() for part in name.split(mark)]
        if len(parts) > 1 and all(part in found for part in parts):
            return True
    return False


def _of_one_length(rows: Iterable[list[str]]) -> bool:
    """Whether all lists have one length of two or more: if 0 and 1 were label ids, every row would have both."""
    lengths = {len(names) for names in rows if names}
    return len(lengths) == 1 and lengths != {1}


def _multi_hot(
    path: Path, given: list[str] | None, column: str, parts: dict[Any, list[str]], columns: Columns
) -> Columns:
    length = max(map(len, parts.values()))
    if given is None or len(given) != length:
        named = "" if given is None else f", and there are {len(given)} names"
        raise UserError(
            f"{path}, column {column}: lists of {length} zeros and ones{named}; name the {length} labels in their "
            "order: data.labels=[…]"
        )
    return dataclasses.replace(columns, labels=list(given), multi_hot=True)


def unlabelled(seen: Survey, columns: Columns) -> bool:
    """Whether all label cells are empty, as in a test file whose labels are not published."""
    if columns.labels_column is not None:
        return seen.is_blank(columns.labels_column)
    return all(seen.is_blank(name) for name in columns.labels)
