"""States of texts inside a network, kept in memory or in files that runs share.

A state depends on the tokens of its text and on the network alone, so each text is computed once whatever the splits,
folds and batches are. Texts are put in one order, longest first, and computed in batches that depend on this order
alone: the same texts give the same states to the last bit, in every run on the same kind of machine.
"""

import hashlib
import itertools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion_lightning.data.batches import Tokens, by_length, padded
from emotion_lightning.data.formats.files import sha256
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.runs import bounded_files, waiting
from emotion_lightning.runs.files import atomic_write, write_json

log = logging.getLogger(__name__)

BATCH_TOKENS = 4096
"""Tokens of a batch in which states are computed, padding included. Another number changes their last bits."""
_FORMAT = 1
_DTYPES = {torch.float32: np.float32, torch.bfloat16: np.uint16, torch.float16: np.float16}
"""numpy's dtype of the same size; it has no bfloat16."""


@dataclass
class Place:
    """Where states are kept.

    Attributes:
        folder: folder of the files.
        memory: states of up to so many bytes are kept in main memory.
        disk: most bytes of all files in the folder; 0: no files.
    """

    folder: Path
    memory: float
    disk: float


class States:
    """The states of different texts: one for each token, or one for each text.

    Args:
        values: [token, hidden] or [text, hidden], as numpy's dtype of the same size.
        dtype: dtype of the states.
        starts: where the states of each text start, and the end of the last; [text + 1].
        is_pooled: whether a text has one state.
        file: file that `values` is a map of; None if it is in memory.
    """

    def __init__(
        self,
        values: np.ndarray,
        *,
        dtype: torch.dtype,
        starts: np.ndarray,
        is_pooled: bool,
        file: Path | None = None,
    ) -> None:
        self.values = values
        self.dtype = dtype
        self.starts = starts
        self.is_pooled = is_pooled
        self.file = file

    def __getstate__(self) -> dict[str, Any]:
        # A worker of a data loader opens the file itself: pickled, a map would be a copy of the whole file.
        if self.file is None:
            return self.__dict__
        return self.__dict__ | {"values": (self.values.dtype, self.values.shape)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            dtype, shape = state["values"]
            self.values = np.memmap(self.file, dtype=dtype, mode="r", shape=shape)

    def of(self, texts: np.ndarray) -> Tensor:
        """The states of these texts: [text, token, hidden] with zeros as padding, or [text, hidden]."""
        if self.is_pooled:
            return torch.from_numpy(self.values[texts]).view(self.dtype)
        lengths = self.starts[texts + 1] - self.starts[texts]
        found = np.zeros((len(texts), int(lengths.max()), self.values.shape[1]), self.values.dtype)
        for row, (text, length) in enumerate(zip(texts.tolist(), lengths.tolist(), strict=True)):
            start = int(self.starts[text])
            found[row, :length] = self.values[start : start + length]
        return torch.from_numpy(found).view(self.dtype)


@dataclass
class RowStates:
    """The states of the rows of a split.

    Attributes:
        states: of all texts.
        texts: number of the text of each row, [row].
    """

    states: States
    texts: np.ndarray

    def __call__(self, rows: np.ndarray) -> Tensor:
        """The states of these rows, padded as their batch is."""
        return self.states.of(self.texts[rows])


class Texts:
    """The different texts of all splits as tokens, in the order in which their states are kept.

    Args:
        splits: tokens of the texts of each split.
    """

    def __init__(self, splits: dict[str, Tokens]) -> None:
        numbers: dict[bytes, int] = {}
        rows = {
            split: [numbers.setdefault(tokens[row].tobytes(), len(numbers)) for row in range(len(tokens))]
            for split, tokens in splits.items()
        }
        found = list(numbers)
        order = sorted(range(len(found)), key=lambda number: (-len(found[number]), found[number]))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        ids = [np.frombuffer(found[number], np.int32) for number in order]
        starts = np.cumsum([0, *map(len, ids)])
        self.tokens = Tokens(np.concatenate([np.zeros(0, np.int32), *ids]), starts)
        self.of_rows = {split: place[np.asarray(own, np.int64)] for split, own in rows.items()}

    def fingerprint(self) -> str:
        """A hash of the tokens, in this order."""
        total = hashlib.sha256(self.tokens.starts.tobytes())
        total.update(self.tokens.ids.tobytes())
        return total.hexdigest()

    def batches(self) -> list[list[int]]:
        """Numbers of the texts in batches."""
        return by_length(self.tokens.lengths, batch_size=len(self.tokens), batch_tokens=BATCH_TOKENS)


def obtain(
    texts: Texts,
    compute: Callable[[dict[str, Any]], Tensor],
    *,
    network: str,
    is_pooled: bool,
    pad_token_id: int,
    place: Place,
) -> States | None:
    """Read the states of texts from their file, or compute and keep them.

    Processes that ask for the same states wait for the first one. Whatever goes wrong with files is told and costs no
    more than the file.

    Args:
        texts: whose states.
        compute: returns the states of a batch, [text, token, hidden] or [text, hidden].
        network: fingerprint of what computes them.
        is_pooled: whether a text has one state.
        pad_token_id: padding token.
        place: where they are kept.

    Returns:
        None if they fit neither into memory nor on the disk, or are not finite.
    """
    from filelock import FileLock

    key = hashlib.sha256(f"{_FORMAT} {BATCH_TOKENS} {network} {texts.fingerprint()}".encode()).hexdigest()[:32]
    entry = place.folder / f"{key}.states"
    starts = np.arange(len(texts.tokens) + 1) if is_pooled else texts.tokens.starts
    with ExitStack() as held:
        keeps = place.disk > 0
        try:
            if keeps:
                place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                held.enter_context(FileLock(entry.with_suffix(".lock")))
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            log.warning(_NOT_KEPT, place.folder, _reason(error))
            keeps = False
        found = _read(entry, starts=starts, is_pooled=is_pooled, key=key, memory=place.memory) if keeps else None
        if found is not None:
            log.info("The states are read from %s.", entry)
            return found
        waiting.show_status(f"Computing the frozen layers once, for {len(texts.tokens):,} texts")
        pieces = _computed(texts, compute, pad_token_id)
        return _take(pieces, entry if keeps else None, starts=starts, is_pooled=is_pooled, key=key, place=place)


_NOT_KEPT = "States of the frozen layers are not kept in %s for further runs: %s"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or first_line(error)).rstrip(".") + "."


