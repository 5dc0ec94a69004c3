"""A run that reads long texts in pieces: stored with the model, and the same wherever the model is asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, run_in_process
from helpers import exports
from helpers.readme_code import answers_of_readme
from helpers.tables import read_csv

from emotion_lightning import config, load
from emotion_lightning.config import JoinWindows
from emotion_lightning.data.long_texts import LongTexts
from emotion_lightning.errors import UserError
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import run_folder

TEXTS = [
    "I never thought they would come.",
    "No.",
    "",
    "Rain again, " + "and the boiler is out. " * 20,
    "so happy " * 9,
]


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run in full precision whose texts are nearly all longer than a piece; max_tokens is found by it."""
    folder = tmp_path_factory.mktemp("runs") / "windows"
    chosen = ["model.quantization=none", "model.dtype=float32", "trainer=debug", "data.max_tokens=16",
              "data.long_texts=windows", "data.join_windows=mean", "data.batch_size=8",
              "thresholds.calibration=per_label"]  # fmt: skip
    assert run_in_process("train", *SMALL, *chosen, f"hydra.run.dir={folder}") == 0
    return folder


def answers(folder: Path | str, **batches: int) -> np.ndarray:
    return exports.probabilities(folder, TEXTS, **batches)


def test_pieces_are_told_and_stored_with_the_model(in_pieces: Path) -> None:
    metadata = read_metadata(in_pieces / "model")
    assert metadata.long_texts == LongTexts(config.LongTexts.windows, 3, 8, JoinWindows.mean)
    assert metadata.template is not None and not metadata.template.has_words
    told = (in_pieces / "train.log").read_text()
    assert "data.long_texts=windows reads 9" in told and "data.template" not in told
    readme = (in_pieces / "model" / "README.md").read_text()
    assert "in overlapping pieces of 16 tokens, up to 8 of them, and joins their logits by the mean" in readme
    assert "{text}" not in readme and "pipeline(" not in readme


def test_an_answer_does_not_depend_on_the_batch(in_pieces: Path) -> None:
    whole = answers(in_pieces)
    for batches in ({"batch_size": 1}, {"batch_size": 3}, {"batch_tokens": 40}):
        np.testing.assert_allclose(answers(in_pieces, **batches), whole, atol=1e-6)
    run = load(in_pieces, accelerator="cpu")
    alone = np.concatenate([run.probabilities([text]).numpy() for text in TEXTS])
    np.testing.assert_allclose(alone, whole, atol=1e-6)


def test_a_text_has_the_mean_of_its_pieces(in_pieces: Path) -> None:
    run = load(in_pieces, accelerator="cpu")
    tokens = run.tokenize([TEXTS[3]])[0]
    assert tokens.counts is not None and tokens.counts.tolist() == [8]  # more than eight are not read
    pieces, _ = run.compute([tokens.by_piece()])
    joined, _ = run.compute([tokens])
    torch.testing.assert_close(joined[0], pieces.mean(0))


def test_it_is_evaluated_as_it_was_scored(run: Any, in_pieces: Path) -> None:
    assert run("evaluate", f"run={in_pieces}", "split=validation", "accelerator=cpu", "hydra.run.dir=out") == 0
    own, again = (
        {row["id"]: row for row in read_csv(folder / "predictions" / "validation.csv")}
        for folder in (in_pieces, Path("out"))
    )
    assert own.keys() <= again.keys()  # the debug trainer scores the first batches only
    for identifier, row in own.items():
        shares = [(float(row[name]), float(again[identifier][name])) for name in row if name.startswith("p_")]
        np.testing.assert_allclose(*zip(*shares, strict=True), atol=2e-5)


def test_transformers_alone_gives_the_same_answers_with_the_code_of_the_readme(in_pieces: Path) -> None:
    np.testing.assert_allclose(answers_of_readme(in_pieces / "model", TEXTS), answers(in_pieces), atol=1e-5)


@pytest.mark.parametrize("way", ["cut_start", "middle", "windows"])
def test_the_code_of_the_readme_reads_texts_in_each_way(in_pieces: Path, tmp_path: Path, way: str) -> None:
    from emotion_lightning.inference import hub_card

    copy = Path(shutil.copytree(in_pieces / "model", tmp_path / "run" / "model"))
    shutil.copytree(in_pieces / "base", tmp_path / "run" / "base")
    content = json.loads((copy / METADATA).read_text())
    content["long_texts"] |= {"way": way, "join": "maximum", "most": 4}
    (copy / METADATA).write_text(json.dumps(content))
    (copy / "README.md").write_text(hub_card.folder_readme(read_metadata(copy), method="ia3", scores=""))
    np.testing.assert_allclose(answers_of_readme(copy, TEXTS), answers(copy), atol=1e-5)
    assert np.abs(answers(copy) - answers(in_pieces)).max() > 1e-4


def test_members_of_an_ensemble_read_long_texts_in_their_own_ways(in_pieces: Path, finished: Path) -> None:
    both = load([in_pieces, finished], accelerator="cpu")
    mean = (torch.tensor(answers(in_pieces)).double() + torch.tensor(answers(finished)).double()) / 2
    torch.testing.assert_close(both.probabilities(TEXTS).double(), mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [({"overlap": 15}, "is damaged: long_texts"), ({"most": 0}, "impossible size or number"), ({"way": "x"}, "'x'")],
)
def test_damage_is_named(in_pieces: Path, tmp_path: Path, damage: dict[str, Any], message: str) -> None:
    copy = Path(shutil.copytree(in_pieces / "model", tmp_path / "model"))
    content = json.loads((copy / METADATA).read_text())
    content["long_texts"] |= damage
    (copy / METADATA).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_metadata(copy)


def test_a_folder_that_cuts_the_end_has_no_such_entry(finished: Path) -> None:
    content = json.loads((finished / "model" / METADATA).read_text())
    assert "long_texts" not in content and "template" not in content
    assert content["data"]["long_texts"] == "cut_end"


def test_auto_is_stored_as_the_number_that_it_gave(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", *SMALL, "trainer=debug", "data.max_tokens=auto", "hydra.run.dir=out") == 0
    found = run_folder.read_settings(Path("out"))["data"]["max_tokens"]
    assert isinstance(found, int) and f"data.max_tokens=auto is {found}: enough for " in capfd.readouterr().err
    assert read_metadata(Path("out/model")).max_tokens == found


@pytest.mark.parametrize("form", exports.FORMS)
def test_exports_answer_as_the_run_does(run: Any, in_pieces: Path, form: str) -> None:
    exported = exports.check_export(run, in_pieces, form, TEXTS)
    assert exported.long_texts == read_metadata(in_pieces / "model").long_texts
