"""Tokenization, and batches of texts of similar length.

Emotion texts are short and vary in length: in random batches of 32, half of the computation is padding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from emotion_lightning import config
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.data.conversations import Context
from emotion_lightning.data.labels import Targets
from emotion_lightning.data.long_texts import LongTexts
from emotion_lightning.data.rows import Text, without_context
from emotion_lightning.data.template import Template
from emotion_lightning.errors import UserError

Batch = dict[str, Any]
"""Tensors by name, and a few plain numbers; see `Collate`."""

WINDOW = 128
"""In evaluation, the texts of this many batches are sorted by length together."""

_TEXTS_AT_ONCE = 1000


@dataclass
class Tokens:
    """Token ids of many texts in one array; piece i is `ids[starts[i]:starts[i + 1]]`.

    Attributes:
        ids: token ids of all pieces.
        starts: where each piece starts in `ids`, and where the last one ends, [piece + 1].
        firsts: number of the first piece of each text, and the number of pieces, [text + 1]; None if every text is one
            piece.
    """

    ids: np.ndarray
    starts: np.ndarray
    firsts: np.ndarray | None = None

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text, [text]; of one in several pieces, of its longest piece."""
        of_pieces = np.diff(self.starts)
        if self.firsts is None or not len(self):
            return of_pieces
        return np.maximum.reduceat(of_pieces, self.firsts[:-1])

    @cached_property
    def counts(self) -> np.ndarray | None:
        """Number of pieces of each text, [text]; None if every text is one piece."""
        return None if self.firsts is None else np.diff(self.firsts)

    def by_piece(self) -> "Tokens":
        """The same tokens, with each piece as a text of its own."""
        return self if self.firsts is None else Tokens(self.ids, self.starts)

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Return the tokens of several lists of texts, all of one network, as those of one list."""
        firsts = [part.counts for part in parts if part.counts is not None]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            starts=_ends(np.diff(part.starts) for part in parts),
            firsts=_ends(firsts) if firsts else None,
        )

    def __len__(self) -> int:
        return len(self.starts if self.firsts is None else self.firsts) - 1

    def __getitem__(self, text: int) -> np.ndarray:
        """All token ids of a text, one piece after the other."""
        first, after = (text, text + 1) if self.firsts is None else self.firsts[text : text + 2]
        return self.ids[self.starts[first] : self.starts[after]]


def _ends(lengths: Iterable[np.ndarray]) -> np.ndarray:
    """Where parts of these lengths end in a row of all of them, after a 0 for the start of the first."""
    return np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))


def tokenize(
    texts: Sequence[Text],
    tokenizer: Any,
    *,
    max_tokens: int | None,
    clean: Sequence[config.CleaningStep] = (),
    template: Template | None = None,
    long_texts: LongTexts | None = None,
    context: Context | None = None,
) -> Tokens:
    """Clean and tokenize texts, with special tokens, up to `max_tokens` (None: not truncated).

    With a template, only the text is truncated. Names of special tokens in a text are then plain characters, so that no
    text can end the part that is its own.

    Args:
        texts: the texts, those of a conversation with the turns before them.
        tokenizer: of the network.
        max_tokens: maximum number of tokens of a piece, with those of the template.
        clean: cleaning steps.
        template: what stands around every piece; needed with `long_texts`.
        long_texts: what becomes of texts that are too long; None: the tokenizer truncates them.
        context: how the turns before a text are joined to it, needed with `template` and `long_texts`; None: they are
            left out.

    Raises:
        UserError: a text cannot be encoded in UTF-8.
    """
    cleaned = cleaner(clean)
    options = encoding_options(max_tokens if long_texts is None else None, template)
    pieces = [np.zeros(0, np.int32)]
    lengths = [np.zeros(1, np.int64)]
    counts = [np.zeros(1, np.int64)]

    def encoded(some: list[str], first: int) -> list[list[int]]:
        try:
            given = some if template is None else [template.space + text for text in some]
            found: list[list[int]] = tokenizer(
                given, return_attention_mask=False, return_token_type_ids=False, verbose=False, **options
            )["input_ids"]
            return found
        except TypeError as error:  # raised by the tokenizer for a lone surrogate, which UTF-8 cannot encode
            for number, text in enumerate(some, start=first):
                if not isinstance(text, str) or text != text.encode(errors="replace").decode():
                    raise UserError(f"Text {number} is {ascii(text)[:60]}, which is no text in UTF-8.") from error
            raise

    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[start : start + _TEXTS_AT_ONCE]
        ids = encoded([cleaned(without_context(text)) for text in some], start + 1)
        if context is not None and template is not None:
            earlier = [[cleaned(turn) for turn in context.before(text)] for text in some]
            flat = iter(encoded(turns, start + 1) if (turns := list(chain.from_iterable(earlier))) else [])
            room = None if max_tokens is None else max_tokens - template.length
            ids = [
                context.joined(list(islice(flat, len(turns))), own, room)
                for turns, own in zip(earlier, ids, strict=True)
            ]
        if long_texts is not None and template is not None and max_tokens is not None:
            parts = [long_texts.pieces(own, max_tokens - template.length) for own in ids]
            counts.append(np.fromiter(map(len, parts), np.int64, len(parts)))
            ids = list(chain.from_iterable(parts))
        if template is not None:
            ids = [template.around(own) for own in ids]
        lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
        pieces.append(np.fromiter(chain.from_iterable(ids), np.int32))
    firsts = np.cumsum(np.concatenate(counts)) if long_texts is not None and long_texts.in_pieces else None
    return Tokens(ids=np.concatenate(pieces), starts=np.cumsum(np.concatenate(lengths)), firsts=firsts)


def whole_lengths(
    texts: Sequence[Text],
    tokens: Tokens,
    tokenizer: Any,
    *,
    max_tokens: int,
    clean: Sequence[config.CleaningStep] = (),
    template: Template | None = None,
    context: Context | None = None,
) -> np.ndarray:
    """Return the number of tokens of each text before anything was cut from it, [text].

    Only texts that fill `max_tokens` are tokenized again.

    Args:
        texts: the texts.
        tokens: what `tokenize` returned for them with these settings.
        tokenizer: of the network.
        max_tokens: as of `tokenize`.
        clean: as of `tokenize`.
        template: as of `tokenize`.
        context: as of `tokenize`.
    """
    found = tokens.lengths.astype(np.int64)
    full = np.flatnonzero(found >= max_tokens)
    if len(full):
        again = tokenize(
            [texts[i] for i in full.tolist()],
            tokenizer,
            max_tokens=None,
            clean=clean,
            template=template,
            context=context,
        )
        found[full] = again.lengths
    return found


def encoding_options(max_tokens: int | None, template: Template | None) -> dict[str, Any]:
    """Return the arguments with which a tokenizer reads texts that stand in a template, or by themselves."""
    options: dict[str, Any] = {"truncation": False}
    if max_tokens is not None:
        options = {"truncation": True, "max_length": max_tokens - (template.length if template else 0)}
    if template is not None:
        options |= {"add_special_tokens": False, "split_special_tokens": True}
    return options


class EmotionRows(Dataset[int]):
    """Dataset of row numbers of tokenized texts; `Collate` turns row numbers into a batch."""

    def __init__(self, tokens: Tokens, targets: Targets | None) -> None:
        self.tokens = tokens
        self.targets = targets
        self.states: Callable[[np.ndarray], torch.Tensor] | None = None
        """Gives the states of rows inside the network, from which it starts; see `states.RowStates`."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row


