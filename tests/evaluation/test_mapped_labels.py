"""A run answers for labels that are made of its own, and is scored on data that has only those."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from emotion_lightning.data.label_map import LabelMap
from emotion_lightning.evaluation import mapped_labels, thresholds
from emotion_lightning.evaluation.mapped_labels import Answers

MERGE = "data.merge={bad: [anger, disgust, sadness], good: [joy, love, optimism]}"
REST = "data.drop_labels=[anticipation,fear,pessimism,surprise,trust]"


def test_a_label_is_predicted_where_a_member_is_and_ranks_by_the_largest() -> None:
    raw = torch.tensor([[0.3, 0.6, 0.1], [0.45, 0.2, 0.9]])
    answers = Answers(raw, {"per_label": torch.tensor([0.4, 0.7, 0.5]).double()})
    members = [[0, 1], [2]]
    assert torch.equal(answers.probabilities(members), torch.tensor([[0.6, 0.1], [0.45, 0.9]]))
    # The first row's 0.6 is below its own threshold, and so is no reason, though it is above that of the other member.
    assert answers.decisions(members)["per_label"].tolist() == [[False, False], [True, True]]
    assert answers.thresholds(members)["per_label"].tolist() == pytest.approx([0.4, 0.5])


def test_labels_that_are_themselves_are_answered_as_ever() -> None:
    raw = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    cuts = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    answers = Answers(raw, {"global": cuts})
    members = [[2], [0]]
    assert torch.equal(answers.probabilities(members), raw[:, [2, 0]])
    assert torch.equal(answers.decisions(members)["global"], thresholds.decide(raw, cuts)[:, [2, 0]])
    assert torch.equal(answers.thresholds(members)["global"], cuts[[2, 0]])


def test_what_was_done_is_told_once_where_it_is_the_same_for_both() -> None:
    merge = LabelMap(merge={"bad": ["anger", "fear"]}, drop=["joy"])
    ours = merge.applied(["anger", "fear", "joy"], what="the run")
    theirs = merge.applied(["bad"], what="the data", also=("the run", ["anger", "fear", "joy"]))
    assert mapped_labels.sentences(mapped_labels.plain(ours, theirs, merge))[:2] == [
        "Labels of the run made of others: bad (anger, fear). Labels left out: joy.",
        "Labels of the data as they are.",
    ]
    (first, how) = mapped_labels.sentences(mapped_labels.plain(ours, ours, merge))
    assert first.startswith("Labels of the run and the data made of others") and how == mapped_labels.HOW
    assert mapped_labels.sentences(mapped_labels.plain(ours, theirs, LabelMap())) == []


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline with the eleven labels of the sample."""
    from conftest import run_in_process

    folder = tmp_path_factory.mktemp("runs") / "eleven"
    arguments = ["char_ngrams=null", "thresholds=per_label", f"hydra.run.dir={folder}"]
    assert run_in_process("baseline", *arguments) == 0
    return folder


