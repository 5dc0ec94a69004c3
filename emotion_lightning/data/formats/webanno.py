"""Reader for WebAnno TSV 3, which INCEpTION exports: a row for each sentence, with the labels of the spans in it.

The format is described in the manual of INCEpTION, in the appendix on WebAnno TSV.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats.delimited import ROWS_AT_ONCE
from emotion_lightning.data.formats.encoding import numbered_lines, open_text
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems
from emotion_lightning.errors import UserError

_FORMAT = "#FORMAT=WebAnno TSV"
_SPANS = "#T_SP="
_OTHERS = ("#T_CH=", "#T_RL=")
_LINKS = ("ROLE_", "BT_")
"""Beginnings of the names of features that point to other annotations."""
_TEXT = "#Text="
_TOKEN_COLUMNS = 3
"""Number, offsets and form of a token; then come the features of the layers."""

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PARTS = re.compile(r"(?<!\\)\|")
_NUMBER = re.compile(r"(?<!\\)\[\d+\]$")
"""The number of an annotation that covers several tokens, or of one of several on a token."""


def is_webanno(path: Path, encoding: str | None) -> bool:
    """Whether a text file is one of WebAnno TSV 3."""
    with open_text(path, encoding) as file:
        return file.readline(len(_FORMAT) + 1).lstrip("\ufeff").startswith(_FORMAT)


def features(path: Path, encoding: str | None) -> list[str]:
    """Names of the columns of labels: layer and feature of each layer of spans, such as Emotion.value.

    Raises:
        UserError: there is no layer of spans with a feature.
    """
    with open_text(path, encoding) as file:
        head = list(islice(file, 1000))
    named = _named(head)
    found = [name for name in named if name is not None]
    if not found:
        raise UserError(f"{path} has no layer of spans with a feature, which would hold the labels.")
    return found


def _named(head: list[str]) -> list[str | None]:
    """The features in the order of their columns; None for those of chains and relations."""
    found: list[str | None] = []
    for line in head:
        line = line.rstrip("\r\n")
        if line.startswith((_SPANS, *_OTHERS)):
            layer, *own = line.partition("=")[2].split("|")
            for name in own or [""]:
                labels = line.startswith(_SPANS) and name and not name.startswith(_LINKS)
                found.append(normalised(f"{layer.rpartition('.')[2]}.{name}") if labels else None)
        elif line.startswith(_TEXT):
            break
    return found


def chunks(path: Path, problems: Problems, *, encoding: str | None) -> Iterator[Chunk]:
    """Yield the sentences of a file in chunks: the columns text, and one of lists of labels for each feature."""
    sentences = _sentences(path, problems, encoding)
    start = 1
    while piece := list(islice(sentences, ROWS_AT_ONCE)):
        columns: dict[str, list[Any]] = {name: [one.labels[name] for one in piece] for name in piece[0].labels}
        yield Chunk(range(start, start + len(piece)), {"text": [one.text for one in piece]} | columns)
        start += len(piece)


@dataclass
class _Sentence:
    """A sentence, and the labels of its tokens by feature."""

    text: str
    labels: dict[str, list[str]]
    begun: bool = False
    """Whether a token of it was read."""


def _sentences(path: Path, problems: Problems, encoding: str | None) -> Iterator[_Sentence]:
    head: list[str] = []
    named: list[str | None] = []
    sentence: _Sentence | None = None
    row = 0
    for number, whole in numbered_lines(path, encoding):
        line = whole.rstrip("\r\n")
        if line.startswith(_TEXT):
            text = _unescaped(line.removeprefix(_TEXT))
            if sentence is not None and not sentence.begun:
                sentence.text += f"\n{text}"  # a sentence of several lines has several of these
                continue
            if sentence is not None:
                yield sentence
            named = named or _named(head)
            sentence = _Sentence(text, {name: [] for name in named if name is not None})
            row += 1
        elif sentence is None:
            head.append(line)
        elif line and not line.startswith("#"):
            sentence.begun = True
            cells = line.split("\t")[_TOKEN_COLUMNS:]
            if len(cells) < len(named):
                what = f"{len(cells)} features of a token where {len(named)} are due (line {number})."
                problems.add(path, what, row=row)
                continue
            for name, cell in zip(named, cells, strict=False):
                own = sentence.labels[name] if name is not None else []
                own += [label for label in _labels(cell) if label not in own]
    if sentence is not None:
        yield sentence


def _labels(cell: str) -> Iterator[str]:
    """The labels of a token: _ is none, * an annotation without a value, | stands between several."""
    for part in _PARTS.split(cell):
        label = _unescaped(_NUMBER.sub("", part))
        if label not in ("_", "*", ""):
            yield label


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1]), text)
