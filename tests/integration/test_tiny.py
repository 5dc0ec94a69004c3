"""The network and the classifier inside the package, and how they are made."""

import csv
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from emotion_lightning import load
from emotion_lightning.data import official
from emotion_lightning.inference import predictor
from emotion_lightning.models import backbone
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import run_folder
from emotion_lightning.tiny import __main__ as making
from emotion_lightning.tiny import mixtures

QUICK = ["trainer=debug", "data.max_rows=96", "trainer.max_epochs=1"]

# ------------------------------------------------------------------------------------------------- what is there


def test_the_network_is_a_small_gemma_that_stock_transformers_loads_and_four_bits_can_hold() -> None:
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(backbone.BUNDLED), AutoTokenizer.from_pretrained(backbone.BUNDLED)
    assert network.config.model_type == "gemma"
    assert 5e6 < sum(part.numel() for part in network.parameters()) < 7e6
    assert len(tokenizer) == network.config.vocab_size == network.get_input_embeddings().weight.shape[0]
    assert sum(file.stat().st_size for file in backbone.BUNDLED_RUN.rglob("*") if file.is_file()) < 14e6
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.Linear):
            assert part.in_features % 64 == 0 and part.out_features % 32 == 0, name


def test_nothing_in_it_tells_of_the_machine_that_made_it() -> None:
    for file in backbone.BUNDLED_RUN.rglob("*"):
        if file.suffix in (".json", ".md", ".py") and file.name != "tokenizer.json":
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w:./<])/(home|root|tmp|work|Users|usr)/", text), file


