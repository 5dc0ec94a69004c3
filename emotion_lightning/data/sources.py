"""Data sources: the bundled sample, official files, the user's own files, the hub."""

import dataclasses
import logging
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.config import own_parts, schema
from emotion_lightning.data import (
    agreement,
    brighter,
    carried,
    conversations,
    folders,
    groups,
    label_map,
    near_texts,
    official,
    overlap,
    own_source,
    reading,
    splitting,
    xed,
)
from emotion_lightning.data.formats import arrow, files
from emotion_lightning.data.rows import SPLITS, WHOLE, Corpus, Problems, Source
from emotion_lightning.errors import UserError
from emotion_lightning.runs.files import write_json

log = logging.getLogger(__name__)


def read_corpus(settings: config.Data, *, known: Set[str] = frozenset(), usual_text: str | None = None) -> Corpus:
    """Read the splits of a dataset; a single file is returned as the split `whole`, which `split_corpus` divides.

    Args:
        settings: data settings.
        known: names of labels that a model has already; a column of zeros and ones with such a name is a label.
        usual_text: name of the column of texts that a model learned from; a table without `data.text` that has it is
            read with it.

    Raises:
        UserError: the data is missing or wrong; the message names file, row and column.
    """
    near_texts.check(settings)
    match settings:
        case config.Table() if isinstance(settings, own_parts.OwnPart):
            corpus = own_source.read(settings, known, usual_text)
        case config.Sample():
            corpus = label_map.mapped(official.sample(), settings)
        case config.SemEval2018(dir=None):
            own = schema.option_values("shared/hub_semeval2018")
            corpus = _hub(_on_hub(settings, own | {"name": own["name"][settings.language.value]}), known, usual_text)
        case config.SemEval2018():
            corpus = label_map.mapped(official.semeval(settings), settings)
        case config.GoEmotions(dir=None):
            corpus = _hub(_on_hub(settings, schema.option_values("shared/hub_goemotions")), known, usual_text)
        case config.GoEmotions():
            corpus = label_map.mapped(official.goemotions(settings.dir), settings)
        case config.XED():
            corpus = carried.chosen(label_map.mapped(xed.read(settings), settings), settings.groups, "XED")
        case config.Brighter():
            corpus = label_map.mapped(brighter.read(settings), settings)
            if corpus.judgements is not None:
                corpus.decisions.annotation = agreement.describe(corpus.judgements)
            corpus = carried.chosen(corpus, settings.groups, "BRIGHTER")
        case config.File():
            corpus = _file(settings, known, usual_text)
        case config.Hub():
            corpus = _hub(settings, known, usual_text)
        case _:
            raise TypeError(f"no source for {type(settings).__name__}")
    carried.check_values(corpus)
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
    given = set(corpus.splits)
    if WHOLE in corpus.splits or "validation" not in corpus.splits:
        assert isinstance(settings, config.Table | config.XED)
        corpus = splitting.split_rows(corpus, settings)
    elif isinstance(settings, config.Table | config.XED) and settings.splits is not None:
        raise UserError(f"data.splits={settings.splits} has nothing to split: the data brings its own splits.")
    if settings.folds is not None and settings.fold is not None:
        seed = settings.split_seed if isinstance(settings, config.Table | config.XED) else 0
        corpus = splitting.folded(corpus, folds=settings.folds, fold=settings.fold, seed=seed, clean=settings.clean)
    groups.tell(corpus)
    new_groups = carried.note_new(corpus)
    splits = {name: corpus.splits[name] for name in SPLITS if name in corpus.splits}
    # What single annotators said may be several times as much as the rows, and training needs none of it.
    corpus = dataclasses.replace(corpus, splits=splits, judgements=None)
    found = overlap.find_overlap(corpus, clean=settings.clean)
    near: list[near_texts.Near] = []
    if settings.near_duplicates is not None and (tell or settings.drop_leaks):
        near = near_texts.find_near(corpus, settings.near_duplicates, clean=settings.clean)
    if settings.drop_leaks:
        corpus = overlap.without_leaks(corpus, [*found, *near])
    if tell:
        if WHOLE in given or corpus.decisions.split_column is not None:  # in other files the same id may be another
            conversations.log_cut(corpus)
        for sentence in new_groups:
            log.info("%s", sentence)
        overlap.log_overlap(found, dropped=settings.drop_leaks)
        near_texts.log_near(near, dropped=settings.drop_leaks)
        _log_one_sided(corpus)
    return corpus


def settled(settings: config.Batches, corpus: Corpus) -> Any:
    """Data settings with the column of splits that was found, so that the rows are divided in the same way again."""
    if isinstance(settings, config.DividedTable) and corpus.decisions.split_column is not None:
        return dataclasses.replace(settings, split_column=corpus.decisions.split_column)
    return settings


def write_decisions(file: Path, corpus: Corpus) -> None:
    """Write data.json: how the data was read."""
    write_json(file, corpus.plain_decisions())


