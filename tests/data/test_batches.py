from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from emotion_lightning import config
from emotion_lightning.data.batches import (
    WINDOW,
    Collate,
    EmotionRows,
    ShuffledByLength,
    SortedByLength,
    Tokens,
    tokenize,
)
from emotion_lightning.data.long_texts import LongTexts
from emotion_lightning.data.module import EmotionData
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.template import Template
from emotion_lightning.errors import UserError
from emotion_lightning.models.backbone import BUNDLED

TEXTS = [
    "so happy!",
    "",
    "I can't believe it, we won (again)!",
    "怒り 😀👩‍👩‍👧 \u2028 ärger",
    "  ",
    "word " * 200,
    "NA",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUNDLED)


def tokens_of(*texts: list[int]) -> Tokens:
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    return Tokens(np.concatenate([np.asarray(text, np.int32) for text in texts]), starts)


def skewed(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(2.5, 0.7, count).astype(int) + 2


def padding(lengths: np.ndarray, batches: list[list[int]]) -> float:
    computed = sum(lengths[batch].max() * len(batch) for batch in batches)
    return float(1 - lengths.sum() / computed)


# ------------------------------------------------------------------------------------------------------------- tokenize


@pytest.mark.parametrize("max_tokens", [4, 16, 64])
def test_texts_are_cut_to_max_tokens_as_the_tokenizer_cuts_them(tokenizer: Any, max_tokens: int) -> None:
    tokens = tokenize(TEXTS, tokenizer, max_tokens=max_tokens)
    assert len(tokens) == len(TEXTS)
    assert tokens.lengths.max() == max_tokens
    for i, text in enumerate(TEXTS):
        assert tokens[i].tolist() == tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]


def test_short_texts_are_whole_with_special_tokens(tokenizer: Any) -> None:
    text = tokenize(["so happy!"], tokenizer, max_tokens=64)[0].tolist()
    assert text == tokenizer("so happy!")["input_ids"]
    assert len(text) > len(tokenizer("so happy!", add_special_tokens=False)["input_ids"])


def test_more_texts_than_are_tokenized_at_once_keep_their_order(tokenizer: Any) -> None:
    texts = [f"text number {i}" for i in range(2345)]
    tokens = tokenize(texts, tokenizer, max_tokens=32)
    assert len(tokens) == 2345
    for i in (0, 999, 1000, 1001, 2000, 2344):
        assert tokens[i].tolist() == tokenizer(texts[i])["input_ids"]


def test_lengths_are_those_of_the_texts(tokenizer: Any) -> None:
    tokens = tokenize(TEXTS, tokenizer, max_tokens=64)
    assert tokens.lengths.tolist() == [len(tokens[i]) for i in range(len(TEXTS))]


def test_lists_of_tokens_are_joined_with_the_pieces_of_each_text(tokenizer: Any) -> None:
    own = LongTexts(config.LongTexts.windows, overlap=2, most=4, join=config.JoinWindows.mean)
    template = Template(text="{text}", before=[2], space="", after=[3])
    texts = ["We won!", "so " * 40, "", "Rain again, and " * 5, "No."]

    def read(some: list[str], **options: Any) -> Tokens:
        return tokenize(some, tokenizer, max_tokens=12, **options)

    for options in ({}, {"template": template, "long_texts": own}):
        parts = [read(texts[:2], **options), read([], **options), read(texts[2:], **options)]
        joined, whole = Tokens.joined(parts), read(texts, **options)
        assert len(joined) == 5 and joined.ids.tolist() == whole.ids.tolist()
        assert joined.starts.tolist() == whole.starts.tolist()
        assert (joined.firsts is None) is not bool(options)
        if options:
            assert joined.counts is not None and joined.counts.tolist() == [1, 4, 1, 3, 1]


def test_no_texts_are_no_tokens(tokenizer: Any) -> None:
    assert len(tokenize([], tokenizer, max_tokens=8)) == 0


# -------------------------------------------------------------------------------------------------------------- Collate


