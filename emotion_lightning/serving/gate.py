"""What every request passes before the application: its id, limits, token, headers, numbers and log line."""

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from emotion_lightning import config, terminal
from emotion_lightning.serving.metrics import Metrics

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN_PATHS = ("/", "/health", "/live", "/docs", "/openapi.json")
"""Paths that need no token, as `/assets/…`: they hold nothing of the run."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        settings: limits, origins and timeout.
        token: the bearer token that is needed; None: none is.
        metrics: counts requests.

    Attributes:
        busy: number of requests that are being answered.
        asked: number of requests to label texts among them.
        closed: whether new requests to label texts are refused, because the server stops.
    """

    def __init__(self, app: Any, *, settings: config.Server, token: str | None, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._token = None if token is None else token.encode()
        self._metrics = metrics
        self.busy = 0
        self.asked = 0
        self.closed = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer or refuse a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, headers = time.perf_counter(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        identifier = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["id"] = identifier
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["X-Request-ID"] = identifier
                for name, value in _HEADERS.items():
                    sent.setdefault(name, value)
            await send(message)

        path, asks = scope["path"], scope["path"] == "/predict" and scope["method"] == "POST"
        self.busy += 1
        self.asked += asks
        try:
            refusal = self._refusal(headers, path, asks)
            if refusal is None and scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                body, refusal = await self._body(headers, receive)
                receive = _given(body, receive)
            if refusal is None:
                await self._app(scope, receive, send_on)
            else:
                await refuse(identifier, *refusal)(scope, receive, send_on)
        except Exception:  # the application has answered with 500, or its client has gone
            if not status:
                raise
            log.exception("%s failed", identifier)
        finally:
            self.busy -= 1
            self.asked -= asks
            seconds = time.perf_counter() - begun
            self._metrics.count_request(path, status or 500, seconds)
            level = logging.DEBUG if path in ("/health", "/live", "/metrics") else logging.INFO
            shown = terminal.one_line(path)[:200]
            log.log(level, "%s %s %s %d %.0f ms", identifier, scope["method"], shown, status, 1000 * seconds)

    def _refusal(self, headers: Headers, path: str, asks: bool) -> tuple[int, str] | None:
        """Code and sentence for a request that is refused before its body is read; None if it is not."""
        # Browsers say so of every request from a page of another address, and proxies pass it on. A link may lead here.
        navigates = headers.get("sec-fetch-mode") == "navigate" and not asks
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigates
        if is_foreign and not {"*", headers.get("origin")} & set(self._settings.origins):
            return 403, "A page of another address asks; the server allows those that serve.origins lists."
        if self._token is not None and path not in OPEN_PATHS and not path.startswith("/assets/"):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
                return 401, "This server needs a token: send the header Authorization: Bearer TOKEN."
        if asks and self.closed:
            return 503, "The server stops; ask another one, or again later."
        if asks and self.asked > self._settings.queue:
            return 503, f"{self._settings.queue} requests wait already; ask again later."
        return None

    async def _body(self, headers: Headers, receive: Receive) -> tuple[bytes, tuple[int, str] | None]:
        limit, parts, size = self._settings.body_bytes, [], 0
        too_large = 413, f"The request is larger than {limit:,} bytes, the most that this server takes."
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced[:20]) > limit:
            return b"", too_large
        try:
            async with asyncio.timeout(self._settings.timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return b"", (400, "The connection was closed before the request was complete.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        return b"", too_large
                    more = message.get("more_body", False)
        except TimeoutError:
            return b"", (408, f"The request was not complete after {self._settings.timeout:g} seconds.")
        return b"".join(parts), None


def with_origins(app: Any, origins: Sequence[str]) -> Any:
    """Let pages of these addresses ask from a browser, also where `app` refuses."""
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
        expose_headers=["X-Request-ID", "Retry-After"],
    )


def refuse(identifier: str, code: int, sentence: str) -> JSONResponse:
    """Return the response to a request that is refused."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(code, {})
    if code in (408, 413):
        headers = {"Connection": "close"}  # the rest of the body is not read
    return JSONResponse({"error": sentence, "id": identifier}, code, headers)


def _given(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already."""
    first = True

    async def read_again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return read_again
