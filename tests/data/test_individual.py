import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import official
from helpers.tables import data_settings

from emotion_lightning.data import individual, sources
from emotion_lightning.data.rows import Corpus
from emotion_lightning.errors import UserError

SAID = {  # by text: what three annotators said about each emotion
    "deu train, sentence 0": {"Joy": "3,1,0", "Sadness": "0,1,0"},
    "deu train, sentence 1": {"Joy": "0,0,0", "Sadness": "2,,1"},
    "deu train, sentence 2": {"Joy": "1,,0", "Sadness": "0,0,1"},
    "deu dev, sentence 0": {"Joy": "0,0,0", "Sadness": "1,1,1"},
    "deu test, sentence 0": {"Joy": "1,2,3", "Sadness": "0,0,0"},
}
EXPECTED = {"train": [[1, 0], [0, 1], [0, 0]], "validation": [[0, 1]], "test": [[1, 0]]}


def wide(text: str = "text", names: Any = None, annotator: str = "Annotator-{}") -> list[str]:
    """A row for each text and emotion, with a column for each annotator."""
    lines = [",".join(["text_id", text, "emotion", *(annotator.format(i) for i in (1, 2, 3))])]
    for number, (of, said) in enumerate(SAID.items()):
        lines += [f'{number},"{of}",{(names or {}).get(name, name)},{cells}' for name, cells in said.items()]
    return lines


def long() -> list[str]:
    """A row for each text, emotion and annotator."""
    lines = ["id,text,emotion,annotator,intensity"]
    for number, (of, said) in enumerate(SAID.items()):
        for name, cells in said.items():
            lines += [f'{number},"{of}",{name},who{i}@there,{cell}' for i, cell in enumerate(cells.split(","))]
    return lines


LAYOUTS = {
    "hin": wide(),
    "afr": wide("text_content", {"Joy": "happy", "Sadness": "sad"}, "annotator_{}"),
    "ron": wide(names={"Joy": "bucurie", "Sadness": "Tristeţe"}),
    "ukr": [line.replace(",0", ",0.0").replace(",1", ",1.0") for line in wide()],
    "a mark": [line.replace("sentence", "Séntence:  ") for line in wide()],
    "neutral": [*wide(), '0,"deu train, sentence 0",neutral,1,1,1'],
    "a blank line": [*wide()[:4], "", *wide()[4:]],
    "twice": [*wide(), wide()[1]],
    "deu": long(),
}


def read(folder: Path, lines: list[str], **chosen: Any) -> Corpus:
    official.brighter(folder, ["deu"])
    official.write(folder / "individual_labels" / "deu" / "deu_individuals.csv", lines)
    return sources.read_corpus(data_settings("brighter", dir=folder, languages=["deu"], individual=True, **chosen))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_what_most_annotators_saw(tmp_path: Path, layout: str) -> None:
    corpus = read(tmp_path, LAYOUTS[layout])
    assert corpus.labels == ["joy", "sadness"]
    found = {name: rows.targets.astype(int).tolist() for name, rows in corpus.splits.items()}  # type: ignore[union-attr]
    assert found == EXPECTED
    assert [rows.ids[0] for rows in corpus.splits.values()] == [
        "deu_train_track_a_00000", "deu_dev_track_a_00000", "deu_test_track_a_00000",
    ]  # fmt: skip


def test_what_is_left_out_and_how_far_the_labels_agree_is_said(tmp_path: Path) -> None:
    corpus = read(tmp_path, wide())
    # Of the rows of track A, five have annotations; four of their ten labels are other ones there.
    targets = [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]]  # joy and sadness of rows 0, 1, 2 / 0 / 0
    mine = [row for rows in EXPECTED.values() for row in rows]
    same = sum(a == b for one, other in zip(targets, mine, strict=True) for a, b in zip(one, other, strict=True))
    assert corpus.decisions.notes == [
        f"Labels are those of most annotators of a text; {same / 10:.1%} of them are as in track A.",
        "Texts without individual annotations of every label are left out: 7.",
    ]
    assert "individual annotations" in corpus.decisions.labels


RULES = {  # joy and sadness of the three texts in train
    "share": ([[1, 0], [0, 1], [1, 0]], [[2 / 3, 1 / 3], [0, 1], [1 / 2, 1 / 3]]),
    "any": ([[1, 1], [0, 1], [1, 1]], None),
    "at_least_2": ([[1, 0], [0, 1], [0, 0]], None),
}


