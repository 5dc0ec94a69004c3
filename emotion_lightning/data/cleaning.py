"""Optional cleaning of texts before tokenization; the chosen steps are stored with the model."""

import html
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from emotion_lightning.config import CleaningStep

_NEWLINES = re.compile(r"(\\r)?\\n|\\r")
# A URL ends before white space, quotes, angle brackets, the backslash of a literal \n, and letters beyond ASCII.
URL = re.compile(r"(https?://|www\.)[!#-&(-;=?-\[\]-~]+", re.IGNORECASE)
# User names on X have up to 15 word characters. The lookbehind excludes e-mail addresses.
_USER = re.compile(r"(?<![\w@.])@\w{1,15}\b")
_REFERENCE = re.compile(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")
"""A character reference of HTML, as `html.unescape` finds it."""

Span = tuple[int, int]
"""Start and end of a part of a text, in characters."""


def cleaner(steps: Sequence[CleaningStep]) -> Callable[[str], str]:
    r"""Return a function that cleans a text; the order of the steps is fixed.

    Users and URLs become @user and http, as in TweetEval (Barbieri et al., 2020) and in the training of its models.

    >>> cleaner(list(CleaningStep))(r"@anna1 so &lt;3 this\nhttps://t.co/x &amp; you")
    '@user so <3 this http & you'
    """
    chosen = [change for step, change in _CHANGES.items() if step in steps]

    def clean(text: str) -> str:
        for change in chosen:
            text = change(text)
        return text

    return clean


def located(steps: Sequence[CleaningStep]) -> Callable[[str], tuple[str, list[Span]]]:
    """Return a function that cleans a text as `cleaner` does, and says where each character of the result comes from.

    The function returns the cleaned text and, for each of its characters, the span of the given text that it stands
    for. It is slower than `cleaner`.

    >>> located([CleaningStep.html])("I &lt;3 U")[1]
    [(0, 1), (1, 2), (2, 6), (6, 7), (7, 8), (8, 9)]
    """
    chosen = [edits for step, edits in _EDITS.items() if step in steps]

    def clean(text: str) -> tuple[str, list[Span]]:
        spans = [(place, place + 1) for place in range(len(text))]
        for edits in chosen:
            parts: list[str] = []
            kept: list[Span] = []
            at = 0
            for start, end, new in edits(text):
                parts += [text[at:start], new]
                kept += [*spans[at:start], *[(spans[start][0], spans[end - 1][1])] * len(new)]
                at = end
            text, spans = "".join([*parts, text[at:]]), kept + spans[at:]
        return text, spans

    return clean


Edit = tuple[int, int, str]
"""Start and end of a part of a text, and what replaces it."""


def _replaced(pattern: re.Pattern[str], new: Callable[[str], str]) -> Callable[[str], Iterator[Edit]]:
    return lambda text: ((found.start(), found.end(), new(found[0])) for found in pattern.finditer(text))


def _emoji_edits(text: str) -> Iterator[Edit]:
    found: list[Edit] = []
    if not text.isascii():
        import emoji

        def note(letters: str, data: dict[str, Any]) -> str:
            found.append((data["match_start"], data["match_end"], _name(data)))
            return letters

        emoji.replace_emoji(text, note)
    return iter(found)


def _name(data: dict[str, Any]) -> str:
    return f" {data['en'].strip(':').replace('_', ' ')} "


def _name_emojis(text: str) -> str:
    if text.isascii():
        return text
    import emoji

    return emoji.replace_emoji(text, lambda _, data: _name(data))


_CHANGES: dict[CleaningStep, Callable[[str], str]] = {
    CleaningStep.newlines: lambda text: _NEWLINES.sub(" ", text),
    CleaningStep.urls: lambda text: URL.sub("http", text),
    CleaningStep.users: lambda text: _USER.sub("@user", text),
    # After the steps above, because the characters that it unescapes are meant literally.
    CleaningStep.html: html.unescape,
    # After html, because &#128514; is an emoji too.
    CleaningStep.emojis: _name_emojis,
}

_EDITS: dict[CleaningStep, Callable[[str], Iterator[Edit]]] = {
    CleaningStep.newlines: _replaced(_NEWLINES, lambda _: " "),
    CleaningStep.urls: _replaced(URL, lambda _: "http"),
    CleaningStep.users: _replaced(_USER, lambda _: "@user"),
    CleaningStep.html: _replaced(_REFERENCE, html.unescape),
    CleaningStep.emojis: _emoji_edits,
}
"""The same changes one by one, in the same order."""
