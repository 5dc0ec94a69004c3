"""Show a status line on the terminal while a command has not printed anything yet.

A command loads libraries for seconds before its first message. The package calls `begin_status` before it imports
anything else, so this module imports only modules that load fast.

The line is written to standard error. The next status replaces it, and it is erased before anything else is printed.
It is not shown if standard error is not a terminal, and only the first of several processes shows it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

_LIBRARIES = {
    "torch": "PyTorch",
    "lightning": "Lightning",
    "transformers": "Transformers",
    "peft": "PEFT",
    "bitsandbytes": "bitsandbytes",
    "sklearn": "scikit-learn",
    "matplotlib": "Matplotlib",
    "wandb": "W&B",
    "onnxruntime": "ONNX Runtime",
    "optuna": "Optuna",
}
"""Display names, by module, of libraries that take a second or more to import on a slow machine."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def begin_status() -> None:
    """Show the first status if this process runs a command of this package; do nothing in any other program."""
    global _line
    if command(sys.orig_argv) is None:
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `app.run_command` sets its own handler: without this, Ctrl-C during an import prints a long traceback.
        signal.signal(signal.SIGINT, _stop)
    if sys.stderr is None or not sys.stderr.isatty():
        return
    from emotion_lightning.runs import slurm

    if slurm.is_first_process():
        _line = _Line(sys.stderr, overwrites=os.environ.get("TERM", "") not in ("", "dumb", "unknown"))
        sys.meta_path.insert(0, _finder)
        show_status("Reading the settings")


def show_status(what: str) -> None:
    """Replace the status, if this process shows one.

    Args:
        what: what the command is doing, without punctuation at the end.
    """
    if _line is not None:
        _line.show(f"{what} ...")


def end_status() -> None:
    """Erase the status, before a progress bar or at the end of a command; `show_status` may show another one later."""
    if _line is not None:
        _line.end()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def command(line: Sequence[str]) -> str | None:
    """Name of the command that the Python interpreter was started with, or None for any other program.

    A process that multiprocessing spawns is another program, although it has the arguments of its parent.

    >>> command(["python", "-X", "dev", "-m", "emotion_lightning.train", "seed=2"])
    'train'
    >>> command(["python", "/venv/bin/emotion-train", "-m", "seed=1,2"])
    'train'
    >>> command(["python", "-c", "from multiprocessing.spawn import spawn_main", "--multiprocessing-fork"])
    >>> command(["python", "-m", "pytest"])
    >>> command(["python", "-m", "emotion_lightning.tuning.fork_server", "peft"])
    """
    words = iter(line[1:])
    for word in words:
        if word in ("-X", "-W"):  # interpreter options whose value is the next argument
            next(words, None)
        elif word == "-m":
            package, _, module = next(words, "").partition(".")
            # A module inside a package, such as the server that forks trials, is no command.
            return module if module.isidentifier() and package == os.path.basename(_PACKAGE) else None
        elif word == "-c":
            return None
        elif not word.startswith("-"):
            return _of_script(word)
    return None


def _of_script(path: str) -> str | None:
    folder, name = os.path.split(os.path.abspath(path))
    name = name.removesuffix(".py").removesuffix(".exe")
    if folder != _PACKAGE and not name.startswith("emotion-"):
        return None
    name = name.removeprefix("emotion-")
    return name if os.path.isfile(os.path.join(_PACKAGE, f"{name}.py")) else None


def _stop(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGINT)


class _Line:
    """The status line. It wraps `write` of standard output and standard error to erase itself before other output.

    Args:
        stream: stream that shows the line.
        overwrites: whether a carriage return moves the cursor to the start of the line. If not, each status is printed
            on a new line and stays.
    """

    def __init__(self, stream: TextIO, *, overwrites: bool) -> None:
        self._stream = stream
        self._overwrites = overwrites
        self._shown = 0
        """Width of the line, in columns."""
        self._last = ""
        self._free = True
        """Whether the last output of others to a terminal ended with a line feed."""
        self._watched: list[tuple[TextIO, Any, Any]] = []
        """Each wrapped stream, its new `write`, and the `write` that was set on the instance before (or None)."""

    def show(self, text: str) -> None:
        """Replace the line by a text."""
        if not self._overwrites:
            # Without the name of each library, which would be many lines.
            text = f"{_LOADING} ..." if text.startswith(_LOADING) else text
            if text != self._last:
                self._write(text + "\n")
            self._last = text
            return
        if not self._watched:
            self._watch()
        if self._free:
            # A longer text would wrap to a second line, and only that line would be erased.
            text = text[: max(0, self._columns() - 1)]
            self._write("\r" + text.ljust(self._shown) + "\b" * max(0, self._shown - len(text)))
            self._shown = len(text)

    def end(self) -> None:
        """Erase the line, and restore the `write` of both streams."""
        self._wipe()
        for stream, watched, before in self._watched:
            # A library such as W&B may have wrapped our function meanwhile. It then stays, and only passes text on.
            if vars(stream).get("write") is not watched:
                continue
            if before is None:
                del stream.write
            else:
                stream.write = before  # type: ignore[method-assign]
        self._watched = []
        self._free = True

    def _wipe(self) -> None:
        if self._shown:
            # Spaces, not an escape sequence: notebooks support only the carriage return.
            columns, self._shown = self._shown, 0
            self._write("\r" + " " * columns + "\r")

    def _watch(self) -> None:
        for stream in dict.fromkeys((sys.stdout, sys.stderr)):  # both may be the same object
            if stream is None or not hasattr(stream, "__dict__"):
                continue
            before, write, is_terminal = vars(stream).get("write"), stream.write, stream.isatty()

            def watched(text: str, *, write: Any = write, is_terminal: bool = is_terminal) -> int:
                self._wipe()
                if is_terminal and text:
                    self._free = text.endswith("\n")
                written: int = write(text)
                return written

            stream.write = watched  # type: ignore[method-assign]
            self._watched.append((stream, watched, before))

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal may be closed; the command continues
            # The class's method, because the instance's `write` is wrapped.
            type(self._stream).write(self._stream, text)
            self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80


class _Finder:
    """Import hook that shows which library is being imported; it finds no modules itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        # importlib.util.find_spec only tests whether a library is installed; it does not import it.
        if name in _LIBRARIES and sys._getframe(2).f_globals.get("__name__") != "importlib.util":
            show_status(f"{_LOADING}: {_LIBRARIES[name]}")


_LOADING = "Loading libraries, which takes some seconds"
_line: _Line | None = None
_finder: Any = _Finder()
