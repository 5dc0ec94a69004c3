"""Files cut into units give the rows, with the numbers, that they give when they are read as a whole."""

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import text_columns, write_jsonl, write_parquet

from emotion_lightning.data import storage, units
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import Problems, RowProblems
from emotion_lightning.data.text_pieces import TextColumns
from emotion_lightning.errors import UserError

COLUMNS = TextColumns("text", None)

CSV = {
    "plain": "text,user\n" + "".join(f"so good {i},u{i}\n" for i in range(11)),
    "no end of the last line": "text,user\na,1\nb,2",
    "cells of several lines": 'text,user\n"a\nb",1\n"c\r\n\r\nd",2\n"say ""so""\n",3\ne,4\n',
    "blank lines": "text,user\n\na,1\n\n\nb,2\n\n",
    "blank lines of one column": "text\n\na\n\n\nb\nc\n\nd\n\n",
    "byte order mark": "\ufefftext,user\né,1\n😀,2\nà la carte,3\n",
    "Excel names the delimiter": "sep=;\ntext;user\na;1\nb;2\nc;3\n",
    "carriage returns": "text,user\r\na,1\r\nb,2\r\nc,3\r\n",
    "old Macs": "text,user\ra,1\rb,2\rc,3\r",
    "quotes escaped by backslashes": 'text,user\n"he said \\"no\\"",1\n"a\\nb",2\nc,3\n',
    "a column without a name": ",text,user\n0,a,1\n1,b,2\n2,c,3\n",
    "letters of several bytes": "text,user\n" + "".join(f"été {'😀' * (i % 4)},ü{i}\n" for i in range(9)),
}


def known(path: Path, **chosen: Any) -> units.KnownFile:
    (file,) = storage.find(str(path))
    return units.recognise(file, 0, dataclasses.replace(text_columns(), **chosen))


def whole(path: Path, columns: TextColumns = COLUMNS) -> list[tuple[int, list[Any]]]:
    """Row number and cells of each row, as one process reads them."""
    problems = Problems()
    found = rows_of(files.source(path).chunks(problems), columns)
    problems.raise_any()
    return found


def rows_of(chunks: Any, columns: TextColumns) -> list[tuple[int, list[Any]]]:
    names = [columns.text, *columns.keep]
    return [(row, [chunk.column(name)[i] for name in names]) for chunk in chunks for i, row in enumerate(chunk.rows)]


def in_units(file: units.KnownFile, rows: int, columns: TextColumns = COLUMNS) -> list[tuple[int, list[Any]]]:
    found = []
    for unit in units.cut(file, rows):
        problems = RowProblems()
        own = rows_of(units.source(unit, columns).chunks(problems), columns)
        assert not problems.by_row
        assert unit.rows in (len(own), None) and own[0][0] == unit.first
        found += own
    return found


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("content", CSV.values(), ids=CSV.keys())
def test_csv_is_cut_at_rows(tmp_path: Path, content: str, rows: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    columns = COLUMNS if "user" not in content else TextColumns("text", None, keep=("user",))
    expected = whole(path, columns)
    assert len(expected) > 1
    assert in_units(known(path), rows, columns) == expected
    if rows == 1 and "\n\n" not in content:
        assert len(units.cut(known(path), 1)) == len(expected)


def test_csv_without_a_header_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("".join(f"so good {i},u{i}\n" for i in range(7)))
    found = in_units(known(path, header=files.config.Header.none, columns=["text", "user"]), 2)
    assert found == [(i + 1, [f"so good {i}"]) for i in range(7)]


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_jsonl_is_cut_at_lines(tmp_path: Path, rows: int, end: str) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"text": "été"}', "", *[f'{{"text": "so good {i}", "user": {i}}}' for i in range(8)], " "]
    path.write_bytes(("\ufeff" + end.join(lines) + end).encode())
    columns = TextColumns("text", None, keep=("user",))
    assert in_units(known(path), rows, columns) == whole(path, columns)


