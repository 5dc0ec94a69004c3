"""Recognises a table whose first line is data, so that no row is taken for the names of the columns."""

import re
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path

from emotion_lightning.data.formats.encoding import decoded, wrong_bytes
from emotion_lightning.errors import UserError

_NUMBERS = re.compile(r"[-+\d.,; ]*\d[-+\d.,; ]*")
_IDS = re.compile(r"\s*\d{1,3}(\s*[,;|]\s*\d{1,3})*\s*")
"""Numbers of labels."""

_FEW = 3
"""With fewer rows below it, nothing can be said about the first line."""

_WORDS = 3
"""A cell with more words than this is a text, not a name of a column."""


def check_header(
    path: Path, rows: Sequence[Sequence[str]], *, usual: Container[str], encoding: str | None = None
) -> None:
    """Raise UserError if the first row looks like data; the message has the setting that reads the file.

    Args:
        path: the file, for the message.
        rows: the first rows of the file.
        usual: usual names of columns, in lower case.
        encoding: encoding in which the file was read; None means UTF-8.
    """
    if len(rows) <= _FEW:
        return
    first, *others = rows
    width = len(first)
    columns = list(zip(*(cells for cells in others if len(cells) == width), strict=True))
    if len(columns) != width or not looks_like_data(first, columns, usual=usual):
        return
    names = _guessed(first, columns)
    setting = f"data.header=none data.columns=[{','.join(names)}]"
    wrong = next((cell for cells in rows for cell in cells if not decoded(cell)), None)
    if wrong is not None:
        number = next(number for number, cells in enumerate(rows, 1) if wrong in cells)
        found = wrong_bytes(path, encoding, wrong, f"line {number}")
        raise UserError(
            f"{found} Its first line looks like data, too, not like names of columns: add {setting}",
            ways=[way | {"header": "none", "columns": names} for way in found.ways],
        )
    shown = ", ".join(repr(cell if len(cell) <= 40 else f"{cell[:39]}…") for cell in first[:5])
    raise UserError(
        f"{path}: its first line looks like data, not like names of columns ({shown}). If the file has no header line, "
        f"{setting} reads it; name the columns as they are.{_ids(names, rows)} data.header=first takes the line as "
        "names all the same.",
        ways=[{"header": "none", "columns": names}],
    )


def _ids(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A sentence about labels that are numbers; empty if they are not."""
    if "label" not in names:
        return ""
    place = names.index("label")
    cells = [cells[place] for cells in rows if len(cells) == len(names) and cells[place].strip()]
    if not all(_IDS.fullmatch(cell) for cell in cells):
        return ""
    lowest = min(int(part) for cell in cells for part in re.findall(r"\d+", cell))
    first = f" data.first_id={lowest}" if lowest == 1 else ""
    return f" Its labels are numbers: data.labels=[…]{first} names them in their order."


def looks_like_data(first: Sequence[str], columns: Sequence[Sequence[str]], *, usual: Container[str]) -> bool:
    """Whether the first row is data like the rows below it.

    It is if a cell occurs again below it in a column of few different values, or is a number above numbers. Numbers
    that count the columns from 0 are names that pandas gives.

    Args:
        first: the first row.
        columns: the cells below it, by column.
        usual: usual names of columns, in lower case.
    """
    named = [cell.strip() for cell in first if cell.strip()]
    numbers = [cell for cell in named if cell.isdecimal()]
    counted = numbers == [str(number) for number in range(len(numbers))]
    if counted and (len(numbers) > 1 or (numbers and numbers == named)):
        return False
    return any(_is_value(cell.strip(), cells, usual=usual) for cell, cells in zip(first, columns, strict=True))


def _is_value(name: str, cells: Sequence[str], *, usual: Container[str]) -> bool:
    if not name or name.lower() in usual:
        return False
    counts = Counter(cell.strip() for cell in cells if cell.strip())
    if len(counts) > 1 and counts[name] and 2 * len(counts) <= len(cells):
        return True
    return bool(_NUMBERS.fullmatch(name)) and bool(counts) and all(_NUMBERS.fullmatch(cell) for cell in counts)


def _guessed(first: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """Likely names of the columns, for an example: text has most words, a column of few values holds the labels."""
    whole = [[name, *cells] for name, cells in zip(first, columns, strict=True)]
    words = [sum(cell.count(" ") for cell in cells) for cells in whole]
    names = [f"column_{number}" for number in range(1, len(first) + 1)]
    names[words.index(max(words))] = "text"
    for position, cells in enumerate(whole):
        filled = [cell for cell in cells if cell.strip()]
        different = set(filled)
        if names[position] == "text" or not filled:
            continue
        if different <= {"0", "1"}:
            names[position] = f"label_{position + 1}"
        elif "label" not in names and 1 < len(different) <= len(filled) / 2:
            names[position] = "label"
        elif "id" not in names and len(different) == len(cells) and not any(" " in cell for cell in filled):
            names[position] = "id"
    return names
