"""Files of a run folder, written whole or not at all."""

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

PART = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*))\s*(?:,|$)""")


def write_json(file: Path, content: Any) -> None:
    """Write JSON in one step, without secrets: readers see the old file or the whole new one."""
    write_bytes(file, as_json(content))


def as_json(content: Any) -> bytes:
    """JSON as a file holds it, without secrets."""
    content = redaction.tree(content)
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_text(file: Path, text: str) -> None:
    """Write a file of text in one step, without the values of secret variables."""
    write_bytes(file, as_text(text))


def as_text(text: str) -> bytes:
    """Text as a file holds it, without the values of secret variables."""
    # It may hold half of a surrogate pair, which UTF-8 has no bytes for.
    return redaction.values_of_environment(text).encode(errors="replace")


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file in one step."""
    with atomic_write(file) as temporary:
        temporary.write_bytes(content)


def write_together(files: dict[Path, bytes]) -> None:
    """Write files, none of which appears unless there is room for all."""
    with ExitStack() as open_files:
        for file, content in files.items():
            open_files.enter_context(atomic_write(file)).write_bytes(content)


def remove_partial(folder: Path) -> None:
    """Remove what `replacing` left there of files that a kill kept it from finishing."""
    for part in folder.glob(".*.part"):
        if not _PART_NAME.fullmatch(part.name) or not part.is_file() or part.is_symlink():
            continue
        with suppress(OSError), part.open("r+b") as opened:
            # Whoever still writes it holds the lock; the system takes it from a dead process.
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)


_PART_NAME = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
"""What `replacing` names its files."""


def follow_umask(*files: Path) -> None:
    """Give files the permissions of any new file: some libraries keep what they write to its owner."""
    umask = os.umask(0)
    os.umask(umask)
    for file in files:
        file.chmod(0o666 & ~umask)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write to, which becomes `folder` at the end, and is removed on an error.

    Raises:
        UserError: the folder stands and holds something, or another process is making it.
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
        shutil.rmtree(part, ignore_errors=True)  # of one that was killed
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
    """A path to write to, which takes the place of `file` at the end, and is removed on an error.

    It lies beside `file`: a rename is one step within a file system only. What a killed process left there, of this or
    another file, is removed.
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
        follow_umask(temporary)  # mkstemp keeps its file to its owner
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()  # no empty folder stays behind, and one that holds something does
        raise
    finally:
        os.close(handle)


def _locked_part(file: Path) -> tuple[int, Path]:
    """A new file beside another, opened, with the lock that keeps `sweep` from it until it is closed."""
    while True:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
        with suppress(OSError):  # a file system without locks, on which nothing is swept either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # swept before it was locked
