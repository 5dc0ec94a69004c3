"""Check all jobs of a command line, run them with Hydra, and report those that fail."""

import itertools
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from emotion_lightning import config
from emotion_lightning.cli import messages, model_option, multirun, override_grammar, own_options
from emotion_lightning.cli.compose import (
    hydra_settings,
    in_multirun,
    inside_hydra,
    option_folders,
    options_of,
    override_parser,
    overrides_of,
    with_earlier_run,
)
from emotion_lightning.config import own_parts, redaction, schema, stored_settings
from emotion_lightning.errors import Stopped, UserError, first_line
from emotion_lightning.runs import quiet, ray_cluster, run_folder, slurm

log = logging.getLogger(__name__)


FULL_ERROR = "HYDRA_FULL_ERROR"
PLANNED_JOBS = "hydra.sweeper._target_=hydra_plugins.emotion_lightning_jobs.PlannedJobs"
_received: list[int] = []
"""Numbers of the signals that `stop_on_signals` has turned into `Stopped`."""
RESUME = "sweep.resume="
KEEP_RUNS = ("train", "baseline")
"""Commands whose multiruns are saved in jobs.json, so that they can be resumed."""
_FILL_THEIR_FOLDER = {**dict.fromkeys(KEEP_RUNS, "The run in"), "evaluate": "The evaluation in", "inspect": "The "
                      "inspection in", "compare": "The comparison in", "audit": "The audit in"}  # fmt: skip
"""Commands that lock their folder: two that start in the same second would mix their results in one folder.

The value begins the error message.
"""


class JobsFailed(Exception):
    """One or more jobs of a multirun failed."""


@dataclass
class Work:
    """The command that each job of a command line runs.

    Attributes:
        command: name of the command.
        do: function that runs the command. Its arguments are the settings and the output folder.
        arguments: the command line, as the user typed it.
        record: the multirun that jobs.json holds; None for a single job and for commands that are not in KEEP_RUNS.
        failed: name and error of each job that failed in this process.
    """

    command: str
    do: Callable[[Any, Path], Any]
    arguments: list[str]
    record: multirun.Multirun | None
    failed: list[tuple[str, Exception]]


@dataclass
class Planned:
    """A job that `launch_planned` starts.

    Attributes:
        number: index of the job in its multirun.
        overrides: its settings.
    """

    number: int
    overrides: list[str]


@dataclass
class Line:
    """The command line that Hydra runs in this process.

    Attributes:
        work: its command.
        prepared: its arguments, as Hydra gets them.
        until_end: what is left when its last job has ended.
        share: what each job gets of a Ray that was joined; None without Ray.
    """

    work: Work
    prepared: list[str]
    until_end: ExitStack = field(default_factory=ExitStack)
    share: ray_cluster.Share | None = None


_lines: list[Line] = []
"""The line that Hydra runs, for launchers, which get only what Hydra knows."""
_planned: list[Planned] = []
"""The jobs that `launch_planned` starts."""
_before_first: list[Callable[[], None]] = []
"""What `launch_planned` calls before the first job."""


def current_line() -> Line:
    """The line that Hydra runs in this process."""
    return _lines[-1]


def number_at(place: int) -> int:
    """Number of the job at this place among those that a launcher starts."""
    return _planned[place].number if _planned else place


def run_hydra(work: Work, prepared: list[str]) -> Any:
    """Let Hydra compose the settings and run each job.

    Returns:
        What the last job in this process returned.
    """
    returned: list[Any] = [None]

    def job(cfg: DictConfig) -> Any:
        returned[0] = _job(work, cfg)
        return returned[0]

    main = hydra.main(config_path=str(schema.conf_folder()), config_name=work.command, version_base="1.3")
    # On an error Hydra prints its own message and exits with code 1. With HYDRA_FULL_ERROR it raises the error, and
    # `app.run_command` prints a better message.
    with _command_line(prepared, full_error=True):
        line = Line(work, prepared)
        _lines.append(line)
        try:
            with line.until_end:
                # A closure, because submitit pickles it by value for other processes.
                main(job)()
        finally:
            _lines.remove(line)
    return returned[0]


