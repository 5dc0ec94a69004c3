"""Columns that are carried along and not learned, for whose values scores are also told: `data.groups`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data.columns import Columns
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import as_text
from emotion_lightning.data.rows import Corpus
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError

EMPTY = "(empty)"
"""The group of rows whose cell is empty."""

MOST = 500
"""More values than this are no groups to score, but an id, an author or a time."""


def check_columns(path: Path, settings: config.Table, seen: Survey, columns: Columns) -> list[str]:
    """The columns of `data.groups`.

    Args:
        path: the first file, for messages.
        settings: table settings.
        seen: survey of the file.
        columns: the columns of texts, ids and labels.

    Raises:
        UserError: there is no such column, it is empty, or it has another role.
    """
    for name in settings.groups or []:
        files.check_column(path, name, seen.names, example="data.groups=[{}]", asked_by="data.groups")
        if name == columns.text or name == columns.labels_column:
            raise UserError(f"data.groups names {name}, the column of {'texts' if name == columns.text else 'labels'}.")
        if columns.labels_column is None and name in columns.labels:
            raise UserError(f"data.groups names {name}, which data.labels names too; it is one or the other.")
        seen.check_filled(path, name, "data.groups")
    return list(settings.groups or [])


def chosen(corpus: Corpus, names: Sequence[str] | None, place: str) -> Corpus:
    """Keep only these of the columns that a dataset carries along.

    Args:
        corpus: as read, with every column that the dataset has for groups.
        names: of the columns to keep, as `data.groups` says; None: no column.
        place: name of the dataset, for messages.

    Raises:
        UserError: the dataset has no such column.
    """
    for rows in corpus.splits.values():
        for name in names or []:
            if name not in rows.carried:
                known = ", ".join(rows.carried)
                raise UserError(f"data.groups names {name}; the columns of {place} for groups are {known}.")
        rows.carried = {name: rows.carried[name] for name in names or []}
    corpus.decisions.carried = list(names or [])
    return corpus


def as_value(cell: Any) -> str | None:
    """The value of a cell as it is carried along; None if it is empty."""
    return (as_text(cell) or "").strip() or None


def values(column: Sequence[str | None]) -> list[str]:
    """The group of each row."""
    return [EMPTY if value is None else value for value in column]


def check_values(corpus: Corpus) -> None:
    """Raise UserError for a column with more values than can be groups."""
    for name in corpus.decisions.carried:
        found = Counter(value for rows in corpus.splits.values() for value in values(rows.carried.get(name, [])))
        if len(found) > MOST:
            some = ", ".join(value[:40] for value in list(found)[:3])
            raise UserError(
                f"data.groups names {name}, which has {len(found):,} values ({some}, …); groups are at most {MOST}, "
                "such as languages or sources."
            )


def note_new(corpus: Corpus) -> list[str]:
    """Note which groups are scored and not learned; the sentences."""
    found = []
    for name in corpus.decisions.carried:
        by_split = {split: set(values(rows.carried.get(name, []))) for split, rows in corpus.splits.items()}
        for split in ("validation", "test"):
            if new := sorted(by_split.get(split, set()) - by_split["train"]):
                found.append(f"Not in train, but in {split}, by {name}: {files.listed(new)}.")
    corpus.decisions.notes.extend(found)
    return found
