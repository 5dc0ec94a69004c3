"""Runs on intensities with cumulative logits: trained, evaluated, compared, averaged and predicted from."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_in_process
from helpers.tables import read_csv, write_csv

from emotion_lightning.evaluation import row_outcomes
from emotion_lightning.inference import ensemble
from emotion_lightning.models.metadata import Metadata, read_metadata
from emotion_lightning.runs import run_folder

LABELS = ["anger", "fear", "joy"]
WORDS = {"joy": ["glad", "happy", "sunny"], "fear": ["scared", "afraid", "panic"], "anger": ["furious", "mad", "rage"]}
NETWORK = [*(part for part in SMALL if "max_rows" not in part), "model.quantization=none", "peft=full"]
RUN = [
    *NETWORK,
    "data=file",
    "data.groups=[source]",
    "data.scale=3",
    "data.missing=mask",
    "loss=ordinal",
    "thresholds.calibration=per_label",
]


def intensities(path: Path, *, texts: int = 240) -> Path:
    """Texts in which an emotion of intensity 2 has two words of it; a tenth of the cells is empty."""
    drawn = random.Random(3)
    rows: list[list[Any]] = [["text", "source", *LABELS]]
    for number in range(texts):
        strength = {name: drawn.choice([0, 0, 1, 2, 3]) for name in LABELS}
        words = [word for name in LABELS for word in drawn.choices(WORDS[name], k=strength[name])]
        cells = ["" if drawn.random() < 0.1 else strength[name] for name in LABELS]
        rows.append([f"day {number}: {' '.join(words)}", "diary", *cells])
    return write_csv(path, rows)


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / run_folder.METRICS).read_text())


def metadata_of(folder: Path) -> Metadata:
    return read_metadata(folder / run_folder.MODEL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with loss=ordinal, calibration and open labels."""
    folder = tmp_path_factory.mktemp("intensities")
    data = intensities(folder / "texts.csv")
    asked = [
        f"data.path={data}",
        "trainer.max_epochs=6",
        "optimizer.lr=0.003",
        "data.batch_size=16",
        f"hydra.run.dir={folder / 'run'}",
    ]
    assert run_in_process("train", *RUN, *asked) == 0
    return folder / "run"


def test_cut_points_are_learned_and_stored_with_the_model(trained: Path) -> None:
    metadata = metadata_of(trained)
    stored = metadata.intensities
    assert (stored["scale"], stored["present"], set(stored["cuts"])) == (3, 1, set(LABELS))
    for cuts in stored["cuts"].values():
        assert cuts[0] == 0 and 0 < cuts[1] < cuts[2]
    # The metadata is written again as it was read.
    content = json.loads((trained / run_folder.MODEL / "emotion_lightning.json").read_text())
    assert json.dumps(metadata.plain()) == json.dumps(content)


def test_intensities_are_scored_as_expected_and_presence_as_decided(trained: Path) -> None:
    scores, metadata = metrics_of(trained)["test"], metadata_of(trained)
    outcomes = row_outcomes.read_outcomes(trained, "test", metadata.labels)
    reading = metadata.read_intensities()
    assert (
        outcomes is not None and outcomes.expected is not None and outcomes.shares is not None and reading is not None
    )
    assert outcomes.known is not None
    torch.testing.assert_close(outcomes.expected, reading.shares(outcomes.probabilities), atol=1e-6, rtol=0)
    apart = (outcomes.expected - outcomes.shares).abs()[outcomes.known].mean()
    assert scores["intensity"]["mae"] == pytest.approx(3 * float(apart), abs=1e-5)
    # A present label of low intensity is more probable than its share of the scale.
    assert float((outcomes.probabilities - outcomes.expected).mean()) > 0.02
    history = (trained / run_folder.HISTORY).read_text()
    assert "val/intensity_pearson" in history and "Pearson" in (trained / "report.html").read_text()


