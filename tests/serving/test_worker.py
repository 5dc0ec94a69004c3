"""Requests are computed together, and each gets its own answer, whatever the others hold."""

import queue
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("litserve")

import torch

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.serving import classifier, server, words, worker
from emotion_lightning.serving.worker import Asked, Refused, TokenBatches


class Counting:
    """A Labeller: the probability of the first label is the share of the letter a; `!` cannot be computed."""

    def __init__(self) -> None:
        self.metadata = self
        self.labels = ["a", "other"]
        self.batches: list[list[str]] = []

    def threshold_tensor(self) -> torch.Tensor:
        return torch.tensor([0.5, 0.5], dtype=torch.float64)

    def check_explainable(self) -> None:
        raise UserError("This has no gradients.")

    def tokenize(self, texts: list[str]) -> list[list[str]]:
        if "?" in texts:
            raise UserError("Text 1 is no text.")
        return [texts]

    def compute(self, tokens: list[list[str]], *, batch_tokens: int) -> tuple[None, torch.Tensor]:
        (texts,) = tokens
        self.batches.append(texts)
        if "!" in texts:
            raise RuntimeError("the device is lost")
        shares = torch.tensor([text.count("a") / max(1, len(text)) for text in texts])
        return None, torch.stack([shares, 1 - shares], 1)


class Answers:
    """LitServe's transport."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, item: Any, consumer_id: int) -> None:
        self.sent.append(item)


def ask(*texts: str, thresholds: Any = None, explain: bool = False) -> dict[str, Any]:
    return {"texts": list(texts), "thresholds": thresholds, "explain": explain}


def answered(*asked: dict[str, Any], budget: int = 1000, came: float = 0.0, wait: float = 0.0) -> Any:
    """The answers by the number of the request, the model, and how many requests were left in the queue."""
    model, waiting, loop = Counting(), queue.Queue[Any](), TokenBatches(wait=wait, budget=budget, timeout=5)
    for number, one in enumerate(asked):
        waiting.put((0, str(number), time.monotonic() - came, one))
    batch = loop._gather(model, waiting, Answers())
    return dict(loop.answers(model, batch)), model, waiting.qsize()


def test_requests_that_wait_are_computed_together_and_answered_apart() -> None:
    found, model, left = answered(ask("aa", "b"), ask("ab", thresholds={"other": 0.4}), ask("a", thresholds=1), came=1)
    assert model.batches == [["aa", "b", "ab", "a"]] and left == 0
    labels = {uid: [one["labels"] for one in answer["predictions"]] for uid, answer in found.items()}
    assert labels == {"0": [["a"], ["other"]], "1": [["other"]], "2": [[]]}
    assert found["0"]["predictions"][0]["probabilities"] == {"a": 1.0, "other": 0.0}
    # The numbers of the batch are told once, to be counted once.
    assert found["0"]["batch"]["texts"] == 4 and found["1"]["batch"] is found["2"]["batch"] is None


def test_a_batch_ends_where_it_holds_enough_tokens() -> None:
    _, model, left = answered(ask("a b c"), ask("a b"), ask("a"), budget=5)
    assert model.batches == [["a b c", "a b"]] and left == 1


def test_a_request_waits_no_longer_than_it_is_told() -> None:
    begun = time.monotonic()
    answered(ask("a"), wait=0.2)
    assert 0.2 <= time.monotonic() - begun < 2
    begun = time.monotonic()
    answered(ask("a"), wait=20, came=20)
    assert time.monotonic() - begun < 2


def test_requests_that_nobody_waits_for_are_left_out() -> None:
    found, model, _ = answered(ask("a"), came=6)
    assert found == {} and model.batches == []


def test_a_request_that_breaks_its_batch_breaks_no_other() -> None:
    found, model, _ = answered(ask("a"), ask("!"), ask("?"), ask("b", thresholds={"c": 1}), ask("b"))
    assert [found[uid]["predictions"][0]["labels"] for uid in ("0", "4")] == [["a"], ["other"]]
    refused = {uid: (answer.code, str(answer)) for uid, answer in found.items() if isinstance(answer, Refused)}
    assert refused.keys() == {"1", "2", "3"}
    assert refused["1"][0] == 500 and "lost" not in refused["1"][1]
    assert refused["2"] == (422, "Text 1 is no text.")
    assert refused["3"] == (422, "thresholds names 'c', which is no label of this model; GET /info.")


def test_tokens_are_counted_of_the_network_with_the_most() -> None:
    from emotion_lightning.data.batches import Tokens

    one, two = Tokens(torch.arange(3).numpy(), torch.tensor([0, 1, 3]).numpy()), ["a b c", "d"]
    assert worker._count([one, two]) == 4 and worker._count([one]) == 3
    joined = Tokens.joined([one, one])
    assert [joined[row].tolist() for row in range(4)] == [[0], [1, 2], [0], [1, 2]]


def test_explanations_that_a_classifier_has_not_are_refused() -> None:
    asked = Asked("0", ["a"], None, True, [["a"]], 1)
    ((_, answer),) = TokenBatches(wait=0, budget=9, timeout=9).answers(Counting(), [asked])
    assert isinstance(answer, Refused) and answer.code == 422


@dataclass
class Spoken:
    text: str
    start: int
    end: int
    attributions: dict[str, float]


class Explaining(Counting):
    """Each word speaks for the labels that are asked by its number of a."""

    def check_explainable(self) -> None:
        if "b" in self.labels:
            raise UserError("This is a baseline.")

    def explain(self, texts: list[str], labels: list[str]) -> list[Any]:
        (text,) = texts
        return [SimpleNamespace(words=[Spoken(text, 0, len(text), {name: text.count("a") for name in labels})])]


def test_words_are_told_for_the_labels_found_or_the_most_probable_one() -> None:
    asked = Asked("0", ["aa", "b", "ab"], {"a": 0.6, "other": 0.6}, True, [["aa", "b", "ab"]], 3)
    ((_, answer),) = TokenBatches(wait=0, budget=9, timeout=9).answers(Explaining(), [asked])
    told = [[(word["word"], word["start"], word["end"], word["scores"]) for word in one["words"]]
            for one in answer["predictions"]]  # fmt: skip
    assert told == [[("aa", 0, 2, {"a": 2})], [("b", 0, 1, {"other": 0})], [("ab", 0, 2, {"a": 1})]]
    baseline = Explaining()
    baseline.labels = ["a", "b"]
    assert words.can_explain(Explaining()) and not words.can_explain(baseline) and not words.can_explain(Counting())


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("outputs/train/2026-11-28/19-30-00", "2026-11-28/19-30-00"),
        ("/home/me/outputs/train/2026-11-28/19-30-00/model", "2026-11-28/19-30-00"),
        ("/home/me/mine", "mine"),
        ("../mine/", "mine"),
        ("model", "model"),
        (".", "run"),
    ],
)
def test_the_name_of_a_run_tells_no_paths(folder: str, name: str) -> None:
    from pathlib import Path

    assert classifier.shown_name(Path(folder)) == name


class Reports(queue.Queue[Any]):
    """What processes report."""

    def __init__(self, *reports: Any) -> None:
        super().__init__()
        for report in reports:
            self.put(report)


class Process:
    """A process that has ended."""

    exitcode = -9


class Processes:
    """LitServe's server, as far as it is asked here."""

    inference_workers = [Process()]


