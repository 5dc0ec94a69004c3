"""Conversations: the turns before a text, read from the columns of a table, joined in front of it for the network.

A text with turns before it is a tuple of texts, oldest first, whose last one is the text itself; see `Text`.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import as_text
from emotion_lightning.data.rows import Corpus, Problems, Source, Text
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Where the turns before a text come from, and how they are joined.

    Attributes:
        turns: maximum number of turns before a text.
        conversation: column that says which conversation a row belongs to; None if the turns have columns of their own.
        turn: column that orders the turns of a conversation; None: the order of the rows.
        columns: columns with the turns before the text, oldest first; None if turns are rows.
        separator: token ids that stand between two turns.
    """

    turns: int
    conversation: str | None
    turn: str | None
    columns: list[str] | None
    separator: list[int] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        """Names of all its columns."""
        return [name for name in (self.conversation, self.turn, *(self.columns or [])) if name is not None]

    def __str__(self) -> str:
        if self.columns is not None:
            return f"columns {', '.join(self.columns)}"
        order = "the rows" if self.turn is None else f"column {self.turn}"
        return f"up to {self.turns} of the same {self.conversation}, in the order of {order}"

    def before(self, text: Text) -> list[str]:
        """Return the turns before a text that the network reads, without empty ones."""
        earlier = () if isinstance(text, str) else text[:-1]
        return [turn for turn in earlier[len(earlier) - min(self.turns, len(earlier)) :] if turn.strip()]

    def joined(self, turns: Sequence[list[int]], ids: list[int], room: int | None) -> list[int]:
        """Put the tokens of the turns before a text in front of its own, as far as there is room.

        Args:
            turns: token ids of each turn, oldest first.
            ids: token ids of the text; none of them is cut here.
            room: maximum number of tokens; the oldest of the turns are cut. None: no maximum.
        """
        front = [token for turn in turns for token in (*turn, *self.separator)]
        if room is not None:
            left = max(0, room - len(ids))
            # A separator alone would separate nothing.
            front = front[len(front) - min(left, len(front)) :] if left > len(self.separator) else []
        return front + ids

    def named(self, given: Any) -> "Context":
        """The same, with the columns that settings name instead, because a file calls them otherwise.

        Args:
            given: settings with `conversation`, `turn` and `context_columns`.

        Raises:
            UserError: they name columns of the other way, or another number of them.
        """
        if self.columns is None and given.context_columns is not None:
            raise UserError(
                "data.context_columns: this run reads turns from rows; give data.conversation and data.turn."
            )
        if self.columns is not None and given.conversation is not None:
            raise UserError("data.conversation: this run reads turns from columns; give data.context_columns.")
        if self.columns is not None and given.context_columns and len(given.context_columns) != len(self.columns):
            raise UserError(
                f"data.context_columns names {len(given.context_columns)} columns, the run has {len(self.columns)}: "
                f"{', '.join(self.columns)}."
            )
        return dataclasses.replace(
            self,
            conversation=given.conversation or self.conversation,
            turn=given.turn or self.turn,
            columns=given.context_columns or self.columns,
        )

    def plain(self) -> dict[str, Any]:
        """Return the form that is stored as JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "Context":
        """Read what `plain` returns.

        Raises:
            TypeError or ValueError: an entry is missing, unknown, or of another type.
        """
        found = cls(**content)
        names = [found.conversation, found.turn]
        right = (
            type(found.turns) is int and found.turns > 0
            and all(isinstance(name, str | None) for name in names)
            and (found.columns is None) == (found.conversation is not None)
            and isinstance(found.columns, list | None)
            and all(isinstance(name, str) for name in found.columns or [])
            and isinstance(found.separator, list)
            and all(type(token) is int and 0 <= token < 2**31 for token in found.separator)
        )  # fmt: skip
        if not right:
            raise ValueError("the context holds something other than columns and token ids")
        return found


def context_of(settings: Any) -> Context | None:
    """Return where the settings say that the turns before a text come from; None if texts stand alone."""
    if not isinstance(settings, config.Table):
        return None
    if settings.context_columns is not None:
        return Context(len(settings.context_columns), None, None, list(settings.context_columns))
    if settings.context is None:
        return None
    return Context(settings.context, settings.conversation, settings.turn, None)


def with_context(settings: config.Batches, context: Context) -> config.Batches:
    """Return data settings that read the turns before a text as a model does.

    Args:
        settings: of labelled data that is not the model's own; its columns may have other names.
        context: of the model.
    """
    if not isinstance(settings, config.Table):
        log.warning("The run reads a text with the %d turns before it, which this data has not.", context.turns)
        return settings
    own = context.named(settings)
    turns = None if own.columns else own.turns
    return dataclasses.replace(
        settings, context=turns, conversation=own.conversation, turn=own.turn, context_columns=own.columns
    )


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass
class Turns:
    """The turns of a table.

    Attributes:
        before: the turns before each row, oldest first, by row number.
        conversations: the conversation of each row, by row number; empty if turns are columns.
        orders: the places of a conversation's turns, by conversation.
    """

    before: dict[int, tuple[str, ...]] = field(default_factory=dict)
    conversations: dict[int, str] = field(default_factory=dict)
    orders: dict[str, set[Any]] = field(default_factory=dict)


def read_turns(source: Source, names: Sequence[str], context: Context, text: str, problems: Problems) -> Turns:
    """Read the turns before each row of a table.

    Args:
        source: the table, with the rows of all splits.
        names: its columns.
        context: which turns are read.
        text: the text column.
        problems: collects rows without a conversation or a place in it, and places that repeat.

    Raises:
        UserError: a column is missing.
    """
    for name in context.used:
        if name not in names:
            setting = {context.conversation: "conversation", context.turn: "turn"}.get(name, "context_columns")
            near = files.near(name, list(names))
            raise UserError(
                f"{source.path} has no column {name}, from which the turns before a text come; its columns are "
                f"{files.listed(list(names))}. Name it: data.{setting}={near or '…'}"
            )
    found = Turns()
    rows: list[tuple[int, str, Any, str]] = []
    for chunk in source.chunks(Problems()):
        if context.columns is not None:
            cells = [[as_text(cell) or "" for cell in chunk.column(name)] for name in context.columns]
            found.before |= dict(zip(chunk.rows, zip(*cells, strict=True), strict=True))
            continue
        assert context.conversation is not None
        conversations = [as_text(cell) or "" for cell in chunk.column(context.conversation)]
        places = chunk.rows if context.turn is None else [as_text(cell) or "" for cell in chunk.column(context.turn)]
        texts = [as_text(cell) or "" for cell in chunk.column(text)]
        rows += zip(chunk.rows, conversations, places, texts, strict=True)
    if context.columns is None:
        _from_rows(source.path, rows, context, found, problems)
    return found


def _from_rows(
    path: Path, rows: list[tuple[int, str, Any, str]], context: Context, found: Turns, problems: Problems
) -> None:
    by_conversation: dict[str, list[tuple[Any, int, str]]] = {}
    key = (lambda place: place) if context.turn is None else _order([place for _, _, place, _ in rows if place.strip()])
    for row, conversation, place, text in rows:
        if not conversation.strip():
            problems.add(path, "no conversation; each row needs one.", row=row, column=context.conversation)
        elif context.turn is not None and not place.strip():
            problems.add(path, "no place in its conversation; each row needs one.", row=row, column=context.turn)
        elif (value := key(place)) is None:
            problems.add(
                path, f"{place!r} where others have numbers or times (ISO 8601), which order the turns.", row=row,
                column=context.turn,
            )  # fmt: skip
        else:
            by_conversation.setdefault(conversation, []).append((value, row, text))
    for conversation, turns in by_conversation.items():
        turns.sort(key=lambda turn: turn[0])
        found.orders[conversation] = {value for value, _, _ in turns}
        for position, (value, row, _) in enumerate(turns):
            if position and turns[position - 1][0] == value:
                first, second = sorted((turns[position - 1][1], row))
                problems.add(
                    path, f"the conversation {conversation} has this place in row {first} too.", row=second,
                    column=context.turn,
                )  # fmt: skip
            found.conversations[row] = conversation
            earlier = turns[max(0, position - context.turns) : position]
            found.before[row] = tuple(text for _, _, text in earlier)


def _order(places: Sequence[str]) -> Any:
    """A function that turns the places of turns into what they are ordered by; it returns None for what is no place."""

    def number(place: str) -> float | None:
        try:
            value = float(place)
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def time(place: str) -> datetime | None:
        try:
            value = datetime.fromisoformat(place)
        except ValueError:
            return None
        return value.astimezone() if value.tzinfo is None else value

    numbers = sum(number(place) is not None for place in places)
    return number if numbers * 2 >= len(places) else time


# ---------------------------------------------------------------------------------------------------------------- told


def log_cut(corpus: Corpus) -> None:
    """Warn if a conversation of one table is in several splits."""
    known = {name: set(rows.conversations) for name, rows in corpus.splits.items() if rows.conversations is not None}
    names = list(known)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if shared := known[first] & known[second]:
                _tell(first, second, sorted(shared))


def log_continued(orders: Mapping[str, dict[str, set[Any]]]) -> None:
    """Warn if a conversation goes on in the file of another split.

    Files may each count their conversations from 0. They are the same conversation if no turn of one is in the other.

    Args:
        orders: places of the turns of each conversation, by split.
    """
    names = list(orders)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = orders[first].keys() & orders[second].keys()
            if cut := sorted(name for name in shared if not orders[first][name] & orders[second][name]):
                _tell(first, second, cut)


def _tell(first: str, second: str, shared: list[str]) -> None:
    log.warning(
        "%s conversation%s in both %s and %s, such as %s: a text may be scored whose neighbours were learned.",
        f"{len(shared):,}", " stands" if len(shared) == 1 else "s stand", first, second, shared[0],
    )  # fmt: skip
