"""Jobs side by side on one machine, as submitit's local launcher starts them: all at once, each on the first GPU.

Here each waits for GPUs, or cores, of its own; and a stop of the multirun reaches them.
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
"""GPUs that the multirun may use, by the names of CUDA_VISIBLE_DEVICES: submitit sets that one to the first GPUs."""
_SIGINT = {signal.SIGINT}
_POLL_SECONDS = 0.5


@contextmanager
def hidden_from_terminal() -> Iterator[None]:
    """Processes started here do not hear the terminal's Ctrl-C.

    submitit's controllers would answer it by killing their jobs after a second, in which none saves its checkpoint.
    This process still hears it, by a thread that does not block it.
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


def stop() -> None:
    """Let the jobs that this process started save and leave, and wait for them; a second signal kills them."""
    jobs = _jobs()
    for job in jobs:
        job.send_signal(signal.SIGINT)
    try:
        wait()
    except SystemExit:
        for job in _jobs():
            job.kill()
        raise


def wait() -> None:
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
            continue  # ended in between
    return found


@contextmanager
def share(*, gpus: int, cpus: int | None, tasks: int) -> Iterator[None]:
    """Wait for the GPUs, or without any the cores, that a job asked for, and hold them until its end.

    Args:
        gpus: of the job.
        cpus: of each of its processes; None: all there are.
        tasks: its processes.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        yield
        return
    # From here on a stop is heard, once and from the multirun: the terminal's reaches this group of processes no more.
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
    """The first place that is free on this machine; the processes of one job share theirs."""
    # submitit's folder is that of all jobs of the multirun.
    shared = Path(os.environ["SUBMITIT_FOLDER"]) / f"place-{os.environ['SUBMITIT_LOCAL_JOB_ID']}.txt"
    shared.parent.mkdir(parents=True, exist_ok=True)
    if os.environ.get("SUBMITIT_LOCAL_GLOBALID", "0") != "0":
        while not shared.is_file() or not shared.read_text():
            time.sleep(_POLL_SECONDS)
        yield shared.read_text()
        return
    from filelock import FileLock, Timeout

    # Of the machine and not of the multirun: two of them must not take the same GPU.
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
