from functools import partial

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multilabel_f1_score

from emotion_lightning.evaluation import metrics, thresholds

SHAPES = [(1, 2), (7, 3), (200, 11), (5427, 28)]
"""Rows and labels; the last is the test split of GoEmotions."""

REFERENCES = {
    "f1_micro": partial(sklearn_metrics.f1_score, average="micro", zero_division=0),
    "f1_macro": partial(sklearn_metrics.f1_score, average="macro", zero_division=0),
    "jaccard": partial(sklearn_metrics.jaccard_score, average="samples", zero_division=1),
    "f1_samples": partial(sklearn_metrics.f1_score, average="samples", zero_division=1),
    "subset_accuracy": sklearn_metrics.accuracy_score,
    "label_accuracy": lambda truth, decisions: (truth == decisions).mean(),
    "predicted_cardinality": lambda truth, decisions: decisions.sum(1).mean(),
    "gold_cardinality": lambda truth, decisions: truth.sum(1).mean(),
}


def random_rows(rows, labels, seed=0):
    """float32 probabilities with ties; label 0 has no gold, every third row no gold, every fourth no prediction."""
    generator = np.random.default_rng(seed)
    truth = generator.random((rows, labels)) < 0.3
    truth[:, 0] = False
    truth[::3] = False
    probabilities = 0.7 * generator.random((rows, labels)) + 0.3 * truth
    probabilities[1::4] *= 0.4
    return torch.from_numpy(probabilities.astype(np.float32)), torch.from_numpy(truth.astype(np.float32))


def fixed(labels, value=0.5):
    return torch.full((labels,), value, dtype=torch.float64)


def names(labels):
    return [f"label {i}" for i in range(labels)]


def scores_and_reference(shape):
    """The package's scores, and truth and decisions as numpy for scikit-learn."""
    probabilities, targets = random_rows(*shape)
    threshold = torch.linspace(0.3, 0.6, shape[1], dtype=torch.float64)
    decisions = thresholds.decide(probabilities, threshold)
    scores = metrics.decisions_report(decisions, targets.bool(), threshold, names(shape[1]))
    return (
        scores,
        targets.numpy().astype(int),
        (probabilities.numpy().astype(np.float64) > threshold.numpy()).astype(int),
    )


