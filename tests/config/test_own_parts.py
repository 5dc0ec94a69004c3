"""Options of the user's own: their settings are the parameters of a function, and only their file names it."""

import importlib.metadata
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers import parts

from emotion_lightning import api
from emotion_lightning.cli import own_options
from emotion_lightning.cli.compose import settings_of
from emotion_lightning.config import own_parts, schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder

LOSS = '''
from enum import Enum
from typing import Annotated
from emotion_lightning.config import Bounds

class Size(Enum):
    small = "small"
    large = "large"

def build(
    labels, rows: int, alpha: float, beta: Annotated[int, Bounds(at_least=1)] = 2, size: Size = Size.small,
    names: list[str] = ["a"], weights: dict[str, float] | None = None, limit: int | None = None, anything=(1, 2),
):
    """A loss.

    Args:
        labels: Names.
        alpha: How much,
            over two lines.
        beta (int): How often.
    """
'''


@pytest.fixture(autouse=True)
def _modules_are_forgotten() -> Iterator[None]:
    """Each test has modules of the same names in a folder of its own."""
    with parts.forgotten():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    parts.write(tmp_path / "mine.py", LOSS)
    parts.option(tmp_path, "loss", "own", "mine:build", "alpha: 0.5")
    return tmp_path


def composed(folder: Path, *arguments: str) -> Any:
    return api.compose(f"--config-dir={folder}", *arguments)


def test_the_parameters_are_the_settings(folder: Path) -> None:
    loss = schema.plain(composed(folder, "loss=own", "loss.beta=3", "loss.size=large", "loss.names=[x,y]").loss)
    assert loss == {
        "part": "mine:build", "alpha": 0.5, "beta": 3, "size": "large", "names": ["x", "y"], "weights": None,
        "limit": None, "anything": [1, 2],
    }  # fmt: skip
    built = schema.plain(
        composed(folder, "loss=own", "loss.weights={joy: 2.0}", "loss.anything=x", "loss.limit=7").loss
    )
    assert (built["weights"], built["anything"], built["limit"]) == ({"joy": 2.0}, "x", 7)


def test_the_function_gets_its_settings_and_what_it_asks_for(folder: Path) -> None:
    parts.write(folder / "mine.py", LOSS + "    return dict(locals())\n")
    settings = composed(folder, "loss=own", "loss.alpha=1")
    got = own_parts.build(settings.loss, labels=["joy"], rows=7, label_counts=[1])
    assert (got["labels"], got["rows"], got["alpha"], got["size"].value) == (["joy"], 7, 1.0, "small")
    assert "label_counts" not in got


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loss.alpa=1"], "Unknown setting loss.alpa; did you mean loss.alpha?"),
        (["loss.alpha=high"], "loss.alpha takes a number"),
        (["loss.beta=1.5"], "loss.beta takes a whole number"),
        (["loss.beta=0"], "loss.beta=0 is out of range: it must be at least 1"),
        (["loss.size=huge"], "loss.size takes one of small, large"),
        (["loss.rows=3"], "Unknown setting loss.rows"),
        (["loss.part=os:system"], "Code is never taken from a setting"),
        (["loss=onw"], "did you mean own?"),
    ],
)
def test_a_wrong_setting_is_refused_as_those_of_the_program(folder: Path, arguments: list[str], message: str) -> None:
    chosen = [] if arguments[0].startswith("loss=") else ["loss=own"]
    with pytest.raises(UserError, match=re.escape(message)):
        composed(folder, *chosen, *arguments)


@pytest.mark.parametrize(
    ("parameter", "fine", "wrong"),
    [
        ("alpha: Annotated[int | None, Bounds(at_least=1)] = None", "1", "0"),
        ("alpha: Annotated[int, Bounds(at_least=1)] | None = None", "null", "0"),
        ("alpha: Optional[Annotated[float, Bounds(below=1)]] = None", "0.5", "1.5"),
        ("alpha: Annotated[list[float], Bounds(at_least=0)] = [1.0]", "[2,3]", "[2,-3]"),
        ("alpha: float = None", "0.5", "high"),
        ("alpha: 'int | str' = 3", "x", "[1]"),
        ("logits: Tensor = None, alpha: Annotated[float, Bounds(below=1)] = 0.5", "0.1", "2"),
    ],
)
def test_types_and_bounds_hold_however_they_are_written(folder: Path, parameter: str, fine: str, wrong: str) -> None:
    head = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING, Annotated, Optional\n"
        "from emotion_lightning.config import Bounds\nif TYPE_CHECKING:\n    from torch import Tensor\n"
    )
    parts.option(folder, "loss", "own", "mine:build")
    parts.write(folder / "mine.py", f"{head}def build({parameter}): ...\n")
    assert composed(folder, "loss=own", f"loss.alpha={fine}")
    with pytest.raises(UserError, match=r"loss\.alpha"):
        composed(folder, "loss=own", f"loss.alpha={wrong}")


