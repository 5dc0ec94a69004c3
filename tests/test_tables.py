import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import data_settings

from emotion_lightning.data import tables
from emotion_lightning.data.rows import Problems, Rows
from emotion_lightning.errors import UserError

FILE = Path("a.csv")


def read(header: list[str], *cells: list[Any], **settings: Any) -> Rows:
    """Rows out of cells, or the UserError that names what is wrong with them."""
    records = [(row, dict(zip(header, values, strict=False))) for row, values in enumerate(cells, start=1)]
    columns = tables.find_columns(FILE, data_settings(path=FILE, **settings), records)
    problems = Problems()
    found = tables.rows(FILE, records, columns, problems)
    problems.raise_any()
    return found


def labels_of(header: list[str], *cells: list[Any]) -> list[str]:
    records = [(row, dict(zip(header, values, strict=True))) for row, values in enumerate(cells, start=1)]
    return tables.find_columns(FILE, data_settings(path=FILE), records).labels


# -------------------------------------------------------------------------------------------------------- label columns


@pytest.mark.parametrize(
    ("yes", "no"), [("1", "0"), (1, 0), (1.0, 0.0), ("1.0", "0.0"), ("true", "false"), ("True", "FALSE"), (True, False)]
)
def test_columns_of_zeros_and_ones_are_labels_without_settings(yes: Any, no: Any) -> None:
    rows = read(["text", "joy", "anger"], ["a", yes, no], ["b", no, no], ["c", yes, yes])
    assert rows.targets is not None
    assert rows.targets.dtype == np.float32
    assert rows.targets.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_other_columns_are_no_labels() -> None:
    header = ["id", "text", "joy", "stars", "source", "note", "share"]
    cells = [[str(i), f"t{i}", "1", str(i % 5), "web", "", "0.5"] for i in range(10)]
    assert labels_of(header, *cells) == ["joy"]


def test_columns_left_aside_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        labels_of(["text", "joy", "stars", "source"], ["a", "1", "4", "web"], ["b", "0", "5", "app"])
    assert "Labels in a.csv: joy." in caplog.text
    assert "stars, source" in caplog.text


@pytest.mark.parametrize("name", ["id", "ID", "row_id"])
def test_an_id_column_is_no_label_though_it_holds_zeros_and_ones(name: str) -> None:
    assert labels_of([name, "text", "joy"], ["0", "a", "1"], ["1", "b", "1"]) == ["joy"]


def test_a_text_column_is_no_label_though_it_holds_zeros_and_ones() -> None:
    assert labels_of(["text", "joy"], ["0", "1"], ["1", "1"]) == ["joy"]


@pytest.mark.parametrize("rows", [5, 50, 1000])
@pytest.mark.parametrize(
    ("cell", "shown"),
    [("2", "'2'"), ("0.5", "'0.5'"), ("yes", "'yes'"), ("", "nothing"), (" ", "nothing"), (None, "nothing"), (2, "2")],
)
def test_one_bad_cell_in_a_label_column_is_reported(rows: int, cell: Any, shown: str) -> None:
    cells = [[f"t{i}", "1", "0"] for i in range(rows)]
    cells[3][1] = cell
    with pytest.raises(UserError) as raised:
        read(["text", "joy", "anger"], *cells)
    assert str(raised.value) == f"a.csv, row 4, column joy: {shown} where 0 or 1 is due."


def test_labels_named_by_the_user_are_taken_alone_and_in_that_order() -> None:
    rows = read(
        ["text", "joy", "anger", "spam"], ["a", "1", "0", "1"], ["b", "0", "1", "1"],
        labels=["anger", "joy"],
    )  # fmt: skip
    assert rows.targets is not None
    assert rows.targets.tolist() == [[0, 1], [1, 0]]


def test_in_named_labels_every_bad_cell_is_reported() -> None:
    with pytest.raises(UserError, match=re.compile("row 1, column joy.*row 2, column joy", re.DOTALL)):
        read(["text", "joy"], ["a", "no"], ["b", "yes"], labels=["joy"])


