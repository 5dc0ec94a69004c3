"""Reads the tables of a dataset: surveys every source, chooses the columns, reads the rows of each split."""

import dataclasses
import logging
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import (
    annotators,
    carried,
    conversations,
    groups,
    kinds,
    label_map,
    labels,
    split_column,
    splitting,
    tables,
)
from emotion_lightning.data.columns import Columns, find_columns, normalised, unlabelled
from emotion_lightning.data.decisions import Decisions
from emotion_lightning.data.formats import files, tools
from emotion_lightning.data.formats.cells import LabelCells
from emotion_lightning.data.label_map import LabelMap
from emotion_lightning.data.rows import WHOLE, Chunk, Corpus, Problems, Rows, Source
from emotion_lightning.data.survey import Survey, survey
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder

log = logging.getLogger(__name__)


@dataclasses.dataclass
class _Table:
    """A source, its survey, and how many rows were left out before, by reason."""

    source: Source
    seen: Survey
    left_out: dict[str, int]
    whole: Source | None = None
    """The source with the rows of all splits, if a column divides it."""


def paths(setting: str) -> list[Path]:
    """The files that a setting names: one, or a list [a.csv,b.csv]."""
    return [Path(path).expanduser() for path in run_folder.parse_list(setting)]


def read_tables(
    settings: config.Table,
    sources: dict[str, list[Source]],
    *,
    known: Set[str] = frozenset(),
    usual_text: str | None = None,
) -> Corpus:
    """Survey every source, choose the columns by the first one, and read the rows; raise one error for all problems.

    Args:
        settings: table settings.
        sources: sources of each split, which are read as one.
        known: names of labels that a model has already.
        usual_text: name of the column of texts that a model learned from.
    """
    settings = normalised(settings)
    known = known | label_map.known_names(settings)
    problems = Problems()
    found = _surveyed(settings, sources, problems)
    first = next(iter(sources))
    if not found[first]:
        problems.raise_any()
    settings = _as_the_format_says(settings, found[first][0].source)
    decisions = Decisions()
    if first == WHOLE and isinstance(settings, config.DividedTable):
        found = _by_split_column(settings, found, decisions)
        first = next(iter(found))
    source = found[first][0].source
    seen = {name: _together(one) for name, one in found.items() if one}
    every = _merged(list(seen.values()))
    if decisions.split_column is not None:  # one file: a label that only some of its splits have is a label of it
        seen[first] = dataclasses.replace(seen[first], lists=every.lists)
    if settings.text is None and usual_text in seen[first].names:
        settings = dataclasses.replace(settings, text=usual_text)
    try:
        context = conversations.context_of(settings)
        annotator = annotators.column_of(source.path, settings, seen[first])
        used = {decisions.split_column, settings.group_column, *(context.used if context else [])}
        used |= {settings.annotator, settings.annotators_column}
        used |= set(settings.groups or [])
        columns = find_columns(source, settings, seen[first], every=every, known=known, used=used)
        columns.annotator = annotator
        _say_shares(columns, settings, seen[first], source)
        columns.group = groups.check_column(source.path, settings, seen[first], columns)
        columns.carried = carried.check_columns(source.path, settings, seen[first], columns)
        mapped = LabelMap.of(settings).applied(columns.labels, what=str(source.path))
        labels.check_names(mapped.names, str(source.path), id_column=columns.id)
        labels.log_respelled(columns.labels)
    except UserError as error:
        problems.note(source.path, str(error), ways=error.ways)
        problems.raise_any()
        raise
    if alike := labels.alike_sentence(mapped.names):
        log.warning("%s: %s", source.path, alike)
        decisions.notes.append(alike)
    turns = {} if context is None else _turns(found, context, columns.text, problems)
    splits = {
        name: _split(name, one, seen[name], columns, settings, problems, turns, first=source if name != first else None)
        for name, one in found.items()
        if one
    }
    problems.raise_any()
    _describe(decisions, found, columns, source, settings)
    decisions.turns = None if context is None else str(context)
    rows = {name: part for name, part in splits.items() if part is not None}
    corpus = label_map.mapped(Corpus(columns.labels, rows, decisions=decisions), settings)
    corpus = annotators.joined(corpus, settings, seen[first], path=source.path)
    for part in corpus.splits.values():
        part.hardens = settings.harden
    if settings.missing is config.MissingLabels.mask:
        decisions.open = open_labels(corpus)
    return corpus


