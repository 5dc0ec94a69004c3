import gzip
import inspect
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.tables import emotions, text_columns, write_csv, write_jsonl, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emotion_lightning.data import tables
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import as_text
from emotion_lightning.data.rows import Problems
from emotion_lightning.data.survey import survey
from emotion_lightning.errors import UserError

LINES = [
    "NA",
    "null",
    "None",
    "nan",
    "001",
    "1e5",
    "true",
    "-0",
    "so happy 😀👩‍👩‍👧 ärger 怒り",
    "  spaces on both sides  ",
    "tab\tinside",
    "comma, semicolon; pipe |",
    'she said "no" twice',
    '"quoted from start to end"',
    "it's #1",
    "\\n is no line break here",
    "separators \u2028 \x1c \x85 that are no line ends",
]
TEXTS = [*LINES, "two\nlines", "a Windows\r\nline", 'all at once: "a",\n;\t|\n\n"']


def check(path: Path) -> list[str]:
    """Texts of a file that is read as predict reads it: checked whole, then row by row."""
    return [text for _, text in tables.read_texts(files.source(path), text_columns())]


def names_of(path: Path) -> list[str]:
    return survey(files.source(path), Problems()).names


def texts_of(path: Path) -> list[str]:
    return [record["text"] for _, record in files.records(path)]


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.csv.gz", "dotted.name.v2.csv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_gives_texts_back_unchanged(tmp_path: Path, name: str, delimiter: str, newline: str) -> None:
    rows = [["id", "text", "joy"], *([f"0{i}", text, 1] for i, text in enumerate(TEXTS))]
    path = write_csv(tmp_path / name, rows, delimiter=delimiter, newline=newline)
    assert texts_of(path) == TEXTS
    assert [record["id"] for _, record in files.records(path)] == [f"0{i}" for i in range(len(TEXTS))]
    assert [row for row, _ in files.records(path)] == list(range(1, len(TEXTS) + 1))
    assert names_of(path) == ["id", "text", "joy"]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_tsv_gives_texts_back_unchanged(tmp_path: Path, name: str) -> None:
    path = write_csv(tmp_path / name, [["text", "joy"], *([text, 0] for text in TEXTS)], delimiter="\t")
    assert texts_of(path) == TEXTS


def test_tsv_is_split_at_tabs_though_its_header_has_more_commas(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\tjoy, delight, bliss\nyes, well\t1\n")
    assert list(files.records(path)) == [(1, {"text": "yes, well", "joy, delight, bliss": "1"})]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_jsonl_gives_texts_back_unchanged(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / name, [{"text": text, "joy": 1} for text in TEXTS])
    assert texts_of(path) == TEXTS


def test_jsonl_escapes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\r\n".join(json.dumps({"text": text}, ensure_ascii=True) for text in TEXTS))
    assert texts_of(path) == TEXTS


@pytest.mark.parametrize("type_", ["string", "large_string", "dictionary"])
def test_parquet_gives_texts_back_unchanged(tmp_path: Path, type_: str) -> None:
    import pyarrow

    kind = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) if type_ == "dictionary" else type_
    path = write_parquet(tmp_path / "a.parquet", {"text": pyarrow.array(TEXTS).cast(kind)}, row_group_size=4)
    assert texts_of(path) == TEXTS
    assert names_of(path) == ["text"]


def test_parquet_texts_that_are_stored_as_bytes_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": [text.encode() for text in TEXTS]})
    assert [as_text(text) for text in texts_of(path)] == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_txt_is_a_text_in_each_line(tmp_path: Path, name: str, newline: str) -> None:
    lines = [*LINES[:3], "", *LINES[3:]]
    content = newline.join(lines).encode() + newline.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert texts_of(path) == lines


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
def test_a_byte_order_mark_is_no_part_of_the_first_cell(tmp_path: Path, name: str) -> None:
    lines = {"a.csv": "text,joy\nhi,1\n", "a.tsv": "text\tjoy\nhi\t1\n", "a.jsonl": '{"text": "hi"}\n', "a.txt": "hi\n"}
    path = tmp_path / name
    path.write_text("\ufeff" + lines[name], encoding="utf-8")
    assert texts_of(path) == ["hi"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=6))
def test_any_text_comes_back_from_every_format(tmp_path: Path, texts: list[str]) -> None:
    quoted = "".join('1,"' + text.replace('"', '""') + '"\n' for text in texts)
    (tmp_path / "a.csv").write_text("joy,text\n" + quoted, encoding="utf-8", newline="")
    assert texts_of(tmp_path / "a.csv") == texts
    assert texts_of(write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])) == texts
    assert texts_of(write_parquet(tmp_path / "a.parquet", {"text": texts})) == texts


