"""BRIGHTER's individual annotations: what each annotator said, in files whose layouts differ between languages.

A file has a row for each text and emotion, with a column for each annotator, or a row for each text, emotion and
annotator. Cells are 0 to 3, how strongly the annotator saw the emotion; blank ones: not asked.
Texts are those of track A, but for spaces, marks and punctuation, and stand there in train, dev or test.
"""

import functools
import re
import unicodedata
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emotion_lightning.data import languages
from emotion_lightning.data.carried import as_value
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import as_text, is_blank
from emotion_lightning.data.rows import Chunk, Problems, Rows
from emotion_lightning.errors import UserError

FOLDER = "individual_labels"

_EMOTIONS = {
    "anger": "anger", "disgust": "disgust", "fear": "fear", "joy": "joy", "sadness": "sadness", "surprise": "surprise",
    "happy": "joy", "happiness": "joy", "sad": "sadness",
    "furie": "anger", "dezgust": "disgust", "frica": "fear", "bucurie": "joy", "tristete": "sadness",
    "surpriza": "surprise",
}  # fmt: skip
"""What the files call the emotions, in English and in Romanian."""
_ORDER = {name: number for number, name in enumerate(dict.fromkeys(_EMOTIONS.values()))}

_ASIDE = {"neutral"}
_ANNOTATOR = re.compile(r"annotator[-_ ]?\w+")
_VOTES = {"0": 0, "1": 1, "2": 1, "3": 1, "0.0": 0, "1.0": 1, "2.0": 1, "3.0": 1}
"""Whether an annotator saw the emotion at all."""


