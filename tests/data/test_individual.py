import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import official
from helpers.tables import data_settings, write_csv

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


# Whether each annotator saw the emotion; None: not asked.
SAYS = {"3,1,0": [1, 1, 0], "0,1,0": [0, 1, 0], "0,0,0": [0, 0, 0], "2,,1": [1, None, 1], "1,,0": [1, None, 0],
        "0,0,1": [0, 0, 1], "1,1,1": [1, 1, 1], "1,2,3": [1, 1, 1]}  # fmt: skip


@pytest.mark.parametrize("layout", ["hin", "deu", "ron"])
def test_what_each_annotator_said_is_kept(tmp_path: Path, layout: str) -> None:
    corpus = read(tmp_path, LAYOUTS[layout])
    assert corpus.judgements is not None and corpus.judgements.labels == ["joy", "sadness"]
    ((rows, places),) = corpus.judgements.labelled()
    assert rows.targets is not None and rows.annotators is not None and rows.open is not None
    found = {
        (text, who): [None if is_open else int(cell) for cell, is_open in zip(cells, opened, strict=True)]
        for text, who, cells, opened in zip(rows.texts, rows.annotators, rows.targets, rows.open, strict=True)
    }
    whose, first = ("who{}@there", 0) if layout == "deu" else ("Annotator-{}", 1)
    expected: dict[Any, Any] = {}
    for text, said in SAID.items():
        for number, pair in enumerate(zip(SAYS[said["Joy"]], SAYS[said["Sadness"]], strict=True)):
            expected[text, f"deu: {whose.format(number + first)}"] = list(pair)
    assert found == expected
    assert len(set(places.tolist())) == len(SAID) and rows.carried == {"language": ["deu"] * len(rows)}


def test_their_agreement_is_told_as_that_of_rows_of_annotators(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["text", "rater", "joy", "sadness"]]
    for text, said in SAID.items():
        for rater, pair in enumerate(zip(SAYS[said["Joy"]], SAYS[said["Sadness"]], strict=True)):
            rows.append([text, f"r{rater}", *("" if vote is None else vote for vote in pair)])
    own = write_csv(tmp_path / "own.csv", rows)
    expected = sources.read_corpus(data_settings(path=own, annotator="rater", missing="mask")).decisions.annotation
    found = read(tmp_path, wide()).decisions.annotation
    assert found is not None and expected is not None
    assert found.labels == expected.labels and found.split == expected.split > 0
    assert (found.annotators, found.rows, found.texts) == (3, 15, 5)
    assert sorted(found.examples) == sorted(expected.examples)


def test_an_annotator_who_says_it_twice_has_two_rows(tmp_path: Path) -> None:
    corpus = read(tmp_path, LAYOUTS["twice"])
    assert corpus.decisions.annotation is not None and corpus.decisions.annotation.repeated == 3
    assert corpus.judgements is not None
    ((rows, _),) = corpus.judgements.labelled()
    assert rows.open is not None and rows.open.sum() == 3 + 2  # sadness was said once, and two cells are blank


def test_annotators_of_several_files_are_other_people(tmp_path: Path) -> None:
    official.write(tmp_path / "individual_labels" / "deu" / "deu_more.csv", [*wide()[:1], *wide()[-2:]])
    corpus = read(tmp_path, wide()[:-2])
    assert corpus.judgements is not None
    ((rows, _),) = corpus.judgements.labelled()
    assert {str(name).split(":")[0] for name in rows.annotators or []} == {"deu_individuals", "deu_more"}


def test_what_annotators_said_is_merged_like_the_labels(tmp_path: Path) -> None:
    corpus = read(tmp_path, wide(), merge={"strong": ["joy", "sadness"]})
    assert corpus.labels == ["strong"] and corpus.judgements is not None
    ((rows, _),) = corpus.judgements.labelled()
    assert corpus.judgements.labels == ["strong"] and rows.targets is not None and rows.targets.shape[1] == 1
    assert corpus.decisions.annotation is not None and set(corpus.decisions.annotation.labels) == {"strong"}


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
