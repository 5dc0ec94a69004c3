"""The functions of the package: they do what the commands do, in the process of somebody else."""

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, run_in_process
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase

import emotion_lightning as el
from emotion_lightning import api, terminal
from emotion_lightning.cli import jobs
from emotion_lightning.config import schema
from emotion_lightning.training.classifier import EmotionClassifier

QUICK = [*SMALL, "trainer.max_epochs=1", "trainer.progress_bar=false"]
WEIGHTS = "model/adapter_model.safetensors"
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "python.md"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own, and draw no reports, which takes longer than these trainings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emotion_lightning.reports.charts.run.run_pictures", lambda metadata: {})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Run]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("emotion_lightning.reports.charts.run.run_pictures", lambda metadata: {})
        yield el.fit(el.compose(*QUICK), folder=tmp_path_factory.mktemp("fitted") / "run")


def scores_of(run: el.Run) -> Any:
    """Its metrics without what they cost, which differs between equal runs."""
    return {name: part for name, part in run.metrics.items() if name != "cost"}


# ------------------------------------------------------------------------------------------------------------- compose


def test_settings_are_those_of_the_command(settings: Callable[..., Any]) -> None:
    found = el.compose("peft=lora", "optimizer.lr=0.01", "data=file", "data.path=it's, my [file].csv")
    assert found.optimizer.lr == 0.01
    assert found.data.path == "it's, my [file].csv"  # type: ignore[attr-defined]
    assert found.options["peft"] == "lora"
    plain = schema.plain(el.compose("peft=lora"))
    options = plain.pop("options")
    assert plain == schema.plain(settings("peft=lora"))
    assert options.keys() == schema.groups("train")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["peft=iaa3"], "Unknown option peft=iaa3; did you mean ia3?"),
        (["optimiser.lr=1"], "did you mean optimizer.lr?"),
        (["optimizer.lr=-1"], "out of range"),
        (["seed=x"], "seed takes a whole number"),
        (["data=file"], "data.path=FILE"),
        (["seed=1,2"], "asks for several runs"),
        (["sweep=folds"], "sweep=folds asks for several runs"),
        (["-m"], "Cannot read '-m'"),
        (["--seed=1"], "without dashes"),
        (["hydra.run.dir=here"], "folder=…"),
        (["resume=nowhere"], "nowhere is not a folder"),
        (["--config-dir=nowhere"], "nowhere is not a folder"),
        (
            [["data=file"]],
            'Cannot read a list; each setting is a text of its own: compose("data=file", "data.path=my.c',
        ),
        ([{"data": "file"}], "Cannot read a dict; each setting is a text of its own"),
        (
            ["data=file data.path=my.csv"],
            'it looks like 2 settings. Give each as a text of its own: "data=file", "data.p',
        ),
        (["seed=1 peft=lora"], 'Give each as a text of its own: "seed=1", "peft=lora".'),
    ],
)
def test_a_wrong_setting_is_a_user_error(overrides: list[Any], message: str) -> None:
    with pytest.raises(el.UserError, match=re.escape(message)):
        el.compose(*overrides)


def test_settings_of_an_evaluation_in_a_list_are_a_user_error() -> None:
    with pytest.raises(el.UserError, match=re.escape('score(run, "data=file", "data.path=my.csv")')):
        el.score("run", ["data=file"])  # type: ignore[arg-type]


def test_hydra_stays_as_the_caller_has_it() -> None:
    def state() -> tuple[Any, ...]:
        instance = GlobalHydra.instance()
        return id(instance), id(instance.hydra), VersionBase.instance().version_base, HydraConfig.initialized()

    before = state()
    el.compose("peft=lora")
    assert state() == before
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.2"):
        inside = state()
        el.compose()
        with pytest.raises(el.UserError):
            el.compose("peft=none")
        assert state() == inside
        compose("train")  # the caller's own composition goes on


def test_torch_is_loaded_for_work_only() -> None:
    line = "import sys, emotion_lightning as el; el.compose(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0


def test_only_what_is_there_can_be_imported() -> None:
    for name in el.__all__:
        assert getattr(el, name) is not None
    assert el.train.__name__ == "emotion_lightning.train"  # type: ignore[attr-defined]  # the module of the command
    with pytest.raises(AttributeError):
        el.no_such_name  # type: ignore[attr-defined]  # noqa: B018


# ----------------------------------------------------------------------------------------------------------------- fit