def test_a_text_may_be_longer_than_the_csv_module_takes_by_default(tmp_path: Path) -> None:
    long = "so happy " * 20_000
    assert texts_of(write_csv(tmp_path / "a.csv", [["text", "joy"], [long, 1]])) == [long]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,joy\n\nhi,1\n\n\nho,0\n\n")
    assert [(row, record["text"]) for row, record in files.records(path)] == [(1, "hi"), (2, "ho")]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_arrays_and_lines_give_texts_back_unchanged(tmp_path: Path, name: str) -> None:
    records = [{"text": text, "joy": 1} for text in TEXTS]
    for content in (json.dumps(records), json.dumps(records, indent=2), "\n".join(map(json.dumps, records))):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
        assert texts_of(tmp_path / name) == TEXTS


@pytest.mark.parametrize("kind", ["file", "stream", "feather", "folder"])
def test_arrow_gives_texts_back_unchanged(tmp_path: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.feather

    table = pyarrow.table({"text": TEXTS, "joy": [1] * len(TEXTS)})
    path = tmp_path / {"feather": "a.feather", "folder": "saved"}.get(kind, "a.arrow")
    if kind == "feather":
        pyarrow.feather.write_feather(table, path)
    elif kind == "folder":
        import datasets

        datasets.Dataset(table).save_to_disk(path, num_shards=3)
    else:
        opened = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
        with pyarrow.OSFile(str(path), "wb") as file, opened(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    assert texts_of(path) == TEXTS
    assert [row for row, _ in files.records(path)] == list(range(1, len(TEXTS) + 1))
    assert len(files.sha256(path)) == 64


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "shift_jis", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt", "a.csv.gz"])
def test_another_encoding_is_read_where_it_is_named(tmp_path: Path, encoding: str, name: str) -> None:
    text = "全部 嬉しい" if encoding == "shift_jis" else "fröhlich, déjà vu"
    line = json.dumps({"text": text}, ensure_ascii=False)
    delimiter = "\t" if name == "a.tsv" else ","
    table = f'text{delimiter}joy\n"{text}"{delimiter}1\n'
    data = {"a.jsonl": line, "a.json": f"[{line}]", "a.txt": text}.get(name, table).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert [record["text"] for _, record in files.records(tmp_path / name, encoding=encoding)] == [text]


# ------------------------------------------------------------------------------------------- recognising a file's cells


def cells_of(path: Path) -> list[list[str]]:
    return [list(record.values()) for _, record in files.records(path)]


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("text;joy\nI am, well, so happy;1\n", [["I am, well, so happy", "1"]]),
        ("text, as it is;joy\na;1\nb;0\n", [["a", "1"], ["b", "0"]]),
        ("text|joy\na,b|1\n", [["a,b", "1"]]),
        ("text\tjoy\na;b;c\t1\n", [["a;b;c", "1"]]),
        ('"text";"joy"\n"a;b";"1"\n', [["a;b", "1"]]),
        ("text\nonly one, column\n", None),
    ],
)
def test_the_delimiter_of_a_csv_file_is_recognised(tmp_path: Path, content: str, cells: list[list[str]] | None) -> None:
    (tmp_path / "a.csv").write_text(content)
    if cells is None:
        with pytest.raises(UserError, match="row 1: 2 cells under a header of 1"):
            check(tmp_path / "a.csv")
    else:
        assert cells_of(tmp_path / "a.csv") == cells


def test_tabs_without_quoting_keep_a_quote_at_the_start_of_a_text(tmp_path: Path) -> None:
    rows = ['"Never again', 'he said "no"', 'and closed it"', "plain"]
    (tmp_path / "a.tsv").write_text("text\tjoy\n" + "".join(f"{text}\t1\n" for text in rows))
    assert [cells[0] for cells in cells_of(tmp_path / "a.tsv")] == rows


