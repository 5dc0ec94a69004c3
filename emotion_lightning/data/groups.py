"""Rows that stay in one split: those with equal texts, and those with the same value in `data.group_column`."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_lightning import config
from emotion_lightning.data.columns import Columns
from emotion_lightning.data.formats import files
from emotion_lightning.data.overlap import group_numbers, groups_of
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_LARGE = 0.5
"""If one group holds more than this fraction of the rows, splits cannot have the shares that are asked for."""

_OFF = 0.25
"""A share that differs from the asked one by more than this fraction of it is told."""

_PASSES = 5
"""How often every group is looked at again, to move it where it fits better."""


_ORDERS = 50
_WORK = 20_000
"""Groups are assigned in up to `_ORDERS` orders, and to about this many places in all."""


def check_column(path: Path, settings: config.Table, seen: Survey, columns: Columns) -> str | None:
    """The column of `data.group_column`; None if it is not set.

    Args:
        path: the first file, for messages.
        settings: table settings.
        seen: survey of the file.
        columns: the columns of texts, ids and labels.

    Raises:
        UserError: there is no such column, it is empty, or it has another role.
    """
    name = settings.group_column
    if name is None:
        return None
    files.check_column(path, name, seen.names, example="data.group_column={}")
    if name == columns.text:
        raise UserError(f"data.group_column={name} is the column of texts; equal texts stay in one split in any case.")
    if name == columns.labels_column or (columns.labels_column is None and name in columns.labels):
        raise UserError(f"data.group_column={name} is a column of labels; name one such as author or thread.")
    seen.check_filled(path, name, "data.group_column")
    return name


def kept_together(rows: Rows, clean: Sequence[config.CleaningStep]) -> np.ndarray:
    """Number of the group of equal texts, or of the conversation, that each row belongs to, [row].

    Short turns are equal in many conversations, so groups of equal texts would join nearly all of them.
    """
    if rows.conversations is not None:
        return group_numbers(np.array(rows.conversations, dtype=object))
    return groups_of(rows.texts, clean=clean)


def together(rows: Rows, clean: Sequence[config.CleaningStep]) -> np.ndarray:
    """Number of the group that each row belongs to, [row].

    Rows are in one group if their texts are equal after the cleaning steps or their values of the group column are, or
    if other rows connect them in this way. Groups are numbered in the order of their first row.
    """
    texts = kept_together(rows, clean)
    if rows.groups is None:
        return texts
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    filled = np.array([i for i, value in enumerate(rows.groups) if value is not None], dtype=np.int64)
    values = group_numbers(np.array([rows.groups[i] for i in filled], dtype=object))
    # A graph of texts and values, in which each row with a value is an edge.
    count = int(texts.max(initial=-1)) + 1
    nodes = count + int(values.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(filled), np.int8), (texts[filled], count + values)), shape=(nodes, nodes))
    _, component = connected_components(edges, directed=False)
    return group_numbers(component[texts])


def divide(
    rows: Rows, shares: dict[str, float], column: str, *, seed: int, clean: Sequence[config.CleaningStep]
) -> dict[str, np.ndarray]:
    """Divide rows into parts, so that no group is cut; positions of the rows of each part.

    Args:
        rows: rows with labels and with values of the group column.
        shares: fraction of the rows that each part should have; together 1.
        column: name of the group column, for messages.
        seed: order of groups that are alike.
        clean: cleaning steps, after which texts are compared.

    Raises:
        UserError: there are fewer groups than parts.
    """
    groups = together(rows, clean)
    sizes = np.bincount(groups)
    if len(sizes) < len(shares):
        many = "groups that stay" if len(sizes) > 1 else "group that stays"
        raise UserError(
            f"data.group_column={column}: {len(rows):,} rows are {len(sizes)} {many} whole, too few for {len(shares)} "
            f"parts; the largest is {_why(rows, groups, column)}. Name another column, add rows, or give your own "
            "splits."
        )
    labels = rows.targets if rows.strata is None else rows.strata
    assert labels is not None
    counts = np.zeros((len(sizes), labels.shape[1] + 1))
    np.add.at(counts, groups, np.hstack([labels, np.ones((len(labels), 1))]))
    part = assign(counts, np.array(list(shares.values())), seed=seed)
    found = {name: np.flatnonzero(part[groups] == number) for number, name in enumerate(shares)}
    _tell_shares(rows, groups, shares, found, column)
    return found


def assign(counts: np.ndarray, shares: np.ndarray, *, seed: int) -> np.ndarray:
    """Assign groups to parts, so that each part has about its share of the rows and of the positives of each label.

    A greedy assignment, as in scikit-learn's StratifiedGroupKFold, which stratifies by one class: the group that holds
    the most of any label comes first, and each goes where the parts then differ least from their shares. After that,
    single groups move as long as this brings the parts nearer. With few groups this is repeated in other orders, and
    the nearest result is taken. How far the parts differ is the chi-square sum over parts and labels, in which the
    number of rows counts as much as all labels together.

    Args:
        counts: rows of each group with each label, and in the last column all its rows, [group, label + 1].
        shares: fraction for each part, [part].
        seed: of the orders.

    Returns:
        Number of the part of each group, [group]; no part is empty if there are as many groups.
    """
    total = counts.sum(axis=0)
    columns = total > 0
    weights = np.r_[np.ones(counts.shape[1] - 1), max(counts.shape[1] - 1, 1)][columns]
    counts, total = counts[:, columns], total[columns]
    wanted = shares[:, None] * total  # [part, column]
    heaviest = (counts / total).max(axis=1)
    random = np.random.default_rng(seed)
    best, least = np.zeros(0, np.int64), np.inf
    for number in range(max(1, min(_ORDERS, _WORK // len(counts)))):
        # The first order is by weight alone, with groups of the same weight shuffled.
        noise = random.normal(scale=0.5, size=len(counts)) if number else random.uniform(0, 1e-9, len(counts))
        part = _assigned(counts, wanted, weights / wanted, np.argsort(-heaviest * np.exp(noise), kind="stable"))
        held = np.zeros_like(wanted)
        np.add.at(held, part, counts)
        if (apart := float((weights / wanted * (held - wanted) ** 2).sum())) < least:
            best, least = part, apart
    return best


def _assigned(counts: np.ndarray, wanted: np.ndarray, scale: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Number of the part of each group, [group]; see `assign`.

    Args:
        counts: [group, column].
        wanted: [part, column].
        scale: how much a squared difference counts, [part, column].
        order: the groups, as they are assigned.
    """
    part = np.full(len(counts), -1)
    gap = -wanted  # what each part has beyond its share

    def growth(group: int) -> np.ndarray:
        """How much the sum grows if a group that has no part is added to each part, [part]."""
        own = counts[group]
        return np.asarray((scale * own * (2 * gap + own)).sum(axis=1))

    def move(group: int, to: int) -> None:
        if part[group] >= 0:
            gap[part[group]] -= counts[group]
        gap[to] += counts[group]
        part[group] = to

    for group in order:
        move(group, int(growth(group).argmin()))
    for _ in range(_PASSES):
        moved = 0
        for group in order:
            here = part[group]
            gap[here] -= counts[group]  # as if it had no part yet
            cost = growth(group)
            gap[here] += counts[group]
            if cost.min() < cost[here] - 1e-9:
                move(group, int(cost.argmin()))
                moved += 1
        if not moved:
            break
    for empty in sorted(set(range(len(wanted))) - set(part.tolist())):
        held = np.bincount(part, minlength=len(wanted))
        movable = [group for group in order if held[part[group]] > 1]
        if movable:
            move(min(movable, key=lambda group: counts[group, -1]), empty)
    return part


