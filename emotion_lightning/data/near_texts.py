"""Texts that are nearly the same in two splits: found by MinHash, verified one by one.

MinHash (Broder, 1997) with bands (Indyk and Motwani, 1998) proposes pairs of texts that may be similar; the Jaccard
similarity of each pair is then computed from the texts themselves, so that no pair is reported that is not one.
"""

import functools
import importlib.util
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.data.overlap import Leak, plain_text
from emotion_lightning.data.rows import Corpus
from emotion_lightning.errors import UserError, counted
from emotion_lightning.runs import extras

log = logging.getLogger(__name__)

USUAL = 0.8
"""The similarity that `inspect` goes by if no setting says another."""
EXAMPLES = 3
_CHARACTERS = 3
_HASHES = 256
"""Most hashes of a text: with more, fewer pairs are proposed in vain, and the hashes take longer."""
_FOUND = 0.9995
"""Smallest probability that a pair which is just similar enough is proposed."""
_MOST = 1000
"""Most texts that are compared with one text; a text with more is a phrase that everybody writes."""
_AT_ONCE = 1000
_LONGEST = 60
_KEPT = 20_000
"""Texts whose trigrams are kept in memory, because they may be compared again."""
LOOKED_THROUGH = 200_000
"""Most texts that `inspect` looks through without being asked: it takes about a second for every ten thousand."""


@dataclass
class Pair:
    """Two texts that are nearly the same.

    Attributes:
        first: text of the first split.
        second: text of the second split.
        similarity: their Jaccard similarity.
    """

    first: str
    second: str
    similarity: float


@dataclass
class Near(Leak):
    """Texts of a split that are nearly the same as one of another split.

    `count` is without the rows of `second` whose text is in `first` as it is.

    Attributes:
        examples: pairs, from the most to the least similar.
        similarity: from which similarity texts count as nearly the same.
    """

    examples: list[Pair]
    similarity: float

    def sentence(self) -> str:
        """What was found, without an end mark."""
        return (
            f"{counted(self.count, 'text')} of {self.second} ({self.share:.2%}) nearly the same "
            f"as one of {self.first} (Jaccard of character trigrams at least {self.similarity:g})"
        )

    def shown(self) -> str:
        """The examples in one line."""
        pairs = [f"{_short(pair.first)} and {_short(pair.second)} ({pair.similarity:.2f})" for pair in self.examples]
        return f"Examples: {'; '.join(pairs)}."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line[:_LONGEST]}{'…' if len(line) > _LONGEST else ''}”"


def available() -> bool:
    """Whether the library that computes MinHash is installed."""
    return importlib.util.find_spec("rensa") is not None


def check(settings: config.Data) -> None:
    """Raise UserError if the settings ask for nearly equal texts, and the library is not installed."""
    if isinstance(settings, config.Batches) and settings.near_duplicates is not None and not available():
        asked = f"data.near_duplicates={settings.near_duplicates:g}"
        raise UserError(f"{asked} needs a package that is missing: {extras.install('near')}")


def find_near(corpus: Corpus, similarity: float, *, clean: Sequence[config.CleaningStep]) -> list[Near]:
    """Find the texts that are nearly the same in each pair of splits.

    Texts are compared after the cleaning steps, without regard to case and white space.

    Args:
        corpus: with two splits or more.
        similarity: smallest Jaccard similarity of their sets of three characters on, at least 0.6.
        clean: cleaning steps.
    """
    cleaned = cleaner(clean)
    number: dict[str, int] = {}
    rows = {
        name: np.array([number.setdefault(plain_text(cleaned(text)), len(number)) for text in part.texts], np.int64)
        for name, part in corpus.splits.items()
    }
    texts = list(number)
    asked = sorted({int(text) for name in list(rows)[1:] for text in rows[name]})
    pairs = similar_pairs(texts, asked, similarity)
    return [
        _between(corpus, first, second, rows, pairs, similarity) for first, second in itertools.combinations(rows, 2)
    ]


