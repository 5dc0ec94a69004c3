"""Cells that are shares, percentages, counts or intensities, labels that are left open, and rows of annotators."""

import re
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, split, write_csv

from emotion_lightning import config
from emotion_lightning.config import checks, stored_settings
from emotion_lightning.data import labels, sources
from emotion_lightning.errors import UserError

THIRDS = [0, 1 / 3, 2 / 3, 1]


def text(i: int) -> str:
    return f"a text of number {i}"


def table(*columns: str, count: int = 40, **cells: Any) -> list[list[Any]]:
    """A header and rows; the cells of a column are a function of the row number or a list that is repeated."""

    def cell(name: str, i: int) -> Any:
        made = cells.get(name, text)
        return made(i) if callable(made) else made[i % len(made)]

    return [list(columns), *([cell(name, i) for name in columns] for i in range(count))]


def whole(tmp_path, rows, **settings):
    path = write_csv(tmp_path / "a.csv", rows)
    chosen = data_settings(path=path, **settings)
    checks.check_data(type("Settings", (), {"data": chosen}), "train")
    corpus = sources.read_corpus(chosen)
    return corpus, corpus.splits["whole"]


def refusal(tmp_path, rows, **settings):
    with pytest.raises(UserError) as raised:
        whole(tmp_path, rows, **settings)
    return str(raised.value), raised.value.ways


# -------------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("cells", "shares"),
    [
        (["0", "0.25", "0.5", "1"], [0, 0.25, 0.5, 1]),
        (["0%", "25 %", "50%", "100%"], [0, 0.25, 0.5, 1]),
        (["0,0", "0,25", "0,5", "1"], [0, 0.25, 0.5, 1]),
        (["0", "25%", "0.5", "1.0"], [0, 0.25, 0.5, 1]),
    ],
)
def test_shares_and_percentages_are_learned_as_they_are_and_hardened_for_decisions(tmp_path, cells, shares):
    corpus, rows = whole(tmp_path, table("text", "joy", "fear", joy=cells, fear=["0.1", "0.9"]), targets="shares")
    assert corpus.labels == ["joy", "fear"]
    np.testing.assert_allclose(rows.shares[:4, 0], shares, atol=1e-7)
    assert rows.targets[:4, 0].tolist() == [0, 0, 1, 1]  # present from a half on
    assert rows.learned is rows.shares and rows.targets.dtype == rows.shares.dtype == np.float32


def test_from_where_on_a_label_is_present_can_be_set(tmp_path):
    cells = ["0", "0.25", "0.7", "1"]
    _, rows = whole(tmp_path, table("text", "joy", joy=cells), targets="shares", present_from=0.7)
    assert rows.targets[:4, 0].tolist() == [0, 0, 1, 1]  # although 0.7 is a little less in float32


def test_a_share_of_three_is_present_at_its_third_whatever_the_rounding():
    assert labels.hardened(np.array([[1 / 3, 2 / 3, 0.3]], np.float32), 1 / 3).tolist() == [[1, 1, 0]]


def test_a_column_whose_shares_never_reach_a_half_is_a_label(tmp_path):
    corpus, rows = whole(tmp_path, table("text", "joy", "rare", joy=[0, 1], rare=[0, 0.2]), targets="shares")
    assert corpus.labels == ["joy", "rare"] and rows.targets[:, 1].sum() == 0 and rows.shares[:, 1].sum() > 0


@pytest.mark.parametrize(
    ("cell", "shown"), [("1.5", "'1.5'"), ("-0.1", "'-0.1'"), ("often", "'often'"), ("", "nothing")]
)
def test_a_cell_that_is_no_share_is_named_with_row_and_column(tmp_path, cell, shown):
    rows = table("text", "joy", joy=[0.25, 0.75])
    rows[7][1] = cell
    message, _ = refusal(tmp_path, rows, targets="shares")
    assert (
        f"a.csv, row 7, column joy: {shown} where a share from 0 to 1, or a percentage such as 60%, is due." in message
    )