def _computed(texts: Texts, compute: Callable[[dict[str, Any]], Tensor], pad_token_id: int) -> Iterator[Tensor]:
    """States of all texts in their order, without padding, batch by batch: [token, hidden] or [text, hidden]."""
    for numbers in texts.batches():
        batch = padded(texts.tokens, np.asarray(numbers), pad_token_id)
        states = compute(batch).cpu()
        if states.ndim == 3:
            mask = batch.get("attention_mask")
            states = states.flatten(0, 1) if mask is None else states[mask.bool()]
        yield states


def _take(
    pieces: Iterable[Tensor],
    entry: Path | None,
    *,
    starts: np.ndarray,
    is_pooled: bool,
    key: str,
    place: Place,
) -> States | None:
    """Keep computed states in memory and in a file, or in one of them."""
    pieces = iter(pieces)
    first = next(pieces)
    dtype, shape = first.dtype, (int(starts[-1]), first.shape[-1])
    size = shape[0] * shape[1] * first.element_size()
    in_memory = size <= place.memory
    why = None if entry is None else _no_room(entry.parent, size, place.disk)
    if why is not None:
        if not in_memory:
            log.warning(
                "The states of the frozen layers need %s, more than frozen.memory_gb=%g, and cannot be kept in %s: %s "
                "The frozen layers are computed in each step, without dropout.",
                _gigabytes(size), place.memory / 1e9, place.folder, why,
            )  # fmt: skip
            return None
        log.warning(_NOT_KEPT, place.folder, why)
        entry = None
    if not in_memory and entry is None:
        log.warning(
            "The states of the frozen layers need %s, more than frozen.memory_gb=%g; the frozen layers are computed in "
            "each step, without dropout.", _gigabytes(size), place.memory / 1e9,
        )  # fmt: skip
        return None
    values = np.empty(shape, _DTYPES[dtype]) if in_memory else None
    checked = _finite(first, pieces)
    try:
        if values is not None:
            done = 0
            for piece in checked:
                values[done : done + len(piece)] = _as_numpy(piece)
                done += len(piece)
            checked = iter([torch.from_numpy(values).view(dtype)])
        if entry is not None:
            _write(
                entry, checked, {"fingerprint": key, "dtype": str(dtype).removeprefix("torch."), "shape": list(shape)}
            )
            _forget_old(entry, place.disk)
    except _NotFiniteError:
        log.warning("The frozen layers give values that are not finite; they are computed in each step.")
        return None
    except (OSError, UserError) as error:  # a full disk must not end a run that works without the file
        if values is None:
            log.warning(
                "The states of the frozen layers cannot be kept in %s (%s) The frozen layers are computed in each "
                "step, without dropout.", place.folder, _reason(error),
            )  # fmt: skip
            return None
        log.warning(_NOT_KEPT, place.folder, _reason(error))
    if values is not None:
        return States(values, dtype=dtype, starts=starts, is_pooled=is_pooled)
    assert entry is not None
    mapped = np.memmap(entry, dtype=_DTYPES[dtype], mode="r", shape=shape)
    return States(mapped, dtype=dtype, starts=starts, is_pooled=is_pooled, file=entry)


