"""How far several annotators of the same texts agree."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_lightning.data import carried
from emotion_lightning.data.labels import Targets
from emotion_lightning.data.rows import Corpus, Rows

_SPLIT = 1 / 3
"""Annotators split over a label of a text if at least this part of them is on either side."""

_EXAMPLES = 5
"""Texts over which annotators split the most, that are kept as examples."""

_GROUPS = 40
"""With more groups than this in a column, such as languages, their agreement is not told one by one."""


@dataclass
class Judgements:
    """What each annotator said of each text, before the rows of a text were joined.

    Attributes:
        labels: names, in the order of the label axis.
        splits: a row for each annotator of a text, by split.
        places: number of the text of each row, [row], by split.
        column: what says who labelled a row; None if nothing does.
    """

    labels: list[str]
    splits: dict[str, Rows]
    places: Mapping[str, npt.NDArray[np.int64]]
    column: str | None

    def answers(self) -> tuple[Targets, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """What was said, from 0 to 1, and whether it is known, [row, label] each, and the text of each row, [row]."""
        parts = self.labelled()
        given = [rows.targets if rows.shares is None else rows.shares for rows, _ in parts]
        known = [
            np.ones((len(rows), len(self.labels)), dtype=bool) if rows.open is None else ~rows.open for rows, _ in parts
        ]
        return (
            np.concatenate([part for part in given if part is not None]),
            np.concatenate(known),
            np.concatenate([places for _, places in parts]),
        )

    def labelled(self) -> list[tuple[Rows, npt.NDArray[np.int64]]]:
        """The labelled rows of each split, with the number of their text, [row]; no two splits share a number."""
        found, start = [], 0
        for name, rows in self.splits.items():
            if rows.targets is not None:
                found.append((rows, self.places[name] + start))
                start += int(self.places[name].max(initial=-1)) + 1
        return found


@dataclass
class LabelAgreement:
    """How far annotators agree on one label.

    Attributes:
        alpha: Krippendorff's alpha, 1 if they agree on every text and 0 as by chance; None if all gave the same.
        split: number of texts over which they split.
    """

    alpha: float | None
    split: int


@dataclass
class Agreement:
    """Rows of annotators, before they were joined.

    Attributes:
        column: column that says who labelled a row; None without one.
        annotators: number of annotators; None if they are not known.
        rows: number of rows.
        texts: number of texts.
        rows_of_a_text: smallest, mean and largest number of rows of a text.
        repeated: number of rows of an annotator who has an earlier row of the text.
        labels: agreement on each label, by name.
        split: number of texts over which annotators split for any label.
        examples: texts over which they split the most, each with the share of the rows that have each disputed label.
        groups: alpha of each label by the values of the columns that are carried along, such as languages; of columns
            with several values, but not too many.
    """

    column: str | None
    annotators: int | None
    rows: int
    texts: int
    rows_of_a_text: tuple[int, float, int]
    repeated: int
    labels: dict[str, LabelAgreement]
    split: int
    examples: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    groups: dict[str, dict[str, "GroupAgreement"]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON, without texts."""
        least, mean, most = self.rows_of_a_text
        by_group = {
            column: {value: {"texts": own.texts, "alpha": own.alpha} for value, own in values.items()}
            for column, values in self.groups.items()
        }
        return {
            "column": self.column,
            "annotators": self.annotators,
            "rows": self.rows,
            "texts": self.texts,
            "rows_of_a_text": {"min": least, "mean": mean, "max": most},
            "repeated": self.repeated,
            "split_texts": self.split,
            "labels": {name: {"alpha": own.alpha, "split_texts": own.split} for name, own in self.labels.items()},
        } | ({"groups": by_group} if by_group else {})

    def sentence(self) -> str:
        """Who labelled how much, and how far they agree."""
        least, mean, most = self.rows_of_a_text
        who = f"{self.annotators:,} annotators" if self.annotators is not None else "Annotators"
        each = f"{least}" if least == most else f"{mean:.1f} ({least} to {most})"
        known = {name: own.alpha for name, own in self.labels.items() if own.alpha is not None}
        ordered = sorted(known, key=lambda name: -known[name])
        shown = [f"{name} {known[name]:.2f}" for name in ordered]
        if len(shown) > 6:
            shown = [*shown[:3], "…", *shown[-3:]]
        alpha = f"; Krippendorff's alpha: {', '.join(shown)}" if shown else ""
        again = (
            f" {self.repeated:,} rows are of an annotator who has an earlier row of the text." if self.repeated else ""
        )
        return (
            f"{who} labelled {self.texts:,} texts, {each} rows a text{alpha}. They split over {self.split:,} texts (a "
            f"third of them or more on either side).{again}"
        )


@dataclass
class GroupAgreement:
    """How far annotators agree on the texts of one group.

    Attributes:
        texts: number of texts.
        alpha: Krippendorff's alpha of each label, by name; None where all gave the same, or the label is open.
    """

    texts: int
    alpha: dict[str, float | None]


