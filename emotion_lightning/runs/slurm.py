"""Run on a SLURM cluster: preemption signal, requeue, and the run folder that a requeued job continues.

Also detects other launchers (submitit, torchrun, LSF, MPI) and the rank of this process.
"""

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
"""Folder with one file for each SLURM job and command line, which holds the path of its run folder."""


def job() -> str | None:
    """Id of the SLURM job, as `array_task` in a job array; None outside a batch job and under submitit."""
    number = os.environ.get("SLURM_JOB_ID")
    # An interactive shell (srun --pty bash, salloc) is a job too, but it must not be requeued.
    if not number or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive") or in_submitit():
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else number


def in_submitit() -> bool:
    """Whether submitit runs this process. submitit requeues its jobs itself."""
    return bool(os.environ.get("SUBMITIT_EXECUTOR"))


def in_wandb_sweep() -> bool:
    """Whether a W&B agent started this process as a run of a sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def processes() -> int:
    """Number of processes that submitit started for this job; 1 without submitit."""
    return int(os.environ.get("SLURM_NTASKS") or 1) if in_submitit() else 1


def local_rank() -> int:
    """Rank of this process on its node, as Lightning determines it; it is also the index of the GPU to use."""
    if not any(name in os.environ for name in _OF_LAUNCHERS):  # avoids importing Lightning, which takes seconds
        return int(os.environ.get("LOCAL_RANK", "0"))
    try:
        return int(_environment()().local_rank())
    except (KeyError, RuntimeError):  # only some of the launcher's variables are set
        return int(os.environ.get("LOCAL_RANK", "0"))


def set_local_rank(number: int) -> None:
    """Set the local rank of a process that this program started, and remove the variables of other launchers."""
    for name in _OF_LAUNCHERS:
        os.environ.pop(name, None)
    os.environ["LOCAL_RANK"] = str(number)


_OF_LAUNCHERS = ("SLURM_NTASKS", "JSM_NAMESPACE_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Environment variables that tell Lightning that SLURM, LSF or MPI started a process."""


def _environment() -> Any:
    """Lightning's cluster environment class for this process, detected in the same order as in Lightning."""
    from lightning.pytorch.plugins import environments

    kinds = (
        environments.TorchElasticEnvironment,
        environments.SLURMEnvironment,
        environments.LSFEnvironment,
        environments.MPIEnvironment,
    )
    return next((kind for kind in kinds if kind.detect()), environments.LightningEnvironment)


def is_first_process() -> bool:
    """Whether this is the first process of a job, the only one that writes files."""
    names = ["LOCAL_RANK", "RANK", *(["SLURM_PROCID"] if job() or in_submitit() else [])]
    return all(os.environ.get(name, "0") == "0" for name in names)


def preemption_signal() -> signal.Signals | None:
    """The signal that a cluster sends before it stops a job: submitit's own, else SIGUSR1 on SLURM; None elsewhere."""
    if in_submitit():
        return signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]
    return signal.SIGUSR1 if job() else None


def requeue() -> None:
    """Requeue this SLURM job with `scontrol`; log an error if that fails."""
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
    """Store the run folder of this SLURM job and command line, so that a requeued job continues there."""
    note = _note(arguments)
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{folder.resolve()}\n", encoding="utf-8")


def remembered(arguments: Sequence[str], holds: str) -> Path | None:
    """The run folder that `remember` stored for this SLURM job and command line.

    Args:
        arguments: the command line.
        holds: name of a file that must exist in the folder.

    Returns:
        The folder, or None if nothing was stored or the file does not exist.
    """
    note = _note(arguments)
    if note is None or not note.is_file():
        return None
    folder = Path(note.read_text(encoding="utf-8").strip())
    return folder if (folder / holds).is_file() else None


def _note(arguments: Sequence[str]) -> Path | None:
    # One SLURM job may run several command lines in turn, so the name contains a hash of the command line.
    number = job()
    return _FOLDERS / f"{number}-{hashlib.sha256(repr(list(arguments)).encode()).hexdigest()[:12]}" if number else None


def lightning_plugins() -> list[Any]:
    """Trainer plugins that turn off Lightning's own requeue on SLURM.

    After its requeue Lightning continues to train, and the new job looks for the checkpoint in another folder.
    """
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    # Inside a SLURM job torchrun may have started this process. Its ranks take precedence, as in Lightning.
    return [SLURMEnvironment(auto_requeue=False)] if _environment() is SLURMEnvironment else []