@dataclass
class Collate:
    """Turns row numbers into a batch, padded to its longest text.

    A batch holds `input_ids`, [batch, token], int64, padded on the right; `attention_mask`, of the same shape, only if
    a text is padded; `rows`, [batch], the row numbers; `tokens`, the number of tokens without padding, an int; if the
    texts are labelled, `targets`, [batch, label], float32, NaN where a label is left open; and, if the network starts
    from states inside itself, `states`, [batch, token, hidden] or [batch, hidden].

    If a text of the batch has several pieces, `input_ids` and `attention_mask` have a row for each piece, and `pieces`
    is the number of pieces of each text, a list.

    If batches differ in size, `weight` is the number of rows of the batch divided by the mean, so that each row has the
    same weight in the loss.

    Args:
        dataset: dataset of the rows.
        pad_token_id: padding token of the tokenizer.
        mean_rows: mean number of rows of a batch; only in training with a token budget.
    """

    dataset: EmotionRows
    pad_token_id: int
    mean_rows: float | None = None

    def __call__(self, rows: Sequence[int]) -> Batch:
        """Make the batch of these rows."""
        tokens = self.dataset.tokens
        numbers = np.asarray(rows)
        pieces, counts = numbers, None
        if tokens.firsts is not None and tokens.counts is not None:
            counts = tokens.counts[numbers]
            pieces = np.concatenate([np.arange(*tokens.firsts[text : text + 2]) for text in numbers])
        batch = padded(tokens.by_piece(), pieces, self.pad_token_id)
        batch["rows"] = torch.from_numpy(numbers.astype(np.int64))
        if counts is not None and len(pieces) > len(numbers):
            batch["pieces"] = counts.tolist()
        if self.dataset.states is not None:
            batch["states"] = self.dataset.states(numbers)
        if self.dataset.targets is not None:
            batch["targets"] = torch.from_numpy(self.dataset.targets[numbers])
        if self.mean_rows is not None:
            batch["weight"] = len(numbers) / self.mean_rows
        return batch


