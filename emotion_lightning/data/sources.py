"""Where texts and labels come from: the bundled sample, official files, files of the user's own, the hub."""

import csv
import logging
from pathlib import Path

import numpy as np

from emotion_lightning import config, labels
from emotion_lightning.data import files, tables
from emotion_lightning.data.rows import SPLITS, WHOLE, Corpus, Problems, Rows
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample"

_OWN_COLUMNS = {"text": None, "labels": None, "labels_column": None, "separator": ",", "id_column": None}


def read(settings: config.Data) -> Corpus:
    """Read the splits of a data set; raise UserError, naming file, row and column, before anything is written.

    A single file comes back as the split `whole`; `split` makes the three of it.
    """
    match settings:
        case config.Sample():
            corpus = _sample()
        case config.SemEval2018(dir=None):
            corpus = _hub(_semeval_on_hub(settings))
        case config.SemEval2018():
            corpus = _semeval(settings)
        case config.GoEmotions(dir=None):
            corpus = _hub(_goemotions_on_hub(settings))
        case config.GoEmotions():
            corpus = _goemotions(settings)
        case config.File():
            corpus = _file(settings)
        case config.Hub():
            corpus = _hub(settings)
        case _:
            raise TypeError(f"no source for {type(settings).__name__}")
    assert isinstance(settings, config.Batches)
    if settings.max_rows is not None:
        corpus.splits = {
            name: rows.take(range(min(settings.max_rows, len(rows)))) for name, rows in corpus.splits.items()
        }
    return corpus


def split(corpus: Corpus, settings: config.Data) -> Corpus:
    """A corpus with train and validation: what is missing is cut from the rest, stratified by labels and seeded."""
    splits = dict(corpus.splits)
    if WHOLE in splits:
        assert isinstance(settings, config.File)
        whole = splits.pop(WHOLE)
        rest, test = _cut(whole, settings.test_share, settings.split_seed)
        # The share is of the whole file, the cut is from what is left.
        train, validation = _cut(rest, settings.validation_share / (1 - settings.test_share), settings.split_seed)
        splits = {"train": train, "validation": validation}
        if len(test):
            splits["test"] = test
        log.info("Split for you: %s.", ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items()))
    if "validation" not in splits:
        assert isinstance(settings, config.File | config.Hub)
        splits["train"], splits["validation"] = _cut(splits["train"], settings.validation_share, settings.split_seed)
        log.info("No validation split: took %s of the training rows.", f"{len(splits['validation']):,}")
    return Corpus(corpus.labels, {name: splits[name] for name in SPLITS if name in splits}, corpus.hashes)


def _cut(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Two parts, the second with about this share of the rows and of every label's positives."""
    wanted = round(share * len(rows))
    if share == 0:
        return rows, rows.take(range(0))
    if wanted < 1 or len(rows) - wanted < 1:
        raise UserError(
            f"{len(rows)} rows are too few to split off a share of {share:g}; add rows, or give your own splits with "
            "data.train=, data.validation= and data.test=."
        )
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    assert rows.targets is not None
    # A column of ones stands for the rows themselves.
    stratified = np.hstack([rows.targets, np.ones((len(rows), 1))]).astype(int)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=wanted, random_state=seed)
    kept, cut = _sized(*next(splitter.split(np.zeros(len(rows)), stratified)), wanted=wanted, seed=seed)
    return rows.take(np.sort(kept)), rows.take(np.sort(cut))


