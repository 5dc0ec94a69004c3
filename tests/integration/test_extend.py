"""The worked examples of docs/how-to/extend.md and the package in examples/, run as they stand."""

import contextlib
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, run_in_process
from helpers import parts, warm

from emotion_lightning.config import own_parts

EXAMPLE = Path(__file__).parents[2] / "examples" / "emotion_parts"
QUICK = [*(setting for setting in SMALL if not setting.startswith(("data.", "logger"))), "trainer.max_epochs=2"]
PLACE = ["--config-dir", "parts"]
DATABASE = ["data=database", "data.database=feelings.db", "data.query=SELECT text, joy, anger FROM posts"]


def command(folder: Path, verb: str, *arguments: str, code: int = 0) -> str:
    """Run a command in a folder; its messages."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = run_in_process(verb, *arguments)
    assert ended == code, said.getvalue()
    return said.getvalue()


def in_process_of_its_own(folder: Path, *arguments: str, **environment: str) -> str:
    """Train in a process of its own; its messages."""
    done = warm.run(
        [sys.executable, "-m", "emotion_lightning.train", *arguments], cwd=folder, capture_output=True, text=True,
        timeout=300, env=warm.ENVIRONMENT | warm.ONE_THREAD | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout + done.stderr)


@pytest.fixture(scope="module", autouse=True)
def _modules_are_forgotten() -> Iterator[None]:
    with parts.forgotten():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, and a run that was trained with most of them."""
    folder = tmp_path_factory.mktemp("extended")
    parts.worked_examples(folder)
    with sqlite3.connect(folder / "feelings.db") as connection:
        connection.execute("CREATE TABLE posts (text, joy, anger)")
        rows = [(f"text {i}", i % 2, int(i % 3 == 0)) for i in range(90)]
        connection.executemany("INSERT INTO posts VALUES (?, ?, ?)", rows)
    command(
        folder, "train", *PLACE, *QUICK, *DATABASE, "loss=smooth", "loss.epsilon=0.2", "extra_metric=rankings",
        "extra_callback=gradient_norm", "logger=lines", "optimizer=adafactor", "data.batch_size=8",
        "hydra.run.dir=run",
    )  # fmt: skip
    return folder


def test_the_parts_do_their_work(folder: Path) -> None:
    settings = yaml.safe_load((folder / "run" / "settings.yaml").read_text())
    assert settings["loss"] == {"part": "smooth:Smooth", "epsilon": 0.2}
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    extra = metrics["validation"]["extra"]
    assert extra.keys() == {"coverage_error", "ranking_loss"} and 0 < extra["coverage_error"] <= 2
    # With these targets no loss is lower than the entropy of the smoothed labels.
    assert metrics["validation"]["loss"] > 0.32
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["loss.epsilon"] == 0.2
    norms = [line["train/gradient_norm"] for line in lines if "train/gradient_norm" in line]
    assert norms and all(norm > 0 for norm in norms)
    logged = [line["val/extra/ranking_loss"] for line in lines if "val/extra/ranking_loss" in line]
    assert len(logged) == 2
    rates = {line["lr-Adafactor/head"] for line in lines if "lr-Adafactor/head" in line}
    assert len(rates) > 1 and min(rates) < 0.5 * max(rates)  # the cosine schedule


@pytest.mark.slow
def test_a_run_is_used_without_its_parts_and_goes_on_with_them(folder: Path) -> None:
    (folder / "new.csv").write_text("text\nWe won!\n")
    command(folder, "predict", "run=run", "input=new.csv", "output=labelled.csv")
    assert (folder / "labelled.csv").read_text().startswith("row,joy,anger,p_joy")
    raised = command(folder, "evaluate", "run=run", "split=validation", code=2)
    assert "was made with data=database (built by database:read)" in raised and "Traceback" not in raised
    raised = command(folder, "evaluate", "run=run", "split=validation", *PLACE, "extra_metric=rankings")
    scored = json.loads(max((folder / "outputs" / "evaluate").rglob("metrics.json")).read_text())["validation"]
    trained = json.loads((folder / "run" / "metrics.json").read_text())["validation"]
    assert scored["loss"] == pytest.approx(trained["loss"], abs=1e-6)
    assert scored["extra"] == pytest.approx(trained["extra"])
    raised = command(folder, "train", "from_run=run", "hydra.run.dir=again", code=2)
    for option in ("data=database", "loss=smooth", "optimizer=adafactor", "logger=lines", "extra_metric=rankings"):
        assert option in raised
    command(folder, "train", *PLACE, "from_run=run", "hydra.run.dir=again")
    again = json.loads((folder / "again" / "metrics.json").read_text())["validation"]
    assert again == trained
    assert "is finished" in command(folder, "train", *PLACE, "resume=run")


