"""Readers for files with one row per line (JSON Lines and plain text) and for JSON arrays."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emotion_lightning.data import memory
from emotion_lightning.data.formats.delimited import ROWS_AT_ONCE
from emotion_lightning.data.formats.encoding import decoded, numbered_lines, open_text
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems
from emotion_lightning.errors import UserError

_OBJECT_BYTES = 12
"""Approximate number of bytes of memory that Python needs for each byte of JSON."""

_START = 4096
"""Characters at the start of a file that show its format."""


def text_chunks(path: Path, problems: Problems, *, encoding: str | None) -> Iterator[Chunk]:
    """Yield each line of a file as a row with the column `text`, in chunks."""
    yield from _pieces(_text_rows(path, problems, encoding))


def jsonl_chunks(path: Path, problems: Problems, *, encoding: str | None) -> Iterator[Chunk]:
    """Yield the objects of a JSON Lines file as rows, in chunks."""
    yield from _pieces(_jsonl_rows(path, problems, encoding))


def jsonl_below(path: Path, problems: Problems, lines: Iterable[str], *, rows: int, number: int) -> Iterator[Chunk]:
    """Yield objects of a JSON Lines file as rows, in chunks, from some row on.

    Args:
        path: the file, for messages.
        problems: collects lines that are no objects, and such that cannot be decoded.
        lines: the lines that are read.
        rows: number of rows before these lines.
        number: number of lines before these lines.
    """
    yield from _pieces(_records(path, problems, enumerate(lines, number + 1), rows))


def json_chunks(path: Path, problems: Problems, *, encoding: str | None) -> Iterator[Chunk]:
    """Yield the objects of a JSON file as rows, in chunks: an array, which is read whole, or one object per line."""
    with open_text(path, encoding) as file:
        start = next((line for line in file if line.strip()), "").lstrip()
    rows = _array_rows(path, problems, encoding) if start.startswith("[") else _jsonl_rows(path, problems, encoding)
    yield from _pieces(rows)


def refuse_cas(path: Path, encoding: str | None) -> None:
    """Raise UserError for the JSON in which INCEpTION keeps a document with all its layers."""
    with open_text(path, encoding) as file:
        if any(mark in file.read(_START) for mark in ('"%TYPES"', '"%FEATURE_STRUCTURES"')):
            raise UserError(
                f"{path} is a document of INCEpTION as UIMA CAS JSON; export it as WebAnno TSV (v3.x), which is read "
                "with a row for each sentence."
            )


def _pieces(rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Chunk]:
    numbers: list[int] = []
    records: list[dict[str, Any]] = []
    for number, record in rows:
        numbers.append(number)
        records.append(record)
        if len(records) == ROWS_AT_ONCE:
            yield _chunk(numbers, records)
            numbers, records = [], []
    if records:
        yield _chunk(numbers, records)


def _chunk(numbers: list[int], records: list[dict[str, Any]]) -> Chunk:
    # Rows may differ in their keys.
    names = dict.fromkeys(name for record in records for name in record)
    return Chunk(numbers, {name: [record.get(name) for record in records] for name in names})


def _text_rows(path: Path, problems: Problems, encoding: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in numbered_lines(path, encoding):
        text = line.rstrip("\r\n")
        if "\0" in text:
            problems.add(path, "a NUL byte; the file is damaged or not a text file.", row=number)
        yield number, {"text": text}


def _jsonl_rows(path: Path, problems: Problems, encoding: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from _records(path, problems, numbered_lines(path, encoding), 0)


def _records(
    path: Path, problems: Problems, lines: Iterable[tuple[int, str]], row: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines:
        if not line.strip():
            continue
        row += 1
        if problems.row_by_row and not line.isascii() and not decoded(line):
            problems.add(path, f"line {number} cannot be decoded.", row=row)
            continue
        try:
            record = json.loads(line, object_pairs_hook=_record)
        except json.JSONDecodeError as error:
            cut = "" if line.endswith(("\n", "\r")) else "; the file may be cut short there"
            what = f"line {number} is not JSON ({error.msg} at character {error.pos + 1}){cut}."
            problems.add(path, what, row=row)
            continue
        except (ValueError, RecursionError) as error:
            problems.add(path, f"line {number} cannot be read ({error}).", row=row)
            continue
        if _is_record(path, problems, row, f"line {number}", record, line):
            yield row, record


def _array_rows(path: Path, problems: Problems, encoding: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    memory.check_memory(
        path, path.stat().st_size * _OBJECT_BYTES, "a JSON array is read whole: write an object in each line (jsonl)"
    )
    lines = [line for _, line in numbered_lines(path, encoding)]
    try:
        records = json.loads("".join(lines), object_pairs_hook=_record)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error.msg} at line {error.lineno}, character {error.colno}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    for row, record in enumerate(records, start=1):
        if _is_record(path, problems, row, f"item {row} of the array", record, "\\u"):
            yield row, record


class _Repeated(ValueError):
    """A key occurs twice in an object."""


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [normalised(name) for name, _ in pairs]
    record = dict(zip(names, (value for _, value in pairs), strict=True))
    if len(record) < len(pairs):
        raise _Repeated(f"the key {next(name for name in names if names.count(name) > 1)} stands in it twice")
    return record


def _is_record(path: Path, problems: Problems, row: int, what: str, record: Any, line: str) -> bool:
    if not isinstance(record, dict):
        problems.add(path, f'{what} is not an object such as {{"text": …}}.', row=row)
        return False
    if row == 1 and record and all(isinstance(value, dict) for value in record.values()):
        raise UserError(
            f"{path} holds columns, not rows, as pandas writes them unless told otherwise; write it with "
            "df.to_json(…, orient='records')."
        )
    if "\\u" in line and not decoded(json.dumps(record, ensure_ascii=False)):
        problems.add(path, f"{what} holds half a character (a lone surrogate).", row=row)
        return False
    return True
