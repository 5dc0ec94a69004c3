"""Labels that look wrong: planted errors come first, and are counted by label."""

import numpy as np
import pytest

from emotion_lightning.evaluation import label_errors


def planted(rows: int = 3000, *, share: float = 0.03) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a good model, given labels with errors, and where the errors are."""
    draws = np.random.default_rng(3)
    probabilities = 1 / (1 + np.exp(-draws.normal(-1, 3, (rows, 4))))
    right = draws.random(probabilities.shape) < probabilities
    wrong = draws.random(probabilities.shape) < share
    return probabilities, (right ^ wrong).astype(np.float32), wrong


def test_planted_errors_come_first() -> None:
    probabilities, given, wrong = planted()
    doubts = label_errors.doubts(label_errors.calibrated(probabilities, given), given)
    first = np.argsort(-doubts.ravel())[:100]
    assert wrong.ravel()[first].mean() > 20 * wrong.mean()


def test_a_tilt_of_the_probabilities_changes_no_order_within_a_label() -> None:
    probabilities, given, _ = planted()
    # What a weighted loss does: all odds are eight times too high.
    tilted = 8 * probabilities / (1 - probabilities + 8 * probabilities)
    one, other = (label_errors.calibrated(shares, given) for shares in (probabilities, tilted))
    assert np.abs(one - other).max() < 1e-3
    assert np.abs(one.mean(0) - given.mean(0)).max() < 1e-2


def test_errors_are_counted_by_label_as_the_confident_joint_does() -> None:
    probabilities = np.array([[0.9, 0.3], [0.8, 0.3], [0.1, 0.3], [0.2, 0.3], [0.95, 0.3], [0.05, 0.3]])
    given = np.array([[1, 0], [1, 0], [0, 0], [0, 0], [0, 0], [1, 0]], dtype=np.float32)
    first, second = label_errors.count_errors(probabilities, given)
    # Means: with the label (.9 + .8 + .05) / 3 = .583, without it (.1 + .2 + .95) / 3 = .417.
    assert first == label_errors.LabelErrors(given=3, missing=1, unwarranted=1)
    assert second == label_errors.LabelErrors(given=0, missing=0, unwarranted=0)


@pytest.mark.parametrize("given", [0.0, 1.0])
def test_a_label_of_one_kind_of_row_keeps_its_probabilities(given: float) -> None:
    probabilities = np.array([[0.2], [0.7]])
    found = label_errors.calibrated(probabilities, np.full((2, 1), given, dtype=np.float32))
    assert found == pytest.approx(probabilities, abs=1e-6)
