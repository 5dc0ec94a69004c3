"""Write files and folders atomically: each is complete, or does not appear."""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from emotion_lightning.config import redaction
from emotion_lightning.errors import UserError


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file atomically and without secrets: readers see the old file or the complete new one."""
    write_bytes(file, as_json(content))


def as_json(content: Any) -> bytes:
    """JSON as UTF-8 bytes, indented and without secrets."""
    content = redaction.tree(content)
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically, without the values of secret environment variables."""
    write_bytes(file, as_text(text))


def as_text(text: str) -> bytes:
    """Text as UTF-8 bytes, without the values of secret environment variables."""
    # The text may contain a lone surrogate, which UTF-8 cannot encode.
    return redaction.values_of_environment(text).encode(errors="replace")


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(file) as temporary:
        temporary.write_bytes(content)


def write_together(files: dict[Path, bytes]) -> None:
    """Write several files; none appears unless all of them could be written to temporary files."""
    with ExitStack() as open_files:
        for file, content in files.items():
            open_files.enter_context(atomic_write(file)).write_bytes(content)


def remove_partial(folder: Path) -> None:
    """Remove temporary files that a killed `atomic_write` left in a folder."""
    for part in folder.glob(".*.part"):
        if not _PART_NAME.fullmatch(part.name) or not part.is_file() or part.is_symlink():
            continue
        with suppress(OSError), part.open("r+b") as opened:
            # A process that still writes the file holds the lock; the system releases the lock of a dead process.
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)


_PART_NAME = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
"""Names of the temporary files of `atomic_write`."""


def follow_umask(*files: Path) -> None:
    """Give files the default permissions of new files: some libraries let only the owner read what they write."""
    umask = os.umask(0)
    os.umask(umask)
    for file in files:
        file.chmod(0o666 & ~umask)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder that is renamed to `folder` when the block ends, and removed on an error.

    Yields:
        The temporary folder, beside `folder`.

    Raises:
        UserError: the folder exists and is not empty, cannot be created, or another process is creating it.
    """
    from filelock import FileLock, Timeout

    folder = folder.resolve()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} stands already and is not empty; choose another place, or move it away.")
    part = folder.with_name(f".{folder.name}.part")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder} is being made by another process; wait for its end, or stop it.") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another place.") from error
    try:
        shutil.rmtree(part, ignore_errors=True)  # left by a killed process
        part.mkdir()
        yield part
        follow_umask(*(file for file in part.rglob("*") if file.is_file()))
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Create a temporary file that replaces `file` when the block ends, and is removed on an error.

    The temporary file is in the same folder, because a rename is atomic only within one file system. Temporary files
    that a killed process left in this folder are removed.

    Yields:
        Path of the temporary file.

    Raises:
        UserError: the file cannot be created.
    """
    made = [parent for parent in file.parents if not parent.exists()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(file.parent)
        handle, temporary = _locked_part(file)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another place.") from error
    try:
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        follow_umask(temporary)  # mkstemp lets only the owner read its file
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()  # fails for a folder that is not empty, which is kept
        raise
    finally:
        os.close(handle)


def _locked_part(file: Path) -> tuple[int, Path]:
    """Create a temporary file beside `file`, with a lock against `remove_partial` until its handle is closed.

    Returns:
        The file descriptor and the path.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
        with suppress(OSError):  # on a file system without locks, remove_partial removes nothing either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # remove_partial deleted the file before it was locked
