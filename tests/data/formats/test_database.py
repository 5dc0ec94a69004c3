import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import data_settings, text_columns

from emotion_lightning.data import sources, tables
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import WHOLE, Problems
from emotion_lightning.errors import UserError

ROWS = [["id", "text", "joy", "anger"], *([i, f"text {i}", i % 2, int(i % 3 == 0)] for i in range(12))]


def database(path: Path, tables_: dict[str, list[list[Any]]], *more: str) -> Path:
    with closing(sqlite3.connect(path)) as opened, opened:
        for name, (header, *rows) in tables_.items():
            columns = ", ".join(f'"{column}"' for column in header)
            opened.execute(f'CREATE TABLE "{name}" ({columns})')
            opened.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(header))})', rows)
        for line in more:
            opened.execute(line)
    return path


def texts(path: Path, **options: Any) -> list[Any]:
    return [cell for chunk in files.source(path, **options).chunks(Problems()) for cell in chunk.column("text")]


@pytest.mark.parametrize("name", ["a.sqlite", "a.sqlite3", "a.db", "odd #%20 name?.db"])
def test_a_table_is_read(tmp_path: Path, name: str) -> None:
    path = database(tmp_path / name, {"posts": ROWS, "empty": ROWS[:1]})
    found = sources.read_corpus(data_settings(path=path))
    assert found.splits[WHOLE].ids == [str(i) for i in range(12)]
    assert found.splits[WHOLE].targets is not None and found.splits[WHOLE].targets[3].tolist() == [1, 1]
    about = found.decisions.files[0]
    assert (about["format"], about["table"]) == ("sqlite", "posts")


def test_several_tables_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    odd = 'my "own" table'
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("CREATE TABLE posts (text, joy)")
        opened.execute("INSERT INTO posts VALUES ('a', 1)")
        opened.execute('CREATE TABLE "my ""own"" table" (text, joy)')
        opened.execute('INSERT INTO "my ""own"" table" VALUES (\'b\', 1)')
    with pytest.raises(UserError, match=r"has 2 tables with rows: posts, my \"own\" table\. Choose one"):
        files.source(path)
    assert (texts(path, table="posts"), texts(path, table=odd)) == (["a"], ["b"])
    with pytest.raises(UserError, match="has no table post; it has posts"):
        files.source(path, table="post")


def test_rows_come_in_their_order_whatever_indexes_there_are(tmp_path: Path) -> None:
    rows = [["text"], *([f"t{9 - i}"] for i in range(9))]
    path = database(tmp_path / "a.db", {"posts": rows}, "CREATE INDEX by_text ON posts (text)")
    assert texts(path) == [f"t{9 - i}" for i in range(9)]


def test_the_database_and_its_folder_stay_as_they_are(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", {"posts": ROWS}, "PRAGMA user_version = 3")
    os.chmod(path, 0o444)
    before = path.read_bytes()
    texts(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_changes_that_are_not_in_the_database_yet_are_named(tmp_path: Path, ending: str) -> None:
    path = database(tmp_path / "a.db", {"posts": ROWS})
    Path(f"{path}{ending}").write_bytes(b"x")
    with pytest.raises(UserError, match=rf"the file a\.db{ending} beside it holds changes"):
        files.source(path)


def test_a_text_that_is_not_utf8_is_named_with_its_row(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", {"posts": [["text", "joy"], ["fine", 1], ["fine", 0]]})
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("INSERT INTO posts VALUES (CAST(x'63616665e9' AS TEXT), 1)")
    with pytest.raises(UserError, match=r"row 3, column text: byte 0xe9 is not UTF-8"):
        sources.read_corpus(data_settings(path=path))


@pytest.mark.parametrize("content", [b"SQLite format 3\x00", b"text,joy\n", b"SQLite format 3\x00" + bytes(5000)])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.db"):
        files.source(tmp_path / "a.db")


def test_a_damaged_description_of_a_table_is_told_though_it_is_not_utf8(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", {"posts": ROWS})
    content = path.read_bytes()
    assert content.count(b"CREATE TABLE") == 1
    path.write_bytes(content.replace(b"CREATE TABLE", b"CREATE TAB\xa8E"))
    with pytest.raises(UserError, match=r"a\.db"):
        files.source(path)


def test_predict_reads_a_table(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", {"posts": ROWS})
    assert list(tables.read_texts(files.source(path), text_columns()))[2] == ("2", "text 2")
