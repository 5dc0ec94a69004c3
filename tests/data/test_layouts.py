"""Files in the layouts in which emotion data is handed around: each is read right, or refused in one sentence."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, emotions, read_csv, text_columns, write_csv, write_jsonl

from emotion_lightning.config import checks, stored_settings
from emotion_lightning.data import overlap, sources, tables
from emotion_lightning.data.formats import files
from emotion_lightning.data.kinds import is_administrative
from emotion_lightning.data.rows import WHOLE, Corpus
from emotion_lightning.errors import UserError

WORDS = ["anger", "joy", "sadness", "fear"]


def table(columns: str, count: int = 40, **cells: Any) -> list[list[Any]]:
    """A header and rows; a cell is a function of the row number, a list that is repeated, or a constant."""
    usual = {"text": lambda i: f"text {i}", "emotion": WORDS, "label": WORDS, "labels": WORDS}
    names = columns.split(",")

    def cell(name: str, i: int) -> Any:
        found = cells.get(name, usual.get(name, ""))
        return found(i) if callable(found) else found[i % len(found)] if isinstance(found, list) else found

    return [names, *([cell(name, i) for name in names] for i in range(count))]


def corpus(tmp_path: Path, rows: Sequence[Sequence[Any]], name: str = "a.csv", **settings: Any) -> Corpus:
    delimiter = "\t" if name.endswith(".tsv") else ";" if name.endswith(".txt") else ","
    path = write_csv(tmp_path / name, rows, delimiter=delimiter)
    return sources.read_corpus(data_settings(path=path, **settings))


def refusal(tmp_path: Path, rows: Sequence[Sequence[Any]], name: str = "a.csv", **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        corpus(tmp_path, rows, name, **settings)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def positives(found: Corpus, split: str = WHOLE) -> list[set[str]]:
    targets = found.splits[split].targets
    assert targets is not None
    return [{name for name, cell in zip(found.labels, row, strict=True) if cell} for row in targets]


# ---------------------------------------------------------------------- 1: columns of zeros and ones that are no labels


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ("text,emotion,is_retweet,verified", {"is_retweet": [0, 0, 1], "verified": 0}),
        ("text,id,emotion,annotator,lead_time", {"id": lambda i: i, "annotator": 1, "lead_time": 3.2}),
        ("text,emotion,n_labels", {"n_labels": 1}),
        ("text,emotion,example_very_unclear,fold", {"example_very_unclear": ["False", "True"], "fold": [0, 1]}),
        ("text,emotion,kept", {"kept": 1}),
    ],
)
def test_flags_are_no_labels_beside_a_column_of_words(
    tmp_path: Path, columns: str, cells: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        found = corpus(tmp_path, table(columns, **cells))
    assert found.labels == sorted(WORDS)
    assert positives(found)[:4] == [{word} for word in WORDS]
    assert f"{columns.rpartition(',')[2]}" in caplog.text


def test_two_readings_are_refused_with_both_settings(tmp_path: Path) -> None:
    message = refusal(tmp_path, table("text,emotion,spam", spam=[0, 1]))
    assert "data.labels_column=emotion" in message and "data.labels=[spam]" in message


def test_columns_that_say_the_same_as_a_list_are_read(tmp_path: Path) -> None:
    found = corpus(
        tmp_path,
        table("text,emotion,Joy,anger,sadness,fear", Joy=[0, 1], anger=[1, 0], sadness=[0, 0, 1], fear=[1, 1, 0]),
    )
    assert found.labels == ["Joy", "anger", "sadness", "fear"]


def test_flags_alone_are_refused_with_the_setting_that_takes_them(tmp_path: Path) -> None:
    message = refusal(tmp_path, table("text,is_angry,verified", is_angry=[0, 1], verified=[0, 0, 1]))
    assert "data.labels=[is_angry,verified]" in message
    rows = table("text,is_angry,verified", is_angry=[0, 1], verified=[0, 0, 1])
    assert corpus(tmp_path, rows, labels=["is_angry"]).labels == ["is_angry"]


def test_a_constant_column_is_a_label_if_another_split_or_a_model_says_so(tmp_path: Path) -> None:
    rare = table("text,joy,grief", joy=[0, 1], grief=0)
    path = write_csv(tmp_path / "a.csv", rare)
    test = write_csv(tmp_path / "b.csv", table("text,joy,grief", joy=[0, 1], grief=[0, 0, 1]))
    assert sources.read_corpus(data_settings(path=path)).labels == ["joy"]
    assert sources.read_corpus(data_settings(path=path), known={"grief"}).labels == ["joy", "grief"]
    assert sources.read_corpus(data_settings(train=path, test=test)).labels == ["joy", "grief"]


@pytest.mark.parametrize("name", [*WORDS, "no emotion", "nostalgia", "isolation", "love", "neutral", "hasty", "numb"])
def test_emotions_are_not_taken_for_flags(name: str) -> None:
    assert not is_administrative(name)


# ------------------------------------------------------------------------------------------------------ 2: ids from one


@pytest.mark.parametrize(
    ("ids", "names"),
    [(["1", "2", "3", "4"], [*WORDS, "neutral"]), (["1", "2", "3"], WORDS), (["1,4", "2", "3"], WORDS)],
)
def test_ids_without_a_zero_are_refused_until_it_is_said_from_where_they_count(
    tmp_path: Path, ids: list[str], names: list[str]
) -> None:
    rows = table("text,labels", labels=ids)
    assert "data.first_id=1 reads the 1 in row 1 as anger" in refusal(tmp_path, rows, labels=names)
    assert positives(corpus(tmp_path, rows, labels=names, first_id=1))[1] == {"joy"}
    if "4" not in ids[0] + ids[-1]:
        assert positives(corpus(tmp_path, rows, labels=names, first_id=0))[1] == {"sadness"}


@pytest.mark.parametrize("ids", [["0", "1", "2"], ["0,3", "1", "2"], ["3", "2", "1", "0"]])
def test_ids_with_a_zero_need_no_setting(tmp_path: Path, ids: list[str]) -> None:
    first = positives(corpus(tmp_path, table("text,labels", labels=ids), labels=WORDS))[0]
    assert first == {WORDS[int(part)] for part in ids[0].split(",")}


def test_ids_of_a_run_from_before_the_setting_count_from_zero(tmp_path: Path) -> None:
    old = {"labels_column": None, "test_share": 0.1, "path": "a.csv"}
    added = stored_settings.with_added(old)
    assert (added["first_id"], added["split_column"], added["header"]) == (0, "none", "first")
    assert stored_settings.with_added(added | {"first_id": 1})["first_id"] == 1
    assert stored_settings.with_added({"dir": "x"}) == {"dir": "x"}


# -------------------------------------------------------------------------------------------------- 3: column of splits


@pytest.mark.parametrize(
    ("name", "values", "sizes"),
    [
        ("split", ["train", "train", "val", "test"], [20, 10, 10]),
        ("Partition", ["training", "dev", "train", "train"], [30, 10]),
        ("fold", ["TRAIN", "TRAIN", "TRAIN", "TEST"], [30, 10]),
    ],
)
@pytest.mark.parametrize("labels", ["emotion", "joy,anger"])
def test_a_column_of_splits_is_used_aloud(
    tmp_path: Path, name: str, values: list[str], sizes: list[int], labels: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table(f"text,{labels},{name}", joy=[0, 1, 1], anger=[1, 0], **{name: values})
    with caplog.at_level("INFO"):
        found = corpus(tmp_path, rows)
    assert [len(part) for part in found.splits.values()] == sizes
    assert f"Splits as the column {name} says" in caplog.text
    assert found.splits["train"].texts[0] == "text 0"
    assert list(corpus(tmp_path, rows, split_column="none").splits) == [WHOLE]


def test_a_column_of_other_folds_is_named_as_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = corpus(tmp_path, table("text,emotion,fold", fold=[0, 1, 2, 3]))
    assert list(found.splits) == [WHOLE]
    assert "column fold: left aside, because its values do not name train" in caplog.text


def test_a_named_column_of_splits_is_checked(tmp_path: Path) -> None:
    rows = table("text,emotion,use", use=["train", "test", "train", "oops"])
    assert "column use: 'oops' names no split" in refusal(tmp_path, rows, split_column="use")
    assert "did you mean data.split_column=use?" in refusal(tmp_path, rows, split_column="uses")


def test_held_back_labels_of_a_column_of_splits_are_no_error(tmp_path: Path) -> None:
    rows = table("text,joy,split", joy=lambda i: "" if i % 4 == 3 else i % 2, split=["train", "train", "val", "test"])
    found = corpus(tmp_path, rows)
    assert found.splits["test"].targets is None and len(found.splits["test"]) == 10


def test_validation_that_a_column_of_splits_lacks_is_the_same_again(tmp_path: Path) -> None:
    from emotion_lightning.data import splitting

    path = write_csv(tmp_path / "a.csv", table("text,emotion,split", split=["train", "train", "test"]))
    settings = data_settings(path=path)
    first = sources.split_corpus(sources.read_corpus(settings), settings)
    splitting.write_splits(tmp_path / "splits.csv", first)
    settled = sources.settled(settings, first)
    assert settled.split_column == "split"
    again = data_settings(path=path, split_column="split", splits=tmp_path / "splits.csv", split_seed=5)
    found = sources.split_corpus(sources.read_corpus(again), again)
    assert {name: rows.ids for name, rows in found.splits.items()} == {n: rows.ids for n, rows in first.splits.items()}


# ------------------------------------------------------------------------------------------------ 4: rows of annotators


def rated(columns: str = "text,id,rater_id,anger,joy") -> list[list[Any]]:
    """Three annotators for each of ten texts; of anger two say 1 for even texts, of joy one for odd texts."""
    cells = {
        "text": lambda i: f"text {i // 3}", "id": lambda i: f"e{i // 3}", "rater_id": lambda i: i % 3 + 1,
        "anger": lambda i: int(i // 3 % 2 == 0 and i % 3 < 2), "joy": lambda i: int(i // 3 % 2 == 1 and i % 3 == 0),
    }  # fmt: skip
    return table(columns, 30, **cells)


@pytest.mark.parametrize(
    "columns", ["text,id,rater_id,anger,joy", "text,annotator,anger,joy", "text,worker_id,anger,joy"]
)
def test_rows_of_annotators_are_refused_in_a_sentence_and_joined_on_request(tmp_path: Path, columns: str) -> None:
    name = columns.split(",")[-3]
    rows = [[name if cell == "rater_id" else cell for cell in row] for row in rated(columns.replace(name, "rater_id"))]
    assert "data.aggregate=majority makes one row of each text" in refusal(tmp_path, rows)
    found = corpus(tmp_path, rows, aggregate="majority")
    assert found.splits[WHOLE].texts == [f"text {i}" for i in range(10)]
    assert positives(found) == [{"anger"} if i % 2 == 0 else set() for i in range(10)]
    assert "30 rows of annotators were joined to 10" in found.decisions.notes[0]


def test_rows_of_annotators_that_are_wanted_one_by_one_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"id_column": "row"}
    assert len(corpus(tmp_path, rated(), **settings).splits[WHOLE]) == 30
    assert "each text stands in several rows (30 rows of 10 texts)" in caplog.text


@pytest.mark.parametrize("answers", [[0, 1, "", 1, 0], [0, 0, 3, 1], [0, 1]])
@pytest.mark.parametrize("name", ["annotator_{}", "Annotator-{}", "rater{}"])
def test_columns_of_answers_are_not_taken_for_other_columns(tmp_path: Path, name: str, answers: list[Any]) -> None:
    """BRIGHTER's individual labels have a row for each text and emotion: all emotions of all texts were labels."""
    names = [name.format(number) for number in (1, 2, 10)]
    columns = ",".join(["text_id,text,emotion,majority_vote", *names])
    rows = table(columns, text_id=lambda i: i, text=lambda i: f"t {i // 4}",
                 majority_vote=[0, 1, 1], **dict.fromkeys(names, answers))  # fmt: skip
    assert "hold what each annotator answered" in refusal(tmp_path, rows)