def test_a_named_label_that_is_absent_is_answered_with_the_columns() -> None:
    with pytest.raises(UserError, match=r"a\.csv has no column anger \(data\.labels\); its columns are text, joy"):
        read(["text", "joy"], ["a", "1"], labels=["joy", "anger"])


def test_without_any_label_column_the_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"its columns are text, mood.*data\.labels=.*data\.labels_column="):
        read(["text", "mood"], ["a", "glad"], ["b", "sad"])


def test_a_label_key_that_the_first_record_lacks_is_not_lost() -> None:
    with pytest.raises(UserError, match="row 1, column anger: nothing where 0 or 1 is due"):
        read(["text", "joy", "anger"], ["a", 1], *(["b", 0, 1] for _ in range(9)))


# ------------------------------------------------------------------------------------------------- one column of labels


@pytest.mark.parametrize(
    ("separator", "cells"),
    [
        (",", ["joy,love", "anger", "", "love, joy"]),
        ("|", ["joy|love", "anger", "", " love | joy "]),
        (" ", ["joy love", "anger", "  ", "love  joy"]),
        (",", [["joy", "love"], ["anger"], [], ["love", "joy"]]),
        (",", [["joy", "love"], ["anger"], None, ("love", "joy")]),
    ],
)
def test_a_column_may_hold_label_names(separator: str, cells: list[Any]) -> None:
    rows = read(
        ["text", "mood"], *([f"t{i}", cell] for i, cell in enumerate(cells)),
        labels_column="mood", separator=separator,
    )  # fmt: skip
    assert rows.targets is not None
    assert rows.targets.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 1, 1]]  # anger, joy, love


@pytest.mark.parametrize(
    "cells", [["0,2", "1", ""], [[0, 2], [1], []], [["0", "2"], ["1"], None], ["joy,2", "anger", ""]]
)
def test_a_column_may_hold_ids_of_named_labels(cells: list[Any]) -> None:
    rows = read(
        ["text", "mood"], *([f"t{i}", cell] for i, cell in enumerate(cells)),
        labels_column="mood", labels=["joy", "anger", "love"],
    )  # fmt: skip
    assert rows.targets is not None
    assert rows.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_a_single_id_may_be_a_number() -> None:
    rows = read(["text", "mood"], ["a", 1], ["b", 0], labels_column="mood", labels=["joy", "anger"])
    assert rows.targets is not None
    assert rows.targets.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("cell", ["joy,rage", "3", "-1", ["rage"], [7], "joy;anger", "Joy", "1.0"])
def test_an_unknown_label_is_reported_with_its_row(cell: Any) -> None:
    with pytest.raises(UserError, match=r"a\.csv, row 2, column mood: the label '.*' is not one of joy, anger, love"):
        read(
            ["text", "mood"], ["a", "joy"], ["b", cell],
            labels_column="mood", labels=["joy", "anger", "love"],
        )  # fmt: skip


def test_ids_without_names_are_labels_in_the_order_of_their_numbers() -> None:
    table = data_settings(path=FILE, labels_column="mood")
    records = [(1, {"text": "a", "mood": "10,2"}), (2, {"text": "b", "mood": "9"})]
    assert tables.find_columns(FILE, table, records).labels == ["2", "9", "10"]


def test_an_id_that_train_does_not_have_is_no_position_among_those_it_has() -> None:
    table = data_settings(path=FILE, labels_column="mood")
    columns = tables.find_columns(FILE, table, [(1, {"text": "a", "mood": "10,20,30"})])
    problems = Problems()
    tables.rows(Path("b.csv"), [(1, {"text": "b", "mood": "1"})], columns, problems)
    with pytest.raises(UserError, match=r"b\.csv, row 1, column mood: the label '1' is not one of 10, 20, 30"):
        problems.raise_any()


def test_a_missing_labels_column_is_answered_with_the_columns() -> None:
    with pytest.raises(UserError, match=r"a\.csv has no column moods; its columns are text, mood"):
        read(["text", "mood"], ["a", "joy"], labels_column="moods")


