"""The interface over HTTP: what can be asked, and the sentences of what is refused."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from emotion_lightning import config
from emotion_lightning.serving import metrics
from emotion_lightning.serving.gate import refuse
from emotion_lightning.serving.messages import Answer, Ask, Health, Info, refusals
from emotion_lightning.version import __version__

log = logging.getLogger(__name__)

PATHS = {"/", "/predict", "/health", "/live", "/info", "/metrics", "/docs", "/openapi.json"}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_DOCS_POLICY = (  # Swagger UI sets styles of its own elements
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Asked = Callable[[Mapping[str, Any], str], Awaitable[Mapping[str, Any]]]
"""Labels texts. It takes texts, thresholds and explain, and the id of the request; it returns `predictions`, and raises
HTTPException."""


def application(
    settings: config.Server,
    *,
    facts: Mapping[str, Any],
    ask: Asked,
    state: Callable[[], str],
    counted: metrics.Metrics,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """Build the application.

    Args:
        settings: limits.
        facts: what `GET /info` tells, without limits.
        ask: labels texts.
        state: returns ready, loading or stopping.
        counted: what `GET /metrics` tells.
        lifespan: what begins and ends with the application.
    """
    app = FastAPI(
        title="emotion_lightning",
        summary=f"Labels texts with: {', '.join(facts['labels'])[:500]}.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": "."}],  # relative, as a proxy may put the server under a path
    )
    bearer = HTTPBearer(auto_error=False, description="Only if the server was started with a token.")
    # The second way is to send none. `Gate` checks the token.
    secured: dict[str, Any] = {"dependencies": [Depends(bearer)], "openapi_extra": {"security": [{}]}}
    limits = {name: getattr(settings, name) for name in ("texts", "letters", "body_bytes", "explained_texts")}
    told = JSONResponse({**facts, "limits": limits}).body

    @app.post(
        "/predict",
        response_model=Answer,
        responses=refusals(400, 401, 403, 408, 413, 422, 500, 503, 504),
        **secured,
        summary="Label texts",
    )
    async def predict(asked: Ask, request: Request) -> Response:
        """Return labels and probabilities for each text, in the order of the texts."""
        _check_limits(asked, settings, explains=facts["explains"])
        if settings.log_texts:
            for number, text in enumerate(asked.texts, start=1):
                log.info("%s text %d: %r", request.state.id, number, text)
        answer = await ask(asked.model_dump(), request.state.id)
        return JSONResponse({"predictions": answer["predictions"], "model": facts["model"]})

    @app.get("/info", response_model=Info, responses=refusals(401, 403), summary="What answers", **secured)
    async def info() -> Response:
        """Return labels, thresholds, limits, the model card and versions."""
        return Response(told, media_type="application/json")

    @app.get(
        "/health",
        response_model=Health,
        responses={503: {"model": Health, "description": "It loads, or it stops."}},
        summary="Whether it answers",
    )
    def health() -> Response:  # in a thread, as the state is asked from another process
        """Return 200 if requests are answered, and 503 while the server loads again or stops: a readiness probe."""
        now = state()
        return JSONResponse({"status": now}, 200 if now == "ready" else 503)

    @app.get("/live", response_model=Health, summary="Whether it runs")
    async def live() -> Response:
        """Return 200 as long as the server runs: a liveness probe."""
        return JSONResponse({"status": "ready"})

    @app.get(
        "/metrics",
        responses={200: {"content": {"text/plain": {}}, "description": "Numbers."}, **refusals(401, 403)},
        response_class=Response,
        **secured,
        summary="Numbers for Prometheus",
    )
    async def numbers() -> Response:
        """Return requests, errors, times, batches and the queue, in the text format of Prometheus."""
        return Response(counted.text(), media_type=metrics.CONTENT_TYPE)

    _add_pages(app)
    _add_refusals(app)
    return app


def _check_limits(asked: Ask, settings: config.Server, *, explains: bool) -> None:
    most = settings.explained_texts if asked.explain else settings.texts
    if asked.explain and not explains:
        raise HTTPException(422, "This classifier cannot tell which words decided; ask without explain.")
    if len(asked.texts) > most:
        way = " with explain=true" if asked.explain else ""
        raise HTTPException(422, f"texts holds {len(asked.texts):,} texts; this server takes at most {most:,}{way}.")
    for number, text in enumerate(asked.texts, start=1):
        if len(text) > settings.letters:
            raise HTTPException(
                422, f"Text {number} has {len(text):,} characters; this server takes at most {settings.letters:,}."
            )
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # JSON can write them, UTF-8 cannot
            raise HTTPException(422, f"Text {number} holds half of a character (a lone surrogate), which is no text.")


def _add_pages(app: FastAPI) -> None:
    """Add the page, the documentation of the interface, and their files, all read now."""
    page = files("emotion_lightning.serving") / "page"
    swagger = files("fastapi_offline") / "static"
    assets = {name: page / name for name in ("page.css", "page.js", "docs.js")}
    assets |= {name: swagger / name for name in ("swagger-ui.css", "swagger-ui-bundle.js")}
    found = {name: file.read_bytes() for name, file in assets.items()}
    index, docs = (page / "index.html").read_bytes(), (page / "docs.html").read_bytes()

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(index, media_type=_KINDS["html"])

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return Response(docs, media_type=_KINDS["html"], headers={"Content-Security-Policy": _DOCS_POLICY})

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in found:
            raise HTTPException(404)
        headers = {"Cache-Control": "no-cache"}
        return Response(found[name], media_type=_KINDS[name.rpartition(".")[2]], headers=headers)


def _add_refusals(app: FastAPI) -> None:
    """Answer every error with one sentence and the id of the request, and never with what was sent."""

    @app.exception_handler(RequestValidationError)
    async def not_as_described(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Of a value that may have several types, each type reports an error; the one deepest inside fits best.
        first = max(error.errors(), key=lambda found: len(found["loc"]))
        if first["type"] == "json_invalid":
            return refuse(request.state.id, 400, 'The body is no JSON; send an object such as {"texts": ["We won!"]}.')
        return refuse(request.state.id, 422, f"{_place(first['loc'])}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentences = {
            400: "The body cannot be read as JSON in UTF-8.",
            404: "There is nothing here; GET /docs lists what is.",
            405: "This path takes other methods; GET /docs lists them.",
        }
        response = refuse(request.state.id, error.status_code, sentences.get(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return refuse(request.state.id, 500, "The server made a mistake; its log says which, under this id.")


def _place(location: Sequence[Any]) -> str:
    """Where an error is, as in `texts[2]`.

    >>> _place(("body", "texts", 2))
    'texts[2]'
    """
    parts = [part for part in location if part != "body" and not re.match(r"dict\[|constrained-", str(part))]
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{ascii(part)[1:-1]}" for part in parts)
    return shown.removeprefix(".")[:80] or "The body"