@pytest.mark.parametrize(
    "code",
    [
        "def f(beta, alpha: float = 0.5): ...\nimport functools\nbuild = functools.partial(f, beta=3)",
        "class F:\n    def __call__(self, alpha: float = 0.5): ...\nbuild = F()",
        "class F:\n    def __init__(self, alpha: float = 0.5): ...\nclass build(F): ...",
        "import dataclasses\n@dataclasses.dataclass\nclass build:\n    alpha: float = 0.5\n"
        "    names: list = dataclasses.field(default_factory=list)",
    ],
)
def test_what_can_be_called_is_a_function(folder: Path, code: str) -> None:
    parts.option(folder, "loss", "own", "mine:build")
    parts.write(folder / "mine.py", code + "\n")
    assert composed(folder, "loss=own").loss.alpha == 0.5
    with pytest.raises(UserError, match=r"loss\.alpha takes a number"):
        composed(folder, "loss=own", "loss.alpha=high")


def test_a_folder_of_modules_needs_no_init_file(folder: Path) -> None:
    parts.write(folder / "space" / "sub.py", "def build(alpha: float = 0.5): ...\n")
    parts.option(folder, "loss", "own", "space.sub:build")
    assert composed(folder, "loss=own").loss.alpha == 0.5


def test_settings_of_one_part_are_no_settings_of_another(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parts.write(folder / "mine.py", "def build(alpha: str = 'x'): ...\n")
    parts.option(folder, "loss", "own", "mine:build")
    assert composed(folder, "loss=own", "loss.alpha=1,2").loss.alpha == "1,2"
    other = tmp_path_factory.mktemp("other")
    parts.write(other / "theirs.py", "def build(alpha: list[float] = [1.0], beta=(1, 2)): ...\n")
    parts.option(other, "loss", "other", "theirs:build")
    assert composed(other, "loss=other", "loss.alpha=[1,2.5]", "loss.beta=[3,4]").loss.beta == [3, 4]


def test_the_folder_may_stand_apart_from_its_flag(folder: Path) -> None:
    assert schema.plain(api.compose("--config-dir", str(folder), "loss=own").loss)["alpha"] == 0.5
    assert schema.plain(composed(Path("nowhere"), f"--config-dir={folder}", "loss=own").loss)["alpha"] == 0.5


def test_printed_commands_name_the_folder_of_the_parts_in_use(folder: Path) -> None:
    composed(folder, "loss=focal")
    assert "--config-dir" not in run_folder.resume_command(Path("run"))
    composed(folder, "loss=own")
    line = shlex.split(run_folder.resume_command(Path("run")))
    assert line[3:] == ["--config-dir", str(folder), "resume=run"]


def test_an_experiment_in_a_second_folder_may_choose_the_part(folder: Path) -> None:
    text = "# @package _global_\ndefaults:\n  - override /loss: own\n\nloss:\n  alpha: 0.25\n"
    parts.write(folder / "study" / "experiment" / "best.yaml", text)
    second = f"hydra.searchpath=[file://{folder / 'study'}]"
    assert composed(folder, second, "experiment=best").loss.alpha == 0.25


def test_a_secret_is_asked_for_again(folder: Path) -> None:
    parts.write(folder / "mine.py", "def build(api_token: str = '', class_key: int = 3): ...\n")
    parts.option(folder, "loss", "own", "mine:build")
    run = folder / "run"
    run.mkdir()
    settings = composed(folder, "loss=own", "loss.api_token=s3cret")
    assert run_folder.write_settings(run, settings, settings.options)["loss"]["class_key"] == 3
    assert "s3cret" not in (run / "settings.yaml").read_text()
    with pytest.raises(UserError, match=r"holds loss\.api_token without its value"):
        composed(folder, f"from_run={run}")
    assert composed(folder, f"from_run={run}", "loss.api_token=other").loss.api_token == "other"


def test_a_parameter_without_a_value_is_asked_for(folder: Path) -> None:
    parts.option(folder, "loss", "own", "mine:build")
    with pytest.raises(UserError, match=re.escape("loss.alpha is not set; give it as loss.alpha=VALUE.")):
        composed(folder, "loss=own")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("loss/own.yaml", "part: mine:build\n", "must begin with the line\n\ndefaults: [/schema/loss/own@_here_, _"),
        ("loss/own.yaml", "defaults: 3\npart: mine:build\n", "must begin with the line"),
        ("loss/own.yaml", "part: mine.build\n", "part: mine.build is no function; name it as module:function."),
        ("loss/own.yaml", "part: [a, b]\n", "is no function"),
        ("loss/own.yaml", "part: 'mine:build(1)'\n", "is no function"),
        ("loss/own.yaml", "_target_: mine.build\n", "names the function that builds it, as part: module:function"),
        ("loss/own.yaml", "alpha: 1\n", "Begin the file with a schema line, as the files in conf/loss do."),
        ("loss/own.yaml", "HEAD\npart: mine:build\nalpah: 1\n", "sets alpah, which is no setting of it; did you"),
        ("loss/own.yaml", "HEAD\npart: gone:build\n", "has no gone.py, and no module gone is installed."),
        ("loss/own.yaml", "HEAD\npart: mine:biuld\n", "mine has no function biuld; did you mean build?"),
        ("loss/bce.yaml", "HEAD\npart: mine:build\n", "has the name of an option of this program"),
        ("mine.py", "import gone\n", "needs the module gone."),
        ("mine.py", "1 / 0\n", "mine cannot be imported: ZeroDivisionError: division by zero"),
        ("mine.py", "def build(alpha, /): ...\n", "the parameter alpha of mine:build cannot be a setting"),
        ("mine.py", "raise SystemExit\n", "mine cannot be imported: SystemExit"),
        ("mine.py", "def build(logits, targets): ...\n", "the function of a part is called with the settings"),
        ("mine.py", "def build(logits, targets, gamma=2.0): ...\n", "own.yaml: the function of a part is called w"),
        ("mine.py", "def build(logits, targets, gamma=2.0): ...\n", "mine:build looks like the loss itself: its "
         "parameters are logits and targets. Write a function that returns it (docs/how-to/extend.md), such as\n\n"
         "def build_loss():\n    return build\n\nand name that one, as part: mine:build_loss."),
        ("mine.py", "from torch.nn.functional import binary_cross_entropy as build\n", "are input and target. Write"),
        ("mine.py", "build = dict\n", "Python cannot tell the parameters of mine:build; wrap it."),
        ("mine.py", "def build(origin=3): ...\n", "the parameter origin of mine:build cannot be a setting"),
        ("mine.py", "def build(defaults=3): ...\n", "the parameter defaults of mine:build cannot be a setting"),
        ("mine.py", "def build(alpha: int = 0.5): ...\n", "the parameter alpha of mine:build has a default"),
        ("loss/own.yaml", "HEAD\npart: mine:build\nalpha: high\n", "The file of loss=own has a wrong loss.alpha: Va"),
        ("mine.py", "def build(part): ...\n", "the parameter part of mine:build cannot be a setting"),
        ("mine.py", "def build(alpha, beta=object()): ...\n", "the default of the parameter beta of mine:build is no"),
    ],
)  # fmt: skip
def test_a_damaged_part_is_refused_in_a_sentence(folder: Path, file: str, text: str, message: str) -> None:
    option = Path(file).stem if file.startswith("loss") else "own"
    parts.write(folder / file, text.replace("HEAD", f"defaults: [/schema/loss/{option}@_here_, _self_]"))
    with pytest.raises(UserError) as raised:
        composed(folder, f"loss={option}")
    assert message in str(raised.value)
    assert composed(folder, "loss=focal").loss.gamma == 2  # nobody who does not choose it is stopped by it


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_part_is_imported_stops_the_command(
    folder: Path, run: Any, capfd: Any, number: signal.Signals
) -> None:
    parts.write(folder / "mine.py", f"import os\nos.kill(os.getpid(), {number.value})\n")
    assert run("train", f"--config-dir={folder}", "loss=own") == 128 + number
    assert "cannot be imported" not in capfd.readouterr().err


