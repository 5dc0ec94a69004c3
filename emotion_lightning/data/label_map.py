"""Labels under other names, united, or left out: `data.rename`, `data.merge` and `data.drop_labels`."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import labels
from emotion_lightning.data.labels import Targets, merging
from emotion_lightning.data.rows import WHOLE, Corpus, Rows
from emotion_lightning.errors import UserError, nearest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mapped:
    """Labels after a mapping.

    Attributes:
        names: names, in the order of their first members.
        members: for each name, the positions of the labels that it is made of.
        before: the labels before the mapping, which the positions count.
    """

    names: list[str]
    members: list[list[int]]
    before: list[str]

    @property
    def changes(self) -> bool:
        """Whether the mapping changes anything."""
        return self.names != self.before or self.members != [[i] for i in range(len(self.before))]

    def targets(self, targets: Targets) -> Targets:
        """Targets of the new labels, [row, new label]: a row has a label if it has any of its members.

        Args:
            targets: multi-hot, [row, old label].
        """
        return np.stack([targets[:, members].max(axis=1) for members in self.members], axis=1)

    def rows(self, rows: Rows) -> Rows:
        """Rows with the new labels.

        The share of a label that is made of others is the largest of theirs. It is open where one of them is open and
        none of the others is present.
        """
        if rows.targets is None:
            return rows
        targets, open_ = self.targets(rows.targets), None
        if rows.open is not None:
            open_ = np.stack([rows.open[:, members].any(axis=1) for members in self.members], axis=1) & (targets == 0)
        return dataclasses.replace(
            rows,
            targets=targets,
            shares=None if rows.shares is None else self.targets(rows.shares),
            open=open_,
            strata=rows.targets if rows.strata is None else rows.strata,
        )

    def sources(self) -> dict[str, list[str]]:
        """The old labels that each new label is made of, by name; only of those that are not simply themselves."""
        named = {
            name: [self.before[i] for i in members] for name, members in zip(self.names, self.members, strict=True)
        }
        return {name: found for name, found in named.items() if found != [name]}

    def dropped(self) -> list[str]:
        """The old labels that are in no new one."""
        used = {position for members in self.members for position in members}
        return [name for i, name in enumerate(self.before) if i not in used]


@dataclass(frozen=True)
class LabelMap:
    """How labels are renamed, then merged, then left out.

    Attributes:
        rename: new names by old ones.
        merge: for each new label, those that it is made of, by their names after `rename`.
        drop: names after `rename` and `merge` of labels to leave out.
    """

    rename: dict[str, str] = field(default_factory=dict)
    merge: dict[str, list[str]] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Any) -> "LabelMap":
        """The mapping of data settings; names are normalised as those in files are.

        Raises:
            UserError: names of the settings are equal once they are normalised.
        """
        if not isinstance(settings, config.LabelNames | config.ComparedLabels):
            return cls()
        rename = _by_name("data.rename", settings.rename)
        merge = _by_name("data.merge", settings.merge)
        return cls(
            {old: labels.normalised(new) for old, new in rename.items()},
            {new: [labels.normalised(name) for name in members] for new, members in merge.items()},
            [labels.normalised(name) for name in settings.drop_labels],
        )

    @classmethod
    def stored(cls, values: dict[str, Any]) -> "LabelMap":
        """The mapping among stored data settings; one that is damaged counts as none."""
        rename, merge, drop = (values.get(name) for name in ("rename", "merge", "drop_labels"))
        if not isinstance(rename, dict) or not isinstance(merge, dict) or not isinstance(drop, list):
            return cls()
        if not all(isinstance(members, list) for members in merge.values()):
            return cls()
        return cls(rename, merge, drop)

    def __bool__(self) -> bool:
        return bool(self.rename or self.merge or self.drop)

    @property
    def named(self) -> set[str]:
        """The labels before the mapping that it names."""
        return {*self.rename, *(name for members in self.merge.values() for name in members), *self.drop}

    def applied(self, names: Sequence[str], *, what: str, also: tuple[str, Iterable[str]] = ("", ())) -> Mapped:
        """The labels that the mapping makes of these.

        Args:
            names: labels, in order.
            what: what has these labels, for messages: `the data`, or a file.
            also: what else is mapped, and its labels, which the mapping may name too; such as the run, if these are the
                labels of the data that it is scored on.

        Raises:
            UserError: the mapping names a label that does not exist, makes two labels of one name, or leaves none.
        """
        renamed = [self.rename.get(name, name) for name in names]
        known = {*names, *also[1]}
        whose = f"which neither {what} nor {also[0]} has" if also[0] else f"which {what} does not have"
        self._check_known("data.rename", self.rename, known, whose)
        self._check_names(names, renamed, what)
        known_now = {self.rename.get(name, name) for name in known}
        self._check_known("data.merge", [n for members in self.merge.values() for n in members], known_now, whose)
        self._check_known("data.drop_labels", self.drop, known_now | set(self.merge), whose)
        position = {name: i for i, name in enumerate(renamed)}
        taken = {name for members in self.merge.values() for name in members}
        found = {name: [i] for name, i in position.items() if name not in taken}
        for new, members in self.merge.items():
            own = [position[name] for name in dict.fromkeys(members) if name in position]
            if not own:
                continue
            if new in found:
                raise UserError(
                    f"data.merge makes a label {new} of {', '.join(renamed[i] for i in own)}, but {what} has a label "
                    f"{new} too. To unite it with them, put it into the list: {merging({new: [new, *members]})}."
                )
            found[new] = sorted(own)
        kept = sorted(
            ((min(own), new, own) for new, own in found.items() if new not in self.drop), key=lambda one: one[0]
        )
        if not kept:
            raise UserError(f"data.drop_labels={_listed(self.drop)} leaves no label of {what}.")
        return Mapped([new for _, new, _ in kept], [own for *_, own in kept], list(names))

    def _check_known(self, setting: str, named: Iterable[str], known: set[str], whose: str) -> None:
        unknown = [name for name in dict.fromkeys(named) if name not in known]
        if not unknown:
            return
        if setting != "data.rename" and unknown[0] in self.rename:
            hint = f": data.rename calls it {self.rename[unknown[0]]}, so write that."
        else:
            meant = nearest(unknown[0], known)
            hint = meant if meant != "." else f"; its labels are {_shown(sorted(known))}."
        more = f" (nor {', '.join(unknown[1:4])}{' …' if len(unknown) > 4 else ''})" if len(unknown) > 1 else ""
        raise UserError(f"{setting} names the label {unknown[0]}, {whose}{more}{hint}")

    def _check_names(self, names: Sequence[str], renamed: list[str], what: str) -> None:
        for name, count in Counter(renamed).items():
            if count > 1 and name in self.rename.values():
                both = [old for old, new in zip(names, renamed, strict=True) if new == name]
                raise UserError(
                    f"data.rename gives {what} {count} labels of the name {name}, {' and '.join(both)}. To make one "
                    f"label of them: {merging({name: both})}."
                )

    def plain(self) -> dict[str, Any]:
        """The settings that are in use, for JSON."""
        named = {"rename": self.rename, "merge": self.merge, "drop_labels": self.drop}
        return {name: value for name, value in named.items() if value}


def known_names(settings: config.Data) -> set[str]:
    """Labels that the settings name; a column of zeros and ones with such a name is a label, even if it is constant."""
    return LabelMap.of(settings).named


def mapped(corpus: Corpus, settings: config.Data) -> Corpus:
    """A corpus with its labels as the settings want them; each row stays, also one that has no label then.

    `Rows.strata` keeps the labels of the data, so that splits do not depend on the mapping.

    Raises:
        UserError: the mapping does not fit the labels.
    """
    label_map = LabelMap.of(settings)
    if not label_map:
        return corpus
    found = label_map.applied(corpus.labels, what="the data")
    splits = {name: found.rows(rows) for name, rows in corpus.splits.items()}
    decisions = corpus.decisions
    decisions.mapping = {
        **label_map.plain(),
        "labels_in_data": corpus.labels,
        "made_of": found.sources(),
        "left_out": found.dropped(),
    }
    bare = {
        name: _without_labels(rows, splits[name]) for name, rows in corpus.splits.items() if rows.targets is not None
    }
    log.info("Labels %s become %s.", _shown(corpus.labels), _shown(found.names))
    if sum(bare.values()):
        sentence = (
            f"Rows that have only labels that are left out ({', '.join(found.dropped())}): "
            f"{_by_split(bare)}; they stay, without a label."
        )
        log.info("%s", sentence)
        decisions.notes.append(sentence)
    said = corpus.judgements
    if said is not None:
        said = dataclasses.replace(
            said, labels=found.names, splits={name: found.rows(rows) for name, rows in said.splits.items()}
        )
    return Corpus(found.names, splits, corpus.hashes, corpus.new_splits, decisions, said)


def _without_labels(before: Rows, after: Rows) -> int:
    """Number of rows that have lost all of their labels."""
    assert before.targets is not None and after.targets is not None
    return int((before.targets.any(axis=1) & ~after.targets.any(axis=1)).sum())


def _by_name(setting: str, given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if (spelled := labels.normalised(name)) in found:
            raise UserError(f"{setting} names the label {spelled} twice.")
        found[spelled] = value
    return found


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _by_split(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,}" if name == WHOLE else f"{name} {count:,}" for name, count in counts.items())


def _listed(names: Sequence[str]) -> str:
    return f"[{','.join(names)}]"
