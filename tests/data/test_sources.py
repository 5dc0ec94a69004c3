import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, emotions, write_csv, write_jsonl, write_parquet

from emotion_lightning.data import official, sources
from emotion_lightning.data.rows import WHOLE, Corpus, Rows
from emotion_lightning.errors import UserError


def read(option: str = "file", **chosen: Any) -> Corpus:
    return sources.read_corpus(data_settings(option, **chosen))


def targets(rows: Rows) -> list[list[float]]:
    assert rows.targets is not None
    return rows.targets.tolist()


# ---------------------------------------------------------------------------------------------- files of the user's own


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".jsonl", ".parquet"])
def test_every_format_reads_alike(tmp_path: Path, suffix: str) -> None:
    header, *cells = emotions(12)
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, [dict(zip(header, row, strict=True)) for row in cells])
    elif suffix == ".parquet":
        write_parquet(path, {name: [row[i] for row in cells] for i, name in enumerate(header)})
    else:
        write_csv(path, [header, *cells], delimiter="\t" if suffix == ".tsv" else ",")
    corpus = read(path=path)
    assert corpus.labels == ["joy", "anger"]
    assert list(corpus.splits) == [WHOLE]
    assert corpus.splits[WHOLE].texts == [f"text {i}" for i in range(12)]
    assert targets(corpus.splits[WHOLE]) == [[i % 2 == 0, i % 3 == 0] for i in range(12)]
    assert list(corpus.hashes) == ["whole"]


def test_settings_from_the_command_line_are_taken(tmp_path: Path, settings: Callable[..., Any]) -> None:
    path = write_csv(tmp_path / "my texts.csv", [["phrase", "mood"], ["a", "joy|love"], ["b", "love"]])
    data = settings(
        "data=file", f"data.path='{path}'", "data.text=phrase", "data.labels_column=mood", "data.separator='|'"
    ).data
    corpus = sources.read_corpus(data)
    assert (corpus.labels, targets(corpus.splits[WHOLE])) == (["joy", "love"], [[1, 1], [0, 1]])


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
@pytest.mark.parametrize("ids", [False, True])
def test_a_labels_column_may_hold_lists(tmp_path: Path, format_: str, ids: bool) -> None:
    moods: list[Any] = [[2, 0], [1], []] if ids else [["love", "joy"], ["anger"], []]
    path = tmp_path / f"a.{format_}"
    if format_ == "jsonl":
        write_jsonl(path, [{"text": f"t{i}", "mood": mood} for i, mood in enumerate(moods)])
    else:
        write_parquet(path, {"text": ["t0", "t1", "t2"], "mood": moods})
    corpus = read(path=path, labels_column="mood", labels=["joy", "anger", "love"])
    assert targets(corpus.splits[WHOLE]) == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def splits_with(tmp_path: Path, validation: list[list[Any]], test: list[list[Any]] | None = None) -> dict[str, Any]:
    paths = {
        "train": write_csv(tmp_path / "train.csv", emotions(6)),
        "validation": write_csv(tmp_path / "validation.csv", validation),
    }
    return {**paths, "test": write_csv(tmp_path / "test.csv", test)} if test else paths


def test_own_splits_are_kept(tmp_path: Path) -> None:
    data = splits_with(tmp_path, emotions(4, start=10), emotions(5, start=20))
    corpus = read(**data)
    assert {name: rows.texts[0] for name, rows in corpus.splits.items()} == {
        "train": "text 0", "validation": "text 10", "test": "text 20",
    }  # fmt: skip
    split = sources.split_corpus(corpus, data_settings(**data))
    assert {name: len(rows) for name, rows in split.splits.items()} == {"train": 6, "validation": 4, "test": 5}


def test_labels_in_another_order_are_aligned_by_name(tmp_path: Path) -> None:
    corpus = read(**splits_with(tmp_path, [["anger", "text", "joy"], ["1", "furious", "0"], ["0", "glad", "1"]]))
    assert corpus.labels == ["joy", "anger"]
    assert targets(corpus.splits["validation"]) == [[0, 1], [1, 0]]


def test_a_label_that_a_split_lacks_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"validation\.csv has no column anger, which .*train\.csv has"):
        read(**splits_with(tmp_path, [["text", "joy"], ["glad", "1"]]))


