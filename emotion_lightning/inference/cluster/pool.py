"""A pool of workers, each a Ray actor with a copy of the model, to which tasks are given one by one.

Ray starts the workers, on any node that has room, carries tasks and results, and says when a worker or its node is
gone. Then its task is given to another worker and a new worker is asked for; no task waits for a node to come back.
"""

import collections
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

Given = TypeVar("Given")

TRIES = 5
"""A task whose worker dies so often is what kills it; nodes that can be taken away at any time die more than once."""

_PATIENCE = 60
"""Seconds without a worker after which that is told."""

BROKEN = (
    "A process that labels was killed {times}, as the system does where memory ends{place}. Try fewer devices= or a "
    "smaller data.batch_size."
)


@dataclass
class _Task(Generic[Given]):
    number: int
    given: Given
    tries: int = 0


class Pool(Generic[Given]):
    """Gives tasks to workers.

    Args:
        start: asks Ray for a new worker, an actor with the method `ready`.
        call: gives a task to a worker; the reference to its result.
        count: number of workers.
        ahead: tasks that a worker has at once; 2 keep it busy while results travel.
    """

    def __init__(
        self, start: Callable[[], Any], call: Callable[[Any, Given], Any], *, count: int, ahead: int = 1
    ) -> None:
        self._start, self._call, self._ahead = start, call, ahead
        self._most = count
        self._starting: dict[Any, Any] = {}
        """Worker of each reference to the answer of `ready`."""
        self._busy: dict[Any, tuple[Any, _Task[Given]]] = {}
        """Worker and task of each reference to a result."""
        self._load: dict[Any, int] = {}
        """Number of tasks of each worker that is ready."""
        self._failed_starts = 0
        self._since, self._told = time.monotonic(), False
        self.lost = 0
        """Number of workers that died."""

    def results(
        self, tasks: Iterable[Given], *, in_order: bool = False, place: Callable[[Given], str] = lambda _: ""
    ) -> Iterator[tuple[Given, Any]]:
        """Yield each task with its result.

        Args:
            tasks: they are read as workers become free.
            in_order: yield in the order of the tasks, not as they end.
            place: what a task is, for messages, such as `: texts.csv, rows 1 to 100`.

        Raises:
            UserError: a task raised it, or killed its worker several times.
        """
        numbered = (_Task(number, given) for number, given in enumerate(tasks))
        again: collections.deque[_Task[Given]] = collections.deque()
        kept: dict[int, tuple[Given, Any]] = {}
        due, ended = 0, False
        for _ in range(self._most):
            self._ask()
        while True:
            while (worker := self._free()) is not None and not (ended and not again):
                # Results that wait for an earlier one are held in memory, so no task runs far ahead of it.
                if not again and in_order and len(kept) + len(self._busy) >= 4 * self._most * self._ahead:
                    break
                task = again.popleft() if again else next(numbered, None)
                if task is None:
                    ended = True
                    break
                self._give(worker, task)
            if ended and not again and not self._busy:
                return
            for task, result in self._finished(again, place):
                if not in_order:
                    yield task.given, result
                    continue
                kept[task.number] = task.given, result
                while due in kept:
                    yield kept.pop(due)
                    due += 1

    def close(self) -> None:
        """End the workers."""
        import ray

        for worker in [*self._load, *self._starting.values()]:
            with suppress(Exception):
                ray.kill(worker)

    def _ask(self) -> None:
        worker = self._start()
        self._starting[worker.ready.remote()] = worker

    def _free(self) -> Any:
        """The ready worker with the fewest tasks, if it can take one."""
        found = min(self._load, key=self._load.__getitem__, default=None)
        return found if found is not None and self._load[found] < self._ahead else None

    def _give(self, worker: Any, task: _Task[Given]) -> None:
        self._load[worker] += 1
        self._busy[self._call(worker, task.given)] = worker, task

    def _finished(
        self, again: "collections.deque[_Task[Given]]", place: Callable[[Given], str]
    ) -> Iterator[tuple[_Task[Given], Any]]:
        """Wait for anything to end; the tasks that ended with their results. Tasks of dead workers go to `again`."""
        import ray

        waited_for = [*self._busy, *self._starting]
        # A signal is handled between two waits.
        ended, _ = ray.wait(waited_for, num_returns=1, timeout=1)
        self._tell_waiting()
        for reference in ended:
            if reference in self._starting:
                self._started(reference)
                continue
            if reference not in self._busy:
                continue  # of a worker whose death another of its tasks has told
            worker, task = self._busy.pop(reference)
            try:
                result = value(reference)
            except ray.exceptions.RayError as error:
                log.debug("A worker died: %s", error)
                self._bury(worker, task, again, place)
                continue
            if worker in self._load:
                self._load[worker] -= 1
            yield task, result

    def _tell_waiting(self) -> None:
        if self._load:
            self._since = time.monotonic()
        elif not self._told and time.monotonic() > self._since + _PATIENCE:
            self._told = True
            log.warning("Waiting for a worker: the cluster has no room for one, or the model's library loads slowly.")

    def _started(self, reference: Any) -> None:
        import ray

        worker = self._starting.pop(reference)
        try:
            value(reference)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts > TRIES * self._most:
                raise UserError(f"No worker could start: {str(error).strip().splitlines()[-1]}") from error
            self._ask()
            return
        self._load[worker] = 0

    def _bury(
        self, worker: Any, task: _Task[Given], again: "collections.deque[_Task[Given]]",
        place: Callable[[Given], str],
    ) -> None:  # fmt: skip
        """Give the tasks of a dead worker to others, and ask for a new worker."""
        import ray

        others = [reference for reference, (owner, _) in self._busy.items() if owner is worker]
        orphans = sorted([task, *(self._busy.pop(reference)[1] for reference in others)], key=lambda one: one.number)
        if worker in self._load:
            del self._load[worker]
            with suppress(Exception):
                ray.kill(worker)  # if it only cannot be reached
            self.lost += 1
            self._ask()
            log.warning("A worker died; its work is given to another one.")
        # The worker was at the first of its tasks; the others only waited for it.
        orphans[0].tries += 1
        if orphans[0].tries >= TRIES:
            raise UserError(BROKEN.format(times=f"{TRIES} times", place=place(orphans[0].given)))
        again.extendleft(reversed(orphans))


def value(reference: Any) -> Any:
    """The result of a reference, or of each in a list.

    Raises:
        UserError: the worker raised it.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Ray 2.60 raises a class of its own that is both, with a remote traceback as its message.
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause), ways=error.cause.ways) from None
        raise RuntimeError(f"A worker failed:\n{error}") from None
