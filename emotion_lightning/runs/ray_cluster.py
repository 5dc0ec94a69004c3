"""Run commands of this program as tasks of Ray (the extra `ray`): on this machine, or on a cluster that runs already.

A task starts its command in a process of its own, so that signal handlers, the state of torch and the further processes
of DDP are those of a command that was typed. Ray's worker, which runs the task, only waits for it.
"""

import concurrent.futures
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from emotion_lightning.errors import UserError, counted, first_line
from emotion_lightning.runs import extras, processes, waiting

log = logging.getLogger(__name__)

JOB = "EMOTION_LIGHTNING_JOB"
"""Environment variable with the path of the file that tells a command which job of a multirun it is."""

_STORE = 128 << 20
"""Bytes of a started cluster's object store, through which only command lines go; Ray's own is a third of memory."""

_LONGEST = 40
"""A socket's path has at most 107 letters, of which Ray needs more than sixty behind its folder."""

_POLL = 0.1
"""Seconds between two looks at the process of a task."""


def check_installed(setting: str) -> None:
    """Raise UserError if Ray is not installed; `setting` is what needs it."""
    if find_spec("ray") is None:
        raise UserError(f"{setting} needs Ray; install it: {extras.install('ray')}")


# ----------------------------------------------------------------------------------------------------------- a cluster


