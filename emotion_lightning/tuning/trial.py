"""A trial of a study: a `train` of its own process, what it says while it trains, and what it came to.

A process of its own: a trial that runs out of memory or crashes in a library does not take the study with it, the next
one finds the GPU empty, and one that trains with several processes (DDP) starts them by its own command line, on which
the values stand, so that all have the same. On Linux the processes of a study are forked from one that has loaded the
libraries: loading them takes longer than many a trial.
"""

import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.runs import bounded_files, manifest, run_folder
from emotion_lightning.tuning import fork_server

TRAIN = "emotion_lightning.train"
LIBRARIES = (
    "lightning",
    "peft",
    "bitsandbytes",
    "datasets",
    "sklearn.metrics",
    "matplotlib.backends.backend_agg",
    "transformers.models.gemma.modeling_gemma",
    "emotion_lightning.models.dropout",
    "emotion_lightning.training.finalize",
    "emotion_lightning.models.head_start",
    "emotion_lightning.models.losses",
    "emotion_lightning.training.warm_start",
    "emotion_lightning.data.module",
    "emotion_lightning.data.sources",
    "emotion_lightning.reports.charts.run",
)
"""What a trial imports, directly or not: libraries of this list and its own parts, but not the command itself."""
OUTPUT = "output.txt"
"""What the process printed, in its folder."""

_PATIENCE = 60.0
"""Seconds that a trial may take to end itself: it finishes a step, saves, and closes its logger."""


class Training:
    """A running `train`.

    Args:
        arguments: of `train`.
        folder: its run folder.
        server: what starts it.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, server: fork_server.Server) -> None:
        self.folder = folder
        self._seen = 0
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / OUTPUT).open("wb") as output, open(os.devnull, "rb") as nothing:
            self._process = server.start(
                [TRAIN, *arguments, f"hydra.run.dir={folder}"],
                stdin=nothing.fileno(),
                stdout=output.fileno(),
                stderr=output.fileno(),
                new_session=True,  # Ctrl-C is for the study, which ends its trial then
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
