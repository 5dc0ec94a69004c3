"""Conversations: the turns before a text are found, joined in front of it, and kept in one split."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import data_settings, text_columns, write_csv

from emotion_lightning import config
from emotion_lightning.data import sources, tables
from emotion_lightning.data.batches import tokenize
from emotion_lightning.data.conversations import Context, with_context
from emotion_lightning.data.formats import files
from emotion_lightning.data.long_texts import LongTexts, read_long_texts
from emotion_lightning.data.module import EmotionData
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.template import Template, read_context, read_template
from emotion_lightning.errors import UserError
from emotion_lightning.models.backbone import BUNDLED

MELD = ["Utterance", "Emotion", "Dialogue_ID", "Utterance_ID"]
TALK = [
    ["b1", "joy", "1", "1"],
    ["a10", "joy", "0", "10"],
    ["a2", "anger", "0", "2"],
    ["b0", "anger", "1", "0"],
    ["a9", "joy", "0", "9"],
]
"""Rows of two conversations, in no order; as text, 10 would come before 2."""
CONTEXT = Context(2, "Dialogue_ID", "Utterance_ID", None, [7])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUNDLED)


def meld(path: Path, rows: list[list[str]] = TALK, **chosen: Any) -> config.File:
    write_csv(path, [MELD, *rows])
    columns = {"text": "Utterance", "labels_column": "Emotion", "conversation": "Dialogue_ID", "turn": "Utterance_ID"}
    settings: config.File = data_settings(path=path, **({"context": 2} | columns | chosen))
    return settings


def before(settings: config.Data) -> dict[str, tuple[str, ...]]:
    rows = sources.read_corpus(settings).splits["whole"]
    assert rows.before is not None
    return dict(zip(rows.texts, rows.before, strict=True))


# -------------------------------------------------------------------------------------------------------------- reading


def test_turns_are_those_before_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert before(meld(tmp_path / "a.csv")) == {
        "b1": ("b0",), "a10": ("a2", "a9"), "a2": (), "b0": (), "a9": ("a2",)
    }  # fmt: skip
    assert before(meld(tmp_path / "a.csv", context=1))["a10"] == ("a9",)


def test_times_order_turns_too_and_without_a_column_the_rows_do(tmp_path: Path) -> None:
    times = [
        ["x", "joy", "1", "2024-05-01 09:30"],
        ["y", "joy", "1", "2024-04-30T23:59:10"],
        ["z", "anger", "1", "2024-05-02"],
    ]
    assert before(meld(tmp_path / "t.csv", times))["z"] == ("y", "x")
    assert before(meld(tmp_path / "a.csv", turn=None))["a9"] == ("a10", "a2")


def test_turns_may_be_columns(tmp_path: Path) -> None:
    rows = [
        ["id", "turn1", "turn2", "turn3", "label"],
        ["1", "hi", "hello", "sad", "anger"],
        ["2", "", "x", "ok", "joy"],
    ]
    settings = data_settings(
        path=write_csv(tmp_path / "s.csv", rows),
        text="turn3",
        labels_column="label",
        context_columns=["turn1", "turn2"],
    )
    rows_ = sources.read_corpus(settings).splits["whole"]
    assert rows_.before == [("hi", "hello"), ("", "x")] and rows_.conversations is None
    assert Context(2, None, None, ["turn1", "turn2"]).before(rows_.inputs[1]) == ["x"]  # an empty cell is no turn


def test_columns_of_conversations_are_no_labels(tmp_path: Path) -> None:
    rows = [["text", "joy", "talk", "turn"], *([f"t{i}", i % 2, i // 6 % 2, i % 6] for i in range(12))]
    settings = data_settings(path=write_csv(tmp_path / "b.csv", rows), context=1, conversation="talk", turn="turn")
    assert sources.read_corpus(settings).labels == ["joy"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["c", "joy", "", "1"], "row 6, column Dialogue_ID: no conversation; each row needs one"),
        (["c", "joy", "0", " "], "row 6, column Utterance_ID: no place in its conversation"),
        (["c", "joy", "0", "two"], "row 6, column Utterance_ID: 'two' where others have numbers or times"),
        (["c", "joy", "0", "9.0"], "row 6, column Utterance_ID: the conversation 0 has this place in row 5 too"),
    ],
)
def test_what_is_missing_or_repeated_is_named(tmp_path: Path, row: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read_corpus(meld(tmp_path / "a.csv", [*TALK, row]))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"conversation": "Dialog_ID"}, r"no column Dialog_ID, .*Name it: data.conversation=Dialogue_ID"),
        ({"turn": "time"}, r"no column time, .*data.turn="),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, chosen: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read_corpus(meld(tmp_path / "a.csv", **chosen))


def test_new_files_are_read_with_the_columns_of_the_run_or_other_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "new.csv", [["text", "d", "u"], ["b", "1", "2"], ["a", "1", "1"]])
    settings = dataclasses.replace(text_columns(), conversation="d", turn="u")
    found = tables.read_texts(files.source(path), settings, context=CONTEXT)
    assert list(found) == [("1", ("a", "b")), ("2", "a")]
    with pytest.raises(UserError, match="new.csv has no column Dialogue_ID"):
        tables.read_texts(files.source(path), text_columns(), context=CONTEXT)
    with pytest.raises(UserError, match="data.context_columns: this run reads turns from rows"):
        CONTEXT.named(dataclasses.replace(text_columns(), context_columns=["x"]))


def test_labelled_files_of_an_evaluation_get_the_context_of_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = data_settings(path=tmp_path / "a.csv", turn="place")
    found = with_context(other, CONTEXT)
    assert isinstance(found, config.File)
    assert (found.context, found.conversation, found.turn) == (2, "Dialogue_ID", "place")
    assert with_context(data_settings("sample"), CONTEXT) == data_settings("sample")
    assert "reads a text with the 2 turns before it, which this data has not" in caplog.text


# --------------------------------------------------------------------------------------------------------------- splits


def long_talks() -> list[list[str]]:
    random = np.random.default_rng(0)
    rows = [
        [random.choice(["Okay.", "Yes.", f"text {talk} {turn}"]), random.choice(["joy", "anger"]), str(talk), str(turn)]
        for talk in range(60)
        for turn in range(random.integers(1, 8))
    ]
    random.shuffle(rows)  # type: ignore[arg-type]
    return rows


@pytest.mark.parametrize("folds", [None, 4])
def test_no_split_cuts_a_conversation(tmp_path: Path, folds: int | None) -> None:
    settings = meld(tmp_path / "a.csv", long_talks(), folds=folds, fold=folds and 2, test_share=0.2)
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    held = {name: set(rows.conversations or []) for name, rows in corpus.splits.items()}
    assert all(held.values()) and len(held) == 3
    assert sum(map(len, held.values())) == len(set.union(*held.values())) == 60


def test_a_column_of_splits_that_cuts_conversations_is_told_and_turns_are_read_across_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [["a", "joy", "0", "0", "train"], ["b", "joy", "0", "1", "dev"], ["c", "anger", "1", "0", "train"]]
    rows = [[*MELD, "split"], *turns, ["d", "anger", "2", "0", "test"]]
    settings = dataclasses.replace(meld(tmp_path / "x.csv"), path=str(write_csv(tmp_path / "a.csv", rows)))
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    assert corpus.splits["validation"].before == [("a",)]
    assert "1 conversation stands in both train and validation, such as 0" in caplog.text


def test_files_may_count_their_conversations_anew_but_not_go_on_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_csv(tmp_path / "train.csv", [MELD, *TALK])
    write_csv(tmp_path / "dev.csv", [MELD, ["x", "joy", "0", "2"], ["y", "anger", "1", "0"]])
    settings = dataclasses.replace(
        meld(tmp_path / "x.csv"), path=None, train=str(tmp_path / "train.csv"), validation=str(tmp_path / "dev.csv")
    )
    corpus = sources.split_corpus(sources.read_corpus(settings), settings)
    assert corpus.splits["validation"].before == [(), ()]
    assert "conversation" not in caplog.text
    write_csv(tmp_path / "dev.csv", [MELD, ["x", "joy", "0", "11"], ["y", "anger", "1", "0"]])
    sources.split_corpus(sources.read_corpus(settings), settings)
    assert "1 conversation stands in both train and validation, such as 0" in caplog.text


def test_the_same_words_behind_other_turns_are_no_leak(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ["Okay.", "joy", "0", "1"],
        ["Go!", "joy", "0", "0"],
        ["Okay.", "anger", "1", "1"],
        ["No.", "joy", "1", "0"],
    ]
    settings = meld(tmp_path / "a.csv", rows)
    whole = sources.read_corpus(settings).splits["whole"]
    corpus = Corpus(["anger", "joy"], {"train": whole.take([0, 1]), "validation": whole.take([2, 3])})  # type: ignore[arg-type]
    sources.split_corpus(corpus, settings)
    assert "stand in train too" not in caplog.text
    assert whole.sha256() != dataclasses.replace(whole, before=None).sha256()


# -------------------------------------------------------------------------------------------------------------- joining


def read(text: Any, tokenizer: Any, limit: int, **chosen: Any) -> tuple[list[int], Template, Context]:
    settings = data_settings(path="x.csv", context=2, conversation="d", turn="u", max_tokens=limit, **chosen)
    template, context = read_template(settings, ["joy"], tokenizer), read_context(settings, tokenizer)
    assert template is not None and context is not None
    own = read_long_texts(settings, around=template.length)
    assert isinstance(own, LongTexts)
    tokens = tokenize([text], tokenizer, max_tokens=limit, template=template, long_texts=own, context=context)
    return tokens[0].tolist(), template, context


def ids(text: str, tokenizer: Any) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_turns_stand_before_the_text_with_separators_between(tokenizer: Any) -> None:
    found, template, context = read(("zero", "one", "two", "three"), tokenizer, 64)
    newline = ids("a\n", tokenizer)[len(ids("a", tokenizer)) :]
    assert context.separator == newline  # the bundled tokenizer, of a decoder, has no separator token
    assert found == [*template.before, *ids("one", tokenizer), *newline, *ids("two", tokenizer), *newline,
                     *ids("three", tokenizer)]  # fmt: skip
    assert read("three", tokenizer, 64)[0] == tokenizer("three")["input_ids"]


def test_a_separator_token_or_one_of_the_user_s_own_is_taken(tokenizer: Any) -> None:
    import copy

    with_token = copy.deepcopy(tokenizer)
    with_token.sep_token = "<eos>"
    assert read(("a", "b"), with_token, 64)[2].separator == [tokenizer.eos_token_id]
    assert read(("a", "b"), tokenizer, 64, context_separator=" | ")[2].separator == ids("a | ", tokenizer)[1:]


def test_the_oldest_turns_are_cut_first_and_the_text_last(tokenizer: Any) -> None:
    text = "so happy that we won"
    own = ids(text, tokenizer)
    for limit in range(len(own) + 1, len(own) + 12):
        found, template, context = read(("the first of them", "and another one", text), tokenizer, limit)
        assert len(found) <= limit and found[-len(own) :] == own
        whole = [*ids("the first of them", tokenizer), *context.separator, *ids("and another one", tokenizer),
                 *context.separator, *own]  # fmt: skip
        kept = found[len(template.before) :]
        assert kept == whole[len(whole) - len(kept) :]
        assert len(kept) == min(limit - 1, len(whole)) or kept == own
    found, template, _ = read(("before", "word " * 40), tokenizer, 16)
    assert found == tokenizer("word " * 40, truncation=True, max_length=16)["input_ids"]


def test_with_a_template_text_stands_with_its_turns_in_its_place(tokenizer: Any) -> None:
    found, template, context = read(("one", "two"), tokenizer, 64, template="Talk: {text}\nFeels:")
    assert found == template.around([*ids(" one", tokenizer), *context.separator, *ids(" two", tokenizer)])


def test_long_texts_are_read_in_pieces_without_turns(tokenizer: Any) -> None:
    settings = data_settings(
        path="x.csv", context=2, conversation="d", turn="u", max_tokens=16, long_texts="windows", max_windows=4
    )
    rows = Rows(["1", "2"], ["word " * 30, "short"], np.ones((2, 1), np.float32), before=[("a",), ("b",)])
    data = EmotionData(settings, Corpus(["joy"], {"train": rows, "validation": rows}), tokenizer=tokenizer, seed=0)
    tokens = data._datasets["train"].tokens
    assert tokens.counts is not None and tokens.counts.tolist() == [3, 1]
    assert data.context is not None
    assert tokens[1].tolist()[1:] == [*ids("b", tokenizer), *data.context.separator, *ids("short", tokenizer)]


def test_what_is_stored_is_read_again() -> None:
    assert Context.from_plain(CONTEXT.plain()) == CONTEXT
    for damage in ({"turns": 0}, {"separator": ["x"]}, {"conversation": None}, {"columns": ["a"]}, {"other": 1}):
        with pytest.raises((TypeError, ValueError)):
            Context.from_plain(CONTEXT.plain() | damage)


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.context=2"], "data.context=2 needs data.conversation=COLUMN"),
        (["data.turn=t"], "data.turn is for data.context=N"),
        (["data.context=1", "data.conversation=c", "data.context_columns=[a]"], "give one"),
        (["data.context_columns=[]"], "names no column"),
        (["data.context=1", "data.conversation=c", "data.aggregate=majority"], "data.aggregate=majority joins rows"),
        (
            ["data.context=1", "data.conversation=c", "distill.answers=a.csv", "loss=bce"],
            "distill.answers goes by texts",
        ),
    ],
)
def test_wrong_settings_are_refused(settings: Callable[..., Any], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings("data=file", "data.path=x.csv", *overrides)


# ----------------------------------------------------------------------------------------------------------- prediction


@pytest.fixture(scope="module")
def talker() -> Any:
    """The bundled classifier, as if it had been trained on conversations."""
    from emotion_lightning import load

    run: Any = load(accelerator="cpu")
    around = Template("{text}", [run.tokenizer.bos_token_id], "", [])
    own = LongTexts(config.LongTexts.cut_end, 0, 8, config.JoinWindows.maximum)
    run.metadata = dataclasses.replace(run.metadata, template=around, long_texts=own, context=CONTEXT)
    return run


def test_predict_takes_turns_from_lists_and_from_tables(talker: Any) -> None:
    import pandas

    texts, turns = ["Okay.", "Okay."], [["I love this!"], ["I hate this!"]]
    first, second = talker.predict(texts, context=turns)
    assert first.probabilities != second.probabilities
    alone, none = talker.predict([texts[0]])[0], talker.predict(texts, context=[[], []])[0]
    assert alone.probabilities == pytest.approx(none.probabilities, abs=1e-2) != pytest.approx(first.probabilities)
    frame = pandas.DataFrame(
        {
            "text": ["Okay.", "I love this!", "I hate this!", "Okay."],
            "Dialogue_ID": [1, 1, 2, 2],
            "Utterance_ID": [1, 0, 0, 1],
        }
    )
    found = talker.predict(frame)
    for row, answer in ((0, first), (3, second)):
        np.testing.assert_allclose(
            found.iloc[row][[f"p_{name}" for name in answer.probabilities]].tolist(),
            list(answer.probabilities.values()),
            atol=1e-2,
        )
    with pytest.raises(UserError, match="The DataFrame has no column Utterance_ID, from which this run takes"):
        talker.predict(frame.drop(columns="Utterance_ID"))
    with pytest.raises(UserError, match="has turns for 1 texts, but there are 2"):
        talker.predict(texts, context=[[]])
    with pytest.raises(UserError, match="number 1 is none"):
        talker.predict(texts, context=[[], "x"])


def test_context_is_for_runs_that_have_one() -> None:
    from emotion_lightning import load

    with pytest.raises(UserError, match="this one was trained on texts that stand alone"):
        load(accelerator="cpu").predict(["a"], context=[["b"]])


def test_members_of_an_ensemble_take_as_many_turns_as_one_of_them(talker: Any) -> None:
    from emotion_lightning.inference import ensemble

    card = talker.metadata
    more = dataclasses.replace(card, context=dataclasses.replace(CONTEXT, turns=5))
    alone = dataclasses.replace(card, context=None)
    shared = ensemble._shared_context([alone, card, more])
    assert shared is not None and shared.turns == 5 and ensemble._shared_context([alone]) is None
    other = dataclasses.replace(card, context=Context(2, "d", None, None, [7]))
    with pytest.raises(UserError, match="from different columns, Dialogue_ID, Utterance_ID and d"):
        ensemble._shared_context([card, other])


def test_rows_keep_their_turns_when_they_are_taken_and_joined(caplog: pytest.LogCaptureFixture) -> None:
    from emotion_lightning.data.splitting import joined

    caplog.set_level(logging.INFO)
    rows = Rows(["1", "2"], ["a", "b"], None, before=[(), ("a",)], conversations=["0", "0"])
    assert rows.take(range(1, 2)).inputs == [("a", "b")]
    both = joined([rows, rows])
    assert both.before == [(), ("a",), (), ("a",)] and both.conversations == ["1-0", "1-0", "2-0", "2-0"]
    assert joined([rows, dataclasses.replace(rows, before=None)]).before is None
