"""The door between the command line and a command: literal texts, one message for a mistake, exit codes.

Exit codes: 0 done; 2 the user can mend it; 130 Ctrl-C; 143 SIGTERM; 1 anything else. HYDRA_FULL_ERROR=1 shows
tracebacks.
"""

import logging
import os
import platform
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from emotion_lightning import config, terminal
from emotion_lightning.cli import gpu_slots, help, messages, multirun, override_grammar
from emotion_lightning.config import redaction, schema, stored_settings
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.runs import manifest, run_folder, slurm, waiting
from emotion_lightning.version import __version__

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"
_RESUME = "sweep.resume="
_KEEP_RUNS = ("train", "baseline")
"""Commands whose multiruns are written down, so that they can go on."""
_FILL_THEIR_FOLDER = {**dict.fromkeys(_KEEP_RUNS, "The run in"), "evaluate": "The evaluation in", "inspect": "The "
                      "inspection in", "compare": "The comparison in"}  # fmt: skip
"""Commands of which two would mix their results in one folder, as where both start in the same second."""


class Stopped(SystemExit):
    """A signal ended the command; the exit code is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def run(command: str, work: Callable[[Any, Path], Any]) -> None:
    """Read the command line and do the work; never returns.

    Args:
        command: name of the command, which is also the name of its file in conf/.
        work: is called with the settings and the folder for what it writes.
    """
    arguments = sys.argv[1:]
    full_error = os.environ.pop(FULL_ERROR, "") == "1"
    redaction.in_logs()
    code: int | str | None = 0
    terminal.prepare()
    try:
        arguments = sys.argv[1:] = [override_grammar.as_text(argument) for argument in arguments]
        _know_names(arguments)
        with _stop_on_signals():
            _run(command, work, arguments)
    except SystemExit as stop:
        if isinstance(stop, Stopped) and not slurm.is_first_process():
            _leave_to_the_first()
        if isinstance(stop, Stopped) and slurm.in_wandb_sweep():
            _die_by(stop.number)
        code = stop.code
    except BrokenPipeError:
        # A library prints, and the reader has seen enough. Python would complain once more while it closes stdout.
        terminal.discard(sys.stdout)
    except _JobsFailed as failed:
        terminal.say(redaction.text(str(failed)), error=True)
        code = 1
    except Exception as error:
        mistake = messages.as_user_error(command, error, arguments)
        told = str(mistake) if mistake and not full_error else traceback.format_exc().rstrip()
        terminal.say(redaction.text(told), error=True)
        code = 2 if mistake else 1
    waiting.end()
    sys.exit(code)


def _know_names(arguments: list[str]) -> None:
    """Show names of files that the line gives on one line each, and those of the folders that it is given in."""
    given = [argument.partition("=") for argument in arguments]
    terminal.know_names(*(value for name, _, value in given if name != "text"))
    with suppress(FileNotFoundError):  # somebody removed it
        terminal.know_names(Path.cwd())


def _leave_to_the_first() -> None:
    """End one of several processes that were stopped together; the first says how it went.

    Lightning's launcher kills the first within five seconds of another's exit code that is not 0, and it may still be
    closing its logger.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Past the interpreter's end, in which threads of C++ have been seen to abort.
    os._exit(0)


def _die_by(number: int) -> None:
    """End by the signal itself: to a shell the same exit code, to W&B's agent no failure; it gives up after some."""
    waiting.end()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class _JobsFailed(Exception):
    """Jobs of a multirun failed."""


@dataclass
class _Work:
    """What each job of a line does.

    Attributes:
        command: its name.
        do: is called with the settings and the folder.
        arguments: the line as it was typed.
        record: the multirun that is written down; None for a single job, and for commands that keep no runs.
        failed: where the errors of this process are kept.
    """

    command: str
    do: Callable[[Any, Path], Any]
    arguments: list[str]
    record: multirun.Multirun | None
    failed: list[tuple[str, Exception]]


