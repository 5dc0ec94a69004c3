"""Files on disk and in object stores: input files by a path, a folder, a pattern or an address, and output folders.

An address is `s3://bucket/folder`, `gs://…` or of another scheme that pyarrow's file systems know. Keys and regions
come from the environment, as their documentation says, or from the address (`?region=…`).
"""

import functools
import io
import logging
import os
import re
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats import files
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.runs.files import write_bytes

log = logging.getLogger(__name__)

KINDS = ("csv", "tsv", "jsonl", "parquet")
"""Formats of files that are read in pieces."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class InputFile:
    """A file of the input.

    Attributes:
        place: its path or address, with which it is opened.
        name: how messages and results call it: the place without keys.
        size: in bytes.
        changed: time of its last change, in nanoseconds; 0 if the store does not tell.
        values: what its folders say in the manner of Hive, `lang=en/day=1`, by column; None where a value is empty.
    """

    place: str
    name: str
    size: int
    changed: int
    values: tuple[tuple[str, str | None], ...] = ()

    def told(self, message: str) -> str:
        """A message about this file, in which Path has turned its address into a path."""
        return message.replace(str(Path(self.name)), self.name)


def is_address(place: str) -> bool:
    """Whether a place is an address in an object store.

    >>> is_address("s3://bucket/texts"), is_address("texts/new.csv")
    (True, False)
    """
    return _ADDRESS.match(place) is not None


def is_several(given: str) -> bool:
    """Whether an input names more than a single file on disk: a folder, a pattern or an address."""
    path = Path(given).expanduser()
    return is_address(given) or path.is_dir() or (_wildcard(given) is not None and not path.exists())


def find(given: str) -> list[InputFile]:
    """The files that an input names, sorted by name.

    Names that begin with `_` or `.` are left out, as other programs do that write folders of parts; empty files too.

    Args:
        given: a file, a folder with all below it, a pattern with `*`, `**` and `[…]` (on disk also `?`), or an address
            of one of these.

    Raises:
        UserError: there is no such file, or none of a format that is read.
    """
    system, path, query = _opened(given)
    with _told(given):
        info = system.get_file_info(path)
        if info.is_file:
            found, base = [info], path.rpartition("/")[0]
        elif info.type.name == "Directory":
            found, base = _below(system, path), path
        elif (wild := _wildcard(path)) is not None:
            base = path[:wild].rpartition("/")[0]
            wanted = re.compile(_expression(path))
            found = [one for one in _below(system, base or ".") if wanted.fullmatch(one.path.removeprefix("./"))]
        else:
            raise UserError(f"input={_name(given)} does not exist.")
    kept = [one for one in found if one.size and (info.is_file or not _is_hidden(one.path, base))]
    known = [one for one in kept if files.kind_by_name(Path(one.path)) in KINDS]
    if not known:
        has = "" if not kept else f" It has {', '.join(sorted(one.base_name for one in kept)[:5])}."
        raise UserError(
            f"input={_name(given)} has no file with rows that engine=ray reads: {', '.join(KINDS)}, the text ones also "
            f"with .gz.{has}"
        )
    if len(kept) > len(known):
        more = len(kept) - len(known)
        log.warning("Left out of %s, because engine=ray does not read them: %d files.", _name(given), more)
    return sorted((_input_file(given, one, query) for one in known), key=lambda file: file.name)


def _input_file(given: str, info: Any, query: str) -> InputFile:
    place = _joined(given, info.path, query)
    name = _name(place) if is_address(given) else info.path.removeprefix("./")
    return InputFile(place, name, info.size, int(info.mtime_ns or 0), _values(info.path))


def open_bytes(place: str) -> Any:
    """Open a file for reading bytes; it can be sought."""
    system, path, _ = _opened(place)
    return open(path, "rb") if not is_address(place) else io.BufferedReader(system.open_input_file(path), _AT_ONCE)


class Folder:
    """A folder for results, on disk or in an object store.

    Args:
        given: its path or address.

    Attributes:
        name: how messages call it.
    """

    def __init__(self, given: str) -> None:
        self.name = _name(given)
        self._on_disk = None if is_address(given) else Path(given).expanduser().absolute()
        self.given = given if self._on_disk is None else str(self._on_disk)

    def __truediv__(self, name: str) -> str:
        """Place of a file in it."""
        if self._on_disk is not None:
            return str(self._on_disk / name)
        base, mark, query = self.given.partition("?")
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def holds(self, place: str) -> bool:
        """Whether a place lies in it."""
        return place.startswith((self / "x").partition("?")[0].removesuffix("x"))

    def names(self, below: str = "") -> set[str]:
        """Names of the files in it, or in a folder in it; without hidden ones."""
        system, path, _ = _opened(self / below if below else self.given)
        with _told(self.name):
            if system.get_file_info(path).type.name == "File":
                raise UserError(f"output={self.name} is a file; with engine=ray give a folder.")
            found = _below(system, path, recursive=False)
        return {one.base_name for one in found if not one.base_name.startswith(".")}

    def read(self, name: str) -> bytes | None:
        """Content of a file in it; None if there is none."""
        system, path, _ = _opened(self / name)
        with _told(self.name):
            if not system.get_file_info(path).is_file:
                return None
            with system.open_input_file(path) as file:
                return bytes(file.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears with all of its content."""
        if self._on_disk is not None:
            write_bytes(self._on_disk / name, content)
            return
        with self.written(name) as path:
            path.write_bytes(content)

    @contextmanager
    def written(self, name: str) -> Iterator[Path]:
        """Yield a path to write a file to in one step (`runs.files.atomic_write`); in a store it appears after that."""
        if self._on_disk is not None:
            yield self._on_disk / name
            return
        with tempfile.TemporaryDirectory(prefix="emotion_lightning_") as work:
            path = Path(work, Path(name).name)
            yield path
            self._upload(path, name)

    def _upload(self, path: Path, name: str) -> None:
        system, target, _ = _opened(self / name)
        # An object appears when its upload ends. A file of another system would be seen while it grows.
        grows = system.type_name not in ("s3", "gcs", "abfs")
        part = f"{target}.part" if grows else target
        with _told(self.name):
            if grows:
                system.create_dir(target.rpartition("/")[0], recursive=True)
            with path.open("rb") as source, system.open_output_stream(part) as out:
                while block := source.read(_AT_ONCE):
                    out.write(block)
            if grows:
                system.move(part, target)

    def remove(self, name: str) -> None:
        """Remove a folder in it with all of its files, if it is there."""
        system, path, _ = _opened(self / name)
        with _told(self.name):
            if system.get_file_info(path).type.name == "Directory":
                system.delete_dir(path)


