"""Damage each file of a run's folder in every way, ask every command, and see what it says.

    python tests/fuzz_run_folder.py WORK [--share 1.0] [--seed 0] [--command "train resume"]

A command may end with exit code 0 and the answers of the whole folder, or with 2 and one message. Counted as faults are
a traceback, any other exit code, no end within the time, and other answers without a word. Each case runs in a fork of
one process that has loaded the libraries.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import SMALL, run_in_process

LIMIT = 60.0
"""Seconds that a case may take on a loaded machine; the commands need about one."""
QUICK = ["trainer.max_epochs=1", "logger=none"]
SKIPPED = {"train.log", "report.html"}
"""Files that no command reads."""


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    if content:
        place = len(content) * 2 // 3
        content[place] ^= 4
    file.write_bytes(content)


def _replace(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": lambda file: file.unlink(),
    "cut": _cut,
    "emptied": _replace(b""),
    "bit flipped": _flip,
    "a JSON list": _replace(b"[1, 2]"),
    "a JSON number of 5,000 digits": _replace(b'{"labels": ' + b"9" * 5000 + b"}"),
    "10,000 brackets": _replace(b"[" * 10_000 + b"]" * 10_000),
    "a link out of the folder": _link,
    "a named pipe": _pipe,
    "a folder": _folder,
}


def _answer_of_file(path: str) -> Callable[[Path], str]:
    return lambda work: hashlib.sha256((work / path).read_bytes()).hexdigest() if (work / path).exists() else "none"


def _answer_of_run(path: str) -> Callable[[Path], str]:
    def read(work: Path) -> str:
        scores = (
            json.loads((work / path / "metrics.json").read_text()) if (work / path / "metrics.json").exists() else {}
        )
        scores.pop("cost", None)
        return hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()

    return read


COMMANDS: dict[str, tuple[list[str], Callable[[Path], str]]] = {
    "predict": (["predict", "run=run", "input=texts.csv", "output=out.csv"], _answer_of_file("out.csv")),
    "evaluate": (["evaluate", "run=run", "hydra.run.dir=out"], _answer_of_run("out")),
    "export": (
        ["export", "run=run", "format=adapter", "output=out"],
        _answer_of_file("out/adapter_model.safetensors"),
    ),
    "compare": (["compare", "runs=[run,other]", "hydra.run.dir=out"], _answer_of_file("out/compare.json")),
    "train from_run": (["train", "from_run=run", *QUICK, "hydra.run.dir=out"], _answer_of_run("out")),
    "train init_from": (
        ["train", *SMALL, *QUICK, "init_from=run", "hydra.run.dir=out"],
        _answer_of_run("out"),
    ),
    "train resume": (["train", "resume=unfinished"], _answer_of_run("unfinished")),
}


def prepare(work: Path) -> None:
    """Make the runs that are damaged: a finished one, one that was stopped, and one to compare with."""
    os.chdir(work)
    for name, seed in (("whole_run", 1), ("other", 2)):
        line = [*SMALL, "trainer.max_epochs=1", f"seed={seed}", f"hydra.run.dir={name}"]
        if not (work / name / "metrics.json").exists():
            assert _forked(lambda line=line: run_in_process("train", *line), work / "prepare.log") == 0
    if not (work / "whole_unfinished").exists():
        shutil.copytree(work / "whole_run", work / "whole_unfinished")
        (work / "whole_unfinished" / "metrics.json").unlink()
        shutil.rmtree(work / "whole_unfinished" / "model")
        settings = (work / "whole_unfinished" / "settings.yaml").read_text()
        (work / "whole_unfinished" / "settings.yaml").write_text(settings.replace("max_epochs: 1\n", "max_epochs: 2\n"))
    (work / "texts.csv").write_text("text\nWe won!\nI am afraid\n")


def _forked(work: Callable[[], int], output: Path) -> int | str:
    """The exit code of work in a process of its own, or `no end`."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, 1)
            os.dup2(opened, 2)
            code = work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "no end"


def ask(work: Path, command: str, damage: Callable[[], None]) -> tuple[int | str, str, str]:
    """Exit code, answer and output of a command on a fresh copy of the folders, damaged."""
    for name in ("run", "unfinished", "out"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "out.csv").unlink(missing_ok=True)
    for name in ("run", "unfinished"):
        shutil.copytree(work / f"whole_{name}", work / name, symlinks=True)
    damage()
    (name, *arguments), answer = COMMANDS[command]
    code = _forked(lambda: run_in_process(name, *arguments), work / "output.txt")
    return code, answer(work), (work / "output.txt").read_text(errors="replace")


def fuzz(
    work: Path, *, share: float, seed: int, show: bool = True, commands: Iterable[str] = COMMANDS
) -> dict[str, collections.Counter[str]]:
    """Run the cases, or a share of them chosen at random; what became of them, by command.

    Args:
        work: a folder of its own.
        share: of the cases that are run.
        seed: of the choice.
        show: print each fault.
        commands: those of `COMMANDS` that are run.
    """
    prepare(work)
    choose = random.Random(seed)
    counts: dict[str, collections.Counter[str]] = {}
    for command in commands:
        counts[command] = collections.Counter()
        code, whole, output = ask(work, command, lambda: None)
        assert code == 0, f"{command} fails on the whole folder:\n{output}"
        target = "unfinished" if command == "train resume" else "run"
        source = work / f"whole_{target}"
        files = sorted(file.relative_to(source) for file in source.rglob("*") if file.is_file())
        for file in (file for file in files if file.name not in SKIPPED and file.suffix != ".png"):
            for name, damage in DAMAGES.items():
                if choose.random() >= share:
                    continue
                code, answer, output = ask(work, command, lambda f=work / target / file, d=damage: d(f))
                verdict = _verdict(code, answer == whole, output)
                counts[command][verdict] += 1
                if verdict not in ("as before", "refused", "started again, as it says") and show:
                    print(
                        f"{command}: {file} {name}: {verdict}\n    " + "\n    ".join(output.splitlines()[-6:]),
                        flush=True,
                    )
    return counts


def _verdict(code: int | str, same: bool, output: str) -> str:
    if code == "no end":
        return "no end"
    if "Traceback" in output or "Logging error" in output:
        return "traceback"
    if code == 0:
        # Without its last checkpoint a run trains again, and says so.
        anew = "the training starts from the beginning" in output
        return "as before" if same else "started again, as it says" if anew else "other answer"
    return "refused" if code == 2 else f"exit code {code}"


def main() -> None:
    """Read the command line, fuzz, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="append", choices=COMMANDS, help="only this one; may be repeated")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for command, counts in fuzz(
        given.work.resolve(), share=given.share, seed=given.seed, commands=given.command or COMMANDS
    ).items():
        print(f"{command}: " + ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("EMOTION_LIGHTNING_SKIP_HASHES", None)  # conftest sets it
    import importlib

    from helpers import warm

    for library in warm.LIBRARIES:  # loaded once for all forks
        importlib.import_module(library)
    from emotion_lightning import train  # noqa: F401

    main()
