"""Chooses the columns of texts, ids and labels, after a first pass over the whole table."""

import dataclasses
import logging
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data import kinds, labels
from emotion_lightning.data.formats import files, nested
from emotion_lightning.data.formats.cells import PLAIN, LabelCells, binary, is_odd, number, shown, split_labels
from emotion_lightning.data.rows import Source
from emotion_lightning.data.survey import DIFFERENT, Survey
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_SEPARATORS = "|;,"
ROW_NUMBERS = re.compile(r"Unnamed: \d+$|__index_level_\d+__$")
"""Names that pandas gives to a column of row numbers."""


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
    cells: LabelCells = PLAIN
    """How cells of label columns are read as 0 or 1."""
    first_id: int = 0
    """Number of the first label in `labels_column`, where it holds ids."""
    aside: list[str] = field(default_factory=list)
    """Columns that are not used."""
    by_id: bool = False
    """Whether `labels_column` holds numbers of labels instead of names."""
    flags: list[str] = field(default_factory=list)
    """Columns of zeros and ones that are not labels."""
    group: str | None = None
    """Column whose rows with the same value stay in one split."""
    annotator: str | None = None
    """Column that says who labelled a row, if rows of annotators are joined."""
    annotators: str | None = None
    """Column with the number of annotators of a row, if cells count them."""
    present: float | None = None
    """The share from which on a label is present; None: cells are 0 and 1."""
    carried: list[str] = field(default_factory=list)
    """Columns for whose values scores are also told."""


def normalised(settings: Any) -> Any:
    """Normalise the names of columns and labels in table settings, as the readers do with names in files."""
    places = ("text", "id_column", "labels_column", "group_column", "conversation", "turn", "annotator",
              "annotators_column")  # fmt: skip
    one = {name: getattr(settings, name, None) for name in places}
    changed: dict[str, Any] = {name: labels.normalised(value) for name, value in one.items() if value}
    for several in ("labels", "context_columns", "groups"):
        if getattr(settings, several, None):
            changed[several] = [labels.normalised(name) for name in getattr(settings, several)]
    return dataclasses.replace(settings, **changed)


def find_columns(
    source: Source,
    settings: config.Table,
    seen: Survey,
    *,
    every: Survey | None = None,
    known: Set[str] = frozenset(),
    used: Set[str | None] = frozenset(),
) -> Columns:
    """Choose the columns by the settings and, where these leave a choice, by the survey of the first source.

    Args:
        source: the first source.
        settings: table settings.
        seen: survey of the first source.
        every: survey of all sources together, which says whether a column is constant and from where ids count.
        known: names of labels that a model has already; such a column is a label whatever it holds.
        used: columns that are used for something else.

    Raises:
        UserError: a column of the settings does not exist, or no column of labels is found.
    """
    path, names = source.path, seen.names
    if settings.separator == "":
        raise UserError("data.separator is empty; give what stands between labels, such as data.separator=,")
    text, identifier = texts_and_ids(path, seen, settings.text, settings.id_column)
    taken = {text, identifier, *used}
    others = [name for name in names if name not in taken and not ROW_NUMBERS.match(name)]
    no_ids = [name for name in _no_ids(seen) if name in others]
    table = _Table(source, settings, seen, every or seen, known, text, identifier, others, no_ids)
    found = _chosen(table)
    chosen = [found.labels_column] if found.labels_column is not None else found.labels
    aside = [name for name in others if name not in chosen]
    if aside:
        log.info("Columns of %s left aside: %s.", path, files.listed(aside))
    return dataclasses.replace(found, cells=seen.cells, aside=aside)


def texts_and_ids(path: Path, seen: Survey, text: str | None, identifier: str | None) -> tuple[str, str | None]:
    """The columns of texts and of ids; None for ids means that rows are numbered.

    A column with a usual name that holds only zeros and ones is neither, but a label with that name, where there is
    another column of texts, or where the zeros and ones cannot identify rows.

    Args:
        path: the file, for messages.
        seen: its survey.
        text: name that the user gave for the column of texts.
        identifier: name that the user gave for the column of ids.

    Raises:
        UserError: there is no such column.
    """
    found = files.text_column(path, seen.names, text, inside=nested.leaves(seen.first))
    if text is None and _all_binary(seen, found):
        others = [name for name in seen.names if name.lower() in files.TEXT_COLUMNS and not _all_binary(seen, name)]
        if others:
            log.warning("%s, column %s: holds only 0 and 1, so it is a label; texts are in %s.", path, found, others[0])
            found = files.text_column(path, others, None)
    names = seen.names
    if identifier is None and (no_ids := _no_ids(seen)):
        log.warning(
            "%s, column %s: holds only 0 and 1, which repeat, so it is a label and not the id of a row; "
            "data.id_column names a column of ids.", path, files.listed(no_ids),
        )  # fmt: skip
        names = [name for name in names if name not in no_ids]
    return found, files.id_column(path, names, identifier, text=found)


