"""The code that READMEs of model folders and cards on the hub hold runs as it stands, and gives the run's answers."""

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_in_process
from helpers import warm
from helpers.hub_server import OWNER, TOKEN, Hub

from emotion_lightning import config, load
from emotion_lightning.inference import upload
from emotion_lightning.models import model_folder, stock_code
from emotion_lightning.models.device import compute_dtype
from emotion_lightning.models.metadata import METADATA, find_model_folder, read_metadata

QUICK = ["trainer=debug", "data.max_rows=96", "predict.text=true", "logger=none"]
# So that what was trained shows in the answers.
RATES = ["optimizer.lr=0.05", "optimizer.head_lr=0.05"]
ENCODER = [
    "model=minilm", "peft=full",
    *(f"model.architecture.{name}" for name in ("num_hidden_layers=2", "hidden_size=64", "num_attention_heads=2",
                                                "intermediate_size=128", "vocab_size=8192")),
]  # fmt: skip
MINILM = os.environ.get("MINILM", "")
"""The folder of all-MiniLM-L6-v2, where there is one; else a small network of its kind with random weights."""

BASE = ["model.pretrained=true", f"model.path={MINILM}"] if MINILM else ["model.pretrained=false"]

AS_IT_STANDS = """
import json, os, runpy, sys
os.chdir(sys.argv.pop(1))
if not json.loads(sys.argv.pop(1)):
    sys.modules["emotion_lightning"] = None  # its import is an error
found = runpy.run_path(sys.argv[1])
if "probabilities" in found:
    # The same lines once more, on the texts of the run's own test split.
    again = open(sys.argv[1], encoding="utf-8").read()
    before, _, after = again.partition("\\ntexts = ")
    found["texts"] = json.load(open(sys.argv[2], encoding="utf-8"))
    exec(after.partition("\\n")[2], found)
    json.dump([list(map(float, row)) for row in found["probabilities"]], open(sys.argv[3], "w"))
"""


def blocks(readme: Path | str) -> list[str]:
    """The Python code of a README."""
    text = readme.read_text(encoding="utf-8") if isinstance(readme, Path) else readme
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def own_answers(run: Path) -> tuple[list[str], np.ndarray]:
    """Texts of the test split, and what the run says of them."""
    with (run / "predictions" / "test.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    names = [name for name in rows[0] if name.startswith("p_")]
    return [row["text"] for row in rows], np.array([[float(row[name]) for name in names] for row in rows])


def execute(code: str, folder: Path, work: Path, texts: list[str], **variables: str) -> tuple[str, Any]:
    """What the code prints in a process of its own, started in a folder, and its probabilities of these texts."""
    (work / "code.py").write_text(code, encoding="utf-8")
    (work / "as_it_stands.py").write_text(AS_IT_STANDS, encoding="utf-8")
    (work / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    (work / "found.json").unlink(missing_ok=True)
    files = [str(work / name) for name in ("code.py", "texts.json", "found.json")]
    needs_us = "emotion_lightning import" in code
    done = warm.run(
        [sys.executable, "-m", "as_it_stands", str(folder), json.dumps(needs_us), *files],
        cwd=work,
        env=warm.ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        by=warm.server if needs_us else warm.without_us,
    )
    assert done.returncode == 0, (code, done.stderr[-3000:])
    found = work / "found.json"
    return done.stdout, np.array(json.loads(found.read_text())) if found.exists() else None


def tolerance() -> float:
    """How far float32 is from what a run on this machine computes in."""
    return 1e-4 if compute_dtype(config.Dtype.auto, torch.device("cpu")) is torch.float32 else 0.03


def compare(found: Any, texts: list[str], own: np.ndarray, folder: Path, *, close: float, same_weights: bool) -> None:
    """Compare with the run's own answers where its weights are those of the folder, else closely with the folder's."""
    if same_weights:
        np.testing.assert_allclose(found, own, atol=close)
        return
    np.testing.assert_allclose(found, load(folder, accelerator="cpu").probabilities(texts), atol=close)
    # Single answers may move far where weights are not in 4 bits any more; most do not.
    assert np.abs(found - own).mean() < 0.05


def check(run: Path, folder: Path, work: Path, *, close: float, only: str = "", same_weights: bool = True) -> None:
    """Execute every block of a folder's README; those that hold `only`."""
    texts, own = own_answers(run)
    found = [code for code in blocks(folder / "README.md") if only in code]
    assert found
    answered = 0
    for code in found:
        printed, probabilities = execute(code, folder, work, texts)
        assert printed
        if probabilities is not None:
            compare(probabilities, texts, own, folder, close=close, same_weights=same_weights)
            answered += 1
    assert answered == 1
    labels = read_metadata(folder).labels
    assert own.shape[1] == len(labels)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with the default network: in 4 bits, on the base inside the package, whose weights are bfloat16."""
    folder = tmp_path_factory.mktemp("runs") / "default"
    assert run_in_process("train", *QUICK, *RATES, "data.max_tokens=24", f"hydra.run.dir={folder}") == 0
    return folder


def test_the_code_of_the_default_run_gives_its_answers(default: Path, tmp_path: Path) -> None:
    check(default, default / "model", tmp_path, close=tolerance(), only="PeftModel")


RUNS = {
    "in 4 bits": ["model.quantization=nf4", "thresholds.calibration=per_label"],
    "in 8 bits": ["model.quantization=int8", "peft=lora"],
    "unquantised": ["model.quantization=none"],
    "in full": ["model.quantization=none", "peft=full", "data.max_tokens=12"],
    "an encoder": [*ENCODER, *BASE, "data.max_tokens=12"],
    "an encoder with an adapter": [*ENCODER, "peft=ia3", "model.pretrained=false"],
}  # fmt: skip
EIGHT_BITS = 0.02
"""How far answers differ where the activations are rounded to 8 bits too, from those of other batches."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            kind,
            marks=pytest.mark.slow if kind in ("in 4 bits", "an encoder with an adapter") else pytest.mark.exhaustive,
        )
        for kind in RUNS
    ],
)
def run_of_a_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    rates = [] if "full" in request.param or "encoder" in request.param else RATES
    assert run_in_process("train", *QUICK, *rates, *RUNS[request.param], f"hydra.run.dir={folder}") == 0
    return request.param, folder


