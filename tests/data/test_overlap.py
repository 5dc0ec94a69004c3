import itertools
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, write_csv

from emotion_lightning.config import CleaningStep
from emotion_lightning.data import overlap, sources
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError


def rows(*texts: str, joy: list[int] | None = None) -> Rows:
    targets = None if joy is None else np.array(joy, np.float32)[:, None]
    return Rows([str(i) for i in range(len(texts))], list(texts), targets)


def corpus(**splits: Rows) -> Corpus:
    return Corpus(["joy"], splits)


def test_texts_that_stand_in_two_splits_are_counted_with_their_labels() -> None:
    found = overlap.find_overlap(
        corpus(
            train=rows("a", "b", "b", "c", joy=[1, 0, 1, 0]),
            validation=rows("b", "d", "b", joy=[1, 1, 0]),
            test=rows("C", "a ", "e", "d", joy=[1, 1, 1, 1]),
        ),
        clean=[],
    )
    raised = {(o.first, o.second): (o.positions.tolist(), o.count, o.same_labels) for o in found}
    assert raised == {
        ("train", "validation"): ([1, 2], 2, 2),
        ("train", "test"): ([0, 3], 2, 1),
        ("validation", "test"): ([1], 1, 1),
    }
    assert found[1].share == pytest.approx(0.5)


def test_overlap_equals_that_of_a_plain_comparison_of_all_texts() -> None:
    random = np.random.default_rng(0)
    splits = {
        name: rows(*(f"Text  {n}" for n in random.integers(0, 60, size)), joy=random.integers(0, 2, size).tolist())
        for name, size in {"train": 80, "validation": 30, "test": 40}.items()
    }
    for found in overlap.find_overlap(corpus(**splits), clean=[]):
        first, second = splits[found.first], splits[found.second]
        assert found.count == sum(text in first.texts for text in second.texts)
        assert found.positions.tolist() == [i for i, text in enumerate(first.texts) if text in second.texts]
        assert first.targets is not None and second.targets is not None
        pairs = set(zip(first.texts, first.targets.ravel().tolist(), strict=True))
        assert found.same_labels == sum(
            pair in pairs for pair in zip(second.texts, second.targets.ravel().tolist(), strict=True)
        )


def test_a_test_split_without_labels_leaks_too() -> None:
    (found,) = overlap.find_overlap(corpus(train=rows("a", "b", joy=[1, 0]), test=rows("b", "c")), clean=[])
    assert (found.count, found.same_labels) == (1, None)


def test_cleaned_texts_are_compared() -> None:
    splits = {
        "train": rows("@ann so happy https://t.co/1", joy=[1]),
        "test": rows("@bob so  HAPPY https://t.co/2", joy=[1]),
    }
    assert overlap.find_overlap(corpus(**splits), clean=[])[0].count == 0
    assert overlap.find_overlap(corpus(**splits), clean=[CleaningStep.users, CleaningStep.urls])[0].count == 1


def test_repeated_texts_of_a_split_are_counted_with_those_of_other_labels() -> None:
    assert overlap.duplicates(rows("a", "b", "A", "a", "c", "b", joy=[1, 0, 1, 0, 1, 0]), clean=[]) == (3, 1)
    assert overlap.duplicates(rows("a", "a"), clean=[]) == (1, None)


def split(tmp_path: Any, **chosen: Any) -> Corpus:
    train = write_csv(tmp_path / "train.csv", [["text", "joy"], *([f"t{i}", i % 2] for i in range(8)), ["leak", 1]])
    validation = write_csv(tmp_path / "validation.csv", [["text", "joy"], ["v", 1], ["Leak", 0]])
    test = write_csv(tmp_path / "test.csv", [["text", "joy"], ["t3", 1], ["x", 0]])
    settings = data_settings(train=train, validation=validation, test=test, **chosen)
    return sources.split_corpus(sources.read_corpus(settings), settings)


