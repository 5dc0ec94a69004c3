"""The files of a run folder: their names, and functions that write and read a run's settings."""

import csv
import glob
import io
import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from emotion_lightning.config import hub_name, own_parts, redaction, schema, stored_settings
from emotion_lightning.config.model import TINY
from emotion_lightning.errors import UserError
from emotion_lightning.runs import bounded_files
from emotion_lightning.runs.files import as_text, atomic_write, write_together

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
DATA = "data.json"

PATHS = {"dir", "path", "train", "validation", "test", "splits"}
"""Data settings whose value is a path."""

_OF_OVERLAYS = {
    "template": ("data.template", "data.question"),
    "mapping": ("data.rename", "data.merge", "data.drop_labels"),
}
"""Settings that an option of these groups may set."""
_CHOOSE_ROWS = {"data"} | {
    f"data.{name}"
    for name in (
        *PATHS,
        "name",
        "revision",
        "id_column",
        "split_column",
        "aggregate",
        "conversation",
        "group_column",
        "header",
        "table",
        "validation_share",
        "test_share",
        "split_seed",
        "languages",
        "test_languages",
        "neutral",
        "individual",
    )
}
"""Settings whose change selects other rows or splits than those of the earlier run."""


def resume_command(folder: Path) -> str:
    """The command that resumes a run, quoted for a shell."""
    place = own_parts.folder_arguments()
    return shlex.join(["python", "-m", "emotion_lightning.train", *place, f"resume={folder}"])


def expand_runs(run: str) -> list[str]:
    """The runs that a setting names: one folder, a list `[A,B,C]`, or a folder of finished runs such as a multirun."""
    named = parse_list(run)
    if named != [run]:
        return [one for part in named for one in expand_runs(part)]
    folder = Path(run).expanduser()
    jobs = sorted(folder.glob(f"*/{METRICS}"), key=lambda metrics: by_job_number(metrics.parent))
    if (folder / SETTINGS).exists() or not jobs:
        return [run]
    return [str(metrics.parent) for metrics in jobs]


def parse_list(run: str) -> list[str]:
    r"""The items of a list `[A,B,C]`; any other text, or the name of an existing path, is a list with one item.

    An item that contains a comma must be quoted.

    >>> parse_list("[outputs/a, 'b, c',\"d's\"]")
    ['outputs/a', 'b, c', "d's"]
    """
    if not _is_list(run):
        return [run]
    parts = (found[1] or found[2] or found[3].strip() for found in _ITEM.finditer(run[1:-1]))
    return [part for part in parts if part]


def _is_list(named: str) -> bool:
    return named.startswith("[") and named.endswith("]") and not _exists(named)


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except OSError:  # a long list is no name of a file
        return False


