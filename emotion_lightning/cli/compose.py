"""Compose the settings of a job from a command line and, where it names one, from an earlier run."""

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf.errors import OmegaConfBaseException

from emotion_lightning.cli import messages, override_grammar
from emotion_lightning.config import schema, stored_settings
from emotion_lightning.errors import UserError
from emotion_lightning.runs import manifest, run_folder


@dataclass(frozen=True)
class Job:
    """What the work of a command needs to know beside its settings.

    Attributes:
        options: the option chosen in each group.
        arguments: command line that started the job, for its records.
        multirun: whether the job belongs to a multirun.
        own_process: whether the process runs only this command. If not, the job runs in the program of somebody else:
            it prints nothing, and sets nothing for the whole process.
    """

    options: dict[str, str]
    arguments: list[str]
    multirun: bool = False
    own_process: bool = True


def current_job() -> Job:
    """The job that Hydra runs in this process."""
    return Job(chosen_options(), list(sys.argv), multirun=in_multirun())


def chosen_options() -> dict[str, str]:
    """The option chosen in each group of the current job."""
    return options_of(HydraConfig.get().runtime.choices, str(HydraConfig.get().job.config_name))


def options_of(chosen: Any, command: str) -> dict[str, str]:
    """The option chosen in each group of a command, taken from Hydra's `runtime.choices`."""
    return {group: str(chosen[group]) for group in sorted(schema.groups(command))}


def in_multirun() -> bool:
    """Whether the current job belongs to a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def with_earlier_run(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """Put the settings of the run that resume= or from_run= names before the arguments.

    Raises:
        UserError: the arguments contradict each other, or no such run exists.
    """
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
    option_folders(arguments)  # one that is not there is told before the options that it would have
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
    manifest.check_run_hashes(folder, run_folder.SETTINGS, run_folder.SPLITS)
    stored = run_folder.settings_as_overrides(folder, changed=sorted(given))
    stored = {name: value for name, value in stored.items() if name not in given}
    stored_settings.check_options(stored, folder / run_folder.SETTINGS, command, option_folders(arguments))
    options = schema.groups(command)
    # Hydra's parser accepts flags only before settings.
    flags = list(itertools.takewhile(lambda argument: not override_grammar.ARGUMENT.fullmatch(argument), arguments))
    overrides = [override_grammar.override(name, value, options) for name, value in stored.items()]
    return flags + overrides + arguments[len(flags) :]


def _folder(path: str) -> Path:
    folder = Path(path).expanduser()
    if folder.name == run_folder.MODEL and not (folder / run_folder.SETTINGS).exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{path} is not a folder; give the folder of a run.")
    return folder


def settings_of(command: str, arguments: list[str]) -> Any:
    """The settings that a command would have with these arguments.

    Raises:
        UserError: an argument or a setting is wrong.
    """
    try:
        with inside_hydra():
            prepared = with_earlier_run(
                command, override_grammar.quote_texts(command, arguments, multirun=False), multirun=False
            )
            with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
                return schema.load_settings(compose(command, overrides_of(prepared)), command)
    except (HydraException, OmegaConfBaseException) as error:
        raise messages.as_user_error(command, error, arguments) or error from error


@contextmanager
def inside_hydra() -> Iterator[None]:
    """Allow the block to compose settings although the caller may run inside Hydra, which allows only one instance.

    Afterwards Hydra's state in this process is the caller's again.
    """
    instance, base = GlobalHydra.instance(), VersionBase.instance().version_base
    running = instance.hydra
    instance.clear()
    try:
        yield
    finally:
        # `initialize_config_dir` replaces the instance by a copy, and sets the version.
        instance.hydra = running
        GlobalHydra.set_instance(instance)
        VersionBase.instance().version_base = base


def override_parser() -> OverridesParser:
    """A parser of overrides that can expand peft=glob(*); call it while a configuration folder is initialized."""
    return OverridesParser.create(GlobalHydra.instance().config_loader())


def first_of_each(overrides: list[str]) -> list[str]:
    """The overrides of one job: the first value of each sweep; a range without steps is left out."""
    parsed = override_parser().parse_overrides(overrides)
    swept = {o.get_key_element(): o for o in parsed if o.is_sweep_override()}
    first = [f"{name}={next(o.sweep_string_iterator())}" for name, o in swept.items() if o.is_discrete_sweep()]
    return [str(o.input_line) for o in parsed if not o.is_sweep_override()] + first


def overrides_of(arguments: list[str]) -> list[str]:
    """The overrides among the arguments of a command line; --config-dir becomes hydra.searchpath."""
    overrides = [a for a in arguments if override_grammar.ARGUMENT.fullmatch(a) or a.startswith("~")]
    if (extra := _config_dir(arguments)) is not None:
        # Beside typed folders, of which Hydra itself would keep only one setting.
        typed = [a for a in overrides if a.startswith("hydra.searchpath=[")]
        places = [a.partition("[")[2].removesuffix("]") for a in typed]
        places.append(override_grammar.quoted("file://" + str(extra.absolute())))
        overrides = [a for a in overrides if a not in typed] + [f"hydra.searchpath=[{','.join(places)}]"]
    return overrides


def _config_dir(arguments: Sequence[str]) -> Path | None:
    """The folder given with --config-dir; of several, the last one, as Hydra does.

    Raises:
        UserError: there is no such folder.
    """
    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in ("--config-dir", "-cd"):
            found.append(argument)
        elif argument.startswith(("--config-dir=", "-cd=")):
            found.append(argument.partition("=")[2])
    if found and not Path(found[-1]).is_dir():
        raise UserError(f"--config-dir {found[-1]} is not a folder.")
    return Path(found[-1]) if found else None


def option_folders(arguments: Sequence[str]) -> list[Path]:
    """Folders of option files that the command line gives.

    Raises:
        UserError: --config-dir names no folder.
    """
    searched = [a.partition("=")[2] for a in arguments if a.startswith("hydra.searchpath=")]
    named = [place for value in searched for place in re.findall(r"file://([^,\]'\"]+)", value)]
    extra = _config_dir(arguments)
    return [*([] if extra is None else [extra]), *(Path(place).expanduser() for place in named)]


def hydra_settings(arguments: list[str]) -> list[str]:
    """The overrides for Hydra itself that a resumed multirun needs again: launcher, folders of option files."""
    return [
        override
        for override in overrides_of(arguments)
        if override.startswith(("hydra.", "hydra/"))
        and not override.startswith(("hydra.sweep.", "hydra.sweeper.params", "hydra.mode", "hydra.run."))
    ]
