"""Cost against the number of rows and the length of texts: prediction in a stream, training steps by length.

python benchmarks/scaling.py [--rows 1000,10000,100000] [--lengths 8,16,32,64,128,256]
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import commands
import common
import prediction
import training


def main() -> None:
    """Measure, print and write."""
    parser = common.options(__doc__, ["rows", "length"])
    parser.add_argument("--rows", default="1000,10000,100000")
    parser.add_argument("--lengths", default="8,16,32,64,128,256")
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        common.measure(lambda: _steps(asked), asked.device)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prediction.train(folder, asked.network)
        results = {"rows": _rows(folder, asked), "lengths": _lengths(folder, asked)}
    print("written to", common.report("scaling", {"network": asked.network, **results}))


def _rows(folder: Path, asked: argparse.Namespace) -> dict[int, dict[str, float]]:
    """The predict command on files of growing size, start-up included."""
    found = {}
    print("predict, a file of so many rows, the whole command")
    for count in map(int, asked.rows.split(",")):
        source = folder / f"{count}.csv"
        with source.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(["text"])
            writer.writerows([text] for text in common.texts(count, asked.data)[0])
        command = [sys.executable, "-m", "emotion_lightning.predict", f"run={folder / asked.network}",
                   f"input={source}", f"output={folder / 'labelled.csv'}"]  # fmt: skip
        seconds, peak, code = commands.measure(command, common.environment())
        if code:
            sys.exit(f"predict failed: {' '.join(command)}")
        found[count] = {"seconds": seconds, "peak_bytes": peak}
        print(
            f"{count:9,} rows {seconds:8.1f} s {count / seconds:8.0f} rows/s {peak / 2**20:7.0f} MiB",
            flush=True,
        )
    return found


def _lengths(folder: Path, asked: argparse.Namespace) -> dict[int, float]:
    training.base(folder / "bases", asked.network)
    found = {}
    print("training, batches of 32 texts of one length")
    for length in map(int, asked.lengths.split(",")):
        rate = common.measured(
            __file__, "--side=length", f"--network={asked.network}", f"--length={length}",
            f"--folder={folder / 'bases'}", f"--device={asked.device}",
        ).rate  # fmt: skip
        found[length] = rate
        print(f"{length:5} tokens {rate:8.1f} texts/s {rate * length:9.0f} tokens/s", flush=True)
    return found


def _steps(asked: argparse.Namespace) -> tuple[float, int]:
    """Training steps on random tokens, all texts of one length."""
    import torch

    trained = common.trainee(asked, asked.batch_size)
    optimizer, labels = trained.optimizer(), len(trained.emotions.labels)
    batch = {
        "input_ids": torch.randint(5, 4000, (asked.batch_size, asked.length), device=trained.device),
        "targets": torch.randint(0, 2, (asked.batch_size, labels), device=trained.device).float(),
    }
    watch = training.Stopwatch(asked.device)
    steps = training.WARM + max(4, 320 // asked.length)
    for _ in range(steps):
        trained.step(batch, optimizer)
        watch.step()
    return watch.seconds(), (steps - training.WARM) * asked.batch_size


if __name__ == "__main__":
    main()
