"""Write the pages of the commands and of the settings when MkDocs builds the site, from the package itself.

Names, types, ranges and meanings are those of the dataclasses in emotion_lightning/config, values those of conf/, so
that these pages cannot become outdated. MkDocs calls `on_files`.
"""

import dataclasses
import re
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from emotion_lightning import config
from emotion_lightning.cli import help as command_help
from emotion_lightning.config import schema

GROUPS = {
    "data": "The dataset, its columns, splits and batches.",
    "model": "The pretrained network, its quantization and its pooling.",
    "peft": "What is trained: an adapter, the head alone, or the whole network.",
    "loss": "The loss.",
    "optimizer": "The optimizer, its learning rates and their schedule.",
    "thresholds": "How probabilities become labels.",
    "callbacks": "Selection of the best epoch, early stopping and averaging of parameters.",
    "extra_callback": "A callback of [your own](../how-to/extend.md), beside those of the program.",
    "extra_metric": "A metric of [your own](../how-to/extend.md), beside those of the program.",
    "trainer": "Device, number of epochs, precision of the steps and checkpoints.",
    "logger": "The experiment tracker.",
    "space": "What `tune` searches.",
    "format": "What `export` writes.",
}
"""Groups with options in conf/, in the order of the page."""

NODES = {
    "distill": "Distillation: learn what finished runs predict for the training texts.",
    "frozen": "[States of frozen layers](../how-to/frozen-layers.md), computed once.",
    "predict": "What prediction files contain.",
    "ray": "The [cluster](../how-to/cluster.md) on which workers run.",
    "study": "The search of `tune`.",
}
"""Groups of settings without options."""

LONG = 60
"""A value with more characters is not shown; the page names its file instead."""


@dataclasses.dataclass
class Setting:
    """A setting of a group, as one or more of its options have it.

    Attributes:
        hint: its type, with its bounds.
        meaning: its docstring.
        values: its value in conf/, by option.
    """

    hint: Any
    meaning: str
    values: dict[str, str]


def on_files(files: Any, *, config: Any) -> Any:
    """Add the generated pages to the site."""
    from mkdocs.structure.files import File

    for path, write in {"reference/commands.md": commands_page, "reference/settings.md": settings_page}.items():
        files.append(File.generated(config, path, content=write()))
    return files


def commands_page() -> str:
    """The page that describes each command: example calls and its own settings."""
    parts = [
        "# Commands\n",
        "Each command runs as `python -m emotion_lightning.NAME`, and as the script `emotion-NAME`. Give a setting as "
        "`name=value` and an option as `group=option`. `--help` prints what is on this page and all other settings "
        "with their values. [Exit codes](exit-codes.md) say how a command ended.\n",
        "| flag | does |",
        "|---|---|",
        "| `-m` | runs every combination of comma-separated values: a [sweep](../how-to/sweeps.md) |",
        "| `--help` | lists the options and every setting with its value and meaning |",
        "| `--cfg job` | prints the settings as YAML, and runs nothing |",
        "| `--config-dir FOLDER` | also reads option files from this folder |",
        "| `--version` | prints the versions of this program and of torch, transformers, peft and bitsandbytes |",
        "| `--hydra-help` | lists Hydra's own flags |\n",
    ]
    with _settings_of_conf():
        for command, node in ((name, config.SCHEMAS[name]) for name in config.COMMANDS):
            summary, _, examples = command_help.USAGE[command].partition("\n")
            parts += [f"## {command}\n", f"{summary}\n", f"```sh\n{_examples(examples)}\n```\n"]
            if links := [f"[`{name}`](settings.md#{name})" for name in _nodes(node)]:
                parts.append(f"Groups: {', '.join(links)}.\n")
            own = [field.name for field in dataclasses.fields(node) if field.name not in _nodes(node)]
            if command == "tune":
                parts.append("`tune` also takes every setting of `train`, except `resume`.\n")
                continue
            cfg = compose(command)
            for name in own:
                setting = Setting(_hints(node)[name], command_help.meanings(node)[name], {"": _value(cfg, name)})
                parts.append(_entry(name, setting, anchor=f"{command}.{name}", of_all=True))
    return "\n".join(parts)


def settings_page() -> str:
    """The page that describes the settings of each group, and lists its options."""
    parts = [
        "# Settings\n",
        "The groups of settings that commands share, as `group.name=value`. The settings that belong to one command "
        "only, such as `seed` and `resume` of `train`, are on the page of the [commands](commands.md).\n",
        "Every name, type and range is checked before anything runs. `null` means none. The values are those of the "
        "files in `conf/`; where options have different values, each is listed with its option.\n",
        "## Options\n",
        _options_table(),
        "",
    ]
    with _settings_of_conf():
        for group, about in GROUPS.items():
            parts += [f"## {group}\n", f"{about}\n"]
            # A whole command with each option would take twenty times as long.
            configs = {name: compose(f"{group}/{name}")[group] for name in schema.option_files(group, "tune")}
            parts += _described(configs)
            parts += _entries(group, configs)
        for group, about in NODES.items():
            cfg = compose("predict" if group == "predict" else "tune")[group]  # ray of tune has more settings
            parts += [f"## {group}\n", f"{about}\n", *_entries(group, {"": cfg})]
    page = "\n".join(parts)
    names = {name for node in (config.Tune, config.Predict) for name, _ in schema.fields_of(node) if "." in name}
    if missing := sorted(name for name in names if f"`{name}`{{" not in page):
        raise LookupError(f"docs/hooks.py does not describe {', '.join(missing)}; add the group to GROUPS or NODES.")
    return page


