"""What is made of texts, kept from one run to the next: tokens, and what teachers say of them.

An entry belongs to the texts themselves and to all that makes it of them, so that a file that changed is never served
from it, and a file that was only moved or touched is.
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config, run_folder
from emotion_lightning.data.batches import Tokens, tokenize

log = logging.getLogger(__name__)

_VERSION = "1"
"""Changes with what an entry holds or with how texts become tokens."""


Arrays = dict[str, np.ndarray]


def tokens(texts: Sequence[str], tokenizer: Any, *, settings: config.Batches, max_tokens: int | None) -> Tokens:
    """What `tokenize` gives, from the cache where it is there.

    Args:
        texts: before they are cleaned.
        tokenizer: of the network.
        settings: cleaning, and where the cache is and how large.
        max_tokens: the length that texts are cut to; None does not cut.
    """

    def make() -> Arrays:
        made = tokenize(texts, tokenizer, max_tokens=max_tokens, clean=settings.clean)
        return {"ids": made.ids, "starts": made.starts}

    # A tokenizer that cannot be told from another one has no name.
    named = getattr(tokenizer, "is_fast", False) and settings.cache_gb > 0
    name = _name(texts, tokenizer, max_tokens=max_tokens, clean=settings.clean) if named else None
    return Tokens(**arrays(name, make, settings=settings, fits=_are_tokens))


def _are_tokens(found: Arrays) -> bool:
    ids, starts = found["ids"], found["starts"]
    return (ids.dtype, starts.dtype, len(ids)) == (np.int32, np.int64, starts[-1])


def arrays(
    name: str | None, make: Callable[[], Arrays], *, settings: config.Batches, fits: Callable[[Arrays], bool]
) -> Arrays:
    """What `make` gives, from the cache where it is there.

    Processes that start together wait for the first of them, then read what it wrote.

    Args:
        name: of the entry; it changes with all that `make` depends on. None: nothing is kept.
        make: the work.
        settings: where the cache is and how large.
        fits: whether arrays that were read are what was written.
    """
    limit = round(settings.cache_gb * 2**30)
    folder = place(settings)
    if name is None or not limit or not _usable(folder):
        return make()
    entry = folder / f"{name}.npz"
    with _alone(entry):
        found = _read(entry, fits)
        if found is None:
            found = make()
            _write(entry, found, limit=limit)
    return found


def place(settings: config.Batches) -> Path:
    """The cache's folder."""
    if settings.cache_dir is not None:
        return Path(settings.cache_dir).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("emotion_lightning") / "tokens"


def _name(texts: Sequence[str], tokenizer: Any, *, max_tokens: int | None, clean: Sequence[config.CleaningStep]) -> str:
    import tokenizers
    import transformers

    steps = sorted(step.value for step in clean)
    return name_of(
        texts, _VERSION, tokenizers.__version__, transformers.__version__, _identity(tokenizer), max_tokens, steps
    )


def name_of(texts: Iterable[str], *parts: Any) -> str:
    """A name that no other texts and no other parts, told apart by their `repr`, have."""
    key = hashlib.sha256()
    for part in parts:
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
        log.warning("Nothing is kept: %s cannot be made (%s); see data.cache_dir.", folder, error.strerror)
        return False
    if not os.access(folder, os.W_OK):
        log.warning("Nothing is kept: %s cannot be written to; see data.cache_dir.", folder)
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


def _read(entry: Path, fits: Callable[[Arrays], bool]) -> Arrays | None:
    try:
        with np.load(entry, allow_pickle=False) as kept:
            found = dict(kept)
        if not fits(found):
            raise ValueError("not what was written")
        os.utime(entry)  # what was used last goes last
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file raises errors of zipfile, numpy, Python's tokenizer …
        log.warning("%s is damaged; it is made again.", entry)
        return None
    log.debug("%s is read, not made again.", entry)
    return found


def _write(entry: Path, found: Arrays, *, limit: int) -> None:
    if sum(array.nbytes for array in found.values()) > limit:
        return
    try:
        with run_folder.replacing(entry) as temporary, temporary.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]  # numpy's stubs take the names for its own parameters
        _make_room(entry.parent, limit)
    except Exception as error:  # a full disk must not end a run that would do without
        log.warning("Nothing is kept in %s: %s", entry.parent, error)


def _make_room(folder: Path, limit: int) -> None:
    """Remove entries, the longest unused first, until those left are within the limit."""
    entries = sorted(((file.stat().st_mtime, file.stat().st_size, file) for file in folder.glob("*.npz")), reverse=True)
    total = 0
    for _, size, file in entries:
        total += size
        if total > limit:
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)
