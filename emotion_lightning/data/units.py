"""Units of work: each is some rows of one input file, which a worker reads without the rest of the file.

Units depend on the files and on the number of rows of a unit, and on nothing else, so that a job that goes on after a
stop has the same ones. Parquet is cut at its row groups, as its footer says; csv and jsonl at the ends of rows, which a
first pass over the lines finds. Text files that are zipped, or not in UTF-8, are one unit each.
"""

import csv
import dataclasses
import gzip
import io
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from emotion_lightning import config
from emotion_lightning.data import storage
from emotion_lightning.data.formats import arrow, delimited, encoding, files, lines, nested
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems, Source
from emotion_lightning.data.storage import InputFile
from emotion_lightning.data.text_pieces import TextColumns
from emotion_lightning.errors import UserError

_HEAD = 1 << 20
"""Bytes of a file in an object store that show its format."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class KnownFile:
    """A file whose format is known.

    Attributes:
        file: the file.
        number: its place among the files of the input, from 0.
        kind: csv, tsv, jsonl or parquet.
        encoding: encoding of a text file; None means UTF-8.
        names: its columns; none for jsonl, whose rows may have any.
        dialect: how a csv file separates cells; None for other formats.
        headed: whether a csv file begins with a header line.
        groups: number of rows in each row group of a parquet file.
    """

    file: InputFile
    number: int
    kind: str
    encoding: str | None
    names: tuple[str, ...]
    dialect: delimited.Dialect | None = None
    headed: bool = True
    groups: tuple[int, ...] = ()

    @property
    def is_zipped(self) -> bool:
        """Whether it is zipped by gzip."""
        return encoding.is_zipped(Path(self.file.name))


@dataclass(frozen=True)
class Unit:
    """Some rows of a file.

    Attributes:
        of: the file.
        first: number of the first row, from 1.
        rows: number of rows; None: all others of the file, whose number is not known.
        start: byte at which its lines start; 0 and `stop` None: those of the whole file.
        stop: byte after them; None: the end of the file.
        lines: number of lines before them.
    """

    of: KnownFile
    first: int = 1
    rows: int | None = None
    start: int = 0
    stop: int | None = None
    lines: int = 0

    @property
    def name(self) -> str:
        """Name of its part of the output, without a suffix: the number of the file, and the first row."""
        return f"part-{self.of.number:05d}-{self.first:010d}"

    def __str__(self) -> str:
        rows = "on" if self.rows is None else f"to {self.first + self.rows - 1:,}"
        return f"{self.of.file.name}, rows {self.first:,} {rows}"


def recognise(file: InputFile, number: int, settings: config.InputColumns) -> KnownFile:
    """Recognise the format of a file by its first rows.

    Raises:
        UserError: it cannot be read, or has no header.
    """
    kind = files.kind_by_name(Path(file.name)) or ""
    if settings.table is not None:
        raise UserError(f"data.table={settings.table} is for files that hold several tables; engine=ray reads none.")
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with storage.open_bytes(file.place) as opened:
                footer = pyarrow.parquet.read_metadata(opened)
        except (pyarrow.ArrowException, OSError) as error:
            raise encoding.unreadable(Path(file.name), error) from error
        names = tuple(map(normalised, footer.schema.to_arrow_schema().names))
        delimited.refuse_repeated(Path(file.name), list(names))
        return KnownFile(file, number, kind, None, names, groups=tuple(arrow.group_sizes(footer)))
    with _head(file) as path, _named(path, file):
        named = (settings.columns or []) if settings.header is config.Header.none else None
        found = files.source(path, settings.encoding, header=settings.header, columns=settings.columns)
        if found.about["format"] != kind:
            raise UserError(f"{path} is {found.about['format']}, which engine=ray does not read; leave engine=ray out.")
        if kind == "jsonl":
            return KnownFile(file, number, kind, settings.encoding, ())
        tabs = kind == "tsv"
        dialect = delimited.recognise(path, tabs=tabs, encoding=settings.encoding)
        header = delimited.header_of(path, encoding=settings.encoding, names=named, dialect=dialect)
        return KnownFile(file, number, kind, settings.encoding, tuple(header), dialect, headed=named is None)


@contextmanager
def _head(file: InputFile) -> Iterator[Path]:
    """A file on this disk with the first lines of a text file, or the file itself if it is on this disk."""
    if not storage.is_address(file.place):
        yield Path(file.place)
        return
    path = Path(file.name)
    with tempfile.TemporaryDirectory(prefix="emotion_lightning_") as work, encoding.text_errors(path, None):
        with storage.open_bytes(file.place) as raw:
            opened = gzip.GzipFile(fileobj=raw) if encoding.is_zipped(path) else raw
            start = opened.read(_HEAD)
        copy = Path(work, path.name.removesuffix(".gz"))
        copy.write_bytes(start if len(start) < _HEAD else _whole_lines(start))
        yield copy


def _whole_lines(start: bytes) -> bytes:
    """Bytes up to the last end of a line that is not inside quotes; all if there is none."""
    end = start.rfind(b"\n")
    while end > 0 and start.count(b'"', 0, end) % 2:
        end = start.rfind(b"\n", 0, end)
    return start[: end + 1] or start


@contextmanager
def first_rows(known: KnownFile, settings: config.InputColumns, rows: int) -> Iterator[Source]:
    """The first rows of a file with all of its columns, to be checked as those of a whole file are."""
    path = Path(known.file.name)
    if known.kind == "parquet":
        found = Source(path, partial(_chunks, Unit(known, 1, rows), known.names))
        yield _at_most(with_values(found, known.file), rows)
        return
    with _head(known.file) as copy:
        found = files.source(copy, settings.encoding, header=settings.header, columns=settings.columns)
        yield _at_most(with_values(found.renamed(path), known.file), rows)


def _at_most(source: Source, rows: int) -> Source:
    def chunks(problems: Problems) -> Iterator[Chunk]:
        left = rows
        for chunk in source.chunks(problems):
            yield chunk
            left -= len(chunk.rows)
            if left <= 0:
                return

    return dataclasses.replace(source, chunks=chunks)


@contextmanager
def _named(path: Path, file: InputFile) -> Iterator[None]:
    """Call a file by its name in errors."""
    try:
        yield
    except UserError as error:
        raise UserError(file.told(str(error).replace(str(path), file.name)), ways=error.ways) from error


# -------------------------------------------------------------------------------------------------------------- cutting


def cut(known: KnownFile, rows: int) -> list[Unit]:
    """The units of a file; none if it has no rows.

    Args:
        known: the file.
        rows: rows of a unit, roughly: a row group of parquet is not joined with others to be cut in the middle.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(known.file.name)
    if known.kind == "parquet":
        return [Unit(known, first, count) for first, count in _of_groups(known.groups, rows)]
    if known.is_zipped or known.encoding not in (None, "utf-8", "utf8", "UTF-8"):
        return [Unit(known)]
    with _named(path, known.file), encoding.text_errors(path, None), storage.open_bytes(known.file.place) as raw:
        at = len(_BOM) if raw.read(len(_BOM)) == _BOM else 0
        raw.seek(0)
        with encoding.as_text(raw, None) as text:
            return list(
                _of_objects(known, text, at, rows) if known.kind == "jsonl" else _of_cells(known, text, at, rows)
            )