def test_a_batch_is_padded_on_the_right_to_its_longest_row() -> None:
    dataset = EmotionRows(tokens_of([5, 6], [7], [8, 9, 10, 11], [12, 13, 14]), None)
    batch = Collate(dataset, pad_token_id=99)([3, 1, 0])
    assert batch["input_ids"].tolist() == [[12, 13, 14], [7, 99, 99], [5, 6, 99]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["rows"].tolist() == [3, 1, 0]
    assert {batch[name].dtype for name in ("input_ids", "attention_mask", "rows")} == {torch.int64}
    assert "targets" not in batch


def test_a_batch_of_one_length_has_no_mask() -> None:
    batch = Collate(EmotionRows(tokens_of([5, 6], [7, 8], [9]), None), pad_token_id=0)([1, 0])
    assert batch["input_ids"].tolist() == [[7, 8], [5, 6]]
    assert "attention_mask" not in batch


def test_a_batch_tells_its_tokens_without_padding() -> None:
    dataset = EmotionRows(tokens_of([5, 6], [7], [8, 9, 10, 11]), None)
    assert Collate(dataset, pad_token_id=99)([2, 0, 1])["tokens"] == 7


def test_a_token_that_equals_the_padding_is_no_padding() -> None:
    batch = Collate(EmotionRows(tokens_of([0, 1, 0], [1]), None), pad_token_id=0)([0, 1])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_targets_are_those_of_the_rows_in_float32() -> None:
    dataset = EmotionRows(tokens_of([1], [2], [3]), np.eye(3, dtype=np.float32))
    batch = Collate(dataset, pad_token_id=0)([2, 0])
    assert batch["targets"].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert batch["targets"].dtype == torch.float32


def test_a_batch_equals_the_tokenizers_own_padding(tokenizer: Any) -> None:
    texts = [text for text in TEXTS if text.strip()]
    batch = Collate(EmotionRows(tokenize(texts, tokenizer, max_tokens=32), None), tokenizer.pad_token_id)(
        list(range(len(texts)))
    )
    own = tokenizer(texts, truncation=True, max_length=32, padding=True, padding_side="right", return_tensors="pt")
    assert torch.equal(batch["input_ids"], own["input_ids"])
    assert torch.equal(batch["attention_mask"], own["attention_mask"])


# ----------------------------------------------------------------------------------------------------- ShuffledByLength


def shuffled(
    lengths: np.ndarray, *, epoch: int = 0, batch_size: int = 8, window: int = 16, seed: int = 0, **process: int
) -> list[list[int]]:
    sampler = ShuffledByLength(lengths, batch_size=batch_size, window=window, seed=seed, **process)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 1000, 8 * WINDOW, 8 * WINDOW + 1, 2500])
def test_training_sees_every_row_once_an_epoch(rows: int) -> None:
    batches = shuffled(skewed(rows))
    assert sorted(sum(batches, [])) == list(range(rows))
    assert sum(len(batch) != 8 for batch in batches) == (rows % 8 > 0)
    assert all(isinstance(row, int) for row in batches[0])


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = skewed(300)
    first = shuffled(lengths, epoch=3)
    np.random.seed(1)
    torch.manual_seed(1)
    sampler = ShuffledByLength(lengths, batch_size=8, window=16, seed=0)
    list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == first
    assert shuffled(lengths, epoch=4) != first
    assert shuffled(lengths, epoch=3, seed=1) != first
    assert shuffled(lengths, epoch=1, seed=0) != shuffled(lengths, epoch=0, seed=1)


def test_batches_hold_other_rows_in_another_epoch() -> None:
    lengths = skewed(3 * 8 * WINDOW)
    together = {frozenset(batch) for batch in shuffled(lengths, epoch=0)}
    assert len(together & {frozenset(batch) for batch in shuffled(lengths, epoch=1)}) <= len(together) / 20


