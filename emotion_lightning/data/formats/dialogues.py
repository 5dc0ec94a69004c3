"""Reader for DailyDialog: a line of one file is a dialogue, that of another the emotions of its utterances.

Li et al., 2017, DailyDialog: A Manually Labelled Multi-turn Dialogue Dataset.
"""

import itertools
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats.delimited import ROWS_AT_ONCE
from emotion_lightning.data.formats.encoding import numbered_lines
from emotion_lightning.data.rows import Chunk, Problems, Roles, Source
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_END = "__eou__"
"""Stands at the end of each utterance."""

EMOTIONS = ("no emotion", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""The emotions in the order of their numbers, as in the readme of the dataset."""


def is_dialogues(path: Path) -> bool:
    """Whether a file holds a dialogue in each line, as those of DailyDialog do."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open("rb") as file:
        return _END.encode() in file.readline(1 << 16)


def emotions_of(path: Path) -> Path:
    """The file of emotions beside a file of dialogues, as DailyDialog names both."""
    part = path.stem.removeprefix("dialogues_")
    return path.with_name("dialogues_emotion.txt" if part == "text" else f"dialogues_emotion_{part}.txt")


def without_companions(found: list[Path]) -> list[Path]:
    """Files without those that belong to files of dialogues beside them: emotions, topics and acts."""
    if not any(file.name.startswith("dialogues_") and is_dialogues(file) for file in found):
        return found
    return [file for file in found if not file.name.startswith("dialogues_") or is_dialogues(file)]


def source(path: Path, encoding: str | None) -> Source:
    """The utterances as rows, with the columns text, emotion, dialogue_id and turn.

    Raises:
        UserError: the file of emotions is missing.
    """
    beside = emotions_of(path)
    if not beside.is_file():
        raise UserError(
            f"{path} holds a dialogue in each line, as DailyDialog does; the file of their emotions is missing beside "
            f"it: {beside.name}."
        )
    log.info("%s is read as DailyDialog, with a row for each utterance; emotions are in %s.", path, beside.name)
    about = {"format": "DailyDialog", "encoding": encoding or "utf-8", "emotions": beside.name}
    return Source(path, partial(_chunks, path, beside, encoding), about=about, roles=Roles("text", None, "emotion"))


def _chunks(path: Path, beside: Path, encoding: str | None, problems: Problems) -> Iterator[Chunk]:
    names = ("text", "emotion", "dialogue_id", "turn")
    rows = _rows(path, beside, encoding, problems)
    start = 1
    while piece := list(itertools.islice(rows, ROWS_AT_ONCE)):
        columns: dict[str, list[Any]] = {
            name: list(cells) for name, cells in zip(names, zip(*piece, strict=True), strict=True)
        }
        yield Chunk(range(start, start + len(piece)), columns)
        start += len(piece)


def _rows(path: Path, beside: Path, encoding: str | None, problems: Problems) -> Iterator[tuple[str, str, int, int]]:
    both = itertools.zip_longest(_filled(path, encoding), _filled(beside, encoding))
    for dialogue, (talk, emotions) in enumerate(both, start=1):
        if talk is None or emotions is None:
            raise UserError(
                f"{path} and {beside.name} differ in their number of lines; line {dialogue} has no partner."
            )
        texts = [text.strip() for text in talk.split(_END)]
        texts = texts[:-1] if texts[-1] == "" else texts
        numbers = emotions.split()
        if len(texts) != len(numbers):
            what = f"{len(texts)} utterances, but {len(numbers)} emotions in {beside.name}; leave the line out of both."
            problems.add(path, f"line {dialogue} has {what}")
            continue
        for turn, (text, number) in enumerate(zip(texts, numbers, strict=True), start=1):
            if not number.isdecimal() or int(number) >= len(EMOTIONS):
                problems.add(
                    beside, f"line {dialogue} has the emotion {number!r}, where 0 to {len(EMOTIONS) - 1} are due."
                )
            else:
                yield text, EMOTIONS[int(number)], dialogue, turn


def _filled(path: Path, encoding: str | None) -> Iterator[str]:
    return (line for _, line in numbered_lines(path, encoding) if line.strip())