def _run(command: str, do: Callable[[Any, Path], Any], arguments: list[str]) -> None:
    schema.register()
    # Hydra's parser takes flags in front of settings only.
    arguments = sorted(
        arguments, key=lambda argument: bool(override_grammar.ARGUMENT.fullmatch(argument)) or argument.startswith("~")
    )
    several = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    if "--version" in arguments:  # Hydra's flag of that name tells Hydra's
        return terminal.say(f"emotion_lightning {__version__}, Python {platform.python_version()}")
    if {"--help", "-h"} & set(arguments):
        return _help(
            command,
            override_grammar.literal(command, [a for a in arguments if not a.startswith(_RESUME)], multirun=several),
        )
    if several and command == "tune":
        raise UserError("tune starts its trials itself; leave out -m, and choose what is searched with space=.")
    asked = next((a.removeprefix(_RESUME) for a in arguments if a.startswith(_RESUME)), None)
    if several and asked is None and (started := slurm.remembered(arguments, multirun.JOBS)):
        log.warning("This job was started before: it goes on in %s", started)
        return _resume_multirun(command, do, started, arguments, typed=[])
    if asked is not None:
        folder = multirun.newest_unfinished(Path("outputs/multirun")) if asked == "auto" else _sweep_folder(asked)
        typed = [a for a in arguments if override_grammar.ARGUMENT.fullmatch(a) and not a.startswith(_RESUME)]
        return _resume_multirun(command, do, folder, arguments, typed=typed)
    line = override_grammar.literal(command, arguments, multirun=several)
    if command == "train" and not several and (begun := slurm.remembered(arguments, run_folder.SETTINGS)):
        # A requeued job is started with the same line at another time; its run lies where it was.
        log.warning("This job was started before: it goes on in %s", begun)
        line = [f"resume={override_grammar.quote_path(str(begun))}"]
    prepared = _with_run(command, line, multirun=several)
    work = _Work(command, do, arguments, record=None, failed=[])
    if any(re.fullmatch(r"--hydra-help|--cfg|-c|--info|-i|--shell[-_]completion|-sc", a) for a in prepared):
        return _hydra(work, prepared)
    if command == "predict" and not several:
        prepared += _without_folder(prepared)
    typed_names = {match["name"] for a in arguments if (match := override_grammar.ARGUMENT.fullmatch(a))}
    plan = _check_jobs(command, prepared, typed=typed_names)
    if plan is not None and several and plan.launcher.endswith("SlurmLauncher") and not shutil.which("srun"):
        raise UserError(messages.NO_SLURM)
    if plan is not None and several and command in _KEEP_RUNS:
        record = multirun.Multirun(
            plan.folder,
            command,
            [redaction.argument(argument) for argument in arguments],
            [redaction.argument(argument) for argument in _hydra_settings(prepared)],
            plan.metric,
            plan.jobs,
        )
        work.record = record
        place = f"hydra.sweep.dir={override_grammar.quote_path(str(plan.folder))}"
        return _multirun(work, [*prepared, place], plan.overrides, is_new=True)
    _hydra(work, prepared)
    if work.failed and several:
        raise _JobsFailed("Failed jobs:\n" + "\n".join(f"  {name}" for name, _ in work.failed))
    if work.failed:
        raise work.failed[0][1]


def _without_folder(line: Sequence[str]) -> list[str]:
    """What keeps a question, `predict text=…`, from leaving a folder with an empty log, unless a place is given."""
    names = {match["name"] for argument in line if (match := override_grammar.ARGUMENT.fullmatch(argument))}
    if "text" not in names or names & {"input", "hydra.run.dir"}:
        return []
    return ["hydra.run.dir=.", "hydra.job_logging.root.handlers=[console]", "~hydra.job_logging.handlers.file"]


def _hydra(work: _Work, prepared: list[str]) -> None:
    """Let Hydra read the line and call the job, or the jobs."""
    sys.argv[1:] = prepared
    # Hydra would print its own words and exit with 1; with this it raises, and `run` finds better words.
    os.environ[FULL_ERROR] = "1"
    try:
        # A closure, since submitit sends it to other processes by value.
        main = hydra.main(config_path=str(schema.conf_folder()), config_name=work.command, version_base="1.3")
        main(lambda cfg: _job(work, cfg))()
    finally:
        sys.argv[1:] = work.arguments
        os.environ.pop(FULL_ERROR, None)