def _no_ids(seen: Survey) -> list[str]:
    """Columns with a usual name for ids that cannot identify rows, because they hold zeros and ones."""
    return [
        name for name in seen.names if seen.rows > 2 and name.lower() in files.ID_COLUMNS and _all_binary(seen, name)
    ]


def _all_binary(seen: Survey, name: str) -> bool:
    """Whether every cell of a column is 0 or 1, and not just a number that the settings read as a label."""
    if seen.rows == 0 or seen.binary[name] < seen.rows:
        return False
    if not seen.cells.soft and seen.cells.present_from is None:
        return True
    return name in seen.values and all(binary(value) is not None for value in seen.values[name])


@dataclass
class _Table:
    """What is known of the first source when its label columns are chosen; see `find_columns`."""

    source: Source
    settings: config.Table
    seen: Survey
    every: Survey
    known: Set[str]
    text: str
    identifier: str | None
    others: list[str]
    """Columns that hold neither texts nor ids."""
    no_ids: list[str]
    """Those with a usual name of an id column that hold zeros and ones, and are therefore labels."""

    def columns(self, names: list[str]) -> Columns:
        """These columns of zeros and ones as the labels."""
        return Columns(self.text, self.identifier, names, None, "")


def _chosen(table: _Table) -> Columns:
    settings, path, names = table.settings, table.source.path, table.seen.names
    if settings.labels_column is not None:
        if settings.labels_column not in names:
            meant = files.near(settings.labels_column, names)
            raise UserError(
                f"{path} has no column {settings.labels_column}; its columns are {files.listed(names)}. "
                f"Name the one with the labels: data.labels_column={meant or '…'}",
                ways=[{"labels_column": meant}] if meant else [],
            )
        if settings.labels_column in (settings.labels or []):
            raise UserError(
                f"data.labels_column={settings.labels_column} is one of data.labels={settings.labels}: for columns of "
                "zeros and ones leave data.labels_column out."
            )
        return _list_column(table, settings.labels_column)
    if settings.labels is None:
        return _recognised(table)
    absent = [name for name in settings.labels if name not in names]
    if not absent:
        kinds.check_kinds(path, table.seen, settings.labels)
        return table.columns(list(settings.labels))
    if len(absent) == len(settings.labels) and (column := _usual_list(table.seen, table.others)):
        return _list_column(table, column)
    raise UserError(f"{path} has no column {', '.join(absent)} (data.labels); its columns are {files.listed(names)}.")


def _recognised(table: _Table) -> Columns:
    """Choose the label columns where no setting names them."""
    path, seen, others = table.source.path, table.seen, table.others
    zeros_and_ones = [name for name in others if seen.looks_binary(name)]
    flags = [
        name
        for name in zeros_and_ones
        if name not in table.known
        and (table.every.is_constant(name) or (kinds.is_administrative(name) and name not in table.no_ids))
    ]
    binaries = [name for name in zeros_and_ones if name not in flags]
    column = _usual_list(seen, others)
    if column is not None:
        _refuse_answers(table, column)
    if column is not None and not (binaries and _says_the_same(seen, column, binaries)):
        if binaries:
            raise UserError(
                f"{path} can be read in two ways: the column {column} holds labels such as "
                f"{files.listed(_some_labels(seen, column)[:5])}, and {files.listed(binaries)} hold{_s(binaries)} 0 "
                f"and 1. Choose one: data.labels_column={column} or data.labels=[{','.join(binaries)}]",
                ways=[{"labels_column": column}, {"labels": binaries}],
            )
        _log_flags(path, flags)
        return _list_column(table, column)
    aside = [name for name in others if name not in zeros_and_ones]
    if not binaries:
        kinds.check_no_regression(path, table.every, others)
        kinds.check_unread(path, seen, others)
        flagged = f" {_why_flags(flags)}" if flags else ""
        if empty := [name for name in others if seen.is_blank(name)]:
            flagged += (
                f" {files.listed(empty)} {'is' if len(empty) == 1 else 'are'} empty in every row: a file without "
                "labels can be a test split (data.test=) or be labelled by predict."
            )
        named = f"data.labels=[{','.join(flags or ['…'])}]"
        raise UserError(
            f"{path} has no column of zeros and ones to take as a label; its columns are {files.listed(seen.names)}"
            f"{_what_they_hold(seen, others)}.{flagged} "
            f"Name label columns with {named}, or one column that lists them with data.labels_column=…"
        )
    _log_flags(path, flags)
    kinds.check_kinds(path, seen, [*binaries, *kinds.half_binary(seen, aside)])
    log.info("Labels in %s: %s.", path, files.listed(binaries))
    for name in aside:
        if seen.binary[name] >= seen.rows / 4 and not kinds.is_administrative(name):
            log.warning(
                "%s, column %s: %.0f %% of the cells are 0 or 1, too few to take it for a label; name it in "
                "data.labels to hear of the others.", path, name, 100 * seen.binary[name] / seen.rows,
            )  # fmt: skip
    return dataclasses.replace(table.columns(binaries), flags=flags)


