import gc
import tempfile
import zipfile
from pathlib import Path

import pytest
from helpers.tables import data_settings, emotions, text_columns, write_csv, write_parquet

from emotion_lightning.data import sources, tables
from emotion_lightning.data.formats import archive, files
from emotion_lightning.data.rows import WHOLE
from emotion_lightning.errors import UserError

CSV = "text,joy\n" + "".join(f"text {i},{i % 2}\n" for i in range(12))


def packed(path: Path, parts: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_part_without_a_name_is_no_table(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.csv": CSV})
    with zipfile.ZipFile(path, "a") as more, more.open(zipfile.ZipInfo(""), "w") as part:
        part.write(b"x")
    assert len(sources.read_corpus(data_settings(path=path)).splits[WHOLE]) == 12


def test_the_only_table_is_read_and_nothing_stays(tmp_path: Path, temporary: Path) -> None:
    parts: dict[str, str | bytes] = {
        "README.md": "x",
        "__MACOSX/._a.csv": "x",
        ".hidden.csv": "x",
        "in/a.csv": CSV,
    }
    found = sources.read_corpus(data_settings(path=packed(tmp_path / "a.zip", parts)))
    assert found.splits[WHOLE].texts[3] == "text 3" and len(found.splits[WHOLE]) == 12
    about = found.decisions.files[0]
    assert (about["path"], about["table"], about["format"]) == (str(tmp_path / "a.zip" / "a.csv"), "in/a.csv", "csv")
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["a.csv.gz", "a.parquet", "a.jsonl"])
def test_other_formats_inside_are_read(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        inner = write_parquet(tmp_path / name, {"text": ["a", "b"], "joy": [1, 0]})
    elif name == "a.jsonl":
        inner = tmp_path / name
        inner.write_text('{"text": "a", "joy": 1}\n{"text": "b", "joy": 0}\n')
    else:
        inner = write_csv(tmp_path / name, [["text", "joy"], ["a", 1], ["b", 0]])
    path = packed(tmp_path / "a.zip", {f"x/{name.upper()}": inner.read_bytes()})
    assert sources.read_corpus(data_settings(path=path)).splits[WHOLE].texts == ["a", "b"]


def test_several_tables_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"in/train.csv": CSV, "in/val.csv": "text,joy\nx,1\n"})
    with pytest.raises(
        UserError, match=r"has 2 tables with rows: in/train\.csv, in/val\.csv\. Choose one, .* unpack it"
    ):
        files.source(path)
    found = sources.read_corpus(data_settings(path=path, table="val.csv"))
    assert found.splits[WHOLE].texts == ["x"]


@pytest.mark.parametrize("name", ["../../../evil.csv", "/etc/evil.csv", "..\\..\\evil.csv", "a/../../evil.csv"])
def test_names_that_lead_elsewhere_are_harmless(tmp_path: Path, temporary: Path, name: str) -> None:
    before = set(tmp_path.parent.rglob("*evil*"))
    source = files.source(packed(tmp_path / "a.zip", {name: CSV.replace("text 3,1", "text 3,7")}))
    (unpacked,) = temporary.rglob("*.csv")
    assert unpacked.name == "table.csv"
    assert set(tmp_path.parent.rglob("*evil*")) == before and not Path("/etc/evil.csv").exists()
    assert len(list(tables.read_texts(source, text_columns()))) == 12


def test_messages_name_the_archive_and_not_the_temporary_file(tmp_path: Path, temporary: Path) -> None:
    bad = CSV.replace("text 3,1", "text 3,7")
    with pytest.raises(UserError) as raised:
        sources.read_corpus(data_settings(path=packed(tmp_path / "a.zip", {"b.csv": bad + "x\n"})))
    assert str(raised.value).count(f"{tmp_path}/a.zip/b.csv, row") == 2
    assert str(temporary) not in str(raised.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_BOMB_SIZE", 1 << 20)
    path = packed(tmp_path / "a.zip", {"a.csv": "text,joy\n" + "x" * (2 << 20)})
    with pytest.raises(UserError, match="as no table does; it is not unpacked"):
        files.source(path)
    assert list(temporary.rglob("*.csv")) == []


def test_a_file_larger_than_the_archive_says_is_not_unpacked(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.csv": CSV * 100})
    content = path.read_bytes()
    size = len(CSV * 100).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (50).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"a\.zip"):
        files.source(path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a.md": "x"}, r"a\.zip holds no table; tables end in \.arrow, \.csv"),
        ({"b.zip": "x"}, r"a\.zip holds no table"),
        ({}, r"a\.zip holds no table"),
    ],
)
def test_an_archive_without_a_table_is_refused(tmp_path: Path, parts: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        files.source(packed(tmp_path / "a.zip", parts))


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"text,joy\n"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip cannot be read"):
        files.source(tmp_path / "a.zip")


def test_the_setting_of_a_table_is_for_files_of_several(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.table=x is for Excel, SQLite and zip files"):
        files.source(write_csv(tmp_path / "a.csv", emotions(4)), table="x")
