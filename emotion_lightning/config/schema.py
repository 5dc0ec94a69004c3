"""Convert a composed configuration to typed settings, and report unknown, ill-typed and out-of-range settings."""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from emotion_lightning import config
from emotion_lightning.config import composition, label_keys, own_parts
from emotion_lightning.config.checks import (
    check_data,
    check_export,
    check_label_names,
    check_ngrams,
    check_objectives,
    check_predictions,
    check_ranges,
    check_relations,
    check_scores,
    check_server,
    check_study,
    check_thresholds,
    check_workers,
)
from emotion_lightning.config.own_parts import conf_folder as conf_folder
from emotion_lightning.errors import UserError, nearest


def schema_of(settings: Any) -> str:
    """Name of an option's schema, without its group: `ia3` for both peft=ia3 and peft=ia3_all."""
    if isinstance(settings, own_parts.OwnPart):  # another class in a process that a launcher started
        return settings.origin.option
    return next(name.partition("/")[2] for name, node in config.SCHEMAS.items() if node is type(settings))


@functools.cache
def register() -> None:
    """Register the schemas in Hydra's ConfigStore, and make Hydra compose the same options once."""
    composition.remember_options(conf_folder())
    store = ConfigStore.instance()
    for name, node in config.SCHEMAS.items():
        group, _, option = f"schema/{name}".rpartition("/")
        store.store(group=group, name=option, node=node)


def option_files(group: str, command: str = "train") -> list[str]:
    """Names of the options for a group of a command: those in conf/, and the user's own."""
    names = sorted({file.stem for file in (conf_folder() / group).glob("*.yaml")} | own_parts.option_names(group))
    return [name for name in names if command == "evaluate" or (group, name) != ("data", "same")]


def option_values(*files: str) -> dict[str, Any]:
    """The values in files of conf/, such as `data/hub`; later files win. Their defaults lists are not followed."""
    values: dict[str, Any] = {}
    for file in files:
        values |= yaml.safe_load((conf_folder() / f"{file}.yaml").read_text(encoding="utf-8"))
    values.pop("defaults", None)
    return values


