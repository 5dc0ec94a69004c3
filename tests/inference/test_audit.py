"""The command audit: rows of a run that it did not learn from, the table to mend, and texts to label."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_in_process
from helpers.tables import data_settings, write_csv

from emotion_lightning.data import sources
from emotion_lightning.errors import UserError
from emotion_lightning.inference import held_out

Folder = Callable[..., Path]
GLAD, CROSS = "glad happy sunny smile", "cross furious shout slam"


def rows(count: int = 60, *, wrong: tuple[int, ...] = ()) -> list[list[Any]]:
    """Texts whose words say which of two labels they have; the labels of the rows in `wrong` are exchanged."""
    found: list[list[Any]] = [["text", "joy", "anger"]]
    for i in range(count):
        words = (GLAD if i % 2 else CROSS).split()
        joy = (i % 2 == 1) != (i in wrong)
        found.append([f"{words[i % 4]}, {words[(i + 1) % 4]} and {words[i // 4 % 4]} {i}", int(joy), int(not joy)])
    return found


WRONG = (10, 23, 41)


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of n-gram baselines on a file of one's own, with three wrong rows."""
    work = tmp_path_factory.mktemp("audit")
    write_csv(work / "a.csv", rows(wrong=WRONG))
    for fold in (1, 2, 3):
        asked = ["data=file", f"data.path={work / 'a.csv'}", "data.folds=3", f"data.fold={fold}", "word_ngrams=[1,1]"]
        assert run_in_process("baseline", *asked, f"hydra.run.dir={work / 'runs' / str(fold)}") == 0
    return work


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "audit.csv").read_text(encoding="utf-8"), newline="")))


def test_folds_answer_every_row_and_wrong_ones_come_first(run: Any, folds: Path, tmp_path: Path) -> None:
    assert run("audit", f"run={folds / 'runs'}", "rows=5", "hydra.run.dir=out") == 0
    found = table(tmp_path / "out")
    assert len(found) == 60 and all(row["suspicion"] for row in found)
    assert {row["id"] for row in found[:3]} == {str(i + 1) for i in WRONG}
    first = found[0]
    given, other = ("joy", "anger") if first["joy"] == "1" else ("anger", "joy")
    assert f"{given} unwarranted" in first["doubts"] and f"{other} missing" in first["doubts"]
    said = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert said["audited"] == said["rows"] == 60 and said["runs"] == 3 and len(said["most_suspicious"]) == 5
    assert said["labels"]["joy"]["rows"] == 29
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert page.count("<tr data-row") == 5 + 2  # rows in doubt, labels


def test_the_table_reads_back_as_the_data_was(run: Any, folds: Path, tmp_path: Path) -> None:
    assert run("audit", f"run={folds / 'runs'}", "hydra.run.dir=out") == 0
    settings = data_settings(path=folds / "a.csv")
    before = sources.split_corpus(sources.read_corpus(settings), settings)
    again = sources.read_corpus(data_settings(path=tmp_path / "out" / "audit.csv"))
    assert again.labels == before.labels
    for name, part in before.splits.items():
        old, new = (dict(zip(x.texts, map(tuple, x.targets), strict=True)) for x in (part, again.splits[name]))  # type: ignore[arg-type]
        assert old == new


def test_one_run_answers_validation_and_test_only(run: Any, folds: Path, tmp_path: Path, capfd: Any) -> None:
    asked = ["data=file", f"data.path={folds / 'a.csv'}", "word_ngrams=[1,1]", "hydra.run.dir=run"]
    assert run("baseline", *asked) == 0 and run("audit", "run=run", "hydra.run.dir=out") == 0
    found = table(tmp_path / "out")
    assert [bool(row["suspicion"]) for row in found] == [True] * 12 + [False] * 48
    assert {row["split"] for row in found[:12]} == {"validation", "test"}
    assert "12 of 60 rows were answered" in capfd.readouterr().err


def test_probabilities_of_seeds_are_averaged(folds: Path) -> None:
    one = held_out.read_held_out(str(folds / "runs" / "1"))
    twice = held_out.read_held_out(f"[{folds / 'runs' / '1'},{folds / 'runs' / '1'}]")
    assert twice.runs == 2 and np.array_equal(one.probabilities, twice.probabilities, equal_nan=True)
    every = held_out.read_held_out(str(folds / "runs"))
    assert len(every.answered) == 60 and len(one.answered) < 30
    inside = [i for i in one.answered if one.splits[i] != "test"]
    assert np.array_equal(one.probabilities[inside], every.probabilities[inside])


