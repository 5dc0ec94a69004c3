"""A folder from elsewhere is data: whatever it holds, nothing in it is run and nothing outside it is opened."""

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL, run_in_process
from safetensors.torch import load_file, save_file

from emotion_lightning import config
from emotion_lightning.cli import multirun
from emotion_lightning.cli.compose import settings_of
from emotion_lightning.cli.jobs import check_jobs
from emotion_lightning.config import schema, stored_settings
from emotion_lightning.errors import UserError
from emotion_lightning.models import backbone, model_folder, safe_loading
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import manifest, run_folder

MARKER = "was_here"
"""The file that hostile code would write into the working directory."""


class Hostile:
    """Writes the marker when it is unpickled."""

    def __reduce__(self) -> Any:
        return open, (MARKER, "w")


CODE = (
    f"open({MARKER!r}, 'w')\nfrom transformers import BertConfig\nclass C(BertConfig): model_type = 'evil'\nM = T = C\n"
)


def change(file: Path, **entries: Any) -> None:
    (file.parent / manifest.NAME).unlink(missing_ok=True)  # somebody hostile would bring a list that fits
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def change_card(folder: Path, *path: str, value: Any) -> None:
    file = folder / METADATA
    (folder / manifest.NAME).unlink(missing_ok=True)
    content = part = json.loads(file.read_text())
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    file.write_text(json.dumps(content))


def pickled(weights: Path, name: str) -> None:
    """Put a pickle in the place of safetensors."""
    torch.save({"x": Hostile()}, weights.with_name(name))
    weights.unlink()


def with_code(folder: Path, file: str) -> None:
    (folder / "evil.py").write_text(CODE)
    classes = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M", "AutoTokenizer": ["evil.T"] * 2}
    change(folder / file, auto_map=classes)


def linked(folder: Path, name: str) -> None:
    """Let a file or folder of the run lie elsewhere and a link in its place."""
    outside = folder.parent.parent / "outside"
    outside.mkdir()
    shutil.move(folder / name, outside / Path(name).name)
    (folder / name).symlink_to(outside / Path(name).name)


def two_more_labels(folder: Path) -> None:
    file = folder / METADATA
    metadata = json.loads(file.read_text())
    for name in ("calm", "awe"):
        metadata["labels"].append(name)
        for cuts in metadata["thresholds"].values():
            cuts[name] = 0.5
    file.write_text(json.dumps(metadata))
    (folder / manifest.NAME).unlink(missing_ok=True)


