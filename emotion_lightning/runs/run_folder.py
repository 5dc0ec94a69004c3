"""Where a run keeps what: names of its files, its settings written and read back, files replaced in one step."""

import csv
import fcntl
import io
import json
import logging
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from emotion_lightning.config import hub_name, redaction, schema, stored_settings
from emotion_lightning.errors import UserError
from emotion_lightning.runs import bounded_files

log = logging.getLogger(__name__)

SETTINGS = "settings.yaml"
METRICS = "metrics.json"
MODEL = "model"
BASE = "base"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"
OUTCOMES = "outcomes"
HISTORY = "history.csv"
REPORT = "report.html"
PICTURES = "pictures"
SPLITS = "splits.csv"
ENVIRONMENT = "environment.json"

PATHS = {"dir", "path", "train", "validation", "test", "splits"}
"""Data settings that name a place."""

_CHOOSE_ROWS = {"data"} | {
    f"data.{name}"
    for name in (
        *PATHS,
        "name",
        "revision",
        "id_column",
        "validation_share",
        "test_share",
        "split_seed",
    )
}
"""Settings that ask for other rows or other splits than an earlier run had."""


def resume(folder: Path) -> str:
    """The command that goes on with a run, ready to be pasted into a shell."""
    return shlex.join(["python", "-m", "emotion_lightning.train", f"resume={folder}"])


def several(run: str) -> list[str]:
    """The runs that a setting names: a folder, a list `[A,B,C]`, or a folder of runs such as a multirun's."""
    named = listed(run)
    if named != [run]:
        return [one for part in named for one in several(part)]
    folder = Path(run).expanduser()
    jobs = sorted(folder.glob(f"*/{METRICS}"), key=lambda metrics: by_number(metrics.parent))
    if (folder / SETTINGS).exists() or not jobs:
        return [run]
    return [str(metrics.parent) for metrics in jobs]


def listed(run: str) -> list[str]:
    r"""The parts of a list `[A,B,C]`; a text that is none, or the name of a folder, is a list of one.

    A part that holds a comma stands in quotes.

    >>> listed("[outputs/a, 'b, c',\"d's\"]")
    ['outputs/a', 'b, c', "d's"]
    """
    if Path(run).expanduser().exists() or not (run.startswith("[") and run.endswith("]")):
        return [run]
    parts = (found[1] or found[2] or found[3].strip() for found in _PART.finditer(run[1:-1]))
    return [part for part in parts if part]


_PART = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*))\s*(?:,|$)""")


def as_list(runs: Sequence[str]) -> str:
    """Several runs as one setting, from which `listed` reads them again."""
    return "[" + ",".join(run if "," not in run else f'"{run}"' if "'" in run else f"'{run}'" for run in runs) + "]"


def by_number(job: Path) -> tuple[int, str]:
    """A key that sorts the jobs of a multirun as they were started."""
    return (int(job.name) if job.name.isdigit() else -1, job.name)


def refuse_used(folder: Path) -> None:
    """Raise UserError where a folder holds a run already."""
    if list((folder / CHECKPOINTS).glob("*.ckpt")) or (folder / METRICS).exists():
        raise UserError(
            f"{folder} holds a run already. Go on in it with {resume(folder)}, or choose another hydra.run.dir."
        )


def newest_unfinished(outputs: Path) -> Path:
    """The newest run below a folder such as outputs/train that saved a checkpoint but no metrics."""
    unfinished = [
        last.parent.parent
        for last in outputs.glob(f"*/*/{CHECKPOINTS}/last.ckpt")
        if not (last.parent.parent / METRICS).exists()
    ]
    if not unfinished:
        raise UserError(f"resume=auto found no unfinished run in {outputs}; name one with resume=FOLDER.")
    return max(unfinished, key=lambda run: (run / CHECKPOINTS / "last.ckpt").stat().st_mtime)


def write_settings(folder: Path, settings: Any, options: dict[str, str]) -> dict[str, Any]:
    """Write every setting, secrets redacted, with the names of the options chosen; give back what was written."""
    tree = to_keep(settings, options)
    for name, value in stored_settings.leaves(schema.plain(settings)):
        if is_path(name) and isinstance(value, str) and redaction.text(value, is_value=True) != value:
            log.warning(
                "%s holds a secret, without which it is kept: resume and evaluate will not find that place. Rename it, "
                "or give the secret by other means.",
                name,
            )
    with replacing(folder / SETTINGS) as temporary:
        temporary.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return tree


def to_keep(settings: Any, options: dict[str, str]) -> dict[str, Any]:
    """Every setting, ready to be written: secrets redacted, paths that hold from any folder, options by name."""
    tree = {"options": options, **redaction.settings(schema.plain(settings))}
    tree["data"] = absolute(tree["data"])
    if tree.get("init_from"):
        tree["init_from"] = _absolute(tree["init_from"])
    if tree.get("distill", {}).get("answers"):
        tree["distill"]["answers"] = _absolute(tree["distill"]["answers"])
    if tree.get("distill", {}).get("runs"):
        named = [_absolute(run) for run in listed(tree["distill"]["runs"])]
        tree["distill"]["runs"] = named[0] if len(named) == 1 else as_list(named)
    return tree


def _absolute(run: str) -> str:
    return run if hub_name.is_hub(run) else str(Path(run).expanduser().resolve())


def absolute(data: dict[str, Any]) -> dict[str, Any]:
    """Data settings whose paths hold from any folder, so that a run can be scored and repeated from there."""
    paths = {name: data[name] for name in PATHS if data.get(name)}
    return data | {
        name: str(Path(path).expanduser().resolve()) for name, path in paths.items() if Path(path).expanduser().exists()
    }


def without_places(tree: Any) -> Any:
    """A copy in which paths of this machine are but names: they mean nothing elsewhere, and tell of its owner.

    >>> without_places({"path": "/home/me/data/my.csv", "name": "user/data", "text": "a/b"})
    {'path': 'my.csv', 'name': 'user/data', 'text': 'a/b'}
    """
    if isinstance(tree, dict):
        return {without_places(name): without_places(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [without_places(value) for value in tree]
    if isinstance(tree, str) and re.match(r"/[^/\n]+/[^/\n]|~|[A-Za-z]:[\\/]|\\\\", tree):
        return PureWindowsPath(tree).name  # knows the separators of every system
    return tree


def is_path(name: str) -> bool:
    """Whether a setting names a place, which may be another one on another machine."""
    return name in {f"data.{path}" for path in PATHS} | {"model.path", "init_from", "distill.runs", "distill.answers"}


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run, as written."""
    file = folder / SETTINGS
    if not file.exists():
        raise UserError(f"{folder} is not a run folder: it holds no {SETTINGS}.")
    return stored_settings.checked(bounded_files.read_yaml(file), file)


