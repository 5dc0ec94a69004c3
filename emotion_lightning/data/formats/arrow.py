"""Readers for parquet, Arrow and Feather files, and for folders saved by `datasets`."""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats.delimited import refuse_repeated
from emotion_lightning.data.formats.encoding import unreadable
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems, Source
from emotion_lightning.errors import UserError

ROWS_AT_ONCE = 4096

SAVED_SPLITS = "dataset_dict.json"
"""File in a folder of splits, written by DatasetDict.save_to_disk."""

_SAVED = "state.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a single split saved by `datasets`."""
    return (folder / _SAVED).is_file()


def saved_splits(folder: Path) -> list[str]:
    """Names of the splits in a folder saved by `datasets`.

    Raises:
        UserError: the folder is damaged.
    """
    try:
        return list(json.loads((folder / SAVED_SPLITS).read_text(encoding="utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SAVED_SPLITS} is damaged ({error}); save the data set again.") from error


def saved_files(folder: Path) -> list[Path]:
    """Arrow files of a single split saved by `datasets`, in order.

    Raises:
        UserError: the folder is damaged or incomplete.
    """
    try:
        state = json.loads((folder / _SAVED).read_text(encoding="utf-8"))
        files = [folder / part["filename"] for part in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / _SAVED} is damaged ({error}); save the data set again.") from error
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder} is not whole: it lacks {file.name}, which {_SAVED} names.")
    return files


def class_names(path: Path) -> dict[str, list[str]]:
    """Names of the label ids in each column of class labels, as `datasets` stores them in or beside a file."""
    import pyarrow.parquet

    try:
        if path.is_dir():
            features = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))["features"]
        elif path.suffix.lower() == ".parquet":
            features = _features(pyarrow.parquet.read_schema(path))
        else:
            with pyarrow.memory_map(str(path)) as mapped:
                features = _features(_open(mapped).schema)
        kinds = {name: feature.get("feature", feature) for name, feature in features.items()}
        return {
            normalised(name): list(kind["names"]) for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"
        }
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError):
        return {}  # not written by `datasets`, or damaged, which is reported when rows are read


def _features(schema: Any) -> dict[str, Any]:
    return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]


def parquet_chunks(path: Path, problems: Problems) -> Iterator[Chunk]:
    """Yield the rows of a parquet file in chunks."""
    import pyarrow.parquet

    with _reading(path), pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
        refuse_repeated(path, list(map(normalised, file.schema_arrow.names)))
        yield from _chunks(path, problems, file.iter_batches(batch_size=ROWS_AT_ONCE))


def parquet_rows(
    path: Path, opened: Any, problems: Problems, *, first: int, count: int, columns: Collection[str]
) -> Iterator[Chunk]:
    """Yield some rows of a parquet file in chunks.

    Args:
        path: the file, for messages.
        opened: its path, or the open file.
        problems: collects cells that are no text.
        first: number of the first row to read, from 1.
        count: number of rows to read.
        columns: names of the columns to read.
    """
    import pyarrow.parquet

    with _reading(path), pyarrow.parquet.ParquetFile(opened, page_checksum_verification=True) as file:
        names = [name for name in file.schema_arrow.names if normalised(name) in columns]
        ends = list(itertools.accumulate(group_sizes(file.metadata)))
        groups = [i for i, end in enumerate(ends) if end >= first and (i == 0 or ends[i - 1] < first + count - 1)]
        before = ends[groups[0] - 1] if groups and groups[0] else 0
        batches = file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups, columns=names)
        yield from _chunks(path, problems, _between(batches, first - 1 - before, count), start=first - 1)


def group_sizes(metadata: Any) -> list[int]:
    """Number of rows in each row group of a parquet file, from its metadata."""
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _between(batches: Iterable[Any], skip: int, count: int) -> Iterator[Any]:
    for batch in batches:
        if skip >= len(batch):
            skip -= len(batch)
            continue
        part = batch.slice(skip, count)
        skip, count = 0, count - len(part)
        yield part
        if not count:
            return


