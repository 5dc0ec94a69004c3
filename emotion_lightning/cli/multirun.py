"""The jobs of a multirun: their settings, their states and their scores.

All of this is read from files, so that jobs may run in other processes or on other machines, and may be killed:
jobs.json lists the jobs with their settings, and the run folder of each job shows its state.
"""

import csv
import dataclasses
import functools
import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_lightning import config, terminal
from emotion_lightning.cli import override_grammar
from emotion_lightning.config import redaction, stored_settings
from emotion_lightning.errors import UserError
from emotion_lightning.runs import bounded_files, manifest, run_folder
from emotion_lightning.runs.files import atomic_write, write_json, write_text

log = logging.getLogger(__name__)

JOBS = "jobs.json"
TABLE = "jobs.csv"
ERROR = "error.txt"
_LOCK = ".lock"
GONE_LAUNCHERS = ("hydra/launcher=local", "hydra/launcher=submitit_local")
GONE = (
    "Jobs side by side on this machine are started by Ray now: use hydra/launcher=ray "
    "(hydra.launcher.gpus_per_job=, hydra.launcher.cpus_per_job=)."
)
_LAUNCHERS = ("basic", "ray", "slurm", "submitit_slurm")
_LAUNCHER_SETTINGS = {
    "account",
    "address",
    "array_parallelism",
    "comment",
    "constraint",
    "cpus_per_gpu",
    "cpus_per_job",
    "cpus_per_task",
    "exclude",
    "gpus_per_job",
    "gpus_per_node",
    "gpus_per_task",
    "gres",
    "max_num_timeout",
    "mem_gb",
    "mem_per_cpu",
    "mem_per_gpu",
    "name",
    "nodes",
    "partition",
    "qos",
    "signal_delay_s",
    "stderr_to_stdout",
    "tasks_per_node",
    "timeout_min",
}
"""Launcher settings with plain values; the others (setup, python, srun_args, additional_parameters …) are commands."""
_PLAIN = re.compile(r"['\"]?[\w.:,@%+-]*['\"]?")  # the value becomes a line of the script that sbatch runs
_MOMENT = 1.0
"""Longest time in seconds that a process holds a lock which it only tests."""

FINISHED, FAILED, STOPPED, RUNNING, NOT_STARTED = "finished", "failed", "stopped", "running", "not started"
_SCORES = tuple(score.value for score in config.HARD_SCORES)
_LONGEST_NAME = 128  # W&B's limit


@dataclass
class Job:
    """One job of a multirun.

    Attributes:
        number: index of the job, from 0.
        folder: run folder of the job, relative to the multirun's folder.
        differs: overrides that are not the same in all jobs.
        settings: all settings at the start of the multirun, including the chosen options.
        protocol: the threshold protocol that makes the decisions: fixed, global or per_label.
    """

    number: int
    folder: str
    differs: dict[str, str]
    settings: dict[str, Any]
    protocol: str

    @property
    def name(self) -> str:
        """The overrides that differ, such as `peft=lora,seed=2`."""
        return ",".join(f"{name}={value}" for name, value in self.differs.items()) or f"job {self.number}"


@dataclass
class Multirun:
    """The jobs of a multirun, in the order in which they are started.

    Attributes:
        folder: folder of the multirun.
        command: train or baseline.
        arguments: the command line, as the user typed it, without secrets.
        hydra: overrides for Hydra itself: launcher, folders of option files.
        metric: the validation metric that ranks the jobs.
        jobs: all jobs.
    """

    folder: Path
    command: str
    arguments: list[str]
    hydra: list[str]
    metric: str
    jobs: list[Job]

    def at(self, job: Job) -> Path:
        """The run folder of a job."""
        return self.folder / job.folder

    def state(self, job: Job) -> str:
        """State of a job: one of FINISHED, FAILED, STOPPED, RUNNING and NOT_STARTED."""
        folder = self.at(job)
        if (folder / run_folder.METRICS).exists():
            return FINISHED
        if is_locked(folder):
            return RUNNING
        if (folder / ERROR).exists():
            return FAILED
        return STOPPED if folder.is_dir() else NOT_STARTED

    def reason(self, job: Job) -> str:
        """First line of a failed job's error; empty for other jobs."""
        if self.state(job) != FAILED:
            return ""
        return next(iter((self.at(job) / ERROR).read_text(encoding="utf-8").splitlines()), "")


