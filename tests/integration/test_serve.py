"""`serve` as a whole: its processes, answers like those of `predict`, and its end."""

import csv
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
from helpers import warm
from helpers.servers import PATIENCE, answers, free_port

import emotion_lightning
from emotion_lightning import load


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


@pytest.mark.exhaustive
def test_a_process_that_dies_is_replaced_and_its_requests_are_answered_with_an_error(tmp_path: Path) -> None:
    import psutil

    with (
        server(tmp_path, "serve.workers=2", f"serve.timeout={PATIENCE}") as (base, process),
        httpx.Client(base_url=base, timeout=PATIENCE) as client,
    ):
        children = psutil.Process(process.pid).children()
        (victim, *_) = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        begun: list[httpx.Response] = []
        long = {"texts": ["we are happy and sad " * 12] * 200}
        asking = [threading.Thread(target=lambda: begun.append(client.post("/predict", json=long))) for _ in range(2)]
        for thread in asking:
            thread.start()
        time.sleep(1)
        victim.kill()
        for thread in asking:
            thread.join()
        assert sorted(answer.status_code for answer in begun) == [200, 503]
        while client.get("/health").status_code != 200:
            time.sleep(0.1)
        assert client.post("/predict", json={"texts": ["We won!"]}).status_code == 200
        # Nothing is left of a server that was killed.
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.exhaustive
def test_memory_stays_as_it_is(tmp_path: Path) -> None:
    """A soak of ten minutes."""
    import psutil

    texts = sample_texts(100)
    with server(tmp_path) as (base, process):
        own = psutil.Process(process.pid)
        family = [own, *own.children(recursive=True)]
        until, seen = time.monotonic() + 600, []

        def ask(number: int) -> None:
            with httpx.Client(base_url=base, timeout=PATIENCE) as client:
                while time.monotonic() < until:
                    number += 1
                    piece = texts[number % len(texts) :][: 1 + number % 9]
                    assert client.post("/predict", json={"texts": piece}).status_code == 200
                    client.post("/predict", content=b"{")

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask, number) for number in range(8)]
            while time.monotonic() < until:
                time.sleep(10)
                seen.append(sum(part.memory_info().rss for part in family))
            for one in asking:
                one.result()
        third = len(seen) // 3
        assert max(seen[2 * third :]) < 1.05 * max(seen[third : 2 * third])