def test_shares_that_are_read_as_hard_are_refused_with_the_settings_that_read_them(tmp_path):
    rows = table("text", "joy", joy=[0, 0.33, 0.67, 1])
    message, ways = refusal(tmp_path, rows)
    assert "data.targets=shares" in message and "data.present_from=0.5" in message
    assert ways == [{"targets": "shares"}, {"present_from": 0.5}]
    for way in ways:
        whole(tmp_path, rows, **way)


def test_percentages_and_intensities_that_are_read_as_hard_are_refused_with_the_settings_that_read_them(tmp_path):
    for cells, ways in (
        (["0%", "60%", "100%"], [{"targets": "shares"}]),
        ([0, 3, 1, 2], [{"present_from": 1.0}, {"scale": 3.0}]),
        ([0, 45, 80, 100], [{"present_from": 1.0}, {"scale": 100.0, "present_from": 50.0}]),
    ):
        rows = table("text", "joy", joy=cells)
        message, found = refusal(tmp_path, rows)
        assert found == ways
        for way in ways:
            assert all(f"data.{name}=" in message for name in way)
            whole(tmp_path, rows, **way)


def test_numbers_beyond_shares_and_beyond_the_scale_are_refused_with_a_setting_that_reads_them(tmp_path):
    rows = table("text", "joy", joy=[0, 1, 2, 4])
    message, ways = refusal(tmp_path, rows, targets="shares")
    assert (
        "data.scale=4" in message
        and "data.annotators_column=…" in message
        and ways == [{"targets": "hard", "scale": 4}]
    )
    message, ways = refusal(tmp_path, rows, scale=3)
    assert "up to 4" in message and ways == [{"targets": "hard", "scale": 4}]
    whole(tmp_path, rows, **ways[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 100}, {"present_from": 1},
        {"targets": "shares", "annotators_column": "asked", "labels": ["joy"]},
    ],
)  # fmt: skip
def test_numbers_that_identify_rows_are_no_labels_whatever_numbers_labels_may_be(tmp_path, settings):
    rows = table("id", "text", "joy", "asked", id=lambda i: i, joy=[0, 2, 1], asked=[3, 4])
    if "annotators_column" not in settings:
        rows = [row[:3] for row in rows]
    corpus, found = whole(tmp_path, rows, **settings)
    assert corpus.labels == ["joy"] and found.id_column == "id"


# -------------------------------------------------------------------------------------------------------------- counts


def counted(*, asked=(3, 4), joy=(0, 1, 2, 3), **settings):
    rows = table("text", "joy", "asked", joy=list(joy), asked=list(asked))
    return rows, {"targets": "shares", "annotators_column": "asked", "labels": ["joy"]} | settings


def test_counts_are_shares_of_the_annotators_of_the_row(tmp_path):
    rows, settings = counted()
    corpus, found = whole(tmp_path, rows, **settings)
    np.testing.assert_allclose(found.shares[:4, 0], [0, 1 / 4, 2 / 3, 3 / 4])
    assert corpus.labels == ["joy"] and "counted in asked" in corpus.decisions.labels


def test_more_than_all_annotators_and_no_number_of_them_are_refused(tmp_path):
    rows, settings = counted()
    rows[3][1], rows[5][2], rows[6][2] = 9, "", 0
    message, _ = refusal(tmp_path, rows, **settings)
    assert "row 3, column joy: 9 of the 3 annotators in column asked gave the label" in message
    assert "row 5, column asked: nothing where a number of annotators is due" in message
    assert "row 6, column asked: '0' where a number of annotators is due" in message


def test_a_column_of_numbers_that_is_missing_is_named_with_the_nearest(tmp_path):
    rows, settings = counted(annotators_column="askd")
    message, ways = refusal(tmp_path, rows, **settings)
    assert "has no column askd (data.annotators_column)" in message and ways == [{"annotators_column": "asked"}]


# --------------------------------------------------------------------------------------------------------- intensities