def test_a_training_gives_the_numbers_of_the_command(fitted: el.Run, tmp_path: Path) -> None:
    assert run_in_process("train", *QUICK, f"hydra.run.dir={tmp_path / 'command'}") == 0
    command = tmp_path / "command"
    assert (fitted.folder / WEIGHTS).read_bytes() == (command / WEIGHTS).read_bytes()
    assert (fitted.folder / "settings.yaml").read_bytes() == (command / "settings.yaml").read_bytes()
    theirs = json.loads((command / "metrics.json").read_text())
    assert scores_of(fitted) == {name: part for name, part in theirs.items() if name != "cost"}
    files = {file.name for file in command.iterdir()} - {"train.log"}
    assert {file.name for file in fitted.folder.iterdir()} == files


def test_trainings_of_one_process_do_not_disturb_each_other(fitted: el.Run) -> None:
    torch.manual_seed(99)
    other = el.fit(el.compose(*QUICK, "peft=lora", "seed=2"))
    again = el.fit(el.compose(*QUICK))
    assert other.folder.parent.parent == Path.cwd() / "outputs" / "train"
    assert other.folder != again.folder  # perhaps of the same second
    assert scores_of(again) == scores_of(fitted) != scores_of(other)
    assert (again.folder / WEIGHTS).read_bytes() == (fitted.folder / WEIGHTS).read_bytes()


def process() -> dict[str, Any]:
    """What belongs to the whole process."""
    root = logging.getLogger()
    return {
        "argv": list(sys.argv),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "handlers": list(root.handlers),
        "level": root.level,
        "levels": [logging.getLogger(name).level for name in ("lightning.pytorch", "httpx", "emotion_lightning")],
        "factory": logging.getLogRecordFactory(),
        "showwarning": warnings.showwarning,
        "filters": list(warnings.filters),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "hook": sys.excepthook,
    }


