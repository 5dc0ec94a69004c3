"""Texts that are too long: what is cut, pieces that overlap, and how many tokens are enough."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tables import data_settings

from emotion_lightning import config
from emotion_lightning.config import JoinWindows
from emotion_lightning.data import max_tokens
from emotion_lightning.data.batches import Collate, EmotionRows, ShuffledByLength, Tokens, by_length, tokenize
from emotion_lightning.data.long_texts import Lengths, LongTexts, enough_tokens, read_long_texts
from emotion_lightning.data.module import EmotionData
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.template import Template, read_template
from emotion_lightning.errors import UserError
from emotion_lightning.models import pooling, structure
from emotion_lightning.models.backbone import BUNDLED

WAYS = ["cut_start", "middle", "windows"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUNDLED)


@pytest.fixture(scope="module")
def bare_tokenizer() -> Any:
    """One without special tokens around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "[PAD]": 1} | {f"w{i}": i + 2 for i in range(60)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def long_texts(way: str, *, overlap: int = 2, most: int = 8, join: str = "maximum") -> LongTexts:
    return LongTexts(config.LongTexts(way), overlap, most, JoinWindows(join))


def words(count: int) -> str:
    return " ".join(f"w{i}" for i in range(count))


def read(text: str, tokenizer: Any, limit: int, way: str, **chosen: Any) -> tuple[Tokens, Template]:
    settings = data_settings("sample", long_texts=way, max_tokens=limit, **chosen)
    template = read_template(settings, ["joy"], tokenizer)
    assert template is not None
    own = read_long_texts(settings, around=template.length)
    return tokenize([text], tokenizer, max_tokens=limit, template=template, long_texts=own), template


# -------------------------------------------------------------------------------------------------------------- pieces


def test_each_way_keeps_its_part() -> None:
    ids = list(range(10))
    assert long_texts("cut_end").pieces(ids, 4) == [[0, 1, 2, 3]]
    assert long_texts("cut_start").pieces(ids, 4) == [[6, 7, 8, 9]]
    assert long_texts("middle").pieces(ids, 4) == [[0, 1, 8, 9]]
    assert long_texts("middle").pieces(ids, 5) == [[0, 1, 2, 8, 9]]
    assert long_texts("windows").pieces(ids, 4) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert long_texts("cut_start").pieces(ids, 1) == [[9]]
    assert long_texts("middle").pieces(ids, 1) == [[0]]


@pytest.mark.parametrize("way", ["cut_end", *WAYS])
@pytest.mark.parametrize("length", [0, 1, 7, 8])
def test_a_text_that_fits_stays_whole(way: str, length: int) -> None:
    assert long_texts(way).pieces(list(range(length)), 8) == [list(range(length))]


@pytest.mark.parametrize("overlap", [0, 1, 3, 7])
def test_pieces_cover_the_text_are_full_and_share_enough(overlap: int) -> None:
    room = 8
    for length in range(room + 1, 60):
        pieces = long_texts("windows", overlap=overlap, most=1000).pieces(list(range(length)), room)
        assert {len(piece) for piece in pieces} == {room}
        assert set(sum(pieces, [])) == set(range(length)) and pieces[-1][-1] == length - 1
        shared = [len(set(a) & set(b)) for a, b in zip(pieces, pieces[1:], strict=False)]
        assert min(shared) >= overlap
        # With a piece less, they would share fewer.
        assert (len(pieces) - 2) * (room - overlap) + room < length


def test_more_pieces_than_allowed_leave_out_the_end() -> None:
    pieces = long_texts("windows", most=3).pieces(list(range(100)), 8)
    assert pieces == [list(range(start, start + 8)) for start in (0, 6, 12)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_special_tokens_stay_around_each_piece(tokenizer: Any, way: str, extra: int) -> None:
    content = tokenizer(words(30), add_special_tokens=False)["input_ids"]
    limit = len(content) + 1 - extra  # the bundled tokenizer has one special token, before the text
    tokens, template = read(words(30), tokenizer, limit, way)
    assert template.before == [tokenizer.bos_token_id] and template.after == []
    parts = [tokens.ids[a:b].tolist() for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)]
    assert all(part[:1] == template.before and len(part) <= limit for part in parts)
    if extra < 1:
        assert parts == [tokenizer(words(30))["input_ids"]]
    elif way == "windows":
        assert [part[1:] for part in parts] == [content[:-1], content[1:]]
    else:
        assert [part[1:] for part in parts] == [
            content[1:] if way == "cut_start" else content[: len(content) // 2] + content[len(content) // 2 + 1 :]
        ]


@pytest.mark.parametrize("way", WAYS)
def test_a_template_stays_around_each_piece(tokenizer: Any, way: str) -> None:
    tokens, template = read(words(40), tokenizer, 32, way, template="Text: {text}\nOne word:")
    assert template.has_words
    for start, end in zip(tokens.starts, tokens.starts[1:], strict=False):
        part = tokens.ids[start:end].tolist()
        assert part[: len(template.before)] == template.before and part[-len(template.after) :] == template.after
        assert len(part) == 32
    assert (len(tokens.starts) > 2) == (way == "windows")


@pytest.mark.parametrize("way", WAYS)
def test_a_tokenizer_without_special_tokens_is_no_matter(bare_tokenizer: Any, way: str) -> None:
    tokens, template = read(words(12), bare_tokenizer, 8, way)
    assert template.length == 0 and not template.has_words
    expected = {"cut_start": range(6, 14), "middle": [*range(2, 6), *range(10, 14)],
                "windows": [*range(2, 10), *range(6, 14)]}  # fmt: skip
    assert tokens[0].tolist() == list(expected[way])


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_text_has_its_special_tokens(tokenizer: Any, way: str) -> None:
    tokens, _ = read("", tokenizer, 8, way)
    assert tokens[0].tolist() == tokenizer("")["input_ids"] and len(tokens) == 1


def test_the_default_is_the_tokenizers_own_cut(tokenizer: Any) -> None:
    settings = data_settings("sample")
    assert read_template(settings, ["joy"], tokenizer) is None and read_long_texts(settings, around=0) is None


def test_an_overlap_is_a_quarter_of_a_piece_and_must_leave_room() -> None:
    settings = data_settings("sample", long_texts="windows", max_tokens=22)
    found = read_long_texts(settings, around=2)
    assert found == LongTexts(config.LongTexts.windows, 5, 8, JoinWindows.maximum)
    narrow = data_settings("sample", long_texts="windows", max_tokens=22, window_overlap=20)
    with pytest.raises(UserError, match="data.window_overlap=20 leaves nothing of a piece.* has room for 20 tokens"):
        read_long_texts(narrow, around=2)


def test_what_is_stored_is_read_again() -> None:
    own = long_texts("windows", join="mean")
    assert LongTexts.from_plain(own.plain()) == own
    for damage in ({"way": "x"}, {"overlap": -1}, {"most": 1}, {"most": "8"}, {"other": 1}):
        with pytest.raises((TypeError, ValueError)):
            LongTexts.from_plain(own.plain() | damage)


# ------------------------------------------------------------------------------------------------------------- batches


def pieces_of(*texts: list[list[int]]) -> Tokens:
    flat = [piece for text in texts for piece in text]
    starts = np.cumsum([0, *map(len, flat)])
    return Tokens(np.concatenate(flat).astype(np.int32), starts, np.cumsum([0, *map(len, texts)]))


def test_a_batch_has_a_row_for_each_piece_and_says_how_many_a_text_has() -> None:
    tokens = pieces_of([[5, 6]], [[1, 2, 3], [2, 3, 4]], [[7]])
    assert (len(tokens), tokens.lengths.tolist(), tokens.counts.tolist()) == (3, [2, 3, 1], [1, 2, 1])  # type: ignore[union-attr]
    dataset = EmotionRows(tokens, np.eye(3, dtype=np.float32))
    batch = Collate(dataset, pad_token_id=0)([2, 1])
    assert batch["input_ids"].tolist() == [[7, 0, 0], [1, 2, 3], [2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert (batch["rows"].tolist(), batch["pieces"], batch["tokens"]) == ([2, 1], [1, 2], 7)
    assert batch["targets"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert "pieces" not in Collate(dataset, pad_token_id=0)([0, 2])


@pytest.mark.parametrize("way", ["maximum", "mean"])
def test_logits_are_joined_text_by_text_with_gradients(way: str) -> None:
    logits = torch.randn(6, 4, requires_grad=True)
    joined = pooling.join(logits, [1, 3, 2], JoinWindows(way))
    for text, rows in enumerate((slice(0, 1), slice(1, 4), slice(4, 6))):
        part = logits[rows].detach().numpy()
        np.testing.assert_allclose(joined[text].detach(), part.max(0) if way == "maximum" else part.mean(0), atol=1e-6)
    joined.sum().backward()
    assert logits.grad is not None and logits.grad.sum().item() == pytest.approx(12)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_token_budget_counts_all_pieces(processes: int) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(4, 17, 400)
    pieces = np.where(lengths == 16, random.integers(1, 6, 400), 1)
    budget = 5 * 16
    for batch in by_length(lengths, pieces=pieces, batch_size=32, batch_tokens=budget):
        assert pieces[batch].sum() * lengths[batch].max() <= budget
    samplers = [
        ShuffledByLength(lengths, pieces=pieces, batch_size=32, batch_tokens=budget, window=16, seed=1,
                         process=process, processes=processes)
        for process in range(processes)
    ]  # fmt: skip
    for epoch in range(3):
        rows = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            batches = sampler.batches()
            assert len(batches) == len(sampler)
            rows += sum(batches, [])
            # Where an epoch needs a batch more than the first one, budgets grow by half a per cent at a time.
            assert all(pieces[batch].sum() * lengths[batch].max() <= budget * 1.05 for batch in batches)
        assert set(rows) == set(range(400))


def test_texts_of_one_piece_give_the_batches_that_they_gave_without_pieces() -> None:
    lengths = np.random.default_rng(0).integers(4, 60, 500)
    ones = np.ones(500, dtype=np.int64)
    for budget in (None, 300):
        first = ShuffledByLength(lengths, batch_size=8, batch_tokens=budget, window=4, seed=2).batches()
        assert (
            ShuffledByLength(lengths, pieces=ones, batch_size=8, batch_tokens=budget, window=4, seed=2).batches()
            == first
        )
        assert by_length(lengths, pieces=ones, batch_size=8, batch_tokens=budget) == by_length(
            lengths, batch_size=8, batch_tokens=budget
        )


# ----------------------------------------------------------------------------------------------------- told in training


def test_training_says_how_many_texts_are_cut_and_what_would_be_enough(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["short"] * 90 + [words(20)] * 10
    rows = Rows([str(i) for i in range(100)], texts, np.ones((100, 1), np.float32))
    corpus = Corpus(["joy"], {"train": rows, "validation": rows.take(range(10))})
    lengths = EmotionData(data_settings("sample", max_tokens=16), corpus, tokenizer=tokenizer, seed=0).lengths()
    whole = len(tokenizer(words(20))["input_ids"])
    assert sorted(set(lengths.tokens.tolist())) == [len(tokenizer("short")["input_ids"]), whole]
    assert lengths.longer == 10 and lengths.share == pytest.approx(10 / 110)
    with caplog.at_level(logging.INFO):
        lengths.tell()
    assert (
        f"data.max_tokens=16 cuts 9.1% of the texts; {-(-whole // 8) * 8} would cut hardly any, and the longest has "
        f"{whole} tokens. Raise it (data.max_tokens=auto), or data.long_texts=windows" in caplog.text
    )
    assert caplog.records[-1].levelname == "WARNING"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        EmotionData(data_settings("sample", max_tokens=128), corpus, tokenizer=tokenizer, seed=0).lengths().tell()
    assert not caplog.text


def test_few_cut_texts_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Lengths(np.array([10] * 99 + [40]), 32, None, 1).tell()
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_pieces_and_what_is_left_of_longer_texts_are_told() -> None:
    sentence = Lengths(np.array([10, 18, 98, 40]), 18, long_texts("windows", overlap=6, most=4), 2).sentence()
    assert "reads 50.0% of the texts in pieces of data.max_tokens=18, 4.0 of them on average and 4 at most." in sentence
    assert "1 text has more than data.max_windows=4 pieces (up to 9), and the rest of it is cut." in sentence


# ------------------------------------------------------------------------------------------------------ max_tokens=auto


def test_auto_is_the_smallest_number_that_cuts_one_per_cent() -> None:
    lengths = np.concatenate([np.full(980, 20), np.full(11, 33), np.full(9, 90)])
    found = max_tokens.auto_tokens(lengths)
    assert found == 33 and (lengths > found).mean() <= 0.01 < (lengths > found - 1).mean()
    assert max_tokens.auto_tokens(lengths, positions=24) == 24
    assert max_tokens.auto_tokens(np.array([1, 2])) == 4
    assert max_tokens.auto_tokens(np.full(10, 10_000)) == max_tokens.MOST
    assert enough_tokens(lengths) == 96


def test_auto_is_found_from_train_and_told(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = Rows(list("ab"), ["so happy", words(20)], np.ones((2, 1), np.float32))
    corpus = Corpus(["joy"], {"train": rows, "validation": rows})
    whole = len(tokenizer(words(20))["input_ids"])
    settings = data_settings("sample", max_tokens="auto")
    with caplog.at_level(logging.INFO):
        assert max_tokens.choose(settings, corpus, tokenizer, positions=None).max_tokens == whole
        assert max_tokens.choose(settings, corpus, tokenizer, positions=30).max_tokens == 30
    assert f"data.max_tokens=auto is {whole}: enough for 100.0% of the texts of train." in caplog.text
    assert "data.max_tokens=auto is 30: the network has no more positions." in caplog.text
    with pytest.raises(UserError, match=f"data.batch_tokens=20 is less than .*data.max_tokens={whole}"):
        max_tokens.choose(
            data_settings("sample", max_tokens="auto", batch_tokens=20), corpus, tokenizer, positions=None
        )
    long = data_settings("sample", max_tokens="auto", template="one two three four five six: {text}")
    template = max_tokens.choose(long, corpus, tokenizer, positions=None).max_tokens
    assert template > whole


def test_positions_are_those_that_are_left_for_a_text() -> None:
    from helpers.tiny_networks import tiny_config

    roberta = tiny_config("roberta", pad_token_id=1)
    assert structure.longest_text(roberta) == roberta.max_position_embeddings - 2
    assert structure.longest_text(tiny_config("bert")) == 128
    assert structure.longest_text(tiny_config("t5")) is None


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.max_tokens=many"], "data.max_tokens=many is neither a whole number nor auto"),
        (["data.long_texts=windows", "data.window_overlap=64"], "data.window_overlap=64 is not smaller than a piece"),
        (["data.long_texts=windows", "data.batch_tokens=511"],
         "data.batch_tokens=511 is less than one text may take, data.max_windows=8 pieces of data.max_tokens=64"),
        (["data.max_windows=1"], "data.max_windows=1 is out of range"),
        (["data.max_tokens=3"], "data.max_tokens=3 is out of range"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings: Callable[..., Any], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(*overrides)


@pytest.mark.parametrize("override", ["data.long_texts=windows", "data.max_tokens=auto"])
def test_baselines_and_evaluations_have_no_such_settings(settings: Callable[..., Any], override: str) -> None:
    with pytest.raises(UserError, match=f"{override} is for networks; a baseline reads whole texts"):
        settings(override, command="baseline")
    with pytest.raises(UserError, match=f"{override}: texts are read as in training"):
        settings("run=x", "data=sample", override, command="evaluate")


def test_a_number_or_auto_is_taken(settings: Callable[..., Any]) -> None:
    assert settings("data.max_tokens=auto").data.max_tokens == "auto"
    assert settings("data.max_tokens=32").data.max_tokens == 32
