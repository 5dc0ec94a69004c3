"""Scores against shares, compared with SciPy and scikit-learn, and the same from sums over rows."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import pearsonr
from sklearn.metrics import log_loss, mean_absolute_error

from emotion_lightning.evaluation import bootstrap, soft_scores

LABELS = ["joy", "anger", "never"]


def rows(count=200, seed=0):
    """Probabilities and shares that go with them; nobody gave the last label."""
    random = np.random.default_rng(seed)
    shares = random.integers(0, 4, (count, 3)) / 3
    shares[:, 2] = 0
    probabilities = np.clip(0.6 * shares + 0.4 * random.random((count, 3)), 0.001, 0.999)
    return torch.from_numpy(probabilities), torch.from_numpy(shares)


def test_scores_are_those_of_scipy_and_scikit_learn():
    probabilities, shares = rows()
    found = soft_scores.soft_scores(probabilities, shares, LABELS)
    for i, name in enumerate(LABELS):
        p, s = probabilities[:, i].numpy(), shares[:, i].numpy()
        own = found["labels"][name]
        # Each row as a present one with the weight of its share, and an absent one with the rest.
        truth = np.r_[np.ones(len(s)), np.zeros(len(s))]
        assert own["bce"] == pytest.approx(
            log_loss(truth, np.r_[p, p], sample_weight=np.r_[s, 1 - s], labels=[0, 1]), abs=1e-9
        )
        assert own["mae"] == pytest.approx(mean_absolute_error(s, p), abs=1e-9)
        distances = [jensenshannon([a, 1 - a], [b, 1 - b], base=2) for a, b in zip(p, s, strict=True)]
        assert own["jensen_shannon"] == pytest.approx(np.mean(distances), abs=1e-7)
        if name != "never":
            assert own["correlation"] == pytest.approx(pearsonr(p, s)[0], abs=1e-9)
    assert found["labels"]["never"]["correlation"] is None
    known = [found["labels"][name]["correlation"] for name in ("joy", "anger")]
    assert found["correlation"] == pytest.approx(np.mean(known), abs=1e-12)
    for metric in ("bce", "mae", "jensen_shannon"):
        each = [own[metric] for own in found["labels"].values()]
        assert found[metric] == pytest.approx(np.mean(each), abs=1e-9)


def test_equal_probabilities_are_perfect_and_opposite_ones_the_worst():
    shares = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    right = soft_scores.soft_scores(shares, shares, LABELS)
    assert right["mae"] == right["jensen_shannon"] == 0 and right["correlation"] == pytest.approx(1)
    assert 0 <= right["bce"] < 1e-6
    wrong = soft_scores.soft_scores(1 - shares, shares, LABELS)
    assert (
        wrong["mae"] == 1 and wrong["jensen_shannon"] == pytest.approx(1) and wrong["correlation"] == pytest.approx(-1)
    )
    assert wrong["bce"] > 10 and np.isfinite(wrong["bce"])


def test_an_open_label_counts_in_no_score():
    probabilities, shares = rows()
    known = torch.from_numpy(np.random.default_rng(1).random(shares.shape) < 0.7)
    found = soft_scores.soft_scores(probabilities, shares, LABELS, known=known)
    changed = torch.where(known, probabilities, torch.rand_like(probabilities))
    assert soft_scores.soft_scores(changed, shares, LABELS, known=known) == found
    kept = known[:, 0]
    alone = soft_scores.soft_scores(probabilities[kept, :1], shares[kept, :1], ["joy"])
    assert found["labels"]["joy"] == alone["labels"]["joy"]


def test_intensities_are_scored_on_their_scale():
    probabilities, shares = rows()
    found = soft_scores.intensity_scores(probabilities, shares, LABELS, scale=3)
    for i, name in enumerate(LABELS[:2]):
        assert found["labels"][name] == pytest.approx(pearsonr(3 * probabilities[:, i], 3 * shares[:, i])[0], abs=1e-9)
    assert found["labels"]["never"] is None and found["scale"] == 3
    assert found["pearson"] == pytest.approx(np.mean([found["labels"][name] for name in LABELS[:2]]))
    whole = (3 * probabilities).round()
    rounded = [pearsonr(whole[:, i], 3 * shares[:, i])[0] for i in range(2)]
    assert found["pearson_rounded"] == pytest.approx(np.mean(rounded), abs=1e-9)
    assert found["mae"] == pytest.approx(float(3 * (probabilities - shares).abs().mean()))


@pytest.mark.parametrize("is_open", [False, True])
def test_the_sums_of_the_bootstrap_give_the_same_scores(is_open):
    probabilities, shares = rows()
    known = torch.from_numpy(np.random.default_rng(1).random(shares.shape) < 0.7) if is_open else None
    parts = bootstrap.soft_summands(probabilities, shares, known)
    drawn = np.random.default_rng(2).integers(0, len(parts), len(parts))
    for chosen in (np.arange(len(parts)), drawn):
        scores = soft_scores.soft_scores(
            probabilities[chosen], shares[chosen], LABELS, known=None if known is None else known[chosen]
        )
        expected = [scores[metric.value.removeprefix("soft_")] for metric in bootstrap.SOFT_METRICS]
        np.testing.assert_allclose(bootstrap.soft_metrics(parts[chosen].sum(0), len(parts)), expected, atol=1e-9)
    (found,) = bootstrap.draws([parts], samples=3, seed=1, measure=bootstrap.soft_metrics)
    assert found.shape == (3, 4) and np.ptp(found, axis=0).min() > 0
