"""Dotted paths into the objects and lists of a cell, as in data.text or annotations.result.value.choices."""

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems, Source

_DEEPEST = 20
"""Lists inside lists, and objects inside objects in messages, are not followed deeper than this."""

_MANY = 100
"""Paths that are listed at most."""


def with_paths(source: Source, paths: Iterable[str | None], *, single: Container[str | None] = ()) -> Source:
    """A source with a further column for each of these dotted paths that leads into one of its columns.

    A path goes through objects by their keys and through every item of lists. What lies at its ends is the cell: a
    single value, or the list of all values if it went through a list.

    Args:
        source: source of rows.
        paths: names of columns, or paths into them; names of columns that exist stay those columns.
        single: those of `paths` that lead to one value in a row, so that a list of one value is that value.
    """
    wanted = [path for path in dict.fromkeys(paths) if path and "." in path.strip(".")]
    if not wanted:
        return source

    def chunks(problems: Problems) -> Iterator[Chunk]:
        for chunk in source.chunks(problems):
            added = {}
            for path in wanted:
                if path not in chunk.columns and (parted := _parted(path, chunk.columns)) is not None:
                    name, keys = parted
                    found = [at(cell, keys) for cell in chunk.columns[name]]
                    if any(value is not None and value != [] for value in found):
                        added[path] = list(map(_only, found)) if path in single else found
            yield Chunk(chunk.rows, chunk.columns | added) if added else chunk

    return dataclasses.replace(source, chunks=chunks)


def _parted(path: str, columns: Mapping[str, list[Any]]) -> tuple[str, list[str]] | None:
    """The column that a path starts in, and the keys after it; None if no column with objects has such a name."""
    keys = path.split(".")
    for count in range(len(keys) - 1, 0, -1):
        name = ".".join(keys[:count])
        if any(isinstance(cell, dict | list) for cell in columns.get(name, ())):
            return name, keys[count:]
    return None


def at(cell: Any, keys: list[str]) -> Any:
    """What lies at the end of a path; None where nothing does.

    >>> at({"text": "so good"}, ["text"]), at([{"value": {"choices": ["joy"]}}, {"value": {}}], ["value", "choices"])
    ('so good', ['joy'])
    """
    ends, through_list = _ends(cell, keys)
    if through_list:
        return [value for value in ends if value is not None]
    return ends[0] if ends else None


def _only(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _ends(cell: Any, keys: list[str], depth: int = 0) -> tuple[list[Any], bool]:
    """The values at the ends of a path, and whether there is a list on it."""
    if isinstance(cell, list):
        if depth > _DEEPEST:
            return [], True
        return [value for part in cell for value in _ends(part, keys, depth + 1)[0]], True
    if not keys:
        return [cell], False
    if isinstance(cell, dict):
        for name, value in cell.items():
            if name == keys[0] or (isinstance(name, str) and normalised(name) == keys[0]):
                return _ends(value, keys[1:], depth)
        # A key may hold dots itself.
        if len(keys) > 1:
            joined = ".".join(keys[:2])
            return _ends(cell, [joined, *keys[2:]], depth)
    return [], False


def leaves(cells: Mapping[str, Any]) -> list[str]:
    """The paths into these cells, by column, that end at texts, numbers or lists of them; for messages.

    >>> leaves({"id": 1, "data": {"text": "so good"}, "marks": [{"value": ["joy"], "by": 1}]})
    ['data.text', 'marks.value', 'marks.by']
    """
    found: dict[str, None] = {}
    for name, cell in cells.items():
        if isinstance(cell, dict) or (isinstance(cell, list) and any(isinstance(part, dict) for part in cell)):
            for path in _below(cell, name, 0):
                found[path] = None
                if len(found) == _MANY:
                    return list(found)
    return list(found)


def _below(cell: Any, path: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(cell, dict):
        for key, value in cell.items():
            yield from _below(value, f"{path}.{key}", depth + 1)
    elif isinstance(cell, list) and any(isinstance(part, dict) for part in cell):
        for part in cell:
            yield from _below(part, path, depth + 1)
    elif cell not in (None, "", []):
        yield path