ADAPTER: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled adapter": (
        lambda m: pickled(m / "adapter_model.safetensors", "adapter_model.bin"), "a pickle may run any code"),
    "pickled base": (
        lambda m: pickled(m.parent / "base" / "model.safetensors", "pytorch_model.bin"), "a pickle may run any code"),
    "base that names its pickle": (
        lambda m: (torch.save({"x": Hostile()}, m.parent / "base" / "adapter_model.bin"),
                   change(m.parent / "base" / "config.json", transformers_weights="adapter_model.bin")),
        "names a file of weights"),
    "base that is an adapter": (
        lambda m: shutil.copy(m / "adapter_config.json", m.parent / "base"), "can be the base of none"),
    "code of a tokenizer": (lambda m: with_code(m, "tokenizer_config.json"), "names code to run (auto_map)"),
    "code of an adapter": (lambda m: with_code(m, "adapter_config.json"), "names code to run (auto_map)"),
    "module of an adapter": (
        lambda m: change(m / "adapter_config.json", auto_mapping={"base_model_class": "C", "parent_library": "evil"}),
        "sets auto_mapping"),
    "foreign method": (lambda m: change(m / "adapter_config.json", peft_type="PROMPT_TUNING"), "is of no method"),
    "target in a card": (
        lambda m: change_card(m, "data", "_target_", value="os.system"), "names code to run (_target_)"),
    "unknown entry of a card": (lambda m: change_card(m, "evil", value=1), "is damaged or of another version"),
    "base above": (lambda m: change_card(m, "base", "path", value="../../base"), "lies outside its folder"),
    "base of no hub": (
        lambda m: (change_card(m, "base", "path", value="/etc"), change_card(m, "base", "local", value=False)),
        "is no id of the hub"),
    "data above": (lambda m: change_card(m, "data", "path", value="../../../etc/passwd"), "lies outside its folder"),
    "place in an export": (
        lambda m: (change_card(m, "format", value="adapter"), change_card(m, "base", "path", value="/etc")),
        "lies outside its folder"),
    "file of a tokenizer": (
        lambda m: change(m / "tokenizer_config.json", vocab_file="/etc/passwd"), "names a file elsewhere"),
    "linked weights": (lambda m: linked(m, "adapter_model.safetensors"), "is a link that leaves the folder"),
    "linked folder": (lambda m: linked(m.parent, "base"), "is a link that leaves the run's folder"),
    "label twice": (lambda m: change_card(m, "labels", value=["joy", "joy"]), "names the label joy 2 times"),
    "label that is no text": (lambda m: change_card(m, "labels", value=["joy", 3]), "is damaged"),
    "label with an escape": (
        lambda m: m.joinpath(METADATA).write_text(
            m.joinpath(METADATA).read_text().replace('"joy"', '"joy\\u001b[2J"')),
        "has a label 'joy\\x1b[2J' with the control character U+001B"),
    "labels of another head": (two_more_labels, "names 13 labels, its head has 11 outputs"),
    "threshold above 1": (lambda m: change_card(m, "thresholds", "global", "joy", value=1.5), "not a number of 0 to 1"),
    "threshold in words": (lambda m: change_card(m, "thresholds", "global", "joy", value="0.5"), "not a number"),
    "threshold too many": (lambda m: change_card(m, "thresholds", "global", "awe", value=0.5), "is of 12 labels"),
    "protocol of its own": (lambda m: change_card(m, "protocol", value="mine"), "no thresholds of its protocol"),
    "calibration of its own": (
        lambda m: change_card(m, "calibration", value={"joy": {"slope": 1, "offset": 0}}), "is of 1 labels"),
    "deep JSON": (lambda m: (m / "config.json").write_text("[" * 100_000), "nested more than 100 levels deep"),
}  # fmt: skip

WHOLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled network": (
        lambda m: pickled(m / "model.safetensors", "pytorch_model.bin"), "a pickle may run any code"),
    "named pickle": (
        lambda m: (pickled(m / "model.safetensors", "adapter_model.bin"),
                   change(m / "config.json", transformers_weights="adapter_model.bin")), "sets transformers_weights"),
    "code of a network": (lambda m: with_code(m, "config.json"), "names code to run (auto_map)"),
    "kernel of the hub": (
        lambda m: change(m / "config.json", attn_implementation="somebody/kernel"), "sets attn_implementation"),
    "kernel by its inner name": (
        lambda m: change(m / "config.json", _attn_implementation="somebody/kernel"), "sets _attn_implementation"),
    "quantiser": (
        lambda m: change(m / "config.json", quantization_config={"quant_method": "gptq"}), "sets quantization_config"),
    "adapter of another": (
        lambda m: (m / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3", "task_type": "SEQ_CLS"})),
        "both a whole network and an adapter"),
    "weights above": (
        lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../x.safetensors"}}'),
        "parts are safetensors beside it"),
    "labels of another head": (two_more_labels, "names 13 labels, its head has 11 outputs"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    full = [*SMALL, "peft=full", "model.quantization=none", "trainer=debug"]
    assert run_in_process("train", *full, f"hydra.run.dir={folder}") == 0
    return folder


def refused(run: Any, source: Path, tmp_path: Path, capfd: Any, spoil: Callable[[Path], None], message: str,
            commands: list[list[str]]) -> None:  # fmt: skip
    folder = Path(shutil.copytree(source, tmp_path / "copies" / "run")) / "model"
    spoil(folder)
    for arguments in commands:
        assert run(*arguments) == 2, arguments
        raised = capfd.readouterr().err
        assert message in raised and "Traceback" not in raised, raised
        assert len(raised.strip().splitlines()) == 1
    assert not (tmp_path / MARKER).exists()
    assert not (tmp_path / "out").exists()


OPENING = [
    ["predict", "run=copies/run", "text=hi"],
    ["export", "run=copies/run", "output=out", "format=merged"],
]
"""Commands that open a model folder."""


@pytest.mark.parametrize("kind", ADAPTER)
def test_a_hostile_adapter_is_refused(run: Any, finished: Path, tmp_path: Path, capfd: Any, kind: str) -> None:
    refused(run, finished, tmp_path, capfd, *ADAPTER[kind], OPENING)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_hostile_network_is_refused(run: Any, whole: Path, tmp_path: Path, capfd: Any, kind: str) -> None:
    refused(run, whole, tmp_path, capfd, *WHOLE[kind], OPENING)


@pytest.mark.parametrize("kind", ["pickled adapter", "module of an adapter", "linked weights", "label twice"])
def test_a_hostile_start_is_refused(run: Any, finished: Path, tmp_path: Path, capfd: Any, kind: str) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copies" / "run")) / "model"
    spoil, message = ADAPTER[kind]
    spoil(folder)
    assert run("train", *SMALL, "trainer=debug", "init_from=copies/run", "hydra.run.dir=out") == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / MARKER).exists() and not (tmp_path / "out" / "metrics.json").exists()


def test_the_pickles_and_the_code_of_these_tests_would_do_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Hostile()))
    assert (tmp_path / MARKER).exists()
    os.remove(MARKER)
    torch.save({"x": Hostile()}, "weights.bin")
    torch.load("weights.bin", weights_only=False)
    assert (tmp_path / MARKER).exists()
    os.remove(MARKER)
    exec(CODE, {})
    assert (tmp_path / MARKER).exists()


def test_settings_from_elsewhere_cannot_reach_hydra(run: Any, finished: Path, tmp_path: Path, capfd: Any) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    settings = run_folder.read_settings(folder)
    for hostile in (
        settings | {"hydra": {"callbacks": {"x": {"_target_": "builtins.open", "file": MARKER, "mode": "w"}}}},
        settings | {"options": settings["options"] | {"hydra/launcher": "local"}},
        settings | {"data": settings["data"] | {"x,hydra.verbose": True}},
        settings | {"a\nERROR b": 1},
        settings | {"data": settings["data"] | {"x\nERROR b": 1}},
    ):
        (folder / run_folder.SETTINGS).write_text(yaml.safe_dump(hostile))
        assert run("train", "from_run=run", "hydra.run.dir=out") == 2
        raised = capfd.readouterr().err
        assert "which is no setting of a run" in raised and len(raised.splitlines()) == 1
    text = "!!python/object/apply:builtins.open [was_here, w]"
    (folder / run_folder.SETTINGS).write_text(f"options: {text}")
    assert run("train", "from_run=run", "hydra.run.dir=out") == 2
    assert "cannot be read" in capfd.readouterr().err
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("data", [None, 5, ["packing"], "packing"])
def test_settings_whose_data_is_no_mapping_end_in_a_sentence(tmp_path: Path, data: Any) -> None:
    tree = {"options": {}, "data": data}
    if data is None:  # unset, as a setting of another version may be
        assert stored_settings.checked_settings(tree, tmp_path / "settings.yaml") == tree
        return
    with pytest.raises(UserError, match="sets data, which is no setting of a run"):
        stored_settings.checked_settings(tree, tmp_path / "settings.yaml")


EVIL = "# @package _global_\nhydra: {callbacks: {x: {_target_: joblib.load, filename: x.pkl}}}\n"
"""An option file that opens a pickle where Hydra reads it: joblib.load is not among the targets that Hydra refuses."""


