"""Commands that start at once: a process that has loaded the libraries forks for each of them.

Importing torch, Lightning, Transformers and PEFT takes longer than many a training on a small data set. A forked
process has them from the start. In all else it is a process of its own: it has its own exit code, output, environment
and signals, and a crash ends no other.

Python's own fork server (multiprocessing) is made for functions. It ends a process without the handlers of atexit, in
which W&B closes its run; it runs the caller's main module again; and the processes that it forks keep it alive when its
owner was killed.

Only on Linux: on macOS, libraries of the system start threads, and a fork loses them. A fresh process is started
wherever a forked one would differ from it: the environment is another one than that in which the libraries were loaded,
a library has started a thread or asked for a GPU, or the server cannot start.
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

_CALM_THREADS = {"jemalloc_bg_thd"}
"""Threads of libraries that stop and start them around a fork: the memory allocator of pyarrow."""
_SET_DEATH_SIGNAL = 1
"""Of Linux's prctl."""


class Server:
    """Starts commands, as `python -m` does; the process that forks for them begins with the first.

    Args:
        libraries: modules that it imports.
        read_late: whether a variable of the environment is read by nothing while the libraries are imported, so that a
            command may have its own value.
        environment: in which the libraries are imported; None: that of this process at the first command.
        forks: False starts all commands as fresh processes, to compare with.
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
        """Start a module with its arguments; both kinds of process have the same methods.

        Args:
            line: the module and its arguments.
            stdin: its standard input, a file descriptor; so are stdout and stderr.
            stdout: its standard output.
            stderr: its standard error.
            environment: all of its variables; None: those of this process.
            folder: its working directory; None: that of this process.
            new_session: whether it leads a session of its own, which the terminal's Ctrl-C does not reach; else it
                joins the process group of this process.
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
            preexec_fn=_end_with_parent(),
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
                # What they say while they are imported would be said at no command's time.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,  # of this session, so that its processes can join the group of their owner
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
                # A library that cannot be imported would cost its time anew with each command.
                self._is_possible = self._has_started
                return None
        self._has_started = True
        return process

    def close(self) -> None:
        """End the process that forks; commands that still run get SIGTERM."""
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
    """A command that runs, with those methods of subprocess.Popen that concern no streams.

    Attributes:
        pid: its number.
        is_forked: whether it has the libraries from the start; False of a fresh process.
        returncode: None while it is not known to have ended.
    """

    def __init__(self, report: socket.socket) -> None:
        self.pid = 0
        self.is_forked = False
        self.returncode: int | None = None
        self._report = report
        self._read = b""

    def wait_for_start(self) -> None:
        """Wait for the fork, before which the libraries are imported; EOFError where there will be none."""
        while not self.pid:
            self._receive()
            if self.returncode is not None:
                raise EOFError

    def poll(self) -> int | None:
        """The exit code, or None of one that runs on."""
        while self.returncode is None and select.select([self._report], [], [], 0)[0]:
            self._look()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; subprocess.TimeoutExpired if it runs on after these seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            seconds = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._report], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._look()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:  # until its end was told, its number is kept for it
            os.kill(self.pid, number)

    def _look(self) -> None:
        try:
            self._receive()
        except (EOFError, ConnectionError):
            # The process that forks was killed, as the system does where memory ends. The exit code is lost with it.
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
        self._report.close()  # with which the number of the process becomes free


def _end_with_parent() -> Callable[[], None] | None:
    """For Linux: what a process calls at its start, to get SIGTERM when the one that started it dies."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it was killed between the two

    return ask


# ---------------------------------------------------------------------------------------------- the process that forks


def main() -> None:
    """Import the modules of the line, then fork for each request; only a forked process returns, as its command."""
    runpy._run_module_as_main(_serve(sys.argv[1:]))  # type: ignore[attr-defined] # what `python -m` calls


def _serve(libraries: Sequence[str]) -> str:
    """Fork for each request; the name of the module to run, in the process that was forked for it."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    # It ends with its owner, however that was stopped: signals that reach both would come to a command twice.
    handlers: dict[int, Any] = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    finds_in_folder = sys.path[:1] == [os.getcwd()]
    set_by_libraries = _load(libraries)
    is_fit = _has_no_threads()
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    commands: dict[int, socket.socket | None] = {}
    """Those whose end was not taken note of; None: nobody asks any more."""
    told: set[int] = set()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy the memory of everything that is loaded
    while True:
        reports = {report: pid for pid, report in commands.items() if report is not None}
        waited: list[Any] = [control, woken, *reports]
        ready, _, _ = select.select(waited, [], [])
        if woken in ready:
            os.read(woken, 1024)
            for pid, report in list(commands.items()):
                if report is None:
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        del commands[pid]
                elif pid not in told and (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                    told.add(pid)
                    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                    with contextlib.suppress(OSError):
                        report.sendall(b"ended %d\n" % code)
        for report in ready:
            if report in reports:
                # Its owner has read the exit code, or will not: until then the number was not to be given to another.
                pid = reports[report]
                report.close()
                if pid in told:
                    told.remove(pid)
                    os.waitpid(pid, 0)
                    del commands[pid]
                else:
                    os.kill(pid, signal.SIGTERM)
                    commands[pid] = None
        if control in ready:
            message, streams, _, _ = socket.recv_fds(control, 16, 4)
            for stream in streams:
                os.set_inheritable(stream, False)  # recv_fds (Python 3.11) takes flags and ignores them
            if not message:
                for pid in set(commands) - told:
                    os.kill(pid, signal.SIGTERM)
                os._exit(0)  # without what the libraries do at an end: nothing was begun
            report = socket.socket(fileno=streams[0])
            with report.makefile("rb") as opened:
                request = json.loads(opened.readline() or "null")
            owner = os.getpid()
            try:
                pid = -1 if request is None else os.fork()
            except OSError:
                pid = -1
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                for other in [control, *(other for other in commands.values() if other is not None)]:
                    other.close()
                os.close(woken)
                os.close(wake)
                return _become(request, report, streams[1:], owner, set_by_libraries, is_fit, finds_in_folder)
            for stream in streams[1:]:
                os.close(stream)
            if pid < 0:
                report.close()
            else:
                commands[pid] = report


def _load(libraries: Sequence[str]) -> dict[str, tuple[str | None, str]]:
    """Import them; the variables of the environment that they set, with the value before and after."""
    before = dict(os.environ)
    # Lightning gives its loggers a handler of their own where the program has none by now; a command has.
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    for name in libraries:
        importlib.import_module(name)
    logging.getLogger().removeHandler(handler)
    return {name: (before.get(name), value) for name, value in os.environ.items() if before.get(name) != value}


def _has_no_threads() -> bool:
    """Whether nothing is lost in a fork, which takes over the thread that calls it and no other."""
    # OpenBLAS, in NumPy and SciPy, ends its threads before a fork and starts them when they are needed.
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
    """Make this forked process what the request asks for; the name of the module to run."""
    if request["group"] is None:
        os.setsid()
    else:
        os.setpgid(0, request["group"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != owner:
        os._exit(1)
    module, *arguments = request["line"]
    environment: dict[str, str] = request["environment"]
    # What a library has set is the same where the owner has imported that library too.
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    # Python's own generator has a new seed after each fork; theirs would all draw the same numbers.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()
    report.sendall(b"forked %d\n" % os.getpid())
    report.close()
    return str(module)


def _touched_gpu() -> bool:
    """Whether CUDA refuses to work in this process, since it was asked for something before the fork."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda._is_in_bad_fork())


if __name__ == "__main__":
    main()