def with_judgements(
    corpus: Corpus, splits: dict[str, Rows], places: Mapping[str, npt.NDArray[np.int64]], *, column: str | None
) -> Corpus:
    """A corpus that knows what each annotator said.

    Args:
        corpus: with a row for each text, or without joined rows yet.
        splits: a row for each annotator of a text, with the labels of the corpus.
        places: number of the text of each row, by split.
        column: what says who labelled a row.
    """
    return replace(corpus, judgements=Judgements(corpus.labels, splits, places, column))


def describe(judgements: Judgements) -> Agreement | None:
    """Describe what annotators said; None if no split is labelled."""
    parts, labels = judgements.labelled(), judgements.labels
    if not parts:
        return None
    given, known, texts = judgements.answers()
    hard = np.concatenate([rows.targets for rows, _ in parts if rows.targets is not None])
    interval = any(rows.shares is not None for rows, _ in parts)
    shares, split = _split(hard, known, texts)
    who = [name for rows, _ in parts for name in rows.annotators or [None] * len(rows)]
    pairs = [(name, text) for name, text in zip(who, texts.tolist(), strict=True) if name is not None]
    sizes = np.bincount(texts)
    words = [text for rows, _ in parts for text in rows.texts]
    first = {text: position for position, text in reversed(list(enumerate(texts.tolist())))}
    disputed = np.flatnonzero(split.any(axis=1))
    worst = disputed[np.argsort(-(shares * (1 - shares)).sum(axis=1)[disputed], kind="stable")][:_EXAMPLES]
    by_column = {
        name: np.concatenate(
            [np.array(carried.values(rows.carried.get(name, [None] * len(rows))), dtype=object) for rows, _ in parts]
        )
        for name in dict.fromkeys(name for rows, _ in parts for name in rows.carried)
    }

    def alphas(own: npt.NDArray[np.bool_]) -> dict[str, float | None]:
        """Alpha of each label over some of the rows."""
        cells = known & own[:, None]
        return {
            name: krippendorff_alpha(given[cells[:, i], i], texts[cells[:, i]], interval=interval)
            for i, name in enumerate(labels)
        }

    overall = alphas(np.ones(len(texts), dtype=bool))
    return Agreement(
        column=judgements.column,
        annotators=len({name for name, _ in pairs}) or None,
        rows=len(texts),
        texts=len(sizes),
        rows_of_a_text=(int(sizes.min()), float(sizes.mean()), int(sizes.max())),
        repeated=len(pairs) - len(set(pairs)),
        labels={name: LabelAgreement(overall[name], int(split[:, i].sum())) for i, name in enumerate(labels)},
        split=len(disputed),
        examples=[
            (words[first[text]], {labels[i]: float(shares[text, i]) for i in np.flatnonzero(split[text])})
            for text in worst.tolist()
        ],
        groups={
            name: {
                value: GroupAgreement(len(np.unique(texts[of_row == value])), alphas(of_row == value))
                for value in _largest_first(of_row)
            }
            for name, of_row in by_column.items()
            if 1 < len(set(of_row.tolist())) <= _GROUPS
        },
    )


def _largest_first(of_row: npt.NDArray[Any]) -> list[str]:
    names, counts = np.unique(of_row.astype(str), return_counts=True)
    return [str(names[place]) for place in np.lexsort((names, -counts))]


def _split(
    hard: npt.NDArray[Any], known: npt.NDArray[np.bool_], texts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The share of the rows of each text that have each label, and whether annotators split over it, [text, label]."""
    counts = summed(known, texts)
    shares = summed(hard * known, texts) / np.maximum(counts, 1)
    return shares, (counts > 1) & (np.minimum(shares, 1 - shares) >= _SPLIT - 1e-9)


def summed(values: npt.NDArray[Any], texts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sums over the rows of each text, [text, label].

    Args:
        values: [row, label].
        texts: number of the text of each row, [row].
    """
    sums = np.zeros((int(texts.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, texts, values)
    return sums


def krippendorff_alpha(
    values: npt.NDArray[Any], units: npt.NDArray[np.int64], *, interval: bool = False
) -> float | None:
    """Krippendorff's alpha (Krippendorff, 2011, "Computing Krippendorff's Alpha-Reliability").

    It is 1 minus the disagreement within units over that between any two values. Units with one value count nothing.

    Args:
        values: what was given, [value].
        units: number of the unit that each value is about, [value].
        interval: whether values are numbers whose squared difference tells how far they disagree; otherwise they agree
            or they do not (nominal).

    Returns:
        None if there are no two values of one unit, or all values are the same.

    >>> krippendorff_alpha(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))
    1.0
    """
    kinds, place = np.unique(values, return_inverse=True)
    counts = np.zeros((int(units.max(initial=-1)) + 1, len(kinds)))
    np.add.at(counts, (units, place), 1)
    sizes = counts.sum(axis=1)
    counts, sizes = counts[sizes > 1], sizes[sizes > 1]
    weighted = counts / (sizes[:, None] - 1)
    together = weighted.T @ counts - np.diag(weighted.sum(axis=0))  # the coincidences of two values
    totals = counts.sum(axis=0)
    apart = (kinds[:, None] - kinds[None, :]).astype(float) ** 2 if interval else 1.0 - np.eye(len(kinds))
    expected = float((totals[:, None] * totals[None, :] * apart).sum())
    if expected == 0:
        return None
    return 1.0 - (float(totals.sum()) - 1) * float((together * apart).sum()) / expected