def _job(work: _Work, cfg: DictConfig) -> Any:
    """One job, whose error is kept until Hydra is done: it would print words of its own and drop the other jobs."""
    # Processes that a job starts again (DDP) read the line as it was typed.
    sys.argv[1:] = work.arguments
    os.environ.pop(FULL_ERROR, None)
    logging.captureWarnings(True)
    redaction.in_logs()  # submitit starts jobs in processes of its own
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = partial(_without_log_file, handler)  # type: ignore[method-assign]
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        with _stop_on_signals() if slurm.in_submitit() else nullcontext(), _place_of_job():
            if work.command not in _FILL_THEIR_FOLDER or not slurm.is_first_process():
                return work.do(schema.load(cfg, work.command), folder)
            with multirun.claimed(folder, _FILL_THEIR_FOLDER[work.command]):
                return _kept_job(work, cfg, folder)
    except Exception as error:
        mistake = messages.as_user_error(work.command, error, work.arguments)
        told = str(mistake or "".join(traceback.format_exception(error)))
        if in_multirun():
            log.error("%s", told)
        elif not isinstance(error, multirun.AtWork):  # the log is that of the other process
            # The terminal hears of it at the end.
            _to_log_file(told)
        number = f"{HydraConfig.get().job.num}: " if in_multirun() else ""
        work.failed.append((f"{number}{HydraConfig.get().job.override_dirname}", error))
        return None
    finally:
        os.environ[FULL_ERROR] = "1"
        found = multirun.of(folder)
        if found and slurm.is_first_process():
            multirun.write_table(found[0])


@contextmanager
def _place_of_job() -> Iterator[None]:
    """Where submitit starts jobs side by side: GPUs and cores of its own, and how its processes find each other."""
    launcher = HydraConfig.get().launcher if slurm.in_submitit() else {}
    with gpu_slots.share(
        gpus=launcher.get("gpus_per_node") or 0,
        cpus=launcher.get("cpus_per_task"),
        tasks=launcher.get("tasks_per_node") or 1,
    ):
        slurm.join_processes()
        yield