def test_tabs_with_quoting_are_unquoted(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tjoy\n"She said ""no"" again"\t1\n"two\nlines"\t0\n')
    assert [cells[0] for cells in cells_of(tmp_path / "a.tsv")] == ['She said "no" again', "two\nlines"]


def test_a_single_column_of_tabs_may_hold_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\n"two\nlines"\n"one"\n')
    assert texts_of(tmp_path / "a.tsv") == ["two\nlines", "one"]


def test_quotes_escaped_by_a_backslash_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,joy\n"she said \\"no\\", twice",1\n"a \\\\ b",0\n')
    assert texts_of(tmp_path / "a.csv") == ['she said "no", twice', "a \\ b"]


def test_other_backslashes_stay_where_quotes_are_escaped_by_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["so happy\\n\\nreally", "¯\\_(ツ)_/¯", "C:\\temp", "\\N", "ends with \\"]
    rows = "".join(f'"{text}",0\n' if not text.endswith("\\") else f'"{text}\\",0\n' for text in texts)
    (tmp_path / "a.csv").write_text('text,joy\n"she said \\"no, never\\" again",1\n' + rows)
    assert texts_of(tmp_path / "a.csv") == ['she said "no, never" again', *texts]
    assert caplog.text.count("quotes are escaped by backslashes") == 1


def test_that_cells_are_not_quoted_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.tsv").write_text('text\tjoy\n"Never again\t1\n')
    assert check(tmp_path / "a.tsv") == ['"Never again']
    assert caplog.text.count("cells are not quoted") == 1


def test_a_cell_that_seems_to_have_swallowed_rows_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text('text,joy,anger\n"Oh no,1,0\nfine,0,1\nyes",0,1\n"two\nlines, well",1,0\n')
    assert len(check(tmp_path / "a.csv")) == 2
    assert caplog.text.count("is a quote missing there?") == 1
    assert "row 1, column text: a quoted cell of 3 lines" in caplog.text


def test_blank_lines_of_a_single_column_are_rows_unless_they_end_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhello\n\n\nyo\n\n\n")
    assert check(tmp_path / "a.csv") == ["hello", "", "", "yo"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.tsv", "id,text\n7,hello\n"), ("a.csv", "id^text\n7^hello\n"), ("a.csv", "id::text\n7::a\n")],
)
def test_a_file_marked_off_otherwise_is_not_taken_for_one_column(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="has a single column, id.*text, whose name looks like several"):
        check(tmp_path / name)


def test_the_line_in_which_excel_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\ntext;joy\na, b, c;1\n", encoding="utf-8-sig")
    assert list(files.records(tmp_path / "a.csv")) == [(1, {"text": "a, b, c", "joy": "1"})]


@pytest.mark.parametrize(("encoding", "given"), [("utf-8-sig", "utf-8"), ("utf-16-le", "utf-16-le")])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_a_byte_order_mark_that_the_named_encoding_does_not_expect_is_left_out(
    tmp_path: Path, encoding: str, given: str, name: str
) -> None:
    content = {"a.csv": "text,joy\nhi,1\n", "a.jsonl": '{"text": "hi"}\n', "a.txt": "hi\n"}[name]
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    (tmp_path / name).write_bytes((mark + content).encode(encoding))
    assert [record["text"] for _, record in files.records(tmp_path / name, encoding=given)] == ["hi"]


def test_a_backslash_before_a_closing_quote_is_a_letter_like_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,joy\n"C:\\",1\n"b",0\n')
    assert texts_of(tmp_path / "a.csv") == ["C:\\", "b"]


def test_columns_without_a_name_are_left_aside(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",text,joy,\n0,a,1,\n1,b,0,\n")
    assert list(files.records(tmp_path / "a.csv")) == [(1, {"text": "a", "joy": "1"}), (2, {"text": "b", "joy": "0"})]


# ------------------------------------------------------------------------------------------------------------ streaming


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.txt"])
def test_records_hold_a_few_rows_at_a_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    row = {"a.jsonl": '{"text": "' + "x" * 1000 + '"}\n', "a.txt": "x" * 1000 + "\n"}.get(name, "x" * 1000 + ",1\n")
    content = ("text,joy\n" if ".csv" in name else "").encode() + row.encode() * 20_000
    path.write_bytes(gzip.compress(content, compresslevel=1) if name.endswith(".gz") else content)
    tracemalloc.start()
    count = sum(len(record["text"]) == 1000 for _, record in files.records(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < len(content) / 10


def test_the_first_row_is_there_before_the_last_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,joy\n" + "fine,1\n" * 100_000 + "damaged\0,1\n")
    rows = files.records(path)
    assert inspect.isgenerator(rows)
    assert next(rows) == (1, {"text": "fine", "joy": "1"})
    with pytest.raises(UserError, match="line 100002"):
        list(rows)


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": [f"text {i}" for i in range(20_000)]}, row_group_size=5_000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : -len(content) // 8] = b"\xff" * len(content[len(content) // 2 : -len(content) // 8])
    path.write_bytes(content)
    rows = files.records(path)
    assert next(rows) == (1, {"text": "text 0"})
    with pytest.raises(UserError, match=r"a\.parquet"):
        list(rows)


# --------------------------------------------------------------------------------------------------------- broken files


def content(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def parquet_bytes(folder: Path) -> bytes:
    return write_parquet(folder / "whole.parquet", {"text": [f"text {i}" for i in range(2000)]}).read_bytes()


def folder_named_like_a_file(folder: Path) -> Path:
    (folder / "folder.csv").mkdir()
    return folder / "folder.csv"


def parquet_cut_short(folder: Path) -> Path:
    return content("cut.parquet", parquet_bytes(folder)[:-300])(folder)


def parquet_with_damaged_pages(folder: Path) -> Path:
    data = parquet_bytes(folder)
    return content("damaged.parquet", data[:8] + b"\xff" * 2000 + data[2008:])(folder)


def parquet_with_a_column_twice(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_arrays([pyarrow.array([v]) for v in ("hi", 1, 0)], names=["text", "joy", "joy"])
    pyarrow.parquet.write_table(table, folder / "twice.parquet")
    return folder / "twice.parquet"


def damaged_gz(folder: Path) -> Path:
    data = bytearray(gzip.compress(b"text,joy\nhi,1\n"))
    data[10:14] = b"\xff" * 4  # behind the gzip header, where a block of a kind that does not exist seems to begin
    return content("damaged.csv.gz", bytes(data))(folder)


def parquet_with_text_that_is_no_text(folder: Path) -> Path:
    path = write_parquet(folder / "a.parquet", {"text": ["hello", "hola"]}, compression="none", use_dictionary=False)
    return content("bytes.parquet", path.read_bytes().replace(b"hola", b"h\xffla"))(folder)


BROKEN = {
    "missing": (lambda folder: folder / "missing.csv", r"missing\.csv does not exist"),
    "folder": (folder_named_like_a_file, r"folder\.csv is a folder"),
    "empty": (content("empty.csv", b""), r"empty\.csv is empty"),
    "empty jsonl": (content("empty.jsonl", b""), r"empty\.jsonl is empty"),
    "only blank lines": (content("blank.csv", b"\n\n\n"), r"blank\.csv.*header"),
    "only a BOM": (content("bom.csv", b"\xef\xbb\xbf"), r"bom\.csv.*header"),
    "header only": (content("header.csv", b"text,joy\n"), r"header\.csv has a header and no rows"),
    "too many cells": (content("ragged.csv", b"text,joy\nhi,1\na, b,1\nho,0\n"), r"ragged\.csv, row 2: 3 cells"),
    "too few cells": (content("ragged.csv", b"text,joy\nhi,1\nho,1\nhm\n"), r"ragged\.csv, row 3: 1 cells .*line 4"),
    "quote in a quoted cell": (content("q.csv", b'text,joy\n"hi" she said,1\nho,0\n'), r"q\.csv, line 2: "),
    "quote never closed": (content("q.csv", b'text,joy\nhi,1\n"ho,1\nhm,0\n'), r"q\.csv, line \d+: "),
    "latin-1 csv": (content("latin.csv", "text,joy\nfröhlich,1\n".encode("latin-1")), r"latin\.csv is not UTF-8"),
    "latin-1 jsonl": (content("latin.jsonl", '{"text": "froh ü"}\n'.encode("latin-1")), r"latin\.jsonl is not UTF-8"),
    "latin-1 txt": (content("latin.txt", "früh\n".encode("latin-1")), r"latin\.txt is not UTF-8"),
    "UTF-16": (content("wide.csv", "text,joy\nhi,1\n".encode("utf-16")), r"wide\.csv is not UTF-8"),
    "NUL byte": (content("nul.csv", b"text,joy\nhi,1\nh\0o,1\n"), r"nul\.csv, row 2, line 3, column text: a NUL byte"),
    "gz cut short": (content("cut.csv.gz", gzip.compress(b"text,joy\n" + b"hi,1\n" * 999)[:-9]), r"cut\.csv\.gz "),
    "gz damaged": (damaged_gz, r"damaged\.csv\.gz cannot be read"),
    "gz that is none": (content("none.jsonl.gz", b'{"text": "hi"}\n'), r"none\.jsonl\.gz cannot be read"),
    "parquet cut short": (parquet_cut_short, r"cut\.parquet cannot be read"),
    "parquet with damaged pages": (parquet_with_damaged_pages, r"damaged\.parquet cannot be read"),
    "parquet that is none": (content("none.parquet", b"text,joy\nhi,1\n"), r"none\.parquet cannot be read"),
    "parquet, not UTF-8": (
        parquet_with_text_that_is_no_text,
        r"bytes\.parquet, row 2, column text: byte 0xff is not UTF-8",
    ),
    "parquet, a column twice": (parquet_with_a_column_twice, r"twice\.parquet.* joy"),
    "bad JSON": (content("bad.jsonl", b'{"text": "hi"}\n\n{"text": \n'), r"bad\.jsonl, row 2: line 3 is not JSON"),
    "JSON cut short": (content("cut.jsonl", b'{"text": "hi"}\n{"text": "h'), r"cut\.jsonl, row 2: line 2 is not JSON"),
    "JSON list": (content("list.jsonl", b'{"text": "hi"}\n["ho"]\n'), r"list\.jsonl, row 2: line 2 is not an object"),
    "JSON in one array": (content("array.jsonl", b'[\n{"text": "hi"}\n]\n'), r"array\.jsonl, row 1: line 1 is not"),
    "JSON number too long": (content("n.jsonl", b'{"text": ' + b"9" * 5000 + b"}\n"), r"n\.jsonl, row 1: line 1"),
    "JSON nested too deep": (content("n.jsonl", b"[" * 100_000 + b"\n"), r"n\.jsonl, row 1: line 1"),
    "half a character": (content("half.jsonl", b'{"text": "half \\ud83d"}\n'), r"half\.jsonl, row 1"),
    "column twice": (content("twice.csv", b"text,joy,love,joy\nhi,1,0,0\n"), r"twice\.csv has more than one .* joy"),
    "unknown suffix": (content("a.docx", b"PK"), r"a\.docx: its format is not known; name it \.csv"),
    "no suffix": (content("texts", b"hi\n"), r"texts: its format is not known"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, case: str) -> None:
    make, message = BROKEN[case]
    path = make(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        check(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_answered_with_its_neighbours(tmp_path: Path) -> None:
    write_csv(tmp_path / "tweets.csv", emotions(1))
    with pytest.raises(UserError, match=r"has tweets\.csv"):
        files.source(tmp_path / "tweet.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_rows_of_a_wrong_shape_are_gathered_and_left_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(
        "text,joy\nhi,1\nhm\nho,0\na,b,c\n" if name == "a.csv" else '{"text": "hi"}\n{\n{"text": "ho"}\n7\n'
    )
    problems = Problems()
    assert [(row, record["text"]) for row, record in files.records(path, problems)] == [(1, "hi"), (3, "ho")]
    assert problems.count == 2
    with pytest.raises(UserError, match=re.compile("row 2.*row 4", re.DOTALL)):
        problems.raise_any()


# --------------------------------------------------------------------------------------------------- columns and hashes


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["id", "text", "joy"], "text"),
        (["Tweet", "joy"], "Tweet"),
        (["comment", "sentence"], "sentence"),
        (["whatever"], "whatever"),
    ],
)
def test_the_text_column_is_known_by_its_usual_names(names: list[str], found: str) -> None:
    assert files.text_column(Path("a.csv"), names, None) == found


@pytest.mark.parametrize(
    ("names", "found"), [(["text", "ID"], "ID"), (["uid", "text"], "uid"), (["text", "joy"], None)]
)
def test_the_id_column_is_known_by_its_usual_names(names: list[str], found: str | None) -> None:
    assert files.id_column(Path("a.csv"), names, None, text="text") == found


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("Text", "did you mean data.text=text?"), ("txet", "did you mean data.text=text?"), ("zzz", "are text, joy.")],
)
def test_a_missing_text_column_is_answered_with_the_columns_and_a_near_match(wanted: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"a.csv has no column {wanted}; its columns are text, joy") as raised:
        files.text_column(Path("a.csv"), ["text", "joy"], wanted)
    assert str(raised.value).endswith(hint)


def test_without_a_usual_name_the_setting_is_asked_for() -> None:
    with pytest.raises(UserError, match="its columns are phrase, joy. Name one: data.text="):
        files.text_column(Path("a.csv"), ["phrase", "joy"], None)


def test_a_wanted_id_column_must_exist() -> None:
    with pytest.raises(UserError, match="has no column number; .*did you mean data.id_column=numbers"):
        files.id_column(Path("a.csv"), ["numbers", "joy"], "number", text="text")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a.txt").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")
