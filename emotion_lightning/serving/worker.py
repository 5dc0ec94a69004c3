"""Processes that compute: each has a copy of the networks and takes requests from LitServe's queue, batched by tokens.

LitServe starts these processes, starts them again if they die, and carries requests and answers. Its own loops collect
a fixed number of requests; `TokenBatches` collects tokens. See docs/decisions/litserve.md.
"""

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

import litserve
from litserve.loops import LitLoop
from litserve.utils import LitAPIStatus, LoopResponseType

from emotion_lightning.errors import UserError, first_line
from emotion_lightning.serving import words

log = logging.getLogger(__name__)

REGULAR = LoopResponseType.REGULAR


@dataclass
class Classifier:
    """What a process answers with.

    Attributes:
        model: a Labeller.
        facts: what `GET /info` tells about it, without limits.
    """

    model: Any
    facts: dict[str, Any]


class Answering(litserve.LitAPI):
    """Loads the classifier in each process.

    Args:
        load: returns the classifier. It must be picklable, and raises UserError if the run cannot be loaded.
        sharing: number of processes that share the cores of the CPU.
        loop: takes the requests.
        reports: queue that gets `("ready", facts)` or `("failed", message, traceback or None)` from each process.
    """

    def __init__(self, load: Callable[[], Classifier], *, sharing: int, loop: "TokenBatches", reports: Any) -> None:
        super().__init__(api_path="/predict", loop=loop)
        self._load = load
        self._sharing = sharing
        self._reports = reports
        self.manager = 0
        """Id of the process that holds the queues."""
        self.classifier: Classifier | None = None

    def setup(self, device: str) -> None:
        """Load the classifier on a device and report it.

        Args:
            device: cpu, mps or cuda:NUMBER.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one ends this one
        threading.Thread(target=self._end_with_the_server, daemon=True).start()
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        try:
            self._choose(device)
            self.classifier = self._load()
        except Exception as error:
            import traceback

            known = isinstance(error, UserError)
            self._reports.put(("failed", str(error), None if known else traceback.format_exc()))
            raise SystemExit(1) from None  # LitServe would print the traceback of any other error
        self._reports.put(("ready", self.classifier.facts))

    def _choose(self, device: str) -> None:
        import torch

        from emotion_lightning.runs import environment, quiet, slurm

        quiet.quiet_libraries()
        quiet.hide_progress_bars()
        environment.keep_memory()
        slurm.set_local_rank(int(device.partition(":")[2] or 0))
        if not torch.cuda.is_available():
            torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // self._sharing)))

    def _end_with_the_server(self) -> None:
        """End this process and that of the queues when the main process was killed; otherwise both would stay."""
        parent = parent_process()
        if parent is not None:
            parent.join()
            if self.manager:
                os.kill(self.manager, signal.SIGTERM)
            os._exit(1)


@dataclass
class Asked:
    """A request that a process has taken.

    Attributes:
        uid: of the request.
        texts: its texts.
        thresholds: as the request has them: for all labels, by label, or None.
        explain: whether words are asked for.
        tokens: of the texts, one entry per network.
        tokens_count: number of tokens.
    """

    uid: str
    texts: list[str]
    thresholds: float | Mapping[str, float] | None
    explain: bool
    tokens: list[Any]
    tokens_count: int


class Refused(Exception):
    """A request that cannot be answered, with its HTTP code and a sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


_CORE_TOKENS = 384
"""Tokens of a batch on one core of a CPU. More make no product faster, but pad short texts more."""
_MISTAKE = Refused(500, "The server could not compute an answer; its log says why, under the id of this request.")


