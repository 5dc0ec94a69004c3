"""Share the GPUs or CPU cores of one machine among the jobs of a multirun.

submitit's local launcher starts all jobs at once, each on the first GPU. With this module each job waits for its own
GPUs or cores, and a stop of the multirun reaches every job.
"""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_lightning.errors import UserError

_DEVICES = "EMOTION_LIGHTNING_DEVICES"
"""Environment variable with the multirun's CUDA_VISIBLE_DEVICES, which submitit replaces by the first GPUs."""
_SIGINT = {signal.SIGINT}
_POLL_SECONDS = 0.5


@contextmanager
def hidden_from_terminal() -> Iterator[None]:
    """Block Ctrl-C in the processes that are started in this block.

    On Ctrl-C submitit's controllers kill their jobs after one second, too early to save a checkpoint. This process
    still receives the signal, in a thread that does not block it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        os.environ[_DEVICES] = visible
    ended = threading.Event()
    listener = threading.Thread(target=ended.wait, daemon=True)
    listener.start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGINT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ended.set()
        listener.join()
        os.environ.pop(_DEVICES, None)


def stop_jobs() -> None:
    """Ask the jobs that this process started to save and exit, and wait for them; a second signal kills them."""
    jobs = _jobs()
    for job in jobs:
        job.send_signal(signal.SIGINT)
    try:
        wait_for_jobs()
    except SystemExit:
        for job in _jobs():
            job.kill()
        raise


def wait_for_jobs() -> None:
    """Wait for the jobs that this process started."""
    while _jobs():
        time.sleep(_POLL_SECONDS)


def _jobs() -> list[Any]:
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "submitit.core._submit" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # the process has ended meanwhile
    return found


@contextmanager
def hold_slot(*, gpus: int, cpus: int | None, tasks: int) -> Iterator[None]:
    """Wait for the GPUs of a job, or for cores if it has no GPUs, and hold them until the block ends.

    Does nothing unless submitit's local launcher started this process.

    Args:
        gpus: number of GPUs of the job.
        cpus: number of cores of each process; None shares all cores among the processes.
        tasks: number of processes of the job.

    Raises:
        UserError: the job needs more GPUs than the machine has.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        yield
        return
    # A process group of its own no longer receives the terminal's Ctrl-C. `stop_jobs` of the multirun sends SIGINT
    # instead, and the job now accepts it.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGINT)
    devices = _devices() if gpus else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    each = cpus or max(1, cores // tasks)
    if devices:
        if gpus > len(devices):
            raise UserError(f"hydra.launcher.gpus_per_node={gpus}, but there are {len(devices)} here; ask for fewer.")
        places = [",".join(devices[i : i + gpus]) for i in range(0, len(devices) - gpus + 1, gpus)]
    else:
        places = [f"cores-{i}" for i in range(max(1, cores // (each * tasks)))]
    with _one_of(places) as place:
        if devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = place
        os.environ.setdefault("OMP_NUM_THREADS", str(each))
        yield


def _devices() -> list[str]:
    allowed = os.environ.get(_DEVICES)
    if allowed is not None:
        return [name for name in allowed.split(",") if name.strip()]
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU (\d+):", done.stdout, re.MULTILINE)


@contextmanager
def _one_of(places: Sequence[str]) -> Iterator[str]:
    """Wait until one of the places (sets of GPUs, or slots of cores) is free, and lock it.

    All processes of one job use the same place.
    """
    # All jobs of the multirun share submitit's folder, so the file name contains the job's id.
    shared = Path(os.environ["SUBMITIT_FOLDER"]) / f"place-{os.environ['SUBMITIT_LOCAL_JOB_ID']}.txt"
    shared.parent.mkdir(parents=True, exist_ok=True)
    if os.environ.get("SUBMITIT_LOCAL_GLOBALID", "0") != "0":
        while not shared.is_file() or not shared.read_text():
            time.sleep(_POLL_SECONDS)
        yield shared.read_text()
        return
    from filelock import FileLock, Timeout

    # One lock folder for the whole machine: two multiruns must not use the same GPU.
    folder = Path(tempfile.gettempdir()) / f"emotion_lightning-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for place in places:
            lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', place)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            shared.write_text(place)
            try:
                yield place
            finally:
                shared.unlink(missing_ok=True)
                lock.release()
            return
        time.sleep(_POLL_SECONDS)
