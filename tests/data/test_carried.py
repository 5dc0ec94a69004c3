from pathlib import Path
from typing import Any

import pytest
from helpers import official
from helpers.tables import data_settings, write_csv

from emotion_lightning.data import carried, sources
from emotion_lightning.data.rows import WHOLE, Corpus
from emotion_lightning.errors import UserError

HEADER = ["text", "lang", "where", "joy", "anger"]


def lines(count: int, start: int = 0) -> list[list[Any]]:
    return [
        [f"text {i}", ["de", "en", ""][i % 3], f" {'news' if i % 2 else 'chat'} ", i % 2, (i // 2) % 2]
        for i in range(start, start + count)
    ]


def read(folder: Path, **chosen: Any) -> Corpus:
    path = write_csv(folder / "a.csv", [HEADER, *lines(60)])
    return sources.read_corpus(data_settings("file", **{"path": path, **chosen}))


def test_columns_are_carried_along_and_are_no_labels(tmp_path: Path) -> None:
    corpus = read(tmp_path, groups=["lang", "where"])
    rows = corpus.splits[WHOLE]
    assert corpus.labels == ["joy", "anger"]
    assert rows.carried["lang"][:3] == ["de", "en", None] and rows.carried["where"][:2] == ["chat", "news"]
    assert carried.values(rows.carried["lang"])[:3] == ["de", "en", carried.EMPTY]
    assert corpus.decisions.plain([], {})["groups"] == ["lang", "where"]
    assert ("scored by", "lang, where") in corpus.decisions.lines()
    assert corpus.decisions.aside == []


def test_without_the_setting_nothing_is_carried(tmp_path: Path) -> None:
    corpus = read(tmp_path)
    assert corpus.splits[WHOLE].carried == {} and "groups" not in corpus.decisions.plain([], {})
    assert corpus.splits[WHOLE].sha256() == read(tmp_path, groups=["lang"]).splits[WHOLE].sha256()


def test_a_column_of_zeros_and_ones_may_be_one_of_groups(tmp_path: Path) -> None:
    corpus = read(tmp_path, groups=["anger"])
    assert corpus.labels == ["joy"] and set(corpus.splits[WHOLE].carried["anger"]) == {"0", "1"}


@pytest.mark.parametrize("folds", [{}, {"folds": 3, "fold": 2}, {"group_column": "where", "test_share": 0}])
def test_splits_and_folds_keep_the_values_with_their_rows(tmp_path: Path, folds: dict[str, Any]) -> None:
    path = write_csv(tmp_path / "a.csv", [HEADER, *lines(60)])
    settings = data_settings("file", path=path, groups=["lang"], **folds)
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    for rows in corpus.splits.values():
        expected = [["de", "en", None][int(text.split()[1]) % 3] for text in rows.texts]
        assert rows.carried == {"lang": expected}


def test_rows_of_annotators_keep_the_values_of_their_text(tmp_path: Path) -> None:
    cells: list[list[Any]] = [["id", "text", "lang", "joy", "anger"]]
    cells += [[i // 2, f"text {i // 2}", "de" if i < 6 else "en", 1, i % 2] for i in range(12)]
    path = write_csv(tmp_path / "a.csv", cells)
    corpus = sources.read_corpus(data_settings("file", path=path, aggregate="majority", groups=["lang"]))
    assert corpus.splits[WHOLE].carried == {"lang": ["de"] * 3 + ["en"] * 3}


def test_each_file_needs_the_columns(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [HEADER, *lines(30)])
    test = write_csv(tmp_path / "test.csv", [["text", "joy", "anger"], *([f"t {i}", i % 2, 1] for i in range(9))])
    with pytest.raises(UserError, match=r"test\.csv has no column lang, which .*train\.csv has"):
        sources.read_corpus(data_settings("file", train=train, validation=train, test=test, groups=["lang"]))


WRONG = {
    "an unknown column": (
        ["langs"],
        r"a\.csv has no column langs \(data\.groups\); .*did you mean data\.groups=\[lang\]\?",
    ),
    "the texts": (["text"], r"data\.groups names text, the column of texts"),
    "a label": (["joy"], r"data\.groups names joy, which data\.labels names too"),
    "an empty column": (["blank"], r"column blank \(data\.groups\): it is empty in every row"),
    "too many values": (
        ["key"],
        r"data\.groups names key, which has 600 values \(k0, k1, k2, …\); groups are at most 500",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_columns_are_refused(tmp_path: Path, case: str) -> None:
    groups, message = WRONG[case]
    cells = [[*row, "", f"k{i}"] for i, row in enumerate(lines(600))]
    path = write_csv(tmp_path / "a.csv", [[*HEADER, "blank", "key"], *cells])
    chosen = {"labels": ["joy", "anger"]} if case == "a label" else {}
    with pytest.raises(UserError, match=message):
        sources.read_corpus(data_settings("file", path=path, groups=groups, **chosen))


@pytest.mark.parametrize("given", ["[]", "[lang,lang]"])
def test_an_empty_or_doubled_list_is_refused(settings: Any, given: str) -> None:
    with pytest.raises(UserError, match=r"data\.groups=\[.*\] must name one column"):
        settings("data=file", "data.path=a.csv", f"data.groups={given}")


def test_official_datasets_have_columns_of_their_own(tmp_path: Path) -> None:
    folder = official.xed(tmp_path)
    assert list(sources.read_corpus(data_settings("xed", dir=folder)).splits[WHOLE].carried) == ["language"]
    both = sources.read_corpus(data_settings("xed", dir=folder, groups=["source", "language"])).splits[WHOLE]
    assert list(both.carried) == ["source", "language"]
    assert sources.read_corpus(data_settings("xed", dir=folder, groups=None)).splits[WHOLE].carried == {}
    with pytest.raises(
        UserError, match=r"data\.groups names genre; the columns of XED for groups are language, source"
    ):
        sources.read_corpus(data_settings("xed", dir=folder, groups=["genre"]))


def test_groups_that_are_not_learned_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = data_settings(
        "brighter", dir=official.brighter(tmp_path, ["deu", "rus"]), languages=["deu"], test_languages=["rus"]
    )
    caplog.set_level("INFO")
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    sentence = "Not in train, but in test, by language: rus."
    assert sentence in caplog.messages and corpus.decisions.notes == [sentence]
