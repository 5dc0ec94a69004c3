r"""Print to the terminal without control characters, and without an error if the reader of a pipe has exited.

Labels, texts, file names and messages of libraries may come from an untrusted source. All of them are printed or logged
with this module, which replaces control characters by their Python escapes, such as \x1b.
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
"""Control characters except tab and line feed, line separators, bidirectional controls, and surrogates."""


_SPACING = re.compile("[\t\n]")

_odd_names: dict[str, str] = {}
"""File names that contain tabs or line feeds, and their escaped form."""


def safe(text: str) -> str:
    r"""Escape all control characters except tabs and line feeds; in registered file names escape those too.

    >>> print(safe("joy\x1b[2J\r\udcff"))
    joy\x1b[2J\r\udcff
    """
    for name, shown in _odd_names.items():
        text = text.replace(name, shown)
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""Escape all control characters, including tabs and line feeds, as in a name.

    >>> print(one_line("joy\n\x1b[2J"))
    joy\n\x1b[2J
    """
    return safe(_SPACING.sub(lambda found: ascii(found[0])[1:-1], text))


def know_names(*places: object) -> None:
    """Register the names in these paths, so that `safe` escapes tabs and line feeds in them.

    `safe` keeps tabs and line feeds of a message, so a file name that contains them could fake lines of output.
    """
    for name in (name for place in places for name in str(place).split("/")):
        if _SPACING.search(name):
            # A name that begins or ends with whitespace is only replaced after a slash. Otherwise the name `a\n` would
            # match each `a` at the end of a line.
            found = name if name == name.strip() else f"/{name}"
            _odd_names[found] = _SPACING.sub(lambda found: ascii(found[0])[1:-1], found)


class Formatter(logging.Formatter):
    """A logging formatter that escapes control characters; conf/command/common.yaml selects it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as text."""
        return safe(super().format(record))


def prepare() -> None:
    """Escape characters that the terminal's encoding lacks; by default Python raises an error for them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: Any, *, error: bool = False) -> None:
    """Print a text and a line feed to standard output, or to standard error."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(safe(str(text)), file=stream, flush=True)
    except BrokenPipeError:
        discard(stream)


def in_notebook() -> bool:
    """Whether the program runs in a notebook (Jupyter, Colab), which draws progress bars without a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")  # IPython in a terminal has none


def can_show_bar() -> bool:
    """Whether a progress bar can be shown; without a terminal or a notebook, each update would be a new line."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def discard(stream: TextIO) -> None:
    """Discard all further output to a closed pipe, as after `… | head -1`, so that the command can continue."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def console(width: int) -> "Console":
    """A rich console on standard output that escapes control characters.

    Args:
        width: width in columns if standard output is not a terminal.
    """
    made: Console = _console_class()(emoji=False)  # ":joy:" may be a label and must not become an emoji
    if not made.is_terminal:
        made.width = width
    made.push_render_hook(_render_hook())
    return made


# The classes are defined inside functions, because rich is slow to import and most messages do not need it.


@functools.cache
def _console_class() -> type:
    from rich.console import Console

    class Quiet(Console):
        """A console that continues after a broken pipe; rich's own console exits with code 1."""

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
        """Renders another renderable and escapes control characters in its text."""

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
