"""A training that computes what is frozen once: its numbers, its resuming, and what it does where that cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from helpers.endings import weights

from emotion_lightning.data import states
from emotion_lightning.errors import UserError
from emotion_lightning.models import last_layer, pooling
from emotion_lightning.training.classifier import EmotionClassifier

UPPER = ["peft.layers=upper_half", "trainer.max_epochs=2"]
HEAD = ["peft=head", "trainer.max_epochs=2"]
ENCODER = [
    "model=minilm", "model.pretrained=false", "model.architecture.num_hidden_layers=2",
    "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128",
    "model.architecture.num_attention_heads=2", "model.architecture.vocab_size=8192", "model.dtype=float32",
    "logger=none", "data.max_rows=96",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "emotion_lightning" / "frozen"


@pytest.fixture
def whole_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that a classifier computed with the whole network."""
    found: list[int] = []
    own = EmotionClassifier.forward

    def forward(classifier: Any, batch: Any) -> Any:
        if "states" not in batch:
            found.append(len(batch["rows"]))
        return own(classifier, batch)

    monkeypatch.setattr(EmotionClassifier, "forward", forward)
    return found


def losses(folder: Path) -> list[str]:
    return (folder / "history.csv").read_text().splitlines()


def metrics(folder: Path) -> Any:
    content = json.loads((folder / "metrics.json").read_text())
    return {split: content[split] for split in ("validation", "test")}


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(value, second[name]) for name, value in first.items()) and metrics(one) == metrics(other)


SOME = [pytest.param(HEAD, id="head", marks=pytest.mark.slow), pytest.param(UPPER, id="upper")]


@pytest.mark.parametrize("asked", SOME)
def test_states_of_memory_and_of_a_file_give_the_same_numbers(
    run: Any, asked: list[str], own_cache: Path, whole_passes: list[int], capfd: Any
) -> None:
    assert run("train", *SMALL, *asked, "hydra.run.dir=first") == 0
    assert "is computed once, without dropout" in capfd.readouterr().err
    (entry,) = own_cache.glob("*.states")
    written = entry.stat().st_mtime_ns
    assert run("train", *SMALL, *asked, "frozen.memory_gb=0", "hydra.run.dir=mapped") == 0
    assert "are read from" in capfd.readouterr().err and entry.stat().st_mtime_ns == written
    assert same(Path("first"), Path("mapped")) and whole_passes == []


@pytest.mark.slow
def test_rates_folds_and_token_budgets_share_their_states(run: Any, own_cache: Path, whole_passes: list[int]) -> None:
    """Batches, splits and what is trained above have no part in the states; computed anew they are the same."""
    line = [*SMALL, *HEAD, "data.folds=3", "data.batch_tokens=600"]
    assert run("train", "-m", *line, "data.fold=1,2", "optimizer.lr=1e-4,1e-3", "hydra.sweep.dir=out") == 0
    (entry,) = own_cache.glob("*.states")
    written = entry.stat().st_mtime_ns
    assert run("train", *line, "data.fold=3", "peft.lr=3", "hydra.run.dir=third") == 0
    assert [entry] == list(own_cache.glob("*.states")) and entry.stat().st_mtime_ns == written
    again = [*line, "data.fold=2", "optimizer.lr=1e-3", "frozen.disk_gb=0"]
    assert run("train", *again, "hydra.run.dir=again") == 0
    assert whole_passes == [] and same(Path("out/3"), Path("again"))


def test_losses_equal_those_without_states_bit_by_bit_in_batches_of_one_shape(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_passes: list[int]
) -> None:
    """Products round by the shape of their batch: here all batches have that in which the states were computed."""
    texts = [f"{a} {b} {c} and" for a in "abcd" for b in "efgh" for c in "ijkl"]
    (tmp_path / "a.csv").write_text(
        "text,joy,anger\n" + "".join(f"{text},{i % 2},{i // 2 % 2}\n" for i, text in enumerate(texts))
    )
    asked = [*SMALL[:-1], "data=file", "data.path=a.csv", "data.batch_size=8", "data.validation_share=0.25",
             "data.test_share=0.25", "data.max_tokens=4", "frozen.disk_gb=0"]  # fmt: skip
    monkeypatch.setattr(states, "BATCH_TOKENS", 32)  # 8 texts
    for name, method in {"upper": UPPER}.items():
        assert run("train", *asked, *method, f"hydra.run.dir={name}") == 0
        assert whole_passes == []
        assert run("train", *asked, *method, "frozen.reuse=never", f"hydra.run.dir={name}_never") == 0
        assert set(whole_passes) == {8}
        whole_passes.clear()
        assert losses(Path(name)) == losses(Path(f"{name}_never"))  # this network has no dropout
        assert same(Path(name), Path(f"{name}_never"))


@pytest.mark.slow
@pytest.mark.parametrize("method", [HEAD, ["peft=lora", *UPPER]], ids=["head", "upper"])
def test_losses_equal_those_of_the_whole_network_to_rounding(
    run: Any, method: list[str], whole_passes: list[int]
) -> None:
    assert (
        run("train", *SMALL, *method, "peft.dropout=0" if "peft=lora" in method else "seed=1", "hydra.run.dir=a") == 0
    )
    assert whole_passes == []
    assert run("train", "from_run=a", "frozen.reuse=never", "hydra.run.dir=b") == 0
    assert whole_passes != []
    first, second = weights(Path("a")), weights(Path("b"))
    assert all(torch.allclose(value, second[name], atol=1e-4) for name, value in first.items())
    for a, b in zip(losses(Path("a"))[1:], losses(Path("b"))[1:], strict=True):
        assert [float(cell) for cell in a.split(",")] == pytest.approx([float(cell) for cell in b.split(",")], abs=2e-2)


