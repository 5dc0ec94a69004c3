"""SHA-256 checksums of the files of a folder, to detect a damaged file before it is used.

The checksums are in the file SHA256SUMS in the same folder; `sha256sum --check SHA256SUMS` can read it. They detect
damage (a flipped bit, an incomplete copy), but not an attacker who changes both a file and its checksum.
"""

import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emotion_lightning.errors import UserError
from emotion_lightning.runs import bounded_files, run_folder
from emotion_lightning.runs.files import as_json, write_bytes

log = logging.getLogger(__name__)

NAME = "SHA256SUMS"
SKIP = "EMOTION_LIGHTNING_SKIP_HASHES"
"""Environment variable; 1 turns off the check."""

_OF_RUN = (
    run_folder.SETTINGS,
    run_folder.ENVIRONMENT,
    run_folder.DATA,
    run_folder.HISTORY,
    run_folder.SPLITS,
    run_folder.REPORT,
    f"{run_folder.OUTCOMES}/*",
    f"{run_folder.PICTURES}/*",
    f"{run_folder.PREDICTIONS}/*",
)
"""Files in SHA256SUMS of a run folder, in addition to metrics.json.

Not included are logs and the files of a logger, which grow after SHA256SUMS is written, and checkpoints, which contain
their own checksums. model/ and base/ have their own SHA256SUMS.
"""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")


def write_hashes(folder: Path, files: Iterable[str] | None = None, *, coming: dict[str, bytes] | None = None) -> None:
    """Write SHA256SUMS of a folder.

    Args:
        folder: the folder with the files.
        files: paths relative to the folder; None: all files except hidden ones.
        coming: content of files, by path, that the caller writes right after SHA256SUMS. A file that marks a folder as
            complete then never exists without its checksum.
    """
    if files is None:
        places = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        files = [place.as_posix() for place in places if not any(part.startswith(".") for part in place.parts)]
    sums = {name: digest(folder / name) for name in files if name != NAME}
    sums |= {name: hashlib.sha256(content).hexdigest() for name, content in (coming or {}).items()}
    write_bytes(folder / NAME, hashes_text(sums).encode())


def finish_run(folder: Path, metrics: Any) -> None:
    """Write SHA256SUMS of a run folder, and then metrics.json, which marks the run as finished.

    Args:
        folder: the run folder, in which all other files are written already.
        metrics: the content of metrics.json.
    """
    content = as_json(metrics)
    files = [file for pattern in _OF_RUN for file in folder.glob(pattern) if file.is_file() and file.name[0] != "."]
    places = [file.relative_to(folder).as_posix() for file in files]
    write_hashes(folder, places, coming={run_folder.METRICS: content})
    write_bytes(folder / run_folder.METRICS, content)


def hashes_text(sums: dict[str, str]) -> str:
    """The content of SHA256SUMS: one line with SHA-256 and path for each file, sorted by path."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def digest(file: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 of all files of a folder and their paths, without hidden ones, as hexadecimal digits."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = {file: file.relative_to(folder) for file in files}
    whole = {
        name.as_posix(): digest(file)
        for file, name in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }
    return hashlib.sha256(hashes_text(whole).encode()).hexdigest()


def check_hashes(folder: Path, *patterns: str) -> None:
    """Compare files with their checksums; does nothing without SHA256SUMS or if EMOTION_LIGHTNING_SKIP_HASHES=1.

    Args:
        folder: the folder with SHA256SUMS and the files.
        patterns: patterns of the paths to check, such as `*.safetensors`.

    Raises:
        UserError: a file has another checksum, or SHA256SUMS is damaged.
    """
    if os.environ.get(SKIP) == "1" or not (folder / NAME).exists():
        return
    for name, expected in read_hashes(folder / NAME).items():
        file = folder / name
        # The code that needs a missing file reports it.
        if any(Path(name).match(pattern) for pattern in patterns) and file.exists():
            bounded_files.check_regular(file)
            if digest(file) != expected:
                raise UserError(
                    f"{file} is not as it was written: its SHA-256 is not the one in {folder / NAME}. Put back a copy "
                    f"of the file; if you changed it on purpose, take its line out of {NAME}."
                )


def check_run_hashes(folder: Path, *patterns: str) -> None:
    """Call `check_hashes` for a finished run; if the run has no SHA256SUMS, log that once.

    An unfinished run is not checked, because its files still change.
    """
    if (folder / run_folder.METRICS).is_file():
        check_hashes(folder, *patterns)
        log_unlisted(folder)


def log_unlisted(folder: Path) -> None:
    """Log, once for each run, that a folder has no SHA256SUMS."""
    if not (folder / NAME).exists():
        _log_unlisted(run_folder.of_model(folder).resolve())


@functools.cache
def _log_unlisted(folder: Path) -> None:
    log.info("%s has no %s, so files that changed since it was written are not noticed.", folder, NAME)


def read_hashes(file: Path) -> dict[str, str]:
    """Read SHA256SUMS: SHA-256 by path.

    Raises:
        UserError: a line is damaged, or its path is outside the folder.
    """
    found = {}
    for number, line in enumerate(bounded_files.read_text(file, limit=2**22).splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise UserError(f"{file}, line {number} is damaged: a SHA-256, two spaces and the name of a file are due.")
        found[match[2]] = match[1]
    return found
