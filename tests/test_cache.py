import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import data_settings

from emotion_lightning.config import CleaningStep
from emotion_lightning.data import batches, cache
from emotion_lightning.data.batches import Tokens

TEXTS = ["so happy", "not at all", "", "so &amp; so"] * 50


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    from emotion_lightning import model

    return AutoTokenizer.from_pretrained(model.BUNDLED)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many texts were tokenized, call by call."""
    calls: list[int] = []
    tokenize = batches.tokenize

    def counting(texts: Any, *args: Any, **kwargs: Any) -> Tokens:
        calls.append(len(texts))
        return tokenize(texts, *args, **kwargs)

    monkeypatch.setattr(cache, "tokenize", counting)
    return calls


@pytest.fixture
def tokens(tmp_path: Path, tokenizer: Any) -> Callable[..., Tokens]:
    def get(texts: list[str] = TEXTS, max_tokens: int | None = 16, tokenizer: Any = tokenizer, **chosen: Any) -> Tokens:
        settings = data_settings("sample", **{"cache_dir": tmp_path / "cache", **chosen})
        return cache.tokens(texts, tokenizer, settings=settings, max_tokens=max_tokens)

    return get


def same(one: Tokens, other: Tokens) -> bool:
    return bool(np.array_equal(one.ids, other.ids) and np.array_equal(one.starts, other.starts))


def test_a_second_call_tokenizes_nothing_and_gives_the_same(tokens: Any, counted: list[int], tokenizer: Any) -> None:
    first, second = tokens(), tokens()
    assert counted == [200]
    assert same(first, second)
    assert same(first, batches.tokenize(TEXTS, tokenizer, max_tokens=16))
    assert second.ids.dtype == np.int32


@pytest.mark.parametrize(
    "changed",
    [
        {"texts": [*TEXTS[:-1], "so & so"]},
        {"texts": TEXTS[1:] + TEXTS[:1]},
        {"texts": ["so happynot at all", *TEXTS[2:]]},
        {"max_tokens": 15},
        {"max_tokens": None},
        {"clean": [CleaningStep.html]},
    ],
)
def test_other_texts_lengths_and_cleaning_are_never_served_from_it(
    tokens: Any, counted: list[int], changed: dict[str, Any]
) -> None:
    tokens()
    tokens(**changed)
    assert len(counted) == 2


def test_another_tokenizer_is_never_served_from_it(tokens: Any, counted: list[int]) -> None:
    from emotion_lightning.tiny import train_tokenizer

    tokens()
    tokens(tokenizer=train_tokenizer(["so happy and not at all"] * 3))
    assert len(counted) == 2


def test_a_batch_tokenized_in_between_does_not_change_what_a_tokenizer_is(
    tokens: Any, counted: list[int], tokenizer: Any
) -> None:
    tokens()
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)
    cache._identity.cache_clear()
    tokens()
    assert len(counted) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "header", "shape", "npy"])
def test_a_damaged_entry_is_made_anew(
    tokens: Any, counted: list[int], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = tokens()
    (entry,) = (tmp_path / "cache").glob("*.npz")
    content = bytearray(entry.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    elif damage == "empty":
        content = bytearray()
    elif damage == "header":
        content = content.replace(b"}", b"{", 1)  # numpy reads this part as Python
    else:
        content = bytearray(b"no zip file at all")
    entry.write_bytes(content)
    if damage in ("shape", "npy"):
        with entry.open("wb") as file:
            if damage == "npy":
                np.save(file, before.ids)
            else:
                np.savez(file, ids=before.ids[:-1], starts=before.starts)
    assert same(before, tokens())
    assert "is damaged" in caplog.text
    assert same(before, tokens())
    assert len(counted) == 2


def test_the_longest_unused_entries_make_room(tokens: Any, counted: list[int], tmp_path: Path) -> None:
    size = (tokens(["a b c"] * 5000), max((tmp_path / "cache").glob("*.npz")).stat().st_size)[1]
    limit = 2.5 * size / 2**30
    for number in range(3):
        tokens([f"a b {number}"] * 5000, cache_gb=limit)
        time.sleep(0.02)
    tokens(["a b 1"] * 5000, cache_gb=limit)  # used again, so it outlasts number 2
    time.sleep(0.02)
    tokens(["a b 3"] * 5000, cache_gb=limit)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
    counted.clear()
    tokens(["a b 1"] * 5000, cache_gb=limit)
    tokens(["a b 3"] * 5000, cache_gb=limit)
    assert counted == []


def test_what_is_larger_than_the_limit_is_not_kept(tokens: Any, tmp_path: Path) -> None:
    tokens(cache_gb=1e-7)
    assert list((tmp_path / "cache").glob("*.npz")) == []


def test_a_limit_of_zero_keeps_nothing(tokens: Any, counted: list[int], tmp_path: Path) -> None:
    tokens(cache_gb=0)
    tokens(cache_gb=0)
    assert len(counted) == 2 and not (tmp_path / "cache").exists()


def test_a_place_that_cannot_be_written_to_costs_the_cache_alone(
    tokens: Any, counted: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert len(tokens(cache_dir=tmp_path / "file" / "cache")) == 200
    assert "Nothing is kept" in caplog.text and "data.cache_dir" in caplog.text


def test_a_full_disk_costs_the_cache_alone(
    tokens: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(tokens()) == 200
    assert "No space left" in caplog.text
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_the_users_cache_folder_is_taken_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = cache.place(data_settings("sample"))
    assert place.parts[-2:] == ("emotion_lightning", "tokens")
    if sys.platform == "linux":
        assert place.is_relative_to(tmp_path)


def test_processes_that_start_together_tokenize_once(tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from transformers import AutoTokenizer
from tables import data_settings
from emotion_lightning import model
from emotion_lightning.data import batches, cache
tokenize = batches.tokenize
def counting(*args, **kwargs):
    import time
    print("tokenized", flush=True)
    time.sleep(0.5)
    return tokenize(*args, **kwargs)
cache.tokenize = counting
settings = data_settings("sample", cache_dir=sys.argv[2])
texts = [f"text number {i}" for i in range(3000)]
found = cache.tokens(texts, AutoTokenizer.from_pretrained(model.BUNDLED), settings=settings, max_tokens=16)
print(int(found.ids.sum()), len(found))
"""
    here = str(Path(__file__).parent)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, here, str(tmp_path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(3)
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0].split("\n") for process in started]
    assert sum(lines.count("tokenized") for lines in printed) == 1
    assert len({lines[-2] for lines in printed}) == 1
