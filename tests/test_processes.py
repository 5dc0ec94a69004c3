"""Training with several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import SMALL


def test_two_processes_give_the_numbers_of_one_on_the_same_batches(run: Any, tmp_path: Path) -> None:
    # 97 rows do not divide: each must still count once.
    asked = [*(o for o in SMALL if not o.startswith("data.max_rows")), "data.max_rows=97", "trainer.max_epochs=2"]
    assert run("train", *asked, "trainer.accelerator=cpu", "data.batch_size=32", "hydra.run.dir=one") == 0
    two = subprocess.run(
        [sys.executable, "-m", "emotion_lightning.train", *asked, "trainer=ddp", "trainer.accelerator=cpu",
         "data.batch_size=16", "hydra.run.dir=two"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr[-3000:]
    one, both = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    for split in ("validation", "test"):
        assert both[split]["rows"] == one[split]["rows"] == 97
        assert abs(both[split]["loss"] - one[split]["loss"]) < 1e-5
        assert both[split]["fixed"] == one[split]["fixed"]
    written = [(tmp_path / name / "predictions" / "test.csv").read_text().splitlines() for name in ("one", "two")]
    assert [line.split(",")[0] for line in written[0]] == [line.split(",")[0] for line in written[1]]


def test_several_processes_inside_a_multirun_are_refused(run: Any, capfd: Any) -> None:
    assert (
        run("train", "-m", *SMALL, "trainer=ddp", "trainer.accelerator=cpu", "seed=1,2", "hydra.sweep.dir=sweep") == 1
    )
    assert "would each begin the whole multirun again" in capfd.readouterr().err