def test_parameters_with_the_names_of_a_batch_that_have_defaults_are_settings(folder: Path) -> None:
    parts.write(folder / "mine.py", "def build(alpha, logits: float = 1.0, targets: float = 2.0): ...\n")
    assert composed(folder, "loss=own", "loss.logits=3").loss.logits == 3


def test_a_module_that_another_one_hides_is_refused(tmp_path: Path) -> None:
    parts.write(tmp_path / "json.py", "def build(): ...\n")
    parts.option(tmp_path, "loss", "own", "json:build")
    with pytest.raises(UserError, match=r"Python has another module json \(.*\) than that in .*; rename yours"):
        composed(tmp_path, "loss=own")


def test_only_what_may_be_chosen_is_imported(folder: Path) -> None:
    parts.write(folder / "loud.py", "raise SystemError('imported')\n")
    parts.option(folder, "loss", "loud", "loud:build")
    assert composed(folder, "loss=own").loss.part == "mine:build"
    assert "loud" not in sys.modules
    parts.write(folder / "experiment" / "all.yaml", "# @package _global_\ndefaults:\n  - override /loss: loud\n")
    with pytest.raises(UserError, match="loud cannot be imported: SystemError: imported"):
        composed(folder, "experiment=all")


def test_an_experiment_in_the_folder_may_choose_the_part(folder: Path) -> None:
    text = "# @package _global_\ndefaults:\n  - override /loss: own\n\nloss:\n  alpha: 0.25\n"
    parts.write(folder / "experiment" / "mine.yaml", text)
    assert composed(folder, "experiment=mine").loss.alpha == 0.25


