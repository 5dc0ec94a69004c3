"""Labels that are left open: no score, threshold or calibration depends on what a network says of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from emotion_lightning import config
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import calibration, label_errors, metrics, row_outcomes, thresholds
from emotion_lightning.evaluation.gold import Gold

LABELS = ["joy", "anger", "fear"]


def rows(count=300, seed=0, rate=0.6):
    """Probabilities, labels and which of them are known; labels are 0 where they are open."""
    random = np.random.default_rng(seed)
    truth = random.random((count, 3)) < [0.5, 0.2, 0.3]
    known = random.random((count, 3)) < rate
    known[0] = False  # of this row nothing is known
    probabilities = np.clip(0.5 * truth + 0.5 * random.random((count, 3)), 0, 1).astype(np.float32)
    targets = (truth & known).astype(np.float32)
    return torch.from_numpy(probabilities), torch.from_numpy(targets), torch.from_numpy(known)


def settings(metric="macro", kind=config.PerLabelThresholds):
    return kind(
        metric=config.ThresholdMetric[metric],
        min_support=5,
        cross_fit=None,
        by=None,
        calibration=config.Calibration.none,
    )


def test_gold_of_rows_has_what_the_rows_have():
    targets = np.array([[1, 0], [0, 1]], np.float32)
    plain = Gold.of(Rows(["a", "b"], ["a", "b"], targets))
    assert plain.shares is plain.known is None and plain.learned is plain.labels
    full = Gold.of(
        Rows(["a", "b"], ["a", "b"], targets, shares=targets / 2, open=np.array([[0, 1], [0, 0]], bool), scale=3.0)
    )
    assert full.learned.isnan().tolist() == [[False, True], [False, False]] and full.learned[1].tolist() == [0, 0.5]
    second = full[torch.tensor([1])][:, [1]]
    assert second.labels.tolist() == [[1]] and second.known.tolist() == [[True]] and second.scale == 3
    full.hardens = True
    assert full.learned[1].tolist() == [0, 1] and full.probable() is full.shares


@pytest.mark.parametrize("metric", ["macro", "micro", "jaccard"])
def test_thresholds_do_not_see_what_is_open(metric):
    probabilities, targets, known = rows()
    found = thresholds.fit_thresholds(probabilities, targets, settings(metric), known=known)
    others = torch.where(known, probabilities, torch.rand_like(probabilities))
    again = thresholds.fit_thresholds(others, targets, settings(metric), known=known)
    assert all(found[name].equal(again[name]) for name in found)
    if metric == "macro":  # there each label can be fitted by itself, on the rows that know it
        alone = [
            thresholds.per_label_thresholds(probabilities[own, i : i + 1], targets[own, i : i + 1], fallback=0.5)
            for i, own in enumerate(known.T)
        ]
        assert found["per_label"].equal(torch.cat(alone))


def test_metrics_are_those_of_scikit_learn_on_what_is_known():
    probabilities, targets, known = rows()
    cuts = {name: torch.full((3,), 0.5, dtype=torch.float64) for name in thresholds.PROTOCOLS}
    found = metrics.score(probabilities, targets, cuts, LABELS, gold=Gold(targets, known=known))
    own = found["fixed"]
    p, t, k = probabilities.numpy(), targets.numpy(), known.numpy()
    each = []
    for i, name in enumerate(LABELS):
        each.append(f1_score(t[k[:, i], i], p[k[:, i], i] > 0.5))
        assert own["labels"][name]["f1"] == pytest.approx(each[-1], abs=1e-9)
        assert own["labels"][name]["support"] == t[k[:, i], i].sum()
    assert own["f1_macro"] == pytest.approx(np.mean(each), abs=1e-9)
    assert own["f1_micro"] == pytest.approx(f1_score(t[k], p[k] > 0.5), abs=1e-9)
    assert own["label_accuracy"] == pytest.approx((t[k] == (p[k] > 0.5)).mean(), abs=1e-9)
    assert own["subset_accuracy"] == pytest.approx(((t == (p > 0.5)) | ~k).all(1).mean(), abs=1e-9)
    precisions = [average_precision_score(t[k[:, i], i], p[k[:, i], i]) for i in range(3)]
    assert found["map"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert found["brier"] == pytest.approx(brier_score_loss(t[k], p[k].astype(float)), abs=1e-9)
    alone = [(probabilities[own, i : i + 1], targets[own, i : i + 1]) for i, own in enumerate(known.T)]
    errors = [calibration.expected_calibration_error(*part) for part in alone]
    assert found["ece"] == pytest.approx(np.mean(errors), abs=1e-9)


def test_no_score_changes_with_what_is_said_of_an_open_label():
    probabilities, targets, known = rows()
    cuts = thresholds.fit_thresholds(probabilities, targets, settings(), known=known)
    gold = Gold(targets, shares=targets / 2, known=known, scale=3.0)
    others = torch.where(known, probabilities, torch.rand_like(probabilities))
    assert metrics.score(probabilities, targets, cuts, LABELS, gold=gold) == metrics.score(
        others, targets, cuts, LABELS, gold=gold
    )


def test_where_everything_is_known_the_scores_are_those_without_a_mask():
    probabilities, targets, _ = rows(rate=2)
    cuts = thresholds.fit_thresholds(probabilities, targets, settings())
    plain = metrics.score(probabilities, targets, cuts, LABELS)
    masked = metrics.score(probabilities, targets, cuts, LABELS, gold=Gold(targets, known=torch.ones_like(targets) > 0))
    assert set(plain) == set(masked)
    for name, value in plain.items():
        assert masked[name] == (pytest.approx(value, abs=1e-12) if isinstance(value, float) else value)


@pytest.mark.parametrize("kind", [config.Calibration.temperature, config.Calibration.per_label])
def test_calibration_is_fitted_to_what_is_known_and_to_shares(kind):
    probabilities, targets, known = rows()
    logits = torch.logit(probabilities, eps=1e-3)
    found = calibration.fit_calibration(kind, logits, targets, known=known)
    others = torch.where(known, logits, torch.randn_like(logits))
    again = calibration.fit_calibration(kind, others, targets, known=known)
    torch.testing.assert_close(found.slope, again.slope)
    torch.testing.assert_close(found.offset, again.offset)
    # Shares: probabilities then have their mean, which those of hard labels have not.
    shares = torch.from_numpy(np.random.default_rng(3).integers(0, 4, tuple(targets.shape)) / 3 * 0.5).float()
    fitted = calibration.fit_calibration(config.Calibration.per_label, logits, shares).probabilities(logits)
    torch.testing.assert_close(fitted.mean(0), shares.mean(0), atol=0.01, rtol=0)


def test_outcomes_keep_shares_and_leave_open_labels_empty(tmp_path):
    probabilities, targets, known = rows(20)
    gold = Gold(targets, shares=targets * 0.75, known=known)
    ids = [str(i) for i in range(20)]
    row_outcomes.write_outcomes(tmp_path, "test", row_outcomes.RowOutcomes.of(ids, LABELS, probabilities, gold))
    found = row_outcomes.read_outcomes(tmp_path, "test", LABELS)
    assert found.targets.equal(targets) and found.known.equal(known)
    assert found.shares.equal(torch.where(known, targets * 0.75, 0.0))
    row_outcomes.write_outcomes(tmp_path, "plain", row_outcomes.RowOutcomes(ids, LABELS, probabilities, targets))
    plain = row_outcomes.read_outcomes(tmp_path, "plain", LABELS)
    assert plain.known is plain.shares is None and plain.targets.equal(targets)


def test_an_open_label_is_no_error_and_in_no_doubt():
    probabilities, targets, known = rows()
    shares = label_errors.calibrated(probabilities.numpy(), targets.numpy(), known=known.numpy())
    doubts = label_errors.doubts(shares, targets.numpy(), known=known.numpy())
    assert (doubts[~known.numpy()] == 0).all() and (doubts[known.numpy()] > 0).mean() > 0.9
    others = np.where(known.numpy(), shares, 1.0)
    assert label_errors.count_errors(shares, targets.numpy(), known=known.numpy()) == label_errors.count_errors(
        others, targets.numpy(), known=known.numpy()
    )