@dataclass
class Votes:
    """Annotations of texts, by text and emotion.

    Attributes:
        seen: how many annotators saw an emotion in a text.
        asked: how many of them looked for it.
        labels: the emotions that were asked for.
        paths: the files.
        annotators: number of each annotator, by name.
    """

    seen: dict[str, dict[str, int]] = field(default_factory=dict)
    asked: dict[str, dict[str, int]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    paths: list[Path] = field(default_factory=list)
    annotators: dict[str, int] = field(default_factory=dict)
    _texts: dict[str, int] = field(default_factory=dict)
    _each: "array[int]" = field(default_factory=lambda: array("i"))
    """Number of the text, of the annotator (-1: not known) and of the emotion, and the vote, one after the other."""

    def add(self, text: str, emotion: str, votes: list[tuple[str | None, int]]) -> None:
        """Add what annotators, by name, said about an emotion in a text."""
        key = text_key(text)
        for of, number in ((self.seen, sum(vote for _, vote in votes)), (self.asked, len(votes))):
            one = of.setdefault(key, {})
            one[emotion] = one.get(emotion, 0) + number
        place = self._texts.setdefault(key, len(self._texts))
        for name, vote in votes:
            who = -1 if name is None else self.annotators.setdefault(name, len(self.annotators))
            self._each.extend((place, who, _ORDER[emotion], vote))
        self.labels.add(emotion)

    def of(self, texts: list[str], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """How many annotators saw each label in each text, and how many looked for it, [text, label] each."""
        keys = [text_key(text) for text in texts]
        seen, asked = (
            np.array([[of.get(key, {}).get(name, 0) for name in names] for key in keys]).reshape(len(keys), len(names))
            for of in (self.seen, self.asked)
        )
        return seen, asked

    def rows(self, texts: list[str], names: list[str]) -> tuple[Rows, npt.NDArray[np.int64]]:
        """What each annotator said of these texts, a row for each, and the number of the text of each row, [row].

        An annotator who said something twice of a text has several rows of it.

        Args:
            texts: those that are wanted; of equal ones, once.
            names: labels; what was not asked is open.
        """
        wanted: dict[int, str] = {}
        for text in texts:
            if (number := self._texts.get(text_key(text))) is not None:
                wanted.setdefault(number, text)
        each = np.frombuffer(self._each, dtype=np.intc).reshape(-1, 4).astype(np.int64)
        columns = np.full(len(_ORDER), -1)
        for i, name in enumerate(names):
            columns[_ORDER[name]] = i
        each[:, 2] = columns[each[:, 2]]
        each = each[np.isin(each[:, 0], list(wanted)) & (each[:, 2] >= 0)]
        each = each[np.lexsort((each[:, 2], each[:, 1], each[:, 0]))]  # stable
        start = np.ones(len(each), dtype=bool)
        start[1:] = (each[1:, :3] != each[:-1, :3]).any(axis=1)
        begins = np.flatnonzero(start)
        again = np.arange(len(each)) - begins[np.cumsum(start) - 1]  # how often this was said before
        keys, place = np.unique(np.column_stack([each[:, :2], again]), axis=0, return_inverse=True)
        place = place.reshape(-1)
        targets = np.zeros((len(keys), len(names)), np.float32)
        open_ = np.ones(targets.shape, dtype=bool)
        targets[place, each[:, 2]], open_[place, each[:, 2]] = each[:, 3], False
        known = list(self.annotators)
        rows = Rows(
            [str(number) for number in keys[:, 0]],
            [wanted[number] for number in keys[:, 0].tolist()],
            targets,
            open=open_ if open_.any() else None,
            annotators=[known[who] if who >= 0 else None for who in keys[:, 1].tolist()],
        )
        _, numbers = np.unique(keys[:, 0], return_inverse=True)
        return rows, np.asarray(numbers.reshape(-1), dtype=np.int64)


@functools.lru_cache(maxsize=1000)  # rows of one text follow each other
def text_key(text: str) -> str:
    """Letters and digits of a text, by which the same text is known in two files.

    >>> text_key("Să fie…  BINE!") == text_key("Sa fie bine")
    True
    """
    spelled = unicodedata.normalize("NFKD", text).casefold()
    return "".join(sign for sign in spelled if unicodedata.category(sign)[0] in "LN") or text.strip()


def read(folder: Path, language: str, where: str) -> Votes:
    """Read the individual annotations of a language.

    Args:
        folder: that of data.dir, or one of those around it, has the folder of the annotations.
        language: the language.
        where: where the data is to be had, for messages.

    Raises:
        UserError: there are none, or a file has a layout that is not known.
    """
    bases = [base / FOLDER for base in (folder, *folder.resolve().parents[:3])]
    base = next((base for base in bases if base.is_dir()), None)
    if base is None:
        raise UserError(f"{folder} has no folder {FOLDER}, which data.individual=true needs; take it from {where}")
    # Where a copy lacks a large file, the intensities beside it, zipped, say the same.
    found = sorted((base / language).glob("*.csv")) or sorted((base / language).glob("*.csv.zip"))
    if not found:
        known = sorted(path.name for path in base.iterdir() if any(path.glob("*.csv*")))
        raise languages.unknown(language, known, f"{language}/{language}_individuals.csv", base)
    votes, problems = Votes(paths=found), Problems()
    for path in found:
        source = files.source(path)
        # Annotator-1 of another file or language is another person, as far as is known.
        whose = language if len(found) == 1 else path.stem
        for chunk in source.chunks(problems):
            _add(votes, chunk, path, problems, whose)
    problems.raise_any()
    return votes


def _add(votes: Votes, chunk: Chunk, path: Path, problems: Problems, whose: str) -> None:
    names = {languages.plain_name(name): name for name in chunk.columns}
    text = next((names[name] for name in ("text", "text_content") if name in names), None)
    annotators = [own for name, own in names.items() if _ANNOTATOR.fullmatch(name)]
    if "annotator" in names:
        known = {"id", "text_id", "text", "text_content", "emotion", "annotator", ""}
        annotators = [own for name, own in names.items() if name not in known]
        annotators = annotators if len(annotators) == 1 else []
    if text is None or "emotion" not in names or not annotators:
        shown = ", ".join(chunk.columns)[:100]
        raise UserError(
            f"{path} has the columns {shown}, where a text, an emotion and what annotators said are due; its layout is "
            "not known."
        )
    texts, emotions = chunk.column(text), chunk.column(names["emotion"])
    cells = [chunk.column(name) for name in annotators]
    who = chunk.column(names["annotator"]) if "annotator" in names else None
    for place, row in enumerate(chunk.rows):
        name = languages.plain_name(as_text(emotions[place]) or "")
        if name in _ASIDE:
            continue
        if name not in _EMOTIONS:
            problems.add(path, f"{name[:60]!r} is no emotion that is known.", row=row, column=names["emotion"])
            continue
        said: list[tuple[str | None, int]] = []
        for column, own in zip(annotators, cells, strict=True):
            if is_blank(own[place]):
                continue
            vote = _VOTES.get((as_text(own[place]) or "").strip())
            if vote is None:
                problems.add(path, f"{own[place]!r} where 0 to 3 is due.", row=row, column=column)
            else:
                by = column if who is None else as_value(who[place])
                said.append((f"{whose}: {by}" if by else None, vote))
        votes.add(as_text(texts[place]) or "", _EMOTIONS[name], said)
