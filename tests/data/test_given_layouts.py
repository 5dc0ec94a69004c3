"""Emotion data in the layouts in which people hand it around; every file here is invented."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import data_settings

from emotion_lightning.data import sources
from emotion_lightning.data.rows import WHOLE, Corpus
from emotion_lightning.errors import UserError

WORDS = ["anger", "joy", "sadness", "fear"]
TEXTS = ["who broke my mug", "we won the raffle", "nobody wrote back", "noise in the cellar"]
XED = ["anger", "anticipation", "disgust", "fear", "joy", "sadness", "surprise", "trust"]


def text(number: int) -> str:
    return f"{TEXTS[number % 4]} {number}"


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def written(path: Path, header: list[str], rows: list[list[Any]], encoding: str = "utf-8") -> Path:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([header, *rows])
    return write(path, lines.getvalue(), encoding)


def one_hot(path: Path, yes: str, no: str, names: list[str] = WORDS) -> Path:
    rows = [[text(i), *(yes if i % len(names) == j else no for j in range(len(names)))] for i in range(24)]
    return written(path, ["text", *names], rows)


def read(path: Path, **chosen: Any) -> Corpus:
    return sources.read_corpus(data_settings(path=path, **chosen))


def refusal(path: Path, **chosen: Any) -> str:
    with pytest.raises(UserError) as raised:
        read(path, **chosen)
    return str(raised.value)


def labels_of(corpus: Corpus, split: str = WHOLE) -> list[set[str]]:
    targets = corpus.splits[split].targets
    assert targets is not None
    return [{name for name, there in zip(corpus.labels, row, strict=True) if there} for row in targets]


# ------------------------------------------------------------------------------------------------- rows of annotators


def by_annotators(path: Path, *, by: str = "rater_id", flag: str | None = "example_very_unclear") -> Path:
    header = ["text", "id", "author", "created_utc", by, *([flag] if flag else []), *WORDS]
    rows = []
    for i in range(12):
        for rater in range(3):
            shown = [i % 4 == j or (rater == 2 and j == 3) for j in range(4)]
            unclear = ["TRUE" if i == 5 and rater == 1 else "FALSE"] if flag else []
            rows.append([text(i), f"e{i}", "someone", 1548381039.0, rater, *unclear, *map(int, shown)])
    return written(path, header, rows[::2] + rows[1::2])


@pytest.mark.parametrize(
    ("by", "flag"), [("rater_id", "example_very_unclear"), ("annotator", "is_unclear"), ("worker_id", None)]
)
def test_rows_of_annotators_are_known_by_one_sentence(tmp_path: Path, by: str, flag: str | None) -> None:
    path = by_annotators(tmp_path / "goemotions_1.csv", by=by, flag=flag)
    message = refusal(path)
    assert len(message.splitlines()) == 1
    assert "24 rows have the id and the text of an earlier row" in message and f"(column {by}" in message
    assert "data.aggregate=majority" in message
    assert flag is None or f"{flag} is a flag, no label" in message
    found = read(path, aggregate="majority")
    assert found.labels == WORDS
    assert labels_of(found)[0] == {"anger"} and len(found.splits[WHOLE]) == 12


def test_annotators_in_several_files_are_joined_by_the_ids_of_all(tmp_path: Path) -> None:
    whole = by_annotators(tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(3):
        part = "".join([whole[0], *whole[1 + 12 * number : 13 + 12 * number]])
        write(folder / f"goemotions_{number + 1}.csv", part)
    message = refusal(folder)
    assert len(message.splitlines()) == 1 and "data.aggregate=majority" in message
    together, apart = read(tmp_path / "whole.csv", aggregate="majority"), read(folder, aggregate="majority")
    assert apart.splits[WHOLE].ids == together.splits[WHOLE].ids and labels_of(apart) == labels_of(together)


# ---------------------------------------------------------------------------------------------- texts with labels, .txt


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        ([f"i feel {text(i)};{WORDS[i % 4]}" for i in range(20)], "i feel who broke my mug 0"),
        ([f"i feel {text(i)}; really;{WORDS[i % 4]}" if i % 3 else f"x {i};{WORDS[i % 4]}" for i in range(20)], "x 0"),
        ([f"{text(i)}, and again,{WORDS[i % 4]}" for i in range(20)], "who broke my mug 0, and again"),
        ([f"{text(i)}\t{WORDS[i % 4]}" for i in range(3)], "who broke my mug 0"),
    ],
)
def test_lines_that_end_in_a_label_are_asked_about_and_read_by_the_line_of_settings(
    tmp_path: Path, lines: list[str], first: str
) -> None:
    path = write(tmp_path / "train.txt", "\n".join(lines) + "\n")
    assert "data.header=none data.columns=[text,label]" in refusal(path)
    found = read(path, header="none", columns=["text", "label"])
    assert found.splits[WHOLE].texts[0] == first and len(found.splits[WHOLE]) == len(lines)
    assert labels_of(found)[:3] == [{"anger"}, {"joy"}, {"sadness"}]


def test_files_without_a_header_are_asked_about_once(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write(tmp_path / f"{name}.txt", "".join(f"i feel {text(i)};{WORDS[i % 4]}\n" for i in range(20)))
    message = refusal(tmp_path)
    assert len(message.splitlines()) == 1
    assert message.endswith(f"The same in {tmp_path}/val.txt, {tmp_path}/test.txt.")
    found = read(tmp_path, header="none", columns=["text", "label"])
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 20, "validation": 20, "test": 20}


@pytest.mark.parametrize("content", ["so glad\nno, really\nnot again\n", "a; b\nc; d e f g\nh; i\n", ";joy\n;anger\n"])
def test_plain_texts_are_not_taken_for_texts_with_labels(tmp_path: Path, content: str) -> None:
    assert "has texts only" in refusal(write(tmp_path / "a.txt", content))


@pytest.mark.parametrize("name", ["en-annotated.tsv", "en.txt", "en.csv"])
def test_ids_from_one_without_a_header_are_asked_about_and_read(tmp_path: Path, name: str) -> None:
    ids = ["8, 1", "5", "2,3,4"]
    path = write(tmp_path / name, "".join(f"{text(i)}\t{ids[i % 3]}\n" for i in range(24)))
    message = refusal(path)
    assert "data.header=none data.columns=[text,label]" in message
    assert "data.labels=[…] data.first_id=1" in message
    found = read(path, header="none", columns=["text", "label"], labels=XED, first_id=1)
    assert labels_of(found)[:3] == [{"trust", "anger"}, {"joy"}, {"anticipation", "disgust", "fear"}]


# -------------------------------------------------------------------------------------------------- labels in words


@pytest.mark.parametrize(
    ("yes", "no", "setting", "chosen"),
    [
        (
            "yes",
            "no",
            "data.true_values=[yes] data.false_values=[no]",
            {"true_values": ["yes"], "false_values": ["no"]},
        ),
        ("Y", "N", "data.true_values=[y] data.false_values=[n]", {"true_values": ["y"], "false_values": ["n"]}),
        (
            "ja",
            "nein",
            "data.true_values=[ja] data.false_values=[nein]",
            {"true_values": ["ja"], "false_values": ["nein"]},
        ),
        (
            "present",
            "absent",
            "data.true_values=[present] data.false_values=[absent]",
            {"true_values": ["present"], "false_values": ["absent"]},
        ),
        ("x", "", "data.true_values=[x] data.missing=zero", {"true_values": ["x"], "missing": "zero"}),
        ("1", "", "data.missing=zero", {"missing": "zero"}),
        ("0.67", "0.33", "data.present_from=0.5", {"present_from": 0.5}),
        ("3", "0", "data.present_from=1", {"present_from": 1}),
    ],
)
def test_the_message_names_the_settings_that_read_words_and_numbers(
    tmp_path: Path, yes: str, no: str, setting: str, chosen: dict[str, Any]
) -> None:
    path = one_hot(tmp_path / "a.csv", yes, no)
    assert setting in refusal(path)
    assert labels_of(read(path, **chosen))[:4] == [{name} for name in WORDS]


# ---------------------------------------------------------------------------------------------------- names of labels


@pytest.mark.parametrize("name", ["id", "ID", "key"])
def test_zeros_and_ones_under_the_name_of_an_id_are_a_label_aloud(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = one_hot(tmp_path / "a.csv", "1", "0", [name, "ego", "superego"])
    found = read(path)
    assert found.labels == [name, "ego", "superego"]
    assert labels_of(found)[0] == {name}
    assert found.splits[WHOLE].ids[:2] == ["1", "2"]
    assert f"column {name}: holds only 0 and 1" in caplog.text


def test_ids_that_do_not_repeat_stay_ids(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["id", "text", "joy"], [["0", "a", "1"], ["1", "b", "0"]])
    found = read(path)
    assert (found.labels, found.splits[WHOLE].ids) == (["joy"], ["0", "1"])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["text", "joy"], "has a label named text, as a column of prediction files is"),
        (["joy", "p_joy"], "has labels joy and p_joy"),
        (["row", "joy"], None),
    ],
)
def test_names_that_prediction_files_use_are_refused_by_one_sentence(
    tmp_path: Path, names: list[str], sentence: str | None
) -> None:
    rows = [[text(i), i % 2, int(i % 3 == 0)] for i in range(24)]
    path = written(tmp_path / "a.csv", ["tweet", *names], rows)
    message = refusal(path, labels=names)
    assert len(message.splitlines()) == 1
    assert (sentence or "has a label named row") in message


@pytest.mark.parametrize(
    "names",
    [
        ["Intensity/Anger", 'say "joy"', "\U0001f600"],
        ["no one's fear", "joy & love", "a=b", "${x}"],
        [f"emotion {number}" for number in range(120)],
    ],
)
def test_unusual_names_and_many_of_them_are_read(tmp_path: Path, names: list[str]) -> None:
    rows = [[text(i), *(int((i + j) % 3 == 0) for j in range(len(names)))] for i in range(24)]
    found = read(written(tmp_path / "a.csv", ["text", *names], rows))
    assert found.labels == names
    assert labels_of(found)[1] == {name for j, name in enumerate(names) if (1 + j) % 3 == 0}


# ------------------------------------------------------------------------------------------------------ known datasets


def test_meld_is_read(tmp_path: Path) -> None:
    header = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "StartTime"]
    rows = [
        [i + 1, f"{text(i)}, it\x92s so", "Ross", WORDS[i % 4], "neutral", i // 5, i % 5, "00:16:16,059"]
        for i in range(24)
    ]
    found = read(written(tmp_path / "train_sent_emo.csv", header, rows))
    assert found.labels == sorted(WORDS)
    assert found.splits[WHOLE].texts[1] == "we won the raffle 1, it\x92s so"
    assert labels_of(found)[:2] == [{"anger"}, {"joy"}]


def test_isear_is_read_by_the_line_of_settings_in_the_message(tmp_path: Path) -> None:
    lines = "".join(f'{WORDS[i % 4]},"{text(i)} – it’s “so”",\n' for i in range(24))
    path = write(tmp_path / "isear.csv", lines, "cp1252")
    message = refusal(path)
    assert "data.encoding=cp1252" in message and "data.header=none data.columns=[label,text,column_3]" in message
    found = read(path, encoding="cp1252", header="none", columns=["label", "text", "column_3"])
    assert found.splits[WHOLE].texts[0] == "who broke my mug 0 – it’s “so”"
    assert labels_of(found)[:2] == [{"anger"}, {"joy"}]


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["V", "A", "D"], {}),
        (["valence", "arousal", "dominance"], {}),
        (["valence", "arousal"], {"split_column": "none"}),
    ],
)
def test_valence_arousal_and_dominance_are_told_to_be_regression(
    tmp_path: Path, names: list[str], given: dict[str, Any]
) -> None:
    rows = [
        [
            f"a{i}",
            ["train", "dev", "test"][i % 3],
            *(f"{2 + (i * (j + 3) % 7) / 3:.2f}" for j in range(len(names))),
            text(i),
        ]
        for i in range(30)
    ]
    message = refusal(written(tmp_path / "emobank.csv", ["id", "split", *names, "text"], rows), **given)
    assert f"the columns {', '.join(names)} hold" in message and "is regression" in message
    assert "present_from" not in message


def test_labels_beside_valence_are_read(tmp_path: Path) -> None:
    rows = [[text(i), i % 2, 2.5 + i / 10, 3.5] for i in range(24)]
    assert read(written(tmp_path / "a.csv", ["text", "joy", "valence", "arousal"], rows)).labels == ["joy"]


# -------------------------------------------------------------------------------------------------- problems of a kind


def test_many_problems_of_one_kind_are_one_sentence_with_three_examples(tmp_path: Path) -> None:
    records = [{"text": text(i), "labels": {"joy": i} if i % 2 else ["joy"]} for i in range(24)]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    message = refusal(path)
    assert message.count("\n") == 0 and "12 problems of one kind" in message
    assert "row 2, column labels" in message and "row 6" in message and "row 8" not in message
