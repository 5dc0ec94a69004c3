"""XED (Öhman et al., 2020): lines of films with Plutchik's eight emotions, from a folder of its official files.

`AnnotatedData` has English and Finnish lines that people labelled, and neutral ones in files of their own.
`Projections` has the lines of other languages that stand for these in the films' subtitles, with their labels.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_lightning import config
from emotion_lightning.config import Neutral
from emotion_lightning.data import labels, languages
from emotion_lightning.data.rows import WHOLE, Corpus, Problems, Rows
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

EMOTIONS = ["anger", "anticipation", "disgust", "fear", "joy", "sadness", "surprise", "trust"]
"""Names of the numbers 1 to 8."""

NEUTRAL = "neutral"
SOURCE = "source"
"""Column that says whether a line was annotated, is neutral, or has the labels of another language's."""

_WHERE = "XED: clone https://github.com/Helsinki-NLP/XED (CC BY 4.0, name its authors)."
_PLACES = ("AnnotatedData", "Projections", ".")
_ENDINGS = {"annotated": "-annotated.tsv", "projected": "-projections*.tsv"}
_PROJECTED = "-projections"
"""Ending of the languages en and fi for the lines that have the labels of the other one's, as in the names of files."""

_SWALLOWED = re.compile(r"\s+(?=\S+/\d+/\S+\.xml\.gz\s)")
"""Where a line with an opening quote has swallowed the lines after it, which begin with the name of a subtitle file."""


@dataclass(frozen=True)
class _Files:
    """The files of a language: its lines with emotions, and the neutral ones."""

    lines: Path
    source: str
    neutral: Path | None


def read(settings: config.XED) -> Corpus:
    """Read the languages of the settings, as one set without splits, or as train and test for `test_languages`.

    Raises:
        UserError: the folder or a file is missing or is none of XED; the message says what was looked for.
    """
    folder = languages.folder_of(settings, option="xed", where=_WHERE)
    found = _found(folder)
    if not found:
        raise UserError(
            f"{folder} has no {_PLACES[0]}/en-annotated.tsv, nor another file of XED; data.dir must name the folder of "
            f"{_WHERE}"
        )
    train, test = languages.chosen(settings, list(found))
    for language in dict.fromkeys([*train, *test]):
        if language not in found:
            place = f"{_PLACES[0]}/{language}-annotated.tsv or {_PLACES[1]}/{language}-projections.tsv"
            raise languages.unknown(language, list(found), place, folder)
    by_split = {WHOLE: train}
    if settings.test_languages is not None:
        if both := [language for language in test if language in train]:
            raise UserError(
                f"{both[0]} is in data.languages and in data.test_languages, but XED has no official splits: a "
                "language is trained on or tested on. Leave it out of one, or leave out data.test_languages."
            )
        by_split = {"train": train, "test": test}
    names = [*EMOTIONS, NEUTRAL] if settings.neutral is Neutral.label else EMOTIONS
    problems = Problems()
    parts = [
        part
        for split, wanted in by_split.items()
        for language in wanted
        for part in _parts(split, language, found[language], settings, names, problems)
    ]
    problems.raise_any()
    corpus = languages.assembled(parts, names, settings)
    if settings.test_languages is not None:
        corpus.decisions.split = f"test is in {', '.join(test)}"
    _note(corpus, parts, [*train, *test])
    return corpus


def _found(folder: Path) -> dict[str, _Files]:
    """The files of each language that the folder has, en and fi first."""
    annotated: dict[str, _Files] = {}
    projected: dict[str, _Files] = {}
    for place in (folder / name for name in _PLACES):
        for path in sorted(place.glob("*" + _ENDINGS["annotated"])):
            language = path.name.removesuffix(_ENDINGS["annotated"])
            neutral = path.with_name(f"neu_{language}.txt")
            annotated.setdefault(language, _Files(path, "annotated", neutral if neutral.is_file() else None))
        for path in sorted(place.glob("*" + _ENDINGS["projected"])):
            language = path.name.partition(_PROJECTED)[0]
            projected.setdefault(language, _Files(path, "projected", None))
    own = {(f"{name}{_PROJECTED}" if name in annotated else name): file for name, file in projected.items()}
    return annotated | own