def settings_as_overrides(folder: Path, changed: list[str]) -> dict[str, Any]:
    """A run's settings by dotted name, options first.

    Settings below an option that `changed` chooses anew are left out: they belong to the old option.
    """
    kept = as_overrides(read_settings(folder), changed)
    # Rows go where they went then, whatever cut them: the library that did may do otherwise in its next version.
    if (folder / SPLITS).is_file() and not _CHOOSE_ROWS & set(changed):
        kept["data.splits"] = str((folder / SPLITS).resolve())
    return kept


def as_overrides(tree: dict[str, Any], changed: Sequence[str] = ()) -> dict[str, Any]:
    """The same of settings as `to_keep` has them."""
    options = {group: option for group, option in tree["options"].items() if group not in changed}
    kept = {
        name: value
        for name, value in stored_settings.leaves({name: value for name, value in tree.items() if name != "options"})
        if name.partition(".")[0] not in changed and name not in ("resume", "from_run")
    }
    return {**options, **kept}


def read_history(file: Path) -> list[dict[str, float]]:
    """The rows of a history.csv; none where there is no such file, as of a run without a validation."""
    if not file.exists():
        return []
    rows = csv.DictReader(io.StringIO(bounded_files.read_text(file), newline=""))
    try:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]
    except (csv.Error, TypeError, ValueError) as error:  # float(list) where a row is longer than the header
        raise UserError(f"{file} is damaged: {error}.") from error


def write_json(file: Path, content: Any) -> None:
    """Write JSON in one step, without secrets: readers see the old file or the whole new one."""
    write_bytes(file, as_json(content))


def as_json(content: Any) -> bytes:
    """JSON as a file holds it, without secrets."""
    content = redaction.tree(content)
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_report(folder: Path, page: str, pictures: dict[str, bytes]) -> dict[str, Path]:
    """Write pictures/ and report.html; the files of the pictures by name."""
    files = {name: folder / PICTURES / f"{name}.png" for name in pictures}
    report = {folder / REPORT: as_text(page)}
    write_together({file: pictures[name] for name, file in files.items()} | report)
    return files


def write_text(file: Path, text: str) -> None:
    """Write a file of text in one step, without the values of secret variables."""
    write_bytes(file, as_text(text))


def as_text(text: str) -> bytes:
    """Text as a file holds it, without the values of secret variables."""
    # It may hold half of a surrogate pair, which UTF-8 has no bytes for.
    return redaction.values_of_environment(text).encode(errors="replace")


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file in one step."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def write_together(files: dict[Path, bytes]) -> None:
    """Write files, none of which appears unless there is room for all."""
    with ExitStack() as open_files:
        for file, content in files.items():
            open_files.enter_context(replacing(file)).write_bytes(content)


def sweep(folder: Path) -> None:
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
def making(folder: Path) -> Iterator[Path]:
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
def replacing(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `file` at the end, and is removed on an error.

    It lies beside `file`: a rename is one step within a file system only. What a killed process left there, of this or
    another file, is removed.
    """
    made = [parent for parent in file.parents if not parent.exists()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
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
