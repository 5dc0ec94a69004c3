"""Agreement of annotators, against the published examples of its paper."""

import numpy as np
import pytest

from emotion_lightning.data.agreement import Judgements, describe, krippendorff_alpha
from emotion_lightning.data.rows import Rows

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", examples A and C.
MEG, OWEN = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
FOUR = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def given(observers):
    pairs = [(value, unit) for row in observers for unit, value in enumerate(row) if value is not None]
    values, units = zip(*pairs, strict=True)
    return np.array(values), np.array(units)


@pytest.mark.parametrize(
    ("observers", "interval", "published"),
    [([MEG, OWEN], False, 0.095), (FOUR, False, 0.743), (FOUR, True, 0.849)],
)
def test_alpha_is_that_of_the_paper(observers, interval, published):
    assert krippendorff_alpha(*given(observers), interval=interval) == pytest.approx(published, abs=5e-4)


def test_alpha_does_not_depend_on_the_order_of_values_or_on_texts_with_one():
    values, units = given(FOUR)
    order = np.random.default_rng(0).permutation(len(values))
    expected = krippendorff_alpha(values, units)
    more = np.append(values[order], 3), np.append(units[order] + 5, 99)
    assert krippendorff_alpha(*more) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("values", [[1, 1, 1, 1], [0, 1]])
def test_without_two_values_or_with_one_kind_of_value_there_is_no_alpha(values):
    units = np.arange(len(values)) if len(values) == 2 else np.array([0, 0, 1, 1])
    assert krippendorff_alpha(np.array(values), units) is None


def test_as_many_ones_at_random_are_no_agreement():
    values = (np.random.default_rng(0).random(30_000) < 0.2).astype(int)
    assert krippendorff_alpha(values, np.arange(30_000) // 3) == pytest.approx(0, abs=0.02)


def judgements(*, repeated=False, column="rater"):
    """Three annotators of three texts: they agree on the first, split on joy in the second, and one stands alone."""
    texts = ["a", "a", "a", "b", "b", "b", "c"]
    targets = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    who = ["x", "x" if repeated else "y", "z", "x", "y", "z", "x"]
    rows = Rows([str(i) for i in range(7)], texts, targets, annotators=who)
    return Judgements(["joy", "fear"], {"whole": rows}, {"whole": np.array([0, 0, 0, 1, 1, 1, 2])}, column)


def test_who_labelled_how_much_and_where_they_split_is_told():
    found = describe(judgements())
    assert (found.annotators, found.rows, found.texts, found.rows_of_a_text) == (3, 7, 3, (1, 7 / 3, 3))
    assert {name: own.split for name, own in found.labels.items()} == {"joy": 1, "fear": 0}
    assert found.labels["fear"].alpha == 1 and found.labels["joy"].alpha < 1
    assert found.examples == [("b", {"joy": pytest.approx(1 / 3)})] and found.split == 1
    assert found.plain()["labels"]["joy"]["split_texts"] == 1
    assert "text" not in str([*found.plain()]) or "b" not in found.plain().values()  # data.json holds no texts
    assert found.sentence().startswith("3 annotators labelled 3 texts, 2.3 (1 to 3) rows a text")


def test_rows_of_an_annotator_who_has_one_already_are_counted():
    found = describe(judgements(repeated=True))
    assert found.repeated == 1 and "1 rows are of an annotator" in found.sentence()


def test_labels_that_are_open_count_for_nothing():
    one = judgements(column=None)
    rows = one.splits["whole"]
    rows.open = np.zeros(rows.targets.shape, dtype=bool)
    rows.open[3, 0] = True  # the only one who gave joy to the second text
    rows.targets[3, 0] = 0
    found = describe(one)
    assert found.labels["joy"].split == 0 and found.labels["joy"].alpha == 1


def test_groups_have_an_alpha_of_their_own_texts():
    """Two groups whose annotators agree as by chance agree more than that together, because their rates differ."""
    random = np.random.default_rng(1)
    rates, count = {"deu": 0.1, "eng": 0.9}, 400
    targets = np.concatenate([random.random((3 * count, 1)) < rate for rate in rates.values()]).astype(np.float32)
    texts = [f"text {number // 3}" for number in range(len(targets))]
    rows = Rows(texts, texts, targets, carried={"language": [name for name in rates for _ in range(3 * count)]})
    found = describe(Judgements(["joy"], {"train": rows}, {"train": np.arange(len(texts)) // 3}, None))
    assert found.labels["joy"].alpha > 0.5
    by_language = found.groups["language"]
    assert list(by_language) == ["deu", "eng"] and all(own.texts == count for own in by_language.values())
    for place, own in enumerate(by_language.values()):
        part = slice(3 * count * place, 3 * count * (place + 1))
        alone = krippendorff_alpha(targets[part, 0], np.arange(3 * count) // 3)
        assert own.alpha["joy"] == pytest.approx(alone, abs=1e-12) and abs(alone) < 0.1
    assert found.plain()["groups"]["language"]["deu"]["texts"] == count
    rows.carried["language"] = ["deu"] * len(texts)
    alone = Judgements(["joy"], {"train": rows}, {"train": np.arange(len(texts)) // 3}, None)
    assert "groups" not in describe(alone).plain()


def test_splits_do_not_share_texts():
    one = judgements()
    one.splits["test"], one.places = one.splits["whole"], {**one.places, "test": one.places["whole"]}
    twice = describe(one)
    assert (twice.rows, twice.texts, twice.split) == (14, 6, 2) and twice.repeated == 0
