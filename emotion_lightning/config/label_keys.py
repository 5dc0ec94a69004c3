"""Names of labels as keys of settings, in a form that Hydra's grammar can hold.

A key of a mapping on a command line may have letters of ASCII only, and no quotes. Names of labels have any letters, so
they are encoded before Hydra reads them, and decoded when the settings are composed.
"""

import re
from typing import Any
from urllib.parse import quote, unquote

MAPPINGS = ("data.rename", "data.merge")
"""Settings whose keys are names of labels."""

_PLAIN = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_WORDS = ("null", "true", "false", "nan", "inf")
_MARK = "@@"


def encoded(name: str) -> str:
    """A name as a key of Hydra's grammar.

    >>> encoded("joy"), encoded("no joy"), decoded(encoded("\u00c4rger: {1}"))
    ('joy', '@@no%20joy', '\u00c4rger: {1}')
    """
    if _PLAIN.fullmatch(name) and name.lower() not in _WORDS:
        return name
    return _MARK + quote(name, safe="")


def decoded(key: str) -> str:
    """The name that `encoded` was given; other keys are returned as they are."""
    return unquote(key.removeprefix(_MARK)) if key.startswith(_MARK) else key


def decode(settings: Any) -> None:
    """Decode the keys of the mappings in the settings of a command."""
    data = getattr(settings, "data", None)
    for name in ("rename", "merge"):
        if value := getattr(data, name, None):
            setattr(data, name, {decoded(key): part for key, part in value.items()})
