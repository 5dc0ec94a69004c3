import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from emotion_lightning import thresholds


def tensors(probabilities, truth):
    """One label: [row, 1] each, float32 as a network gives them."""
    return torch.tensor(probabilities, dtype=torch.float32)[:, None], torch.tensor(truth)[:, None].float()


def best_cut(probabilities, truth, fallback=0.25):
    return float(thresholds.per_label_thresholds(*tensors(probabilities, truth), fallback=fallback))


def f1(decisions, truth):
    total = decisions.sum() + truth.sum()
    return 2 * (decisions & truth).sum() / total if total else 0.0


def best_of(cuts, score):
    """Highest score of the cuts, and how near to 0.5 the nearest of those comes that reach it."""
    scores = [score(cut) for cut in cuts]
    return max(scores), min(
        abs(cut - 0.5) for cut, found in zip(cuts, scores, strict=True) if math.isclose(found, max(scores))
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
    cuts = thresholds.fit(probabilities, targets, fixed=0.6)
    assert tuple(cuts) == thresholds.PROTOCOLS
    assert cuts["fixed"].tolist() == [0.6, 0.6]
    assert cuts["global"].tolist() == [0.34, 0.34]
    assert cuts["per_label"].tolist() == pytest.approx([0.55, 0.285])
    assert all(cut.dtype == torch.float64 for cut in cuts.values())


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
    highest, nearest = best_of(midpoints, lambda cut: f1(probabilities > cut, truth))
    cut = best_cut(probabilities.tolist(), truth.tolist())
    assert f1(probabilities > cut, truth) == pytest.approx(highest)
    assert abs(cut - 0.5) == pytest.approx(nearest)


@pytest.mark.parametrize("seed", range(5))
def test_global_cut_is_the_best_of_the_grid(seed):
    generator = np.random.default_rng(seed)
    truth = generator.random((30, 4)) < [0.0, 0.1, 0.3, 0.6]
    probabilities = (0.6 * generator.random((30, 4)) + 0.3 * truth).astype(np.float32)

    def macro(cut):
        return np.mean([f1(probabilities[:, i].astype(np.float64) > cut, truth[:, i]) for i in range(4)])

    highest, nearest = best_of([i / 100 for i in range(1, 100)], macro)
    cut = thresholds.global_threshold(torch.from_numpy(probabilities), torch.from_numpy(truth))
    assert macro(cut) == pytest.approx(highest)
    assert abs(cut - 0.5) == pytest.approx(nearest)


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
    cuts = thresholds.fit(probabilities, targets)
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
    assert thresholds.protocol(settings(f"thresholds={protocol}").thresholds) == protocol