@pytest.mark.parametrize("rows", [1, 4, 7, 1000])
@pytest.mark.parametrize("group", [3, 5, 1000])
def test_parquet_is_cut_by_its_row_groups(tmp_path: Path, rows: int, group: int) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", {"text": [f"t{i}" for i in range(20)], "user": list(range(20))}, row_group_size=group
    )
    columns = TextColumns("text", None, keep=("user",))
    assert in_units(known(path), rows, columns) == whole(path, columns)


def test_units_are_the_same_each_time_and_named_by_file_and_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV["plain"])
    found = units.cut(known(path), 4)
    assert [unit.name for unit in found] == [f"part-00000-{first:010d}" for first in (1, 5, 9)]
    assert found == units.cut(known(path), 4)
    assert str(found[1]) == f"{path}, rows 5 to 8"


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_zipped_files_are_one_unit(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = CSV["plain"] if "csv" in name else "".join(f'{{"text": "t{i}"}}\n' for i in range(9))
    path.write_bytes(gzip.compress(content.encode()))
    assert len(units.cut(known(path), 2)) == 1
    assert in_units(known(path), 2) == whole(path)


def test_files_in_other_encodings_are_one_unit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,user\nété,1\nnoël,2\n".encode("cp1252"))
    assert in_units(known(path, encoding="cp1252"), 1) == [(1, ["été"]), (2, ["noël"])]


def test_files_without_rows_have_no_units(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,user\n")
    write_parquet(tmp_path / "a.parquet", {"text": []})
    assert units.cut(known(tmp_path / "a.csv"), 2) == units.cut(known(tmp_path / "a.parquet"), 2) == []


BROKEN: dict[str, tuple[str, bytes, dict[int, str]]] = {
    "cells": ("a.csv", b"text,user\na,1\nb\nc,3\n", {2: "1 cells under a header of 2 columns (line 3)"}),
    "bytes": ("a.csv", b"text,user\na,1\n\xe9,2\nc,3\n", {2: "row 2, line 3, column text: not UTF-8"}),
    "quotes": ("a.csv", b'text,user\na,1\n"b,2\nc,3\n', {2: "The rows after it are not read"}),
    "json": ("a.jsonl", b'{"text": "a"}\n{"text": \n{"text": "c"}\n', {2: "line 2 is not JSON"}),
    "bytes of json": ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n{"text": "c"}\n', {2: "cannot be decoded"}),
    "no object": ("a.jsonl", b'{"text": "a"}\n[1]\n{"text": "c"}\n', {2: "is not an object"}),
}


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_broken_rows_are_told_and_others_are_read(
    tmp_path: Path, case: tuple[str, bytes, dict[int, str]], rows: int
) -> None:
    name, content, expected = case
    (tmp_path / name).write_bytes(content)
    read, told = [], {}
    for unit in units.cut(known(tmp_path / name), rows):
        problems = RowProblems()
        read += [row for chunk in units.source(unit, COLUMNS).chunks(problems) for row in chunk.rows]
        told |= problems.by_row
    assert told.keys() == expected.keys()
    assert all(expected[row] in why for row, why in told.items())
    after = [] if "not read" in expected[2] else [3]
    assert sorted({*read} - told.keys()) == [1, *after]


def test_folders_in_the_manner_of_hive_are_columns(tmp_path: Path) -> None:
    folder = tmp_path / "lang=en"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    (file,) = storage.find(str(tmp_path))
    unit = units.cut(units.recognise(file, 0, text_columns()), 9)[0]
    (chunk,) = units.source(unit, TextColumns("text", None, keep=("lang",))).chunks(Problems())
    assert chunk.column("lang") == ["en", "en"]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.parquet", lambda path: path.write_bytes(b"no parquet"), "cannot be read"),
        ("a.csv", lambda path: path.write_text(",\n,\n"), "has no header"),
        ("a.csv", lambda path: path.write_bytes(b"PK\x03\x04..."), "is a damaged Excel or zip file"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        known(tmp_path / name)


def test_the_start_of_a_remote_file_ends_between_rows() -> None:
    assert units._whole_lines(b'a,b\n"c\nd",1\n"e\nf') == b'a,b\n"c\nd",1\n'
    assert units._whole_lines(b"no end") == b"no end"
