"""From composed YAML to typed settings: what is unknown, ill-typed or out of range is refused by name."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from emotion_lightning import config
from emotion_lightning.config.checks import (
    check_data,
    check_export,
    check_ngrams,
    check_ranges,
    check_relations,
    check_scores,
    check_study,
)
from emotion_lightning.errors import UserError, nearest


def schema_of(settings: Any) -> str:
    """Name of the schema of an option, without its group: `ia3` for peft=ia3 and peft=ia3_all."""
    return next(name.partition("/")[2] for name, node in config.SCHEMAS.items() if node is type(settings))


def conf_folder() -> Path:
    """Absolute path of conf/: the checkout's, else the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "train.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    for name, node in config.SCHEMAS.items():
        group, _, option = f"schema/{name}".rpartition("/")
        store.store(group=group, name=option, node=node)


def option_files(group: str, command: str = "train") -> list[str]:
    """Names of the options that conf/ ships for a group of a command."""
    names = sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))
    return [name for name in names if command == "evaluate" or (group, name) != ("data", "same")]


def fields_of(settings: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every setting below a command, whichever options are chosen."""
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
    """Settings whose value is one text or path, which the command line takes literally."""
    return {name for name, hint in fields_of(config.COMMANDS[command]) if hint is str or hint == (str | None)}


def groups(command: str) -> set[str]:
    """Config groups of a command."""
    hints = typing.get_type_hints(config.COMMANDS[command])
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
    """The message for a setting that does not exist, or not with the options chosen."""
    known = {known for known, _ in fields_of(config.COMMANDS[command])}
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


def load(cfg: DictConfig, command: str = "train") -> Any:
    """Typed settings, or a UserError that names the setting that is wrong.

    Below this call there is no OmegaConf: dataclasses, lists, dicts, enums and numbers only.
    """
    _reject_unknown(cfg, command)
    for name in _missing(cfg):
        raise UserError(f"{name} is not set; give it as {name}=VALUE.")
    settings = OmegaConf.to_object(cfg)
    if isinstance(settings, dict):
        raise UserError("The main configuration lacks its schema line: defaults: [schema/train@_here_, …].")
    check_ranges(settings)
    if isinstance(settings, config.Compare):
        check_scores(settings)
    elif isinstance(settings, config.Export):
        check_export(settings)
    else:
        check_data(settings, command)
    if isinstance(settings, config.Train):
        check_relations(settings)
    if isinstance(settings, config.Baseline):
        check_ngrams(settings)
    if isinstance(settings, config.Tune):
        check_study(settings.study)
    return settings


def describe(hint: Any) -> str:
    """What values a setting takes, in words."""
    if isinstance(hint, types.UnionType):
        return " or ".join("null" if part is type(None) else describe(part) for part in typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    origin = typing.get_origin(hint) or hint
    if origin is list and isinstance(part := typing.get_args(hint)[0], type) and issubclass(part, Enum):
        return "a list of " + ", ".join(member.name for member in part)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(origin, "a list, as in [a, b]" if origin is list else "a mapping, as in {a: b}")


def type_of(command: str, name: str) -> Any:
    """The declared type of a setting, or None where there is no such setting."""
    return dict(fields_of(config.COMMANDS[command])).get(name)


def plain(settings: Any) -> Any:
    """Settings as dicts, lists, strings and numbers, ready for YAML, JSON and W&B."""
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
    """Settings from what `plain` made of them; enums come back from their values."""
    hints = typing.get_type_hints(schema)
    return schema(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if typing.get_origin(hint) is list and isinstance(value, list):
        (part,) = typing.get_args(hint)
        return [_typed(part, item) for item in value]
    return value


def _subclasses(node: type) -> Iterator[type]:
    children: list[type] = node.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _reject_unknown(cfg: DictConfig, command: str, prefix: str = "") -> None:
    # Hydra lets `+name=value` add keys even to a schema; this closes that hole.
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