def unfinished(multirun: Multirun) -> list[tuple[Job, str]]:
    """The jobs without a result, each with the reason."""
    reasons = {STOPPED: "was killed", RUNNING: "is still at work", NOT_STARTED: "was not started"}
    states = [(job, multirun.state(job)) for job in multirun.jobs]
    return [(job, reasons.get(state) or multirun.reason(job)) for job, state in states if state != FINISHED]


def differences(jobs: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """The overrides of each job that are not the same in all jobs.

    >>> differences([["peft=ia3", "seed=1", "data.max_rows=9"], ["peft=lora", "seed=1", "data.max_rows=9"]])
    [{'peft': 'ia3'}, {'peft': 'lora'}]
    """
    split = [dict(_parts(override) for override in job) for job in jobs]
    names = [name for name in dict.fromkeys(name for job in split for name in job) if not name.startswith("hydra.")]
    shown = [name for name in names if len({job.get(name) for job in split}) > 1]
    return [{name: redaction.value(name, job[name]) for name in shown if name in job} for job in split]


def _parts(override: str) -> tuple[str, str]:
    name, _, value = override.lstrip("+").partition("=")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return name, value


# ------------------------------------------------------------------------------------------------------ write and read


def check_unused(folder: Path, *, is_new: bool) -> None:
    """Raise UserError if a new multirun would begin in a folder that already holds one."""
    if is_new and (folder / JOBS).exists():
        raise UserError(
            f"{folder} already holds a multirun. Resume it with -m {resume_argument(folder)}, or choose another "
            "hydra.sweep.dir."
        )


def write_jobs(multirun: Multirun) -> None:
    """Write jobs.json.

    Raises:
        UserError: the folder already holds a multirun.
    """
    check_unused(multirun.folder, is_new=True)
    content = {**dataclasses.asdict(multirun), "started_in": str(Path.cwd())}
    del content["folder"]
    write_json(multirun.folder / JOBS, content)


def read_jobs(folder: Path) -> Multirun:
    """Read the multirun that jobs.json in a folder describes.

    Raises:
        UserError: there is no jobs.json, or it is damaged.
    """
    if not (folder / JOBS).is_file():
        raise UserError(f"{folder} holds no {JOBS}, so it is no folder of a multirun of train or baseline.")
    content = bounded_files.read_json(folder / JOBS)
    try:
        jobs = [Job(**job) for job in content["jobs"]]
        found = Multirun(folder, content["command"], content["arguments"], content["hydra"], content["metric"], jobs)
        _check(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / JOBS} is damaged or of another version ({error!r}).") from error
    return found


def _check(multirun: Multirun) -> None:
    """Raise UserError if jobs.json holds what `write_jobs` never writes; `read_jobs` catches its TypeErrors."""
    file = multirun.folder / JOBS
    texts = [*multirun.arguments, *multirun.hydra, multirun.command, multirun.metric]
    texts += [text for job in multirun.jobs for text in (job.folder, job.protocol, *job.differs, *job.differs.values())]
    if multirun.metric not in _SCORES or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file} is damaged: a text or the name of a score is due where it holds something else.")
    for job in multirun.jobs:
        job.settings = stored_settings.checked_settings(job.settings, file)
        place = Path(job.folder)
        terminal.know_names(job.folder)
        if type(job.number) is not int or place.is_absolute() or ".." in place.parts or not place.parts:
            raise UserError(f"{file} puts a job into {job.folder!r}, which lies outside its folder; it is not opened.")


