"""A file that cannot be read as it is: its columns are explained, and settings that read it are found."""

import os
import pty
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.tables import data_settings, write_csv

from emotion_lightning.data import doctor, sources
from emotion_lightning.errors import UserError

Cell = Callable[[int], Any]

TEXTS = ["I am so happy for you today", "leave me alone", "what a strange long day that was"]
EMOTIONS = ["joy", "anger", "fear"]


def text(i: int) -> str:
    return f"{TEXTS[i % 3]} {i}"


def table(header: Sequence[str] | None, *cells: Cell, rows: int = 30) -> list[list[Any]]:
    return [*([list(header)] if header else []), *([cell(i) for cell in cells] for i in range(rows))]


def diagnosis(path: Path, **chosen: Any) -> doctor.Diagnosis:
    settings = data_settings(path=path, **chosen)
    with pytest.raises(UserError) as raised:
        sources.split_corpus(sources.read_corpus(settings), settings, tell=False)
    return doctor.examine(settings, raised.value)


def word(yes: str, no: str, every: int) -> Cell:
    return lambda i: yes if i % every == 0 else no


ODD: dict[str, tuple[list[list[Any]], str, list[dict[str, Any]], list[str]]] = {
    "words": (
        table(["text", "joy", "fear"], text, word("ja", "nein", 2), word("ja", "nein", 3)),
        ",",
        [{"true_values": ["ja"], "false_values": ["nein"]}],
        ["joy", "fear"],
    ),
    "x or nothing": (
        table(["text", "joy", "fear"], text, word("x", "", 2), word("x", "", 3)),
        ",",
        [{"true_values": ["x"], "missing": "zero"}],
        ["joy", "fear"],
    ),
    "no header": (
        table(None, text, lambda i: EMOTIONS[i % 3]),
        ";",
        [{"header": "none", "columns": ["text", "label"]}],
        ["anger", "fear", "joy"],
    ),
    "unusual names": (
        table(["what was said", "who", "mood"], text, lambda i: "AB"[i % 2], lambda i: EMOTIONS[i % 3]),
        ",",
        [{"text": "what was said", "labels_column": "mood"}],
        ["anger", "fear", "joy"],
    ),
    "intensities": (
        table(["text", "joy", "fear"], text, lambda i: i % 4, lambda i: (i + 1) % 4),
        ",",
        [{"present_from": 1.0}, {"scale": 3.0}],
        ["joy", "fear"],
    ),
    "annotators": (
        table(["id", "text", "rater", "joy", "fear"], lambda i: i // 2, lambda i: text(i // 2),
              lambda i: f"r{i % 2}", lambda i: i // 2 % 2, lambda i: i // 2 % 3 == 0),
        ",",
        [{"aggregate": "majority"}, {"aggregate": "share"}],
        ["joy", "fear"],
    ),
    "intensities of annotators": (
        table(["id", "text", "rater", "joy", "fear"], lambda i: i // 2, lambda i: text(i // 2),
              lambda i: f"r{i % 2}", lambda i: i // 2 % 4, lambda i: i // 2 % 3),
        ",",
        [{"present_from": 1.0, "aggregate": "majority"}, {"present_from": 1.0, "aggregate": "share"},
         {"scale": 3.0, "aggregate": "share"}],
        ["joy", "fear"],
    ),
    "two ways": (
        table(["text", "emotions", "joy", "fear"], text, lambda i: EMOTIONS[i % 2], word("1", "0", 2),
              word("1", "0", 3)),
        ",",
        [{"labels_column": "emotions"}, {"labels": ["joy", "fear"]}],
        ["anger", "joy"],
    ),
    "empty texts and cells": (
        table(["text", "joy", "fear"], lambda i: "" if i == 4 else text(i), lambda i: "" if i == 3 else i % 2,
              word("1", "0", 3)),
        ",",
        [{"empty_texts": "drop", "missing": "zero"}, {"empty_texts": "drop", "missing": "mask"}],
        ["joy", "fear"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_settings_are_found_that_read_the_file(tmp_path: Path, name: str) -> None:
    rows, delimiter, ways, labels = ODD[name]
    path = write_csv(tmp_path / ("a.txt" if delimiter == ";" else "a.csv"), rows, delimiter=delimiter)
    found = diagnosis(path)
    assert [way.settings for way in found.ways] == ways
    assert found.ways[0].corpus.labels == labels
    again = sources.read_corpus(doctor.changed(data_settings(path=path), ways[0]))
    read = sum(len(part) for part in found.ways[0].corpus.splits.values())
    assert again.labels == labels and len(again.splits["whole"]) == read


def test_an_encoding_is_found_and_the_likeliest_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"{text(i)} “très”,{i % 2},{i // 2 % 2}\n" for i in range(20))
    path.write_text("text,joy,fear\n" + rows, encoding="cp1252")
    found = diagnosis(path)
    assert found.ways[0].settings == {"encoding": "cp1252"}
    assert "très" in found.ways[0].corpus.splits["train"].texts[0]


def test_columns_are_explained(tmp_path: Path) -> None:
    header = ["no", "said", "joy", "fear", "is_retweet", "part", "mood", "score", "Unnamed: 0"]
    rows = table(header, lambda i: "", text, word("yes", "no", 2), word("yes", "", 3), word("1", "0", 2),
                 lambda i: ["train", "train", "dev"][i % 3], lambda i: f"mood {i % 5}", lambda i: i / 7,
                 str)  # fmt: skip
    found = diagnosis(write_csv(tmp_path / "a.csv", rows), split_column="part")
    assert found.ways[0].settings == {
        "text": "said", "true_values": ["yes"], "false_values": ["no"], "missing": "zero",
    }  # fmt: skip
    columns = {column.name: column for column in found.columns}
    assert list(columns) == header
    assert {name: column.taken for name, column in columns.items() if column.taken != "-"} == {
        "said": "text", "joy": "label", "fear": "label", "part": "split",
    }  # fmt: skip
    assert columns["joy"].holds == "yes 50%, no 50%" and columns["fear"].blank == pytest.approx(2 / 3)
    assert columns["no"].why == "empty in every row" and columns["Unnamed: 0"].why == "row numbers that pandas wrote"
    assert columns["is_retweet"].why == "0 and 1, but its name describes a row"
    assert columns["mood"].why == "5 different words, not 0 and 1"
    assert columns["score"].why == "30 different numbers, not 0 and 1"


def test_columns_are_explained_where_nothing_reads_the_file(tmp_path: Path) -> None:
    rows = table(["text", "valence", "arousal"], text, lambda i: -i / 7, lambda i: -i / 9)
    found = diagnosis(write_csv(tmp_path / "a.csv", rows))
    assert not found.ways and found.rows == 30
    assert [column.taken for column in found.columns] == ["text", "-", "-"]


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"PK\x03\x04 no zip"])
def test_a_file_of_another_kind_has_no_columns(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    found = diagnosis(path)
    assert not found.columns and not found.ways and found.path == path


def test_a_setting_that_was_given_is_not_overruled(tmp_path: Path) -> None:
    rows = table(["said", "joy"], text, word("1", "0", 2))
    assert not diagnosis(write_csv(tmp_path / "a.csv", rows), text="sid").ways


def test_the_option_that_inspect_prints_reads_the_file(run: Any, capsys: Any, tmp_path: Path) -> None:
    rows = table(["what I felt", "joy", "fear"], text, word("yes", "no", 2), word("yes", "no", 3))
    write_csv(tmp_path / "Sad days.csv", rows)
    assert run("inspect", "data=file", "data.path=Sad days.csv") == 2
    told = capsys.readouterr()
    assert "has no column with a usual name for texts" in told.err
    assert "joy 15, fear 10" in told.out
    assert "'data.text=what I felt' 'data.true_values=[yes]' 'data.false_values=[no]'" in told.out
    content = told.out.partition("--config-dir=options data=sad_days:")[2]
    assert yaml.safe_load(content)["path"] == str(tmp_path / "Sad days.csv")
    (tmp_path / "options" / "data").mkdir(parents=True)
    (tmp_path / "options" / "data" / "sad_days.yaml").write_text(content)
    assert run("inspect", "--config-dir=options", "data=sad_days") == 0


def test_a_train_that_cannot_read_its_data_points_to_inspect(run: Any, capsys: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", table(["text", "joy", "fear"], text, word("yes", "no", 2), word("yes", "no", 3)))
    assert run("train", "data=file", "data.path=a.csv", "logger=none") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith("python -m emotion_lightning.inspect data=file data.path=a.csv")


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("\n", False), ("\x04", False)])
def test_a_terminal_is_asked(run: Any, tmp_path: Path, monkeypatch: Any, answer: str, written: bool) -> None:
    write_csv(tmp_path / "a.csv", table(["text", "joy", "fear"], text, word("yes", "no", 2), word("yes", "no", 3)))
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    with os.fdopen(theirs, encoding="utf-8") as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert run("inspect", "data=file", "data.path=a.csv") == 2
    os.close(ours)
    file = tmp_path / "options" / "data" / "a.yaml"
    assert file.exists() == written
    if written:
        content = yaml.safe_load(file.read_text())
        assert content["true_values"] == ["yes"] and np.all([name in content for name in ("defaults", "path")])


def test_an_option_file_is_not_replaced(tmp_path: Path) -> None:
    assert doctor.free_name(tmp_path, Path("My file.csv.gz")).name == "my_file.yaml"
    (tmp_path / "my_file.yaml").touch()
    assert doctor.free_name(tmp_path, Path("my file.csv")).name == "my_file_2.yaml"
    assert doctor.free_name(tmp_path, Path("semeval2018.csv")).name == "semeval2018_2.yaml"