# ------------------------------------------------------------------------------------------------------------ addresses


def _opened(place: str) -> tuple[Any, str, str]:
    """The file system of a place, the path in it, and the query of an address."""
    import pyarrow.fs

    if not is_address(place):
        return pyarrow.fs.LocalFileSystem(), str(Path(place).expanduser()), ""
    parts = urllib.parse.urlsplit(place)
    system, root = _system(f"{parts.scheme}://{parts.netloc}/" + (f"?{parts.query}" if parts.query else ""))
    return system, f"{root.rstrip('/')}/{parts.path.strip('/')}".rstrip("/"), parts.query


@functools.lru_cache(maxsize=16)
def _system(root: str) -> tuple[Any, str]:
    import pyarrow
    import pyarrow.fs

    try:
        found: tuple[Any, str] = pyarrow.fs.FileSystem.from_uri(root)
        return found
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{_name(root)} cannot be opened: {first_line(error)}") from error


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn errors of a store into a UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{_name(place)} cannot be reached: {first_line(error)}") from error


def _name(place: str) -> str:
    """A place without keys and options."""
    if not is_address(place):
        return place
    parts = urllib.parse.urlsplit(place)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _joined(given: str, path: str, query: str) -> str:
    """The place of a file that was found at `path`; absolute, because workers may start in other folders."""
    if not is_address(given):
        return os.path.abspath(path)
    parts = urllib.parse.urlsplit(given)
    root = _system(f"{parts.scheme}://{parts.netloc}/" + (f"?{query}" if query else ""))[1]
    inside = path.removeprefix(root.rstrip("/")).lstrip("/")
    return f"{parts.scheme}://{parts.netloc}/{inside}" + (f"?{query}" if query else "")


# -------------------------------------------------------------------------------------------------------------- listing


def _below(system: Any, path: str, *, recursive: bool = True) -> list[Any]:
    import pyarrow.fs

    found = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=recursive, allow_not_found=True))
    return [one for one in found if one.is_file]


def _is_hidden(path: str, base: str) -> bool:
    return any(part[:1] in ("_", ".") for part in path.removeprefix(base).removeprefix("./").split("/") if part)


def _wildcard(path: str) -> int | None:
    """Where the first sign of a pattern stands; None if there is none. In an address `?` begins its options."""
    found = re.search(r"[*\[]" if is_address(path) else r"[*?\[]", path)
    return None if found is None else found.start()


def _expression(pattern: str) -> str:
    """A pattern of files as a regular expression: `*` and `?` stay within a folder, `**` does not.

    >>> [bool(re.fullmatch(_expression(pattern), "a/b/c.csv")) for pattern in ("a/*.csv", "a/**/*.csv")]
    [False, True]
    """
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", pattern)
    return "".join(
        signs.get(part, part.replace("[!", "[^") if part.startswith("[") and part.endswith("]") else re.escape(part))
        for part in parts
    )


def _values(path: str) -> tuple[tuple[str, str | None], ...]:
    """Columns that the folders of a path name.

    >>> _values("texts/lang=en/day=1%2F2/part-0.csv")
    (('lang', 'en'), ('day', '1/2'))
    """
    pairs = [part.partition("=") for part in path.split("/")[:-1] if part.find("=") > 0]
    return tuple((name, None if value == _NO_VALUE else urllib.parse.unquote(value)) for name, _, value in pairs)