def _of_groups(sizes: Sequence[int], rows: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each unit of a parquet file: small row groups together, large ones in parts.

    >>> list(_of_groups([2, 2, 7, 1], 3))
    [(1, 4), (5, 2), (7, 2), (9, 3), (12, 1)]
    """
    first = count = 0
    for size in sizes:
        if size > rows:
            if count:
                yield first + 1, count
                first, count = first + count, 0
            parts = -(-size // rows)
            for part in range(parts):
                length = size * (part + 1) // parts - size * part // parts
                yield first + 1, length
                first += length
            continue
        count += size
        if count >= rows:
            yield first + 1, count
            first, count = first + count, 0
    if count:
        yield first + 1, count


class _Counted:
    """Lines of an open file, with the number of bytes up to the end of the last one."""

    def __init__(self, file: TextIO, at: int) -> None:
        self._file = file
        self.bytes = at

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.bytes += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
            yield line


def _of_objects(known: KnownFile, text: TextIO, at: int, rows: int) -> Iterator[Unit]:
    counted = _Counted(text, at)
    unit, row, number = Unit(known), 0, 0
    for number, line in enumerate(counted, 1):  # noqa: B007 (counts the lines before the next unit)
        row += bool(line.strip())
        if row - unit.first + 1 >= rows:
            yield dataclasses.replace(unit, rows=row - unit.first + 1, stop=counted.bytes)
            unit = Unit(known, row + 1, None, counted.bytes, None, number)
    if row >= unit.first:
        yield dataclasses.replace(unit, rows=row - unit.first + 1)


def _of_cells(known: KnownFile, text: TextIO, at: int, rows: int) -> Iterator[Unit]:
    assert known.dialect is not None
    counted = _Counted(text, at + delimited.skip_sep(text))
    reader = known.dialect.rows(iter(counted))
    if known.headed:
        next(reader, None)
    unit, row, wrong = Unit(known, start=counted.bytes, lines=reader.line_num), 0, False
    try:
        for cells in delimited.data_rows(reader, len(known.names)):
            row += 1
            # Blank lines of a file with one column are rows only if another row follows: no unit ends with one.
            if row - unit.first + 1 >= rows and cells != [""]:
                yield dataclasses.replace(unit, rows=row - unit.first + 1, stop=counted.bytes)
                unit = Unit(known, row + 1, None, counted.bytes, None, reader.line_num)
    except csv.Error:
        wrong = True  # told by the worker that reads the last unit
    if wrong or row >= unit.first:
        yield dataclasses.replace(unit, rows=None if wrong else row - unit.first + 1)


# -------------------------------------------------------------------------------------------------------------- reading


def source(unit: Unit, columns: TextColumns, *, context: Collection[str] = ()) -> Source:
    """The rows of a unit, with the numbers that they have in their file.

    Args:
        unit: which rows.
        columns: columns that are read, or paths into them.
        context: further ones.
    """
    single = [columns.text, columns.id, columns.group, *columns.keep]
    wanted = {name for path in (*single, *context) if path for name in parents(path)}
    found = Source(Path(unit.of.file.name), partial(_chunks, unit, wanted))
    return with_values(nested.with_paths(found, [*single, *context], single=single), unit.of.file)


def parents(path: str) -> list[str]:
    """A path into a column, and every column that it may start in."""
    keys = path.split(".")
    return [".".join(keys[:count]) for count in range(1, len(keys) + 1)]


def with_values(source: Source, file: InputFile) -> Source:
    """A source with the columns that the folders of its file name, unless the file has them itself."""
    if not file.values:
        return source

    def chunks(problems: Problems) -> Iterator[Chunk]:
        for chunk in source.chunks(problems):
            named = {normalised(name): [value] * len(chunk.rows) for name, value in file.values}
            yield Chunk(chunk.rows, named | chunk.columns)

    return dataclasses.replace(source, chunks=chunks)


def _chunks(unit: Unit, wanted: Collection[str], problems: Problems) -> Iterator[Chunk]:
    known, path = unit.of, Path(unit.of.file.name)
    if known.kind == "parquet":
        assert unit.rows is not None
        with storage.open_bytes(known.file.place) as opened:
            yield from arrow.parquet_rows(path, opened, problems, first=unit.first, count=unit.rows, columns=wanted)
        return
    with encoding.text_errors(path, known.encoding), _text(unit) as text:
        if known.kind == "jsonl":
            yield from lines.jsonl_below(path, problems, text, rows=unit.first - 1, number=unit.lines)
            return
        assert known.dialect is not None
        number = unit.lines
        if not unit.start:
            delimited.skip_sep(text)
        read = encoding.Lines(text)
        if not unit.start and known.headed:
            next(known.dialect.rows(iter(read)), None)
            number = read.number
        yield from delimited.chunks_below(
            path, problems, known.dialect, read, list(known.names), rows=unit.first - 1, number=number,
            encoding=known.encoding,
        )  # fmt: skip


@contextmanager
def _text(unit: Unit) -> Iterator[TextIO]:
    with storage.open_bytes(unit.of.file.place) as opened:
        raw: Any = opened
        if unit.of.is_zipped:
            raw = gzip.GzipFile(fileobj=opened)
        elif unit.start or unit.stop is not None:
            opened.seek(unit.start)
            raw = opened if unit.stop is None else io.BytesIO(opened.read(unit.stop - unit.start))
        # At its start a file may have a byte order mark, which utf-8 would take for a letter.
        with encoding.as_text(raw, "utf-8" if unit.start else unit.of.encoding) as text:
            yield text
