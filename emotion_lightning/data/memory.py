"""Checks whether data fits into memory, so that a message comes before the system kills the process."""

import contextlib
from pathlib import Path

from emotion_lightning.errors import UserError

_GROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that this process can still allocate, by the limit of the machine or of its container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or a container without a limit
        limit = int((_GROUP / "memory.max").read_text())
        free = min(free, limit - int((_GROUP / "memory.current").read_text()))
    return free


def check_memory(path: Path, needed: int, mend: str) -> None:
    """Raise UserError if a file needs more memory than is free.

    Args:
        path: the file, for the message.
        needed: memory that it needs, in bytes.
        mend: what the user can do, for the message.
    """
    free = available()
    if needed > free:
        raise UserError(
            f"{path} is too large for memory: about {_gigabytes(needed)} are needed and {_gigabytes(free)} are free; "
            f"{mend}."
        )


def _gigabytes(count: int) -> str:
    return f"{max(count, 0) / 2**30:.1f} GB"