def test_equal_texts_with_other_labels_are_named(run: Any, tmp_path: Path) -> None:
    content = rows(40)
    content[8] = ["We  Won", 1, 0]
    content[31] = ["we won", 0, 1]
    write_csv(tmp_path / "a.csv", content)
    assert run("baseline", "data=file", "data.path=a.csv", "word_ngrams=[1,1]", "hydra.run.dir=run") == 0
    assert run("audit", "run=run", "hydra.run.dir=out") == 0
    by_id = {row["id"]: row for row in table(tmp_path / "out")}
    assert (by_id["8"]["same_text_as"], by_id["31"]["same_text_as"]) == ("31", "8")
    assert sum(bool(row["same_text_as"]) for row in by_id.values()) == 2


def raters(path: Path, *, per_text: int = 4) -> Path:
    """A row for each annotator of a text; `wild` gives labels at random."""
    drawn = random.Random(1)
    found: list[list[Any]] = [["text", "rater", "joy", "anger"]]
    for text, *labels in rows(80)[1:]:
        for rater in drawn.sample(["ann", "bob", "cat", "dan", "wild"], per_text):
            said = [drawn.randint(0, 1) if rater == "wild" or drawn.random() < 0.1 else label for label in labels]
            found.append([text, rater, *said])
    found.append(["nobody else saw this", "hermit", 1, 0])
    return write_csv(path, found)


@pytest.mark.parametrize("rule", ["share", "majority"])
def test_an_annotator_who_differs_from_all_others_comes_first(run: Any, tmp_path: Path, rule: str, capfd: Any) -> None:
    data = raters(tmp_path / "a.csv")
    asked = ["data=file", f"data.path={data}", "data.annotator=rater", f"data.aggregate={rule}", "word_ngrams=[1,1]"]
    assert run("baseline", *asked, "hydra.run.dir=run") == 0
    capfd.readouterr()
    assert run("audit", "run=run", "hydra.run.dir=out") == 0
    with (tmp_path / "out" / "annotators.csv").open(encoding="utf-8", newline="") as file:
        first, *others = csv.DictReader(file)
    assert first["annotator"] == "wild" and first["differs"] == "yes" and float(first["high"]) < 0
    assert {row["annotator"]: row["differs"] for row in others} == dict.fromkeys(["ann", "bob", "cat", "dan"], "no")
    assert float(first["rate_joy"]) != float(first["others_joy"]) and float(first["kappa"]) < 0.2
    said = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [one["name"] for one in said["annotators"]][0] == "wild"
    shown = capfd.readouterr()
    assert "Annotators who differ" in shown.out and "Of 5 annotators, 1 agree less" in shown.err
    assert "Without a text that two others labelled too: 1 annotator." in shown.err
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "Annotators who differ" in page and "wild" in page


def test_of_pairs_it_is_not_known_who_differs(run: Any, tmp_path: Path, capfd: Any) -> None:
    data = raters(tmp_path / "a.csv", per_text=2)
    asked = ["data=file", f"data.path={data}", "data.annotator=rater", "word_ngrams=[1,1]", "hydra.run.dir=run"]
    assert run("baseline", *asked) == 0 and run("audit", "run=run", "hydra.run.dir=out") == 0
    shown = capfd.readouterr()
    assert "Annotators by agreement" in shown.out and "so it is not known which of them differs: " in shown.err
    with (tmp_path / "out" / "annotators.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["differs"] for row in found} == {row["kappa_among_others"] for row in found} == {""}


def test_data_that_does_not_say_who_labelled_compares_no_annotators(
    run: Any, folds: Path, tmp_path: Path, capfd: Any
) -> None:
    assert run("audit", f"run={folds / 'runs'}", "hydra.run.dir=out") == 0
    assert "does not say who labelled a text, so annotators are not compared." in capfd.readouterr().err
    assert not (tmp_path / "out" / "annotators.csv").exists()
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["annotators"] is None


def test_changed_data_and_runs_of_other_data_are_refused(run: Any, folds: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", rows(40))
    assert run("baseline", "data=file", "data.path=a.csv", "word_ngrams=[1,1]", "hydra.run.dir=run") == 0
    with pytest.raises(UserError, match="other data"):
        held_out.read_held_out(f"[{folds / 'runs' / '1'},{tmp_path / 'run'}]")
    write_csv(tmp_path / "a.csv", rows(50))
    with pytest.raises(UserError, match=r"has no split for the row"):
        held_out.read_held_out(str(tmp_path / "run"))


def test_texts_to_label_are_chosen(run: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", [["comment"], *([f"{WORD} {i % 9}"] for i in range(30) for WORD in ["ok"])])
    assert run("audit", "input=new.csv", "data.text=comment", "rows=4", "hydra.run.dir=out") == 0
    with (tmp_path / "out" / "to_label.csv").open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file)
    assert header[:2] == ["id", "text"] and header[-1] == "uncertainty" and len(header) == 14
    assert len({row[1] for row in found}) == 4 and not any(cell for row in found for cell in row[2:-1])


def test_without_a_run_there_is_nothing_to_audit(run: Any, capfd: Any) -> None:
    assert run("audit") == 2
    assert "audit needs a run: run=FOLDER" in capfd.readouterr().err
