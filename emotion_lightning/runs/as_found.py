"""Leave the process of another program as it was found.

A command has its process for itself. A function that a notebook calls has not: libraries that it uses set environment
variables, seeds, warnings and switches of torch for the whole process.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

from emotion_lightning.runs import quiet


@contextmanager
def as_found() -> Iterator[None]:
    """Restore after the block what its libraries change in the process.

    These are environment variables, warning filters, levels of the libraries' loggers, progress bars of transformers,
    the random states of Python, NumPy and torch, and torch's dtype, number of threads and choice of deterministic
    algorithms.
    """
    import torch

    environment = dict(os.environ)
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    try:
        with quiet.while_working(), _random_states():
            yield
    finally:
        _restore_variables(environment)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn


@contextmanager
def _random_states() -> Iterator[None]:
    import numpy as np
    import torch

    python, numpy, ours = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # Only where the program uses a GPU already: reading the states takes memory on each.
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(ours)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)


def _restore_variables(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