@pytest.mark.parametrize("rule", RULES)
def test_annotators_are_joined_as_asked(tmp_path: Path, rule: str) -> None:
    labels, shares = RULES[rule]
    rows = read(tmp_path, wide(), aggregate=rule).splits["train"]
    assert rows.targets is not None and rows.targets.tolist() == labels
    if shares is None:
        assert rows.shares is None and not rows.learns_shares
    else:
        assert rows.shares is not None and rows.learns_shares and np.allclose(rows.shares, shares)
        assert not read(tmp_path, wide(), aggregate=rule, harden=True).splits["train"].learns_shares


def test_a_label_without_annotations_is_open_with_mask(tmp_path: Path) -> None:
    lines = [line for line in wide() if not line.startswith('1,"deu train, sentence 1",Joy')]
    assert len(read(tmp_path, lines).splits["train"]) == 2
    corpus = read(tmp_path, lines, missing="mask")
    rows = corpus.splits["train"]
    assert rows.open is not None and rows.open.tolist() == [[False, False], [True, False], [False, False]]
    assert rows.targets is not None and rows.targets.tolist() == EXPECTED["train"]
    assert corpus.decisions.open == {"joy": 1, "sadness": 0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data.aggregate=share"], r"data\.aggregate=share joins what annotators said; add data\.individual=true"),
        (["data.individual=true", "data.harden=true"], r"data\.harden=true makes 0 and 1 of shares; add"),
        (
            ["data.individual=true", "data.aggregate=share", "loss=focal"],
            r"data\.aggregate=share gives shares to learn",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: Any, given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings("data=brighter", "data.dir=x", *given)


def test_a_zipped_file_is_read_where_the_other_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "individual_labels" / "deu"
    corpus = read(tmp_path, wide())
    (folder / "deu_individuals.csv").unlink()
    with zipfile.ZipFile(folder / "deu_individual_intensities.csv.zip", "w") as packed:
        packed.writestr("deu_individual_intensities.csv", "\n".join(long()))
        packed.writestr("__MACOSX/._deu_individual_intensities.csv", b"\x00\x05\x16\x07")
    again = sources.read_corpus(data_settings("brighter", dir=tmp_path, languages=["deu"], individual=True))
    assert [rows.sha256() for rows in again.splits.values()] == [rows.sha256() for rows in corpus.splits.values()]


def test_annotations_are_found_from_the_inner_folders_too(tmp_path: Path) -> None:
    inner = tmp_path / "task-dataset" / "semeval-2025-task11-dataset"
    official.brighter(inner, ["deu"])
    official.write(tmp_path / "individual_labels/deu/deu_individuals.csv", wide())
    for folder in (inner, inner / "track_a"):
        settings = data_settings("brighter", dir=folder, languages=["deu"], individual=True)
        assert sources.read_corpus(settings).labels == ["joy", "sadness"]


WRONG = {
    "another layout": (
        ["text,joy,sadness", "a,0,1"],
        r"deu_individuals\.csv has the columns text, joy, sadness, where",
    ),
    "an unknown emotion": ([*wide(), '0,"deu dev, sentence 0",pride,1,1,1'], r"row 11, column emotion: 'pride' is no"),
    "a cell too large": (
        [*wide(), '0,"deu dev, sentence 0",Joy,1,7,1'],
        r"row 11, column Annotator-2: '7' where 0 to 3",
    ),
    "other texts": (
        [wide()[0], '0,"another text",Joy,1,1,1'],
        r"No text of .*train/deu\.csv has annotations in .*deu_ind",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_annotations_are_reported(tmp_path: Path, case: str) -> None:
    lines, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        read(tmp_path, lines)


def test_missing_annotations_are_said(tmp_path: Path) -> None:
    official.brighter(tmp_path, ["deu", "rus"])
    asked = data_settings("brighter", dir=tmp_path, languages=["rus"], individual=True)
    with pytest.raises(
        UserError, match=r"has no folder individual_labels, which data\.individual=true needs; .*SemEval"
    ):
        sources.read_corpus(asked)
    official.write(tmp_path / "individual_labels/deu/deu_individuals.csv", wide())
    with pytest.raises(
        UserError, match=r"has no rus/rus_individuals\.csv for the language rus; its languages are deu\."
    ):
        sources.read_corpus(asked)


def test_texts_of_signs_alone_are_told_apart() -> None:
    assert individual.text_key("😀") != individual.text_key("😢")
    assert individual.text_key("Straße, 1!") == individual.text_key("strasse 1")
