"""The Colab notebook runs from end to end, names settings that exist, and holds no outputs but a few pictures."""

import base64
import importlib.util
import logging
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import SMALL

import emotion_lightning as el
from emotion_lightning.cli import override_grammar
from emotion_lightning.cli.jobs import check_jobs
from emotion_lightning.config import schema

FILE = Path(__file__).parents[2] / "notebooks" / "emotion_lightning_colab.ipynb"
CHOICES: list[dict[str, Any]] = [
    {"data": "goemotions"},
    {"data": "goemotions", "data_folder": "official files", "peft": "lora", "wandb": True},
    {"data": "semeval2018", "data_folder": "official files", "model": "minilm"},
    {"data": "file", "data_file": "my (own) table.csv", "texts_file": "new texts.txt"},
    {"data": "sample", "model": "tiny", "more": ["data.max_rows=50", "optimizer.lr=0.01", "data.clean=[html,urls]"]},
]


def notebook() -> Any:
    return nbformat.read(FILE, as_version=4)


def cell(tag_or_text: str) -> Any:
    """The one cell of code with this tag or text."""
    (found,) = (
        part
        for part in notebook().cells
        if part.cell_type == "code" and (tag_or_text in part.metadata.get("tags", []) or tag_or_text in part.source)
    )
    return found


def executed(folder: Path, **parameters: Any) -> Any:
    """The notebook after a run in a folder, with other parameters than its own."""
    from nbclient import NotebookClient

    book = notebook()
    position = next(i for i, part in enumerate(book.cells) if "parameters" in part.metadata.get("tags", []))
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    book.cells.insert(position + 1, nbformat.v4.new_code_cell(given))
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return book


def printed(book: Any) -> str:
    streams = (output for part in book.cells for output in part.get("outputs", []) if output.output_type == "stream")
    return "".join(output.text for output in streams)


def test_the_notebook_runs_from_end_to_end(tmp_path: Path) -> None:
    more = [setting for setting in SMALL if not setting.startswith("logger=")]
    sentences = ["It cost $5 {and} I can't believe it!"]
    book = executed(tmp_path, data="sample", model="tiny", epochs=1, more=more, sentences=sentences, run_name="a run")
    outputs = [output for part in book.cells for output in part.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    text = printed(book)
    assert "Traceback" not in text
    assert "epoch 1/1" in text and sentences[0] in text and "likeliest:" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert any("global thresholds" in output.get("data", {}).get("text/markdown", "") for output in outputs)
    run = tmp_path / "outputs" / "notebook" / "a run"
    assert (run / "metrics.json").is_file() and (run / "model" / "adapter_model.safetensors").is_file()
    assert sentences[0] in (run / "labelled.csv").read_text(encoding="utf-8")


def test_a_command_that_fails_stops_the_notebook(tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="inspect failed; the lines above say why") as error:
        executed(tmp_path, data="sample", model="tiny", more=["data.max_row=50"])
    assert "did you mean data.max_rows" in str(error.value)
    assert not (tmp_path / "outputs" / "notebook" / "emotions-1").exists()


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> list[tuple[str, ...]]:
    """The commands that the notebook runs with such parameters; `fit` stands for train."""
    monkeypatch.chdir(folder)
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(el, "compose", lambda *settings: settings)
    monkeypatch.setattr(el, "fit", lambda settings, folder=None: seen.append(("train", *settings)))
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    names: dict[str, Any] = {"Path": Path, "in_colab": False, "run": lambda *line: seen.append(line)}
    exec(cell("parameters").source, names)
    names.update(parameters)
    exec(cell("run_folder = home").source, names)
    names["run_folder"].mkdir(parents=True, exist_ok=True)
    for part in notebook().cells:
        if part.cell_type == "code" and re.search(r"^ *run\(|el\.compose", part.source, re.MULTILINE):
            exec(part.source, names)
    return seen


@pytest.mark.parametrize("parameters", CHOICES, ids=lambda chosen: f"{chosen['data']} {chosen.get('model', 'gemma')}")
def test_commands_of_the_notebook_load(
    parameters: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commands(tmp_path, monkeypatch, **parameters)
    assert [verb for verb, *_ in found] == ["inspect", "train", "predict"]
    schema.register()
    for verb, *settings in found:
        check_jobs(verb, override_grammar.quote_texts(verb, settings, multirun=False), typed=set())
    assert set(parameters.get("more", [])) <= set(found[1])


def test_run_all_goes_on_with_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("checkpoints/last.ckpt", "metrics.json"):
        file = tmp_path / name / "outputs" / "notebook" / "emotions-1" / name
        file.parent.mkdir(parents=True)
        file.touch()
        _, train, _ = commands(tmp_path / name, monkeypatch)
        assert train == ("train", "resume=outputs/notebook/emotions-1")


def test_the_defaults_are_those_that_a_free_gpu_is_for() -> None:
    names: dict[str, Any] = {}
    exec(cell("parameters").source, names)
    assert (names["model"], names["peft"]) == ("gemma", "ia3")


def test_only_pictures_are_kept_of_the_outputs() -> None:
    code = [part for part in notebook().cells if part.cell_type == "code"]
    assert all(part.execution_count is None for part in code)
    outputs = [output for part in code for output in part.outputs]
    assert {output.output_type for output in outputs} == {"display_data"}
    assert all(set(output.data) == {"image/png"} for output in outputs)
    assert sum(len(base64.b64decode(output.data["image/png"])) for output in outputs) < 300_000


def test_nothing_in_it_needs_an_address_that_there_is_not() -> None:
    text = FILE.read_text(encoding="utf-8") + (FILE.parent.parent / "README.md").read_text(encoding="utf-8")
    assert "OWNER" not in text and "github.com/" not in text


@pytest.mark.parametrize("package", ["", "git+https://example.org/mine.git"])
def test_what_is_installed_is_what_is_uploaded_or_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(upload=lambda: {"a wheel.whl": b""})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda line, check: started.append(line))
    source = cell("find_spec").source.partition("\n\ndef run")[0]
    monkeypatch.setattr(os, "environ", dict(os.environ))
    names = {"package": package}
    exec(source, names)
    assert started == [[sys.executable, "-m", "pip", "install", "--quiet", package or str(tmp_path / "a wheel.whl")]]