def _settings_of_conf() -> Any:
    schema.register()
    # MkDocs passes no main module that Hydra could derive a job name from.
    return initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3", job_name="docs")


def _options_table() -> str:
    rows = ["| group | options |", "|---|---|"]
    with _settings_of_conf():
        chosen = compose("tune", return_hydra_config=True).hydra.runtime.choices
    for group in GROUPS:
        names = schema.option_files(group, "tune")
        rows.append(f"| [`{group}`](#{group}) | {_joined(names, str(chosen.get(group)))} |")
    for group in ("experiment", "template", "mapping", "sweep"):
        rows.append(f"| `{group}` | {_joined(schema.option_files(group))} |")
    return "\n".join([*rows, "\nAn option in bold is the one that is used unless you choose another."])


def _joined(names: Iterable[str], chosen: str = "") -> str:
    return " · ".join(f"**{name}**" if name == chosen else name for name in names)


def _described(configs: dict[str, DictConfig]) -> Iterator[str]:
    """A list of the options, if they have different schemas, whose docstrings describe them."""
    by_schema: dict[type, list[str]] = {}
    for name, cfg in configs.items():
        by_schema.setdefault(OmegaConf.get_type(cfg), []).append(name)
    for node, names in by_schema.items():
        if len(by_schema) > 1:
            yield f"- {', '.join(f'`{name}`' for name in names)}: {' '.join((node.__doc__ or '').split())}"
        elif len(names) > 1:
            yield f"Options: {', '.join(f'`{name}`' for name in names)}."
    yield ""


def _entries(group: str, configs: dict[str, DictConfig]) -> Iterator[str]:
    found: dict[tuple[str, str], Setting] = {}
    for option, cfg in configs.items():
        node = OmegaConf.get_type(cfg)
        meanings = command_help.meanings(node)
        for field in dataclasses.fields(node):
            key = field.name, meanings[field.name]
            setting = found.setdefault(key, Setting(_hints(node)[field.name], meanings[field.name], {}))
            setting.values[option] = _value(cfg, field.name)
    anchors: set[str] = set()
    for (name, _), setting in found.items():
        anchor = f"{group}.{name}"
        if anchor in anchors:  # two options have settings of this name with different meanings
            anchor += f".{next(iter(setting.values))}"
        anchors.add(anchor)
        yield _entry(f"{group}.{name}", setting, anchor=anchor, of_all=len(setting.values) == len(configs))


def _entry(name: str, setting: Setting, *, anchor: str, of_all: bool) -> str:
    """A setting in the syntax of definition lists."""
    by_value: dict[str, list[str]] = {}
    for option, value in setting.values.items():
        by_value.setdefault(value, []).append(option)
    if of_all and len(by_value) == 1:
        shown = next(iter(by_value))
    else:
        shown = " · ".join(f"{', '.join(options)}: {value}" for value, options in by_value.items())
    meaning = setting.meaning.replace("&", "&amp;")
    return f"`{name}`{{ #{anchor} }}\n:   {meaning}<br>\n    *{_type(setting.hint)}.* {shown}\n"


def _type(hint: Any) -> str:
    """What values a setting takes.

    >>> _type(typing.Annotated[int | None, config.Bounds(at_least=1)])
    'A whole number, at least 1, or null'
    """
    limits = ""
    if typing.get_origin(hint) is typing.Annotated:
        hint, bounds = typing.get_args(hint)
        given = {name: limit for name, limit in dataclasses.asdict(bounds).items() if limit is not None}
        limits = " and ".join(f"{name.replace('_', ' ')} {limit:,.12g}" for name, limit in given.items())
    kind, null, _ = schema.describe(hint).partition(" or null")
    text = ", ".join(part for part in (kind, limits) if part) + (("," if limits else "") + null if null else "")
    return text[0].upper() + text[1:]


def _value(cfg: DictConfig, name: str) -> str:
    if OmegaConf.is_missing(cfg, name):
        return "required"
    value = cfg[name]
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, enum_to_str=True)
    value = value.name if isinstance(value, Enum) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"`{text}`" if len(text) <= LONG else "see its file in `conf/`"


def _nodes(node: type) -> list[str]:
    return [name for name, hint in typing.get_type_hints(node).items() if dataclasses.is_dataclass(hint)]


def _hints(node: type) -> dict[str, Any]:
    return typing.get_type_hints(node, include_extras=True)


def _examples(text: str) -> str:
    """Example calls without their indent, with what follows a call as a comment."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(re.sub(r" {2,}", "  # ", line) for line in lines if line)
