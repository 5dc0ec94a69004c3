"""Runs on what annotators said: trained, evaluated, compared and inspected, and predicted from."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, run_in_process
from helpers.tables import read_csv, write_csv

from emotion_lightning import config
from emotion_lightning.data.formats import files
from emotion_lightning.runs import run_folder
from emotion_lightning.training import finalize
from emotion_lightning.tuning import trial

WORDS = {"joy": ["glad", "happy", "sunny"], "fear": ["scared", "afraid", "panic"], "anger": ["furious", "mad", "rage"]}
NETWORK = [part for part in SMALL if "max_rows" not in part]
RUN = [*NETWORK, "trainer.max_epochs=1", "data=file"]


def annotations(path: Path, *, texts: int = 90, raters: int = 4) -> Path:
    """A row for each annotator of a text; the stronger the words, the more of them give the label."""
    drawn = random.Random(3)
    rows: list[list[Any]] = [["id", "text", "rater_id", "source", *WORDS]]
    for number in range(texts):
        strength = {name: drawn.choice([0, 0, 1, 2, 3]) for name in WORDS}
        words = [word for name, own in WORDS.items() for word in drawn.choices(own, k=strength[name])]
        text = f"day {number}: {' '.join(words)}"
        for rater in range(raters):
            gives = [int(drawn.random() < strength[name] / 3) for name in WORDS]
            rows.append([number, text, f"r{(number + rater) % 6}", ("post", "film")[number % 2], *gives])
    return write_csv(path, rows)


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / run_folder.METRICS).read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small runs on the same rows of annotators: one learns shares, the other their 0 and 1."""
    folder = tmp_path_factory.mktemp("shares")
    data = annotations(folder / "raters.csv")
    for name, more in (("soft", []), ("hard", ["data.harden=true"])):
        chosen = [f"data.path={data}", "data.annotator=rater_id", "data.groups=[source]", *more]
        chosen.append(f"hydra.run.dir={folder / name}")
        assert run_in_process("train", *RUN, *chosen, pictures=name == "soft") == 0
    return folder


def test_shares_are_learned_and_scored_beside_the_decisions(runs: Path) -> None:
    metrics = metrics_of(runs / "soft")
    for split in ("validation", "test"):
        soft = metrics[split]["soft"]
        assert set(soft) == {"bce", "mae", "jensen_shannon", "correlation", "ece", "labels"}
        assert set(soft["labels"]) == set(WORDS) and 0 < soft["mae"] < 1 and metrics[split]["global"]["f1_macro"] >= 0
    assert "val/soft_bce" in (runs / "soft" / run_folder.HISTORY).read_text().splitlines()[0]
    told = json.loads((runs / "soft" / run_folder.DATA).read_text())["annotators"]
    assert (told["annotators"], told["rows"], told["texts"]) == (6, 360, 90) and set(told["labels"]) == set(WORDS)
    page = (runs / "soft" / run_folder.REPORT).read_text()
    assert "Against shares" in page and "Jensen-Shannon" in page
    card = json.loads((runs / "soft" / "model" / "emotion_lightning.json").read_text())
    assert any(count != int(count) for count in card["loss"]["label_counts"])  # sums of shares weigh the positives


def test_loggers_and_studies_get_the_scores_against_shares(runs: Path) -> None:
    metrics = metrics_of(runs / "soft")
    summary = finalize._summary(metrics, "global")
    assert summary["test/soft/bce"] == metrics["test"]["soft"]["bce"] and "test/soft/labels" not in summary
    measured = trial.measure(runs / "soft", "global")
    assert measured[config.Objective.soft_correlation] == metrics["validation"]["soft"]["correlation"]
    assert config.Objective.intensity_pearson not in measured


def test_groups_are_scored_against_shares(runs: Path) -> None:
    test = metrics_of(runs / "soft")["test"]
    by_value = test["groups"]["columns"]["source"]["values"]
    assert set(by_value) == {"post", "film"}
    for metric in ("bce", "mae", "jensen_shannon"):
        mean = sum(own["rows"] * own["soft"][metric]["value"] for own in by_value.values()) / test["rows"]
        assert mean == pytest.approx(test["soft"][metric], abs=1e-9)
    assert "Against shares, by source" in (runs / "soft" / run_folder.REPORT).read_text()
    summary = finalize._summary(metrics_of(runs / "soft"), "global")
    assert summary["test/source/post/soft/mae"] == by_value["post"]["soft"]["mae"]["value"]