def _log_one_sided(corpus: Corpus) -> None:
    learned = corpus.splits["train"].learned
    if learned is None:
        return
    counts = list(zip(corpus.labels, np.nansum(learned, axis=0), (~np.isnan(learned)).sum(axis=0), strict=True))
    for names, what in (
        ([name for name, count, _ in counts if count == 0], "no row"),
        ([name for name, count, rows in counts if count == rows > 0], "every row"),
    ):
        if names:
            log.warning("In train %s has the label %s: it cannot be learned.", what, ", ".join(names))


# ------------------------------------------------------------------------------------------------------------- tables


def _file(settings: config.File, known: Set[str], usual_text: str | None) -> Corpus:
    problems = Problems()
    found = _given(settings)
    sources = _opened(found, settings, problems)
    problems.raise_any()
    corpus = reading.read_tables(settings, sources, known=known, usual_text=usual_text)
    if found.by_names:
        corpus.decisions.split = folders.FROM_NAMES
    return dataclasses.replace(corpus, hashes=_hashes(found.files))


def file_sources(settings: config.File, problems: Problems) -> dict[str, list[Source]]:
    """The files of each split as sources; those that cannot be read are added to the problems and left out."""
    return _opened(_given(settings), settings, problems)


def _opened(found: "_Given", settings: config.File, problems: Problems) -> dict[str, list[Source]]:
    sources: dict[str, list[Source]] = {name: [] for name in found.files}
    for name, path in ((name, path) for name, paths in found.files.items() for path in paths):
        try:
            source = files.source(
                path,
                settings.encoding,
                header=settings.header,
                columns=settings.columns,
                labelled=True,
                table=settings.table,
            )
            if source.about["format"] == "txt":
                raise UserError(
                    f"{path} has texts only; training and scoring need labels too: csv, tsv, jsonl, parquet or arrow."
                )
            sources[name].append(folders.with_file(source, path) if name in found.expanded else source)
        except UserError as error:
            problems.note(path, str(error), ways=error.ways)
    return sources


def _hashes(given: dict[str, list[Path]]) -> dict[str, str]:
    """sha256 of each file; several files of a split are numbered."""
    return {
        name if len(paths) == 1 else f"{name} {number}": files.sha256(path)
        for name, paths in given.items()
        for number, path in enumerate(paths, 1)
    }


@dataclasses.dataclass
class _Given:
    """The files that the settings name.

    Attributes:
        files: by split.
        expanded: splits whose files come from folders or patterns.
        by_names: whether the names of the files say the splits.
    """

    files: dict[str, list[Path]]
    expanded: Set[str] = frozenset()
    by_names: bool = False


def _given(settings: config.File) -> _Given:
    paths = {WHOLE: settings.path, "train": settings.train, "validation": settings.validation, "test": settings.test}
    named = {name: reading.paths(path) for name, path in paths.items() if path is not None}
    folder = named.get(WHOLE, [Path()])[0]
    if WHOLE in named and (folder / arrow.SAVED_SPLITS).is_file():
        return _Given(_saved(folder))
    given = {name: [file for path in several for file in folders.expand(path)] for name, several in named.items()}
    expanded = {name for name, found in given.items() if found != named[name]}
    if WHOLE not in expanded:
        return _Given(given, expanded)
    splits = None if settings.split_column is not None else folders.by_split(given[WHOLE])
    if splits is None:
        count = f"{len(given[WHOLE]):,}"
        log.info("%s stands for %s files, which are read as one: %s.", settings.path, count, _names(given[WHOLE]))
        return _Given(given, expanded)
    log.info(
        "Splits of %s as the files are named: %s. data.split_column=none reads them as one and splits anew.",
        settings.path, "; ".join(f"{name} {_names(parts)}" for name, parts in splits.items()),
    )  # fmt: skip
    return _Given(splits, splits.keys(), by_names=True)


def _names(found: list[Path]) -> str:
    return files.listed([file.name for file in found])


def _saved(folder: Path) -> dict[str, list[Path]]:
    """The splits in a folder that `datasets` saved."""
    found = {name: [folder / name] for name in arrow.saved_splits(folder)}
    if "train" not in found:
        raise UserError(f"{folder} has no split train; it has {', '.join(found)}. Name them: data.train={folder}/…")
    if "validation" not in found and (other := next((n for n in ("valid", "val", "dev") if n in found), None)):
        found["validation"] = found.pop(other)
    if unused := [name for name in found if name not in SPLITS]:
        log.warning("Splits of %s left aside: %s.", folder, ", ".join(unused))
    return {name: found[name] for name in SPLITS if name in found}


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


def _hub(settings: config.Hub, known: Set[str], usual_text: str | None) -> Corpus:
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
        name: arrow.dataset_source(path, table)
        for name, table in given.items()
        for path in [Path(f"{settings.path}[{wanted[name]}]")]
    }
    by_split = {name: [source] for name, source in sources.items()}
    corpus = reading.read_tables(settings, by_split, known=known, usual_text=usual_text)
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
