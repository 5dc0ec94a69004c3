"""Data sources: the bundled sample, official files, the user's own files, the hub."""

import dataclasses
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.data import labels, official, overlap, splitting, tables
from emotion_lightning.data.columns import Columns, Survey, find_columns, normalised, survey, unlabelled
from emotion_lightning.data.formats import arrow, delimited, files
from emotion_lightning.data.rows import SPLITS, WHOLE, Chunk, Corpus, Problems, Rows, Source
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


def read_corpus(settings: config.Batches) -> Corpus:
    """Read the splits of a dataset; a single file is returned as the split `whole`, which `split_corpus` divides.

    Raises:
        UserError: the data is missing or wrong; the message names file, row and column.
    """
    match settings:
        case config.Sample():
            corpus = official.sample()
        case config.SemEval2018(dir=None):
            own = schema.option_values("shared/hub_semeval2018")
            corpus = _hub(_on_hub(settings, own | {"name": own["name"][settings.language.value]}))
        case config.SemEval2018():
            corpus = official.semeval(settings)
        case config.GoEmotions(dir=None):
            corpus = _hub(_on_hub(settings, schema.option_values("shared/hub_goemotions")))
        case config.GoEmotions():
            corpus = official.goemotions(settings.dir)
        case config.File():
            corpus = _file(settings)
        case config.Hub():
            corpus = _hub(settings)
        case _:
            raise TypeError(f"no source for {type(settings).__name__}")
    if settings.max_rows is not None:
        corpus.splits = {
            name: rows.take(range(min(settings.max_rows, len(rows)))) for name, rows in corpus.splits.items()
        }
    return corpus


def split_corpus(corpus: Corpus, settings: config.Batches, *, tell: bool = True) -> Corpus:
    """Prepare a corpus for training: make the splits that it lacks, choose the fold, and drop leaks if asked to.

    Args:
        corpus: as returned by `read_corpus`.
        settings: data settings.
        tell: whether to log the labels that no row or every row of train has, and the texts that are in several splits.
            `data.drop_leaks` removes these texts from train in both cases.

    Raises:
        UserError: the corpus cannot be split as the settings say.
    """
    if WHOLE in corpus.splits or "validation" not in corpus.splits:
        assert isinstance(settings, config.Table)
        corpus = splitting.split_rows(corpus, settings)
    elif isinstance(settings, config.Table) and settings.splits is not None:
        raise UserError(f"data.splits={settings.splits} has nothing to split: the data brings its own splits.")
    if settings.folds is not None and settings.fold is not None:
        seed = settings.split_seed if isinstance(settings, config.Table) else 0
        corpus = splitting.folded(corpus, folds=settings.folds, fold=settings.fold, seed=seed)
    splits = {name: corpus.splits[name] for name in SPLITS if name in corpus.splits}
    corpus = dataclasses.replace(corpus, splits=splits)
    found = overlap.find_overlap(corpus, clean=settings.clean)
    if settings.drop_leaks:
        corpus = overlap.without_leaks(corpus, found)
    if tell:
        overlap.log_overlap(found, dropped=settings.drop_leaks)
        _log_one_sided(corpus)
    return corpus


def _log_one_sided(corpus: Corpus) -> None:
    targets = corpus.splits["train"].targets
    if targets is None:
        return
    positives = targets.sum(axis=0)
    for names, what in (
        ([name for name, count in zip(corpus.labels, positives, strict=True) if count == 0], "no row"),
        ([name for name, count in zip(corpus.labels, positives, strict=True) if count == len(targets)], "every row"),
    ):
        if names:
            log.warning("In train %s has the label %s: it cannot be learned.", what, ", ".join(names))


# ------------------------------------------------------------------------------------------------------------- tables


def _file(settings: config.File) -> Corpus:
    given = _given(settings)
    sources: dict[str, Source] = {}
    problems = Problems()
    for name, path in given.items():
        try:
            sources[name] = files.source(path, settings.encoding)
            if files.kind(path) == "txt":
                raise UserError(
                    f"{path} has texts only; training and scoring need labels too: csv, tsv, jsonl, parquet or arrow."
                )
        except UserError as error:
            problems.note(path, str(error))
    problems.raise_any()
    corpus = _read_tables(settings, sources)
    return dataclasses.replace(corpus, hashes=official.hashes(given))


def _given(settings: config.File) -> dict[str, Path]:
    """Files to read, by split."""
    paths = {WHOLE: settings.path, "train": settings.train, "validation": settings.validation, "test": settings.test}
    given = {name: Path(path).expanduser() for name, path in paths.items() if path is not None}
    folder = given.get(WHOLE)
    if folder is None or not (folder / arrow.SAVED_SPLITS).is_file():
        return given
    found = {name: folder / name for name in arrow.saved_splits(folder)}
    if "train" not in found:
        raise UserError(f"{folder} has no split train; it has {', '.join(found)}. Name them: data.train={folder}/…")
    if "validation" not in found and (other := next((n for n in ("valid", "val", "dev") if n in found), None)):
        found["validation"] = found.pop(other)
    if unused := [name for name in found if name not in SPLITS]:
        log.warning("Splits of %s left aside: %s.", folder, ", ".join(unused))
    return {name: found[name] for name in SPLITS if name in found}