def test_outcomes_hold_the_shares_that_annotators_gave(runs: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(runs / "soft" / run_folder.OUTCOMES / "test.parquet").to_pydict()
    rows: dict[str, list[int]] = {}
    for record in read_csv(runs / "raters.csv"):
        rows.setdefault(record["id"], []).append(int(record["joy"]))
    expected = [np.mean(rows[identifier]) for identifier in table["id"]]
    np.testing.assert_allclose(table["share_joy"], expected, atol=1e-6)
    assert table["gold_joy"] == [int(share >= 0.5) for share in expected]


def test_evaluate_gives_the_scores_of_the_run_again(runs: Path, run: Callable[..., int], capfd: Any) -> None:
    assert run("evaluate", f"run={runs / 'soft'}", "hydra.run.dir=again") == 0
    first, again = metrics_of(runs / "soft")["test"], metrics_of(Path("again"))["test"]
    assert again["soft"]["bce"] == pytest.approx(first["soft"]["bce"], abs=1e-6)
    assert again["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert (
        again["groups"]["columns"]["source"]["values"].keys() == first["groups"]["columns"]["source"]["values"].keys()
    )
    shown = capfd.readouterr().out
    assert "test, against shares" in shown and "Against shares: BCE" in shown
    assert "Against shares, by source" in shown


def test_a_run_on_hard_labels_is_scored_against_shares_of_other_data(runs: Path, run: Callable[..., int]) -> None:
    chosen = ["data=file", f"data.path={runs / 'raters.csv'}", "data.annotator=rater_id", "hydra.run.dir=other"]
    assert run("evaluate", f"run={runs / 'hard'}", *chosen) == 0
    assert metrics_of(Path("other"))["test"]["soft"]["labels"]["joy"]["share"] > 0


def test_learning_shares_is_compared_with_learning_their_zeros_and_ones(
    runs: Path, run: Callable[..., int], capfd: Any
) -> None:
    asked = [f"runs=[{runs / 'soft'},{runs / 'hard'}]", "samples=200"]
    assert run("compare", *asked, "metrics=[soft_bce,soft_correlation,f1_macro]", "hydra.run.dir=compared") == 0
    groups = json.loads(Path("compared/compare.json").read_text())["groups"]
    assert {group["name"] for group in groups} == {"data.harden=false", "data.harden=true"}
    bce = [group["metrics"]["soft_bce"]["mean"] for group in groups]
    assert bce[0] < bce[1]  # the lower one is the best
    for group in groups:
        stored = metrics_of(Path(group["runs"][0]["folder"]))["test"]["soft"]
        for name in ("bce", "correlation"):
            assert group["metrics"][f"soft_{name}"]["mean"] == pytest.approx(stored[name], abs=1e-6)
    shown = capfd.readouterr().out
    assert "points of soft_bce" in shown and "The lowest is the best of soft_bce." in shown


def test_soft_scores_of_runs_without_shares_are_refused(finished: Path, run: Callable[..., int], capfd: Any) -> None:
    assert run("compare", f"runs={finished}", "metrics=[soft_bce]") == 2
    assert "scored no shares" in capfd.readouterr().err


def test_predict_gives_the_same_files_as_ever(runs: Path, run: Callable[..., int]) -> None:
    texts = write_csv(Path("texts.csv").absolute(), [["text"], ["glad and happy"], ["panic"]])
    assert run("predict", f"run={runs / 'soft'}", f"input={texts}", "output=out.csv") == 0
    (first, _) = read_csv(Path("out.csv"))
    assert list(first) == ["row", *WORDS, *(f"p_{name}" for name in WORDS)]


def test_inspect_tells_who_labelled_and_where_they_split(runs: Path, run: Callable[..., int], capfd: Any) -> None:
    chosen = [f"data.path={runs / 'raters.csv'}", "data.annotator=rater_id", "data.groups=[source]", "tables=true"]
    assert run("inspect", "data=file", *chosen, "hydra.run.dir=card") == 0
    shown = capfd.readouterr().out
    assert "6 annotators labelled 90 texts, 4 rows a text; Krippendorff's alpha" in shown.replace("\n", " ")
    for title in ("Agreement of annotators", "Agreement by source", "Texts that annotators split over", "mean share"):
        assert title in shown and title in Path("card/data_card.html").read_text()
    card = json.loads(Path("card/data_card.json").read_text())
    train = card["splits"]["train"]["labels"]
    assert all(0 < own["mean_share"] < 1 for own in train.values())
    assert card["read"]["annotators"]["labels"]["joy"]["alpha"] > 0
    by_source = card["read"]["annotators"]["groups"]["source"]
    assert sum(own["texts"] for own in by_source.values()) == 90 and by_source["post"]["alpha"]["joy"] > 0


def test_intensities_with_open_labels_of_two_files_are_trained_together(tmp_path: Path, capfd: Any) -> None:
    drawn = random.Random(5)
    for name, lacks in (("en.csv", "fear"), ("de.csv", "anger")):
        labels = [label for label in WORDS if label != lacks]
        rows: list[list[Any]] = [["text", *labels]]
        for number in range(60):
            strength = {label: drawn.choice([0, 1, 2, 3]) for label in WORDS}
            words = [word for label, own in WORDS.items() for word in drawn.choices(own, k=strength[label])]
            cells = ["" if drawn.random() < 0.1 else strength[label] for label in labels]
            rows.append([f"{name} {number}: {' '.join(words)}", *cells])
        write_csv(tmp_path / name, rows)
    folder = tmp_path / "run"
    files_ = f"data.path=[{tmp_path / 'en.csv'},{tmp_path / 'de.csv'}]"
    chosen = ["data.scale=3", "data.missing=mask", "callbacks.monitor=val/intensity_pearson", "data.batch_size=16"]
    assert run_in_process("train", *RUN, files_, *chosen, f"hydra.run.dir={folder}") == 0
    assert "leave a label open" in (folder / "train.log").read_text()
    metrics = metrics_of(folder)["test"]
    assert metrics["intensity"]["scale"] == 3 and set(metrics["intensity"]["labels"]) == set(WORDS)
    counts = json.loads((folder / run_folder.DATA).read_text())["labels_left_open"]
    assert counts["anger"] >= 60 and counts["fear"] >= 60 and 0 < counts["joy"] < 60
    supports = {name: own["support"] for name, own in metrics["global"]["labels"].items()}
    assert supports["joy"] > max(supports["anger"], supports["fear"])
    assert "Pearson of intensities" in capfd.readouterr().out
    # Open labels are no doubtful ones, and stay open in the file to mend.
    assert run_in_process("audit", f"run={folder}", f"hydra.run.dir={tmp_path / 'audit'}") == 0
    audited = [record for _, record in files.records(tmp_path / "audit" / "audit.csv")]
    assert {record["fear"] for record in audited if record["text"].startswith("en")} == {""}
    assert not any("fear" in record["doubts"] for record in audited if record["text"].startswith("en"))


def test_a_baseline_learns_what_is_known_and_is_scored_against_shares(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["text", "joy", "fear"]]
    drawn = random.Random(7)
    for number in range(120):
        joy, fear = drawn.choice([0, 1, 2, 3]), drawn.choice([0, 1, 2, 3])
        words = drawn.choices(WORDS["joy"], k=joy) + drawn.choices(WORDS["fear"], k=fear)
        rows.append([f"day {number}: {' '.join(words)}", joy, fear if number % 3 else ""])
    data = write_csv(tmp_path / "a.csv", rows)
    chosen = [f"data.path={data}", "data.scale=3", "data.missing=mask", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run_in_process("baseline", "data=file", *chosen) == 0
    metrics = metrics_of(tmp_path / "run")
    assert metrics["test"]["intensity"]["pearson"] > 0.5 > metrics["floors"]["prior"]["test"]["soft"]["correlation"]
    assert metrics["test"]["global"]["f1_macro"] > 0.9
