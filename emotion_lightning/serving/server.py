"""Start and end of the server: processes of LitServe that compute, and uvicorn with the application before them.

LitServe's own HTTP server is not used: it allows few addresses, refuses connections instead of requests when it stops,
and has no place for the rest of what is in `gate`. See docs/decisions/litserve.md.
"""

import asyncio
import logging
import multiprocessing
import os
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import litserve
import uvicorn
from fastapi import FastAPI
from litserve.connector import check_cuda_with_nvidia_smi
from litserve.utils import LitAPIStatus, ResponseBufferItem, WorkerSetupStatus, wrap_litserve_start
from starlette.exceptions import HTTPException

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.runs import environment
from emotion_lightning.serving.application import PATHS, application
from emotion_lightning.serving.gate import Gate, with_origins
from emotion_lightning.serving.metrics import Metrics
from emotion_lightning.serving.worker import Answering, Classifier, TokenBatches

log = logging.getLogger(__name__)

TOKEN = "EMOTION_LIGHTNING_TOKEN"
"""Environment variable with the bearer token."""


def run(settings: config.Serve) -> None:
    """Answer until a signal comes.

    Args:
        settings: of the command.

    Raises:
        UserError: the address or the run cannot be used, or the token is none.
        Stopped: a signal came, and what was begun is answered.
    """
    token = _token()
    with _listening(settings.serve) as listener, _workers(settings) as (server, facts):
        own, buffer = settings.serve, server.response_buffer
        counted = Metrics(PATHS, lambda: len(buffer))

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            app.response_queue_id = 0  # type: ignore[attr-defined] # LitServe's number of this receiver of answers
            async with server.lifespan(app):
                yield

        app = application(
            own,
            facts=facts,
            ask=partial(_ask, server, counted, own.timeout),
            state=lambda: "stopping" if gate.closed else _state(server),
            counted=counted,
            lifespan=lifespan,
        )
        gate = Gate(app, settings=own, token=token, metrics=counted)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info(
            "Answering with %s at http://%s:%d (page), /docs and /metrics; Ctrl-C stops.", facts["model"], shown, port
        )
        if host not in ("127.0.0.1", "::1") and token is None:
            log.warning("Everybody who reaches this machine can ask: set %s to ask for a token.", TOKEN)
        _Listener(gate, own).run(sockets=[listener])


def _token() -> str | None:
    token = os.environ.get(TOKEN)
    if token is not None and (not token.isascii() or not token.isprintable() or not token or " " in token):
        raise UserError(f"{TOKEN} must be letters, digits and signs without spaces; unset it to ask for no token.")
    return token


@contextmanager
def _listening(settings: config.Server) -> Iterator[socket.socket]:
    """The socket, bound before the run is loaded, so that a wrong address is reported at once."""
    place = f"serve.host={settings.host} serve.port={settings.port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise UserError(f"{place} cannot be listened on: {reason}.") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UserError(f"{place} cannot be listened on: {error.strerror}; choose another one.") from error
        yield listener


def load_in_process(run: str | None, accelerator: str) -> Classifier:
    """Load the classifier; only there are torch and the rest imported."""
    from emotion_lightning.serving import classifier

    return classifier.load(run, accelerator)


class _Requests(dict[str, ResponseBufferItem]):
    """Requests that wait for an answer. LitServe's monitor goes through them in a thread, while others are added."""

    def items(self) -> Any:
        return list(super().items())


class _Server(litserve.LitServer):
    """LitServe's processes and queues."""

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = super()._init_manager(num_api_servers)
        self.lit_api.manager = manager._process.pid
        # LitServe 0.2.19 asks the process of the manager, and its monitor prints a traceback when that has just ended.
        self._shutdown_event = threading.Event()
        return manager


@contextmanager
def _workers(settings: config.Serve) -> Iterator[tuple[_Server, dict[str, Any]]]:
    """Start the processes, wait until all have loaded, and yield LitServe's server and what they loaded."""
    own = settings.serve
    accelerator, devices = _devices(settings)
    count = devices * own.workers
    reports = multiprocessing.get_context("spawn").Queue()
    loop = TokenBatches(wait=own.wait_ms / 1000, budget=own.batch_tokens, timeout=own.timeout)
    load = partial(load_in_process, settings.run, settings.accelerator.value)
    answering = Answering(load, sharing=count, loop=loop, reports=reports)
    for name in ("litserve", "uvicorn"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.WARNING)
    server = _Server(
        answering, accelerator=accelerator, devices=devices, workers_per_device=own.workers, timeout=False,
        restart_workers=True,
    )  # fmt: skip
    server.response_buffer = _Requests()
    with wrap_litserve_start(server):
        facts = [_next_report(server, reports) for _ in range(count)][0]
        threading.Thread(target=_log_reports, args=(reports,), daemon=True).start()
        server._start_worker_monitoring(server.manager, {})
        yield server, facts


