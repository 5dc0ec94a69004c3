"""Reader for csv and tsv files; every cell stays text.

pandas and datasets read the text "NA" as missing, a file with semicolons as one column, and a numeric text as a number.
"""

import contextlib
import csv
import functools
import itertools
import logging
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from emotion_lightning.data.formats.encoding import Lines, decoded, open_text, wrong_bytes
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems
from emotion_lightning.errors import UserError

ROWS_AT_ONCE = 512

log = logging.getLogger(__name__)

_DELIMITERS = ",;\t|"
_BACKSLASH = re.compile(r'(\\["\\])|\\')
_DOUBLED = re.compile(r'(?:^|\t)"[^"]*(?:""[^"]*)+"(?:\t|\r?$)', re.MULTILINE)
"""A quoted cell with doubled quotes in it, which shows that the file is quoted."""

_SEP = re.compile(r"sep=(.)[\r\n]*")
"""First line in which Excel names the delimiter."""

_NUMBER = re.compile(r"\d+(\.\d+)?|true|false", re.IGNORECASE)
_SAMPLE = 100
_WORDS = 3
_LONGEST = 40
"""Longest label at the end of a line, in words and in characters."""

_FEW_LINES = 5
"""In fewer lines the number of cells may agree by chance."""

# Texts may be longer than the 128 KiB that the csv module takes by default.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Dialect:
    """How a file separates and quotes its cells.

    Attributes:
        delimiter: character between cells.
        quoted: whether cells may be quoted, with quotes inside them doubled.
        escaped: whether quotes inside quoted cells are escaped by a backslash instead.
        last: whether only the last delimiter of a line separates cells; lines are not quoted then.
    """

    delimiter: str
    quoted: bool = True
    escaped: bool = False
    last: bool = False

    def rows(self, lines: Iterable[str]) -> Any:
        """Return a csv reader for these lines; it raises csv.Error if quotes are wrong."""
        if self.last:
            return _AtLast(lines, self.delimiter)
        options: dict[str, Any] = {"delimiter": self.delimiter, "strict": True}
        if not self.quoted:
            options["quoting"] = csv.QUOTE_NONE
        if self.escaped:
            options["escapechar"] = "\\"
            # The csv module would remove the backslash before any character, as in a literal \\n.
            lines = (_BACKSLASH.sub(lambda found: found[1] or r"\\", line) for line in lines)
        return csv.reader(lines, **options)

    def __str__(self) -> str:
        if self.last:
            return "cells are split at the last delimiter"
        if not self.quoted:
            return "cells are not quoted"
        return "quotes are escaped by backslashes" if self.escaped else "cells may be quoted"


class _AtLast:
    """Splits each line at its last delimiter; as a csv reader, it counts lines in `line_num`."""

    def __init__(self, lines: Iterable[str], delimiter: str) -> None:
        self._lines = iter(lines)
        self._delimiter = delimiter
        self.line_num = 0

    def __iter__(self) -> "_AtLast":
        return self

    def __next__(self) -> list[str]:
        line = next(self._lines).rstrip("\r\n")
        self.line_num += 1
        return line.rsplit(self._delimiter, 1) if line.strip() else []


@dataclass(frozen=True)
class LabelledLines:
    """How the lines of a text file end, where they may be texts with labels.

    Attributes:
        dialect: splits them at the last delimiter.
        endings: different words after it, in order.
    """

    dialect: Dialect
    endings: list[str]

    def question(self, path: Path) -> str:
        """The message that asks whether these are labels."""
        mark = {"\t": "a tab"}.get(self.dialect.delimiter, repr(self.dialect.delimiter))
        shown = ", ".join(repr(ending) for ending in self.endings[:3])
        return (
            f"{path}: every line ends in {mark} and few words such as {shown}. If these are labels, data.header=none "
            "data.columns=[text,label] reads the file; otherwise it has texts only, and training and scoring need "
            "labels too."
        )