def test_evaluate_reads_the_same_intensities_and_loss_from_the_model_folder(
    trained: Path, run: Callable[..., int]
) -> None:
    assert run("evaluate", f"run={trained}", "hydra.run.dir=again") == 0
    first, again = metrics_of(trained)["test"], metrics_of(Path("again"))["test"]
    assert again["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert again["intensity"]["pearson"] == pytest.approx(first["intensity"]["pearson"], abs=1e-5)
    assert again["soft"]["bce"] == pytest.approx(first["soft"]["bce"], abs=1e-5)
    for scores in (first, again):
        of_group = scores["groups"]["columns"]["source"]["values"]["diary"]
        assert of_group["soft"]["bce"]["value"] == pytest.approx(scores["soft"]["bce"], abs=1e-5)
        assert scores["intensity"]["pearson"] > 0.2
        assert of_group["intensity"]["pearson"]["value"] == pytest.approx(scores["intensity"]["pearson"], abs=1e-5)


def test_labels_of_0_and_1_are_scored_without_the_loss_of_levels(trained: Path, run: Callable[..., int]) -> None:
    data = write_csv(Path("hard.csv").absolute(), [["text", "joy", "fear"], ["glad", 1, 0], ["panic", 0, 1]])
    assert run("evaluate", f"run={trained}", "data=file", f"data.path={data}", "hydra.run.dir=hard") == 0
    scores = metrics_of(Path("hard"))["test"]
    assert "loss" not in scores and "intensity" not in scores and "global" in scores


def test_compare_scores_the_expected_intensities(trained: Path, run: Callable[..., int]) -> None:
    asked = [f"runs=[{trained}]", "metrics=[soft_bce,soft_mae]", "samples=100", "hydra.run.dir=compared"]
    assert run("compare", *asked) == 0
    (group,) = json.loads(Path("compared/compare.json").read_text())["groups"]
    soft = metrics_of(trained)["test"]["soft"]
    assert group["metrics"]["soft_bce"]["mean"] == pytest.approx(soft["bce"], abs=1e-6)
    assert group["metrics"]["soft_mae"]["mean"] == pytest.approx(soft["mae"], abs=1e-6)


def test_an_ensemble_reads_intensities_by_the_mean_of_the_cut_points(trained: Path) -> None:
    metadata = metadata_of(trained)
    one, both = metadata.read_intensities(), ensemble.combined_metadata([str(trained), str(trained)])
    found = both.read_intensities()
    assert one is not None and found is not None and one.cuts is not None and found.cuts is not None
    torch.testing.assert_close(found.cuts, one.cuts)
    plain = Metadata(**{**metadata.__dict__, "intensities": {"scale": 3.0}})
    assert ensemble._shared_intensities([metadata, plain]) == {}
    assert ensemble._shared_intensities([plain, plain]) == {"scale": 3.0}


def test_damaged_cut_points_are_refused(trained: Path, tmp_path: Path, run: Callable[..., int], capfd: Any) -> None:
    import shutil

    shutil.copytree(trained / run_folder.MODEL, tmp_path / "model")
    file = tmp_path / "model" / "emotion_lightning.json"
    content = json.loads(file.read_text())
    content["intensities"]["cuts"]["joy"] = [0, 2, 1]
    file.write_text(json.dumps(content))
    assert run("predict", f"run={tmp_path / 'model'}", "text=glad") == 2
    assert "cut points are no increasing numbers" in capfd.readouterr().err


def test_predict_adds_the_expected_intensities_where_they_are_asked_for(
    trained: Path, run: Callable[..., int], capfd: Any
) -> None:
    texts = write_csv(Path("texts.csv").absolute(), [["text"], ["glad and happy and sunny"], ["panic"]])
    asked = [f"run={trained}", f"input={texts}"]
    assert run("predict", *asked, "output=plain.csv") == 0
    assert run("predict", *asked, "output=out.csv", "predict.intensities=true") == 0
    (plain, *_), (first, *_) = read_csv(Path("plain.csv")), read_csv(Path("out.csv"))
    assert list(first) == [*plain, *(f"i_{name}" for name in LABELS)]
    assert {name: first[name] for name in plain} == plain
    reading = metadata_of(trained).read_intensities()
    assert reading is not None
    probabilities = torch.tensor([[float(first[f"p_{name}"]) for name in LABELS]])
    expected = reading.expected(probabilities)[0].tolist()
    assert [float(first[f"i_{name}"]) for name in LABELS] == pytest.approx(expected, abs=1e-5)
    capfd.readouterr()
    assert run("predict", f"run={trained}", "text=glad", "predict.intensities=true") == 0
    assert capfd.readouterr().out.count(", intensity ") == 3


def test_files_of_evaluate_have_them_for_the_labels_as_they_are_named(trained: Path, run: Callable[..., int]) -> None:
    asked = ["data.merge={bad: [anger, fear]}", "predict.intensities=true", "hydra.run.dir=named"]
    assert run("evaluate", f"run={trained}", *asked) == 0
    (first, *_) = read_csv(Path("named/predictions/test.csv"))
    assert list(first)[-2:] == ["i_joy", "i_bad"] or list(first)[-2:] == ["i_bad", "i_joy"]


def test_intensities_of_a_run_without_them_are_refused_before_anything_is_written(
    finished: Path, run: Callable[..., int], capfd: Any
) -> None:
    texts = write_csv(Path("texts.csv").absolute(), [["text"], ["glad"]])
    for asked in (["text=glad"], [f"input={texts}", "output=out.csv"]):
        assert run("predict", f"run={finished}", *asked, "predict.intensities=true") == 2
        assert f"run={finished} has none; train with data.scale=N" in capfd.readouterr().err
    assert not Path("out.csv").exists()
    assert run("predict", "text=glad", "predict.intensities=true") == 2
    assert "the bundled classifier has none" in capfd.readouterr().err
    assert run("evaluate", f"run={finished}", "predict.intensities=true", "hydra.run.dir=none") == 2
    assert "has none" in capfd.readouterr().err
