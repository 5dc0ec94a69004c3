"""`serve` as a whole: its processes, answers like those of `predict`, and its end."""

import csv
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litserve")

import httpx
import psutil
from helpers import warm
from helpers.hub_server import OWNER, TOKEN, Hub, log_in
from helpers.servers import PATIENCE, answers, free_port

import emotion_lightning
from emotion_lightning import load
from emotion_lightning.inference import upload

JSON = {"content-type": "application/json"}


def sample_texts(count: int) -> list[str]:
    """The beginnings of texts of the sample."""
    file = Path(emotion_lightning.__file__).parent / "data" / "sample" / "train.csv"
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    return [" ".join(row["text"].split()[:6]) for row in rows[:count]]


@contextmanager
def server(folder: Path, *arguments: str, **variables: str) -> Iterator[tuple[str, warm.Popen]]:
    """A server that answers; its address and process."""
    port = free_port()
    line = [sys.executable, "-m", "emotion_lightning.serve", f"serve.port={port}", *arguments]
    with (
        (folder / "log").open("w+") as log,
        warm.Popen(line, cwd=folder, stdout=log, stderr=log, env=warm.ENVIRONMENT | variables) as process,
    ):
        base = f"http://127.0.0.1:{port}"
        try:
            answers(process, lambda: httpx.get(f"{base}/health").raise_for_status(), unlike=httpx.HTTPError,
                    seconds=PATIENCE)  # fmt: skip
            yield base, process
        finally:
            if process.poll() is None:
                process.kill()
            print((folder / "log").read_text())


def test_answers_are_those_of_predict_and_the_end_is_orderly(tmp_path: Path) -> None:
    texts = sample_texts(500)
    with server(tmp_path) as (base, process), httpx.Client(base_url=base, timeout=PATIENCE) as client:
        sizes = [1, 2, 3, 30, 7, 1, 64, 1]
        pieces, start = [], 0
        while start < len(texts):
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(texts[start : start + size])
            start += size
        with ThreadPoolExecutor(8) as clients:
            found = list(clients.map(lambda piece: client.post("/predict", json={"texts": piece}).json(), pieces))
        answered = [one for answer in found for one in answer["predictions"]]
        expected = load(accelerator="cpu").predict(texts)
        assert len(answered) == len(expected) == 500
        for one, wanted in zip(answered, expected, strict=True):
            assert one["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
            assert one["labels"] == wanted.labels

        numbers = client.get("/metrics").text
        assert "emotion_texts_total 500.0" in numbers
        batches = float(numbers.split("emotion_batch_texts_count ")[1].split()[0])
        assert batches < len(pieces)  # requests were computed together
        told = client.get("/info").json()
        assert told["model"] == "bundled classifier" and told["labels"] == list(expected[0].probabilities)
        assert "emotion_lightning" in told["card"] and told["limits"]["texts"] == 256
        refused = client.post("/predict", json={"texts": ["a"], "thresholds": {"joi": 0.5}})
        assert refused.status_code == 422 and "'joi'" in refused.json()["error"]

        # What was begun is answered after SIGTERM, the rest is refused.
        begun: list[httpx.Response] = []
        long = {"texts": [" ".join(texts[:20])] * 40}
        asking = threading.Thread(target=lambda: begun.append(client.post("/predict", json=long)))
        asking.start()
        while "emotion_queue 1.0" not in client.get("/metrics").text:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        while client.get("/health").status_code == 200:
            time.sleep(0.02)
        late = client.post("/predict", json={"texts": ["a"]})
        assert late.status_code == 503 and late.json()["error"].startswith("The server stops")
        asking.join()
        assert begun[0].status_code == 200 and len(begun[0].json()["predictions"]) == 40
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    log = (tmp_path / "log").read_text()
    assert log.startswith(f"Answering with bundled classifier at {base} (page)")
    assert "Traceback" not in log and texts[0][:20] not in log
    assert [file.name for file in tmp_path.iterdir()] == ["log"]  # no folder of outputs


def test_a_wrong_setting_or_address_is_one_sentence(run: Any, capfd: Any) -> None:
    for arguments, said in (
        (["serve.port=70000"], "serve.port=70000 is out of range"),
        (["serve.prot=1"], "did you mean serve.port"),
        (["serve.host=no.such.host.invalid"], "serve.host=no.such.host.invalid serve.port=8000 cannot be listened on"),
        (["-m", "serve.port=1,2"], "serve starts one server"),
    ):
        assert run("serve", *arguments) == 2
        printed = capfd.readouterr()
        assert said in printed.err and "Traceback" not in printed.err and len(printed.err.splitlines()) == 1


@pytest.mark.slow
def test_a_run_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "emotion_lightning.serve", "run=nothing", f"serve.port={free_port()}"]
    done = warm.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "nothing" in done.stderr