def _devices(settings: config.Serve) -> tuple[str, int]:
    """LitServe's name and number of the devices, without importing torch here."""
    wanted = settings.accelerator
    if wanted in (config.Accelerator.auto, config.Accelerator.gpu):
        count = _gpus()
        environment.check_gpus(settings.devices, count)
        if count:
            return "cuda", settings.devices
    if settings.devices > 1:
        raise UserError(
            f"devices={settings.devices} needs as many GPUs; set serve.workers={settings.devices} for several "
            "processes on one device."
        )
    return ("mps", 1) if wanted is config.Accelerator.mps else ("cpu", 1)


def _gpus() -> int:
    try:
        return int(check_cuda_with_nvidia_smi())
    except OSError:  # such as PermissionError, of a folder on the PATH that this user may not read
        return 0


def _next_report(server: _Server, reports: Any) -> dict[str, Any]:
    """What the next process that has loaded reports.

    Raises:
        UserError: it cannot load the run, or was killed.
    """
    while True:
        try:
            kind, content, *rest = reports.get(timeout=0.2)
        except queue.Empty:
            if any(process.exitcode not in (None, 0) for process in server.inference_workers):
                _raise_report(reports)
            continue
        if kind == "failed":
            _fail(content, *rest)
        facts: dict[str, Any] = content
        return facts


def _raise_report(reports: Any) -> None:
    """Raise the error of a process that has ended, which may have come between two looks at the queue."""
    try:
        kind, content, *rest = reports.get(timeout=1)
    except queue.Empty:
        raise UserError(
            "A process was killed while it loaded the run, as the system does where memory ends. Try fewer "
            "serve.workers or a smaller run."
        ) from None
    if kind == "failed":
        _fail(content, *rest)


def _fail(message: str, traceback: str | None) -> None:
    if traceback is None:
        raise UserError(message)
    raise RuntimeError(f"A process could not load the run:\n{traceback}")


def _log_reports(reports: Any) -> None:
    """Log how processes that LitServe starts again get on."""
    while True:
        try:
            kind, content, *_ = reports.get()
        except (EOFError, OSError):
            return
        if kind == "failed":
            log.error("A process that was started again cannot load the run: %s", content)
        else:
            log.warning("A process that computes had died; another one has taken its place.")


def _state(server: _Server) -> str:
    try:
        ready = all(state == WorkerSetupStatus.READY for state in server.workers_setup_status.values())
    except (EOFError, OSError):
        ready = False
    return "ready" if ready else "loading"


async def _ask(
    server: _Server, counted: Metrics, timeout: float, asked: Mapping[str, Any], identifier: str
) -> Mapping[str, Any]:
    """Put a request into LitServe's queue and wait for its answer."""
    # A client may send the same id twice.
    uid, event = f"{identifier} {time.monotonic_ns()}", asyncio.Event()
    item = server.response_buffer[uid] = ResponseBufferItem(event=event)
    try:
        server.litapi_request_queues["/predict"].put((0, uid, time.monotonic(), dict(asked)))
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        raise HTTPException(
            504, f"There was no answer after {timeout:g} seconds; ask again with fewer texts."
        ) from None
    except (EOFError, OSError):
        raise HTTPException(
            503, "The process that holds the requests has died; the server must be started again."
        ) from None
    finally:
        server.response_buffer.pop(uid, None)
    content, status = item.response
    if status != LitAPIStatus.ERROR:
        if content["batch"] is not None:
            counted.count_batch(**content["batch"])
        answer: Mapping[str, Any] = content
        return answer
    if content is None:  # LitServe's monitor
        raise HTTPException(503, "The process that computed the answer has died; ask again.")
    raise HTTPException(*content)


class _Listener(uvicorn.Server):
    """uvicorn that answers what was begun before it stops listening, and refuses the rest with 503 until then."""

    def __init__(self, gate: Gate, settings: config.Server) -> None:
        app = with_origins(gate, settings.origins)
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        super().__init__(uvicorn.Config(app, lifespan="on", timeout_graceful_shutdown=5, **quiet))
        self._gate = gate
        self._drain = settings.drain_seconds
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Refuse further requests at the first signal; stop at the second."""
        if self._until is not None:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)  # raised again at the end, for the exit code
        self._gate.closed = True
        self._until = time.monotonic() + self._drain
        log.warning("Stopping: %d requests are being answered.", self._gate.asked)

    async def on_tick(self, counter: int) -> bool:
        """Stop when everything that was begun is answered, or its time is over."""
        over = await super().on_tick(counter)
        return over or (self._until is not None and (not self._gate.asked or time.monotonic() > self._until))