@pytest.mark.parametrize("asked", SOME)
@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    run: Any, monkeypatch: pytest.MonkeyPatch, asked: list[str], own_cache: Path, whole_passes: list[int]
) -> None:
    # An encoder: it has dropout, also above the frozen part, so that random states count.
    line = [*ENCODER, *asked, "data.batch_size=16", "trainer.checkpoint_every=1"]
    assert run("train", *line, "hydra.run.dir=whole") == 0
    step = EmotionClassifier.training_step

    def fails(classifier: Any, batch: Any, number: int) -> Any:
        if classifier.global_step == 5:
            raise RuntimeError("the machine goes down")
        return step(classifier, batch, number)

    with monkeypatch.context() as broken:
        broken.setattr(EmotionClassifier, "training_step", fails)
        assert run("train", *line, "hydra.run.dir=parts") == 1
    for file in own_cache.glob("*"):
        file.unlink()  # they are computed again
    assert run("train", "resume=parts") == 0
    assert same(Path("whole"), Path("parts")) and whole_passes == []


@pytest.mark.slow
def test_a_run_goes_on_without_states_that_can_be_kept_nowhere_and_without_dropout_below(
    run: Any, whole_passes: list[int], capfd: Any
) -> None:
    line = [*ENCODER, *HEAD]
    assert run("train", *line, "hydra.run.dir=with") == 0
    assert whole_passes == []
    capfd.readouterr()
    assert run("train", *line, "frozen.memory_gb=0", "frozen.disk_gb=0", "hydra.run.dir=without") == 0
    assert "computed in each step, without dropout" in capfd.readouterr().err and whole_passes != []
    first, second = weights(Path("with")), weights(Path("without"))
    assert all(torch.allclose(value, second[name], atol=1e-4) for name, value in first.items())
    assert run("train", *line, "frozen.reuse=never", "hydra.run.dir=never") == 0
    third = weights(Path("never"))
    assert not all(torch.allclose(value, third[name], atol=1e-4) for name, value in first.items())  # it has dropout


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (["trainer.max_epochs=1"], False),
        (["trainer=debug"], False),
        (["trainer.max_epochs=9", "trainer.max_steps=3"], False),
        (["trainer.max_epochs=1", "frozen.reuse=always"], True),
        (["trainer.max_epochs=9", "trainer.max_steps=6"], True),
        (["frozen.reuse=never"], False),
    ],
)
def test_states_are_used_where_texts_are_read_twice_or_as_asked(
    settings: Any, tmp_path: Path, asked: list[str], used: bool
) -> None:
    emotions, classifier = built(settings, tmp_path, "peft=head", *asked)
    assert ("states" in emotions.first_batch(2)) == used
    assert ("frozen, without dropout" in classifier.identity) == used


@pytest.mark.parametrize("reuse", ["always", "never"])
def test_the_last_layer_has_dropout_of_one_token_where_states_are_used(
    settings: Any, tmp_path: Path, reuse: str
) -> None:
    """A training that is like that of earlier versions draws the numbers that it drew there."""
    asked = ["peft.layers=upper_half", "model.pooling=first", f"frozen.reuse={reuse}"]
    _, classifier = built(settings, tmp_path, *asked)
    own = pooling.unwrapped(classifier.network)
    assert classifier.network.training and last_layer.is_installed(own) == (reuse == "always")
    own.eval()
    assert last_layer.is_installed(own)


def built(settings: Any, tmp_path: Path, *asked: str) -> Any:
    from emotion_lightning.data import sources
    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.models import backbone
    from emotion_lightning.training.setup import build_classifier

    chosen = settings(*ENCODER, *asked)
    corpus = sources.split_corpus(sources.read_corpus(chosen.data), chosen.data)
    emotions = EmotionData(chosen.data, corpus, tokenizer=backbone.load_tokenizer(chosen.model), seed=1)
    device = torch.device("cpu")
    return emotions, build_classifier(chosen, emotions, device=device, base_folder=tmp_path / "base", method="")


def test_what_cannot_be_started_above_is_trained_as_always(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pooling, "logits_of", lambda *_, **__: torch.zeros(8, 11))
    emotions, classifier = built(settings, tmp_path, "peft=head")
    assert "does not give the logits of the whole network" in caplog.text
    assert "states" not in emotions.first_batch(2) and classifier.frozen is None
    assert "frozen, without dropout" not in classifier.identity
    assert all(module.training for module in classifier.network.modules())


def test_nothing_frozen_below_is_an_error_only_where_it_is_asked_for(
    settings: Any, tmp_path: Path, own_cache: Path
) -> None:
    with pytest.raises(UserError, match="something is trained in the lowest one"):
        built(settings, tmp_path, "frozen.reuse=always")
    emotions, classifier = built(settings, tmp_path)
    assert "states" not in emotions.first_batch(2) and classifier.frozen is None
    assert not own_cache.exists()