def test_what_a_process_cannot_load_is_the_error_of_the_command() -> None:
    assert server._next_report(Processes(), Reports(("ready", {"labels": []}))) == {"labels": []}  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^It is damaged\.$"):
        server._next_report(Processes(), Reports(("failed", "It is damaged.", None)))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Traceback"):
        server._next_report(Processes(), Reports(("failed", "x", "Traceback")))  # type: ignore[arg-type]


def test_a_process_that_was_killed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = Reports()
    monkeypatch.setattr(reports, "get", lambda timeout: (_ for _ in ()).throw(queue.Empty))
    with pytest.raises(UserError, match="killed while it loaded"):
        server._next_report(Processes(), reports)  # type: ignore[arg-type]


@pytest.mark.parametrize(("overrides", "gpus", "found"), [
    ([], 0, ("cpu", 1)), ([], 2, ("cuda", 1)), (["devices=2"], 2, ("cuda", 2)), (["accelerator=cpu"], 2, ("cpu", 1)),
    (["devices=2"], 0, "set serve.workers=2"), (["devices=3"], 2, "this machine has 2 GPUs"),
])  # fmt: skip
def test_devices(overrides: list[str], gpus: int, found: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "check_cuda_with_nvidia_smi", lambda: gpus)
    asked = settings(*overrides, command="serve")
    if isinstance(found, tuple):
        assert server._devices(asked) == found
    else:
        with pytest.raises(UserError, match=found):
            server._devices(asked)


def test_a_program_that_cannot_be_started_finds_no_gpus(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder on the PATH that this user may not read: a PermissionError, not a FileNotFoundError."""
    monkeypatch.setattr("subprocess.check_output", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert server._devices(settings(command="serve")) == ("cpu", 1)


@pytest.mark.parametrize("token", ["", "two words", "s\xe9cret", "a\n"])
def test_tokens_that_no_header_can_hold_are_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.TOKEN, token)
    with pytest.raises(UserError, match=server.TOKEN):
        server._token()


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://a b", "file:///x", "https://*.org"])
def test_origins_that_no_browser_sends_are_refused(origin: str, settings: Any) -> None:
    with pytest.raises(UserError, match="is no origin"):
        settings(f"serve.origins=['{origin}']", command="serve")
    allowed = ["https://example.org", "http://localhost:3000", "*"]
    assert settings(f"serve.origins={allowed}", command="serve").serve.origins == allowed


@pytest.mark.parametrize("host", ["no.such.host.invalid", "8.8.8.8", "a..b"])
def test_addresses_that_cannot_be_listened_on_are_refused(host: str, settings: Any) -> None:
    own = config.Server(**(vars(settings(command="serve").serve) | {"host": host, "port": 0}))
    with pytest.raises(UserError, match=f"serve.host={host}"), server._listening(own):
        pass


def test_a_port_in_use_is_refused(settings: Any) -> None:
    own = settings("serve.port=0", command="serve").serve
    with server._listening(own) as listener:
        listener.listen()
        own.port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"serve.port={own.port} cannot be listened on"), server._listening(own):
            pass


def test_the_monitor_does_not_ask_the_process_of_the_queues_which_ends_first(caplog: pytest.LogCaptureFixture) -> None:
    """LitServe's monitor asked it whether the server stops, and told of a crash when the answer was cut off."""
    queues = server._Server(
        worker.Answering(print, sharing=1, loop=TokenBatches(wait=1, budget=1, timeout=1), reports=None)
    )  # type: ignore[arg-type]
    manager = queues._init_manager(1)
    queues.inference_workers = []
    queues.monitor_internal = 0
    before = set(threading.enumerate())
    queues._start_worker_monitoring(manager, {})
    (monitor,) = set(threading.enumerate()) - before
    manager.shutdown()
    monitor.join(0.2)
    assert monitor.is_alive() and not caplog.records
    queues._shutdown_event.set()
    monitor.join()
    assert not caplog.records
