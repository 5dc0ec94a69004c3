"""A fork server: a process imports the libraries once and forks for each command, which then starts at once.

Importing torch, Lightning, Transformers and PEFT takes longer than many trainings on a small dataset. A forked process
has them already. Otherwise it is an independent process: it has its own exit code, output, environment and signals, and
a crash does not affect other processes.

Python's own fork server (multiprocessing) is made for functions. It ends a process without running atexit handlers, in
which W&B closes its run; it runs the caller's main module again; and the processes that it forks keep it alive after
its owner was killed.

The server forks only on Linux: on macOS, system libraries start threads, which a fork loses. A fresh process is started
instead whenever a forked one could behave differently: the environment differs from the one in which the libraries were
imported, a library has started a thread or used a GPU, or the server cannot start.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion_lightning.runs import processes

_CALM_THREADS = {"jemalloc_bg_thd"}
"""Threads that are safe because their library restarts them after a fork: pyarrow's memory allocator."""


class Server:
    """Starts commands as `python -m` does. The process that forks is started with the first command.

    Args:
        libraries: names of the modules to import.
        read_late: returns True for an environment variable that no library reads during its import; a forked command
            may then have another value.
        environment: environment in which the libraries are imported; None: that of this process at the first command.
        forks: False starts all commands as fresh processes, for comparison.
    """

    def __init__(
        self,
        libraries: Sequence[str],
        *,
        read_late: Callable[[str], bool] = lambda name: False,
        environment: Mapping[str, str] | None = None,
        forks: bool = True,
    ) -> None:
        self._environment = environment
        self._libraries = libraries
        self._read_late = read_late
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded_with: dict[str, str] = {}
        self._is_possible = forks and sys.platform == "linux"
        self._has_started = False

    def start(
        self,
        line: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        new_session: bool = False,
    ) -> "Process | subprocess.Popen[bytes]":
        """Start a module with its arguments.

        Args:
            line: the module and its arguments.
            stdin: file descriptor of the standard input.
            stdout: file descriptor of the standard output.
            stderr: file descriptor of the standard error.
            environment: all environment variables of the command; None: those of this process.
            folder: working directory; None: that of this process.
            new_session: whether the command gets its own session, which the terminal's Ctrl-C does not reach. Otherwise
                it joins the process group of this process.

        Returns:
            A forked or a fresh process; both have the methods that `Process` documents.
        """
        given = dict(os.environ if environment is None else environment)
        place = Path.cwd() if folder is None else folder
        if self._is_possible:
            self._ensure()
            names = {name for name in given | self._loaded_with if given.get(name) != self._loaded_with.get(name)}
            request = {
                "line": list(line),
                "environment": given,
                "folder": str(place),
                "group": None if new_session else os.getpgrp(),
                "read_early": [name for name in names if not self._read_late(name)],
            }
            if (process := self._ask(request, [stdin, stdout, stderr])) is not None:
                return process
        return subprocess.Popen(
            [sys.executable, "-m", *line],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=given,
            cwd=place,
            start_new_session=new_session,
            preexec_fn=processes.end_with_parent(),
        )

    def _ensure(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._loaded_with = dict(os.environ if self._environment is None else self._environment)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "emotion_lightning.tuning.fork_server", *self._libraries],
                stdin=theirs.fileno(),
                env=self._loaded_with,
                # Output during the import belongs to no command.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,  # a new group in the same session: forked processes can still join the owner's group
            )

    def _ask(self, request: dict[str, Any], streams: list[int]) -> "Process | None":
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"start"], [theirs.fileno(), *streams])
                process = Process(ours)
                theirs.close()
                ours.sendall(json.dumps(request).encode() + b"\n")
                process.wait_for_start()
            except (OSError, EOFError):
                ours.close()
                # If the first start fails, do not try again: the imports would cost their time with every command.
                self._is_possible = self._has_started
                return None
        self._has_started = True
        return process

    def close(self) -> None:
        """End the process that forks; running commands get SIGTERM."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.wait()
        self._control = self._process = None

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Process:
    """A started command, with the methods of subprocess.Popen that do not concern streams.

    Attributes:
        pid: process id.
        is_forked: whether the process was forked with the libraries loaded; False if it was started fresh.
        returncode: exit code; None until the end of the process is known.
    """

    def __init__(self, report: socket.socket) -> None:
        self.pid = 0
        self.is_forked = False
        self.returncode: int | None = None
        self._report = report
        self._read = b""

    def wait_for_start(self) -> None:
        """Wait until the process is forked; at the first command this includes the imports.

        Raises:
            EOFError: the server cannot fork.
        """
        while not self.pid:
            self._receive()
            if self.returncode is not None:
                raise EOFError

    def poll(self) -> int | None:
        """Return the exit code, or None if the process is running."""
        while self.returncode is None and select.select([self._report], [], [], 0)[0]:
            self._look()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs after `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            seconds = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._report], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._look()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:  # the pid is not reused before this process has read the exit code
            os.kill(self.pid, number)

    def _look(self) -> None:
        try:
            self._receive()
        except (EOFError, ConnectionError):
            # The server was killed, for example because memory ran out. The exit code is lost.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._end(-signal.SIGKILL)

    def _receive(self) -> None:
        found = self._report.recv(1024)
        if not found:
            raise EOFError
        *lines, self._read = (self._read + found).split(b"\n")
        for line in lines:
            word, number = line.split()
            if word == b"ended":
                self._end(int(number))
            else:
                self.pid, self.is_forked = int(number), word == b"forked"

    def _end(self, code: int) -> None:
        self.returncode = code
        self._report.close()  # the server then reaps the process, and its pid can be reused


# ----------------------------------------------------------------------------------------------------- server process


def main() -> None:
    """Import the modules named in sys.argv and fork for each request; a forked process then runs its command."""
    module = _Forks(sys.argv[1:]).serve()
    runpy._run_module_as_main(module)  # type: ignore[attr-defined] # what `python -m` calls


class _Forks:
    """The process that forks: it imports the libraries, starts the commands and reports their ends.

    Args:
        libraries: names of the modules to import.
    """

    def __init__(self, libraries: Sequence[str]) -> None:
        self.control = socket.socket(fileno=os.dup(0))
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        # Ignore these signals: the server ends when its owner does, and a command would get such a signal twice.
        self.handlers: dict[int, Any] = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
        self.finds_in_folder = sys.path[:1] == [os.getcwd()]
        self.set_by_libraries = _load(libraries)
        self.is_fit = _has_no_threads()
        self.handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        self.woken, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        self.commands: dict[int, socket.socket | None] = {}
        """Commands that are not reaped yet: the socket for their exit code by pid; None if the owner has closed it."""
        self.reported: set[int] = set()
        """Commands whose exit code was sent."""
        gc.collect()
        gc.freeze()  # otherwise a garbage collection in a forked process would copy the memory of all loaded modules

    def serve(self) -> str:
        """Handle requests forever. Returns only in a forked process, with the name of the module to run."""
        while True:
            reports = {report: pid for pid, report in self.commands.items() if report is not None}
            waited: list[Any] = [self.control, self.woken, *reports]
            ready, _, _ = select.select(waited, [], [])
            if self.woken in ready:
                os.read(self.woken, 1024)
                self._report_ended()
            for report in ready:
                if report in reports:
                    self._forget(reports[report], report)
            if self.control in ready and (module := self._answer()) is not None:
                return module

    def _report_ended(self) -> None:
        """Send the exit code of each command that has ended; reap those whose owner does not wait for it."""
        for pid, report in list(self.commands.items()):
            if report is None:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self.commands[pid]
            elif pid not in self.reported and (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                self.reported.add(pid)
                code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                with contextlib.suppress(OSError):
                    report.sendall(b"ended %d\n" % code)

    def _forget(self, pid: int, report: socket.socket) -> None:
        """Reap a command whose owner has closed its socket, since it has read the exit code; end it if it still runs.

        Only now, so that its pid was not reused before.
        """
        report.close()
        if pid in self.reported:
            self.reported.remove(pid)
            os.waitpid(pid, 0)
            del self.commands[pid]
        else:
            os.kill(pid, signal.SIGTERM)
            self.commands[pid] = None

    def _answer(self) -> str | None:
        """Read a request and fork; returns None here, and in the forked process the name of the module to run."""
        message, streams, _, _ = socket.recv_fds(self.control, 16, 4)
        for stream in streams:
            os.set_inheritable(stream, False)  # recv_fds (Python 3.11) takes flags and ignores them
        if not message:
            # Running commands now get SIGTERM from the kernel (prctl). A second one could interrupt their end.
            os._exit(0)  # skip the libraries' atexit handlers: nothing was started
        report = socket.socket(fileno=streams[0])
        with report.makefile("rb") as opened:
            request = json.loads(opened.readline() or "null")
        owner = os.getpid()
        try:
            pid = -1 if request is None else os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            self._leave()
            return _become(
                request, report, streams[1:], owner, self.set_by_libraries, self.is_fit, self.finds_in_folder
            )
        for stream in streams[1:]:
            os.close(stream)
        if pid < 0:
            report.close()
        else:
            self.commands[pid] = report
        return None

    def _leave(self) -> None:
        """In a forked process, undo what only the server needs."""
        signal.set_wakeup_fd(-1)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for other in [self.control, *(other for other in self.commands.values() if other is not None)]:
            other.close()
        os.close(self.woken)
        os.close(self.wake)


def _load(libraries: Sequence[str]) -> dict[str, tuple[str | None, str]]:
    """Import the libraries; return the environment variables that they set, with the values before and after."""
    before = dict(os.environ)
    # Lightning adds a handler to its loggers if the root logger has none; in a command the root logger has one.
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    for name in libraries:
        importlib.import_module(name)
    logging.getLogger().removeHandler(handler)
    return {name: (before.get(name), value) for name, value in os.environ.items() if before.get(name) != value}


def _has_no_threads() -> bool:
    """Return whether this process has no thread that a fork would lose; a fork copies only the calling thread."""
    # Fork once first: OpenBLAS (NumPy, SciPy) stops its threads before a fork and restarts them when needed.
    probe = os.fork()
    if probe == 0:
        os._exit(0)
    os.waitpid(probe, 0)
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return threading.active_count() == 1 and sum(name not in _CALM_THREADS for name in names) == 1


def _become(
    request: dict[str, Any],
    report: socket.socket,
    streams: Sequence[int],
    owner: int,
    set_by_libraries: dict[str, tuple[str | None, str]],
    is_fit: bool,
    finds_in_folder: bool,
) -> str:
    """Set up this forked process as requested and return the name of the module to run.

    If a forked process could behave differently, it is replaced by a fresh one and this function does not return.
    """
    if request["group"] is None:
        os.setsid()
    else:
        os.setpgid(0, request["group"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    ctypes.CDLL(None).prctl(processes.SET_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != owner:
        os._exit(1)
    module, *arguments = request["line"]
    environment: dict[str, str] = request["environment"]
    # Compare with os.environ, where the libraries have set variables: the owner may have imported them too.
    differs = any(environment.get(name) != os.environ.get(name) for name in request["read_early"])
    if differs or not is_fit or _touched_gpu():
        report.sendall(b"fresh %d\n" % os.getpid())
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
    for name, (before, after) in set_by_libraries.items():
        if environment.get(name) == before:
            environment[name] = after
    os.environ.clear()
    os.environ.update(environment)
    if finds_in_folder:
        sys.path[0] = os.getcwd()
        importlib.invalidate_caches()
    sys.argv = ["-m", *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    sys.modules["__main__"] = types.ModuleType("__main__")
    _reopen_streams()
    # Python reseeds its generator after a fork. NumPy and torch do not, so all commands would draw the same numbers.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    report.sendall(b"forked %d\n" % os.getpid())
    report.close()
    return str(module)


def _reopen_streams() -> None:
    """Open standard input, output and error anew, as Python does at its start.

    A stream remembers whether its file can be positioned. The server's is /dev/null, which can; a pipe cannot, and
    `reconfigure` of the old stream would raise an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        if not isinstance(old, io.TextIOWrapper):
            continue
        # With PYTHONUNBUFFERED there is no buffer below the stream of characters.
        buffering = 0 if old.write_through else -1
        binary: Any = open(number, f"{old.mode}b", buffering, closefd=False)  # noqa: SIM115 (it stays open to the end)
        getattr(binary, "raw", binary).name = f"<{name}>"
        stream = io.TextIOWrapper(
            binary,
            encoding=old.encoding,
            errors=old.errors,
            newline="\n",
            line_buffering=binary.isatty() if name == "stdout" else old.line_buffering,
            write_through=old.write_through,
        )
        stream.mode = old.mode  # type: ignore[misc] # as Python's own streams have it
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _touched_gpu() -> bool:
    """Return whether CUDA cannot work in this process because it was initialized before the fork."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda._is_in_bad_fork())


if __name__ == "__main__":
    main()