def test_intensities_are_shares_of_the_scale_and_present_from_one_on(tmp_path):
    corpus, rows = whole(tmp_path, table("text", "joy", "fear", joy=[0, 1, 2, 3], fear=[3, 0]), scale=3)
    np.testing.assert_allclose(rows.shares[:4, 0], THIRDS, rtol=1e-6)
    assert rows.targets[:4, 0].tolist() == [0, 1, 1, 1] and rows.scale == 3
    assert corpus.decisions.labels == "2 columns of intensities up to 3"
    _, rows = whole(tmp_path, table("text", "joy", joy=[0, 1, 2, 3]), scale=3, present_from=2)
    assert rows.targets[:4, 0].tolist() == [0, 0, 1, 1]


# --------------------------------------------------------------------------------------------------- labels left open


def test_an_empty_cell_leaves_its_label_open(tmp_path):
    rows = table("text", "joy", "fear", joy=[1, "", 0], fear=["", 0, 1, 1])
    corpus, found = whole(tmp_path, rows, missing="mask")
    assert corpus.labels == ["joy", "fear"]
    assert found.open[:3].tolist() == [[False, True], [True, False], [False, False]]
    assert found.targets[:3].tolist() == [[1, 0], [0, 0], [0, 1]]
    assert np.isnan(found.learned).tolist() == found.open.tolist()
    assert corpus.plain_decisions()["labels_left_open"] == {"joy": 13, "fear": 10}
    assert "Rows of 40 that leave a label open (data.missing=mask): joy 13, fear 10." in corpus.decisions.notes


def test_files_with_other_labels_are_read_as_one_and_leave_those_that_they_lack_open(tmp_path):
    one = write_csv(tmp_path / "en.csv", table("text", "joy", "anger", joy=[0, 1], anger=[1, 0, 0]))
    rows = table("text", "joy", "fear", text=lambda i: f"ein Text mit Nummer {i}", joy=[0, 1], fear=[1, 0, 0])
    other = write_csv(tmp_path / "de.csv", rows)
    settings = data_settings(path=f"[{one},{other}]", missing="mask")
    corpus = sources.read_corpus(settings)
    found = corpus.splits["whole"]
    assert corpus.labels == ["joy", "anger", "fear"] and len(found) == 80
    assert found.open[:40].tolist() == [[False, False, True]] * 40
    assert found.open[40:].tolist() == [[False, True, False]] * 40
    with pytest.raises(UserError, match="80 cells are empty and 28 are 1.*data.missing=mask") as raised:
        sources.read_corpus(data_settings(path=f"[{one},{other}]"))
    assert {"missing": "mask"} in raised.value.ways


def test_the_split_keeps_what_is_learned_beside_its_texts(tmp_path):
    rows = table("text", "joy", "fear", joy=lambda i: i % 4 if i % 5 else "", fear=[0, 3])
    path = write_csv(tmp_path / "a.csv", rows)
    corpus = split(path=path, scale=3, missing="mask")
    by_text = {row[0]: row for row in rows[1:]}
    for part in corpus.splits.values():
        assert part.scale == 3
        for words, shares, is_open in zip(part.texts, part.shares, part.open, strict=True):
            cell = by_text[words][1]
            assert is_open.tolist() == [cell == "", False]
            assert shares[0] == pytest.approx(0 if cell == "" else cell / 3)
    assert len({part.sha256() for part in corpus.splits.values()}) == 3


def test_the_print_of_rows_changes_with_their_shares_and_with_what_is_open(tmp_path):
    _, rows = whole(tmp_path, table("text", "joy", joy=[0, 1, 2, 3]), scale=3, missing="mask")
    before = rows.sha256()
    rows.shares = rows.shares.copy()
    rows.shares[1] = 0.5
    assert rows.sha256() != before
    after = rows.sha256()
    rows.open = ~rows.open
    assert rows.sha256() != after


# ------------------------------------------------------------------------------------------------- merged and renamed


