"""Prediction files: csv, jsonl or parquet by suffix, with one row for each input row, in the same order."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation.explanations import Explanation
from emotion_lightning.evaluation.intensities import Intensities
from emotion_lightning.runs.files import atomic_write

SUFFIXES = (".csv", ".jsonl", ".parquet")
EXPLANATION = "explanation"
"""Column of explanations."""


@dataclass
class Predicted:
    """Decisions and probabilities of some rows, [row, label], with their ids and texts.

    Attributes:
        ids: of the rows.
        texts: of the rows.
        decisions: bool, [row, label].
        probabilities: [row, label].
        explanations: of each row; None without.
        intensities: expected ones, [row, label]; None without.
        kept: cells of further columns of the input, by name, in the order of the rows.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    decisions: Tensor
    probabilities: Tensor
    explanations: Sequence[Explanation] | None = None
    intensities: Tensor | None = None
    kept: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Writer(Protocol):
    """Writes rows to an open prediction file."""

    def write(self, rows: Predicted) -> None:
        """Append rows."""


def check_output(path: Path) -> None:
    """Raise UserError if no prediction file can be written to this path; call it before any other work."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: predictions are written as {', '.join(SUFFIXES)}; name the file so.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file name in it.")
    if path.parent.exists() and not path.parent.is_dir():
        raise UserError(f"{path}: {path.parent} is a file, not a folder.")


def write_decisions(
    path: Path,
    rows: Rows,
    probabilities: Tensor,
    decisions: Tensor,
    *,
    labels: Sequence[str],
    settings: config.PredictionFile,
    intensities: Tensor | None = None,
) -> None:
    """Write decisions, bool, probabilities and, if the settings ask for them, intensities, [row, label] each."""
    with writer_for(path, labels, settings, id_column=rows.id_column) as open_writer:
        open_writer.write(Predicted(rows.ids, rows.texts, decisions, probabilities, intensities=intensities))


def check_intensities(settings: config.PredictionFile, learned: Intensities | None, run: str) -> None:
    """Raise UserError if intensities are asked for that a run has not learned; `run` names it."""
    if settings.intensities and learned is None:
        raise UserError(
            f"predict.intensities=true adds expected intensities, and {run} has none; train with data.scale=N, "
            "which says where the intensities of the labels end, or leave it out."
        )


@contextmanager
def writer_for(
    path: Path, labels: Sequence[str], settings: config.PredictionFile, *, id_column: str, explained: bool = False,
    kept: Mapping[str, Any] | None = None,
) -> Iterator[Writer]:  # fmt: skip
    """Open a writer. Its file appears under its name only when all rows are written, and not after an error.

    Args:
        path: file to write.
        labels: label names.
        settings: how the file is written.
        id_column: name of the id column.
        explained: whether the rows have explanations, for which a last column is written.
        kept: type of pyarrow of each further column of the input, by name; None for text.

    Raises:
        UserError: the path is unsuitable, or two columns would have the same name.
    """
    check_output(path)
    names = column_names(path, labels, settings, id_column=id_column, explained=explained, kept=kept)
    table = _Table(
        names,
        text=settings.text,
        probabilities=settings.columns is config.PredictionColumns.all,
        intensities=settings.intensities,
        safe=settings.csv_safe,
        explained=explained,
        kept=dict(kept or {}),
    )
    with atomic_write(path) as temporary:
        match path.suffix.lower():
            case ".csv":
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    yield _CSV(file, table)
            case ".jsonl":
                with temporary.open("w", encoding="utf-8") as file:
                    yield _JSONL(file, table)
            case _:
                with _Parquet(temporary, table, labels) as parquet:
                    yield parquet


def column_names(
    path: Path | str, labels: Sequence[str], settings: config.PredictionFile, *, id_column: str,
    explained: bool = False, kept: Mapping[str, Any] | None = None,
) -> list[str]:  # fmt: skip
    """Names of the columns of a prediction file. Arguments as of `writer_for`.

    Raises:
        UserError: two columns would have the same name.
    """
    names = [
        id_column,
        *(["text"] if settings.text else []),
        *(kept or {}),
        *labels,
        *[f"p_{name}" for name in labels if settings.columns is config.PredictionColumns.all],
        *[f"i_{name}" for name in labels if settings.intensities],
        *([EXPLANATION] if explained else []),
    ]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        mend = ", or leave the column out of predict.keep." if repeated & set(kept or {}) else "."
        raise UserError(
            f"{path} would have two columns named {', '.join(sorted(repeated))}; rename the id column or label{mend}"
        )
    return names


@dataclass
class _Table:
    names: list[str]
    text: bool
    probabilities: bool
    intensities: bool
    safe: bool
    explained: bool
    kept: dict[str, Any]

    def rows(self, rows: Predicted) -> Iterator[list[Any]]:
        decisions = rows.decisions.int().tolist()
        shares = _plain(rows.probabilities)
        expected = _plain(self.expected(rows)) if self.intensities else []
        beside = [[_plain_cell(cell) for cell in rows.kept[name]] for name in self.kept]
        for i, identifier in enumerate(rows.ids):
            text = [*([rows.texts[i]] if self.text else []), *[cells[i] for cells in beside]]
            explanation = self.explanations(rows)[i : i + 1]
            numbers = [*(shares[i] if self.probabilities else []), *(expected[i] if self.intensities else [])]
            yield [identifier, *text, *decisions[i], *numbers, *explanation]

    def expected(self, rows: Predicted) -> Tensor:
        """The expected intensities, which are there where their columns are."""
        assert rows.intensities is not None
        return rows.intensities

    def explanations(self, rows: Predicted) -> list[list[dict[str, Any]]]:
        """For each row an entry for each explained label and each word; empty without this column."""
        return [_entries(one) for one in rows.explanations or ()] if self.explained else []


def _plain_cell(cell: Any) -> Any:
    """A cell as json and csv write it."""
    return cell if isinstance(cell, str | int | float | bool | list | dict | None) else str(cell)


def _cell_as_text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    return json.dumps(cell, ensure_ascii=False, default=str)


def _plain(values: Tensor) -> list[list[float]]:
    # Nine significant digits are enough to restore the same float32.
    return [[float(f"{value:.9g}") for value in row] for row in values.float().tolist()]


def _entries(explanation: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "word": word.text,
            "start": word.start,
            "end": word.end,
            # More digits than the sum is exact to would only make files large.
            "attribution": round(word.attributions[label], 6),
        }
        for label in explanation.labels
        for word in explanation.words
    ]


def csv_writer(file: Any) -> Any:
    """A writer of csv rows that ends lines with LF and quotes cells with CR or LF."""
    return csv.writer(_UnixLines(file))


class _UnixLines:
    """Replaces CR LF at the end of a line by LF; the csv module keeps CR LF so that it quotes cells with CR or LF."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


