"""Label names in charts: find fonts for characters that Matplotlib's default font lacks.

Without such a font, emoji are shown by their names, and labels with other characters by numbers.
"""

import functools
import logging
from collections.abc import Iterator, Sequence, Set
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
    """Draw these names in a font that has their characters; others are shown by the names of emoji, or as numbers."""
    fonts, numbers, named = _ways(tuple(names))
    before = _numbers.set(named | numbers)
    try:
        with matplotlib.rc_context({"font.family": [*matplotlib.rcParams["font.family"], *fonts]}):
            yield
    finally:
        _numbers.reset(before)


def shown(name: str) -> str:
    """Return the name, or what replaces it in charts."""
    return _numbers.get({}).get(name, name)


def numbers(names: Sequence[str]) -> dict[str, str]:
    """Return the names that no installed font can draw, each with the number that charts show instead."""
    return dict(_ways(tuple(names))[1])


@functools.lru_cache(maxsize=8)  # the cache also avoids logging the warning twice
def _ways(names: tuple[str, ...]) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the additional font families that the names need, and what replaces the names that no font can draw.

    Returns:
        The families; numbers by name; and by name, forms in which emoji are spelled out.
    """
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
    named = {name: spelled for name in names if wanted[name] & missing and (spelled := _spelled(name, missing))}
    # Two names must not look the same.
    named = {name: spelled for name, spelled in named.items() if [*names, *named.values()].count(spelled) == 1}
    lost = {
        name: f"no. {place}"
        for place, name in enumerate(names, start=1)
        if wanted[name] & missing and name not in named
    }
    if lost:
        log.warning(
            "No installed font has the letters of %d label%s (%s): pictures show numbers instead, which the page "
            "explains. With a font that has them, such as Debian's fonts-noto-cjk for Chinese, Japanese and Korean, "
            "names are drawn.",
            len(lost),
            "" if len(lost) == 1 else "s",
            ", ".join(list(lost)[:3]) + (", …" if len(lost) > 3 else ""),
        )
    return families, lost, named


def _spelled(name: str, missing: Set[str]) -> str:
    """Return a name with its missing emoji as words, such as `grinning face`; empty if other characters are missing."""
    import emoji

    spelled = emoji.replace_emoji(
        name,
        lambda found, data: f" {data['en'].strip(':').replace('_', ' ')} " if missing & set(found) else found,
    )
    return "" if missing & set(spelled) else " ".join(spelled.split())


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
