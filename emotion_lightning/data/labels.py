"""Label names, multi-hot targets and the weights of positives."""

import functools
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

Targets = npt.NDArray[np.float32]
"""Multi-hot labels, [row, label], 0 or 1; what is learned may also be shares from 0 to 1, or NaN for an open label."""

_NEARLY = 1e-6
"""Shares that differ by less are equal; those of annotators differ by more."""


def hardened(shares: npt.NDArray[Any], present: float) -> Targets:
    """Labels of shares, multi-hot, [row, label]: present from this share on; an open one (NaN) is not.

    >>> hardened(np.array([[0.5, 1 / 3, np.nan]]), 0.5)
    array([[1., 0., 0.]], dtype=float32)
    """
    return (np.nan_to_num(shares) >= present - _NEARLY).astype(np.float32)


def multi_hot(rows: Iterable[Iterable[int]], *, count: int) -> Targets:
    """Turn the label positions of each row into a matrix of zeros and ones, [row, label].

    >>> multi_hot([[0, 2], []], count=3)
    array([[1., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    positions = [list(row) for row in rows]
    targets = np.zeros((len(positions), count), dtype=np.float32)
    for row, columns in enumerate(positions):
        targets[row, columns] = 1
    return targets


def given_labels(together: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Conditional label frequencies, [label, label]: fraction of the rows with label i that also have label j.

    It is NaN for a label i without rows.

    Args:
        together: number of rows that have both labels, [label, label].

    >>> given_labels(np.array([[4, 1], [1, 2]]))
    array([[1.  , 0.25],
           [0.5 , 1.  ]])
    """
    own = np.diag(together).astype(float)
    return together / np.where(own > 0, own, np.nan)[:, None]


_SPACES = re.compile(r"[^\S\x1c-\x1f]+")
"""White space, without four control characters that Python counts as white space."""

_TAGS = range(0xE0020, 0xE0080)
"""Code points that spell the region of a flag emoji, such as that of Scotland."""

_JOINERS = "\u200c\u200d"
"""Zero-width characters that join or separate letters (Persian, Hindi) or join the parts of an emoji."""

_respelled: dict[str, str | None] = {}
"""Maps each name that normalisation changed to its original form; None once that was logged."""


@functools.lru_cache(maxsize=100_000)
def normalised(name: str) -> str:
    r"""Normalise a name: Unicode NFC, one space for every run of white space, none at the ends.

    >>> normalised(" tr\u00e8s\u00a0content\n"), normalised("cafe\u0301") == "caf\u00e9"
    ('très content', True)
    """
    spelled = _SPACES.sub(" ", unicodedata.normalize("NFC", name)).strip(" ")
    if spelled != name.strip(" \t\r\n") and len(_respelled) < 100_000:
        _respelled.setdefault(spelled, name)
    return spelled


def log_respelled(names: Iterable[str]) -> None:
    """Log, once in a process, which of these names were changed by `normalised`."""
    respelled = [(written, name) for name in names if (written := _respelled.get(name)) is not None]
    _respelled.update({name: None for _, name in respelled})
    if respelled:
        shown = ", ".join(f"{ascii(written)} is {name}" for written, name in respelled[:5])
        more = f" and {len(respelled) - 5} more" if len(respelled) > 5 else ""
        log.warning("Label names are read as Unicode NFC with single spaces: %s%s.", shown, more)


def names_alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ only in case or spaces.

    >>> names_alike(["joy", "Joy", "anger", "no one", "noone"])
    [['joy', 'Joy'], ['no one', 'noone']]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def alike_sentence(names: Iterable[str]) -> str | None:
    """A sentence about label names that differ only in case or spaces; None if there are none."""
    groups = names_alike(names)
    if not groups:
        return None
    shown = "; ".join(" and ".join(group) for group in groups[:3]) + ("; …" if len(groups) > 3 else "")
    # One that is written in small letters is the likeliest to be meant.
    lists = {min(group, key=lambda name: (name != name.lower(), name)): group for group in groups}
    return (
        f"Labels differ only in case or spaces and are learned as different labels ({shown}). To make one label of "
        f"each: {merging(lists)}"
    )