def chunks(
    path: Path,
    problems: Problems,
    *,
    tabs: bool,
    encoding: str | None,
    names: list[str] | None = None,
    dialect: Dialect | None = None,
) -> Iterator[Chunk]:
    """Yield the rows of a csv file (or tsv, with `tabs`) in chunks.

    Args:
        path: file to read.
        problems: collects rows of a wrong shape.
        tabs: whether cells are separated by tabs.
        encoding: encoding of the file; None means UTF-8.
        names: names of the columns of a file without a header line, none for column_1, column_2 …; None: the first line
            names them.
        dialect: how cells are separated; None: as the content of the file says.
    """
    dialect = dialect or recognise(path, tabs=tabs, encoding=encoding)
    with _opened(path, encoding) as file:
        lines = Lines(file)
        reader = dialect.rows(iter(lines))
        first: list[str] = next(_strictly(path, reader), [])
        header = header_names(path, first, names) if names is not None else [normalised(name) for name in first]
        _check_header(path, header, lines, encoding, named=names is not None)
        rows = reader if names is None else itertools.chain([first], reader)
        yield from _chunks(path, problems, dialect, lines, encoding, rows, Below(header, of=reader))


def chunks_below(
    path: Path, problems: Problems, dialect: Dialect, lines: Lines, header: list[str], *, rows: int, number: int,
    encoding: str | None,
) -> Iterator[Chunk]:  # fmt: skip
    """Yield rows of a file from some row on.

    Args:
        path: the file, for messages.
        problems: collects rows of a wrong shape.
        dialect: how cells are separated.
        lines: the lines that are read.
        header: names of the columns, as `header_of` returns them.
        rows: number of rows before these lines.
        number: number of lines before these lines.
        encoding: encoding of the file, for messages; None means UTF-8.
    """
    reader = dialect.rows(iter(lines))
    at = Below(header, of=reader, rows=rows, lines=number)
    yield from _chunks(path, problems, dialect, lines, encoding, reader, at)


def header_of(path: Path, *, encoding: str | None, names: list[str] | None, dialect: Dialect) -> list[str]:
    """Names of all columns of a file, checked; empty for columns without a name. Arguments as of `chunks`."""
    with _opened(path, encoding) as file:
        lines = Lines(file)
        first: list[str] = next(_strictly(path, dialect.rows(iter(lines))), [])
        header = header_names(path, first, names) if names is not None else [normalised(name) for name in first]
        _check_header(path, header, lines, encoding, named=names is not None)
        return header


@dataclass
class Below:
    """Where rows stand: under which header, and after how many rows and lines.

    Attributes:
        header: names of the columns.
        of: the csv reader, which counts lines.
        rows: rows before the first one.
        lines: lines before the first one that the reader counts.
    """

    header: list[str]
    of: Any
    rows: int = 0
    lines: int = 0

    @property
    def line(self) -> int:
        """Number of the last line read, in the whole file."""
        return int(self.lines + self.of.line_num)


def _strictly(path: Path, reader: Any) -> Iterator[list[str]]:
    """The rows of a reader whose quotes must be right in the first row."""
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error} (row 1); put quotes around the whole cell and double those "
            "inside it."
        ) from error


def _check_header(path: Path, header: list[str], lines: Lines, encoding: str | None, *, named: bool) -> None:
    if lines.suspicious and not named:
        _refuse_header(path, header, encoding)
    if not any(header):
        raise UserError(f"{path} has no header; its first line must name the columns.")
    if not named and any(_NUMBER.fullmatch(name) for name in header if header.count(name) > 1):
        raise UserError(
            f"{path}: its first line looks like data, not like names of columns: a number stands in it twice. If "
            "the file has no header line, data.header=none data.columns=[…] reads it; name all of its columns."
        )
    refuse_repeated(path, [name for name in header if name])


def _chunks(
    path: Path, problems: Problems, dialect: Dialect, lines: Lines, encoding: str | None, rows: Iterable[list[str]],
    at: Below,
) -> Iterator[Chunk]:  # fmt: skip
    header, row, begins = at.header, at.rows, at.line + 1
    numbers: list[int] = []
    table: list[list[str]] = []
    try:
        for cells in data_rows(rows, len(header)):
            row += 1
            if lines.suspicious:
                lines.suspicious = False
                _check_bytes(path, problems, row, f"row {row}, line {at.line}", header, cells, encoding)
            if len(cells) != len(header):
                problems.add(
                    path,
                    f"{len(cells)} cells under a header of {len(header)} columns (line {at.line}); "
                    "quote texts that hold the delimiter.",
                    row=row,
                )
                continue
            if at.line > begins:
                problems.remarks += _swallowed(path, row, header, cells, dialect.delimiter)
            begins = at.line + 1
            numbers.append(row)
            table.append(cells)
            if len(table) == ROWS_AT_ONCE:
                yield _chunk(numbers, header, table)
                numbers, table = [], []
    except csv.Error as error:
        since = f", which begins in line {begins}" if begins < at.line else ""
        message = (
            f"{path}, line {at.line}: {error} (row {row + 1}{since}); put quotes around the whole cell and "
            "double those inside it."
        )
        if not problems.row_by_row:
            raise UserError(message) from error
        problems.note(path, f"{message} The rows after it are not read.", row=row + 1)
    if table:
        yield _chunk(numbers, header, table)


