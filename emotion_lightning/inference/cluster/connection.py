"""Join a Ray cluster, or start one on this machine and end it."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from emotion_lightning import config
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.runs import extras, waiting

log = logging.getLogger(__name__)

_STORE = 256 << 20
"""Bytes of a started cluster's object store: texts and answers of a few pieces; Ray's own default is a third of the
memory."""

_LONGEST = 40
"""A socket's path has at most 107 letters, of which Ray needs more than sixty behind its folder."""


@dataclass(frozen=True)
class Shares:
    """What each worker gets.

    Attributes:
        workers: number of workers.
        cpus: cores of each.
        gpus: GPUs of each, 0 or 1.
        nodes: number of machines in the cluster.
    """

    workers: int
    cpus: int
    gpus: int
    nodes: int


def check_installed(setting: str) -> None:
    """Raise UserError if Ray is not installed; `setting` is what needs it."""
    if find_spec("ray") is None:
        raise UserError(f"{setting} needs Ray; install it: {extras.install('ray')}")


@contextmanager
def joined(settings: config.Predict) -> Iterator[Shares]:
    """Connect to a cluster for the block, and leave it at the end; one that was started is ended.

    Raises:
        UserError: there is no cluster at the address, or it has fewer GPUs than workers.
    """
    check_installed("engine=ray" if settings.engine is config.Engine.ray else f"devices={settings.devices}")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent
    address = settings.ray.address
    waiting.show_status("Starting Ray" if address is None else f"Joining the Ray cluster {address}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Ray 2.60 announces changes of its own defaults
        import ray
    folder = None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    cores = _cores()
    cpus = settings.cpus_per_worker or (max(1, cores // settings.devices) if address is None else 1)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address is None:
            folder = _folder()
            ray.init(
                "local", num_cpus=cpus * settings.devices, include_dashboard=False, object_store_memory=_STORE,
                _temp_dir=folder, **quiet,
            )  # fmt: skip
        else:
            try:
                _check_reachable(address)
                ray.init(address, **quiet)
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"ray.address={address}: there is no Ray cluster that can be joined ({first_line(error)}). Start "
                    "one with `ray start --head`, or leave ray.address out."
                ) from error
        # Ray 2.60 takes SIGTERM for itself and would end with exit code 15.
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        yield Shares(settings.devices, cpus, _gpus(settings, ray.cluster_resources()), nodes)
    finally:
        waiting.end_status()
        with suppress(Exception):
            ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _check_reachable(address: str) -> None:
    """Raise an error if nobody listens at an address: Ray 2.60 would try for a minute and then abort the process."""
    if address.startswith("ray://"):
        raise ValueError("Ray Client is not used; give HOST:6379, on a machine of the cluster")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _folder() -> str | None:
    """A folder for the files of a cluster; None, Ray's own choice, where temporary folders have long names."""
    if sys.platform == "win32" or len(tempfile.gettempdir()) > _LONGEST:
        return None
    return tempfile.mkdtemp(prefix="emotion_ray_")


def _gpus(settings: config.Predict, resources: dict[str, float]) -> int:
    """GPUs of each worker."""
    there = int(resources.get("GPU", 0))
    if settings.accelerator in (config.Accelerator.auto, config.Accelerator.gpu) and there:
        if settings.ray.address is None:
            check_gpus(settings.devices, there)
        elif there < settings.devices:
            log.warning("The cluster has %d GPUs for devices=%d: other workers wait for more.", there, settings.devices)
        return 1
    if settings.accelerator is config.Accelerator.gpu and settings.ray.address is not None:
        raise UserError(f"accelerator=gpu, but the Ray cluster {settings.ray.address} has no GPU.")
    cpus = int(resources.get("CPU", 0))
    wanted = settings.devices * (settings.cpus_per_worker or 1)
    if settings.ray.address is not None and cpus < wanted:
        log.warning("The cluster has %d cores for %d: some workers wait for more.", cpus, wanted)
    return 0


def check_gpus(devices: int, there: int) -> None:
    """Raise UserError if a machine has some GPUs, but fewer than workers."""
    if 0 < there < devices:
        raise UserError(f"devices={devices}, but this machine has {there} GPU{'s' if there > 1 else ''}.")


def starter(kind: type, *arguments: Any, shares: Shares) -> Callable[[], Any]:
    """A function that asks Ray for a worker: an actor of this class.

    Args:
        kind: class of the worker.
        arguments: of its constructor.
        shares: what each worker gets.
    """
    import ray

    actor = ray.remote(kind).options(
        num_cpus=shares.cpus, num_gpus=shares.gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
    )
    return lambda: actor.remote(*arguments)