def _tell_shares(
    rows: Rows, groups: np.ndarray, shares: dict[str, float], found: dict[str, np.ndarray], column: str
) -> None:
    largest = np.bincount(groups).max() / len(rows)
    if largest > _LARGE:
        log.warning(
            "data.group_column=%s: one group holds %.0f %% of the rows: %s. It stays whole, so the splits cannot have "
            "the shares that are asked for.", column, 100 * largest, _why(rows, groups, column),
        )  # fmt: skip
    off = [
        f"{name} has {100 * len(found[name]) / len(rows):.1f} % of the rows instead of {100 * share:.1f}"
        for name, share in shares.items()
        if abs(len(found[name]) - share * len(rows)) > max(_OFF * share * len(rows), 1)
    ]
    if off:
        log.warning("data.group_column=%s: because groups stay whole, %s.", column, ", ".join(off))


def _why(rows: Rows, groups: np.ndarray, column: str) -> str:
    """What ties the largest group together, if it is more than one value."""
    assert rows.groups is not None
    largest = np.flatnonzero(groups == np.bincount(groups).argmax())
    values = {rows.groups[i] for i in largest} - {None}
    if len(values) == 1:
        return f"{column} {str(next(iter(values)))[:60]}"
    if not values:
        return "one text"
    return f"{len(values):,} values of {column}, tied together by texts that several of them have"


def tell(corpus: Corpus) -> None:
    """Log how many rows have no value in the group column, and how many values the splits cut, and note both."""
    column, splits = corpus.decisions.groups, {n: rows for n, rows in corpus.splits.items() if rows.groups is not None}
    if column is None:
        return
    found = []
    if bare := sum(value is None for rows in splits.values() for value in rows.groups or []):
        found.append(f"Rows without a value in column {column}: {bare:,}; each is a group of its own.")
    for first, second in itertools.combinations(splits, 2):
        one, other = splits[first].groups or [], splits[second].groups or []
        shared = {value for value in one if value is not None} & set(other)
        if shared:
            rows, many = sum(value in shared for value in other), "values" if len(shared) > 1 else "value"
            found.append(
                f"{first} and {second} share {len(shared):,} {many} of {column}, such as {min(map(str, shared))[:60]}: "
                f"{rows:,} rows of {second}. These splits are not made by this program, so they stay as they are."
            )
    for sentence in found:
        log.warning("%s", sentence)
    corpus.decisions.notes.extend(found)
