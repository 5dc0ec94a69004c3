"""Tables in zip files. One file of the archive is unpacked into a temporary folder, under a name of our own."""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Container, Iterable
from pathlib import Path, PurePosixPath

from emotion_lightning import terminal
from emotion_lightning.data.formats.choosing import choose
from emotion_lightning.data.formats.encoding import unreadable
from emotion_lightning.errors import UserError

_BOMB_SIZE = 1 << 30
_BOMB_RATIO = 100
"""Texts are packed to a third or a tenth of their size; what unpacks to a hundredfold and is large is no table."""

_BLOCK = 1 << 20
_NO_TABLES = ("readme", "license", "licence", "copying", "notice", "changelog")


class Unpacked:
    """A file of an archive, unpacked until this object is forgotten.

    Args:
        path: the archive.
        wanted: name of the file in it; None: the only one that is a table.
        suffixes: suffixes of tables, in lower case; text formats may also end in .gz.

    Raises:
        UserError: the archive is damaged, encrypted or too large, or has no or several such files.
    """

    def __init__(self, path: Path, wanted: str | None, suffixes: Collection[str]) -> None:
        try:
            with zipfile.ZipFile(path) as packed:
                found = {part.filename: part for part in packed.infolist() if _is_table(part, suffixes)}
                part = found[_choose(path, list(found), wanted, suffixes)]
                _check(path, packed, part)
                self._folder = tempfile.TemporaryDirectory(prefix="emotion_lightning_")
                self.name = part.filename
                self.path = Path(self._folder.name) / f"table{_suffix(part.filename, suffixes)}"
                with packed.open(part) as source, self.path.open("wb") as target:
                    left = part.file_size
                    while block := source.read(min(_BLOCK, left + 1)):
                        left -= len(block)
                        if left < 0:
                            raise UserError(f"{path}: {terminal.one_line(self.name)} is larger than the archive says.")
                        target.write(block)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise unreadable(path, error) from error
        except ImportError as error:  # a method of packing that this Python lacks
            raise unreadable(path, error) from error


def is_aside(name: str) -> bool:
    """Whether the name of a file says that it is no table: hidden, or a README or a licence."""
    stem = name.lower()
    return stem.startswith((".", "_")) or stem.startswith(_NO_TABLES)


def _is_table(part: zipfile.ZipInfo, suffixes: Container[str]) -> bool:
    place = PurePosixPath(part.filename.replace("\\", "/"))
    # Not part.is_dir(): of a damaged archive with a name of no letters that raises IndexError.
    aside = part.filename.endswith("/") or is_aside(place.name) or "__MACOSX" in place.parts
    return not aside and _suffix(part.filename, suffixes) is not None


def _suffix(name: str, suffixes: Container[str]) -> str | None:
    """The suffix of a table, in lower case; None if the name has none."""
    own = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    packed = own[-1:] == [".gz"]
    last = own[-2:-1] if packed else own[-1:]
    return last[0] + (".gz" if packed else "") if last and last[0] in suffixes else None


def _choose(path: Path, names: list[str], wanted: str | None, suffixes: Iterable[str]) -> str:
    if wanted is not None and wanted not in names:
        ends = [name for name in names if PurePosixPath(name).name == wanted]
        wanted = ends[0] if len(ends) == 1 else wanted
    try:
        return choose(path, names, wanted, kind="table")
    except UserError as error:
        if not names:
            raise UserError(f"{path} holds no table; tables end in {', '.join(sorted(suffixes))}.") from None
        if wanted is None:
            raise UserError(f"{error}, or unpack it and give the folder as data.path.", ways=error.ways) from None
        raise


def _check(path: Path, packed: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    name = terminal.one_line(part.filename)
    if part.flag_bits & 1:
        raise UserError(f"{path}: {name} is encrypted; unpack it with its password, and give the file.")
    if part.file_size > _BOMB_SIZE and part.file_size > _BOMB_RATIO * part.compress_size:
        raise UserError(
            f"{path}: {name} would unpack to {part.file_size / 2**30:.1f} GB, {_BOMB_RATIO} times what it takes here, "
            "as no table does; it is not unpacked."
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if part.file_size > free:
        raise UserError(
            f"{path}: {name} unpacks to {part.file_size / 2**30:.1f} GB, and {tempfile.gettempdir()} has "
            f"{free / 2**30:.1f} GB left; unpack it elsewhere, and give the file."
        )
