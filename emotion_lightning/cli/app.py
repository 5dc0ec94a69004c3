"""Run a command from its command line, and report an error as one message and an exit code.

Exit codes: 0 success; 2 an error that the user can fix; 130 Ctrl-C; 143 SIGTERM; 1 any other error.
HYDRA_FULL_ERROR=1 shows tracebacks.
"""

import importlib.metadata
import logging
import os
import platform
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from emotion_lightning import terminal
from emotion_lightning.cli import help, messages, model_option, multirun, override_grammar, own_options, ray_jobs
from emotion_lightning.cli.compose import first_of_each, hydra_settings, in_multirun, overrides_of, with_earlier_run
from emotion_lightning.cli.jobs import (
    FULL_ERROR,
    KEEP_RUNS,
    RESUME,
    JobsFailed,
    Planned,
    Work,
    check_jobs,
    resume_multirun,
    run_hydra,
    run_multirun,
    stop_on_signals,
    sweep_folder,
)
from emotion_lightning.config import redaction, schema
from emotion_lightning.errors import Stopped, UserError
from emotion_lightning.runs import run_folder, slurm, waiting
from emotion_lightning.version import __version__

log = logging.getLogger(__name__)


def run_command(command: str, work: Callable[[Any, Path], Any]) -> None:
    """Read the command line, run the command and exit the process.

    Args:
        command: name of the command. Its main configuration is conf/<command>.yaml.
        work: function that runs the command. Its arguments are the settings and the output folder.
    """
    arguments = sys.argv[1:]
    full_error = os.environ.pop(FULL_ERROR, "") == "1"
    redaction.in_logs()
    code: int | str | None = 0
    terminal.prepare()
    try:
        arguments = sys.argv[1:] = [override_grammar.as_text(argument) for argument in arguments]
        _know_names(arguments)
        with stop_on_signals():
            _run(command, work, arguments)
    except SystemExit as stop:
        if isinstance(stop, Stopped) and not slurm.is_first_process():
            _leave_to_the_first()
        if isinstance(stop, Stopped) and slurm.in_wandb_sweep():
            _die_by(stop.number)
        code = stop.code
    except BrokenPipeError:
        # A library printed to a pipe whose reader has exited. Without this, Python reports a second error when it
        # closes stdout.
        terminal.discard(sys.stdout)
    except JobsFailed as failed:
        terminal.say(redaction.hide_secrets(str(failed)), error=True)
        code = 1
    except Exception as error:
        mistake = messages.as_user_error(command, error, arguments)
        message = str(mistake) if mistake and not full_error else traceback.format_exc().rstrip()
        if mistake and mistake.ways and command != "inspect":
            of_data = [argument for argument in arguments if argument.startswith(("data=", "data."))]
            message += f"\nTo see what it holds: {override_grammar.shell_line('inspect', of_data)}"
        terminal.say(redaction.hide_secrets(message), error=True)
        code = 2 if mistake else 1
    waiting.end_status()
    sys.exit(code)


def _know_names(arguments: list[str]) -> None:
    """Register the paths of the command line and of the working directory, so that each is shown on one line."""
    given = [argument.partition("=") for argument in arguments]
    terminal.know_names(*(value for name, _, value in given if name != "text"))
    with suppress(FileNotFoundError):  # the working directory was removed
        terminal.know_names(Path.cwd())


