"""Check settings that are read from a file before they are used.

The settings of a run become Hydra overrides again. An override can select any file as an option, and a `hydra.…`
override can run code. So a file may contain only settings of this program, plain names of options, and values of the
declared types.
"""

import functools
import logging
import re
import types
import typing
from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from emotion_lightning import config, terminal
from emotion_lightning.config import label_keys, own_parts, redaction, schema
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w.-]*")
REMOVED = {"data.packing", "data.cache_dir", "data.cache_gb"}
"""Settings of earlier versions that never affected results; they are ignored in the settings of an old run."""
ADDED: dict[str, dict[str, Any]] = {
    "max_tokens": {
        "template": None,
        "question": config.PLACES[0],
        "long_texts": "cut_end",
        "window_overlap": None,
        "max_windows": 8,
        "join_windows": "maximum",
        "rename": {},
        "merge": {},
        "drop_labels": [],
        "near_duplicates": None,
        "sort_window": 16,
    },
    "labels_column": {
        "group_column": None,
        "groups": None,
        "first_id": 0,
        "true_values": None,
        "false_values": None,
        "missing": "refuse",
        "present_from": None,
        "aggregate": None,
        "targets": "hard",
        "annotators_column": None,
        "scale": None,
        "harden": False,
        "annotator": None,
        "context": None,
        "conversation": None,
        "turn": None,
        "context_columns": None,
        "context_separator": None,
    },
    "test_share": {"header": "first", "columns": None, "split_column": "none", "table": None},
}
"""Settings of data that earlier versions did not have, each with the value that means what those versions did.

They are grouped by a setting of those versions that the same options have: all options of a training, tables, files.
"""
ADDED_TO_TRAINING: dict[str, Any] = {"frozen": {"reuse": "never"}}
"""The same for settings of a training that are not of its data."""
OPEN_MAPPINGS = ("model.roles", "model.architecture", *label_keys.MAPPINGS)
"""Settings whose value is a mapping with arbitrary keys."""


def checked_settings(tree: Any, file: Path) -> dict[str, Any]:
    """Check the settings of a run, and leave out those of earlier versions that no longer exist.

    Args:
        tree: content of the file, as `run_folder.stored_form` creates it.
        file: path of the file, for error messages.

    Returns:
        The checked settings.

    Raises:
        UserError: the file contains anything other than settings of a run.
    """
    if not isinstance(tree, dict) or not isinstance(tree.get("options"), dict):
        raise UserError(f"{file} is not a settings file of a run.")
    groups, hints = _groups(), _hints(frozenset(config.SCHEMAS.items()))
    if foreign := sorted(map(str, tree.keys() - {name.partition(".")[0] for name in hints} - {"options"} - groups)):
        raise UserError(f"{file} sets {terminal.one_line(foreign[0])}, which is no setting of a run.")
    for group, option in tree["options"].items():
        if group not in groups:
            raise UserError(f"{file} sets {group!r}, which is no setting of a run.")
        if not isinstance(option, str) or not re.fullmatch(r"\w[\w-]*", option):
            raise UserError(f"{file} sets {group}={option!r}, which is no name of an option; it is not opened.")
    gone = []
    lacking = _groups_lacking(tree)
    for name, value in stored_values(tree):
        if name.partition(".")[0] in lacking and _fits(Any, value):
            continue  # of an option of the user's own that is not at hand: whoever needs it asks for it
        if name in REMOVED:
            gone.append(name)
            continue
        if name not in hints and value is None and re.fullmatch(r"\w+(\.\w+)*", name):
            continue  # a setting of another version, null there
        if name not in hints:
            raise UserError(f"{file} sets {terminal.one_line(name)}, which is no setting of a run.")
        if name in label_keys.MAPPINGS and isinstance(value, dict) and all(isinstance(key, str) for key in value):
            # Any name may be one of a label: it is encoded before Hydra reads it.
            value = {f"label_{number}": part for number, part in enumerate(value.values())}
        if not any(_fits(hint, value) for hint in hints[name]):
            shown = terminal.one_line(str(value))
            raise UserError(
                f"{file} sets {name}={shown[:80]}{'…' if len(shown) > 80 else ''}, where "
                f"{' or '.join(sorted({schema.describe(hint) for hint in hints[name]}))} is due."
            )

    if "data" in tree:
        tree = {**tree, "data": with_added(tree["data"])}
    if "peft" in tree:
        tree = ADDED_TO_TRAINING | tree
    if gone:
        _log_removed(f"{file} sets {', '.join(sorted(gone))}, which this version no longer has; passed over.")
        tree = tree | {"data": {name: value for name, value in tree["data"].items() if f"data.{name}" not in REMOVED}}
    return tree


