"""Files of texts and labels: detects the format of a file and reads its rows in chunks.

Cells of csv and tsv files stay text. Problems are reported with their row.
"""

import difflib
import hashlib
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data.formats import arrow, delimited, headers, lines
from emotion_lightning.data.formats.encoding import open_text, refuse_other_kinds
from emotion_lightning.data.rows import Problems, Source
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

Record = tuple[int, dict[str, Any]]
"""Row number, from 1, and cells by column."""

_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "txt",
}
ROW = "row"
"""Name of the column of row numbers, and the value of data.id_column that asks for it."""

_SEVERAL = re.compile(r"\w\s*(,|;|\t|\||\^|~|::?)\s*\w")
TEXT_COLUMNS = ("text", "tweet", "sentence", "comment", "content", "message", "body", "utterance", "review", "post")
ID_COLUMNS = ("id", "row_id", "uid", "tweet_id", "comment_id", "text_id", "key", "index")


def kind(path: Path) -> str:
    """Format of a file by its suffix: csv, tsv, jsonl, json, parquet, arrow or txt; text formats may end in .gz.

    Raises:
        UserError: the suffix is not known.
    """
    if path.is_dir():
        return "arrow"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:]
    found = _KINDS.get(suffix[0]) if suffix else None
    if found is None or (zipped and found in ("parquet", "arrow")):
        if path.is_file():
            refuse_other_kinds(path)
        raise UserError(f"{path}: its format is not known; name it {', '.join(_KINDS)}, the text ones also with .gz.")
    return found


def check_exists(path: Path) -> None:
    """Raise UserError unless the path is a file that is not empty, or a folder saved by `datasets`."""
    if path.is_dir():
        if arrow.is_saved(path):
            return
        raise UserError(f"{path} is a folder; give a file in it.{_splits_in(path)}")
    if not path.exists():
        beside = sorted(other.name for other in path.parent.glob("*" + path.suffix)) if path.parent.is_dir() else []
        hint = f" Its folder has {', '.join(beside[:5])}." if beside else ""
        raise UserError(f"{path} does not exist.{hint}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")


def _splits_in(folder: Path) -> str:
    """The settings that read the splits in a folder, as a sentence; empty if no files are named like splits."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and set(file.suffixes) & set(_KINDS))
    words = {file: set(re.split(r"[^a-z]+", file.name.lower())) for file in files}
    usual = {
        "train": {"train", "training"},
        "validation": {"validation", "valid", "val", "dev"},
        "test": {"test", "testing"},
    }
    found = {split: next((file for file in files if words[file] & names), None) for split, names in usual.items()}
    if found["train"] is None:
        return f" It has {', '.join(file.name for file in files[:5])}." if files else ""
    named = " ".join(f"data.{split}={file}" for split, file in found.items() if file is not None)
    return f" For its splits: {named}"


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, or of the files in a folder saved by `datasets`."""
    total = hashlib.sha256()
    if path.is_dir():
        for part in arrow.saved_files(path):
            total.update(sha256(part).encode())
        return total.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source(
    path: Path,
    encoding: str | None = None,
    *,
    header: config.Header | None = config.Header.first,
    columns: list[str] | None = None,
    table: bool = False,
) -> Source:
    """Return a file as a source that is read in chunks.

    Args:
        path: file to read.
        encoding: encoding of a text file; None means UTF-8.
        header: line of a table that names its columns; None: the first, which is refused if it looks like data.
        columns: names of the columns of a table without a header line.
        table: whether a text file (.txt) is expected to be a table, so that one of tabs or semicolons is read as one.

    Raises:
        UserError: the file does not exist, is empty, is of a format that is not known, or starts with data.
    """
    check_exists(path)
    found = kind(path)
    names = (columns or []) if header is config.Header.none else None
    if found == "txt":
        delimiter = delimited.table_delimiter(path, encoding, names=TEXT_COLUMNS)
        if delimiter is not None and (table or names is not None or _names_text(path, encoding, delimiter)):
            found = "tsv" if delimiter == "\t" else "csv"
            log.info("%s is read as a table: its lines are separated by %r.", path, delimiter)
    if header is None and found in ("csv", "tsv"):
        rows = delimited.first_rows(path, tabs=found == "tsv", encoding=encoding)
        headers.check_header(path, rows, usual=(*TEXT_COLUMNS, *ID_COLUMNS))
    readers = {
        "csv": partial(delimited.chunks, path, tabs=False, encoding=encoding, names=names),
        "tsv": partial(delimited.chunks, path, tabs=True, encoding=encoding, names=names),
        "jsonl": partial(lines.jsonl_chunks, path, encoding=encoding),
        "json": partial(lines.json_chunks, path, encoding=encoding),
        "txt": partial(lines.text_chunks, path, encoding=encoding),
        "parquet": partial(arrow.parquet_chunks, path),
        "arrow": partial(arrow.arrow_chunks, path),
    }
    class_names = arrow.class_names(path) if found in ("parquet", "arrow") else {}
    return Source(path, readers[found], class_names, _about(path, found, encoding, names))


