import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from emotion_lightning import config
from emotion_lightning.config import Calibration, ThresholdMetric
from emotion_lightning.evaluation import metrics, thresholds


def tensors(probabilities, truth):
    """One label: [row, 1] each, float32 as a network gives them."""
    return torch.tensor(probabilities, dtype=torch.float32)[:, None], torch.tensor(truth)[:, None].float()


def fitting(value=0.5, *, metric=ThresholdMetric.macro, min_support=1, cross_fit=None):
    return config.FixedThreshold(metric, min_support, cross_fit, by=None, calibration=Calibration.none, value=value)


def case(rows=80, labels=4, seed=0):
    """Probabilities that know something, and their targets; the last label is rare."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(rows, labels, generator=generator) < torch.linspace(0.5, 0.05, labels)).float()
    return torch.sigmoid(torch.randn(rows, labels, generator=generator) + 2 * targets - 1.5), targets


def best_cut(probabilities, truth, fallback=0.25):
    return float(thresholds.per_label_thresholds(*tensors(probabilities, truth), fallback=fallback))


def f1(decisions, truth):
    total = int(decisions.sum() + truth.sum())
    return 2 * int((decisions & truth).sum()) / total if total else 0.0  # in float32, equal sums could differ


def best_of(cuts, score):
    """Highest score of the cuts, and how near to 0.5 the nearest of those comes that reach it."""
    scores = [score(threshold) for threshold in cuts]
    return max(scores), min(
        abs(threshold - 0.5) for threshold, found in zip(cuts, scores, strict=True) if math.isclose(found, max(scores))
    )


def test_a_label_is_predicted_above_its_threshold_and_not_at_it():
    probabilities = torch.tensor([[0.5, 0.25, 0.0], [0.5000001, 0.2499999, 1.0]])
    decisions = thresholds.decide(probabilities, torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64))
    assert decisions.tolist() == [[False, False, False], [True, False, True]]


def test_thresholds_are_not_rounded_to_the_dtype_of_the_probabilities():
    probability = torch.tensor([[0.5]])
    assert thresholds.decide(probability, torch.tensor([0.5 - 1e-12], dtype=torch.float64)).item()


def test_fit_finds_the_best_cuts_of_a_case_made_by_hand():
    probabilities = torch.tensor([[0.9, 0.4], [0.8, 0.35], [0.3, 0.22], [0.2, 0.1]])
    targets = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    cuts = thresholds.fit_thresholds(probabilities, targets, fitting(0.6))
    assert tuple(cuts) == thresholds.PROTOCOLS
    assert cuts["fixed"].tolist() == [0.6, 0.6]
    assert cuts["global"].tolist() == [0.34, 0.34]
    assert cuts["per_label"].tolist() == pytest.approx([0.55, 0.285])
    assert all(threshold.dtype == torch.float64 for threshold in cuts.values())


outcomes = st.lists(
    st.tuples(st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1
).filter(lambda rows: any(positive and probability > 0 for probability, positive in rows))


@given(outcomes)
@example([(0.5, True), (0.0, True), (0.0, False)])
@example([(0.9, True), (0.5, False), (0.0, True)])
def test_cut_of_a_label_is_the_best_of_all_midpoints(rows):
    probabilities, truth = (np.array(column) for column in zip(*rows, strict=True))
    values = np.unique([0.0, *probabilities])
    midpoints = (values[1:] + values[:-1]) / 2
    highest, nearest = best_of(midpoints, lambda threshold: f1(probabilities > threshold, truth))
    threshold = best_cut(probabilities.tolist(), truth.tolist())
    assert f1(probabilities > threshold, truth) == pytest.approx(highest)
    assert abs(threshold - 0.5) == pytest.approx(nearest)


@pytest.mark.parametrize("seed", range(5))
def test_global_cut_is_the_best_of_the_grid(seed):
    generator = np.random.default_rng(seed)
    truth = generator.random((30, 4)) < [0.0, 0.1, 0.3, 0.6]
    probabilities = (0.6 * generator.random((30, 4)) + 0.3 * truth).astype(np.float32)

    def macro(threshold):
        return np.mean([f1(probabilities[:, i].astype(np.float64) > threshold, truth[:, i]) for i in range(4)])

    highest, nearest = best_of([i / 100 for i in range(1, 100)], macro)
    threshold = thresholds.global_threshold(torch.from_numpy(probabilities), torch.from_numpy(truth))
    assert macro(threshold) == pytest.approx(highest)
    assert abs(threshold - 0.5) == pytest.approx(nearest)


@pytest.mark.parametrize(
    ("probabilities", "everywhere", "per_label"),
    [
        ([0.98, 0.02], 0.5, 0.5),  # every cut of the grid between them is as good
        ([0.875, 0.625], 0.63, 0.75),
        ([0.375, 0.125], 0.37, 0.25),
    ],
)
def test_of_equally_good_cuts_the_nearest_to_one_half_is_taken(probabilities, everywhere, per_label):
    assert thresholds.global_threshold(*tensors(probabilities, [True, False])) == pytest.approx(everywhere)
    assert best_cut(probabilities, [True, False]) == pytest.approx(per_label)


def test_two_cuts_with_the_same_f1_for_a_label_give_the_one_nearest_to_one_half():
    # Above the negatives and below everything, F1 is 2/3.
    assert best_cut([0.9, 0.6, 0.55, 0.4], [True, False, False, True]) == pytest.approx(0.75)
    assert best_cut([0.95, 0.9, 0.85, 0.7], [True, False, False, True]) == pytest.approx(0.35)


def test_label_without_positives_gets_the_global_cut():
    probabilities = torch.tensor([[0.9, 0.9], [0.8, 0.1], [0.6, 0.6]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    cuts = thresholds.fit_thresholds(probabilities, targets, fitting())
    assert cuts["global"].tolist() == [0.61, 0.61]
    assert cuts["per_label"].tolist() == pytest.approx([0.7, 0.61])


def test_label_whose_positives_no_cut_finds_gets_the_fallback():
    assert best_cut([0.0, 0.0, 0.9], [True, False, False], fallback=0.3) == 0.3


def test_equal_probabilities_are_never_separated():
    # A cut between the first two would look perfect.
    assert best_cut([0.6, 0.6, 0.6, 0.2], [True, False, False, True]) == pytest.approx(0.1)
    assert best_cut([0.6, 0.6, 0.2], [True, False, False]) == pytest.approx(0.4)


def test_neighbouring_float32_probabilities_are_told_apart():
    higher = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert 0.5 < best_cut([higher, 0.5], [True, False]) < higher


@pytest.mark.parametrize("protocol", thresholds.PROTOCOLS)
def test_each_option_names_its_protocol(settings, protocol):
    assert thresholds.chosen_protocol(settings(f"thresholds={protocol}").thresholds) == protocol


def score(metric, decisions, targets):
    name = {"macro": "f1_macro", "micro": "f1_micro", "jaccard": "jaccard"}[metric]
    threshold = torch.full((targets.shape[1],), 0.5)
    return metrics.decisions_report(decisions, targets.bool(), threshold, [str(i) for i in range(targets.shape[1])])[
        name
    ]


@pytest.mark.parametrize("metric", ["macro", "micro", "jaccard"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [None, 8])
def test_thresholds_are_fitted_for_the_metric_asked_for(metric, seed, steps):
    probabilities, targets = case(seed=seed)
    if steps is not None:  # many rows share a probability, and no threshold parts them
        probabilities = (probabilities * steps).round() / steps
    cuts = thresholds.fit_thresholds(probabilities, targets, fitting(metric=ThresholdMetric(metric)))
    found = {
        name: score(metric, thresholds.decide(probabilities, threshold), targets) for name, threshold in cuts.items()
    }
    grid = [score(metric, thresholds.decide(probabilities, torch.full((4,), c / 100)), targets) for c in range(1, 100)]
    assert found["global"] == pytest.approx(max(grid))
    assert found["per_label"] >= found["global"]
    # No other cut of a single label is better.
    values = torch.cat([probabilities.double().flatten().unique() - 1e-9, torch.tensor([1.0])])
    for label in range(4):
        for value in values[::5]:
            other = cuts["per_label"].clone()
            other[label] = value
            assert score(metric, thresholds.decide(probabilities, other), targets) <= found["per_label"] + 1e-9


@pytest.mark.parametrize("metric", [ThresholdMetric.micro, ThresholdMetric.jaccard])
def test_of_equally_good_thresholds_of_one_label_the_nearest_to_one_half_is_taken(metric):
    probabilities, targets = tensors([0.9, 0.8, 0.3, 0.1], [True, False, False, True])
    if metric is ThresholdMetric.jaccard:  # its rows are decided one by one
        probabilities, targets = tensors([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
    found = thresholds._ascend(probabilities, targets, start=0.95, metric=metric)
    assert found.tolist() == pytest.approx([0.85 if metric is ThresholdMetric.micro else 0.2])


def test_a_label_that_only_harms_is_never_predicted_for_micro():
    probabilities = torch.tensor([[0.9, 0.9], [0.8, 0.8], [0.1, 0.7], [0.2, 0.2]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    cuts = thresholds.fit_thresholds(probabilities, targets, fitting(metric=ThresholdMetric.micro))["per_label"]
    assert not thresholds.decide(probabilities, cuts)[:, 1].any() and cuts[1] < 1


def test_labels_with_little_support_take_the_global_threshold():
    probabilities, targets = case()
    support = targets.sum(0)
    for least in (0, int(support.min()), int(support.min()) + 1, 1000):
        cuts = thresholds.fit_thresholds(probabilities, targets, fitting(min_support=least))
        own = thresholds.fit_thresholds(probabilities, targets, fitting())["per_label"]
        assert cuts["per_label"].equal(torch.where(support >= least, own, cuts["global"]))


def test_cross_fitted_thresholds_are_the_mean_over_the_parts_left_out():
    probabilities, targets = case(rows=90)
    cuts = thresholds.fit_thresholds(probabilities, targets, fitting(cross_fit=3))
    fold = torch.randperm(90, generator=torch.Generator().manual_seed(0)) % 3
    parts = [thresholds.fit_thresholds(probabilities[fold != f], targets[fold != f], fitting()) for f in range(3)]
    for name in ("global", "per_label"):
        torch.testing.assert_close(cuts[name], torch.stack([part[name] for part in parts]).mean(0))


def test_of_a_few_rows_nothing_is_left_out():
    probabilities, targets = case(rows=5)
    assert thresholds.fit_thresholds(probabilities, targets, fitting(cross_fit=5))["global"].equal(
        thresholds.fit_thresholds(probabilities, targets, fitting())["global"]
    )


def test_the_oracle_is_fitted_on_the_rows_it_scores_and_cannot_be_chosen(settings):
    probabilities, targets = case()
    other_probabilities, other_targets = case(seed=5)
    cuts = thresholds.fit_thresholds(other_probabilities, other_targets, fitting())
    report = metrics.score(probabilities, targets, cuts, list("abcd"))
    assert all(report["oracle"]["f1_macro"] >= report[name]["f1_macro"] for name in thresholds.PROTOCOLS)
    assert "oracle" not in thresholds.PROTOCOLS
    with pytest.raises(Exception, match="oracle"):
        settings("thresholds=oracle")


@pytest.mark.parametrize("metric", ThresholdMetric)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(1, 40), labels=st.integers(1, 6),
    steps=st.sampled_from([None, 4, 50, 100]),
)  # fmt: skip
def test_the_common_cut_is_that_of_a_pass_over_the_data_for_each_cut(metric, seed, rows, labels, steps):
    probabilities, targets = case(rows, labels, seed)
    if steps is not None:  # many equal probabilities, on the cuts themselves
        probabilities = (probabilities * steps).round() / steps
    truth = targets.bool()
    grid = torch.arange(1, 100, dtype=torch.float64) / 100
    score = {
        ThresholdMetric.macro: lambda decided: (
            sum(f1(*columns) for columns in zip(decided.T, truth.T, strict=True)) / labels
        ),
        ThresholdMetric.micro: lambda decided: f1(decided, truth),
        ThresholdMetric.jaccard: lambda decided: thresholds.row_jaccard(decided, truth).mean(),
    }[metric]
    scores = torch.tensor([float(score(thresholds.decide(probabilities, threshold))) for threshold in grid])
    best = (scores >= scores.max() - 1e-12).nonzero().flatten()
    expected = grid[best[(grid[best] - 0.5).abs().argmin()]]
    assert thresholds.global_threshold(probabilities, targets, metric=metric) == float(expected)


@pytest.mark.parametrize("metric", ThresholdMetric)
def test_fitting_passes_over_the_data_once_and_not_for_each_cut(metric, monkeypatch):
    decided = []
    decide = thresholds.decide
    monkeypatch.setattr(thresholds, "decide", lambda p, threshold: decided.append(p.numel()) or decide(p, threshold))
    probabilities, targets = case(500, 5)
    thresholds.global_threshold(probabilities, targets, metric=metric)
    assert not decided