def with_added(data: Any) -> Any:
    """Add the settings of `ADDED` that a run's version did not have, so that its data is read as before."""
    if not isinstance(data, dict):
        return data
    added: dict[str, Any] = {}
    for known, values in ADDED.items():
        # A source of the user's own and XED have a test_share, and neither header nor columns.
        is_file = known != "test_share" or not {"part", "neutral"} & data.keys()
        added |= values if known in data and is_file else {}
    return added | data


@functools.cache  # a run's settings are read several times
def _log_removed(message: str) -> None:
    log.warning("%s", message)  # for a resumed run, Hydra has not yet set up logging


def check_options(options: dict[str, Any], file: Path, command: str, folders: Sequence[Path]) -> None:
    """Check that each chosen option has a file in conf/ or in a folder that the user gave.

    Args:
        options: chosen option of each group; other settings in this mapping are ignored.
        file: file that the options were read from, for error messages.
        command: name of the command.
        folders: folders of option files from the command line.

    Raises:
        UserError: an option has no such file, or is of the user's own and is built by another function now.
    """
    own = {group: options[f"{group}.part"] for group in options if f"{group}.part" in options}
    if absent := {group: part for group, part in own.items() if f"{group}/{options[group]}" not in config.SCHEMAS}:
        raise own_parts.lacking({f"{group}={options[group]}": part for group, part in absent.items()}, file)
    for name, value in options.items():
        if name.partition(".")[0] in own and redaction.HIDDEN in str(value):
            raise UserError(own_parts.SECRET.format(file=file, name=name))
    for group, part in own.items():
        node = config.SCHEMAS[f"{group}/{options[group]}"]
        if not issubclass(node, own_parts.OwnPart):
            raise UserError(f"{file} sets {group}.part, which {group}={options[group]} does not have.")
        if part != node.origin.reference:
            raise UserError(
                f"{file} was made with the part {terminal.one_line(str(part))[:80]} as {group}={options[group]}, "
                f"where {node.origin.place} names {node.origin.reference}."
            )
    for group, option in options.items():
        places = [schema.conf_folder(), *folders]
        if (
            group in schema.groups(command)
            and option not in own_parts.option_names(group)
            and not any((place / group / f"{option}.yaml").is_file() for place in places)
        ):
            raise UserError(
                f"{file} chooses {group}={option}, which is no option of this program. If it is one of your own, give "
                "the folder of its file with --config-dir FOLDER."
            )


def stored_values(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each setting of settings.yaml as dotted name and value, without the chosen options."""
    return leaves({name: value for name, value in tree.items() if name != "options"})


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting of a nested mapping as dotted name and value; OPEN_MAPPINGS are one value each."""
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict) and dotted not in OPEN_MAPPINGS:
            yield from leaves(value, dotted + ".")
        else:
            yield dotted, value


@functools.cache  # a multirun calls this for each of its jobs
def _groups() -> set[str]:
    return {group for command in config.COMMANDS for group in schema.groups(command)}


def _groups_lacking(tree: dict[str, Any]) -> set[str]:
    """The groups whose option in a settings file is the user's own and is not at hand."""
    return {
        group
        for group, option in tree["options"].items()
        if isinstance(stored := tree.get(group), dict)
        and "part" in stored
        and f"{group}/{option}" not in config.SCHEMAS
    }


@functools.lru_cache(maxsize=1)
def _hints(schemas: frozenset[tuple[str, type]]) -> dict[str, list[Any]]:
    """All types of each setting, over all commands and options; the schemas change with options of the user's own."""
    found: dict[str, list[Any]] = defaultdict(list)
    for command in config.COMMANDS:
        for name, hint in schema.fields_of(config.SCHEMAS[command]):
            if hint not in found[name]:
                found[name].append(hint)
    return dict(found)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value that YAML or JSON parsed has a declared type."""
    if isinstance(hint, types.UnionType):
        return any(_fits(part, value) for part in typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    if origin is list:
        (part,) = typing.get_args(hint)
        return isinstance(value, list) and all(_fits(part, item) for item in value)
    if origin is dict:
        _, part = typing.get_args(hint)
        return isinstance(value, dict) and all(
            isinstance(key, str)
            and bool(_NAME.fullmatch(key.removeprefix("@@").replace("%", "_")))
            and _fits(part, inner)
            for key, inner in value.items()
        )
    if origin is Any:
        return isinstance(value, str | int | float | bool | None) or (
            isinstance(value, list) and all(isinstance(item, str | int | float | bool | None) for item in value)
        )
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [member.value for member in hint]
    if origin is float:
        return type(value) in (int, float)
    if origin is type(None):
        return value is None
    return type(value) is origin
