import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, write_jsonl
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from emotion_lightning.config import EmptyTexts
from emotion_lightning.data import tables
from emotion_lightning.data.columns import Columns, find_columns
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import split_labels
from emotion_lightning.data.rows import Chunk, Problems, Rows, Source
from emotion_lightning.data.survey import survey
from emotion_lightning.errors import UserError

FILE = Path("a.csv")


def read(header: list[str], *cells: list[Any], **settings: Any) -> Rows:
    """Rows out of cells, or the UserError that names what is wrong with them."""
    source = of(header, *cells)
    columns = columns_of(source, **settings)
    problems = Problems()
    found = tables.read_rows(source, columns, problems)
    problems.raise_any()
    return found


def of(header: list[str], *cells: list[Any]) -> Source:
    """A source of these cells; a row may lack the last of them, as a jsonl row may lack a key."""
    columns = {name: [row[i] if i < len(row) else None for row in cells] for i, name in enumerate(header)}
    return Source(FILE, lambda _: iter([Chunk(range(1, len(cells) + 1), columns)]))


def columns_of(source: Source, **settings: Any) -> Columns:
    chosen = data_settings(path=FILE, **settings)
    return find_columns(source, chosen, survey(source, Problems(), labels_column=chosen.labels_column))


def labels_of(header: list[str], *cells: list[Any]) -> list[str]:
    return columns_of(of(header, *cells)).labels


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
    cells = [[str(i), f"t{i}", str(i % 2), str(i % 5), "web", "", "0.5"] for i in range(10)]
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
    cells = [[f"t{i}", str(i % 2), str(i % 4 // 2)] for i in range(rows)]
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
        read(["text", "joy", "anger"], ["a", 1], *(["b", 0, i % 2] for i in range(9)))


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
            labels_column="mood", labels=["joy", "anger", "love"], separator=",",
        )  # fmt: skip


def test_ids_without_names_are_labels_in_the_order_of_their_numbers() -> None:
    assert columns_of(of(["text", "mood"], ["a", "10,2"], ["b", "9"]), labels_column="mood").labels == ["2", "9", "10"]


def test_an_id_that_train_does_not_have_is_no_position_among_those_it_has() -> None:
    columns = columns_of(of(["text", "mood"], ["a", "10,20,30"]), labels_column="mood")
    problems = Problems()
    tables.read_rows(of(["text", "mood"], ["b", "1"]), columns, problems)
    with pytest.raises(UserError, match=r"a\.csv, row 1, column mood: the label '1' is not one of 10, 20, 30"):
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
    with pytest.raises(
        UserError, match="column id: 1 row has the id of an earlier row .7 stands in row 2 and in row 3"
    ):
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
        problems.add(FILE, f"wrong in {'i' * row} ways.", row=row)
    with pytest.raises(UserError) as raised:
        problems.raise_any()
    lines = str(raised.value).splitlines()
    shown = [f"a.csv, row {row}: wrong in {'i' * row} ways." for row in range(1, min(bad, 10) + 1)]
    assert lines[: min(bad, 10)] == shown
    assert len(lines) == min(bad, 10) + (rest is not None)
    if rest:
        assert rest in lines[-1]


@pytest.mark.parametrize("bad", [4, 9, 1234])
def test_problems_of_one_kind_are_one_sentence_with_a_count_and_three_examples(bad: int) -> None:
    problems = Problems()
    for row in range(1, bad + 1):
        problems.add(FILE, f"'{row}' where 0 or 1 is due.", row=row, column="joy")
        problems.add(FILE, "no text.", row=row)
    problems.add(Path("b.csv"), "'7' where 0 or 1 is due.", row=5, column="joy")
    with pytest.raises(UserError) as raised:
        problems.raise_any()
    assert str(raised.value).splitlines() == [
        f"a.csv: {bad:,} problems of one kind: row 1, column joy: '1' where 0 or 1 is due; row 2, column joy: '2' "
        "where 0 or 1 is due; row 3, column joy: '3' where 0 or 1 is due; …",
        f"a.csv: {bad:,} problems of one kind (row 1; row 2; row 3; …): no text.",
        "b.csv, row 5, column joy: '7' where 0 or 1 is due.",
    ]


def test_three_problems_of_one_kind_are_a_line_each() -> None:
    problems = Problems()
    for row in (7, 3, 5):
        problems.add(FILE, "wrong.", row=row)
    with pytest.raises(UserError) as raised:
        problems.raise_any()
    assert str(raised.value).splitlines() == [f"a.csv, row {row}: wrong." for row in (3, 5, 7)]


def test_without_problems_nothing_is_raised() -> None:
    problems = Problems()
    problems.raise_any()
    problems.add(Path("a.csv"), "wrong")
    with pytest.raises(UserError, match="a.csv: wrong"):
        problems.raise_any()


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
    assert split_labels("['joy', 'anger']", ",") == ["joy", "anger"]
    assert split_labels("[2, 7]", ",") == ["2", "7"]
    assert split_labels("[]", ",") == []
    assert split_labels("[sic], [joy]", ",") == ["[sic]", "[joy]"]


# ------------------------------------------------------------------------------------- what is known without settings


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["joy|love", "anger", "joy"], ["anger", "joy", "love"]),
        (["joy; love", "anger", ""], ["anger", "joy", "love"]),
        (["joy, love", "anger", "love"], ["anger", "joy", "love"]),
        (["joy, at last|love", "anger", "love"], ["anger", "joy, at last", "love"]),
        (["2,7", "10", ""], ["2", "7", "10"]),
        (["joy", "anger", "love"], ["anger", "joy", "love"]),
        (["['joy', 'love']", "['anger']", "[]"], ["anger", "joy", "love"]),
        ([["joy", "love"], ["anger"], []], ["anger", "joy", "love"]),
        ([[2, 7], [10], None], ["2", "7", "10"]),
    ],
)
@pytest.mark.parametrize("name", ["labels", "Label", "emotions", "emotion"])
def test_a_column_that_lists_labels_is_known_by_its_usual_names(name: str, cells: list[Any], labels: list[str]) -> None:
    rows = read(["text", name], *([f"t{i}", cell] for i, cell in enumerate(cells)))
    assert rows.targets is not None
    assert labels_of(["text", name], *([f"t{i}", cell] for i, cell in enumerate(cells))) == labels
    assert rows.targets.sum(axis=0).tolist() == [sum(label in str(cell) for cell in cells) for label in labels]


