"""The README's commands name settings that exist, and its tables name options that exist."""

import csv
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.hub_server import TOKEN, Hub
from hydra import compose, initialize_config_dir

from emotion_lightning import config
from emotion_lightning.cli import override_grammar
from emotion_lightning.cli.jobs import check_jobs
from emotion_lightning.config import schema

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SWEEPS = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Its lines that run a command of the package, without what leads to the command's name, and without comments."""
    return re.findall(r"^python -m emotion_lightning\.(.+?)(?: {2,}#.*)?$", text, re.MULTILINE)


COMMANDS = sorted(set(commands(README + SWEEPS)))


def test_the_readme_shows_every_command() -> None:
    assert {line.split()[0] for line in COMMANDS} == set(config.COMMANDS)
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_readme_load(line: str) -> None:
    verb, *arguments = shlex.split(line)
    if "hydra/launcher=" in line:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    schema.register()
    arguments = [
        a for a in arguments if not a.startswith(("resume=", "from_run=", "sweep.resume="))
    ]  # these need a run
    multirun = "-m" in arguments
    check_jobs(verb, override_grammar.quote_texts(verb, arguments, multirun=multirun), typed=set())


def test_the_table_of_options_is_complete() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", README, re.MULTILINE))
    for group in schema.groups("train") - {"optimizer"}:
        listed = set(re.findall(r"\w+", re.sub(r"\(.*?\)|:.*", "", rows[group])))
        assert listed == set(schema.option_files(group)), group


def test_the_readme_names_every_script() -> None:
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(re.findall(r"`(emotion-\w+)`", README)) == scripts.keys()
    assert scripts == {f"emotion-{verb}": f"emotion_lightning.{verb}:main" for verb in config.COMMANDS}


def test_experiments_of_the_readme_exist_and_compose() -> None:
    schema.register()
    named = set(re.findall(r"^\| `(\w+_minilm_\w+)` \|", README, re.MULTILINE))
    assert named == {name for name in schema.option_files("experiment") if "_minilm_" in name}
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        for name in named:
            schema.load_settings(compose("train", [f"experiment={name}"]))


@pytest.mark.slow
def test_the_commands_that_take_a_run_elsewhere_work(run: Any, tmp_path: Path) -> None:
    section = README.split("\n## Take it elsewhere\n")[1].split("\n## ")[0]
    lines = commands(section)
    assert len(lines) == 5
    assert run("train", "trainer=debug", "data.max_rows=96", "hydra.run.dir=run") == 0
    with (tmp_path / "new.csv").open("w", newline="") as new, (tmp_path / "my.csv").open("w", newline="") as mine:
        csv.writer(new).writerows([["text"], ["We won!"], ["Rain again."]])
        csv.writer(mine).writerows([["text", "joy", "anger"], *([f"so {i}", i % 2, i % 3 % 2] for i in range(60))])
    with Hub() as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "TRANSFORMERS_OFFLINE": "0",
        }
        for line in lines:
            verb, *arguments = shlex.split(line.replace("run=FOLDER", "run=run"))
            small = ["trainer=debug"] if verb == "train" else []
            started = [sys.executable, "-m", f"emotion_lightning.{verb}", *arguments, *small]
            done = subprocess.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            if verb == "predict":
                with (tmp_path / "labelled.csv").open(newline="") as labelled:
                    assert len(list(csv.DictReader(labelled))) == 2
                (tmp_path / "labelled.csv").unlink()
        assert hub.repositories["me/emotions"].private