@pytest.mark.parametrize("metric", REFERENCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_agree_with_scikit_learn(shape, metric):
    scores, truth, decisions = scores_and_reference(shape)
    assert scores[metric] == pytest.approx(REFERENCES[metric](truth, decisions), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_of_each_label_agree_with_scikit_learn(shape):
    scores, truth, decisions = scores_and_reference(shape)
    reference = sklearn_metrics.precision_recall_fscore_support(truth, decisions, average=None, zero_division=0)
    for metric, expected in zip(("precision", "recall", "f1", "support"), reference, strict=True):
        found = [scores["labels"][name][metric] for name in names(shape[1])]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9, err_msg=metric)


def test_one_label_is_scored_as_scikit_learn_scores_a_binary_task():
    probabilities, targets = random_rows(50, 2)
    probabilities, targets = probabilities[:, 1:], targets[:, 1:]
    truth, decisions = targets[:, 0].numpy(), probabilities[:, 0].numpy() > 0.5
    scores = metrics.score(probabilities, targets, {"fixed": fixed(1)}, ["joy"])
    f1 = pytest.approx(sklearn_metrics.f1_score(truth, decisions), abs=1e-9)
    assert scores["fixed"]["f1_macro"] == scores["fixed"]["f1_micro"] == f1
    assert scores["fixed"]["labels"]["joy"]["f1"] == f1
    assert scores["map"] == pytest.approx(sklearn_metrics.average_precision_score(truth, probabilities[:, 0]), abs=1e-6)
    assert scores["lrap"] == 1


@pytest.mark.parametrize("average", ["micro", "macro", "none"])
def test_f1_agrees_with_torchmetrics(average):
    probabilities, targets = random_rows(200, 11)
    scores = metrics.score(probabilities, targets, {"fixed": fixed(11)}, names(11))["fixed"]
    found = [label["f1"] for label in scores["labels"].values()] if average == "none" else scores[f"f1_{average}"]
    expected = multilabel_f1_score(probabilities, targets.int(), num_labels=11, average=average)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("digits", [1, 7], ids=["ties", "no ties"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rankings_agree_with_scikit_learn(shape, digits):
    probabilities, targets = random_rows(*shape)
    probabilities = probabilities.round(decimals=digits)
    truth = targets.numpy().astype(int)
    precisions = [
        sklearn_metrics.average_precision_score(truth[:, i], probabilities[:, i].numpy())
        for i in range(shape[1])
        if truth[:, i].any()
    ]
    found = metrics.rankings(probabilities, targets.bool())
    lrap = sklearn_metrics.label_ranking_average_precision_score(truth, probabilities.numpy())
    assert found["map"] == pytest.approx(np.mean(precisions) if precisions else 0.0, abs=1e-6)
    assert found["lrap"] == pytest.approx(lrap, abs=1e-6)


def test_label_with_neither_gold_nor_predicted_counts_in_the_macro_alone():
    truth = torch.tensor([[1, 0, 0], [1, 0, 0]]).bool()
    decisions = torch.tensor([[1, 0, 0], [1, 0, 1]]).bool()
    scores = metrics.decisions_report(decisions, truth, fixed(3), ["found", "absent", "made up"])
    assert scores["f1_macro"] == pytest.approx(1 / 3)
    assert scores["f1_macro_supported"] == pytest.approx(1 / 2)


def test_nothing_gold_and_nothing_predicted_has_scores():
    nothing = torch.zeros(3, 2)
    scores = metrics.score(nothing, nothing, {"fixed": fixed(2)}, ["a", "b"])
    assert (scores["map"], scores["lrap"]) == (0, 1)
    assert {scores["fixed"][name] for name in ("f1_micro", "f1_macro", "f1_macro_supported")} == {0}
    assert {scores["fixed"][name] for name in ("jaccard", "f1_samples", "subset_accuracy", "label_accuracy")} == {1}


def test_report_holds_what_the_contract_names():
    probabilities, targets = random_rows(7, 2)
    scores = metrics.score(probabilities, targets, {"fixed": fixed(2, 0.25)}, ["a", "b"])
    assert list(scores) == ["rows", "probabilities", "map", "lrap", "ece", "brier", "fixed", "oracle"]
    assert scores["rows"] == 7
    assert set(scores["fixed"]) == {*REFERENCES, "f1_macro_supported", "labels"}
    assert list(scores["fixed"]["labels"]) == ["a", "b"]
    assert set(scores["fixed"]["labels"]["a"]) == {"precision", "recall", "f1", "support", "threshold"}
    assert scores["fixed"]["labels"]["a"]["threshold"] == 0.25


def gathered(*batches, targets=True):
    """What Outcomes makes of batches of row numbers; logits and targets are functions of the row."""
    outcomes = metrics.Outcomes()
    for batch in batches:
        rows = torch.tensor(batch)
        outcomes.update(rows, torch.stack([rows, -rows], 1), rows[:, None] % 2 if targets else None)
    return outcomes.gather()


@pytest.mark.parametrize(
    "batches",
    [
        [[0, 1, 2, 3, 4]],
        [[4, 2, 0], [3], [1]],
        [[0, 2, 4], [1, 3, 0]],  # a sampler for two processes repeats the first row
        [[0, 0, 0, 1], [4, 3], [4, 2, 1]],
    ],
)
def test_outcomes_gives_each_row_once_and_in_order(batches):
    rows, logits, targets = gathered(*batches)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert logits.tolist() == [[row, -row] for row in range(5)]
    assert targets.flatten().tolist() == [0, 1, 0, 1, 0]


def test_outcomes_keeps_row_numbers_that_are_not_in_sequence():
    rows, logits, _ = gathered([70, 7], [30])
    assert rows.tolist() == logits[:, 0].tolist() == [7, 30, 70]


def test_outcomes_without_targets_gives_none():
    assert gathered([1, 0], [2], targets=False)[2] is None


def test_outcomes_of_a_single_element_keep_their_axes():
    outcomes = metrics.Outcomes()
    outcomes.update(torch.tensor([5]), torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    assert [part.tolist() for part in outcomes.gather()] == [[5], [[2.0]], [[1.0]]]


def test_outcomes_start_afresh_once_gathered():
    outcomes = metrics.Outcomes()
    for row in (8, 3):
        outcomes.update(torch.tensor([row]), torch.zeros(1, 2), None)
        rows, _, _ = outcomes.gather()
        assert rows.tolist() == [row]


def test_outcomes_gives_float32_logits_whatever_the_network_computes_in():
    outcomes = metrics.Outcomes()
    outcomes.update(torch.tensor([0]), torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True), torch.ones(1, 2))
    _, logits, _ = outcomes.gather()
    assert logits.dtype == torch.float32 and not logits.requires_grad


@pytest.mark.parametrize("batch", [1, 4, 7, 40])
def test_logits_between_zero_and_one_are_never_taken_for_probabilities(batch):
    _, targets = random_rows(40, 3)
    # A batch of the first rows looks like probabilities; torchmetrics' guess would differ from batch to batch.
    logits = torch.cat([torch.linspace(0.01, 0.99, 60).reshape(20, 3), torch.linspace(-4, 4, 60).reshape(20, 3)])
    outcomes = metrics.Outcomes()
    for rows in torch.arange(40).split(batch):
        outcomes.update(rows, logits[rows], targets[rows])
    _, collected, truth = outcomes.gather()
    cuts = {"fixed": fixed(3), "global": fixed(3, 0.62)}
    by_parts = metrics.score(torch.sigmoid(collected), truth, cuts, names(3))
    assert by_parts == metrics.score(torch.sigmoid(logits), targets, cuts, names(3))
    for protocol, threshold in (("fixed", 0.5), ("global", 0.62)):
        decisions = 1 / (1 + np.exp(-logits.double().numpy())) > threshold
        expected = REFERENCES["f1_macro"](targets.numpy(), decisions)
        assert by_parts[protocol]["f1_macro"] == pytest.approx(expected, abs=1e-9)


def test_protocols_that_agree_on_the_first_rows_do_not_merge():
    probabilities = torch.tensor([[0.95, 0.05]] * 4 + [[0.4, 0.8], [0.6, 0.2], [0.4, 0.3], [0.7, 0.6]])
    targets = torch.tensor([[1, 0]] * 4 + [[1, 0], [0, 1], [1, 1], [0, 0]])
    cuts = {"fixed": fixed(2), "global": fixed(2, 0.35), "per_label": torch.tensor([0.9, 0.15], dtype=torch.float64)}
    scores = metrics.score(probabilities, targets, cuts, ["a", "b"])
    for protocol, threshold in cuts.items():
        expected = REFERENCES["f1_macro"](targets.numpy(), (probabilities.double() > threshold).numpy())
        assert scores[protocol]["f1_macro"] == pytest.approx(expected, abs=1e-9)
    assert len({scores[protocol]["f1_macro"] for protocol in cuts}) == 3
