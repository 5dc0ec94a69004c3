"""The jobs of a multirun: which there are, how each went, what is left to do.

Everything is told from files, so that jobs may run in other processes and on other machines, and be killed: jobs.json
says what is to be run and with which settings, the folder of a job what became of it.
"""

import csv
import dataclasses
import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_lightning import config, grammar, run_folder, terminal
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

JOBS = "jobs.json"
TABLE = "jobs.csv"
ERROR = "error.txt"
_LOCK = ".lock"
_MAY_NAME_CODE = re.compile(r"hydra[./](callbacks|job_logging|hydra_logging|searchpath|env|help|hydra_help|output)\b")

FINISHED, FAILED, STOPPED, RUNNING, NOT_STARTED = "finished", "failed", "stopped", "running", "not started"
_SCORES = tuple(score.value for score in config.Score)
_LONGEST_NAME = 128  # W&B takes no longer one


@dataclass
class Job:
    """One job of a multirun.

    Attributes:
        number: its place in the multirun.
        folder: the name of its folder below the multirun's.
        differs: what sets it apart from the others, as on the command line.
        settings: every setting that it was meant to have when the multirun began, options included.
        protocol: whose thresholds decide.
    """

    number: int
    folder: str
    differs: dict[str, str]
    settings: dict[str, Any]
    protocol: str

    @property
    def name(self) -> str:
        """What differs, as `peft=lora,seed=2`."""
        return ",".join(f"{name}={value}" for name, value in self.differs.items()) or f"job {self.number}"


@dataclass
class Multirun:
    """The jobs of a multirun, in the order in which they are started.

    Attributes:
        folder: of the multirun.
        command: train or baseline.
        arguments: the command line, as it was typed.
        hydra: what it told Hydra itself: launcher, places of option files.
        metric: the score on validation that puts the jobs in order.
        jobs: all of them.
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
        """What became of a job."""
        folder = self.at(job)
        if (folder / run_folder.METRICS).exists():
            return FINISHED
        if is_claimed(folder):
            return RUNNING
        if (folder / ERROR).exists():
            return FAILED
        return STOPPED if folder.is_dir() else NOT_STARTED

    def reason(self, job: Job) -> str:
        """The first line of why a job failed; empty where it did not."""
        if self.state(job) != FAILED:
            return ""
        return next(iter((self.at(job) / ERROR).read_text(encoding="utf-8").splitlines()), "")


def unfinished(multirun: Multirun) -> list[tuple[Job, str]]:
    """The jobs without a result, each with why."""
    told = {STOPPED: "was killed", RUNNING: "is still at work", NOT_STARTED: "was not started"}
    states = [(job, multirun.state(job)) for job in multirun.jobs]
    return [(job, told.get(state) or multirun.reason(job)) for job, state in states if state != FINISHED]


def differences(jobs: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Of each job's overrides those that are not the same in all jobs.

    >>> differences([["peft=ia3", "seed=1", "data.max_rows=9"], ["peft=lora", "seed=1", "data.max_rows=9"]])
    [{'peft': 'ia3'}, {'peft': 'lora'}]
    """
    split = [dict(_parts(override) for override in job) for job in jobs]
    names = [name for name in dict.fromkeys(name for job in split for name in job) if not name.startswith("hydra.")]
    shown = [name for name in names if len({job.get(name) for job in split}) > 1]
    return [{name: job[name] for name in shown if name in job} for job in split]


def _parts(override: str) -> tuple[str, str]:
    name, _, value = override.lstrip("+").partition("=")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return name, value


# ---------------------------------------------------------------------------------------------------------- kept, found


def write(multirun: Multirun) -> None:
    """Keep the list of jobs; a folder that holds one already is refused."""
    if (multirun.folder / JOBS).exists():
        raise UserError(
            f"{multirun.folder} holds a multirun already. Go on with it by -m {resume(multirun.folder)}, or choose "
            "another hydra.sweep.dir."
        )
    content = {**dataclasses.asdict(multirun), "started_in": str(Path.cwd())}
    del content["folder"]
    run_folder.write_json(multirun.folder / JOBS, content)


def read(folder: Path) -> Multirun:
    """The multirun in a folder, as it was written down at its start."""
    if not (folder / JOBS).is_file():
        raise UserError(f"{folder} holds no {JOBS}, so it is no folder of a multirun of train or baseline.")
    content = run_folder.read_json(folder / JOBS)
    try:
        jobs = [Job(**job) for job in content["jobs"]]
        found = Multirun(folder, content["command"], content["arguments"], content["hydra"], content["metric"], jobs)
        for job in jobs:
            run_folder.check_settings(job.settings, folder / JOBS)
        for told in found.hydra:
            if "_target_" in told or _MAY_NAME_CODE.match(told.lstrip("+~")):
                raise UserError(f"{folder / JOBS} sets {told}, which may name code to run; it is not opened.")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / JOBS} is damaged or of another version ({error!r}).") from error
    return found