def _kept_job(work: _Work, cfg: DictConfig, folder: Path) -> Any:
    """The work of a run that stays, with a note of why it failed if it is a multirun's."""
    found = multirun.of(folder)
    if found is None:
        return work.do(schema.load(cfg, work.command), folder)
    whole, job = found
    if in_multirun():
        log.info("Job %d, %s", job.number, job.name)
    multirun.forget_failure(folder)
    try:
        return work.do(schema.load(cfg, work.command), folder)
    except Exception as error:
        mistake = messages.as_user_error(work.command, error, work.arguments)
        detail = str(mistake) if mistake else first_line(error) + "\n\n" + "".join(traceback.format_exception(error))
        multirun.note_failure(folder, detail)
        raise


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    # Lightning would turn Ctrl-C into exit code 1 and SIGTERM into 0; a SystemExit of our own passes through it.
    warning = None if slurm.in_submitit() else slurm.preemption_signal()

    def stop(number: int, _: Any) -> None:
        if slurm.in_wandb_sweep() and isinstance(sys.exception(), Stopped):
            return  # the second of the two signals that stop a run of a sweep; W&B is about to close it
        if number == warning:
            slurm.requeue()
            number = signal.SIGTERM
        raise Stopped(number)

    # submitit lets SIGTERM pass and waits for its own signal.
    taken = [signal.SIGINT, *([] if slurm.in_submitit() else [signal.SIGTERM]), *([warning] if warning else [])]
    before = {number: signal.signal(number, stop) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def options() -> dict[str, str]:
    """The option chosen in each group."""
    return _options(HydraConfig.get().runtime.choices, str(HydraConfig.get().job.config_name))


def _options(chosen: Any, command: str) -> dict[str, str]:
    return {group: str(chosen[group]) for group in sorted(schema.groups(command))}


def in_multirun() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def say_next_steps(folder: Path) -> None:
    """Tell what a finished run is for: lines to be copied. A multirun tells its own at its end, of the best job."""
    if in_multirun():
        return
    if (folder / run_folder.REPORT).exists():
        log.info("Open its report in a browser: %s", (folder / run_folder.REPORT).resolve().as_uri())
    log.info(
        "Predict with it: %s",
        override_grammar.shell_line("predict", [f"run={folder}", "input=FILE", "output=labelled.csv"]),
    )
    log.info("Ask it about one text: %s", override_grammar.shell_line("predict", [f"run={folder}", "text=We won!"]))


# ------------------------------------------------------------------------------------------------------- earlier runs


def _with_run(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """For resume= and from_run=, put that run's settings in front of the line."""
    if command not in ("train", "tune"):
        return arguments
    given = {match["name"]: match["value"] for a in arguments if (match := override_grammar.ARGUMENT.fullmatch(a))}
    resume, source = override_grammar.unquoted(given.get("resume")), override_grammar.unquoted(given.get("from_run"))
    if command == "tune" and resume is not None:
        raise UserError(
            "resume= is of train. A study goes on when its line is given again, with hydra.run.dir=FOLDER where its "
            "storage is the file in that folder."
        )
    if resume is None and source is None:
        return arguments
    if resume is not None:
        others = [name for name in given if name not in ("resume", "hydra.run.dir") and not name.startswith("hydra.")]
        if multirun or others:
            raise UserError(
                f"resume goes on with the run's own settings; leave out {', '.join(others) or '-m'}, or start a new "
                "run with from_run=FOLDER and the settings to change."
            )
        folder = run_folder.newest_unfinished(Path("outputs/train")) if resume == "auto" else _folder(resume)
        arguments = [a for a in arguments if not a.startswith(("resume=", "hydra.run.dir="))]
        arguments += [
            f"resume={override_grammar.quote_path(str(folder))}",
            f"hydra.run.dir={override_grammar.quote_path(str(folder))}",
        ]
    else:
        folder = _folder(str(source))
    manifest.check_run(folder, run_folder.SETTINGS, run_folder.SPLITS)
    stored = run_folder.settings_as_overrides(folder, changed=sorted(given))
    stored_settings.check_options(stored, folder / run_folder.SETTINGS, command, _option_folders(arguments))
    options = schema.groups(command)
    return [override_grammar.override(name, value, options) for name, value in stored.items()] + arguments


def _folder(path: str) -> Path:
    folder = Path(path).expanduser()
    if folder.name == run_folder.MODEL and not (folder / run_folder.SETTINGS).exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{path} is not a folder; give the folder of a run.")
    return folder


# -------------------------------------------------------------------------------------------------------------- sweeps


def settings_of(command: str, arguments: list[str]) -> Any:
    """The settings that a command would have with these arguments, or a UserError for what it would refuse."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # a command that asks runs inside Hydra, which there is one of
    try:
        prepared = _with_run(command, override_grammar.literal(command, arguments, multirun=False), multirun=False)
        with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
            return schema.load(compose(command, _overrides(prepared)), command)
    except (HydraException, OmegaConfBaseException) as error:
        raise messages.as_user_error(command, error, arguments) or error from error
    finally:
        GlobalHydra.instance().hydra = running


def _help(command: str, arguments: list[str]) -> None:
    # Hydra's own --help composes every option of every group first, which takes seconds.
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        cfg = compose(command, _first_of_each(_overrides(arguments)), return_hydra_config=True)
        groups = sorted(schema.groups(command))
        help.show(command, cfg, {group: str(cfg.hydra.runtime.choices[group]) for group in groups})


def _parser() -> OverridesParser:
    """Within a configuration folder, whose options peft=glob(*) stands for."""
    return OverridesParser.create(GlobalHydra.instance().config_loader())


def _first_of_each(overrides: list[str]) -> list[str]:
    """The overrides of one job: of what is swept the first value, of a range without steps none."""
    parsed = _parser().parse_overrides(overrides)
    swept = {o.get_key_element(): o for o in parsed if o.is_sweep_override()}
    first = [f"{name}={next(o.sweep_string_iterator())}" for name, o in swept.items() if o.is_discrete_sweep()]
    return [str(o.input_line) for o in parsed if not o.is_sweep_override()] + first


def _overrides(arguments: list[str]) -> list[str]:
    overrides = [a for a in arguments if override_grammar.ARGUMENT.fullmatch(a) or a.startswith("~")]
    extra = _config_dirs(arguments)
    if extra and not Path(extra[-1]).is_dir():
        raise UserError(f"--config-dir {extra[-1]} is not a folder.")
    if extra:
        overrides.append(f"hydra.searchpath=[{override_grammar.quoted('file://' + str(Path(extra[-1]).absolute()))}]")
    return overrides


def _config_dirs(arguments: Sequence[str]) -> list[str]:
    """Folders given by --config-dir; Hydra takes the last one."""
    apart = [arguments[i + 1] for i, a in enumerate(arguments[:-1]) if a in ("--config-dir", "-cd")]
    return apart + [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]


def _option_folders(arguments: Sequence[str]) -> list[Path]:
    """Folders of option files that the user named on this line."""
    searched = [a.partition("=")[2] for a in arguments if a.startswith("hydra.searchpath=")]
    named = [place for value in searched for place in re.findall(r"file://([^,\]'\"]+)", value)]
    return [Path(place).expanduser() for place in (*_config_dirs(arguments)[-1:], *named)]


@dataclass
class _Plan:
    """What a line is about to run.

    Attributes:
        folder: of the multirun.
        launcher: the class that starts its jobs.
        metric: the score on validation that puts the jobs in order.
        overrides: of each job.
        jobs: the same, as it is written down.
    """

    folder: Path
    launcher: str
    metric: str
    overrides: list[list[str]]
    jobs: list[multirun.Job]


def _check_jobs(command: str, arguments: list[str], *, typed: set[str]) -> _Plan | None:
    """Load the settings of every job, so that a wrong one is refused before the first starts or a folder is made.

    `typed` are the names on the line itself, without those of an earlier run. None: what runs is chosen on the way.
    """
    overrides = _overrides(arguments)
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        parser = _parser()
        parsed = parser.parse_overrides(overrides)
        fixed = [o.input_line for o in parsed if not o.is_sweep_override()]
        base = compose(command, [str(o) for o in fixed], return_hydra_config=True)
        if not str(base.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
            return None  # another sweeper (Optuna …) chooses its values as it goes
        presets = [f"{name}={value}" for name, value in (base.hydra.sweeper.params or {}).items()]
        swept = parser.parse_overrides(presets + overrides)
        (lines,) = BasicSweeper.split_arguments(swept, max_batch_size=None)
        place, launcher = Path(str(base.hydra.sweep.dir)), str(base.hydra.launcher.get("_target_", ""))
        # A job alone is what the line came to already.
        alone = not presets and len(fixed) == len(parsed)
        jobs, metrics = [], set()
        for number, (line, differs) in enumerate(zip(lines, multirun.differences(lines), strict=True)):
            cfg = base if alone else compose(command, line, return_hydra_config=True)
            folder, options = _place(cfg, number), _options(cfg.hydra.runtime.choices, command)
            with open_dict(cfg):
                del cfg["hydra"]
            settings = schema.load(cfg, command)
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
            if command in _KEEP_RUNS:
                metrics.add(_METRICS[settings.thresholds.metric])
                tree = run_folder.to_keep(settings, options)
                jobs.append(multirun.Job(number, folder, differs, tree, schema.schema_of(settings.thresholds)))
        metric = metrics.pop() if len(metrics) == 1 else "f1_macro"
        return _Plan(place, launcher, metric, lines, jobs)


_METRICS = {
    config.ThresholdMetric.macro: "f1_macro",
    config.ThresholdMetric.micro: "f1_micro",
    config.ThresholdMetric.jaccard: "jaccard",
}


def _place(cfg: DictConfig, number: int) -> str:
    """The folder of a job below its multirun's."""
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.job.num = number
        cfg.hydra.job.id = str(number)
    return str(cfg.hydra.sweep.subdir)


def _hydra_settings(arguments: list[str]) -> list[str]:
    """What a line tells Hydra itself and a later line must tell it again: launcher, places of option files."""
    return [
        override
        for override in _overrides(arguments)
        if override.startswith(("hydra.", "hydra/"))
        and not override.startswith(("hydra.sweep.", "hydra.sweeper.params", "hydra.mode", "hydra.run."))
    ]


def _multirun(work: _Work, prepared: list[str], jobs: list[list[str]], *, is_new: bool) -> None:
    """Run the jobs of a multirun, and say how each went: also after a stop, and of what another process killed."""
    record = work.record
    assert record is not None
    go_on = override_grammar.shell_line(work.command, ["-m", f"{_RESUME}{record.folder}"])
    with multirun.claimed(record.folder, "The multirun in"):
        if is_new:
            multirun.write(record)
        slurm.remember(record.folder, work.arguments)
        try:
            with _these_jobs(jobs):
                _hydra(work, prepared)
        except Stopped:
            gpu_slots.stop()
            multirun.write_table(record)
            multirun.show(record)
            log.warning("Stopped; go on with: %s", go_on)
            raise
        except Exception as error:
            # submitit's word for a job that was killed; the others are still at work.
            if not type(error).__module__.startswith("submitit"):
                raise
            log.error("%s", first_line(error))
            gpu_slots.wait()
        multirun.write_table(record)
        multirun.show(record)
    if left := multirun.unfinished(record):
        raise _JobsFailed(
            "Failed jobs:\n"
            + "\n".join(f"  {job.number}: {job.name}: {why}" for job, why in left)
            + f"\nTry them again with: {go_on}"
        )


@contextmanager
def _these_jobs(jobs: list[list[str]]) -> Iterator[None]:
    """Hydra's own sweeper starts these jobs: the list that was checked and written down, or what is left of it."""

    def sweep(self: Any, arguments: Any) -> Any:
        local = type(self.launcher).__name__ == "LocalLauncher"
        with gpu_slots.hidden_from_terminal() if local else nullcontext():
            results: list[Any] = []
            for batch in self.split_overrides_to_chunks(jobs, self.max_batch_size):
                results += self.launcher.launch(batch, initial_job_idx=len(results))
        return results

    def told(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("\t#")  # every setting of every job, where the name of one is enough

    # Hydra loads its plugins a second time: the class that it uses is not the one that is imported above.
    sweeper: Any = Plugins.instance().class_name_to_class[f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"]
    original = sweeper.sweep
    launchers = [
        logging.getLogger(name)
        for name in (
            "hydra._internal.core_plugins.basic_launcher",
            "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
        )
    ]
    try:
        # A sweeper of one's own would have to live in a package named hydra_plugins.
        sweeper.sweep = sweep
        for launcher in launchers:
            launcher.addFilter(told)
        yield
    finally:
        sweeper.sweep = original
        for launcher in launchers:
            launcher.removeFilter(told)


def _sweep_folder(path: str) -> Path:
    folder = Path(override_grammar.unquoted(path) or "").expanduser()
    if path in ("", "null") or not folder.is_dir():
        raise UserError(f"{_RESUME}{path} is no folder; give the folder of a multirun.")
    return folder


def _resume_multirun(
    command: str, do: Callable[[Any, Path], Any], folder: Path, arguments: list[str], *, typed: Sequence[str]
) -> None:
    """Go on with a multirun: its unfinished jobs from where they stand, those that never began from their settings."""
    record = multirun.read(folder)
    if record.command != command:
        raise UserError(f"{folder} is a multirun of {record.command}; go on with it by that command.")
    launcher = [a for a in typed if a.startswith(("hydra/launcher=", "hydra.launcher."))]
    line = [a for a in arguments if not a.startswith(_RESUME)]
    typed_hydra = _hydra_settings(override_grammar.literal(command, line, multirun=True))
    if others := [a for a in typed if a not in launcher and a not in record.arguments]:
        raise UserError(
            f"{multirun.resume(folder)} goes on with the multirun's own jobs and settings; leave out "
            f"{', '.join(others)}, or start a new multirun without sweep.resume."
        )
    given = {a.partition("=")[0] for a in launcher}
    for told in record.hydra:
        if redaction.HIDDEN in told and told.partition("=")[0] not in given:
            raise UserError(f"{told} was kept without its secret; give it again, beside {multirun.resume(folder)}.")
    states = {job.number: record.state(job) for job in record.jobs}
    left = [job for job in record.jobs if states[job.number] != multirun.FINISHED]
    if running := [job.name for job in left if states[job.number] == multirun.RUNNING]:
        raise UserError(f"Jobs of {folder} are still at work: {', '.join(running)}. Wait for their end, or stop them.")
    if not left:
        multirun.write_table(record)
        multirun.show(record)
        log.info("All jobs in %s are finished; there is nothing to resume.", folder)
        return
    log.info("%d of %d jobs are finished; going on with the others.", len(record.jobs) - len(left), len(record.jobs))
    kept = multirun.kept_hydra_settings(record, typed_hydra)
    prepared = ["-m", *kept, *typed_hydra, f"hydra.sweep.dir={override_grammar.quote_path(str(folder))}"]
    jobs = [_again(command, record.at(job), job, _option_folders(line)) for job in left]
    _multirun(_Work(command, do, arguments, record, failed=[]), prepared, jobs, is_new=False)


def _again(command: str, folder: Path, job: multirun.Job, option_folders: Sequence[Path]) -> list[str]:
    """The overrides that start a job where it stands, or as it was meant to start."""
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
    """Go on without a log file that cannot be written, as on a full disk; what else goes wrong logging itself tells."""
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