def test_help_lists_the_options_and_explains_their_settings(folder: Path, run: Any, capfd: Any) -> None:
    parts.write(folder / "loss" / "mild.yaml", "defaults: [/schema/loss/focal@_here_, focal, _self_]\ngamma: 1.0\n")
    assert run("train", "--config-dir", str(folder), "loss=own", "--help") == 0
    raised = capfd.readouterr().out
    assert re.search(r"loss= .*focal .*mild .*\*own .*weighted_bce", raised)
    assert "loss.beta=2\n      How often." in raised
    assert "loss.alpha=0.5\n      How much, over two lines." in raised


def stored(folder: Path, **changed: Any) -> Path:
    """The folder of a run whose loss is the own one, as it was stored."""
    settings = composed(folder, "loss=own")
    run = folder / "run"
    run.mkdir()
    run_folder.write_settings(run, settings, settings.options)
    tree = yaml.safe_load((run / "settings.yaml").read_text())
    tree["loss"] |= changed
    (run / "settings.yaml").write_text(yaml.safe_dump(tree))
    return run


def test_a_run_is_repeated_with_its_part_and_asks_for_one_that_is_missing(folder: Path) -> None:
    run = stored(folder)
    assert composed(folder, f"from_run={run}").loss.alpha == 0.5
    with pytest.raises(
        UserError, match=r"was made with loss=own \(built by mine:build\), which is no option of this pro"
    ):
        api.compose(f"from_run={run}")
    assert api.compose(f"from_run={run}", "loss=bce").loss == composed(folder, "loss=bce").loss


@pytest.mark.parametrize("earlier", ["from_run", "resume"])
def test_a_folder_of_parts_that_is_not_there_is_named_before_what_a_run_lacks(
    folder: Path, run: Any, capfd: Any, earlier: str
) -> None:
    given = f"{earlier}={stored(folder)}"
    with pytest.raises(UserError, match="--config-dir gone is not a folder"):
        api.compose("--config-dir=gone", given)
    with pytest.raises(UserError, match="--config-dir gone is not a folder"):
        settings_of("train", ["--config-dir", "gone", given])
    assert run("train", "--config-dir", "gone", given) == 2
    raised = capfd.readouterr().err
    assert "--config-dir gone is not a folder." in raised and "no option of this program" not in raised


@pytest.mark.parametrize("part", ["os:system", "mine:other", "", None, ["a"], {"a": 1}])
def test_a_stored_run_names_no_code(folder: Path, part: Any) -> None:
    run = stored(folder, part=part)
    with pytest.raises(UserError):
        composed(folder, f"from_run={run}")
    with pytest.raises(UserError):
        api.compose(f"from_run={run}")


