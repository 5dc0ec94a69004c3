"""SHA-256 of the files of a folder, so that a file that changed by itself is noticed before it is used.

The list lies beside the files as SHA256SUMS, in the form that `sha256sum --check SHA256SUMS` reads. It tells of damage
(a flipped bit, a copy that was cut), not of somebody who changes a file and the list with it.
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
"""Variable of the environment that leaves out the check when it is 1."""

_OF_RUN = (
    run_folder.SETTINGS,
    run_folder.ENVIRONMENT,
    run_folder.HISTORY,
    run_folder.SPLITS,
    run_folder.REPORT,
    f"{run_folder.OUTCOMES}/*",
    f"{run_folder.PICTURES}/*",
    f"{run_folder.PREDICTIONS}/*",
)
"""Files in a run's root that its list holds beside metrics.json. Left out are the logs and what a logger writes, which
grow after the list is written, and checkpoints, which hold checksums of their own; model/ and base/ have own lists."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")


def write(folder: Path, files: Iterable[str] | None = None, *, coming: dict[str, bytes] | None = None) -> None:
    """Write the list of a folder's files.

    Args:
        folder: that holds them.
        files: their places below it; None: every file but hidden ones.
        coming: content of files that are written right after the list, so that what they say holds only with it.
    """
    if files is None:
        places = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        files = [place.as_posix() for place in places if not any(part.startswith(".") for part in place.parts)]
    sums = {name: digest(folder / name) for name in files if name != NAME}
    sums |= {name: hashlib.sha256(content).hexdigest() for name, content in (coming or {}).items()}
    write_bytes(folder / NAME, text(sums).encode())


def finish_run(folder: Path, metrics: Any) -> None:
    """Write the list of a run's root, and then metrics.json, which marks a finished run.

    Args:
        folder: the run folder, which holds everything else.
        metrics: the content of metrics.json.
    """
    content = as_json(metrics)
    files = [file for pattern in _OF_RUN for file in folder.glob(pattern) if file.is_file() and file.name[0] != "."]
    places = [file.relative_to(folder).as_posix() for file in files]
    write(folder, places, coming={run_folder.METRICS: content})
    write_bytes(folder / run_folder.METRICS, content)


def text(sums: dict[str, str]) -> str:
    """The list as it is written: a line for each place and its SHA-256."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check(folder: Path, *patterns: str) -> None:
    """Compare files with the list beside them; without a list, or under EMOTION_LIGHTNING_SKIP_HASHES=1, do nothing.

    Args:
        folder: that holds list and files.
        patterns: of the places to look at, such as `*.safetensors`.

    Raises:
        UserError: a file is not as it was written, or the list is damaged.
    """
    if os.environ.get(SKIP) == "1" or not (folder / NAME).exists():
        return
    for name, expected in read(folder / NAME).items():
        file = folder / name
        # A file that is missing is told of by whoever needs it.
        if any(Path(name).match(pattern) for pattern in patterns) and file.exists():
            bounded_files.check_regular(file)
            if digest(file) != expected:
                raise UserError(
                    f"{file} is not as it was written: its SHA-256 is not the one in {folder / NAME}. Put back a copy "
                    f"of the file; if you changed it on purpose, take its line out of {NAME}."
                )


def check_run(folder: Path, *patterns: str) -> None:
    """The same of files in a run's root; of a finished run from before there was such a list it is told once.

    What is not finished, or no run, is let pass: its files still change.
    """
    if (folder / run_folder.METRICS).is_file():
        check(folder, *patterns)
        tell_unlisted(folder)


def tell_unlisted(folder: Path) -> None:
    """Say, once for each run, that a folder has no list."""
    if not (folder / NAME).exists():
        _tell_unlisted((folder.parent if folder.name == run_folder.MODEL else folder).resolve())


@functools.cache
def _tell_unlisted(folder: Path) -> None:
    log.info("%s has no %s, so files that changed since it was written are not noticed.", folder, NAME)


def read(file: Path) -> dict[str, str]:
    """SHA-256 by place, or a UserError that names the list."""
    found = {}
    for number, line in enumerate(bounded_files.read_text(file, limit=2**22).splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise UserError(f"{file}, line {number} is damaged: a SHA-256, two spaces and the name of a file are due.")
        found[match[2]] = match[1]
    return found
