import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import prediction_files
from emotion_lightning.evaluation.explanations import Explanation, Word

LABELS = ["joy", "fear of loss"]
AWKWARD = ["NA", "null", "", " 007 ", "1e5", "a,b", 'say "so"', "a\nb", "a\r\nb", "a\rb", "a\u2028b", "été 😀", "=1+1"]

each_suffix = pytest.mark.parametrize("suffix", prediction_files.SUFFIXES)


def options(text=False, columns="all", csv_safe=False, intensities=False):
    return config.Predictions(
        text=text, columns=config.PredictionColumns[columns], intensities=intensities, csv_safe=csv_safe
    )


def rows(ids, texts=None, first=0.25):
    """Rows whose decisions are `fear of loss` alone, with the same probabilities each."""
    count = len(ids)
    probabilities = torch.tensor([[first, 0.75]] * count).reshape(count, 2)
    return prediction_files.Predicted(ids, texts or ids, probabilities > 0.5, probabilities)


def write(path, *parts, id_column="ID", **chosen):
    with prediction_files.writer_for(path, LABELS, options(**chosen), id_column=id_column) as writer:
        for part in parts:
            writer.write(part)
    return path


def read(path: Path):
    """A list of dicts; csv cells are text."""
    match path.suffix:
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        case ".jsonl":
            with path.open(encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        case _:
            return pyarrow.parquet.read_table(path).to_pylist()


@each_suffix
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"ID": "7", "joy": 0, "fear of loss": 1, "p_joy": 0.25, "p_fear of loss": 0.75}),
        ({"columns": "decisions"}, {"ID": "7", "joy": 0, "fear of loss": 1}),
        ({"columns": "decisions", "text": True}, {"ID": "7", "text": "hm", "joy": 0, "fear of loss": 1}),
        (
            {"text": True},
            {"ID": "7", "text": "hm", "joy": 0, "fear of loss": 1, "p_joy": 0.25, "p_fear of loss": 0.75},
        ),
    ],
    ids=str,
)
def test_columns_are_those_of_the_contract_in_its_order(tmp_path, suffix, chosen, expected):
    (row,) = read(write(tmp_path / f"out{suffix}", rows(["7"], ["hm"]), **chosen))
    if suffix == ".csv":
        expected = {name: str(value) for name, value in expected.items()}
    assert list(row.items()) == list(expected.items())


@each_suffix
def test_rows_come_in_the_order_in_which_they_were_given(tmp_path, suffix):
    path = write(tmp_path / f"out{suffix}", rows(["b", "a"]), rows(["d"]), rows([]), rows(["c"]))
    assert [row["ID"] for row in read(path)] == ["b", "a", "d", "c"]


@each_suffix
def test_no_rows_make_a_file_without_rows(tmp_path, suffix):
    assert read(write(tmp_path / f"out{suffix}")) == []


def test_csv_and_parquet_without_rows_have_their_columns(tmp_path):
    names = ["ID", *LABELS, "p_joy", "p_fear of loss"]
    assert write(tmp_path / "out.csv").read_text() == ",".join(names) + "\n"
    assert pyarrow.parquet.read_schema(write(tmp_path / "out.parquet")).names == names


@each_suffix
def test_probabilities_come_back_as_the_same_float32(tmp_path, suffix):
    values = np.array([0, 1e-38, 1e-10, 1 / 3, 0.1, 0.5, np.nextafter(np.float32(1), np.float32(0)), 1], np.float32)
    values = np.concatenate([values, np.random.default_rng(0).random(200, dtype=np.float32)])
    path = write(tmp_path / f"out{suffix}", *[rows(["x"], first=value) for value in values])
    np.testing.assert_array_equal([np.float32(row["p_joy"]) for row in read(path)], values)


@each_suffix
@pytest.mark.parametrize("awkward", AWKWARD, ids=ascii)
def test_ids_and_texts_come_back_unchanged(tmp_path, suffix, awkward):
    path = write(tmp_path / f"out{suffix}", rows([awkward, "next"], [awkward, "next"]), text=True)
    assert [(row["ID"], row["text"]) for row in read(path)] == [(awkward, awkward), ("next", "next")]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@sum", "\tx", "\rx"], ids=ascii)
def test_csv_safe_keeps_spreadsheets_from_running_cells(tmp_path, cell):
    (row,) = read(write(tmp_path / "out.csv", rows([cell], [cell]), text=True, csv_safe=True))
    assert (row["ID"], row["text"]) == ("'" + cell, "'" + cell)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_csv_safe_leaves_other_formats_alone(tmp_path, suffix):
    (row,) = read(write(tmp_path / f"out{suffix}", rows(["=1+1"]), csv_safe=True))
    assert row["ID"] == "=1+1"


def test_csv_safe_leaves_harmless_cells_alone(tmp_path):
    (row,) = read(write(tmp_path / "out.csv", rows(["a=b"]), csv_safe=True))
    assert (row["ID"], row["p_joy"]) == ("a=b", "0.25")


@each_suffix
def test_file_appears_when_all_rows_are_in(tmp_path, suffix):
    path = tmp_path / "new folder" / f"out{suffix}"
    with prediction_files.writer_for(path, LABELS, options(), id_column="ID") as writer:
        writer.write(rows(["1"]))
        assert not path.exists()
    assert list(path.parent.iterdir()) == [path]


