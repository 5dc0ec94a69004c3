"""What was decided about the files of a dataset, in one place, so that a run can be checked by eye."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_lightning.data.agreement import Agreement


@dataclass
class Decisions:
    """How a dataset was read; written to data.json and shown in the data card.

    Attributes:
        files: for each file its split, path, format, encoding, delimiter, rows, and rows left out by reason.
        text: name of the text column.
        ids: name of the id column; None: row numbers.
        labels: where the labels come from.
        split: where the splits come from.
        turns: where the turns before a text come from; None: texts stand alone.
        split_column: name of the column that says of each row which split it is in.
        aside: columns that were not used.
        notes: sentences about what may need attention.
        mapping: how labels were renamed, merged and left out; None if they are those of the data.
        groups: name of the column whose values stay in one split; None without one.
        annotation: how far the annotators agree whose rows were joined; None if none were.
        open: number of rows that leave each label open, by name; None if no row may.
        carried: names of the columns for whose values scores are also told.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    text: str | None = None
    ids: str | None = None
    labels: str = "as in the official files"
    split: str = "the data has its own"
    split_column: str | None = None
    turns: str | None = None
    aside: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mapping: dict[str, Any] | None = None
    groups: str | None = None
    annotation: "Agreement | None" = None
    open: dict[str, int] | None = None
    carried: list[str] = field(default_factory=list)

    def plain(self, labels: list[str], rows: dict[str, int]) -> dict[str, Any]:
        """Return plain values for JSON.

        Args:
            labels: label names.
            rows: number of rows of each split.
        """
        found: dict[str, Any] = {
            "files": self.files,
            "text_column": self.text,
            "id_column": self.ids,
            "labels": {"names": labels, "from": self.labels} | ({"mapping": self.mapping} if self.mapping else {}),
            "splits": {"rows": rows, "from": self.split, "column": self.split_column}
            | ({"group_column": self.groups} if self.groups else {}),
            "columns_left_aside": self.aside,
            "notes": self.notes,
        }
        found |= {} if self.turns is None else {"turns_before_a_text": self.turns}
        found |= {} if self.annotation is None else {"annotators": self.annotation.plain()}
        found |= {"groups": self.carried} if self.carried else {}
        return found | ({} if self.open is None else {"labels_left_open": self.open})

    def lines(self) -> list[tuple[str, str]]:
        """Return the decisions as pairs of name and value, for people."""
        found = _by_language(self.files)
        if self.text is not None:
            found += [("text column", self.text), ("id column", self.ids or "none: rows are numbered")]
        found += [("turns before a text", self.turns)] if self.turns is not None else []
        found.append(("labels", self.labels))
        if self.annotation is not None:
            found.append(("annotators", self.annotation.column or "no column names them"))
        if self.mapping:
            made = [f"{new}: {', '.join(old)}" for new, old in self.mapping["made_of"].items()]
            found += [("labels made of others", "; ".join(made))] if made else []
            left = self.mapping["left_out"]
            found += [("labels left out", ", ".join(left))] if left else []
        found.append(("splits", self.split))
        if self.groups:
            found.append(("kept in one split", f"rows with the same {self.groups}"))
        if self.carried:
            found.append(("scored by", ", ".join(self.carried)))
        if self.aside:
            found.append(("columns left aside", ", ".join(self.aside[:20]) + (" …" if len(self.aside) > 20 else "")))
        return found


_FEW = 8
"""Files of languages are told one by one up to this number in a split."""


def _by_language(files: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The files; those of many languages in one line for each split."""
    found = []
    for split in dict.fromkeys(file["split"] for file in files):
        own = [file for file in files if file["split"] == split]
        if len(own) <= _FEW or not all("language" in file for file in own):
            found += [(_place(file), _file_line(file)) for file in own]
            continue
        count, rows = len({file["language"] for file in own}), sum(file["rows"] for file in own)
        left = sum(sum(file.get("left_out", {}).values()) for file in own)
        more = f", {left:,} left out" if left else ""
        folder = str(PurePath(own[0]["path"]).parent)
        found.append((_place(own[0]), f"{folder} …, {len(own)} files of {count} languages, {rows:,} rows{more}"))
    return found


def _place(file: dict[str, Any]) -> str:
    return f"file ({file['split']})" if file["split"] != "whole" else "file"


def _file_line(file: dict[str, Any]) -> str:
    parts = [str(file["path"]), str(file.get("format") or "")]
    parts += [
        f"{name} {file[name]}"
        for name in ("tool", "table", "encoding", "delimiter", "quotes", "header")
        if file.get(name)
    ]
    parts.append(f"{file['rows']:,} rows")
    parts += [f"{count:,} left out: {why}" for why, count in file.get("left_out", {}).items()]
    return ", ".join(part for part in parts if part)
