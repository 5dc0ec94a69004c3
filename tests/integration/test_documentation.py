"""Commands and settings of the README and the documentation exist and compose, and links between pages lead somewhere.

`make docs` checks the links once more, as MkDocs sees them, and the docstrings that the API pages show.
"""

import csv
import doctest
import importlib.util
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from helpers import parts, warm
from helpers.hub_server import TOKEN, Hub
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from emotion_lightning import config
from emotion_lightning.cli import compose as cli_compose
from emotion_lightning.cli import override_grammar
from emotion_lightning.cli.jobs import check_jobs
from emotion_lightning.config import own_parts, schema, stored_settings
from emotion_lightning.tuning.fork_server import Server

ROOT = Path(__file__).parents[2]
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
}
README = PAGES["README.md"]
WRITTEN_AT_BUILD = {"docs/reference/commands.md", "docs/reference/settings.md"}
"""Pages that docs/hooks.py writes; only pages of the site can link to them."""


def commands(text: str) -> list[str]:
    """Its lines that run a command of the package, without what leads to the command's name, and without comments."""
    return re.findall(r"^python -m emotion_lightning\.(.+?)(?: {2,}#.*)?$", text, re.MULTILINE)


NEED_A_RUN = ("resume=", "from_run=", "sweep.resume=", "--help")
"""Arguments that compose only with a run, or not at all."""


def shape(line: str) -> tuple[str, ...]:
    """A command without the texts and paths in it: commands of one shape compose alike."""
    verb, *arguments = shlex.split(line)
    free = schema.text_settings(verb) | {"hydra.run.dir"}
    parts = [argument.partition("=") for argument in arguments if not argument.startswith(NEED_A_RUN)]
    return verb, *(name + sign + ("" if name in free and value[:1] != "[" else value) for name, sign, value in parts)


SHOWN = sorted({line for text in PAGES.values() for line in commands(text) if "--config-dir parts" not in line})
"""Commands of the pages, but for those with parts that the page itself shows, which test_extend runs."""
COMMANDS = sorted({shape(line): line for line in SHOWN}.values())


def test_the_readme_names_every_command_and_the_pages_show_each() -> None:
    assert {line.split()[0] for line in COMMANDS} == set(config.COMMANDS)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(re.findall(r"`(emotion-\w+)`", README)) == scripts.keys()
    assert scripts == {f"emotion-{verb}": f"emotion_lightning.{verb}:main" for verb in config.COMMANDS}


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 170


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_pages_load(line: str) -> None:
    verb, *arguments = shlex.split(line)
    if "hydra/launcher=slurm" in line:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    schema.register()
    arguments = [argument for argument in arguments if not argument.startswith(NEED_A_RUN)]
    multirun = "-m" in arguments
    check_jobs(verb, override_grammar.quote_texts(verb, arguments, multirun=multirun), typed=set())


def test_experiments_of_the_results_exist_and_compose() -> None:
    schema.register()
    named = set(re.findall(r"^\| `(\w+_minilm_\w+)` \|", PAGES["docs/reference/results.md"], re.MULTILINE))
    assert named == {name for name in schema.option_files("experiment") if "_minilm_" in name}
    assert set(re.findall(r"^\| `(\w+_minilm_\w+)` \|", README, re.MULTILINE)) <= named
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        for name in named:
            schema.load_settings(compose("train", [f"experiment={name}"]))


def option_file_examples() -> dict[str, str]:
    """Examples of option files in the pages, by their path, which is in the text before them or in their first line."""
    found = {}
    for text in PAGES.values():
        for before, code in re.findall(r"([^\n]*\n[^\n]*)\n\n?```yaml\n(.+?)```", text, re.DOTALL):
            path = re.search(r"FOLDER/(\w+/\w+\.yaml)", before + code)
            assert path, code
            found[path[1]] = code
    return found


def test_examples_of_option_files_compose(tmp_path: Path) -> None:
    schema.register()
    examples = option_file_examples()
    assert len(examples) == 2
    for path, code in examples.items():
        file = tmp_path / path
        file.parent.mkdir()
        file.write_text(code)
        group, name = file.parent.name, file.stem
        verb = "tune" if group == "space" else "train"
        settings = cli_compose.settings_of(verb, [f"{group}={name}", f"--config-dir={tmp_path}"])
        composed = schema.plain(getattr(settings, group))
        changed = dict(OmegaConf.create(code))  # Hydra's reader: YAML itself takes 1e-3 for text
        del changed["defaults"]
        assert {key: composed[key] for key in changed} == changed


def inline_code(text: str) -> Iterator[str]:
    """The words of a page's inline code."""
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        yield from code.split()


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_options_of_the_text_exist(page: str, tmp_path: Path) -> None:
    schema.register()
    parts.worked_examples(tmp_path)
    with parts.forgotten():
        shown = [tmp_path / "parts"] if ROOT / page == parts.PAGE else []
        assert not list(own_parts.register(shown, is_used=lambda option: True))
        check_words(PAGES[page])