def evil_options(folder: Path) -> str:
    """Put an option file that runs code into a folder; the name under which a group's option would reach it."""
    (folder / "evil.yaml").write_text(EVIL)
    (Path.cwd() / "x.pkl").write_bytes(pickle.dumps(Hostile()))
    return f"../../../../../../../../../..{folder.resolve()}/evil"


@pytest.mark.parametrize("line", [["from_run=run", "hydra.run.dir=out"], ["resume=run"]])
def test_an_option_of_a_run_from_elsewhere_cannot_be_a_file(
    run: Any, finished: Path, tmp_path: Path, capfd: Any, line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    settings = run_folder.read_settings(folder)
    monkeypatch.chdir(tmp_path)
    hostile = settings | {"options": settings["options"] | {"loss": evil_options(folder)}}
    (folder / run_folder.SETTINGS).write_text(yaml.safe_dump(hostile))
    assert run("train", *line) == 2
    assert "is no name of an option; it is not opened" in capfd.readouterr().err
    assert not (tmp_path / MARKER).exists()


def test_an_option_of_ones_own_is_taken_from_a_folder_typed_now_only(
    run: Any, finished: Path, tmp_path: Path, capfd: Any
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    settings = run_folder.read_settings(folder)
    (folder / run_folder.SETTINGS).write_text(
        yaml.safe_dump(settings | {"options": settings["options"] | {"loss": "mine"}})
    )
    (tmp_path / "options" / "loss").mkdir(parents=True)
    shutil.copy(schema.conf_folder() / "loss" / "bce.yaml", tmp_path / "options" / "loss" / "mine.yaml")
    assert run("train", "from_run=run", "hydra.run.dir=out") == 2
    assert "chooses loss=mine, which is no option of this program" in capfd.readouterr().err
    # The option is chosen anew, so that the run's own is not asked for.
    assert isinstance(settings_of("train", ["from_run=run", "loss=bce"]).loss, config.BCE)
    for name in [name for name in settings["loss"] if name not in schema.plain(config.BCE())]:
        del settings["loss"][name]
    settings["options"]["loss"] = "mine"
    (folder / run_folder.SETTINGS).write_text(yaml.safe_dump(settings))
    line = ["from_run=run", "--config-dir", "options"]
    assert isinstance(settings_of("train", line).loss, config.BCE)


def test_yaml_that_stands_for_gigabytes_is_refused(run: Any, finished: Path, tmp_path: Path, capfd: Any) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghijkl")
    )
    (folder / run_folder.SETTINGS).write_text(bomb)
    assert run("train", "from_run=run", "hydra.run.dir=out") == 2
    assert "repeats a part by reference (*a)" in capfd.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda raised: raised["hydra"].append("hydra/launcher=../../../../../../../proc/self/cwd/sweep/evil"),
        lambda raised: raised["hydra"].append("hydra.launcher.setup=[touch was_here]"),
        lambda raised: raised["hydra"].append("hydra.launcher.partition='gpu\\ntouch was_here'"),
        lambda raised: raised["hydra"].append("hydra.job.env_set.LD_PRELOAD=evil.so"),
        lambda raised: raised["hydra"].append("+hydra.callbacks.x._target_=builtins.open"),
        lambda raised: raised["hydra"].append("hydra.launcher={_target_: builtins.open, file: was_here, mode: w}"),
        lambda raised: raised["hydra"].append("hydra.searchpath=[file:///tmp]"),
        lambda raised: raised["jobs"][0]["settings"].update(hydra={"callbacks": {}}),
        lambda raised: raised["jobs"][0]["settings"]["options"].update({"hydra/launcher": "local"}),
        lambda raised: raised["jobs"][0]["settings"]["options"].update({"loss": "/tmp/evil"}),
        lambda raised: raised["jobs"][0]["settings"].update({"data": {"path": {"_target_": "builtins.open"}}}),
        lambda raised: raised["jobs"][0].update(folder="../elsewhere"),
        lambda raised: raised["jobs"][0].update(folder="/tmp/elsewhere"),
    ],
)
def test_a_multirun_from_elsewhere_cannot_name_code(run: Any, tmp_path: Path, capfd: Any, change: Any) -> None:
    schema.register()
    plan = check_jobs("baseline", ["seed=1,2", "hydra.sweep.dir=sweep"], typed=set())
    assert plan is not None
    multirun.write_jobs(multirun.Multirun(plan.folder, "baseline", [], [], plan.metric, plan.jobs))
    assert [job.number for job in multirun.read_jobs(plan.folder).jobs] == [0, 1]
    file = tmp_path / "sweep" / "jobs.json"
    raised = json.loads(file.read_text())
    change(raised)
    file.write_text(json.dumps(raised))
    assert run("baseline", "-m", "sweep.resume=sweep") == 2
    assert re.search(r"jobs\.json (sets|puts a job into)", capfd.readouterr().err)
    assert not (tmp_path / MARKER).exists()


