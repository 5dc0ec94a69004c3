"""Rows of several annotators, who each labelled the same texts: joined as the settings say, otherwise refused."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emotion_lightning import config
from emotion_lightning.data import agreement, kinds
from emotion_lightning.data.columns import Columns
from emotion_lightning.data.formats import files
from emotion_lightning.data.labels import Targets, hardened
from emotion_lightning.data.overlap import group_numbers, groups_of
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_MOST = 0.5
"""If at least this fraction of the rows has the text of another row, texts are hardly repeated by chance."""


ADVICE = (
    "data.aggregate=majority makes one row of each text, with the labels that more than half of its rows have; "
    "data.aggregate=share learns the share of its rows that have a label."
)
"""What to do with the rows of several annotators."""

WAYS = [{"aggregate": config.Aggregate.majority.value}, {"aggregate": config.Aggregate.share.value}]
"""The same as ways of `UserError`."""

_RULES = {
    config.Aggregate.majority: "a label needs more than half of the rows",
    config.Aggregate.share: "a label has the share of the rows that have it",
    config.Aggregate.any: "a label needs one of the rows",
    config.Aggregate.at_least_2: "a label needs two of the rows",
}


def column_of(path: Path, settings: config.Table, seen: Survey) -> str | None:
    """The column that says who labelled a row, if rows of annotators are joined; None if there is none.

    Args:
        path: the first file, for messages.
        settings: table settings.
        seen: survey of the file.

    Raises:
        UserError: `data.annotator` names no column, or one that is empty.
    """
    if settings.annotator is not None:
        return named(path, "annotator", settings.annotator, seen)
    return kinds.annotator_column(seen.names) if settings.joining is not None else None


def named(path: Path, setting: str, column: str, seen: Survey) -> str:
    """The column that a setting names.

    Raises:
        UserError: there is no such column, or it is empty.
    """
    files.check_column(
        path, column, seen.names, example=f"data.{setting}={{}}", asked_by=f"data.{setting}", way=setting
    )
    seen.check_filled(path, column, f"data.{setting}")
    return column


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
    rule = settings.joining
    if rule is None:
        _check(corpus, settings, seen, path)
        return corpus
    places = {name: _places(rows, path) for name, rows in corpus.splits.items()}
    splits = {name: _join(rows, places[name], rule, settings.present) for name, rows in corpus.splits.items()}
    before, after = (sum(map(len, parts.values())) for parts in (corpus.splits, splits))
    if before == after:
        log.warning("data.aggregate=%s joins nothing: no id or text stands in several rows.", rule.value)
    else:
        by = f"the column {next(iter(splits.values())).id_column}" if _by_id(corpus) else "their text"
        means = "an intensity is the mean of theirs" if settings.scale is not None else _RULES[rule]
        note = f"{before:,} rows of annotators were joined to {after:,} by {by}; {means}."
        log.info("%s", note)
        corpus.decisions.notes.append(note)
        column = settings.annotator or kinds.annotator_column(seen.names)
        corpus = agreement.with_judgements(corpus, corpus.splits, places, column=column)
        if (settings.annotator is not None or rule is not config.Aggregate.majority) and corpus.judgements is not None:
            corpus.decisions.annotation = agreement.describe(corpus.judgements)
    if settings.max_rows is not None and before != after:
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
                raise UserError(sentence, ways=WAYS)
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


def _places(rows: Rows, path: Path) -> npt.NDArray[np.int64]:
    """Number of the text that each row is about, by its id or else its text, [row].

    Raises:
        UserError: an id stands beside different texts.
    """
    texts = groups_of(rows.texts)
    groups = texts if rows.id_column == files.ROW else group_numbers(np.array(rows.ids, dtype=object))
    _, first = np.unique(groups, return_index=True)
    if (other := np.flatnonzero(texts != texts[first[groups]])).size:
        raise UserError(
            f"{path}: the id {rows.ids[other[0]]} stands beside different texts, so data.aggregate cannot join its "
            "rows; name the column that identifies a text: data.id_column=…, or row to go by the texts."
        )
    return np.asarray(groups, dtype=np.int64)


def _join(rows: Rows, places: npt.NDArray[np.int64], rule: config.Aggregate, present: float) -> Rows:
    """One row of each text.

    Args:
        rows: a row for each annotator of a text.
        places: number of the text of each row, [row].
        rule: how labels are joined.
        present: the share from which on a label is present, where shares are learned.
    """
    _, first = np.unique(places, return_index=True)
    kept = dataclasses.replace(rows.take(first), annotators=None)
    if rows.targets is None:
        return kept
    given = rows.targets if rows.shares is None else rows.shares
    known = np.ones(given.shape) if rows.open is None else 1.0 - rows.open
    counts = agreement.summed(known, places)
    opened = None if rows.open is None else counts == 0
    strata = rows.strata
    if rule is config.Aggregate.share:
        shares = (agreement.summed(given * known, places) / np.maximum(counts, 1)).astype(np.float32)
        if strata is not None:
            strata = hardened(agreement.summed(strata, places) / _sizes(places), present)
        return dataclasses.replace(kept, targets=hardened(shares, present), shares=shares, open=opened, strata=strata)
    if strata is not None:
        strata = decided(agreement.summed(strata, places), _sizes(places), rule)
    return dataclasses.replace(
        kept, targets=decided(agreement.summed(given, places), counts, rule), open=opened, strata=strata
    )


def decided(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], rule: config.Aggregate) -> Targets:
    """The labels that enough of the rows of a text have, [text, label].

    Args:
        sums: number of rows with the label.
        counts: number of rows.
        rule: how many are enough.
    """
    if rule is config.Aggregate.majority:
        return (2 * sums > counts).astype(np.float32)
    return (sums >= (2 if rule is config.Aggregate.at_least_2 else 1)).astype(np.float32)


def _sizes(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.bincount(places)[:, None].astype(np.float64)