_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*))\s*(?:,|$)""")
"""One item of a list, quoted or not."""


def format_list(runs: Sequence[str]) -> str:
    """Several runs as the value of one setting, which `parse_list` can parse."""
    return "[" + ",".join(run if "," not in run else f'"{run}"' if "'" in run else f"'{run}'" for run in runs) + "]"


def by_job_number(job: Path) -> tuple[int, str]:
    """A sort key that puts the jobs of a multirun in the order of their numbers."""
    return (int(job.name) if job.name.isdigit() else -1, job.name)


def check_unused(folder: Path) -> None:
    """Raise UserError if a folder already holds a run: checkpoints or metrics.json."""
    if list((folder / CHECKPOINTS).glob("*.ckpt")) or (folder / METRICS).exists():
        raise UserError(
            f"{folder} holds a run already. Go on in it with {resume_command(folder)}, or choose another hydra.run.dir."
        )


def newest_unfinished(outputs: Path) -> Path:
    """The newest unfinished run below a folder such as outputs/train: one with last.ckpt but without metrics.json.

    Raises:
        UserError: there is none.
    """
    unfinished = [
        last.parent.parent
        for last in outputs.glob(f"*/*/{CHECKPOINTS}/last.ckpt")
        if not (last.parent.parent / METRICS).exists()
    ]
    if not unfinished:
        raise UserError(f"resume=auto found no unfinished run in {outputs}; name one with resume=FOLDER.")
    return max(unfinished, key=lambda run: (run / CHECKPOINTS / "last.ckpt").stat().st_mtime)


def of_model(folder: Path) -> Path:
    """The run folder of a model folder; another folder is returned as it is."""
    return folder.parent if folder.name == MODEL else folder


def write_settings(folder: Path, settings: Any, options: dict[str, str]) -> dict[str, Any]:
    """Write settings.yaml: all settings, with secrets redacted, and the chosen options.

    Returns:
        The content of settings.yaml.
    """
    tree = stored_form(settings, options)
    for name, value in stored_settings.leaves(schema.plain(settings)):
        if is_path(name) and isinstance(value, str) and redaction.hide_secrets(value, is_value=True) != value:
            log.warning(
                "%s holds a secret, without which it is kept: resume and evaluate will not find that place. Rename it, "
                "or give the secret by other means.",
                name,
            )
    with atomic_write(folder / SETTINGS) as temporary:
        temporary.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return tree


def stored_form(settings: Any, options: dict[str, str]) -> dict[str, Any]:
    """The content of settings.yaml: all settings with secrets redacted and absolute paths, and the chosen options."""
    tree = {"options": options, **redaction.settings(schema.plain(settings))}
    tree["data"] = absolute(tree["data"])
    if tree.get("model", {}).get("path"):
        tree["model"]["path"] = absolute_base(tree["model"]["path"])
    if tree.get("frozen", {}).get("folder"):
        tree["frozen"]["folder"] = str(Path(tree["frozen"]["folder"]).expanduser().absolute())
    if tree.get("init_from"):
        tree["init_from"] = _absolute(tree["init_from"])
    if tree.get("distill", {}).get("answers"):
        tree["distill"]["answers"] = _absolute(tree["distill"]["answers"])
    if tree.get("distill", {}).get("runs"):
        named = [_absolute(run) for run in parse_list(tree["distill"]["runs"])]
        tree["distill"]["runs"] = named[0] if len(named) == 1 else format_list(named)
    return tree


def _absolute(run: str) -> str:
    return run if hub_name.is_hub(run) else str(Path(run).expanduser().resolve())


def absolute_base(path: str) -> str:
    """`model.path` with an absolute path if it is a folder; hub ids, and `tiny` for the bundled network, stay."""
    folder = Path(path).expanduser()
    return str(folder.resolve()) if path != TINY and folder.is_dir() else path


def absolute(data: dict[str, Any]) -> dict[str, Any]:
    """Data settings with absolute paths, so that a run can be scored and repeated from any working directory.

    Paths that do not exist stay as they are.
    """
    return data | {name: _absolute_paths(data[name]) for name in PATHS if data.get(name)}


def _absolute_paths(named: str) -> str:
    """A path, or a list of paths, with those that exist made absolute, and with patterns that match files."""
    found = []
    for given in parse_list(named):
        path = Path(given).expanduser()
        matches = not path.exists() and glob.has_magic(given) and any(glob.iglob(str(path), recursive=True))
        found.append(str(path.resolve()) if path.exists() else str(path.absolute()) if matches else given)
    return found[0] if len(found) == 1 and not _is_list(named) else format_list(found)


def without_paths(tree: Any) -> Any:
    """A copy in which each absolute path, and each path that starts with ~, is only its last name.

    Paths of this machine are useless elsewhere, and may reveal the user's name.

    >>> without_paths({"path": "/home/me/data/my.csv", "name": "user/data", "text": "a/b"})
    {'path': 'my.csv', 'name': 'user/data', 'text': 'a/b'}
    """
    if isinstance(tree, dict):
        return {without_paths(name): without_paths(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [without_paths(value) for value in tree]
    if isinstance(tree, str) and re.match(r"/[^/\n]+/[^/\n]|~|[A-Za-z]:[\\/]|\\\\", tree):
        return PureWindowsPath(tree).name  # splits at slashes and at backslashes
    return tree


def is_path(name: str) -> bool:
    """Whether a setting may hold a path, which may differ between machines."""
    return name in {f"data.{path}" for path in PATHS} | {
        "model.path",
        "frozen.folder",
        "init_from",
        "distill.runs",
        "distill.answers",
    }


def read_settings(folder: Path) -> dict[str, Any]:
    """The checked content of a run's settings.yaml.

    Raises:
        UserError: there is no settings.yaml, or it holds something else than settings.
    """
    file = folder / SETTINGS
    if not file.exists():
        raise UserError(f"{folder} is not a run folder: it holds no {SETTINGS}.")
    return stored_settings.checked_settings(bounded_files.read_yaml(file), file)


def settings_as_overrides(folder: Path, changed: list[str]) -> dict[str, Any]:
    """The settings of a run by dotted name, options first.

    Args:
        folder: the run folder.
        changed: settings and groups that get new values. For a group, its stored option and all settings below it are
            left out, because they belong to the old option.
    """
    kept = as_overrides(read_settings(folder), changed)
    # Use the stored splits: another version of the library that splits the rows may split them differently.
    if (folder / SPLITS).is_file() and not _CHOOSE_ROWS & set(changed):
        kept["data.splits"] = str((folder / SPLITS).resolve())
    return kept


def as_overrides(tree: dict[str, Any], changed: Sequence[str] = ()) -> dict[str, Any]:
    """Settings by dotted name, options first, from the result of `stored_form`.

    Args:
        tree: the settings.
        changed: groups that get new options; their settings are left out.
    """
    options = {group: option for group, option in tree["options"].items() if group not in changed}
    left = {"resume", "from_run", *(name for group in changed for name in _OF_OVERLAYS.get(group, ()))}
    kept = {
        name: value
        for name, value in stored_settings.stored_values(tree)
        if name.partition(".")[0] not in changed and name not in left
    }
    return {**options, **kept}


def read_history(file: Path) -> list[dict[str, float]]:
    """The rows of history.csv, without empty cells; no rows if the run had no validation and so no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not file.exists():
        return []
    rows = csv.DictReader(io.StringIO(bounded_files.read_text(file), newline=""))
    try:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]
    except (csv.Error, TypeError, ValueError) as error:  # float(list) where a row is longer than the header
        raise UserError(f"{file} is damaged: {error}.") from error


def write_report(folder: Path, page: str, pictures: dict[str, bytes]) -> dict[str, Path]:
    """Write report.html and its pictures.

    Args:
        folder: the run folder.
        page: the HTML.
        pictures: PNG images by name.

    Returns:
        Path of each picture, by name.
    """
    files = {name: folder / PICTURES / f"{name}.png" for name in pictures}
    report = {folder / REPORT: as_text(page)}
    write_together({file: pictures[name] for name, file in files.items()} | report)
    return files
