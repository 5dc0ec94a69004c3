"""The floors: what they learn, what they report, what they leave behind."""

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SMALL, run_in_process
from helpers.tables import write_csv
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss

from emotion_lightning import config
from emotion_lightning.data import official
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import row_outcomes
from emotion_lightning.models import ngrams
from emotion_lightning.runs import bounded_files, manifest, run_folder

TEXTS = ["joy and joy", "rain, cold rain", "joy in the rain", "cold and wet", "so much joy", "the cold wet night"]
TARGETS = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], np.float32)


def ngram_settings(settings: Any, *overrides: str) -> config.Baseline:
    return settings(*overrides, command="baseline")


def fitted(settings: config.Baseline) -> ngrams.NgramClassifier:
    model = ngrams.NgramClassifier({name: getattr(settings, name) for name in ngrams.KINDS})
    model.fit(TEXTS, TARGETS, settings)
    return model


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline on part of the bundled sample, calibrated."""
    folder = tmp_path_factory.mktemp("runs") / "floor"
    arguments = ["data.max_rows=300", "thresholds.calibration=temperature", f"hydra.run.dir={folder}"]
    assert run_in_process("baseline", *arguments) == 0
    return folder


def test_probabilities_are_those_of_scikit_learn(settings: Any) -> None:
    chosen = ngram_settings(settings, "min_df=1", "char_ngrams=null", "C=3", "class_weight=balanced")
    model = fitted(chosen)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = features.fit_transform(TEXTS)
    found = 1 / (1 + np.exp(-model.logits(["joy tonight", "rain"])))
    for label in (0, 1):
        plain = LogisticRegression(C=3, class_weight="balanced", solver="liblinear", tol=1e-8)
        plain.fit(known, TARGETS[:, label])
        expected = plain.predict_proba(features.transform(["joy tonight", "rain"]))[:, 1]
        np.testing.assert_allclose(found[:, label], expected, atol=2e-3)
    assert model.parameters == 2 * (known.shape[1] + 1) + 2


def test_a_label_of_no_row_or_of_every_row_keeps_one_probability(settings: Any) -> None:
    model = fitted(ngram_settings(settings, "min_df=1"))
    found = 1 / (1 + np.exp(-model.logits([*TEXTS, "", "words never seen"])))
    np.testing.assert_allclose(found[:, 2], 1 / 8, rtol=1e-6)
    np.testing.assert_allclose(found[:, 3], 7 / 8, rtol=1e-6)


@pytest.mark.parametrize("overrides", [["min_df=50"], ["min_df=50", "word_ngrams=null"]])
def test_no_ngram_left_is_refused_by_setting(settings: Any, overrides: list[str]) -> None:
    name = "char_ngrams" if len(overrides) > 1 else "word_ngrams"
    with pytest.raises(UserError, match=rf"{name}=.* with min_df=50 leaves no n-gram of the 6 texts of train"):
        fitted(ngram_settings(settings, *overrides))


def test_a_run_leaves_what_a_training_run_leaves(floor: Path) -> None:
    content = bounded_files.read_json(floor / run_folder.METRICS)
    assert content.keys() == {"validation", "test", "floors", "cost"}
    for split in ("validation", "test"):
        assert content[split].keys() == {
            "rows", "loss", "map", "lrap", "ece", "brier", "probabilities", "fixed", "global", "per_label", "oracle",
        }  # fmt: skip
        assert content[split]["probabilities"] == "calibrated"
        written = list(csv.DictReader((floor / "predictions" / f"{split}.csv").open(encoding="utf-8")))
        assert len(written) == content[split]["rows"]
    assert content["cost"].keys() == {
        "trainable_parameters", "train_seconds", "samples_per_second", "peak_memory_bytes",
    }  # fmt: skip
    assert content["cost"]["train_seconds"] > 0 and content["cost"]["peak_memory_bytes"] > 2**20
    kept = yaml.safe_load((floor / run_folder.SETTINGS).read_text())
    assert kept["options"] == {"data": "sample", "extra_metric": "none", "thresholds": "global"}
    assert kept["class_weight"] == "none"
    assert bounded_files.read_json(floor / run_folder.ENVIRONMENT)["starts"][0]["data_hashes"]


def test_scores_are_those_of_the_kept_outcomes(floor: Path) -> None:
    scores = bounded_files.read_json(floor / run_folder.METRICS)["test"]
    labels = scores["per_label"]["labels"]
    kept = row_outcomes.read_outcomes(floor, "test", list(labels))
    assert kept is not None and kept.targets is not None
    cuts = np.array([values["threshold"] for values in labels.values()])
    decisions = kept.probabilities.double().numpy() > cuts
    assert f1_score(kept.targets, decisions, average="macro", zero_division=0) == pytest.approx(
        scores["per_label"]["f1_macro"], abs=1e-9
    )


def test_floors_need_no_text(floor: Path) -> None:
    content = bounded_files.read_json(floor / run_folder.METRICS)
    zeros, prior = content["floors"]["zeros"]["test"], content["floors"]["prior"]["test"]
    kept = row_outcomes.read_outcomes(floor, "test", list(content["test"]["fixed"]["labels"]))
    assert kept is not None and kept.targets is not None
    for protocol in ("fixed", "global", "per_label"):
        assert (zeros[protocol]["f1_macro"], zeros[protocol]["predicted_cardinality"]) == (0, 0)
    assert zeros["fixed"]["jaccard"] == pytest.approx(float((kept.targets.sum(1) == 0).float().mean()))
    everything = np.ones(kept.targets.shape)
    assert prior["per_label"]["f1_macro"] == pytest.approx(f1_score(kept.targets, everything, average="macro"))


def test_loss_is_the_log_loss_of_raw_probabilities(run: Any, tmp_path: Path) -> None:
    assert run("baseline", "data.max_rows=200", "hydra.run.dir=raw") == 0
    content = bounded_files.read_json(tmp_path / "raw" / run_folder.METRICS)["test"]
    kept = row_outcomes.read_outcomes(tmp_path / "raw", "test", list(content["fixed"]["labels"]))
    assert kept is not None and kept.targets is not None
    expected = log_loss(kept.targets.flatten(), kept.probabilities.double().flatten())
    assert content["loss"] == pytest.approx(expected, rel=1e-5)


def test_any_data_and_its_settings_are_taken(run: Any, tmp_path: Path, capfd: Any) -> None:
    rows = [["body", "joy", "never"], *([f"{'happy' if i % 2 else 'grey'} &amp; {i}", i % 2, 0] for i in range(60))]
    write_csv(tmp_path / "mine.csv", rows)
    arguments = [
        "data=file",
        "data.path=mine.csv",
        "data.text=body",
        "data.labels=[joy,never]",
        "data.clean=[html]",
        "predict.text=true",
    ]
    assert run("baseline", *arguments, "thresholds=per_label", "hydra.run.dir=a") == 0
    printed = capfd.readouterr()
    assert "In train no row has the label never" in printed.err and "prior" in printed.out
    assert (tmp_path / "a" / run_folder.SPLITS).exists()
    assert (
        json.loads((tmp_path / "a" / run_folder.METRICS).read_text())["test"]["per_label"]["labels"]["joy"]["f1"] == 1
    )
    splits = f"data.splits={tmp_path / 'a' / run_folder.SPLITS}"
    assert run("baseline", *arguments, splits, "hydra.run.dir=b") == 0
    ids = [[row["row"] for row in csv.DictReader((tmp_path / d / "predictions" / "test.csv").open())] for d in "ab"]
    assert ids[0] == ids[1]


def test_without_labelled_test_rows_validation_is_shown(run: Any, tmp_path: Path, capfd: Any) -> None:
    rows = [["text", "joy"], *([f"{'happy' if i % 2 else 'grey'} day {i}", i % 2] for i in range(40))]
    write_csv(tmp_path / "train.csv", rows)
    write_csv(tmp_path / "test.csv", [["text"], ["happy night"]])
    files = ["data=file", "data.train=train.csv", "data.test=test.csv"]
    assert run("baseline", *files, "hydra.run.dir=a") == 0
    printed = capfd.readouterr()
    assert "The test split has no labels" in printed.err and printed.out.startswith("validation")
    assert "test" not in bounded_files.read_json(tmp_path / "a" / run_folder.METRICS)
    assert len((tmp_path / "a" / "predictions" / "test.csv").read_text().splitlines()) == 2
    assert run("baseline", *files[:2], "hydra.run.dir=b") == 0
    assert "No test split is scored" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["word_ngrams=[2,1]"], "word_ngrams=[2, 1] is no pair of lengths; give the shortest and the longest"),
        (["char_ngrams=[3]"], "char_ngrams=[3] is no pair of lengths"),
        (["word_ngrams=null", "char_ngrams=null"], "leave no features"),
        (["C=0"], "C=0.0 is out of range: it must be above 0"),
        (["class_weight=some"], "class_weight takes one of none, balanced"),
        (["min_df=0"], "min_df=0 is out of range"),
        (["data=same"], "data=same is for evaluate"),
        (["peft=ia3"], "Unknown setting peft"),
        (["hydra.run.dir=used"], "used holds a run already; choose another hydra.run.dir"),
    ],
)
def test_mistakes_are_named(run: Any, tmp_path: Path, capfd: Any, arguments: list[str], message: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / run_folder.METRICS).write_text("{}")
    assert run("baseline", *arguments) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()


# ----------------------------------------------------------------------------------------------------------- asked anew


def test_a_baseline_labels_files_as_it_labelled_its_own_rows(floor: Path, run: Any, tmp_path: Path) -> None:
    own = list(csv.DictReader((floor / "predictions" / "test.csv").open(encoding="utf-8")))
    rows = official.sample().splits["test"]
    texts = dict(zip(rows.ids, rows.texts, strict=True))
    write_csv(tmp_path / "new.csv", [["id", "text"], *([row["id"], texts[row["id"]]] for row in own)])
    assert run("predict", f"run={floor}", "input=new.csv", "output=out.csv") == 0
    again = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
    assert len(again) == len(own) > 30
    for one, other in zip(own, again, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if name.startswith("p_"):
                assert float(other[name]) == pytest.approx(float(one[name]), abs=1e-5)
            else:
                assert other[name] == one[name]


def test_a_baseline_answers_a_question_and_is_scored_as_any_run(
    floor: Path, run: Any, tmp_path: Path, capfd: Any
) -> None:
    assert run("predict", f"run={floor}", "text=We won, what a joy!") == 0
    assert "Emotions:" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run("evaluate", f"run={floor / 'model'}", "hydra.run.dir=scored") == 0
    raised = bounded_files.read_json(floor / run_folder.METRICS)["test"]
    found = bounded_files.read_json(tmp_path / "scored" / run_folder.METRICS)["test"]
    for protocol in ("fixed", "global", "per_label"):
        assert found[protocol]["f1_macro"] == pytest.approx(raised[protocol]["f1_macro"], abs=2e-3)
    assert found["loss"] == pytest.approx(raised["loss"], rel=1e-4) and found["probabilities"] == "calibrated"


def test_what_a_baseline_keeps_runs_no_code_and_is_watched(floor: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    model = floor / run_folder.MODEL
    assert {file.name for file in model.iterdir()} == {ngrams.FILE, "emotion_lightning.json", manifest.NAME}
    assert manifest.read_hashes(model / manifest.NAME).keys() == {ngrams.FILE, "emotion_lightning.json"}
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    damaged = bytearray((copy / ngrams.FILE).read_bytes())
    damaged[-5] ^= 1
    (copy / ngrams.FILE).write_bytes(damaged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(manifest.SKIP, "0")
        assert run("predict", "run=copy", "text=rain") == 2
    assert "is not as it was written" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((3, 11), np.float32)}, "its weights are not of"),
        ({"weights": None}, "is damaged"),
        ({"biases": np.full(11, np.nan, np.float32)}, "a weight is no number"),
        ({"biases": np.zeros(11, np.int64)}, "its weights are not of"),
        ({"word_ngrams.text": np.frombuffer(b"a\na", np.uint8)}, "is damaged"),
        ({"word_ngrams.text": np.frombuffer(b"\xff\xfe", np.uint8)}, "is damaged"),
        ({"char_ngrams.idf": np.zeros(2, np.float32)}, "is damaged"),
    ],
)
def test_a_damaged_classifier_is_named(
    floor: Path, run: Any, tmp_path: Path, capfd: Any, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(floor / run_folder.MODEL, tmp_path / "copy")
    file = tmp_path / "copy" / ngrams.FILE
    tensors = {name: tensor for name, tensor in (load_file(file) | change).items() if tensor is not None}
    save_file(tensors, file)
    assert run("predict", "run=copy", "text=rain") == 2
    printed = capfd.readouterr().err
    assert ngrams.FILE in printed and message in printed and len(printed.splitlines()) == 1


@pytest.mark.parametrize("lengths", [[1, 2, 3], [0, 1], [2, 1], [1, 10**9], "1", [True, 2], {}])
def test_a_card_that_asks_for_absurd_ngrams_is_refused(
    floor: Path, run: Any, tmp_path: Path, capfd: Any, lengths: Any
) -> None:
    shutil.copytree(floor / run_folder.MODEL, tmp_path / "copy")
    metadata = tmp_path / "copy" / "emotion_lightning.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"ngrams": {"word_ngrams": lengths}}))
    assert run("predict", "run=copy", "text=rain") == 2
    assert "emotion_lightning.json is damaged" in capfd.readouterr().err


def test_ngrams_of_any_script_are_kept_as_they_are(settings: Any, tmp_path: Path) -> None:
    texts = [
        f"{word} {word} {other}" for word in ("喜び", "\ud83d odd", "naïve", "a\u2028b") for other in ("x1", "\ud83d")
    ]
    targets = np.array([[i % 2] for i in range(len(texts))], np.float32)
    chosen = ngram_settings(settings, "min_df=1")
    model = ngrams.NgramClassifier({name: getattr(chosen, name) for name in ngrams.KINDS})
    model.fit(texts, targets, chosen)
    model.save(tmp_path)
    again = ngrams.load_ngrams(tmp_path, model.lengths, labels=1)
    np.testing.assert_array_equal(again.logits(texts), model.logits(texts))
    assert again.parameters == model.parameters


def test_what_needs_a_network_refuses_a_baseline(floor: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("export", f"run={floor}", "output=out", "format=merged") == 2
    assert "is a baseline, which has no network to export" in capfd.readouterr().err
    assert run("train", *SMALL, f"init_from={floor}") == 2
    assert "is a baseline, which has no weights of a network" in capfd.readouterr().err


def test_a_run_ends_with_the_lines_that_use_it(run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("baseline", "data.max_rows=200", "hydra.run.dir=a place") == 0
    lines = capfd.readouterr().err.splitlines()
    asks = next(line.partition(": ")[2] for line in lines if line.startswith("Predict one text: "))
    words = shlex.split(asks)
    assert words[:3] == ["python", "-m", "emotion_lightning.predict"]
    assert run("predict", *words[3:]) == 0 and "Emotions:" in capfd.readouterr().out
