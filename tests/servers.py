"""Servers of the tests' own, on loopback."""

import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(server: subprocess.Popen[Any], ask: Callable[[], Any], *, unlike: type[Exception], seconds: float) -> None:
    """Wait until a server that starts answers; an error of the type `unlike` means that it does not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except unlike:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