def test_a_labels_column_without_any_label_is_reported() -> None:
    with pytest.raises(UserError, match="column mood: no row has a label"):
        read(["text", "mood"], ["a", ""], ["b", None], labels_column="mood")


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.separator"):
        read(["text", "mood"], ["a", "joy"], labels_column="mood", separator="")


# -------------------------------------------------------------------------------------------------------- texts and ids


@pytest.mark.parametrize("text", ["", "   ", "\n\t", None, ["a list"], {"a": "mapping"}])
def test_an_empty_text_is_reported(text: Any) -> None:
    with pytest.raises(UserError, match=r"^a\.csv, row 2, column text: "):
        read(["text", "joy"], ["a", 1], [text, 0], ["c", 1])


@pytest.mark.parametrize(("text", "taken"), [(7, "7"), (0, "0"), (" kept as it is ", " kept as it is "), ("NA", "NA")])
def test_texts_are_taken_as_they_are(text: Any, taken: str) -> None:
    assert read(["text", "joy"], [text, 1]).texts == [taken]


def test_ids_are_kept_as_text() -> None:
    rows = read(["id", "text", "joy"], ["007", "a", 1], [8, "b", 0], ["2018-En-9", "c", 1])
    assert rows.ids == ["007", "8", "2018-En-9"]
    assert rows.id_column == "id"


def test_without_ids_rows_are_counted() -> None:
    rows = read(["text", "joy"], ["a", 1], ["b", 0])
    assert (rows.ids, rows.id_column) == (["1", "2"], "row")


def test_the_id_column_may_be_named() -> None:
    rows = read(["id", "number", "text", "joy"], ["1", "x", "a", 1], id_column="number")
    assert (rows.ids, rows.id_column) == (["x"], "number")


def test_an_id_that_stands_twice_is_reported_with_both_rows() -> None:
    with pytest.raises(UserError, match="row 3, column id: the id 7 stands in row 2 already"):
        read(["id", "text", "joy"], ["8", "a", 1], ["7", "b", 1], ["7", "c", 1])


@pytest.mark.parametrize("identifier", ["", " ", None])
def test_a_missing_id_is_reported(identifier: Any) -> None:
    with pytest.raises(UserError, match="row 2, column id: no id"):
        read(["id", "text", "joy"], ["7", "a", 1], [identifier, "b", 1])


# ------------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("bad", "rest"), [(9, None), (10, None), (11, "… and 1 more problem"), (1234, "1,224 more problems")]
)
def test_ten_problems_stand_in_one_message_with_a_count_of_the_rest(bad: int, rest: str | None) -> None:
    problems = Problems()
    for row in range(1, bad + 1):
        problems.add(FILE, "wrong.", row=row)
    with pytest.raises(UserError) as raised:
        problems.raise_any()
    lines = str(raised.value).splitlines()
    assert lines[: min(bad, 10)] == [f"a.csv, row {row}: wrong." for row in range(1, min(bad, 10) + 1)]
    assert len(lines) == min(bad, 10) + (rest is not None)
    if rest:
        assert rest in lines[-1]


def test_without_problems_nothing_is_raised() -> None:
    Problems().raise_any()


def test_rows_are_taken_in_the_order_asked_for() -> None:
    rows = Rows(["1", "2", "3"], ["a", "b", "c"], np.eye(3, dtype=np.float32), "id")
    taken = rows.take(np.array([2, 0]))
    assert (taken.ids, taken.texts, taken.id_column) == (["3", "1"], ["c", "a"], "id")
    assert taken.targets is not None
    assert taken.targets.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_no_rows_may_be_taken() -> None:
    none = Rows(["1"], ["a"], np.ones((1, 2), np.float32)).take(range(0))
    assert len(none) == 0
    assert none.targets is not None
    assert none.targets.shape == (0, 2)


def test_a_list_that_pandas_wrote_into_a_cell_is_read_as_a_list() -> None:
    assert tables.split_labels("['joy', 'anger']", ",") == ["joy", "anger"]
    assert tables.split_labels("[2, 7]", ",") == ["2", "7"]
    assert tables.split_labels("[]", ",") == []
    assert tables.split_labels("[sic], [joy]", ",") == ["[sic]", "[joy]"]
