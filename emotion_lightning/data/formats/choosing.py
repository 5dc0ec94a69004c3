"""Chooses one of the tables that a file holds: a sheet of Excel, a table of SQLite, a file in a zip file."""

from collections.abc import Sequence
from pathlib import Path

from emotion_lightning import terminal
from emotion_lightning.data.labels import normalised
from emotion_lightning.errors import UserError, nearest

_SHOWN = 10
"""Names that a message lists."""


def choose(
    path: Path, names: Sequence[str], wanted: str | None, *, kind: str, filled: Sequence[str] | None = None
) -> str:
    """Name of the table to read: the wanted one, or the only one with rows.

    Args:
        path: the file, for messages.
        names: names of its tables, in their order.
        wanted: name that the user gave as data.table.
        kind: what the file calls a table, such as sheet, for messages.
        filled: those of `names` that have rows; None: all.

    Raises:
        UserError: there is no such table, or none or several to choose from.
    """
    filled = names if filled is None else filled
    if wanted is not None:
        alike = [name for name in names if normalised(name) == normalised(wanted)]
        if wanted in names or len(alike) == 1:
            return wanted if wanted in names else alike[0]
        if not names:
            raise UserError(f"{path} has no {kind} data.table={wanted}: it has none at all.")
        shown = terminal.one_line(wanted)
        raise UserError(f"{path} has no {kind} {shown}; it has {_listed(names)}{nearest(wanted, set(names))}")
    if len(filled) == 1:
        return filled[0]
    if not filled:
        raise UserError(
            f"{path} has no {kind} with rows; it has {_listed(names)}." if names else f"{path} has no {kind}."
        )
    raise UserError(
        f"{path} has {len(filled)} {kind}s with rows: {_listed(filled)}. Choose one, for example {_setting(filled[0])}",
        ways=[{"table": name} for name in filled],
    )


def _setting(name: str) -> str:
    return f"data.table={terminal.one_line(name)}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(terminal.one_line(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
