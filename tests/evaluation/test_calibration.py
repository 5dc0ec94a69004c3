from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import Calibration, ThresholdMetric
from emotion_lightning.evaluation import calibration
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import bounded_files


def asked(kind: str) -> config.Thresholds:
    return config.GlobalThreshold(ThresholdMetric.macro, 1, None, by=None, calibration=Calibration(kind))


def case(rows: int = 4000) -> tuple[Tensor, Tensor]:
    """Logits of labels that are twice too sure, 1 too high, right; and targets."""
    generator = torch.Generator().manual_seed(3)
    true = 1.5 * torch.randn(rows, 3, generator=generator, dtype=torch.float64) - 1
    targets = (torch.rand(rows, 3, generator=generator, dtype=torch.float64) < torch.sigmoid(true)).double()
    return true * torch.tensor([2.0, 1.0, 1.0]) + torch.tensor([0.0, 1.0, 0.0]), targets


def test_without_calibration_probabilities_are_those_of_the_network() -> None:
    logits, targets = case()
    assert calibration.fit_calibration(Calibration.none, logits, targets) is None
    assert calibration.probabilities(logits.float(), None).equal(torch.sigmoid(logits.float()))


def test_a_scaling_is_stored_for_exactly_its_labels() -> None:
    scaling = calibration.Scaling(torch.ones(2), torch.zeros(2))
    assert list(scaling.plain(["joy", "fear"])) == ["joy", "fear"]
    with pytest.raises(ValueError, match="zip"):
        scaling.plain(["joy"])


def test_per_label_finds_slope_and_offset_as_a_logistic_regression_does() -> None:
    logits, targets = case()
    scaling = calibration.fit_calibration(Calibration.per_label, logits, targets)
    assert scaling is not None
    for label in range(3):
        peer = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[:, label : label + 1], targets[:, label])
        assert float(scaling.slope[label]) == pytest.approx(peer.coef_[0, 0], rel=5e-3)  # targets are smoothed
        assert float(scaling.offset[label]) == pytest.approx(peer.intercept_[0], abs=5e-3)
    before, after = (
        calibration.calibration_metrics(shares, targets)
        for shares in (torch.sigmoid(logits), calibration.probabilities(logits, scaling))
    )
    assert after["ece"] < 0.03 < before["ece"] and after["brier"] < before["brier"]


def test_one_temperature_is_the_best_slope_for_all_labels() -> None:
    logits, targets = case()
    scaling = calibration.fit_calibration(Calibration.temperature, logits, targets)
    assert scaling is not None
    assert len(set(scaling.slope.tolist())) == 1 and scaling.offset.tolist() == [0, 0, 0]

    def loss(slope: float) -> float:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits * slope, targets))

    best = float(scaling.slope[0])
    assert loss(best) < min(loss(best * 0.99), loss(best * 1.01))


def test_a_label_that_is_parted_perfectly_or_has_one_kind_of_row_only_stays_finite() -> None:
    logits = torch.tensor([[5.0, 1.0, 0.3], [4.0, -1.0, 0.1], [-3.0, 2.0, -2.0], [-6.0, 0.0, 7.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    scaling = calibration.fit_calibration(Calibration.per_label, logits, targets)
    assert scaling is not None
    assert torch.isfinite(scaling.slope).all() and torch.isfinite(scaling.offset).all()
    assert (scaling.slope[1:].tolist(), scaling.offset[1:].tolist()) == ([1, 1], [0, 0])


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_calibration_error_is_the_mean_gap_of_bins(bins: int) -> None:
    generator = np.random.default_rng(0)
    shares, truth = generator.random((200, 2)), generator.random((200, 2)) < 0.3
    shares[0, 0], shares[1, 0] = 1.0, 0.0
    expected = []
    for label in range(2):
        gap = 0.0
        for number in range(bins):
            inside = np.minimum((shares[:, label] * bins).astype(int), bins - 1) == number
            if inside.any():
                gap += inside.mean() * abs(shares[inside, label].mean() - truth[inside, label].mean())
        expected.append(gap)
    found = calibration.expected_calibration_error(torch.from_numpy(shares), torch.from_numpy(truth), bins=bins)
    assert found == pytest.approx(np.mean(expected))
    brier = calibration.calibration_metrics(torch.from_numpy(shares), torch.from_numpy(truth))["brier"]
    assert brier == pytest.approx(np.mean([brier_score_loss(truth[:, i], shares[:, i]) for i in range(2)]))


def test_a_calibrated_run_predicts_calibrated_probabilities_and_says_so(
    run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import csv
    import json

    from emotion_lightning import load

    small = [*SMALL, "trainer.max_epochs=1", "thresholds.calibration=per_label"]
    assert run("train", *small, "hydra.run.dir=out") == 0
    metadata = read_metadata(tmp_path / "out" / "model")
    assert set(metadata.calibration) == set(metadata.labels)
    assert bounded_files.read_json(tmp_path / "out" / "metrics.json")["test"]["probabilities"] == "calibrated"
    assert run("evaluate", "run=out", "hydra.run.dir=again") == 0
    one, other = (json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("out", "again"))
    assert one["probabilities"] == other["probabilities"] == "calibrated"
    for name in ("map", "ece", "brier", "loss"):
        assert one[name] == pytest.approx(other[name], abs=1e-5)
    with (tmp_path / "out" / "predictions" / "test.csv").open() as file:
        row = next(csv.DictReader(file))
    with (tmp_path / "again" / "predictions" / "test.csv").open() as file:
        assert float(next(csv.DictReader(file))["p_joy"]) == pytest.approx(float(row["p_joy"]), abs=1e-5)
    predictor: Any = load(tmp_path / "out")
    logits = predictor.logits(["We won!"])
    assert not predictor.probabilities(["We won!"]).equal(torch.sigmoid(logits))
    assert run("predict", "run=out", "text=We won!") == 0
    assert "The probabilities are calibrated on validation." in capfd.readouterr().out


@pytest.mark.parametrize("damage", [{"joy": {"slope": 1.0, "offset": 0.0}}, {"joy": 1.0}])
def test_a_damaged_calibration_is_refused(finished: Path, tmp_path: Path, run: Any, capfd: Any, damage: Any) -> None:
    import json
    import shutil

    shutil.copytree(finished, tmp_path / "copy")
    file = tmp_path / "copy" / "model" / METADATA
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"calibration": damage}))
    file.with_name("SHA256SUMS").unlink(missing_ok=True)
    assert run("predict", "run=copy", "text=hello") == 2
    assert "is damaged or of another version" in capfd.readouterr().err
