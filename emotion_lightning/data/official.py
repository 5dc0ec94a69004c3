"""Readers for the bundled sample and for the official files of GoEmotions and SemEval-2018."""

import csv
from pathlib import Path

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import labels, tables
from emotion_lightning.data.columns import Columns
from emotion_lightning.data.decisions import Decisions
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import SPLITS, Corpus, Problems, Rows
from emotion_lightning.errors import UserError

SAMPLE = Path(__file__).parent / "sample"

SEMEVAL_LABELS = (
    "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise", "trust",
)  # fmt: skip


def sample() -> Corpus:
    """Read the bundled sample."""
    columns = Columns("text", "id", list(SEMEVAL_LABELS), labels_column=None, separator="")
    problems = Problems()
    paths = {name: SAMPLE / f"{name}.csv" for name in SPLITS}
    splits = {name: tables.read_rows(files.source(path), columns, problems) for name, path in paths.items()}
    problems.raise_any()
    return Corpus(columns.labels, splits, hashes(paths), decisions=_decisions(paths, splits))


def semeval(settings: config.SemEval2018) -> Corpus:
    """Read SemEval-2018 E-c from a folder of its official files."""
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
    return Corpus(names, splits, hashes(paths), decisions=_decisions(paths, splits))


def _semeval_file(file: Path) -> tuple[list[str], Rows]:
    # Tweets contain quotes, literal \n and HTML entities. The files are not quoted, so lines are split only at tabs.
    files.check_exists(file)
    problems = Problems()
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}); take the official file.") from error
    header = lines[0].rstrip("\r").split("\t")
    names = [labels.normalised(name) for name in header[2:]]
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
    labels.check_names(names, str(file))
    if not ids:
        raise UserError(f"{file} has a header and no rows.")
    targets = None if any(unlabelled) else np.array(cells, dtype=np.float32).reshape(len(cells), len(names))
    return names, Rows(ids, texts, targets, "ID")


def goemotions(path: str | None) -> Corpus:
    """Read GoEmotions from a folder of its official files."""
    folder = _data_folder(path)
    names_file = _find(folder, ["labels.txt", "emotions.txt"])
    names = [labels.normalised(name) for name in names_file.read_text(encoding="utf-8-sig").split()]
    labels.check_names(names, str(names_file))
    splits: dict[str, Rows] = {}
    paths: dict[str, Path] = {}
    for name, file_name in {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}.items():
        file = _find(folder, [file_name])
        splits[name] = _goemotions_file(file, names)
        paths[name] = file
    return Corpus(names, splits, hashes(paths), decisions=_decisions(paths, splits))


def _goemotions_file(file: Path, names: list[str]) -> Rows:
    # The files are tab-separated, without a header, and texts are CSV-quoted: splitting only at tabs would change 1,097
    # training texts.
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


def _decisions(paths: dict[str, Path], splits: dict[str, Rows]) -> Decisions:
    # Of the bundled sample, whose place is no concern of the user, only the name.
    return Decisions(
        files=[
            {"split": name, "path": path.name if path.parent == SAMPLE else str(path), "rows": len(splits[name])}
            for name, path in paths.items()
        ],
    )


def hashes(paths: dict[str, Path]) -> dict[str, str]:
    """sha256 of each file, under the same keys."""
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
