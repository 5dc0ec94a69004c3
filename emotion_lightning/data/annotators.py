"""Rows of several annotators, who each labelled the same texts: joined by majority on request, otherwise refused."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import kinds
from emotion_lightning.data.columns import Columns
from emotion_lightning.data.formats import files
from emotion_lightning.data.labels import Targets
from emotion_lightning.data.overlap import group_numbers, groups_of
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_MOST = 0.5
"""If at least this fraction of the rows has the text of another row, texts are hardly repeated by chance."""


ADVICE = "data.aggregate=majority makes one row of each text, with the labels that more than half of its rows have."
"""What to do with the rows of several annotators."""


def joined(corpus: Corpus, settings: config.Table, seen: Survey, *, path: Path) -> Corpus:
    """Join the rows of several annotators as the settings say.

    Args:
        corpus: as read, with a row for each annotator.
        settings: table settings.
        seen: survey of the first source, which says whether there is a column of annotators.
        path: the first source, for messages.

    Raises:
        UserError: texts stand in several rows with a column of annotators, and no setting says what to do; or rows of
            one id have different texts.
    """
    if settings.aggregate is None:
        _check(corpus, settings, seen, path)
        return corpus
    splits = {name: _majority(rows, path) for name, rows in corpus.splits.items()}
    before, after = (sum(map(len, parts.values())) for parts in (corpus.splits, splits))
    if before == after:
        log.warning("data.aggregate=%s joins nothing: no id or text stands in several rows.", settings.aggregate.value)
        return corpus
    by = f"the column {next(iter(splits.values())).id_column}" if _by_id(corpus) else "their text"
    note = f"{before:,} rows of annotators were joined to {after:,} by {by}; a label needs more than half of the rows."
    log.info("%s", note)
    corpus.decisions.notes.append(note)
    if settings.max_rows is not None:
        splits = {name: rows.take(range(min(settings.max_rows, len(rows)))) for name, rows in splits.items()}
    return dataclasses.replace(corpus, splits=splits)


def _by_id(corpus: Corpus) -> bool:
    return any(rows.id_column != files.ROW for rows in corpus.splits.values())


def _check(corpus: Corpus, settings: config.Table, seen: Survey, path: Path) -> None:
    column = kinds.annotator_column(seen.names)
    if column is None or len(seen.values.get(column, {"": 0, " ": 0})) < 2:
        return
    for rows in corpus.splits.values():
        groups = groups_of(rows.texts)
        sizes = np.bincount(groups, minlength=1)
        if len(rows) and (sizes[groups] > 1).sum() >= _MOST * len(rows):
            sentence = several_rows(f"{path}", len(rows), int((sizes > 0).sum()), column)
            if settings.id_column != files.ROW:
                raise UserError(sentence, ways=[{"aggregate": config.Aggregate.majority.value}])
            log.warning("%s", sentence)
            corpus.decisions.notes.append(sentence)
            return


def signs(columns: Columns) -> str:
    """The column of annotators and the flags of a table, for the middle of a sentence; empty if there are none."""
    by = kinds.annotator_column(columns.aside)
    flags = [name for name in columns.flags if name != by]
    said = [f"column {by}"] if by else []
    said += [f"{files.listed(flags)} {'is a flag' if len(flags) == 1 else 'are flags'}, no label"] if flags else []
    return f" ({'; '.join(said)})" if said else ""


def several_rows(path: str, rows: int, texts: int, column: str | None) -> str:
    """The sentence about texts that stand in several rows."""
    by = f", labelled by several annotators (column {column})" if column else ", as rows of several annotators do"
    return f"{path}: each text stands in several rows ({rows:,} rows of {texts:,} texts){by}. {ADVICE}"


def _majority(rows: Rows, path: Path) -> Rows:
    texts = groups_of(rows.texts)
    groups = texts if rows.id_column == files.ROW else group_numbers(np.array(rows.ids, dtype=object))
    _, first = np.unique(groups, return_index=True)
    if (other := np.flatnonzero(texts != texts[first[groups]])).size:
        raise UserError(
            f"{path}: the id {rows.ids[other[0]]} stands beside different texts, so data.aggregate cannot join its "
            "rows; name the column that identifies a text: data.id_column=…, or row to go by the texts."
        )
    kept = rows.take(first)
    if rows.targets is None:
        return kept
    return dataclasses.replace(
        kept,
        targets=_of_most(rows.targets, groups),
        strata=None if rows.strata is None else _of_most(rows.strata, groups),
    )


def _of_most(targets: Targets, groups: np.ndarray) -> Targets:
    """The labels that more than half of the rows of a group have, [group, label]."""
    counts = np.bincount(groups)[:, None]
    sums = np.zeros((len(counts), targets.shape[1]))
    np.add.at(sums, groups, targets)
    return (2 * sums > counts).astype(np.float32)
