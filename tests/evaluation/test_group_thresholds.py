import json
import re
from pathlib import Path

import pytest
import torch

from emotion_lightning import config
from emotion_lightning.config import Calibration, ThresholdMetric
from emotion_lightning.data import carried
from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import group_thresholds, scoring, thresholds
from emotion_lightning.evaluation.group_thresholds import GroupThresholds

LABELS = ["joy", "fear"]


def fitting(by="language", *, min_support=1, metric=ThresholdMetric.macro, cross_fit=None):
    return config.PerLabelThresholds(metric, min_support, cross_fit, by=by, calibration=Calibration.none)


def case(groups=(("low", 60, -2.0), ("high", 60, 1.0)), seed=0):
    """Rows of groups whose probabilities are lower or higher for the same labels: probabilities, targets, values."""
    generator = torch.Generator().manual_seed(seed)
    values = [name for name, rows, _ in groups for _ in range(rows)]
    targets = (torch.rand(len(values), 2, generator=generator) < 0.4).float()
    shift = torch.tensor([offset for _, rows, offset in groups for _ in range(rows)])[:, None]
    noise = 0.5 * torch.randn(len(values), 2, generator=generator)
    return torch.sigmoid(noise + 3 * targets - 1.5 + shift), targets, values


def fit(probabilities, targets, values, settings=None, known=None):
    settings = settings or fitting()
    overall = thresholds.fit_thresholds(probabilities, targets, settings, known=known)
    return overall, group_thresholds.fit(probabilities, targets, settings, values=values, overall=overall, known=known)


def test_thresholds_of_a_group_are_those_of_its_rows_alone():
    probabilities, targets, values = case()
    _, found = fit(probabilities, targets, values)
    for place, value in enumerate(("low", "high")):
        own = slice(60 * place, 60 * (place + 1))
        alone = thresholds.fit_thresholds(probabilities[own], targets[own], fitting())
        assert set(found.by_value[value]) == {"global", "per_label"}
        for protocol, cuts in found.by_value[value].items():
            assert cuts.tolist() == alone[protocol].tolist()
    assert bool((found.by_value["low"]["global"] < found.by_value["high"]["global"]).all())


def test_decisions_use_the_thresholds_of_the_row_s_group_and_the_overall_ones_for_others():
    overall = {"fixed": torch.tensor([0.5, 0.5]), "global": torch.tensor([0.4, 0.4])}
    own = {"global": torch.tensor([0.1, 0.1]), "per_label": torch.tensor([0.1, 0.9])}
    found = GroupThresholds("language", {"deu": own})
    probabilities = torch.tensor([[0.2, 0.2]] * 3)
    values = ["deu", "xyz", carried.EMPTY]
    decided = group_thresholds.decide(probabilities, overall, found, values)
    assert decided["global"].tolist() == [[True, True], [False, False], [False, False]]
    assert not decided["fixed"].any()
    without = group_thresholds.decide(probabilities, overall, found, None)
    assert not without["global"].any()
    assert found.of_rows(overall, [])["global"].shape == (0, 2)


def test_groups_of_few_rows_or_labels_have_none_of_their_own():
    few = group_thresholds.FEW - 1
    probabilities, targets, values = case((("low", 60, -2.0), ("tiny", few, 1.0), (carried.EMPTY, 60, 0.0)))
    targets[60 : 60 + few] = 1
    _, found = fit(probabilities, targets, values)
    assert set(found.by_value) == {"low"}
    said = group_thresholds.sentence(found, values)
    assert said == (
        "Thresholds by language are fitted for low; with too few rows or labels in validation: (empty), tiny."
    )
    targets[:] = 0
    assert fit(probabilities, targets, values)[1].by_value == {}


def test_a_label_that_is_rare_in_a_group_keeps_its_overall_threshold():
    probabilities, targets, values = case()
    targets[:60, 1] = 0
    targets[:12, 1] = 1
    overall, found = fit(probabilities, targets, values, fitting(min_support=13))
    low = found.by_value["low"]["per_label"]
    assert float(low[1]) == float(overall["per_label"][1]) and float(low[0]) != float(overall["per_label"][0])
    _, enough = fit(probabilities, targets, values, fitting(min_support=12))
    assert float(enough.by_value["low"]["per_label"][1]) != float(overall["per_label"][1])
    # A smaller minimum is for thresholds of all rows.
    targets[: 13 - group_thresholds.LEAST, 1] = 0
    overall, found = fit(probabilities, targets, values, fitting(min_support=1))
    assert float(found.by_value["low"]["per_label"][1]) == float(overall["per_label"][1])


def test_a_label_that_a_group_leaves_open_keeps_its_overall_threshold():
    probabilities, targets, values = case()
    known = torch.ones_like(targets, dtype=torch.bool)
    known[:60, 1] = False
    targets[:60, 1] = 0
    overall, found = fit(probabilities, targets, values, known=known)
    assert float(found.by_value["low"]["per_label"][1]) == float(overall["per_label"][1])


@pytest.mark.parametrize("metric", ThresholdMetric)
@pytest.mark.parametrize("cross_fit", [None, 3])
def test_groups_are_decided_better_by_their_own_thresholds(metric, cross_fit):
    probabilities, targets, values = case()
    settings = fitting(metric=metric, cross_fit=cross_fit)
    overall, found = fit(probabilities, targets, values, settings)
    truth = targets.bool()
    right = [
        float((group_thresholds.decide(probabilities, overall, own, values)["per_label"] == truth).double().mean())
        for own in (None, found)
    ]
    assert right[1] > right[0] + 0.05