@pytest.mark.slow
def test_other_data_is_scored_without_the_loss(folder: Path) -> None:
    (folder / "other.csv").write_text("text,joy,anger\n" + "".join(f"text {i},{i % 2},{i % 3 % 2}\n" for i in range(9)))
    raised = command(folder, "evaluate", "run=run", "data=file", "data.path=other.csv", "hydra.run.dir=other")
    assert "was made with loss=smooth (built by smooth:Smooth)" in raised and "Its loss is not computed" in raised
    assert "loss" not in json.loads((folder / "other" / "metrics.json").read_text())["test"]
    assert (folder / "other" / "report.html").is_file()


@pytest.mark.slow
def test_a_method_of_ones_own_is_trained_read_and_exported(folder: Path) -> None:
    small = [*QUICK, "data.max_rows=64", "logger=none", "trainer=debug"]
    raised = command(folder, "train", *PLACE, *small, "peft=lokr", "hydra.run.dir=packed", code=2)
    assert "PEFT has no layers of LOKR for quantised weights; set model.quantization=none." in raised
    command(folder, "train", *PLACE, *small, "peft=lokr", "model.quantization=none", "hydra.run.dir=lokr")
    stored = json.loads((folder / "lokr" / "model" / "adapter_config.json").read_text())
    assert (stored["peft_type"], stored["r"]) == ("LOKR", 8)
    command(folder, "predict", "run=lokr", "text=We won!")
    command(folder, "export", "run=lokr", "format=merged", "output=merged")
    found = json.loads((folder / "merged" / "export.json").read_text())
    assert found["merged_from_unmerged"] < 1e-5
    command(folder, "export", *PLACE, "run=lokr", "format=weights", "output=weights")
    about = json.loads((folder / "weights" / "about.json").read_text())
    assert len(about["labels"]) == 11 and about["thresholds"].keys() == set(about["labels"])
    assert (folder / "weights" / "weights.safetensors").stat().st_size > 100_000
    raised = command(folder, "export", *PLACE, "run=lokr", "format=weights", "output=w", "push=me/w", code=2)
    assert "push=me/w is for the formats of this program" in raised


@pytest.mark.slow
def test_jobs_of_another_process_have_the_parts(folder: Path) -> None:
    pytest.importorskip("ray")
    in_process_of_its_own(
        folder, "-m", *PLACE, *QUICK, "data.max_rows=64", "logger=none", "loss=smooth", "loss.epsilon=0.3",
        "trainer=debug", "hydra/launcher=ray", "hydra.sweep.dir=jobs",
    )  # fmt: skip
    assert yaml.safe_load((folder / "jobs" / "0" / "settings.yaml").read_text())["loss"]["epsilon"] == 0.3
    assert (folder / "jobs" / "0" / "metrics.json").is_file()


@pytest.mark.slow
def test_the_package_in_examples_is_installed_and_works(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
            "--target", str(tmp_path / "site"), str(EXAMPLE)]  # fmt: skip
    subprocess.run(line, check=True, timeout=300, capture_output=True)
    (tmp_path / "posts.txt").write_text("".join(f"What a {'glad' if i % 3 else 'mad'} day {i}\n" for i in range(60)))
    (tmp_path / "words.csv").write_text("word,emotion\nglad,joy\nmad,anger\nfurious,anger\n")
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    raised = in_process_of_its_own(
        tmp_path, *QUICK, "logger=none", "data=lexicon", "data.texts=posts.txt", "data.lexicon=words.csv",
        "loss=pairwise", "loss.margin=0.5", "extra_callback=time_budget", "extra_callback.minutes=1e-4",
        "hydra.run.dir=run", PYTHONPATH=path,
    )  # fmt: skip
    assert "epoch 1/2" in raised and "epoch 2/2" not in raised  # the budget
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert settings["loss"] == {"part": "emotion_parts.pairwise:Pairwise", "margin": 0.5}
    labels = json.loads((tmp_path / "run" / "model" / "emotion_lightning.json").read_text())["labels"]
    assert labels == ["anger", "joy"]


