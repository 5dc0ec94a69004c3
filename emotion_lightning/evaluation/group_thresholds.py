"""Thresholds for each value of a column, such as each language, beside those for all rows: `thresholds.by`.

Groups differ in how often labels occur and in how sure a network is of them, so that one threshold is too high for some
of them and too low for others. A threshold of few rows is random, so a group keeps the overall ones where it has few.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.data import carried
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import thresholds

FEW = 30
"""Groups with fewer rows in validation have no thresholds of their own."""
LEAST = 10
"""Nor has a label with fewer positives in a group, even if thresholds.min_support is less: in Swedish of BRIGHTER, with
one text with fear in validation, thresholds of such labels lowered micro F1 on test from 0.67 to 0.50."""
FITTED = ("global", "per_label")
"""The threshold protocols that are fitted, and so may differ between groups."""


@dataclass
class GroupThresholds:
    """Thresholds of groups.

    Attributes:
        column: the column whose values are the groups.
        by_value: for each value with thresholds of its own, those of each protocol in `FITTED`, [label], float64.
    """

    column: str
    by_value: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def of_rows(self, overall: dict[str, Tensor], values: Sequence[str]) -> dict[str, Tensor]:
        """Thresholds of each protocol for rows of these groups, [row, label], float64.

        Args:
            overall: thresholds of each protocol for all other groups, [label].
            values: group of each row.
        """
        places = {value: place for place, value in enumerate(self.by_value, start=1)}
        of_row = torch.tensor([places.get(value, 0) for value in values], dtype=torch.long)
        return {
            protocol: torch.stack([cuts.double(), *[own.get(protocol, cuts) for own in self.by_value.values()]])[of_row]
            for protocol, cuts in overall.items()
        }

    def of_labels(self, orders: Sequence[Sequence[int]]) -> "GroupThresholds":
        """The same for labels that are made of these others: the lowest threshold of the members, for reports."""
        return GroupThresholds(
            self.column,
            {
                value: {name: torch.stack([cuts[list(order)].amin() for order in orders]) for name, cuts in own.items()}
                for value, own in self.by_value.items()
            },
        )

    def plain(self, labels: Sequence[str]) -> dict[str, Any]:
        """The form that is stored in metadata and in metrics.json."""
        return {
            "column": self.column,
            "values": {
                value: {name: dict(zip(labels, cuts.tolist(), strict=True)) for name, cuts in own.items()}
                for value, own in self.by_value.items()
            },
        }

    @classmethod
    def from_plain(cls, content: dict[str, Any], labels: Sequence[str]) -> "GroupThresholds":
        """Inverse of `plain`.

        Raises:
            KeyError, TypeError, AttributeError or ValueError: an entry is missing or impossible.
        """
        column, values = content["column"], content["values"]
        if not isinstance(column, str):
            raise ValueError(f"the column of thresholds is {column!r}")
        by_value = {}
        for value, own in values.items():
            if set(own) != set(FITTED):
                raise ValueError(f"the thresholds of {column}={value} are of {', '.join(own)}")
            by_value[value] = {name: _cuts(cuts, labels, f"{column}={value}") for name, cuts in own.items()}
        return cls(column, by_value)


def _cuts(given: dict[str, Any], labels: Sequence[str], group: str) -> Tensor:
    by_label = {normalised(name): value for name, value in given.items()}
    if by_label.keys() != set(labels):
        raise ValueError(f"the thresholds of {group} are of {len(by_label)} labels, not of these {len(labels)}")
    for label, value in by_label.items():
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ValueError(f"the threshold of {label} with {group} is {value!r}, not a number of 0 to 1")
    return torch.tensor([by_label[name] for name in labels], dtype=torch.float64)


def column_of(settings: config.Thresholds) -> str | None:
    """Name of the column that thresholds are fitted by; None if they are for all rows."""
    return None if settings.by is None else normalised(settings.by)


def groups_of(rows: Rows, column: str | None) -> list[str] | None:
    """The group of each row by a column; None if there is none, or if the rows do not have it."""
    return None if column is None or column not in rows.carried else carried.values(rows.carried[column])


def fit(
    probabilities: Tensor,
    targets: Tensor,
    settings: config.Thresholds,
    *,
    values: Sequence[str] | None,
    overall: dict[str, Tensor],
    known: Tensor | None = None,
) -> GroupThresholds | None:
    """Fit thresholds for each group of validation; None if the settings name no column, or the rows have none.

    A group with fewer than `FEW` rows, or with fewer than thresholds.min_support labels in them (at least `LEAST`), has
    none. In the per_label protocol this goes for each label of the group too.

    Args:
        probabilities: of the validation rows, [row, label].
        targets: multi-hot, [row, label]; 0 where a label is open.
        settings: the column whose values are the groups, metric, cross-fitting and minimum support.
        values: group of each row; None if the rows have none.
        overall: thresholds of each protocol, fitted on all rows, [label].
        known: whether a label is not left open, bool, [row, label]; None if none is.
    """
    column = column_of(settings)
    if column is None or values is None:
        return None
    least = max(settings.min_support, LEAST)
    of_row = np.asarray(values, dtype=object)
    found = GroupThresholds(column)
    for value, rows in sorted(Counter(values).items()):
        own = torch.from_numpy(np.flatnonzero(of_row == value)).to(probabilities.device)
        positives = targets[own].bool().sum(0)
        if value == carried.EMPTY or rows < FEW or int(positives.sum()) < least:
            continue
        fitted = thresholds.fit_thresholds(
            probabilities[own], targets[own], settings, known=None if known is None else known[own]
        )
        enough = positives >= least
        found.by_value[value] = {
            "global": fitted["global"],
            "per_label": torch.where(enough, fitted["per_label"], overall["per_label"]),
        }
    return found


def decide(
    probabilities: Tensor,
    overall: dict[str, Tensor],
    found: GroupThresholds | None,
    values: Sequence[str] | None,
) -> dict[str, Tensor]:
    """Decisions of each protocol, bool, [row, label].

    Args:
        probabilities: [row, label].
        overall: thresholds of each protocol, [label].
        found: thresholds of groups; None if they are the same for all rows.
        values: group of each row; None if the rows have none, so that the overall thresholds decide.
    """
    cuts = overall if found is None or values is None else found.of_rows(overall, values)
    return {protocol: thresholds.decide(probabilities, own) for protocol, own in cuts.items()}


def sentence(found: GroupThresholds, values: Sequence[str]) -> str:
    """Say which groups of validation have thresholds of their own, and which have too few rows."""
    others = sorted(set(values) - set(found.by_value))
    named = ", ".join(found.by_value) or "none"
    if not others:
        return f"Thresholds by {found.column} are fitted for {named}."
    few = ", ".join(others[:10]) + (" …" if len(others) > 10 else "")
    return f"Thresholds by {found.column} are fitted for {named}; with too few rows or labels in validation: {few}."


def unseen(found: GroupThresholds, values: Iterable[str] | None, *, mend: str = "") -> str | None:
    """Say for which rows the overall thresholds decide; None if for none.

    Args:
        found: thresholds of groups.
        values: group of each row, or a Counter of them; None if the rows have no such column.
        mend: what would bring the column.
    """
    column = found.column
    if values is None:
        return f"There is no column {column}, by which the run has thresholds: the overall ones decide.{mend}"
    counts = Counter(values)
    others = {value: rows for value, rows in counts.items() if value not in found.by_value}
    if not others:
        return None
    named = ", ".join(sorted(others)[:10]) + (" …" if len(others) > 10 else "")
    return (
        f"There are no thresholds of their own for {column} {named}: the overall ones decide, for "
        f"{sum(others.values()):,} of {sum(counts.values()):,} rows."
    )


def table(stored: Mapping[str, Any], overall: dict[str, float], protocol: str) -> tuple[list[str], list[list[str]]]:
    """The thresholds of groups as names of columns and rows of cells, those for all other groups first.

    Args:
        stored: `thresholds_by` of metrics.json.
        overall: thresholds of the protocol for all other groups, by label.
        protocol: threshold protocol whose thresholds are shown.
    """
    labels = list(overall)
    by_value = {value: own[protocol] for value, own in stored["values"].items() if protocol in own}
    if protocol == "global":
        one = labels[0]
        rows = [["all others", f"{overall[one]:.3f}"]]
        return [stored["column"], "threshold"], rows + [[value, f"{own[one]:.3f}"] for value, own in by_value.items()]
    rows = [["all others", *[f"{overall[name]:.3f}" for name in labels]]]
    rows += [[value, *[f"{own[name]:.3f}" for name in labels]] for value, own in by_value.items()]
    return [stored["column"], *labels], rows


def check(rows: Rows, column: str) -> None:
    """Raise UserError if validation rows lack the column that thresholds are fitted by."""
    if column not in rows.carried:
        known = ", ".join(rows.carried) or "none"
        raise UserError(
            f"thresholds.by={column}: the rows carry no column {column} along, only {known}; name it in data.groups."
        )
