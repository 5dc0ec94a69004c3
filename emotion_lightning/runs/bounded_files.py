"""Read text, JSON and YAML files that may come from an untrusted source, within limits.

The type and the size of a file are checked before it is opened: a named pipe would block forever, and a file of
gigabytes would fill the memory. The nesting depth is limited, because the parsers recurse. YAML aliases are not
allowed, because a few lines of aliases can expand to gigabytes.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from emotion_lightning import terminal
from emotion_lightning.errors import UserError

JSON_BYTES = 64 * 2**20
YAML_BYTES = 2**20
DEPTH = 100
ENTRIES = 10_000
"""The most files and folders below a run folder; a run with a thousand labels has fewer than a hundred."""

_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(file: Path, *, limit: int = JSON_BYTES) -> str:
    """Read a regular file as UTF-8 text.

    Args:
        file: the file to read.
        limit: largest allowed size in bytes.

    Raises:
        UserError: the file does not exist, is not a regular file, is larger than the limit, or is not UTF-8.
    """
    size = check_regular(file)
    if size > limit:
        raise UserError(f"{file} is damaged: it has {size:,} bytes, where {limit:,} are the most.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} cannot be read: it is no text in UTF-8 ({error.reason} at byte {error.start})."
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def check_regular(file: Path) -> int:
    """Size of a regular file in bytes.

    Raises:
        UserError: the file does not exist, cannot be read, or is a pipe, device or folder.
    """
    try:
        found = file.stat()
    except FileNotFoundError:
        raise UserError(f"{file} does not exist.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{file} is no regular file but a {_kind(found.st_mode)}; it is not opened.")
    return found.st_size


def check_folder(folder: Path) -> None:
    """Raise UserError for a folder with pipes, devices, sockets or broken links, or with more than ENTRIES entries."""
    seen = 0
    for place, folders, files in os.walk(folder):
        seen += len(folders) + len(files)
        terminal.know_names(*folders, *files)
        if seen > ENTRIES:
            raise UserError(f"{folder} holds more than {ENTRIES:,} files and folders; it is no folder of a run.")
        for name in files:
            path = Path(place, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                if not path.exists():
                    raise UserError(f"{path} is a link to nothing; put the file in its place.")
                mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise UserError(f"{path} is no regular file but a {_kind(mode)}; it is not opened.")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def read_json(file: Path) -> Any:
    """The content of a JSON file; raises UserError if it is not valid or too deeply nested."""
    text = read_text(file)
    try:
        content = json.loads(text)
    except RecursionError:
        raise UserError(f"{file} is damaged: it is nested more than {DEPTH} levels deep.") from None
    except ValueError as error:  # includes numbers with more than 4,300 digits, Python's limit for int()
        raise UserError(f"{file} is not valid JSON: {error}.") from error
    _check_depth(content, file)
    return content


def read_json_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file whose top level is an object; raises UserError otherwise."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: it holds no JSON object.")
    return content


def read_yaml(file: Path) -> Any:
    """The content of a YAML file; raises UserError if it is not valid, too deeply nested or has an alias."""
    text = read_text(file, limit=YAML_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_YAML):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise UserError(f"{file} is damaged: it is nested more than {DEPTH} levels deep.")
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{file} repeats a part by reference (*{event.anchor}); write the part out.")
        return yaml.load(text, Loader=_YAML)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from error


def _check_depth(content: Any, file: Path) -> None:
    level, depth = [content], 0
    while level:
        if depth > DEPTH:
            raise UserError(f"{file} is damaged: it is nested more than {DEPTH} levels deep.")
        parts = [part for part in level if isinstance(part, dict | list)]
        level = [inner for part in parts for inner in (part.values() if isinstance(part, dict) else part)]
        depth += 1