def test_leaks_are_told_and_kept_unless_they_are_to_be_dropped(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert len(split(tmp_path).splits["train"]) == 9
    raised = (
        "Texts of %s that stand in train too: 1 (50.00 %%), with the same labels %d; data.drop_leaks=true leaves out"
    )
    assert raised % ("validation", 0) in caplog.text
    assert raised % ("test", 1) in caplog.text


def test_leaks_are_dropped_from_train_alone(tmp_path: Any) -> None:
    parts = split(tmp_path, drop_leaks=True).splits
    assert parts["train"].texts == ["t0", "t1", "t2", "t4", "t5", "t6", "t7"]
    assert (parts["validation"].texts, parts["test"].texts) == (["v", "Leak"], ["t3", "x"])


def test_a_train_split_of_leaks_alone_is_refused() -> None:
    splits = corpus(train=rows("a", joy=[1]), test=rows("a", joy=[1]))
    with pytest.raises(UserError, match="no row of train"):
        overlap.without_leaks(splits, overlap.find_overlap(splits, clean=[]))


@pytest.mark.parametrize(("cells", "what"), [([0, 0, 0], "no row"), ([1, 1, 1], "every row")])
def test_a_label_of_one_class_in_train_is_named(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, cells: list[int], what: str
) -> None:
    rows = [["text", "joy", "grief"], *([f"t{i}", i % 2, cell] for i, cell in enumerate(cells))]
    train = write_csv(tmp_path / "train.csv", rows)
    validation = write_csv(tmp_path / "validation.csv", [["text", "joy", "grief"], ["v", 1, 1], ["w", 0, 0]])
    settings = data_settings(train=train, validation=validation)
    sources.split_corpus(sources.read_corpus(settings), settings)
    assert f"In train {what} has the label grief: it cannot be learned." in caplog.text


# ------------------------------------------------------------------------------------------------------------- cleaning


@pytest.mark.parametrize(
    ("step", "text", "cleaned"),
    [
        ("html", "&amp; &lt;3 &#39;so&#39; &eacute;", "& <3 'so' é"),
        ("html", "R&D &c", "R&D &c"),
        ("newlines", r"one\ntwo\r\nthree", "one two three"),
        ("newlines", "a real\nbreak", "a real\nbreak"),
        ("users", "@ann_1 and (@Bob!) wrote", "@user and (@user!) wrote"),
        ("users", "mail me@home.org @ 5", "mail me@home.org @ 5"),
        ("urls", "see https://t.co/x?a=1&b=2, www.x.org now", "see http http now"),
        ("urls", "httpd is no link", "httpd is no link"),
        ("emojis", "won 😂! 👍🏽", "won  face with tears of joy !  thumbs up medium skin tone "),
        ("emojis", "5 # * ツ (é) ’", "5 # * ツ (é) ’"),
        ("urls", "http://a.b/cすごい 'http://x.y'", "httpすごい 'http'"),
    ],
)
def test_each_step_of_cleaning_does_its_own(step: str, text: str, cleaned: str) -> None:
    assert cleaner([CleaningStep(step)])(text) == cleaned
    others = [other for other in CleaningStep if other.value != step]
    assert cleaner(others)(text) == text


def test_an_emoji_written_as_an_entity_is_named_too() -> None:
    assert cleaner([CleaningStep.emojis, CleaningStep.html])("&#128514;") == " face with tears of joy "


def test_an_address_ends_before_a_literal_line_break() -> None:
    assert cleaner([CleaningStep.urls])(r"see http://t.co/abc\nGood day") == r"see http\nGood day"


def test_without_steps_a_text_is_left_as_it_is() -> None:
    assert cleaner([])(r" @ann &amp;\n https://t.co ") == r" @ann &amp;\n https://t.co "


def test_the_order_in_which_steps_are_named_does_not_matter() -> None:
    text = r"@ann &lt;b&gt;\nhttps://t.co/a?b=1&amp;c=2"
    assert {cleaner(order)(text) for order in itertools.permutations(CleaningStep)} == {"@user <b> http"}
