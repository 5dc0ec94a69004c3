"""Text out of bytes: UTF-8 unless a setting says otherwise, and words for bytes that are none."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from emotion_lightning.errors import UserError, first_line

_SAMPLE = 1 << 18
_USUAL = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "gb18030", "big5", "cp949", "koi8_r",
)  # fmt: skip
"""What texts that are not UTF-8 are in, mostly; a guess among all of Python's hundred encodings goes astray."""

_GZIP = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel or zip file; save the sheet as csv",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the sheet as csv",
    b"PAR1": "a parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    _GZIP: "a gzip file; name it so, with .gz at the end",
}


def is_zipped(path: Path) -> bool:
    """Whether a file is named as gzip."""
    return path.suffix.lower() == ".gz"


def open_bytes(path: Path) -> Any:
    """The content of a file, unzipped where it is named .gz."""
    return gzip.open(path, "rb") if is_zipped(path) else path.open("rb")


@contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """A file's text, a byte order mark left out; bytes that are no text come as lone surrogates.

    Raises:
        UserError: while it is open, where the file turns out to be damaged or of another kind.
    """
    try:
        _refuse_other_kinds(path)
        raw = open_bytes(path)
        with io.TextIOWrapper(raw, encoding=encoding or "utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except UnicodeError as error:  # encodings of several bytes a letter have no surrogates for wrong ones
        reason = getattr(error, "reason", str(error))
        raise UserError(f"{path} is not {encoding or 'UTF-8'}: {reason}; name its encoding: data.encoding=…") from error
    except (zlib.error, EOFError, OSError) as error:
        raise unreadable(path, error) from error


def _refuse_other_kinds(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    for mark, kind in _OTHER_KINDS.items():
        if start.startswith(mark) and not (mark == _GZIP and is_zipped(path)):
            raise UserError(f"{path} is {kind}.")


class Lines:
    """The lines of a file, with a note when one of them holds a NUL byte or bytes that are no text.

    Most lines are clean, so that cells need to be looked at only where this says so.

    Attributes:
        suspicious: such a line came since this was last set to False.
        number: of the last line.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.suspicious = False
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.number += 1
            if self.number == 1:
                line = line.lstrip("\ufeff")  # a mark that the encoding named did not expect
            if "\0" in line or not (line.isascii() or decoded(line)):
                self.suspicious = True
            yield line


def decoded(text: str) -> bool:
    """Whether all of a text's bytes were text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def wrong_bytes(path: Path, encoding: str | None, text: str, place: str) -> UserError:
    """The error for a text with bytes that are none in this encoding.

    Args:
        path: the file.
        encoding: as set; None is UTF-8.
        text: what was read, bytes that are no text as lone surrogates.
        place: row, line and column in words.
    """
    byte = next((ord(letter) - 0xDC00 for letter in text if 0xDC80 <= ord(letter) <= 0xDCFF), None)
    shown = f": byte 0x{byte:02x}" if byte is not None else ""
    start = f"{path} is not {encoding or 'UTF-8'} ({place}{shown})"
    if encoding is None and _is_partly_utf8(path):
        return UserError(f"{start}, though other letters of it are: it mixes encodings; write those bytes anew.")
    likely = guess(path)
    if likely is None or likely == encoding:
        return UserError(f"{start}; save it as UTF-8, or name its encoding: data.encoding=…")
    return UserError(f"{start}; it may be {likely}: give data.encoding={likely}, or save it as UTF-8.")


def guess(path: Path) -> str | None:
    """The encoding that a file is probably in, or None."""
    from charset_normalizer import from_bytes

    with open_bytes(path) as file:
        sample = file.read(_SAMPLE)
    for mark, name in {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}.items():
        if sample.startswith(mark):
            return name
    found = from_bytes(sample, cp_isolation=list(_USUAL), threshold=0.5)
    best = found.best()
    if best is None:
        return None
    # Few accents make as good a text in several encodings; of those the most frequent is named.
    alike = {name for match in found if match.chaos <= best.chaos for name in match.could_be_from_charset}
    return _USUAL[0] if _USUAL[0] in alike else best.encoding


def _is_partly_utf8(path: Path) -> bool:
    """Whether letters beyond ASCII stand in a file as UTF-8: by chance that hardly happens."""
    with open_bytes(path) as file:
        sample = file.read(_SAMPLE).decode("utf-8", errors="surrogateescape")
    beyond = [letter for letter in sample if letter > "\x7f"]
    whole = sum(not "\udc80" <= letter <= "\udcff" for letter in beyond)
    return 2 * whole >= len(beyond)


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file that is damaged, or not ours to read."""
    if isinstance(error, PermissionError):
        return UserError(f"{path} cannot be read: permission denied.")
    return UserError(f"{path} cannot be read ({first_line(error)}); it is damaged, cut short or of another format.")