def test_an_id_column_that_a_split_lacks_is_reported_once(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [["id", "text", "joy"], ["1", "a", "1"], ["2", "b", "0"]])
    validation = write_csv(tmp_path / "validation.csv", [["text", "joy"], ["c", "1"], ["d", "0"]])
    with pytest.raises(UserError, match=r"validation\.csv has no column id, which .*train\.csv has"):
        read(train=train, validation=validation)


def test_a_label_that_only_validation_has_is_reported(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [["text", "mood"], ["a", "joy"], ["b", "anger"]])
    validation = write_csv(tmp_path / "validation.csv", [["text", "mood"], ["c", "joy"], ["d", "rage"]])
    with pytest.raises(UserError, match=r"validation\.csv, row 2, column mood: the label 'rage' is not one"):
        read(train=train, validation=validation, labels_column="mood")


def test_problems_of_all_splits_stand_in_one_message(tmp_path: Path) -> None:
    header = ["text", "joy", "anger"]
    with pytest.raises(UserError) as raised:
        read(**splits_with(tmp_path, [header, ["a", "1"], ["", "0", "1"]], [header, ["b", "maybe", "0"]]))
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        f"{tmp_path}/validation.csv, row 1",
        f"{tmp_path}/validation.csv, row 2, column text",
        f"{tmp_path}/test.csv, row 1, column joy",
    ]


def test_many_problems_of_one_kind_are_counted(tmp_path: Path) -> None:
    rows = [["text", "joy"], *([f"t{i}", "0"] for i in range(100)), *(["", "1"] for _ in range(25))]
    with pytest.raises(UserError) as raised:
        read(path=write_csv(tmp_path / "a.csv", rows))
    (line,) = str(raised.value).splitlines()
    assert "a.csv: 25 problems of one kind (row 101, column text; row 102, column text; row 103" in line
    assert line.endswith("data.empty_texts=drop.")