def test_a_file_without_labels_is_told_what_it_can_be(tmp_path: Path) -> None:
    message = refusal(tmp_path, table("text,joy,anger", joy="", anger=""))
    assert "joy, anger are empty in every row: a file without labels can be a test split" in message


@pytest.mark.parametrize("word", ["NONE", "n/a"])
def test_many_cells_of_an_unknown_word_become_one_sentence(tmp_path: Path, word: str) -> None:
    train = write_csv(tmp_path / "train.csv", table("text,joy,anger", joy=[0, 1], anger=[1, 0]))
    test = write_csv(tmp_path / "b.csv", table("text,joy,anger", joy=word, anger=word))
    with pytest.raises(UserError) as raised:
        sources.read_corpus(data_settings(train=train, test=test))
    assert f"b.csv: 80 cells of joy, anger are neither 0 nor 1 ('{word}' in row 1, column anger" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_ids_beside_different_texts_are_not_joined(tmp_path: Path) -> None:
    rows = table("id,text,joy", id=lambda i: i % 5, joy=[0, 1])
    assert "has the id" not in refusal(tmp_path, rows) and "35 rows have the id of an earlier row" in refusal(
        tmp_path, rows
    )
    assert "stands beside different texts" in refusal(tmp_path, rows, aggregate="majority")


