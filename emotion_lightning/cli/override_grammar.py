"""Quote values for Hydra's override grammar, so that each text stays one value."""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException

from emotion_lightning import config
from emotion_lightning.config import label_keys, redaction, schema
from emotion_lightning.errors import UserError

_PATHS_OF_HYDRA = {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
ARGUMENT = re.compile(r"(?P<sign>\+{0,2})(?P<name>[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)
_SWEEP_FUNCTION = re.compile(r"(choice|range|interval|glob|tag|sort|shuffle)\(.*\)", re.DOTALL)


_COMMA = re.compile(r",(?![^\[\]]*\])")
"""A comma outside brackets: [a.csv,b.csv] is one value."""

_LONG_NUMBER = re.compile(r"[\d_]{300,}")
"""A number with 300 digits or more; a float holds at most 1.8e308, and Python parses at most 4,300 digits."""


def as_text(argument: str) -> str:
    """Decode an argument of the command line as UTF-8.

    Python stores bytes that its locale's encoding cannot decode as surrogates.

    Raises:
        UserError: the argument is not valid UTF-8.
    """
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise UserError(f"{argument} is not UTF-8; give texts and file names in UTF-8.") from None


def quoted(value: Any) -> str:
    """A value as Hydra's grammar writes it: parsing the result gives the same value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ",".join(quoted(part) for part in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{label_keys.encoded(key)}:{quoted(part)}" for key, part in value.items()) + "}"
    return QuotedString(text=_without_interpolation(str(value)), quote=Quote.single).with_quotes()


def _without_interpolation(text: str) -> str:
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def quote_texts(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """Quote the values of text settings, which Hydra would otherwise split at commas, apostrophes and brackets.

    Args:
        command: name of the command.
        arguments: the command line, as the user typed it.
        multirun: keep comma-separated values and sweep functions such as choice(…) as sweeps.

    Raises:
        UserError: an argument has no name, an empty value, a value that is not an option of its group, or a number
            with 300 digits or more.
    """
    literal = schema.text_settings(command)
    groups = schema.groups(command)
    lists = {name for name, hint in schema.fields_of(config.SCHEMAS[command]) if hint in (list[str], list[str] | None)}
    prepared = []
    for argument in arguments:
        match = ARGUMENT.fullmatch(argument)
        if not match:
            if argument.startswith("="):
                raise UserError(f"{argument} lacks a name; settings are given as name=value.")
            prepared.append(argument)
            continue
        sign, name, value = match["sign"], match["name"], match["value"]
        if name in groups and value in ("null", "None", ""):
            options = schema.option_files(name, command)
            raise UserError(f"{name}={value} is no option; choose {name}= one of {', '.join(options)}.")
        if name in groups:
            _check_option(command, name, value)
        if name in literal or name in _PATHS_OF_HYDRA or name.startswith("model.roles."):
            value = _quote_text(name, value, multirun=multirun)
        elif name in label_keys.MAPPINGS or name in lists:
            value = _quote_names(name, value)
            # As in `override`: the mapping may have any keys.
            sign = "++" if name in label_keys.MAPPINGS and value.startswith("{") else sign
        elif number := _LONG_NUMBER.search(value):
            raise UserError(f"{name}={value[:20]}… holds a number of {len(number[0])} digits; give a smaller one.")
        prepared.append(f"{sign}{name}={value}")
    return prepared


def refuse_dashes(command: str, arguments: Sequence[str]) -> None:
    """Raise UserError for settings with dashes before their names, as other programs take them."""
    known = {name for name, _ in schema.fields_of(config.SCHEMAS[command])} | schema.groups(command)
    dashed = [a for a in arguments if a.startswith("-") and "=" in a and a.lstrip("-").partition("=")[0] in known]
    if dashed:
        plain = shlex.join(redaction.argument(a.lstrip("-")) for a in dashed)
        raise UserError(
            f"Settings are given without dashes: {plain}. In a file for `wandb sweep`, write "
            "${args_no_hyphens} instead of ${args}."
        )


def _check_option(command: str, group: str, value: str) -> None:
    """Raise UserError for an option that Hydra's grammar parses as a number, a bool or a mapping, not as a name."""
    try:
        parsed = OverridesParser.create().parse_rule(value, "value")
    except (HydraException, ValueError):
        return  # Hydra reports this error itself, with the whole override
    for part in parsed.list if isinstance(parsed, ChoiceSweep) else [parsed]:
        if isinstance(part, int | float | dict):
            options = schema.option_files(group, command)
            raise UserError(f"{group}={value[:40]} is no option; choose {group}= one of {', '.join(options)}.")


def _quote_names(name: str, value: str) -> str:
    """Quote the names in a mapping of labels or in a list of texts, which may be of any script.

    Hydra's grammar has letters beyond ASCII only in quotes, and not at all in the keys of a mapping.

    Raises:
        UserError: a mapping of labels is none, or not of the right form.
    """
    if name in label_keys.MAPPINGS:
        return _quote_mapping(name, value) if value.startswith("{") else value
    if value.isascii() or not value.startswith("["):
        return value
    parsed = _of_grammar(value)
    found = _of_yaml(value) if parsed is None else None  # None also for what YAML cannot read: Hydra reports it
    return quoted(found) if isinstance(found, list) and all(isinstance(part, str) for part in found) else value


def _quote_mapping(name: str, value: str) -> str:
    lists = name == "data.merge"
    example = f"{name}={'{joy: [happiness, love]}' if lists else '{happiness: joy}'}"
    found = _of_yaml(value)
    # In YAML {a:b} is one name, and in Hydra's grammar it is a mapping.
    if not isinstance(found, dict) or not all(found.values()):
        parsed = _of_grammar(value)
        if isinstance(parsed, ChoiceSweep):
            return value
        found = _texts(parsed) if isinstance(parsed, dict) else found
    if not isinstance(found, dict):
        raise UserError(f"{name}={value} is no mapping; write it as in {example}, in quotes for the shell.")
    for part in found.values():
        names = part if lists else [part]
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            what = "a list of labels for each new label" if lists else "one name for each label"
            raise UserError(f"{name}={value}: {name} takes {what}, as in {example}.")
    return quoted(found)


def _of_grammar(value: str) -> Any:
    """A value as Hydra's grammar reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_rule(value, "value")
    except (HydraException, ValueError):
        return None


def _of_yaml(value: str) -> Any:
    """A value in YAML's flow style, in which each scalar is the text that it is written as; None if it is not."""
    try:
        return yaml.load(value, yaml.BaseLoader)
    except (yaml.YAMLError, TypeError):  # a list as a key
        return None


def _texts(value: Any) -> Any:
    """What Hydra's grammar read, with names as texts."""
    if isinstance(value, dict):
        return {_texts(key): _texts(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_texts(part) for part in value]
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return value.text if isinstance(value, QuotedString) else str(value)


def _quote_text(name: str, value: str, *, multirun: bool) -> str:
    if name == "text":
        return quoted(value)
    if value == "" and name != "data.separator":
        raise UserError(f"{name} is empty; give a value, or leave it out.")
    if value == "null" or re.fullmatch(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", value, re.DOTALL):
        return value  # null, or already quoted for Hydra
    if multirun and _SWEEP_FUNCTION.fullmatch(value):
        return value
    parts = _COMMA.split(value)
    if multirun and len(parts) > 1 and all(parts) and not os.path.exists(value):
        return ",".join(quote_path(part) for part in parts)
    return quote_path(value)


_PLAIN = re.compile(r"[\w./-]+( [\w./-]+)*")
"""A text that needs no quotes as an item of a list."""


def typed(name: str, value: Any) -> str:
    """A setting as people type it: the readers of the command line take texts as they are.

    >>> typed("data.text", "what I felt"), typed("data.true_values", ["yes"]), typed("data.labels", ["joy, love"])
    ('data.text=what I felt', 'data.true_values=[yes]', "data.labels=['joy, love']")
    """
    if isinstance(value, list):
        parts = (part if isinstance(part, str) and _PLAIN.fullmatch(part) else quoted(part) for part in value)
        return f"{name}=[{','.join(parts)}]"
    return f"{name}={value if isinstance(value, str) else quoted(value)}"


def quote_path(value: str) -> str:
    """Quote a path as one value."""
    # Interpolations such as ${oc.env:HOME} are useful in paths, so they are not escaped.
    return QuotedString(text=value, quote=Quote.single).with_quotes()


def override(name: str, value: Any, options: set[str]) -> str:
    """A setting as an override; the values of the groups in `options` are not quoted."""
    if name in options:
        return f"{name}={value}"
    # ++ because an open mapping may have keys that the option file does not have.
    return f"{'++' if isinstance(value, dict) else ''}{name}={quoted(value)}"


def unquoted(value: str | None) -> str | None:
    """The text of a value that may be quoted; None for null."""
    if value is None or value == "null":
        return None
    return re.sub(r"\\(['\"\\])", r"\1", value[1:-1]) if value[:1] in "'\"" else value


def shell_line(command: str, arguments: Sequence[str]) -> str:
    """A command line, quoted for a shell and without secrets."""
    return shlex.join(["python", "-m", f"emotion_lightning.{command}", *map(redaction.argument, arguments)])
