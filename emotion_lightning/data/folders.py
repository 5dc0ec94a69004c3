"""Folders and patterns as data.path: files of the same columns, read as one or as the splits that they name."""

import dataclasses
import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from emotion_lightning.data.formats import archive, arrow, dialogues, files
from emotion_lightning.data.rows import SPLITS, Chunk, Problems, Source
from emotion_lightning.errors import UserError

FILE = "file"
"""Column with the name of the file of a row, without its suffixes."""

FROM_NAMES = "the names of the files"
"""Where the splits come from, for data.json."""

_USUAL = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_SHOWN = 20


def expand(path: Path) -> list[Path]:
    """The files that a path stands for: those of a folder or of a pattern such as data/*.csv, sorted; or itself.

    Raises:
        UserError: the folder holds no tables, or tables of several formats, which may hold the same rows twice.
    """
    if path.is_dir() and not arrow.is_saved(path) and not (path / arrow.SAVED_SPLITS).is_file():
        found = dialogues.without_companions(sorted(file for file in path.iterdir() if is_table(file)))
        if not found:
            raise UserError(f"{path} is a folder without tables; they end in {', '.join(files.SUFFIXES)}.")
        kinds = {files.kind(file) for file in found}
        if len(kinds) > 1:
            raise UserError(
                f"{path} holds files of several formats ({_listed(found)}), perhaps the same rows twice. Choose one "
                f"with a pattern, for example data.path={path}/*{found[0].suffix}"
            )
        return found
    if is_pattern(path):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if is_table(Path(name)))
        if not found:
            raise UserError(f"{path} matches no file that is a table; they end in {', '.join(files.SUFFIXES)}.")
        return found
    return [path]


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of names and not the name of a file."""
    return glob.has_magic(str(path)) and not path.exists()


def is_table(file: Path) -> bool:
    """Whether a file is a table by its name: no hidden file, no README, and a suffix that is read."""
    return file.is_file() and not archive.is_aside(file.name) and files.has_known_suffix(file)


def by_split(found: Sequence[Path]) -> dict[str, list[Path]] | None:
    """The files of each split, where all are named like one; None where none is.

    Raises:
        UserError: only some of the files are named like splits, or none of them is train.
    """
    splits: dict[str, list[Path]] = {}
    unnamed = []
    for file in found:
        name = split_of(file)
        if name is None:
            unnamed.append(file)
        else:
            splits.setdefault(name, []).append(file)
    if not splits:
        return None
    splits = {name: splits[name] for name in SPLITS if name in splits}
    if unnamed:
        raise UserError(
            f"Only some of the files in {found[0].parent} are named like splits: {_named(splits)}; not so "
            f"{_listed(unnamed)}. Name the files of each split, for example {_settings(splits)}; or "
            "data.split_column=none reads all of them as one and splits anew."
        )
    if "train" not in splits:
        raise UserError(
            f"No file in {found[0].parent} is named like train ({_named(splits)}). Name it: data.train=… "
            f"{_settings(splits)}"
        )
    return splits


def split_of(file: Path) -> str | None:
    """The split that the name of a file begins with or has as a word; None if it names none or several.

    >>> [split_of(Path(name)) for name in ("train-00000-of-00002.parquet", "dev_sent_emo.csv", "testimony.csv")]
    ['train', 'validation', None]
    """
    words = set(re.split(r"[^a-z]+", file.name.lower()))
    found = [split for split, usual in _USUAL.items() if words & set(usual)]
    return found[0] if len(found) == 1 else None


def with_file(source: Source, file: Path) -> Source:
    """The source with a column of the name of its file, unless it has a column of that name."""
    name = file.name[: -len("".join(file.suffixes))] if file.suffixes else file.name

    def chunks(problems: Problems) -> Iterator[Chunk]:
        for chunk in source.chunks(problems):
            yield Chunk(chunk.rows, {FILE: [name] * len(chunk.rows)} | chunk.columns)

    return dataclasses.replace(source, chunks=chunks)


def _named(splits: dict[str, list[Path]]) -> str:
    return "; ".join(f"{name}: {_listed(found)}" for name, found in splits.items())


def _settings(splits: dict[str, list[Path]]) -> str:
    return " ".join(
        f"data.{name}={found[0] if len(found) == 1 else '[' + ','.join(map(str, found[:3])) + ']'}"
        for name, found in splits.items()
    )


def _listed(found: Sequence[Path]) -> str:
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return ", ".join(file.name for file in found[:_SHOWN]) + more