def test_a_missing_text_column_is_answered_with_a_near_match(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", emotions(3))
    with pytest.raises(UserError, match=r"a\.csv has no column texts; .*did you mean data\.text=text\?"):
        read(path=path, text="texts")


def test_a_file_of_texts_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("so happy\n")
    with pytest.raises(UserError, match=r"a\.txt has texts only"):
        read(path=tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text,joy\n" if name == "a.csv" else "\n\n")
    with pytest.raises(UserError, match=f"{name} has .*no rows"):
        read(path=tmp_path / name)


def test_a_file_of_broken_rows_alone_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,joy\na\nb\n")
    with pytest.raises(UserError, match=re.compile("row 1: 1 cells.*row 2: 1 cells", re.DOTALL)):
        read(path=tmp_path / "a.csv")


def test_label_names_that_clash_with_their_probabilities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels joy and p_joy"):
        read(path=write_csv(tmp_path / "a.csv", [["text", "joy", "p_joy"], ["a", "1", "0"]]))


def test_files_of_one_name_in_two_folders_both_have_a_hash(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    train = write_csv(tmp_path / "one" / "a.csv", emotions(6))
    validation = write_csv(tmp_path / "two" / "a.csv", emotions(4))
    assert len(set(read(train=train, validation=validation).hashes.values())) == 2


def test_a_hash_is_of_the_contents(tmp_path: Path) -> None:
    before = read(path=write_csv(tmp_path / "a.csv", emotions(6))).hashes
    assert read(path=write_csv(tmp_path / "a.csv", emotions(6))).hashes == before
    assert read(path=write_csv(tmp_path / "a.csv", emotions(7))).hashes != before


@pytest.mark.parametrize(("max_rows", "kept"), [(None, 6), (1, 1), (5, 5), (99, 6)])
def test_max_rows_keeps_the_first_of_each_split(tmp_path: Path, max_rows: int | None, kept: int) -> None:
    corpus = read(**splits_with(tmp_path, emotions(6, start=10)), max_rows=max_rows)
    assert corpus.splits["train"].texts == [f"text {i}" for i in range(kept)]
    assert corpus.splits["validation"].texts == [f"text {10 + i}" for i in range(kept)]
    assert len(targets(corpus.splits["train"])) == kept


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("train", "dev"), ("train", "valid", "extra")])
def test_a_folder_of_splits_that_datasets_saved_is_read(
    tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    import datasets

    parts = {}
    for i, name in enumerate(names):
        header, *cells = emotions(8, start=100 * i)
        parts[name] = datasets.Dataset.from_dict({name: [row[k] for row in cells] for k, name in enumerate(header)})
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    for corpus in (
        read(path=tmp_path / "saved"),
        read("hub", path=tmp_path / "saved", validation=names[1], test="test"),
    ):
        assert corpus.labels == ["joy", "anger"]
        assert corpus.splits["train"].texts[0] == "text 0"
        assert corpus.splits["validation"].texts[0] == "text 100"
        assert ("test" in corpus.splits) == ("test" in names)
    assert ("extra" in caplog.text) == ("extra" in names)


@pytest.mark.parametrize("kind", ["folder", "parquet", "arrow", "hub"])
def test_class_names_that_datasets_keeps_are_the_labels(tmp_path: Path, kind: str, hub_folder: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["joy", "anger", "love"])
    features = datasets.Features({"comment": datasets.Value("string"), "labels": datasets.List(names)})
    table = datasets.Dataset.from_dict({"comment": ["a", "b", "c"], "labels": [[2, 0], [], [1]]}, features=features)
    path = tmp_path / f"a.{kind}"
    if kind in ("folder", "arrow"):
        table.save_to_disk(path)
        path = next(path.glob("*.arrow")) if kind == "arrow" else path
    else:
        path = hub_folder / "train.parquet" if kind == "hub" else path
        table.to_parquet(str(path))
    corpus = read("hub", path=hub_folder) if kind == "hub" else read(path=path)
    assert corpus.labels == ["joy", "anger", "love"]
    assert targets(next(iter(corpus.splits.values()))) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("column", ["mood", "joy"])
def test_a_test_file_whose_labels_are_held_back_is_not_labelled(tmp_path: Path, column: str) -> None:
    train = [["text", column], *([f"t{i}", ("1" if i % 2 else "0") if column == "joy" else "sad"] for i in range(6))]
    paths = {
        "train": write_csv(tmp_path / "train.csv", train),
        "validation": write_csv(tmp_path / "validation.csv", train),
        "test": write_csv(tmp_path / "test.csv", [["text", column], ["a", ""], ["b", ""]]),
    }
    corpus = read(**paths, labels_column="mood" if column == "mood" else None)
    assert corpus.splits["test"].targets is None


def test_a_folder_that_datasets_saved_as_one_is_split(tmp_path: Path) -> None:
    import datasets

    header, *cells = emotions(40)
    table = datasets.Dataset.from_dict({name: [row[k] for row in cells] for k, name in enumerate(header)})
    table.save_to_disk(tmp_path / "saved")
    settings = data_settings(path=tmp_path / "saved")
    parts = sources.split_corpus(sources.read_corpus(settings), settings).splits
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 32, "validation": 4, "test": 4}


def test_a_zero_one_column_that_train_lacks_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header, *cells = emotions(4, start=10)
    read(**splits_with(tmp_path, [[*header, "love"], *([*row, 1] for row in cells)]))
    assert "validation.csv: love, which" in caplog.text and "left aside" in caplog.text


# ------------------------------------------------------------------------------------------------------------ splitting

SHARES = [0.4, 0.2, 0.06, 0.05, 0.04, 0.03, 0.03, 0.02]


def whole(count: int, *, seed: int = 0) -> Corpus:
    chosen = (np.random.default_rng(seed).random((count, len(SHARES))) < SHARES).astype(np.float32)
    names = [f"label {i}" for i in range(len(SHARES))]
    return Corpus(names, {WHOLE: Rows([str(i) for i in range(count)], [f"text {i}" for i in range(count)], chosen)})


def ids(corpus: Corpus) -> dict[str, list[int]]:
    return {name: [int(i) for i in rows.ids] for name, rows in corpus.splits.items()}


def cut(corpus: Corpus, **chosen: Any) -> Corpus:
    return sources.split_corpus(corpus, data_settings(path="a.csv", **chosen))


def test_one_file_is_split_in_three_without_loss_or_overlap_in_its_order() -> None:
    corpus = whole(503)
    parts = cut(corpus)
    assert list(parts.splits) == ["train", "validation", "test"]
    found = ids(parts)
    assert sorted(sum(found.values(), [])) == list(range(503))
    assert all(part == sorted(part) for part in found.values())
    for name, rows in parts.splits.items():
        assert rows.texts == [f"text {i}" for i in found[name]]
        assert targets(rows) == targets(corpus.splits[WHOLE].take(np.array(found[name])))


@pytest.mark.parametrize(
    ("validation", "test", "sizes"),
    [(0.1, 0.1, [800, 100, 100]), (0.2, 0.3, [500, 200, 300]), (0.05, 0.5, [450, 50, 500]), (0.25, 0, [750, 250])],
)
def test_shares_are_of_the_whole_file(validation: float, test: float, sizes: list[int]) -> None:
    parts = cut(whole(1000), validation_share=validation, test_share=test)
    assert [len(rows) for rows in parts.splits.values()] == sizes


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_split_has_its_share_of_every_label_also_of_the_rare_ones(seed: int) -> None:
    corpus = whole(1000, seed=seed)
    positives = np.sum(targets(corpus.splits[WHOLE]), axis=0)
    parts = cut(corpus, split_seed=seed)
    for rows in parts.splits.values():
        # In splits drawn at random some label is 3 to 10 rows off.
        assert np.abs(np.sum(targets(rows), axis=0) - positives * len(rows) / 1000).max() <= 1.5


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    corpus = whole(300)
    assert ids(cut(corpus, split_seed=3)) == ids(cut(corpus, split_seed=3))
    assert ids(cut(corpus, split_seed=3))["test"] != ids(cut(corpus, split_seed=4))["test"]
    assert ids(cut(corpus, split_seed=3))["validation"] != ids(cut(corpus, split_seed=4))["validation"]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_rows_to_split_are_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} rows are too few .*data.train="):
        cut(whole(count))


