"""Each way a folder from elsewhere enters: what is hostile in it runs no code and is refused in a sentence."""

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL, run_in_process
from helpers.hub_server import OWNER, Hub, Repository, log_in
from helpers.stand_in import trials_by_stand_in

from emotion_lightning.cli import multirun
from emotion_lightning.cli.jobs import check_jobs
from emotion_lightning.config import schema
from emotion_lightning.models.metadata import METADATA
from emotion_lightning.runs import manifest, run_folder

MARKER = "was_here"
"""The file that hostile code would write into the working directory."""


class Hostile:
    """Writes the marker when it is unpickled."""

    def __reduce__(self) -> Any:
        return open, (MARKER, "w")


@dataclass
class Folder:
    """A foreign folder: a run's, or a model folder as the hub has it.

    Attributes:
        root: the folder itself.
        model: its adapter, tokenizer and card.
        base: the network below.
    """

    root: Path
    model: Path
    base: Path


def set_in_settings(file: Path, group: str | None = None, option: str | None = None, **sections: Any) -> None:
    tree = yaml.safe_load(file.read_text())
    if group is not None:
        tree["options"][group] = option
    file.write_text(yaml.safe_dump(tree | sections))


def evil_option(folder: Path) -> str:
    """Put an option file that opens a pickle into a folder; its path, as a group's option would reach it."""
    (folder / "evil.yaml").write_text(
        "# @package _global_\ndefaults: [/loss/bce@loss]\n"
        "hydra: {callbacks: {x: {_target_: joblib.load, filename: x.pkl}}}\n"
    )
    Path("x.pkl").write_bytes(pickle.dumps(Hostile()))
    return f"../../../../../../../../../..{folder.resolve()}/evil"


def option_is_a_path(folder: Folder) -> None:
    set_in_settings(folder.root / run_folder.SETTINGS, "loss", evil_option(folder.root))


def launcher_is_a_path(folder: Folder) -> None:
    set_in_settings(folder.root / run_folder.SETTINGS, "hydra/launcher", evil_option(folder.root))


def target(folder: Folder) -> None:
    loss = {"_target_": "builtins.open", "file": MARKER, "mode": "w"}
    set_in_settings(folder.root / run_folder.SETTINGS, loss=loss)


def part(folder: Folder) -> None:
    """Name a function as an option of the user's own does."""
    set_in_settings(folder.root / run_folder.SETTINGS, "loss", "mine", loss={"part": "os:abort"})


def part_in_card(folder: Folder) -> None:
    file = folder.model / METADATA
    metadata = json.loads(file.read_text())
    metadata["data"] = {**metadata["data"], "option": "mine", "part": "os:abort"}
    file.write_text(json.dumps(metadata))
    (folder.model / manifest.NAME).unlink()


def target_of_hydra(folder: Folder) -> None:
    hydra = {"callbacks": {"x": {"_target_": "builtins.open", "file": MARKER, "mode": "w"}}}
    set_in_settings(folder.root / run_folder.SETTINGS, hydra=hydra)


def target_in_card(folder: Folder) -> None:
    file = folder.model / METADATA
    metadata = json.loads(file.read_text())
    metadata["data"]["_target_"] = "os.system"
    file.write_text(json.dumps(metadata))
    (folder.model / manifest.NAME).unlink()  # somebody hostile would bring a list that fits


def pickled(weights: Path, name: str) -> None:
    torch.save({"x": Hostile()}, weights.with_name(name))
    weights.unlink()


def hostile_checkpoint(folder: Folder) -> None:
    file = folder.root / run_folder.CHECKPOINTS / "last.ckpt"
    torch.save(torch.load(file, weights_only=True) | {"x": Hostile()}, file)


def in_jobs(change: Callable[[dict[str, Any]], Any]) -> Callable[[Folder], None]:
    """An attack on the list of jobs of the multirun that the run belongs to."""

    def spoil(folder: Folder) -> None:
        file = folder.root.parent / multirun.JOBS
        raised = json.loads(file.read_text())
        change(raised)
        file.write_text(json.dumps(raised))

    return spoil