def test_what_is_stored_is_read_again():
    found = fit(*case())[1]
    plain = json.loads(json.dumps(found.plain(LABELS)))
    again = GroupThresholds.from_plain(plain, LABELS)
    assert again.column == "language" and again.plain(LABELS) == plain
    assert GroupThresholds.from_plain(plain, LABELS[::-1]).by_value["low"]["global"].shape == (2,)


CUTS = {"joy": 0.1, "fear": 0.2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"column": 3, "values": {}}, "column of thresholds is 3"),
        ({"column": "l", "values": {"deu": {"global": CUTS}}}, "l=deu are of global"),
        ({"column": "l", "values": {"deu": {"global": CUTS, "per_label": {"joy": 0.1}}}}, "of 1 labels"),
        (
            {"column": "l", "values": {"deu": {"global": CUTS, "per_label": CUTS | {"joy": 1.5}}}},
            "threshold of joy with l=deu is 1.5",
        ),
        (
            {"column": "l", "values": {"deu": {"global": CUTS, "per_label": CUTS | {"joy": "0.5"}}}},
            "threshold of joy with l=deu is '0.5'",
        ),
        ({"column": "l", "values": []}, "items"),
    ],
)
def test_damaged_thresholds_are_refused(content, message):
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError), match=message):
        GroupThresholds.from_plain(content, LABELS)


def test_labels_that_are_made_of_others_show_the_lowest_threshold():
    own = {"global": torch.tensor([0.3, 0.3]), "per_label": torch.tensor([0.2, 0.6])}
    found = GroupThresholds("language", {"deu": own}).of_labels([[0, 1], [1]])
    assert found.by_value["deu"]["per_label"].tolist() == pytest.approx([0.2, 0.6])


def test_what_the_overall_thresholds_decide_is_said():
    cuts = torch.tensor([0.5])
    found = GroupThresholds("language", {"deu": {"global": cuts, "per_label": cuts}})
    assert group_thresholds.unseen(found, ["deu", "deu"]) is None
    assert group_thresholds.unseen(found, ["deu", "xyz", "(empty)"]) == (
        "There are no thresholds of their own for language (empty), xyz: the overall ones decide, for 2 of 3 rows."
    )
    said = group_thresholds.unseen(found, None, mend=" Add it.")
    assert said == "There is no column language, by which the run has thresholds: the overall ones decide. Add it."


def test_tables_show_one_threshold_a_group_or_one_for_each_label():
    own = {"global": {"joy": 0.3, "fear": 0.3}, "per_label": {"joy": 0.1, "fear": 0.2}}
    stored = {"column": "language", "values": {"deu": own}}
    overall = {"joy": 0.5, "fear": 0.5}
    columns, rows = group_thresholds.table(stored, overall, "global")
    assert (columns, rows) == (["language", "threshold"], [["all others", "0.500"], ["deu", "0.300"]])
    columns, rows = group_thresholds.table(stored, overall, "per_label")
    assert columns == ["language", *LABELS] and rows[1] == ["deu", "0.100", "0.200"]


def scored(tmp_path, by):
    """What scoring writes for validation and a test split with a new group."""
    probabilities, targets, values = case()
    splits = {}
    for name, given in (("validation", values), ("test", ["low"] * 60 + ["new"] * 60)):
        texts = [f"{name} {number}" for number in range(len(given))]
        rows = Rows(texts, texts, targets.numpy(), carried={"language": list(given)})
        splits[name] = scoring.Scored(rows, torch.logit(probabilities))
    found = scoring.score(
        tmp_path, splits, labels=LABELS, thresholding=fitting(by),
        predict=config.Predictions(False, config.PredictionColumns.all, intensities=False, csv_safe=False),
        loss=lambda *_: 0.0, extra_metric=config.NoExtraMetric(),
    )  # fmt: skip
    return found, probabilities


def test_scores_and_files_follow_the_thresholds_of_groups(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    found, probabilities = scored(tmp_path, "language")
    assert found.by_group is not None and set(found.by_group.by_value) == {"low", "high"}
    expected = group_thresholds.decide(probabilities, found.thresholds, found.by_group, ["low"] * 60 + ["new"] * 60)[
        "per_label"
    ]
    assert found.decided["test"].equal(expected)
    lines = (tmp_path / "predictions" / "test.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1:3] for line in lines] == [[str(int(cell)) for cell in row] for row in expected.tolist()]
    assert found.splits["test"]["thresholds_by"]["column"] == "language"
    whole, _ = scored(tmp_path / "whole", None)
    better = found.splits["validation"]["per_label"]["f1_macro"] - whole.splits["validation"]["per_label"]["f1_macro"]
    assert better > 0.02 and "thresholds_by" not in whole.splits["test"]
    assert found.splits["validation"]["fixed"] == whole.splits["validation"]["fixed"]
    assert "test: There are no thresholds of their own for language new" in caplog.text
    heads = [
        (folder / "predictions" / "test.csv").read_text().splitlines()[0] for folder in (tmp_path, tmp_path / "whole")
    ]
    assert heads[0] == heads[1]


def test_rows_without_the_column_are_refused():
    rows = Rows(["1"], ["a"], None, carried={"source": ["x"]})
    with pytest.raises(UserError, match=re.escape("the rows carry no column language along, only source")):
        group_thresholds.check(rows, "language")
