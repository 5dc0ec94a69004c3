"""Tables in memory: texts come from the column of texts, and predictions are a table of the same library."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from emotion_lightning.errors import UserError
from emotion_lightning.inference import frames, predictor

TEXTS = ["We won!", "Rain again.", "Thank you for waiting."]


@pytest.fixture(scope="module")
def model(finished: Path) -> predictor.Labeller:
    return predictor.load(finished)


@pytest.fixture(scope="module")
def expected(model: predictor.Labeller) -> dict[str, list[Any]]:
    """The columns of the answer, from the predictions for a list."""
    answers = model.predict(TEXTS)
    labels = model.metadata.labels
    decided = {name: [int(name in answer.labels) for answer in answers] for name in labels}
    return decided | {f"p_{name}": [answer.probabilities[name] for answer in answers] for name in labels}


def test_a_pandas_frame_keeps_its_index(model: Any, expected: Any) -> None:
    frame = pd.DataFrame({"city": ["a", "b", "c"], "text": TEXTS}, index=pd.Index([7, 3, 5], name="key"))
    found = model.predict(frame)
    pd.testing.assert_index_equal(found.index, frame.index)
    assert {name: list(column) for name, column in found.items()} == expected
    assert {str(kind) for kind in found.dtypes} == {"int8", "float32"}
    assert list(frame.columns) == ["city", "text"]
    assert frame.join(found).loc[3, "text"] == "Rain again."


def test_a_series_becomes_a_frame(model: Any, expected: Any) -> None:
    series = pd.Series(TEXTS, index=["x", "x", "y"])
    found = model.predict(series)
    assert list(found.index) == ["x", "x", "y"]
    assert found.to_dict("list") == expected
    with pytest.raises(UserError, match="A Series has no columns"):
        model.predict(series, text="text")


def test_a_dataset_becomes_a_dataset(model: Any, expected: Any) -> None:
    found = model.predict(datasets.Dataset.from_dict({"sentence": TEXTS, "n": [1, 2, 3]}))
    assert isinstance(found, datasets.Dataset)
    assert found.to_dict() == expected
    assert found.features["p_joy"].dtype == "float32"


def test_polars_frames_become_polars_frames(model: Any, expected: Any) -> None:
    polars = pytest.importorskip("polars")
    for given in (polars.DataFrame({"text": TEXTS}), polars.Series("anything", TEXTS)):
        found = model.predict(given)
        assert isinstance(found, polars.DataFrame)
        assert found.to_dict(as_series=False) == expected
    with pytest.raises(UserError, match="collect"):
        model.predict(polars.DataFrame({"text": TEXTS}).lazy())
    with pytest.raises(UserError, match="no text in row 1"):
        model.predict(polars.Series(["a", None]))


def test_polars_is_known_without_being_imported(model: Any, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class DataFrame:
        """What of polars is used."""

        def __init__(self, columns: dict[str, Any]) -> None:
            self.of = columns
            self.columns = list(columns)

        def __getitem__(self, name: str) -> pd.Series:
            return pd.Series(self.of[name])

    stand_in = ModuleType("polars")
    stand_in.DataFrame = DataFrame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "polars", stand_in)
    found = model.predict(DataFrame({"text": TEXTS}))
    assert type(found) is DataFrame
    assert {name: column.tolist() for name, column in found.of.items()} == expected


def test_the_text_column_is_found_as_in_files(model: Any, expected: Any) -> None:
    named = pd.DataFrame({"review": TEXTS, "other": ["", "", ""], 3: [1, 2, 3]})
    assert model.predict(named).to_dict("list") == expected  # a usual name
    assert model.predict(named.rename(columns={"review": " My  texts "}), text="My texts").to_dict("list") == expected
    assert model.predict(pd.DataFrame({3: TEXTS})).to_dict("list") == expected  # the only one
    with pytest.raises(UserError, match="The DataFrame has no column with a usual name .* are a, b. Name one: text=…"):
        model.predict(pd.DataFrame({"a": TEXTS, "b": TEXTS}))
    with pytest.raises(UserError, match="has no column reviw; its columns are review, .*; did you mean text=review"):
        model.predict(named, text="reviw")
    with pytest.raises(UserError, match="several columns named text"):
        model.predict(pd.DataFrame([["a", "b"]], columns=["text", "text"]))


def test_the_column_of_the_run_comes_first() -> None:
    table = frames.table(pd.DataFrame({"text": ["a"], "mine": ["b"]}))
    assert table is not None
    assert table.texts(None, usual="mine") == ["b"]
    assert table.texts(None, usual="gone") == ["a"]
    assert table.texts("text", usual="mine") == ["a"]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_row_without_a_text_is_refused(model: Any, missing: Any) -> None:
    with pytest.raises(UserError, match=r"The DataFrame has no text in row 1 and 1 more \(counted from 0\)"):
        model.predict(pd.DataFrame({"text": pd.Series(["a", missing, "b", missing], dtype=object)}))


def test_tables_without_rows_have_the_columns(model: Any, expected: Any) -> None:
    found = model.predict(pd.DataFrame({"text": pd.Series([], dtype=object)}))
    assert (len(found), list(found.columns)) == (0, list(expected))
    assert model.predict([]) == []


def test_lists_and_what_is_none(model: Any) -> None:
    expected = model.predict(TEXTS)
    assert model.predict(np.array(TEXTS)) == model.predict(tuple(TEXTS)) == expected
    assert model.predict(datasets.Dataset.from_dict({"text": TEXTS})["text"]) == expected
    assert model.predict(TEXTS[0]) == model.predict(TEXTS[:1])
    split = datasets.Dataset.from_dict({"text": TEXTS})
    for given, message in (
        ({"text": TEXTS}, "this is a dict"),
        (3, "this is a int"),
        (["a", None], "number 1 of the list is a NoneType"),
        ([["a"]], "number 0 of the list is a list"),
        (datasets.DatasetDict(test=split), "several splits"),
        (split.to_iterable_dataset(), "as a stream"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict(given)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="named p_joy"):
        frames.check_labels(["joy", "p_joy"])
    frames.check_labels(["joy", "p_fear"])
