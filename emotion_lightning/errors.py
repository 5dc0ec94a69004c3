"""The one error that a user can mend, and its words where access to a model is missing."""

import difflib

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN"


class UserError(Exception):
    """A setting, a file or an access right is wrong.

    The message names what is wrong, where, and what would mend it. A command that meets it prints the message alone
    and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it has no words."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def no_access(model: str, reason: str, *steps: str, otherwise: str) -> str:
    """The words for a model of the hub that cannot be had: why, what to do in which order, and what to do instead."""
    numbered = [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([f"No access to {model}: {reason}.", *numbered, f"  or {otherwise}"])


class Stopped(SystemExit):
    """A signal ended the command; the exit code is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def nearest(name: str, names: set[str]) -> str:
    """` did you mean …?` with the most similar name, or nothing."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."
