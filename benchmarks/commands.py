"""Time and memory of the commands a newcomer types, as whole processes: a table, and JSON in outputs/bench/.

python benchmarks/commands.py [--runs 3] [--only help,mistake,first_step,train,predict,trial]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from emotion_lightning.tuning import fork_server, trial

REPO = Path(__file__).resolve().parent.parent
EXPECTED_CODE = {"mistake": 2}


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, in the order it runs: predict uses the run that train made."""
    train = [sys.executable, "-m", "emotion_lightning.train"]
    predict = [sys.executable, "-m", "emotion_lightning.predict", f"run={folder / 'run'}"]
    sample = REPO / "emotion_lightning" / "data" / "sample" / "test.csv"
    return {
        "help": [*train, "--help"],
        "mistake": [*train, "optimizer.lrr=1"],
        # Until the first step is saved; the rest of the run is not counted.
        "first_step": [*train, "trainer.checkpoint_every=1", "logger=none"],
        "train": [*train, f"hydra.run.dir={folder / 'run'}"],
        "predict": [*predict, f"input={sample}", f"output={folder / 'labelled.csv'}"],
    }


def measure(command: list[str], env: dict[str, str] | None = None) -> tuple[float, int, int]:
    """Seconds, peak bytes of the process, exit code."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)


def measure_first_step(command: list[str]) -> tuple[float, int, int]:
    """The same of a training run that is ended as soon as its first step is saved."""
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, f"hydra.run.dir={name}/run"], cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (Path(name) / "run" / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
        return seconds, usage.ru_maxrss * 1024, 0 if process.returncode in (None, 0) else 1


def measure_trials(runs: int) -> dict[str, list[float]]:
    """Seconds of a trial of `tune` of one epoch on 96 rows: in fresh processes and forked, in turns.

    The import of the libraries before the first fork is told apart: a study pays it once.
    """
    asked = ["score_test=false", "logger=none", "data.max_rows=96", "trainer.max_epochs=1"]
    found: dict[str, list[float]] = {"fresh": [], "forked": [], "libraries": []}

    def taken(server: fork_server.Server, folder: Path) -> tuple[float, float]:
        start = time.perf_counter()
        running = trial.Training(asked, folder, server)
        began = time.perf_counter()
        while (code := running.wait(3600)) is None:
            pass
        if code != 0:
            sys.exit(f"the trial ended with {code}: {running.failure(code)}")
        return began - start, time.perf_counter() - start

    with tempfile.TemporaryDirectory() as name, fork_server.Server(trial.LIBRARIES) as server:
        folder = Path(name)
        fresh = fork_server.Server([], forks=False)
        begin, whole = taken(server, folder / "first")
        found["libraries"].append(begin)
        found["first"] = [whole]
        for turn in range(runs):
            sides = [("fresh", fresh), ("forked", server)]
            for side, starts in sides if turn % 2 == 0 else reversed(sides):
                found[side].append(taken(starts, folder / f"{side}{turn}")[1])
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="help,mistake,first_step,train,predict,trial")
    asked = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        # One training run serves all predictions; a second one into its folder would be refused.
        for what, command in commands(Path(name)).items():
            if what not in asked.only.split(","):
                continue
            one = measure_first_step if what == "first_step" else measure
            taken = [one(command) for _ in range(1 if what == "train" else asked.runs)]
            codes = {code for _, _, code in taken}
            if codes != {EXPECTED_CODE.get(what, 0)}:
                sys.exit(f"{what} ended with {codes}: {' '.join(command)}")
            seconds = [second for second, _, _ in taken]
            peak = max(memory for _, memory, _ in taken)
            results[what] = {"seconds": seconds, "peak_bytes": peak}
            spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
            print(f"{what:10} median {statistics.median(seconds):7.2f} s ({spread}), peak {peak / 2**20:7.0f} MiB")
    if "trial" in asked.only.split(","):
        trials = measure_trials(asked.runs)
        ratios = [fresh / forked for fresh, forked in zip(trials["fresh"], trials["forked"], strict=True)]
        results["trial"] = {"seconds": trials, "ratios": ratios}
        print(
            f"trial      fresh median {statistics.median(trials['fresh']):.2f} s, forked "
            f"{statistics.median(trials['forked']):.2f} s, fresh / forked {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}); once a study {trials['libraries'][0]:.2f} s for the libraries"
        )
    output = REPO / "outputs" / "bench" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"cpus": os.cpu_count(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
