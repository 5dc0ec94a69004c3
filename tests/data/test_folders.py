import os
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import data_settings, emotions, write_csv, write_jsonl, write_parquet

from emotion_lightning.data import sources
from emotion_lightning.data.rows import WHOLE, Corpus
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder


def read(path: Path | str, **settings: Any) -> Corpus:
    return sources.read_corpus(data_settings(path=path, **settings))


def refusal(path: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        read(path, **settings)
    return str(raised.value)


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for number, name in enumerate(names):
        write_csv(path / name, emotions(12, start=100 * number))
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "dev.csv", "test.csv"),
        ("train_sent_emo.csv", "valid_sent_emo.csv", "test_sent_emo.csv"),
        ("2018-E-c-En-train.csv", "2018-E-c-En-dev.csv", "2018-E-c-En-test-gold.csv"),
    ],
)
def test_splits_are_those_that_the_files_are_named_by_aloud(
    tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    path = folder(tmp_path / "data", *names)
    (path / "README.txt").write_text("About these files.")
    with caplog.at_level("INFO"):
        found = read(path)
    assert {name: rows.texts[0] for name, rows in found.splits.items()} == {
        "train": "text 0", "validation": "text 100", "test": "text 200",
    }  # fmt: skip
    assert f"train {names[0]}; validation {names[1]}; test {names[2]}. data.split_column=none" in caplog.text
    assert found.plain_decisions()["splits"]["from"] == "the names of the files"


def test_parts_of_a_split_are_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    for number, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        columns = {"text": [f"t{number}{i}" for i in range(6)], "joy": [i % 2 for i in range(6)]}
        write_parquet(path / f"{name}.parquet", columns)
    found = read(path)
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 12, "test": 6}


def test_files_that_name_no_split_are_read_as_one_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", "b.csv", "a.csv")
    found = read(path)
    assert list(found.splits) == [WHOLE] and found.splits[WHOLE].texts[0] == "text 100"
    assert "file" in found.decisions.aside


def test_a_pattern_chooses_files(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", "a1.csv", "a2.csv", "b.csv")
    write_jsonl(path / "a3.jsonl", [{"text": "x", "joy": 1}])
    assert len(read(f"{path}/a*.csv").splits[WHOLE]) == 24
    assert "matches no file that is a table" in refusal(f"{path}/c*.csv")
    found = sources.read_corpus(data_settings(train=f"{path}/a*.csv", test=path / "b.csv"))
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 24, "test": 12}


def test_a_folder_and_a_pattern_are_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "data", "a1.csv", "a2.csv")
    monkeypatch.chdir(tmp_path)
    stored = run_folder.absolute({"path": "data/a*.csv", "train": "data"})
    assert stored == {"path": str(tmp_path / "data" / "a*.csv"), "train": str(tmp_path / "data")}
    assert run_folder.absolute({"path": "none/a*.csv"}) == {"path": "none/a*.csv"}
    os.chdir("/")
    assert len(read(stored["path"]).splits[WHOLE]) == 24


def test_the_name_of_the_file_can_be_the_id_or_the_split(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", "train.csv", "test.csv", "dev.csv")
    by_column = read(path, split_column="file")
    assert {name: rows.texts[0] for name, rows in by_column.splits.items()} == {
        "train": "text 0", "test": "text 100", "validation": "text 200",
    }  # fmt: skip
    assert list(read(path, split_column="none").splits) == [WHOLE]
    single = tmp_path / "single"
    single.mkdir()
    for name in ("x", "y", "z"):
        write_csv(single / f"{name}.csv", [["text", "joy"], [f"text {name}", int(name == "x")]])
    assert read(single, id_column="file").splits[WHOLE].ids == ["x", "y", "z"]


@pytest.mark.parametrize("names", [("0.csv", "1.csv"), ("1.csv", "0.csv")])
def test_the_name_of_the_file_is_no_label(tmp_path: Path, names: tuple[str, str]) -> None:
    assert read(folder(tmp_path / "data", *names)).labels == ["joy", "anger"]


def test_files_of_which_only_some_name_splits_are_refused_with_their_list(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", "train.csv", "more.csv", "test.csv")
    message = refusal(path)
    assert "train: train.csv; test: test.csv; not so more.csv" in message
    assert f"data.train={path}/train.csv data.test={path}/test.csv" in message
    assert len(read(path, split_column="none").splits[WHOLE]) == 36


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("test.csv", "dev.csv"), "is named like train"),
        ((), "is a folder without tables"),
    ],
)
def test_a_folder_without_training_rows_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    assert message in refusal(folder(tmp_path / "data", *names))


def test_a_folder_of_several_formats_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", "a.csv")
    write_jsonl(path / "a.jsonl", [{"text": "x", "joy": 1}])
    assert "several formats (a.csv, a.jsonl), perhaps the same rows twice" in refusal(path)


def test_a_file_with_other_columns_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", "a.csv")
    write_csv(path / "b.csv", [["text", "sad"], ["x", 1]])
    assert "b.csv has no column joy, anger, which" in refusal(path)