def arrow_chunks(path: Path, problems: Problems) -> Iterator[Chunk]:
    """Yield the rows of an Arrow file or stream, a Feather file, or a folder saved by `datasets`, in chunks."""
    import pyarrow

    row = 0
    for file in saved_files(path) if path.is_dir() else [path]:
        with _reading(file), pyarrow.memory_map(str(file)) as mapped:
            for chunk in _chunks(path, problems, _batches(file, mapped), start=row):
                yield chunk
                row = chunk.rows[-1]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn the errors of a damaged file into a UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error


def _open(mapped: Any) -> Any:
    """Open a reader for an Arrow file or stream."""
    import pyarrow

    start = mapped.read(6)
    mapped.seek(0)
    return pyarrow.ipc.open_file(mapped) if start == b"ARROW1" else pyarrow.ipc.open_stream(mapped)


def _batches(file: Path, mapped: Any) -> Iterator[Any]:
    opened = _open(mapped)
    whole = hasattr(opened, "num_record_batches")
    batches = (opened.get_batch(i) for i in range(opened.num_record_batches)) if whole else iter(opened)
    refuse_repeated(file, list(map(normalised, opened.schema.names)))
    for batch in batches:
        batch.validate(full=True)  # offsets of a damaged file may point anywhere
        for offset in range(0, len(batch), ROWS_AT_ONCE):
            yield batch.slice(offset, ROWS_AT_ONCE)


def _chunks(path: Path, problems: Problems, batches: Iterable[Any], *, start: int = 0) -> Iterator[Chunk]:
    for batch in batches:
        if not len(batch):
            continue
        rows = range(start + 1, start + len(batch) + 1)
        names = map(normalised, batch.schema.names)
        yield Chunk(rows, {name: _cells(path, problems, rows, name, batch.column(i)) for i, name in enumerate(names)})
        start += len(batch)


def _cells(path: Path, problems: Problems, rows: range, name: str, column: Any) -> list[Any]:
    import pyarrow.types

    is_bytes = pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type)
    try:
        if not is_bytes:
            return column.to_pylist()
    except UnicodeDecodeError:
        pass  # the slower code below finds the row
    return [_cell(path, problems, row, name, scalar) for row, scalar in zip(rows, column, strict=True)]


def _cell(path: Path, problems: Problems, row: int, name: str, scalar: Any) -> Any:
    try:
        cell = scalar.as_py()
        return cell.decode() if isinstance(cell, bytes) else cell
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        problems.add(path, f"byte 0x{byte:02x} is not UTF-8; write the texts as UTF-8.", row=row, column=name)
        return None


def dataset_source(path: Path, table: Any) -> Source:
    """The rows of a `datasets.Dataset`.

    Args:
        path: what messages call it.
        table: the dataset.
    """
    return Source(path, partial(_dataset_chunks, path, table), _names_of_ids(table))


def digest(table: Any) -> str:
    """SHA-256 of the cells of a `datasets.Dataset`, with the names of its columns."""
    found = hashlib.sha256()
    for columns in table.iter(batch_size=ROWS_AT_ONCE):
        found.update(repr(sorted(columns.items())).encode("utf-8", errors="surrogatepass"))
    return found.hexdigest()


def _dataset_chunks(path: Path, table: Any, problems: Problems) -> Iterator[Chunk]:
    start = 1
    refuse_repeated(path, list(map(normalised, table.column_names)))
    for columns in table.iter(batch_size=ROWS_AT_ONCE):
        count = len(next(iter(columns.values())))
        yield Chunk(range(start, start + count), {normalised(name): cells for name, cells in columns.items()})
        start += count


def _names_of_ids(table: Any) -> dict[str, list[str]]:
    """Names of the label ids in each column of class labels."""
    kinds = {name: getattr(feature, "feature", feature) for name, feature in table.features.items()}
    return {normalised(name): list(kind.names) for name, kind in kinds.items() if getattr(kind, "names", None)}
