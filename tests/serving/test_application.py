"""What can be asked over HTTP, and the sentences of what is refused; a stand-in labels."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("litserve")

from helpers.stand_in_server import SETTINGS, request, requests, served
from hypothesis import HealthCheck, given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from emotion_lightning.serving.gate import with_origins

ASK = {"texts": ["We won!", "Rain again."]}


def test_texts_are_answered_in_their_order() -> None:
    answer = request(served(), "POST", "/predict", json=ASK)
    assert answer.status_code == 200
    content = answer.json()
    assert content["model"] == "stand-in" and len(content["predictions"]) == 2
    assert content["predictions"][0] == {
        "labels": ["sadness"],
        "probabilities": {"anger": 0.25, "joy": 0.5, "sadness": 0.75},
        "words": None,
    }


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [(None, ["sadness"]), (0.1, ["anger", "joy", "sadness"]), ({"joy": 0.4}, ["joy", "sadness"]), (1, [])],
)
def test_a_request_may_have_thresholds_of_its_own(thresholds: Any, labels: list[str]) -> None:
    answer = request(served(), "POST", "/predict", json={"texts": ["a"], "thresholds": thresholds})
    assert answer.json()["predictions"][0]["labels"] == labels


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        ({"texts": ["a"] * 251}, 422, "texts holds 251 texts; this server takes at most 250."),
        ({"texts": ["a"] * 9, "explain": True}, 422, "texts holds 9 texts; this server takes at most 8 with explain"),
        ({"texts": ["a", "b" * 1001]}, 422, "Text 2 has 1,001 characters; this server takes at most 1,000."),
        ({"texts": ["a" * 200_000]}, 413, "The request is larger than 100,000 bytes, the most that this server takes."),
        ({"texts": []}, 422, "texts: List should have at least 1 item"),
        ({"texts": "We won!"}, 422, "texts: Input should be a valid list."),
        ({"texts": ["a", 3]}, 422, "texts[1]: Input should be a valid string."),
        ({"texts": [None]}, 422, "texts[0]: Input should be a valid string."),
        ({}, 422, "texts: Field required."),
        ([], 422, "The body: "),
        ({"texts": ["a"], "explain": "yes"}, 422, "explain: Input should be a valid boolean."),
        ({"texts": ["a"], "treshold": 0.3}, 422, "treshold: Extra inputs are not permitted."),
        ({"texts": ["a"], "thresholds": 1.5}, 422, "thresholds: Input should be less than or equal to 1."),
        ({"texts": ["a"], "thresholds": {"joy": -1}}, 422, "thresholds.joy: Input should be greater than"),
        ({"texts": ["a"], "thresholds": True}, 422, "thresholds: Input should be a valid "),
        ({"texts": ["a"], "thresholds": {"joy": "0.5"}}, 422, "thresholds.joy: Input should be a valid number."),
        (b"{", 400, "The body is no JSON"),
        (b'{"texts": ["\xff"]}', 400, "The body cannot be read as JSON in UTF-8."),
        (b'{"texts": ["\\ud800"]}', 422, "Text 1 holds half of a character"),
        (b'{"texts": ["a"], "\\ud800": 1}', 422, ""),
        (b'{"texts": ["a"], "thresholds": NaN}', 422, "thresholds"),
        (b'{"texts": ["a"], "thresholds": 1' + b"0" * 5000 + b"}", 400, "The body"),
        (b"[" * 50_000, 400, "The body"),
        (b"", 422, "The body: Field required."),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_with_a_sentence(body: Any, code: int, sentence: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = request(served(), "POST", "/predict", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"][: len(sentence)]) == (code, sentence)
    assert answer.json()["id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(("method", "path", "code"), [
    ("GET", "/nothing", 404), ("GET", "/assets/../server.py", 404), ("GET", "/assets/index.html", 404),
    ("GET", "/predict", 405), ("DELETE", "/predict", 405), ("GET", "/predict/", 404),
])  # fmt: skip
def test_other_paths_and_methods_are_refused(method: str, path: str, code: int) -> None:
    answer = request(served(), method, path)
    assert answer.status_code == code and answer.json()["error"].endswith(".")


def test_a_body_that_is_sent_in_pieces_is_limited_too() -> None:
    def pieces() -> Any:
        async def give() -> Any:
            for _ in range(100):
                yield b"x" * 10_000

        return give()

    assert request(served(), "POST", "/predict", content=pieces()).status_code == 413


def test_a_body_that_never_ends_is_refused_after_a_while() -> None:
    async def slow() -> Any:
        yield b"{"
        await asyncio.sleep(30)

    answer = request(served(timeout=0.05), "POST", "/predict", content=slow())
    assert answer.status_code == 408 and answer.json()["error"] == "The request was not complete after 0.05 seconds."


@pytest.mark.parametrize("given_token", [None, "", "wrong", "secretx", "secre", "Secret", "s\xe4cret"])
def test_a_token_is_needed_where_there_is_one(given_token: str | None) -> None:
    gate = served(token="secret")
    headers = {} if given_token is None else {"authorization": f"Bearer {given_token}".encode("latin-1")}
    for method, path in (("POST", "/predict"), ("GET", "/info"), ("GET", "/metrics"), ("GET", "/other")):
        refused = request(gate, method, path, headers=headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    for path in ("/", "/health", "/live", "/docs", "/openapi.json", "/assets/page.css"):
        assert request(gate, "GET", path, headers=headers).status_code == 200
    assert request(gate, "POST", "/predict", json=ASK, headers={"authorization": "bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    ("origins", "site", "origin", "code"),
    [
        ([], "same-origin", "http://here", 200),
        ([], "none", None, 200),
        ([], None, None, 200),
        ([], "cross-site", "https://elsewhere.org", 403),
        ([], "same-site", "https://sub.here", 403),
        (["https://good.org"], "cross-site", "https://good.org", 200),
        (["https://good.org"], "cross-site", "https://evil.org", 403),
        (["*"], "cross-site", "https://evil.org", 200),
    ],
)
def test_pages_of_other_addresses_may_ask_only_if_listed(
    origins: list[str], site: str | None, origin: str | None, code: int
) -> None:
    headers = {name: value for name, value in (("sec-fetch-site", site), ("origin", origin)) if value}
    answer = request(served(origins=origins), "POST", "/predict", json=ASK, headers=headers)
    assert answer.status_code == code


def test_pages_that_are_listed_can_read_refusals_and_send_a_token() -> None:
    gate = with_origins(served(origins=["https://good.org"], token="secret"), ["https://good.org"])
    browser = {"sec-fetch-site": "cross-site", "origin": "https://good.org"}
    before = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    assert request(gate, "OPTIONS", "/predict", headers=browser | before).status_code == 200
    refused = request(gate, "POST", "/predict", json=ASK, headers=browser)
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://good.org"
    browser["origin"] = "https://evil.org"
    assert request(gate, "OPTIONS", "/predict", headers=browser | before).status_code == 400
    assert "access-control-allow-origin" not in request(gate, "POST", "/predict", json=ASK, headers=browser).headers


def test_a_link_from_elsewhere_may_lead_here_and_a_form_may_not() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert [request(served(), "GET", path, headers=link).status_code for path in ("/", "/docs")] == [200, 200]
    assert request(served(), "POST", "/predict", json=ASK, headers=link).status_code == 403


def test_too_many_requests_and_a_server_that_stops_refuse_with_503() -> None:
    async def slow(asked: Mapping[str, Any], identifier: str) -> Mapping[str, Any]:
        await asyncio.sleep(0.3)
        return {"predictions": [], "batch": None}

    gate = served(ask=slow, queue=2)
    answers = requests(gate, *[("POST", "/predict", {"json": ASK})] * 5, ("GET", "/live", {}))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503, 503, 503]
    assert "2 requests wait already" in next(a for a in answers if a.status_code == 503).json()["error"]
    assert gate.busy == gate.asked == 0
    gate.closed = True
    refused = request(gate, "POST", "/predict", json=ASK)
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert request(gate, "GET", "/info").status_code == 200


@pytest.mark.parametrize(("state", "code"), [("ready", 200), ("loading", 503), ("stopping", 503)])
def test_health_tells_whether_it_answers(state: str, code: int) -> None:
    answer = request(served(state=state), "GET", "/health")
    assert (answer.status_code, answer.json()) == (code, {"status": state})
    assert request(served(state=state), "GET", "/live").status_code == 200


def test_an_error_of_the_server_tells_nothing_and_is_logged(caplog: Any) -> None:
    async def broken(asked: Mapping[str, Any], identifier: str) -> Mapping[str, Any]:
        raise KeyError("a secret")

    answer = request(served(ask=broken), "POST", "/predict", json=ASK, headers={"x-request-id": "mine-1"})
    assert answer.status_code == 500 and "secret" not in answer.text and answer.json()["id"] == "mine-1"
    assert "mine-1" in caplog.text and "a secret" in caplog.text


def test_the_log_has_ids_and_texts_only_if_asked(caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    private: dict[str, Any] = {"texts": ["my diary\nPOST /predict 200"]}
    request(served(), "POST", "/predict", json=private, headers={"x-request-id": "bad id\n"})
    request(served(), "POST", "/predict?texts=diary", json={"texts": [1, "my diary"]})
    request(served(), "GET", "/%0a%1b[2Jdiary")
    said = "\n".join(record.getMessage() for record in caplog.records if record.name != "httpx")
    assert said.count("\n") == 2 and "bad id" not in said
    assert said.count("diary") == 1 and "GET /\\n\\x1b[2Jdiary 404" in said
    caplog.clear()
    request(served(log_texts=True), "POST", "/predict", json=private, headers={"x-request-id": "mine"})
    assert "mine text 1: 'my diary\\nPOST /predict 200'" in caplog.text


def test_metrics_count_requests_under_known_names() -> None:
    gate = served()
    for path in ("/predict", "/made-up-1", "/made-up-2"):
        request(gate, "POST", path, json=ASK)
    text = request(gate, "GET", "/metrics").text
    assert 'emotion_requests_total{path="/predict",status="200"} 1.0' in text
    assert 'emotion_errors_total{path="other",status="404"} 2.0' in text
    assert "made-up" not in text and "emotion_queue 0.0" in text


def test_the_description_has_examples_and_every_refusal() -> None:
    described = request(served(), "GET", "/openapi.json").json()
    assert {"/predict", "/info", "/health", "/live", "/metrics"} == described["paths"].keys()
    predict = described["paths"]["/predict"]["post"]
    assert {"200", "400", "401", "403", "408", "413", "422", "500", "503", "504"} == predict["responses"].keys()
    assert described["components"]["schemas"]["Ask"]["examples"]
    for example in described["components"]["schemas"]["Ask"]["examples"]:
        assert request(served(), "POST", "/predict", json=example).status_code == 200
    page = request(served(), "GET", "/docs")
    assert "//" not in page.text and "unsafe-eval" not in page.headers["content-security-policy"]
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "docs.js"):
        assert request(served(), "GET", f"/assets/{name}").status_code == 200


def test_without_words_explain_is_refused() -> None:
    answer = request(served(explains=False), "POST", "/predict", json=ASK | {"explain": True})
    assert answer.status_code == 422 and "which words decided" in answer.json()["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.lists(st.text(max_size=20), max_size=4) | JSON
BODIES = (
    st.fixed_dictionaries({"texts": TEXTS}, optional={"explain": st.booleans() | JSON, "thresholds": JSON, "x": JSON})
    .map(lambda content: json.dumps(content, ensure_ascii=True).encode())
    .flatmap(
        lambda whole: (
            st.just(whole)
            | st.integers(0, len(whole)).map(lambda cut: whole[:cut])
            | st.tuples(st.integers(0, len(whole)), st.binary(min_size=1, max_size=3)).map(
                lambda change: whole[: change[0]] + change[1] + whole[change[0] :]
            )
        )
    )
)
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-request-id", "authorization", "origin", "sec-fetch-site", "accept-encoding"]),
    st.sampled_from(["application/json", "text/plain", "multipart/form-data", "Bearer x", "cross-site", "\xff", ""]),
    max_size=3,
)
KNOWN = {200, 400, 403, 404, 405, 413, 422}


def check_malformed(examples: int) -> None:
    gate = served()

    @examples_of(max_examples=examples, suppress_health_check=list(HealthCheck), derandomize=examples < 1000)
    @given(
        body=BODIES | st.binary(max_size=30),
        headers=HEADERS,
        path=st.sampled_from(["/predict"] * 8 + ["/info", "/metrics", "/assets/x", "/%00", "/predict?x=%ff"]),
        method=st.sampled_from(["POST"] * 8 + ["GET", "PUT", "OPTIONS", "HEAD", "TRACE"]),
    )
    def ask(body: bytes, headers: dict[str, str], path: str, method: str) -> None:
        sent = {"content-type": "application/json"} | headers
        answer = request(
            gate, method, path, content=body, headers={name: value.encode("latin-1") for name, value in sent.items()}
        )
        assert answer.status_code in KNOWN, (answer.status_code, body)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.json()["error"].endswith((".", "]"))

    ask()


def test_malformed_requests_are_no_errors_of_the_server() -> None:
    check_malformed(150)


@pytest.mark.exhaustive
def test_ten_thousand_malformed_requests_are_no_errors_of_the_server() -> None:
    check_malformed(10_000)


def test_the_settings_of_the_stand_in_are_those_of_the_server(settings: Any) -> None:
    assert vars(settings(command="serve").serve).keys() == SETTINGS.keys()