def padded(tokens: Tokens, numbers: np.ndarray, pad_token_id: int) -> Batch:
    """The part of a batch that depends on tokens alone, as `Collate` describes it.

    Args:
        tokens: of many texts.
        numbers: those of the texts in the batch.
        pad_token_id: padding token of the tokenizer.
    """
    lengths = tokens.lengths[numbers]
    ends = np.cumsum(lengths)
    # Position of each token in its text, and then in the array of all tokens, without a Python loop over texts.
    places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    flat = tokens.ids[np.repeat(tokens.starts[numbers], lengths) + places].astype(np.int64)
    batch: Batch = {"rows": torch.from_numpy(numbers.astype(np.int64)), "tokens": len(flat)}
    present = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(present.shape, pad_token_id, dtype=np.int64)
    ids[present] = flat
    batch["input_ids"] = torch.from_numpy(ids)
    if not present.all():
        batch["attention_mask"] = torch.from_numpy(present.astype(np.int64))
    return batch


class ShuffledByLength(Sampler[list[int]]):
    """Training batches: rows are shuffled and sorted by length within windows, then the batches are shuffled.

    The order of an epoch depends only on the seed and the epoch, so that a resumed run continues with the rows that the
    interrupted run had not seen. All processes and all epochs have the same number of batches.

    Args:
        lengths: number of tokens of each row; of one in several pieces, of its longest piece.
        pieces: number of pieces of each row; None if each is one piece.
        batch_size: number of rows in a batch.
        batch_tokens: maximum number of tokens in a batch, padding included; replaces `batch_size`.
        window: the rows of this many batches are sorted by length together; 1 gives random batches.
        seed: seed of the order.
        process: rank of this process.
        processes: number of processes that share the rows.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        pieces: np.ndarray | None = None,
        batch_size: int,
        batch_tokens: int | None = None,
        window: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.lengths = lengths
        self.pieces = pieces
        self.sizes = lengths if pieces is None else lengths * pieces
        """Number of tokens of each row, over all its pieces."""
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.window = window
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0
        self.skip = 0
        """Number of batches of the next epoch to skip, because the interrupted run has trained on them."""
        self._steps: int | None = None
        if batch_tokens is not None:
            # The number of batches varies a little with the order of rows. With 1 % more than the first epoch needs,
            # all epochs can have the same number.
            cut = len(self._cut_by_tokens(self._shuffled(np.random.default_rng((seed, 0))), batch_tokens))
            self._steps = -(-int(1.01 * cut) // processes)

    def __len__(self) -> int:
        if self._steps is not None:
            return self._steps
        return -(-len(self.lengths) // (self.batch_size * self.processes))

    @property
    def mean_rows(self) -> float | None:
        """Mean number of rows of a batch, if batches differ in size; otherwise None."""
        return None if self._steps is None else len(self.lengths) / (self._steps * self.processes)

    @property
    def sampler(self) -> "ShuffledByLength":
        """Itself: Lightning calls `set_epoch` on the `sampler` of a batch sampler, not on the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def batches(self) -> list[list[int]]:
        """Batches of this process in the current epoch."""
        order = np.random.default_rng((self.seed, self.epoch))
        windows = self._shuffled(order)
        if self.batch_tokens is not None:
            return self._by_tokens(windows, order)
        rows = np.concatenate(windows)
        shared = self.batch_size * self.processes
        # In each step, all processes take rows of similar length, so that none waits for longer texts.
        groups = [rows[start : start + shared] for start in range(0, len(rows), shared)]
        order.shuffle(groups)
        taken = (group[self.process :: self.processes] for group in groups)
        # The last group may have fewer rows than there are processes; those without a row take its first row.
        return [(rows if len(rows) else group[:1]).tolist() for rows, group in zip(taken, groups, strict=True)]

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        yield from self.batches()[skip:]

    def _shuffled(self, order: np.random.Generator) -> list[np.ndarray]:
        """All rows in random order, split into windows that are sorted by length."""
        rows = order.permutation(len(self.lengths))
        size = self.batch_size
        if self.batch_tokens is not None:
            size = max(1, int(self.batch_tokens / self.sizes.mean()))
        window = size * self.processes * self.window
        parts = (rows[start : start + window] for start in range(0, len(rows), window))
        return [part[np.argsort(self.sizes[part], kind="stable")] for part in parts]

    def _cut_by_tokens(self, windows: list[np.ndarray], budget: float) -> list[np.ndarray]:
        longest_first = (window[::-1] for window in windows)
        return [
            rows[start:stop]
            for rows in longest_first
            for start, stop in _token_cuts(
                self.lengths[rows], budget, pieces=None if self.pieces is None else self.pieces[rows]
            )
        ]

    def _by_tokens(self, windows: list[np.ndarray], order: np.random.Generator) -> list[list[int]]:
        assert self._steps is not None and self.batch_tokens is not None
        wanted, budget = self._steps * self.processes, float(self.batch_tokens)
        while len(batches := self._cut_by_tokens(windows, budget)) > wanted:
            budget *= 1.005
        while missing := wanted - len(batches):
            # Halve the batches with the most tokens. A batch of a single row cannot be halved and is repeated.
            tokens = np.array([self.sizes[rows].sum() if len(rows) > 1 else 0 for rows in batches])
            largest = set(np.argsort(-tokens, kind="stable")[:missing].tolist())
            batches = [
                part
                for number, rows in enumerate(batches)
                for part in ((rows[: len(rows) // 2] if len(rows) > 1 else rows, rows[len(rows) // 2 :])
                             if number in largest else (rows,))
            ]  # fmt: skip
        # In each step, the processes take batches of similar length, so that none waits for longer texts.
        batches.sort(key=lambda rows: int(self.sizes[rows].max()))
        steps = [batches[start : start + self.processes] for start in range(0, wanted, self.processes)]
        order.shuffle(steps)
        return [step[self.process].tolist() for step in steps]


class SortedByLength(Sampler[list[int]]):
    """Evaluation batches: every row once, longest first within windows, in the same order every time.

    Args:
        lengths: number of tokens of each row; of one in several pieces, of its longest piece.
        pieces: number of pieces of each row; None if each is one piece.
        batch_size: number of rows in a batch.
        batch_tokens: maximum number of tokens in a batch, padding included; replaces `batch_size`.
        process: rank of this process.
        processes: number of processes that share the rows. If the batches cannot be divided evenly, some processes
            evaluate the first batch again; `metrics.Outcomes` counts its rows once.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        pieces: np.ndarray | None = None,
        batch_size: int,
        batch_tokens: int | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        batches = by_length(lengths, pieces=pieces, batch_size=batch_size, batch_tokens=batch_tokens)
        missing = -len(batches) % processes
        self._batches = (batches + batches[:1] * missing)[process::processes]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def by_length(
    lengths: np.ndarray, *, pieces: np.ndarray | None = None, batch_size: int, batch_tokens: int | None = None
) -> list[list[int]]:
    """Row numbers in batches, longest first within windows, so that lack of memory shows at the first batch.

    Args:
        lengths: number of tokens of each row; of one in several pieces, of its longest piece.
        pieces: number of pieces of each row; None if each is one piece.
        batch_size: number of rows in a batch.
        batch_tokens: maximum number of tokens in a batch, padding included; replaces `batch_size`.

    >>> by_length(np.array([3, 9, 5]), batch_size=2)
    [[1, 2], [0]]
    >>> by_length(np.array([3, 9, 5]), batch_size=2, batch_tokens=10)
    [[1], [2, 0]]
    >>> by_length(np.array([3, 9, 9]), pieces=np.array([1, 1, 3]), batch_size=2, batch_tokens=27)
    [[2], [1, 0]]
    """
    sizes = lengths if pieces is None else lengths * pieces
    batches = []
    for start in range(0, len(lengths), batch_size * WINDOW):
        window = np.arange(start, min(start + batch_size * WINDOW, len(lengths)))
        ordered = window[np.argsort(-sizes[window], kind="stable")]
        if batch_tokens is None:
            batches_: Iterable[tuple[int, int]] = ((i, i + batch_size) for i in range(0, len(ordered), batch_size))
        else:
            batches_ = _token_cuts(lengths[ordered], batch_tokens, pieces=None if pieces is None else pieces[ordered])
        batches += [ordered[start:stop].tolist() for start, stop in batches_]
    return batches


def _token_cuts(lengths: np.ndarray, budget: float, *, pieces: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Start and stop of each batch of rows, longest first, within the token budget; a single row may exceed it."""
    ends = None if pieces is None else np.cumsum(pieces)
    start = 0
    while start < len(lengths):
        # The first is the longest, to which the others are padded.
        most = int(budget // lengths[start])
        if ends is None:
            stop = start + most
        else:
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + most, side="right"))
        stop = min(len(lengths), max(start + 1, stop))
        yield start, stop
        start = stop
