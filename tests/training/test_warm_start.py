"""A run that starts from what an earlier one has learned."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from helpers.tables import other_labels
from safetensors.torch import load_file, save_file

from emotion_lightning.runs import run_folder
from emotion_lightning.training import warm_start

FULL = [*SMALL, "peft=full", "model.quantization=none", "trainer=debug"]
LONG = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "optimizer.lr=1e-12", "optimizer.head_lr=1e-12"]
"""A run that hardly moves, so that what it holds at its end is what it started from."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    adapter = folder / "model" / "adapter_model.safetensors"
    return load_file(adapter if adapter.exists() else folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import run_in_process

    folder = tmp_path_factory.mktemp("runs") / "full"
    assert run_in_process("train", *FULL, f"hydra.run.dir={folder}") == 0
    return folder


def test_an_adapter_starts_from_an_earlier_one_and_labels_go_by_name(run: Any, finished: Path, tmp_path: Path) -> None:
    assert run("train", *other_labels(tmp_path / "a.csv"), *LONG, f"init_from={finished}", "hydra.run.dir=out") == 0
    before, after = weights(finished), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    theirs = json.loads((finished / "model" / "emotion_lightning.json").read_text())["labels"]
    for name, value in after.items():
        if "score" not in name:
            torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)
            continue
        for row, label in enumerate(["trust", "calm", "anger", "joy"]):
            if label in theirs:
                torch.testing.assert_close(value[row], before[name][theirs.index(label)], atol=1e-6, rtol=0)
            else:
                assert not any(torch.allclose(value[row], other, atol=1e-4) for other in before[name])
    assert Path(run_folder.read_settings(tmp_path / "out")["init_from"]) == finished


@pytest.mark.slow
def test_a_whole_network_starts_from_an_earlier_one(run: Any, full: Path, tmp_path: Path) -> None:
    arguments = [*other_labels(tmp_path / "a.csv"), *LONG, "peft=full", "model.quantization=none"]
    assert run("train", *arguments, f"init_from={full / 'model'}", "hydra.run.dir=out", "seed=9") == 0
    before, after = weights(full), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, value in after.items():
        if "score" not in name:
            torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0, msg=name)


@pytest.mark.slow
def test_a_resumed_run_goes_on_from_its_checkpoint_and_not_from_the_start(
    run: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_lightning.training import finalize

    def killed(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed")

    small = [*SMALL, "trainer=debug", f"init_from={finished}"]
    assert run("train", *small, "hydra.run.dir=whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(finalize, "finish", killed)
        assert run("train", *small, "hydra.run.dir=parts") == 1
    monkeypatch.setattr(warm_start, "start_from_run", killed)
    assert run("train", "resume=parts") == 0
    assert weights(tmp_path / "whole")["base_model.model.score.weight"].equal(
        weights(tmp_path / "parts")["base_model.model.score.weight"]
    )


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ([], None),
        (["data.clean=[html,newlines]"], "data.clean=[]"),
        (["data.template='{text} Feelings:'"], "data.template=None"),
        (["data.question=Other? {labels} {text}"], None),  # that of a chat template, which neither uses
    ],
)
def test_a_start_from_weights_that_saw_other_texts_is_told(
    run: Any, finished: Path, capfd: Any, asked: list[str], named: str | None
) -> None:
    assert run("train", *SMALL, "trainer=debug", f"init_from={finished}", *asked, "hydra.run.dir=out") == 0
    raised = capfd.readouterr().err
    assert ("saw its texts with" in raised) == (named is not None)
    assert named is None or f"saw its texts with {named}, which this run does otherwise" in raised


def test_what_does_not_fit_is_refused_by_name(run: Any, finished: Path, full: Path, tmp_path: Path, capfd: Any) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(finished, damaged)
    file = damaged / "model" / "adapter_model.safetensors"
    values = load_file(file)
    values.pop(next(name for name in values if "ia3" in name))
    save_file(values, file)
    for arguments, message in [
        ([*SMALL, f"init_from={full}"], "puts an adapter on its weights"),
        ([*FULL, f"init_from={finished}"], "is of peft=full"),
        ([*SMALL, "peft=lora", f"init_from={finished}"], "was trained with another peft option"),
        ([*SMALL, "seed=7", f"init_from={finished}"], "this run's base is another"),
        ([*SMALL, "init_from=nowhere"], "init_from=nowhere is not a folder"),
        ([*SMALL, f"init_from={damaged}"], "which this run trains"),
        (
            [*FULL, "model.architecture.intermediate_size=64", f"init_from={full}"],
            "is of another model or of other peft settings",
        ),
    ]:
        assert run("train", *arguments, "hydra.run.dir=out") == 2, arguments
        assert message in capfd.readouterr().err
        assert not (tmp_path / "out" / "metrics.json").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


@pytest.mark.slow
def test_folds_share_out_the_rows_and_each_validates_once(run: Any, tmp_path: Path) -> None:
    assert run("train", "-m", *SMALL, "trainer=debug", "sweep=folds", "data.folds=3", "hydra.sweep.dir=out",
               "hydra.sweeper.params={data.fold: '1,2,3'}") == 0  # fmt: skip
    seen: list[str] = []
    for job in range(3):
        lines = (tmp_path / "out" / str(job) / "predictions" / "validation.csv").read_text().splitlines()
        seen += [line.split(",")[0] for line in lines[1:]]
    assert len(seen) == len(set(seen)) > 150