BAD: dict[str, tuple[str, str, str, list[str]]] = {
    "loss": ("def build(): return lambda logits, targets: (logits - targets) ** 2", "loss", "one number", []),
    "loss without a gradient": ("def build(): return lambda logits, targets: logits.detach().sum()", "loss",
                                "computes one number, but the number has no gradient", []),
    "loss that is a float": ("def build(): return lambda logits, targets: logits.sum().item()", "loss",
                             "computes one number, but the number has no gradient", []),
    "loss that is NumPy's": ("def build(): return lambda logits, targets: logits.detach().numpy().sum()", "loss",
                             "computes one number, but the number has no gradient", []),
    "loss that is a tensor": ("import torch\ndef build(): return torch.tensor(1.0)", "loss", "must compute one number",
                              []),
    "loss that is a list": ("def build(): return lambda logits, targets: [1]", "loss", "it gave list", []),
    "loss of logits alone": ("def build(): return lambda logits: logits.sum()", "loss",
                             "cannot be computed from logits and targets of shape [2, 11]: TypeError: ", []),
    "loss with too few weights": (
        "import torch\ndef build(): return torch.nn.BCEWithLogitsLoss(pos_weight=torch.ones(3))", "loss",
        "of shape [2, 11]: RuntimeError: The size of tensor a (3) must match", []),
    "loss with parameters": (
        "from torch import nn\nclass build(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.own = nn.Linear(2, 2)\n", "loss", "has parameters, which no optimizer would train", []),
    "schedule that waits": (
        "import torch\ndef build(parameter_groups):\n    own = torch.optim.SGD(parameter_groups)\n"
        "    return own, torch.optim.lr_scheduler.ReduceLROnPlateau(own)", "optimizer", "ReduceLROnPlateau waits", []),
    "loss that is none": ("def build(): return 3", "loss", "it gave int", []),
    "callback": ("def build(): return [3]", "extra_callback", "must return a lightning.pytorch Callback", []),
    "logger": ("def build(): return 3", "logger", "must return a lightning.pytorch Logger; it gave int", []),
    "optimizer": ("def build(): return 3", "optimizer", "must return a torch.optim.Optimizer", []),
    "metric": ("def build(): return 'high'", "extra_metric", "must return a number, or numbers by name", []),
    "method": ("def build(): return 3", "peft", "must return a configuration of PEFT; it gave int",
               ["peft.lr=1e-3", "peft.head_lr=1e-3", "peft.targets=[value]"]),
    "method of another kind": (
        "import peft\ndef build(modules_to_save):\n    return peft.PromptTuningConfig(num_virtual_tokens=3, "
        "modules_to_save=modules_to_save)", "peft", "is of no method that is opened here: PROMPT_TUNING",
        ["peft.lr=1e-3", "peft.head_lr=1e-3", "peft.targets=[value]"]),
    "source": ("def build(): return 3", "data", "must return a table, or tables by split", []),
    "source without rows": ("def build(): return []", "data", "must return a table, or tables by split", []),
    "source with a wrong split": ("def build(): return {'dev': []}", "data", "returned a split 'dev'", []),
    "source without labels": ("def build(): return [{'text': 'a'}] * 9", "data", "label", []),
    "source with a broken cell": (
        "def build(): return [{'text': f'text {i}', 'joy': 2 if i == 33 else i % 2} for i in range(60)]", "data",
        "row 34", []),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_what_a_function_returns_is_checked(
    run: Any, tmp_path: Path, capfd: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, group, message, more = BAD[fault]
    name = f"bad_{list(BAD).index(fault)}"
    parts.write(tmp_path / "parts" / f"{name}.py", code + "\n")
    shared = "".join(f", /shared/{file}@_here_" for file in own_parts.KINDS[group].shared)
    parts.option(tmp_path / "parts", group, "bad", f"{name}:build", shared=shared)
    monkeypatch.setattr(sys, "path", list(sys.path))
    small = [setting for setting in SMALL if not setting.startswith(f"{group}=")]
    assert run("train", *PLACE, *small, "trainer=debug", f"{group}=bad", *more, "hydra.run.dir=run") == 2
    raised = capfd.readouterr().err
    assert message in raised and "Traceback" not in raised
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_an_error_in_a_part_shows_its_traceback(run: Any, tmp_path: Path, capfd: Any) -> None:
    parts.write(tmp_path / "parts" / "breaks.py", "def build():\n    raise KeyError('in my part')\n")
    parts.option(tmp_path / "parts", "loss", "bad", "breaks:build")
    assert run("train", *PLACE, *SMALL, "trainer=debug", "loss=bad", "hydra.run.dir=run") == 1
    raised = capfd.readouterr().err
    assert "breaks.py" in raised and "in my part" in raised


def test_a_number_that_is_not_finite_is_left_out(run: Any, tmp_path: Path, capfd: Any) -> None:
    parts.write(tmp_path / "parts" / "ratio.py", "def build(): return {'ratio': float('nan'), 'one': 1}\n")
    parts.option(tmp_path / "parts", "extra_metric", "ratio", "ratio:build")
    assert run("train", *PLACE, *SMALL, "trainer=debug", "extra_metric=ratio", "hydra.run.dir=run") == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]["extra"] == {"one": 1.0}
    assert "extra_metric=ratio: ratio is not finite, and left out." in capfd.readouterr().err


def test_a_source_is_divided_as_a_file_is(run: Any, tmp_path: Path, capfd: Any) -> None:
    code = """
def build(split: bool = False):
    rows = [{"text": f"text {i}", ("joy" if i % 2 else "anger"): 1} for i in range(60)]
    if split:
        rows = [row | {"split": ["train", "train", "dev", "test"][i // 2 % 4]} for i, row in enumerate(rows)]
    return rows
"""
    parts.write(tmp_path / "parts" / "sparse.py", code)
    shared = ", /shared/batches@_here_, /shared/table@_here_, /shared/divided@_here_"
    parts.option(tmp_path / "parts", "data", "mine", "sparse:build", "missing: zero", shared=shared)
    sizes = {}
    for name, more in {"new": ["data.test_share=0.2"], "column": ["data.split=true"]}.items():
        assert run("inspect", *PLACE, "data=mine", *more, f"hydra.run.dir={name}") == 0
        raised = capfd.readouterr()
        assert "Labels in mine: anger, joy." in raised.out + raised.err
        sizes[name] = [int(n) for n in re.findall(r"(?:train|validation|test) (\d+)", raised.err)[:3]]
    assert sizes == {"new": [42, 6, 12], "column": [32, 14, 14]}


@pytest.mark.parametrize(
    "kind",
    ["list", *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("pandas", "datasets")), "tables by split"],
)
def test_a_source_returns_tables_of_every_kind(tmp_path: Path, run: Any, kind: str) -> None:
    build = {
        "list": "return rows",
        "pandas": "import pandas; return pandas.DataFrame(rows, index=range(5, 65))",
        "datasets": "import datasets; return datasets.Dataset.from_list(rows)",
        "tables by split": "return {'train': rows[:40], 'validation': rows[40:50], 'test': rows[50:]}",
    }[kind]
    name = f"source_{kind.replace(' ', '_')}"
    rows = "rows = [{'text': f'text {i}', 'joy': i % 2, 'anger': int(i % 3 == 0)} for i in range(60)]"
    parts.write(tmp_path / "parts" / f"{name}.py", f"def build():\n    {rows}\n    {build}\n")
    shared = ", /shared/batches@_here_, /shared/table@_here_, /shared/divided@_here_"
    parts.option(tmp_path / "parts", "data", "mine", f"{name}:build", shared=shared)
    assert run_in_process("train", *PLACE, *SMALL, "trainer=debug", "data=mine", "hydra.run.dir=run") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["rows"] == (10 if kind == "tables by split" else 6)
    assert list(metrics["validation"]["global"]["labels"]) == ["joy", "anger"]
    hashes = json.loads((tmp_path / "run" / "model" / "emotion_lightning.json").read_text())["data_hashes"]
    assert run_in_process("train", *PLACE, *SMALL, "trainer=debug", "data=mine", "hydra.run.dir=again") == 0
    again = json.loads((tmp_path / "again" / "model" / "emotion_lightning.json").read_text())["data_hashes"]
    assert hashes == again and all(len(value) == 64 for value in hashes.values())