def test_short_texts_do_not_come_before_long_ones() -> None:
    lengths = skewed(800)
    means = [lengths[batch].mean() for batch in shuffled(lengths)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


@pytest.mark.parametrize("done", [0, 1, 10, 37, 38])
def test_a_resumed_epoch_goes_on_behind_the_batches_that_are_done(done: int) -> None:
    lengths = skewed(300)
    sampler = ShuffledByLength(lengths, batch_size=8, window=16, seed=0)
    sampler.epoch, sampler.skip = 2, done
    assert list(sampler) == shuffled(lengths, epoch=2)[done:]
    sampler.set_epoch(3)
    assert list(sampler) == shuffled(lengths, epoch=3), "later epochs are whole again"


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("rows", [1, 2, 300, 301, 305, 320])
def test_processes_share_all_rows_in_equally_many_batches(rows: int, processes: int) -> None:
    lengths = skewed(rows)
    shares = [shuffled(lengths, epoch=1, process=i, processes=processes) for i in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert all(batch for share in shares for batch in share)
    seen = sorted(sum(sum(shares, []), []))
    assert set(seen) == set(range(rows))
    assert len(seen) - rows < processes, "a row stands twice only where a process would have none"


def test_processes_compute_texts_of_like_length_side_by_side() -> None:
    lengths = skewed(2000)
    first, second = (shuffled(lengths, process=i, processes=2) for i in range(2))
    longest = np.array([[lengths[batch].max() for batch in share] for share in (first, second)])
    assert np.abs(longest[0] - longest[1]).mean() < 0.1 * lengths.mean()


def test_neighbours_have_like_lengths_so_that_little_is_padding() -> None:
    lengths = skewed(3000)
    rows = np.random.default_rng(0).permutation(3000)
    at_random = [rows[i : i + 32].tolist() for i in range(0, 3000, 32)]
    assert padding(lengths, at_random) > 0.5
    assert padding(lengths, shuffled(lengths, batch_size=32)) < 0.2


def test_a_wider_window_pads_less_and_one_batch_alone_is_only_shuffled() -> None:
    lengths = skewed(3000)
    shares = [padding(lengths, shuffled(lengths, batch_size=32, window=window)) for window in (1, 4, 16, 64)]
    assert shares[0] > 0.5 and shares == sorted(shares, reverse=True)
    by_tokens = [
        padding(lengths, ShuffledByLength(lengths, batch_size=32, batch_tokens=800, window=w, seed=1).batches())
        for w in (1, 16)
    ]
    assert by_tokens[0] > 0.3 > by_tokens[1]


def test_rows_of_a_batch_part_again_in_the_next_epoch() -> None:
    lengths = skewed(3000)

    def pairs(epoch: int) -> set[tuple[int, int]]:
        sampler = ShuffledByLength(lengths, batch_size=32, window=16, seed=1)
        sampler.set_epoch(epoch)
        return {(a, b) for batch in sampler.batches() for a in batch for b in batch if a < b}

    first, second = pairs(0), pairs(1)
    assert len(first & second) < 0.1 * len(first)


# ------------------------------------------------------------------------------------------------------- SortedByLength


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 500])
def test_evaluation_sees_every_row_once_longest_first(rows: int) -> None:
    lengths = skewed(rows)
    sampler = SortedByLength(lengths, batch_size=8)
    batches = list(sampler)
    assert len(batches) == len(sampler) == -(-rows // 8)
    order = sum(batches, [])
    assert sorted(order) == list(range(rows))
    assert (np.diff(lengths[order]) <= 0).all()
    assert list(sampler) == batches, "the same at every call"


def test_evaluation_sorts_within_windows_only() -> None:
    rows = 2 * WINDOW * 2 + 3
    order = sum(SortedByLength(np.arange(rows), batch_size=2), [])
    assert sorted(order) == list(range(rows))
    assert order[0] == 2 * WINDOW - 1


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("rows", [1, 8, 9, 100, 104])
def test_processes_evaluate_all_rows_in_equally_many_batches(rows: int, processes: int) -> None:
    lengths = skewed(rows)
    shares = [list(SortedByLength(lengths, batch_size=8, process=i, processes=processes)) for i in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert set(sum(sum(shares, []), [])) == set(range(rows))


# ---------------------------------------------------------------------------------------------------------- EmotionData


def rows_of(*texts: str, labelled: bool = True) -> Rows:
    targets = np.tile(np.array([1, 0], np.float32), (len(texts), 1))
    return Rows([str(i) for i in range(len(texts))], list(texts), targets if labelled else None)


@pytest.fixture
def data(tokenizer: Any, settings: Callable[..., Any]) -> Callable[..., EmotionData]:
    batches = settings("data.batch_size=2", "data.max_tokens=8").data

    def build(**splits: Rows) -> EmotionData:
        return EmotionData(batches, Corpus(["joy", "anger"], splits), tokenizer=tokenizer, seed=0)

    return build


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_and_validation_need_labels(data: Callable[..., EmotionData], split: str) -> None:
    splits = {"train": rows_of("a", "b"), "validation": rows_of("c"), split: rows_of("d", labelled=False)}
    with pytest.raises(UserError, match="training split has no labels" if split == "train" else "validation split has"):
        data(**splits)


def test_a_test_split_without_labels_gives_batches_without_targets(data: Callable[..., EmotionData]) -> None:
    module = data(train=rows_of("a", "b"), validation=rows_of("c"), test=rows_of("d", "e", "f", labelled=False))
    batches = list(module.test_dataloader())
    assert sorted(sum((batch["rows"].tolist() for batch in batches), [])) == [0, 1, 2]
    assert all("targets" not in batch for batch in batches)


def test_loaders_give_each_row_once_with_its_tokens_and_labels(
    data: Callable[..., EmotionData], tokenizer: Any
) -> None:
    texts = ["short", "a good deal longer than that", "in between", "so happy!", "no"]
    rows = rows_of(*texts)
    rows.targets = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 1]], np.float32)
    module = data(train=rows, validation=rows)
    assert (module.labels, module.label_counts.tolist(), module.train_rows) == (["joy", "anger"], [2, 3], 5)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        seen = []
        for batch in loader:
            assert batch["input_ids"].shape[0] <= 2
            for i, row in enumerate(batch["rows"].tolist()):
                seen.append(row)
                present = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))[i].bool()
                assert (
                    batch["input_ids"][i][present].tolist()
                    == (tokenizer(texts[row], truncation=True, max_length=8)["input_ids"])
                )
                assert batch["targets"][i].tolist() == rows.targets[row].tolist()
        assert sorted(seen) == [0, 1, 2, 3, 4]


