import math

import pytest
import torch

from emotion_lightning.evaluation.intensities import Intensities, events

SHARES = torch.tensor([[0.0, 1.0], [1 / 3, 1.0], [1.0, 0.0], [2 / 3, 0.0]])
"""Intensities of 0 to 3 in four rows of two labels, as shares of 3."""


def everything(shares):
    return torch.ones_like(shares, dtype=torch.bool)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_an_intensity_reaches_the_levels_up_to_it():
    assert events(SHARES, 3)[:, 0].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]


def test_the_mean_of_annotators_reaches_the_level_above_it_in_part():
    found = events(torch.tensor([[4 / 9]]), 3)[0, 0]  # 1, 1 and 2 of three annotators
    assert found.tolist() == pytest.approx([1, 1 / 3, 0], abs=1e-6)
    assert float(found.sum()) == pytest.approx(4 / 3)


def test_cut_points_of_train_are_the_logits_of_how_often_levels_are_reached():
    found = Intensities.of_train(SHARES, everything(SHARES), scale=3, present=1)
    # Of four rows 3, 2 and 1 reach the levels of the first label; half a row is added to both sides.
    expected = [0, math.log(3.5 / 1.5) - 0, math.log(3.5 / 1.5) - math.log(1.5 / 3.5)]
    assert found.cuts[0].tolist() == pytest.approx(expected)
    assert (found.scale, found.present) == (3, 1)


def test_open_labels_count_in_no_cut_point():
    known = torch.tensor([[True, True], [False, True], [True, True], [True, True]])
    shares = torch.where(known, SHARES, 0.0)
    found = Intensities.of_train(shares, known, scale=3, present=1).cuts[0]
    alone = Intensities.of_train(SHARES[known[:, 0]], everything(SHARES[known[:, 0]]), scale=3, present=1).cuts[0]
    assert found.tolist() == alone.tolist()


def test_levels_that_train_has_equally_often_are_apart_all_the_same():
    cuts = Intensities.of_train(SHARES, everything(SHARES), scale=3, present=2).cuts
    assert cuts[1].tolist() == pytest.approx([-0.1, 0, 0.1])  # the second label is 0 or 3 only; present from 2
    assert bool((cuts.diff(dim=1) > 0).all())


def test_the_expected_intensity_is_the_sum_of_the_probabilities_of_the_levels():
    reading = Intensities(3.0, 2, torch.tensor([[-1.0, 0.0, 2.0]], dtype=torch.float64))
    logit = 0.7
    expected = (sigmoid(logit + 1) + sigmoid(logit) + sigmoid(logit - 2)) / 3
    assert float(reading.shares(torch.tensor([[sigmoid(logit)]]))) == pytest.approx(expected, abs=1e-6)
    extremes = reading.shares(torch.tensor([[0.0], [1.0]]))
    assert extremes.flatten().tolist() == pytest.approx([0, 1], abs=1e-6)


def test_without_cut_points_probabilities_are_the_shares():
    given = torch.tensor([[0.2, 0.7]])
    assert Intensities(3.0).shares(given) is given and Intensities(3.0).targets(given) is given
    assert (
        Intensities(3.0).shares_beside(given) is None and Intensities(3.0).calibrated(given, given, None).cuts is None
    )


def drawn(rows=4000):
    """Levels of 0 to 3 drawn around logits, present from 2: logits and shares, [row, 2]."""
    generator = torch.Generator().manual_seed(1)
    logits = 1.5 * torch.randn(rows, 2, generator=generator) - 0.5
    cuts = torch.tensor([[-2.0, 0.0, 1.0], [-1.0, 0.0, 3.0]])
    chance = torch.rand(rows, 2, generator=generator)[..., None]
    return logits, (chance < torch.sigmoid(logits[..., None] - cuts)).sum(-1) / 3, cuts


def test_calibrated_cut_points_are_those_of_the_data():
    logits, shares, cuts = drawn()
    reading = Intensities(3.0, 2, torch.tensor([[-0.1, 0.0, 0.1]] * 2, dtype=torch.float64))
    found = reading.calibrated(torch.sigmoid(logits), shares, None)
    assert found.cuts.flatten().tolist() == pytest.approx(cuts.flatten().tolist(), abs=0.15)
    assert reading.cuts[0].tolist() == [-0.1, 0.0, 0.1]


