"""On a cluster: the signal before a job is stopped, who puts it into the queue again, and where it goes on."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_FOLDERS = Path("outputs") / "slurm"
"""Names of run folders by job, for the next time that the job is started."""


def job() -> str | None:
    """The SLURM job that this process is the work of, with its place in an array; None by hand and elsewhere."""
    number = os.environ.get("SLURM_JOB_ID")
    # A shell on a node (srun --pty bash, salloc) is a job too, but nobody means it to be requeued.
    if not number or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive") or in_submitit():
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else number


def in_submitit() -> bool:
    """Whether submitit runs this process; it requeues its jobs itself."""
    return bool(os.environ.get("SUBMITIT_EXECUTOR"))


def in_wandb_sweep() -> bool:
    """Whether an agent of W&B started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def processes() -> int:
    """Processes that a launcher started for this job; 1 where there is no launcher."""
    return int(os.environ.get("SUBMITIT_LOCAL_NTASKS") or os.environ.get("SLURM_NTASKS") or 1) if in_submitit() else 1


def local_rank() -> int:
    """Number of this process among those of its node, as Lightning sees it: the GPU that it is to use."""
    if not any(name in os.environ for name in _OF_LAUNCHERS):  # Lightning takes seconds to import
        return int(os.environ.get("LOCAL_RANK", "0"))
    try:
        return int(_environment()().local_rank())
    except (KeyError, RuntimeError):  # a shell that has only a part of a job's variables
        return int(os.environ.get("LOCAL_RANK", "0"))


def set_local_rank(number: int) -> None:
    """Make this process, which the program started by itself, one that no launcher has numbered."""
    for name in _OF_LAUNCHERS:
        os.environ.pop(name, None)
    os.environ["LOCAL_RANK"] = str(number)


_OF_LAUNCHERS = ("SLURM_NTASKS", "JSM_NAMESPACE_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Variables by which Lightning knows that SLURM, LSF or MPI started a process."""


def _environment() -> Any:
    """The class of Lightning's that says which process this is, chosen in the order in which Lightning chooses."""
    from lightning.pytorch.plugins import environments

    kinds = (
        environments.TorchElasticEnvironment,
        environments.SLURMEnvironment,
        environments.LSFEnvironment,
        environments.MPIEnvironment,
    )
    return next((kind for kind in kinds if kind.detect()), environments.LightningEnvironment)


def is_first_process() -> bool:
    """Whether this is the one of a job's processes that writes."""
    names = ["LOCAL_RANK", "RANK", "SUBMITIT_LOCAL_GLOBALID", *(["SLURM_PROCID"] if job() or in_submitit() else [])]
    return all(os.environ.get(name, "0") == "0" for name in names)


def join_processes() -> None:
    """Let the processes that submitit's local launcher started find each other; on SLURM Lightning does by itself."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local" and processes() > 1:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        os.environ["MASTER_ADDR"] = "127.0.0.1"  # a host's own name may not resolve


def preemption_signal() -> signal.Signals | None:
    """The signal that comes some time before a job is stopped: SIGUSR1 on SLURM, submitit's own; None elsewhere."""
    if in_submitit():
        return signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]
    return signal.SIGUSR1 if job() else None


def requeue() -> None:
    """Put this job into SLURM's queue again, under its number."""
    number = job()
    if number is None:
        return
    program = shutil.which("scontrol")
    if program is None:
        log.error("Job %s cannot be requeued: there is no scontrol here. Submit it again; it goes on.", number)
        return
    done = subprocess.run([program, "requeue", number], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        log.error("Job %s was not requeued (%s). Submit it again with resume=auto.", number, reason)
    else:
        log.warning("Job %s is in the queue again.", number)


def remember(folder: Path, arguments: Sequence[str]) -> None:
    """Note where this job keeps the run of a command line: started again, it goes on there whatever the time is."""
    note = _note(arguments)
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{folder.resolve()}\n", encoding="utf-8")


def remembered(arguments: Sequence[str], holds: str) -> Path | None:
    """The folder of a command line in this job, if the job was started before and the folder `holds` a file."""
    note = _note(arguments)
    if note is None or not note.is_file():
        return None
    folder = Path(note.read_text(encoding="utf-8").strip())
    return folder if (folder / holds).is_file() else None


def _note(arguments: Sequence[str]) -> Path | None:
    # One job may run several command lines, one after the other.
    number = job()
    return _FOLDERS / f"{number}-{hashlib.sha256(repr(list(arguments)).encode()).hexdigest()[:12]}" if number else None


def lightning_plugins() -> list[Any]:
    """What keeps Lightning from requeueing jobs by itself: it would train on, and look for its checkpoint elsewhere."""
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    # torchrun may be at work inside a SLURM job: its numbers come first, as in Lightning.
    return [SLURMEnvironment(auto_requeue=False)] if _environment() is SLURMEnvironment else []