def kept_hydra_settings(multirun: Multirun, typed: Sequence[str]) -> list[str]:
    """The overrides for Hydra in jobs.json that a resumed multirun uses again, except those that are typed again.

    The file may come from an untrusted source, so only the name of a launcher, its plain settings and
    hydra.sweeper.max_batch_size are read from it. All other overrides may run code (a launcher's setup, option files,
    environment variables of the jobs) and must be typed again.

    Args:
        multirun: the multirun that jobs.json describes.
        typed: overrides for Hydra on the current command line.

    Raises:
        UserError: an override in the file may run code and was not typed again.
    """
    anew = {_name_of(override) for override in typed}
    kept = [override for override in multirun.hydra if _name_of(override) not in anew]
    if any(_name_of(override) == "hydra/launcher" and override not in multirun.hydra for override in typed):
        # Another launcher does not have the settings of the one before.
        kept = [override for override in kept if not _name_of(override).startswith("hydra.launcher.")]
    for override in kept:
        if override in GONE_LAUNCHERS:
            raise UserError(f"{multirun.folder / JOBS} sets {override}. {GONE}")
        name, _, value = override.lstrip("+~").partition("=")
        group, _, setting = name.rpartition(".")
        plain = (name == "hydra/launcher" and value in _LAUNCHERS) or (
            bool(_PLAIN.fullmatch(value))
            and (
                (group == "hydra.launcher" and setting in _LAUNCHER_SETTINGS) or name == "hydra.sweeper.max_batch_size"
            )
        )
        if not plain:
            override = terminal.one_line(override)
            folder = re.fullmatch(r"hydra\.searchpath=\['?file://([^,\]']+)'?\]", override)
            again = f"--config-dir {folder[1]}" if folder else override
            raise UserError(
                f"{multirun.folder / JOBS} sets {override}, which may run code and so is not taken from a file. If it "
                f"is yours, type it again: {shlex.quote(again) if folder is None else again}"
            )
    return kept


def _name_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def find_job(job: Path) -> tuple[Multirun, Job] | None:
    """The multirun and the job that a run folder belongs to; None for a run outside a multirun."""
    # The run folder may be several levels below the multirun's: hydra.sweep.subdir may contain slashes.
    for folder in list(job.parents)[:3]:
        if (folder / JOBS).is_file():
            multirun = read_jobs(folder)
            found = next((one for one in multirun.jobs if multirun.at(one) == job), None)
            return (multirun, found) if found else None
    return None


def wandb_names(job: Path) -> tuple[str, str] | None:
    """W&B names for the group and the run of a job, at most 128 characters each; None for a run outside a multirun."""
    found = find_job(job)
    if found is None:
        return None
    multirun, one = found
    folder = multirun.folder.resolve()
    # With the date, because a multirun of another day may have the same time.
    dated = re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name)
    group = f"{folder.parent.name}_{folder.name}" if dated else folder.name
    return group[:_LONGEST_NAME], one.name[:_LONGEST_NAME]


def newest_unfinished(outputs: Path) -> Path:
    """Folder of the newest multirun with unfinished jobs, below a folder such as outputs/multirun.

    Raises:
        UserError: there is none.
    """
    found = sorted(outputs.glob(f"*/*/{JOBS}"), key=lambda jobs: jobs.stat().st_mtime, reverse=True)
    for file in found:
        multirun = read_jobs(file.parent)
        if any(multirun.state(job) != FINISHED for job in multirun.jobs):
            return file.parent
    raise UserError(f"sweep.resume=auto found no unfinished multirun in {outputs}; name one with sweep.resume=FOLDER.")


def resume_argument(folder: Path) -> str:
    """The setting that resumes a multirun, quoted for a shell."""
    return shlex.quote(f"sweep.resume={folder}")


# ---------------------------------------------------------------------------------------------------------------- locks