def _say_shares(columns: Columns, settings: config.Table, seen: Survey, source: Source) -> None:
    """Add to the columns how shares are read.

    Raises:
        UserError: shares are asked for of a column that lists labels, or `data.annotators_column` names no column.
    """
    cells = settings.targets is config.Targets.shares or settings.scale is not None
    if columns.labels_column is not None and (cells or settings.missing is config.MissingLabels.mask):
        setting = f"data.scale={settings.scale:g}" if settings.scale is not None else "data.targets=shares"
        setting = setting if cells else "data.missing=mask"
        raise UserError(
            f"{source.path}: {setting} is for a column for each label, and {columns.labels_column} lists the labels of "
            "a row; leave it out, or name the columns in data.labels=[…]."
        )
    if cells:
        columns.present = settings.present
    if settings.annotators_column is not None:
        columns.annotators = annotators.named(source.path, "annotators_column", settings.annotators_column, seen)
    taken = {columns.text: "texts", columns.id: "ids", columns.labels_column: "labels"}
    taken |= {} if columns.labels_column is not None else dict.fromkeys(columns.labels, "labels")
    for setting in ("annotator", "annotators_column"):
        if (name := getattr(settings, setting)) in taken and name is not None:
            raise UserError(f"data.{setting}={name} is the column of {taken[name]}; name another one.")


def open_labels(corpus: Corpus) -> dict[str, int]:
    """Number of rows that leave each label open, by name; told and noted.

    Raises:
        UserError: every row leaves a label open.
    """
    parts = [rows for rows in corpus.splits.values() if rows.open is not None]
    count = sum(len(rows) for rows in parts)
    total = sum((rows.open.sum(axis=0) for rows in parts if rows.open is not None), np.zeros(len(corpus.labels), int))
    found = {name: int(number) for name, number in zip(corpus.labels, total, strict=True)}
    left = {name: number for name, number in found.items() if number}
    if left:
        shown = ", ".join(f"{name} {number:,}" for name, number in list(left.items())[:12])
        more = f" and {len(left) - 12} more labels" if len(left) > 12 else ""
        sentence = f"Rows of {count:,} that leave a label open (data.missing=mask): {shown}{more}."
        log.info("%s", sentence)
        corpus.decisions.notes.append(sentence)
    return found


def _surveyed(settings: config.Table, sources: dict[str, list[Source]], problems: Problems) -> dict[str, list[_Table]]:
    found: dict[str, list[_Table]] = {name: [] for name in sources}
    for name, source in ((name, source) for name, parts in sources.items() for source in parts):
        before = problems.count
        left_out: dict[str, int] = {}
        try:
            source = tools.prepared(source, settings)
            own = tools.with_roles(settings, source.roles)
            seen = survey_table(source, problems, own)
            if tools.LEFT_OUT in seen.names:
                reasons = seen.values[tools.LEFT_OUT]
                left_out = {why: count for why, (count, _) in reasons.items()}
                if left_out:
                    log.warning(
                        "%s: rows that were not accepted in %s are left out: %s.", source.path, source.about["tool"],
                        ", ".join(f"{count:,} ({why})" for why, count in left_out.items()),
                    )  # fmt: skip
                source = source.where(_accepted).without(tools.LEFT_OUT)
                seen = survey_table(source, Problems(), own)
                if not seen.rows:
                    raise UserError(f"{source.path}: no row was accepted in {source.about['tool']}.")
        except UserError as error:
            problems.note(source.path, str(error), ways=error.ways)
            continue
        if seen.rows:
            found[name].append(_Table(source, seen, left_out))
        elif problems.count == before:
            problems.note(source.path, files.no_rows(source.path))
    return found