def _sized(kept: np.ndarray, cut: np.ndarray, *, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Move a few rows at random, so that the cut has the size asked for: with many labels the splitter misses it."""
    surplus = len(cut) - wanted
    source = cut if surplus > 0 else kept
    moved = np.random.default_rng(seed).choice(source, size=abs(surplus), replace=False)
    if surplus > 0:
        return np.concatenate([kept, moved]), np.setdiff1d(cut, moved)
    return np.setdiff1d(kept, moved), np.concatenate([cut, moved])


# --------------------------------------------------------------------------------------------------- official files


SEMEVAL_LABELS = (
    "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise", "trust",
)  # fmt: skip


def _sample() -> Corpus:
    columns = tables.Columns("text", "id", list(SEMEVAL_LABELS), labels_column=None, separator=",")
    problems = Problems()
    paths = {name: SAMPLE / f"{name}.csv" for name in SPLITS}
    splits = {name: tables.rows(path, files.records(path), columns, problems) for name, path in paths.items()}
    problems.raise_any()
    return Corpus(columns.labels, splits, _hashes(paths))


def _semeval(settings: config.SemEval2018) -> Corpus:
    folder = _data_folder(settings.dir)
    splits: dict[str, Rows] = {}
    paths: dict[str, Path] = {}
    names: list[str] = []
    for name, endings in {"train": ["train"], "validation": ["dev"], "test": ["test-gold", "test"]}.items():
        candidates = [f"{lead}E-c-{settings.language}-{ending}.txt" for ending in endings for lead in ("2018-", "")]
        file = _find(folder, candidates)
        found, splits[name] = _semeval_file(file)
        names = names or found
        if found != names:
            raise UserError(f"{file}: its labels are {', '.join(found)}, those of train are {', '.join(names)}.")
        paths[name] = file
    return Corpus(names, splits, _hashes(paths))


def _semeval_file(file: Path) -> tuple[list[str], Rows]:
    # Tweets hold quotes, literal \n and HTML entities; the files are not quoted, so a line is split at tabs alone.
    files.check_exists(file)
    problems = Problems()
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}); take the official file.") from error
    header = lines[0].rstrip("\r").split("\t")
    names = header[2:]
    if header[:2] != ["ID", "Tweet"] or not names:
        raise UserError(f"{file}: its first line is not the official header, ID and Tweet and the labels with tabs.")
    ids, texts, cells, numbers = [], [], [], []
    for row, line in enumerate(lines[1:], start=1):
        parts = line.rstrip("\r").split("\t")
        if parts == [""]:
            continue
        if len(parts) != len(header):
            problems.add(file, f"{len(parts)} cells under a header of {len(header)} columns.", row=row)
            continue
        wrong = [n for n, value in zip(names, parts[2:], strict=True) if value not in ("0", "1", "NONE")]
        for name in wrong:
            problems.add(file, "a label that is not 0, 1 or NONE.", row=row, column=name)
        ids.append(parts[0])
        texts.append(parts[1])
        cells.append(parts[2:])
        numbers.append(row)
    unlabelled = ["NONE" in row for row in cells]
    if any(unlabelled) and not all(unlabelled):
        problems.add(file, "NONE for a label in a file with labels.", row=numbers[unlabelled.index(True)])
    problems.raise_any()
    if not ids:
        raise UserError(f"{file} has a header and no rows.")
    targets = None if any(unlabelled) else np.array(cells, dtype=np.float32).reshape(len(cells), len(names))
    return names, Rows(ids, texts, targets, "ID")


def _goemotions(settings: config.GoEmotions) -> Corpus:
    folder = _data_folder(settings.dir)
    names_file = _find(folder, ["labels.txt", "emotions.txt"])
    names = names_file.read_text(encoding="utf-8-sig").split()
    labels.check(names, str(names_file))
    splits: dict[str, Rows] = {}
    paths: dict[str, Path] = {}
    for name, file_name in {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}.items():
        file = _find(folder, [file_name])
        splits[name] = _goemotions_file(file, names)
        paths[name] = file
    return Corpus(names, splits, _hashes(paths))


def _goemotions_file(file: Path, names: list[str]) -> Rows:
    # Tab separated, without a header, the text CSV-quoted: a split at tabs would change 1,097 training texts.
    files.check_exists(file)
    problems = Problems()
    ids, texts, positions = [], [], []
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for row, cells in enumerate(csv.reader(opened, delimiter="\t"), start=1):
                if len(cells) != 3:
                    problems.add(file, f"{len(cells)} cells where text, label ids and comment id are due.", row=row)
                    continue
                text, listed, identifier = cells
                numbers = listed.split(",")
                if not all(number.isdecimal() and int(number) < len(names) for number in numbers):
                    problems.add(file, f"label ids {listed!r}, where numbers below {len(names)} are due.", row=row)
                    continue
                ids.append(identifier)
                texts.append(text)
                positions.append([int(number) for number in numbers])
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}); take the official file.") from error
    problems.raise_any()
    return Rows(ids, texts, labels.multi_hot(positions, count=len(names)), "id")


def _hashes(paths: dict[str, Path]) -> dict[str, str]:
    return {split: files.sha256(path) for split, path in paths.items()}


def _data_folder(path: str | None) -> Path:
    folder = Path(str(path)).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.dir={path} is not a folder.")
    return folder


def _find(folder: Path, candidates: list[str]) -> Path:
    for name in candidates:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has no {' or '.join(candidates)}; data.dir must name the folder of the official files.")


# ---------------------------------------------------------------------------------------------------- your own files


def _file(settings: config.File) -> Corpus:
    paths = {WHOLE: settings.path, "train": settings.train, "validation": settings.validation, "test": settings.test}
    given = {name: Path(path).expanduser() for name, path in paths.items() if path is not None}
    for path in given.values():
        files.check_exists(path)
        if files.kind(path) == "txt":
            raise UserError(f"{path} has texts only; training and scoring need labels too: csv, tsv, jsonl or parquet.")
    problems = Problems()
    splits: dict[str, Rows] = {}
    columns: tables.Columns | None = None
    for name, path in given.items():
        records = list(files.records(path, problems))
        if not records:
            problems.raise_any()
            raise files.no_rows(path)
        labelled = True
        if columns is None:
            columns = tables.find_columns(path, settings, records)
            labels.check(columns.labels, str(path))
        else:
            labelled = name != "test" or not tables.unlabelled(records, columns)
            required = [columns.text] + ([columns.id] if columns.id else [])
            if labelled:
                required += [columns.labels_column] if columns.labels_column else columns.labels
            names = {column for _, record in records for column in record}
            absent = [column for column in required if column not in names]
            if absent:
                raise UserError(f"{path} has no column {', '.join(absent)}, which {next(iter(given.values()))} has.")
        splits[name] = tables.rows(path, records, columns, problems, labelled=labelled)
    problems.raise_any()
    assert columns is not None
    return Corpus(columns.labels, splits, _hashes(given))


# --------------------------------------------------------------------------------------------------------------- hub


def _goemotions_on_hub(settings: config.GoEmotions) -> config.Hub:
    return _on_hub(
        settings, path="google-research-datasets/go_emotions", name="simplified", text="text", labels_column="labels",
        id_column="id",
    )  # fmt: skip


def _semeval_on_hub(settings: config.SemEval2018) -> config.Hub:
    languages = {"En": "english", "Ar": "arabic", "Es": "spanish"}
    return _on_hub(
        settings, path="SemEvalWorkshop/sem_eval_2018_task_1", name=f"subtask5.{languages[settings.language.value]}",
        # The data set itself is a script, which `datasets` no longer runs; the hub keeps a converted copy.
        revision="refs/convert/parquet", text="Tweet", labels=list(SEMEVAL_LABELS), id_column="ID",
    )  # fmt: skip


def _on_hub(settings: config.Batches, **own: object) -> config.Hub:
    fixed = {
        **_OWN_COLUMNS, "name": None, "revision": None, "train": "train", "validation": "validation", "test": "test",
        "validation_share": 0.1, "split_seed": 0, "max_tokens": settings.max_tokens,
        "batch_size": settings.batch_size, "max_rows": settings.max_rows, "workers": settings.workers,
    }  # fmt: skip
    return config.Hub(**{**fixed, **own})  # type: ignore[arg-type]  # one mapping for fields of several types


def _hub(settings: config.Hub) -> Corpus:
    import datasets

    place = f"{settings.path}{f' ({settings.name})' if settings.name else ''}"
    try:
        loaded = datasets.load_dataset(settings.path, settings.name, revision=settings.revision)
    except Exception as error:  # datasets raises built-in errors of many kinds; the useful sentence is in the cause
        reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
        raise UserError(
            f"The data set {place} cannot be loaded: {reason} Check data.path, data.name and the network, or download "
            "its files and use data=file (data.dir= for goemotions and semeval2018)."
        ) from error
    wanted = {"train": settings.train, "validation": settings.validation, "test": settings.test}
    if settings.train not in loaded:
        raise UserError(f"The data set {place} has no split {settings.train}; it has {', '.join(loaded)}.")
    # Not every data set has the other two; those that it has are taken.
    given = {name: loaded[source] for name, source in wanted.items() if source in loaded}
    if unused := sorted(set(loaded) - set(wanted.values())):
        log.warning("Splits of %s left aside: %s (see data.validation and data.test).", place, ", ".join(unused))
    problems = Problems()
    splits: dict[str, Rows] = {}
    columns: tables.Columns | None = None
    for name, table in given.items():
        path = Path(f"{settings.path}[{wanted[name]}]")
        records = [(row, record) for row, record in enumerate(table, start=1)]
        if not records:
            raise UserError(f"{path} has no rows.")
        if columns is None:
            named = _with_class_names(settings, table)
            columns = tables.find_columns(path, named, records)
            labels.check(columns.labels, str(path))
        splits[name] = tables.rows(path, records, columns, problems)
    problems.raise_any()
    assert columns is not None
    return Corpus(columns.labels, splits, {place: str(loaded[settings.train]._fingerprint)})


def _with_class_names(settings: config.Hub, table: object) -> config.Hub:
    """Take label names from the data set's own features where it has them."""
    import dataclasses

    feature = table.features.get(settings.labels_column) if settings.labels_column else None  # type: ignore[attr-defined]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if settings.labels is None and names:
        return dataclasses.replace(settings, labels=list(names))
    return settings
