"""Files of texts and labels: detects the format of a file and reads its rows in chunks.

Cells of csv and tsv files stay text. Problems are reported with their row.
"""

import dataclasses
import difflib
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from emotion_lightning import config, terminal
from emotion_lightning.data.formats import (
    archive,
    arrow,
    database,
    delimited,
    dialogues,
    headers,
    lines,
    webanno,
    workbook,
)
from emotion_lightning.data.formats.encoding import open_text, refuse_other_kinds
from emotion_lightning.data.rows import Chunk, Problems, Roles, Source
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
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".zip": "zip",
}
SUFFIXES = tuple(_KINDS)
"""Suffixes of the files that are read; the text ones may be followed by .gz."""

_TEXT_KINDS = ("csv", "tsv", "jsonl", "json", "txt")
ROW = "row"
"""Name of the column of row numbers, and the value of data.id_column that asks for it."""

_SEVERAL = re.compile(r"\w\s*(,|;|\t|\||\^|~|::?)\s*\w")
TEXT_COLUMNS = ("text", "tweet", "sentence", "comment", "content", "message", "body", "utterance", "review", "post")
ID_COLUMNS = ("id", "row_id", "uid", "tweet_id", "comment_id", "text_id", "key", "index")


def has_known_suffix(path: Path) -> bool:
    """Whether the name of a file says a format that is read."""
    return kind_by_name(path) is not None


