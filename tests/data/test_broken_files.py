"""Every kind of broken data gets a message that says where and what would mend it, and leaves nothing behind."""

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import data_settings, text_columns, write_parquet

from emotion_lightning.data import memory, sources, tables
from emotion_lightning.data.formats import files
from emotion_lightning.errors import UserError

HEADER = "id,text,joy,anger\n"
ROWS = [f"r{i},text {i},{i % 2},{(i // 2) % 2}\n" for i in range(24)]


def csv(*changed: str, header: str = HEADER, at: int = 3) -> bytes:
    """A sound file but for the lines that take the place of row 3."""
    return (header + "".join([*ROWS[: at - 1], *changed, *ROWS[at:]])).encode()


def jsonl(*changed: str) -> bytes:
    rows = [json.dumps({"id": f"r{i}", "text": f"text {i}", "joy": i % 2, "anger": (i // 2) % 2}) for i in range(24)]
    return "\n".join([*rows[:2], *changed, *rows[3:]]).encode() + b"\n"


def parquet(**columns: list[Any]) -> Callable[[Path], None]:
    sound = {"text": [f"text {i}" for i in range(24)], "joy": [i % 2 for i in range(24)]}
    return lambda path: None if write_parquet(path, sound | columns) else None


def cut_parquet(path: Path) -> None:
    parquet()(path)
    path.write_bytes(path.read_bytes()[:-200])


def folder(path: Path) -> None:
    path.mkdir()


def not_whole(path: Path) -> None:
    path.mkdir()
    (path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')


ONE = "a.csv"
OWN = {"train": "train.csv", "validation": "validation.csv"}

# What the files hold, the settings, and the message. One file is data.path, several are data.train and so on.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing file": ({}, {"path": ONE}, r"a\.csv does not exist"),
    "missing validation and test": (
        {"train.csv": csv()},
        {"train": "train.csv", "validation": "v.csv", "test": "t.csv"},
        r"v\.csv does not exist.*\n.*t\.csv does not exist",
    ),
    "folder for a file": ({ONE: folder}, {"path": ONE}, r"a\.csv is a folder without tables"),
    "empty file": ({ONE: b""}, {"path": ONE}, r"a\.csv is empty"),
    "blank lines only": ({ONE: b"\n\n"}, {"path": ONE}, r"a\.csv has no header"),
    "byte order mark only": ({ONE: b"\xef\xbb\xbf"}, {"path": ONE}, r"a\.csv has no header"),
    "header only": ({ONE: HEADER.encode()}, {"path": ONE}, r"a\.csv has a header and no rows"),
    "empty jsonl lines": ({"a.jsonl": b"\n\n"}, {"path": "a.jsonl"}, r"a\.jsonl has no rows"),
    "empty json array": ({"a.json": b"[]"}, {"path": "a.json"}, r"a\.json has no rows"),
    "empty parquet": ({"a.parquet": parquet(text=[], joy=[])}, {"path": "a.parquet"}, r"a\.parquet has no rows"),
    "no text column": (
        {ONE: csv(header="id,phrase,joy,anger\n")}, {"path": ONE},
        r"no column with a usual name for texts; its columns are id, phrase, joy, anger. Name one: data\.text=",
    ),
    "text column misspelt": (
        {ONE: csv()}, {"path": ONE, "text": "texts"}, r"has no column texts; .* did you mean data\.text=text\?",
    ),
    "no label column": (
        {ONE: b"text,mood,stars\n" + b"".join(f"t{i},glad,{i}\n".encode() for i in range(9))}, {"path": ONE},
        r"no column of zeros and ones to take as a label; its columns are text, mood, stars",
    ),
    "named label absent": (
        {ONE: csv()}, {"path": ONE, "labels": ["joy", "fear"]}, r"has no column fear \(data\.labels\)",
    ),
    "labels column misspelt": (
        {ONE: b"text,emotions\na,joy\nb,anger\n"}, {"path": ONE, "labels_column": "emotion"},
        r"has no column emotion; .*data\.labels_column=emotions",
    ),
    "label column missing in one split": (
        {"train.csv": csv(), "validation.csv": b"id,text,joy\na,b,1\nc,d,0\n"}, OWN,
        r"validation\.csv has no column anger, which .*train\.csv has\.",
    ),
    "text column renamed in one split": (
        {"train.csv": csv(), "validation.csv": b"id,texts,joy,anger\na,b,1,0\nc,d,0,1\n"}, OWN,
        r"validation\.csv has no column text, which .*train\.csv has; it has texts: rename it",
    ),
    "too many cells": ({ONE: csv("r3,one, two,1,0\n")}, {"path": ONE}, r"a\.csv, row 3: 5 cells under a header of 4"),
    "too few cells": ({ONE: csv("r3\n")}, {"path": ONE}, r"a\.csv, row 3: 1 cells .*line 4"),
    "quote inside a quoted cell": ({ONE: csv('r3,"hi" she said,1,0\n')}, {"path": ONE}, r"a\.csv, line 4: .*row 3"),
    "quote never closed": (
        {ONE: csv('r3,"hi,1,0\n')}, {"path": ONE}, r"a\.csv, line \d+: unexpected end of data .row 3",
    ),
    "latin-1": (
        {ONE: csv("r3,fröhlich,1,0\n").decode().encode("latin-1")}, {"path": ONE},
        r"a\.csv is not UTF-8 \(row 3, line 4, column text: byte 0xf6\)\. Line 4 .* cp1252 .*data\.encoding=cp1252",
    ),
    "latin-1 header": (
        {ONE: csv(header="id,text,glück,anger\n").decode().encode("latin-1")}, {"path": ONE}, r"not UTF-8 \(its header",
    ),
    "windows-1251": (
        {"a.tsv": "text\tjoy\nпривет, как дела\t1\nвсё плохо, очень жаль\t0\n".encode("cp1251")}, {"path": "a.tsv"},
        r"would read: cp1251 .*such as data\.encoding=cp1251",
    ),
    "UTF-16": ({ONE: csv().decode().encode("utf-16")}, {"path": ONE}, r"not UTF-8 \(its header.*data\.encoding=utf-16"),
    "UTF-16 without a mark": ({ONE: csv().decode().encode("utf-16-le")}, {"path": ONE}, r"its header: a NUL byte"),
    "wrong encoding given": (
        {ONE: csv()}, {"path": ONE, "encoding": "utf-16"}, r"a\.csv is not utf-16: .*name its encoding",
    ),
    "latin-1 jsonl": (
        {"a.jsonl": jsonl('{"text": "fröhlich", "joy": 1}').decode().encode("latin-1")}, {"path": "a.jsonl"},
        r"a\.jsonl is not UTF-8 \(line 3: byte 0xf6\)",
    ),
    "NUL byte": ({ONE: csv("r3,a\0b,1,0\n")}, {"path": ONE}, r"a\.csv, row 3, line 4, column text: a NUL byte"),
    "empty text": ({ONE: csv("r3,,1,0\n")}, {"path": ONE}, r"a\.csv, row 3, column text: the text is empty"),
    "blank text": ({ONE: csv("r3, \t ,1,0\n")}, {"path": ONE}, r"row 3, column text: .*data\.empty_texts=drop"),
    "null text": (
        {"a.jsonl": jsonl('{"id": "r3", "text": null, "joy": 1, "anger": 0}')}, {"path": "a.jsonl"},
        r"a\.jsonl, row 3, column text: no text",
    ),
    "NaN for a text": (
        {"a.parquet": parquet(text=[1.0, 2.0, float("nan"), *map(float, range(21))])}, {"path": "a.parquet"},
        r"a\.parquet, row 3, column text: no text",
    ),
    "label of 2": ({ONE: csv("r3,a,2,0\n")}, {"path": ONE}, r"a\.csv, row 3, column joy: '2' where 0 or 1 is due"),
    "label of 0.5": ({ONE: csv("r3,a,0.5,0\n")}, {"path": ONE}, r"row 3, column joy: '0\.5' where 0 or 1 is due"),
    "label of yes": ({ONE: csv("r3,a,yes,0\n")}, {"path": ONE}, r"row 3, column joy: 'yes' where 0 or 1 is due"),
    "blank label": ({ONE: csv("r3,a,,0\n")}, {"path": ONE}, r"row 3, column joy: nothing where 0 or 1 is due"),
    "label missing in a jsonl row": (
        {"a.jsonl": jsonl('{"id": "r3", "text": "a", "joy": 1}')}, {"path": "a.jsonl"},
        r"row 3, column anger: nothing where 0 or 1 is due",
    ),
    "NaN for a label": (
        {"a.parquet": parquet(joy=[1.0, 0.0, float("nan"), *([1.0] * 21)])}, {"path": "a.parquet"},
        r"row 3, column joy: nothing where",
    ),
    "list for a label": (
        {"a.jsonl": jsonl('{"id": "r3", "text": "a", "joy": [1], "anger": 0}')}, {"path": "a.jsonl"},
        r"row 3, column joy: \[1\] where 0 or 1 is due",
    ),
    "true among 0 and 1": (
        {ONE: csv("r3,a,true,0\n")}, {"path": ONE},
        r"row 3, column joy: 'true' in a column that has 0 and 1 since row 1; write all of it alike",
    ),
    "true among 0 and 1 in jsonl": (
        {"a.jsonl": jsonl('{"id": "r3", "text": "a", "joy": true, "anger": 0}')}, {"path": "a.jsonl"},
        r"row 3, column joy: True in a column that has 0 and 1",
    ),
    "label unknown to train": (
        {"train.csv": b"text,mood\na,joy\nb,joy|anger\n", "validation.csv": b"text,mood\nc,joy\nd,rage\n"},
        {**OWN, "labels_column": "mood"},
        r"validation\.csv, row 2, column mood: the label 'rage' is not one of anger, joy",
    ),
    "label misspelt": (
        {"train.csv": b"text,mood\na,joy\nb,anger\n", "validation.csv": b"text,mood\nc,joy\nd,angre\n"},
        {**OWN, "labels_column": "mood"},
        r"the label 'angre' is not one of anger, joy; did you mean anger\?",
    ),
    "id beyond the names": (
        {ONE: b"text,mood\na,0\nb,7\n"}, {"path": ONE, "labels_column": "mood", "labels": ["joy", "anger"]},
        r"a\.csv, row 2, column mood: the label '7' is not one of joy, anger",
    ),
    "labels column of texts": (
        {ONE: b"text,mood\n" + b"".join(f"a,m{i}\n".encode() for i in range(100_001))},
        {"path": ONE, "labels_column": "mood"},
        r"column mood: more than 100,000 different cells; that is no column of labels",
    ),
    "no label at all": ({ONE: b"text,mood\na,\nb,\n"}, {"path": ONE, "labels_column": "mood"}, r"no row has a label"),
    "lists of zeros and ones without names": (
        {"a.jsonl": b'{"text": "a", "labels": [0, 1, 1]}\n{"text": "b", "labels": [1, 0, 0]}\n'}, {"path": "a.jsonl"},
        r"column labels: lists of 3 zeros and ones; name the 3 labels in their order: data\.labels",
    ),
    "lists of zeros and ones of another length": (
        {ONE: b'text,labels\na,"0,1,1"\nb,"1,0,0"\n'}, {"path": ONE, "labels": ["joy", "anger"]},
        r"lists of 3 zeros and ones, and there are 2 names",
    ),
    "a list of another length among zeros and ones": (
        {"train.csv": b'text,mood\na,"0,1"\nb,"1,0"\n', "validation.csv": b'text,mood\nc,"0,1"\nd,"0,1,1"\n'},
        {**OWN, "labels_column": "mood", "labels": ["joy", "anger"]},
        r"validation\.csv, row 2, column mood: '0,1,1' where 2 zeros and ones are due",
    ),
    "a null in a list": (
        {"a.jsonl": b'{"text": "a", "labels": ["joy"]}\n{"text": "b", "labels": ["joy", null]}\n'}, {"path": "a.jsonl"},
        r"a\.jsonl, row 2, column labels: \['joy', None\] has a null among its labels",
    ),
    "a null in a printed list": (
        {ONE: b'text,labels\na,"[""joy"", null]"\nb,joy\n'}, {"path": ONE},
        r"row 1, column labels: .* has a null among its labels",
    ),
    "a list in a list": (
        {"a.jsonl": b'{"text": "a", "labels": [["joy"]]}\n{"text": "b", "labels": ["joy"]}\n'}, {"path": "a.jsonl"},
        r"row 1, column labels: .* has a list among its labels",
    ),
    "a mapping for a list": (
        {"a.jsonl": b'{"text": "a", "labels": {"joy": 1}}\n{"text": "b", "labels": ["joy"]}\n'}, {"path": "a.jsonl"},
        r"row 1, column labels: .* is a mapping",
    ),
    "half a printed list": (
        {ONE: b"text,labels\na,\"['joy', 'love'\"\nb,joy\n"}, {"path": ONE},
        r"row 1, column labels: .* gives the label .*; write labels as joy\|love",
    ),
    "two separators": (
        {ONE: b'text,labels\na,love|joy\nb,"joy, love"\n'}, {"path": ONE},
        r"row 2, column labels: 'joy, love' gives the label 'joy, love'",
    ),
    "a label named like the id column": (
        {ONE: b"id,text,labels\n1,a,id|joy\n2,b,joy\n"}, {"path": ONE}, r"a label id and an id column id",
    ),
    "a labels column that is one of the labels": (
        {ONE: csv()}, {"path": ONE, "labels_column": "joy", "labels": ["joy", "anger"]},
        r"data\.labels_column=joy is one of data\.labels",
    ),
    "an id column that is the text": (
        {ONE: csv()}, {"path": ONE, "id_column": "text"}, r"data\.id_column=text is the column of the texts",
    ),
    "a label as long as a book": (
        {ONE: b"text,labels\na,joy\nb," + b"long " * 60_000 + b"\n"}, {"path": ONE}, r"300,000 letters|299,999 letters",
    ),
    "a cell as long as a book": (
        {ONE: csv("r3,a," + "x" * 100_000 + ",0\n")}, {"path": ONE}, r"row 3, column joy: 'x+ … \(100,002 characters\)",
    ),
    "two encodings": (
        {ONE: csv("n3,café,1,0\n").replace(b"text 7", "naïve".encode("cp1252"))}, {"path": ONE},
        r"not UTF-8 .*it mixes encodings",
    ),
    "a key that stands twice": (
        {"a.jsonl": jsonl('{"id": "x", "text": "a", "joy": 1, "joy": 0, "anger": 0}')}, {"path": "a.jsonl"},
        r"row 3: line 3 cannot be read \(the key joy stands in it twice\)",
    ),
    "columns of pandas in json": (
        {"a.json": b'{"text": {"0": "a"}, "joy": {"0": 1}}'}, {"path": "a.json"}, r"holds columns, not rows.*orient",
    ),
    "a stray quote among quoted tabs": (
        {"a.tsv": b'text\tjoy\n"He said ""hi"""\t1\n"foo" bar\t0\n'}, {"path": "a.tsv"}, r"a\.tsv, line 3: .*row 2",
    ),
    "held back labels of validation": (
        {"train.csv": b"text,mood\na,joy\nb,anger\n", "validation.csv": b"text,mood\nc,\nd,\n"},
        {**OWN, "labels_column": "mood"}, r"validation\.csv, column mood: no row has a label; thresholds",
    ),
    "ids in a column of one 0/1 label": (
        {ONE: b"text,label\n" + b"".join(f"t{i},{int(i == 9) * 3}\n".encode() for i in range(10))}, {"path": ONE},
        r"row 10, column label: '3' where 0 or 1 is due \(if the column lists labels: data\.labels_column\)",
    ),
    "splits for splits of one's own": (
        {"train.csv": csv(), "validation.csv": csv()}, {**OWN, "splits": "splits.csv"}, r"has nothing to split",
    ),
    "duplicate id": (
        {ONE: csv("r0,a,1,0\n")}, {"path": ONE}, r"row 3, column id: 1 row has the id of .* in row 1 and in row 3",
    ),
    "missing id": ({ONE: csv(",a,1,0\n")}, {"path": ONE}, r"row 3, column id: no id; each row needs one"),
    "duplicate column": (
        {ONE: csv(header="id,text,joy,joy\n")}, {"path": ONE}, r"a\.csv has more than one column named joy; rename one",
    ),
    "label named like a probability": (
        {ONE: csv(header="id,text,joy,p_joy\n")}, {"path": ONE}, r"labels joy and p_joy",
    ),
    "label named like an output column": (
        {ONE: csv(header="id,body,text,joy\n")}, {"path": ONE, "text": "body", "labels": ["text", "joy"]},
        r"a label named text",
    ),
    "cut jsonl": (
        {"a.jsonl": jsonl()[:-20]}, {"path": "a.jsonl"}, r"a\.jsonl, row 23: line 23 is not JSON .*cut short there",
    ),
    "cut json array": (
        {"a.json": b'[{"text": "a", "joy": 1}, {"te'}, {"path": "a.json"}, r"a\.json is not JSON \(.*line 1",
    ),
    "jsonl of lists": ({"a.jsonl": jsonl('["a", 1]')}, {"path": "a.jsonl"}, r"row 3: line 3 is not an object such as"),
    "half a character": (
        {"a.jsonl": jsonl('{"id": "x", "text": "\\ud83d", "joy": 1, "anger": 0}')}, {"path": "a.jsonl"},
        r"row 3: line 3 holds half a character",
    ),
    "cut parquet": ({"a.parquet": cut_parquet}, {"path": "a.parquet"}, r"a\.parquet cannot be read .*cut short"),
    "cut gzip": (
        {"a.csv.gz": gzip.compress(csv())[:-12]}, {"path": "a.csv.gz"}, r"a\.csv\.gz cannot be read .*cut short",
    ),
    "gzip without its name": ({ONE: gzip.compress(csv())}, {"path": ONE}, r"a\.csv is a gzip file; name it so"),
    "not gzip": ({"a.csv.gz": csv()}, {"path": "a.csv.gz"}, r"a\.csv\.gz cannot be read \(Not a gzipped file"),
    "Excel": (
        {ONE: b"PK\x03\x04" + bytes(50)}, {"path": ONE}, r"a\.csv is a damaged Excel or zip file",
    ),
    "parquet named csv": ({ONE: b"PAR1" + bytes(50)}, {"path": ONE}, r"a\.csv is a parquet file; name it \.parquet"),
    "csv named parquet": ({"a.parquet": csv()}, {"path": "a.parquet"}, r"a\.parquet cannot be read"),
    "csv named arrow": ({"a.arrow": csv()}, {"path": "a.arrow"}, r"a\.arrow cannot be read"),
    "unknown ending": ({"a.xls": csv()}, {"path": "a.xls"}, r"a\.xls: its format is not known; name it \.csv, \.tsv"),
    "texts alone": ({"a.txt": b"so happy\n"}, {"path": "a.txt"}, r"a\.txt has texts only"),
    "saved data set that is not whole": ({"set": not_whole}, {"path": "set"}, r"set is not whole: it lacks data-00000"),
    "too few rows to split": (
        {ONE: (HEADER + "".join(ROWS[:3])).encode()}, {"path": ONE}, r"3 rows are too few to split off a share of 0\.1",
    ),
    "leaks are all of train": (
        {"train.csv": csv(), "validation.csv": csv()}, {**OWN, "drop_leaks": True}, r"leaves no row of train",
    ),
}  # fmt: skip


def make(place: Path, contents: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Write the files of a case; its settings, with whole paths."""
    for name, content in contents.items():
        if callable(content):
            content(place / name)
        else:
            (place / name).write_bytes(content)
    paths = ("path", "train", "validation", "test")
    return {name: place / value if name in paths else value for name, value in chosen.items()}


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES)
def test_broken_data_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    contents, chosen, message = CASES[case]
    settings = data_settings(**make(tmp_path, contents, chosen))
    with pytest.raises(UserError, match=message) as raised:
        sources.split_corpus(sources.read_corpus(settings), settings)
    told = str(raised.value)
    assert re.search(r"data\.(drop_leaks|splits|id_column|labels_column)=", told) or str(tmp_path) in told
    assert len(told) < 2000


@pytest.mark.parametrize("verb", ["train", "inspect"])
@pytest.mark.parametrize("case", ["duplicate id", "label of 2", "cut parquet", "latin-1", "quote never closed"])
def test_a_command_ends_with_code_2_and_writes_no_result(
    run: Any, tmp_path: Path, capfd: Any, verb: str, case: str
) -> None:
    contents, chosen, message = CASES[case]
    chosen = make(tmp_path, contents, chosen)
    arguments = [f"data.{name}={value}" for name, value in chosen.items()]
    arguments += ["logger=none"] if verb == "train" else []
    assert run(verb, "data=file", *arguments, "hydra.run.dir=out") == 2
    told = capfd.readouterr().err
    assert re.search(message, told) and "Traceback" not in told
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"{verb}.log"}


def test_problems_of_all_kinds_and_files_stand_in_one_message_by_row(tmp_path: Path) -> None:
    train = csv("r0,,2,true\n", "n4,b\n", "n5,\0,0,0\n")
    settings = data_settings(
        **make(
            tmp_path,
            {"train.csv": train, "validation.csv": csv("n3,a,maybe,0\n"), "test.csv": csv(header="id,text,joy,sad\n")},
            {**OWN, "test": "test.csv"},
        )
    )
    with pytest.raises(UserError) as raised:
        sources.read_corpus(settings)
    assert [line.partition(str(tmp_path) + "/")[2].partition(":")[0] for line in str(raised.value).splitlines()] == [
        "train.csv, row 3, column text",
        "train.csv, row 3, column joy",
        "train.csv, row 3, column anger",
        "train.csv, row 3, column id",
        "train.csv, row 4",
        "train.csv, row 5, line 6, column text",
        "validation.csv, row 3, column joy",
        f"test.csv has no column anger, which {tmp_path}/train.csv has.",
    ]


def test_reading_stops_where_nearly_every_row_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,joy\n" + "only one cell\n" * 50_000)
    with pytest.raises(UserError, match=r"10,000 problems of one kind.*\nReading stopped there, after 10,000 problems"):
        sources.read_corpus(data_settings(path=file))


# ------------------------------------------------------------------------------------------------ too large for memory


def test_a_file_that_does_not_fit_into_memory_is_refused_before_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 60_000
    file = tmp_path / "a.csv"
    file.write_text("text,joy\n" + "".join(f"a text of some length {i},{i % 2}\n" for i in range(rows)))
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    with pytest.raises(
        UserError, match=r"a\.csv is too large for memory: about 0\.0 GB .* 60,000 rows .*data\.max_rows="
    ):
        sources.read_corpus(data_settings(path=file))
    assert len(sources.read_corpus(data_settings(path=file, max_rows=100)).splits["whole"]) == 100


def test_a_json_array_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a", "joy": 1}] * 100))
    monkeypatch.setattr(memory, "available", lambda: 2**10)
    with pytest.raises(UserError, match="an object in each line"):
        sources.read_corpus(data_settings(path=tmp_path / "a.json"))


def test_available_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.available() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() > 2**20


# ----------------------------------------------------------------------------------------------------- cuts and flips


def sound_files(place: Path) -> dict[str, bytes]:
    """A sound file of each format."""
    import pyarrow
    import pyarrow.feather

    cells = [(f"r{i}", f'tëxt {i} "so", and;\tmore\n😀', i % 2, (i // 2) % 2) for i in range(40)]
    names = ("id", "text", "joy", "anger")
    columns = {name: [row[i] for row in cells] for i, name in enumerate(names)}
    records = [dict(zip(names, row, strict=True)) for row in cells]
    quoted = "".join('"' + '","'.join(str(cell).replace('"', '""') for cell in row) + '"\n' for row in (names, *cells))
    table = pyarrow.table(columns)
    write_parquet(place / "sound.parquet", columns)
    pyarrow.feather.write_feather(table, place / "sound.feather")
    with pyarrow.OSFile(str(place / "sound.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return {
        "csv": quoted.encode(),
        "tsv": quoted.replace("\t", " ").replace('","', '"\t"').encode(),
        "csv.gz": gzip.compress(quoted.encode()),
        "jsonl": "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode(),
        "json": json.dumps(records).encode(),
        **{ending: (place / f"sound.{ending}").read_bytes() for ending in ("parquet", "feather", "arrow")},
    }


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with a cut, with bytes flipped, put in or left out."""
    data = bytearray(content)
    where = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            del data[where:]
        case 1:
            data[where:where] = chance.randbytes(chance.randrange(1, 8))
        case 2:
            del data[where : where + chance.randrange(1, 40)]
        case _:
            for _ in range(chance.choice((1, 2, 10))):
                data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "jsonl", "json", "parquet", "feather", "arrow"])
def test_no_damage_ends_in_another_error_than_one_for_the_user(tmp_path: Path, ending: str) -> None:
    content = sound_files(tmp_path)[ending]
    file = tmp_path / f"a.{ending}"
    file.write_bytes(content)
    assert len(sources.read_corpus(data_settings(path=file)).splits["whole"]) == 40
    chance = random.Random(ending)
    wanted = text_columns()
    refused = 0
    for _ in range(150):
        file.write_bytes(damaged(content, chance))
        for read in (
            lambda: sources.read_corpus(data_settings(path=file)),
            lambda: list(tables.read_texts(files.source(file), wanted)),
        ):
            try:
                read()
            except UserError as error:
                assert str(file) in str(error)
                refused += 1
    assert refused > 60
