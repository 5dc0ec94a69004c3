"""The README's commands name settings that exist, and its tables name options that exist."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from emotion_lightning import command, config, grammar, schema

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SWEEPS = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^python -m emotion_lightning\.(.+?)(?: {2,}#.*)?$", README + SWEEPS, re.MULTILINE)))


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
    command._check_jobs(verb, grammar.literal(verb, arguments, multirun=multirun), typed=set())


def test_the_table_of_options_is_complete() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", README, re.MULTILINE))
    for group in schema.groups("train") - {"optimizer"}:
        listed = set(re.findall(r"\w+", re.sub(r"\(.*?\)|:.*", "", rows[group])))
        assert listed == set(schema.option_files(group)), group


def test_experiments_of_the_readme_exist_and_compose() -> None:
    schema.register()
    named = set(re.findall(r"^\| `(\w+_minilm_\w+)` \|", README, re.MULTILINE))
    assert named == {name for name in schema.option_files("experiment") if "_minilm_" in name}
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        for name in named:
            schema.load(compose("train", [f"experiment={name}"]))
