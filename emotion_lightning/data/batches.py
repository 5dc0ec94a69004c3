"""Tokens, and batches of texts of similar length.

Emotion texts are short and uneven: in random batches of 32 half of what is computed is padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from emotion_lightning import config
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.labels import Targets

WINDOW = 128
"""Batches whose texts are sorted by length together in evaluation."""

TRAIN_WINDOW = 16
"""The same in training. More would save padding, but the same rows would meet in a batch epoch after epoch."""

_TEXTS_AT_ONCE = 1000


@dataclass
class Tokens:
    """Token ids of many texts in one array; text i is `ids[starts[i]:starts[i + 1]]`."""

    ids: np.ndarray
    starts: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens in each text."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, text: int) -> np.ndarray:
        return self.ids[self.starts[text] : self.starts[text + 1]]


def tokenize(
    texts: Sequence[str], tokenizer: Any, *, max_tokens: int | None, clean: Sequence[config.CleaningStep] = ()
) -> Tokens:
    """Clean and tokenize with special tokens, cut to `max_tokens`; None does not cut."""
    cleaned = cleaner(clean)
    cut = {"truncation": True, "max_length": max_tokens} if max_tokens is not None else {"truncation": False}
    pieces = [np.zeros(0, np.int32)]
    lengths = [np.zeros(1, np.int64)]
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = [cleaned(text) for text in texts[start : start + _TEXTS_AT_ONCE]]
        ids = tokenizer(some, return_attention_mask=False, return_token_type_ids=False, verbose=False, **cut)[
            "input_ids"
        ]
        lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
        pieces.append(np.fromiter(chain.from_iterable(ids), np.int32))
    return Tokens(ids=np.concatenate(pieces), starts=np.cumsum(np.concatenate(lengths)))


class EmotionRows(Dataset[int]):
    """Row numbers of tokenized texts; `Collate` turns some of them into a batch."""

    def __init__(self, tokens: Tokens, targets: Targets | None) -> None:
        self.tokens = tokens
        self.targets = targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row


@dataclass
class Collate:
    """Pads rows to the longest among them.

    A batch holds `input_ids` and `attention_mask`, [batch, token], int64, padded on the right; `rows`, [batch]; and,
    where the texts are labelled, `targets`, [batch, label], float32.
    """

    dataset: EmotionRows
    pad_token_id: int

    def __call__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these rows."""
        tokens = self.dataset.tokens
        numbers = np.asarray(rows)
        lengths = tokens.lengths[numbers]
        present = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(present.shape, self.pad_token_id, dtype=np.int64)
        ids[present] = np.concatenate([tokens[row] for row in numbers])
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(present.astype(np.int64)),
            "rows": torch.from_numpy(numbers.astype(np.int64)),
        }
        if self.dataset.targets is not None:
            batch["targets"] = torch.from_numpy(self.dataset.targets[numbers])
        return batch


class ShuffledByLength(Sampler[list[int]]):
    """Training batches: shuffled rows, sorted by length within windows, the batches shuffled again.

    The order of an epoch depends on the seed and the epoch alone, so that a resumed run goes on with the rows that the
    interrupted one had not seen. Every process gets the same number of batches.

    Args:
        lengths: tokens in each row.
        batch_size: rows in a batch.
        seed: of the order.
        process: number of this process.
        processes: how many share the rows.
    """

    def __init__(
        self, lengths: np.ndarray, *, batch_size: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0
        self.skip = 0
        """Batches of the coming epoch that an interrupted run has trained on."""

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.processes))

    @property
    def sampler(self) -> "ShuffledByLength":
        """Itself: Lightning tells the epoch to the sampler inside a batch sampler, never to the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def batches(self) -> list[list[int]]:
        """This process's batches of the epoch."""
        order = np.random.default_rng((self.seed, self.epoch))
        rows = order.permutation(len(self.lengths))
        shared = self.batch_size * self.processes
        window = shared * TRAIN_WINDOW
        rows = np.concatenate(
            [
                part[np.argsort(self.lengths[part], kind="stable")]
                for part in (rows[start : start + window] for start in range(0, len(rows), window))
            ]
        )
        # Processes that run side by side share a batch of neighbours, so that none waits for a longer one.
        groups = [rows[start : start + shared] for start in range(0, len(rows), shared)]
        order.shuffle(groups)
        taken = (group[self.process :: self.processes] for group in groups)
        # A last group smaller than the number of processes leaves some without a row; they take its first.
        return [(rows if len(rows) else group[:1]).tolist() for rows, group in zip(taken, groups, strict=True)]

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        yield from self.batches()[skip:]


class SortedByLength(Sampler[list[int]]):
    """Evaluation batches: every row once, longest first within windows, the same at every call.

    Args:
        lengths: tokens in each row.
        batch_size: rows in a batch.
        process: number of this process.
        processes: how many share the rows. Where batches do not divide, the last ones get a batch a second time, which
            `metrics.Outcomes` counts once.
    """

    def __init__(self, lengths: np.ndarray, *, batch_size: int, process: int = 0, processes: int = 1) -> None:
        batches = by_length(lengths, batch_size=batch_size)
        missing = -len(batches) % processes
        self._batches = (batches + batches[:1] * missing)[process::processes]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def by_length(lengths: np.ndarray, *, batch_size: int) -> list[list[int]]:
    """Row numbers in batches, longest first within windows, so that too little memory shows at once.

    >>> by_length(np.array([3, 9, 5]), batch_size=2)
    [[1, 2], [0]]
    """
    batches = []
    for start in range(0, len(lengths), batch_size * WINDOW):
        window = np.arange(start, min(start + batch_size * WINDOW, len(lengths)))
        ordered = window[np.argsort(-lengths[window], kind="stable")]
        batches += [ordered[i : i + batch_size].tolist() for i in range(0, len(ordered), batch_size)]
    return batches
