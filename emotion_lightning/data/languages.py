"""Official datasets of several languages: finds their files, and puts their rows together as one set."""

import bisect
import csv
import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import splitting
from emotion_lightning.data.decisions import Decisions
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError

LANGUAGE = "language"
"""Column of the language of each row, in `Rows.carried`."""


@dataclass(eq=False)
class Part:
    """The rows of one file.

    Attributes:
        split: where they belong.
        language: their language.
        path: the file.
        rows: what was read.
        labels: names, in the order of the label axis of the rows.
        about: how the file was read, for data.json: format, and rows left out by reason.
    """

    split: str
    language: str
    path: Path
    rows: Rows
    labels: list[str]
    about: dict[str, Any] = field(default_factory=dict)


def folder_of(settings: config.Multilingual, *, option: str, where: str) -> Path:
    """The folder that data.dir names.

    Args:
        settings: settings of the dataset.
        option: its name in the data group.
        where: where its files are, for the message.

    Raises:
        UserError: none is named, or it is no folder.
    """
    if settings.dir is None:
        raise UserError(f"data={option} needs data.dir=FOLDER, the folder of {where}")
    folder = Path(settings.dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.dir={settings.dir} is not a folder; data={option} needs the folder of {where}")
    return folder


def chosen(settings: config.Multilingual, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The languages to train on and those to test on.

    Args:
        settings: settings of the dataset.
        known: languages that the folder has.
    """
    train = list(known) if settings.languages is None else settings.languages
    return train, train if settings.test_languages is None else settings.test_languages


def unknown(language: str, known: Sequence[str], file: str, folder: Path) -> UserError:
    """The error about a language without a file: which file was looked for, and which languages there are."""
    return UserError(f"{folder} has no {file} for the language {language}; its languages are {', '.join(known)}.")


def records(path: Path, *, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a quoted table and their numbers, from 1; blank lines are skipped but counted.

    Raises:
        UserError: the file is no text in UTF-8, or no table.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            for number, cells in enumerate(csv.reader(opened, delimiter=delimiter), start=1):
                if cells:
                    yield number, cells
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); take the official file.") from error
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1}: no row of a table ({error}); take the official file.") from error


@functools.lru_cache(maxsize=1000)
def plain_name(name: str) -> str:
    """A name without marks and case, as in headers that differ in them."""
    return "".join(c for c in unicodedata.normalize("NFKD", name.strip()).casefold() if not unicodedata.combining(c))


def assembled(parts: Sequence[Part], labels: list[str], settings: config.Multilingual) -> Corpus:
    """Put the rows of all files together by split, each with the column `language`.

    Args:
        parts: the files, in the order in which their rows shall stand.
        labels: the labels to keep; those that a file does not have are left open in its rows.
        settings: settings of the dataset; of `max_rows`, each file gets an equal part as far as it has so many rows.
    """
    splits: dict[str, Rows] = {}
    decisions = Decisions()
    for split in dict.fromkeys(part.split for part in parts):
        own = [part for part in parts if part.split == split]
        numbers = shares([len(part.rows) for part in own], settings.max_rows)
        splits[split] = splitting.joined(
            [_kept(part, labels).take(range(number)) for part, number in zip(own, numbers, strict=True)]
        )
    for part in parts:
        file = {"split": part.split, "path": str(part.path), "language": part.language, **part.about}
        decisions.files.append(file | {"rows": len(part.rows)})
    hashes = {f"{part.split} {part.path.stem}": files.sha256(part.path) for part in parts}
    return Corpus(labels, splits, hashes, decisions=decisions)


def _kept(part: Part, labels: list[str]) -> Rows:
    rows = part.rows
    rows.carried = {LANGUAGE: [part.language] * len(rows), **rows.carried}
    if rows.targets is None or part.labels == labels:
        return rows
    has = [name in part.labels for name in labels]
    places = [part.labels.index(name) if name in part.labels else 0 for name in labels]
    known = np.array(has, dtype=np.float32)
    rows.targets = rows.targets[:, places] * known
    rows.shares = None if rows.shares is None else rows.shares[:, places] * known
    if rows.open is not None or not all(has):
        given = np.zeros(rows.targets.shape, dtype=bool) if rows.open is None else rows.open[:, places]
        rows.open = given | ~np.array(has)
    return rows


def shares(sizes: Sequence[int], most: int | None) -> list[int]:
    """How many rows to take from files of these sizes, so that together they are `most` at most, as equally as can be.

    >>> shares([100, 5, 100], 50), shares([3, 4], 50), shares([10, 10], None)
    ([23, 5, 22], [3, 4], [10, 10])
    """
    if most is None or sum(sizes) <= most:
        return list(sizes)
    # No file gives more than this number; what is left over comes from the first files that have more.
    level = bisect.bisect_right(range(most + 1), most, key=lambda rows: sum(min(size, rows) for size in sizes)) - 1
    taken = [min(size, level) for size in sizes]
    larger = [place for place, size in enumerate(sizes) if size > level]
    for place in larger[: most - sum(taken)]:
        taken[place] += 1
    return taken
