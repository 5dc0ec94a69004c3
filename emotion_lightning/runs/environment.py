"""What a run was made with, beside its settings: command line, code, libraries, hardware, data."""

import datetime
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
"""Those that decide numbers."""

_VARIABLES = re.compile(
    r"CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|MKL_NUM_THREADS|PYTORCH_.*|CUBLAS_WORKSPACE_CONFIG|SLURM_JOB_ID|LOCAL_RANK|"
    r"WORLD_SIZE"
)


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide numbers."""
    # Its own is that of the code: what is installed may be older, or nothing where a checkout runs as it lies.
    found = {"emotion-lightning": __version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def record(folder: Path, *, arguments: Sequence[str], data_hashes: dict[str, str]) -> None:
    """Add this start to the environment.json of a run; a resumed run has several."""
    file = folder / run_folder.ENVIRONMENT
    starts = bounded_files.read_json(file)["starts"] if file.exists() else []
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
    """Commit of the checkout that the code runs from, and whether it was changed since; None outside a checkout."""
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
    """Processor, memory and GPUs."""
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


def keep_memory() -> None:
    """Let the C library keep freed memory for the next allocation, where it is glibc.

    Blocks of more than 32 MB, such as the gradient of an embedding, would else go back to the system in every step,
    which then clears each page anew.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of glibc's malloc.h
    for parameter, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
        mallopt(parameter, value)


def peak_main_memory() -> int:
    """Most bytes of main memory that this process held at once."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def _processor() -> str:
    if sys.platform == "linux":
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return platform.processor() or platform.machine()
