"""Tiny real objects, and the commands as a user runs them but in this process, where torch is loaded already."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir

from emotion_lightning.config import composition, own_parts, schema

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers side by side would fight for the cores
os.environ["WANDB_MODE"] = "offline"
# Tests damage files to reach the checks that lie behind that of the hashes, which test_manifest and the fuzz turn on.
os.environ["EMOTION_LIGHTNING_SKIP_HASHES"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Machines are slow and differ: no test has a deadline.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")
composition._MOST = 300  # tests come back to their options after those of many others
_CACHE = tempfile.TemporaryDirectory(prefix="emotion_lightning_tests_")
os.environ["XDG_CACHE_HOME"] = _CACHE.name  # tokens and the hub's files of tests stay out of the user's own

SMALL = [
    "model.pretrained=false",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
    "model.architecture.head_dim=32",
    "model.architecture.num_attention_heads=2",
    "logger=none",
    "data.max_rows=96",
]
"""Overrides that make the default run a matter of a second or two. Sizes are multiples of 32, as 4-bit kernels want."""


@pytest.fixture
def settings() -> Callable[..., Any]:
    """Typed settings from overrides as on the command line."""

    def load(*overrides: str, command: str = "train") -> Any:
        schema.register()
        with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
            return schema.load_settings(compose(command, list(overrides)), command)

    return load


@pytest.fixture(autouse=True)
def _own_options_are_forgotten() -> Iterator[None]:
    """Options of the user's own that a test's command line had are none of the next test's."""
    yield
    if own_parts._names:
        assert not list(own_parts.register([], is_used=lambda _: False))


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    """Libraries set variables, and one that is set while they are imported makes `warm` start a fresh process.

    The handlers of signals are put back too: processes of later tests would inherit that SIGINT is ignored.
    """
    before = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def run_in_process(command: str, *arguments: str, pictures: bool = False) -> int:
    """Run a command as `python -m emotion_lightning.<command>` would; its exit code.

    Reports are drawn only where a test looks at the pictures: they take longer than training such small networks.
    """
    import importlib

    if command in ("train", "evaluate") and not pictures:
        with pytest.MonkeyPatch.context() as without:
            without.setattr("emotion_lightning.reports.charts.run.run_pictures", lambda metadata: {})
            return run_in_process(command, *arguments, pictures=True)
    module = importlib.import_module(f"emotion_lightning.{command}")
    before = sys.argv
    sys.argv = [f"emotion_lightning/{command}.py", *arguments]
    try:
        module.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    raise AssertionError("a command ends with SystemExit")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command in a folder of its own; its exit code."""
    monkeypatch.chdir(tmp_path)
    return run_in_process


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run: 4-bit IA3 on the first rows of the sample."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    code = run_in_process("train", *SMALL, "trainer.max_epochs=1", f"hydra.run.dir={folder}", pictures=True)
    assert code == 0
    return folder


@pytest.fixture(scope="session")
def graph(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small finished run as a graph for onnxruntime.

    Making it takes half a minute, so the first process of pytest that needs it makes it for all of them.
    """
    pytest.importorskip("onnxruntime")
    own = tmp_path_factory.getbasetemp()
    work = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"
    with FileLock(f"{work}.lock"):
        if not (work / "log").exists():
            shutil.rmtree(work, ignore_errors=True)  # of a process that failed
            asked = [f"run={finished}", f"output={work / 'graph'}", "format=onnx", f"hydra.run.dir={work / 'made'}"]
            assert run_in_process("export", *asked) == 0
            (work / "made").rename(work / "log")
    return work / "graph"


def pytest_collection_finish() -> None:
    """Tests free networks by full collections, which need not look through the libraries that test modules import.

    The first training does so again, as in a process of its own, for what was imported since.
    """
    gc.collect()
    gc.freeze()


FIRST = (
    "test_wandb_agent", "test_study", "test_ray_predict", "test_processes", "test_notebook", "test_launchers",
    "test_serve", "test_gpu_check",
)  # fmt: skip
"""Files whose tests take half a minute each, most of it in processes that they start."""


def pytest_xdist_auto_num_workers() -> int:
    """Three processes for two cores: while a test waits for programs that it started, another one computes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` skip themselves where there is none.

    The longest come first: at the end the other processes would have nothing to do.
    """
    items.sort(key=lambda item: item.path.stem not in FIRST)
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
