"""The error that a user can fix, and helpers for error messages."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN"


class UserError(Exception):
    """The user can fix this error: a setting, a file or an access right is wrong.

    The message names the error, its place and the fix. The command prints only the message and exits with code 2.

    Args:
        message: what is printed.
        ways: settings of the data, each a choice that may read them, as names without `data.` and plain values. They
            are what the message proposes, for programs: `data.doctor` tries them.
    """

    def __init__(self, message: str = "", *, ways: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.ways = [dict(way) for way in ways]


def first_line(error: BaseException) -> str:
    """First line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def counted(count: int, what: str) -> str:
    """A number with its noun, such as `1 row` and `2,000 rows`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def no_access(model: str, reason: str, *steps: str, otherwise: str) -> str:
    """The message for a hub model that cannot be accessed.

    Args:
        model: id of the model.
        reason: why there is no access.
        steps: what the user must do, in this order.
        otherwise: an alternative to these steps.
    """
    numbered = [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([f"No access to {model}: {reason}.", *numbered, f"  or {otherwise}"])


class Stopped(SystemExit):
    """A signal stopped the command; the exit code is 128 + the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def nearest(name: str, names: set[str]) -> str:
    """The end of a message: `; did you mean NAME?` with the most similar name, or `.` if none is similar."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."
