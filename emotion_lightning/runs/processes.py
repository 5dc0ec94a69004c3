"""Processes that this program starts: they end with their parent, and their failure is told in one line."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, an option of Linux's prctl."""


def end_with_parent() -> Callable[[], None] | None:
    """On Linux, return a function for preexec_fn: the child then gets SIGTERM when its parent dies."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(SET_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before prctl was called

    return ask


def why_failed(code: int, output: Path) -> str:
    """Say in one line why a process failed.

    Args:
        code: its exit code, as subprocess has it: negative after a signal.
        output: file with what it printed.
    """
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", as the system does where memory ends" if name == "SIGKILL" else "")
    text = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}, without a word"