def test_making_batches_leaves_the_global_random_numbers_alone(data: Callable[..., EmotionData]) -> None:
    module = data(train=rows_of("a", "b", "c"), validation=rows_of("d"))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(module.train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


# -------------------------------------------------------------------------------------------------------- token budgets


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 7, 500, 4001])
def test_token_batches_hold_every_row_once_and_are_as_many_in_every_epoch(count: int, processes: int) -> None:
    lengths, budget = skewed(count), 700
    samplers = [
        ShuffledByLength(
            lengths, batch_size=32, batch_tokens=budget, window=16, seed=1, process=process, processes=processes
        )
        for process in range(processes)
    ]
    orders = set()
    for epoch in range(6):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [sampler.batches() for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])}
        rows = [row for share in shares for batch in share for row in batch]
        assert set(rows) == set(range(count))
        # A process without a row of its own takes another's.
        assert len(rows) == count or count < len(samplers[0]) * processes
        largest = max(len(batch) * lengths[batch].max() for share in shares for batch in share)
        assert largest <= max(budget * 1.01, lengths.max())
        assert samplers[0].mean_rows == count / (len(samplers[0]) * processes)
        orders.add(tuple(rows))
    assert len(orders) == 6 or count < 8


def test_token_batches_waste_little_and_neighbours_share_a_step() -> None:
    lengths = skewed(20_000)
    one = ShuffledByLength(lengths, batch_size=32, batch_tokens=1024, window=16, seed=1)
    fixed = ShuffledByLength(lengths, batch_size=64, window=16, seed=1)
    assert padding(lengths, one.batches()) < 0.1 < padding(lengths, fixed.batches())
    assert np.mean([lengths[batch].max() * len(batch) for batch in one.batches()]) > 0.9 * 1024
    two = [
        ShuffledByLength(lengths, batch_size=32, batch_tokens=1024, window=16, seed=1, process=p, processes=2).batches()
        for p in range(2)
    ]
    longest = np.array([[lengths[batch].max() for batch in share] for share in two])
    assert np.abs(longest[0] - longest[1]).mean() < 3


def test_an_interrupted_epoch_of_token_batches_goes_on_where_it_was() -> None:
    lengths = skewed(900)
    sampler = ShuffledByLength(lengths, batch_size=32, batch_tokens=512, window=16, seed=4)
    sampler.set_epoch(3)
    whole = sampler.batches()
    again = ShuffledByLength(lengths, batch_size=32, batch_tokens=512, window=16, seed=4)
    again.epoch, again.skip = 3, 5
    assert list(again) == whole[5:]


def test_rows_of_large_and_of_small_batches_weigh_alike() -> None:
    lengths = skewed(600)
    dataset = EmotionRows(tokens_of(*[[1] * length for length in lengths]), np.zeros((600, 2), np.float32))
    sampler = ShuffledByLength(lengths, batch_size=32, batch_tokens=600, window=16, seed=1)
    collate = Collate(dataset, pad_token_id=0, mean_rows=sampler.mean_rows)
    batches = [collate(rows) for rows in sampler.batches()]
    assert len({len(batch["rows"]) for batch in batches}) > 5
    # A mean over the batch's rows, times the weight: the same share of the epoch for every row.
    shares = {round(batch["weight"] / len(batch["rows"]) * 600 / len(batches), 9) for batch in batches}
    assert shares == {1.0}


def test_evaluation_batches_keep_to_the_token_budget_longest_first() -> None:
    lengths = skewed(5000)
    batches = list(SortedByLength(lengths, batch_size=32, batch_tokens=800))
    assert sorted(row for batch in batches for row in batch) == list(range(5000))
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 800
    assert lengths[batches[0][0]] == lengths[: 32 * WINDOW].max()
