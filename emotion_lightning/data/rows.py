"""Data structures for reading: sources and their chunks, rows, a corpus, and the problems found in files."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emotion_lightning.data.decisions import Decisions
from emotion_lightning.data.labels import Targets
from emotion_lightning.errors import UserError, counted

if TYPE_CHECKING:
    from emotion_lightning.data.agreement import Judgements

SPLITS = ("train", "validation", "test")
Text = str | tuple[str, ...]
"""A text, or the turns of a conversation up to it, oldest first, the text last."""


def without_context(text: Text) -> str:
    """Return a text without the turns before it."""
    return text if isinstance(text, str) else text[-1]


WHOLE = "whole"
"""Name of the single split of a file that has no splits."""


@dataclass
class Chunk:
    """Some rows of a source, by column.

    Attributes:
        rows: row numbers, counted from 1 without the header.
        columns: cells of each column, in the order of `rows`; None if a row has no such cell.
    """

    rows: Sequence[int]
    columns: dict[str, list[Any]]

    def column(self, name: str) -> list[Any]:
        """Cells of a column; None for each row if there is no such column."""
        return self.columns.get(name) or [None] * len(self.rows)


@dataclass(frozen=True)
class Roles:
    """Columns of texts, ids and labels that a format itself says; None where it does not."""

    text: str | None = None
    id: str | None = None
    labels_column: str | None = None


@dataclass(frozen=True)
class Source:
    """A file or a split of a dataset that can be read several times, in chunks, so that memory does not grow with it.

    Attributes:
        path: its name in messages.
        chunks: reads the source from the start. It adds rows of a wrong shape to the problems and skips them; it
            raises UserError if nothing more can be read.
        class_names: names of the label ids in each column of class labels, if the source has them.
        about: how the file is read, for data.json: format, encoding, delimiter.
        roles: the columns of texts, ids and labels, where the format says them.
        questions: columns of labels among which one must be chosen, where the format has several.
    """

    path: Path
    chunks: Callable[["Problems"], Iterator[Chunk]]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    roles: Roles = Roles()
    questions: tuple[str, ...] = ()

    def where(self, keep: Callable[[Chunk], Sequence[bool]]) -> "Source":
        """The source with only the rows for which `keep` says so; they keep their numbers."""

        def chunks(problems: "Problems") -> Iterator[Chunk]:
            for chunk in self.chunks(problems):
                kept = keep(chunk)
                if all(kept):
                    yield chunk
                elif any(kept):
                    yield Chunk(
                        [row for row, wanted in zip(chunk.rows, kept, strict=True) if wanted],
                        {
                            name: [cell for cell, wanted in zip(cells, kept, strict=True) if wanted]
                            for name, cells in chunk.columns.items()
                        },
                    )

        return replace(self, chunks=chunks)

    def without(self, column: str) -> "Source":
        """The source without a column."""

        def chunks(problems: "Problems") -> Iterator[Chunk]:
            for chunk in self.chunks(problems):
                yield Chunk(chunk.rows, {name: cells for name, cells in chunk.columns.items() if name != column})

        return replace(self, chunks=chunks)

    def renamed(self, path: Path) -> "Source":
        """The source under another name, also in messages."""

        def chunks(problems: "Problems") -> Iterator[Chunk]:
            own = Problems()
            try:
                for chunk in self.chunks(own):
                    own.move(problems, self.path, path)
                    yield chunk
                own.move(problems, self.path, path)
            except UserError as error:
                own.move(problems, self.path, path)
                raise UserError(str(error).replace(str(self.path), str(path)), ways=error.ways) from error

        return replace(self, path=path, chunks=chunks)


@dataclass
class Rows:
    """Texts in the order of their source.

    Attributes:
        ids: id of each row, as text.
        texts: texts, unchanged from the source.
        targets: multi-hot, [row, label]; None if the source has no labels.
        id_column: name of the id column in prediction files.
        before: the turns of a conversation before each text, oldest first; None if texts stand alone.
        conversations: the conversation of each row, which no split cuts; None if rows have none.
        groups: value of `data.group_column` in each row, None where it is empty; None without that setting.
        strata: multi-hot labels of the data, [row, label in the data], by which splits are stratified, if `targets` are
            others, made by `data.merge` and the like; None: `targets`.
        shares: what is learned instead of `targets`, from 0 to 1, [row, label], 0 where a label is open; None:
            `targets` are learned.
        open: whether a label of a row is left open, [row, label]; its target is 0 then. None: none is.
        scale: largest intensity, if `shares` are those of intensities.
        hardens: whether `targets` are learned although there are shares, which then are for scores only.
        annotators: who labelled each row, until the rows of several annotators are joined.
        carried: values of columns that are neither text nor label but say which group a row belongs to, such as its
            language, by column; None where a cell is empty.
    """

    ids: list[str]
    texts: list[str]
    targets: Targets | None
    id_column: str = "row"
    before: list[tuple[str, ...]] | None = None
    conversations: list[str] | None = None
    groups: list[str | None] | None = None
    strata: Targets | None = None
    shares: Targets | None = None
    open: npt.NDArray[np.bool_] | None = None
    scale: float | None = None
    hardens: bool = False
    annotators: list[str | None] | None = None
    carried: dict[str, list[str | None]] = field(default_factory=dict)

    @property
    def learns_shares(self) -> bool:
        """Whether shares are learned, and not labels."""
        return self.shares is not None and not self.hardens

    @property
    def learned(self) -> Targets | None:
        """What a network learns, [row, label]: shares or labels, NaN where a label is open; None without labels."""
        found = self.shares if self.learns_shares else self.targets
        if found is None or self.open is None:
            return found
        return np.where(self.open, np.float32(np.nan), found)

    @property
    def inputs(self) -> list[Text]:
        """What a network reads of each row: the text, with the turns before it if there are any."""
        if self.before is None:
            return list(self.texts)
        return [(*turns, text) for turns, text in zip(self.before, self.texts, strict=True)]

    def __len__(self) -> int:
        return len(self.texts)

    def sha256(self) -> str:
        """Fingerprint of ids, texts and labels; it changes if any of them changes."""
        total = hashlib.sha256()
        for identifier, text in zip(self.ids, self.texts, strict=True):
            total.update(f"{len(identifier)} {len(text)} {identifier}{text}".encode())
        if self.targets is not None:
            total.update(np.packbits(self.targets.astype(bool)).tobytes())
        for part in (self.shares, self.open):
            if part is not None:
                total.update(np.ascontiguousarray(part).tobytes())
        for turns in self.before or []:
            total.update("".join(f"{len(turn)} {turn}" for turn in turns).encode())
        return total.hexdigest()

    def take(self, positions: np.ndarray | range) -> "Rows":
        """The rows at these positions, in this order."""
        chosen = np.asarray(positions, dtype=np.int64)
        return Rows(
            ids=[self.ids[i] for i in chosen],
            texts=[self.texts[i] for i in chosen],
            targets=None if self.targets is None else self.targets[chosen],
            id_column=self.id_column,
            before=None if self.before is None else [self.before[i] for i in chosen],
            conversations=None if self.conversations is None else [self.conversations[i] for i in chosen],
            groups=None if self.groups is None else [self.groups[i] for i in chosen],
            strata=None if self.strata is None else self.strata[chosen],
            shares=None if self.shares is None else self.shares[chosen],
            open=None if self.open is None else self.open[chosen],
            scale=self.scale,
            hardens=self.hardens,
            annotators=None if self.annotators is None else [self.annotators[i] for i in chosen],
            carried={name: [values[i] for i in chosen] for name, values in self.carried.items()},
        )


@dataclass
class Corpus:
    """Label names, splits by name, and the sha256 of every file read.

    Attributes:
        labels: names, in the order of every label axis.
        splits: those of train, validation and test that exist; or only `whole`.
        hashes: sha256 or fingerprint of each file or dataset that was read.
        new_splits: splits made by `splitting.split_rows`, before rows are dropped; `splitting.write_splits` saves them.
        decisions: what was decided about the files, for data.json.
        judgements: what each annotator said, until the corpus is split; None if that is not known.
    """

    labels: list[str]
    splits: dict[str, Rows]
    hashes: dict[str, str] = field(default_factory=dict)
    new_splits: dict[str, Rows] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)
    judgements: "Judgements | None" = None

    def plain_decisions(self) -> dict[str, Any]:
        """What was decided about the files, as the content of data.json."""
        return self.decisions.plain(self.labels, {name: len(rows) for name, rows in self.splits.items()})

    def labelled(self, split: str) -> Targets:
        """Targets of train or validation.

        Raises:
            UserError: the split has no labels.
        """
        targets = self.splits[split].targets
        if targets is None:
            why = "The training split has no labels."
            raise UserError(
                why if split == "train" else "The validation split has no labels; thresholds are fitted on it."
            )
        return targets


class Problems:
    """Collects problems in files, so that one error message can list several of them."""

    SHOWN = 10
    """Maximum number of lines in a message."""
    EXAMPLES = 3
    """More problems of one kind than this become one line, with so many of them as examples."""
    ENOUGH = 10_000
    """With this many problems, reading stops: the files are not what the settings describe."""
    row_by_row = False
    """Whether readers go on after a row that they would otherwise raise for, because only that row is left out."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        """Messages about cells that look wrong but may be intended."""
        self._found: list[Problem] = []
        self._files: dict[Path, int] = {}
        self._ways: list[dict[str, Any]] = []

    @property
    def count(self) -> int:
        """Number of problems."""
        return len(self._found)

    def add(
        self,
        file: Path,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        ways: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Add a problem. Rows count from 1, without the header."""
        places = [f"row {row}" if row is not None else "", f"column {column}" if column else ""]
        place = ", ".join(filter(None, places))
        self._note(Problem(file, row or 0, message, place, _kind(message)), ways)

    def note(self, file: Path, message: str, *, row: int | None = None, ways: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add a problem whose message already names its place.

        Args:
            file: where it is.
            message: what it is.
            row: its row, from 1.
            ways: settings that may mend it, as in `UserError`; the error of all problems has those of the first with
                any.

        Raises:
            UserError: there are `ENOUGH` problems.
        """
        self._note(Problem(file, row or 0, message), ways)

    def _note(self, problem: "Problem", ways: Sequence[Mapping[str, Any]] = ()) -> None:
        self._ways = self._ways or [dict(way) for way in ways]
        self._files.setdefault(problem.file, len(self._files))
        self._found.append(problem)
        if len(self._found) >= self.ENOUGH:
            raise self._error(f"Reading stopped there, after {len(self._found):,} problems.")

    def move(self, to: "Problems", old: Path, new: Path) -> None:
        """Move what was found in the file `old` to other problems, as found in `new`."""
        for problem in self._found:
            to._note(replace(problem, file=new, message=problem.message.replace(str(old), str(new))))
        to.remarks += [remark.replace(str(old), str(new)) for remark in self.remarks]
        to._ways = to._ways or self._ways
        self._found.clear()
        self.remarks.clear()

    def raise_any(self) -> None:
        """Raise one UserError for all problems, if there are any."""
        if self._found:
            raise self._error(None)

    def _error(self, rest: str | None) -> UserError:
        # Chunks are checked column by column, but users look for rows.
        ordered = sorted(self._found, key=lambda problem: (self._files[problem.file], problem.row))
        alike: Counter[tuple[Path, str | None]] = Counter(
            (problem.file, problem.kind) for problem in ordered if problem.kind is not None
        )
        lines: list[str] = []
        elsewhere: dict[str, list[Problem]] = {}
        for problem in ordered:
            if problem.kind is None:
                elsewhere.setdefault(problem.of_any_file(), []).append(problem)
        told = 0
        for problem in ordered:
            key = (problem.file, problem.kind)
            count = alike.get(key, 1)
            if len(lines) == self.SHOWN or count == 0:
                continue
            same = elsewhere.get(problem.of_any_file(), []) if problem.kind is None else []
            if len({other.file for other in same}) >= self.EXAMPLES:
                if problem is same[0]:
                    lines.append(_in_several_files(same))
                    told += len(same)
                continue
            if count <= self.EXAMPLES:
                lines.append(problem.sentence())
                told += 1
                continue
            lines.append(_together([other for other in ordered if (other.file, other.kind) == key], self.EXAMPLES))
            alike[key] = 0
            told += count
        more = self.count - told
        if rest is None and more > 0:
            rest = f"… and {counted(more, 'more problem')}."
        return UserError("\n".join(lines + ([rest] if rest else [])), ways=self._ways)


class RowProblems(Problems):
    """Collects what is wrong with each row, without an end, so that all other rows can be used.

    Attributes:
        by_row: the first problem of each row, by its number.
    """

    row_by_row = True

    def __init__(self) -> None:
        super().__init__()
        self.by_row: dict[int, str] = {}

    @property
    def count(self) -> int:
        """Number of rows with a problem."""
        return len(self.by_row)

    def _note(self, problem: "Problem", ways: Sequence[Mapping[str, Any]] = ()) -> None:
        self.by_row.setdefault(problem.row, problem.placed())


@dataclass(frozen=True)
class Problem:
    """A problem in a file.

    Attributes:
        file: the file.
        row: its row, or 0.
        message: what is wrong.
        place: its row and column, as text.
        kind: what the messages of its kind have in common; None: the message names its file and place itself.
    """

    file: Path
    row: int
    message: str
    place: str = ""
    kind: str | None = None

    def sentence(self) -> str:
        """The message with the file and the place."""
        if self.kind is None:
            return self.message
        return f"{self.file}, {self.placed()}" if self.place else f"{self.file}: {self.message}"

    def of_any_file(self) -> str:
        """The message without the name of its file and without what varies, so that it is the same for other files."""
        return _kind(self.message.replace(str(self.file), "…"))

    def placed(self) -> str:
        """The message with the place."""
        return f"{self.place}: {self.message}" if self.place else self.message


def _in_several_files(problems: Sequence[Problem]) -> str:
    """The message of the first file, and the names of the others that have the same problem."""
    others = list(dict.fromkeys(str(problem.file) for problem in problems))[1:]
    more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
    return f"{problems[0].message} The same in {', '.join(others[:3])}{more}."


def _together(problems: Sequence[Problem], examples: int) -> str:
    """One sentence for problems of one kind in a file, with the first of them as examples."""
    count, shown = f"{problems[0].file}: {len(problems):,} problems of one kind", problems[:examples]
    if len({problem.message for problem in shown}) == 1:
        places = "; ".join(problem.place for problem in shown if problem.place)
        return f"{count}{f' ({places}; …)' if places else ''}: {shown[0].message}"
    return f"{count}: {'; '.join(problem.placed().rstrip('.') for problem in shown)}; …"


_VARYING = re.compile(r"""'[^']*'|"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\d[\d,.]*""")
"""What differs between messages of one kind: quoted cells and numbers."""


def _kind(message: str) -> str:
    return _VARYING.sub("…", message)