def kind_by_name(path: Path) -> str | None:
    """Format that the name of a file says, as `kind` returns it; None if it says none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:]
    found = _KINDS.get(suffix[0]) if suffix else None
    return None if zipped and found not in _TEXT_KINDS else found


def kind(path: Path) -> str:
    """Format of a file by its suffix: csv, tsv, jsonl, json, parquet, arrow, txt, excel, sqlite or zip.

    Text formats may end in .gz.

    Raises:
        UserError: the suffix is not known.
    """
    if path.is_dir():
        return "arrow"
    found = kind_by_name(path)
    if found is None:
        if path.is_file():
            refuse_other_kinds(path)
        raise UserError(f"{path}: its format is not known; name it {', '.join(_KINDS)}, the text ones also with .gz.")
    return found


def check_exists(path: Path) -> None:
    """Raise UserError unless the path is a file that is not empty, or a folder saved by `datasets`."""
    if path.is_dir():
        if arrow.is_saved(path):
            return
        inside = sorted(file.name for file in path.iterdir() if file.is_file() and has_known_suffix(file))
        hint = f" It has {', '.join(inside[:5])}{' …' if len(inside) > 5 else ''}." if inside else ""
        raise UserError(f"{path} is a folder; give a file in it.{hint}")
    if not path.exists():
        beside = sorted(other.name for other in path.parent.glob("*" + path.suffix)) if path.parent.is_dir() else []
        hint = f" Its folder has {', '.join(beside[:5])}." if beside else ""
        raise UserError(f"{path} does not exist.{hint}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")


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
    labelled: bool = False,
    table: str | None = None,
) -> Source:
    """Return a file as a source that is read in chunks.

    Args:
        path: file to read.
        encoding: encoding of a text file; None means UTF-8.
        header: line of a table that names its columns; None: the first, which is refused if it looks like data.
        columns: names of the columns of a table without a header line.
        labelled: whether labels are read, so that a text file (.txt) of tabs or semicolons is read as a table.
        table: name of the sheet of an Excel file, of the table of a database or of the file in a zip file; None: the
            only one.

    Raises:
        UserError: the file does not exist, is empty, is of a format that is not known, or starts with data.
    """
    check_exists(path)
    found = kind(path)
    names = (columns or []) if header is config.Header.none else None
    if found == "zip":
        return _unpacked(path, encoding, header=header, columns=columns, labelled=labelled, table=table)
    if found == "excel":
        return _sheet(path, header=header, names=names, table=table)
    if found == "sqlite":
        name = database.table_name(path, table)
        about = {"format": "sqlite", "table": name}
        return Source(path, partial(database.chunks, path, table=name), about=about)
    if table is not None:
        raise UserError(f"data.table={table} is for Excel, SQLite and zip files; {path} holds a single table.")
    if found == "json":
        lines.refuse_cas(path, encoding)
    if dialogues.is_dialogues(path) and labelled and names is None:
        return dialogues.source(path, encoding)
    if found in ("tsv", "txt") and webanno.is_webanno(path, encoding):
        return _webanno(path, encoding)
    if found == "txt":
        delimiter = delimited.table_delimiter(path, encoding, names=TEXT_COLUMNS)
        if delimiter is not None and (labelled or names is not None or _names_text(path, encoding, delimiter)):
            found = "tsv" if delimiter == "\t" else "csv"
            log.info("%s is read as a table: its lines are separated by %r.", path, delimiter)
    if found == "txt" and (labelled or names is not None):
        ends = delimited.labelled_lines(path, encoding)
        if ends is not None and names is None and header is None:
            raise UserError(ends.question(path), ways=[{"header": "none", "columns": ["text", "label"]}])
        if ends is not None and names is not None:
            chunks = partial(delimited.chunks, path, tabs=False, encoding=encoding, names=names, dialect=ends.dialect)
            return Source(path, chunks, about=_about(path, "csv", encoding, names, ends.dialect))
    if header is None and found in ("csv", "tsv"):
        rows = delimited.first_rows(path, tabs=found == "tsv", encoding=encoding)
        headers.check_header(path, rows, usual=(*TEXT_COLUMNS, *ID_COLUMNS), encoding=encoding)
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


def _unpacked(path: Path, encoding: str | None, **options: Any) -> Source:
    """A file in a zip file; it stays unpacked as long as the source is used."""
    inner = archive.Unpacked(path, options.pop("table"), _KINDS.keys() - {".zip"})
    shown = path / terminal.one_line(
        PurePosixPath(inner.name.replace("\\", "/")).name
    )  # the whole name may lead anywhere
    try:
        found = source(inner.path, encoding, **options)
    except UserError as error:
        raise UserError(str(error).replace(str(inner.path), str(shown)), ways=error.ways) from error
    chunks = found.renamed(shown).chunks

    def read(problems: Problems, kept: archive.Unpacked = inner) -> Iterator[Chunk]:
        return chunks(problems)

    about = {"format": found.about["format"], "table": inner.name} | found.about
    return dataclasses.replace(found, path=shown, chunks=read, about=about)


def _sheet(path: Path, *, header: config.Header | None, names: list[str] | None, table: str | None) -> Source:
    sheet = workbook.Sheet(path, table)
    if header is None:
        headers.check_header(path, sheet.written(), usual=(*TEXT_COLUMNS, *ID_COLUMNS))
    about = {"format": "excel", "table": sheet.name, "header": "first line" if names is None else "none"}
    return Source(path, partial(sheet.chunks, names=names), about=about)


def _webanno(path: Path, encoding: str | None) -> Source:
    found = webanno.features(path, encoding)
    log.info("%s is read as INCEpTION exports it, with a row for each sentence.", path)
    roles = Roles("text", None, found[0] if len(found) == 1 else None)
    about = {"format": "WebAnno TSV", "encoding": encoding or "utf-8", "tool": "INCEpTION"}
    chunks = partial(webanno.chunks, path, encoding=encoding)
    return Source(path, chunks, about=about, roles=roles, questions=tuple(found) if len(found) > 1 else ())


def _names_text(path: Path, encoding: str | None, delimiter: str) -> bool:
    """Whether the first line of a text file is a header with a usual name of a text column."""
    with open_text(path, encoding) as file:
        first = next((line for line in file if line.strip()), "")
    return any(name.strip().strip('"').lower() in TEXT_COLUMNS for name in first.split(delimiter))


def _about(
    path: Path, found: str, encoding: str | None, names: list[str] | None, dialect: delimited.Dialect | None = None
) -> dict[str, Any]:
    """How a file is read, for data.json."""
    about: dict[str, Any] = {"format": found}
    if found not in ("parquet", "arrow"):
        about["encoding"] = encoding or "utf-8"
    if found in ("csv", "tsv"):
        dialect = dialect or delimited.recognise(path, tabs=found == "tsv", encoding=encoding)
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


def text_column(
    path: Path | str,
    names: list[str],
    wanted: str | None,
    *,
    setting: str = "data.text",
    inside: Sequence[str] = (),
) -> str:
    """Name of the text column: the wanted one, one with a usual name, or the only one.

    Args:
        path: file, or the name of another table, for messages.
        names: names of the columns.
        wanted: name that the user gave.
        setting: name of the setting that gives `wanted`, for messages.
        inside: paths into columns that hold objects, for messages.

    Raises:
        UserError: there is no such column.
    """
    return _column(path, names, wanted, usual=TEXT_COLUMNS, setting=setting, inside=inside)


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


def check_column(
    path: Path | str,
    wanted: str,
    names: list[str],
    *,
    example: str,
    asked_by: str = "",
    inside: Sequence[str] = (),
    way: str | None = None,
) -> None:
    """Raise UserError if there is no such column.

    Args:
        path: where it is looked for, for the message.
        wanted: its name.
        names: the columns that there are.
        example: how a similar name would be given, with {} in its place, such as data.groups=[{}].
        asked_by: the setting that names it, to be told beside the name; empty if the example tells it.
        inside: paths into these columns, which may be meant too.
        way: the setting with which a similar name would mend it, for `UserError.ways`.
    """
    if wanted in names:
        return
    meant = near(wanted, [*names, *inside])
    into = f" (paths into them: {listed(list(inside))})" if inside else ""
    by = f" ({asked_by})" if asked_by else ""
    hint = f"; did you mean {example.format(meant)}?" if meant else "."
    raise UserError(
        f"{path} has no column {wanted}{by}; its columns are {listed(names)}{into}{hint}",
        ways=[{way: meant}] if meant and way else [],
    )


def _column(
    path: Path | str,
    names: list[str],
    wanted: str | None,
    *,
    usual: tuple[str, ...],
    setting: str,
    inside: Sequence[str] = (),
) -> str:
    into = f" (paths into them: {listed(list(inside))})" if inside else ""
    if wanted is not None:
        check_column(path, wanted, names, example=f"{setting}={{}}", inside=inside)
        return wanted
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
    likely = next((path for name in usual for path in inside if path.rpartition(".")[2].lower() == name), "…")
    raise UserError(
        f"{path} has no column with a usual name for texts; its columns are {listed(names)}{into}. Name one: "
        f"{setting}={likely}",
        ways=[{"text": likely}] if likely != "…" else [],
    )
