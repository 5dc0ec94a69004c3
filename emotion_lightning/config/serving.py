"""Settings of `serve`: the address, batching, limits and the log."""

from dataclasses import dataclass
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


@dataclass
class Server:
    """The program that answers over HTTP."""

    host: str
    """Address to listen on. 127.0.0.1: this machine only; 0.0.0.0: every machine that reaches this one. Traffic is
    not encrypted; put a proxy with TLS in front."""
    port: Annotated[int, Bounds(at_least=0, at_most=65535)]
    """Port to listen on. 0: a free one, which is printed."""
    workers: Annotated[int, Bounds(at_least=1)]
    """Processes for each device, each with its own copy of the network. On a CPU they share the cores."""
    wait_ms: Annotated[float, Bounds(at_least=0, at_most=10_000)]
    """Milliseconds that a request waits at most for others when nothing is computed. Requests that come while others
    are computed form the next batch anyway, so 0 costs no throughput on a CPU."""
    batch_tokens: Annotated[int, Bounds(at_least=1)]
    """Tokens that are collected for one computation. More give a GPU more work at a time, and short requests a longer
    wait beside long ones."""
    queue: Annotated[int, Bounds(at_least=1)]
    """Requests that may wait or be computed at a time. Further ones are refused with 503."""
    timeout: Annotated[float, Bounds(above=0)]
    """Seconds within which a request must have arrived (else 408) and, from then on, be answered (else 504)."""
    drain_seconds: Annotated[float, Bounds(at_least=0)]
    """Seconds that Ctrl-C or SIGTERM leaves to the requests that were begun; later ones are refused with 503."""
    texts: Annotated[int, Bounds(at_least=1)]
    """Maximum number of texts in a request; more are refused with 422."""
    letters: Annotated[int, Bounds(at_least=1)]
    """Maximum number of characters of a text; longer ones are refused with 422."""
    body_bytes: Annotated[int, Bounds(at_least=100)]
    """Maximum size of a request in bytes; larger ones are refused with 413."""
    explained_texts: Annotated[int, Bounds(at_least=1)]
    """Maximum number of texts in a request with explain=true, which takes many times as long; more are refused with
    422."""
    origins: list[str]
    """Web pages that may ask from a browser, as https://name[:port]; those of other addresses are refused. [*]: all.
    The server's own page always may."""
    log_texts: bool
    """Write the texts that were asked to the log. They may be private."""