@each_suffix
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_between_leaves_nothing_behind(tmp_path, suffix, error):
    with (
        pytest.raises(error),
        prediction_files.writer_for(tmp_path / f"out{suffix}", LABELS, options(), id_column="ID") as writer,
    ):
        writer.write(rows(["1"]))
        raise error
    assert list(tmp_path.iterdir()) == []


@each_suffix
def test_an_error_leaves_an_existing_file_as_it_was(tmp_path, suffix):
    path = write(tmp_path / f"out{suffix}", rows(["old"]))
    before = path.read_bytes()
    with pytest.raises(RuntimeError), prediction_files.writer_for(path, LABELS, options(), id_column="ID") as writer:
        writer.write(rows(["new"]))
        raise RuntimeError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@each_suffix
def test_an_existing_file_is_replaced(tmp_path, suffix):
    path = write(tmp_path / f"out{suffix}", rows(["old"]))
    assert [row["ID"] for row in read(write(path, rows(["new"])))] == ["new"]


@pytest.mark.parametrize("name", ["out.txt", "out.csv.gz", "out"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"\.csv, \.jsonl, \.parquet"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_upper_case_suffixes_are_taken(tmp_path):
    assert write(tmp_path / "OUT.CSV", rows(["1"])).read_text().startswith("ID,joy")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="folder"):
        prediction_files.check_output(tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("id_column", "text"), [("joy", False), ("p_joy", False), ("text", True)], ids=["label", "probability", "text"]
)
def test_two_columns_of_one_name_are_refused(tmp_path, id_column, text):
    with pytest.raises(UserError, match=f"two columns named {id_column}"):
        write(tmp_path / "out.csv", id_column=id_column, text=text)
    assert list(tmp_path.iterdir()) == []


@each_suffix
def test_explanations_are_a_last_column_with_an_entry_for_each_label_and_word(tmp_path, suffix):
    words = [
        Word('"Oh', 0, 3, {"joy": 1.25, "fear of loss": -0.5}),
        Word("é,", 4, 6, {"joy": 0.0, "fear of loss": 2.0}),
    ]
    names = ["joy", "fear of loss"]
    zeros = dict.fromkeys(names, 0.0)
    why = [
        Explanation('"Oh é,', names, words, logits=zeros, baseline_logits=zeros, errors=zeros),
        Explanation("", ["joy"], [], logits={"joy": 0.0}, baseline_logits={"joy": 0.0}, errors={"joy": 0.0}),
    ]
    path = tmp_path / f"out{suffix}"
    with prediction_files.writer_for(path, LABELS, options(), id_column="ID", explained=True) as writer:
        part = rows(["1", "2"])
        part.explanations = why
        writer.write(part)
        writer.write(rows([]))
    first, second = read(path)
    assert list(first)[-1] == "explanation" and list(first)[:3] == ["ID", *LABELS]
    found = json.loads(first["explanation"]) if suffix == ".csv" else first["explanation"]
    assert found == [
        {"label": "joy", "word": '"Oh', "start": 0, "end": 3, "attribution": 1.25},
        {"label": "joy", "word": "é,", "start": 4, "end": 6, "attribution": 0.0},
        {"label": "fear of loss", "word": '"Oh', "start": 0, "end": 3, "attribution": -0.5},
        {"label": "fear of loss", "word": "é,", "start": 4, "end": 6, "attribution": 2.0},
    ]
    assert second["explanation"] in ([], "[]")


def test_a_label_cannot_be_named_as_the_column_of_explanations(tmp_path):
    with (
        pytest.raises(UserError, match="two columns named explanation"),
        prediction_files.writer_for(tmp_path / "o.csv", ["explanation"], options(), id_column="ID", explained=True),
    ):
        pass


@each_suffix
@pytest.mark.parametrize("explained", [False, True])
def test_expected_intensities_follow_the_probabilities(tmp_path, suffix, explained):
    part = rows(["7"])
    part.intensities = torch.tensor([[0.5, 2.25]])
    part.explanations = [Explanation("7", [], [], {}, {}, {})] if explained else None
    path = tmp_path / f"out{suffix}"
    opened = prediction_files.writer_for(path, LABELS, options(intensities=True), id_column="ID", explained=explained)
    with opened as writer:
        writer.write(part)
    (found,) = read(path)
    names = [
        "ID",
        *LABELS,
        "p_joy",
        "p_fear of loss",
        "i_joy",
        "i_fear of loss",
        *(["explanation"] if explained else []),
    ]
    assert list(found) == names
    assert [float(found[f"i_{name}"]) for name in LABELS] == [0.5, 2.25]
    if suffix == ".parquet":
        assert pyarrow.parquet.read_schema(path).field("i_joy").type == "float"


def test_a_label_named_like_a_column_of_intensities_is_refused(tmp_path):
    opened = prediction_files.writer_for(
        tmp_path / "o.csv", ["joy", "i_joy"], options(intensities=True), id_column="ID"
    )
    with pytest.raises(UserError, match="two columns named i_joy"), opened:
        pass
