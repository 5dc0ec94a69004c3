r"""What reaches the terminal and the logs: nothing that a terminal would obey, no error where the reader left.

Labels, texts, file names and what libraries say of them come from elsewhere; all of it is printed or logged through
here, where control characters become what Python writes for them, such as \x1b.
"""

import functools
import logging
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what turns the direction of a line, and bytes that are no text."""


_SPACING = re.compile("[\t\n]")

_odd_names: dict[str, str] = {}
"""Names of files with tabs and line feeds, and how they are shown."""


def safe(text: str) -> str:
    r"""Text in which no character controls a terminal; tabs and line feeds stay, but for those in names of files.

    >>> print(safe("joy\x1b[2J\r\udcff"))
    joy\x1b[2J\r\udcff
    """
    for name, shown in _odd_names.items():
        text = text.replace(name, shown)
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""The same of what is a name: tabs and line feeds do not stay.

    >>> print(one_line("joy\n\x1b[2J"))
    joy\n\x1b[2J
    """
    return safe(_SPACING.sub(lambda found: ascii(found[0])[1:-1], text))


def know_names(*places: object) -> None:
    """From now on show the names in these paths on one line, in whatever message they stand.

    A message has lines and may have tabs; the name of a file that has some would put lines of its own among them.
    """
    for name in (name for place in places for name in str(place).split("/")):
        if _SPACING.search(name):
            # What begins or ends with a line feed is found below a folder only: `a` and the end of a line is no name.
            found = name if name == name.strip() else f"/{name}"
            _odd_names[found] = _SPACING.sub(lambda found: ascii(found[0])[1:-1], found)


class Formatter(logging.Formatter):
    """Formats records as logging does, without control characters (conf/command/common.yaml)."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        return safe(super().format(record))


def prepare() -> None:
    """Let a terminal whose encoding lacks a character show its number; Python would end with an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: Any, *, error: bool = False) -> None:
    """Print a line to standard output, or to standard error."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(safe(str(text)), file=stream, flush=True)
    except BrokenPipeError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Throw away what is still printed to a closed pipe, as after `… | head -1`: the work itself goes on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def console(width: int) -> "Console":
    """Standard output for tables: as wide as the terminal, of this width where it is none."""
    made: Console = _console_class()(emoji=False)  # ":joy:" is a label, not a picture
    if not made.is_terminal:
        made.width = width
    made.push_render_hook(_render_hook())
    return made


# Both classes are made when they are needed: rich takes a while to import, and most messages need none of it.


@functools.cache
def _console_class() -> type:
    from rich.console import Console

    class Quiet(Console):
        """A console that goes on where its reader has left; rich's own ends the program with code 1."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            discard(sys.stdout)

    return Quiet


@functools.cache
def _render_hook() -> Any:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
    from rich.measure import Measurement
    from rich.segment import Segment

    class Safe:
        """What a renderable shows, without control characters."""

        def __init__(self, shown: ConsoleRenderable) -> None:
            self.shown = shown

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
            for part in console.render(self.shown, options):
                yield part if part.control else Segment(safe(part.text), part.style)

        def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
            return Measurement.get(console, options, self.shown)

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Safe(one) for one in renderables]

    return Hook()