def _parts(
    split: str, language: str, found: _Files, settings: config.XED, names: list[str], problems: Problems
) -> list[languages.Part]:
    rows, about = _lines(found.lines, language, found.source, len(names), problems)
    spoken = language.removesuffix(_PROJECTED)
    parts = [languages.Part(split, spoken, found.lines, rows, names, about)]
    if settings.neutral is Neutral.left_out or found.source != "annotated":
        return parts
    if found.neutral is None:
        problems.note(
            found.lines,
            f"{found.lines.parent} has no neu_{language}.txt, the neutral lines of {language}. Take it from {_WHERE} "
            "Or read the other lines only: data.neutral=left_out.",
        )
        return parts
    rows, about = _neutral_lines(found.neutral, language, names, problems)
    return [*parts, languages.Part(split, spoken, found.neutral, rows, names, about)]


def _lines(path: Path, language: str, source: str, count: int, problems: Problems) -> tuple[Rows, dict[str, object]]:
    ids, texts, positions, cut, empty = [], [], [], 0, 0
    for row, cells in languages.records(path, delimiter="\t"):
        if row == 1 and cells[-1:] == ["emotion"]:
            continue
        numbers = [number.strip() for number in cells[-1].split(",")]
        if len(cells) != 2 or not all(number in "012345678" and number for number in numbers):
            what = f"{len(cells)} cells" if len(cells) != 2 else f"labels {cells[1][:60]!r}"
            problems.add(path, f"{what}, where a text, a tab and numbers from 1 to {len(EMOTIONS)} are due.", row=row)
            continue
        text = _SWALLOWED.split(cells[0])[0]
        if not text.strip():
            empty += 1
            continue
        cut += text != cells[0]
        ids.append(f"{language}-{row}")
        texts.append(text)
        # 0 is neutral, which is none of the eight.
        positions.append([int(number) - 1 for number in numbers if number != "0"])
    if not ids and not problems.count:
        problems.note(path, f"{path} has no rows.")
    rows = Rows(ids, texts, labels.multi_hot(positions, count=count), "id", carried={SOURCE: [source] * len(ids)})
    left = {"without a text": empty} if empty else {}
    return rows, {"format": "tsv"} | ({"left_out": left} if left else {}) | ({"cut": cut} if cut else {})


def _neutral_lines(path: Path, language: str, names: list[str], problems: Problems) -> tuple[Rows, dict[str, object]]:
    # A number, a tab and the text; in some lines, places in the subtitles follow. They are not quoted.
    ids, texts, empty = [], [], 0
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); take the official file.") from error
    for row, line in enumerate(lines, start=1):
        cells = line.rstrip("\r").split("\t")
        if not any(cell.strip() for cell in cells):
            empty += line != ""
        elif len(cells) not in (2, 5) or not cells[0].isdecimal():
            problems.add(path, f"{line[:60]!r}, where a number, a tab and a text are due.", row=row)
        elif not cells[1].strip():
            empty += 1
        else:
            ids.append(f"{language}-neutral-{row}")
            texts.append(cells[1])
    targets = np.zeros((len(ids), len(names)), np.float32)
    if NEUTRAL in names:
        targets[:, names.index(NEUTRAL)] = 1
    rows = Rows(ids, texts, targets, "id", carried={SOURCE: [NEUTRAL] * len(ids)})
    return rows, {"format": "txt"} | ({"left_out": {"without a text": empty}} if empty else {})


def _note(corpus: Corpus, parts: list[languages.Part], read_: list[str]) -> None:
    """Note what may surprise: lines that had swallowed others, and translations of one line in several languages."""
    found = []
    cut = sum(int(file.pop("cut", 0)) for file in corpus.decisions.files)
    if cut:
        found.append(
            f"XED: {cut:,} texts of projections have swallowed lines of other files; they were cut where these begin."
        )
    projected = sorted({part.language for part in parts if part.path.name.startswith(f"{part.language}{_PROJECTED}")})
    if projected and len(set(read_)) > 1:
        found.append(
            "XED: lines of projections stand for lines of en and fi in the same films, so the same line may be in "
            "train in one language and in test in another; scores between languages are higher for it."
        )
    for sentence in found:
        log.warning("%s", sentence)
    corpus.decisions.notes.extend(found)
