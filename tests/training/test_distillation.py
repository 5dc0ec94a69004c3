"""A run that learns from what finished ones say."""

import csv
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from helpers.tables import other_labels

from emotion_lightning import config
from emotion_lightning.data import sources
from emotion_lightning.data.module import EmotionData
from emotion_lightning.inference import predictor
from emotion_lightning.models.losses import WeightedBCE
from emotion_lightning.runs import run_folder
from emotion_lightning.training import distillation

QUICK = [*SMALL, "trainer=debug"]


@pytest.fixture
def second(run: Any, tmp_path: Path) -> Path:
    """Another small run, of another seed."""
    assert run("train", *QUICK, "seed=2", "hydra.run.dir=second") == 0
    return tmp_path / "second"


def learned(settings: Any, *overrides: str) -> Any:
    chosen = settings(*QUICK, *overrides)
    corpus = sources.split_corpus(sources.read_corpus(chosen.data), chosen.data)
    rows = corpus.splits["train"]
    found = distillation.teacher_targets(rows, corpus.labels, chosen.distill, accelerator=chosen.trainer.accelerator)
    return SimpleNamespace(rows=rows, labels=corpus.labels, targets=found)


def test_targets_are_labels_and_the_teachers_mean_probability_by_weight(
    settings: Any, finished: Path, second: Path
) -> None:
    teachers = f"distill.runs='[{finished},{second}]'"
    one = learned(settings, teachers, "distill.weight=0.25")
    answers = np.mean([predictor.load(run).probabilities(one.rows.texts).numpy() for run in (finished, second)], axis=0)
    np.testing.assert_allclose(one.targets, 0.75 * one.rows.targets + 0.25 * answers, atol=1e-6)
    assert one.targets.dtype == np.float32
    alone = learned(settings, teachers, "distill.weight=1")
    np.testing.assert_allclose(alone.targets, answers, atol=1e-6)


def test_the_loss_of_mixed_targets_is_the_mix_of_the_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    gold = (torch.rand(6, 4, generator=generator) < 0.3).float()
    taught = torch.rand(6, 4, generator=generator)
    loss = WeightedBCE(torch.tensor([1.0, 2.0, 5.0, 0.5]))
    mixed = loss(logits, 0.3 * gold + 0.7 * taught)
    torch.testing.assert_close(mixed, 0.3 * loss(logits, gold) + 0.7 * loss(logits, taught))


