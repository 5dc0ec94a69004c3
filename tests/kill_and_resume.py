"""Kill trainings, and stop them by signals, at random moments; resume each, and compare its end with an unbroken run.

    python tests/kill_and_resume.py WORK [--kills 20] [--signals 20] [--settings plain] [--seed 0]

A training is killed (SIGKILL) or stopped (SIGTERM and SIGINT in turn) at a moment drawn from its whole length, goes on
with `resume=` and is stopped again, until it has come to its end. The end must be that of a training which nothing
stopped, bit by bit: parameters, model, thresholds, predictions, metrics without the cost. A signal must leave with the
exit code 128 + its number, and without a traceback. Each training is a fork of a process that has loaded the libraries.
"""

import argparse
import collections
import itertools
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parent))

from conftest import SMALL, run_in_process
from helpers.endings import differences
from helpers.servers import PATIENCE

ROWS = [option for option in SMALL if not option.startswith("data.max_rows")]
PLAIN = [
    *ROWS, "peft=lora", "data.max_rows=200", "trainer.checkpoint_every=3", "trainer.max_epochs=8",
    "callbacks=no_early_stopping", "optimizer.lr=0.003",
]  # fmt: skip
SETTINGS = {
    "plain": PLAIN,
    "several": [
        *PLAIN, "callbacks.ema_decay=0.95", "data.workers=2", "data.batch_size=8", "trainer.accumulate_grad_batches=3",
    ],
}  # fmt: skip
"""A training with dropout that saves every third step; and one with an average of the weights, workers that read ahead
and accumulated gradients."""


@dataclass
class Counts:
    """What became of the stops.

    Attributes:
        stops: by how and when, such as `SIGTERM in training`.
        codes: exit codes of stopped trainings, by signal.
        runs: that came to their end, each after some stops.
        length: of the training that nothing stopped, in seconds.
        faults: what must not be: another end, another exit code, a traceback.
    """

    stops: collections.Counter[str] = field(default_factory=collections.Counter)
    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    runs: int = 0
    length: float = 0.0
    faults: list[str] = field(default_factory=list)


def torment(work: Path, *, kills: int, signals: int, settings: str = "plain", seed: int = 0) -> Counts:
    """Stop trainings so many times, and say how they ended.

    Args:
        work: a folder of its own.
        kills: how often SIGKILL ends one.
        signals: how often SIGTERM or SIGINT does, in turn.
        settings: a name in SETTINGS.
        seed: of the moments.
    """
    counts, chance = Counts(), random.Random(f"{settings} {seed}")
    whole = [*SETTINGS[settings], "hydra.run.dir=whole"]
    began = time.monotonic()
    code, said, _ = _train(work, whole)
    assert code == 0, said
    counts.length = time.monotonic() - began

    numbers = [signal.SIGKILL] * kills + list(itertools.islice(_in_turn(), signals))
    chance.shuffle(numbers)
    while numbers:
        counts.runs += 1
        folder = work / f"stopped{counts.runs}"
        finished = False
        while not finished:
            begun = (folder / "settings.yaml").exists()
            line = [f"resume={folder.name}"] if begun else [*SETTINGS[settings], f"hydra.run.dir={folder.name}"]
            moment = chance.uniform(0.1, 1.0) * counts.length if numbers else None
            code, said, stopped = _train(work, line, after=moment, by=numbers[-1] if numbers else signal.SIGKILL)
            if stopped:
                number = numbers.pop()
                counts.stops[f"{number.name} {_stage(folder)}"] += 1
                counts.codes[f"{number.name}: {code}"] += 1
                counts.faults += [f"{folder.name}: {fault}" for fault in _faults_of_a_stop(number, code, said)]
            elif code != 0:
                counts.faults.append(f"{folder.name}: {line[0]} ended with {code}:\n{said}")
                break
            finished = not stopped or code == 0
        else:
            counts.faults += [f"{folder.name}: other {part}" for part in differences(work / "whole", folder)]
        print(f"{folder.name}: {dict(counts.stops)}, {len(counts.faults)} faults", flush=True)
    return counts


def _in_turn() -> Iterator[signal.Signals]:
    return itertools.cycle((signal.SIGTERM, signal.SIGINT))


def _train(
    work: Path, line: list[str], *, after: float | None = None, by: signal.Signals = signal.SIGKILL
) -> tuple[int, str, bool]:
    """Exit code and output of a training, and whether it was stopped after so many seconds."""
    log = work / "output.txt"
    child = os.fork()
    if child == 0:
        _be_a_training(work, line, log)
    began, limit = time.monotonic(), after or PATIENCE
    stopped = False
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if not stopped and time.monotonic() - began > limit:
            stopped = True
            # Ctrl-C reaches every process of a terminal's group, and whoever kills one leaves none of them.
            os.kill(child, by) if by is signal.SIGTERM else os.killpg(child, by)
        if time.monotonic() - began > limit + PATIENCE:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1]), log.read_text(errors="replace"), stopped and after is not None


def _be_a_training(work: Path, line: list[str], log: Path) -> NoReturn:
    """Become a process of its own that trains, in which the libraries are loaded already."""
    code = 70
    try:
        os.setsid()
        opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, 1)
        os.dup2(opened, 2)
        os.chdir(work)
        code = run_in_process("train", *line)
    except KeyboardInterrupt:  # before the command has its handlers
        code = 128 + signal.SIGINT
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _stage(folder: Path) -> str:
    """How far a training had come when it was stopped."""
    if not (folder / "settings.yaml").exists():
        return "before it began"
    if not (folder / "checkpoints" / "last.ckpt").exists():
        return "before the first checkpoint"
    if (folder / "metrics.json").exists():
        return "at its very end"
    return "while the model was written" if (folder / "model").exists() else "in training"


def _faults_of_a_stop(number: signal.Signals, code: int, said: str) -> list[str]:
    if number is signal.SIGKILL:
        return []
    # Until the command has its handlers, the system's own answer to a signal holds; a run may also have ended.
    loading = not re.search(r"parameters are trained|Stopped by", said)
    allowed = {128 + number, *((-number,) if loading else ()), *((0,) if "Run folder" in said else ())}
    faults = [] if code in allowed else [f"{number.name} ended with {code}:\n{said}"]
    return faults + ([f"{number.name}, a traceback:\n{said}"] if "Traceback" in said and not loading else [])


def main() -> None:
    """Read the command line, stop trainings, and print the counts; exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--settings", choices=SETTINGS, default="plain")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    counts = torment(
        given.work.resolve(), kills=given.kills, signals=given.signals, settings=given.settings, seed=given.seed
    )
    for fault in counts.faults:
        print(f"FAULT {fault}")
    print(f"{sum(counts.stops.values())} stops of {counts.runs} trainings of {counts.length:.0f} s:")
    for name, count in sorted(counts.stops.items()):
        print(f"  {count} {name}")
    print("exit codes: " + ", ".join(f"{name} ({count})" for name, count in sorted(counts.codes.items())))
    print(f"{len(counts.faults)} faults; all other trainings ended as the one that nothing stopped, bit by bit.")
    sys.exit(bool(counts.faults))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("EMOTION_LIGHTNING_SKIP_HASHES", None)  # conftest sets it
    import bitsandbytes  # noqa: F401 (loaded once for all forks)
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401

    from emotion_lightning.training import finalize  # noqa: F401

    main()