def of(job: Path) -> tuple[Multirun, Job] | None:
    """The multirun that a run folder belongs to, and which of its jobs it is; None for a run of its own."""
    # A job's folder may lie deeper: hydra.sweep.subdir may hold slashes.
    for folder in list(job.parents)[:3]:
        if (folder / JOBS).is_file():
            multirun = read(folder)
            found = next((one for one in multirun.jobs if multirun.at(one) == job), None)
            return (multirun, found) if found else None
    return None


def name(job: Path) -> tuple[str, str] | None:
    """What W&B may call the group of a multirun's job and the job itself; None for a run of its own."""
    found = of(job)
    if found is None:
        return None
    multirun, one = found
    folder = multirun.folder.resolve()
    # The time alone would be the same on another day.
    dated = re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name)
    group = f"{folder.parent.name}_{folder.name}" if dated else folder.name
    return group[:_LONGEST_NAME], one.name[:_LONGEST_NAME]


def newest_unfinished(outputs: Path) -> Path:
    """The newest multirun below a folder such as outputs/multirun that has jobs left to do."""
    found = sorted(outputs.glob(f"*/*/{JOBS}"), key=lambda jobs: jobs.stat().st_mtime, reverse=True)
    for file in found:
        multirun = read(file.parent)
        if any(multirun.state(job) != FINISHED for job in multirun.jobs):
            return file.parent
    raise UserError(f"sweep.resume=auto found no unfinished multirun in {outputs}; name one with sweep.resume=FOLDER.")


def resume(folder: Path) -> str:
    """The setting that goes on with a multirun, ready to be pasted into a shell."""
    return shlex.quote(f"sweep.resume={folder}")


# --------------------------------------------------------------------------------------------------------------- claims


@contextmanager
def claimed(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, so that no second process works in it; UserError if one does. A kill lets go of it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{what} {folder} is at work in another process; wait for its end, or stop it.") from None
    try:
        yield
    finally:
        # While it is held: what is unlinked later may be another's.
        (folder / _LOCK).unlink(missing_ok=True)
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Whether a process works in this folder."""
    if not (folder / _LOCK).exists():
        return False
    try:
        with claimed(folder, ""):
            return False
    except (UserError, OSError):
        return True


# ------------------------------------------------------------------------------------------------------------ the table


def write_table(multirun: Multirun) -> None:
    """Write jobs.csv, the best job first: what differs, state, scores, cost, and why a job failed."""
    names = list(dict.fromkeys(name for job in multirun.jobs for name in job.differs))
    scores = [f"{split}/{score}" for split in ("validation", "test") for score in _by(multirun.metric)]
    columns = ["job", "state", *names, "thresholds", *scores, "train_seconds", "folder", "error"]
    with (
        run_folder.replacing(multirun.folder / TABLE) as temporary,
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
    """Jobs with state and scores: the best on validation first, then those without scores as they were started."""
    rows = [(job, multirun.state(job), _scores(multirun.at(job), job.protocol)) for job in multirun.jobs]
    key = f"validation/{multirun.metric}"
    return sorted(rows, key=lambda row: (key not in row[2], -row[2].get(key, 0.0), row[0].number))


def _by(metric: str) -> list[str]:
    return [metric, *[score for score in _SCORES if score != metric]]


def _scores(folder: Path, protocol: str) -> dict[str, float]:
    with suppress(UserError, KeyError, TypeError):
        content = run_folder.read_json(folder / run_folder.METRICS)
        scores = {
            f"{split}/{score}": content[split][protocol][score]
            for split in ("validation", "test")
            if split in content
            for score in _SCORES
        }
        return {**scores, "train_seconds": round(content["cost"]["train_seconds"], 1)}
    return {}


_TITLES = {"f1_macro": "macro F1", "f1_micro": "micro F1", "jaccard": "Jaccard"}
_STYLES = {FINISHED: "", FAILED: "red", STOPPED: "yellow", RUNNING: "yellow", NOT_STARTED: "dim"}


def show(multirun: Multirun) -> None:
    """Print the table, and the command that predicts with the best job."""
    from rich.markup import escape
    from rich.table import Table

    console = terminal.console(140)
    rows = ranked(multirun)
    names = list(dict.fromkeys(name for job in multirun.jobs for name in job.differs))
    tests = any("test/f1_macro" in values for *_, values in rows)
    shown = [f"validation/{multirun.metric}", *([f"test/{score}" for score in _by(multirun.metric)] if tests else [])]
    # Not as the table's title, which would be broken to its width.
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
            # Never broken over two lines: it is there to be copied.
            terminal.say(f"Predict with it: {grammar.shell_line('predict', words)}")
    terminal.say(f"Table: {multirun.folder / TABLE}")


# ------------------------------------------------------------------------------------------------------------- failures


def note_failure(folder: Path, message: str) -> None:
    """Write down why a job failed."""
    with suppress(UserError, OSError):
        run_folder.write_bytes(folder / ERROR, message.encode())


def forget_failure(folder: Path) -> None:
    """A job that starts again has not failed."""
    (folder / ERROR).unlink(missing_ok=True)
