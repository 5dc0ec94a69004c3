"""Texts that are nearly the same in two splits: all of them are found, and no others."""

import functools
import itertools
import string
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, write_csv

from emotion_lightning.data import near_texts, sources
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError

pytest.importorskip("rensa")


def rows(*texts: str) -> Rows:
    return Rows([str(i) for i in range(len(texts))], list(texts), np.ones((len(texts), 1), np.float32))


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


@functools.cache
def parts(text: str) -> frozenset[str]:
    written = plain(text)
    return frozenset(written[i : i + 3] for i in range(len(written) - 2)) or frozenset({written})


def jaccard(one: str, other: str) -> float:
    return len(parts(one) & parts(other)) / len(parts(one) | parts(other))


def varied(count: int, *, seed: int) -> list[str]:
    """Sentences, each followed by some that differ from it in a few letters."""
    random = np.random.default_rng(seed)
    words = ["".join(random.choice(list(string.ascii_lowercase), random.integers(2, 8))) for _ in range(80)]
    texts: list[str] = []
    while len(texts) < count:
        text = " ".join(random.choice(words, random.integers(3, 15)))
        texts.append(text)
        for _ in range(random.integers(0, 4)):
            letters = list(text)
            for place in random.integers(0, len(letters), random.integers(1, 5)):
                letters[place] = str(random.choice(list("aeiou ")))
            texts.append("".join(letters) + str(random.choice(["", "!", " indeed"])))
    return texts[:count]


@pytest.mark.parametrize("similarity", [0.6, 0.8, 0.9])
def test_every_pair_of_a_plain_comparison_is_found_and_no_other(similarity: float) -> None:
    texts = list(dict.fromkeys(" ".join(text.split()) for text in varied(250, seed=int(similarity * 10))))
    found = near_texts.similar_pairs(texts, range(len(texts)), similarity)
    pairs = itertools.combinations(range(len(texts)), 2)
    expected = {pair for pair in pairs if jaccard(texts[pair[0]], texts[pair[1]]) >= similarity}
    raised = {(one, other) for one, others in found.items() for other in others}
    assert {(other, one) for one, other in raised} == raised
    raised = {(one, other) for one, other in raised if one < other}
    assert raised <= expected and len(expected) >= 5
    assert len(raised) >= 0.99 * len(expected)
    one, other = next(iter(raised))
    assert found[one][other] == pytest.approx(jaccard(texts[one], texts[other]))


def test_counts_and_positions_of_splits_are_those_of_a_plain_comparison() -> None:
    texts = varied(400, seed=1)
    np.random.default_rng(2).shuffle(texts)
    corpus = Corpus(
        ["joy"], {"train": rows(*texts[:200]), "validation": rows(*texts[200:300]), "test": rows(*texts[300:])}
    )
    for near in near_texts.find_near(corpus, 0.8, clean=[]):
        first, second = corpus.splits[near.first].texts, corpus.splits[near.second].texts
        known = set(map(plain, first))
        close = [any(jaccard(text, other) >= 0.8 for other in first) for text in second]
        same = [plain(text) in known for text in second]
        assert near.count == sum(c and not s for c, s in zip(close, same, strict=True)) > 0
        assert near.share == pytest.approx(near.count / len(second))
        assert near.positions.tolist() == [
            i
            for i, text in enumerate(first)
            if any(jaccard(text, other) >= 0.8 and plain(text) != plain(other) for other in second)
        ]
        assert 1 <= len(near.examples) <= 3
        assert [pair.similarity for pair in near.examples] == sorted(
            (p.similarity for p in near.examples), reverse=True
        )
        for pair in near.examples:
            assert pair.first in first and pair.second in second
            assert pair.similarity == pytest.approx(jaccard(pair.first, pair.second)) and pair.similarity >= 0.8


def test_equal_texts_are_not_counted_again_and_short_ones_need_no_trigram() -> None:
    corpus = Corpus(
        ["joy"], {"train": rows("So Happy today!", "ok", ""), "test": rows("so happy  today!", "ok!", "OK", "")}
    )
    (near,) = near_texts.find_near(corpus, 0.8, clean=[])
    assert (near.count, near.positions.tolist(), near.examples) == (0, [], [])


ABOUT = ("rain", "tea", "cats", "exams", "old shoes")
WHERE = ("before breakfast", "in the garden", "without a word", "on the train", "for my sister")
OTHERS = [f"{one} {other} {len(one) * len(other)}" for one in ABOUT for other in WHERE]


def leaky(folder: Any) -> dict[str, Any]:
    train = [["text", "joy"], *([text, i % 2] for i, text in enumerate(OTHERS))]
    train += [["I am so happy about the new garden", 1], ["nothing like it anywhere", 0]]
    test = [["text", "joy"], ["I am so happy about the new garden!!", 1], ["Nothing  like it anywhere", 0]]
    test += [[f"quite another kind of sentence, {word}", 0] for word in ("apple", "pear", "fig")]
    validation = [["text", "joy"], ["a plain sentence about bread", 1], ["and one about the moon", 0]]
    tables = {"train": train, "validation": validation, "test": test}
    return {name: write_csv(folder / f"{name}.csv", table) for name, table in tables.items()}


def test_leaks_that_are_nearly_equal_are_dropped_only_where_asked(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def train_texts(**chosen: Any) -> set[str]:
        settings = data_settings(**leaky(tmp_path), **chosen)
        return set(sources.split_corpus(sources.read_corpus(settings), settings).splits["train"].texts)

    garden, nothing = "I am so happy about the new garden", "nothing like it anywhere"
    kept = train_texts()
    assert "nearly the same" not in caplog.text
    asked = train_texts(near_duplicates=0.8)
    assert "1 text of test (20.00%) nearly the same as one of train" in caplog.text
    assert "data.drop_leaks=true leaves out of train: 1 row." in caplog.text
    assert asked == kept
    assert kept - train_texts(drop_leaks=True) == {nothing}
    assert not {garden, nothing} & train_texts(near_duplicates=0.8, drop_leaks=True)


def test_without_the_package_the_setting_says_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(near_texts, "available", lambda: False)
    settings = data_settings(**leaky(tmp_path), near_duplicates=0.8)
    with pytest.raises(
        UserError, match=r"data.near_duplicates=0.8 needs a package that is missing: pip install .*near"
    ):
        sources.read_corpus(settings)


def test_a_phrase_that_everybody_writes_does_not_compare_all_with_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(near_texts, "_MOST", 5)
    texts = [f"happy birthday to you and a great year, number {i}" for i in range(30)]
    found = near_texts.similar_pairs(texts, range(10), 0.6)
    assert "10 texts resemble more than 5 others; each is compared with 5 of them." in caplog.text
    assert max(map(len, found.values())) <= 5