@contextmanager
def joined(
    address: str | None, *, setting: str, cpus: int | None = None, store: int = _STORE
) -> Iterator[list[dict[str, float]]]:
    """Connect to a cluster for the block, and leave it at the end; one that was started is ended.

    Args:
        address: of a running cluster: auto, or HOST:PORT. None starts one on this machine, with the GPUs that
            CUDA_VISIBLE_DEVICES names.
        setting: name of the setting that gives the address, for messages.
        cpus: cores of a cluster that is started; None: those of this machine.
        store: bytes of its object store.

    Yields:
        The resources of each node, by Ray's names (CPU, GPU).

    Raises:
        UserError: there is no cluster at the address.
    """
    before = dict(os.environ)  # Ray 2.60 leaves variables of its own
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent
    waiting.show_status("Starting Ray" if address is None else f"Joining the Ray cluster {address}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Ray 2.60 announces changes of its own defaults
        import ray
    folder = None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address is None:
            folder = _folder()
            _init(
                "local", num_cpus=cpus or cores(), include_dashboard=False, object_store_memory=store,
                _temp_dir=folder, **quiet,
            )  # fmt: skip
        else:
            try:
                _check_reachable(address)
                _init(address, **quiet)
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"{setting}={address}: there is no Ray cluster that can be joined ({first_line(error)}). Start one "
                    f"with `ray start --head`, or leave {setting} out."
                ) from error
        waiting.end_status()
        yield [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    finally:
        waiting.end_status()
        with suppress(Exception):
            ray.shutdown()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _init(*arguments: Any, **options: Any) -> None:
    """Call `ray.init` and keep our handlers of signals: Ray 2.60 takes SIGTERM for itself, with exit code 15 or 1."""
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(*arguments, **options)
    except SystemExit as end:
        if end.code in (signal.SIGTERM, 1):
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_reachable(address: str) -> None:
    """Raise an error if nobody listens at an address: Ray 2.60 would try for a minute and then abort the process."""
    if address.startswith("ray://"):
        raise ValueError("Ray Client is not used; give HOST:6379, on a machine of the cluster")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()


def _folder() -> str | None:
    """A folder for the files of a cluster; None, Ray's own choice, where temporary folders have long names."""
    if sys.platform == "win32" or len(tempfile.gettempdir()) > _LONGEST:
        return None
    return tempfile.mkdtemp(prefix="emotion_ray_")


@dataclass(frozen=True)
class Share:
    """What each task gets.

    Attributes:
        cpus: its cores.
        gpus: its GPUs; a part of one between 0 and 1.
    """

    cpus: int
    gpus: float

    def __str__(self) -> str:
        """Name the share in messages, such as `4 cores and 1 GPU`."""
        words = counted(self.cpus, "core")
        return f"{words} and {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else words

    def times(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How often it is there at the same time in a cluster with these nodes."""
        return sum(
            int(min(node.get("CPU", 0) // self.cpus, node.get("GPU", 0) / self.gpus if self.gpus else 1 << 30))
            for node in nodes
        )


def share_of(
    nodes: Sequence[Mapping[str, float]],
    *,
    tasks: int,
    cpus: int | None,
    gpus: float | None,
    settings: Mapping[str, str],
) -> Share:
    """Complete the share of each task, and check that a node has it.

    Args:
        nodes: resources of the nodes.
        tasks: number of tasks that there are to run.
        cpus: cores; None: those that belong to the GPUs of the task; without GPUs the tasks share all cores.
        gpus: GPUs; None: one if there are any.
        settings: names of the settings behind `cpus` and `gpus`.

    Raises:
        UserError: no node has so much, so that the tasks would wait for ever.
    """
    with_gpus = [node for node in nodes if node.get("GPU")]
    if gpus is None:
        gpus = 1 if with_gpus else 0
    if cpus is None:
        if gpus:
            shares = [int(node["CPU"] * gpus / node["GPU"]) for node in with_gpus if node["GPU"] >= gpus]
        else:
            shares = [int(node["CPU"]) for node in nodes] + [int(sum(node["CPU"] for node in nodes) / max(1, tasks))]
        cpus = max(1, min(shares, default=1))
    share = Share(cpus, gpus)
    if share.times(nodes) == 0:
        most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
        most_cpus = max((node["CPU"] for node in nodes if node.get("GPU", 0) >= gpus), default=0)
        where = "this machine has" if len(nodes) == 1 else "the largest node has"
        name, asked, most = ("gpus", gpus, most_gpus) if gpus > most_gpus else ("cpus", cpus, most_cpus)
        raise UserError(f"{settings[name]}={asked:g}, but {where} {most:g}; ask for fewer, or leave it out.")
    return share


# -------------------------------------------------------------------------------------------------------------- a task


@dataclass(frozen=True)
class Call:
    """A command that a task runs.

    Attributes:
        line: module and arguments, as `python -m` takes them.
        folder: working directory.
        output: file to which what it prints is appended.
        environment: its environment variables, without those that depend on the node and the share.
        share: what it gets.
        job: content of the file that JOB names; None for a command that is no job of a multirun.
    """

    line: list[str]
    folder: str
    output: str
    environment: dict[str, str]
    share: Share
    job: dict[str, Any] | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, as subprocess has it: negative after a signal.
        value: what the job returned.
        problem: why the command could not be started; empty if it was.
    """

    code: int
    value: Any = None
    problem: str = ""


def own_environment() -> dict[str, str]:
    """The environment variables of this process for commands on other nodes.

    Those that a cluster's queue has set for this process are left out: a command would take itself for that job.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RAY_JOB_"))}


def submit(call: Call, *, name: str) -> Any:
    """Start a command as a task; the reference to its end. `ray.cancel` stops it, or keeps it from starting."""
    import ray

    # Not tried again: what a command had written by then is there, and the user decides.
    task = ray.remote(run).options(
        num_cpus=call.share.cpus, num_gpus=call.share.gpus, max_retries=0, name=name, enable_task_events=False
    )
    return task.remote(call)


def end_of(future: "concurrent.futures.Future[Ended]") -> Ended:
    """How the command of a task ended, also if its worker or node is gone."""
    import ray

    try:
        return future.result()
    except ray.exceptions.RayError as error:
        return Ended(1, problem=f"Ray lost its process or node ({first_line(error)})")


def run(call: Call) -> Ended:
    """Run a command in a process of its own and wait for it; this is the task, in a worker of Ray."""
    if not os.path.isdir(call.folder):
        return Ended(1, problem=f"{socket.gethostname()} has no folder {call.folder}; all nodes must share it.")
    with _Stop() as stop, tempfile.TemporaryDirectory(prefix="emotion_job_") as place:
        environment = call.environment | {"CUDA_VISIBLE_DEVICES": ""}
        if call.share.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        environment.setdefault("OMP_NUM_THREADS", str(call.share.cpus))
        told = Path(place) / "job.json"
        if call.job is not None:
            told.write_text(json.dumps(call.job), encoding="utf-8")
            environment[JOB] = str(told)
        Path(call.output).parent.mkdir(parents=True, exist_ok=True)
        with open(call.output, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *call.line], cwd=call.folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True, preexec_fn=_as_typed(),
            )  # fmt: skip
        told_to_stop = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_POLL)
                break
            if stop.asked.is_set() and not told_to_stop:
                process.send_signal(signal.SIGTERM)
                told_to_stop = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # processes that it left behind
        result = Path(f"{told}.result")
        return Ended(code, json.loads(result.read_text()) if result.is_file() else None)


class _Stop:
    """Notes that the task was cancelled: Ray interrupts the main thread of its worker as Ctrl-C would."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def __enter__(self) -> "_Stop":
        self._before = signal.signal(signal.SIGINT, lambda *_: self.asked.set())
        return self

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self._before)


def _as_typed() -> Any:
    """A function for preexec_fn: the command ends with its worker, and Ctrl-C reaches it, which Ray blocks."""
    ends = processes.end_with_parent()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        if ends is not None:
            ends()

    return prepare


# --------------------------------------------------------------------------------------------------------- in a command


def told_job() -> dict[str, Any] | None:
    """Which job of a multirun this process runs, in a task or as a further process of one; None elsewhere."""
    place = os.environ.get(JOB)
    if not place:
        return None
    found: dict[str, Any] = json.loads(Path(place).read_text(encoding="utf-8"))
    return found


def in_job() -> bool:
    """Whether a task of Ray runs this process as a job of a multirun."""
    return bool(os.environ.get(JOB))


def forget_job() -> None:
    """Make this process, and those that it starts, no part of the job."""
    os.environ.pop(JOB, None)


def return_value(value: Any) -> None:
    """Hand what a job returned to the multirun."""
    Path(f"{os.environ[JOB]}.result").write_text(json.dumps(value), encoding="utf-8")