@pytest.mark.parametrize(
    "cells",
    [
        [[0, 1, 1], [1, 0, 0]],
        ["0,1,1", "1,0,0"],
        ["[0, 1, 1]", "[1. 0. 0.]"],
        [[False, True, True], [True, False, False]],
    ],
)
def test_lists_of_zeros_and_ones_are_read_as_such(cells: list[Any]) -> None:
    rows = read(["text", "labels"], ["a", cells[0]], ["b", cells[1]], labels=["joy", "anger", "love"])
    assert rows.targets is not None
    assert rows.targets.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_lists_of_two_zeros_and_ones_are_no_ids() -> None:
    rows = read(["text", "labels"], ["a", [0, 1]], ["b", [1, 0]], labels=["joy", "anger"])
    assert rows.targets is not None
    assert rows.targets.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['joy' 'love']", ["joy", "love"]), ("['joy'\n 'love']", ["joy", "love"]), ("[3 10]", ["3", "10"]),
        ("('joy', 'love')", ["joy", "love"]), ("{'love', 'joy'}", ["joy", "love"]),
        ('["joy", "love"]', ["joy", "love"]),
        ("[joy, love]", ["joy", "love"]), ("nan", []), ("NaN", []), ([], []), ("['joy']", ["joy"]), ("[]", []),
        ("don't know|joy (mild)", ["don't know", "joy (mild)"]),
    ],
)  # fmt: skip
def test_printed_lists_are_taken_apart_as_their_writer_meant(cell: Any, labels: list[str]) -> None:
    assert split_labels(cell, "|") == labels


def test_rows_are_counted_where_that_is_asked_for() -> None:
    rows = read(["id", "text", "joy"], ["7", "a", 1], ["7", "b", 0], id_column="row")
    assert (rows.ids, rows.id_column) == (["1", "2"], "row")


@pytest.mark.parametrize("name", ["Unnamed: 0", "__index_level_0__"])
def test_row_numbers_of_pandas_are_no_label(name: str) -> None:
    assert labels_of([name, "text", "joy"], [0, "a", 1], [1, "b", 0]) == ["joy"]


def test_a_column_that_is_nearly_a_label_is_told_aloud(caplog: pytest.LogCaptureFixture) -> None:
    cells = [[f"t{i}", str(i % 2), "" if i % 3 == 0 else "1"] for i in range(12)]
    assert labels_of(["text", "joy", "anger"], *cells) == ["joy"]
    assert "column anger: 67 % of the cells are 0 or 1" in caplog.text and "data.labels" in caplog.text


def test_zeros_behind_the_point_are_read() -> None:
    rows = read(["text", "joy"], ["a", "1.00"], ["b", "0.000"])
    assert rows.targets is not None
    assert rows.targets.ravel().tolist() == [1, 0]


def test_a_label_column_of_zeros_and_ones_is_one_label() -> None:
    assert labels_of(["text", "label"], ["a", "1"], ["b", "0"]) == ["label"]


