"""What a run was made with."""

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from emotion_lightning import environment, redaction


def test_a_run_folder_tells_what_it_was_made_with(finished: Path) -> None:
    (start,) = json.loads((finished / "environment.json").read_text())["starts"]
    card = json.loads((finished / "model" / "emotion_lightning.json").read_text())
    assert any(argument == "trainer.max_epochs=1" for argument in start["command"])
    assert start["versions"]["torch"] == importlib.metadata.version("torch")
    assert start["versions"] == card["versions"]
    assert start["data_hashes"] == card["data_hashes"] and len(start["data_hashes"]["train"]) == 64
    assert start["hardware"]["cores"] >= 1 and start["hardware"]["memory_bytes"] > 2**28
    assert set(start) >= {"time", "folder", "git", "python", "system", "variables"}


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