def test_a_part_of_a_run_for_an_option_of_the_program_is_refused(folder: Path) -> None:
    run = stored(folder)
    text = (run / "settings.yaml").read_text()
    (run / "settings.yaml").write_text(text.replace("loss: own", "loss: focal").replace("alpha: 0.5", "gamma: 2.0"))
    with pytest.raises(UserError):
        api.compose(f"from_run={run}")


def entry_points(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Installed packages with these entry points, by the last part of their group and name, as losses__smooth."""
    points = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name.partition("__")[2], value, f"emotion_lightning.{name.partition('__')[0]}")
        for name, value in values.items()
    )
    for point in points:
        vars(point)["dist"] = SimpleNamespace(name="a-package")
    monkeypatch.setattr(own_parts, "entry_points", lambda: points)


def test_installed_packages_bring_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        LOSS
        + """
def read(database: str, max_tokens: int = 99): ...
def method(target_modules, modules_to_save, lr: float = 0.5, head_lr: float = 0.25, targets: list[str] = ["value"]): ...
def tweets(): return {"path": "a/b", "quantization": "none"}
"""
    )
    parts.write(folder / "packaged.py", text)
    monkeypatch.syspath_prepend(str(folder))
    entry_points(monkeypatch, losses__packed="packaged:build", sources__packed_data="packaged:read",
                 peft_methods__packed_method="packaged:method", models__tweets="packaged:tweets")  # fmt: skip
    chosen = [
        "loss=packed",
        "loss.alpha=1",
        "data=packed_data",
        "data.database=x",
        "peft=packed_method",
        "model=tweets",
    ]
    settings: Any = api.compose(*chosen)
    assert (settings.loss.part, settings.loss.beta) == ("packaged:build", 2)
    assert (settings.data.database, settings.data.max_tokens, settings.data.batch_size) == ("x", 99, 32)
    assert (settings.peft.lr, settings.peft.head_lr, settings.peft.targets) == (0.5, 0.25, ["value"])
    assert (settings.model.path, settings.model.quantization.value) == ("a/b", "none")
    assert {"packed", "bce"} <= set(schema.option_files("loss"))
    entry_points(monkeypatch)
    with pytest.raises(UserError, match="Unknown option loss=packed"):
        api.compose("loss=packed")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"losses__bce": "mine:build"}, "the package a-package brings loss=bce, the name of an option of this program"),
        ({"losses__odd": "mine.build"}, "the package a-package names mine.build as loss=odd, no module:function"),
        ({"losses__odd": "gone:build"}, "the package a-package: no module gone is installed"),
        ({"models__odd": "builtins:list"}, "returns no dict of values for model=auto"),
    ],
)
def test_a_damaged_entry_point_stops_those_who_choose_it(
    monkeypatch: pytest.MonkeyPatch, points: dict[str, str], message: str
) -> None:
    entry_points(monkeypatch, **points)
    assert schema.plain(api.compose("loss=focal").loss)["gamma"] == 2
    plural, _, name = next(iter(points)).partition("__")
    with pytest.raises(UserError, match=re.escape(message)):
        api.compose(f"{'loss' if plural == 'losses' else 'model'}={name}")


def test_the_entry_points_of_this_environment_are_read() -> None:
    assert own_parts.entry_points is importlib.metadata.entry_points


def test_the_page_tells_what_each_function_gets() -> None:
    page = parts.PAGE.read_text()
    told = {
        group: (plural, tuple(re.findall(r"`(\w+)`", given)))
        for group, given, plural in re.findall(r"^\| `(\w+)` \| [^|]+ \|([^|]*)\| `(\w+)` \|$", page, re.MULTILINE)
    }
    assert told == {group: (kind.entry_points, kind.given) for group, kind in own_parts.KINDS.items()}


def test_every_example_of_the_page_composes(tmp_path: Path) -> None:
    lines = parts.worked_examples(tmp_path)
    assert len(lines) == len(own_parts.KINDS) + 1
    chosen = set()
    for line in lines:
        verb, *arguments = shlex.split(line.removeprefix("emotion_lightning."))
        place = [f"--config-dir={tmp_path / 'parts'}" if a == "parts" else a for a in arguments if a != "--config-dir"]
        schema.register()
        own_options.register(verb, place)
        if verb == "train":
            settings = api.compose(*place)
            chosen |= {group for group, option in settings.options.items() if option in own_parts.option_names(group)}
        else:
            assert own_parts.option_names("format") == {"weights"}
            chosen.add("format")
    assert chosen == {*own_parts.KINDS, "model"}
