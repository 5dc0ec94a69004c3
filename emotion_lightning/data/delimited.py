"""csv and tsv: cells as the text they are.

pandas and datasets read a text such as "NA" as missing, a semicolon file as one column and a numeric text as a number.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from emotion_lightning.data.encoding import Lines, decoded, open_text, wrong_bytes
from emotion_lightning.data.rows import Chunk, Problems
from emotion_lightning.errors import UserError

ROWS_AT_ONCE = 512

_DELIMITERS = ",;\t|"
_SAMPLE = 100

# Texts may be longer than the 128 KiB that the csv module takes by default.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Dialect:
    """How a file marks off its cells.

    Attributes:
        delimiter: between cells.
        quoted: cells may stand in quotes, quotes inside them doubled.
        escaped: quotes inside quoted cells are escaped by a backslash instead.
    """

    delimiter: str
    quoted: bool = True
    escaped: bool = False

    def rows(self, lines: Iterable[str]) -> Any:
        """A csv reader of the cells of each row; it raises csv.Error where quotes are wrong."""
        options: dict[str, Any] = {"delimiter": self.delimiter, "strict": True}
        if not self.quoted:
            options["quoting"] = csv.QUOTE_NONE
        if self.escaped:
            options |= {"doublequote": False, "escapechar": "\\"}
        return csv.reader(lines, **options)


def chunks(path: Path, problems: Problems, *, tabs: bool, encoding: str | None) -> Iterator[Chunk]:
    """The rows of a csv file (`tabs`: of a tsv file), as a `Source` gives them."""
    dialect = recognise(path, tabs=tabs, encoding=encoding)
    with open_text(path, encoding) as file:
        yield from _chunks(path, problems, dialect, Lines(file), encoding)


def _chunks(path: Path, problems: Problems, dialect: Dialect, lines: Lines, encoding: str | None) -> Iterator[Chunk]:
    reader = dialect.rows(iter(lines))
    row = 0
    numbers: list[int] = []
    table: list[list[str]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if lines.suspicious:
            _refuse_header(path, header, encoding)
        if not any(header):
            raise UserError(f"{path} has no header; its first line must name the columns.")
        refuse_repeated(path, [name for name in header if name])
        for cells in reader:
            if not cells:
                continue  # a blank line, as at the end of many files
            row += 1
            if lines.suspicious:
                lines.suspicious = False
                _check_bytes(path, problems, row, f"row {row}, line {reader.line_num}", header, cells, encoding)
            if len(cells) != len(header):
                problems.add(
                    path,
                    f"{len(cells)} cells under a header of {len(header)} columns (line {reader.line_num}); "
                    "quote texts that hold the delimiter.",
                    row=row,
                )
                continue
            numbers.append(row)
            table.append(cells)
            if len(table) == ROWS_AT_ONCE:
                yield _chunk(numbers, header, table)
                numbers, table = [], []
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error} (row {row + 1}); put quotes around the whole cell and double "
            "those inside it."
        ) from error
    if table:
        yield _chunk(numbers, header, table)


def _chunk(numbers: list[int], header: list[str], table: list[list[str]]) -> Chunk:
    # A column without a name is left aside: pandas writes its row numbers so.
    columns = zip(header, zip(*table, strict=True), strict=True)
    return Chunk(numbers, {name: list(cells) for name, cells in columns if name})


def refuse_repeated(path: Path, names: list[str]) -> None:
    """Raise UserError where two columns have one name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has more than one column named {', '.join(repeated)}; rename one.")


def _refuse_header(path: Path, header: list[str], encoding: str | None) -> None:
    if decoded("".join(header)):
        raise UserError(_nul(path, "its header", encoding))
    raise wrong_bytes(path, encoding, "".join(header), "its header")


def _nul(path: Path, place: str, encoding: str | None) -> str:
    wide = " or in UTF-16 (data.encoding=utf-16)" if encoding is None else ""
    return f"{path}, {place}: a NUL byte; the file is damaged, not a text file{wide}."


def _check_bytes(
    path: Path, problems: Problems, row: int, place: str, header: list[str], cells: list[str], encoding: str | None
) -> None:
    for position, cell in enumerate(cells):
        column = f", column {header[position]}" if position < len(header) else ""
        if not decoded(cell):
            # The whole file is of another encoding: more of the same would hide what else is wrong.
            raise wrong_bytes(path, encoding, cell, place + column)
        if "\0" in cell:
            problems.note(path, _nul(path, place + column, encoding), row=row)


# --------------------------------------------------------------------------------------------------- recognising


def recognise(path: Path, *, tabs: bool, encoding: str | None) -> Dialect:
    """How a file marks off its cells, seen from the file itself.

    The standard is quoted cells with doubled quotes. MySQL and Spark write backslashes instead, and many tab-separated
    files do not quote at all: a tweet that begins with a quote would then swallow the rows behind it.
    """
    with open_text(path, encoding) as file:
        delimiter = "\t" if tabs else _delimiter(list(islice(file, _SAMPLE)))
    standard = Dialect(delimiter)
    escaped = Dialect(delimiter, escaped=True)
    if delimiter == "\t" and _holds(path, encoding, '"'):
        bare = Dialect(delimiter, quoted=False)
        lines = _aligned(path, encoding, bare, least=2)
        if lines is not None and _aligned(path, encoding, standard) != lines:
            return bare
    if _holds(path, encoding, '\\"') and _aligned(path, encoding, standard) is None:
        return escaped if _aligned(path, encoding, escaped) is not None else standard
    return standard


def _delimiter(lines: list[str]) -> str:
    """The one under which most of the first rows are as wide as the header; of equals, the widest."""

    def fit(delimiter: str) -> tuple[float, int]:
        rows = csv.reader(lines, delimiter=delimiter)
        width = len(next(rows, []))
        widths = [len(cells) for cells in rows if cells]
        return (sum(w == width for w in widths) / len(widths) if widths else 1.0) if width > 1 else 0.0, width

    return max(_DELIMITERS, key=fit)


def _aligned(path: Path, encoding: str | None, dialect: Dialect, *, least: int = 1) -> int | None:
    """How many rows a file has, where all are as wide as its header; None where they are not or quotes are wrong.

    `least` is the width that says something: of a single column every line is as wide as the header.
    """
    rows = 0
    try:
        with open_text(path, encoding) as file:
            reader = dialect.rows(file)
            width = len(next(reader, []))
            if width < least:
                return None
            for cells in reader:
                if cells:
                    rows += 1
                    if len(cells) != width:
                        return None
    except csv.Error:
        return None
    return rows


def _holds(path: Path, encoding: str | None, mark: str) -> bool:
    with open_text(path, encoding) as file:
        before = ""
        read: Callable[[], str] = lambda: file.read(1 << 16)  # noqa: E731  # iter's two-argument form wants a callable
        for block in iter(read, ""):
            if mark in before + block:
                return True
            before = block[-1:]
    return False