def merging(lists: dict[str, list[str]]) -> str:
    r"""The setting that makes labels of others, quoted for a shell.

    >>> merging({"joy": ["Joy", "no: joy"]})
    '"data.merge={joy: [Joy, \'no: joy\']}"'
    """
    written = yaml.safe_dump(lists, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return f'"data.merge={written.strip()}"'


def control_characters(name: str) -> list[str]:
    r"""Invisible characters of a name that can change how a terminal or web page shows the rest of it.

    >>> control_characters("a\x1b[2J"), control_characters("\U0001f469\u200d\U0001f469\u200d\U0001f467")
    (['U+001B'], [])
    """
    found = [
        c for c in name if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in _JOINERS and ord(c) not in _TAGS
    ]
    return [f"U+{ord(c):04X} {unicodedata.name(c, '')}".strip() for c in dict.fromkeys(found)]


def check_names(labels: Sequence[str], source: str, *, id_column: str | None = None) -> None:
    """Raise UserError if label names cannot be column names of a prediction file, next to its id column."""
    if not labels:
        raise UserError(f"{source} has no labels.")
    known = set(labels)
    for name, count in Counter(labels).items():
        if controls := control_characters(name):
            raise UserError(
                f"{source} has a label {ascii(name[:50])} with the control character {', '.join(controls[:3])}; "
                "take it out of the name."
            )
        if count > 1:
            raise UserError(f"{source} names the label {name} {count} times; label names must differ.")
        if not name.strip(" " + _JOINERS):
            raise UserError(f"{source} has a label with an empty name; give it a name.")
        if name in ("row", "text"):
            raise UserError(f"{source} has a label named {name}, as a column of prediction files is; rename it.")
        if id_column is not None and id_column in (name, f"p_{name}"):
            raise UserError(
                f"{source} has a label {name} and an id column {id_column}, which prediction files would hold both; "
                "rename one, or count rows with data.id_column=row."
            )
        if len(name) > 200:
            raise UserError(
                f"{source} has a label whose name has {len(name):,} letters: {name[:50]} …; that is no label."
            )
        if f"p_{name}" in known:
            raise UserError(
                f"{source} has labels {name} and p_{name}; prediction files hold the probability of {name} under "
                f"p_{name}, so rename one."
            )


def positive_weights(settings: config.PositivesWeighted, *, label_counts: np.ndarray, rows: int | np.ndarray) -> Tensor:
    """Weight of a positive of each label in the loss, relative to a negative, [label].

    A label that no row or every row of train has gets weight 1, because it has only one kind of row. By the formulas, a
    label of every row would have weight 0: it would have no gradient, and its output would stay random.

    Args:
        settings: how positives are weighted.
        label_counts: positives of each label, or the sum of its shares, [label].
        rows: number of rows; of each label, [label], if some leave it open.
    """
    positives = torch.as_tensor(np.asarray(label_counts), dtype=torch.float64)
    known = torch.as_tensor(np.asarray(rows), dtype=torch.float64)
    both = (positives > 0) & (positives < known)
    ratio = (known - positives) / positives.clamp(min=1)
    match settings.weights:
        case config.PositiveWeights.none:
            weights = torch.ones_like(ratio)
        case config.PositiveWeights.neg_pos:
            weights = ratio
        case config.PositiveWeights.sqrt:
            weights = ratio.sqrt()
        case config.PositiveWeights.effective_number:
            weights = _effective_number(known - positives, settings.beta) / _effective_number(positives, settings.beta)
    weights = torch.where(both, weights, 1.0)
    if settings.clip is not None:
        weights = weights.clamp(max=settings.clip)
    return weights.float()


def _effective_number(count: Tensor, beta: float) -> Tensor:
    """Effective number of rows: less than `count`, because rows overlap (Cui et al., 2019, equation 2)."""
    return (1 - beta**count) / (1 - beta)
