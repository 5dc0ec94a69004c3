"""A trial of a study: a `train` of its own process, what it says while it trains, and what it came to.

A process of its own: a trial that runs out of memory or crashes in a library does not take the study with it, the next
one finds the GPU empty, and one that trains with several processes (DDP) starts them by its own command line, on which
the values stand, so that all have the same.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from emotion_lightning import bounded_files, config, manifest, run_folder
from emotion_lightning.errors import UserError

TRAIN = [sys.executable, "-m", "emotion_lightning.train"]
OUTPUT = "output.txt"
"""What the process printed, in its folder."""

_PATIENCE = 60.0
"""Seconds that a trial may take to end itself: it finishes a step, saves, and closes its logger."""


class Training:
    """A running `train`.

    Args:
        arguments: of `train`.
        folder: its run folder.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._seen = 0
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / OUTPUT).open("wb") as output:
            self._process = subprocess.Popen(
                [*TRAIN, *arguments, f"hydra.run.dir={folder}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the study, which ends its trial then
                preexec_fn=_end_with_parent(),
            )

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None of a process that runs on."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def new_rows(self) -> list[dict[str, float]]:
        """What history.csv says since the last call."""
        rows = run_folder.read_history(self.folder / run_folder.HISTORY)[self._seen :]
        self._seen += len(rows)
        return rows

    def stop(self) -> None:
        """End it if it runs, gently; what is left of it after a minute is killed."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            until = time.monotonic() + _PATIENCE
            while self._process.poll() is None and time.monotonic() < until:
                self.wait(0.5)
        self.kill()

    def kill(self) -> None:
        """End it and every process that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            pass

    def failure(self, code: int) -> str:
        """Why it ended with an exit code, in one line."""
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (", as the system does where memory ends" if name == "SIGKILL" else "")
        text = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {code}, without a word"


def _end_with_parent() -> Callable[[], None] | None:
    """For Linux: a process whose study was killed is stopped too, for another worker runs its trial again."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()
    set_death_signal = 1

    def ask() -> None:
        prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it was killed between the two

    return ask


def measure(folder: Path, protocol: str) -> dict[config.Objective, float]:
    """Every objective of a finished run; a value that is no number is a UserError, as it fails the trial only."""
    manifest.check_run(folder, run_folder.METRICS)
    metrics = bounded_files.read_json(folder / run_folder.METRICS)
    scores = metrics["validation"]
    found = {}
    for objective in config.Objective:
        source = (
            metrics["cost"] if objective in config.COSTS else scores if objective.value in scores else scores[protocol]
        )
        value = source[objective.value]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{objective.value} is {value}.")
        found[objective] = float(value)
    return found