def similar_pairs(texts: Sequence[str], asked: Sequence[int], similarity: float) -> dict[int, dict[int, float]]:
    """For each of some texts, the others that are at least so similar, with their Jaccard similarity.

    Args:
        texts: all texts, each once.
        asked: positions of the texts whose neighbours are wanted.
        similarity: smallest Jaccard similarity of their trigrams.
    """
    import rensa

    bands, in_band = _bands(similarity)
    index = rensa.RMinHashLSH(threshold=similarity, num_perm=bands * in_band, num_bands=bands)
    hashed: dict[int, Any] = {}
    wanted = set(asked)
    # Sets of all texts at once would take ten times the memory of the texts.
    for start in range(0, len(texts), _AT_ONCE):
        sets = [trigrams(text) for text in texts[start : start + _AT_ONCE]]
        some = rensa.RMinHash.from_token_sets(sets, num_perm=bands * in_band, seed=0)
        index.insert_many(some, start)
        hashed |= {start + i: one for i, one in enumerate(some) if start + i in wanted}
    set_of = functools.lru_cache(maxsize=_KEPT)(lambda text: trigrams(texts[text]))
    found: dict[int, dict[int, float]] = {}
    crowded = 0
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        for text, candidates in zip(part, index.query_all([hashed[i] for i in part]), strict=True):
            others = sorted(other for other in candidates if other != text)
            crowded += len(others) > _MOST
            for other in others[:_MOST]:
                one, another = set_of(text), set_of(other)
                shared = len(one & another)
                jaccard = shared / (len(one) + len(another) - shared)
                if jaccard >= similarity:
                    found.setdefault(text, {})[other] = jaccard
    if crowded:
        log.warning(
            "%s texts resemble more than %s others; each is compared with %s of them.",
            f"{crowded:,}",
            f"{_MOST:,}",
            f"{_MOST:,}",
        )
    return found


def trigrams(text: str) -> set[str]:
    """All sequences of three characters of a text; a shorter text is its only one.

    >>> sorted(trigrams("aaab")), trigrams("ok")
    (['aaa', 'aab'], {'ok'})
    """
    return {text[i : i + _CHARACTERS] for i in range(len(text) - _CHARACTERS + 1)} or {text}


def _bands(similarity: float) -> tuple[int, int]:
    """Number of bands and of hashes in each: the longest bands that propose nearly all pairs of this similarity."""
    for in_band in range(_HASHES, 1, -1):
        bands = _HASHES // in_band
        if 1 - (1 - similarity**in_band) ** bands >= _FOUND:
            return bands, in_band
    return _HASHES, 1


def _between(
    corpus: Corpus,
    first: str,
    second: str,
    rows: dict[str, np.ndarray],
    pairs: dict[int, dict[int, float]],
    similarity: float,
) -> Near:
    ours, theirs = rows[first], rows[second]
    here, there = set(ours.tolist()), set(theirs.tolist())
    near: set[int] = set()
    best: dict[int, tuple[float, int]] = {}
    for text in there & pairs.keys():
        neighbours = {other: value for other, value in pairs[text].items() if other in here}
        near |= neighbours.keys()
        if neighbours and text not in here:
            best[text] = max((value, -other) for other, value in neighbours.items())
    positions = np.flatnonzero(np.isin(ours, sorted(near)))
    found = np.flatnonzero(np.isin(theirs, sorted(best)))
    where_first = {int(text): i for i, text in reversed(list(enumerate(ours.tolist())))}
    where_second = {int(text): i for i, text in reversed(list(enumerate(theirs.tolist())))}
    ordered = sorted(best, key=lambda text: (-best[text][0], where_second[text]))
    chosen = [ordered[round(i * (len(ordered) - 1) / (EXAMPLES - 1))] for i in range(EXAMPLES)] if ordered else []
    examples = [
        Pair(
            corpus.splits[first].texts[where_first[-best[text][1]]],
            corpus.splits[second].texts[where_second[text]],
            best[text][0],
        )
        for text in dict.fromkeys(chosen)
    ]
    return Near(first, second, positions, len(found), len(found) / max(len(theirs), 1), examples, similarity)


def log_near(found: Sequence[Near], *, dropped: bool) -> None:
    """Log how many texts are nearly the same in two splits; `dropped`: whether they are removed from train."""
    for near in found:
        if not near.count:
            continue
        fate = ""
        if near.first == "train":
            mend = "left out of train" if dropped else "data.drop_leaks=true leaves out of train"
            fate = f"; {mend}: {counted(len(near.positions), 'row')}"
        log.warning("%s%s.", near.sentence(), fate)
