"""Training with several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from helpers import warm
from helpers.endings import same_end, weights
from helpers.servers import PATIENCE

PIECES = ["data.max_tokens=16", "data.long_texts=windows"]


@pytest.mark.parametrize(
    ("trainer", "further"),
    [
        pytest.param("ddp", [], id="whole texts"),
        pytest.param("ddp", PIECES, id="pieces of long texts", marks=pytest.mark.exhaustive),
        pytest.param("fsdp", ["model.quantization=none", "peft=lora", "peft.dropout=0"], id="spread"),
        pytest.param(
            "fsdp",
            [*PIECES, "trainer.accumulate_grad_batches=2", "callbacks.ema_decay=0.5"],
            id="4 bits, spread",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_two_processes_give_the_numbers_of_one_on_the_same_batches(
    run: Any, tmp_path: Path, trainer: str, further: list[str]
) -> None:
    # 97 rows do not divide: each must still count once.
    small = [o for o in SMALL if not o.startswith("data.max_rows")]
    asked = [*small, *further, "data.max_rows=97", "trainer.max_epochs=2"]
    assert run("train", *asked, "trainer.accelerator=cpu", "data.batch_size=32", "hydra.run.dir=one") == 0
    two = warm.run(
        ["emotion_lightning.train", *asked, f"trainer={trainer}", "trainer.accelerator=cpu",
         "data.batch_size=16", "hydra.run.dir=two"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stderr.count("are spread over 2 processes") == (trainer == "fsdp")
    one, both = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    for split in ("validation", "test"):
        assert both[split]["rows"] == one[split]["rows"] == 97
        assert abs(both[split]["loss"] - one[split]["loss"]) < 1e-5
        assert both[split]["fixed"] == one[split]["fixed"]
    written = [(tmp_path / name / "predictions" / "test.csv").read_text().splitlines() for name in ("one", "two")]
    assert [line.split(",")[0] for line in written[0]] == [line.split(",")[0] for line in written[1]]
    # Adapter and head alone, whole, under the names of one process.
    first, second = (weights(tmp_path / name) for name in ("one", "two"))
    assert {name: value.shape for name, value in first.items()} == {k: value.shape for k, value in second.items()}
    assert all(torch.allclose(value, second[name], atol=1e-5) for name, value in first.items())


def test_several_processes_inside_a_multirun_are_refused(run: Any, capfd: Any) -> None:
    assert (
        run("train", "-m", *SMALL, "trainer=ddp", "trainer.accelerator=cpu", "seed=1,2", "hydra.sweep.dir=sweep") == 1
    )
    assert "would each begin the whole multirun again" in capfd.readouterr().err


_SLOW_TO_CLOSE = """
import atexit, os, time
import psutil
from lightning.fabric.strategies.launchers import subprocess_script
from emotion_lightning import train

def close():
    psutil.wait_procs(psutil.Process().children(), timeout=600)
    time.sleep(1)

# The first process closes long after the other has ended, for Lightning's observer, which looks every five seconds.
subprocess_script._ChildProcessObserver.__init__.__defaults__ = (0.1,)
if "LOCAL_RANK" not in os.environ:
    atexit.register(close)
train.main()
"""


@pytest.mark.parametrize(
    "trainer",
    [pytest.param("ddp", marks=pytest.mark.slow), pytest.param("fsdp", marks=pytest.mark.exhaustive)],
)
def test_two_processes_stop_together_and_go_on(tmp_path: Path, trainer: str) -> None:
    import signal
    import time

    command = [sys.executable, "-m", "emotion_lightning.train"]
    asked = [*SMALL, "peft=lora", f"trainer={trainer}", "trainer.accelerator=cpu", "data.batch_size=8"]
    asked += ["trainer.max_epochs=10", "callbacks=no_early_stopping", "trainer.checkpoint_every=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "train_slowly.py").write_text(_SLOW_TO_CLOSE)
    process = subprocess.Popen([sys.executable, "train_slowly.py", *asked, "hydra.run.dir=parts"], cwd=tmp_path,
                               env=environment, stderr=subprocess.PIPE, text=True)  # fmt: skip
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + PATIENCE
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    # To the first process alone, as a scheduler may send it.
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, message[-3000:]
    assert message.count("Stopped by SIGTERM") == 1
    for line in ([*asked, "hydra.run.dir=whole"], ["resume=parts"]):
        done = warm.run(
            [*command, *line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr[-3000:]
    same_end(tmp_path / "whole", tmp_path / "parts")