def test_a_merged_label_has_the_largest_share_and_is_open_where_nothing_decides_it(tmp_path):
    rows = table("text", "joy", "love", "fear", joy=[0.2, "", 0.8, ""], love=[0.6, 0.1, "", ""], fear=[0, 1])
    corpus, found = whole(tmp_path, rows, targets="shares", missing="mask", merge={"glad": ["joy", "love"]})
    assert corpus.labels == ["fear", "glad"] or corpus.labels == ["glad", "fear"]
    glad = corpus.labels.index("glad")
    np.testing.assert_allclose(found.shares[:4, glad], [0.6, 0.1, 0.8, 0], atol=1e-6)
    assert found.open[:4, glad].tolist() == [False, True, False, True]  # of joy and love one is present in the third


# ----------------------------------------------------------------------------------------------------------- annotators


def annotated(joy=(1, 1, 0), fear=(0, 0, 1), raters=3, count=60, named="rater_id"):
    """Rows of annotators; each text has one row for each."""
    return table(
        "id", "text", named, "joy", "fear", count=count, id=lambda i: i // raters, text=lambda i: text(i // raters),
        joy=list(joy), fear=list(fear), **{named: lambda i: f"r{i % raters}"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "joy", "fear"),
    [("majority", 1, 0), ("any", 1, 1), ("at_least_2", 1, 0), ("share", 1, 0)],
)
def test_rows_of_annotators_are_joined_as_the_rule_says(tmp_path, rule, joy, fear):
    corpus, rows = whole(tmp_path, annotated(), aggregate=rule)
    assert len(rows) == 20 and rows.ids == [str(i) for i in range(20)] and rows.annotators is None
    assert rows.targets.tolist() == [[joy, fear]] * 20
    if rule == "share":
        np.testing.assert_allclose(rows.shares, [[2 / 3, 1 / 3]] * 20, rtol=1e-6)
    else:
        assert rows.shares is None
    assert ("annotators" in corpus.plain_decisions()) is (rule != "majority")


def test_half_of_the_annotators_are_no_majority_but_a_share_that_is_present(tmp_path):
    rows = annotated(joy=(1, 0), fear=(1, 1, 1, 1, 0, 0), raters=2, count=40)
    assert whole(tmp_path, rows, aggregate="majority")[1].targets[0].tolist() == [0, 1]
    assert whole(tmp_path, rows, aggregate="share")[1].targets[0].tolist() == [1, 1]


@pytest.mark.parametrize("by_id", [True, False])
def test_an_annotator_column_of_any_name_is_used_and_their_agreement_told(tmp_path, by_id):
    rows = annotated(named="who")
    if not by_id:
        rows = [row[1:] for row in rows]
    corpus, found = whole(tmp_path, rows, annotator="who")
    told = corpus.plain_decisions()["annotators"]
    assert (told["column"], told["annotators"], told["rows"], told["texts"]) == ("who", 3, 60, 20)
    assert corpus.labels == ["joy", "fear"] and len(found) == 20 and found.shares is not None
    assert corpus.decisions.aside == []
    assert ("annotators", "who") in corpus.decisions.lines()


def test_the_shares_of_intensities_of_several_annotators_are_their_mean(tmp_path):
    corpus, rows = whole(tmp_path, annotated(joy=(3, 1, 2), fear=(0, 0, 1)), annotator="rater_id", scale=3)
    np.testing.assert_allclose(rows.shares, [[2 / 3, 1 / 9]] * 20, rtol=1e-6)
    assert rows.targets.tolist() == [[1, 0]] * 20  # a mean of 2 and of 1/3; present from 1 on
    assert corpus.decisions.annotation.labels["fear"].split == 20


def test_an_annotator_who_leaves_a_label_open_does_not_count_for_it(tmp_path):
    rows = annotated(joy=(1, "", 0), fear=("", "", ""), count=60)
    rows[1][4] = 1
    rows[4][4] = 0
    _, found = whole(tmp_path, rows, annotator="rater_id", missing="mask", labels=["joy", "fear"])
    np.testing.assert_allclose(found.shares[:3], [[0.5, 1], [0.5, 0], [0.5, 0]])
    assert found.open[:3].tolist() == [[False, False], [False, False], [False, True]]


