"""Files on disk and in object stores, by path, folder, pattern and address."""

from pathlib import Path

import pytest

from emotion_lightning.data import storage
from emotion_lightning.errors import UserError


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder as a cluster writes it, with files of other programs."""
    for name in (
        "lang=en/part-1.csv", "lang=en/part-0.csv", "lang=de/part-0.csv", "lang=de/deeper/a.jsonl.gz", "_SUCCESS",
        "lang=de/_temporary/b.csv", "lang=de/.c.csv.crc", "README.md",
    ):  # fmt: skip
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\na\n")
    (tmp_path / "texts" / "lang=de" / "empty.csv").touch()
    return tmp_path / "texts"


def names(given: str, folder: Path) -> list[str]:
    return [file.name.partition(f"{folder.name}/")[2] for file in storage.find(given)]


EVERY = ["lang=de/deeper/a.jsonl.gz", "lang=de/part-0.csv", "lang=en/part-0.csv", "lang=en/part-1.csv"]


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", EVERY),
        ("/", EVERY),
        ("/lang=en", EVERY[2:]),
        ("/lang=en/part-0.csv", EVERY[2:3]),
        ("/*/*.csv", EVERY[1:]),
        ("/**/*.csv", EVERY[1:]),
        ("/lang=e*/part-[1-9].csv", EVERY[3:]),
        ("/lang=d*/**", EVERY[:2]),
    ],
)
def test_files_are_found(texts: Path, scheme: str, wanted: str, expected: list[str]) -> None:
    assert names(f"{scheme}{texts}{wanted}", texts) == expected


def test_values_in_the_names_of_folders_are_known(texts: Path) -> None:
    found = {file.name.partition("texts/")[2]: dict(file.values) for file in storage.find(str(texts))}
    assert found["lang=en/part-0.csv"] == {"lang": "en"} and found["lang=de/deeper/a.jsonl.gz"] == {"lang": "de"}


def test_a_relative_path_is_kept_as_it_was_given(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts)
    (file,) = storage.find("lang=en/*0.csv")
    assert file.name == "lang=en/part-0.csv" and file.place == str(texts / "lang=en" / "part-0.csv")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "input=nowhere does not exist"),
        ("nowhere/*.csv", "has no file with rows"),
        ("README.md", r"reads: csv, tsv, jsonl, parquet.*It has README.md"),
        ("file:///nowhere/at/all", "does not exist"),
        ("nothing://bucket/texts", "nothing://bucket cannot be opened"),
    ],
)
def test_what_is_not_there_is_told(texts: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str) -> None:
    monkeypatch.chdir(texts)
    with pytest.raises(UserError, match=message):
        storage.find(given)


def test_one_file_on_disk_is_not_several(texts: Path) -> None:
    (texts / "a[1].csv").write_text("text\na\n")
    assert not storage.is_several(str(texts / "a[1].csv"))
    assert not storage.is_several("nowhere.csv")
    assert all(map(storage.is_several, [str(texts), str(texts / "*.csv"), "s3://bucket/a.csv"]))


def test_keys_in_an_address_are_not_told() -> None:
    assert storage._name("s3://key:secret@bucket/texts/?region=eu") == "s3://bucket/texts"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_is_written_and_read(tmp_path: Path, scheme: str) -> None:
    folder = storage.Folder(f"{scheme}{tmp_path}/out")
    assert folder.names() == set() and folder.read("a.json") is None
    folder.write("a.json", b"{}")
    folder.write("_errors/b.json", b"[]")
    with folder.written("part") as path:
        path.write_bytes(b"rows")
    assert folder.names() == {"a.json", "part"} and folder.names("_errors") == {"b.json"}
    assert folder.read("part") == b"rows" and (tmp_path / "out" / "part").read_bytes() == b"rows"
    folder.remove("_errors")
    folder.remove("_errors")
    assert folder.names("_errors") == set() and sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "a.json", "part"
    ]  # fmt: skip


def test_nothing_is_written_after_an_error(tmp_path: Path) -> None:
    folder = storage.Folder(f"file://{tmp_path}/out")
    with pytest.raises(ZeroDivisionError), folder.written("part") as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError
    assert folder.names() == set()


def test_a_file_is_no_folder_for_results(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file; with engine=ray give a folder"):
        storage.Folder(str(tmp_path / "out")).names()
