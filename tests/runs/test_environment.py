"""What a run was made with."""

import importlib.metadata
import json
import platform
import subprocess
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_lightning import __version__, config
from emotion_lightning.config import redaction
from emotion_lightning.data.batches import EmotionRows, Tokens
from emotion_lightning.errors import UserError
from emotion_lightning.models.device import device_for
from emotion_lightning.runs import environment, slurm


def test_a_run_folder_tells_what_it_was_made_with(finished: Path) -> None:
    (start,) = json.loads((finished / "environment.json").read_text())["starts"]
    metadata = json.loads((finished / "model" / "emotion_lightning.json").read_text())
    assert any(argument == "trainer.max_epochs=1" for argument in start["command"])
    assert start["versions"]["torch"] == importlib.metadata.version("torch")
    assert start["versions"] == metadata["versions"]
    assert start["data_hashes"] == metadata["data_hashes"] and len(start["data_hashes"]["train"]) == 64
    assert start["hardware"]["cores"] >= 1 and start["hardware"]["memory_bytes"] > 2**28
    assert set(start) >= {"time", "folder", "git", "python", "system", "variables"}


@pytest.mark.parametrize("content", ["[1, 2]", '{"starts": 3}', "{"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "environment.json").write_text(content)
    with pytest.raises(UserError, match=r"environment\.json"):
        environment.record(tmp_path, arguments=[], data_hashes={})
    assert (tmp_path / "environment.json").read_text() == content


def test_the_commit_and_whether_it_was_changed_are_told(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert environment.git(tmp_path) is None
    git("init")
    (tmp_path / "a.py").write_text("1\n")
    git("add", "a.py")
    git("commit", "-m", "first")
    assert environment.git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "untracked").write_text("")
    assert environment.git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a.py").write_text("2\n")
    assert environment.git(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": True}


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("optimizer.lr=1", "optimizer.lr=1"),
        ("hub.token=abc", "hub.token=<redacted>"),
        ("+logger.api_key=abc", "+logger.api_key=<redacted>"),
        ("data.max_tokens=64", "data.max_tokens=64"),
        ("model.roles.key=.*k_proj", "model.roles.key=.*k_proj"),
        ("-m", "-m"),
    ],
)
def test_secrets_on_the_command_line_are_not_kept(argument: str, kept: str) -> None:
    assert redaction.argument(argument) == kept


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run: Any, tmp_path: Path) -> None:
    from conftest import SMALL

    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        assert run("train", *SMALL, "peft=lora", "trainer=debug", f"seed={seed}", f"hydra.run.dir={name}") == 0
    kept = {
        name: torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "same", "other")
    }
    assert all(torch.equal(value, kept["same"][name]) for name, value in kept["one"].items())
    assert not all(torch.equal(value, kept["other"][name]) for name, value in kept["one"].items())


class _Trainer:
    """What a part asks Lightning's trainer for, where the machine has a GPU and the CPU is trained on."""

    global_rank, world_size = 0, 1

    def __init__(self, device: str) -> None:
        self.strategy = types.SimpleNamespace(root_device=torch.device(device))


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four GPUs, as far as torch tells; whoever asks one for more gets an error."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("get_rng_state", "max_memory_allocated", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("the GPU was asked"))


def test_training_on_the_cpu_of_a_machine_with_a_gpu_measures_and_uses_the_cpu(
    with_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.training.callbacks import Clock
    from emotion_lightning.training.classifier import EmotionClassifier

    clock = Clock()
    clock.setup(_Trainer("cpu"), None, "fit")
    clock._since = 0.0
    assert clock.cost(1)["peak_memory_bytes"] > 10**6 and clock.state_dict()["seconds"] > 0

    class Data(EmotionData):
        def __init__(self, device: str) -> None:
            self.settings = types.SimpleNamespace(workers=0)
            self.tokenizer, self.seed = types.SimpleNamespace(pad_token_id=0), 1
            self.trainer = _Trainer(device)

    rows = EmotionRows(Tokens(np.zeros(4, np.int32), np.arange(5)), np.zeros((4, 1), np.float32))
    for device, pinned in (("cpu", False), ("cuda:0", True)):
        assert Data(device)._loader(rows, [[0, 1]]).pin_memory is pinned

    class Classifier(EmotionClassifier):
        device, trainer, identity, global_step = torch.device("cpu"), _Trainer("cpu"), {}, 0  # type: ignore[assignment]

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

    checkpoint: dict[str, Any] = {"state_dict": {}}
    Classifier().on_save_checkpoint(checkpoint)
    assert checkpoint["random"][0]["cuda"] is None


@pytest.mark.parametrize(
    ("variables", "device", "plugins"),
    [
        ({}, 0, 0),
        ({"LOCAL_RANK": "2"}, 2, 0),
        ({"SLURM_LOCALID": "3"}, 3, 1),
        ({"SLURM_LOCALID": "6"}, 2, 1),  # each process of a node may see some of its GPUs only
        ({"SLURM_LOCALID": "3", "LOCAL_RANK": "1", "SUBMITIT_EXECUTOR": "slurm"}, 3, 1),
        ({"SLURM_LOCALID": "0", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "7"}, 1, 0),  # torchrun in a SLURM job
        ({"SLURM_LOCALID": "3", "SLURM_JOB_NAME": "bash"}, 0, 0),
        ({"SLURM_NTASKS": "1"}, 0, 1),  # a part of the variables
    ],
)
def test_each_process_of_a_node_has_the_gpu_that_lightning_gives_it(
    with_gpus: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], device: int, plugins: int
) -> None:
    job = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NAME": "emotions", "SLURM_PROCID": "7"}
    for name in (*job, "SLURM_LOCALID", "SLURM_JOB_ID", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever the code below sets
        monkeypatch.delenv(name)
    for name, value in ((job if "SLURM_LOCALID" in variables else {}) | variables).items():
        monkeypatch.setenv(name, value)
    assert device_for(config.Accelerator.gpu) == torch.device("cuda", device)
    assert len(slurm.lightning_plugins()) == plugins
    slurm.set_local_rank(1)  # as the processes of `predict devices=` do
    assert device_for(config.Accelerator.gpu) == torch.device("cuda", 1)


@pytest.mark.parametrize("command", config.COMMANDS)
def test_the_version_told_is_that_of_this_program(command: str, run: Any, capfd: Any) -> None:
    assert run(command, "--version") == 0
    first, *others = capfd.readouterr().out.splitlines()
    assert first == f"emotion_lightning {__version__}, Python {platform.python_version()}"
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    assert others == [f"{name} {importlib.metadata.version(name)}" for name in packages]


def test_the_version_kept_is_that_of_the_code() -> None:
    assert environment.versions()["emotion-lightning"] == __version__
