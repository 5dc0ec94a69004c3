"""From composed YAML to typed settings: what is unknown, ill-typed or out of range is refused by name."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from emotion_lightning import config
from emotion_lightning.config import hub_name, redaction
from emotion_lightning.errors import UserError


def schema_of(settings: Any) -> str:
    """Name of the schema of an option, without its group: `ia3` for peft=ia3 and peft=ia3_all."""
    return next(name.partition("/")[2] for name, node in config.SCHEMAS.items() if node is type(settings))


def conf_folder() -> Path:
    """Absolute path of conf/: the checkout's, else the copy inside an installed package."""
    package = Path(__file__).resolve().parent
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


def nearest(name: str, names: set[str]) -> str:
    """` did you mean …?` with the most similar name, or nothing."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."


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
    _check_ranges(settings)
    if isinstance(settings, config.Compare):
        _check_scores(settings)
    elif isinstance(settings, config.Export):
        _check_export(settings)
    else:
        _check_data(settings, command)
    if isinstance(settings, config.Train):
        _check_relations(settings)
    if isinstance(settings, config.Baseline):
        _check_ngrams(settings)
    if isinstance(settings, config.Tune):
        _check_study(settings.study)
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


def _check_ranges(settings: Any, prefix: str = "") -> None:
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _check_ranges(value, name + ".")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            marks = getattr(hints[field.name], "__metadata__", ())
            bounds = next((mark for mark in marks if isinstance(mark, config.Bounds)), config.Bounds())
            if not bounds.allows(value):
                raise UserError(f"{name}={value} is out of range: it must be {bounds}.")


def _check_relations(settings: config.Train) -> None:
    if isinstance(settings.peft, config.Full) and settings.model.quantization is not config.Quantization.none:
        raise UserError(
            f"peft=full cannot train model.quantization={settings.model.quantization.value} weights; "
            "set model.quantization=none, or choose an adapter such as peft=ia3."
        )
    if isinstance(settings.peft, config.IA3) and (extra := set(settings.peft.feedforward) - set(settings.peft.targets)):
        raise UserError(
            f"peft.feedforward={settings.peft.feedforward} names {', '.join(sorted(extra))}, which is not in "
            f"peft.targets={settings.peft.targets}; add it there."
        )
    causal = settings.model.attention is config.Attention.causal
    if causal and settings.model.pooling is config.Pooling.first:
        raise UserError(
            "model.pooling=first with model.attention=causal: the first token sees none of the others. Set "
            "model.pooling=last, or model.attention=bidirectional."
        )
    if not settings.model.head:
        raise UserError("model.head=[] leaves no module to classify with; name the model's own, such as [score].")
    targets = getattr(settings.peft, "targets", [])
    for role in targets:
        if role not in settings.model.roles:
            raise UserError(
                f"peft.targets names the role {role}, but this model has {', '.join(settings.model.roles)}; "
                f"choose among those or add model.roles.{role}."
            )
    for role, pattern in settings.model.roles.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"model.roles.{role}={pattern} is not a regular expression: {error}.") from error
    if settings.distill.runs is not None and settings.distill.answers is not None:
        raise UserError("distill.runs and distill.answers both say what to learn; give one of them.")
    for teacher in ("runs", "answers"):
        taught = getattr(settings.distill, teacher) is not None
        if taught and not isinstance(settings.loss, config.BCE | config.WeightedBCE):
            raise UserError(
                f"distill.{teacher} gives probabilities to learn, for which only binary cross-entropy is defined; set "
                "loss=weighted_bce or loss=bce."
            )
    if settings.callbacks.monitor not in config.MONITORS:
        raise UserError(
            f"callbacks.monitor={settings.callbacks.monitor} is not measured; choose one of "
            f"{', '.join(config.MONITORS)}."
        )


def _check_ngrams(settings: config.Baseline) -> None:
    for name in ("word_ngrams", "char_ngrams"):
        lengths = getattr(settings, name)
        if lengths is not None and not (len(lengths) == 2 and 1 <= lengths[0] <= lengths[1]):
            raise UserError(f"{name}={lengths} is no pair of lengths; give the shortest and the longest, as in [1,2].")
    if settings.word_ngrams is None and settings.char_ngrams is None:
        raise UserError("word_ngrams=null and char_ngrams=null leave no features; set one of them.")


def _check_scores(settings: config.Compare) -> None:
    if not settings.metrics or len(set(settings.metrics)) < len(settings.metrics):
        shown = ", ".join(score.value for score in settings.metrics)
        known = ", ".join(score.value for score in config.Score)
        raise UserError(f"metrics=[{shown}] must name each of its metrics once, and one at least, of {known}.")


def _check_study(study: config.Study) -> None:
    shown = ", ".join(objective.value for objective in study.objectives)
    if not study.objectives or len(set(study.objectives)) < len(study.objectives):
        known = ", ".join(objective.value for objective in config.Objective)
        raise UserError(f"study.objectives=[{shown}] must name each objective once, and one at least, of {known}.")
    if study.pruner is not config.Pruner.none:
        if len(study.objectives) > 1:
            raise UserError(
                f"study.pruner={study.pruner.value} cannot tell which trials are poor by study.objectives=[{shown}]: "
                "of several objectives each may make up for another. Set study.pruner=none."
            )
        if study.objectives[0] in config.COSTS:
            raise UserError(
                f"study.pruner={study.pruner.value} needs a score at each epoch, which study.objectives=[{shown}] has "
                "not. Set study.pruner=none."
            )
    if "://" in study.storage and study.name is None:
        raise UserError(
            f"study.storage={redaction.text(study.storage, is_value=True)} may hold many studies; name this one with "
            "study.name=NAME, the same for every worker."
        )
    if study.storage not in ("file", "memory") and "://" not in study.storage:
        raise UserError(
            f"study.storage={study.storage} is none of file, memory, or a database's URL such as "
            "sqlite:///studies.db or postgresql+psycopg://user@host/name."
        )


def _check_export(settings: config.Export) -> None:
    chosen = settings.format
    if settings.base is not None and chosen is not config.ExportFormat.adapter:
        raise UserError(f"base={settings.base} is for format=adapter; format={chosen.value} holds every weight itself.")
    if settings.dtype is not config.Dtype.auto and chosen is not config.ExportFormat.merged:
        raise UserError(f"dtype={settings.dtype.value} is for format=merged; leave it out with format={chosen.value}.")
    if settings.refit and chosen is config.ExportFormat.adapter:
        raise UserError("refit=true is not for format=adapter, which is exported as it stands.")
    if settings.push is not None:
        hub_name.parse_repository(settings.push, setting="push")
    elif not settings.private:
        raise UserError("private=false is for push=user/name, which uploads the folder; give both, or neither.")


def _check_data(settings: Any, command: str) -> None:
    data = settings.data
    if isinstance(data, config.Batches):
        _check_batches(data)
    if isinstance(data, config.SameData) and command != "evaluate":
        raise UserError("data=same is for evaluate, where it means the data of the run; choose another data=.")
    if isinstance(data, config.File):
        _check_file(data, scored=command == "evaluate")
    if isinstance(data, config.File | config.Columns) and data.encoding is not None:
        _check_encoding(data.encoding)
    if isinstance(data, config.Columns) and data.empty_texts is config.EmptyTexts.drop:
        raise UserError("data.empty_texts=drop would leave rows without a prediction; choose keep or refuse.")


def _check_batches(data: config.Batches) -> None:
    if data.folds is not None and data.fold is None:
        raise UserError(
            f"data.folds={data.folds} needs data.fold=1 to {data.folds}, the part that validates; -m sweep=folds runs "
            "them all."
        )
    if data.fold is not None and (data.folds is None or data.fold > data.folds):
        raise UserError(
            f"data.fold={data.fold} is no part of data.folds={'null' if data.folds is None else data.folds}."
        )
    if data.batch_tokens is not None and data.batch_tokens < data.max_tokens:
        raise UserError(
            f"data.batch_tokens={data.batch_tokens} is less than one text may take, data.max_tokens={data.max_tokens}; "
            "raise the one or lower the other."
        )


def _check_encoding(name: str) -> None:
    try:
        b"a b".decode(name, errors="surrogateescape")
    except (LookupError, UnicodeError):
        usual = {"utf-8", "utf-16", "cp1252", "latin-1", "iso-8859-15", "cp1251", "gb18030", "shift_jis", "euc_kr"}
        raise UserError(f"data.encoding={name} is no text encoding that Python knows{nearest(name, usual)}") from None


def _check_file(data: config.File, *, scored: bool) -> None:
    given = [data.train, data.validation, data.test] if scored else [data.train]
    if (data.path is None) == all(path is None for path in given):
        raise UserError(
            "data=file needs either data.path=FILE (split for you) or data.train=FILE, with data.validation=FILE and "
            "data.test=FILE where you have them."
        )
    if data.path is not None and (data.validation or data.test):
        raise UserError(
            f"data.path={data.path} is split for you; to give your own splits name the file data.train instead."
        )
    if data.splits is not None and data.path is None and data.validation is not None:
        raise UserError(
            f"data.splits={data.splits} has nothing to split: data.train and data.validation are given. Leave one out."
        )
    if data.path is not None and data.validation_share + data.test_share >= 1:
        raise UserError(
            f"data.validation_share={data.validation_share} and data.test_share={data.test_share} leave no rows to "
            "train on; together they must be below 1."
        )