def _as_the_format_says(settings: config.Table, source: Source) -> config.Table:
    """The settings with the columns that the format of the first source says.

    Raises:
        UserError: annotators were asked several questions, and no setting says whose answers are the labels.
    """
    if source.questions and settings.labels_column is None:
        raise UserError(
            f"{source.path}: annotators answered several questions in {source.about['tool']}: "
            f"{files.listed(list(source.questions))}. Choose the one with the labels, for example "
            f"data.labels_column={source.questions[0]}",
            ways=[{"labels_column": question} for question in source.questions],
        )
    found: config.Table = tools.with_roles(settings, source.roles)
    return found


def survey_table(source: Source, problems: Problems, settings: config.Table) -> Survey:
    """Survey a source as its settings read its label cells."""
    return survey(source, problems, labels_column=settings.labels_column, cells=label_cells(settings))


def label_cells(settings: config.Table) -> LabelCells:
    """How the settings say that label cells are read."""
    return LabelCells(
        true_values=frozenset(word.strip().casefold() for word in settings.true_values or []),
        false_values=frozenset(word.strip().casefold() for word in settings.false_values or []),
        blank_is_zero=settings.missing is config.MissingLabels.zero,
        blank_is_open=settings.missing is config.MissingLabels.mask,
        present_from=settings.present_from,
        shares=settings.targets is config.Targets.shares and settings.annotators_column is None,
        scale=settings.scale,
        counts=settings.annotators_column is not None,
    )


def _accepted(chunk: Chunk) -> list[bool]:
    return [why is None for why in chunk.column(tools.LEFT_OUT)]


def _together(found: Sequence[_Table]) -> Survey:
    return _merged([table.seen for table in found])


def _merged(parts: Sequence[Survey]) -> Survey:
    if len(parts) == 1:
        return parts[0]
    merged = Survey(parts[0].cells)
    for part in parts:
        merged.add(part)
    return merged


def _by_split_column(
    settings: config.DividedTable, found: dict[str, list[_Table]], decisions: Decisions
) -> dict[str, list[_Table]]:
    """Divide the rows of a single file by its column of splits, if there is one."""
    tables_ = found[WHOLE]
    column = split_column.find(tables_[0].source.path, _together(tables_), settings)
    if column is None:
        return found
    divided: dict[str, list[_Table]] = {}
    for name in split_column.names(_together(tables_), column):
        for table in tables_:
            part = table.source.where(split_column.of_split(column, name))
            seen = survey_table(part, Problems(), settings)
            if seen.rows:
                divided.setdefault(name, []).append(_Table(part, seen, table.left_out, table.source))
    sizes = ", ".join(f"{name} {sum(table.seen.rows for table in one):,}" for name, one in divided.items())
    log.info("Splits as the column %s says: %s. data.split_column=none splits anew.", column, sizes)
    decisions.split, decisions.split_column = f"column {column}", column
    return divided


def _turns(
    found: dict[str, list[_Table]], context: conversations.Context, text: str, problems: Problems
) -> dict[int, conversations.Turns]:
    """Read the turns of each table, by the identity of its source; tell of conversations that several splits share."""
    by_source: dict[int, conversations.Turns] = {}
    orders: dict[str, dict[str, set[Any]]] = {}
    for name, table in ((name, table) for name, one in found.items() for table in one):
        source = table.whole or table.source
        if id(source) not in by_source:
            turns = conversations.read_turns(source, table.seen.names, context, text, problems)
            by_source[id(source)] = turns
            orders[name] = orders.get(name, {}) | turns.orders
    if context.turn is not None:
        conversations.log_continued(orders)
    return by_source


