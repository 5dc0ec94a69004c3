"""Label names in charts: find fonts for characters that Matplotlib's default font lacks, or show numbers instead."""

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import matplotlib
from matplotlib import font_manager, ft2font

from emotion_lightning.runs.plain_text import printable

log = logging.getLogger(__name__)

_LIKELY = ("cjk", "noto", "wenquanyi", "wqy", "droid", "hei", "gothic", "nanum", "malgun", "ipa", "takao", "unifont",
           "hiragino", "pingfang", "arial unicode", "song", "ming")  # fmt: skip
"""Parts of the names of fonts with many glyphs. They are opened first, because opening all fonts takes seconds."""

_numbers: ContextVar[dict[str, str]] = ContextVar("numbers")


@contextmanager
def drawn(names: Sequence[str]) -> Iterator[None]:
    """Draw these names in a font that has their characters; names without a font are shown as numbers."""
    fonts, numbers = _ways(tuple(names))
    before = _numbers.set(numbers)
    try:
        with matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *fonts]}):
            yield
    finally:
        _numbers.reset(before)


def shown(name: str) -> str:
    """Return the name, or the number that replaces it in charts."""
    return _numbers.get({}).get(name, name)


def numbers(names: Sequence[str]) -> dict[str, str]:
    """Return the names that no installed font can draw, each with the number that charts show instead."""
    return dict(_ways(tuple(names))[1])


@functools.lru_cache(maxsize=8)  # the cache also avoids logging the warning twice
def _ways(names: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Return the additional font families that the names need, and numbers for the names that no font can draw."""
    wanted = {name: {letter for letter in printable(name) if not letter.isspace()} for name in names}
    missing = set().union(*wanted.values()) - _letters(font_manager.findfont(font_manager.FontProperties()))
    families: list[str] = []
    for font in _installed() if missing else []:
        found = missing & _letters(font.fname)
        if found:
            families.append(font.name)
            missing -= found
        if not missing:
            break
    lost = {name: f"no. {place}" for place, name in enumerate(names, start=1) if wanted[name] & missing}
    if lost:
        log.warning(
            "No installed font has the letters of %d label%s (%s): pictures show numbers instead, which the page "
            "explains. With a font that has them, such as Debian's fonts-noto-cjk for Chinese, Japanese and Korean, "
            "names are drawn.",
            len(lost),
            "" if len(lost) == 1 else "s",
            ", ".join(list(lost)[:3]) + (", …" if len(lost) > 3 else ""),
        )
    return families, lost


def _installed() -> list[font_manager.FontEntry]:
    """Return the outline fonts, likely ones first, including fonts installed after Matplotlib cached its list."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in known:
            try:
                font_manager.fontManager.addfont(file)
            except (OSError, RuntimeError, ValueError):  # a bitmap font, such as one of coloured emojis
                continue
    fonts = [
        font
        for font in font_manager.fontManager.ttflist
        # Matplotlib (from 3.10) includes "Last Resort", which draws a box with a code for every character.
        if font.style == "normal" and not font.name.startswith("Last Resort") and Path(font.fname).exists()
    ]
    return sorted(fonts, key=lambda font: not any(part in font.name.lower() for part in _LIKELY))


@functools.lru_cache(maxsize=512)
def _letters(file: str) -> frozenset[str]:
    """Return the characters of a font; empty if the file cannot be read."""
    try:
        return frozenset(map(chr, ft2font.FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
