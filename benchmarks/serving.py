"""Requests per second of `serve` against a plain FastAPI handler that calls Transformers' pipeline, on loopback.

pip install locust
python benchmarks/serving.py [--clients 1,8,32,128] [--seconds 10] [--turns 2] [--run FOLDER]

Both serve the bundled classifier, or the run in FOLDER, exported with format=merged. Locust asks, with one text a
request; both servers run during the whole measurement, and take turns at each number of clients. `offline` is what
`load(run).predict(texts)` labels per second in a process of its own, and `serve, 32 texts` asks `serve` with 32 texts a
request. On a machine with other work, look at the texts per second of CPU: who has more threads is given more of the
cores there.
"""

import argparse
import csv
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import psutil

LOCUST = common.REPO / "benchmarks" / "serving_users.py"


def plain(folder: Path, port: int) -> None:
    """The plain handler: FastAPI runs it in a thread for each request."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from transformers import pipeline

    class Texts(BaseModel):
        texts: list[str]

    limit = json.loads((folder / "emotion_lightning.json").read_text())["max_tokens"]
    classify = pipeline(
        "text-classification", model=str(folder), top_k=None, function_to_apply="sigmoid", truncation=True,
        max_length=limit,
    )  # fmt: skip
    app = FastAPI()

    @app.get("/health")
    def health() -> str:
        return "ready"

    @app.post("/predict")
    def predict(asked: Texts) -> Any:
        return classify(asked.texts)

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def offline(folder: Path, count: int) -> str:
    """Texts per second, and per second of CPU, of `predict` from Python."""
    from emotion_lightning import load

    texts = common.texts(count, None)[0]
    run = load(folder)
    run.predict(texts[:64])
    start, used = time.perf_counter(), time.process_time()
    run.predict(texts)
    return f"{count / (time.perf_counter() - start)} {count / (time.process_time() - used)}"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Server:
    """A server that runs."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of all its processes."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(times.user + times.system for times in (one.cpu_times() for one in family))


@contextmanager
def running(*line: str, port: int) -> Iterator["Server"]:
    """A server, from its first answer to its end."""
    process = subprocess.Popen([sys.executable, *line], cwd=common.REPO, env=common.environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"{' '.join(line)} ended with {process.returncode}.")
                time.sleep(0.5)
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def asked_by(clients: int, server: Server, *, seconds: int, size: int = 1) -> dict[str, float]:
    """Texts per second and per second of CPU, and times in milliseconds, of so many users."""
    before = server.cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "load"
        line = [
            sys.executable, "-m", "locust", "-f", str(LOCUST), "--headless", "-u", str(clients), "-r", "1000", "-t",
            f"{seconds}s", "--host", f"http://127.0.0.1:{server.port}", "--csv", str(prefix), "--reset-stats",
        ]  # fmt: skip
        done = subprocess.run(
            line, capture_output=True, text=True, env=common.environment() | {"TEXTS_A_REQUEST": str(size)}
        )
        with Path(f"{prefix}_stats.csv").open(newline="") as opened:
            total = next(row for row in csv.DictReader(opened) if row["Name"] == "Aggregated")
    count, failed = int(total["Request Count"]), int(total["Failure Count"])
    if not count or failed:
        sys.exit(f"{failed} of {count} requests failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    used = server.cpu_seconds() - before
    return {"rate": float(total["Requests/s"]) * size, "per_cpu": count * size / used} | {
        name: float(total[name]) for name in ("50%", "95%", "99%")
    }


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,8,32,128")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--run", type=Path, help="a run folder; without it, the bundled classifier")
    parser.add_argument("--count", type=int, default=1000, help="texts of the offline measurement")
    parser.add_argument("--wait-ms", type=float, help="serve.wait_ms; without it, the default")
    parser.add_argument("--side", choices=["plain", "offline"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side == "plain":
        return plain(asked.folder, asked.port)
    if asked.side == "offline":
        return print(offline(asked.folder, asked.count))
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "merged"
        run = (asked.run or common.REPO / "emotion_lightning" / "tiny").absolute()
        common.output("-m", "emotion_lightning.export", f"run={run}", f"output={folder}", "format=merged",
                      f"hydra.run.dir={work}")  # fmt: skip
        ours, theirs = free_port(), free_port()
        more = [] if asked.wait_ms is None else [f"serve.wait_ms={asked.wait_ms}"]
        with (
            running("-m", "emotion_lightning.serve", f"run={folder}", f"serve.port={ours}", *more, port=ours) as serve,
            running(__file__, "--side=plain", f"--folder={folder}", f"--port={theirs}", port=theirs) as peer,
        ):
            for server in (serve, peer):  # warm
                asked_by(4, server, seconds=asked.seconds)
            for turn in range(asked.turns):
                for clients in map(int, asked.clients.split(",")):
                    for name, server in [("serve", serve), ("plain", peer)][:: 1 if turn % 2 == 0 else -1]:
                        result = asked_by(clients, server, seconds=asked.seconds)
                        found.setdefault(f"{name}, {clients} clients", []).append(result)
                        print(turn, name, clients, result, flush=True)
                many = asked_by(4, serve, seconds=asked.seconds, size=32)
                printed = common.output(__file__, "--side=offline", f"--folder={folder}", f"--count={asked.count}")
                rate, per_cpu = map(float, printed.split())
                found.setdefault("serve, 32 texts, 4 clients", []).append(many)
                found.setdefault("offline", []).append({"rate": rate, "per_cpu": per_cpu})
                print(turn, many, rate, per_cpu, flush=True)
    print_table(found)
    common.report("serving", found | {"load": os.getloadavg()})


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians over the turns, and the ratio to the other side within a turn."""
    print("\n| | texts/s | ratio | texts per CPU second | ratio | p50 ms | p95 ms | p99 ms |\n|" + "---|" * 8)
    for name, results in found.items():
        middle = {key: statistics.median(one[key] for one in results) for key in results[0]}
        peer = found["offline"] if "32 texts" in name else found.get(name.replace("serve", "plain"), results)
        ratios = [
            statistics.median(a[key] / b[key] for a, b in zip(results, peer, strict=True))
            for key in ("rate", "per_cpu")
        ]
        times = " | ".join(f"{middle[key]:,.0f}" if key in middle else "" for key in ("50%", "95%", "99%"))
        rates = f"{middle['rate']:,.1f} | {ratios[0]:.2f} | {middle['per_cpu']:,.1f} | {ratios[1]:.2f}"
        print(f"| {name} | {rates} | {times} |")


if __name__ == "__main__":
    main()
