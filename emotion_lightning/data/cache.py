"""Tokens kept from one run to the next.

An entry belongs to the texts themselves, the tokenizer, the length and the cleaning, so that a file that changed is
never served from it, and a file that was only moved or touched is.
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config, run_folder
from emotion_lightning.data.batches import Tokens, tokenize

log = logging.getLogger(__name__)

_VERSION = "1"
"""Changes with what an entry holds or with how texts become tokens."""


def tokens(texts: Sequence[str], tokenizer: Any, *, settings: config.Batches, max_tokens: int | None) -> Tokens:
    """What `tokenize` gives, from the cache where it is there.

    Processes that start together wait for the first of them, then read what it wrote.

    Args:
        texts: before they are cleaned.
        tokenizer: of the network.
        settings: cleaning, and where the cache is and how large.
        max_tokens: the length that texts are cut to; None does not cut.
    """
    limit = round(settings.cache_gb * 2**30)
    name = _name(texts, tokenizer, max_tokens=max_tokens, clean=settings.clean) if limit else None
    folder = place(settings)
    if name is None or not _usable(folder):
        return tokenize(texts, tokenizer, max_tokens=max_tokens, clean=settings.clean)
    entry = folder / f"{name}.npz"
    with _alone(entry):
        found = _read(entry)
        if found is None:
            found = tokenize(texts, tokenizer, max_tokens=max_tokens, clean=settings.clean)
            _write(entry, found, limit=limit)
    return found


def place(settings: config.Batches) -> Path:
    """The cache's folder."""
    if settings.cache_dir is not None:
        return Path(settings.cache_dir).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("emotion_lightning") / "tokens"


def _name(
    texts: Sequence[str], tokenizer: Any, *, max_tokens: int | None, clean: Sequence[config.CleaningStep]
) -> str | None:
    """The name of an entry, or None for a tokenizer that cannot be told from another one."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    import tokenizers
    import transformers

    steps = sorted(step.value for step in clean)
    key = hashlib.sha256()
    for part in (_VERSION, tokenizers.__version__, transformers.__version__, _identity(tokenizer), max_tokens, steps):
        key.update(repr(part).encode())
    for text in texts:
        data = text.encode()
        key.update(len(data).to_bytes(8, "little"))
        key.update(data)
    return key.hexdigest()


@functools.lru_cache(maxsize=2)
def _identity(tokenizer: Any) -> str:
    backend = tokenizer.backend_tokenizer
    # The last call leaves its own padding and truncation behind.
    backend.no_padding()
    backend.no_truncation()
    special = tokenizer.init_kwargs.get("add_bos_token"), tokenizer.init_kwargs.get("add_eos_token")
    return f"{type(tokenizer).__name__} {special} {backend.to_str()}"


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("No tokens are kept: %s cannot be made (%s); see data.cache_dir.", folder, error.strerror)
        return False
    if not os.access(folder, os.W_OK):
        log.warning("No tokens are kept: %s cannot be written to; see data.cache_dir.", folder)
        return False
    return True


@contextlib.contextmanager
def _alone(entry: Path) -> Iterator[None]:
    from filelock import FileLock

    lock = FileLock(entry.with_suffix(".lock"))
    try:
        lock.acquire()
    except (OSError, NotImplementedError):  # file systems without locks: the work is then done twice, no harm
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _read(entry: Path) -> Tokens | None:
    try:
        with np.load(entry, allow_pickle=False) as arrays:
            found = Tokens(ids=arrays["ids"], starts=arrays["starts"])
        if (found.ids.dtype, found.starts.dtype, len(found.ids)) != (np.int32, np.int64, found.starts[-1]):
            raise ValueError("not what was written")
        os.utime(entry)  # what was used last goes last
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file raises errors of zipfile, numpy, Python's tokenizer …
        log.warning("%s is damaged; its texts are tokenized again.", entry)
        return None
    log.debug("Tokens of %s texts come from %s.", f"{len(found):,}", entry)
    return found


def _write(entry: Path, found: Tokens, *, limit: int) -> None:
    if found.ids.nbytes + found.starts.nbytes > limit:
        return
    try:
        with run_folder.replacing(entry) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=found.ids, starts=found.starts)
        _make_room(entry.parent, limit)
    except Exception as error:  # a full disk must not end a run that would do without
        log.warning("No tokens are kept in %s: %s", entry.parent, error)


def _make_room(folder: Path, limit: int) -> None:
    """Remove entries, the longest unused first, until those left are within the limit."""
    entries = sorted(((file.stat().st_mtime, file.stat().st_size, file) for file in folder.glob("*.npz")), reverse=True)
    total = 0
    for _, size, file in entries:
        total += size
        if total > limit:
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)
