"""Tables in memory: the texts of frames of pandas, polars and `datasets`, and predictions as such frames.

A library is recognised by the modules that the program has imported: nobody has a frame of a library that is not
loaded, so none is imported here.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from emotion_lightning.data import carried
from emotion_lightning.data import labels as label_names
from emotion_lightning.data.conversations import Context, read_turns
from emotion_lightning.data.formats import cells, files
from emotion_lightning.data.rows import Chunk, Problems, Source, Text
from emotion_lightning.errors import UserError


class _HasColumns(Protocol):
    """A DataFrame of pandas or polars."""

    @property
    def columns(self) -> Any: ...


class _HasColumnNames(Protocol):
    """A Dataset."""

    @property
    def column_names(self) -> Any: ...


Frame = TypeVar("Frame", bound=_HasColumns | _HasColumnNames)
"""A DataFrame of pandas or polars, or a Dataset, for type checkers."""


@dataclass
class Table:
    """A frame or a series, as `table` recognises it.

    Attributes:
        data: the frame or series.
        library: module of its library, such as pandas.
        kind: name of its class, for messages.
    """

    data: Any
    library: Any
    kind: str

    def texts(self, wanted: str | None, *, usual: str | None, context: Context | None = None) -> list[Text]:
        """Return the texts, with the turns before them if there is a context.

        Args:
            wanted: name of the text column that the caller gave.
            usual: name of the text column that is preferred to the usual names, if there is such a column.
            context: which turns stand before a text.

        Raises:
            UserError: there is no such column, or a row has no text.
        """
        texts = _checked(self._cells(wanted, usual), f"The {self.kind}")
        if context is None:
            return list(texts)
        names = {} if self.kind == "Series" else self._by_name()
        if missing := [name for name in context.used if name not in names]:
            raise UserError(
                f"The {self.kind} has no column {', '.join(missing)}, from which this run takes the turns before a "
                "text; rename one, or give a list of texts with context=."
            )
        columns = {name: [cells.as_text(cell) for cell in self._column(names[name])] for name in context.used}
        problems = Problems()
        # Rows count from 0 here, as in the other messages about tables in memory.
        source = Source(Path(f"The {self.kind}"), lambda _: iter([Chunk(range(len(texts)), {**columns, "": texts})]))
        turns = read_turns(source, list(columns), context, "", problems)
        problems.raise_any()
        before = [turns.before.get(row, ()) for row in range(len(texts))]
        return [(*earlier, text) for earlier, text in zip(before, texts, strict=True)]

    def groups(self, name: str) -> list[str] | None:
        """The group of each row by the column of this name; None if there is no such column."""
        names = {} if self.kind == "Series" else self._by_name()
        if name not in names:
            return None
        return carried.values(
            [carried.as_value(None if _is_missing(cell) else cell) for cell in self._column(names[name])]
        )

    def _column(self, name: Any) -> list[Any]:
        found = self.data[name]
        return list(found if self.kind == "Dataset" else found.to_list())

    def _by_name(self) -> dict[str, Any]:
        names = list(self.data.column_names if self.kind == "Dataset" else self.data.columns)
        return {label_names.normalised(str(name)): name for name in names}

    def _cells(self, wanted: str | None, usual: str | None) -> list[Any]:
        if self.kind == "Series":
            if wanted is not None:
                raise UserError(f"A Series has no columns, so text={wanted} is not possible; leave it out.")
            return list(self.data.to_list())
        names = list(self.data.column_names if self.kind == "Dataset" else self.data.columns)
        by_name = {label_names.normalised(str(name)): name for name in names}
        known = label_names.normalised(wanted or usual or "")
        if wanted is None and known not in by_name:
            known = ""
        name = by_name[files.text_column(f"The {self.kind}", list(by_name), known or None, setting="text")]
        if self.kind == "Dataset":
            return list(self.data[name])
        if names.count(name) > 1:
            raise UserError(f"The {self.kind} has several columns named {name}; rename all but one.")
        return list(self.data[name].to_list())

    def like(self, columns: dict[str, np.ndarray]) -> Any:
        """Return columns, each [row], as a frame of the same library; the index of a pandas frame is kept."""
        if self.kind == "Dataset":
            return self.library.Dataset.from_dict(columns)
        if hasattr(self.data, "index"):
            return self.library.DataFrame(columns, index=self.data.index)
        return self.library.DataFrame(columns)


def table(given: Any) -> Table | None:
    """Recognise a frame, a series or a Dataset; None for anything else.

    Raises:
        UserError: it holds several tables, or rows that can be read only once.
    """
    for module, kinds in _KINDS.items():
        library = sys.modules.get(module)
        for kind in kinds:
            if library is not None and isinstance(given, getattr(library, kind, ())):
                if kind in _REFUSED:
                    raise UserError(_REFUSED[kind])
                return Table(given, library, kind)
    return None


_KINDS = {
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series", "LazyFrame"),
    "datasets": ("Dataset", "DatasetDict", "IterableDataset"),
}
_REFUSED = {
    "LazyFrame": "A LazyFrame has no rows yet; give what its collect() returns.",
    "DatasetDict": 'A DatasetDict holds several splits; give one of them, such as splits["test"].',
    "IterableDataset": "An IterableDataset is read as a stream; give lists of its texts, piece by piece.",
}


def texts_of_list(given: Sequence[str] | str, *, name: str = "predict") -> list[str]:
    """Return texts as a list; a single text is a list of one.

    Args:
        given: texts.
        name: the function that takes them, for messages.

    Raises:
        UserError: it is no list, or holds something else than texts.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        also = ", a list of texts or a table" if name == "predict" else " or a list of texts"
        raise UserError(f"{name} takes a text{also}, but this is a {type(given).__name__}.")
    texts = list(given)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name} takes texts, but number {position} of the list is a {type(text).__name__}.")
    return texts


