"""From records to rows: which column is the text, which are labels, and what is wrong with the cells."""

import ast
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config, labels
from emotion_lightning.data import files
from emotion_lightning.data.files import Record
from emotion_lightning.data.rows import Problems, Rows
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}
_NEARLY_ALL = 0.8


@dataclass
class Columns:
    """Which column plays which part, and the label names in their order."""

    text: str
    id: str | None
    labels: list[str]
    labels_column: str | None
    separator: str


def binary(cell: Any) -> int | None:
    """0 or 1 for a cell that says so, as number, text or truth value; else None.

    >>> [binary(cell) for cell in (1, "0", True, "false", 1.0, "yes", 2, 0.5, "")]
    [1, 0, 1, 0, 1, None, None, None, None]
    """
    return _BINARY.get(str(cell).strip().lower())


def find_columns(path: Path, settings: config.Table, records: Sequence[Record]) -> Columns:
    """Decide the columns from the settings and, for what they leave open, from the first file's cells."""
    # A jsonl row may lack a key that others have.
    names = list(dict.fromkeys(name for _, record in records for name in record))
    if not settings.separator:
        raise UserError("data.separator is empty; give what stands between labels, such as data.separator=,")
    text = files.text_column(path, names, settings.text)
    identifier = files.id_column(path, [name for name in names if name != text], settings.id_column)
    if settings.labels_column is not None:
        if settings.labels_column not in names:
            raise UserError(
                f"{path} has no column {settings.labels_column}; its columns are {', '.join(names)}. "
                "Name the one with the labels: data.labels_column=…"
            )
        found = settings.labels or _label_names(path, records, settings)
        return Columns(text, identifier, found, settings.labels_column, settings.separator)
    if settings.labels is not None:
        absent = [name for name in settings.labels if name not in names]
        if absent:
            raise UserError(
                f"{path} has no column {', '.join(absent)} (data.labels); its columns are {', '.join(names)}."
            )
        return Columns(text, identifier, list(settings.labels), None, settings.separator)
    binaries: list[str] = []
    others: list[str] = []
    for name in names:
        if name not in (text, identifier):
            cells = [record.get(name) for _, record in records]
            share = sum(binary(cell) is not None for cell in cells) / len(cells)
            (binaries if share >= _NEARLY_ALL else others).append(name)
    if not binaries:
        raise UserError(
            f"{path} has no column of zeros and ones to take as a label; its columns are {', '.join(names)}. "
            "Name label columns with data.labels=[…], or one column that lists them with data.labels_column=…"
        )
    log.info("Labels in %s: %s.", path, ", ".join(binaries))
    if others:
        log.info("Columns of %s left aside: %s.", path, ", ".join(others))
    return Columns(text, identifier, binaries, None, settings.separator)


def unlabelled(records: Sequence[Record], columns: Columns) -> bool:
    """Whether no row says anything of any label, as in a test file whose labels are held back."""
    if columns.labels_column is not None:
        return not any(columns.labels_column in record for _, record in records)
    cells = (record.get(name) for _, record in records for name in columns.labels)
    return all(cell is None or str(cell).strip() == "" for cell in cells)


def rows(path: Path, records: Iterable[Record], columns: Columns, problems: Problems, *, labelled: bool = True) -> Rows:
    """The records as rows, without targets where they are not labelled; what is wrong goes to `problems`."""
    ids: list[str] = []
    texts: list[str] = []
    positions: list[list[int]] = []
    where = {name: position for position, name in enumerate(columns.labels)}
    if not any(name.isdecimal() for name in columns.labels):
        where |= {str(position): position for position in range(len(columns.labels))}  # ids of the names
    seen: dict[str, int] = {}
    for row, record in records:
        text = files.as_text(record.get(columns.text))
        if columns.text not in record or text is None:
            problems.add(path, "no text; a row needs one.", row=row, column=columns.text)
            text = ""
        elif not text.strip():
            problems.add(path, "the text is empty; remove the row or fill it in.", row=row, column=columns.text)
        identifier = files.as_text(record.get(columns.id)) if columns.id else str(row)
        if identifier is None or not identifier.strip():
            problems.add(path, "no id; each row needs one.", row=row, column=columns.id)
            identifier = ""
        elif identifier in seen:
            problems.add(
                path,
                f"the id {identifier} stands in row {seen[identifier]} already; name another column as data.id_column.",
                row=row,
                column=columns.id,
            )
        seen[identifier] = row
        if not labelled:
            pass
        elif columns.labels_column is None:
            positions.append(_from_cells(path, row, record, columns, problems))
        else:
            positions.append(_from_list(path, row, record.get(columns.labels_column), columns, where, problems))
        ids.append(identifier)
        texts.append(text)
    targets = labels.multi_hot(positions, count=len(columns.labels)) if labelled else None
    return Rows(ids, texts, targets, columns.id or "row")


def _from_cells(path: Path, row: int, record: dict[str, Any], columns: Columns, problems: Problems) -> list[int]:
    positions = []
    for position, name in enumerate(columns.labels):
        value = binary(record.get(name))
        if value is None:
            cell = record.get(name)
            found = "nothing" if cell is None or str(cell).strip() == "" else repr(cell)
            problems.add(path, f"{found} where 0 or 1 is due.", row=row, column=name)
        elif value:
            positions.append(position)
    return positions


def _from_list(
    path: Path, row: int, cell: Any, columns: Columns, where: dict[str, int], problems: Problems
) -> list[int]:
    positions = []
    for part in split_labels(cell, columns.separator):
        position = where.get(part)
        if position is None:
            problems.add(
                path,
                f"the label {part!r} is not one of {', '.join(columns.labels)}.",
                row=row,
                column=columns.labels_column,
            )
        else:
            positions.append(position)
    return positions


def split_labels(cell: Any, separator: str) -> list[str]:
    """Names or ids in a cell: a list, or text with a separator.

    >>> split_labels("joy | love", "|"), split_labels([3, 7], ","), split_labels(None, ",")
    (['joy', 'love'], ['3', '7'], [])
    """
    if cell is None:
        return []
    if isinstance(cell, str) and cell.strip().startswith("[") and cell.strip().endswith("]"):
        cell = _written_list(cell)
    parts = cell if isinstance(cell, list | tuple | np.ndarray) else str(cell).split(separator)
    return [str(part).strip() for part in parts if str(part).strip()]


def _written_list(cell: str) -> Any:
    """The list that pandas wrote into a csv cell as Python would print it; the cell itself where it is none."""
    try:
        parts = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return parts if isinstance(parts, list) else cell


def _label_names(path: Path, records: Sequence[Record], settings: config.Table) -> list[str]:
    found = {
        part
        for _, record in records
        for part in split_labels(record.get(str(settings.labels_column)), settings.separator)
    }
    if not found:
        raise UserError(f"{path}, column {settings.labels_column}: no row has a label.")
    names = sorted(found, key=int) if all(part.isdecimal() for part in found) else sorted(found)
    log.info("Labels in %s: %s.", path, ", ".join(names))
    return names