class _NotFiniteError(Exception):
    """A state is NaN or infinite."""


def _finite(first: Tensor, others: Iterator[Tensor]) -> Iterator[Tensor]:
    for piece in itertools.chain([first], others):
        if not bool(torch.isfinite(piece).all()):
            raise _NotFiniteError
        yield piece


def _as_numpy(piece: Tensor) -> np.ndarray:
    return piece.contiguous().view(torch.uint16 if piece.dtype is torch.bfloat16 else piece.dtype).numpy()


def _write(entry: Path, pieces: Iterable[Tensor], facts: dict[str, Any]) -> None:
    """Write states, then the facts about them, which make the file count; readers see both or neither."""
    sums = hashlib.sha256()
    entry.with_suffix(".json").unlink(missing_ok=True)
    with atomic_write(entry) as temporary, temporary.open("wb") as file:
        for piece in pieces:
            content = _as_numpy(piece).data
            sums.update(content)
            file.write(content)
    write_json(entry.with_suffix(".json"), {"format": _FORMAT, "sha256": sums.hexdigest(), **facts})


def _read(entry: Path, *, starts: np.ndarray, is_pooled: bool, key: str, memory: float) -> States | None:
    """The states of a file; None, aloud, if it is not as it was written."""
    facts_file = entry.with_suffix(".json")
    if not facts_file.exists() or not entry.exists():
        return None
    try:
        bounded_files.check_regular(entry)
        facts = bounded_files.read_json_object(facts_file)
        dtype = {str(known).removeprefix("torch."): known for known in _DTYPES}[facts["dtype"]]
        rows, width = facts["shape"]
        size = rows * width * dtype.itemsize
        if facts["fingerprint"] != key or rows != int(starts[-1]) or entry.stat().st_size != size:
            raise ValueError("it holds other states")
        waiting.show_status("Checking the stored states of the frozen layers")
        if sha256(entry) != facts["sha256"]:
            raise ValueError("its checksum differs")
        kind = _DTYPES[dtype]
        with suppress(OSError):
            facts_file.touch()  # the least recently used one is deleted first
        if size <= memory:
            values = np.fromfile(entry, dtype=kind).reshape(rows, width)
            return States(values, dtype=dtype, starts=starts, is_pooled=is_pooled)
        mapped = np.memmap(entry, dtype=kind, mode="r", shape=(rows, width))
        return States(mapped, dtype=dtype, starts=starts, is_pooled=is_pooled, file=entry)
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        log.warning("%s is damaged (%s): the frozen layers are computed anew.", entry, first_line(error))
        return None


def _no_room(folder: Path, size: int, limit: float) -> str | None:
    """Why a file of this size cannot be written; None if it can."""
    if size > limit:
        return f"they are larger than frozen.disk_gb={limit / 1e9:g}."
    free = shutil.disk_usage(folder).free
    return f"only {_gigabytes(free)} are free there." if free < size * 1.05 else None


def _forget_old(newest: Path, limit: float) -> None:
    """Delete the least recently used files until all of them are within the limit."""
    kept = sorted(newest.parent.glob("*.json"), key=lambda facts: facts.stat().st_mtime, reverse=True)
    total = 0
    for facts in [newest.with_suffix(".json"), *(other for other in kept if other.stem != newest.stem)]:
        states = facts.with_suffix(".states")
        total += states.stat().st_size if states.exists() else 0
        if total > limit and facts.stem != newest.stem:
            for part in (facts, states, facts.with_suffix(".lock")):
                part.unlink(missing_ok=True)  # a run that reads the file keeps it open


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def splits_of(states: States, texts: Texts, splits: Sequence[str]) -> dict[str, RowStates]:
    """The states of the rows of each split."""
    return {split: RowStates(states, texts.of_rows[split]) for split in splits}