def test_every_snippet_of_a_run_and_of_its_exports_runs(run_of_a_kind: tuple[str, Path], tmp_path: Path) -> None:
    kind, run = run_of_a_kind
    close = EIGHT_BITS if kind == "in 8 bits" else tolerance()
    check(run, run / "model", tmp_path, close=close)
    metadata = read_metadata(run / "model")
    for form in ("adapter", "merged", "onnx", "onnx_int8"):
        if form == "adapter" and not metadata.base.adapter:
            continue
        if form == "onnx_int8" and kind != "in full":
            continue  # the same code as onnx
        if form == "onnx" and kind == "in 4 bits":
            continue  # the graph of a merged network, as of "unquantised"
        output = tmp_path / form
        assert run_in_process("export", f"run={run}", f"output={output}", f"format={form}") == 0
        # A merged network is not in 4 or 8 bits any more, and a graph's weights may be in 8 of their own.
        same = form == "adapter" or (metadata.base.quantization == "none" and form != "onnx_int8")
        check(run, output, tmp_path, close=close if form != "onnx_int8" else EIGHT_BITS, same_weights=same)


@pytest.mark.slow
def test_the_code_finds_the_base_after_the_run_has_moved(default: Path, tmp_path: Path) -> None:
    moved = shutil.move(shutil.copytree(default, tmp_path / "copy"), tmp_path / "moved")
    check(default, Path(moved) / "model", tmp_path, close=tolerance())


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("adapter", marks=pytest.mark.slow),
        pytest.param("merged", marks=pytest.mark.exhaustive),
        pytest.param("onnx", marks=pytest.mark.exhaustive),
    ],
)
def test_the_code_of_a_card_on_the_hub_gives_the_run_s_answers(
    default: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from helpers.hub_server import log_in

    output = tmp_path / "out"
    assert run_in_process("export", f"run={default}", f"output={output}", f"format={form}") == 0
    texts, own = own_answers(default)
    with Hub() as server:
        log_in(server, tmp_path, monkeypatch)
        upload.upload(output, f"{OWNER}/emotions", run=default)
        readme = server.repositories[f"{OWNER}/emotions"].files["README.md"].decode()
        home = {
            "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        answers = [execute(code, tmp_path, tmp_path, texts, **home) for code in blocks(readme)]
    assert all(printed for printed, _ in answers)
    (found,) = (probabilities for _, probabilities in answers if probabilities is not None)
    compare(found, texts, own, output, close=tolerance(), same_weights=form == "adapter")


def test_the_code_names_the_revision_of_a_base_on_the_hub(finished: Path) -> None:
    metadata = read_metadata(finished / "model")
    metadata = metadata.with_base(local=False, pretrained=True, path="google/gemma-1.1-2b-it", revision="abc")
    code = "\n".join(stock_code.block(metadata, folder='"."'))
    assert '"google/gemma-1.1-2b-it", revision="abc",' in code
    compile(code.removeprefix("```python\n").removesuffix("```"), "code", "exec")


def test_a_model_folder_is_opened_from_within(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = load(finished, accelerator="cpu").probabilities([stock_code.TEXT])
    metadata = json.loads((finished / "model" / METADATA).read_text())
    assert metadata["base"]["path"] == str(finished / "base")
    monkeypatch.chdir(finished / "model")
    assert model_folder.base_path(find_model_folder("."), read_metadata(Path("."))) == str(finished / "base")
    assert load(".", accelerator="cpu").probabilities([stock_code.TEXT]).equal(own)
