"""The application of `serve` before a classifier of a few lines, in this process."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from emotion_lightning import config
from emotion_lightning.serving.application import PATHS, application
from emotion_lightning.serving.gate import Gate
from emotion_lightning.serving.metrics import Metrics
from helpers.servers import free_port

SETTINGS = {
    "host": "127.0.0.1", "port": 0, "workers": 1, "wait_ms": 0.0, "batch_tokens": 2048, "queue": 4, "timeout": 5.0,
    "drain_seconds": 5.0, "texts": 250, "letters": 1000, "body_bytes": 100_000, "explained_texts": 8,
    "origins": [], "log_texts": False,
}  # fmt: skip


def facts(labels: list[str]) -> dict[str, Any]:
    """What `GET /info` tells about the stand-in."""
    cuts = dict.fromkeys(labels, 0.5)
    return {
        "model": "stand-in", "labels": labels, "protocol": "global", "thresholds": {"fixed": cuts, "global": cuts},
        "calibrated": False, "max_tokens": 64, "explains": True, "card": "# Card\n\nIt is <b>no</b> model.",
        "versions": {"torch": "2"},
    }  # fmt: skip


def label(texts: list[str], labels: list[str], thresholds: Any, explain: bool) -> list[dict[str, Any]]:
    """Each label's probability is its place; each word speaks by its length, and against every second label."""
    found = []
    for text in texts:
        shares = {name: round((place + 1) / (len(labels) + 1), 4) for place, name in enumerate(labels)}
        cuts = thresholds if isinstance(thresholds, dict) else dict.fromkeys(labels, thresholds or 0.5)
        words, end = [], 0
        for word in text.split() if explain else []:
            start = text.index(word, end)
            end = start + len(word)
            scores = {name: len(word) * (-1) ** place / 10 for place, name in enumerate(labels)}
            words.append({"word": word, "start": start, "end": end, "scores": scores})
        chosen = [name for name in labels if shares[name] > cuts.get(name, 0.5)]
        found.append({"labels": chosen, "probabilities": shares, "words": words if explain else None})
    return found


def served(
    labels: list[str] | None = None,
    *,
    token: str | None = None,
    ask: Callable[[Mapping[str, Any], str], Awaitable[Mapping[str, Any]]] | None = None,
    state: str = "ready",
    explains: bool = True,
    told: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Gate:
    """The application behind its gate, with `told` instead of the facts of the stand-in. `changes` are settings."""
    names = ["anger", "joy", "sadness"] if labels is None else labels
    settings = config.Server(**(SETTINGS | changes))

    async def answer(asked: Mapping[str, Any], identifier: str) -> Mapping[str, Any]:
        return {"predictions": label(asked["texts"], names, asked["thresholds"], asked["explain"]), "batch": None}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    counted = Metrics(PATHS, lambda: 0)
    told = facts(names) | {"explains": explains} if told is None else told
    app = application(settings, facts=told, ask=ask or answer, state=lambda: state, counted=counted, lifespan=lifespan)
    return Gate(app, settings=settings, token=token, metrics=counted)


def request(gate: Any, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer to one request."""
    return requests(gate, (method, path, options))[0]


def requests(gate: Any, *asked: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """The answers to requests that are sent at the same time."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return list(await asyncio.gather(*(client.request(m, p, **o) for m, p, o in asked)))

    return asyncio.run(send())


@contextmanager
def listening(gate: Any) -> Iterator[str]:
    """Serve it on loopback, for a browser; the address."""
    server = uvicorn.Server(uvicorn.Config(gate, port=free_port(), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.config.port}/"
    finally:
        server.should_exit = True
        thread.join()