def test_the_process_stays_as_it_was_found(fitted: el.Run, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a fresh process has them: a command of an earlier test has set both.
    for name in ("lightning.pytorch", "httpx"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    monkeypatch.setattr(warnings, "filters", [])
    before = process()
    run = el.fit(el.compose(*QUICK))
    el.score(run, "split=validation")
    assert process() == before
    assert capfd.readouterr().out == ""
    start = json.loads((run.folder / "environment.json").read_text())["starts"][0]
    assert start["command"] == ["emotion_lightning.fit"]


def test_messages_go_to_the_logger_of_the_package(caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="emotion_lightning"):
        run = el.fit(el.compose(*QUICK))
    assert f"Run folder: {run.folder}" in caplog.messages
    assert any(message.startswith("epoch 1/1") for message in caplog.messages)


def test_what_cannot_be_trained_is_a_user_error_and_leaves_no_folder(fitted: el.Run, tmp_path: Path) -> None:
    for overrides, message in (
        (["init_from=nowhere"], "init_from=nowhere is not a folder"),
        (["data=file", "data.path=none.csv"], "none.csv does not exist"),
        (["trainer.devices=2"], "from Python, train on one device"),
    ):
        with pytest.raises(el.UserError, match=re.escape(message)):
            el.fit(el.compose(*QUICK, *overrides), folder=tmp_path / "new")
        assert not (tmp_path / "new").exists()
    with pytest.raises(el.UserError, match="holds a run already"):
        el.fit(el.compose(*QUICK), folder=fitted.folder)
    changed = el.compose(*QUICK)
    changed.optimizer.lr = -1.0
    with pytest.raises(el.UserError, match="out of range"):
        el.fit(changed)


def interrupt(number: int) -> Callable[..., Any]:
    """A training step that gets a signal once, at its second batch."""
    step, seen = EmotionClassifier.training_step, []

    def interrupted(self: Any, batch: Any, index: int) -> Any:
        seen.append(index)
        if len(seen) == 2:
            signal.raise_signal(number)
        return step(self, batch, index)

    return interrupted


def test_ctrl_c_saves_and_a_resumed_run_ends_as_one_that_was_not_stopped(
    fitted: el.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = process()
    with monkeypatch.context() as patched:
        patched.setattr(EmotionClassifier, "training_step", interrupt(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            el.fit(el.compose(*QUICK), folder=tmp_path / "stopped")
    assert process() == before
    resumed = el.fit(el.compose(f"resume={tmp_path / 'stopped'}"))
    assert resumed.folder == tmp_path / "stopped"
    assert scores_of(resumed) == scores_of(fitted)
    assert el.fit(el.compose(f"resume={resumed.folder}")).metrics == resumed.metrics  # it is finished
    with pytest.raises(el.UserError, match="leave out folder="):
        el.fit(el.compose(f"resume={resumed.folder}"), folder="elsewhere")


def test_a_signal_that_the_program_handles_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[int] = []
    monkeypatch.setattr(EmotionClassifier, "training_step", interrupt(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with pytest.raises(el.UserError, match="Stopped by SIGTERM"):
            el.fit(el.compose(*QUICK), folder=tmp_path / "stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert (tmp_path / "stopped" / "checkpoints" / "last.ckpt").is_file()


def test_a_library_cannot_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: Any) -> None:
        raise SystemExit("enough")

    monkeypatch.setattr(EmotionClassifier, "training_step", leave)
    with pytest.raises(el.UserError, match="enough"):
        el.fit(el.compose(*QUICK))


def test_a_thread_can_train(fitted: el.Run) -> None:
    found: list[el.Run] = []
    thread = threading.Thread(target=lambda: found.append(el.fit(el.compose(*QUICK))))
    thread.start()
    thread.join()
    assert scores_of(found[0]) == scores_of(fitted)


def test_folders_are_named_as_those_of_the_commands() -> None:
    for command in ("train", "evaluate"):
        schema.register()
        with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
            given = [] if command == "train" else ["run=x"]
            named = Path(str(compose(command, given, return_hydra_config=True).hydra.run.dir))
        found = api._folder(command, None)
        assert found.is_absolute()
        pattern = re.sub(r"\d", r"\\d", named.as_posix())
        assert re.fullmatch(pattern, found.relative_to(Path.cwd()).as_posix())


def test_a_notebook_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        kernel = None

    class IPython:
        shell: Any = object()

        @classmethod
        def get_ipython(cls) -> Any:
            return cls.shell

    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not terminal.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", IPython)  # type: ignore[arg-type]
    assert not terminal.in_notebook()
    monkeypatch.setattr(IPython, "shell", Shell())
    assert terminal.in_notebook()


# --------------------------------------------------------------------------------------------------- score and predict


def test_scores_are_those_of_the_run(fitted: el.Run, tmp_path: Path) -> None:
    scores = el.score(fitted)
    assert scores.folder.parent.parent == Path.cwd() / "outputs" / "evaluate"
    assert scores.metrics["test"] == fitted.metrics["test"]
    assert (scores.folder / "predictions" / "test.csv").read_bytes() == (
        fitted.folder / "predictions" / "test.csv"
    ).read_bytes()
    report = (scores.folder / "report.html").read_text()
    assert f"emotion_lightning.evaluate run={fitted.folder}" in report

    both = el.score([fitted, fitted.folder / "model"], "split=validation", folder=tmp_path / "both")
    assert both.folder == tmp_path / "both"
    assert both.metrics["validation"]["rows"] == fitted.metrics["validation"]["rows"]
    with pytest.raises(el.UserError, match="nowhere"):
        el.score("nowhere")
    with pytest.raises(el.UserError, match="did you mean"):
        el.score(fitted, "splits=test")


def test_a_run_predicts_like_what_load_returns(fitted: el.Run) -> None:
    texts = ["We won!", "Rain again."]
    assert fitted.predict(texts) == el.load(fitted.folder).predict(texts)
    assert fitted.model is fitted.model
    assert "metrics" not in repr(fitted)


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"text {i},{i % 2},{(i // 2) % 2}" for i in range(60)]
    (tmp_path / "my.csv").write_text("\n".join(["text,joy,fear", *rows]))
    (tmp_path / "other.csv").write_text("\n".join(["text,joy,fear", *rows[:20]]))
    whole = jobs.compose_job
    small = [setting for setting in QUICK if not setting.startswith("data.")]
    monkeypatch.setattr(
        jobs, "compose_job", lambda command, line: whole(command, [*line, *(small if command == "train" else [])])
    )
    names: dict[str, Any] = {}
    exec(compile(example(), str(PAGE), "exec"), names)
    assert list(names["answers"].columns) == ["joy", "fear", "p_joy", "p_fear"]


@pytest.mark.slow
def test_the_example_of_the_page_is_typed(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(example() + "\nreveal_type(run.predict(['a']))\nreveal_type(run.metrics)\n")
    # Without the libraries below the package, which take minutes to read and are no part of its types.
    libraries = (
        "torch",
        "lightning",
        "transformers",
        "torchmetrics",
        "numpy",
        "matplotlib",
        "rich",
        "hydra",
        "omegaconf",
    )
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = true\n"
        "[mypy-emotion_lightning.*]\nfollow_imports = silent\n"
        f"[mypy-{','.join(f'{name}.*' for name in libraries)}]\nfollow_imports = skip\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "example.py"],
        capture_output=True, text=True, check=False, env=os.environ | {"MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
    assert "list[emotion_lightning.inference.predictor.Prediction]" in found.stdout
    assert "RunMetrics" in found.stdout


def example() -> str:
    """The Python of the page, as one program."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