def test_predict_answers_without_a_run_and_without_a_network(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("predict", "text=I miss you so much, the house is empty and I cry every night.") == 0
    raised = capfd.readouterr().out
    assert all(name in raised for name in official.SEMEVAL_LABELS) and "█" in raised
    assert "sadness" in raised.splitlines()[-1]
    (tmp_path / "texts.txt").write_text("We won, I can't stop smiling!\nHow dare you lie to me again.\n")
    assert run("predict", "input=texts.txt", "output=answers.csv") == 0
    with open("answers.csv", newline="") as opened:
        first, second = csv.DictReader(opened)
    assert float(first["p_joy"]) > float(second["p_joy"]) and float(second["p_anger"]) > float(first["p_anger"])
    assert list(tmp_path.glob("outputs/predict/*/*/*.safetensors")) == []


def test_predict_says_nothing_but_the_answer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emotion_lightning.predict", "text=We won!"]
    raised = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert raised.returncode == 0 and raised.stderr == ""
    # The text, the labels, whether probabilities are calibrated, and the emotions.
    assert len(raised.stdout.splitlines()) == 1 + len(official.SEMEVAL_LABELS) + 2


def test_its_classifier_scores_what_its_card_says() -> None:
    """Its card gives macro F1 on the sample's test split; the answers of this version must be those."""
    raised = re.search(
        r"test macro F1 of the classifier inside: (\.\d{3})", (backbone.BUNDLED_RUN / "README.md").read_text()
    )
    assert raised is not None
    test = official.sample().splits["test"]
    assert test.targets is not None
    labeller = load()
    cuts = labeller.metadata.threshold_tensor().numpy()
    found = labeller.probabilities(test.texts).numpy() > cuts
    gold = test.targets.astype(bool)
    scores = 2 * (found & gold).sum(0) / (found.sum(0) + gold.sum(0))
    assert scores.mean() == pytest.approx(float(raised[1]), abs=0.006)


# ------------------------------------------------------------------------------------------------------ runs on it


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the network inside the package."""
    from conftest import run_in_process

    folder = tmp_path_factory.mktemp("runs") / "tuned"
    assert run_in_process("train", *QUICK, f"hydra.run.dir={folder}") == 0
    return folder


def test_a_run_keeps_its_base_and_answers_wherever_it_is_moved(tuned: Path, tmp_path: Path) -> None:
    texts = ["We won!", "Rain again."]
    own = predictor.load(tuned).probabilities(texts)
    moved = Path(shutil.move(shutil.copytree(tuned, tmp_path / "copy"), tmp_path / "moved"))
    metadata = json.loads((moved / "model" / METADATA).read_text())
    assert metadata["base"]["path"] == str(tuned / "base") and metadata["base"]["tiny"]
    # Another version's network in the place of old must not be taken for the one that was trained on.
    metadata["base"]["path"] = str(tmp_path / "gone" / "base")
    (moved / "model" / METADATA).write_text(json.dumps(metadata))
    (moved / "model" / METADATA).with_name("SHA256SUMS").unlink(missing_ok=True)
    assert torch.equal(predictor.load(moved).probabilities(texts), own)


def test_its_card_claims_neither_random_weights_nor_gemmas_terms(tuned: Path) -> None:
    metadata = read_metadata(tuned / "model")
    assert metadata.is_tiny and not metadata.is_gemma
    readme = (tuned / "model" / "README.md").read_text()
    assert "CC BY 4.0" in readme and "Apache-2.0" in readme
    assert "Gemma Terms" not in readme and "random" not in readme


def test_a_run_starts_from_another_one_on_it(run: Any, tuned: Path, tmp_path: Path) -> None:
    labels = official.SEMEVAL_LABELS[:2]
    with (tmp_path / "my.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([["text", *labels], *([f"so {i}", i % 2, i % 3 % 2] for i in range(60))])
    mine = ["data=file", "data.path=my.csv", "trainer=debug"]
    assert run("train", *mine, f"init_from={tuned}", "hydra.run.dir=out") == 0
    assert run("train", *mine, f"init_from={backbone.BUNDLED_RUN}", "hydra.run.dir=from_package") == 0
    assert run("train", *mine, f"init_from={tuned}", "model.pretrained=false", "hydra.run.dir=other") == 2


def test_full_training_needs_no_copy(run: Any, tmp_path: Path) -> None:
    assert run("train", *QUICK, "peft=full", "model.quantization=none", "hydra.run.dir=out") == 0
    assert not (tmp_path / "out" / "base").exists()
    assert run("predict", "run=out", "text=We won!") == 0


# ------------------------------------------------------------------------------------------------ how it is made


def test_mixtures_are_made_of_the_texts_and_repeat_themselves() -> None:
    first = ["I came, I saw, I won. It rained all day!", "nothing but one long clause without any mark at all here"]
    second = ["Why me? Because you asked."]
    made = list(mixtures(first, second, 200, seed=3))
    assert made == list(mixtures(first, second, 200, seed=3)) != list(mixtures(first, second, 200, seed=4))
    assert not list(mixtures([""], [" "], 20, seed=1))  # training would refuse a text of nothing but spaces
    words = set(" ".join(first + second).split())
    assert all(set(text.split()) <= words for text in made)
    assert any("Why" in text and "I" in text.split() for text in made)  # of both
    assert 150 < len(made) <= 200


@pytest.fixture
def goemotions(tmp_path: Path) -> Path:
    folder = tmp_path / "goemotions"
    folder.mkdir()
    (folder / "labels.txt").write_text("admiration\nanger\nneutral\n")
    for split, count in (("train", 40), ("dev", 12), ("test", 12)):
        rows = [f"Reddit says {split} {i}, and more.\t{i % 3}\tid{split}{i}" for i in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_no_teacher_answers_what_it_was_trained_on(goemotions: Path, tmp_path: Path) -> None:
    parts = making.folds(str(goemotions), tmp_path)
    train = official.sample().splits["train"].texts
    seen: list[set[str]] = []
    for fold in range(3):
        with (tmp_path / f"without_{fold}.csv").open(newline="", encoding="utf-8") as opened:
            seen.append({row["text"] for row in csv.DictReader(opened)})
    own = {part.fold: set(part.texts) & set(train) for part in parts}
    assert own.pop(None) == set()
    assert set().union(*own.values()) == set(train)
    for fold, texts in own.items():
        assert texts.isdisjoint(seen[fold]) and len(seen[fold] & set(train)) > 0.6 * len(set(train))
    held = {text for split in ("validation", "test") for text in official.sample().splits[split].texts}
    assert held.isdisjoint(text for part in parts for text in part.texts)


def test_answers_stand_beside_their_texts(
    goemotions: Path, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teachers that give away who they are: each text must have the answers of those that may give them."""
    asked: list[tuple[str, ...]] = []

    def teacher(runs: list[Path]) -> Any:
        names = ["admiration", "anger", "neutral"] if runs[0].name.startswith("goemotions") else OWN
        share = {"goemotions": 0.9, "sample_0": 0.1, "sample_1": 0.2, "sample_2": 0.3}
        mean = np.mean([share.get(run.name, share["goemotions"]) for run in runs])
        asked.append(tuple(run.name for run in runs))
        return SimpleNamespace(
            metadata=SimpleNamespace(labels=names[::-1]),
            probabilities=lambda texts: torch.full((len(texts), len(names)), float(mean)),
        )

    monkeypatch.setattr(predictor, "load", teacher)
    monkeypatch.setattr(making, "_MIXTURES", (6, 6, 6))
    parts = making.folds(str(goemotions), tmp_path)
    small = [tmp_path / f"sample_{fold}" for fold in range(3)]
    making.answers(str(goemotions), parts, [tmp_path / "goemotions_1"], small, tmp_path)
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    expected = itertools.chain(*([part.fold] * len(part.texts) for part in parts))
    for row, fold in zip(rows, expected, strict=True):
        assert float(row["p_anger"]) == pytest.approx(0.9)
        assert float(row["p_sample_anger"]) == pytest.approx(0.2 if fold is None else (fold + 1) / 10)
    chosen = settings(
        "experiment=tiny_pretrain", f"data.train={tmp_path / 'train.csv'}", "model.path=tiny",
        f"data.validation={tmp_path / 'validation.csv'}", f"distill.answers={tmp_path / 'answers.csv'}",
    )  # fmt: skip
    assert chosen.distill.weight == 1
    before = len(asked)
    making.answers(str(goemotions), parts, [], [], tmp_path)  # done already
    assert len(asked) == before
    with (tmp_path / "validation.csv").open(newline="", encoding="utf-8") as opened:
        held = list(csv.DictReader(opened))
    sample = official.sample().splits["validation"]
    assert sample.targets is not None and len(held) == 12 + len(sample.texts)
    gold = [[int(row[name]) for name in OWN] for row in held[12:]]
    np.testing.assert_array_equal(gold, sample.targets)


OWN = [f"sample_{name}" for name in official.SEMEVAL_LABELS]


def test_steps_that_are_done_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[list[str]] = []
    monkeypatch.setattr(making.subprocess, "run", lambda command, check: raised.append(command[3:]))
    making._train(tmp_path / "new", "seed=2")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / run_folder.SETTINGS).touch()
    making._train(tmp_path / "begun", "seed=2")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / run_folder.METRICS).touch()
    making._train(tmp_path / "done", "seed=2")
    assert raised == [
        ["seed=2", "logger=none", f"hydra.run.dir={tmp_path / 'new'}"],
        [f"resume={tmp_path / 'begun'}"],
    ]
