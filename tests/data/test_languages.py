from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import official
from helpers.tables import data_settings

from emotion_lightning.data import languages, sources
from emotion_lightning.data.decisions import Decisions
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.errors import UserError


def read(option: str, **chosen: Any) -> Corpus:
    return sources.read_corpus(data_settings(option, **chosen))


@pytest.mark.parametrize("sizes", [[9, 9, 9], [1, 30, 2], [30, 1, 30], [0, 5]])
@pytest.mark.parametrize("most", [1, 5, 20, None])
def test_no_file_gives_more_than_its_share_and_all_together_what_is_asked(sizes: list[int], most: int | None) -> None:
    taken = languages.shares(sizes, most)
    assert sum(taken) == (sum(sizes) if most is None else min(most, sum(sizes)))
    assert all(number <= size for number, size in zip(taken, sizes, strict=True))
    short = [number for number, size in zip(taken, sizes, strict=True) if number < size]
    full = [number for number, size in zip(taken, sizes, strict=True) if number == size]
    assert not short or (max(short) - min(short) <= 1 and max(full, default=0) <= min(short) + 1)
    assert short == sorted(short, reverse=True)


@pytest.mark.parametrize("given", [[], ["en", "en"]])
@pytest.mark.parametrize("name", ["languages", "test_languages"])
def test_an_empty_or_doubled_language_is_refused(settings: Any, name: str, given: list[str]) -> None:
    with pytest.raises(UserError, match=rf"data\.{name}=\[.*\] must name one language"):
        settings("data=xed", "data.dir=x", f"data.{name}=[{','.join(given)}]")


def test_shares_that_leave_nothing_to_train_on_are_refused(settings: Any) -> None:
    with pytest.raises(UserError, match="leave no rows to train on"):
        settings("data=xed", "data.dir=x", "data.validation_share=0.5", "data.test_share=0.5")


@pytest.mark.parametrize(("option", "address"), [("xed", "Helsinki-NLP/XED"), ("brighter", "SemEval2025-Task11")])
def test_a_folder_that_is_missing_or_another_one_is_said_with_where_the_files_are(
    tmp_path: Path, option: str, address: str
) -> None:
    looked = {"xed": "AnnotatedData/en-annotated.tsv", "brighter": "track_a/train/eng.csv"}[option]
    for chosen, message in (
        (None, f"data={option} needs data.dir=FOLDER"),
        (tmp_path / "nowhere", r"data\.dir=.*nowhere is not a folder"),
        (tmp_path, f"has no {looked}"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read(option, dir=chosen)
        assert address in str(error.value) and "licen" in str(error.value).lower().replace("cc by", "licence")
        assert "\n" not in str(error.value)


def test_many_files_of_languages_are_one_line_for_each_split() -> None:
    files = [
        {"split": split, "path": f"a/{name}.csv", "language": name, "format": "csv", "rows": 10}
        for split in ("train", "test")
        for name in "abcdefghij"[: 10 if split == "train" else 2]
    ]
    files[3]["left_out"] = {"without a text": 2}
    lines = Decisions(files=files).lines()
    assert lines[:3] == [
        ("file (train)", "a …, 10 files of 10 languages, 100 rows, 2 left out"),
        ("file (test)", "a/a.csv, csv, 10 rows"),
        ("file (test)", "a/b.csv, csv, 10 rows"),
    ]


def test_carried_columns_follow_their_rows_through_splits_and_mappings(tmp_path: Path) -> None:
    official.xed(tmp_path, repeat=4)
    chosen = {"dir": tmp_path, "languages": ["en", "de"], "merge": {"good": ["joy", "trust"]}, "drop_labels": ["fear"]}
    settings = data_settings("xed", **chosen)
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    assert "good" in corpus.labels and "fear" not in corpus.labels
    for rows in corpus.splits.values():
        assert rows.carried["language"] == [text[:2] for text in rows.texts] == [name[:2] for name in rows.ids]
    assert sum(map(len, corpus.splits.values())) == 4 * (8 + 3 + 8)


def test_a_mapping_keeps_the_turns_before_a_text() -> None:
    from emotion_lightning.data import label_map

    rows = Rows(["1"], ["so"], np.array([[1.0, 0.0]], np.float32), before=[("well",)], conversations=["a"])
    mapped = label_map.mapped(
        Corpus(["joy", "love"], {"train": rows}), data_settings("file", path="x", rename={"joy": "glee"})
    )
    assert (mapped.splits["train"].before, mapped.splits["train"].conversations) == ([("well",)], ["a"])
