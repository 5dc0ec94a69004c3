"""Decodes text files, by default as UTF-8, and explains bytes that cannot be decoded."""

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
"""Most common encodings of texts that are not UTF-8; a guess among all of Python's hundred encodings is unreliable."""

_GZIP = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel or zip file; save the sheet as csv",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the sheet as csv",
    b"PAR1": "a parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    _GZIP: "a gzip file; name it so, with .gz at the end",
}


def is_zipped(path: Path) -> bool:
    """Whether a file's name ends in .gz."""
    return path.suffix.lower() == ".gz"


def open_bytes(path: Path) -> Any:
    """Open a file for reading bytes, decompressed if its name ends in .gz."""
    return gzip.open(path, "rb") if is_zipped(path) else path.open("rb")


@contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """Open a file as text, without a byte order mark; undecodable bytes become lone surrogates.

    Raises:
        UserError: the file is damaged or of another format; also raised while it is read.
    """
    try:
        _refuse_other_kinds(path)
        raw = open_bytes(path)
        with io.TextIOWrapper(raw, encoding=encoding or "utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except UnicodeError as error:  # multi-byte encodings cannot turn wrong bytes into surrogates
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
    """Lines of a file, with a flag for lines that contain a NUL byte or undecodable bytes.

    Most lines are clean, so callers check single cells only if the flag is set.

    Attributes:
        suspicious: whether such a line was read since this was last set to False.
        number: number of the last line read, from 1.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.suspicious = False
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.number += 1
            if self.number == 1:
                line = line.lstrip("\ufeff")  # a byte order mark that this encoding does not remove
            if "\0" in line or not (line.isascii() or decoded(line)):
                self.suspicious = True
            yield line


def decoded(text: str) -> bool:
    """Whether a text has no lone surrogates, which stand for undecodable bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def wrong_bytes(path: Path, encoding: str | None, text: str, place: str) -> UserError:
    """Return the error for bytes that are invalid in this encoding.

    Args:
        path: the file.
        encoding: encoding in the settings; None means UTF-8.
        text: the text that was read, with undecodable bytes as lone surrogates.
        place: row, line and column, for the message.
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
    """Guess the encoding of a file; None without a good guess."""
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
    # With few accents, the text is equally plausible in several encodings; prefer the most common one.
    alike = {name for match in found if match.chaos <= best.chaos for name in match.could_be_from_charset}
    return _USUAL[0] if _USUAL[0] in alike else best.encoding


def _is_partly_utf8(path: Path) -> bool:
    """Whether at least half of the letters beyond ASCII are valid UTF-8, which hardly happens by chance."""
    with open_bytes(path) as file:
        sample = file.read(_SAMPLE).decode("utf-8", errors="surrogateescape")
    beyond = [letter for letter in sample if letter > "\x7f"]
    whole = sum(not "\udc80" <= letter <= "\udcff" for letter in beyond)
    return 2 * whole >= len(beyond)


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a file that is damaged, or that may not be read."""
    if isinstance(error, PermissionError):
        return UserError(f"{path} cannot be read: permission denied.")
    return UserError(f"{path} cannot be read ({first_line(error)}); it is damaged, cut short or of another format.")