def test_only_whole_texts_are_cut_by_max_rows(tmp_path):
    _, rows = whole(tmp_path, annotated(), annotator="rater_id", max_rows=4)
    assert len(rows) == 4 and rows.shares.shape == (4, 2)


def test_a_missing_annotator_column_is_named_with_the_nearest(tmp_path):
    message, ways = refusal(tmp_path, annotated(), annotator="rater")
    assert "did you mean data.annotator=rater_id?" in message and ways == [{"annotator": "rater_id"}]


@pytest.mark.parametrize(("column", "role"), [("text", "texts"), ("id", "ids"), ("joy", "labels")])
def test_a_column_with_another_role_names_no_annotator(tmp_path, column, role):
    message, _ = refusal(tmp_path, annotated(), annotator=column, labels=["joy", "fear"])
    assert message == f"data.annotator={column} is the column of {role}; name another one."


def test_names_in_lists_are_aggregated_too(tmp_path):
    rows = table(
        "id", "text", "rater", "emotions", count=40, id=lambda i: i // 2, text=lambda i: text(i // 2),
        rater=["a", "b"], emotions=["joy|fear", "joy"],
    )  # fmt: skip
    corpus, found = whole(tmp_path, rows, annotator="rater")
    assert found.shares[0, corpus.labels.index("fear")] == 0.5 and found.shares[0, corpus.labels.index("joy")] == 1


# ------------------------------------------------------------------------------------------------ learned, or hardened


def test_hardened_labels_are_learned_and_the_shares_stay_for_scores(tmp_path):
    _, rows = whole(tmp_path, table("text", "joy", joy=[0, 0.4, 0.6]), targets="shares", harden=True)
    assert rows.learned is rows.targets and rows.shares is not None
    assert rows.take(range(3)).learned.tolist() == [[0], [0], [1]]


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"annotators_column": "asked"}, "add data.targets=shares"),
        ({"annotators_column": "asked", "targets": "shares"}, r"needs data\.labels=\[…\]"),
        ({"targets": "shares", "scale": 3}, "leave one out"),
        ({"targets": "shares", "true_values": ["yes"]}, "data.targets=shares reads numbers"),
        ({"scale": 3, "aggregate": "any"}, r"data\.aggregate=any makes labels of 0 and 1, where data\.scale=3"),
        ({"targets": "shares", "aggregate": "majority"}, "data.aggregate=majority makes labels of 0 and 1"),
        ({"targets": "shares", "present_from": 2}, "data.present_from=2 is more than 1"),
        ({"scale": 3, "present_from": 4}, "data.present_from=4 is more than 3"),
        ({"harden": True}, "data.harden=true makes 0 and 1 of shares, and there are none"),
        ({"annotator": "who", "context": 2, "conversation": "x"}, "data.aggregate=share joins rows"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    chosen = type("Settings", (), {"data": data_settings(path="a.csv", **settings)})
    with pytest.raises(UserError, match=message):
        checks.check_data(chosen, "train")


@pytest.mark.parametrize("setting", [{"targets": "shares"}, {"scale": 3}, {"missing": "mask"}])
def test_a_column_that_lists_labels_has_no_shares_and_no_open_labels(tmp_path, setting):
    name, value = next(iter(setting.items()))
    message, _ = refusal(tmp_path, table("text", "emotions", emotions=["joy", "joy|fear"]), **setting)
    assert f"data.{name}={value} is for a column for each label, and emotions lists the labels" in message


def test_settings_of_earlier_versions_mean_hard_labels():
    added = stored_settings.with_added({"labels_column": None})
    new = {name: added[name] for name in ("targets", "annotators_column", "scale", "harden", "annotator")}
    assert new == {"targets": "hard", "annotators_column": None, "scale": None, "harden": False, "annotator": None}
    default = data_settings(path="a.csv")
    assert not default.soft and default.joining is None and default.targets is config.Targets.hard


def test_losses_that_cannot_learn_what_the_data_gives_are_refused(settings):
    chosen = ["data=file", "data.path=a.csv"]
    for loss in ("focal", "asymmetric", "zlpr", "correlated"):
        with pytest.raises(UserError, match=r"data\.scale=3 gives shares to learn"):
            settings(*chosen, "data.scale=3", f"loss={loss}")
    settings(*chosen, "data.scale=3", "data.harden=true", "loss=focal")
    settings(*chosen, "data.missing=mask", "loss=zlpr")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["data=sample"], "loss=ordinal learns intensities, and the data has none; say with data.scale=N"),
        (["data=file", "data.path=a.csv", "data.targets=shares"], "the data has none"),
        (["data=file", "data.path=a.csv", "data.annotator=who"], "the data has none"),
        (["data=brighter", "data.dir=x"], re.escape("(for data=brighter: data.track=b)")),
        (["data=file", "data.path=a.csv", "data.scale=3", "data.harden=true"], "data.harden=true makes 0 and 1"),
        (["data=file", "data.path=a.csv", "data.scale=100"], "20 at most, so data.scale=100 is not for it"),
        (["data=file", "data.path=a.csv", "data.scale=2.5"], "data.scale=2.5 is not for it"),
        (["data=file", "data.path=a.csv", "data.scale=3", "data.present_from=1.5"], "lies between two levels"),
        (
            ["data=file", "data.path=a.csv", "data.scale=3", "distill.answers=b.csv"],
            "for which only binary cross-entropy is defined",
        ),
    ],
)
def test_cumulative_logits_are_refused_where_there_are_no_levels(settings, asked, message):
    with pytest.raises(UserError, match=message):
        settings("loss=ordinal", *asked)


