"""Splits that were cut are written down, and a run is repeated on them anywhere."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL
from helpers.tables import data_settings, emotions, ids, read_csv, split, write_csv

from emotion_lightning.data import sources, splitting
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError


def test_written_splits_are_read_back_whatever_the_seed_and_shares(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(60))
    first = split(path=path)
    assert first.new_splits
    splitting.write_splits(tmp_path / "splits.csv", first)
    again = split(path=path, splits=tmp_path / "splits.csv", split_seed=7, validation_share=0.5, test_share=0.3)
    assert ids(again) == ids(first)
    assert ids(split(path=path, split_seed=7)) != ids(first)


def test_ids_with_commas_quotes_and_line_breaks_come_back(tmp_path: Path) -> None:
    names = ['a,"b"', "c\nd", " e ", "0007", "é😀", *(f"r{i}" for i in range(20))]
    table = [["id", "text", "joy"], *([name, f"t {i}", i % 2] for i, name in enumerate(names))]
    path = write_csv(tmp_path / "a.csv", table)
    first = split(path=path)
    splitting.write_splits(tmp_path / "splits.csv", first)
    assert ids(split(path=path, splits=tmp_path / "splits.csv")) == ids(first)
    assert sorted(sum(ids(first).values(), [])) == sorted(names)


def test_a_validation_split_cut_from_train_is_written_too(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", emotions(60))
    first = split(train=train)
    splitting.write_splits(tmp_path / "splits.csv", first)
    assert ids(split(train=train, splits=tmp_path / "splits.csv", split_seed=3)) == ids(first)


def test_of_a_test_file_beside_train_nothing_is_written(tmp_path: Path) -> None:
    # Both count their rows from 1: the test file's numbers would take the place of those of train.
    train = write_csv(tmp_path / "train.csv", emotions(100))
    test = write_csv(tmp_path / "test.csv", emotions(30, start=500))
    first = split(train=train, test=test)
    splitting.write_splits(tmp_path / "splits.csv", first)
    again = split(train=train, test=test, splits=tmp_path / "splits.csv")
    assert ids(again) == ids(first)
    assert [len(rows) for rows in again.splits.values()] == [90, 10, 30]


def test_rows_that_leak_are_written_though_they_are_left_out(tmp_path: Path) -> None:
    files = {"train": write_csv(tmp_path / "a.csv", emotions(100)), "test": write_csv(tmp_path / "b.csv", emotions(30))}
    first = split(**files, drop_leaks=True)
    assert 60 < len(first.splits["train"]) < 90
    splitting.write_splits(tmp_path / "splits.csv", first)
    assert ids(split(**files, splits=tmp_path / "splits.csv", drop_leaks=True)) == ids(first)
    assert ids(split(**files, splits=tmp_path / "splits.csv")) == ids(split(**files))


def test_rows_without_ids_that_have_moved_are_told_by_their_texts(tmp_path: Path) -> None:
    header, *cells = emotions(60)
    path = write_csv(tmp_path / "a.csv", [header, *cells])
    splitting.write_splits(tmp_path / "splits.csv", split(path=path))
    write_csv(path, [header, *cells[::-1]])
    with pytest.raises(UserError, match=r"the text of row 1 is another one now \(60 rows in all\)"):
        split(path=path, splits=tmp_path / "splits.csv")


def test_rows_with_ids_may_move_and_a_changed_text_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = [[f"r{i}", f"t {i}", i % 2] for i in range(60)]
    path = write_csv(tmp_path / "a.csv", [["id", "text", "joy"], *cells])
    first = split(path=path)
    splitting.write_splits(tmp_path / "splits.csv", first)
    cells[7][1] = "mended"
    write_csv(path, [["id", "text", "joy"], *cells[::-1]])
    again = split(path=path, splits=tmp_path / "splits.csv")
    assert {name: set(found) for name, found in ids(again).items()} == {n: set(f) for n, f in ids(first).items()}
    assert "the texts of 1 rows have changed, r7 among them" in caplog.text


def test_splits_of_ones_own_are_not_written(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", emotions(20))
    validation = write_csv(tmp_path / "validation.csv", emotions(10, start=50))
    assert not split(train=train, validation=validation).new_splits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,split\n1,train\n2,validation\n", "has no split for the row 3 of this data"),
        (
            "id,split\n" + "".join(f"{i},train\n" for i in range(1, 99)),
            "names 38 rows that this data lacks, 61 among them",
        ),
        ("id,split\n1,dev\n", "row 1: not an id and its split"),
        ("row,part\n1,train\n", "row 1: not an id and its split"),
        ("", "splits.csv is empty"),
        ("id,split\n1,train\n1,test\n", "row 2: the id 1 stands there twice"),
        ("id,split\n" + "".join(f"{i},train\n" for i in range(1, 61)), "leaves validation without rows"),
        ("id,split\n" + "".join(f"{i},test\n" for i in range(1, 61)), "leaves train and validation without rows"),
    ],
)
def test_splits_of_other_data_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(60))
    (tmp_path / "splits.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        split(path=path, splits=tmp_path / "splits.csv")


def test_of_a_part_of_the_rows_the_splits_are_those_of_the_whole(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(60))
    splitting.write_splits(tmp_path / "splits.csv", split(path=path))
    part = split(path=path, splits=tmp_path / "splits.csv", max_rows=30)
    whole = {identifier: name for name, found in ids(split(path=path)).items() for identifier in found}
    assert all(whole[identifier] == name for name, found in ids(part).items() for identifier in found)
    assert sum(map(len, ids(part).values())) == 30


@pytest.mark.slow
def test_a_run_is_scored_and_repeated_on_its_splits_though_the_splitter_changes(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "a.csv", emotions(80))
    asked = [*SMALL[:-1], "data=file", "data.path=a.csv", "trainer=debug"]
    assert run("train", *asked, "hydra.run.dir=first") == 0
    with (tmp_path / "first" / "splits.csv").open(newline="") as file:
        written = {row["id"]: row["split"] for row in csv.DictReader(file)}
    tested = [row["row"] for row in read_csv(tmp_path / "first" / "predictions" / "test.csv")]
    assert tested == [identifier for identifier, name in written.items() if name == "test"]
    assert len(written) == 80 and len(tested) == 8

    def other(rows: Any, settings: Any, **_: Any) -> Any:
        return {"train": rows.take(range(40)), "validation": rows.take(range(40, 60)), "test": rows.take(range(60, 80))}

    monkeypatch.setattr(splitting, "_stratified", other)
    assert run("train", "from_run=first", "hydra.run.dir=again") == 0
    assert (tmp_path / "again" / "splits.csv").read_bytes() == (tmp_path / "first" / "splits.csv").read_bytes()
    shutil.move(tmp_path / "first", tmp_path / "moved")
    assert run("evaluate", "run=moved", "hydra.run.dir=scored") == 0
    first, scored = (json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("moved", "scored"))
    assert scored["test"]["rows"] == 8
    assert scored["test"]["global"] == first["test"]["global"]
    monkeypatch.chdir(tmp_path / "moved")
    assert run("train", "from_run=.", "data.batch_size=16", "hydra.run.dir=../elsewhere") == 0
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "elsewhere" / "splits.csv").read_bytes() == (tmp_path / "moved" / "splits.csv").read_bytes()
    assert run("train", "from_run=moved", "data.split_seed=5", "hydra.run.dir=anew") == 0
    assert len(read_csv(tmp_path / "anew" / "predictions" / "test.csv")) == 20


def test_folds_are_stratified_cut_once_and_leave_the_test_split_alone(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(100))
    whole = split(path=path)
    parts = [split(path=path, folds=4, fold=fold) for fold in (1, 2, 3, 4)]
    pool = sorted(ids(whole)["train"] + ids(whole)["validation"])
    assert sorted(sum((ids(part)["validation"] for part in parts), [])) == pool
    for part in parts:
        assert ids(part)["test"] == ids(whole)["test"]
        assert sorted(ids(part)["train"] + ids(part)["validation"]) == pool
        for split_rows in part.splits.values():
            assert split_rows.targets is not None
        counts = part.splits["validation"].targets.sum(axis=0)
        total = counts + part.splits["train"].targets.sum(axis=0)
        assert (abs(counts - total / 4) <= 1.5).all()
    assert ids(split(path=path, folds=4, fold=2)) == ids(parts[1])


def test_rows_that_are_counted_in_each_split_stay_apart_in_folds(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", emotions(40))
    validation = write_csv(tmp_path / "validation.csv", emotions(20, start=500))
    part = split(train=train, validation=validation, folds=3, fold=1)
    together = ids(part)["train"] + ids(part)["validation"]
    assert len(set(together)) == 60


def test_more_folds_than_rows_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(30))
    with pytest.raises(UserError, match="data.folds=50 is more than there are rows"):
        split(path=path, folds=50, fold=1)


def numbered(texts: list[str], *, labelled: bool = True) -> Rows:
    targets = np.array([[i % 2, i % 3 == 0] for i in range(len(texts))], dtype=np.float32)
    ids = [str(number) for number in range(1, len(texts) + 1)]
    return Rows(ids=ids, texts=texts, targets=targets if labelled else None, id_column="row")


def in_folds(texts: list[str], *, folds: int, fold: int = 1) -> Corpus:
    rows = {"train": numbered(texts), "validation": numbered(["a last text"])}
    return splitting.folded(Corpus(["joy", "fear"], rows), folds=folds, fold=fold, seed=0)


def test_as_many_folds_as_rows_leave_one_row_out_at_a_time() -> None:
    parts = [in_folds([f"text {i}" for i in range(5)], folds=6, fold=fold) for fold in range(1, 7)]
    assert sorted(sum((ids(part)["validation"] for part in parts), [])) == ["1-1", "1-2", "1-3", "1-4", "1-5", "2-1"]


def test_folds_are_no_more_than_there_are_different_texts() -> None:
    texts = ["twice", "twice", "once"]
    with pytest.raises(UserError, match=r"data\.folds=4 is more than there are different texts \(3\)"):
        in_folds(texts, folds=4)
    assert len(in_folds(texts, folds=3).splits["validation"]) in (1, 2)


def test_the_folds_are_those_of_the_splitter_in_its_order_and_named_in_the_decisions() -> None:
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    texts = [f"text {i}" for i in range(11)]
    rows = splitting.joined([numbered(texts), numbered(["a last text"])])
    assert rows.targets is not None
    strata = np.hstack([rows.targets, np.ones((12, 1))]).astype(int)
    splitter = MultilabelStratifiedKFold(n_splits=3, shuffle=True, random_state=0)
    for fold, (_, validation) in enumerate(splitter.split(np.zeros(12), strata), 1):
        part = in_folds(texts, folds=3, fold=fold)
        assert ids(part)["validation"] == [rows.ids[i] for i in validation]
        assert part.decisions.split == f"the data has its own; fold {fold} of 3 is validation"


def test_rows_without_labels_are_neither_folded_nor_split() -> None:
    bare = numbered(["one", "two"], labelled=False)
    corpus = Corpus(["joy", "fear"], {"train": bare, "validation": numbered(["three"])})
    with pytest.raises(UserError, match=r"^Rows without labels cannot be cut into folds\.$"):
        splitting.folded(corpus, folds=2, fold=1, seed=0)
    with pytest.raises(UserError, match=r"^Rows without labels cannot be split\.$"):
        splitting.split_rows(Corpus(["joy", "fear"], {"train": bare}), data_settings(path="a.csv"))


def test_joined_rows_keep_ids_that_differ_and_count_the_parts_of_others() -> None:
    one, other = numbered(["a", "b"]), numbered(["c"])
    together = splitting.joined([one, other])
    assert together.ids == ["1-1", "1-2", "2-1"] and together.texts == ["a", "b", "c"]
    assert together.targets is not None and together.targets.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert together.id_column == "row"
    assert splitting.joined([one, replace(other, ids=["x"])]).ids == ["1", "2", "x"]
    # Of some rows the labels are unknown, so they are of all.
    assert splitting.joined([one, numbered(["c"], labelled=False)]).targets is None


def test_the_file_of_the_splits_holds_what_earlier_versions_read(tmp_path: Path) -> None:
    corpus = Corpus(["joy"], {}, new_splits={"train": numbered(["We won!", "é"]), "test": numbered(["x"])})
    splitting.write_splits(tmp_path / "splits.csv", corpus)
    assert (tmp_path / "splits.csv").read_bytes() == (
        b"id,split,text_sha256\r\n1,train,a62622129f33\r\n2,train,4a99557e4033\r\n1,test,2d711642b726\r\n"
    )


def test_written_splits_may_leave_every_row_of_a_training_file_in_train(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", emotions(20))
    test = write_csv(tmp_path / "test.csv", emotions(10, start=500))
    (tmp_path / "splits.csv").write_text("id,split\n" + "".join(f"{i},train\n" for i in range(1, 21)))
    # Rows of a training file may all stay in train; what has no validation then is told by who needs one.
    corpus = sources.read_corpus(data_settings(train=train, test=test))
    parts = splitting.split_rows(corpus, data_settings(train=train, test=test, splits=tmp_path / "splits.csv"))
    assert {name: len(rows) for name, rows in parts.splits.items()} == {"train": 20, "test": 10}
    assert parts.decisions.split.endswith(f"as in {tmp_path / 'splits.csv'}, validation taken from train")


def test_too_few_rows_are_told_with_the_file_that_was_named(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "few.csv", emotions(3))
    with pytest.raises(UserError, match=r"few\.csv: 3 rows are too few to split off a share of 0\.1; add rows"):
        split(train=train)
    with pytest.raises(UserError, match=r"few\.csv: 3 rows are too few"):
        split(path=train)