def _read_tables(settings: config.Table, sources: dict[str, Source]) -> Corpus:
    """Survey every source, choose the columns by the first one, and read the rows; raise one error for all problems."""
    settings = normalised(settings)
    problems = Problems()
    surveys: dict[str, Survey] = {}
    for name, source in sources.items():
        before = problems.count
        try:
            seen = survey(source, problems, labels_column=settings.labels_column)
        except UserError as error:
            problems.note(source.path, str(error))
            continue
        if seen.rows:
            surveys[name] = seen
        elif problems.count == before:
            problems.note(source.path, files.no_rows(source.path))
    first, source = next(iter(sources.items()))
    if first not in surveys:
        problems.raise_any()
    try:
        columns = find_columns(source, settings, surveys[first])
        labels.check_names(columns.labels, str(source.path), id_column=columns.id)
        labels.log_respelled(columns.labels)
    except UserError as error:
        problems.note(source.path, str(error))
        problems.raise_any()
        raise
    splits: dict[str, Rows] = {}
    for name, seen in surveys.items():
        labelled = not unlabelled(seen, columns)
        if not labelled and name == "validation" and columns.labels_column in seen.names:
            message = "no row has a label; thresholds are fitted on it."
            problems.add(sources[name].path, message, column=columns.labels_column)
        labelled = labelled or name != "test"
        if name != first and not _has_columns(sources[name], seen, columns, problems, labelled, source.path):
            continue
        splits[name] = tables.read_rows(
            sources[name],
            columns,
            problems,
            labelled=labelled,
            empty_texts=settings.empty_texts,
            expected=seen.rows,
            most=settings.max_rows,
        )
    problems.raise_any()
    return Corpus(columns.labels, splits)


def _has_columns(
    source: Source, seen: Survey, columns: Columns, problems: Problems, labelled: bool, first: Path
) -> bool:
    """Whether another split has the columns of the first one; if not, add a problem."""
    required = [columns.text] + ([columns.id] if columns.id else [])
    if labelled:
        required += [columns.labels_column] if columns.labels_column else columns.labels
    if absent := [name for name in required if name not in seen.names]:
        meant = [name for name in (files.near(name, seen.names) for name in absent) if name]
        hint = f"; it has {', '.join(meant)}: rename it" if meant else ""
        problems.note(source.path, f"{source.path} has no column {', '.join(absent)}, which {first} has{hint}.")
        return False
    if columns.labels_column is None:
        unknown = [name for name in seen.names if name not in required and seen.looks_binary(name)]
        if unknown:
            log.warning("%s: %s, which %s lacks, left aside.", source.path, ", ".join(unknown), first)
    return True


# --------------------------------------------------------------------------------------------------------------- hub


def _on_hub(settings: config.Batches, own: dict[str, Any]) -> config.Hub:
    """The settings of data=hub for an official dataset.

    Args:
        settings: of the dataset; its batches, folds and so on count.
        own: where it is on the hub and which columns it has.
    """
    batches, given = {field.name for field in dataclasses.fields(config.Batches)}, schema.plain(settings)
    values = schema.option_values("shared/table", "data/hub") | own | {name: given[name] for name in batches}
    hub: config.Hub = schema.from_plain(config.Hub, values)
    return hub


def _hub(settings: config.Hub) -> Corpus:
    loaded = _load(settings)
    place = _place(settings)
    wanted = {"train": settings.train, "validation": settings.validation, "test": settings.test}
    if settings.train not in loaded:
        raise UserError(f"The data set {place} has no split {settings.train}; it has {', '.join(loaded)}.")
    # A dataset may lack validation or test.
    given = {name: loaded[source] for name, source in wanted.items() if source in loaded}
    if unused := sorted(set(loaded) - set(wanted.values())):
        log.warning("Splits of %s left aside: %s (see data.validation and data.test).", place, ", ".join(unused))
    sources = {
        name: Source(path, partial(_dataset_chunks, path, table), _class_names(table))
        for name, table in given.items()
        for path in [Path(f"{settings.path}[{wanted[name]}]")]
    }
    corpus = _read_tables(settings, sources)
    return dataclasses.replace(corpus, hashes={place: str(given["train"]._fingerprint)})


def _load(settings: config.Hub) -> Any:
    """Load the splits of a dataset with `datasets`, by name."""
    import datasets

    folder = Path(settings.path).expanduser()
    try:
        if arrow.is_saved(folder) or (folder / arrow.SAVED_SPLITS).is_file():
            loaded = datasets.load_from_disk(str(folder))
            return loaded if isinstance(loaded, dict) else {settings.train: loaded}
        return datasets.load_dataset(settings.path, settings.name, revision=settings.revision)
    except Exception as error:  # datasets raises many kinds of errors; the useful message is in the cause
        reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
        raise UserError(
            f"The data set {_place(settings)} cannot be loaded: {reason} Check data.path, data.name and the network, "
            "or download its files and use data=file (data.dir= for goemotions and semeval2018)."
        ) from error


def _place(settings: config.Hub) -> str:
    return f"{settings.path}{f' ({settings.name})' if settings.name else ''}"


def _dataset_chunks(path: Path, table: Any, problems: Problems) -> Iterator[Chunk]:
    start = 1
    delimited.refuse_repeated(path, list(map(labels.normalised, table.column_names)))
    for columns in table.iter(batch_size=arrow.ROWS_AT_ONCE):
        count = len(next(iter(columns.values())))
        yield Chunk(range(start, start + count), {labels.normalised(name): cells for name, cells in columns.items()})
        start += count


def _class_names(table: Any) -> dict[str, list[str]]:
    """Names of the label ids in each column of class labels."""
    kinds = {name: getattr(feature, "feature", feature) for name, feature in table.features.items()}
    return {labels.normalised(name): list(kind.names) for name, kind in kinds.items() if getattr(kind, "names", None)}
