"""What the parts share: results as lines of JSON, the time that is left, failures that do not end the rest."""

import argparse
import contextlib
import gc
import json
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch


class Log:
    """Results, each printed and written at once.

    Attributes:
        rows: those of this run, in order.
    """

    def __init__(self, file: Path, *, run: str, seconds: float) -> None:
        """A log that adds to a file.

        Args:
            file: of JSON lines.
            run: what this run's lines are known by: when it began.
            seconds: for the whole run.
        """
        self.rows: list[dict[str, Any]] = []
        self._file, self._run, self._seconds = file, run, seconds
        self._start = time.perf_counter()
        file.parent.mkdir(parents=True, exist_ok=True)

    def tell(self, part: str, **values: Any) -> None:
        """Print and write a line. A part that fails later, or is killed, does not take it along."""
        row = {"run": self._run, "part": part, "at_s": round(self.spent(), 1), **values}
        self.rows.append(row)
        line = json.dumps(row, allow_nan=False)
        print(line, flush=True)
        with self._file.open("a", encoding="utf-8") as opened:
            opened.write(line + "\n")

    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def fits(self, seconds: float) -> bool:
        """Whether there is so much time left."""
        return self.spent() + seconds <= self._seconds

    @contextlib.contextmanager
    def guarded(self, part: str, **more: Any) -> Iterator[None]:
        """Turn a failure into a line, so that the next part can go on."""
        try:
            yield
        except Exception as error:
            where = [line.strip() for line in traceback.format_exc().splitlines()[-6:-1]]
            self.tell(part, failed=f"{type(error).__name__}: {str(error)[:300]}", where=where, **more)
        finally:
            free()


Part = Callable[[argparse.Namespace, Log], None]


def sync() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free() -> None:
    """Give back what is no longer used, and forget what the peak was."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    """Most GPU memory held at once since `free`; None without a GPU, where one process cannot tell sides apart."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None


def seconds_of(work: Callable[[], Any], *, warm: int, rounds: int) -> float:
    """Mean seconds of a call."""
    for _ in range(warm):
        work()
    sync()
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    sync()
    return (time.perf_counter() - start) / rounds