@pytest.mark.parametrize("folds", [{}, {"folds": 3, "fold": 2}])
def test_equal_texts_stay_in_one_split(tmp_path: Path, folds: dict[str, int]) -> None:
    rows = table(
        "text,joy,anger", 200, text=lambda i: f"{'T' if i % 3 else 't'}ext  {i % 70}", joy=[0, 1], anger=[1, 0, 0]
    )
    settings = data_settings(path=write_csv(tmp_path / "a.csv", rows), **folds)
    found = sources.split_corpus(sources.read_corpus(settings), settings)
    assert [shared.count for shared in overlap.find_overlap(found, clean=[])] == [0, 0, 0]
    assert sum(map(len, found.splits.values())) == 200
    assert abs(len(found.splits["test"]) - 20) <= 3


def test_splits_of_texts_that_do_not_repeat_are_those_of_earlier_versions(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(50))
    settings = data_settings(path=path)
    found = sources.split_corpus(sources.read_corpus(settings), settings)
    assert {name: rows.ids for name, rows in found.splits.items() if name != "train"} == EARLIER


EARLIER = {"validation": ["5", "21", "37", "46", "50"], "test": ["1", "24", "40", "47", "48"]}
"""Splits by the version before equal texts were kept together."""


# ------------------------------------------------------------------------------------ 5 and 6: tables in txt, no header


