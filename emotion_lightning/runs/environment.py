"""Record the environment of a run: command line, git commit, library versions, hardware, data hashes.

Its GPUs are checked here too, and its memory is set up.
"""

import datetime
import functools
import gc
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emotion_lightning.config import redaction
from emotion_lightning.errors import UserError, counted
from emotion_lightning.runs import bounded_files, run_folder
from emotion_lightning.runs.files import write_json
from emotion_lightning.version import __version__

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "lightning",
    "torchmetrics",
    "tokenizers",
    "datasets",
    "numpy",
    "scikit-learn",
)
"""Libraries whose version can change the results."""

_VARIABLES = re.compile(
    r"CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|MKL_NUM_THREADS|PYTORCH_.*|CUBLAS_WORKSPACE_CONFIG|SLURM_JOB_ID|LOCAL_RANK|"
    r"WORLD_SIZE"
)


def versions() -> dict[str, str]:
    """Versions of this package and of the installed LIBRARIES."""
    # This package's version is read from its code: a checkout may be newer than the installed package, or may not be
    # installed at all.
    found = {"emotion-lightning": __version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def record(folder: Path, *, arguments: Sequence[str], data_hashes: dict[str, str]) -> None:
    """Append this start to environment.json; a resumed run has several starts.

    Args:
        folder: the run folder.
        arguments: the command line; secrets are redacted.
        data_hashes: SHA-256 of each data file.

    Raises:
        UserError: environment.json of an earlier start is damaged.
    """
    file = folder / run_folder.ENVIRONMENT
    starts = bounded_files.read_json_object(file).get("starts") if file.exists() else []
    if not isinstance(starts, list):
        raise UserError(f"{file} is damaged: it has no list of starts. Remove it to go on; it is only a record.")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start = {
        "time": now,
        "command": [redaction.argument(argument) for argument in arguments],
        "folder": str(Path.cwd()),
        "git": git(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions(),
        "hardware": hardware(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)},
        "data_hashes": data_hashes,
    }
    write_json(file, {"starts": [*starts, start]})


def git(folder: Path) -> dict[str, Any] | None:
    """Commit of a git checkout, and whether tracked files have changed since; None outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """Processor, number of cores and threads, main memory in bytes, GPUs and CUDA version."""
    import psutil
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }


def check_gpus(devices: int, there: int) -> None:
    """Raise UserError if a machine has some GPUs, but fewer than `devices` asks for."""
    if 0 < there < devices:
        raise UserError(f"devices={devices}, but this machine has {counted(there, 'GPU')}.")


@functools.cache  # frozen objects are never freed: a second call could keep the network of an earlier job in memory
def skip_libraries_in_collections() -> None:
    """Exclude all objects that exist at the first call from garbage collections.

    The imported libraries have about 600,000 objects. On a slow core each full collection spends 0.6 s on them.
    """
    gc.collect()
    gc.freeze()


def keep_memory() -> None:
    """Make glibc keep freed memory for the next allocation; does nothing with other C libraries.

    By default glibc returns blocks of more than 32 MB, such as the gradient of an embedding, to the system in every
    step, and the system must clear each page again.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # constants of glibc's malloc.h
    for parameter, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
        mallopt(parameter, value)


def peak_main_memory() -> int:
    """Peak main memory of this process, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS reports bytes, Linux KiB


def _processor() -> str:
    if sys.platform == "linux":
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return platform.processor() or platform.machine()