ATTACKS: dict[str, tuple[Callable[[Folder], None], str]] = {
    "an option is a path": (option_is_a_path, "is no name of an option; it is not opened"),
    "a launcher is a path": (launcher_is_a_path, "sets 'hydra/launcher', which is no setting of a run"),
    "_target_ in a section": (target, "sets loss._target_, which is no setting of a run"),
    "_target_ of Hydra": (target_of_hydra, "sets hydra, which is no setting of a run"),
    "a part of somebody else": (part, "was made with loss=mine (built by os:abort), which is no option"),
    "a part in the card": (part_in_card, "was made with data=mine (built by os:abort), which is no option"),
    "_target_ in the card": (target_in_card, "names code to run (_target_)"),
    "a pickled adapter": (
        lambda f: pickled(f.model / "adapter_model.safetensors", "adapter_model.bin"), "a pickle may run any code"),
    "a pickled base": (
        lambda f: pickled(f.base / "model.safetensors", "pytorch_model.bin"), "a pickle may run any code"),
    "a checkpoint with code": (hostile_checkpoint, "last.ckpt is not a whole checkpoint"),
    "the launcher of the jobs is a path": (
        in_jobs(lambda raised: raised["hydra"].append("hydra/launcher=" + evil_option(Path("foreign")))),
        "which may run code and so is not taken from a file"),
    "an option of a job is a path": (
        in_jobs(lambda raised: raised["jobs"][0]["settings"]["options"].update(loss=evil_option(Path("foreign")))),
        "is no name of an option; it is not opened"),
    "_target_ of a job": (
        in_jobs(lambda raised: raised["jobs"][0]["settings"]["loss"].update(_target_="builtins.open")),
        "sets loss._target_, which is no setting of a run"),
    # Where pickles are not even looked for: the hub is asked for safetensors and JSON only.
    "an unseen pickled adapter": (
        lambda f: pickled(f.model / "adapter_model.safetensors", "adapter_model.bin"), "adapter_model.safetensors"),
    "an unseen pickled base": (
        lambda f: pickled(f.base / "model.safetensors", "pytorch_model.bin"), "model.safetensors"),
}  # fmt: skip

SETTINGS = ["an option is a path", "a launcher is a path", "_target_ in a section", "_target_ of Hydra"]
MODEL = ["_target_ in the card", "a pickled adapter", "a pickled base"]
HUB = ["_target_ in the card", "an unseen pickled adapter", "an unseen pickled base"]
PART = "a part of somebody else"
JOBS = ["the launcher of the jobs is a path", "an option of a job is a path", "_target_ of a job"]
TRAIN = [*SMALL, "trainer=debug", "hydra.run.dir=out"]
TUNE = ["space=learning_rate", "study.trials=1", "study.pruner=none", "hydra.run.dir=out"]
HF = f"hf:{OWNER}/foreign"

WAYS: dict[str, tuple[list[str], list[str]]] = {
    "run of predict": (["predict", "run=foreign", "text=hi"], MODEL),
    "run of evaluate": (["evaluate", "run=foreign", "hydra.run.dir=out"], [*MODEL, "a part in the card"]),
    "run of export": (["export", "run=foreign", "output=out", "format=adapter"], MODEL),
    "runs that are averaged": (["evaluate", "run=[own,foreign]", "hydra.run.dir=out"], MODEL),
    "runs that are compared": (["compare", "runs=[own,foreign]", "hydra.run.dir=out"], SETTINGS),
    "from_run": (["train", "from_run=foreign", "trainer=debug", "hydra.run.dir=out"], [*SETTINGS, PART]),
    "from_run of tune": (["tune", "from_run=foreign", *TUNE], [*SETTINGS, PART]),
    "resume": (["train", "resume=foreign"], [*SETTINGS, PART, "an unseen pickled base", "a checkpoint with code"]),
    "sweep.resume": (["train", "-m", "sweep.resume=foreign"], [*SETTINGS, PART, *JOBS]),
    "init_from": (["train", *TRAIN, "init_from=foreign"], MODEL),
    "distill.runs": (["train", *TRAIN, "distill.runs=foreign"], MODEL),
    "distill.runs, several": (["train", *TRAIN, "distill.runs=[own,foreign]"], MODEL),
    "hf: of predict": (["predict", f"run={HF}", "text=hi"], HUB),
    "hf: of init_from": (["train", *TRAIN, f"init_from={HF}"], HUB),
    "hf: of distill.runs": (["train", *TRAIN, f"distill.runs={HF}"], HUB),
}
"""A command line, and the attacks on what it reads."""