def check_words(text: str) -> None:
    """Settings and options in the inline code of a page exist."""
    groups = schema.groups("tune") | {"experiment", "sweep", "template"}
    options = {(group, name) for group in groups for name in schema.option_files(group, "evaluate")}
    options |= {(Path(path).parent.name, Path(path).stem) for path in option_file_examples()}
    known = {name for command in config.COMMANDS for name, _ in schema.fields_of(config.SCHEMAS[command])}
    known |= {"sweep.resume", *stored_settings.REMOVED}  # a decision tells why some settings are gone
    for word in inline_code(text):
        setting = re.fullmatch(r"(\w+)\.(\w+)(=.*)?", word)
        is_module = setting and (ROOT / "emotion_lightning" / setting[1] / f"{setting[2]}.py").exists()
        is_group = setting and setting[1] in groups | {"distill", "frozen", "predict", "serve", "study"}
        if setting and is_group and not is_module and setting[2] not in ("db", "json"):
            assert f"{setting[1]}.{setting[2]}" in known, word
        option = re.fullmatch(r"(\w+)=([a-z]\w*)", word)
        if option and option[1] in groups:
            assert (option[1], option[2]) in options, word


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = Path(os.path.normpath(ROOT / Path(page).parent / path)) if path else ROOT / page
        name = str(file.relative_to(ROOT))
        if page.startswith("docs/"):
            assert name.startswith("docs/"), f"{target}: the site holds pages of docs/ only"
            if name in WRITTEN_AT_BUILD:
                continue
        assert file.exists(), target
        assert not anchor or anchor in anchors(PAGES[name]), target


def test_python_of_the_pages_is_python() -> None:
    code = [code for text in PAGES.values() for code in re.findall(r"```python\n(.+?)```", text, re.DOTALL)]
    assert len(code) >= 4
    for example in code:
        compile(example, "example", "exec")


@pytest.fixture(scope="module")
def hooks() -> Any:
    """The module that writes the pages of the commands and the settings."""
    spec = importlib.util.spec_from_file_location("documentation_hooks", ROOT / "docs" / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_has_every_group(hooks: Any) -> None:
    groups = {name for command in (config.Tune, config.Export, config.Predict) for name in hooks._nodes(command)}
    assert groups == hooks.GROUPS.keys() | hooks.NODES.keys()


def test_an_entry_has_type_range_values_and_meaning(hooks: Any) -> None:
    assert doctest.testmod(hooks).failed == 0
    hint = hooks._hints(config.AdamW)["lr"]
    same = hooks.Setting(hint, "Turns &amp; into &.", {"a": "`1`", "b": "`1`"})
    assert hooks._entry("optimizer.lr", same, anchor="optimizer.lr", of_all=True) == (
        "`optimizer.lr`{ #optimizer.lr }\n:   Turns &amp;amp; into &amp;.<br>\n    *A number, above 0, or null.* `1`\n"
    )
    other = hooks.Setting(int, "Size.", {"a": "`1`", "b": "`1`", "c": "`2`"})
    assert hooks._entry("x.y", other, anchor="x.y", of_all=False).endswith("*A whole number.* a, b: `1` · c: `2`\n")


@pytest.mark.slow
def test_the_commands_that_take_a_run_elsewhere_work(run: Any, tmp_path: Path) -> None:
    lines = commands(PAGES["docs/how-to/export.md"])
    assert len(lines) == 5
    assert run("train", "trainer=debug", "data.max_rows=96", "hydra.run.dir=run") == 0
    with (tmp_path / "new.csv").open("w", newline="") as new, (tmp_path / "my.csv").open("w", newline="") as mine:
        csv.writer(new).writerows([["text"], ["We won!"], ["Rain again."]])
        csv.writer(mine).writerows([["text", "joy", "anger"], *([f"so {i}", i % 2, i % 3 % 2] for i in range(60))])
    with Hub() as hub, ExitStack() as stack:
        environment = {name: value for name, value in warm.ENVIRONMENT.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "TRANSFORMERS_OFFLINE": "0",
        }
        server = stack.enter_context(closing(Server(warm.LIBRARIES, environment=environment | warm.ONE_THREAD)))
        for line in lines:
            verb, *arguments = shlex.split(line.replace("run=FOLDER", "run=run"))
            small = ["trainer=debug"] if verb == "train" else []
            started = [sys.executable, "-m", f"emotion_lightning.{verb}", *arguments, *small]
            done = warm.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True, by=server)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            if verb == "predict":
                with (tmp_path / "labelled.csv").open(newline="") as labelled:
                    assert len(list(csv.DictReader(labelled))) == 2
                (tmp_path / "labelled.csv").unlink()
        assert hub.repositories["me/emotions"].private
