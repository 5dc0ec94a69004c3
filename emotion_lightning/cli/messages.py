"""Messages for errors of Hydra, OmegaConf and the operating system that the user can fix."""

import dataclasses
import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from emotion_lightning import config
from emotion_lightning.cli import multirun
from emotion_lightning.config import own_parts, schema
from emotion_lightning.errors import UserError, first_line, nearest
from emotion_lightning.runs import extras

NO_SLURM = (
    "SLURM's programs (srun, sbatch) are not on this machine; start the multirun on a login node, or choose "
    "hydra/launcher=ray, or none."
)
_ACCESS = {
    getattr(errno, f"E{name}")
    for name in ["EXIST", "NOTDIR", "ISDIR", "ACCES", "PERM", "ROFS", "NOSPC", "DQUOT", "NAMETOOLONG", "FBIG"]
}


def as_user_error(command: str, error: BaseException, arguments: list[str]) -> UserError | None:
    """The UserError that explains an error, or None if the user cannot fix it."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if f"{group}={option}" in multirun.GONE_LAUNCHERS:
            return UserError(multirun.GONE)
        if group == "hydra/launcher" and option.startswith("submitit_"):
            return UserError(
                f"hydra/launcher={option} and the launchers made from it need packages that are missing: "
                + extras.install("slurm")
            )
        choices = sorted(error.options)
        return UserError(
            f"Unknown option {group}={option}{nearest(option, set(choices))} Options of {group}: {', '.join(choices)}."
        )
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _from_hydra(command, error, arguments)
    if isinstance(error, RuntimeError) and 'detect "srun"' in str(error):
        return UserError(NO_SLURM)
    if isinstance(error, RecursionError) and (nested := [a for a in arguments if a.count("[") + a.count("{") > 50]):
        return UserError(f"{nested[0][:40]}… holds more brackets than can be read; settings are lists of plain values.")
    return _of_system(error)


def _unreadable(argument: str) -> UserError:
    several = re.split(r"\s+(?=[\w.]+=)", argument)
    if len(several) > 1 and re.match(r"[\w./]+=", argument):
        shown = ", ".join(f'"{one}"' for one in several)
        return UserError(
            f"Cannot read {argument!r}; it looks like {len(several)} settings. Give each as a text of its own: {shown}."
        )
    return UserError(f"Cannot read {argument!r}; settings are given as name=value, lists as name=[a,b].")


@contextmanager
def as_user_errors(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Raise the UserError that explains an error of the block; errors that the user cannot fix pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mistake = as_user_error(command, error, list(arguments))
        if mistake is None:
            raise
        raise mistake from error


def _of_system(error: BaseException) -> UserError | None:
    """The UserError for a full disk or a folder that is not writable, also if a library wraps the system's error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _ACCESS:
            where = cause.filename or "A file"
            return UserError(f"{where}: {cause.strerror}; free some space or choose another folder.")
        # Libraries written in Rust have the system's error number only in their message, and shutil.Error has the
        # messages of all files.
        number = re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(cause))
        if number and int(number[1] or number[2]) in _ACCESS:
            reason = os.strerror(int(number[1] or number[2]))
            return UserError(f"A file cannot be written: {reason}; free some space or choose another folder.")
        if str(cause).startswith("No space left on device"):
            return UserError("A file cannot be written: the disk is full; free some space or choose another folder.")
        cause = cause.__cause__
    return None


_KEY_OF_FILE = re.compile(
    r"In '(?P<group>[^']+)/(?P<option>[^'/]+)': ConfigKeyError[^\n]*\nKey '(?P<key>[^']*)' not in '(?P<kind>\w+)'"
)


_VALUE_OF_FILE = re.compile(
    r"In '(?P<group>[^']+)/(?P<option>[^'/]+)': \w+ raised while composing config:\n"
    r"(?P<why>(?!Key )[^\n]+)(\n +full_key: (?P<key>\S+))?"
)


def _foreign_key(group: str, option: str, key: str, kind: str) -> UserError:
    """The error for an option file with a key that is no setting of its schema."""
    node = next((node for name, node in config.SCHEMAS.items() if node.__name__ == kind), None)
    sets = f"The file of {group}={option} sets {key}, which is no setting of it"
    if key == "_target_":
        return UserError(
            f"{sets}. No setting names code here; the file of an option of your own names the function that builds it, "
            f"as part: module:function ({own_parts.HOW_TO})."
        )
    if node is None:  # that of the whole group
        return UserError(f"{sets}. Begin the file with a schema line, as the files in conf/{group} do.")
    return UserError(sets + nearest(key, {field.name for field in dataclasses.fields(node)}))


def _from_hydra(command: str, error: Exception, arguments: list[str]) -> UserError:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if "SameData is not a subclass" in str(error):
        return UserError("data=same is for evaluate, where it means the data of the run; choose another data=.")
    first = first_line(error)
    merged = re.match(r"Error merging override \+*(?P<key>[^=\s]+)=", first)
    # For an item of a list Hydra gives no full key, only the override.
    key = str(getattr(cause, "full_key", None) or (merged["key"] if merged else "")).partition("[")[0]
    if value := _VALUE_OF_FILE.match(str(error)):
        sets = f"a wrong {value['key']}" if value["key"] else "a wrong value"
        return UserError(f"The file of {value['group']}={value['option']} has {sets}: {value['why']}.")
    if foreign := _KEY_OF_FILE.match(str(error)):
        return _foreign_key(**foreign.groupdict())
    override = re.match(r"Could not override '(?P<key>[^']*)'", first)
    if override and override["key"].startswith("hydra.launcher."):
        return UserError(
            f"{override['key']} is no setting of the chosen launcher; hydra/launcher=ray has "
            "hydra.launcher.gpus_per_job, hydra.launcher.cpus_per_job and hydra.launcher.address."
        )
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