def _leave_to_the_first() -> None:
    """End this process with exit code 0, so that the first process can report the stop.

    When one process exits with another code, Lightning's launcher kills the first process within five seconds, perhaps
    while it still closes its logger.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Skip the interpreter's shutdown: C++ threads have aborted during it.
    os._exit(0)


def _die_by(number: int) -> None:
    """End this process by the signal itself.

    A shell sees the same exit code. W&B's agent does not count it as a failed run; it gives up after several of those.
    """
    waiting.end_status()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _run(command: str, do: Callable[[Any, Path], Any], arguments: list[str]) -> None:
    schema.register()
    own_options.register(command, arguments)
    if (told := ray_jobs.told_job(command, arguments)) is not None:
        return ray_jobs.run_job(do, told, arguments)
    # Hydra's parser accepts flags only before settings.
    arguments = sorted(
        arguments, key=lambda argument: bool(override_grammar.ARGUMENT.fullmatch(argument)) or argument.startswith("~")
    )
    override_grammar.refuse_dashes(command, arguments)
    several = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    if "--version" in arguments:  # otherwise Hydra prints its own version
        return terminal.say(_versions())
    if {"--help", "-h"} & set(arguments):
        return _help(
            command,
            override_grammar.quote_texts(command, [a for a in arguments if not a.startswith(RESUME)], multirun=several),
        )
    if several and command == "serve":
        raise UserError("serve starts one server; leave out -m, and start another one with a serve.port of its own.")
    if several and command == "tune":
        raise UserError("tune starts its trials itself; leave out -m, and choose what is searched with space=.")
    asked = next((a.removeprefix(RESUME) for a in arguments if a.startswith(RESUME)), None)
    if several and asked is None and (started := slurm.remembered(arguments, multirun.JOBS)):
        log.warning("This job was started before: it goes on in %s", started)
        return resume_multirun(command, do, started, arguments, typed=[])
    if asked is not None:
        folder = multirun.newest_unfinished(Path("outputs/multirun")) if asked == "auto" else sweep_folder(asked)
        typed = [a for a in arguments if override_grammar.ARGUMENT.fullmatch(a) and not a.startswith(RESUME)]
        return resume_multirun(command, do, folder, arguments, typed=typed)
    line = override_grammar.quote_texts(command, arguments, multirun=several)
    if command == "train" and not several and (begun := slurm.remembered(arguments, run_folder.SETTINGS)):
        # SLURM starts a requeued job with the same command line, but a new run folder would be named after the new
        # time.
        log.warning("This job was started before: it goes on in %s", begun)
        line = [f"resume={override_grammar.quote_path(str(begun))}"]
    prepared = model_option.with_fitting_option(
        command, with_earlier_run(command, line, multirun=several), typed=arguments
    )
    work = Work(command, do, arguments, record=None, failed=[])
    if any(re.fullmatch(r"--hydra-help|--cfg|-c|--info|-i|--shell[-_]completion|-sc", a) for a in prepared):
        return run_hydra(work, prepared)
    if command in ("predict", "serve") and not several:
        prepared += _without_folder(command, prepared)
    typed_names = {match["name"] for a in arguments if (match := override_grammar.ARGUMENT.fullmatch(a))}
    plan = check_jobs(command, prepared, typed=typed_names)
    if plan is not None and several:
        _check_launcher(plan.launcher)
    if plan is not None and several and command in KEEP_RUNS:
        record = multirun.Multirun(
            plan.folder,
            command,
            [redaction.argument(argument) for argument in arguments],
            [redaction.argument(argument) for argument in hydra_settings(prepared)],
            plan.metric,
            plan.jobs,
        )
        work.record = record
        place = f"hydra.sweep.dir={override_grammar.quote_path(str(plan.folder))}"
        jobs = [Planned(number, overrides) for number, overrides in enumerate(plan.overrides)]
        return run_multirun(work, [*prepared, place], jobs, is_new=True)
    run_hydra(work, prepared)
    if work.failed and several:
        raise JobsFailed("Failed jobs:\n" + "\n".join(f"  {name}" for name, _ in work.failed))
    if work.failed:
        raise work.failed[0][1]


def _check_launcher(launcher: dict[str, Any]) -> None:
    """Raise UserError if the launcher cannot start jobs on this machine, before anything is written."""
    match str(launcher.get("_target_", "")).rpartition(".")[2]:
        case "SlurmLauncher" if not shutil.which("srun"):
            raise UserError(messages.NO_SLURM)
        case "LocalLauncher":
            raise UserError(multirun.GONE)
        case "RayLauncher":
            ray_jobs.check(launcher)


def _versions() -> str:
    """This program's version, and those of what its numbers depend on; nothing heavy is imported for it."""
    lines = [f"emotion_lightning {__version__}, Python {platform.python_version()}"]
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed")
    return "\n".join(lines)


def _without_folder(command: str, line: Sequence[str]) -> list[str]:
    """Overrides with which `predict text=…` and `serve` create no folder and no log file; empty if one is given."""
    names = {match["name"] for argument in line if (match := override_grammar.ARGUMENT.fullmatch(argument))}
    if (command == "predict" and "text" not in names) or names & {"input", "hydra.run.dir"}:
        return []
    return ["hydra.run.dir=.", "hydra.job_logging.root.handlers=[console]", "~hydra.job_logging.handlers.file"]


def say_report(folder: Path) -> None:
    """Log the address of a report, if there is one and this is no job of a multirun."""
    report = folder / run_folder.REPORT
    if report.exists() and not in_multirun():
        log.info("Open its report in a browser: %s", report.resolve().as_uri())


def say_next_steps(folder: Path) -> None:
    """Log the commands that use a finished run. For a multirun, `multirun.show_table` prints them for the best job."""
    if in_multirun():
        return
    say_report(folder)
    log.info(
        "Predict with it: %s",
        override_grammar.shell_line("predict", [f"run={folder}", "input=FILE", "output=labelled.csv"]),
    )
    log.info("Predict one text: %s", override_grammar.shell_line("predict", [f"run={folder}", "text=We won!"]))


def _help(command: str, arguments: list[str]) -> None:
    # Hydra's own --help first composes every option of every group, which takes seconds.
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        cfg = compose(command, first_of_each(overrides_of(arguments)), return_hydra_config=True)
        groups = sorted(schema.groups(command))
        help.show_help(command, cfg, {group: str(cfg.hydra.runtime.choices[group]) for group in groups})