def test_ten_rows_are_enough() -> None:
    assert {name: len(rows) for name, rows in cut(whole(10)).splits.items()} == {"train": 8, "validation": 1, "test": 1}


def test_a_missing_validation_split_is_cut_from_train_and_test_is_left_alone(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", emotions(60))
    test = write_csv(tmp_path / "test.csv", emotions(9, start=100))
    data = data_settings(train=train, test=test, validation_share=0.2)
    parts = sources.split_corpus(sources.read_corpus(data), data)
    assert {name: len(rows) for name, rows in parts.splits.items()} == {"train": 48, "validation": 12, "test": 9}
    assert sorted(parts.splits["train"].texts + parts.splits["validation"].texts) == sorted(
        f"text {i}" for i in range(60)
    )
    assert np.sum(targets(parts.splits["validation"]), axis=0).tolist() == [6, 4]


def test_a_split_corpus_is_left_as_it_is() -> None:
    settings = data_settings("sample")
    corpus = sources.read_corpus(settings)
    assert ids(sources.split_corpus(corpus, settings)) == ids(corpus)


# --------------------------------------------------------------------------------------------------- the bundled sample


@pytest.fixture(scope="module")
def sample() -> Corpus:
    return read("sample")


def test_the_sample_has_the_labels_of_semeval(sample: Corpus) -> None:
    assert sample.labels == [
        "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise",
        "trust",
    ]  # fmt: skip


def test_the_sample_is_large_enough(sample: Corpus) -> None:
    assert list(sample.splits) == ["train", "validation", "test"]
    assert sum(len(rows) for rows in sample.splits.values()) >= 1200
    assert min(len(rows) for rows in sample.splits.values()) >= 150


def test_every_label_of_the_sample_is_frequent_and_in_each_split(sample: Corpus) -> None:
    positives = np.array([np.sum(targets(rows), axis=0) for rows in sample.splits.values()])
    assert (positives.sum(axis=0) >= 80).all()
    assert (positives > 0).all()


def test_texts_of_the_sample_have_about_two_labels_and_some_have_none(sample: Corpus) -> None:
    labels = np.concatenate([np.sum(targets(rows), axis=1) for rows in sample.splits.values()])
    assert 1.7 <= labels.mean() <= 2.4
    assert (labels == 0).sum() > 0
    assert all((np.sum(targets(rows), axis=1) == 0).any() for rows in sample.splits.values())


def test_no_text_of_the_sample_stands_twice_or_in_two_splits(sample: Corpus) -> None:
    texts = [" ".join(text.lower().split()) for rows in sample.splits.values() for text in rows.texts]
    assert len(set(texts)) == len(texts)
    identifiers = [i for rows in sample.splits.values() for i in rows.ids]
    assert len(set(identifiers)) == len(identifiers)


def test_texts_of_the_sample_are_clean(sample: Corpus) -> None:
    texts = [text for rows in sample.splits.values() for text in rows.texts]
    assert [text for text in texts if text != text.strip() or "\n" in text or "\ufffd" in text] == []


# -------------------------------------------------------------------------------------------------------------- SemEval

NAMES = official.SEMEVAL_LABELS
TWEETS = [
    ("2017-En-1", 'She said "never again" and meant it', "10000000000"),
    ("2017-En-2", '"Quoted at the start, never closed', "00001000000"),
    ("2017-En-3", "first line\\nsecond line &amp; a &lt;3", "00001110000"),
    ("2017-En-4", "nothing to feel here ", "00000000000"),
    ("2018-En-5", "NA", "00000001100"),
    ("2018-En-6", "separators \u2028 and \x85 end no line 😀", "00000000010"),
]


def semeval_file(tweets: list[tuple[str, str, str]], *, newline: str = "\n", names: tuple[str, ...] = NAMES) -> bytes:
    lines = ["\t".join(["ID", "Tweet", *names])]
    for identifier, tweet, labels in tweets:
        lines.append("\t".join([identifier, tweet, *(labels if len(labels) == len(names) else [labels] * len(names))]))
    return "".join(line + newline for line in lines).encode()


@pytest.fixture
def semeval(tmp_path: Path) -> Callable[..., Path]:
    """A folder of official files; a content of None leaves the file out."""

    def write(lead: str = "2018-", language: str = "En", **contents: bytes | None) -> Path:
        blind = semeval_file([("2018-En-90", "blind", "NONE")])
        given: dict[str, bytes | None] = {
            "train": semeval_file(TWEETS), "dev": semeval_file(TWEETS[:2]), "test": blind, **contents,
        }  # fmt: skip
        for name, data in given.items():
            if data is not None:
                (tmp_path / f"{lead}E-c-{language}-{name.replace('_', '-')}.txt").write_bytes(data)
        return tmp_path

    return write


@pytest.mark.parametrize("lead", ["2018-", ""])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_official_semeval_files_are_read_as_they_are(semeval: Callable[..., Path], lead: str, newline: str) -> None:
    corpus = read("semeval2018", dir=semeval(lead, train=semeval_file(TWEETS, newline=newline)))
    train = corpus.splits["train"]
    assert corpus.labels == list(NAMES)
    assert train.texts == [tweet for _, tweet, _ in TWEETS]
    assert (train.ids, train.id_column) == ([identifier for identifier, _, _ in TWEETS], "ID")
    assert targets(train) == [[float(label) for label in labels] for _, _, labels in TWEETS]
    assert len(corpus.splits["validation"]) == 2
    assert list(corpus.hashes) == ["train", "validation", "test"]


def test_semeval_in_another_language_is_read(semeval: Callable[..., Path]) -> None:
    assert len(read("semeval2018", dir=semeval(language="Es"), language="Es").splits["train"]) == len(TWEETS)


def test_a_test_file_of_none_has_no_targets(semeval: Callable[..., Path]) -> None:
    test = read("semeval2018", dir=semeval()).splits["test"]
    assert (test.ids, test.texts, test.targets) == (["2018-En-90"], ["blind"], None)


@pytest.mark.parametrize("lead", ["2018-", ""])
def test_the_gold_file_is_preferred_to_the_unlabelled_one(semeval: Callable[..., Path], lead: str) -> None:
    semeval("2018-")
    folder = semeval(lead, test_gold=semeval_file(TWEETS[2:4]))
    assert targets(read("semeval2018", dir=folder).splits["test"])[0] == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]