@pytest.fixture(scope="module")
def sources(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as they come in: a finished run, one that was stopped, one in a multirun, and what the hub holds."""
    place = tmp_path_factory.mktemp("foreign")
    stopped = Path(shutil.copytree(finished, place / "stopped"))
    (stopped / run_folder.METRICS).unlink()
    (stopped / manifest.NAME).unlink(missing_ok=True)
    shutil.rmtree(stopped / run_folder.MODEL)
    shutil.copytree(stopped, place / "multirun" / "0")
    export = ["export", f"run={finished}", f"output={place / 'export'}", "format=adapter"]
    assert run_in_process(*export) == 0
    schema.register()
    before = os.getcwd()
    os.chdir(place)
    try:
        plan = check_jobs("train", [*SMALL, "seed=1,2", "hydra.sweep.dir=multirun"], typed=set())
    finally:
        os.chdir(before)
    assert plan is not None
    multirun.write_jobs(
        multirun.Multirun(place / "multirun", "train", ["-m"], ["hydra/launcher=basic"], plan.metric, plan.jobs[:1])
    )
    return {"run": finished, "stopped": stopped, "multirun": place / "multirun", "export": place / "export"}


def bring(way: str, sources: dict[str, Path], place: Path) -> Folder:
    """A copy of the folder that this way takes, under the name `foreign`."""
    kind = {"resume": "stopped", "sweep.resume": "multirun"}.get(way, "export" if way.startswith("hf:") else "run")
    copy = Path(shutil.copytree(sources[kind], place / "foreign"))
    if kind == "export":
        return Folder(copy, copy, copy / run_folder.BASE)
    root = copy / "0" if kind == "multirun" else copy
    return Folder(root, root / run_folder.MODEL, root / run_folder.BASE)


@pytest.mark.parametrize(
    ("way", "attack"), [(way, attack) for way, (_, attacks) in WAYS.items() for attack in (None, *attacks)]
)
def test_a_hostile_folder_is_refused_in_a_sentence_and_runs_nothing(
    run: Any, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, way: str,
    attack: str | None,
) -> None:  # fmt: skip
    line, _ = WAYS[way]
    folder = bring(way, sources, tmp_path)
    shutil.copytree(sources["run"], tmp_path / "own")
    spoil, message = ATTACKS[attack] if attack else (lambda _: None, "")
    spoil(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no answers of a teacher that an earlier test kept
    trials_by_stand_in(monkeypatch)
    with Hub() as server:
        log_in(server, tmp_path / "cache", monkeypatch)
        if way.startswith("hf:"):
            files = {str(f.relative_to(folder.root)): f.read_bytes() for f in folder.root.rglob("*") if f.is_file()}
            server.repositories[HF.removeprefix("hf:")] = Repository(commits=[files])
        # Those of an earlier command in this process write to streams that pytest has closed.
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        capfd.readouterr()
        code = run(*line)
    raised = capfd.readouterr().err
    assert not (tmp_path / MARKER).exists(), raised
    if attack is None:
        assert code == 0, raised  # what is refused below is refused for the attack
        return
    assert code == 2 and message in raised and "Traceback" not in raised, raised
    assert not (tmp_path / "out" / run_folder.METRICS).exists()


def test_what_these_folders_hold_would_do_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Hostile()}, "x.ckpt")
    torch.load("x.ckpt", weights_only=False)
    assert (tmp_path / MARKER).exists()
    os.remove(MARKER)
    (tmp_path / "loss").mkdir()
    evil_option(tmp_path / "loss")
    # The same option of a person's own, whom Hydra obeys; that its callback is none it tells in a warning.
    assert run_in_process("train", *TRAIN, "--config-dir", str(tmp_path), "loss=evil") == 0
    assert (tmp_path / MARKER).exists()
