"""Files labelled on a real cluster of two nodes: workers, nodes and drivers are killed, and every row is there once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
from helpers import object_store, warm
from helpers.clusters import two_nodes
from helpers.servers import PATIENCE
from helpers.tables import write_csv

from emotion_lightning.cli import jobs
from emotion_lightning.errors import Stopped
from emotion_lightning.inference.cluster import one_file, pool
from emotion_lightning.runs import ray_cluster

pytest.importorskip("ray")

ROWS = 24_000
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
COMMAND = [sys.executable, "-m", "emotion_lightning.predict"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each. The driver is on the first one, and the second one may be lost."""
    with two_nodes(1, 1) as found:
        yield found


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of n-grams, which is loaded and labels fast."""
    from conftest import run_in_process

    folder = tmp_path_factory.mktemp("baseline") / "run"
    asked = ["data.max_rows=200", "char_ngrams=null", f"hydra.run.dir={folder}"]
    assert run_in_process("baseline", *asked) == 0
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of csv and parquet files with ROWS rows in all."""
    folder = tmp_path_factory.mktemp("texts")
    write(folder, ROWS)
    return folder


def write(folder: Path, rows: int) -> None:
    half = rows // 2
    write_csv(folder / "a.csv", [["id", "text"], *([str(i), text(i)] for i in range(half))])
    ids = range(half, rows)
    table = pyarrow.table({"id": [str(i) for i in ids], "text": [text(i) for i in ids]})
    pyarrow.parquet.write_table(table, folder / "b.parquet", row_group_size=5000)


def text(number: int) -> str:
    return f"so {('glad', 'sad', 'angry')[number % 3]} about number {number}"


def asked(cluster: Any, run: Path, texts: Path | str, *more: str) -> list[str]:
    return [
        f"run={run}", f"input={texts}", "engine=ray", f"ray.address={cluster.address}", "accelerator=cpu",
        "predict.rows_per_part=1000", *more,
    ]  # fmt: skip