class TokenBatches(LitLoop):
    """Takes requests until they hold enough tokens or the first has waited long enough, and computes them together.

    Args:
        wait: seconds that a request waits at most for others.
        budget: tokens of a computation.
        timeout: seconds after which nobody waits for the answer of a request.
    """

    def __init__(self, *, wait: float, budget: int, timeout: float) -> None:
        super().__init__()
        self._wait = wait
        self._budget = budget
        self._timeout = timeout

    def __call__(self, lit_api: Any, device: str, worker_id: int, request_queue: Any, transport: Any, *_: Any) -> None:
        """Answer requests until the process is ended."""
        model = lit_api.classifier.model
        while True:
            for uid, answer in self.answers(model, self._gather(model, request_queue, transport)):
                failed = isinstance(answer, Refused)
                content = (answer.code, str(answer)) if isinstance(answer, Refused) else answer
                status = LitAPIStatus.ERROR if failed else LitAPIStatus.OK
                self.put_response(transport, 0, uid, content, status, REGULAR)

    def _gather(self, model: Any, requests: Any, transport: Any) -> list[Asked | tuple[str, Refused]]:
        found: list[Asked | tuple[str, Refused]] = []
        count, until = 0, None
        while count < self._budget:
            try:
                # Requests that came while the last batch was computed have waited: they are taken without waiting.
                left = None if until is None else max(0.0, until - time.monotonic())
                _, uid, came, asked = requests.get(left != 0, left)
            except queue.Empty:
                break
            until = came + self._wait if until is None else until
            # LitServe notes which process has a request, so that it is answered with an error if that process dies.
            self.put_response(transport, 0, uid, (), LitAPIStatus.START, REGULAR)
            if time.monotonic() - came > self._timeout:
                continue
            try:
                taken = _tokenized(model, uid, asked)
                found.append(taken)
                count += taken.tokens_count
            except Exception as error:
                found.append((uid, _refusal(error)))
        return found

    def answers(self, model: Any, batch: list[Asked | tuple[str, Refused]]) -> Iterator[tuple[str, Any]]:
        """Yield id and answer of each request: predictions, or a `Refused`."""
        yield from (part for part in batch if isinstance(part, tuple))
        asked = [part for part in batch if isinstance(part, Asked)]
        if not asked:
            return
        begun = time.monotonic()
        try:
            shares = _compute(model, asked, self._budget)
        except Exception:
            if len(asked) == 1:  # also memory that ran out: the request is as it should be
                log.exception("Request %s failed.", asked[0].uid)
                yield asked[0].uid, _MISTAKE
                return
            for one in asked:  # one of them broke the batch; the others are answered
                yield from self.answers(model, [one])
            return
        size: dict[str, float] | None = {
            "texts": sum(len(one.texts) for one in asked),
            "tokens": sum(one.tokens_count for one in asked),
            "seconds": time.monotonic() - begun,
        }
        start = 0
        for one in asked:
            own = shares[start : start + len(one.texts)]
            start += len(one.texts)
            try:
                yield one.uid, {"predictions": _predictions(model, one, own), "batch": size}
            except Exception as error:
                if not isinstance(error, UserError | Refused):
                    log.exception("Request %s failed.", one.uid)
                yield one.uid, _refusal(error)
            size = None  # counted once


def _tokenized(model: Any, uid: str, asked: dict[str, Any]) -> Asked:
    thresholds = asked["thresholds"]
    if isinstance(thresholds, dict) and (unknown := sorted(thresholds.keys() - set(model.metadata.labels))):
        raise Refused(422, f"thresholds names {ascii(unknown[0])[:80]}, which is no label of this model; GET /info.")
    tokens = model.tokenize(asked["texts"])
    return Asked(uid, asked["texts"], thresholds, asked["explain"], tokens, _count(tokens))


def _count(tokens: list[Any]) -> int:
    """Number of tokens of the network with the most, those of all pieces of long texts; of a baseline, words."""
    return max(sum(len(text.split()) for text in own) if isinstance(own, list) else len(own.ids) for own in tokens)


def _compute(model: Any, asked: list[Asked], budget: int) -> Any:
    """Probabilities, [text, label]."""
    import torch

    from emotion_lightning.data.batches import Tokens

    parts = zip(*(one.tokens for one in asked), strict=True)
    tokens = [
        [text for part in own for text in part] if isinstance(own[0], list) else Tokens.joined(own) for own in parts
    ]
    if not torch.cuda.is_available():
        # Each core computes batches of its own: at least as many batches as cores.
        budget = min(budget, _CORE_TOKENS, -(-sum(one.tokens_count for one in asked) // torch.get_num_threads()))
    return model.compute(tokens, batch_tokens=max(1, budget))[1]


def _predictions(model: Any, asked: Asked, shares: Any) -> list[dict[str, Any]]:
    from emotion_lightning.evaluation import thresholds

    labels, cuts = model.metadata.labels, model.metadata.threshold_tensor()
    if isinstance(asked.thresholds, Mapping):
        for name, value in asked.thresholds.items():
            cuts[labels.index(name)] = value
    elif asked.thresholds is not None:
        cuts[:] = asked.thresholds
    decided = thresholds.decide(shares, cuts).tolist()
    explained: list[Any] = [None] * len(asked.texts)
    if asked.explain:
        # The predicted labels; of a text without any, the most probable one.
        wanted = [
            [name for name, yes in zip(labels, chosen, strict=True) if yes] or [labels[int(own.argmax())]]
            for chosen, own in zip(decided, shares, strict=True)
        ]
        explained = words.explain(model, asked.texts, wanted)
    return [
        {
            "labels": [name for name, yes in zip(labels, chosen, strict=True) if yes],
            "probabilities": dict(zip(labels, own, strict=True)),
            "words": spoke,
        }
        for own, chosen, spoke in zip(shares.tolist(), decided, explained, strict=True)
    ]


def _refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, UserError):
        return Refused(422, first_line(error))
    return _MISTAKE