@pytest.mark.parametrize("delimiter", ["\t", ";", ",", "|"])
def test_a_table_in_a_text_file_is_read_as_the_same_bytes_named_tsv(tmp_path: Path, delimiter: str) -> None:
    path = write_csv(
        tmp_path / "a.txt",
        table("ID,Tweet,anger,joy", ID=lambda i: i, Tweet=lambda i: f"queue {i}", anger=[0, 1], joy=[1, 0]),
        delimiter=delimiter,
    )
    found = sources.read_corpus(data_settings(path=path))
    assert (found.labels, found.splits[WHOLE].id_column) == (["anger", "joy"], "ID")
    assert found.decisions.files[0]["delimiter"] == {"\t": "tab"}.get(delimiter, delimiter)


@pytest.mark.parametrize("lines", ["so happy\nso sad\n", "a; b\nc, d, e\nf\n" * 9, "one;two\nthree;four\n"])
def test_texts_are_no_table(tmp_path: Path, lines: str) -> None:
    (tmp_path / "a.txt").write_text(lines)
    with pytest.raises(UserError, match="has texts only"):
        sources.read_corpus(data_settings(path=tmp_path / "a.txt"))


HEADLESS: list[tuple[str, str, dict[str, Any], str]] = [
    ("a.csv", "t,emotion", {}, "[text,label]"),
    ("a.txt", "t,emotion", {}, "[text,label]"),
    ("a.tsv", "t,number,key", {"number": [0, 1, 2], "key": lambda i: f"ed{i}"}, "[text,label,id]"),
    ("a.csv", "emotion,t,none", {}, "[label,text,column_3]"),
    (
        "a.csv", "key,t,emotion,share", {"key": lambda i: 10000 + i, "share": lambda i: f"0.{i + 100}"},
        "[id,text,label,column_4]",
    ),
    ("a.csv", "t,joy,anger", {"joy": [1, 0], "anger": [0, 1]}, "[text,label_2,label_3]"),
    ("a.tsv", "t,ids", {"ids": ["8, 1", "2", "3, 5, 1"]}, "[text,label]"),
    ("a.tsv", "t,ids", {"ids": ["1", "2", "3, 5, 1"]}, "[text,label]"),
    ("a.tsv", "key,t,file", {"key": [1620, 1620, 7], "file": "fi/1965/59037/7041403.xml.gz"}, "[label,text,column_3]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "columns", "cells", "named"), HEADLESS)
def test_a_first_line_of_data_is_refused_with_the_setting(
    tmp_path: Path, name: str, columns: str, cells: dict[str, Any], named: str
) -> None:
    rows = table(columns, t=lambda i: f"who broke my mug number {i}", **cells)[1:]
    message = refusal(tmp_path, rows, name)
    assert "its first line looks like data" in message and f"data.header=none data.columns={named}" in message


def test_a_text_that_is_called_text_makes_no_header(tmp_path: Path) -> None:
    rows = [["anger", "text"], *table("emotion,text")[1:]]
    assert "its first line looks like data" in refusal(tmp_path, rows)
    found = corpus(tmp_path, rows, header="none", columns=["emotion", "text"])
    assert (len(found.splits[WHOLE]), found.splits[WHOLE].texts[0], positives(found)[0]) == (41, "text", {"anger"})


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ("text,joy,anger", {"joy": ["joy", ""], "anger": ["", "anger"]}),
        ("0,1,text", {"0": [1, 0], "1": [0, 1]}),
        ("text,2023,2024", {"2023": ["yes", "no"], "2024": ["no", "yes"]}),
        (",text,0,1", {"": lambda i: i, "0": [1, 0], "1": [0, 1]}),
        ("text,emotion", {"text": ["text", "emotion", "other"]}),
    ],
)
def test_a_header_is_not_taken_for_data(tmp_path: Path, columns: str, cells: dict[str, Any]) -> None:
    path = write_csv(tmp_path / "a.csv", table(columns, **cells))
    assert files.source(path, header=None).about["header"] == "first line"