class _CSV:
    def __init__(self, file: Any, table: _Table) -> None:
        self._writer = csv_writer(file)
        self._table = table
        self._writer.writerow([_safe_in_spreadsheets(name) for name in table.names] if table.safe else table.names)

    def write(self, rows: Predicted) -> None:
        for row in self._table.rows(rows):
            row = [_cell_as_text(cell) if isinstance(cell, list | dict) else cell for cell in row]
            self._writer.writerow([_safe_in_spreadsheets(cell) for cell in row] if self._table.safe else row)


def _safe_in_spreadsheets(cell: Any) -> Any:
    # A spreadsheet runs a cell that begins like a formula (OWASP, CSV injection).
    return "'" + cell if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r\0") else cell


class _JSONL:
    def __init__(self, file: Any, table: _Table) -> None:
        self._file = file
        self._table = table

    def write(self, rows: Predicted) -> None:
        for row in self._table.rows(rows):
            self._file.write(
                json.dumps(dict(zip(self._table.names, row, strict=True)), ensure_ascii=False, default=str) + "\n"
            )


class _Parquet:
    def __init__(self, path: Path, table: _Table, labels: Sequence[str]) -> None:
        import pyarrow
        import pyarrow.parquet

        types = [pyarrow.string()] * (2 if table.text else 1)
        types += [pyarrow.string() if kind is None else kind for kind in table.kept.values()]
        types += [pyarrow.int8()] * len(labels)
        types += [pyarrow.float32()] * (len(labels) * (table.probabilities + table.intensities))
        if table.explained:
            entry = {
                "label": pyarrow.string(), "word": pyarrow.string(), "start": pyarrow.int32(), "end": pyarrow.int32(),
                "attribution": pyarrow.float32(),
            }  # fmt: skip
            types.append(pyarrow.list_(pyarrow.struct(list(entry.items()))))
        self._schema = pyarrow.schema(list(zip(table.names, types, strict=True)))
        self._table = table
        self._pyarrow = pyarrow
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, rows: Predicted) -> None:
        texts = [list(rows.texts)] if self._table.text else []
        shares = rows.probabilities.float().numpy() if self._table.probabilities else np.zeros((len(rows.ids), 0))
        kept = [
            list(map(_cell_as_text, rows.kept[name])) if kind is None else list(rows.kept[name])
            for name, kind in self._table.kept.items()
        ]
        columns = [list(rows.ids), *texts, *kept, *rows.decisions.numpy().astype(np.int8).T, *shares.T]
        if self._table.intensities:
            columns += [*self._table.expected(rows).float().numpy().T]
        if self._table.explained:
            columns.append(self._table.explanations(rows))
        self._writer.write_table(
            self._pyarrow.table(
                [self._pyarrow.array(c, t.type) for c, t in zip(columns, self._schema, strict=True)],
                schema=self._schema,
            )
        )
