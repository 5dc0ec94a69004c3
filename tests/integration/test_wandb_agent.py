"""`wandb sweep` and `wandb agent`, the real programs, against a stand-in for their server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL
from helpers import wandb_server
from helpers.servers import PATIENCE

from emotion_lightning.errors import Stopped
from emotion_lightning.training.callbacks.signals import StopOnSignal

CONF = Path(__file__).parents[2] / "conf"
# What the server adds to the parameters of the file, so that a run takes seconds.
QUICK = {name: yaml.safe_load(value) for name, _, value in (o.partition("=") for o in SMALL) if name != "logger"}


def run_with(folder: Path, *arguments: str) -> Path:
    """The run folder whose command line has these arguments."""
    for file in folder.glob("outputs/train/*/*/environment.json"):
        if set(arguments) <= set(json.loads(file.read_text())["starts"][0]["command"]):
            return file.parent
    raise AssertionError(f"no run with {arguments}")


@pytest.mark.slow
def test_an_agent_works_through_a_sweep_of_which_one_run_fails_and_one_is_stopped_early(tmp_path: Path) -> None:
    asks: dict[str, dict[str, Any]] = {
        "good": {**QUICK, "model": "tiny", "peft": "ia3_all", "optimizer.lr": 0.003, "trainer.max_epochs": 2},
        "bad": {**QUICK, "peft": "ia3", "optimizer.lr": 1e39, "optimizer.warmup": 0,
                "trainer.gradient_clip_val": "null"},
        "behind": {**QUICK, "peft": "ia3", "callbacks": "no_early_stopping", "trainer.max_epochs": 100_000},
    }  # fmt: skip

    def stops(run_id: str, run: wandb_server.Run) -> bool:
        return run_id == "behind" and len(run.logged("val/f1_macro")) >= 3

    with wandb_server.Server(asks, stops) as server:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **server.environment(), "PATH": path, "WANDB_AGENT_KILL_DELAY": str(PATIENCE)}
        # In the folder of the test, where the agent keeps files of its own too.
        made = subprocess.run(
            ["wandb", "sweep", str(CONF / "wandb_sweep" / "ia3_bayes.yaml")], env=environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        name = f"{wandb_server.ENTITY}/emotion_lightning/{wandb_server.SWEEP}"
        assert f"wandb agent {name}" in made.stderr
        assert yaml.safe_load(server.sweep)["early_terminate"]["type"] == "hyperband"
        agent = subprocess.run(
            ["wandb", "agent", name], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
        )
        assert agent.returncode == 0, agent.stderr[-3000:]
    good, bad, behind = (server.runs[name] for name in asks)

    folder = run_with(tmp_path, "peft=ia3_all")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert good.exit_code == 0 and not good.stopped
    # Once in each validation and never beside it: what hyperband counts.
    assert len(good.logged("val/f1_macro")) == 2
    assert good.summary["validation/f1_macro"] == pytest.approx(metrics["validation"]["global"]["f1_macro"])
    # The swept group keeps its name, and what it stands for can be read beside it.
    assert (good.config["peft"], good.config["options.peft"], good.config["peft.lr"]) == ("ia3_all", "ia3_all", 0.01)
    assert good.config["optimizer.lr"] == 0.003

    assert bad.exit_code == 1 and "The loss is" in agent.stderr

    folder = run_with(tmp_path, "trainer.max_epochs=100000")
    assert behind.stopped and behind.exit_code == 0  # or its scores would not count in the search
    assert len(behind.logged("val/f1_macro")) >= 3
    assert not (folder / "metrics.json").exists()
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0
    assert "Stopped by SIG" in (folder / "train.log").read_text()
    assert "shutting down" not in agent.stderr


def test_the_two_signals_that_stop_a_run_of_a_sweep_are_one_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    callback = StopOnSignal(Path("last.ckpt"))
    monkeypatch.setenv("WANDB_SWEEP_ID", "swp1")
    callback._note(signal.SIGINT, None)
    callback._note(signal.SIGTERM, None)  # the agent's, which comes some seconds after W&B's own
    with pytest.raises(Stopped):
        callback._note(signal.SIGINT, None)  # a person's second Ctrl-C
    monkeypatch.delenv("WANDB_SWEEP_ID")
    with pytest.raises(Stopped):
        callback._note(signal.SIGTERM, None)


def test_a_run_of_a_sweep_ends_by_the_signal_itself(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom emotion_lightning.cli import app\n"
        "app.run_command('inspect', lambda *_: os.kill(os.getpid(), signal.SIGTERM))"
    )
    for sweep, expected in ({"WANDB_SWEEP_ID": "swp1"}, -15), ({}, 143):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **sweep}, timeout=PATIENCE)
        assert done.returncode == expected
