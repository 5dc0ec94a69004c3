"""Join a Ray cluster, or start one on this machine and end it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.runs import environment, ray_cluster

log = logging.getLogger(__name__)

_STORE = 256 << 20
"""Bytes of a started cluster's object store: texts and answers of a few pieces; Ray's own default is a third of the
memory."""


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


@contextmanager
def joined(settings: config.Predict) -> Iterator[Shares]:
    """Connect to a cluster for the block, and leave it at the end; one that was started is ended.

    Raises:
        UserError: there is no cluster at the address, or it has fewer GPUs than workers.
    """
    ray_cluster.check_installed("engine=ray" if settings.engine is config.Engine.ray else f"devices={settings.devices}")
    address, workers = settings.ray.address, settings.devices
    cpus = settings.cpus_per_worker or (max(1, ray_cluster.cores() // workers) if address is None else 1)
    with ray_cluster.joined(address, setting="ray.address", cpus=cpus * workers, store=_STORE) as nodes:
        there = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        yield Shares(workers, cpus, _gpus(settings, there), len(nodes))


def _gpus(settings: config.Predict, resources: dict[str, float]) -> int:
    """GPUs of each worker."""
    there = int(resources.get("GPU", 0))
    if settings.accelerator in (config.Accelerator.auto, config.Accelerator.gpu) and there:
        if settings.ray.address is None:
            environment.check_gpus(settings.devices, there)
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
