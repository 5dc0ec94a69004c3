"""Rows out of csv, tsv, jsonl, parquet and text files, one at a time.

pandas and datasets read a text such as "NA" as missing, a semicolon file as one column and a numeric text as a number;
here every cell of a text file stays the text it is, and what is wrong is reported with its row.
"""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from emotion_lightning.data.rows import Problems
from emotion_lightning.errors import UserError

Record = tuple[int, dict[str, Any]]
"""Row number, from 1, and cells by column."""

_DELIMITERS = ",;\t|"
_TEXT_COLUMNS = ("text", "tweet", "sentence", "comment", "content", "message", "body", "utterance", "review", "post")
_ID_COLUMNS = ("id", "row_id", "uid", "tweet_id", "comment_id", "text_id", "key", "index")

# Texts may be longer than the 128 KiB that the csv module takes by default.
csv.field_size_limit(2**31 - 1)


def kind(path: Path) -> str:
    """csv, tsv, jsonl, parquet or txt, by suffix; gzip of the text ones is read too."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    known = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "txt"}
    if suffixes and suffixes[-1] in known:
        return known[suffixes[-1]]
    raise UserError(f"{path}: its format is not known; name it .csv, .tsv, .jsonl, .parquet or .txt.")


def check_exists(path: Path) -> None:
    """Raise UserError unless the path is a readable file with something in it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file in it.")
    if not path.exists():
        beside = sorted(other.name for other in path.parent.glob("*" + path.suffix)) if path.parent.is_dir() else []
        hint = f" {path.parent} has {', '.join(beside[:5])}." if beside else ""
        raise UserError(f"{path} does not exist.{hint}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def columns(path: Path) -> list[str]:
    """Column names, in the order of the file."""
    check_exists(path)
    if kind(path) == "parquet":
        return list(_parquet(path).schema_arrow.names)
    for _, record in records(path):
        return list(record)
    raise no_rows(path)


def no_rows(path: Path) -> UserError:
    """The error for a file that holds none."""
    return UserError(f"{path} has {'a header and ' if kind(path) in ('csv', 'tsv') else ''}no rows.")


def records(path: Path, problems: Problems | None = None) -> Iterator[Record]:
    """Yield the rows of a file one by one; memory does not grow with the file.

    Raises:
        UserError: the file cannot be read. Rows of a wrong shape go to `problems` where it is given and are left out,
            else they raise too.
    """
    check_exists(path)
    gathered = problems if problems is not None else Problems()
    reader = {"csv": _csv, "tsv": _csv, "jsonl": _jsonl, "parquet": _parquet_rows, "txt": _lines}[kind(path)]
    for row, record in reader(path, gathered):
        if problems is None:
            gathered.raise_any()
        yield row, record
    if problems is None:
        gathered.raise_any()


def text_column(path: Path, names: list[str], wanted: str | None) -> str:
    """The column that holds the texts."""
    return _column(path, names, wanted, usual=_TEXT_COLUMNS, setting="data.text")


def id_column(path: Path, names: list[str], wanted: str | None) -> str | None:
    """The column that identifies rows, or None where there is none."""
    if wanted is None and not any(name.lower() in _ID_COLUMNS for name in names):
        return None
    return _column(path, names, wanted, usual=_ID_COLUMNS, setting="data.id_column")


def as_text(value: Any) -> str | None:
    """A cell as text; None where it holds nothing or a structure."""
    if value is None or isinstance(value, dict | list):
        return None
    return value if isinstance(value, str) else str(value)


def _column(path: Path, names: list[str], wanted: str | None, *, usual: tuple[str, ...], setting: str) -> str:
    listed = ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
    if wanted is not None:
        if wanted in names:
            return wanted
        near = {name.lower(): name for name in names}.get(wanted.lower())
        if near is None:
            import difflib

            near = next(iter(difflib.get_close_matches(wanted, names, n=1)), None)
        hint = f"; did you mean {setting}={near}?" if near else "."
        raise UserError(f"{path} has no column {wanted}; its columns are {listed}{hint}")
    by_name = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name in by_name:
            return by_name[name]
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"{path} has no column with a usual name for texts; its columns are {listed}. Name one: {setting}=…"
    )