@contextmanager
def _command_line(arguments: list[str], *, full_error: bool) -> Iterator[None]:
    """Give the process this command line, and set or remove HYDRA_FULL_ERROR, while the block runs."""
    before, variable = sys.argv[1:], os.environ.pop(FULL_ERROR, None)
    sys.argv[1:] = arguments
    if full_error:
        os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        sys.argv[1:] = before
        os.environ.pop(FULL_ERROR, None)
        if variable is not None:
            os.environ[FULL_ERROR] = variable


def _job(work: Work, cfg: DictConfig) -> Any:
    """Run one job, and store its error in `work.failed`: Hydra would print its own message and skip the other jobs."""
    # The processes that a job starts (DDP) parse the command line again, so they need it as the user typed it.
    with _command_line(work.arguments, full_error=False):
        own_options.register(work.command, work.arguments)  # again, for a process that submitit started
        return _logged_job(work, cfg)


def _logged_job(work: Work, cfg: DictConfig) -> Any:
    """Run one job and log its error, or store it in `work.failed`."""
    logging.captureWarnings(True)
    quiet.quiet_libraries()
    redaction.in_logs()  # again, because submitit runs a job in another process
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = partial(_without_log_file, handler)  # type: ignore[method-assign]
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        with stop_on_signals() if slurm.in_submitit() else nullcontext():
            if work.command not in _FILL_THEIR_FOLDER or not slurm.is_first_process():
                return work.do(schema.load_settings(cfg, work.command), folder)
            with multirun.locked(folder, _FILL_THEIR_FOLDER[work.command]):
                return _kept_job(work, cfg, folder)
    except Exception as error:
        mistake = messages.as_user_error(work.command, error, work.arguments)
        reason = str(mistake or "".join(traceback.format_exception(error)))
        if in_multirun():
            log.error("%s", reason)
        elif not isinstance(error, multirun.FolderLocked):  # then the log file belongs to the other process
            # `app.run_command` prints the message on the terminal at the end.
            _to_log_file(reason)
        number = f"{HydraConfig.get().job.num}: " if in_multirun() else ""
        work.failed.append((f"{number}{HydraConfig.get().job.override_dirname}", error))
        return None
    finally:
        found = multirun.find_job(folder)
        if found and slurm.is_first_process():
            multirun.write_table(found[0])


def _kept_job(work: Work, cfg: DictConfig, folder: Path) -> Any:
    """Run a job that holds the lock of its folder; for a job of a multirun, write error.txt if it fails."""
    found = multirun.find_job(folder)
    if found is None:
        return work.do(schema.load_settings(cfg, work.command), folder)
    whole, job = found
    if in_multirun():
        log.info("Job %d, %s", job.number, job.name)
    multirun.forget_failure(folder)
    try:
        return work.do(schema.load_settings(cfg, work.command), folder)
    except Exception as error:
        mistake = messages.as_user_error(work.command, error, work.arguments)
        detail = str(mistake) if mistake else first_line(error) + "\n\n" + "".join(traceback.format_exception(error))
        multirun.note_failure(folder, detail)
        raise


