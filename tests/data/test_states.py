"""States of texts: computed once for each different text, kept in memory and in files that runs share."""

import json
import logging
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emotion_lightning.data import states
from emotion_lightning.data.batches import Collate, EmotionRows, Tokens

MANY = 1e9


def tokens(*texts: list[int]) -> Tokens:
    return Tokens(np.array([token for text in texts for token in text], np.int32), np.cumsum([0, *map(len, texts)]))


TRAIN = tokens([5, 6], [7], [5, 6, 8], [7])
TEST = tokens([5, 6, 8], [9, 9, 9, 9])


class Network:
    """Stands for a network: the states of a token are its number and its place, those of a text its tokens' sum."""

    def __init__(self, *, is_pooled: bool = False, dtype: torch.dtype = torch.float32) -> None:
        self.is_pooled = is_pooled
        self.dtype = dtype
        self.asked: list[int] = []

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        self.asked.append(len(batch["input_ids"]))
        ids = batch["input_ids"].float()
        found = torch.stack([ids, torch.arange(ids.shape[1]).expand(ids.shape).float()], dim=-1)
        if self.is_pooled:
            mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
            found = (found * mask.unsqueeze(-1)).sum(1)
        return found.to(self.dtype)


def obtain(
    folder: Path, network: Any, *, memory: float = MANY, disk: float = MANY, name: str = "a", train: Tokens = TRAIN
) -> tuple[states.States | None, states.Texts]:
    texts = states.Texts({"train": train, "test": TEST})
    found = states.obtain(
        texts, network, network=name, is_pooled=network.is_pooled, pad_token_id=0,
        place=states.Place(folder, memory=memory, disk=disk),
    )  # fmt: skip
    return found, texts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", [MANY, 0])
def test_each_row_gets_the_states_of_its_own_tokens(tmp_path: Path, memory: float, dtype: torch.dtype) -> None:
    for _ in range(2):  # computed, then read
        found, texts = obtain(tmp_path, Network(dtype=dtype), memory=memory)
        assert found is not None and (found.file is None) == (memory > 0)
        rows = states.splits_of(found, texts, ["train", "test"])
        batch = rows["train"](np.array([0, 3, 2]))
        assert batch.dtype is dtype
        assert batch[..., 0].tolist() == [[5, 6, 0], [7, 0, 0], [5, 6, 8]]
        assert batch[..., 1].tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 2]]
        assert rows["test"](np.array([1]))[..., 0].tolist() == [[9, 9, 9, 9]]
        again = pickle.loads(pickle.dumps(rows["train"]))  # as for a worker of a data loader
        assert torch.equal(again(np.array([0, 3, 2])), batch)
    assert len(pickle.dumps(rows["train"])) < 2000


@pytest.mark.parametrize("memory", [MANY, 0])
def test_a_text_has_one_state_where_they_are_pooled(tmp_path: Path, memory: float) -> None:
    found, texts = obtain(tmp_path, Network(is_pooled=True), memory=memory)
    assert found is not None
    assert states.splits_of(found, texts, ["train"])["train"](np.array([2, 1]))[:, 0].tolist() == [19, 7]


def test_batches_hold_the_states_of_their_rows(tmp_path: Path) -> None:
    found, texts = obtain(tmp_path, Network())
    assert found is not None
    dataset = EmotionRows(TRAIN, None)
    dataset.states = states.splits_of(found, texts, ["train"])["train"]
    batch = Collate(dataset, 0)([2, 0])
    assert torch.equal(batch["states"][..., 0].long(), batch["input_ids"])


def test_a_text_is_computed_once_whatever_the_splits_are(tmp_path: Path) -> None:
    network = Network()
    obtain(tmp_path, network)
    assert sum(network.asked) == 4
    other = Network()
    swapped = states.Texts({"train": TEST, "validation": tokens([7]), "test": tokens([5, 6])})
    found = states.obtain(
        swapped, other, network="a", is_pooled=False, pad_token_id=0,
        place=states.Place(tmp_path, memory=MANY, disk=MANY),
    )  # fmt: skip
    assert found is not None and other.asked == []  # as in another fold
    assert states.splits_of(found, swapped, ["test"])["test"](np.array([0]))[..., 0].tolist() == [[5, 6]]


def test_another_text_or_network_has_states_of_its_own(tmp_path: Path) -> None:
    obtain(tmp_path, Network())
    for changed in ({"name": "b"}, {"train": tokens([5, 6], [7], [5, 6, 10], [7])}):
        network = Network()
        found, texts = obtain(tmp_path, network, **changed)  # type: ignore[arg-type]
        assert network.asked and found is not None
    assert len(list(tmp_path.glob("*.states"))) == 3
    assert states.splits_of(found, texts, ["train"])["train"](np.array([2]))[0, 2, 0] == 10


def damage(entry: Path, how: str) -> None:
    facts = entry.with_suffix(".json")
    content = json.loads(facts.read_text())
    if how == "bit":
        raw = bytearray(entry.read_bytes())
        raw[3] ^= 1
        entry.write_bytes(raw)
    elif how == "cut":
        entry.write_bytes(entry.read_bytes()[:-4])
    elif how == "unfinished":
        facts.unlink()
    elif how == "no json":
        facts.write_text("{")
    elif how == "dtype":
        facts.write_text(json.dumps(content | {"dtype": "complex"}))
    elif how == "shape":
        facts.write_text(json.dumps(content | {"shape": "many"}))
    elif how == "others":
        facts.write_text(json.dumps(content | {"fingerprint": "0" * 32}))
    elif how == "folder":
        entry.unlink()
        entry.mkdir()


