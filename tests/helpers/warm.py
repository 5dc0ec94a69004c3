"""Commands of tests without the seconds of their imports: each is forked from a process that has the libraries.

`run` and `Popen` stand for those of subprocess, for a command `python -m MODULE …`. A test that is about the start
itself (what is imported when, what the first line says) needs a fresh process: subprocess as it is.
"""

import atexit
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion_lightning.tuning import fork_server, trial

LIBRARIES = (*trial.LIBRARIES, "transformers.models.bert.modeling_bert", "emotion_lightning.inference.predictor")
PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
_READ_LATE = re.compile(
    "PYTEST_CURRENT_TEST|EMOTION_LIGHTNING_.*|HYDRA_FULL_ERROR|STAND_IN_.*"
    "|WANDB_(MODE|API_KEY|BASE_URL|SWEEP_ID|RUN_ID|DIR)"
    "|SLURM_.*|PL_.*|COLUMNS|CUDA_VISIBLE_DEVICES|TOKENIZERS_PARALLELISM|MLFLOW_.*"
)
"""Variables that no library reads while it is imported. A command with others of its own runs in a fresh process."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Of commands that do not say how many: several of them would fight for the cores."""
ENVIRONMENT = dict(os.environ)
"""Without what libraries have set since in the process of the tests."""

server = fork_server.Server(
    LIBRARIES,
    read_late=lambda name: bool(_READ_LATE.fullmatch(name)),
    environment=ENVIRONMENT | ONE_THREAD,
)
"""That of this worker of pytest; it starts with the first command."""
without_us = fork_server.Server(
    ("torch", "transformers.models.bert.modeling_bert", "transformers.models.gemma.modeling_gemma", "peft"),
    read_late=lambda name: bool(_READ_LATE.fullmatch(name)),
    environment=ENVIRONMENT | ONE_THREAD,
)
"""For code that is to run without emotion_lightning: libraries only, as nobody has patched them."""
atexit.register(server.close)
atexit.register(without_us.close)


class Popen:
    """A command that runs, as subprocess.Popen has it.

    Args:
        line: the module and its arguments, or what subprocess takes: [sys.executable, "-m", module, …].
        stdin: as of subprocess; so are the rest.
        stdout: see there.
        stderr: see there.
        cwd: see there.
        env: see there.
        text: see there.
        start_new_session: see there.
        by: the server that forks it.
    """

    def __init__(
        self,
        line: Sequence[str],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = False,
        start_new_session: bool = False,
        by: fork_server.Server = server,
    ) -> None:
        self.args = list(line)
        self.stdin: Any = None
        self.stdout: Any = None
        self.stderr: Any = None
        theirs: list[int] = []
        streams = []
        for number, (name, asked) in enumerate([("stdin", stdin), ("stdout", stdout), ("stderr", stderr)]):
            if asked is None:
                streams.append(number)
            elif asked == STDOUT and name == "stderr":
                streams.append(streams[1])
            elif asked == DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
                streams.append(theirs[-1])
            elif asked == PIPE:
                read, write = os.pipe()
                kept, given = (write, read) if name == "stdin" else (read, write)
                mode = ("w" if name == "stdin" else "r") + ("" if text else "b")
                opened = open(kept, mode, buffering=0 if mode == "wb" else -1)  # noqa: SIM115 (closed by the caller)
                setattr(self, name, opened)
                theirs.append(given)
                streams.append(given)
            else:
                streams.append(asked if isinstance(asked, int) else asked.fileno())
        try:
            self._process = by.start(
                line[2:] if list(line[:2]) == [sys.executable, "-m"] else line,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                environment=ONE_THREAD | dict(os.environ if env is None else env),
                folder=None if cwd is None else Path(cwd).absolute(),
                new_session=start_new_session,
            )
        except BaseException:
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None:
                    stream.close()
            raise
        finally:
            for stream in theirs:
                os.close(stream)
        self.pid = self._process.pid
        self.poll, self.send_signal = self._process.poll, self._process.send_signal

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def is_forked(self) -> bool:
        """Whether it had the libraries from the start."""
        return isinstance(self._process, fork_server.Process) and self._process.is_forked

    def wait(self, timeout: float | None = None) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise subprocess.TimeoutExpired(self.args, error.timeout) from None

    def terminate(self) -> None:
        self.send_signal(15)

    def kill(self) -> None:
        self.send_signal(9)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """All of both outputs, after the end. After TimeoutExpired it may be asked again."""
        if not hasattr(self, "_readers"):
            self._found: dict[str, Any] = {}
            self._readers = [
                threading.Thread(target=self._take, args=(name, stream), daemon=True)
                for name, stream in (("stdout", self.stdout), ("stderr", self.stderr))
                if stream is not None
            ]
            for reader in self._readers:
                reader.start()
            if self.stdin is not None:
                try:
                    with self.stdin:
                        if input:
                            self.stdin.write(input)
                except BrokenPipeError:
                    pass
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._found.get("stdout"), self._found.get("stderr")

    def _take(self, name: str, stream: Any) -> None:
        with stream:
            self._found[name] = stream.read()

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *_: Any) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def run(
    line: Sequence[str],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end, as subprocess.run does; files take what it says, so that no pipe fills."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if input is not None:
            stdin.write(input.encode() if text else input)
            stdin.seek(0)
            options["stdin"] = stdin
        asked = {"stdout": PIPE, "stderr": PIPE} if capture_output else {}
        asked |= {name: options.pop(name) for name in ("stdout", "stderr") if name in options}
        files = {name: file for name, file in (("stdout", out), ("stderr", err)) if asked.get(name) == PIPE}
        process = Popen(line, **(asked | files), **options)

        def said(name: str) -> Any:
            if name not in files:
                return None
            files[name].seek(0)
            content = files[name].read()
            return content.decode().replace("\r\n", "\n") if text else content

        try:
            code = process.wait(timeout)
        except BaseException as error:
            process.kill()
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                error.stdout, error.stderr = said("stdout"), said("stderr")
            raise
        done = subprocess.CompletedProcess(process.args, code, said("stdout"), said("stderr"))
    if check:
        done.check_returncode()
    return done