def _usual_list(seen: Survey, others: list[str]) -> str | None:
    """The first column with a usual name for all labels of a row, unless it holds zeros and ones; otherwise None."""
    return next(
        (
            name
            for name in others
            if name in seen.lists
            and not seen.looks_binary(name)
            and not seen.is_blank(name)
            and not _measures(seen, name)
        ),
        None,
    )


def _measures(seen: Survey, name: str) -> bool:
    """Whether a column holds numbers that are no ids, such as the strength of an emotion."""
    return any("." in str(cell) and (number(cell) or 0.0) % 1 for cell in seen.lists[name])


def _says_the_same(seen: Survey, column: str, binaries: list[str]) -> bool:
    """Whether a column lists what columns of zeros and ones say too, so that there is nothing to choose."""
    found = {part.casefold() for part in _some_labels(seen, column)}
    if all(part.isdecimal() for part in found):
        return len(binaries) > 1 and all(int(part) <= len(binaries) for part in found)
    return found <= {name.casefold() for name in binaries}


def _some_labels(seen: Survey, column: str) -> list[str]:
    """The labels in a column, in the order of the rows."""
    cells = seen.lists[column]
    separator = _separator(cells)
    return list(dict.fromkeys(part for cell in cells for part in _parts(cell, separator)))


def _s(names: list[str]) -> str:
    return "s" if len(names) == 1 else ""


def _why_flags(flags: list[str]) -> str:
    return (
        f"{files.listed(flags)} hold{_s(flags)} 0 and 1, but by name or because every row has the same value "
        f"{'it is' if len(flags) == 1 else 'they are'} not taken as label{'' if len(flags) == 1 else 's'}."
    )


def _log_flags(path: Path, flags: list[str]) -> None:
    if flags:
        log.warning("%s: %s To use them, name all labels in data.labels.", path, _why_flags(flags))


def _what_they_hold(seen: Survey, names: list[str]) -> str:
    held = [f"{name} {shown(seen.first[name])}" for name in names[:5] if name in seen.first]
    return f" ({', '.join(held)} …)" if held else ""


def _refuse_answers(table: _Table, column: str) -> None:
    """Raise UserError if each row is about one label of a text, with a column for the answer of each annotator."""
    answers = kinds.answers(table.seen, table.others)
    if len(answers) > 1:
        raise UserError(
            f"{table.source.path}: {files.listed(answers)} hold what each annotator answered for the text and the "
            f"label in column {column}, so that column does not say which labels a text has. Such files are not read; "
            "write a row for each text and a column of zeros and ones for each label, such as the answer of most "
            "annotators."
        )


def _list_column(table: _Table, column: str) -> Columns:
    path, seen, settings = table.source.path, table.seen, table.settings
    _refuse_answers(table, column)
    class_names = [labels.normalised(name) for name in table.source.class_names.get(column, [])]
    given = settings.labels or class_names or None
    if column not in seen.lists:
        raise UserError(
            f"{path}, column {column}: more than {DIFFERENT:,} different cells; that is no column of labels. Name the "
            "one that is: data.labels_column=…"
        )
    cells = seen.lists[column]
    separator = settings.separator or _separator(cells)
    parts = {cell: _parts(cell, separator) for cell in cells}
    found = {part for names in parts.values() for part in names}
    if not found:
        raise UserError(f"{path}, column {column}: no row has a label.")
    columns = Columns(table.text, table.identifier, [], column, separator)
    if found <= {"0", "1"} and _of_one_length(parts.values()):
        return _multi_hot(path, given, column, parts, columns)
    if given is not None:
        by_id = all(part.isdecimal() for part in found) and not any(name.isdecimal() for name in given)
        first_id = _first_id(table, column, given) if by_id and settings.labels else 0
        return dataclasses.replace(columns, labels=list(given), first_id=first_id, by_id=by_id)
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
    return dataclasses.replace(columns, labels=names)


def _first_id(table: _Table, column: str, names: list[str]) -> int:
    """Number of the first label, where a column holds ids of labels.

    Raises:
        UserError: the ids do not show whether they count from 0, and no setting says it.
    """
    if table.settings.first_id is not None:
        return table.settings.first_id
    cells = table.every.lists.get(column, table.seen.lists[column])
    ids = {int(part) for part in _some_labels(table.every, column) if part.isdecimal()}
    if 0 in ids:
        return 0
    lowest = min(ids)
    example = next((cell, row) for cell, row in cells.items() if str(lowest) in _parts(cell, _separator(cells)))
    meanings = [
        f"data.first_id={first} reads the {lowest} in row {example[1]} as {names[lowest - first]}"
        for first in (1, 0)
        if lowest - first < len(names) and max(ids) - first < len(names)
    ]
    if not meanings:
        return 0  # ids beyond the names are reported with their rows
    raise UserError(
        f"{table.source.path}, column {column}: the ids are {lowest} to {max(ids)} and none is 0, so they may count "
        f"from 1 or from 0. Say which it is: {', '.join(meanings)}.",
        ways=[{"first_id": first} for first in (1, 0) if lowest - first < len(names) and max(ids) - first < len(names)],
    )


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
