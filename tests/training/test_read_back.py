"""A run reads its own model folder back before it says that it is finished."""

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from safetensors.torch import load_file, save_file

from emotion_lightning import config, load
from emotion_lightning.errors import UserError
from emotion_lightning.inference import predictor
from emotion_lightning.models import model_folder
from emotion_lightning.training import read_back

TEXTS = ["I never thought they would come.", "No.", "Rain again, and the boiler is out."]
CPU = config.Accelerator.cpu


def change(folder: Path, **named: float) -> None:
    """Multiply the tensors of an adapter whose names hold a part."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    found = [name for part in named for name in tensors if part in name]
    assert found
    save_file(
        tensors | {n: tensors[n] * f for p, f in named.items() for n in tensors if p in n}, file, {"format": "pt"}
    )


def test_a_folder_that_gives_other_probabilities_is_told(finished: Path, tmp_path: Path) -> None:
    logits = load(finished, accelerator="cpu").outputs(TEXTS)[0]
    folder = shutil.copytree(finished / "model", tmp_path / "run" / "model")
    shutil.copytree(finished / "base", tmp_path / "run" / "base")
    read_back.check_read_back(folder, TEXTS, logits, accelerator=CPU)
    change(folder, score=1.5)
    with pytest.raises(UserError, match=r"gives other probabilities .*by up to 0\.\d"):
        read_back.check_read_back(folder, TEXTS, logits, accelerator=CPU)
    with pytest.raises(UserError, match="gives other probabilities"):  # of a comparison with NaN
        read_back.check_read_back(folder, TEXTS, logits * float("nan"), accelerator=CPU)


def test_a_base_that_was_spread_is_read_back_on_the_cpu(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller = load(finished, accelerator="cpu")
    monkeypatch.setattr(
        predictor, "open_folder", lambda folder, metadata, *, accelerator: asked.append(accelerator) or labeller
    )
    monkeypatch.setattr(read_back, "device_for", lambda accelerator: torch.device(accelerator.value))
    # As the rounding of a GPU in bfloat16, where this CPU may compute in float32.
    monkeypatch.setattr(read_back, "compute_dtype", lambda _, on: torch.float32 if on.type == "cpu" else torch.bfloat16)
    asked: list[config.Accelerator] = []
    logits = labeller.outputs(TEXTS)[0] + 0.05
    mps = config.Accelerator.mps
    read_back.check_read_back(finished / "model", TEXTS, logits, accelerator=mps, spread=True)
    assert asked == [CPU]
    with pytest.raises(UserError, match="gives other probabilities"):
        read_back.check_read_back(finished / "model", TEXTS, logits, accelerator=CPU, spread=True)


def test_a_run_whose_folder_lost_something_is_not_finished(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = model_folder.save_model

    def loses(folder: Path, network: Any, **others: Any) -> None:
        save(folder, network, **others)
        change(folder, score=0.0)

    monkeypatch.setattr(model_folder, "save_model", loses)
    line = ["train", *SMALL, "trainer=debug", "optimizer.head_lr=0.1"]
    assert run(*line, "hydra.run.dir=out") == 2
    assert "is not finished" in capfd.readouterr().err and not (tmp_path / "out" / "metrics.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run("train", "resume=out") == 0 and (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize("options", [[], ["peft=full", "model.quantization=none"]], ids=["adapter", "full"])
def test_a_network_is_let_go_before_it_is_read_back(
    run: Any, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    save, open_folder, alive, weights = model_folder.save_model, predictor.open_folder, [], []

    def watched(folder: Path, network: Any, **others: Any) -> None:
        weights.extend(weakref.ref(parameter) for parameter in network.parameters())
        save(folder, network, **others)

    def opened(*given: Any, **others: Any) -> Any:
        gc.collect()
        alive.append(sum(one() is not None for one in weights))
        return open_folder(*given, **others)

    monkeypatch.setattr(model_folder, "save_model", watched)
    monkeypatch.setattr(predictor, "open_folder", opened)
    assert run("train", *SMALL, *options, "trainer=debug", "hydra.run.dir=out") == 0
    assert len(weights) > 10 and alive == [0]
