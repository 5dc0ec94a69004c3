"""Several trials of a study at the same time, each as a task of Ray.

The workers are threads of this process, so a study needs no other storage than one with a single worker. They wait for
trials, which Ray runs on this machine or on others.
"""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from emotion_lightning.runs import ray_cluster
from emotion_lightning.tuning import trial
from emotion_lightning.tuning.study import Signals, Worker

_POLL = 0.2
"""Seconds between two looks at the workers."""


def work(workers: Sequence[Worker], signals: Signals) -> None:
    """Let workers run trials, several of them each in a thread, until all have ended.

    Raises:
        Exception: what a worker raised, after the others have stopped their trials.
    """
    if len(workers) == 1:
        return workers[0].work()
    failed: list[BaseException] = []

    def run(worker: Worker) -> None:
        try:
            worker.work()
        except BaseException as error:
            failed.append(error)
            signals.is_over = True

    # Daemons: after a second signal nothing waits for them.
    threads = [threading.Thread(target=run, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL)  # a signal is handled in between
    if failed:
        raise failed[0]


class Task(trial.Training):
    """A `train` that runs as a task of Ray, in a process of its own on any node.

    Args:
        arguments: command-line arguments of `train`.
        folder: the run folder, which all nodes share.
        share: what it gets of a node.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, share: ray_cluster.Share) -> None:
        self.folder = folder
        self._seen = 0
        self._problem = ""
        folder.mkdir(parents=True, exist_ok=True)
        call = ray_cluster.Call(
            [trial.TRAIN, *arguments, f"hydra.run.dir={folder}"],
            str(Path.cwd()),
            str((folder / trial.OUTPUT).absolute()),
            ray_cluster.own_environment(),
            share,
        )
        self._task = ray_cluster.submit(call, name=f"trial {folder.name}")
        self._ended = self._task.future()

    def wait(self, seconds: float) -> int | None:
        """Wait for some seconds; return the exit code, or None if the task still runs."""
        if not concurrent.futures.wait([self._ended], seconds).done:
            return None
        ended = ray_cluster.end_of(self._ended)
        self._problem = ended.problem
        return ended.code

    def stop(self) -> None:
        """Let it save and end, and wait up to a minute; then kill all processes that are left."""
        self._cancel(force=False)
        until = time.monotonic() + trial.PATIENCE
        while self.wait(0.5) is None and time.monotonic() < until:
            pass
        self.kill()

    def kill(self) -> None:
        """End the task and its processes at once."""
        if not self._ended.done():
            self._cancel(force=True)

    def _cancel(self, *, force: bool) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(self._task, force=force)

    def failure(self, code: int) -> str:
        """Return in one line why the task ended with this exit code."""
        return self._problem or super().failure(code)


def starter(share: ray_cluster.Share) -> Callable[[Sequence[str], Path], trial.Training]:
    """A function that starts a training as a task with this share."""
    return lambda arguments, folder: Task(arguments, folder, share)
