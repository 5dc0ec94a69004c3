"""Answers of a run for labels that are made of its own, as when a run of 28 labels is scored on data of 6."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from emotion_lightning.data.label_map import LabelMap, Mapped
from emotion_lightning.evaluation import group_thresholds, thresholds
from emotion_lightning.evaluation.group_thresholds import GroupThresholds

HOW = "A label that is made of others is predicted where any of them is; its probability is the largest of theirs."
"""How a run answers for such a label.

The largest, and not 1 - prod(1 - p) as of independent labels: what goes into one label overlaps in meaning, so that the
product would count the same evidence several times, and of twelve labels with a probability of 0.1 each it makes 0.72.
"""


@dataclass
class Answers:
    """Answers of a run for its own labels.

    Attributes:
        raw: probabilities, [row, label]; calibrated if the run is.
        by_protocol: thresholds of each protocol, [label].
        by_group: thresholds of groups; None if they are the same for all rows.
        groups: group of each row; None if the rows have none.
    """

    raw: Tensor
    by_protocol: dict[str, Tensor] = field(default_factory=dict)
    by_group: GroupThresholds | None = None
    groups: Sequence[str] | None = None

    def probabilities(self, members: Sequence[Sequence[int]]) -> Tensor:
        """Probabilities of labels with these members, [row, new label]: the largest of the members'."""
        return torch.stack([self.raw[:, list(own)].amax(dim=1) for own in members], dim=1)

    def decisions(self, members: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Decisions of each protocol for labels with these members, bool, [row, new label]."""
        decided = group_thresholds.decide(self.raw, self.by_protocol, self.by_group, self.groups)
        return {name: thresholds.any_of(own, members) for name, own in decided.items()}

    def thresholds(self, members: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Thresholds of each protocol for labels with these members, [new label]: the lowest of the members'.

        Where members have different thresholds, none of their new label would give its decisions; this one is for
        reports.
        """
        return {
            name: torch.stack([cuts[list(own)].amin() for own in members]) for name, cuts in self.by_protocol.items()
        }


def plain(of_run: Mapped, of_data: Mapped, label_map: LabelMap) -> dict[str, Any]:
    """How labels of a run and of data were mapped to each other, for JSON; empty if they were not."""
    if not label_map:
        return {}
    return {
        **label_map.plain(),
        **{
            whose: {"made_of": found.sources(), "left_out": found.dropped()}
            for whose, found in (("run", of_run), ("data", of_data))
        },
        "how": HOW,
        "thresholds": "of a label that is made of others, the lowest of theirs",
    }


def sentences(mapping: dict[str, Any]) -> list[str]:
    """What `plain` returns, for people."""
    if not mapping:
        return []
    both = mapping["run"] == mapping["data"]
    found = []
    for whose in ["run"] if both else ["run", "data"]:
        made = [f"{new} ({', '.join(old)})" for new, old in mapping[whose]["made_of"].items()]
        left = mapping[whose]["left_out"]
        parts = [f"made of others: {'; '.join(made)}"] if made else []
        parts += [f"left out: {', '.join(left)}"] if left else []
        name = "run and the data" if both else whose
        found.append(f"Labels of the {name} {'. Labels '.join(parts) or 'as they are'}.")
    return [*found, *([HOW] if mapping["run"]["made_of"] else [])]
