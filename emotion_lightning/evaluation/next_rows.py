"""Texts that are worth labelling next: those that a model is unsure of, and that differ from each other.

The method is weighted k-means over the most uncertain texts (Zhdanov, 2019, "Diverse mini-batch Active Learning"): of
ten times as many texts as are wanted, each cluster gives the text nearest to its centre.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from emotion_lightning.data.overlap import text_keys

_POOL = 10
"""Uncertain texts among which one is chosen."""

_DIMENSIONS = 100
"""Dimensions of the space in which texts are compared."""


def uncertainty(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Expected information in the labels of each text, in nats: the sum of the entropies of its labels, [text].

    Args:
        probabilities: [text, label].

    >>> uncertainty(np.array([[0.5, 1.0], [0.0, 1.0]])).round(3).tolist()
    [0.693, 0.0]
    """
    shares = np.asarray(probabilities, dtype=np.float64).clip(1e-12, 1 - 1e-12)
    entropies: npt.NDArray[np.float64] = -(shares * np.log(shares) + (1 - shares) * np.log1p(-shares)).sum(axis=1)
    return entropies.clip(min=0)


@dataclass(order=True)
class Candidate:
    """A text without labels.

    Attributes:
        uncertainty: expected information in its labels, in nats.
        order: the negative number of its row, so that of equally uncertain texts the first is kept.
        id: its id.
        text: the text.
    """

    uncertainty: float
    order: int
    id: str = field(compare=False)
    text: str = field(compare=False)


class Pool:
    """The most uncertain of a stream of texts, without repeated ones; memory does not grow with the stream.

    Args:
        wanted: number of texts that will be chosen.
    """

    def __init__(self, wanted: int) -> None:
        self._size = _POOL * wanted
        self._heap: list[Candidate] = []
        self._known: set[int] = set()
        self._numbers = itertools.count()

    def add(self, ids: Sequence[str], texts: Sequence[str], probabilities: npt.NDArray[np.floating]) -> None:
        """Add texts with their probabilities, [text, label]."""
        keys = text_keys(texts)
        for identifier, text, amount, key in zip(ids, texts, uncertainty(probabilities), keys, strict=True):
            candidate = Candidate(float(amount), -next(self._numbers), identifier, text)
            if int(key) in self._known or not text.strip():
                continue
            self._known.add(int(key))
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, candidate)
            else:
                heapq.heappushpop(self._heap, candidate)

    def best(self) -> list[Candidate]:
        """The texts that are kept, the most uncertain first."""
        return sorted(self._heap, reverse=True)


def choose(candidates: Sequence[Candidate], wanted: int, *, seed: int) -> list[Candidate]:
    """Choose uncertain texts that differ from each other, the most uncertain first.

    Args:
        candidates: texts to choose from, the most uncertain first.
        wanted: number of texts to choose; fewer are returned if there are no more.
        seed: seed of the clusters.
    """
    if len(candidates) <= wanted:
        return list(candidates)
    points = _points([candidate.text for candidate in candidates], seed=seed)
    weights = np.array([candidate.uncertainty for candidate in candidates]) + 1e-9

    from sklearn.cluster import KMeans

    clusters = KMeans(n_clusters=wanted, n_init=1, random_state=seed).fit(points, sample_weight=weights)
    distances = np.linalg.norm(points - clusters.cluster_centers_[clusters.labels_], axis=1)
    chosen: set[int] = set()
    for cluster in range(wanted):
        members = np.flatnonzero(clusters.labels_ == cluster)
        if len(members):
            chosen.add(int(members[distances[members].argmin()]))
    # Texts with equal words fall into one point, and leave clusters empty.
    rest = (position for position in range(len(candidates)) if position not in chosen)
    chosen |= set(itertools.islice(rest, wanted - len(chosen)))
    return [candidates[position] for position in sorted(chosen)]


def _points(texts: Iterable[str], *, seed: int) -> npt.NDArray[np.float64]:
    """Place texts by the words and word pieces they share, [text, dimension]."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit_transform(texts)
    dimensions = min(_DIMENSIONS, *(size - 1 for size in words.shape))
    if dimensions < 1:
        return np.zeros((words.shape[0], 1))
    reduced = TruncatedSVD(dimensions, random_state=seed).fit_transform(words)
    points: npt.NDArray[np.float64] = normalize(reduced)
    return points
