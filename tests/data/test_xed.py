from pathlib import Path
from typing import Any

import pytest
from helpers import official
from helpers.tables import data_settings

from emotion_lightning.data import sources, splitting
from emotion_lightning.data.rows import WHOLE, Corpus
from emotion_lightning.data.xed import EMOTIONS
from emotion_lightning.errors import UserError


def read(folder: Path, **chosen: Any) -> Corpus:
    return sources.read_corpus(data_settings("xed", dir=folder, groups=["language", "source"], **chosen))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return official.xed(tmp_path / "XED")


def test_english_lines_are_read_with_the_neutral_ones(folder: Path) -> None:
    corpus = read(folder)
    rows = corpus.splits[WHOLE]
    assert (list(corpus.splits), corpus.labels) == ([WHOLE], EMOTIONS)
    assert rows.texts == [f"en 0 {text}" for text, _ in official.XED_LINES] + [
        f"en 0 {text}" for text in official.XED_NEUTRAL
    ]
    assert rows.ids == [f"en-{i}" for i in range(1, 9)] + [f"en-neutral-{i}" for i in range(1, 4)]
    assert rows.targets is not None
    found = [[EMOTIONS[i] for i, value in enumerate(row) if value] for row in rows.targets]
    assert found == [
        ["anger"], ["anticipation"], ["disgust"], ["fear", "surprise"], ["joy"], ["sadness"], ["surprise"],
        ["joy", "trust"], [], [], [],
    ]  # fmt: skip
    assert rows.carried == {"language": ["en"] * 11, "source": ["annotated"] * 8 + ["neutral"] * 3}
    assert list(corpus.hashes) == ["whole en-annotated", "whole neu_en"]
    assert [file["path"] for file in corpus.decisions.files] == [
        str(folder / "AnnotatedData" / name) for name in ("en-annotated.tsv", "neu_en.txt")
    ]


def test_neutral_lines_are_a_label_or_are_not_read(folder: Path) -> None:
    corpus = read(folder, neutral="label")
    targets = corpus.splits[WHOLE].targets
    assert corpus.labels == [*EMOTIONS, "neutral"] and targets is not None
    assert targets[:, 8].tolist() == [0] * 8 + [1] * 3 and targets[8:, :8].sum() == 0
    assert len(read(folder, neutral="left_out").splits[WHOLE]) == 8


def test_neutral_lines_that_are_missing_are_said(folder: Path) -> None:
    (folder / "AnnotatedData" / "neu_en.txt").unlink()
    with pytest.raises(UserError, match=r"has no neu_en\.txt.*Helsinki-NLP/XED.*data\.neutral=left_out"):
        read(folder)
    assert len(read(folder, neutral="left_out").splits[WHOLE]) == 8


def test_all_languages_are_read_with_null(folder: Path) -> None:
    rows = read(official.xed(folder, projected=["de", "sv"]), languages=None).splits[WHOLE]
    assert list(dict.fromkeys(rows.carried["language"])) == ["en", "fi", "de", "sv"]
    assert len(rows) == 2 * 11 + 2 * 8
    assert len(set(rows.ids)) == len(rows)


def test_projections_of_annotated_languages_have_names_of_their_own(folder: Path) -> None:
    official.xed(folder, projected=["en"])
    rows = read(folder, languages=["en", "en-projections"], neutral="left_out").splits[WHOLE]
    assert rows.carried["language"] == ["en"] * 16
    assert rows.carried["source"] == ["annotated"] * 8 + ["projected"] * 8
    assert rows.ids[8] == "en-projections-1"


def test_files_in_one_folder_without_the_two_of_the_clone_are_found(folder: Path, tmp_path: Path) -> None:
    for place in ("AnnotatedData", "Projections"):
        for file in (folder / place).iterdir():
            file.rename(tmp_path / file.name)
    assert len(read(tmp_path, languages=None).splits[WHOLE]) == 2 * 11 + 8


def test_train_in_one_language_and_test_in_others(folder: Path) -> None:
    settings = data_settings("xed", dir=official.xed(folder, repeat=4), languages=["en"], test_languages=["fi", "de"])
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    languages = {name: set(rows.carried["language"]) for name, rows in corpus.splits.items()}
    assert languages == {"train": {"en"}, "validation": {"en"}, "test": {"fi", "de"}}
    assert len(corpus.splits["test"]) == 4 * (11 + 8)
    assert corpus.decisions.split.startswith("test is in fi, de; by the program")


def test_a_language_for_both_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"de is in data\.languages and in data\.test_languages"):
        read(folder, languages=["en", "de"], test_languages=["de"])


