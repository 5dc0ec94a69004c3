from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import official
from helpers.tables import data_settings

from emotion_lightning.config import checks
from emotion_lightning.data import sources
from emotion_lightning.data.rows import Corpus
from emotion_lightning.errors import UserError


def read(folder: Path, **chosen: Any) -> Corpus:
    return sources.read_corpus(data_settings("brighter", dir=folder, **chosen))


def names(corpus: Corpus, split: str) -> list[list[str]]:
    targets = corpus.splits[split].targets
    assert targets is not None
    return [[corpus.labels[i] for i, value in enumerate(row) if value] for row in targets]


LAYOUTS = {
    "a release": ("track_a/{}", "."),
    "the clone": ("task-dataset/semeval-2025-task11-dataset/track_a/{}", "."),
    "its inner folder": (
        "task-dataset/semeval-2025-task11-dataset/track_a/{}",
        "task-dataset/semeval-2025-task11-dataset",
    ),
    "the competition": ("public_data/{}/track_a", "."),
    "track A alone": ("track_a/{}", "track_a"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_are_found(tmp_path: Path, layout: str) -> None:
    places, inner = LAYOUTS[layout]
    official.brighter(tmp_path, layout=places)
    corpus = read(tmp_path / inner)
    assert {name: len(rows) for name, rows in corpus.splits.items()} == {"train": 12, "validation": 6, "test": 6}


def test_languages_are_rows_of_one_set_with_a_column_that_names_them(tmp_path: Path) -> None:
    corpus = read(official.brighter(tmp_path, ["deu", "rus"]), languages=["rus", "deu"])
    train = corpus.splits["train"]
    assert corpus.labels == list(official.EMOTIONS)
    assert train.carried == {"language": ["rus"] * 6 + ["deu"] * 6}
    assert train.ids[0] == "rus_train_track_a_00000" and train.texts[6] == "deu train, sentence 0"
    assert names(corpus, "train")[:3] == [["anger", "disgust"], ["disgust", "joy"], ["fear", "surprise"]]
    assert list(corpus.hashes) == [
        f"{split} {name}" for split in ("train", "validation", "test") for name in ("rus", "deu")
    ]


def test_labels_that_a_language_lacks_are_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = official.brighter(tmp_path, ["afr", "deu", "eng"])
    corpus = read(folder)
    assert corpus.labels == ["anger", "fear", "joy", "sadness"]
    sentence = (
        "Labels are those that all languages have: anger, fear, joy, sadness. Left out: disgust, which eng lacks; "
        "surprise, which afr lacks."
    )
    assert caplog.messages == [sentence] and corpus.decisions.notes == [sentence]
    # A column that is left out takes no other with it.
    own = read(folder, languages=["deu"])
    both = read(folder, languages=["deu", "eng"])
    assert [[name for name in row if name != "disgust"] for row in names(own, "train")] == names(both, "train")[:6]
    assert own.decisions.notes == [] and "disgust" not in both.labels


def test_labels_that_a_language_lacks_are_left_open_with_mask(tmp_path: Path) -> None:
    folder = official.brighter(tmp_path, ["afr", "deu", "eng"])
    corpus = read(folder, missing="mask")
    assert corpus.labels == list(official.EMOTIONS)
    train = corpus.splits["train"]
    assert train.open is not None and train.targets is not None
    lacking = {"afr": [5], "deu": [], "eng": [1]}
    assert [np.flatnonzero(row).tolist() for row in train.open] == [
        lacking[name]
        for name in train.carried["language"]  # type: ignore[index]
    ]
    # What a language has is as it is when it is read alone.
    for name in ("afr", "deu", "eng"):
        alone = read(folder, languages=[name])
        own = [i for i, language in enumerate(train.carried["language"]) if language == name]
        places = [corpus.labels.index(label) for label in alone.labels]
        assert train.targets[own][:, places].tolist() == alone.splits["train"].targets.tolist()  # type: ignore[union-attr]
    assert corpus.decisions.open == {"anger": 0, "disgust": 12, "fear": 0, "joy": 0, "sadness": 0, "surprise": 12}
    assert read(folder, languages=["deu"], missing="mask").splits["train"].open is None


def test_test_languages_count_for_the_labels_too(tmp_path: Path) -> None:
    corpus = read(official.brighter(tmp_path, ["deu", "eng"]), languages=["deu"], test_languages=["eng"])
    assert corpus.labels == ["anger", "fear", "joy", "sadness", "surprise"]
    found = {name: set(rows.carried["language"]) for name, rows in corpus.splits.items()}
    assert found == {"train": {"deu"}, "validation": {"deu"}, "test": {"eng"}}
    assert corpus.decisions.split == "the data has its own, test in eng"


def test_languages_that_are_only_tested_on_come_from_track_c(tmp_path: Path) -> None:
    official.brighter(tmp_path, ["deu"])
    official.brighter(tmp_path, ["zul"], layout="track_c/{}")
    corpus = read(tmp_path, languages=["deu"], test_languages=["deu", "zul"])
    assert corpus.splits["test"].carried["language"] == ["deu"] * 3 + ["zul"] * 3
    with pytest.raises(UserError, match=r"no track_a/train/zul\.csv for the language zul; its languages are deu\."):
        read(tmp_path, languages=["zul"])


def test_test_files_without_labels_are_no_part_of_a_test_split_with_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = official.brighter(tmp_path, ["deu", "rus"])
    blind = folder / "track_a" / "test" / "rus.csv"
    official.write(blind, official.brighter_lines("rus", "test", 3, labelled=False))
    assert read(folder).splits["test"].carried["language"] == ["deu"] * 3
    assert caplog.messages == [f"Test files without labels are not in the test split: {blind}."]
    alone = read(folder, languages=["rus"]).splits["test"]
    assert (len(alone), alone.targets) == (3, None)


def test_files_without_labels_are_refused_for_train(tmp_path: Path) -> None:
    folder = official.brighter(tmp_path, ["deu"])
    official.write(folder / "track_a/dev/deu.csv", official.brighter_lines("deu", "dev", 3, labelled=False))
    with pytest.raises(UserError, match=r"dev/deu\.csv has no labels, which validation needs"):
        read(folder)


def test_a_language_without_a_test_file_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = official.brighter(tmp_path, ["deu", "rus"])
    (folder / "track_a/test/rus.csv").unlink()
    assert read(folder).splits["test"].carried["language"] == ["deu"] * 3
    assert "no rus.csv: the language rus is not in the test split" in caplog.text
    (folder / "track_a/dev/rus.csv").unlink()
    with pytest.raises(UserError, match=r"has no track_a/dev/rus\.csv, which the language rus needs; .*SemEval2025"):
        read(folder)


def test_files_of_a_language_with_different_labels_are_refused(tmp_path: Path) -> None:
    folder = official.brighter(tmp_path, ["deu"])
    official.write(folder / "track_a/dev/deu.csv", ["id,text,anger,joy", "a,b,0,1"])
    with pytest.raises(
        UserError, match=r"dev/deu\.csv: its labels are anger, joy, those of .*train/deu\.csv are anger, "
    ):
        read(folder)


def test_other_files_beside_those_of_languages_are_no_languages(tmp_path: Path) -> None:
    folder = official.brighter(tmp_path, ["deu"])
    official.write(folder / "track_a/train/ron_track1_test.csv", official.brighter_lines("ron", "train", 3))
    assert set(read(folder).splits["train"].carried["language"]) == {"deu"}


def test_rows_are_drawn_from_each_language_alike(tmp_path: Path) -> None:
    rows = read(official.brighter(tmp_path, ["deu", "rus", "swe"]), max_rows=7).splits["train"]
    assert [rows.carried["language"].count(name) for name in ("deu", "rus", "swe")] == [3, 2, 2]
    assert [identifier[-1] for identifier in rows.ids] == ["0", "1", "2", "0", "1", "0", "1"]


HEADER = "id,text,anger,fear\n"
WRONG = {
    "intensities": (HEADER + "a,b,0,2\n", r"train/deu\.csv, row 1, column fear: 2 is an intensity, so this is track B"),
    "another number": (HEADER + "a,b,0,1\na,b,7,1\n", r"deu\.csv, row 2, column anger: '7' where 0 or 1 is due"),
    "some blank": (HEADER + "a,b,0,1\na,b,,1\n", r"deu\.csv, row 2, column anger: '' where 0 or 1 is due"),
    "a cell too many": (HEADER + "a,b,0,1,1\n", r"row 1: 5 cells under a header of 4"),
    "another header": ("text,labels\nhi,joy\n", r"deu\.csv: its first line is not that of track A.* but text,labels;"),
    "another emotion": ("id,text,joy,love\na,b,0,1\n", r"but id,text,joy,love; data\.dir"),
    "a doubled emotion": ("id,text,joy,Joy\na,b,0,1\n", r"but id,text,joy,Joy;"),
    "empty": ("", r"deu\.csv: its first line is not that of track A.* but empty;"),
    "header only": (HEADER, r"deu\.csv has a header and no rows"),
    "not UTF-8": (HEADER + "a,fr\udcf6hlich,0,1\n", r"deu\.csv is not UTF-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_reported(tmp_path: Path, case: str) -> None:
    content, message = WRONG[case]
    folder = official.brighter(tmp_path, ["deu"])
    (folder / "track_a/train/deu.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        read(folder)
    assert str(error.value).count("\n") == 0


def test_headers_in_another_case_and_decimals_are_read(tmp_path: Path) -> None:
    folder = official.brighter(tmp_path, ["deu"])
    (folder / "track_a/train/deu.csv").write_text("id,text,Joy,Anger\na,b,1.0,0.0\n", encoding="utf-8-sig")
    for split in ("dev", "test"):
        (folder / f"track_a/{split}/deu.csv").write_text("id,text,anger,joy\na,c,0,1\n")
    corpus = read(folder)
    assert (corpus.labels, names(corpus, "train"), names(corpus, "test")) == (["anger", "joy"], [["joy"]], [["joy"]])


def test_rows_without_a_text_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = official.brighter(tmp_path, ["deu"])
    (folder / "track_a/train/deu.csv").write_text(
        ",".join(["id", "text", *official.EMOTIONS]) + "\na, ,0,0,0,0,0,0\nb,c,1,0,0,0,0,0\n"
    )
    corpus = read(folder)
    assert corpus.splits["train"].ids == ["b"]
    assert corpus.decisions.files[0]["left_out"] == {"without a text": 1}


def track_b(folder: Path) -> Path:
    official.brighter(folder, ["deu", "eng"], layout="track_b/{}")
    for path in folder.glob("track_b/*/*.csv"):
        header, *lines = path.read_text().splitlines()
        # Every third row has its labels at their strongest, the others at 1.
        strong = [line.replace(",1", ",3") if i % 3 == 0 else line for i, line in enumerate(lines)]
        official.write(path, [header, *strong])
    return folder


def test_intensities_of_track_b_are_learned_as_shares_of_three(tmp_path: Path) -> None:
    folder = track_b(tmp_path)
    corpus = read(folder, track="b", languages=["deu"])
    train = corpus.splits["train"]
    assert corpus.labels == list(official.EMOTIONS) and train.scale == 3
    assert train.shares is not None and train.targets is not None
    assert sorted({round(float(share), 3) for share in train.shares.flat}) == [0, 0.333, 1]
    assert (train.targets == (train.shares > 0)).all() and train.learned is train.shares
    assert corpus.decisions.labels == "as in the official files, intensities up to 3"
    hard = read(folder, track="b", languages=["deu"], harden=True).splits["train"]
    assert hard.learned is not None and sorted(set(hard.learned.flat)) == [0, 1]
    both = read(folder, track="b", missing="mask").splits["train"]
    assert both.scale == 3 and both.open is not None and both.shares is not None and not both.shares[both.open].any()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [({"track": "b", "individual": True}, "leave out data.track=b"), ({"harden": True}, "or data.track=b")],
)
def test_settings_of_brighter_that_contradict_each_other_are_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checks.check_data(SimpleNamespace(data=data_settings("brighter", dir="x", **chosen)), "train")


def test_track_b_without_its_folder_and_wrong_cells_are_refused(tmp_path: Path) -> None:
    official.brighter(tmp_path / "a", ["deu"])
    with pytest.raises(UserError, match=r"has no track_b/train/eng\.csv"):
        read(tmp_path / "a", track="b")
    folder = track_b(tmp_path / "b")
    path = folder / "track_b" / "train" / "deu.csv"
    path.write_text(path.read_text().replace(",3", ",4", 1))
    with pytest.raises(UserError, match=r"track_b/train/deu\.csv, row 1, column \w+: '4' where 0 to 3 is due"):
        read(folder, track="b", languages=["deu"])
