"""`predict explain=true`, as a user types it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_lightning.inference import attribution

pytest.importorskip("captum")
Run = Callable[..., int]
TEXT = "So happy that it's over"


def test_one_text_is_printed_with_the_words_of_each_label_asked_for(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", f"text={TEXT}", "explain=true", "explain_labels=[joy,fear]", "explain_steps=8") == 0
    shown = capsys.readouterr().out
    assert "Emotions: joy" in shown and "\njoy\nSo" in shown and "\nfear\n" in shown and "happy[+" in shown
    assert list(Path().iterdir()) == []


def test_a_file_gets_a_column_whose_offsets_point_into_its_texts(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    texts = [TEXT, "I am afraid 😂 of <b>dogs</b>, cats", "hm"]
    Path("in.jsonl").write_text("".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts)))
    asked = ["input=in.jsonl", "explain=true", "explain_steps=4"]
    assert run("predict", *asked, "output=out.csv") == 0
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [name for name in rows[0] if f"p_{name}" in rows[0]]
    for row, text in zip(rows, texts, strict=True):
        found = json.loads(row["explanation"])
        assert all(text[one["start"] : one["end"]] == one["word"] for one in found)
        predicted = [name for name in labels if row[name] == "1"]
        likely = [max(labels, key=lambda name: float(row[f"p_{name}"]))]
        assert list(dict.fromkeys(one["label"] for one in found)) == (predicted or likely)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["explain_labels=[joy]"], "explain_labels needs explain=true."),
        (["explain=true", "explain_labels=[glee]"], "There is no label glee to explain; the labels are anger, "),
        (["explain=true", "devices=2"], "explain=true runs in one process; leave out devices=2."),
        (["explain=true", "explain_steps=0"], "explain_steps=0 is out of range: it must be at least 1"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(
    run: Run, capsys: pytest.CaptureFixture[str], asked: list[str], message: str
) -> None:
    Path("in.txt").write_text("hm\n")
    assert run("predict", "input=in.txt", "output=out.csv", *asked) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.csv").exists()


@pytest.mark.parametrize("asked", [["text=hm"], ["input=in.txt", "output=out.csv"]])
def test_without_the_extra_the_command_that_installs_it_is_told(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    Path("in.txt").write_text("hm\n")
    monkeypatch.setattr(attribution.importlib.util, "find_spec", lambda name: None)
    assert run("predict", *asked, "explain=true") == 2
    assert "Explanations need Captum: pip install -e " in capsys.readouterr().err