def test_a_file_without_names_gets_numbers_and_a_wrong_number_of_names_is_refused(tmp_path: Path) -> None:
    rows = table("text,emotion")[1:]
    found = corpus(tmp_path, rows, header="none", text="column_1", labels_column="column_2")
    assert positives(found)[0] == {"anger"}
    assert "has 2 columns in its first line, but" in refusal(tmp_path, rows, header="none", columns=["text"])


def test_predict_reads_tables_in_text_files_and_refuses_data_as_header(tmp_path: Path) -> None:
    settings = text_columns()
    path = write_csv(tmp_path / "a.txt", table("ID,Tweet", ID=lambda i: i, Tweet="so glad"), delimiter="\t")
    assert [*tables.read_texts(files.source(path, header=None), settings)][1] == ("1", "so glad")
    (tmp_path / "b.txt").write_text("a\tb\n" * 9)
    assert [*tables.read_texts(files.source(tmp_path / "b.txt", header=None), settings)][0][1] == "a\tb"
    headless = write_csv(tmp_path / "c.csv", table("text,emotion")[1:])
    with pytest.raises(UserError, match="first line looks like data"):
        files.source(headless, header=None)


def test_names_of_columns_need_a_file_without_a_header() -> None:
    for chosen, message in (
        ({"columns": ["text", "label"]}, "add data.header=none"),
        ({"columns": ["text", "text"], "header": "none"}, "each column of the file once"),
        ({"true_values": ["X"], "false_values": ["x", "o"]}, "both contain x"),
        ({"split_column": "split", "path": None, "train": "a.csv"}, "leave one out"),
    ):
        settings = type("Settings", (), {"data": data_settings(**{"path": "a.csv", **chosen})})
        with pytest.raises(UserError, match=message):
            checks.check_data(settings, "train")