def header_names(path: Path, first: list[str], names: list[str]) -> list[str]:
    """Names of the columns of a file without a header line."""
    if names and len(names) != len(first):
        raise UserError(
            f"{path} has {len(first)} columns in its first line, but data.columns=[{','.join(names)}] names "
            f"{len(names)}."
        )
    return [normalised(name) for name in names] or [f"column_{number}" for number in range(1, len(first) + 1)]


def data_rows(reader: Iterable[list[str]], width: int) -> Iterator[list[str]]:
    """Skip blank lines. In a file with one column they are rows without a text, except at the end of the file."""
    blank = 0
    for cells in reader:
        if cells:
            yield from ([""] for _ in range(blank))
            yield cells
            blank = 0
        else:
            blank += width == 1


def _swallowed(path: Path, row: int, header: list[str], cells: list[str], delimiter: str) -> Iterator[str]:
    """Remarks on cells of several lines whose first line ends like a row: a missing quote may have merged rows."""
    for position, cell in enumerate(cells):
        first, *rest = cell.split("\n")
        tail = first.rstrip("\r").split(delimiter)[1:]
        if rest and tail and len(tail) == len(header) - 1 - position and all(map(_NUMBER.fullmatch, tail)):
            yield (
                f"{path}, row {row}, column {header[position]}: a quoted cell of {len(rest) + 1} lines, the first of "
                "which ends like a row; is a quote missing there?"
            )


def _chunk(numbers: list[int], header: list[str], table: list[list[str]]) -> Chunk:
    # Skip a column without a name: pandas writes row numbers like this.
    columns = zip(header, zip(*table, strict=True), strict=True)
    return Chunk(numbers, {name: list(cells) for name, cells in columns if name})


def refuse_repeated(path: Path, names: list[str]) -> None:
    """Raise UserError if two columns have the same name."""
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
            if problems.row_by_row:
                problems.note(path, f"{path}, {place + column}: not {encoding or 'UTF-8'}.", row=row)
                return
            # The whole file has another encoding. Raise at once, because more of these would hide other problems.
            raise wrong_bytes(path, encoding, cell, place + column)
        if "\0" in cell:
            problems.note(path, _nul(path, place + column, encoding), row=row)


# --------------------------------------------------------------------------------------------------- recognising


