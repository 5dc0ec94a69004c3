"""Programs that tests start: how long they may take, and servers on loopback."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 900
"""Seconds after which a program that a test started is taken to hang: a busy machine takes many times as long."""


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


def postgresql_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, which Debian keeps off the PATH; None where there is none."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """A server with an empty database; the URL of that. What it logged is printed at its end."""
    import psycopg

    # Not in pytest's folder, which another user may not enter and whose path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="emotion_postgres_"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # the server refuses root
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    made = subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "tester", "--auth=trust", "--no-sync"],
        capture_output=True, text=True, cwd=folder, **user,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    log, port = folder / "log", free_port()
    with log.open("wb") as opened:
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-p", str(port), "-c", "listen_addresses=127.0.0.1",
             "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"],
            cwd=folder, stdout=opened, stderr=opened, start_new_session=True, **user,
        )  # fmt: skip
    where = f"host=127.0.0.1 port={port} user=tester dbname=postgres"
    try:
        answers(server, lambda: psycopg.connect(where).close(), unlike=psycopg.OperationalError, seconds=PATIENCE)
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
        assert server.poll() is None, f"the server ended with exit code {server.poll()}"
    finally:
        # The fast shutdown: clients that are left are disconnected.
        server.send_signal(signal.SIGINT)
        server.wait(60)
        print(log.read_text(errors="replace"))
        shutil.rmtree(folder)
