"""Run the jobs of a multirun as tasks of Ray: hydra/launcher=ray.

The process of a job runs the command line of the multirun again, told by a file that it is to do this job alone.
"""

import concurrent.futures
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from emotion_lightning.cli import jobs, multirun, override_grammar
from emotion_lightning.errors import Stopped, UserError
from emotion_lightning.runs import processes, ray_cluster
from emotion_lightning.runs.ray_cluster import Call, Ended, Share

log = logging.getLogger(__name__)

OUTPUTS = ".jobs"
"""Folder in that of the multirun with what each job printed, by its number."""

_SETTING = "hydra.launcher."


def check(settings: Mapping[str, Any]) -> None:
    """Check the settings of the launcher, without starting Ray.

    Raises:
        UserError: one is wrong, or Ray is not installed.
    """
    ray_cluster.check_installed("hydra/launcher=ray")
    gpus, cpus, address = settings["gpus_per_job"], settings["cpus_per_job"], settings["address"]
    whole = isinstance(gpus, int) and not isinstance(gpus, bool) and gpus >= 0
    if not (gpus is None or whole or (isinstance(gpus, float) and 0 < gpus < 1)):
        raise UserError(
            f"{_SETTING}gpus_per_job={gpus} is not possible: a job gets 0, 1, 2, … GPUs, or a part of one such as 0.5."
        )
    if not (cpus is None or (isinstance(cpus, int) and not isinstance(cpus, bool) and cpus >= 1)):
        raise UserError(f"{_SETTING}cpus_per_job={cpus} is not possible: a job gets 1, 2, 3, … cores.")
    if not (address is None or (isinstance(address, str) and address)):
        raise UserError(f"{_SETTING}address={address} is not possible: give auto, HOST:6379 or null.")


def prepare(settings: Mapping[str, Any], count: int) -> Share:
    """Join or start Ray until the command line is done, unless that was done before; what each job gets.

    Args:
        settings: of the launcher.
        count: number of jobs.

    Raises:
        UserError: a setting is wrong, there is no cluster at the address, or a job does not fit on a node.
    """
    line = jobs.current_line()
    if line.share is None:
        check(settings)
        nodes = line.until_end.enter_context(ray_cluster.joined(settings["address"], setting=f"{_SETTING}address"))
        names = {"cpus": f"{_SETTING}cpus_per_job", "gpus": f"{_SETTING}gpus_per_job"}
        share = ray_cluster.share_of(
            nodes, tasks=count, cpus=settings["cpus_per_job"], gpus=settings["gpus_per_job"], settings=names
        )
        log.info("Starting %d jobs with Ray, up to %d at a time, each with %s", count, share.times(nodes), share)
        line.share = share
    return line.share