@contextmanager
def stop_on_signals(*only: signal.Signals) -> Iterator[None]:
    """Raise `Stopped` on Ctrl-C, SIGTERM and a cluster's preemption signal, or on these `only`, while the block runs.

    `check_stopped` raises it again, for the case that a library swallows it: a bare `except:` around an import, or
    Python itself in `__del__`.
    """
    # Lightning ends with exit code 1 on Ctrl-C and 0 on SIGTERM, but it lets our SystemExit pass.
    warning = None if slurm.in_submitit() else slurm.preemption_signal()

    def stop(number: int, _: Any) -> None:
        if slurm.in_wandb_sweep() and isinstance(sys.exception(), Stopped):
            return  # a W&B sweep stops a run with two signals; this is the second, while the first is handled
        if number == warning:
            slurm.requeue()
            number = signal.SIGTERM
        _received.append(number)
        raise Stopped(number)

    # submitit ignores SIGTERM and has a signal of its own.
    taken = [signal.SIGINT, *([] if slurm.in_submitit() else [signal.SIGTERM]), *([warning] if warning else [])]
    before = {number: signal.signal(number, stop) for number in only or taken}
    try:
        yield
    except SystemExit as end:
        # Ray 2.60 turns a SystemExit that is raised while it waits into one of its own, with exit code 1 (issue 26).
        if not isinstance(end, Stopped):
            check_stopped()
        raise
    finally:
        _received.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def check_stopped() -> None:
    """Raise `Stopped` if a signal came since `stop_on_signals` began, before work that would go on for long."""
    if _received:
        raise Stopped(_received[-1])


@dataclass
class _Plan:
    """The jobs that a command line will run.

    Attributes:
        folder: folder of the multirun.
        launcher: settings of the launcher, with the import path of its class as `_target_`.
        metric: the validation metric that ranks the jobs.
        overrides: the overrides of each job.
        jobs: the jobs as jobs.json stores them; empty for commands that are not in KEEP_RUNS.
    """

    folder: Path
    launcher: dict[str, Any]
    metric: str
    overrides: list[list[str]]
    jobs: list[multirun.Job]


