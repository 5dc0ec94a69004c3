"""Rows of one author stay in one split, and the splits keep their shares and labels as far as that allows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, ids, split, write_csv

from emotion_lightning.config import EmptyTexts
from emotion_lightning.data import groups, sources, splitting
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError


def cut(corpus: Corpus) -> set[str]:
    """Values that stand in more than one split."""
    seen = [set(rows.groups or []) - {None} for rows in corpus.splits.values()]
    return {str(value) for i, one in enumerate(seen) for other in seen[i + 1 :] for value in one & other}


def authors(path: Path, *, rows: int = 300, many: int = 40, blank: int = 0, seed: int = 0, **extra: Any) -> Path:
    random = np.random.default_rng(seed)
    own = random.integers(0, many, rows)
    habits = random.random((many, 3)) * 0.6
    table: list[list[Any]] = [["id", "text", "author", "joy", "anger", "fear", *extra]]
    for i, author in enumerate(own):
        cells = [int(x) for x in random.random(3) < habits[author]]
        value = f"a{author}" if i >= blank else " "
        table.append([f"r{i}", f"text {i}", value, *cells, *(make(i) for make in extra.values())])
    return write_csv(path, table)


def test_no_author_is_cut_and_shares_and_labels_are_kept(tmp_path: Path) -> None:
    path = authors(tmp_path / "a.csv", rows=1000, many=120)
    corpus = split(path=path, group_column="author")
    assert not cut(corpus)
    sizes = {name: len(rows) for name, rows in corpus.splits.items()}
    assert abs(sizes["validation"] - 100) <= 3 and abs(sizes["test"] - 100) <= 3 and sum(sizes.values()) == 1000
    everything = np.concatenate([rows.targets for rows in corpus.splits.values() if rows.targets is not None])
    for rows in corpus.splits.values():
        assert rows.targets is not None
        assert np.abs(rows.targets.mean(0) - everything.mean(0)).max() < 0.04
    assert (
        ids(split(path=path, group_column="author"))
        == ids(corpus)
        != ids(split(path=path, group_column="author", split_seed=1))
    )
    assert corpus.plain_decisions()["splits"]["group_column"] == "author"
    assert "no author cut" in corpus.decisions.split and "author" not in corpus.decisions.aside


def test_equal_texts_and_authors_make_groups_together() -> None:
    rows = Rows(
        ids=list("abcdefg"),
        texts=["one", "two", "TWO ", "three", "four", "one", "five"],
        targets=np.zeros((7, 1), np.float32),
        groups=["x", "x", "y", "z", None, None, None],
    )
    # b and c have one text, and so tie x to y; f has the text of a; rows without a value are tied by their texts only.
    assert groups.together(rows, []).tolist() == [0, 0, 0, 1, 2, 0, 3]


def test_groups_equal_those_of_a_plain_search() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        texts = [f"t{n}" for n in random.integers(0, 25, 40)]
        values: list[str | None] = [None if n < 4 else f"v{n}" for n in random.integers(0, 25, 40)]
        found = groups.together(Rows([""] * 40, texts, None, groups=values), [])
        expected = list(range(40))
        for _ in range(40):
            for i in range(40):
                for j in range(40):
                    if texts[i] == texts[j] or (values[i] is not None and values[i] == values[j]):
                        expected[i] = expected[j] = min(expected[i], expected[j])
        assert [expected.index(number) for number in expected] == [found.tolist().index(n) for n in found]


def test_every_fold_keeps_authors_whole_and_each_row_validates_once(tmp_path: Path) -> None:
    path = authors(tmp_path / "a.csv", blank=5)
    validated: list[str] = []
    for fold in (1, 2, 3):
        corpus = split(path=path, group_column="author", folds=3, fold=fold)
        assert not cut(corpus)
        validated += corpus.splits["validation"].ids
        assert len(corpus.splits["validation"]) == pytest.approx(90, abs=6)
    assert len(validated) == len(set(validated)) == 300 - len(corpus.splits["test"])


def test_rows_without_a_value_are_groups_of_their_own_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = split(path=authors(tmp_path / "a.csv", blank=30), group_column="author")
    assert "Rows without a value in column author: 30; each is a group of its own." in caplog.text
    assert any("in column author: 30" in note for note in corpus.decisions.notes)
    assert not cut(corpus)


def test_one_author_of_most_rows_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = [["text", "who", "joy"], *([f"t {i}", "me" if i < 70 else f"o{i}", i % 2] for i in range(100))]
    corpus = split(path=write_csv(tmp_path / "a.csv", table), group_column="who", validation_share=0.3, test_share=0.3)
    assert "one group holds 70 % of the rows: who me. It stays whole" in caplog.text
    assert "train has 70.0 % of the rows instead of 40.0" in caplog.text
    assert all(len(rows) for rows in corpus.splits.values()) and not cut(corpus)


def test_authors_tied_by_equal_texts_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table: list[list[Any]] = [["text", "who", "joy"]]
    table += [["thanks" if i % 5 == 0 else f"t {i}", f"a{i // 5}", i % 2] for i in range(60)]
    table += [[f"u {i}", f"b{i}", i % 2] for i in range(20)]
    split(path=write_csv(tmp_path / "a.csv", table), group_column="who")
    assert "75 % of the rows: 12 values of who, tied together by texts that several of them have" in caplog.text


def test_too_few_authors_are_refused_and_just_enough_fill_each_split(tmp_path: Path) -> None:
    table = [["text", "who", "joy"], *([f"t {i}", f"a{i % 2}", i // 2 % 2] for i in range(40))]
    with pytest.raises(
        UserError, match="40 rows are 2 groups that stay whole, too few for 3 parts; the largest is who a0"
    ):
        split(path=write_csv(tmp_path / "a.csv", table), group_column="who")
    table = [["text", "who", "joy"], *([f"t {i}", f"a{i % 3}", i // 2 % 2] for i in range(60))]
    corpus = split(path=write_csv(tmp_path / "b.csv", table), group_column="who")
    assert [len(rows) for rows in corpus.splits.values()] == [20, 20, 20]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("autor", r"has no column autor; its columns are .*; did you mean data.group_column=author\?"),
        ("text", "is the column of texts"),
        ("nothing", r"column nothing \(data.group_column\): it is empty in every row"),
    ],
)
def test_columns_that_do_not_serve_are_refused(tmp_path: Path, column: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split(path=authors(tmp_path / "a.csv", nothing=lambda _: ""), group_column=column)


def test_a_column_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.group_column=joy is a column of labels"):
        split(path=authors(tmp_path / "a.csv"), labels=["joy", "anger"], group_column="joy")


def test_splits_of_the_data_that_cut_an_author_stay_and_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = {"part": lambda i: "train" if i < 200 else "dev" if i < 250 else "test"}
    path = authors(tmp_path / "a.csv", many=100, **places)
    corpus = split(path=path, split_column="part", group_column="author")
    train, test = (set(corpus.splits[name].groups or []) for name in ("train", "test"))
    rows = sum(value in train for value in corpus.splits["test"].groups or [])
    assert f"train and test share {len(train & test)} values of author, such as a" in caplog.text
    assert f": {rows} rows of test. These splits are not made by this program" in caplog.text
    assert [len(part) for part in corpus.splits.values()] == [200, 50, 50]


def test_written_splits_hold_whatever_the_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = authors(tmp_path / "a.csv")
    first = split(path=path, group_column="author")
    splitting.write_splits(tmp_path / "splits.csv", first)
    again = split(path=path, group_column="author", splits=tmp_path / "splits.csv", split_seed=5)
    assert ids(again) == ids(first) and "share" not in caplog.text
    other = split(path=path)
    splitting.write_splits(tmp_path / "other.csv", other)
    assert ids(split(path=path, group_column="author", splits=tmp_path / "other.csv")) == ids(other)
    assert "values of author, such as" in caplog.text


def test_validation_is_taken_from_train_by_authors_too(tmp_path: Path) -> None:
    files = {"train": authors(tmp_path / "a.csv"), "test": authors(tmp_path / "b.csv", rows=50, seed=1)}
    corpus = split(**files, group_column="author")
    train, validation = (set(corpus.splits[name].groups or []) for name in ("train", "validation"))
    assert not train & validation and len(corpus.splits["validation"]) == pytest.approx(30, abs=3)


def test_rows_that_are_left_out_take_their_value_along(tmp_path: Path) -> None:
    table = [
        ["id", "text", "who", "joy"],
        *([f"r{i}", "" if i % 7 == 0 else f"t {i}", f"a{i // 4}", i % 2] for i in range(80)),
    ]
    path = write_csv(tmp_path / "a.csv", table)
    settings = data_settings(path=path, group_column="who", empty_texts=EmptyTexts.drop, max_rows=50)
    (rows,) = sources.read_corpus(settings).splits.values()
    assert rows.groups == [f"a{int(identifier[1:]) // 4}" for identifier in rows.ids] and len(rows) == 50


def test_no_part_is_empty_and_seeds_differ() -> None:
    counts = np.array([[5.0, 10.0]] * 4 + [[0.0, 1.0]])
    parts = groups.assign(counts, np.array([0.98, 0.01, 0.01]), seed=0)
    assert set(parts.tolist()) == {0, 1, 2}
    many = np.hstack([np.eye(2)[np.arange(60) % 2], np.ones((60, 1))])
    assert (
        groups.assign(many, np.array([0.5, 0.5]), seed=0).tolist()
        != groups.assign(many, np.array([0.5, 0.5]), seed=1).tolist()
    )