def test_names_for_ids_are_taken_beside_a_column_with_a_usual_name() -> None:
    rows = read(["text", "labels"], ["a", "0,2"], ["b", "1"], labels=["joy", "anger", "love"])
    assert rows.targets is not None
    assert rows.targets.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_columns_of_zeros_and_ones_are_preferred_to_one_that_lists_the_same(caplog: pytest.LogCaptureFixture) -> None:
    header = ["text", "emotions", "joy", "anger"]
    with caplog.at_level("INFO"):
        assert labels_of(header, ["a", "joy|anger", "1", "1"], ["b", "anger", "0", "1"]) == ["joy", "anger"]
    assert "Columns of a.csv left aside: emotions." in caplog.text


def test_a_separator_that_is_named_is_the_only_one() -> None:
    assert columns_of(of(["text", "mood"], ["a", "x|y,z"]), labels_column="mood", separator=",").labels == ["x|y", "z"]


def test_texts_are_no_labels_column_whatever_its_name() -> None:
    header, cells = ["text", "label"], [["a", "x" * 30], ["b", "1"], *(["c", "0"] for _ in range(8))]
    with pytest.raises(UserError, match="row 1, column label: 'x{30}' where 0 or 1 is due"):
        read(header, *cells)


# ---------------------------------------------------------------------------------------------------------- empty texts


@pytest.mark.parametrize(("choice", "texts"), [("drop", ["a", "d"]), ("keep", ["a", "", " ", "d"])])
def test_rows_without_a_text_are_dropped_or_kept_aloud(
    choice: str, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = of(["id", "text", "joy"], ["1", "a", 1], ["2", None, 0], ["3", " ", 0], ["4", "d", 1])
    rows = tables.read_rows(source, columns_of(source), Problems(), empty_texts=EmptyTexts(choice))
    assert rows.texts == texts
    assert rows.ids == (["1", "4"] if choice == "drop" else ["1", "2", "3", "4"])
    assert rows.targets is not None
    assert rows.targets.ravel().tolist() == ([1, 1] if choice == "drop" else [1, 0, 0, 1])
    assert re.search(rf"rows without a text {'left out' if choice == 'drop' else 'kept'}: 2\.", caplog.text)


def test_of_a_part_of_the_rows_the_others_are_checked_all_the_same() -> None:
    source = of(["text", "joy"], *([f"t{i}", i % 2] for i in range(9)), ["t9", 2])
    problems = Problems()
    assert len(tables.read_rows(source, columns_of(source), problems, most=3)) == 3
    with pytest.raises(UserError, match="row 10, column joy"):
        problems.raise_any()


# ------------------------------------------------------------------------------------------- any table comes back as is

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
TABLES = st.lists(
    st.tuples(WORDS.filter(lambda text: text.strip()), st.booleans(), st.booleans()), min_size=1, max_size=8
)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "jsonl", "jsonl.gz", "json", "parquet", "arrow", "feather"])
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cells=TABLES, truth=st.booleans())
def test_any_table_is_read_back_unchanged(tmp_path: Path, ending: str, cells: list[Any], truth: bool) -> None:
    path = write_table(tmp_path / f"a.{ending}", cells, truth=truth)
    columns = Columns("text", "id", ["joy", "anger"], None, "")
    problems = Problems()
    found = tables.read_rows(files.source(path), columns, problems)
    problems.raise_any()
    assert found.ids == [f"r{i}" for i in range(len(cells))]
    assert found.texts == [text for text, *_ in cells]
    assert found.targets is not None
    assert found.targets.tolist() == [[float(joy), float(anger)] for _, joy, anger in cells]


def write_table(path: Path, cells: list[tuple[str, bool, bool]], *, truth: bool) -> Path:
    """Texts and two labels, as 0 and 1 or as true and false, in any format."""
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    said = [tuple(value if truth else int(value) for value in values) for _, *values in cells]
    rows = [(f"r{i}", text, *values) for i, ((text, *_), values) in enumerate(zip(cells, said, strict=True))]
    names = ("id", "text", "joy", "anger")
    records = [dict(zip(names, row, strict=True)) for row in rows]
    table = pyarrow.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
    match path.suffixes[0]:
        case ".csv" | ".tsv":
            # QUOTE_ALL: the csv module leaves a lone carriage return bare where lines end in a line feed.
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "wt", encoding="utf-8", newline="") as file:
                delimiter = "\t" if ".tsv" in path.name else ","
                csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([names, *rows])
        case ".jsonl":
            write_jsonl(path, records)
        case ".json":
            path.write_text(json.dumps(records))
        case ".parquet":
            pyarrow.parquet.write_table(table, path)
        case ".feather":
            pyarrow.feather.write_feather(table, path)
        case _:
            with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    return path
