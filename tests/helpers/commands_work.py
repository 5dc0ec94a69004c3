"""Run the commands on the bundled texts with the Python that runs this: `make check-lowest`, and CI's jobs of versions.

python tests/helpers/commands_work.py [extra …]     # those that are installed, of: mlflow onnx tensorboard tune

Each command is a process of its own, in an empty folder and without network; the first that fails ends it with its
output.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICK = ["data.max_rows=96", "trainer=debug"]
EXTRAS = {
    "mlflow": [["train", *QUICK, "logger=mlflow", "hydra.run.dir=mlflow"]],
    "onnx": [
        ["export", "run=run", "output=graph", "format=onnx_int8"],
        ["predict", "run=graph", "input=texts.csv", "output=by_graph.csv"],
    ],
    "tensorboard": [["train", *QUICK, "logger=tensorboard", "hydra.run.dir=tensorboard"]],
    "tune": [["tune", "space=learning_rate", "study.trials=2", *QUICK, "hydra.run.dir=tune"]],
}


def main() -> None:
    lines = [
        ["train", "data.max_rows=200", "trainer.max_epochs=1", "hydra.run.dir=run"],
        ["evaluate", "run=run", "hydra.run.dir=scored"],
        ["predict", "run=run", "input=texts.csv", "output=labelled.csv"],
        ["predict", "text=I never thought they would come."],
        ["train", *QUICK, "peft=full", "model.quantization=none", "hydra.run.dir=full"],
        ["train", *QUICK, "peft=lora", "model.quantization=int8", "hydra.run.dir=lora"],
        ["export", "run=run", "output=adapter", "format=adapter"],
        ["export", "run=run", "output=merged", "format=merged"],
        ["predict", "run=merged", "input=texts.csv", "output=by_merged.csv"],
        ["inspect", "hydra.run.dir=card"],
        ["baseline", "data.max_rows=200", "hydra.run.dir=floor"],
        ["compare", "runs=[run,floor]"],
        *(line for extra in sys.argv[1:] for line in EXTRAS[extra]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "texts.csv").write_text("text\nWe won!\nRain again.\n")
        for verb, *arguments in lines:
            _run(work, verb, arguments)
        scores = json.loads((work / "run" / "metrics.json").read_text())
        assert 0 < scores["test"]["map"] < 1
        again = json.loads((work / "scored" / "metrics.json").read_text())["test"]["map"]
        assert abs(scores["test"]["map"] - again) < 1e-6, (scores["test"]["map"], again)
        for file in sorted(work.glob("*.csv")):
            with file.open(newline="") as opened:
                assert len(list(csv.DictReader(opened))) == 2, file.name
    print(f"{len(lines)} commands work")


def _run(folder: Path, verb: str, arguments: list[str]) -> None:
    start = time.monotonic()
    # W&B finds by itself that there is no key: with WANDB_MODE it would not be asked, and an old one could not answer.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", f"emotion_lightning.{verb}", *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    print(f"{time.monotonic() - start:5.0f} s  {verb} {' '.join(arguments)}", flush=True)
    if done.returncode or "Traceback" in done.stdout:
        sys.exit(f"{done.stdout}\nended with code {done.returncode}")


if __name__ == "__main__":
    main()