# ------------------------------------------------------------------------------------------ 7: other cells than 0 and 1


@pytest.mark.parametrize(
    ("joy", "anger", "settings", "sentence"),
    [
        (["1", "", ""], ["", "1", ""], {"missing": "zero"}, "80 cells are empty|5. cells are empty"),
        (["x", ""], ["", "x"], {"true_values": ["x"], "missing": "zero"}, r"40 cells and 40 empty ones .*'x' in row 1"),
        (["yes", "no"], ["No", "Yes"], {"true_values": ["yes"], "false_values": ["no"]}, "'yes' in row 1, column joy"),
        (["+", "-"], ["-", "+"], {"true_values": ["+"], "false_values": ["-"]}, "80 cells"),
        (["ja", "nein"], ["nein", "ja"], {"true_values": ["ja"], "false_values": ["nein"]}, "80 cells"),
        (["joy", ""], ["", "anger"], {"true_values": ["anger", "joy"], "missing": "zero"}, "40 cells and 40 empty"),
        (["3", "0"], ["0", "2"], {"present_from": 1}, "intensities or counts: 40 cells"),
        (["1", "0", "2"], ["0", "3", "0"], {"present_from": 1}, "intensities or counts: 26 cells"),
        (["0.6", "0.0"], ["0.0", "1.0"], {"present_from": 0.5}, "shares of annotators: 20 cells"),
    ],
)  # fmt: skip
def test_other_cells_become_one_sentence_with_the_setting(
    tmp_path: Path, joy: list[str], anger: list[str], settings: dict[str, Any], sentence: str
) -> None:
    rows = table("text,joy,anger", joy=joy, anger=anger)
    for chosen in ({}, {"labels": ["joy", "anger"]}):
        if "labels" in chosen and joy == ["joy", ""]:
            continue
        message = refusal(tmp_path, rows, **chosen)
        assert re.search(sentence, message), message
        for name, value in settings.items():
            shown = f"[{','.join(value)}]" if isinstance(value, list) else value
            assert f"data.{name}={shown}" in message
        if settings.get("missing") and "true_values" not in settings:
            break  # named columns: the same sentence
    found = corpus(tmp_path, rows, **settings)
    assert found.labels == ["joy", "anger"]
    blank = {"", "0", "0.0", "no", "No", "-", "nein"}
    assert positives(found)[:2] == [
        {name for name, cells in (("joy", joy), ("anger", anger)) if cells[i % len(cells)] not in blank} for i in (0, 1)
    ]


def test_a_few_wrong_cells_keep_their_place(tmp_path: Path) -> None:
    rows = table("text,joy,anger", joy=lambda i: "2" if i == 7 else i % 2, anger=[1, 0, 0])
    assert "row 8, column joy: '2' where 0 or 1 is due" in refusal(tmp_path, rows)


def test_a_word_that_no_setting_names_is_still_reported(tmp_path: Path) -> None:
    rows = table("text,joy,anger", joy=lambda i: "maybe" if i == 7 else ["yes", "no"][i % 2], anger=["no", "yes", "no"])
    settings = {"true_values": ["yes"], "false_values": ["no"]}
    assert "row 8, column joy: 'maybe' where 0 or 1 is due" in refusal(tmp_path, rows, **settings)


