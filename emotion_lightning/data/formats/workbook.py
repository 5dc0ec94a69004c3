"""Reader for the sheets of Excel files, by python-calamine.

A sheet is loaded whole, because Excel stores its texts apart from its cells; memory is checked before.
"""

import datetime
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_lightning.data import memory
from emotion_lightning.data.formats.cells import is_blank
from emotion_lightning.data.formats.choosing import choose
from emotion_lightning.data.formats.delimited import header_names, refuse_repeated
from emotion_lightning.data.formats.encoding import unreadable
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems
from emotion_lightning.errors import UserError
from emotion_lightning.runs import extras

ROWS_AT_ONCE = 4096

_PLACE = re.compile(rb"""\sr\s*=\s*["']([A-Z]{0,3})(\d{1,7})["']""")
"""The place of a cell, as in r="B7", or of a row, as in r="7"."""

_CELL_BYTES = 120
"""Approximate memory of a cell: of the reader, and of the Python object made of it."""

_TEXT_FACTOR = 4
"""Memory that the unpacked XML of a file may need, relative to its size."""

_EXACT = 1e15
"""Excel keeps 15 digits of a number; it has rounded those that are larger."""

_BLOCK = 1 << 20


class Sheet:
    """A sheet of an Excel file; it is loaded when its rows are first read.

    Args:
        path: the file.
        wanted: name of the sheet; None: the only one with rows.

    Raises:
        UserError: the file is damaged or too large, python-calamine is not installed, or there is no such sheet.
    """

    def __init__(self, path: Path, wanted: str | None) -> None:
        self._path = path
        _check_size(path)
        book = _opened(path)
        self.name, self._sheet = _chosen(path, book, wanted)

    def rows(self) -> Iterator[list[Any]]:
        """Yield the cells of each row that is not blank; a whole number is an int, an empty cell is empty text."""
        with _reading(self._path):
            for cells in self._sheet.iter_rows():
                found = [_value(cell) for cell in cells]
                if not all(map(is_blank, found)):
                    yield found

    def written(self, most: int = 1000) -> list[list[str]]:
        """The first rows as text, header included, for `headers.check_header`."""
        return [[_text(cell) for cell in cells] for cells, _ in zip(self.rows(), range(most), strict=False)]

    def chunks(self, problems: Problems, *, names: list[str] | None) -> Iterator[Chunk]:
        """Yield the rows of the sheet in chunks.

        Args:
            problems: collects remarks about numbers that Excel has rounded.
            names: names of the columns of a sheet without a header, none for column_1 …; None: the first row has them.
        """
        rows = self.rows()
        first = next(rows, None)
        if first is None:
            return
        header = [normalised(_text(cell)) for cell in first]
        if names is not None:
            header = header_names(self._path, [_text(cell) for cell in first], names)
        refuse_repeated(self._path, [name for name in header if name])
        rounded: set[str] = set()
        numbers: list[int] = []
        table: list[list[Any]] = []
        pending = [first] if names is not None else []
        for row, cells in enumerate(_after(pending, rows), start=1):
            for name, cell in zip(header, cells, strict=True):
                if type(cell) in (int, float) and abs(cell) >= _EXACT and name not in rounded:
                    rounded.add(name)
                    problems.remarks.append(
                        f"{self._path}, row {row}, column {name}: Excel keeps 15 digits of a number, so {cell} is "
                        "rounded; format such a column as text before ids are put into it."
                    )
            numbers.append(row)
            table.append(cells)
            if len(table) == ROWS_AT_ONCE:
                yield _chunk(numbers, header, table)
                numbers, table = [], []
        if table:
            yield _chunk(numbers, header, table)


def _after(pending: list[list[Any]], rows: Iterator[list[Any]]) -> Iterator[list[Any]]:
    yield from pending
    yield from rows


def _chunk(numbers: list[int], header: list[str], table: list[list[Any]]) -> Chunk:
    columns = zip(header, zip(*table, strict=True), strict=True)
    return Chunk(numbers, {name: list(cells) for name, cells in columns if name})


def _check_size(path: Path) -> None:
    """Raise UserError for a file that is no Excel file, or whose sheets would not fit into memory."""
    try:
        with zipfile.ZipFile(path) as packed:
            parts = packed.infolist()
            if not any(part.filename.startswith("xl/") for part in parts):
                raise UserError(f"{path} is a zip file, not an Excel file; name it .zip.")
            memory.check_memory(
                path, _TEXT_FACTOR * sum(part.file_size for part in parts), "save the sheet as csv, which is streamed"
            )
            for part in parts:
                if part.filename.startswith("xl/worksheets/") and part.filename.endswith(".xml"):
                    _check_extent(path, packed, part)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        if not isinstance(error, PermissionError) and zipfile.is_zipfile(path) is False:
            raise UserError(f"{path} is {_other(path)}") from error
        raise unreadable(path, error) from error


def _other(path: Path) -> str:
    with path.open("rb") as file:
        old = file.read(4) == b"\xd0\xcf\x11\xe0"
    if old:
        return "an old or encrypted Excel file; save it in Excel as .xlsx, without a password."
    return "no Excel file, or a damaged one; save it in Excel as .xlsx."


def _check_extent(path: Path, packed: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raise UserError if a sheet reaches so far that its cells would not fit into memory.

    The reader takes room for the whole rectangle, and one stray cell at the end of a sheet of 1,048,576 rows and 16,384
    columns would end the process.
    """
    width = height = 0
    rest = b""
    with packed.open(part) as file:
        while block := file.read(_BLOCK):
            for letters, digits in _PLACE.findall(rest + block):
                height = max(height, int(digits))
                column = 0
                for letter in letters:
                    column = 26 * column + letter - 64
                width = max(width, column)
            rest = block[-32:]
    memory.check_memory(
        path,
        _CELL_BYTES * width * height,
        f"a sheet of it has a cell in row {height:,} and one in column {width:,}: delete the rows and columns beyond "
        "the table, or save the sheet as csv",
    )


def _opened(path: Path) -> Any:
    try:
        from python_calamine import CalamineWorkbook
    except ImportError as error:
        raise UserError(
            f"{path} is an Excel file, which needs python-calamine: {extras.install('excel')}; or save it as csv."
        ) from error
    with _reading(path):
        return CalamineWorkbook.from_path(str(path))


def _chosen(path: Path, book: Any, wanted: str | None) -> tuple[str, Any]:
    """The name of a sheet, and the sheet."""
    with _reading(path):
        names = [str(meta.name) for meta in book.sheets_metadata if "WorkSheet" in str(meta.typ)]
        if wanted is not None:
            name = choose(path, names, wanted, kind="sheet")
            return name, book.get_sheet_by_name(name)
        sheets = {name: book.get_sheet_by_name(name) for name in names}
        filled = [name for name, sheet in sheets.items() if sheet.height > 0]
        name = choose(path, names, None, kind="sheet", filled=filled)
        return name, sheets[name]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged file into a UserError."""
    from python_calamine import CalamineError

    try:
        yield
    except (CalamineError, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    except BaseException as error:
        # The library's code in Rust may panic at a damaged file; Python sees a BaseException of no importable class.
        if type(error).__name__ != "PanicException":
            raise
        raise unreadable(path, Exception(str(error) or "panic")) from error


def _value(cell: Any) -> Any:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**63:
        return int(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat(sep=" ") if isinstance(cell, datetime.datetime) else cell.isoformat()
    return cell if isinstance(cell, str | int | float) else str(cell)


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else str(cell)
