"""One line on a terminal that says what a command is doing while there is nothing else to read yet.

A command loads libraries for seconds before it can tell anything of its work. The package calls `begin` before it
imports anything else, so this module itself imports only what takes no time.

The line goes to standard error, is overwritten by the next one, and is wiped away before anything else is printed. In a
pipe, in a file, and in all but the first of several processes there is none.
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
"""What takes a second or more to import on a slow machine, by the name of its module."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def begin() -> None:
    """Show the first line, if this process is one of our commands; a program that imports the package sees nothing."""
    global _line
    if command(sys.orig_argv) is None:
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `command.run` takes over: Ctrl-C in the middle of an import would print a long traceback.
        signal.signal(signal.SIGINT, _stop)
    if sys.stderr is None or not sys.stderr.isatty():
        return
    from emotion_lightning.runs import slurm

    if slurm.is_first_process():
        _line = _Line(sys.stderr, overwrites=os.environ.get("TERM", "") not in ("", "dumb", "unknown"))
        sys.meta_path.insert(0, _finder)
        says("Reading the settings")


def says(what: str) -> None:
    """Replace the line, if this process shows one: what is being done, without an end mark."""
    if _line is not None:
        _line.show(f"{what} ...")


def end() -> None:
    """Wipe the line away, before a progress bar or at the end; `says` may show another one later."""
    if _line is not None:
        _line.end()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def command(line: Sequence[str]) -> str | None:
    """Name of the command that the interpreter was started for, or None where it runs another program.

    A process that multiprocessing spawns is another program, though it has the arguments of the first.

    >>> command(["python", "-X", "dev", "-m", "emotion_lightning.train", "seed=2"])
    'train'
    >>> command(["python", "/venv/bin/emotion-train", "-m", "seed=1,2"])
    'train'
    >>> command(["python", "-c", "from multiprocessing.spawn import spawn_main", "--multiprocessing-fork"])
    >>> command(["python", "-m", "pytest"])
    """
    words = iter(line[1:])
    for word in words:
        if word in ("-X", "-W"):  # of the interpreter's own options these have their value apart
            next(words, None)
        elif word == "-m":
            package, _, module = next(words, "").partition(".")
            return module if module and package == os.path.basename(_PACKAGE) else None
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
    """The line, and what wipes it away in time: both streams, which pass on everything that is written to them.

    Args:
        stream: where it is shown.
        overwrites: whether a carriage return takes the cursor back; if not, each line stays and is followed by another.
    """

    def __init__(self, stream: TextIO, *, overwrites: bool) -> None:
        self._stream = stream
        self._overwrites = overwrites
        self._shown = 0
        """Columns that the line takes."""
        self._last = ""
        self._free = True
        """Whether the cursor stands at the start of a line, as far as others have written."""
        self._watched: list[tuple[TextIO, Any, Any]] = []
        """Each stream, the function that watches it, and the one that it had of its own before, if it had any."""

    def show(self, text: str) -> None:
        """Put a line in the place of the one before."""
        if not self._overwrites:
            # Which of the libraries is loaded would be a heap of lines.
            text = f"{_LOADING} ..." if text.startswith(_LOADING) else text
            if text != self._last:
                self._write(text + "\n")
            self._last = text
            return
        if not self._watched:
            self._watch()
        if self._free:
            # A line that reached the last column would be broken in two, and only its second half wiped.
            text = text[: max(0, self._columns() - 1)]
            self._write("\r" + text.ljust(self._shown) + "\b" * max(0, self._shown - len(text)))
            self._shown = len(text)

    def end(self) -> None:
        """Wipe it away, and leave the streams as they were."""
        self._wipe()
        for stream, watched, before in self._watched:
            # A library may have put a function of its own around ours by now, as W&B does; ours then only passes on.
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
            # Blanks, not a control sequence: notebooks know no others than the carriage return.
            columns, self._shown = self._shown, 0
            self._write("\r" + " " * columns + "\r")

    def _watch(self) -> None:
        for stream in dict.fromkeys((sys.stdout, sys.stderr)):  # the two may be one
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
        with suppress(OSError):  # the terminal may be gone; the work goes on without it
            # The method of the class: the stream's own is watched.
            type(self._stream).write(self._stream, text)
            self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80


class _Finder:
    """Sees which library is about to be imported, and finds none itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        # Many libraries only look whether another one is installed, by importlib.util.find_spec.
        if name in _LIBRARIES and sys._getframe(2).f_globals.get("__name__") != "importlib.util":
            says(f"{_LOADING}: {_LIBRARIES[name]}")


_LOADING = "Loading libraries, which takes some seconds"
_line: _Line | None = None
_finder: Any = _Finder()
