"""Labels under other names, united or left out, from every source; the rows and their splits stay."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.tables import data_settings, write_csv, write_jsonl

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.config.checks import check_label_names
from emotion_lightning.data import label_map, sources
from emotion_lightning.data.label_map import LabelMap
from emotion_lightning.data.rows import Corpus
from emotion_lightning.errors import UserError

GOEMOTIONS = [
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire",
    "disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy",
    "love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral",
]  # fmt: skip


def read(**chosen: Any) -> Corpus:
    return sources.read_corpus(data_settings(**chosen))


def labels_of(corpus: Corpus) -> list[set[str]]:
    """The labels of each row."""
    (rows,) = corpus.splits.values()
    assert rows.targets is not None
    return [{name for name, has in zip(corpus.labels, row, strict=True) if has} for row in rows.targets]


def spelled(path: Path) -> Path:
    """A file with a label in four spellings, and rows that have several of them."""
    table: list[list[Any]] = [["text", "Joy", "anger", "JOY", "happiness", "fear"]]
    table += [
        [f"text {i}", int(i % 4 == 0), int(i % 3 == 0), int(i % 5 == 0), int(i % 2), int(i % 7 == 0)] for i in range(60)
    ]
    return write_csv(path, table)


@pytest.mark.parametrize("layout", ["columns", "list", "ids", "jsonl"])
def test_names_of_every_layout_are_mapped(tmp_path: Path, layout: str) -> None:
    names = ["Freude", "Ärger", "Trauer"]
    rows = [["Freude"], ["Ärger", "Trauer"], [], ["Trauer"]] * 5
    if layout == "columns":
        path = write_csv(
            tmp_path / "a.csv",
            [["text", *names], *([f"t {i}", *(int(n in row) for n in names)] for i, row in enumerate(rows))],
        )
        chosen: dict[str, Any] = {}
    elif layout == "list":
        path = write_csv(
            tmp_path / "a.csv", [["text", "labels"], *([f"t {i}", "|".join(row)] for i, row in enumerate(rows))]
        )
        chosen = {}
    elif layout == "ids":
        ids = ["|".join(str(names.index(name)) for name in row) for row in rows]
        path = write_csv(tmp_path / "a.csv", [["text", "labels"], *([f"t {i}", cell] for i, cell in enumerate(ids))])
        chosen = {"labels": names}
    else:
        path = write_jsonl(tmp_path / "a.jsonl", [{"text": f"t {i}", "labels": row} for i, row in enumerate(rows)])
        chosen = {}
    corpus = read(
        path=path, rename={"Freude": "joy", "Ärger": "anger"}, merge={"negative": ["anger", "Trauer"]}, **chosen
    )
    assert set(corpus.labels) == {"joy", "negative"}
    assert labels_of(corpus) == [{"joy"}, {"negative"}, set(), {"negative"}] * 5


def test_a_text_has_a_merged_label_if_it_has_any_member_in_the_place_of_the_first(tmp_path: Path) -> None:
    path = spelled(tmp_path / "a.csv")
    plain, merged = read(path=path), read(path=path, merge={"joy": ["happiness", "Joy", "JOY"]})
    assert merged.labels == ["joy", "anger", "fear"]
    for before, after in zip(labels_of(plain), labels_of(merged), strict=True):
        assert ("joy" in after) == bool(before & {"Joy", "JOY", "happiness"})
        assert after - {"joy"} == before - {"Joy", "JOY", "happiness"}


def test_a_label_may_go_into_several_and_stay_itself(tmp_path: Path) -> None:
    path = spelled(tmp_path / "a.csv")
    corpus = read(path=path, merge={"loud": ["anger", "fear"], "fear": ["fear"]})
    for before, after in zip(labels_of(read(path=path)), labels_of(corpus), strict=True):
        assert ("loud" in after) == bool(before & {"anger", "fear"}) and ("fear" in after) == ("fear" in before)
    assert corpus.decisions.mapping == {
        "merge": {"loud": ["anger", "fear"], "fear": ["fear"]},
        "labels_in_data": ["Joy", "anger", "JOY", "happiness", "fear"],
        "made_of": {"loud": ["anger", "fear"]},
        "left_out": [],
    }


def test_rows_of_labels_that_are_left_out_stay_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = spelled(tmp_path / "a.csv")
    caplog.set_level("INFO")
    corpus = read(path=path, drop_labels=["happiness", "anger"])
    bare = sum(bool(row) and row <= {"happiness", "anger"} for row in labels_of(read(path=path)))
    assert bare and len(corpus.splits["whole"]) == 60
    sentence = f"Rows that have only labels that are left out (anger, happiness): {bare}; they stay, without a label."
    assert sentence in caplog.text and sentence in corpus.decisions.notes
    assert ("labels left out", "anger, happiness") in corpus.decisions.lines()


@pytest.mark.parametrize("chosen", [{}, {"folds": 3, "fold": 2}])
def test_splits_do_not_depend_on_the_mapping(tmp_path: Path, chosen: dict[str, Any]) -> None:
    path = spelled(tmp_path / "a.csv")
    found = []
    for mapping in ({}, {"merge": {"all": ["Joy", "JOY", "happiness", "anger"]}, "drop_labels": ["fear"]}):
        settings = data_settings(path=path, **chosen, **mapping)
        corpus = sources.split_corpus(sources.read_corpus(settings), settings)
        found.append({name: rows.ids for name, rows in corpus.splits.items()})
    assert found[0] == found[1]


def test_annotators_agree_on_the_merged_label(tmp_path: Path) -> None:
    # Of three annotators two saw joy, each under another name: a majority of one name there is not.
    table: list[list[Any]] = [["id", "text", "annotator", "joy", "happiness", "anger"]]
    for i in range(20):
        table += [[i, f"t {i}", "a", 1, 0, 0], [i, f"t {i}", "b", 0, 1, 0], [i, f"t {i}", "c", 0, 0, 1]]
    path = write_csv(tmp_path / "a.csv", table)
    aggregate = config.Aggregate.majority
    corpus = read(path=path, aggregate=aggregate, merge={"joy": ["joy", "happiness"]})
    assert labels_of(corpus) == [{"joy"}] * 20
    assert labels_of(read(path=path, aggregate=aggregate)) == [set()] * 20
    (rows,) = corpus.splits.values()
    assert rows.strata is not None and rows.strata.shape == (20, 3)


def test_official_sources_are_mapped_too() -> None:
    corpus = sources.read_corpus(data_settings("sample", merge={"bad": ["anger", "sadness"]}, drop_labels=["trust"]))
    plain = sources.read_corpus(data_settings("sample"))
    assert corpus.labels == ["bad", *(n for n in plain.labels if n not in ("anger", "sadness", "trust"))]
    for name, rows in corpus.splits.items():
        before, after = plain.splits[name].targets, rows.targets
        assert before is not None and after is not None
        either = before[:, plain.labels.index("anger")] + before[:, plain.labels.index("sadness")] > 0
        assert np.array_equal(after[:, 0] > 0, either)


def test_a_label_that_is_named_is_one_though_every_row_has_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [["text", "joy", "calm"], *([f"t {i}", i % 2, 1] for i in range(30))])
    assert read(path=path).labels == ["joy"]
    assert read(path=path, rename={"calm": "quiet"}).labels == ["joy", "quiet"]


def test_a_name_that_files_cannot_have_may_be_given_another(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [["body", "row", "joy"], *([f"t {i}", i % 3 // 2, i % 2] for i in range(30))])
    chosen = {"path": path, "text": "body", "labels": ["row", "joy"]}
    with pytest.raises(UserError, match="has a label named row"):
        read(**chosen)
    assert read(**chosen, rename={"row": "quarrel"}).labels == ["quarrel", "joy"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rename": {"happines": "joy"}}, r"the label happines, which .*a.csv does not have; did you mean happiness\?"),
        ({"merge": {"joy": ["Joy", "zzz", "yyy"]}}, r"names the label zzz, .* \(nor yyy\); its labels are JOY"),
        ({"drop_labels": ["neutral"]}, "data.drop_labels names the label neutral"),
        ({"rename": {"happiness": "Joy"}}, r"of the name Joy, Joy and happiness. .*\{Joy: \[Joy, happiness\]\}"),
        ({"merge": {"fear": ["Joy", "anger"]}}, r"has a label fear too. .*merge=\{fear: \[fear, Joy, anger\]\}"),
        ({"rename": {"Joy": "joy"}, "merge": {"x": ["Joy"]}}, "data.rename calls it joy, so write that"),
        ({"drop_labels": ["Joy", "anger", "JOY", "happiness", "fear"]}, "leaves no label"),
        ({"merge": {"joy": ["Joy", "JOY"]}, "drop_labels": ["JOY"]}, "data.drop_labels names the label JOY"),
        ({"rename": {"Joy": "p_anger"}}, "has labels anger and p_anger"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, chosen: dict[str, Any], message: str) -> None:
    if chosen.get("drop_labels") == ["JOY"]:
        with pytest.raises(UserError, match="JOY goes into joy by data.merge and is left out by data.drop_labels"):
            check_label_names(data_settings("sample", **chosen))
        return
    with pytest.raises(UserError, match=message):
        read(path=spelled(tmp_path / "a.csv"), **chosen)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rename": {"a": "joy", "b": "joy"}}, r"gives a and b the one name joy. .*data.merge=\{joy: \[a, b\]\}"),
        ({"merge": {"joy": []}}, "makes a label of none"),
        ({"rename": {"a": " "}}, "an empty name is none"),
        ({"drop_labels": [""]}, "an empty name is none"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_any_file(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_label_names(data_settings("sample", **chosen))


def test_names_may_change_places() -> None:
    found = LabelMap(rename={"joy": "anger", "anger": "joy"}).applied(["joy", "anger"], what="the data")
    assert (found.names, found.members, found.changes) == (["anger", "joy"], [[0], [1]], True)


def test_what_only_the_other_side_has_may_be_named_and_changes_nothing_here() -> None:
    merge = LabelMap(merge={"joy": ["joy", "amusement"], "sadness": ["grief", "sadness"]}, drop=["neutral"])
    here = merge.applied(
        ["sadness", "joy"], what="the data", also=("the run", ["joy", "amusement", "grief", "neutral"])
    )
    assert (here.names, here.changes) == (["sadness", "joy"], False)
    with pytest.raises(UserError, match="neutral, which neither the data nor the run has"):
        merge.applied(["sadness", "joy"], what="the data", also=("the run", ["joy", "amusement", "grief"]))


def test_decisions_without_a_mapping_are_as_they_were(tmp_path: Path) -> None:
    plain = read(path=spelled(tmp_path / "a.csv")).plain_decisions()
    assert set(plain["labels"]) == {"names", "from"} and "group_column" not in plain["splits"]
    mapped = read(path=spelled(tmp_path / "a.csv"), drop_labels=["fear"]).plain_decisions()
    assert json.loads(json.dumps(mapped["labels"]["mapping"]))["left_out"] == ["fear"]


# ----------------------------------------------------------------------------------------------------------- the files


def files() -> list[str]:
    return sorted(file.stem for file in (schema.conf_folder() / "mapping").glob("*.yaml"))


def test_each_file_says_what_becomes_of_every_label_of_goemotions() -> None:
    assert files() == ["goemotions_to_ekman", "goemotions_to_semeval2018", "goemotions_to_sentiment"]
    for name in files():
        values = yaml.safe_load((schema.conf_folder() / "mapping" / f"{name}.yaml").read_text())["data"]
        members = [label for own in values["merge"].values() for label in own]
        assert len(members) == len(set(members)), name
        assert set(members) | set(values.get("drop_labels", [])) | {"neutral"} == set(GOEMOTIONS), name
        mapped = label_map.LabelMap(merge=values["merge"], drop=values.get("drop_labels", []))
        assert set(mapped.applied(GOEMOTIONS, what="GoEmotions").names) - {"neutral"} == set(values["merge"])


def test_the_official_groups_are_those_of_the_authors() -> None:
    # Sums of the counts in table 4 of Demszky et al. cannot be made from the split; the sizes of the groups can.
    def sizes(name: str) -> dict[str, int]:
        values = yaml.safe_load((schema.conf_folder() / "mapping" / f"{name}.yaml").read_text())["data"]
        return {new: len(members) for new, members in values["merge"].items()}

    assert sizes("goemotions_to_sentiment") == {"positive": 12, "negative": 11, "ambiguous": 4}
    assert sizes("goemotions_to_ekman") == {
        "anger": 3, "disgust": 1, "fear": 2, "joy": 12, "sadness": 5, "surprise": 4,
    }  # fmt: skip