def launch(
    settings: Mapping[str, Any], config: DictConfig, overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Run jobs, and wait until all have ended.

    Args:
        settings: of the launcher.
        config: Hydra's settings of the multirun.
        overrides: those of each job.
        first: place of the first job among all jobs.

    Returns:
        What Hydra expects of a launcher: for each job its value, or None if it failed.

    Raises:
        Stopped: a signal came; the running jobs have saved and ended, and the others were not started.
    """
    share = prepare(settings, len(overrides))
    line = jobs.current_line()
    folder = Path(str(config.hydra.sweep.dir))
    numbers = [jobs.number_at(place) for place in range(first, first + len(overrides))]
    environment = ray_cluster.own_environment()
    job_line = [*line.prepared, f"hydra.sweep.dir={override_grammar.quote_path(str(folder))}"]
    work = line.work
    calls = {
        number: Call(
            [f"emotion_lightning.{work.command}", *work.arguments],
            str(Path.cwd()),
            str(output_of(folder, number)),
            environment,
            share,
            {
                "command": work.command,
                "arguments": work.arguments,
                "line": job_line,
                "overrides": list(own),
                "number": number,
            },
        )
        for number, own in zip(numbers, overrides, strict=True)
    }
    values = run_calls(work, folder, calls)
    return [
        JobReturn(overrides=own, status=JobStatus.COMPLETED, _return_value=values.get(number))
        for number, own in zip(numbers, overrides, strict=True)
    ]


def output_of(folder: Path, number: int) -> Path:
    """File with what a job printed."""
    return (folder / OUTPUTS / f"{number}.txt").absolute()


def run_calls(work: "jobs.Work", folder: Path, calls: Mapping[int, Call]) -> dict[int, Any]:
    """Run the calls of the jobs with these numbers; what those that succeeded returned."""
    # Futures, because Ray would swallow an exception that a signal's handler raises while Ray itself waits.
    tasks = {number: ray_cluster.submit(call, name=f"job {number}") for number, call in calls.items()}
    futures = {task.future(): number for number, task in tasks.items()}
    values = {}
    try:
        for future in concurrent.futures.as_completed(futures):
            number = futures[future]
            ended = ray_cluster.end_of(future)
            values[number] = ended.value
            _tell(work, folder, number, ended)
    except Stopped:
        _stop(list(tasks.values()), list(futures))
        raise
    return values


def _stop(tasks: Sequence[Any], futures: "Sequence[concurrent.futures.Future[Ended]]") -> None:
    """Let the running jobs save and end, and the others not begin; a second signal ends them at once."""
    import ray

    for task in tasks:
        ray.cancel(task)
    try:
        concurrent.futures.wait(futures)
    except Stopped:
        for task in tasks:
            ray.cancel(task, force=True)  # kills its worker, which takes the job along
        raise


def _tell(work: "jobs.Work", folder: Path, number: int, ended: Ended) -> None:
    """Log how a job ended, and note a failure that it could not note itself."""
    job = None if work.record is None else next(job for job in work.record.jobs if job.number == number)
    name = f"Job {number}" if job is None else f"Job {number}, {job.name}"
    if ended.code == 0 and not ended.problem:
        log.info("%s: finished", name)
        return
    output = output_of(folder, number)
    reason = ended.problem or processes.why_failed(ended.code, output)
    if ended.code < 0:
        reason += f"; what it printed is in {output}"
    if job is not None:
        assert work.record is not None
        state, place = work.record.state(job), work.record.at(job)
        if state == multirun.FAILED:
            reason = work.record.reason(job)
        elif state == multirun.FINISHED:
            return
        elif ended.code not in (130, 143):
            place.mkdir(parents=True, exist_ok=True)
            multirun.note_failure(place, reason)
        multirun.write_table(work.record)
    else:
        work.failed.append((f"{number}", UserError(reason)))
    log.error("%s: %s", name, reason)


def told_job(command: str, arguments: Sequence[str]) -> dict[str, Any] | None:
    """The job that this process was started for; None in any other command, also in one that a job has started."""
    told = ray_cluster.told_job()
    if told is None or (told["command"] == command and list(arguments[: len(told["arguments"])]) == told["arguments"]):
        return told
    ray_cluster.forget_job()
    return None


def run_job(do: Any, told: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Run a job in its own process, as `launch` has told it.

    Args:
        do: function that runs the command.
        told: the job, from `told_job`.
        arguments: the command line of this process. In a further process of the job (DDP), Lightning has added to it.

    Raises:
        Exception: what the job raised.
    """
    added = arguments[len(told["arguments"]) :]
    work = jobs.Work(told["command"], do, list(told["arguments"]), record=None, failed=[])
    line = [*told["line"], *(one for one in added if not one.startswith("hydra.run.dir=")), jobs.PLANNED_JOBS]
    with jobs.plan([jobs.Planned(told["number"], told["overrides"])]):
        value = jobs.run_hydra(work, line)
    if work.failed:
        raise work.failed[0][1]
    if not added:
        ray_cluster.return_value(value if isinstance(value, int | float | None) else None)
