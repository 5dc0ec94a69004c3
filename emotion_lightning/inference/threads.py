"""Run batches in parallel on the cores of a CPU."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


class CorePool:
    """A pool of threads, each of which computes on one core.

    PyTorch normally splits each operation over all cores, and all wait for the slowest at the end of each operation. If
    other work runs at the same time, such as the tokenizer, parallel batches take as little as half the time (MiniLM,
    two cores).

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="core")
        together = threading.Barrier(count)

        def settle() -> None:
            torch.get_num_threads()  # the first call in a thread copies the number of the process
            torch.set_num_threads(1)
            together.wait()

        for started in [self._pool.submit(settle) for _ in range(count)]:
            started.result()
        # set_num_threads in a thread also changes the default for threads started later; restore it.
        torch.set_num_threads(count)

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """Return the result for each part, in the order of the parts."""
        return self._pool.map(work, parts)