WRONG_SEMEVAL = {
    "empty": (b"", "2018-E-c-En-train.txt is empty"),
    "header only": (semeval_file([]), "2018-E-c-En-train.txt has .*no rows"),
    "other header": (b"text,joy\nhi,1\n", "train.txt: its first line is not the official header"),
    "tab in a tweet": (
        semeval_file([TWEETS[0], ("2017-En-9", "a\ttab", "1" * 11)]),
        "row 2: 14 cells under a header of 13",
    ),
    "label of 2": (
        semeval_file([TWEETS[0], ("2017-En-9", "two", "00200000000")]),
        "row 2, column disgust: a label that",
    ),
    "some NONE": (semeval_file([TWEETS[0], ("2017-En-9", "blind", "NONE")]), "row 2: NONE .* in a file with labels"),
    "latin-1": (semeval_file(TWEETS).replace(b"never", b"n\xe9ver"), "train.txt is not UTF-8"),
}


@pytest.mark.parametrize("case", WRONG_SEMEVAL)
def test_a_wrong_semeval_file_is_reported(semeval: Callable[..., Path], case: str) -> None:
    train, message = WRONG_SEMEVAL[case]
    with pytest.raises(UserError, match=message):
        read("semeval2018", dir=semeval(train=train))


def test_a_row_is_counted_behind_a_blank_line_too(semeval: Callable[..., Path]) -> None:
    train = semeval_file([TWEETS[0], ("2017-En-9", "blind", "NONE")]).replace(b"\n2017-En-1", b"\n\n2017-En-1")
    with pytest.raises(UserError, match="row 3: NONE"):
        read("semeval2018", dir=semeval(train=train))