# ---------------------------------------------------------------------------------------------------- 8: case of labels


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (table("text,emotion", emotion=["anger", "ANGER", "Anger", "joy"]), "ANGER and Anger and anger"),
        (table("text,labels", labels=["joy|anger", "joy|Joy"]), "Joy and joy"),
        (table("text,Joy,joy", Joy=[0, 1], joy=[1, 0]), "Joy and joy"),
        (table("text,emotion", emotion=["no emotion", "noemotion"]), "no emotion and noemotion"),
    ],
)
def test_labels_that_differ_in_case_only_are_told(
    tmp_path: Path, rows: list[list[Any]], shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = corpus(tmp_path, rows)
    assert f"differ only in case or spaces and are learned as different labels ({shown})" in caplog.text
    assert shown in found.decisions.notes[0]


# ----------------------------------------------------------------------------- 9: other formats, folders, several files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "xl/workbook.xml", "is an Excel file; name it .xlsx"),
        ("a.csv", "train.csv", "is a zip file; name it .zip"),
        ("a.pkl", b"\x80\x04\x95abc", "is a pickle, which may run any code"),
        ("a.xls", b"\xd0\xcf\x11\xe0abcd", "is an old Excel file"),
        ("a.csv", b"SQLite format 3\0", "is an SQLite database; name it .sqlite"),
    ],
)
def test_other_formats_are_named_by_their_content(tmp_path: Path, name: str, content: Any, message: str) -> None:
    import zipfile

    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr(content, "x")
    with pytest.raises(UserError, match=message):
        sources.read_corpus(data_settings(path=path))


def test_predict_of_a_folder_of_splits_is_told_to_give_a_file(tmp_path: Path) -> None:
    for name in ("train.csv", "my_dev.csv", "test-gold.csv"):
        write_csv(tmp_path / name, emotions(4))
    with pytest.raises(
        UserError, match=r"is a folder; give a file in it\. It has my_dev\.csv, test-gold\.csv, train\.csv"
    ):
        files.source(tmp_path)


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", [["id", "text", "mood"], ["1", "x", "joy"], ["2", "y", "joy"]])
    b = write_csv(tmp_path / "b, c.csv", [["mood", "text", "id"], ["anger", "z", "3"]])
    found = sources.read_corpus(data_settings(train=f"[{a},'{b}']", labels_column="mood"))
    assert (found.labels, found.splits["train"].ids) == (["anger", "joy"], ["1", "2", "3"])
    assert positives(found, "train") == [{"joy"}, {"joy"}, {"anger"}]
    assert list(found.hashes) == ["train 1", "train 2"]
    from emotion_lightning.runs import run_folder

    stored = run_folder.absolute({"train": f"[{a},'{b}']", "path": None})["train"]
    assert run_folder.parse_list(stored) == [str(a), str(b)]


def test_a_wrong_cell_of_several_files_names_its_file(tmp_path: Path) -> None:
    a, b = write_csv(tmp_path / "a.csv", emotions(12)), write_csv(tmp_path / "b.csv", [*emotions(12), ["t", "5", "0"]])
    with pytest.raises(UserError, match=r"b\.csv, row 13, column joy: '5' where 0 or 1 is due"):
        sources.read_corpus(data_settings(path=f"[{a},{b}]"))


@pytest.mark.parametrize("answers", [["accept", "reject"], ["accept", "ignore", "accept"], ["accept"]])
def test_rows_that_an_annotator_of_prodigy_did_not_accept_are_left_out(tmp_path: Path, answers: list[str]) -> None:
    records = [
        {
            "text": f"t{i}", "_task_hash": i, "options": [{"id": "joy"}], "accept": [WORDS[i % 2]],
            "answer": answers[i % len(answers)],
        }
        for i in range(12)
    ]  # fmt: skip
    found = sources.read_corpus(data_settings(path=write_jsonl(tmp_path / "a.jsonl", records)))
    kept = [record["text"] for record in records if record["answer"] == "accept"]
    assert found.splits[WHOLE].texts == kept
    assert found.decisions.files[0].get("left_out", {}) == (
        {f"answer {answers[1]}": 12 - len(kept)} if len(answers) > 1 else {}
    )


# --------------------------------------------------------------------------------------- 10: unlabelled test, encodings