def recognise(path: Path, *, tabs: bool, encoding: str | None) -> Dialect:
    """Detect the dialect of a file from its content; log it if it is not the standard.

    The standard is quoted cells with doubled quotes. MySQL and Spark escape quotes with backslashes, and many
    tab-separated files do not quote at all: a tweet that starts with a quote would then absorb the rows after it.
    """
    state = path.stat()
    return _recognise(path, tabs, encoding, (state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=8)
def _recognise(path: Path, tabs: bool, encoding: str | None, _: object) -> Dialect:
    found = _fitting(path, tabs=tabs, encoding=encoding)
    if found.escaped or not found.quoted:
        log.warning("%s: %s.", path, found)
    return found


def _fitting(path: Path, *, tabs: bool, encoding: str | None) -> Dialect:
    with open_text(path, encoding) as file:
        sample = list(islice(file, _SAMPLE))
    marked = _SEP.fullmatch(sample[0]) if sample else None
    delimiter = marked[1] if marked else "\t" if tabs else _delimiter(sample)
    standard = Dialect(delimiter)
    escaped = Dialect(delimiter, escaped=True)
    if delimiter == "\t" and _holds(path, encoding, '"'):
        bare = Dialect(delimiter, quoted=False)
        lines = _aligned(path, encoding, bare, least=2)
        if lines is not None and _aligned(path, encoding, standard) != lines and not _doubles_quotes(path, encoding):
            return bare
    if _holds(path, encoding, '\\"') and _aligned(path, encoding, standard) is None:
        return escaped if _aligned(path, encoding, escaped) is not None else standard
    return standard


def table_delimiter(path: Path, encoding: str | None, *, names: Container[str]) -> str | None:
    """Delimiter of a text file that holds a table; None for other texts.

    In a table every line has the same number of cells. Lines of a text hardly have the same number of tabs or
    semicolons; they may have the same number of commas or bars, so these also need a first line with a name of a text
    column.

    Args:
        path: the file.
        encoding: its encoding; None means UTF-8.
        names: usual names of text columns, in lower case.
    """
    with open_text(path, encoding) as file:
        sample = [line for line in islice(file, _SAMPLE) if line.strip()]
    for delimiter in "\t;,|":
        rows = list(csv.reader(sample, delimiter=delimiter))
        width = len(rows[0]) if rows else 0
        if width > 1 and len(rows) > 1 and all(len(cells) == width for cells in rows):
            named = any(name.strip().lower() in names for name in rows[0])
            if named or (delimiter in "\t;" and len(rows) >= _FEW_LINES):
                return delimiter
    return None


def labelled_lines(path: Path, encoding: str | None) -> LabelledLines | None:
    """How the lines of a text file end, if all end in a delimiter and few words that occur again; otherwise None."""
    with open_text(path, encoding) as file:
        sample = [line.rstrip("\r\n") for line in islice(file, _SAMPLE) if line.strip()]
    for delimiter in "\t;|,":
        parts = [line.rsplit(delimiter, 1) for line in sample]
        if len(parts) < 2 or not all(len(part) == 2 and part[0].strip() for part in parts):
            continue
        endings = [part[1].strip() for part in parts]
        different = list(dict.fromkeys(endings))
        few = all(ending and len(ending.split()) <= _WORDS and len(ending) <= _LONGEST for ending in endings)
        if few and (len(parts) < 2 * _FEW_LINES or 2 * len(different) <= len(parts)):
            return LabelledLines(Dialect(delimiter, quoted=False, last=True), different)
    return None


def first_rows(path: Path, *, tabs: bool, encoding: str | None, most: int = 1000) -> list[list[str]]:
    """The first rows of a file, header included; fewer if quotes are wrong."""
    found: list[list[str]] = []
    with _opened(path, encoding) as file, contextlib.suppress(csv.Error):
        for cells in islice(recognise(path, tabs=tabs, encoding=encoding).rows(file), most):
            found += [cells] if cells else []
    return found


def _delimiter(lines: list[str]) -> str:
    """The delimiter with which most of these rows have as many cells as the header; of several, the one with most."""

    def fit(delimiter: str) -> tuple[float, int]:
        rows = csv.reader(lines, delimiter=delimiter)
        width = len(next(rows, []))
        widths = [len(cells) for cells in rows if cells]
        return (sum(w == width for w in widths) / len(widths) if widths else 1.0) if width > 1 else 0.0, width

    return max(_DELIMITERS, key=fit)


def _aligned(path: Path, encoding: str | None, dialect: Dialect, *, least: int = 1) -> int | None:
    """Number of rows if all have as many cells as the header; None if they do not, or if quotes are wrong.

    `least` is the minimum number of cells of the header: with a single column, every line would match.
    """
    rows = 0
    try:
        with _opened(path, encoding) as file:
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
        return any(mark in line for line in file)


def _doubles_quotes(path: Path, encoding: str | None) -> bool:
    with open_text(path, encoding) as file:
        return any('""' in line and _DOUBLED.search(line.rstrip("\r\n")) for line in file)


@contextmanager
def _opened(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """Open a file as text, after Excel's `sep=` line if it has one."""
    with open_text(path, encoding) as file:
        skip_sep(file)
        yield file


def skip_sep(file: TextIO) -> int:
    """Skip Excel's `sep=` line at the start of an open file, if it is there; its length in characters."""
    first = file.readline(16)
    if _SEP.fullmatch(first):
        return len(first)
    file.seek(0)
    return 0
