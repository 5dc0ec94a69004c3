import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, jaccard_score

from emotion_lightning import config
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import group_scores, soft_scores
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.evaluation.metrics import decisions_report
from emotion_lightning.runs.metrics_file import Groups

LABELS = ["joy", "anger", "fear"]


def answers(rows: int, right: float, seed: int, rate: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Gold labels, and decisions of which this share is right, [row, label] each."""
    random = np.random.default_rng(seed)
    truth = random.random((rows, len(LABELS))) < rate
    return truth, np.where(random.random(truth.shape) < right, truth, ~truth)


def scored(groups: dict[str | None, tuple[np.ndarray, np.ndarray]], column: str = "language") -> Groups:
    truth = np.concatenate([gold for gold, _ in groups.values()])
    decisions = np.concatenate([decided for _, decided in groups.values()])
    of_row = [name for name, (gold, _) in groups.items() for _ in gold]
    order = np.random.default_rng(0).permutation(len(of_row))
    rows = Rows(["x"] * len(order), ["a"] * len(order), None, carried={column: [of_row[i] for i in order]})
    found = group_scores.score_groups(
        rows, torch.from_numpy(decisions[order]), Gold(torch.from_numpy(truth[order])), LABELS, protocol="global"
    )
    assert found is not None
    return found


def test_scores_of_a_group_are_those_of_its_rows_alone() -> None:
    groups = {"deu": answers(80, 0.9, 1), "eng": answers(40, 0.7, 2)}
    found = scored(groups)
    assert (found["protocol"], found["confidence"], found["samples"]) == ("global", 0.95, 1000)
    values = found["columns"]["language"]["values"]
    assert list(values) == ["deu", "eng"]
    for name, (truth, decisions) in groups.items():
        one = values[name]
        assert one["rows"] == len(truth) and one["labels_without_rows"] == []
        assert one["f1_macro"]["value"] == pytest.approx(f1_score(truth, decisions, average="macro"), abs=1e-12)
        assert one["f1_micro"]["value"] == pytest.approx(f1_score(truth, decisions, average="micro"), abs=1e-12)
        report = decisions_report(torch.from_numpy(decisions), torch.from_numpy(truth), torch.ones(3), LABELS)
        assert one["jaccard"]["value"] == pytest.approx(report["jaccard"], abs=1e-12)
        empty = ~(truth | decisions).any(axis=1)
        by_row = np.where(
            empty, 1.0, [jaccard_score(a, b, zero_division=1.0) for a, b in zip(truth, decisions, strict=True)]
        )
        assert one["jaccard"]["value"] == pytest.approx(by_row.mean(), abs=1e-12)
        for metric in (one["f1_macro"], one["f1_micro"], one["jaccard"]):
            assert metric["low"] < metric["value"] < metric["high"]


def test_scores_do_not_depend_on_the_order_of_other_groups_rows() -> None:
    groups = {"deu": answers(80, 0.9, 1), "eng": answers(60, 0.7, 2), "fin": answers(50, 0.8, 3)}
    backwards = dict(reversed(groups.items()))
    assert [scored(groups)["columns"]["language"]["values"][name]["rows"] for name in groups] == [80, 60, 50]
    one, other = scored(groups)["columns"]["language"], scored(backwards)["columns"]["language"]
    for name in groups:
        assert one["values"][name]["f1_macro"]["value"] == other["values"][name]["f1_macro"]["value"]


def test_a_real_gap_is_more_than_noise_and_names_the_two_groups() -> None:
    found = scored({"deu": answers(400, 0.95, 1), "eng": answers(400, 0.9, 2), "fin": answers(400, 0.6, 3)})
    gap = found["columns"]["language"]["gaps"]["f1_macro"]
    values = found["columns"]["language"]["values"]
    assert (gap["best"], gap["worst"], gap["more_than_noise"]) == ("deu", "fin", True)
    assert gap["value"] == pytest.approx(values["deu"]["f1_macro"]["value"] - values["fin"]["f1_macro"]["value"])
    assert gap["low"] < gap["value"] < gap["high"] and gap["p"] < 0.01
    (sentence,) = group_scores.sentences(found)
    assert sentence.startswith(f"By language, the largest gap in macro F1 is {gap['value']:.3f} [")
    assert sentence.endswith("deu against fin: more than noise (p < 0.001).")


def test_the_largest_gap_of_equally_good_groups_is_seldom_more_than_noise() -> None:
    """The interval of the best against the worst of twelve leaves out zero in most draws."""
    found = [scored({str(number): answers(60, 0.8, 100 * draw + number) for number in range(12)}) for draw in range(40)]
    gaps = [one["columns"]["language"]["gaps"]["f1_micro"] for one in found]
    assert sum(gap["low"] > 0 for gap in gaps) > 30  # what the interval of this one gap would say
    assert sum(gap["more_than_noise"] for gap in gaps) <= 6


def test_small_groups_have_scores_and_no_part_in_the_gap() -> None:
    few = group_scores.FEW - 1
    found = scored({"deu": answers(90, 0.8, 1), "eng": answers(60, 0.8, 2), "fin": answers(few, 0.3, 3)})
    by_column = found["columns"]["language"]
    assert "fin" in by_column["values"]
    assert {gap[end] for gap in by_column["gaps"].values() for end in ("best", "worst")} == {"deu", "eng"}  # type: ignore[literal-required]
    alone = scored({"deu": answers(90, 0.8, 1), "fin": answers(few, 0.3, 3)})
    assert alone["columns"]["language"]["gaps"] == {}
    assert group_scores.sentences(alone) == [
        f"By language there are no two groups of at least {group_scores.FEW} rows, so no gap between them is told."
    ]


def test_one_group_has_no_gap() -> None:
    found = scored({"deu": answers(90, 0.8, 1)})
    assert group_scores.sentences(found) == ["By language there is one group only, deu."]


def test_labels_that_a_group_lacks_are_named() -> None:
    truth, decisions = answers(60, 0.9, 1)
    truth[:, 2] = False
    found = scored({"deu": answers(60, 0.9, 2), "eng": (truth, decisions)})
    values = found["columns"]["language"]["values"]
    assert values["eng"]["labels_without_rows"] == ["fear"] and values["deu"]["labels_without_rows"] == []
    assert values["eng"]["f1_macro"]["value"] == pytest.approx(
        f1_score(truth, decisions, average="macro", zero_division=0.0)
    )
    assert group_scores.sentences(found)[0].endswith("eng has no row with fear, which counts as 0 in its macro F1.")


def test_labels_that_a_group_leaves_open_are_no_labels_of_it() -> None:
    truth, decisions = answers(80, 0.8, 1)
    known = np.ones_like(truth)
    known[:40, 2] = False  # the first group was never asked for fear
    known[50:60, 0] = False
    rows = Rows(["x"] * 80, ["a"] * 80, None, carried={"language": ["eng"] * 40 + ["deu"] * 40})
    gold = Gold(torch.from_numpy(truth), known=torch.from_numpy(known))
    found = group_scores.score_groups(rows, torch.from_numpy(decisions), gold, LABELS, protocol="global")
    assert found is not None
    eng, deu = (found["columns"]["language"]["values"][name] for name in ("eng", "deu"))
    assert eng["labels_left_open"] == ["fear"] and "labels_left_open" not in deu
    expected = f1_score(truth[:40, :2], decisions[:40, :2], average="macro")
    assert eng["f1_macro"]["value"] == pytest.approx(expected, abs=1e-12)
    expected = f1_score((truth & known)[40:], (decisions & known)[40:], average="macro")
    assert deu["f1_macro"]["value"] == pytest.approx(expected, abs=1e-12)
    assert " eng is scored without fear." in group_scores.sentences(found)[0]


def against_shares(
    noise: dict[str, float], *, count: int = 80, scale: float | None = None, known: np.ndarray | None = None
) -> tuple[Groups, np.ndarray, np.ndarray]:
    """Scores of groups whose probabilities are the shares with so much noise, the probabilities and the shares."""
    random = np.random.default_rng(3)
    shares = random.integers(0, 4, (count * len(noise), len(LABELS))) / 3
    by_row = np.repeat(list(noise.values()), count)[:, None]
    probabilities = (1 - by_row) * shares + by_row * random.random(shares.shape)
    rows = Rows(["x"] * len(shares), ["a"] * len(shares), None, carried={"language": list(np.repeat([*noise], count))})
    gold = Gold(
        torch.from_numpy((shares >= 0.5).astype(np.float32)),
        torch.from_numpy(shares),
        None if known is None else torch.from_numpy(known),
        scale,
    )
    answered = torch.from_numpy(probabilities)
    found = group_scores.score_groups(rows, answered >= 0.5, gold, LABELS, protocol="global", answered=answered)
    assert found is not None
    return found, probabilities, shares


@pytest.mark.parametrize("scale", [None, 3.0])
@pytest.mark.parametrize("is_open", [False, True])
def test_groups_with_shares_have_the_soft_scores_of_their_rows_alone(scale: float | None, is_open: bool) -> None:
    known = np.random.default_rng(4).random((160, 3)) < 0.7 if is_open else None
    found, probabilities, shares = against_shares({"deu": 0.2, "eng": 0.9}, scale=scale, known=known)
    for place, name in enumerate(("deu", "eng")):
        own = slice(80 * place, 80 * (place + 1))
        alone = soft_scores.soft_scores(
            torch.from_numpy(probabilities[own]),
            torch.from_numpy(shares[own]),
            LABELS,
            known=None if known is None else torch.from_numpy(known[own]),
        )
        scores = found["columns"]["language"]["values"][name]
        assert set(scores["soft"]) == {"bce", "mae", "jensen_shannon", "correlation"}
        for metric, one in scores["soft"].items():
            assert one["value"] == pytest.approx(alone[metric], abs=1e-9)  # type: ignore[index,literal-required]
            assert one["low"] < one["value"] < one["high"]  # type: ignore[index]
        if scale is None:
            assert "intensity" not in scores
        elif known is None:
            of_label = [pearsonr(3 * probabilities[own, i], 3 * shares[own, i])[0] for i in range(3)]
            assert scores["intensity"]["pearson"]["value"] == pytest.approx(np.mean(of_label), abs=1e-9)


def test_the_gap_in_soft_scores_has_the_lowest_error_and_the_highest_correlation_as_best() -> None:
    found, _, _ = against_shares({"deu": 0.2, "eng": 0.9, "fin": 0.5})
    gaps = found["columns"]["language"]["gaps"]
    assert set(gaps) == {score.value for score in config.Score}
    for score in config.SOFT_SCORES:
        gap = gaps[score.value]
        assert (gap["best"], gap["worst"], gap["more_than_noise"]) == ("deu", "eng", True)
        assert 0 < gap["low"] < gap["value"] < gap["high"]
    gap = gaps["soft_correlation"]
    (sentence,) = group_scores.sentences(found)
    assert sentence.endswith(
        f"The largest gap in the correlation with the shares is {gap['value']:.3f} [{gap['low']:.3f}, "
        f"{gap['high']:.3f}], deu against eng: more than noise (p < 0.001)."
    )


def test_a_group_whose_shares_do_not_vary_has_no_correlation_and_no_part_in_its_gap() -> None:
    random = np.random.default_rng(5)
    shares = random.integers(0, 4, (150, 3)) / 3
    shares[:50] = 0
    answered = torch.from_numpy(0.5 * shares + 0.5 * random.random(shares.shape))
    rows = Rows(["x"] * 150, ["a"] * 150, None, carried={"source": [*["bare"] * 50, *["one"] * 50, *["two"] * 50]})
    gold = Gold(torch.from_numpy(shares >= 0.5), torch.from_numpy(shares), scale=3.0)
    found = group_scores.score_groups(rows, answered >= 0.5, gold, LABELS, protocol="global", answered=answered)
    assert found is not None
    by_column = found["columns"]["source"]
    assert set(by_column["values"]["bare"]["soft"]) == {"bce", "mae", "jensen_shannon"}
    assert by_column["values"]["bare"]["intensity"] == {}
    assert {by_column["gaps"]["soft_correlation"][end] for end in ("best", "worst")} == {"one", "two"}  # type: ignore[literal-required]
    table = group_scores.soft_table("source", by_column)
    assert table is not None
    columns, cells = table
    assert columns == ["source", "rows", "BCE", "MAE", "Jensen-Shannon", "Pearson of intensities"]
    assert {row[0]: row[-1] for row in cells}["bare"] == "–"
    assert "The largest gap in Pearson's r of intensities is" in group_scores.sentences(found)[0]


def test_a_label_that_varies_in_one_row_has_an_interval_from_the_samples_with_this_row() -> None:
    shares = np.zeros((60, 3))
    shares[0, 0] = 1
    answered = torch.from_numpy(np.linspace(0.9, 0.1, 60)[:, None].repeat(3, 1))
    rows = Rows(["x"] * 60, ["a"] * 60, None, carried={"source": ["one"] * 30 + ["two"] * 30})
    gold = Gold(torch.from_numpy(shares >= 0.5), torch.from_numpy(shares))
    found = group_scores.score_groups(rows, answered >= 0.5, gold, LABELS, protocol="global", answered=answered)
    assert found is not None
    values = found["columns"]["source"]["values"]
    assert values["one"]["soft"]["correlation"]["low"] > 0  # 0 would be that of the samples without the row
    assert "correlation" not in values["two"]["soft"] and "soft_correlation" not in found["columns"]["source"]["gaps"]


def test_groups_without_shares_have_no_soft_scores() -> None:
    by_column = scored({"deu": answers(80, 0.9, 1), "eng": answers(60, 0.7, 2)})["columns"]["language"]
    assert all("soft" not in one for one in by_column["values"].values())
    assert set(by_column["gaps"]) == {"f1_macro", "f1_micro", "jaccard"}
    assert group_scores.soft_table("language", by_column) is None


def test_rows_without_a_value_are_a_group_of_their_own() -> None:
    found = scored({"deu": answers(40, 0.9, 1), None: answers(20, 0.9, 2)}, column="source")
    assert list(found["columns"]["source"]["values"]) == ["deu", "(empty)"]


def test_rows_without_columns_have_no_groups() -> None:
    truth, decisions = (torch.from_numpy(part) for part in answers(9, 0.9, 1))
    assert group_scores.score_groups(Rows([], [], None), decisions, Gold(truth), LABELS, protocol="fixed") is None


def test_a_table_has_a_row_for_each_group() -> None:
    columns, rows = group_scores.table("language", scored({"deu": answers(1200, 1.0, 1)})["columns"]["language"])
    assert columns == ["language", "rows", "macro F1", "micro F1", "Jaccard"]
    assert rows == [["deu", "1,200", *["1.000 [1.000, 1.000]"] * 3]]