def test_a_run_of_eleven_labels_is_scored_on_data_of_two(fitted: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    from emotion_lightning.data import official

    with (official.SAMPLE / "test.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    bad = [int("1" in (row["anger"], row["disgust"], row["sadness"])) for row in rows]
    good = [int("1" in (row["joy"], row["love"], row["optimism"])) for row in rows]
    with (tmp_path / "two.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["id", "text", "good", "bad"])
        writer.writerows([row["id"], row["text"], g, b] for row, g, b in zip(rows, good, bad, strict=True))
    shared = ["evaluate", f"run={fitted}", MERGE]
    assert run(*shared, "data=file", "data.path=two.csv", "hydra.run.dir=two") == 0
    printed = capfd.readouterr()
    assert "Labels of the run made of others: bad (anger, disgust, sadness); good (joy, love, optimism)" in (
        " ".join(printed.err.split())
    )
    content = json.loads((tmp_path / "two" / "metrics.json").read_text())
    scores = content["test"]
    assert list(scores["per_label"]["labels"]) == ["bad", "good"] and "loss" not in scores
    assert content["mapping"]["run"]["made_of"]["good"] == ["joy", "love", "optimism"]
    assert content["mapping"]["data"]["made_of"] == {} and content["mapping"]["how"] == mapped_labels.HOW

    # The same, from the run's own prediction file, by scikit-learn.
    with (fitted / "predictions" / "test.csv").open(newline="") as opened:
        own = list(csv.DictReader(opened))
    for name, members, gold in (
        ("bad", ["anger", "disgust", "sadness"], bad),
        ("good", ["joy", "love", "optimism"], good),
    ):
        decided = [int(any(row[member] == "1" for member in members)) for row in own]
        assert scores["per_label"]["labels"][name]["f1"] == pytest.approx(f1_score(gold, decided), abs=1e-9)
    largest = [
        [max(float(row[f"p_{m}"]) for m in ms) for ms in (["anger", "disgust", "sadness"], ["joy", "love", "optimism"])]
        for row in own
    ]
    by_label = [average_precision_score(gold, [row[i] for row in largest]) for i, gold in enumerate((bad, good))]
    assert scores["map"] == pytest.approx(sum(by_label) / 2, abs=1e-6)
    with (tmp_path / "two" / "predictions" / "test.csv").open(newline="") as opened:
        written = list(csv.DictReader(opened))
    assert [float(row["p_bad"]) for row in written] == pytest.approx([row[0] for row in largest], abs=1e-6)

    # Data that has the run's own labels is mapped as well, and so gives the same scores.
    assert run(*shared, "data=sample", REST, "hydra.run.dir=sample") == 0
    same = json.loads((tmp_path / "sample" / "metrics.json").read_text())
    assert same["test"]["per_label"] == scores["per_label"] and same["mapping"]["data"]["left_out"]
    assert run(*shared, REST, "hydra.run.dir=own") == 0
    assert json.loads((tmp_path / "own" / "metrics.json").read_text())["test"]["per_label"] == scores["per_label"]


def test_a_run_that_was_trained_on_merged_labels_keeps_them(run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("baseline", "char_ngrams=null", "data.max_rows=200", MERGE, REST, "hydra.run.dir=two") == 0
    stored = json.loads((tmp_path / "two" / "model" / "emotion_lightning.json").read_text())
    assert stored["labels"] == ["bad", "good"] and stored["data"]["merge"]["bad"] == ["anger", "disgust", "sadness"]
    assert json.loads((tmp_path / "two" / "data.json").read_text())["labels"]["mapping"]["left_out"]
    before = json.loads((tmp_path / "two" / "metrics.json").read_text())["test"]
    assert run("evaluate", "run=two", "hydra.run.dir=again") == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["test"]["global"] == before["global"] and "mapping" not in again
    # Without the mapping, the labels of other data share no name with the run's; with it they do.
    capfd.readouterr()
    assert run("evaluate", "run=two", "data=sample", "data.max_rows=200", "hydra.run.dir=none") == 2
    assert 'What it was trained with: "data.merge={bad: [anger, disgust, sadness]' in " ".join(
        capfd.readouterr().err.split()
    )
    code = run("evaluate", "run=two", "data=sample", "data.max_rows=200", MERGE, "hydra.run.dir=mapped")
    assert code == 0
    mapped = json.loads((tmp_path / "mapped" / "metrics.json").read_text())["test"]
    assert mapped["global"] == before["global"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("data.merge={bad: [anger, sadnes]}", "which neither the run nor the data has; did you mean sadness?"),
        ("data.merge={trust: [anger, joy]}", "the run has a label trust too"),
        ("data.rename={joy: love}", "data.rename gives the run 2 labels of the name love"),
    ],
)
def test_mappings_that_fit_neither_are_refused_before_the_run_is_opened(
    fitted: Path, run: Any, capfd: Any, mapping: str, message: str, tmp_path: Path
) -> None:
    assert run("evaluate", f"run={fitted}", "data=sample", mapping, "hydra.run.dir=out") == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()