@pytest.mark.parametrize(
    "asked",
    [
        ["data=file", "data.path=a.csv", "data.scale=3", "data.missing=mask", "data.annotator=who"],
        ["data=file", "data.path=a.csv", "data.scale=4", "data.present_from=2"],
        ["data=brighter", "data.dir=x", "data.track=b", "data.missing=mask"],
    ],
)
def test_cumulative_logits_learn_intensities_with_open_labels_and_of_annotators(settings, asked):
    assert isinstance(settings("loss=ordinal", *asked).loss, config.Ordinal)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("callbacks.monitor=val/soft_bce", "is a score against shares, which the data has not"),
        ("callbacks.monitor=val/intensity_pearson", re.escape("say with data.scale=… where they end")),
    ],
)
def test_scores_that_the_data_does_not_have_select_no_epoch(settings, asked, message):
    with pytest.raises(UserError, match=message):
        settings("data=file", "data.path=a.csv", asked)
    settings("data=file", "data.path=a.csv", "data.scale=3", asked)


def test_scores_that_the_data_does_not_have_are_no_objective(settings):
    chosen = ["data=file", "data.path=a.csv", "study.objectives=[soft_mae]", "space=ia3"]
    with pytest.raises(UserError, match="study.objectives=soft_mae is a score against shares"):
        settings(*chosen, command="tune")
    assert settings(*chosen, "data.targets=shares", command="tune").study.objectives == [config.Objective.soft_mae]


@pytest.mark.parametrize(
    ("command", "asked", "message"),
    [
        ("train", [], "the run learns none; say with data.scale=N"),
        ("train", ["data=file", "data.path=a.csv", "data.scale=3", "data.harden=true"], "leave out data.harden=true"),
        ("train", ["data=file", "data.path=a.csv", "data.targets=shares"], "the run learns none"),
        ("tune", ["space=ia3"], "the run learns none"),
        ("baseline", ["data=file", "data.path=a.csv", "data.scale=3"], "a baseline learns 0 and 1"),
        ("predict", ["predict.columns=decisions"], "leave out one of the two"),
        ("evaluate", ["run=x", "predict.columns=decisions"], "leave out one of the two"),
    ],
)
def test_expected_intensities_are_refused_where_there_are_none(settings, command, asked, message):
    with pytest.raises(UserError, match=message):
        settings(*asked, "predict.intensities=true", command=command)
    chosen = ["data=file", "data.path=a.csv", "data.scale=3", "loss=bce"]
    assert settings(*chosen, "predict.intensities=true").predict.intensities
