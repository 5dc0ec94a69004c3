"""The cores of a CPU, each with work of its own."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


class Cores:
    """Threads that compute side by side, each on one core.

    Where cores share each operation instead, they wait for the slowest of them at the end of each: with anything else
    at work, as the tokenizer is, batches one beside the other take down to half the time (MiniLM, two cores).

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="core")
        together = threading.Barrier(count)

        def settle() -> None:
            torch.get_num_threads()  # a thread's first look takes over the number of the process
            torch.set_num_threads(1)
            together.wait()

        for started in [self._pool.submit(settle) for _ in range(count)]:
            started.result()
        # What those threads set holds for themselves, but also for threads that are still to come.
        torch.set_num_threads(count)

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """The results of each part, in the order of the parts."""
        return self._pool.map(work, parts)