def test_semeval_splits_with_different_labels_are_refused(semeval: Callable[..., Path]) -> None:
    dev = semeval_file([("2018-En-5", "a", "10")], names=("joy", "anger"))
    with pytest.raises(UserError, match="dev.txt: its labels are joy, anger, those of train are anger, ant"):
        read("semeval2018", dir=semeval(dev=dev))


def test_a_missing_semeval_file_is_named(semeval: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="has no 2018-E-c-En-dev.txt or E-c-En-dev.txt; data.dir must name"):
        read("semeval2018", dir=semeval(dev=None))


@pytest.mark.parametrize("option", ["semeval2018", "goemotions"])
def test_a_data_dir_that_is_no_folder_is_named(tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=r"data\.dir=.*/nowhere is not a folder"):
        read(option, dir=tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------------------------- GoEmotions

GOEMOTIONS = (
    "plain text\t2\tid1\n"
    '"She said ""no"" again"\t0,2\tid2\n'
    '"a\ttab inside"\t1\tid3\n'
    'a "quote" in the middle\t2,1,0\tid4\n'
    "it's NA \t0\tid5\n"
)


@pytest.fixture
def goemotions(tmp_path: Path) -> Callable[..., Path]:
    def write(train: str | bytes = GOEMOTIONS, names_file: str = "labels.txt") -> Path:
        data = train if isinstance(train, bytes) else train.encode()
        (tmp_path / "train.tsv").write_bytes(data)
        (tmp_path / "dev.tsv").write_text("dev text\t1\tid7\n")
        (tmp_path / "test.tsv").write_text("test text\t0\tid8\n")
        (tmp_path / names_file).write_text("joy\nanger\nneutral\n")
        return tmp_path

    return write


@pytest.mark.parametrize("names_file", ["labels.txt", "emotions.txt"])
def test_official_goemotions_files_are_read(goemotions: Callable[..., Path], names_file: str) -> None:
    corpus = read("goemotions", dir=goemotions(names_file=names_file))
    train = corpus.splits["train"]
    assert corpus.labels == ["joy", "anger", "neutral"]
    assert train.texts == [
        "plain text", 'She said "no" again', "a\ttab inside", 'a "quote" in the middle', "it's NA ",
    ]  # fmt: skip
    assert targets(train) == [[0, 0, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert (train.ids, train.id_column) == (["id1", "id2", "id3", "id4", "id5"], "id")
    assert (corpus.splits["validation"].texts, corpus.splits["test"].texts) == (["dev text"], ["test text"])
    assert list(corpus.hashes) == ["train", "validation", "test"]


WRONG_GOEMOTIONS = {
    "empty": ("", "train.tsv is empty"),
    "no id": ("fine\t0\tid1\nno id\t1\n", "train.tsv, row 2: 2 cells"),
    "unquoted tab": ("fine\t0\tid1\na\ttab\t1\tid2\n", "train.tsv, row 2: 4 cells"),
    "unknown label": ("fine\t0\tid1\nunknown\t1,3\tid2\n", "train.tsv, row 2: label ids '1,3', where numbers below 3"),
    "no label": ("fine\t0\tid1\nno label\t\tid2\n", "train.tsv, row 2: label ids ''"),
    "name of a label": ("fine\t0\tid1\nname\tjoy\tid2\n", "train.tsv, row 2: label ids 'joy'"),
    "latin-1": ("fröhlich\t0\tid1\n".encode("latin-1"), "train.tsv is not UTF-8"),
    "quote never closed": ('fine\t0\tid1\n"never closed\t1\tid2\nswallowed\t1\tid3\n', r"train.tsv, (row|line) \d"),
}


@pytest.mark.parametrize("case", WRONG_GOEMOTIONS)
def test_a_wrong_goemotions_file_is_reported(goemotions: Callable[..., Path], case: str) -> None:
    train, message = WRONG_GOEMOTIONS[case]
    with pytest.raises(UserError, match=message):
        read("goemotions", dir=goemotions(train))


def test_a_missing_goemotions_file_is_named(goemotions: Callable[..., Path]) -> None:
    (goemotions() / "labels.txt").unlink()
    with pytest.raises(UserError, match=r"has no labels\.txt or emotions\.txt"):
        read("goemotions", dir=goemotions(names_file="names.txt"))


# ------------------------------------------------------------------------------------------------------------------ hub


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `datasets` can load, whose cache is in a folder of the test too."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def test_a_folder_of_csv_files_loads_through_datasets(hub_folder: Path) -> None:
    for name, start in {"train": 0, "validation": 100, "test": 200}.items():
        write_csv(hub_folder / f"{name}.csv", emotions(8, start=start))
    corpus = read("hub", path=hub_folder)
    assert corpus.labels == ["joy", "anger"]
    assert {name: rows.texts[0] for name, rows in corpus.splits.items()} == {
        "train": "text 0", "validation": "text 100", "test": "text 200",
    }  # fmt: skip
    assert targets(corpus.splits["train"]) == [[i % 2 == 0, i % 3 == 0] for i in range(8)]
    assert list(corpus.hashes) == [str(hub_folder)]


def test_class_names_of_a_hub_data_set_are_its_labels(hub_folder: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["joy", "anger", "love"])
    features = datasets.Features({"comment": datasets.Value("string"), "moods": datasets.List(names)})
    columns = {"comment": ["a", "b", "c"], "moods": [[2, 0], [], [1]]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(hub_folder / "train.parquet"))
    corpus = read("hub", path=hub_folder, labels_column="moods")
    assert corpus.labels == ["joy", "anger", "love"]
    assert targets(corpus.splits["train"]) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_validation_is_cut_from_train_where_a_hub_data_set_has_none(hub_folder: Path) -> None:
    write_csv(hub_folder / "train.csv", emotions(60))
    data = data_settings("hub", path=hub_folder)
    parts = sources.split_corpus(sources.read_corpus(data), data)
    assert {name: len(rows) for name, rows in parts.splits.items()} == {"train": 54, "validation": 6}


def test_a_hub_data_set_without_the_named_training_split_is_answered_with_its_splits(hub_folder: Path) -> None:
    write_csv(hub_folder / "train.csv", emotions(6))
    with pytest.raises(UserError, match="has no split training; it has train"):
        read("hub", path=hub_folder, train="training")


def test_a_bad_cell_of_a_hub_data_set_is_named_with_split_and_row(hub_folder: Path) -> None:
    rows = emotions(20)
    rows[5][1] = 2
    write_csv(hub_folder / "train.csv", rows)
    with pytest.raises(UserError, match=r"hub\[train\], row 5, column joy: 2 where 0 or 1 is due"):
        read("hub", path=hub_folder)


@pytest.mark.parametrize("option", [{"path": "someone/some-emotions"}, {"path": "/nowhere/at/all"}])
def test_a_hub_data_set_that_cannot_be_had_is_named(hub_folder: Path, option: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"The data set {option['path']} cannot be loaded: .*data=file"):
        read("hub", **option)


@pytest.mark.parametrize(("option", "name"), [("goemotions", "go_emotions"), ("semeval2018", "sem_eval_2018_task_1")])
def test_official_data_sets_offline_point_to_data_dir(hub_folder: Path, option: str, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} .*data.dir="):
        read(option)


def test_an_error_without_words_is_reported_too(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match="someone/some-emotions cannot be loaded"):
        read("hub", path="someone/some-emotions")


@pytest.mark.parametrize(("rows", "names"), [(100, 60), (200, 100), (40, 300), (30, 11)])
def test_a_split_has_the_sizes_asked_for_also_with_many_labels(tmp_path: Path, rows: int, names: int) -> None:
    random = np.random.default_rng(0)
    header = ["text", *[f"label {i}" for i in range(names)]]
    cells = [[f"text {i}", *(random.random(names) < 0.2).astype(int).tolist()] for i in range(rows)]
    settings = data_settings(path=write_csv(tmp_path / "many.csv", [header, *cells]))
    splits = sources.split_corpus(sources.read_corpus(settings), settings).splits
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [rows * 8 // 10, rows // 10, rows // 10]
    assert sorted(text for part in splits.values() for text in part.texts) == sorted(row[0] for row in cells)
