"""Numbers for Prometheus: requests, errors, time, batches and the queue."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS = tuple(2.0**power for power in range(14))


class Metrics:
    """Counts in a registry of its own.

    Args:
        paths: paths that are counted by name; all others are `other`, so that nobody can make names up.
        waiting: returns the number of requests that wait or are computed.
    """

    def __init__(self, paths: set[str], waiting: Callable[[], int]) -> None:
        self._paths = paths
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "emotion", "registry": self._registry}
        self._requests = Counter("requests", "Requests by path and status code.", ["path", "status"], **own)
        self._errors = Counter("errors", "Requests that failed (5xx) or were refused (4xx).", ["path", "status"], **own)
        self._seconds = Histogram("request_seconds", "Time from request to answer.", ["path"], buckets=_SECONDS, **own)
        self._texts = Counter("texts", "Texts that were labelled.", **own)
        self._batch_texts = Histogram("batch_texts", "Texts computed together.", buckets=_POWERS, **own)
        self._batch_tokens = Histogram("batch_tokens", "Tokens computed together.", buckets=_POWERS, **own)
        self._batch_seconds = Histogram("batch_seconds", "Time of a computation.", buckets=_SECONDS, **own)
        Gauge("queue", "Requests that wait or are computed.", **own).set_function(waiting)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered or refused."""
        name = path if path in self._paths else "other"
        self._requests.labels(name, status).inc()
        self._seconds.labels(name).observe(seconds)
        if status >= 400:
            self._errors.labels(name, status).inc()

    def count_batch(self, texts: int, tokens: int, seconds: float) -> None:
        """Count a computation."""
        self._texts.inc(texts)
        self._batch_texts.observe(texts)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all numbers in the text format of Prometheus."""
        return bytes(generate_latest(self._registry))
