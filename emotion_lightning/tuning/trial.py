"""A trial of a study: runs `train` in its own process, follows its history and reads its results.

Each trial has its own process for three reasons. If it runs out of memory or crashes in a library, the study continues.
The next trial finds the GPU empty. And a trial with several processes (DDP) starts them with its own command line, so
that all have the same values. On Linux, trials are forked from a process that has loaded the libraries, because loading
takes longer than many trials.
"""

import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.runs import processes, run_folder
from emotion_lightning.runs.metrics_file import of_protocol, read_metrics
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
"""Modules that the fork server imports for the trials; together they import everything but the command itself."""
OUTPUT = "output.txt"
"""File in the trial's folder with the output of its process."""

PATIENCE = 60.0
"""Seconds that a trial may take to stop: it finishes a step, saves a checkpoint and closes its logger."""


class Training:
    """A running `train`.

    Args:
        arguments: command-line arguments of `train`.
        folder: the run folder.
        server: starts the process.
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
                new_session=True,  # Ctrl-C reaches only the study, which then stops its trial
            )

    def wait(self, seconds: float) -> int | None:
        """Wait for some seconds; return the exit code, or None if the process still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def new_rows(self) -> list[dict[str, float]]:
        """Return the rows of history.csv since the last call."""
        rows = run_folder.read_history(self.folder / run_folder.HISTORY)[self._seen :]
        self._seen += len(rows)
        return rows

    def stop(self) -> None:
        """Send SIGTERM and wait up to a minute; then kill all processes that are left."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            until = time.monotonic() + PATIENCE
            while self._process.poll() is None and time.monotonic() < until:
                self.wait(0.5)
        self.kill()

    def kill(self) -> None:
        """Kill the process and every process that it started."""
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
        """Return in one line why the process ended with this exit code."""
        return processes.why_failed(code, self.folder / OUTPUT)


def measure(folder: Path, protocol: str) -> dict[config.Objective, float]:
    """Return the value of every objective of a finished run.

    Raises:
        UserError: a value is not a finite number; this fails the trial only.
    """
    metrics = read_metrics(folder)
    scores = metrics["validation"]
    values: dict[str, Any] = {**of_protocol(scores, protocol), **scores, **metrics["cost"]}
    for kind in ("soft", "intensity"):
        values |= {f"{kind}_{name}": value for name, value in values.get(kind, {}).items()}
    found = {}
    for objective in config.Objective:
        if objective in config.SOFT and objective.value not in values:
            continue
        value = values[objective.value]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{objective.value} is {value}.")
        found[objective] = float(value)
    return found