def check_jobs(command: str, arguments: list[str], *, typed: set[str]) -> _Plan | None:
    """Check the settings of every job before the first job starts and before a folder is created.

    Args:
        command: name of the command.
        arguments: the prepared command line, with the settings of an earlier run.
        typed: names of the settings that the user typed, without those of an earlier run.

    Returns:
        The jobs, or None if another sweeper such as Optuna's chooses the values during the multirun.

    Raises:
        UserError: a setting of a job is wrong.
    """
    overrides = overrides_of(arguments)
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        parser = override_parser()
        parsed = parser.parse_overrides(overrides)
        fixed = [o.input_line for o in parsed if not o.is_sweep_override()]
        base = compose(command, [str(o) for o in fixed], return_hydra_config=True)
        if not str(base.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
            return None  # another sweeper (Optuna …) chooses its values during the multirun
        presets = [f"{name}={value}" for name, value in (base.hydra.sweeper.params or {}).items()]
        swept = parser.parse_overrides(presets + overrides)
        lines = _product(swept)
        place, launcher = Path(str(base.hydra.sweep.dir)), _launcher_of(base)
        # Without a sweep, `base` is already the configuration of the only job.
        alone = not presets and len(fixed) == len(parsed)
        jobs, metrics = [], set()
        for number, (line, differs) in enumerate(zip(lines, multirun.differences(lines), strict=True)):
            cfg = base if alone else compose(command, line, return_hydra_config=True)
            folder = _place(cfg, number)
            settings, options = _settings_of(cfg, command, typed)
            if command in KEEP_RUNS:
                metrics.add(_METRICS[settings.thresholds.metric])
                tree = run_folder.stored_form(settings, options)
                jobs.append(multirun.Job(number, folder, differs, tree, schema.schema_of(settings.thresholds)))
        metric = metrics.pop() if len(metrics) == 1 else "f1_macro"
        return _Plan(place, launcher, metric, lines, jobs)


def _launcher_of(cfg: DictConfig) -> dict[str, Any]:
    """The settings of the launcher; those with a value that cannot be resolved yet are left out."""
    found = {}
    for name in cfg.hydra.launcher:
        with suppress(OmegaConfBaseException):
            found[str(name)] = cfg.hydra.launcher[name]
    return found


def compose_job(command: str, arguments: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """Compose and check the settings of a single job as its command line would, without Hydra's hold on the process.

    Args:
        command: name of the command.
        arguments: settings as on a command line, not quoted for a shell; --config-dir=FOLDER is the only flag.

    Returns:
        The settings, and the option chosen in each group.

    Raises:
        UserError: an argument or a setting is wrong, or the arguments ask for several jobs.
    """
    if (wrong := next((a for a in arguments if not isinstance(a, str)), None)) is not None:
        called = "compose(" if command == "train" else "score(run, "
        raise UserError(
            f"Cannot read a {type(wrong).__name__}; each setting is a text of its own: "
            f'{called}"data=file", "data.path=my.csv").'
        )
    schema.register()
    given = [override_grammar.as_text(argument) for argument in arguments]
    with messages.as_user_errors(command, given), inside_hydra():
        own_options.register(command, given)
        typed = _typed_names(command, given)
        line = override_grammar.quote_texts(command, given, multirun=False)
        prepared = model_option.with_fitting_option(
            command, with_earlier_run(command, line, multirun=False), typed=given
        )
        overrides = overrides_of(prepared)
        with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
            swept = [str(o.input_line) for o in override_parser().parse_overrides(overrides) if o.is_sweep_override()]
            cfg = compose(command, [line for line in overrides if line not in swept], return_hydra_config=True)
        if cfg.hydra.sweeper.get("params"):
            swept.append(f"sweep={cfg.hydra.runtime.choices.sweep}")
        if swept:
            raise UserError(f"{swept[0]} asks for several runs; compose the settings of each in a loop.")
        return _settings_of(cfg, command, typed)


def _typed_names(command: str, arguments: Sequence[str]) -> set[str]:
    """Names of the settings among arguments that come from Python.

    Raises:
        UserError: an argument is no setting, or is one that only a command line has.
    """
    override_grammar.refuse_dashes(command, arguments)
    names = set()
    for before, argument in zip(["", *arguments], arguments, strict=False):
        match = override_grammar.ARGUMENT.fullmatch(argument)
        is_folder = "--config-dir" in (before, argument) or argument.startswith("--config-dir=")
        if match is None and not is_folder and not argument.startswith("~"):
            raise UserError(f"Cannot read {argument!r}; settings are given as name=value, each as a text of its own.")
        name = match["name"] if match else ""
        if re.match(r"hydra[./]", name) and name != "hydra.searchpath":
            raise UserError(f"{name} is for a command line; from Python, the folder is given as folder=….")
        names |= {name} - {""}
    return names


def _settings_of(cfg: DictConfig, command: str, typed: Set[str]) -> tuple[Any, dict[str, str]]:
    """The checked settings of a job, and the option chosen in each group; removes Hydra's own settings from `cfg`."""
    options = options_of(cfg.hydra.runtime.choices, command)
    with open_dict(cfg):
        del cfg["hydra"]
    settings = schema.load_settings(cfg, command)
    _check_model(settings, typed)
    return settings, options


def _check_model(settings: Any, typed: Set[str]) -> None:
    """Raise UserError for settings of the model that the user typed and that would not be read."""
    network = settings.model if isinstance(settings, config.Train | config.Inspect) else None
    if network and not network.pretrained and "model.path" in typed:
        raise UserError(
            f"model.path={network.path} would not be read: this model is built with random weights "
            "(model.pretrained=false). Choose the option of its family, such as model=gemma model.path=…"
        )
    shaped = sorted(name for name in typed if name.startswith("model.architecture"))
    if network and network.pretrained and shaped:
        raise UserError(
            f"{shaped[0]} would not be read: model.path={network.path} has a shape of its own. "
            "Add model.pretrained=false for random weights in that shape."
        )


def _product(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job: the product of all swept values. The last of two overrides of one setting counts."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        name = override.get_key_element()
        if override.is_sweep_override() and not override.is_discrete_sweep():
            assert override.value_type is not None
            raise HydraException(f"BasicSweeper does not support sweep type : {override.value_type.name}")
        swept = override.is_sweep_override()
        found = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        values[name] = [f"{name}={value}" for value in found]
    return [list(job) for job in itertools.product(*values.values())]


_METRICS = {
    config.ThresholdMetric.macro: "f1_macro",
    config.ThresholdMetric.micro: "f1_micro",
    config.ThresholdMetric.jaccard: "jaccard",
}


def _place(cfg: DictConfig, number: int) -> str:
    """The folder of a job, relative to the folder of the multirun."""
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.job.num = number
        cfg.hydra.job.id = str(number)
    return str(cfg.hydra.sweep.subdir)


def run_multirun(work: Work, prepared: list[str], jobs: list[Planned], *, is_new: bool) -> None:
    """Run the jobs of a multirun and print their table, also after a stop or if a job was killed.

    Raises:
        JobsFailed: a job has no result.
    """
    record = work.record
    assert record is not None
    go_on = override_grammar.shell_line(work.command, ["-m", *own_parts.folder_arguments(), f"{RESUME}{record.folder}"])

    def begin() -> None:
        if is_new:
            multirun.write_jobs(record)
        slurm.remember(record.folder, work.arguments)

    with multirun.locked(record.folder, "The multirun in"):
        multirun.check_unused(record.folder, is_new=is_new)
        try:
            with plan(jobs, before_first=begin):
                run_hydra(work, [*prepared, PLANNED_JOBS])
        except Stopped:
            if not (record.folder / multirun.JOBS).exists():  # it came before the first job
                raise
            multirun.write_table(record)
            multirun.show_table(record)
            log.warning("Stopped; go on with: %s", go_on)
            raise
        except Exception as error:
            # submitit raises an error of its own if a job was killed; the other jobs still run.
            if not type(error).__module__.startswith("submitit"):
                raise
            log.error("%s", first_line(error))
        multirun.write_table(record)
        multirun.show_table(record)
    if left := multirun.unfinished(record):
        raise JobsFailed(
            "Failed jobs:\n"
            + "\n".join(f"  {job.number}: {job.name}: {why}" for job, why in left)
            + f"\nTry them again with: {go_on}"
        )


@contextmanager
def plan(jobs: list[Planned], *, before_first: Callable[[], None] | None = None) -> Iterator[None]:
    """Let `launch_planned` start these jobs: all that were checked, or those left in a resumed multirun.

    Args:
        jobs: the jobs.
        before_first: called when the launcher is ready, before the first job.
    """
    _planned[:] = jobs
    _before_first[:] = [before_first] if before_first else []
    try:
        yield
    finally:
        _planned.clear()
        _before_first.clear()


def launch_planned(launcher: Launcher, max_batch_size: int | None) -> list[Any]:
    """Start the planned jobs with a launcher, in batches if their size is limited, and return their results."""
    if not ray_cluster.in_job() and (prepare := getattr(launcher, "prepare", None)):
        prepare(len(_planned))
    for begin in _before_first:
        begin()
    size = len(_planned) if max_batch_size in (None, -1) else max_batch_size
    results: list[Any] = []
    with _without_listing():
        for first in range(0, len(_planned), size):
            batch = [job.overrides for job in _planned[first : first + size]]
            # A launcher of Hydra numbers its jobs itself; in the process of one job, that is the job's own number.
            place = _planned[first].number if ray_cluster.in_job() else first
            results += launcher.launch(batch, initial_job_idx=place)
    return results


@contextmanager
def _without_listing() -> Iterator[None]:
    """Drop the line with all settings of a job that launchers log; the job logs its name."""

    def is_no_listing(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("\t#")

    names = ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    launchers = [logging.getLogger(name) for name in names]
    for launcher in launchers:
        launcher.addFilter(is_no_listing)
    try:
        yield
    finally:
        for launcher in launchers:
            launcher.removeFilter(is_no_listing)


def sweep_folder(path: str) -> Path:
    """The folder that `sweep.resume=` names.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(override_grammar.unquoted(path) or "").expanduser()
    if path in ("", "null") or not folder.is_dir():
        raise UserError(f"{RESUME}{path} is no folder; give the folder of a multirun.")
    return folder


def resume_multirun(
    command: str, do: Callable[[Any, Path], Any], folder: Path, arguments: list[str], *, typed: Sequence[str]
) -> None:
    """Resume a multirun: continue each unfinished job, and start each job that has not begun from its stored settings.

    Args:
        command: name of the command.
        do: function that runs the command.
        folder: folder of the multirun.
        arguments: the command line, as the user typed it.
        typed: settings on the command line, without sweep.resume.

    Raises:
        UserError: the multirun belongs to another command, still runs, or cannot be resumed with these arguments.
        JobsFailed: a job has no result.
    """
    record = multirun.read_jobs(folder)
    if record.command != command:
        raise UserError(f"{folder} is a multirun of {record.command}; go on with it by that command.")
    launcher = [a for a in typed if a.startswith(("hydra/launcher=", "hydra.launcher."))]
    line = [a for a in arguments if not a.startswith(RESUME)]
    typed_hydra = hydra_settings(override_grammar.quote_texts(command, line, multirun=True))
    if others := [a for a in typed if a not in launcher and a not in record.arguments]:
        raise UserError(
            f"{multirun.resume_argument(folder)} goes on with the multirun's own jobs and settings; leave out "
            f"{', '.join(others)}, or start a new multirun without sweep.resume."
        )
    given = {a.partition("=")[0] for a in launcher}
    for setting in record.hydra:
        if redaction.HIDDEN in setting and setting.partition("=")[0] not in given:
            raise UserError(
                f"{setting} was kept without its secret; give it again, beside {multirun.resume_argument(folder)}."
            )
    states = {job.number: record.state(job) for job in record.jobs}
    left = [job for job in record.jobs if states[job.number] != multirun.FINISHED]
    if running := [job.name for job in left if states[job.number] == multirun.RUNNING]:
        raise UserError(f"Jobs of {folder} are still at work: {', '.join(running)}. Wait for their end, or stop them.")
    if not left:
        multirun.write_table(record)
        multirun.show_table(record)
        log.info("All jobs in %s are finished; there is nothing to resume.", folder)
        return
    log.info("%d of %d jobs are finished; going on with the others.", len(record.jobs) - len(left), len(record.jobs))
    kept = multirun.kept_hydra_settings(record, typed_hydra)
    prepared = ["-m", *kept, *typed_hydra, f"hydra.sweep.dir={override_grammar.quote_path(str(folder))}"]
    folders = option_folders(line)
    jobs = [Planned(job.number, _again(command, record.at(job), job, folders)) for job in left]
    run_multirun(Work(command, do, arguments, record, failed=[]), prepared, jobs, is_new=False)


def _again(command: str, folder: Path, job: multirun.Job, option_folders: Sequence[Path]) -> list[str]:
    """The overrides that resume a job, or start it with its settings in jobs.json if it has not begun."""
    goes_on = (folder / run_folder.SETTINGS).is_file()
    stored = run_folder.settings_as_overrides(folder, changed=[]) if goes_on else run_folder.as_overrides(job.settings)
    source = folder / run_folder.SETTINGS if goes_on else folder.parent / multirun.JOBS
    stored_settings.check_options(stored, source, command, option_folders)
    options = schema.groups(command)
    place = [f"hydra.sweep.subdir={override_grammar.quoted(job.folder)}"]
    if goes_on and command == "train":
        place.append(f"resume={override_grammar.quoted(str(folder))}")
    return [override_grammar.override(name, value, options) for name, value in stored.items()] + place


def _without_log_file(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """Remove a log file's handler if the file cannot be written (full disk); logging reports all other errors."""
    error = sys.exception()
    if not isinstance(error, OSError):
        return logging.Handler.handleError(handler, record)
    logging.getLogger().removeHandler(handler)
    log.warning("%s is not written any further: %s.", handler.baseFilename, error.strerror)


def _to_log_file(message: str) -> None:
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
