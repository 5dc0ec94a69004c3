"""Facts about the groups of a dataset, such as its languages: rows, labels and lengths of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_lightning.data import carried
from emotion_lightning.data.rows import Rows
from emotion_lightning.reports.pages import Section

MANY = 15
"""With more labels than this, their rates in each group are in data_card.json only."""


@dataclass
class GroupFacts:
    """Facts about the rows of one group in one split.

    Attributes:
        rows: number of rows.
        counts: number of positives, [label]; None if the split has no labels.
        without_label: number of rows without a label; None if the split has no labels.
        lengths: number of tokens of each text before truncation, [row].
    """

    rows: int
    counts: np.ndarray | None
    without_label: int | None
    lengths: np.ndarray

    def plain(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return plain values for JSON."""
        found: dict[str, Any] = {"rows": self.rows, "tokens": {"mean": float(self.lengths.mean())}}
        if self.counts is None:
            return found
        return found | {
            "without_label": self.without_label,
            "labels": {name: int(count) for name, count in zip(labels, self.counts, strict=True)},
        }


ByColumn = dict[str, dict[str, GroupFacts]]
"""Facts by column and value."""


def groups_of_split(rows: Rows, lengths: np.ndarray) -> ByColumn:
    """Facts about each group of a split.

    Args:
        rows: rows of the split.
        lengths: number of tokens of each text, [row].
    """
    found: ByColumn = {}
    for column, of_row in rows.carried.items():
        given = np.array(carried.values(of_row), dtype=object)
        found[column] = {}
        for value in dict.fromkeys(given.tolist()):
            own = np.flatnonzero(given == value)
            targets = None if rows.targets is None else rows.targets[own]
            found[column][value] = GroupFacts(
                rows=len(own),
                counts=None if targets is None else targets.sum(axis=0).round().astype(int),
                without_label=None if targets is None else int((~targets.astype(bool).any(axis=1)).sum()),
                lengths=lengths[own],
            )
    return found


def sections(by_split: dict[str, ByColumn], labels: Sequence[str], *, max_tokens: int) -> list[Section]:
    """Tables of the groups of each column, the largest group first.

    Args:
        by_split: facts of each split.
        labels: names.
        max_tokens: longer texts are truncated to this number of tokens.
    """
    found = []
    for column in dict.fromkeys(name for groups in by_split.values() for name in groups):
        by_value: dict[str, dict[str, GroupFacts]] = {}
        for split, groups in by_split.items():
            for value, facts in groups.get(column, {}).items():
                by_value.setdefault(value, {})[split] = facts
        order = sorted(by_value, key=lambda value: (-sum(facts.rows for facts in by_value[value].values()), value))
        parts = {value: list(by_value[value].values()) for value in order}
        rows = [
            [value, *(f"{by_value[value][split].rows:,}" if split in by_value[value] else "–" for split in by_split)]
            + _of_texts(parts[value], max_tokens)
            for value in order
        ]
        columns = [column, *by_split, "labels/row", "no label", "tokens: 95 %", f"cut at {max_tokens}"]
        note = "Rows of each split; labels and tokens of all splits together."
        found.append(Section(f"Groups by {column}", note, columns=columns, rows=rows))
        if len(labels) <= MANY:
            rates = [[value, *_rates(parts[value], len(labels))] for value in order]
            note = "Share of the labelled rows that have the label, in percent."
            found.append(Section(f"Labels by {column}", note, columns=[column, *labels], rows=rates))
    return found


def _of_texts(parts: Sequence[GroupFacts], max_tokens: int) -> list[str]:
    """Labels and lengths of a group, as cells."""
    lengths = np.concatenate([part.lengths for part in parts])
    counts, rows = _labelled(parts)
    bare = sum(part.without_label or 0 for part in parts)
    return [
        f"{counts.sum() / rows:.2f}" if rows else "–",
        f"{bare / rows:.1%}" if rows else "–",
        f"{int(np.quantile(lengths, 0.95, method='higher')):,}",
        f"{(lengths > max_tokens).mean():.2%}",
    ]


def _rates(parts: Sequence[GroupFacts], labels: int) -> list[str]:
    counts, rows = _labelled(parts)
    return [f"{100 * count / rows:.1f}" for count in counts] if rows else ["–"] * labels


def _labelled(parts: Sequence[GroupFacts]) -> tuple[np.ndarray, int]:
    """Positives of each label and number of rows, of the splits with labels."""
    known = [(part.counts, part.rows) for part in parts if part.counts is not None]
    if not known:
        return np.zeros(0), 0
    return np.sum([counts for counts, _ in known], axis=0), sum(rows for _, rows in known)
