"""Decodes text files, by default as UTF-8, and explains bytes that cannot be decoded."""

import codecs
import functools
import gzip
import io
import unicodedata
import zipfile
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

_AROUND = 16
"""Characters that are shown before and after a wrong byte."""

_LINES = 2000
"""Number of lines among which one is looked for that shows how encodings differ."""

_OFFERED = 4
"""Maximum number of encodings that a message offers."""

_GZIP = b"\x1f\x8b"
_OTHER_KINDS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as .xlsx or csv",
    b"SQLite format 3": "an SQLite database; name it .sqlite",
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
    with text_errors(path, encoding):
        refuse_other_kinds(path)
        with as_text(open_bytes(path), encoding) as file:
            yield file


def as_text(raw: Any, encoding: str | None) -> TextIO:
    """Decode an open binary file as `open_text` does."""
    return io.TextIOWrapper(raw, encoding=encoding or "utf-8-sig", errors="surrogateescape", newline="")


@contextmanager
def text_errors(path: Path, encoding: str | None) -> Iterator[None]:
    """Turn the errors of reading a text file into a UserError."""
    try:
        yield
    except UnicodeError as error:  # multi-byte encodings cannot turn wrong bytes into surrogates
        reason = getattr(error, "reason", str(error))
        raise UserError(f"{path} is not {encoding or 'UTF-8'}: {reason}; name its encoding: data.encoding=…") from error
    except (zlib.error, EOFError, OSError) as error:
        raise unreadable(path, error) from error


def refuse_other_kinds(path: Path) -> None:
    """Raise UserError if the content of a file is of a format that is no text, whatever its name is."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{path} is {_zip_kind(path)}.")
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UserError(
            f"{path} is a pickle, which may run any code when it is opened; where it comes from, save its table as csv "
            "or parquet."
        )
    for mark, kind in _OTHER_KINDS.items():
        if start.startswith(mark) and not (mark == _GZIP and is_zipped(path)):
            raise UserError(f"{path} is {kind}.")


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a damaged Excel or zip file"
    if any(name.startswith("xl/") for name in names):
        return "an Excel file; name it .xlsx"
    return "a zip file; name it .zip"


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


def numbered_lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1; raise UserError for undecodable bytes."""
    with open_text(path, encoding) as file:
        lines = Lines(file)
        for line in lines:
            if lines.suspicious:
                lines.suspicious = False
                if not decoded(line):
                    raise wrong_bytes(path, encoding, line, f"line {lines.number}")
            yield lines.number, line


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
    if likely == "utf-16":
        return UserError(
            f"{start}; it may be {likely}: give data.encoding={likely}, or save it as UTF-8.",
            ways=[{"encoding": likely}],
        )
    number, readings = _readings(path, likely, given=encoding or "utf-8")
    if not readings:
        return UserError(f"{start}; save it as UTF-8, or name its encoding: data.encoding=…")
    shown = ", ".join(f"{name} {reading!r}" for name, reading in readings.items())
    return UserError(
        f"{start}. Line {number} would read: {shown}. Choose the encoding that is right, such as "
        f"data.encoding={next(iter(readings))}, or save the file as UTF-8.",
        ways=[{"encoding": name} for name in readings],
    )


def _readings(path: Path, likely: str | None, *, given: str) -> tuple[int, dict[str, str]]:
    """The number of a line, and what it reads in each encoding that the file may have, the likeliest first.

    Few bytes hardly tell the encodings of related languages apart, so several are offered, and the line is one in which
    they differ.
    """
    with open_bytes(path) as file:
        sample = file.read(_SAMPLE)
    odd: dict[str, tuple[float, bool]] = {}
    for name in dict.fromkeys((*_USUAL, *([likely] if likely else []))):
        try:
            whole = codecs.getincrementaldecoder(name)("strict").decode(sample)
        except (UnicodeError, LookupError):
            continue
        if name != given:
            odd[name] = (round(_oddness(whole), 1), name != likely)
    names = sorted(odd, key=lambda name: odd[name])
    names = [name for name in names if odd[name][0] <= odd[names[0]][0] + 0.5]
    best: tuple[int, dict[str, str]] = (0, {})
    for number, line in enumerate(sample.split(b"\n")[:_LINES], 1):
        if line.isascii():
            continue
        at = max(0, next(place for place, byte in enumerate(line) if byte > 0x7F) - _AROUND)
        found: dict[str, str] = {}
        for name in names:
            reading = line.decode(name, errors="replace")[at : at + 3 * _AROUND].strip()
            if reading not in found.values():
                found[name] = reading
        if len(found) > len(best[1]):
            best = number, found
    return best[0], dict(list(best[1].items())[:_OFFERED])


def _oddness(text: str) -> float:
    """Fraction of the letters beyond ASCII that stand oddly, which shows that a text was read in a wrong encoding.

    Odd are signs beside letters, letters of two scripts side by side, a capital after a small letter, and Latin text
    most of whose letters have accents.
    """
    beyond = odd = 0
    for place, letter in enumerate(text):
        if letter <= "\x7f":
            continue
        beyond += 1
        beside = [other for other in text[max(0, place - 1) : place] + text[place + 1 : place + 2] if other.isalpha()]
        before = text[place - 1] if place else " "
        if not letter.isalpha():
            odd += bool(beside) and unicodedata.category(letter) not in ("Pi", "Pf", "Pd", "Po", "Zs", "Mn", "Mc")
        elif any(_script(other) != _script(letter) for other in beside) or (letter.isupper() and before.islower()):
            odd += 1
    latin = [letter for letter in text if letter.isalpha() and _script(letter) == "LATIN"]
    accents = sum(letter > "\x7f" for letter in latin)
    return odd / max(beyond, 1) + (1.0 if latin and 2 * accents > len(latin) else 0.0)


@functools.lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    found = unicodedata.name(letter, "").partition(" ")[0]
    return "CJK" if found in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK") else found


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
