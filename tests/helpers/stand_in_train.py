"""Stands for `train` in tests of studies: the same files and exit codes, without the minutes.

The score depends on the learning rate. Seeds 901 to 904 go wrong, each in its way. STAND_IN_TOGETHER makes a trial wait
until so many have begun, and fail if they do not; STAND_IN_PAUSE is the seconds of an epoch.
"""

import csv
import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    folder, seed = Path(given["hydra.run.dir"]), given.get("seed", "1")
    lr, epochs = float(given.get("optimizer.lr", 0.01)), int(given.get("trainer.max_epochs", 3))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    if seed == "901":
        raise RuntimeError("the library fell over")
    if seed == "902":
        print("data.path=gone.csv does not exist.", file=sys.stderr)
        sys.exit(2)
    if seed == "903":
        os.kill(os.getpid(), signal.SIGKILL)

    (folder / "began").touch()
    patience = time.monotonic() + 120
    while len(list(folder.parent.glob("*/began"))) < int(os.environ.get("STAND_IN_TOGETHER", "0")):
        if time.monotonic() > patience:
            raise RuntimeError("the others have not begun")
        time.sleep(0.05)

    best = 1 - abs(math.log10(lr) + 2) / 4
    rows = []
    for epoch in range(1, epochs + 1):
        time.sleep(float(os.environ.get("STAND_IN_PAUSE", "0")))
        score = best * epoch / epochs
        rows.append({"epoch": epoch, "step": epoch, "val/f1_macro": score, "val/loss": 1 - score})
        with (folder / "part").open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        os.replace(folder / "part", folder / "history.csv")
    scores = {"f1_macro": math.nan if seed == "904" else best, "f1_micro": best, "jaccard": best}
    validation = {"map": best, "lrap": best, "loss": 1 - best, "global": scores}
    parameters = {"lora": 900, "head": 100}.get(given.get("peft", "ia3"), 300)
    cost = {"train_seconds": 10 * lr, "trainable_parameters": parameters, "peak_memory_bytes": 1000}
    (folder / "metrics.json").write_text(json.dumps({"validation": validation, "cost": cost}))


if __name__ == "__main__":
    main()
