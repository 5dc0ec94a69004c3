"""Commands that are printed, at the end of a run or by an error, work as they stand, in a process of their own."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from helpers import warm

from emotion_lightning.errors import UserError
from emotion_lightning.inference import upload
from emotion_lightning.models.metadata import find_model_folder, read_metadata
from emotion_lightning.runs import run_folder


def commands(text: str) -> list[list[str]]:
    """What of a text starts a command of this program, until the end of the line or a full stop behind it."""
    found = re.findall(r"python -m (emotion_lightning\.\w+ .*?)(?:, then push it)?\.?$", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def execute(line: list[str], folder: Path) -> str:
    done = warm.run([sys.executable, "-m", *line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_the_commands_at_the_end_of_a_run_and_of_a_multirun_work(run: Any, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "FILE").with_suffix(".csv").write_text("text\nWe won!\n")
    place = "out folder (one)"
    assert run("train", *SMALL, "trainer=debug", f"hydra.run.dir={place}") == 0
    lines = commands("".join(capfd.readouterr()))
    assert run("train", "-m", *SMALL, "trainer=debug", "seed=1,2", f"hydra.sweep.dir={place} too") == 0
    several = commands("".join(capfd.readouterr()))
    assert any(line[0].endswith(".predict") for line in several)
    for line in [*lines, *several]:
        execute([word.replace("=FILE", "=FILE.csv") for word in line], tmp_path)
        (tmp_path / "labelled.csv").unlink(missing_ok=True)


@pytest.mark.slow
def test_the_command_that_goes_on_with_an_unfinished_run_works(run: Any, tmp_path: Path) -> None:
    place = tmp_path / "out of (time), 1"
    assert run("train", *SMALL, "trainer=debug", f"hydra.run.dir={place}") == 0
    for name in (run_folder.METRICS, run_folder.MODEL):
        part = place / name
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(UserError, match="not finished training") as error:
        find_model_folder(str(place))
    (line,) = commands(str(error.value))
    execute(line, tmp_path)
    assert find_model_folder(str(place)) == place / run_folder.MODEL
    # What is uploaded is asked for the same.
    (place / run_folder.METRICS).unlink()
    with pytest.raises(UserError, match="then push it") as error:
        upload._check_whole(place / run_folder.MODEL, read_metadata(place / run_folder.MODEL), place)
    assert commands(str(error.value)) == [line]
