"""Whether what is asked for fits into memory: to say so beats being killed for it."""

import contextlib
from pathlib import Path

from emotion_lightning.errors import UserError

_GROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that this process may still take: of the machine, or of a container where that gets less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        limit = int((_GROUP / "memory.max").read_text())
        free = min(free, limit - int((_GROUP / "memory.current").read_text()))
    return free


def check(path: Path, needed: int, mend: str) -> None:
    """Raise UserError where a file takes more bytes of memory than there are."""
    free = available()
    if needed > free:
        raise UserError(
            f"{path} is too large for memory: about {_gigabytes(needed)} are needed and {_gigabytes(free)} are free; "
            f"{mend}."
        )


def _gigabytes(count: int) -> str:
    return f"{max(count, 0) / 2**30:.1f} GB"
