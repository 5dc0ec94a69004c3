from pathlib import Path
from typing import Any

import pytest
from helpers.tables import data_settings, text_columns, write_jsonl, write_parquet

from emotion_lightning.data import sources, tables
from emotion_lightning.data.formats import files, nested
from emotion_lightning.data.rows import WHOLE
from emotion_lightning.errors import UserError


@pytest.mark.parametrize(
    ("cell", "keys", "found"),
    [
        ({"a": {"b": 1}}, ["a", "b"], 1),
        ({"a": [{"b": 1}, {"b": 2}, {"c": 3}]}, ["a", "b"], [1, 2]),
        ([{"b": ["x", "y"]}, {"b": "z"}, {"b": None}], ["b"], ["x", "y", "z"]),
        ({"a.b": {"c": 1}}, ["a", "b", "c"], 1),
        ({"a": "text"}, ["a", "b"], None),
        ({"a": []}, ["a", "b"], []),
        (None, ["a"], None),
        ({" caf\u0065\u0301 ": 1}, ["caf\u00e9"], 1),
    ],
)
def test_a_path_goes_through_objects_and_lists(cell: Any, keys: list[str], found: Any) -> None:
    assert nested.at(cell, keys) == found


def test_lists_in_lists_without_end_are_not_followed() -> None:
    cell: Any = "end"
    for _ in range(900):
        cell = [cell]
    assert nested.at(cell, ["a"]) == []
    assert nested.leaves({"a": {"b": cell}}) == ["a.b"]


RECORDS = [
    {
        "data": {"text": f"text {i}"},
        "marks": [{"label": ["joy", "anger"][i % 2]}, *([{"label": "fear"}] * (i % 3 == 0))],
    }
    for i in range(12)
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_paths_in_settings_are_columns(tmp_path: Path, name: str) -> None:
    if name == "a.jsonl":
        path = write_jsonl(tmp_path / name, RECORDS)
    else:
        path = write_parquet(tmp_path / name, {key: [record[key] for record in RECORDS] for key in ("data", "marks")})
    found = sources.read_corpus(data_settings(path=path, text="data.text", labels_column="marks.label"))
    assert (found.labels, found.splits[WHOLE].texts[1]) == (["anger", "fear", "joy"], "text 1")
    targets = found.splits[WHOLE].targets
    assert targets is not None and targets[0].tolist() == [0, 1, 1] and targets[1].tolist() == [1, 0, 0]
    assert found.decisions.text == "data.text"


def test_the_message_names_the_paths_and_the_setting(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", RECORDS)
    with pytest.raises(
        UserError, match=r"paths into them: data\.text, marks\.label\)\. Name one: data\.text=data\.text"
    ):
        sources.read_corpus(data_settings(path=path))
    with pytest.raises(UserError, match=r"has no column data\.txt; .* did you mean data\.text=data\.text"):
        sources.read_corpus(data_settings(path=path, text="data.txt", labels_column="marks.label"))
    with pytest.raises(UserError, match=r"no column marks\.lable"):
        sources.read_corpus(data_settings(path=path, text="data.text", labels_column="marks.lable"))


def test_a_path_through_a_list_of_one_is_a_text_and_through_several_is_none(tmp_path: Path) -> None:
    records = [{"turns": [{"said": f"text {i}"}], "joy": i % 2} for i in range(4)]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    assert sources.read_corpus(data_settings(path=path, text="turns.said")).splits[WHOLE].texts[1] == "text 1"
    records[2]["turns"] = [{"said": "a"}, {"said": "b"}]
    write_jsonl(path, records)
    with pytest.raises(UserError, match=r"row 3, column turns\.said: no text"):
        sources.read_corpus(data_settings(path=path, text="turns.said"))


def test_a_column_with_dots_in_its_name_stays_a_column(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"data.text": f"t{i}", "data": {"text": "no"}, "joy": i % 2} for i in range(4)]
    )
    assert sources.read_corpus(data_settings(path=path, text="data.text")).splits[WHOLE].texts[0] == "t0"


def test_predict_reads_the_path_that_it_is_given_or_that_the_run_has(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", RECORDS)
    settings = text_columns()
    assert [*tables.read_texts(files.source(path), settings, usual=("data.text", None))][1] == ("2", "text 1")
    settings.text = "data.text"
    assert [*tables.read_texts(files.source(path), settings)][1] == ("2", "text 1")
