"""Requests that Schemathesis makes from the OpenAPI description, before the bundled classifier in this process."""

import queue
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("litserve")

import schemathesis
from helpers.stand_in_server import served
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance  # type: ignore[attr-defined]
from starlette.exceptions import HTTPException

from emotion_lightning.serving import classifier
from emotion_lightning.serving.gate import Gate
from emotion_lightning.serving.worker import Classifier, Refused, TokenBatches


class Unheard:
    """LitServe's transport, where nobody listens."""

    def send(self, item: Any, consumer_id: int) -> None:
        pass


def served_here(found: Classifier) -> Gate:
    """The application with a classifier that computes in this process, as a worker does."""
    loop = TokenBatches(wait=0, budget=2048, timeout=60)

    async def ask(asked: Mapping[str, Any], identifier: str) -> Mapping[str, Any]:
        waiting = queue.Queue[Any]()
        waiting.put((0, identifier, time.monotonic(), dict(asked)))
        ((_, answer),) = loop.answers(found.model, loop._gather(found.model, waiting, Unheard()))
        if isinstance(answer, Refused):
            raise HTTPException(answer.code, str(answer))
        answered: Mapping[str, Any] = answer
        return answered

    return served(ask=ask, told=found.facts)


@pytest.fixture(scope="module")
def operations() -> Any:
    schema = schemathesis.openapi.from_asgi("/openapi.json", served_here(classifier.load(None, "cpu")))
    return {name: schema[path][method] for name, (path, method) in {
        "predict": ("/predict", "POST"), "info": ("/info", "GET"), "health": ("/health", "GET"),
        "live": ("/live", "GET"), "metrics": ("/metrics", "GET"),
    }.items()}  # fmt: skip


def answers(operation: Any, mode: GenerationMode, count: int) -> Counter[int]:
    """How many requests were answered with each code, all as the description says."""
    codes = Counter[int]()

    @examples_of(max_examples=count, suppress_health_check=list(HealthCheck), derandomize=count < 1000, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        response = case.call()
        codes[response.status_code] += 1
        # A request can be as described and yet ask for more than the limits of this server.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])
        assert response.status_code < 500, response.text

    ask()
    return codes


def test_malformed_requests_are_refused(operations: Any) -> None:
    codes = answers(operations["predict"], GenerationMode.NEGATIVE, 60)
    assert codes[422] and set(codes) <= {200, 400, 422}


def test_requests_as_described_are_answered(operations: Any) -> None:
    assert answers(operations["predict"], GenerationMode.POSITIVE, 15)[200]
    for name in ("info", "health", "live", "metrics"):
        assert answers(operations[name], GenerationMode.POSITIVE, 2)[200]


@pytest.mark.exhaustive
def test_ten_thousand_malformed_requests_are_refused(operations: Any, capsys: Any) -> None:
    codes = answers(operations["predict"], GenerationMode.NEGATIVE, 10_000)
    with capsys.disabled():
        print(f"\nanswers to malformed requests: {dict(codes)}")
    assert sum(codes.values()) >= 10_000 and set(codes) <= {200, 400, 422}
