"""Labelling with workers of Ray: cost against rows, one worker against two, against one process and against Ray Data.

python benchmarks/cluster.py [--rows 10000,100000,2000000] [--network baseline|bundled] [--sides predict,ray1,ray2,hand]

Sides, each a whole command on one csv file in a process of its own: `predict`, one process; `ray1` and `ray2`,
engine=ray with so many workers of one core each; `hand`, what a good user of Ray Data and Transformers' pipeline would
write (only for the bundled network, exported with format=merged). Told are the seconds of the whole command and of the
processor, the rows a second between the smallest and the largest file (without start-up), and the most memory that the
driver and the largest worker held.
"""

import argparse
import csv
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import psutil

SIDES = ("predict", "ray1", "ray2", "hand")


@dataclass
class Cost:
    """What a command took.

    Attributes:
        seconds: of the clock.
        cpu_seconds: of all of its processes.
        driver_bytes: most memory of its first process.
        worker_bytes: most memory of one of Ray's workers.
    """

    seconds: float
    cpu_seconds: float
    driver_bytes: int
    worker_bytes: int


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--network", choices=["baseline", "bundled"], default="baseline")
    parser.add_argument("--sides", default="predict,ray1,ray2")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--rows-per-part", type=int, default=20000)
    parser.add_argument("--data", help="folder of GoEmotions; without it, the bundled sample's texts")
    parser.add_argument("--hand", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.hand:
        by_hand(*asked.hand)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = _run(folder, asked)
        counts = sorted(map(int, asked.rows.split(",")))
        found: dict[str, dict[int, list[Cost]]] = {side: {} for side in asked.sides.split(",")}
        for count, turn in itertools.product(counts, range(asked.turns)):
            source = _texts(folder, count, asked.data)
            for side in found if turn % 2 == 0 else reversed(found):
                cost = _cost(side, source, folder, run, asked)
                found[side].setdefault(count, []).append(cost)
                print(
                    f"{side:8} {count:10,} rows {cost.seconds:8.1f} s {cost.cpu_seconds:8.1f} s of CPU   driver "
                    f"{cost.driver_bytes / 2**20:6.0f} MiB, worker {cost.worker_bytes / 2**20:6.0f} MiB",
                    flush=True,
                )
        for side, costs in found.items() if len(counts) > 1 else ():
            few, many = (min(one.seconds for one in costs[count]) for count in (counts[0], counts[-1]))
            rate = (counts[-1] - counts[0]) / (many - few)
            print(f"{side:8} {rate:10,.0f} rows/s between {counts[0]:,} and {counts[-1]:,} rows")
        results = {
            side: {count: [asdict(cost) for cost in costs] for count, costs in by_rows.items()}
            for side, by_rows in found.items()
        }
    print("written to", common.report("cluster", {"settings": vars(asked), "sides": results}))


def _run(folder: Path, asked: argparse.Namespace) -> list[str]:
    """The setting that names the run; what `hand` loads is in the folder `merged`."""
    if asked.network == "baseline":
        common.output("-m", "emotion_lightning.baseline", f"hydra.run.dir={folder / 'baseline'}")
        return [f"run={folder / 'baseline'}"]
    if "hand" in asked.sides.split(","):
        from emotion_lightning.models.backbone import BUNDLED_RUN

        common.output("-m", "emotion_lightning.export", f"run={BUNDLED_RUN}", f"output={folder / 'merged'}",
                      "format=merged", f"hydra.run.dir={folder / 'log'}")  # fmt: skip
    return []


def _texts(folder: Path, count: int, data: str | None) -> Path:
    source = folder / f"{count}.csv"
    if not source.exists():
        known = common.texts(10_000, data)[0]
        with source.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(["id", "text"])
            writer.writerows([number, text] for number, text in zip(range(count), itertools.cycle(known)))  # noqa: B905
    return source


def _cost(side: str, source: Path, folder: Path, run: list[str], asked: argparse.Namespace) -> Cost:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    predict = [sys.executable, "-m", "emotion_lightning.predict", *run, f"input={source}", "accelerator=cpu",
               f"hydra.run.dir={folder / 'log'}"]  # fmt: skip
    match side:
        case "predict":
            command = [*predict, f"output={folder / 'out.parquet'}"]
        case "hand":
            command = [sys.executable, __file__, "--hand", str(folder / "merged"), str(source), str(out)]
        case _:
            command = [*predict, f"output={out}", "engine=ray", f"devices={side.removeprefix('ray')}",
                       "cpus_per_worker=1", f"predict.rows_per_part={asked.rows_per_part}"]  # fmt: skip
    return watch(command, common.environment() | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"})


def watch(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command and look at all of its processes, five times a second."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=common.REPO, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    driver = psutil.Process(process.pid)
    seconds: dict[int, float] = {}
    most = {"driver": 0, "worker": 0}
    while process.poll() is None:
        for one in _tree(driver):
            try:
                times, memory, line = one.cpu_times(), one.memory_info().rss, one.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            seconds[one.pid] = times.user + times.system
            kind = "driver" if one.pid == process.pid else "worker" if line[:1] and line[0].startswith("ray::") else ""
            if kind:
                most[kind] = max(most[kind], memory)
        time.sleep(0.2)
    if process.returncode:
        assert process.stderr is not None
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{process.stderr.read().decode()[-3000:]}")
    return Cost(time.perf_counter() - start, sum(seconds.values()), most["driver"], most["worker"])


def _tree(driver: psutil.Process) -> list[psutil.Process]:
    try:
        return [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


# -------------------------------------------------------------------------------------------------------------- by hand


class Classifier:
    """What `map_batches` calls: Transformers' pipeline, with the texts of a block sorted by length."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import pipeline

        torch.set_num_threads(1)
        self._classify = pipeline(
            "text-classification", model=model, top_k=None, function_to_apply="sigmoid", batch_size=32, device="cpu",
            truncation=True, max_length=64,
        )  # fmt: skip

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add the answers of a block."""
        import numpy as np

        texts = [str(text) for text in batch["text"]]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        answers = self._classify([texts[i] for i in order])
        names = sorted(one["label"] for one in answers[0])
        shares = np.zeros((len(texts), len(names)), np.float32)
        for i, answer in zip(order, answers, strict=True):
            shares[i] = [one["score"] for one in sorted(answer, key=lambda one: str(one["label"]))]
        columns = {"id": batch["id"]} | {name: (shares[:, i] > 0.5).astype(np.int8) for i, name in enumerate(names)}
        return columns | {f"p_{name}": shares[:, i] for i, name in enumerate(names)}


def by_hand(model: str, source: str, output: str) -> None:
    """Label a file with one worker, as the documentation of Ray Data does."""
    import ray

    ray.init(num_cpus=int(os.environ.get("HAND_CPUS", "2")), include_dashboard=False, log_to_driver=False)
    rows = ray.data.read_csv(source)
    labelled = rows.map_batches(
        Classifier, fn_constructor_args=(model,), batch_size=4096, num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=1),
    )  # fmt: skip
    labelled.write_parquet(output)


if __name__ == "__main__":
    main()