def with_context(texts: list[str], context: Sequence[Sequence[str]] | None) -> list[Text]:
    """Return texts with the turns before them.

    Args:
        texts: the texts.
        context: turns before each text, oldest first; None: there are none.

    Raises:
        UserError: there are not as many lists of turns as texts, or a turn is no text.
    """
    if context is None:
        return list(texts)
    given = list(context)
    if len(given) != len(texts):
        raise UserError(f"context= has turns for {len(given):,} texts, but there are {len(texts):,}.")
    for position, turns in enumerate(given):
        if isinstance(turns, str) or not all(isinstance(turn, str) for turn in turns):
            raise UserError(f"context= takes a list of texts for each text; number {position} is none.")
    return [(*turns, text) for turns, text in zip(given, texts, strict=True)]


def columns(labels: Sequence[str], decisions: Tensor, probabilities: Tensor) -> dict[str, np.ndarray]:
    """Return the columns of prediction files by name: decisions as int8, then probabilities as float32; each [row].

    Args:
        labels: names of the labels.
        decisions: [row, label].
        probabilities: [row, label].
    """
    decided, shares = decisions.numpy().astype(np.int8), probabilities.float().numpy()
    found = {name: decided[:, i] for i, name in enumerate(labels)}
    return found | {f"p_{name}": shares[:, i] for i, name in enumerate(labels)}


def check_labels(labels: Sequence[str]) -> None:
    """Raise UserError if two columns of predictions would have the same name."""
    if repeated := {f"p_{name}" for name in labels} & set(labels):
        raise UserError(
            f"Two columns would be named {', '.join(sorted(repeated))}; give a list of texts, which has no columns."
        )


def _checked(found: list[Any], place: str) -> list[str]:
    texts = [None if _is_missing(cell) else cells.as_text(cell) for cell in found]
    missing = [position for position, text in enumerate(texts) if text is None]
    if missing:
        others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UserError(
            f"{place} has no text in row {missing[0]}{others} (counted from 0); fill it in, or drop the row."
        )
    return [text for text in texts if text is not None]


def _is_missing(cell: Any) -> bool:
    """Whether a cell is a missing value of pandas that is neither None nor NaN: NA, or NaT."""
    return type(cell).__name__ in ("NAType", "NaTType")