def _names_text(path: Path, encoding: str | None, delimiter: str) -> bool:
    """Whether the first line of a text file is a header with a usual name of a text column."""
    with open_text(path, encoding) as file:
        first = next((line for line in file if line.strip()), "")
    return any(name.strip().strip('"').lower() in TEXT_COLUMNS for name in first.split(delimiter))


def _about(path: Path, found: str, encoding: str | None, names: list[str] | None) -> dict[str, Any]:
    """How a file is read, for data.json."""
    about: dict[str, Any] = {"format": found}
    if found not in ("parquet", "arrow"):
        about["encoding"] = encoding or "utf-8"
    if found in ("csv", "tsv"):
        dialect = delimited.recognise(path, tabs=found == "tsv", encoding=encoding)
        about |= {"delimiter": _DELIMITER_NAMES.get(dialect.delimiter, dialect.delimiter), "quotes": str(dialect)}
        about["header"] = "first line" if names is None else "none"
    return about


_DELIMITER_NAMES = {"\t": "tab", " ": "space"}


def no_rows(path: Path) -> str:
    """Message for a file without rows."""
    has_header = {".csv", ".tsv"} & {suffix.lower() for suffix in path.suffixes}
    return f"{path} has {'a header and ' if has_header else ''}no rows."


def records(path: Path, problems: Problems | None = None, *, encoding: str | None = None) -> Iterator[Record]:
    """Yield the rows of a file one by one; memory does not grow with the file.

    Raises:
        UserError: the file cannot be read. Rows of a wrong shape raise too, unless `problems` is given: then they are
            added to it and skipped.
    """
    gathered = problems if problems is not None else Problems()
    for chunk in source(path, encoding).chunks(gathered):
        if problems is None:
            gathered.raise_any()
        for i, row in enumerate(chunk.rows):
            yield row, {name: cells[i] for name, cells in chunk.columns.items()}
    if problems is None:
        gathered.raise_any()


def text_column(path: Path | str, names: list[str], wanted: str | None, *, setting: str = "data.text") -> str:
    """Name of the text column: the wanted one, one with a usual name, or the only one.

    Args:
        path: file, or the name of another table, for messages.
        names: names of the columns.
        wanted: name that the user gave.
        setting: name of the setting that gives `wanted`, for messages.

    Raises:
        UserError: there is no such column.
    """
    return _column(path, names, wanted, usual=TEXT_COLUMNS, setting=setting)


def id_column(path: Path, names: list[str], wanted: str | None, *, text: str) -> str | None:
    """Name of the id column; None if there is none, so that row numbers are the ids.

    Raises:
        UserError: the wanted column does not exist or is the text column.
    """
    if wanted == text:
        raise UserError(f"data.id_column={wanted} is the column of the texts; name another, or row to count rows.")
    if wanted == ROW and ROW not in names:
        return None
    names = [name for name in names if name != text]
    if wanted is None and not any(name.lower() in ID_COLUMNS for name in names):
        return None
    return _column(path, names, wanted, usual=ID_COLUMNS, setting="data.id_column")


def listed(names: list[str]) -> str:
    """Names for a message: the first twenty, with long ones shortened."""
    return ", ".join(name if len(name) <= 40 else f"{name[:39]}…" for name in names[:20]) + (
        " …" if len(names) > 20 else ""
    )


def near(wanted: str, names: list[str]) -> str | None:
    """The most similar of `names`, for a suggestion; None if none is similar."""
    same = {name.lower(): name for name in names}.get(wanted.lower())
    return same or next(iter(difflib.get_close_matches(wanted, names, n=1)), None)


def _column(path: Path | str, names: list[str], wanted: str | None, *, usual: tuple[str, ...], setting: str) -> str:
    if wanted is not None:
        if wanted in names:
            return wanted
        meant = near(wanted, names)
        hint = f"; did you mean {setting}={meant}?" if meant else "."
        raise UserError(f"{path} has no column {wanted}; its columns are {listed(names)}{hint}")
    by_name = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name in by_name:
            return by_name[name]
    if len(names) == 1:
        if _SEVERAL.search(names[0]):
            raise UserError(
                f"{path} has a single column, {listed(names)}, whose name looks like several: its cells are marked off "
                f"in another way than its name says. Save it as csv with commas, or name the column: {setting}=…"
            )
        return names[0]
    raise UserError(
        f"{path} has no column with a usual name for texts; its columns are {listed(names)}. Name one: {setting}=…"
    )