def test_what_a_multirun_told_hydra_is_kept_where_it_is_plain_or_typed_anew(tmp_path: Path) -> None:
    raised = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.setup=[module load cuda]"]
    whole = multirun.Multirun(tmp_path, "train", [], raised, "f1_macro", [])
    with pytest.raises(UserError, match="If it is yours, type it again: 'hydra.launcher.setup=.module load cuda.'"):
        multirun.kept_hydra_settings(whole, [])
    assert multirun.kept_hydra_settings(whole, [raised[2]]) == raised[:2]
    own = multirun.Multirun(tmp_path, "train", [], ["hydra.searchpath=['file:///my/options']"], "f1_macro", [])
    with pytest.raises(UserError, match="type it again: --config-dir /my/options"):
        multirun.kept_hydra_settings(own, [])
    assert multirun.kept_hydra_settings(own, ["hydra.searchpath=['file:///my/options']"]) == []


def test_a_model_path_that_holds_only_pickles_or_needs_code_is_refused(
    run: Any, finished: Path, tmp_path: Path, capfd: Any
) -> None:
    shutil.copytree(finished / "base", tmp_path / "base")
    pickled(tmp_path / "base" / "model.safetensors", "pytorch_model.bin")
    asked = ["model=gemma", "data=sample", "logger=none", "trainer=debug", "hydra.run.dir=out"]
    assert run("train", *asked, "model.path=base") == 2
    assert "model.safetensors" in capfd.readouterr().err
    shutil.copytree(finished / "base", tmp_path / "coded")
    with_code(tmp_path / "coded", "config.json")
    change(tmp_path / "coded" / "config.json", model_type="evil")
    assert run("train", *asked, "model.path=coded") == 2
    assert not (tmp_path / MARKER).exists() and "evil" not in sys.modules
    capfd.readouterr()
    shutil.copytree(finished / "base", tmp_path / "kernel")
    change(tmp_path / "kernel" / "config.json", attn_implementation="somebody/kernel")
    assert run("train", *asked, "model.path=kernel") == 2
    assert "which would be downloaded and run" in capfd.readouterr().err


