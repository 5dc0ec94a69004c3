import datetime
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from helpers.tables import data_settings, text_columns

from emotion_lightning.config import Header
from emotion_lightning.data import memory, sources, tables
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import WHOLE
from emotion_lightning.errors import UserError

ROWS = [["id", "text", "joy", "anger"], *([i, f"text {i}", i % 2, int(i % 3 == 0)] for i in range(12))]


def book(path: Path, sheets: dict[str, list[list[Any]]], hidden: tuple[str, ...] = ()) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def cells(path: Path, **options: Any) -> list[dict[str, Any]]:
    from emotion_lightning.data.rows import Problems

    return [
        {name: column[i] for name, column in chunk.columns.items()}
        for chunk in files.source(path, **options).chunks(Problems())
        for i in range(len(chunk.rows))
    ]


def test_a_sheet_is_read_with_whole_numbers(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", {"Posts": ROWS, "Empty": []})
    found = sources.read_corpus(data_settings(path=path))
    assert found.splits[WHOLE].ids == [str(i) for i in range(12)]
    assert found.splits[WHOLE].texts[3] == "text 3"
    assert found.splits[WHOLE].targets is not None and found.splits[WHOLE].targets[3].tolist() == [1, 1]
    about = found.decisions.files[0]
    assert (about["format"], about["table"]) == ("excel", "Posts")


def test_cells_keep_what_excel_shows(tmp_path: Path) -> None:
    rows = [
        ["text", "joy"],
        ["NA", True],
        ["001", 0.5],
        [None, None],
        ["two\nlines  ", datetime.date(2020, 1, 2)],
        [7, 1e300],
    ]
    assert cells(book(tmp_path / "a.xlsx", {"a": rows})) == [
        {"text": "NA", "joy": True},
        {"text": "001", "joy": 0.5},
        {"text": "two\nlines  ", "joy": "2020-01-02"},
        {"text": 7, "joy": 1e300},
    ]


def test_several_sheets_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", {"train": ROWS, "notes": [["x"]], "empty": []})
    with pytest.raises(
        UserError, match=r"has 2 sheets with rows: train, notes\. Choose one, for example data\.table=train"
    ):
        files.source(path)
    assert len(cells(path, table="train")) == 12
    with pytest.raises(UserError, match="has no sheet trian; it has train, notes, empty; did you mean train"):
        files.source(path, table="trian")
    with pytest.raises(UserError, match=r"a\.xlsx has a header and no rows|a\.xlsx has no rows"):
        sources.read_corpus(data_settings(path=path, table="empty"))


def test_a_sheet_without_a_header_is_asked_about(tmp_path: Path) -> None:
    rows = [[f"text {i}", ["joy", "anger"][i % 2]] for i in range(12)]
    path = book(tmp_path / "a.xlsx", {"a": rows})
    with pytest.raises(UserError, match=r"data\.header=none data\.columns=\[text,label\]"):
        files.source(path, header=None)
    found = cells(path, header=Header.none, columns=["text", "label"])
    assert found[0] == {"text": "text 0", "label": "joy"} and len(found) == 12


def test_numbers_that_excel_has_rounded_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [["id", "text", "joy"], *([1234567890123456789 + i, f"t{i}", i % 2] for i in range(0, 9000, 1000))]
    sources.read_corpus(data_settings(path=book(tmp_path / "a.xlsx", {"a": rows})))
    assert "row 1, column id: Excel keeps 15 digits" in caplog.text


def test_predict_reads_a_sheet(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", {"a": ROWS})
    assert list(tables.read_texts(files.source(path), text_columns()))[2] == ("2", "text 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,joy\nx,1\n", "is no Excel file, or a damaged one"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "is an old or encrypted Excel file"),
        (b"PK\x03\x04" + bytes(50), "is no Excel file, or a damaged one"),
    ],
)
def test_what_is_no_sheet_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.source(tmp_path / "a.xlsx")


def test_a_zip_file_named_as_a_sheet_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as packed:
        packed.writestr("a.csv", "text,joy\nx,1\n")
    with pytest.raises(UserError, match="is a zip file, not an Excel file"):
        files.source(tmp_path / "a.xlsx")


@pytest.mark.parametrize("kept", ["xl/workbook.xml", "xl/worksheets/sheet1.xml"])
def test_a_damaged_workbook_is_refused(tmp_path: Path, kept: str) -> None:
    path = book(tmp_path / "whole.xlsx", {"a": ROWS})
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name)[: None if name != kept else 200])
    with pytest.raises(UserError, match=r"a\.xlsx"):
        cells(tmp_path / "a.xlsx")


def test_a_stray_cell_at_the_end_of_a_sheet_is_refused_before_it_takes_all_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = openpyxl.Workbook()
    made.active["A1"], made.active["XFD1048576"] = "text", "x"
    made.save(tmp_path / "a.xlsx")
    monkeypatch.setattr(memory, "available", lambda: 8 << 30)
    with pytest.raises(UserError, match="has a cell in row 1,048,576 and one in column 16,384: delete the rows"):
        files.source(tmp_path / "a.xlsx")


def test_without_the_library_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(UserError, match=r"needs python-calamine: pip install .*excel"):
        files.source(book(tmp_path / "a.xlsx", {"a": ROWS}))