def test_an_unknown_language_names_the_files_and_the_languages(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no AnnotatedData/xx-annotated.tsv or Projections/xx-.* are en, fi, de\.$"):
        read(folder, languages=["xx"])


def test_splits_of_an_earlier_run_are_used_again(folder: Path, tmp_path: Path) -> None:
    chosen = {"dir": official.xed(folder, repeat=5), "languages": ["en", "fi"]}
    settings = data_settings("xed", **chosen)
    first = sources.split_corpus(sources.read_corpus(settings), settings)
    splitting.write_splits(tmp_path / "splits.csv", first)
    again = data_settings("xed", **chosen, splits=str(tmp_path / "splits.csv"), split_seed=7)
    second = sources.split_corpus(sources.read_corpus(again), again)
    assert {name: rows.ids for name, rows in first.splits.items()} == {
        name: rows.ids for name, rows in second.splits.items()
    }


def test_rows_are_drawn_from_each_file_alike(folder: Path) -> None:
    rows = read(folder, languages=None, max_rows=12).splits[WHOLE]
    counts = [f"{a} {b}" for a, b in zip(rows.carried["language"], rows.carried["source"], strict=True)]
    assert {name: counts.count(name) for name in counts} == {
        "en annotated": 3, "en neutral": 3, "fi annotated": 2, "fi neutral": 2, "de projected": 2,
    }  # fmt: skip


LINES = {
    "quoted": ('"He said ""no"", and left."\t6', ['He said "no", and left.']),
    "a quote inside": ('a "quote" inside\t6', ['a "quote" inside']),
    "a header": ("phrase\temotion\nHadi.\t6, 2", ["Hadi."]),
    "no text": ("\t6\nthere\t5", ["there"]),
    "swallowed lines": (
        '"Heul dich aus.\nen/1990/1/2.xml.gz\tde/1990/1/3.xml.gz\t1\t2\tI do.\tJa.\nen/1990/1/2.xml.gz\tx"\t6\n'
        "danach\t5",
        ["Heul dich aus.", "danach"],
    ),
    "swallowed, with spaces": ('Umarım iyidir. en/1990/1/2.xml.gz tr/1990/1/3.xml.gz 3 4 I do.\t6', ["Umarım iyidir."]),
    "a line break of its own": ('"two\nlines"\t6', ["two\nlines"]),
    "neutral as 0": ("nothing here\t0", ["nothing here"]),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_lines_of_projections_are_read_as_they_were_written(folder: Path, case: str) -> None:
    content, texts = LINES[case]
    (folder / "Projections" / "de-projections.tsv").write_text(content + "\n")
    corpus = read(folder, languages=["de"])
    assert corpus.splits[WHOLE].texts == texts
    assert any("swallowed" in note for note in corpus.decisions.notes) == case.startswith("swallowed")
    left_out = corpus.decisions.files[0].get("left_out", {})
    assert left_out == ({"without a text": 1} if case == "no text" else {})


def test_the_other_file_name_of_turkish_is_found(folder: Path) -> None:
    official.write(folder / "Projections" / "tr-projections2.tsv", ["Hadi.\t6"])
    assert read(folder, languages=["tr"]).splits[WHOLE].carried["language"] == ["tr"]


WRONG = {
    "a number too large": (b"ok\t1\nno\t9\n", r"en-annotated.tsv, row 2: labels '9', where .* numbers from 1 to 8"),
    "a word": (b"ok\t1\nno\tanger\n", r"row 2: labels 'anger'"),
    "no labels": (b"ok\t1\nno\t\n", r"row 2: labels ''"),
    "three cells": (b"ok\t1\na\tb\t1\n", r"row 2: 3 cells, where a text, a tab"),
    "commas": (b"text,label\nok,1\n", r"row 1: 1 cells"),
    "empty": (b"", r"en-annotated.tsv has no rows"),
    "latin-1": ("fröhlich\t5\n".encode("latin-1"), r"en-annotated.tsv is not UTF-8 \(byte 2\)"),
    "a quote that is never closed": (b'ok\t1\n"never\t1\nmore\t2\n', r"en-annotated.tsv, row 2: 1 cells"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_reported(folder: Path, case: str) -> None:
    content, message = WRONG[case]
    (folder / "AnnotatedData" / "en-annotated.tsv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [("9 no tab\n", "row 1: '9 no tab', where a number, a tab and a text"), ("x\ttext\n", "row 1: 'x")],
)
def test_a_wrong_neutral_file_is_reported(folder: Path, content: str, message: str) -> None:
    (folder / "AnnotatedData" / "neu_en.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_neutral_lines_without_a_text_are_left_out_and_counted(folder: Path) -> None:
    (folder / "AnnotatedData" / "neu_en.txt").write_text("9\tthere\t\t\t\n\t\t\t\t\n9\t \n\n")
    corpus = read(folder)
    assert corpus.splits[WHOLE].texts[8:] == ["there"]
    assert corpus.decisions.files[1]["left_out"] == {"without a text": 2}