@pytest.mark.slow
def test_a_graph_that_takes_weights_from_elsewhere_is_refused(
    run: Any, graph: Path, tmp_path: Path, capfd: Any
) -> None:
    onnx = pytest.importorskip("onnx")
    shutil.copytree(graph, tmp_path / "graph")
    (tmp_path / "graph" / manifest.NAME).unlink()
    file = tmp_path / "graph" / "model.onnx"
    whole = file.read_bytes()
    loaded = onnx.load(file)
    tensor = max(loaded.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    file.write_bytes(loaded.SerializeToString())
    (tmp_path / "secret").write_bytes(bytes(10_000_000))
    capfd.readouterr()
    assert run("predict", "run=graph", "text=hi") == 2
    assert "lies outside its folder" in capfd.readouterr().err
    file.write_bytes(whole[: len(whole) // 2])
    assert run("predict", "run=graph", "text=hi") == 2
    assert "is damaged" in capfd.readouterr().err
    file.write_bytes(whole)
    two_more_labels(tmp_path / "graph")
    assert run("predict", "run=graph", "text=hi") == 2
    assert "does not belong to its metadata" in capfd.readouterr().err
    file.unlink()
    torch.save({"x": Hostile()}, file.with_suffix(".pt"))
    assert run("predict", "run=graph", "text=hi") == 2
    assert "a pickle may run any code" in capfd.readouterr().err and not (tmp_path / MARKER).exists()


# ---------------------------------------------------------------------------------------------- what must go on working


def test_a_pickle_that_nothing_needs_is_let_lie(run: Any, finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run")) / "model"
    torch.save({"x": Hostile()}, folder / "training_args.bin")
    assert run("predict", "run=run", "text=hi") == 0
    assert not (tmp_path / MARKER).exists()


def test_links_to_a_run_and_of_the_hubs_cache_are_followed(run: Any, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(finished)
    assert run("predict", "run=latest", "text=hi") == 0
    assert run("export", f"run={finished}", "output=plain", "format=adapter") == 0
    blobs, snapshot = tmp_path / "models--me--it" / "blobs", tmp_path / "models--me--it" / "snapshots" / "abc"
    shutil.copytree("plain", snapshot)
    blobs.mkdir()
    for number, file in enumerate(path for path in sorted(snapshot.rglob("*")) if path.is_file()):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))
    assert run("predict", f"run={snapshot}", "text=hi") == 0


def test_parts_of_weights_are_read(run: Any, finished: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(finished, tmp_path / "run")) / "base"
    values = load_file(base / "model.safetensors")
    names = sorted(values)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in halves.items():
        save_file({name: values[name] for name in own}, base / file, metadata={"format": "pt"})
    places = {name: file for file, own in halves.items() for name in own}
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (base / "model.safetensors").unlink()
    assert run("export", "run=run", "output=out", "format=adapter") == 0
    assert run("predict", "run=out", "text=hi") == 0


def test_code_that_a_base_came_with_is_not_carried_on(tmp_path: Path, finished: Path) -> None:
    metadata = read_metadata(finished / "model")
    network = backbone.load_network(
        str(finished / "base"), revision=None, quantization=backbone.config.Quantization.none, dtype=torch.float32,
        head=metadata.base.head, kept=metadata.base.kept, attention=backbone.config.Attention.causal,
        attn_implementation=backbone.config.AttentionKernel.auto, labels=metadata.labels, pad_token_id=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    network.config.auto_map = {"AutoConfig": "evil.C"}
    tokenizer = model_folder.load_tokenizer(finished / "model")
    tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": "evil.T"}
    model_folder.save_model(tmp_path, network, tokenizer=tokenizer, metadata=metadata, readme="")
    safe_loading.check_model_folder(tmp_path)
    assert not any("auto_map" in file.read_text() for file in tmp_path.glob("*.json"))


@pytest.mark.parametrize("path", ["../x", "a/../b", "/etc", "a/b/c", "", ".hidden/x", 3, "~/x"])
def test_what_is_no_hub_id_is_known(path: Any) -> None:
    assert not safe_loading.is_hub_id(path)
    assert safe_loading.is_hub_id("google/gemma-1.1-2b-it") and safe_loading.is_hub_id("gpt2")


def test_a_base_is_never_looked_for_in_the_working_directory(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    assert run("export", f"run={finished}", "output=out", "format=adapter") == 0
    shutil.move("out/base", "base")  # in the working directory, where the relative path of the card would lead
    with pytest.raises(UserError, match=r"out/base is damaged: config\.json is missing"):
        model_folder.base_path(Path("out"), read_metadata(Path("out")))