def computing(process: warm.Popen) -> list[psutil.Process]:
    """The processes of a server that compute."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def test_a_process_that_is_killed_is_replaced_and_its_request_is_answered_with_an_error(tmp_path: Path) -> None:
    with (
        server(tmp_path, f"serve.timeout={PATIENCE}", "serve.batch_tokens=64") as (base, process),
        httpx.Client(base_url=base, timeout=PATIENCE) as client,
        ThreadPoolExecutor(2) as clients,
    ):
        (victim,) = computing(process)
        before = cpu_seconds(victim)
        begun = clients.submit(client.post, "/predict", json={"texts": ["we are happy and sad " * 12] * 256})
        while cpu_seconds(victim) < before + 0.2:
            time.sleep(0.01)
        waiting = clients.submit(client.post, "/predict", json={"texts": ["We won!"]})
        while "emotion_queue 2.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        victim.kill()
        lost = begun.result()
        assert lost.status_code == 503 and lost.headers["retry-after"] == "1"
        assert lost.json()["error"] == "The process that computed the answer has died; ask again."
        # Others are not lost, neither one that waited nor the next one.
        assert waiting.result().json()["predictions"][0]["labels"]
        assert client.post("/predict", json={"texts": ["We won!"]}).status_code == 200
        assert client.get("/health").status_code == 200 and computing(process) != [victim]
        # Nothing is left of a server that was killed.
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    log = (tmp_path / "log").read_text()
    assert "another one has taken its place" in log and "Traceback" not in log


def test_a_graph_and_a_model_of_the_hub_answer_together(
    finished: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = sample_texts(20)
    with Hub() as hub:
        log_in(hub, tmp_path, monkeypatch)
        upload.upload(finished, f"{OWNER}/emotions")
        run = f"run=[{graph},hf:{OWNER}/emotions]"
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
               "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
        with server(tmp_path, run, **own) as (base, _), httpx.Client(base_url=base, timeout=PATIENCE) as client:
            found = client.post("/predict", json={"texts": texts}).json()
            assert not client.get("/info").json()["explains"]
        expected = load([graph, f"hf:{OWNER}/emotions"], accelerator="cpu").predict(texts)
    assert found["model"] == f"graph + hf:{OWNER}/emotions"
    for one, wanted in zip(found["predictions"], expected, strict=True):
        assert one["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
        assert one["labels"] == wanted.labels


@pytest.mark.exhaustive
def test_memory_stays_as_it_is(tmp_path: Path, capsys: Any) -> None:
    """A soak of SOAK_MINUTES, ten if not set."""
    seconds = 60 * float(os.environ.get("SOAK_MINUTES", 10))
    texts = sample_texts(100)
    with server(tmp_path) as (base, process):
        own = psutil.Process(process.pid)
        begun, seen = time.monotonic(), list[tuple[float, int]]()

        def ask(number: int) -> int:
            first = number
            with httpx.Client(base_url=base, timeout=PATIENCE) as client:
                while time.monotonic() < begun + seconds:
                    number += 1
                    piece = texts[number % len(texts) :][: 1 + number % 9]
                    assert client.post("/predict", json={"texts": piece}).status_code == 200
                    assert client.post("/predict", content=b"{", headers=JSON).status_code == 400
            return number - first

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask, number) for number in range(8)]
            while not all(one.done() for one in asking):
                time.sleep(min(10, seconds / 30))
                family = [own, *own.children(recursive=True)]
                seen.append((time.monotonic() - begun, sum(part.memory_info().rss for part in family)))
            requests = sum(one.result() for one in asking)
    third = len(seen) // 3
    sizes = [size / 1e6 for _, size in seen]
    with capsys.disabled():
        shown = [f"{when / 60:.1f} min {size / 1e6:.0f} MB" for when, size in seen[:: max(1, len(seen) // 10)]]
        print(f"\n{requests:,} requests, as many refused; memory: {', '.join(shown)}, at the end {sizes[-1]:.0f} MB")
    assert max(sizes[2 * third :]) < 1.05 * max(sizes[third : 2 * third])
