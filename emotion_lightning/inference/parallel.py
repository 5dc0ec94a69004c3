"""Label texts in several processes, each with its own copy of the network."""

import collections
import functools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from emotion_lightning.data.rows import Text
from emotion_lightning.errors import UserError
from emotion_lightning.inference import predictor
from emotion_lightning.runs import quiet, slurm

_AHEAD = 2
"""Pieces of texts in the queue per process: enough to keep it busy, few enough to keep memory use constant."""


@contextmanager
def workers(runs: Sequence[str], *, accelerator: str, devices: int) -> Iterator["Workers"]:
    """Start one process per device and end them with the block.

    Args:
        runs: run folders; several form an ensemble.
        accelerator: what to run on.
        devices: number of processes. On a CPU they share the cores.

    Raises:
        UserError: the machine has fewer GPUs than `devices`.
    """
    gpus = torch.cuda.device_count()
    if accelerator != "cpu" and 0 < gpus < devices:
        raise UserError(f"devices={devices}, but this machine has {gpus} GPU{'s' if gpus > 1 else ''}.")
    context = multiprocessing.get_context("spawn")  # CUDA does not work after a fork
    numbers = context.Queue()
    for number in range(devices):
        numbers.put(number)
    pool = ProcessPoolExecutor(
        devices, mp_context=context, initializer=_start, initargs=(numbers, runs, accelerator, devices)
    )
    try:
        yield Workers(pool, devices)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class Workers:
    """Labels pieces of texts and returns the results in the same order.

    Args:
        pool: the processes.
        count: number of processes.
    """

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool = pool
        self._count = count

    def _submit(self, texts: list[Text], batch_size: int, batch_tokens: int | None) -> Future[Any]:
        try:
            return self._pool.submit(_label, texts, batch_size, batch_tokens)
        except BrokenProcessPool as error:
            raise UserError(_BROKEN) from error

    def decide(
        self, pieces: Iterable[Sequence[Text]], *, batch_size: int, batch_tokens: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the decisions and probabilities of each piece, [text, label] each.

        Raises:
            UserError: a process was killed, usually because memory ran out.
        """
        waiting: collections.deque[Future[Any]] = collections.deque()
        for texts in pieces:
            waiting.append(self._submit(list(texts), batch_size, batch_tokens))
            if len(waiting) >= self._count * _AHEAD:
                yield _tensors(waiting.popleft())
        while waiting:
            yield _tensors(waiting.popleft())


_BROKEN = (
    "A process that labels was killed, as the system does where memory ends. Try fewer devices= or a smaller "
    "data.batch_size."
)


def _tensors(future: Future[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        decisions, probabilities = future.result()
    except BrokenProcessPool as error:
        raise UserError(_BROKEN) from error
    return torch.from_numpy(decisions), torch.from_numpy(probabilities)


_loaded: tuple[Sequence[str], str] = ([], "")


def _start(numbers: Any, runs: Sequence[str], accelerator: str, devices: int) -> None:
    global _loaded
    # Ctrl-C reaches all processes of the group; ignore it here, because the main process ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slurm.set_local_rank(numbers.get())
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // devices))
    _loaded = (runs, accelerator)
    quiet.quiet_libraries()
    quiet.hide_progress_bars()


@functools.cache
def _model() -> predictor.Labeller:
    # Load at the first piece, not at the start of the process: an error then reaches the main process unchanged.
    runs, accelerator = _loaded
    return predictor.load(runs, accelerator=accelerator)


def _label(texts: list[Text], batch_size: int, batch_tokens: int | None) -> tuple[Any, Any]:
    ((decisions, probabilities),) = _model().decide([texts], batch_size=batch_size, batch_tokens=batch_tokens)
    # Return arrays, because tensors would be sent through shared memory, which is small in containers.
    return decisions.numpy(), probabilities.numpy()
