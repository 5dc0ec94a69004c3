"""Tokens are joined to words, and words are found in the text as it was given, also after cleaning."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_lightning import config
from emotion_lightning.config import CleaningStep
from emotion_lightning.data import words
from emotion_lightning.data.batches import tokenize
from emotion_lightning.data.cleaning import cleaner, located
from emotion_lightning.data.template import Template
from emotion_lightning.models import backbone, model_folder

PIECES = [
    "&lt;",
    "&amp",
    "&#128514;",
    "&bogus;",
    "@anna",
    "😂",
    "👩‍👩‍👧‍👦",
    "http://t.co/x?a=1",
    "\\n",
    "\r",
    " ",
    "a",
    "é",
    "&",
    ";",
    "#",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return model_folder.load_tokenizer(backbone.BUNDLED_RUN / "model")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't, #sorry :( @me!!@you", ["I", "can't", ",", "#sorry", ":(", "@me", "!!", "@you"]),
        ("so 😊😊 👍🏽 ok👩‍👩‍👧‍👦", ["so", "😊😊", "👍🏽", "ok", "👩‍👩‍👧‍👦"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("嬉しい!", ["嬉", "し", "い", "!"]),
        ("at 10:30, 3.5 or well-known - https://t.co/x", ["at", "10:30", ",", "3.5", "or", "well-known", "-", "https://t.co/x"]),
        (" \n\x00", []),
    ],
)  # fmt: skip
def test_units_are_words_punctuation_and_symbols(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in words.units(text)] == expected


@settings(max_examples=50)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.sets(st.sampled_from(list(CleaningStep))))
def test_cleaning_says_where_each_character_comes_from(text: str, steps: set[CleaningStep]) -> None:
    chosen = list(steps)
    cleaned, spans = located(chosen)(text)
    assert cleaned == cleaner(chosen)(text)
    assert len(spans) == len(cleaned)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert [span[0] for span in spans] == sorted(span[0] for span in spans)
    for letter, (start, end) in zip(cleaned, spans, strict=True):
        if end - start == 1 and text[start] not in "\r😂":
            assert text[start] == letter


@settings(max_examples=50)
@given(st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_each_token_of_a_text_has_a_word_and_the_ids_are_those_of_prediction(tokenizer: Any, text: str) -> None:
    steps = list(CleaningStep)
    (found,) = words.locate([text], tokenizer, max_tokens=12, clean=steps)
    assert found.ids == tokenize([text], tokenizer, max_tokens=12, clean=steps)[0].tolist()
    assert found.word_of[0] is None and None not in found.word_of[1:]  # <bos>, and the text
    assert {word for word in found.word_of if word is not None} == set(range(len(found.words)))
    assert all(0 <= start <= end <= len(text) for start, end in found.words)
    assert all(before[1] <= after[0] for before, after in zip(found.words, found.words[1:], strict=False))


def test_a_token_of_a_cleaned_text_is_found_in_the_text_as_it_was_given(tokenizer: Any) -> None:
    text = "@anna_1 so &lt;3 this https://t.co/x 😂"
    (found,) = words.locate([text], tokenizer, max_tokens=None, clean=list(CleaningStep))
    shown = [text[start:end] for start, end in found.words]
    assert shown[0] == "@anna_1" and shown[-2:] == ["https://t.co/x", "😂"]
    assert shown[1:-2] in (["so", "&lt;", "3", "this"], ["so", "&lt;3", "this"])


def test_what_stands_around_a_text_is_in_no_word(tokenizer: Any) -> None:
    template = Template(text="Emotions? {text}!", before=[2, 50, 51], space=" ", after=[60])
    text = "so glad <bos>"  # the name of a special token is plain text in a template
    (found,) = words.locate([text], tokenizer, max_tokens=32, template=template)
    assert found.ids == tokenize([text], tokenizer, max_tokens=32, template=template)[0].tolist()
    assert [word is None for word in found.word_of] == [True] * 3 + [False] * (len(found.ids) - 4) + [True]
    assert [text[start:end] for start, end in found.words][:2] == ["so", "glad"]


def test_a_special_token_that_a_text_names_belongs_to_the_text(tokenizer: Any) -> None:
    (found,) = words.locate(["<bos> glad"], tokenizer, max_tokens=None)
    assert found.ids[:2] == [2, 2] and found.word_of[:2] == [None, 0]


def test_words_behind_the_last_token_are_left_out(tokenizer: Any) -> None:
    (found,) = words.locate(["glad " * 50], tokenizer, max_tokens=8)
    assert len(found.ids) == 8 and len(found.words) <= 7


def test_no_texts_have_no_tokens(tokenizer: Any) -> None:
    assert words.locate([], tokenizer, max_tokens=8) == []
    (empty,) = words.locate([""], tokenizer, max_tokens=8)
    assert (empty.ids, empty.word_of, empty.words) == ([2], [None], [])


def test_the_steps_of_both_ways_of_cleaning_are_the_same() -> None:
    from emotion_lightning.data import cleaning

    assert list(cleaning._EDITS) == list(cleaning._CHANGES)
    assert set(cleaning._EDITS) == set(config.CleaningStep)