def fields_of(settings: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and type of every setting, for all options of each group.

    Args:
        settings: dataclass of a command or of a group.
        prefix: prefix of the names, such as `model.`.
    """
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        name = prefix + field.name
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            for node in (hint, *_subclasses(hint)):
                yield from fields_of(node, name + ".")
        else:
            yield name, hint


def text_settings(command: str) -> set[str]:
    """Names of the settings whose value is a text or a path, which the command line does not parse."""
    return {name for name, hint in fields_of(config.SCHEMAS[command]) if hint is str or hint == (str | None)}


def groups(command: str) -> set[str]:
    """Names of the config groups of a command."""
    hints = typing.get_type_hints(config.SCHEMAS[command])
    return {
        name
        for name, hint in hints.items()
        if any(
            schema.startswith(name + "/") and issubclass(node, hint)
            for schema, node in config.SCHEMAS.items()
            if isinstance(hint, type)
        )
    }


def unknown_setting(command: str, name: str) -> UserError:
    """The error for a setting that does not exist, or that the chosen option does not have."""
    known = {known for known, _ in fields_of(config.SCHEMAS[command])}
    if name in known:
        group, _, field = name.partition(".")
        owners = [
            schema.partition("/")[2]
            for schema, node in config.SCHEMAS.items()
            if schema.startswith(group + "/") and field in {f.name for f in dataclasses.fields(node)}
        ]
        return UserError(
            f"{name} is not a setting of the chosen {group} option; it belongs to {group}={' or '.join(owners)}."
        )
    return UserError(f"Unknown setting {name}{nearest(name, known | groups(command) | {'sweep.resume'})}")


def load_settings(cfg: DictConfig, command: str = "train") -> Any:
    """Convert a composed configuration to typed settings and check them.

    The result has no OmegaConf objects: only dataclasses, lists, dicts, enums, strings and numbers.

    Args:
        cfg: the configuration that Hydra composed, without its `hydra` node.
        command: name of the command.

    Returns:
        An instance of the command's dataclass in config.SCHEMAS.

    Raises:
        UserError: a setting is unknown, missing, out of range, or contradicts another one; the message names it.
    """
    _reject_unknown(cfg, command)
    for name in _missing(cfg):
        if name in groups(command):
            options = ", ".join(option_files(name, command))
            raise UserError(f"{name} is not set; choose {name}= one of {options}.")
        raise UserError(f"{name} is not set; give it as {name}=VALUE.")
    settings = OmegaConf.to_object(cfg)
    if isinstance(settings, dict):
        raise UserError("The main configuration lacks its schema line: defaults: [schema/train@_here_, …].")
    label_keys.decode(settings)
    check_settings(settings, command)
    return settings


def check_settings(settings: Any, command: str) -> None:
    """Raise UserError if a value is out of its range or contradicts another one.

    Args:
        settings: typed settings.
        command: name of the command.
    """
    check_ranges(settings)
    for field in dataclasses.fields(settings):
        if isinstance(part := getattr(settings, field.name), own_parts.OwnPart):
            own_parts.check_part(part, field.name)
    if isinstance(settings, config.Compare):
        check_scores(settings)
        check_label_names(settings.data)
    elif isinstance(settings, config.Export):
        check_export(settings)
    elif isinstance(settings, config.Serve):
        check_server(settings.serve)
    else:
        check_data(settings, command)
    if isinstance(settings, config.Train | config.Baseline):
        check_thresholds(settings)
    if hasattr(settings, "predict"):
        check_predictions(settings, command)
    if isinstance(settings, config.Train):
        check_relations(settings)
    if isinstance(settings, config.Baseline):
        check_ngrams(settings)
    if isinstance(settings, config.Tune):
        check_study(settings.study)
        check_objectives(settings)
        check_workers(settings)


def describe(hint: Any) -> str:
    """A description of the values that a type allows, for error messages."""
    if hint is Any:
        return "a word, or a list, as in [a, b]"
    if isinstance(hint, types.UnionType):
        if {int, str} <= set(typing.get_args(hint)):
            return f"{describe(int)} or {config.AUTO}"  # the only word that such a setting takes
        return " or ".join("null" if part is type(None) else describe(part) for part in typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    origin = typing.get_origin(hint) or hint
    if origin is list and isinstance(part := typing.get_args(hint)[0], type) and issubclass(part, Enum):
        return "a list of " + ", ".join(member.name for member in part)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(origin, "a list, as in [a, b]" if origin is list else "a mapping, as in {a: b}")


def type_of(command: str, name: str) -> Any:
    """The declared type of a setting, or None if there is no such setting."""
    return dict(fields_of(config.SCHEMAS[command])).get(name)


def plain(settings: Any) -> Any:
    """Settings as dicts, lists, strings and numbers, for YAML, JSON and W&B."""
    if isinstance(settings, Enum):
        return settings.value
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, dict):
        return {key: plain(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [plain(value) for value in settings]
    return settings


def from_plain(schema: type, values: dict[str, Any]) -> Any:
    """The inverse of `plain`: build settings from plain values; strings become enums again."""
    hints = typing.get_type_hints(schema)
    return schema(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType) and value is not None:
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return _typed(parts[0], value) if len(parts) == 1 else value
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if typing.get_origin(hint) is list and isinstance(value, list):
        (part,) = typing.get_args(hint)
        return [_typed(part, item) for item in value]
    return value


def _subclasses(node: type) -> Iterator[type]:
    children: list[type] = node.__subclasses__()
    known = set(config.SCHEMAS.values())
    for child in children:
        if issubclass(child, own_parts.OwnPart) and child not in known:
            continue  # of another command line in this process
        yield child
        yield from _subclasses(child)


def _reject_unknown(cfg: DictConfig, command: str, prefix: str = "") -> None:
    # Hydra lets `+name=value` add unknown keys even to a structured config (hydra#1515), so they are rejected here.
    node = OmegaConf.get_type(cfg)
    if not dataclasses.is_dataclass(node):
        return
    known = {field.name for field in dataclasses.fields(node)}
    for key in map(str, cfg):
        if key not in known:
            raise unknown_setting(command, f"{prefix}{key}")
        child: Any = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _reject_unknown(child, command, f"{prefix}{key}.")


def _missing(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    node = OmegaConf.get_type(cfg)
    if not dataclasses.is_dataclass(node):
        return
    for field in dataclasses.fields(node):
        name = f"{prefix}{field.name}"
        if field.name not in cfg or OmegaConf.is_missing(cfg, field.name):
            yield name
        else:
            child: Any = cfg._get_node(field.name)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from _missing(child, name + ".")
