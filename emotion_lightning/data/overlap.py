"""Repeated texts: duplicates within a split, and texts of several splits, which leak from train into the scores."""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_lightning import config
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class Leak:
    """Rows of one split whose texts are in another one, as they are or nearly.

    Attributes:
        first: name of a split.
        second: name of the other split.
        positions: positions of the rows of `first` whose text is in `second`.
        count: number of rows of `second` whose text is in `first`.
        share: `count` as a fraction of all rows of `second`.
    """

    first: str
    second: str
    positions: np.ndarray
    count: int
    share: float


@dataclass
class Overlap(Leak):
    """Texts that two splits share.

    Attributes:
        same_labels: number of those rows that have the same labels as a row of `first` with that text; None if one of
            the splits has no labels.
    """

    same_labels: int | None


def text_keys(texts: Sequence[str], *, clean: Sequence[config.CleaningStep] = ()) -> np.ndarray:
    """Hash of each cleaned text, int64; equal for texts that differ only in case and white space.

    The probability that any two of a million different texts have the same hash is below 1e-7.
    """
    cleaned = cleaner(clean)
    return np.fromiter((hash(plain_text(cleaned(text))) for text in texts), np.int64, len(texts))


def plain_text(text: str) -> str:
    """A text without differences of case and white space."""
    return " ".join(text.casefold().split())


def _keys(rows: Rows, clean: Sequence[config.CleaningStep]) -> np.ndarray:
    """Hash of what is read of each row; a turn that follows others is not that turn again."""
    whole = rows.texts if rows.before is None else ["\n".join(turns) for turns in rows.inputs]
    return text_keys(whole, clean=clean)


def groups_of(texts: Sequence[str], *, clean: Sequence[config.CleaningStep] = ()) -> np.ndarray:
    """Number of the group of equal texts that each text belongs to, [text].

    Groups are numbered in the order of their first text. Texts are equal as in `text_keys`.

    >>> groups_of(["a", "b", "A "]).tolist()
    [0, 1, 0]
    """
    return group_numbers(text_keys(texts, clean=clean))


def group_numbers(keys: np.ndarray) -> np.ndarray:
    """Number of the group of equal keys that each key belongs to; groups are numbered in the order of their first key.

    >>> group_numbers(np.array(["b", "a", "b"])).tolist()
    [0, 1, 0]
    """
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[where]


def find_overlap(corpus: Corpus, *, clean: Sequence[config.CleaningStep]) -> list[Overlap]:
    """Compute the overlap of each pair of splits."""
    found = {name: _keys(rows, clean) for name, rows in corpus.splits.items()}
    return [
        _overlap(corpus, first, second, found[first], found[second])
        for first, second in itertools.combinations(corpus.splits, 2)
    ]


def _overlap(corpus: Corpus, first: str, second: str, ours: np.ndarray, theirs: np.ndarray) -> Overlap:
    shared = np.intersect1d(ours, theirs)
    here, there = np.flatnonzero(np.isin(ours, shared)), np.flatnonzero(np.isin(theirs, shared))
    labelled = all(corpus.splits[name].targets is not None for name in (first, second))
    labels = set(_labelled(corpus.splits[first], ours, here))
    same = sum(pair in labels for pair in _labelled(corpus.splits[second], theirs, there)) if labelled else None
    return Overlap(first, second, here, len(there), len(there) / max(len(theirs), 1), same)


def _labelled(rows: Rows, found: np.ndarray, positions: np.ndarray) -> list[tuple[int, bytes]]:
    return [] if rows.targets is None else [(int(found[i]), rows.targets[i].tobytes()) for i in positions]


def log_overlap(found: Sequence[Overlap], *, dropped: bool) -> None:
    """Log how many texts the splits share; `dropped`: whether they are removed from train."""
    for overlap in found:
        if not overlap.count:
            continue
        fate = ""
        same = "" if overlap.same_labels is None else f", with the same labels {overlap.same_labels:,}"
        if overlap.first == "train":
            mend = "left out of train" if dropped else "data.drop_leaks=true leaves out of train"
            fate = f"; {mend}: {len(overlap.positions):,} rows"
        log.warning(
            "Texts of %s that stand in %s too: %s (%.2f %%)%s%s.",
            overlap.second, overlap.first, f"{overlap.count:,}", 100 * overlap.share, same, fate,
        )  # fmt: skip


def without_leaks(corpus: Corpus, found: Sequence[Leak]) -> Corpus:
    """Remove the rows of train whose text is also in another split.

    Raises:
        UserError: no row of train is left.
    """
    leaked = [overlap.positions for overlap in found if overlap.first == "train"]
    train = corpus.splits["train"]
    kept = np.setdiff1d(np.arange(len(train)), np.concatenate([np.zeros(0, np.int64), *leaked]))
    if not len(kept):
        raise UserError(
            "data.drop_leaks=true leaves no row of train: all of its texts stand in another split too, as they are or "
            "nearly (data.near_duplicates)."
        )
    return dataclasses.replace(corpus, splits={**corpus.splits, "train": train.take(kept)})


def duplicates(rows: Rows, *, clean: Sequence[config.CleaningStep]) -> tuple[int, int | None]:
    """Count the rows whose text occurs earlier in the split, and those of them with other labels than the first one.

    The second number is None if the rows have no labels.
    """
    found = _keys(rows, clean)
    _, first, where = np.unique(found, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[where] != np.arange(len(found)))
    if rows.targets is None:
        return len(again), None
    differ = (rows.targets[again] != rows.targets[first[where[again]]]).any(axis=1)
    return len(again), int(differ.sum())
