"""Several runs as one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_in_process

from emotion_lightning import load
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import row_outcomes, thresholds
from emotion_lightning.inference import ensemble
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import bounded_files, run_folder

TEXTS = ["We won!", "Rain again, and the boiler is out.", ""]
ONE_EPOCH = [*SMALL, "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multirun of two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    assert run_in_process("train", "-m", *ONE_EPOCH, "seed=1,2", f"hydra.sweep.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multirun of two folds."""
    folder = tmp_path_factory.mktemp("runs") / "folds"
    arguments = [*ONE_EPOCH, "data.folds=2", "data.fold=1,2"]
    assert run_in_process("train", "-m", *arguments, f"hydra.sweep.dir={folder}") == 0
    return folder


def members(folder: Path) -> list[str]:
    return [str(folder / "0"), str(folder / "1")]


def test_probabilities_are_the_mean_and_thresholds_those_of_the_mean_on_validation(seeds: Path) -> None:
    both = load(members(seeds))
    alone = [load(run).probabilities(TEXTS) for run in members(seeds)]
    torch.testing.assert_close(both.probabilities(TEXTS), (alone[0] + alone[1]) / 2)
    metadata = read_metadata(seeds / "0" / "model")
    kept = [row_outcomes.read_outcomes(Path(run), "validation", metadata.labels) for run in members(seeds)]
    assert kept[0] is not None and kept[1] is not None and kept[0].targets is not None
    mean = (kept[0].probabilities + kept[1].probabilities) / 2
    cuts = thresholds.fit_thresholds(mean, kept[0].targets, metadata.threshold_settings())
    for name in thresholds.PROTOCOLS:
        torch.testing.assert_close(both.metadata.threshold_tensor(name), cuts[name])
    answers = both.predict(TEXTS)
    for answer, shares in zip(answers, both.probabilities(TEXTS), strict=True):
        assert answer.labels == [n for n, p, c in zip(metadata.labels, shares, cuts["global"], strict=True) if p > c]


@pytest.mark.slow
def test_of_folds_each_validation_row_counts_with_the_model_that_never_saw_it(folds: Path) -> None:
    metadata = read_metadata(folds / "0" / "model")
    kept = [row_outcomes.read_outcomes(Path(run), "validation", metadata.labels) for run in members(folds)]
    assert kept[0] is not None and kept[1] is not None
    assert kept[0].targets is not None and kept[1].targets is not None
    cuts = thresholds.fit_thresholds(
        torch.cat([kept[0].probabilities, kept[1].probabilities]),
        torch.cat([kept[0].targets, kept[1].targets]),
        metadata.threshold_settings(),
    )
    torch.testing.assert_close(
        ensemble.combined_metadata(members(folds)).threshold_tensor("per_label"), cuts["per_label"]
    )


def test_a_list_and_the_folder_of_a_multirun_name_the_same_runs(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        ensemble.find_members(str(seeds)) == ensemble.find_members(f"[{seeds / '0'},{seeds / '1'}]") == members(seeds)
    )
    assert ensemble.find_members(seeds / "0") == [str(seeds / "0")]
    assert ensemble.find_members(str(seeds / "0" / "model")) == [str(seeds / "0" / "model")]
    monkeypatch.chdir(seeds)
    shutil.copytree("0", "[a]", dirs_exist_ok=True)
    try:
        assert ensemble.find_members("[a]") == ["[a]"]  # a folder of that name is meant literally
    finally:
        shutil.rmtree("[a]")


def test_jobs_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 0):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / run_folder.METRICS).write_text("{}")
    assert [Path(run).name for run in run_folder.expand_runs(str(tmp_path))] == ["0", "9", "10"]


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_predict_and_evaluate_take_several_runs(seeds: Path, run: Any, tmp_path: Path, devices: int) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS[:2]) + "\n")
    arguments = [f"run=[{','.join(members(seeds))}]", "input=in.txt", "output=out.jsonl", f"devices={devices}"]
    assert run("predict", *arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = load(members(seeds)).probabilities(TEXTS[:2])
    found = torch.tensor([[row[f"p_{name}"] for name in load(members(seeds)).metadata.labels] for row in rows])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    if devices > 1:
        return
    assert run("evaluate", f"run={seeds}", "hydra.run.dir=scores") == 0
    scores = bounded_files.read_json(tmp_path / "scores" / "metrics.json")["test"]
    assert scores["rows"] == 96 and scores["loss"] > 0


def test_runs_that_cannot_be_averaged_are_refused(
    seeds: Path, folds: Path, run: Any, tmp_path: Path, capfd: Any
) -> None:
    other = tmp_path / "other"
    shutil.copytree(seeds / "1", other)
    file = other / "model" / METADATA
    file.write_text(file.read_text().replace('"trust"', '"hope"'))
    file.with_name("SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(UserError, match="they cannot be averaged"):
        ensemble.combined_metadata([str(seeds / "0"), str(other)])
    assert run("predict", f"run=[{seeds / '0'},nowhere]", "text=hello") == 2
    assert "run=nowhere is not a folder" in capfd.readouterr().err
    assert run("predict", "run=[]", "text=hello") == 2
    assert "names no run" in capfd.readouterr().err
    assert run("evaluate", f"run={folds}", "split=validation") == 2
    assert "scored on test" in capfd.readouterr().err


def test_without_outcomes_the_thresholds_are_averaged_and_it_is_said(seeds: Path, tmp_path: Path, caplog: Any) -> None:
    copies = []
    for name in ("0", "1"):
        shutil.copytree(seeds / name / "model", tmp_path / name)
        copies.append(str(tmp_path / name))
    metadata = ensemble.combined_metadata(copies)
    own = [read_metadata(Path(copy)).threshold_tensor("global") for copy in copies]
    torch.testing.assert_close(metadata.threshold_tensor("global"), (own[0] + own[1]) / 2)
    assert "the mean of their thresholds" in caplog.text