@pytest.mark.parametrize(
    ("encoding", "text", "wrong"),
    [
        ("cp1250", "To było wspaniałe, dziękuję bardzo", "cp1252 'To by³o"),
        ("cp1254", "Bugün çok mutluyum, güneş ışığı", "cp1252 'Bugün çok mutluyum, güneþ"),
        ("cp1252", "Très déçu de ça", "cp1250 'Trčs"),
        ("cp1251", "Сегодня я очень рад", "koi8_r"),
        ("cp932", "今日はとても嬉しい", "gb18030"),
    ],
)
def test_encodings_are_offered_with_the_line_as_each_would_read(
    tmp_path: Path, encoding: str, text: str, wrong: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("".join(["text,joy\n", *(f'"{text} {i}",{i % 2}\n' for i in range(12))]).encode(encoding))
    with pytest.raises(UserError) as raised:
        sources.read_corpus(data_settings(path=path))
    message = str(raised.value)
    assert re.search(r"is not UTF-8 \(row 1, line 2, column text: byte 0x", message)
    assert f"{encoding} '{text[:10]}" in message.replace('"', "'") or f"{encoding} '\"{text[:9]}" in message
    assert wrong.partition(" ")[0] in message


def test_texts_of_a_test_split_without_labels_are_not_compared_by_labels(tmp_path: Path, caplog: Any) -> None:
    train = write_csv(tmp_path / "a.csv", emotions(40))
    test = write_csv(
        tmp_path / "b.csv", [["text", "joy", "anger"], ["text 1", "", ""], ["new", "", ""], ["new", "", ""]]
    )
    settings = data_settings(train=train, test=test)
    found = sources.split_corpus(sources.read_corpus(settings), settings)
    assert "Texts of test that stand in " in caplog.text and "same labels" not in caplog.text
    assert overlap.duplicates(found.splits["test"], clean=[]) == (1, None)
    shared = {o.same_labels for o in overlap.find_overlap(found, clean=[]) if o.second == "test"}
    assert shared == {None}


# ------------------------------------------------------------------------------------------------------------ data.json


def test_what_was_decided_stands_in_one_place(tmp_path: Path) -> None:
    rows = table("nr,text,emotion,split,note", nr=lambda i: i, split=["train", "train", "val", "test"], note="-")
    found = corpus(tmp_path, rows, "a.tsv")
    plain = found.plain_decisions()
    assert plain["files"][0] == {
        "split": "train", "path": str(tmp_path / "a.tsv"), "format": "tsv", "encoding": "utf-8", "delimiter": "tab",
        "quotes": "cells may be quoted", "header": "first line", "rows": 20,
    }  # fmt: skip
    assert (plain["text_column"], plain["id_column"]) == ("text", None)
    assert plain["labels"] == {"names": sorted(WORDS), "from": "column emotion, names separated by ','"}
    assert plain["splits"] == {
        "rows": {"train": 20, "validation": 10, "test": 10}, "from": "column split", "column": "split",
    }  # fmt: skip
    assert plain["columns_left_aside"] == ["nr", "note"]
    shown = dict(found.decisions.lines())
    assert shown["splits"] == "column split" and "delimiter tab" in shown["file (test)"]


def test_a_run_holds_data_json_and_is_scored_on_its_column_of_splits(run: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", table("text,emotion,split", 60, split=["train", "train", "test"]))
    assert (
        run("baseline", "data=file", "data.path=a.csv", "word_ngrams=[1,1]", "char_ngrams=null", "hydra.run.dir=out")
        == 0
    )
    written = json.loads((tmp_path / "out" / "data.json").read_text())
    assert written["splits"]["column"] == "split" and written["splits"]["rows"]["test"] == 20
    assert "data.json" in (tmp_path / "out" / "SHA256SUMS").read_text()
    first = read_csv(tmp_path / "out" / "predictions" / "validation.csv")
    assert run("evaluate", "run=out", "split=validation", "hydra.run.dir=again") == 0
    again = read_csv(tmp_path / "again" / "predictions" / "validation.csv")
    assert [row["row"] for row in again] == [row["row"] for row in first]
    assert np.allclose([float(row["p_joy"]) for row in again], [float(row["p_joy"]) for row in first], atol=1e-6)
