"""The door between the command line and a command: literal texts, one message for a mistake, exit codes.

Exit codes: 0 done; 2 the user can mend it; 130 Ctrl-C; 143 SIGTERM; 1 anything else. HYDRA_FULL_ERROR=1 shows
tracebacks.
"""

import errno
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from emotion_lightning import cluster, config, help, run_folder, schema
from emotion_lightning.errors import UserError, first_line

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"
_PATHS_OF_HYDRA = {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
_ARGUMENT = re.compile(r"(?P<sign>\+{0,2})(?P<name>[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)
_SWEEP_FUNCTION = re.compile(r"(choice|range|interval|glob|tag|sort|shuffle)\(.*\)", re.DOTALL)


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
    code: int | str | None = 0
    try:
        with _stop_on_signals():
            _run(command, work, arguments)
    except SystemExit as stop:
        code = stop.code
    except BrokenPipeError:
        # `… --help | head`: the reader has seen enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _JobsFailed as failed:
        print(failed, file=sys.stderr)
        code = 1
    except Exception as error:
        mistake = _as_user_error(command, error, arguments)
        if full_error:
            traceback.print_exc()
        elif mistake:
            print(mistake, file=sys.stderr)
        else:
            traceback.print_exc()
        code = 2 if mistake else 1
    sys.exit(code)


class _JobsFailed(Exception):
    """Jobs of a multirun failed."""


@dataclass
class _Failed:
    number: int | None
    overrides: str
    error: Exception


def _run(command: str, work: Callable[[Any, Path], Any], arguments: list[str]) -> None:
    schema.register()
    # Hydra's parser takes flags in front of settings only.
    arguments = sorted(arguments, key=lambda argument: bool(_ARGUMENT.fullmatch(argument)) or argument.startswith("~"))
    multirun = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    prepared = _with_run(command, _literal(command, arguments, multirun=multirun), multirun=multirun)
    informs = any(
        re.fullmatch(r"--help|-h|--hydra-help|--cfg|-c|--info|-i|--shell[-_]completion|-sc", a) for a in prepared
    )
    if {"--help", "-h"} & set(prepared):
        return _help(command, prepared)
    if not informs:
        _check_jobs(command, prepared, typed={match["name"] for a in arguments if (match := _ARGUMENT.fullmatch(a))})
    failed: list[_Failed] = []

    def job(cfg: DictConfig) -> Any:
        # Processes that a job starts again (DDP) read the line as it was typed.
        sys.argv[1:] = arguments
        os.environ.pop(FULL_ERROR, None)
        logging.captureWarnings(True)
        try:
            return work(schema.load(cfg, command), Path(HydraConfig.get().runtime.output_dir))
        except Exception as error:
            # Kept until Hydra is done: it would print words of its own and, in a multirun, drop the other jobs.
            failed.append(
                _Failed(
                    HydraConfig.get().job.num if in_multirun() else None,
                    HydraConfig.get().job.override_dirname,
                    error,
                )
            )
            mistake = _as_user_error(command, error, arguments)
            if in_multirun():
                log.error("%s", mistake or "".join(traceback.format_exception(error)))
            else:
                # The terminal hears of it at the end.
                _to_log_file(str(mistake or "".join(traceback.format_exception(error))))
            return None
        finally:
            os.environ[FULL_ERROR] = "1"

    sys.argv[1:] = prepared
    # Hydra would print its own words and exit with 1; with this it raises, and `run` finds better words.
    os.environ[FULL_ERROR] = "1"
    try:
        hydra.main(config_path=str(schema.conf_folder()), config_name=command, version_base="1.3")(job)()
    finally:
        sys.argv[1:] = arguments
        os.environ.pop(FULL_ERROR, None)
    if failed and not multirun:
        raise failed[0].error
    if failed:
        raise _JobsFailed("Failed jobs:\n" + "\n".join(f"  {job.number}: {job.overrides}" for job in failed))


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    # Lightning would turn Ctrl-C into exit code 1 and SIGTERM into 0; a SystemExit of our own passes through it.
    warning = None if cluster.in_submitit() else cluster.preemption_signal()

    def stop(number: int, _: Any) -> None:
        if number == warning:
            cluster.requeue()
            number = signal.SIGTERM
        raise Stopped(number)

    taken = [signal.SIGINT, signal.SIGTERM, *([warning] if warning else [])]
    before = {number: signal.signal(number, stop) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def options() -> dict[str, str]:
    """The option chosen in each group."""
    chosen = HydraConfig.get().runtime.choices
    return {group: str(chosen[group]) for group in sorted(schema.groups(str(HydraConfig.get().job.config_name)))}


def in_multirun() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


# ------------------------------------------------------------------------------------------------- literal values


def quoted(value: Any) -> str:
    """A value in Hydra's grammar, so that it comes out as it went in."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ",".join(quoted(part) for part in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{quoted(part)}" for key, part in value.items()) + "}"
    return QuotedString(text=_without_interpolation(str(value)), quote=Quote.single).with_quotes()


def _without_interpolation(text: str) -> str:
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _literal(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """Quote the values of text settings, which Hydra's grammar would take apart at commas, apostrophes and brackets."""
    literal = schema.text_settings(command)
    groups = schema.groups(command)
    prepared = []
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument)
        if not match:
            if argument.startswith("="):
                raise UserError(f"{argument} lacks a name; settings are given as name=value.")
            prepared.append(argument)
            continue
        sign, name, value = match["sign"], match["name"], match["value"]
        if name in groups and value in ("null", "None", ""):
            options = schema.option_files(name, command)
            raise UserError(f"{name}={value} is no option; choose {name}= one of {', '.join(options)}.")
        if name in literal or name in _PATHS_OF_HYDRA or name.startswith("model.roles."):
            value = _quote_text(name, value, multirun=multirun)
        prepared.append(f"{sign}{name}={value}")
    return prepared


def _quote_text(name: str, value: str, *, multirun: bool) -> str:
    if name == "text":
        return quoted(value)
    if value == "" and name != "data.separator":
        raise UserError(f"{name} is empty; give a value, or leave it out.")
    if value == "null" or re.fullmatch(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", value, re.DOTALL):
        return value  # unset, or quoted for Hydra already
    if multirun and _SWEEP_FUNCTION.fullmatch(value):
        return value
    parts = value.split(",")
    if multirun and len(parts) > 1 and all(parts) and not os.path.exists(value):
        return ",".join(_quote_path(part) for part in parts)
    return _quote_path(value)


def _quote_path(value: str) -> str:
    # Interpolations such as ${oc.env:HOME} are of use in paths and stay.
    return QuotedString(text=value, quote=Quote.single).with_quotes()


# ------------------------------------------------------------------------------------------------------- earlier runs


def _with_run(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """For resume= and from_run=, put that run's settings in front of the line."""
    if command not in ("train", "tune"):
        return arguments
    given = {match["name"]: match["value"] for a in arguments if (match := _ARGUMENT.fullmatch(a))}
    resume, source = _unquoted(given.get("resume")), _unquoted(given.get("from_run"))
    if command == "tune" and resume is not None:
        raise UserError(
            "resume= is of train. A study goes on when its line is given again, with hydra.run.dir=FOLDER where its "
            "storage is the file in that folder."
        )
    again = None if multirun or resume or command == "tune" else cluster.remembered(arguments)
    if again is not None:
        # A requeued job is started with the same line at another time; its run lies where it was.
        log.warning("This job was started before: it goes on in %s", again)
        resume, given, arguments = str(again), {}, []
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
        arguments += [f"resume={_quote_path(str(folder))}", f"hydra.run.dir={_quote_path(str(folder))}"]
    else:
        folder = _folder(str(source))
    stored = run_folder.settings_as_overrides(folder, changed=sorted(given))
    options = schema.groups(command)
    return [_override(name, value, options) for name, value in stored.items()] + arguments


def _override(name: str, value: Any, options: set[str]) -> str:
    if name in options:
        return f"{name}={value}"
    # Open mappings may hold keys that the option file does not.
    return f"{'++' if isinstance(value, dict) else ''}{name}={quoted(value)}"


def _unquoted(value: str | None) -> str | None:
    if value is None or value == "null":
        return None
    return re.sub(r"\\(['\"\\])", r"\1", value[1:-1]) if value[:1] in "'\"" else value


def _folder(path: str) -> Path:
    folder = Path(path).expanduser()
    if folder.name == run_folder.MODEL and not (folder / run_folder.SETTINGS).exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{path} is not a folder; give the folder of a run.")
    return folder


def shell_line(command: str, arguments: Sequence[str]) -> str:
    """A command line, ready to be pasted into a shell, its secrets hidden."""
    return shlex.join(["python", "-m", f"emotion_lightning.{command}", *map(schema.redacted_argument, arguments)])


# -------------------------------------------------------------------------------------------------------------- sweeps


def settings_of(command: str, arguments: list[str]) -> Any:
    """The settings that a command would have with these arguments, or a UserError for what it would refuse."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # a command that asks runs inside Hydra, which there is one of
    try:
        prepared = _with_run(command, _literal(command, arguments, multirun=False), multirun=False)
        with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
            return schema.load(compose(command, _overrides(prepared)), command)
    except (HydraException, OmegaConfBaseException) as error:
        raise _as_user_error(command, error, arguments) or error from error
    finally:
        GlobalHydra.instance().hydra = running


def _help(command: str, arguments: list[str]) -> None:
    # Hydra's own --help composes every option of every group first, which takes seconds.
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        cfg = compose(command, _overrides(arguments), return_hydra_config=True)
        groups = sorted(schema.groups(command))
        help.show(command, cfg, {group: str(cfg.hydra.runtime.choices[group]) for group in groups})


def _overrides(arguments: list[str]) -> list[str]:
    overrides = [a for a in arguments if _ARGUMENT.fullmatch(a) or a.startswith("~")]
    extra = [arguments[i + 1] for i, a in enumerate(arguments[:-1]) if a in ("--config-dir", "-cd")]
    extra += [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    if extra and not Path(extra[-1]).is_dir():
        raise UserError(f"--config-dir {extra[-1]} is not a folder.")
    if extra:
        overrides.append(f"hydra.searchpath=[{quoted('file://' + str(Path(extra[-1]).absolute()))}]")
    return overrides


def _check_jobs(command: str, arguments: list[str], *, typed: set[str]) -> None:
    """Load the settings of every job, so that a wrong one is refused before the first starts or a folder is made.

    `typed` are the names on the line itself, without those of an earlier run.
    """
    overrides = _overrides(arguments)
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        parser = OverridesParser.create()
        parsed = parser.parse_overrides(overrides)
        fixed = [o.input_line for o in parsed if not o.is_sweep_override()]
        base = compose(command, [str(o) for o in fixed], return_hydra_config=True)
        if not str(base.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
            return  # another sweeper (Optuna …) chooses its values as it goes
        presets = [f"{name}={value}" for name, value in (base.hydra.sweeper.params or {}).items()]
        swept = parser.parse_overrides(presets + overrides)
        (jobs,) = BasicSweeper.split_arguments(swept, max_batch_size=None)
        for job in jobs:
            settings = schema.load(compose(command, job), command)
            builds = isinstance(settings, config.Train | config.Inspect) and not settings.model.pretrained
            if builds and "model.path" in typed:
                raise UserError(
                    f"model.path={settings.model.path} would not be read: this model is built with random weights "
                    "(model.pretrained=false). Choose the option of its family, such as model=gemma model.path=…"
                )


# ------------------------------------------------------------------------------------------------------------ mistakes

_ACCESS = {
    getattr(errno, f"E{name}")
    for name in ["EXIST", "NOTDIR", "ISDIR", "ACCES", "PERM", "ROFS", "NOSPC", "DQUOT", "NAMETOOLONG", "FBIG"]
}


def _as_user_error(command: str, error: BaseException, arguments: list[str]) -> UserError | None:
    """The mistake behind an error, or None for one that is ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        choices = sorted(error.options)
        return UserError(
            f"Unknown option {group}={option}{schema.nearest(option, set(choices))} "
            f"Options of {group}: {', '.join(choices)}."
        )
    if isinstance(error, OverrideParseException):
        return UserError(f"Cannot read {error.override!r}; settings are given as name=value, lists as name=[a,b].")
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _from_hydra(command, error, arguments)
    return _of_system(error)


def _of_system(error: BaseException) -> UserError | None:
    """The mistake where a disk is full or a folder cannot be written to, also deep in a library."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _ACCESS:
            where = cause.filename or "A file"
            return UserError(f"{where}: {cause.strerror}; free some space or choose another folder.")
        # Libraries written in Rust put the system's number into their words.
        number = re.search(r"\(os error (\d+)\)", str(cause))
        if number and int(number[1]) in _ACCESS:
            reason = os.strerror(int(number[1]))
            return UserError(f"A file cannot be written: {reason}; free some space or choose another folder.")
        if str(cause).startswith("No space left on device"):
            return UserError("A file cannot be written: the disk is full; free some space or choose another folder.")
        cause = cause.__cause__
    return None


def _from_hydra(command: str, error: Exception, arguments: list[str]) -> UserError:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    first = first_line(error)
    merged = re.match(r"Error merging override \+*(?P<key>[^=\s]+)=", first)
    # Of a list's item Hydra names the override alone.
    key = str(getattr(cause, "full_key", None) or (merged["key"] if merged else "")).partition("[")[0]
    override = re.match(r"Could not override '(?P<key>[^']*)'", first)
    if override and not re.search(r"could not be converted|Invalid value|is not Optional", str(cause)):
        return schema.unknown_setting(command, override["key"].partition("@")[0])
    given = next((a for a in arguments if a.lstrip("+~").partition("=")[0] == key), None)
    hint = schema.type_of(command, key)
    if key and hint is not None:
        return UserError(f"{given or key} is not possible: {key} takes {schema.describe(hint)}.")
    if key and isinstance(cause, OmegaConfBaseException) and "not in" in str(cause):
        return schema.unknown_setting(command, key)
    detail = str(cause).splitlines()[0] if cause is not error and str(cause) else ""
    return UserError(f"{first} {detail}".strip())


def _to_log_file(message: str) -> None:
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