def test_intensities_are_right_in_the_mean_where_a_network_has_learned_nothing():
    """The calibration of a useless network answers how often a label is present, for every text."""
    _, shares, _ = drawn()
    same = events(shares, 3)[..., 1].mean(0).expand(len(shares), 2)
    found = Intensities.of_train(shares, everything(shares), scale=3, present=2).calibrated(same, shares, None)
    assert found.shares(same)[0].tolist() == pytest.approx(shares.mean(0).tolist(), abs=1e-3)


def test_open_labels_move_no_calibrated_cut_point():
    logits, shares, _ = drawn(200)
    known = torch.rand(200, 2, generator=torch.Generator().manual_seed(5)) < 0.7
    reading = Intensities(3.0, 2, torch.zeros(2, 3, dtype=torch.float64))
    found = reading.calibrated(torch.sigmoid(logits), torch.where(known, shares, 0.0), known).cuts
    alone = [
        reading.of_labels([i]).calibrated(
            torch.sigmoid(logits[known[:, i], i : i + 1]), shares[known[:, i], i : i + 1], None
        )
        for i in (0, 1)
    ]
    torch.testing.assert_close(found, torch.cat([one.cuts for one in alone]))


def test_calibrated_cut_points_keep_their_order_and_presence_at_0():
    # Presence is answered far too often, so that all levels would have to move up.
    shares = torch.tensor([[0.0], [0.0], [1 / 3], [1.0]])
    found = Intensities(3.0, 2, torch.zeros(1, 3)).calibrated(torch.full((4, 1), 0.99), shares, None).cuts[0].tolist()
    assert found[0] == found[1] == 0 < found[2]


def test_a_level_that_is_never_reached_has_a_finite_cut_point():
    found = Intensities(3.0, 1, torch.zeros(1, 3)).calibrated(torch.full((9, 1), 0.5), torch.zeros(9, 1), None).cuts
    assert bool(torch.isfinite(found).all())


def test_calibration_is_fitted_to_presence_where_a_probability_is_that():
    reading = Intensities.of_train(SHARES, everything(SHARES), scale=3, present=2)
    assert reading.targets(SHARES).tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize("reading", [Intensities(3.0), Intensities(2.0, 2, torch.tensor([[-0.5, 0.0], [-1.0, 0.0]]))])
def test_what_is_stored_is_read_again(reading):
    again = Intensities.from_plain(reading.plain(["joy", "fear"]), ["joy", "fear"])
    assert (again.scale, again.present if reading.cuts is not None else 1) == (reading.scale, reading.present)
    assert (again.cuts is None) == (reading.cuts is None)
    if reading.cuts is not None:
        assert again.cuts.tolist() == reading.cuts.tolist()
        assert again.of_labels([1]).cuts.tolist() == [[-1, 0]]


CUTS = {"joy": [0.0, 1.0], "fear": [0.0, 2.0]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scale": 0}, "scale of intensities is 0"),
        ({"scale": "3"}, "scale of intensities is '3'"),
        ({"cuts": {"joy": [0.0, 1.0]}}, "of 1 labels"),
        ({"scale": 3.0}, "with 3.0 levels"),
        ({"present": 3}, "present from 3"),
        ({"cuts": {"joy": [0.0, 1.0], "fear": [0.0, -2.0]}}, "no increasing numbers"),
        ({"cuts": {"joy": [0.0, 1.0], "fear": [0.0, float("nan")]}}, "no increasing numbers"),
        ({"cuts": {"joy": [0.0, 1.0], "fear": [0.0]}}, "expected sequence of length"),
    ],
)
def test_damaged_cut_points_are_refused(changed, message):
    content = {"scale": 2.0, "present": 1, "cuts": CUTS} | changed
    with pytest.raises((TypeError, ValueError), match=message):
        Intensities.from_plain(content, ["joy", "fear"])