def _split(
    name: str, found: list[_Table], seen: Survey, columns: Columns, settings: config.Table, problems: Problems,
    turns: dict[int, conversations.Turns], *, first: Source | None,
) -> Rows | None:  # fmt: skip
    """Read the rows of a split; None if its columns are not those of the first source, which is a problem."""
    path = found[0].source.path
    labelled = not unlabelled(seen, columns)
    if not labelled and name == "validation" and columns.labels_column in seen.names:
        message = "no row has a label; thresholds are fitted on it."
        problems.add(path, message, column=columns.labels_column)
    labelled = labelled or name != "test"
    parts = []
    for number, table in enumerate(found):
        reference = first or (found[0].source if number else None)
        if reference is not None and not _has_columns(
            table, columns, settings, problems, labelled=labelled, first=reference.path
        ):
            return None
        if labelled and columns.labels_column is None and reference is not None:
            try:
                kinds.check_kinds(table.source.path, table.seen, columns.labels)
            except UserError as error:
                problems.note(table.source.path, str(error), ways=error.ways)
                continue
        parts.append(
            tables.read_rows(
                table.source,
                columns,
                problems,
                labelled=labelled,
                empty_texts=settings.empty_texts,
                expected=table.seen.rows,
                most=None if settings.joining else settings.max_rows,
                repeated_ids=settings.joining is not None,
                turns=turns.get(id(table.whole or table.source)),
            )
        )
    if len(parts) > 1:
        return splitting.joined(parts, by_id=settings.joining is not None)
    return parts[0] if parts else None


def _has_columns(
    table: _Table, columns: Columns, settings: config.Table, problems: Problems, *, labelled: bool, first: Path
) -> bool:
    """Whether another source has the columns of the first one; if not, add a problem."""
    source, seen = table.source, table.seen
    required = [columns.text, *filter(None, (columns.id,)), *columns.carried]
    if labelled:
        required += filter(None, (columns.annotators, settings.annotator))
    if labelled and columns.labels_column is None and columns.cells.blank_is_open:
        required += [name for name in columns.labels if name in seen.names] or columns.labels
    elif labelled:
        required += [columns.labels_column] if columns.labels_column else columns.labels
    if absent := [name for name in required if name not in seen.names]:
        meant = [name for name in (files.near(name, seen.names) for name in absent) if name]
        hint = f"; it has {', '.join(meant)}: rename it" if meant else ""
        problems.note(source.path, f"{source.path} has no column {', '.join(absent)}, which {first} has{hint}.")
        return False
    if columns.labels_column is None and source.path != first:
        unknown = [
            name
            for name in seen.names
            if name not in required and name not in columns.aside and seen.looks_binary(name)
        ]
        if unknown:
            log.warning("%s: %s, which %s lacks, left aside.", source.path, ", ".join(unknown), first)
    return True


def _describe(
    decisions: Decisions, found: dict[str, list[_Table]], columns: Columns, source: Source, settings: config.Table
) -> None:
    for name, table in ((name, table) for name, one in found.items() for table in one):
        left_out = dict(table.left_out)
        if settings.empty_texts is config.EmptyTexts.drop and table.seen.blank[columns.text]:
            left_out["without a text"] = table.seen.blank[columns.text]
        decisions.files.append(
            {"split": name, "path": str(table.source.path), **table.source.about, "rows": table.seen.rows}
            | ({"left_out": left_out} if left_out else {})
        )
    decisions.text, decisions.ids, decisions.aside = columns.text, columns.id, columns.aside
    decisions.groups = columns.group
    decisions.carried = columns.carried
    if columns.labels_column is None:
        what = "shares" if settings.targets is config.Targets.shares else "zeros and ones"
        what = f"intensities up to {settings.scale:g}" if settings.scale is not None else what
        decisions.labels = f"{len(columns.labels)} columns of {what}"
        if columns.annotators is not None:
            decisions.labels += f", of the annotators counted in {columns.annotators}"
        for setting in ("true_values", "false_values", "present_from"):
            if (value := getattr(settings, setting)) is not None:
                shown = f"[{','.join(value)}]" if isinstance(value, list) else f"{value:g}"
                decisions.labels += f", data.{setting}={shown}"
        if settings.missing is config.MissingLabels.zero:
            decisions.labels += ", empty cells are 0"
        if settings.missing is config.MissingLabels.mask:
            decisions.labels += ", empty cells leave a label open"
        return
    decisions.labels = f"column {columns.labels_column}"
    if columns.multi_hot:
        decisions.labels += ", lists of zeros and ones"
    elif columns.by_id:
        decisions.labels += f", ids from {columns.first_id}"
    else:
        decisions.labels += f", names separated by {columns.separator!r}"