class FolderLocked(UserError):
    """Another process holds the lock of this folder."""


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder, so that no second process works in it; a killed process loses the lock.

    Args:
        folder: the folder; it is created if it does not exist.
        what: begins the error message, such as "The run in".

    Raises:
        AtWork: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        # Wait a moment: `is_locked` in another process holds the lock for a short time.
        lock.acquire(timeout=_MOMENT, poll_interval=_MOMENT / 20)
    except Timeout:
        raise FolderLocked(
            f"{what} {folder} is at work in another process; wait for its end, or stop it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        # Unlink before the release: after it the file may belong to another process.
        (folder / _LOCK).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of this folder."""
    if not (folder / _LOCK).exists():
        return False
    try:
        with locked(folder, ""):
            return False
    except (UserError, OSError):
        return True


# ------------------------------------------------------------------------------------------------------------ the table


def write_table(multirun: Multirun) -> None:
    """Write jobs.csv, the best job first: differing settings, state, scores, training time and error of each job."""
    names = list(dict.fromkeys(name for job in multirun.jobs for name in job.differs))
    scores = [f"{split}/{score}" for split in ("validation", "test") for score in _by(multirun.metric)]
    columns = ["job", "state", *names, "thresholds", *scores, "train_seconds", "folder", "error"]
    with (
        atomic_write(multirun.folder / TABLE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as opened,
    ):
        table = csv.DictWriter(opened, columns, restval="")
        table.writeheader()
        for job, state, values in ranked(multirun):
            table.writerow(
                {"job": job.number, "state": state, **job.differs, "thresholds": job.protocol, **values,
                 "folder": job.folder, "error": multirun.reason(job)}
            )  # fmt: skip


def ranked(multirun: Multirun) -> list[tuple[Job, str, dict[str, float]]]:
    """Jobs with state and scores: first those with scores, the best on validation first, then the others by number."""
    rows = [(job, multirun.state(job), _scores(multirun.at(job), job.protocol)) for job in multirun.jobs]
    key = f"validation/{multirun.metric}"
    return sorted(rows, key=lambda row: (key not in row[2], -row[2].get(key, 0.0), row[0].number))


def _by(metric: str) -> list[str]:
    return [metric, *[score for score in _SCORES if score != metric]]


def _scores(folder: Path, protocol: str) -> dict[str, float]:
    try:
        manifest.check_run_hashes(folder, run_folder.METRICS)
    except UserError as error:
        _to_console(str(error))
        return {}
    with suppress(UserError, KeyError, TypeError):
        content = bounded_files.read_json(folder / run_folder.METRICS)
        scores = {
            f"{split}/{score}": content[split][protocol][score]
            for split in ("validation", "test")
            if split in content
            for score in _SCORES
        }
        return {**scores, "train_seconds": round(content["cost"]["train_seconds"], 1)}
    return {}


@functools.cache  # the table is written after each job
def _to_console(message: str) -> None:
    log.warning("%s", message)


_TITLES = {"f1_macro": "macro F1", "f1_micro": "micro F1", "jaccard": "Jaccard"}
_STYLES = {FINISHED: "", FAILED: "red", STOPPED: "yellow", RUNNING: "yellow", NOT_STARTED: "dim"}


def show_table(multirun: Multirun) -> None:
    """Print the table, and the command that predicts with the best job."""
    from rich.markup import escape
    from rich.table import Table

    console = terminal.console(140)
    rows = ranked(multirun)
    names = list(dict.fromkeys(name for job in multirun.jobs for name in job.differs))
    tests = any("test/f1_macro" in values for *_, values in rows)
    shown = [f"validation/{multirun.metric}", *([f"test/{score}" for score in _by(multirun.metric)] if tests else [])]
    # Not as the table's title, which rich would wrap to the width of the table.
    terminal.say(
        f"{len(rows)} jobs, best first by {_TITLES[multirun.metric]} on validation (validation/{multirun.metric})"
    )
    table = Table()
    table.add_column("job", justify="right")
    for name in names:
        table.add_column(escape(name))
    for score in shown:
        split, _, metric = score.partition("/")
        table.add_column(f"{'val.' if split == 'validation' else 'test'} {_TITLES[metric]}", justify="right")
    table.add_column("state")
    for job, state, values in rows:
        cells = [f"{values[score]:.3f}" if score in values else "–" for score in shown]
        differs = [escape(job.differs.get(name, "–")) for name in names]
        table.add_row(str(job.number), *differs, *cells, state, style=_STYLES[state])
    console.print(table)
    best, state, values = rows[0]
    if state == FINISHED and values:
        console.print(f"Best: job {best.number}, {best.name}", markup=False, highlight=False)
        if (multirun.at(best) / run_folder.MODEL).is_dir():
            words = [f"run={multirun.at(best)}", "input=FILE", "output=labelled.csv"]
            # Not printed with rich, which would wrap the command that the user wants to copy.
            terminal.say(f"Predict with it: {override_grammar.shell_line('predict', words)}")
    terminal.say(f"Table: {multirun.folder / TABLE}")


# ------------------------------------------------------------------------------------------------------------- failures


def note_failure(folder: Path, message: str) -> None:
    """Write the reason of a failure to error.txt in the job's folder."""
    with suppress(UserError, OSError):
        write_text(folder / ERROR, redaction.hide_secrets(message))


def forget_failure(folder: Path) -> None:
    """Remove error.txt when a failed job starts again."""
    (folder / ERROR).unlink(missing_ok=True)