def begin(line: list[str], folder: Path) -> warm.Popen:
    return warm.Popen([*COMMAND, *line], cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], Any], process: Any) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def workers(root: int | None = None, doing: str = "") -> list[psutil.Process]:
    """Ray's processes of workers below a process (this one, which has started the cluster), by what they do."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if (process.cmdline() or [""])[0].startswith(f"ray::Worker{doing}"):
                found.append(process)
    return found


def check_whole(folder: Path, rows: int = ROWS) -> None:
    """Every row is there once, and nothing else."""
    assert (folder / "_SUCCESS").exists() and json.loads((folder / "manifest.json").read_text())["rows"] == rows
    ids = [one for part in parts(folder) for one in pyarrow.parquet.read_table(part).column("id").to_pylist()]
    assert ids == [str(i) for i in range(rows)]
    left = [file.name for file in folder.iterdir() if not file.name.startswith("part-")]
    assert sorted(left) == ["_SUCCESS", "_job.json", "manifest.json"]


def of_one_process(run: Path, texts: Path) -> dict[str, float]:
    """The probabilities of the last label that one process gives to the first rows."""
    from emotion_lightning import load

    first = [text(i) for i in range(200)]
    label = load(run).metadata.labels[-1]
    return {str(i): one.probabilities[label] for i, one in enumerate(load(run).predict(first))}


@pytest.mark.slow
def test_workers_and_nodes_that_die_are_replaced(cluster: Any, baseline: Path, texts: Path, tmp_path: Path) -> None:
    second = next(iter(cluster.worker_nodes))
    process = begin(asked(cluster, baseline, texts, "output=out", "devices=2"), tmp_path)
    assert wait_for(lambda: parts(tmp_path / "out"), process)
    wait_for(workers, process)[0].kill()
    count = len(parts(tmp_path / "out"))
    assert wait_for(lambda: len(parts(tmp_path / "out")) > count, process)
    cluster.remove_node(second, allow_graceful=False)
    _, message = process.communicate(timeout=PATIENCE)
    cluster.add_node(num_cpus=1)
    assert process.returncode == 0, message
    assert f"{ROWS:,} rows in 2 files make" in message and "2 workers on 2 machines" in message
    assert "A worker died; its work is given to another one." in message
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["workers_lost"] >= 1
    check_whole(tmp_path / "out")
    first = pyarrow.parquet.read_table(parts(tmp_path / "out")[0])
    label = first.column_names[-1].removeprefix("p_")
    found = dict(zip(first.column("id").to_pylist(), first.column(f"p_{label}").to_pylist(), strict=True))
    expected = of_one_process(baseline, texts)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_a_stopped_and_killed_job_goes_on(cluster: Any, baseline: Path, texts: Path, tmp_path: Path) -> None:
    line = asked(cluster, baseline, texts, "output=out")
    before: dict[Path, int] = {}
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9), (None, 0)):
        process = begin([*line, *(["resume=true"] if before else [])], tmp_path)
        if number is not None:
            enough = len(before) + 1
            assert wait_for(lambda enough=enough: len(parts(tmp_path / "out")) > enough, process)
            process.send_signal(number)
        _, message = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, message
        now = {part: part.stat().st_mtime_ns for part in parts(tmp_path / "out")}
        assert before.items() <= now.items()  # finished parts are not written again
        assert number is None or (len(now) > len(before) and not (tmp_path / "out" / "_SUCCESS").exists())
        if number is signal.SIGTERM:
            assert "resume=true goes on with the others" in message and message.count("Stopped by") <= 1
        before = now
    check_whole(tmp_path / "out")
    assert "of which" in message
    again = warm.run([*COMMAND, *line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 2 and "is not empty; resume=true goes on" in again.stderr
    done = warm.run(
        [*COMMAND, *line, "resume=true"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0 and "out is finished; nothing is left to do" in done.stdout + done.stderr


@pytest.mark.slow
def test_two_workers_label_every_row_of_a_file_once_and_in_order(baseline: Path, tmp_path: Path) -> None:
    """On a cluster that is started for it, of which nothing is left; a worker is killed meanwhile."""
    rows = [[f"k{i}", f"{text(i)} {'and more ' * (i % 9)}"] for i in range(20_000)]
    write_csv(tmp_path / "new.csv", [["id", "text"], *rows])
    line = [f"run={baseline}", "input=new.csv", "accelerator=cpu", "predict.text=true", "data.batch_size=4"]
    one = warm.run([*COMMAND, *line, "output=1.csv"], cwd=tmp_path, env=ENVIRONMENT, timeout=PATIENCE)
    assert one.returncode == 0
    process = begin([*line, "output=2.csv", "devices=2"], tmp_path)
    wait_for(lambda: workers(process.pid, ".answer"), process)[0].kill()
    children = psutil.Process(process.pid).children(recursive=True)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, message
    assert "A worker died" in message
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_waits_keeps_its_exit_code(cluster: Any, number: signal.Signals) -> None:
    """Ray 2.60 makes exit code 1 of it (issue 26)."""
    import ray

    with pytest.raises(Stopped) as stop, jobs.stop_on_signals(), ray_cluster.joined(cluster.address, setting="a"):
        waited_for = ray.remote(lambda: time.sleep(PATIENCE)).remote()
        threading.Timer(1, os.kill, [os.getpid(), number]).start()
        try:
            pool.value(waited_for)
        finally:
            ray.cancel(waited_for, force=True)
    assert stop.value.code == 128 + number


def test_sigterm_while_ray_starts_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray 2.60 has a handler of its own then, which stays (issue 26)."""
    import ray

    def start(*_: Any, **__: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", start)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop, ray_cluster.joined(None, setting="ray.address"):
        pass
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_stopping_several_workers_leaves_none_and_no_output(baseline: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\n" + "some words to be labelled\n" * 100_000)
    process = begin([f"run={baseline}", "input=new.csv", "output=out.csv", "devices=2", "accelerator=cpu"], tmp_path)
    assert wait_for(lambda: workers(process.pid, ".answer"), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, message
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.csv", "outputs"]


def test_more_workers_than_gpus_are_refused(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from emotion_lightning.errors import UserError

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(UserError, match="devices=3, but this machine has 2 GPUs"),
        one_file.workers(settings("input=a.csv", "devices=3", command="predict")),
    ):
        pass


def test_a_cluster_that_is_not_there_is_told(run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "a.csv", [["text"], ["a"]])
    assert run("predict", "input=a.csv", "output=out", "engine=ray", "ray.address=127.0.0.1:1") == 2
    assert "ray.address=127.0.0.1:1: there is no Ray cluster that can be joined" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.exhaustive
def test_a_mistake_in_one_of_several_workers_is_told_once(
    cluster: Any, run: Any, finished: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "damaged")
    (tmp_path / "damaged" / "model" / "adapter_model.safetensors").write_bytes(b"damaged")
    write_csv(tmp_path / "new.csv", [["text"], ["hi"]])
    done = warm.run(
        [*COMMAND, "run=damaged", "input=new.csv", "output=out.csv", "devices=2", "accelerator=cpu",
         f"ray.address={cluster.address}"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2 and "damaged" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_texts_in_an_object_store_are_labelled_there(cluster: Any, baseline: Path, tmp_path: Path) -> None:
    """What was lost of the output is written again by resume=true, and no key is told or written."""
    write(tmp_path, 4000)
    with object_store.s3() as store:
        for name in ("a.csv", "b.parquet"):
            store.write(f"in/day=1/{name}", (tmp_path / name).read_bytes())
        store.write("in/_SUCCESS", b"")
        line = asked(cluster, baseline, store.address("in"), f"output={store.address('out')}", "predict.keep=[day]")
        done = warm.run(
            [*COMMAND, *line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        assert "4,000 rows in 2 files make 4 parts" in done.stderr and "Wrote 4,000 rows" in done.stderr
        first = store.files("out")
        for name in ("_SUCCESS", "manifest.json", "part-00001-0000000001.parquet"):
            store.system.delete_file(f"texts/out/{name}")
        again = warm.run(
            [*COMMAND, *line, "resume=true"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert again.returncode == 0 and "of which 3 are there" in again.stderr, again.stderr
        second = store.files("out")
    assert second.keys() == first.keys()
    (tmp_path / "out").mkdir()
    for name, content in second.items():
        (tmp_path / "out" / name).write_bytes(content)
        assert name == "manifest.json" or content == first[name]
    check_whole(tmp_path / "out", 4000)
    assert set(pyarrow.parquet.read_table(parts(tmp_path / "out")[0]).column("day").to_pylist()) == {"1"}
    told = done.stderr + again.stderr + "".join(map(str, second.values()))
    assert object_store.SECRET not in told and "s3://texts/in/day=1/a.csv" in told


@pytest.mark.slow
def test_two_hundred_thousand_rows_on_two_nodes(cluster: Any, baseline: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    write(tmp_path / "texts", 200_000)
    process = begin(asked(cluster, baseline, tmp_path / "texts", "output=out", "devices=2"), tmp_path)
    assert wait_for(lambda: len(parts(tmp_path / "out")) > 20, process)
    workers()[0].kill()
    _, message = process.communicate(timeout=10 * PATIENCE)
    assert process.returncode == 0, message
    check_whole(tmp_path / "out", 200_000)