@pytest.mark.parametrize("how", ["bit", "cut", "unfinished", "no json", "dtype", "shape", "others", "folder"])
def test_a_file_that_is_not_as_it_was_written_is_computed_anew(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = obtain(tmp_path, Network())
    (entry,) = tmp_path.glob("*.states")
    damage(entry, how)
    network = Network()
    found, _ = obtain(tmp_path, network)
    assert network.asked and first is not None and found is not None
    assert np.array_equal(found.values, first.values)
    assert ("is damaged" in caplog.text) == (how != "unfinished")
    if how != "folder":
        caplog.clear()
        whole = Network()
        assert obtain(tmp_path, whole)[0] is not None and whole.asked == [] and "damaged" not in caplog.text


def full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("memory", [MANY, 0])
def test_a_full_disk_costs_the_file_and_nothing_more(
    tmp_path: Path, memory: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        """A file whose disk is full after the first bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, content: Any) -> None:
            self.file.write(bytes(content)[:4])
            full()

    opened = Path.open

    class Opened:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return Full(self.file)

        def __exit__(self, *_: Any) -> None:
            self.file.close()

    def opens(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = opened(path, mode, *rest, **named)
        return Opened(file) if path.suffix == ".part" and mode == "wb" else file

    monkeypatch.setattr(Path, "open", opens)
    found, texts = obtain(tmp_path, Network(), memory=memory)
    assert "No space left on device" in caplog.text
    assert (
        not list(tmp_path.glob("*.states")) and not list(tmp_path.glob(".*.part")) and not list(tmp_path.glob("*.json"))
    )
    assert (found is not None) == (memory > 0)
    if found is not None:
        assert states.splits_of(found, texts, ["train"])["train"](np.array([1]))[0, 0, 0] == 7
    else:
        assert "computed in each step, without dropout" in caplog.text


@pytest.mark.parametrize("memory", [MANY, 0])
def test_a_disk_without_room_and_a_limit_are_told_before_anything_is_written(
    tmp_path: Path, memory: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found, _ = obtain(tmp_path, Network(), memory=memory, disk=8)
    assert "frozen.disk_gb=8e-09" in caplog.text and (found is not None) == (memory > 0)
    caplog.clear()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20))
    found, _ = obtain(tmp_path, Network(), memory=memory)
    assert "only 0.0 MB are free there" in caplog.text and (found is not None) == (memory > 0)
    assert not list(tmp_path.glob("*.states"))


def test_without_memory_and_files_there_are_no_states(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, _ = obtain(tmp_path / "none", Network(), memory=0, disk=0)
    assert found is None and "more than frozen.memory_gb=0" in caplog.text and not (tmp_path / "none").exists()
    found, _ = obtain(tmp_path / "none", Network(), disk=0)
    assert found is not None and not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    found, _ = obtain(tmp_path / "file" / "states", Network())
    assert found is not None and "are not kept in" in caplog.text


@pytest.mark.parametrize("memory", [MANY, 0])
def test_values_that_are_not_finite_are_not_kept(
    tmp_path: Path, memory: float, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Network):
        def __call__(self, batch: dict[str, Any]) -> Tensor:
            return super().__call__(batch) / (batch["input_ids"] - 7).unsqueeze(-1)

    found, _ = obtain(tmp_path, Broken(), memory=memory)
    assert found is None and "not finite" in caplog.text and not list(tmp_path.glob("*.states"))


def test_an_error_of_the_network_is_no_error_of_the_files(tmp_path: Path) -> None:
    class Fails(Network):
        def __call__(self, batch: dict[str, Any]) -> Tensor:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        obtain(tmp_path, Fails())
    assert obtain(tmp_path, Network())[0] is not None


def test_those_who_ask_together_compute_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = Network()
    found: list[Any] = []
    asking = [threading.Thread(target=lambda: found.append(obtain(tmp_path, network)[0])) for _ in range(6)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sum(network.asked) == 4 and len(found) == 6
    assert all(np.array_equal(one.values, found[0].values) for one in found)


def test_the_files_used_least_recently_are_deleted(tmp_path: Path) -> None:
    import os

    for age, name in enumerate("abc"):
        obtain(tmp_path, Network(), name=name)
        newest = max(tmp_path.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        os.utime(newest, (1000 + age, 1000 + age))
    size = next(tmp_path.glob("*.states")).stat().st_size
    obtain(tmp_path, Network(), name="a")  # used again
    obtain(tmp_path, Network(), name="d", disk=2.5 * size)
    assert len(list(tmp_path.glob("*.states"))) == len(list(tmp_path.glob("*.json"))) == 2
    for name in "ad":
        network = Network()
        obtain(tmp_path, network, name=name, disk=2.5 * size)
        assert network.asked == []


def test_states_do_not_depend_on_the_order_of_rows() -> None:
    one, other = states.Texts({"train": TRAIN, "test": TEST}), states.Texts({"test": TEST, "train": TRAIN})
    assert one.fingerprint() == other.fingerprint() and len(one.tokens) == 4
    assert states.Texts({"train": TRAIN}).fingerprint() != one.fingerprint()
    assert one.batches() == [[0, 1, 2, 3]] and one.tokens.lengths.tolist() == [4, 3, 2, 1]