def _open(path: Path) -> TextIO:
    raw: Any = gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # noqa: SIM115  # closed with the wrapper
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _decoding_error(path: Path, error: UnicodeDecodeError) -> UserError:
    byte = error.object[error.start]
    return UserError(f"{path} is not UTF-8 (byte 0x{byte:02x}: {error.reason}); save it as UTF-8.")


def _csv(path: Path, problems: Problems) -> Iterator[Record]:
    try:
        with _open(path) as file:
            delimiter = "\t" if kind(path) == "tsv" else _delimiter(path)
            reader = csv.reader(_without_nul(file, path), delimiter=delimiter, strict=True)
            header = next(reader, None)
            if not header or not any(header):
                raise UserError(f"{path} has no header; its first line must name the columns.")
            header = [name.strip() for name in header]
            _refuse_repeated(path, header)
            row = 0
            for cells in reader:
                if not cells:
                    continue  # a blank line, as at the end of many files
                row += 1
                if len(cells) != len(header):
                    problems.add(
                        path,
                        f"{len(cells)} cells under a header of {len(header)} columns (line {reader.line_num}); "
                        "quote texts that hold the delimiter.",
                        row=row,
                    )
                    continue
                yield row, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise _decoding_error(path, error) from error
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error}; put quotes around the whole cell and double those inside it."
        ) from error
    except (zlib.error, EOFError, OSError) as error:
        raise _unreadable(path, error) from error


def _refuse_repeated(path: Path, header: list[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has more than one column named {', '.join(repeated)}; rename one.")


def _without_nul(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise UserError(f"{path}, line {number}: a NUL byte; the file is damaged or not a text file.")
        yield line


def _delimiter(path: Path) -> str:
    with _open(path) as file:
        header = file.readline()
    counts = {delimiter: len(next(csv.reader([header], delimiter=delimiter), [])) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter])


def _jsonl(path: Path, problems: Problems) -> Iterator[Record]:
    row = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row += 1
                try:
                    record = json.loads(line)
                    if "\\u" in line:
                        json.dumps(record, ensure_ascii=False).encode()
                except json.JSONDecodeError as error:
                    problems.add(
                        path, f"line {number} is not JSON ({error.msg} at character {error.pos + 1}).", row=row
                    )
                    continue
                except UnicodeEncodeError:
                    problems.add(path, f"line {number} holds half a character (a lone surrogate).", row=row)
                    continue
                except (ValueError, RecursionError) as error:
                    problems.add(path, f"line {number} cannot be read ({error}).", row=row)
                    continue
                if not isinstance(record, dict):
                    problems.add(path, f'line {number} is not an object such as {{"text": …}}.', row=row)
                    continue
                yield row, record
    except UnicodeDecodeError as error:
        raise _decoding_error(path, error) from error
    except (zlib.error, EOFError, OSError) as error:
        raise _unreadable(path, error) from error


def _lines(path: Path, problems: Problems) -> Iterator[Record]:
    try:
        with _open(path) as file:
            for row, line in enumerate(file, start=1):
                yield row, {"text": line.rstrip("\r\n")}
    except UnicodeDecodeError as error:
        raise _decoding_error(path, error) from error
    except (zlib.error, EOFError, OSError) as error:
        raise _unreadable(path, error) from error


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    _refuse_repeated(path, list(file.schema_arrow.names))
    return file


def _parquet_rows(path: Path, problems: Problems) -> Iterator[Record]:
    import pyarrow

    row = 0
    try:
        for batch in _parquet(path).iter_batches(batch_size=4096):
            for record in batch.to_pylist():
                row += 1
                yield row, {name: _decoded(cell) for name, cell in record.items()}
    except UnicodeDecodeError as error:
        raise _decoding_error(path, error) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _decoded(cell: Any) -> Any:
    return cell.decode() if isinstance(cell, bytes) else cell


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, PermissionError):
        return UserError(f"{path} cannot be read: permission denied.")
    return UserError(
        f"{path} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
        "it is damaged, cut short or of another format."
    )
