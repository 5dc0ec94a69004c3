"""Reader for the tables of SQLite databases, which are opened read-only."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats.choosing import choose
from emotion_lightning.data.formats.delimited import refuse_repeated
from emotion_lightning.data.formats.encoding import unreadable
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems
from emotion_lightning.errors import UserError

ROWS_AT_ONCE = 4096


def table_name(path: Path, wanted: str | None) -> str:
    """Name of the table to read: the wanted one, or the only one with rows.

    Raises:
        UserError: the file is no whole database, or there is no such table.
    """
    _check_settled(path)
    try:
        with closing(_opened(path)) as database:
            names = [
                name.decode("utf-8", "replace")
                for (name,) in database.execute(
                    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
                    "ORDER BY rowid"
                )
            ]
            filled = [
                name
                for name in names
                if wanted is None and database.execute(f"{_select('1', name)} LIMIT 1").fetchone()
            ]
            return choose(path, names, wanted, kind="table", filled=filled)
    except (sqlite3.Error, UnicodeError) as error:  # SQLite's message may hold damaged bytes of the file
        raise unreadable(path, error) from error


def chunks(path: Path, problems: Problems, *, table: str) -> Iterator[Chunk]:
    """Yield the rows of a table in chunks, in the order in which the file holds them."""
    try:
        with closing(_opened(path)) as database:
            found = database.execute(_select("*", table))
            names = [normalised(name) for name, *_ in found.description]
            refuse_repeated(path, names)
            start = 1
            while rows := found.fetchmany(ROWS_AT_ONCE):
                numbers = range(start, start + len(rows))
                columns = zip(names, zip(*rows, strict=True), strict=True)
                yield Chunk(numbers, {name: _cells(path, problems, numbers, name, cells) for name, cells in columns})
                start += len(rows)
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise unreadable(path, error) from error


def _select(what: str, table: str) -> str:
    # An index could give the rows in another order.
    quoted = table.replace('"', '""')
    return f'SELECT {what} FROM "{quoted}" NOT INDEXED'


def _check_settled(path: Path) -> None:
    """Raise UserError if rows of the database are in a file beside it, which a program that writes left there."""
    for ending in ("-wal", "-journal"):
        beside = Path(f"{path}{ending}")
        if beside.is_file() and beside.stat().st_size:
            raise UserError(
                f"{path}: the file {beside.name} beside it holds changes that are not in it yet. Close the program "
                "that writes it, open it once with a program that may write it, and try again."
            )


def _opened(path: Path) -> sqlite3.Connection:
    # Immutable: SQLite takes no locks and writes no file beside it. Texts come as bytes, so that those that are not
    # UTF-8 can be reported with their row.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        database.text_factory = bytes
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {setting}")
    except BaseException:
        database.close()
        raise
    return database


def _cells(path: Path, problems: Problems, rows: range, name: str, cells: tuple[Any, ...]) -> list[Any]:
    return [
        _decoded(path, problems, row, name, cell) if isinstance(cell, bytes) else cell
        for row, cell in zip(rows, cells, strict=True)
    ]


def _decoded(path: Path, problems: Problems, row: int, name: str, cell: bytes) -> str | None:
    try:
        text = cell.decode()
    except UnicodeDecodeError as error:
        problems.add(
            path, f"byte 0x{cell[error.start]:02x} is not UTF-8; write the texts as UTF-8.", row=row, column=name
        )
        return None
    if "\0" in text:
        problems.add(path, "a NUL byte; it is damaged, or holds no text.", row=row, column=name)
    return text