def test_training_sees_the_targets_and_nothing_else_does(
    run: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []
    learn = EmotionData.learn

    def spied(self: EmotionData, targets: Any) -> None:
        learn(self, targets)
        taken.append((targets, self))

    monkeypatch.setattr(EmotionData, "learn", spied)
    assert run("train", *QUICK, f"distill.runs={finished}", "hydra.run.dir=out") == 0
    ((targets, data),) = taken
    batch = next(iter(data.train_dataloader()))
    np.testing.assert_array_equal(batch["targets"].numpy(), targets[batch["rows"].numpy()])
    assert ((batch["targets"] > 0) & (batch["targets"] < 1)).all()
    assert set(np.unique(data.rows["train"].targets)) == {0.0, 1.0}
    assert run_folder.read_settings(tmp_path / "out")["distill"] == {
        "runs": str(finished),
        "answers": None,
        "weight": 0.7,
    }


def test_answers_are_kept_until_a_teacher_changes(
    settings: Any, finished: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = learned(settings, f"distill.runs={finished}")
    asked: list[Any] = []
    open_runs = predictor.open_runs
    monkeypatch.setattr(predictor, "open_runs", lambda *a, **k: asked.append(a) or open_runs(*a, **k))
    again = learned(settings, f"distill.runs={finished}")
    np.testing.assert_array_equal(first.targets, again.targets)
    assert not asked
    other = learned(settings, f"distill.runs={second}")
    assert len(asked) == 1 and not np.array_equal(first.targets, other.targets)
    moved = Path(shutil.copytree(finished, tmp_path / "moved"))
    learned(settings, f"distill.runs={moved}")
    assert len(asked) == 1
    with (moved / "base" / "SHA256SUMS").open("a") as listed:
        listed.write(f"{'0' * 64}  another.safetensors\n")
    learned(settings, f"distill.runs={moved}")
    assert len(asked) == 2  # the adapter and the card are the same, the network below is not


def test_damaged_answers_are_asked_for_again(
    settings: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = learned(settings, f"distill.runs={finished}")
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:200])
    again = learned(settings, f"distill.runs={finished}")
    np.testing.assert_array_equal(first.targets, again.targets)
    assert f"{kept} is damaged" in caplog.text
    learned(settings, f"distill.runs={finished}")
    assert caplog.text.count("is damaged") == 1


def test_a_cache_that_cannot_be_written_to_costs_nothing_else(
    settings: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert learned(settings, f"distill.runs={finished}").targets.shape[0] > 0
    assert "The teachers' answers are not kept" in caplog.text


def test_teachers_are_asked_once_where_their_answers_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(np, "save", full)
    asked: list[int] = []

    def ask() -> Any:
        asked.append(1)
        return np.ones((2, 3), np.float32)

    assert distillation._kept_answers("a", ask, shape=(2, 3)).all() and asked == [1]
    assert "No space left" in caplog.text and not list(tmp_path.rglob("*.npy"))


def test_an_error_of_a_teacher_is_no_error_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[int] = []

    def ask() -> Any:
        asked.append(1)
        raise OSError("the teacher's file is gone")

    with pytest.raises(OSError, match="is gone"):
        distillation._kept_answers("a", ask, shape=(2, 3))
    assert asked == [1]


def test_the_cache_keeps_the_answers_that_were_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(distillation, "_KEPT", 2)
    clock = iter(range(1_000_000, 2_000_000, 10))
    asked: list[str] = []

    def answers(name: str) -> None:
        def ask() -> Any:
            asked.append(name)
            return np.zeros((2, 3), np.float32)

        distillation._kept_answers(name, ask, shape=(2, 3))
        moment = next(clock)  # file systems tell times by ticks
        os.utime(tmp_path / "emotion_lightning" / "teachers" / f"{name}.npy", (moment, moment))

    for name in ("a", "b", "a", "c", "a", "b"):
        answers(name)
    assert asked == ["a", "b", "c", "b"]


def test_labels_go_by_name(run: Any, finished: Path, settings: Any, tmp_path: Path) -> None:
    few = other_labels(tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text().replace("calm", "fear")
    (tmp_path / "a.csv").write_text(text)
    chosen = settings(*few, f"distill.runs={finished}", "distill.weight=1")
    corpus = sources.split_corpus(sources.read_corpus(chosen.data), chosen.data)
    rows = corpus.splits["train"]
    found = distillation.teacher_targets(rows, corpus.labels, chosen.distill, accelerator=config.Accelerator.auto)
    teacher = predictor.load(finished)
    answers = teacher.probabilities(rows.texts).numpy()
    order = [teacher.metadata.labels.index(name) for name in corpus.labels]
    np.testing.assert_allclose(found, answers[:, order], atol=1e-6)


def written(file: Path, texts: list[str], shares: Any, labels: list[str]) -> str:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", *(f"p_{name}" for name in labels), "whatever"])
        writer.writerows([text, *row, "x"] for text, row in zip(texts, shares, strict=True))
    return f"distill.answers={file}"


def test_answers_of_a_file_go_by_text_and_label(run: Any, settings: Any, tmp_path: Path) -> None:
    without = settings(*QUICK)
    corpus = sources.split_corpus(sources.read_corpus(without.data), without.data)
    texts = corpus.splits["train"].texts
    shares = np.random.default_rng(0).random((len(texts), len(corpus.labels))).round(4)
    order = np.random.default_rng(1).permutation(len(texts))
    names = corpus.labels[::-1]
    given = written(tmp_path / "answers.csv", [texts[i] for i in order], shares[order][:, ::-1].tolist(), names)
    found = learned(settings, given, "distill.weight=0.4")
    np.testing.assert_allclose(found.targets, 0.6 * found.rows.targets + 0.4 * shares, atol=1e-6)
    assert run("train", *QUICK, f"distill.answers={tmp_path.name}/../answers.csv", "hydra.run.dir=out") == 2
    assert run("train", *QUICK, "distill.answers=answers.csv", "hydra.run.dir=out") == 0
    assert run_folder.read_settings(tmp_path / "out")["distill"]["answers"] == str(tmp_path / "answers.csv")


def test_predictions_with_their_texts_are_answers(run: Any, settings: Any, finished: Path, tmp_path: Path) -> None:
    chosen = settings(*QUICK)
    texts = sources.split_corpus(sources.read_corpus(chosen.data), chosen.data).splits["train"].texts
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert run("predict", f"run={finished}", "input=texts.jsonl", "output=told.csv", "predict.text=true") == 0
    raised = learned(settings, f"distill.answers={tmp_path / 'told.csv'}").targets
    np.testing.assert_allclose(raised, learned(settings, f"distill.runs={finished}").targets, atol=1e-5)


BROKEN: dict[str, tuple[Any, str]] = {
    "a text without a row": (lambda t, s, n: (t[1:], s[1:], n), "has no row for the training text"),
    "a label without a column": (lambda t, s, n: (t, [row[1:] for row in s], n[1:]), "has no column p_anger"),
    "no probability": (lambda t, s, n: (t, [[1.5, *s[0][1:]], *s[1:]], n), "answers.csv, row 1, column p_anger: '1.5'"),
    "not a number": (lambda t, s, n: (t, [["often", *s[0][1:]], *s[1:]], n), "row 1, column p_anger: 'often' is no"),
    "an empty cell": (lambda t, s, n: (t, [["", *s[0][1:]], *s[1:]], n), "row 1, column p_anger: ''"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_does_not_answer_is_refused(run: Any, settings: Any, tmp_path: Path, capfd: Any, kind: str) -> None:
    spoil, message = BROKEN[kind]
    chosen = settings(*QUICK)
    corpus = sources.split_corpus(sources.read_corpus(chosen.data), chosen.data)
    texts = corpus.splits["train"].texts
    texts, shares, names = spoil(texts, [[0.5] * len(corpus.labels)] * len(texts), corpus.labels)
    written(tmp_path / "answers.csv", texts, shares, names)
    assert run("train", *QUICK, "distill.answers=answers.csv", "hydra.run.dir=out") == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.runs=a", "distill.answers=b.csv"], "give one of them"),
        (["distill.answers=b.csv", "loss=focal"], "distill.answers gives probabilities to learn"),
        (["distill.answers=nowhere.csv"], "nowhere.csv"),
        (["distill.runs=nowhere"], "distill.runs=nowhere is not a folder"),
        (["distill.runs=[]"], "distill.runs=[] names no run"),
        (["distill.weight=0"], "distill.weight=0.0 is out of range"),
        (["distill.weight=1.5"], "distill.weight=1.5 is out of range"),
        (["distill.runs=nowhere", "loss=focal"], "distill.runs gives probabilities to learn"),
    ],
)
def test_what_cannot_teach_is_refused(run: Any, capfd: Any, overrides: list[str], message: str) -> None:
    assert run("train", *QUICK, *overrides) == 2
    assert message in capfd.readouterr().err


def test_a_label_that_no_teacher_knows_is_named(run: Any, finished: Path, tmp_path: Path, capfd: Any) -> None:
    assert run("train", *other_labels(tmp_path / "a.csv"), f"distill.runs={finished}") == 2
    assert "knows nothing of calm" in capfd.readouterr().err


def test_without_teachers_nothing_changes(settings: Any) -> None:
    assert settings().distill == config.Distillation(runs=None, answers=None, weight=0.7)
