"""The words of a text, and the tokens that make them: where each token comes from in the text as it was given."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emotion_lightning import config
from emotion_lightning.data.batches import encoding_options
from emotion_lightning.data.cleaning import URL, Span, located
from emotion_lightning.data.template import Template


@dataclass
class LocatedTokens:
    """The tokens of one text, and the words that they make.

    Attributes:
        ids: token ids, as `batches.tokenize` returns them.
        word_of: for each token the number of its word; None for tokens that the text has no part in: special tokens
            and those of a template.
        words: start and end of each word in the given text, in characters, in their order. Words behind the last token
            of a truncated text are left out.
    """

    ids: list[int]
    word_of: list[int | None]
    words: list[Span]


def locate(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    max_tokens: int | None,
    clean: Sequence[config.CleaningStep] = (),
    template: Template | None = None,
) -> list[LocatedTokens]:
    """Clean and tokenize texts as `batches.tokenize` does, and join their tokens to words.

    Args:
        texts: in UTF-8.
        tokenizer: a fast one.
        max_tokens: where texts are truncated; None: nowhere.
        clean: cleaning steps.
        template: what stands around each text.
    """
    if not texts:
        return []
    cleaned = [located(clean)(text) for text in texts]
    space = template.space if template else ""
    encoded = tokenizer(
        [space + text for text, _ in cleaned], return_attention_mask=False, return_token_type_ids=False,
        return_offsets_mapping=True, verbose=False, **encoding_options(max_tokens, template),
    )  # fmt: skip
    found = []
    for number, (text, (_, origins)) in enumerate(zip(texts, cleaned, strict=True)):
        # Numbers of the sequence a token belongs to: None for special tokens that the tokenizer added, not for such as
        # a text names.
        sequences, offsets = encoded.sequence_ids(number), encoded["offset_mapping"][number]
        spans = [
            None if sequence is None else _origin(start - len(space), end - len(space), origins)
            for sequence, (start, end) in zip(sequences, offsets, strict=True)
        ]
        words, word_of = group(text, [span for span in spans if span is not None])
        numbers = iter(word_of)
        own: list[int | None] = [None if span is None else next(numbers) for span in spans]
        ids = list(encoded["input_ids"][number])
        if template is not None:
            own = [*[None] * len(template.before), *own, *[None] * len(template.after)]
            ids = template.around(ids)
        found.append(LocatedTokens(ids, own, words))
    return found


def _origin(start: int, end: int, origins: Sequence[Span]) -> Span:
    """The span of the given text for a span of the cleaned one."""
    start, end = max(0, start), min(end, len(origins))
    if start >= end:  # a token without letters, such as a space that the tokenizer put before the text
        place = origins[start][0] if start < len(origins) else origins[-1][1] if origins else 0
        return place, place
    return origins[start][0], max(last for _, last in origins[start:end])


def group(text: str, tokens: Sequence[Span]) -> tuple[list[Span], list[int]]:
    """Join the tokens of a text to words.

    A word is what `units` finds; units that a token has parts of in common become one word. A token of white space
    belongs to the word after it, at the end of the text to the last word.

    Args:
        text: the text.
        tokens: span of each token in the text, in their order.

    Returns:
        The span of each word that has tokens, and for each token the number of its word.

    >>> group("Unhappy :)", [(0, 2), (2, 7), (7, 9), (9, 10)])
    ([(0, 7), (8, 10)], [0, 0, 1, 1])
    """
    if not tokens:
        return [], []
    parts = units(text)
    if not parts:  # nothing but white space
        return [(min(start for start, _ in tokens), max(end for _, end in tokens))], [0] * len(tokens)
    starts, ends = [start for start, _ in parts], [end for _, end in parts]
    reach = []
    joined = [False] * len(parts)  # with the unit before it
    for start, end in tokens:
        first = min(bisect_right(ends, start), len(parts) - 1)
        last = max(first, bisect_left(starts, end) - 1)
        reach.append(first)
        joined[first + 1 : last + 1] = [True] * (last - first)
    begins = [number for number, yes in enumerate(joined) if not yes]
    of_token = [bisect_right(begins, first) - 1 for first in reach]
    used = sorted(set(of_token))
    place = {number: count for count, number in enumerate(used)}
    limits = [*begins, len(parts)]
    return [(starts[begins[n]], ends[limits[n + 1] - 1]) for n in used], [place[number] for number in of_token]


def units(text: str) -> list[Span]:
    """Return the spans of words, of runs of punctuation, and of runs of emoji and other symbols.

    Letters on both sides of an apostrophe or hyphen are one word, as are digits around a point, # or @ and the word
    behind it, and a URL. In scripts without spaces between words, such as Chinese, each character is a unit; those of
    one token are joined by `group`.

    >>> [text[start:end] for text in ["I can't, #sorry :("] for start, end in units(text)]
    ['I', "can't", ',', '#sorry', ':(']
    """
    found: list[tuple[int, int, str]] = []
    urls = [match.span() for match in URL.finditer(text)]
    for place, letter in enumerate(text):
        if urls and place >= urls[0][0]:
            start, end = urls[0]
            if place == start:
                found.append((start, end, "url"))
            if place == end - 1:
                del urls[0]
            continue
        kind = _kind(letter)
        if not kind:
            continue
        if found and found[-1][1] == place:
            start, _, before = found[-1]
            if kind == "mark" or (kind == before and kind != "one"):
                found[-1] = (start, place + 1, before)
                continue
            if before == "sign" and kind == "word" and text[place - 1] in "#@":
                _leave_last(found, place)
                found.append((place - 1, place + 1, "word"))
                continue
            after = text[place + 1 : place + 2]
            if before == "word" and (
                (letter in "'’-" and _kind(after) == "word")
                or (letter in ".,:" and text[place - 1].isdigit() and after.isdigit())
            ):
                found[-1] = (start, place + 1, "word")
                continue
        found.append((place, place + 1, "symbol" if kind == "mark" else kind))
    return [(start, end) for start, end, _ in found]


def _leave_last(found: list[tuple[int, int, str]], place: int) -> None:
    """Take the # or @ before a word out of the run of punctuation that it ends."""
    start, _, kind = found.pop()
    if start < place - 1:
        found.append((start, place - 1, kind))


def _kind(letter: str) -> str:
    """The kind of a character: word, one (a word by itself), sign, symbol, mark (part of what precedes it); or none."""
    if not letter or letter.isspace():
        return ""
    category = unicodedata.category(letter)
    if category[0] == "M" or letter in "\u200c\u200d" or "\U0001f3fb" <= letter <= "\U0001f3ff":
        return "mark"
    if category[0] in "LN" or letter == "_":
        return "one" if any(first <= letter <= last for first, last in _UNSPACED) else "word"
    if category[0] == "C":
        return ""
    return "symbol" if category == "So" else "sign"


_UNSPACED = [
    ("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"),  # Thai and Lao, Burmese, Khmer
    ("\u3040", "\u30ff"), ("\u31f0", "\u31ff"), ("\uff66", "\uff9f"),  # kana
    ("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff"),  # Chinese
]  # fmt: skip
"""Ranges of the characters of scripts that put no spaces between words."""
