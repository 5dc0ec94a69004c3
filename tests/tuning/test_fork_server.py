"""A forked command is what a fresh process is, and where it would not be, it is a fresh process."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import warm
from helpers.servers import PATIENCE

from emotion_lightning.tuning import fork_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all commands are fresh processes")

Both = Callable[..., list[subprocess.CompletedProcess[str]]]


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Run a program as a module, in a fresh process and in a forked one; how each ended."""

    def run(program: str, *arguments: str, **options: Any) -> list[subprocess.CompletedProcess[str]]:
        (tmp_path / "program.py").write_text(textwrap.dedent(program))
        # Not None, which gives subprocess also the variables that C code set and os.environ lacks.
        options = {
            "env": os.environ | warm.ONE_THREAD,
            "cwd": tmp_path,
            "capture_output": True,
            "text": True,
            "timeout": PATIENCE,
            **options,
        }
        line = [sys.executable, "-m", "program", *arguments]
        return [subprocess.run(line, check=False, **options), warm.run(line, **options)]

    return run


STATE = """
    import json, os, random, signal, sys, tempfile, threading, uuid, warnings
    import __main__
    print(json.dumps({
        "argv": sys.argv, "orig_argv": sys.orig_argv, "name": __name__, "spec": __spec__.name, "file": __main__.__file__,
        "names": sorted({*vars(__main__)} - {"__annotations__"}), "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
        "input": sys.stdin.read(), "group": os.getpgrp() if len(sys.argv) < 4 else os.getpgrp() == os.getpid(),
        "session": os.getsid(0) == os.getpid(), "threads": threading.active_count(), "mask": os.umask(0),
        "handlers": {str(n): str(signal.getsignal(n)).split(" at ")[0] for n in signal.valid_signals()},
        "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "streams": [[s.encoding, s.errors, s.line_buffering, s.isatty()] for s in (sys.stdin, sys.stdout, sys.stderr)],
        "files": sorted(os.listdir("/proc/self/fd"))[:-1], "temporary": tempfile.gettempdir(), "gc": __import__("gc").get_threshold(),
    }))
"""  # noqa: E501


@pytest.mark.parametrize("leads", [False, True])
@pytest.mark.parametrize("variable", ["EMOTION_LIGHTNING_X", "READ_EARLY"])
def test_a_command_sees_what_a_fresh_process_sees(
    both: Both, monkeypatch: pytest.MonkeyPatch, leads: bool, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")  # of the second kind it is a fresh process after all
    arguments = ["a=b c", "ü\n", *["leads"] * leads]
    fresh, forked = both(STATE, *arguments, input="typed\n", start_new_session=leads)
    assert fresh.stderr == forked.stderr == ""
    one, other = json.loads(fresh.stdout), json.loads(forked.stdout)
    # What libraries set while they are imported is set from the start.
    assert one.pop("environment").items() <= other.pop("environment").items()
    assert one == other
    assert other["input"] == "typed\n" and other["spec"] == "program"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_its_streams_can_be_reconfigured(tmp_path: Path, unbuffered: str) -> None:
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "for stream in (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__):\n"
        "    stream.reconfigure(errors='backslashreplace')\n"
        "    print(stream.name, stream.mode, stream.write_through, stream.line_buffering, stream.seekable())\n"
    )
    line = [sys.executable, "-m", "program"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    pipes: dict[str, Any] = {"cwd": tmp_path, "env": environment, "stdin": -1, "stdout": -1, "stderr": -1, "text": True}
    fresh, forked = subprocess.Popen(line, **pipes), warm.Popen(line, **pipes)
    assert fresh.communicate() == forked.communicate()
    assert fresh.returncode == forked.returncode == 0


def test_its_environment_is_replaced_whole(both: Both) -> None:
    given = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"} | {"STAND_IN_X": "2"}
    program = "import os; print(os.environ.get('WANDB_MODE'), os.system('test $STAND_IN_X = 2'))"
    fresh, forked = both(program, env=given)
    assert fresh.stdout == forked.stdout == "None 0\n"


ENDS = {
    "it returns": ("print('done')", 0),
    "sys.exit": ("import sys; sys.exit(3)", 3),
    "a text": ("import sys; sys.exit('no such thing')", 1),
    "an error": ("def f(): raise ValueError('broken')\nprint('before'); f()", 1),
    "a syntax error": ("def f(:", 1),
    "killed": ("import os; os.kill(os.getpid(), 9)", -9),
    "aborted": ("import os; os.abort()", -6),
    "Ctrl-C": ("import os; os.kill(os.getpid(), 2); import time; time.sleep(9)", -2),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15); import time; time.sleep(9)", -15),
    "at once": ("import os; print('lost', end=''); os._exit(7)", 7),
    "a closed pipe": ("import os, sys; os.close(1); print('x')", None),
    "handlers": (
        "import atexit, logging, sys, threading, time\n"
        "from logging.handlers import MemoryHandler\n"
        "logging.getLogger().addHandler(MemoryHandler(9, target=logging.StreamHandler(sys.stdout)))\n"
        "logging.getLogger().warning('logged')\n"
        "atexit.register(print, 'at the end')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('of a thread'))).start()\n"
        "class Last:\n    def __del__(self): sys.stderr.write('let go\\n')\n"
        "last = Last()\nprint('main ends', end=' ')\nsys.exit(5)",
        5,
    ),
    "processes": (
        "import multiprocessing, sys\n"
        "def work(n): print('of', n, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    for way in ('fork', 'spawn', 'forkserver'):\n"
        "        p = multiprocessing.get_context(way).Process(target=work, args=(way,)); p.start(); p.join()\n"
        "    sys.exit(p.exitcode)",
        0,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_it_ends_as_a_fresh_process_does(both: Both, name: str) -> None:
    program, code = ENDS[name]
    fresh, forked = both(program)
    assert fresh.returncode == forked.returncode, forked.stderr
    assert code is None or forked.returncode == code
    assert fresh.stdout == forked.stdout
    # The way from the process that forks to the program stands above it in a traceback.
    assert fresh.stderr.splitlines()[-3:] == forked.stderr.splitlines()[-3:]


def test_a_module_that_is_not_there_ends_as_with_python(tmp_path: Path) -> None:
    done = warm.run(["emotion_lightning.trian"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{sys.executable}: No module named emotion_lightning.trian\n")
    with pytest.raises(FileNotFoundError):
        warm.run(["emotion_lightning.train"], cwd=tmp_path / "none")


LOADED = """
    import json, logging, os, sys, warnings
    logging.basicConfig(filename="log.txt", force=True)
    before = set(sys.modules)
    import lightning, transformers, peft, bitsandbytes, datasets, matplotlib, sklearn, wandb, torch, numpy, random
    names = ["", "lightning", "lightning.pytorch", "lightning.fabric", "transformers", "datasets", "matplotlib", "wandb"]
    loggers = {n: [logging.getLogger(n).level, logging.getLogger(n).propagate,
                   [type(h).__name__ for h in logging.getLogger(n).handlers]] for n in names}
    print(loggers)
    print(sorted(set(map(str, warnings.filters))))
    print(json.dumps(dict(os.environ)))
    print(torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
    lightning.seed_everything(3, verbose=False)
    x = torch.randn(400, 400); print((x @ x).sum().item(), (x.numpy() @ x.numpy()).sum(), numpy.random.rand(), random.random())
    print(torch.cuda.is_available(), torch.cuda._is_in_bad_fork(), matplotlib.get_backend())
"""  # noqa: E501


@pytest.mark.slow
def test_the_libraries_are_as_a_fresh_process_has_them(both: Both) -> None:
    fresh, forked = both(LOADED)
    assert fresh.returncode == 0, fresh.stderr
    lines = [done.stdout.splitlines() for done in (fresh, forked)]
    environments = [json.loads(raised.pop(2)) for raised in lines]
    assert environments[0] == environments[1]
    assert lines[0] == lines[1]


def test_no_two_commands_draw_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import numpy, random, uuid; print(numpy.random.rand(), random.random(), uuid.uuid4())"
    )
    drawn = [warm.run(["program"], cwd=tmp_path, capture_output=True, text=True).stdout.split() for _ in range(2)]
    assert all(one != other for one, other in zip(*drawn, strict=True))


def test_variables_that_libraries_read_early_hold(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import torch, huggingface_hub.constants as h; print(torch.get_num_threads(), h.ENDPOINT)"
    )
    # Not that of this process, in which libraries of other tests may have set variables.
    with warm.Popen(["program"], cwd=tmp_path, stdout=warm.PIPE, text=True, env=warm.ENVIRONMENT) as usual:
        assert usual.is_forked and usual.communicate()[0].split()[1] == "https://huggingface.co"
    changed = {**warm.ENVIRONMENT, "OMP_NUM_THREADS": "2", "HF_ENDPOINT": "http://localhost:1"}
    with warm.Popen(["program"], cwd=tmp_path, stdout=warm.PIPE, text=True, env=changed) as other:
        assert other.communicate()[0] == "2 http://localhost:1\n"
        assert not other.is_forked


def test_a_command_is_signalled_waited_for_and_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    line = [sys.executable, "-m", "program"]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, -2), (signal.SIGKILL, -9)):
        with warm.Popen(line, cwd=tmp_path, stdout=warm.PIPE, stderr=warm.DEVNULL, text=True) as process:
            assert process.stdout.readline() == "ready\n" and process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
            process.send_signal(number)
            assert process.wait(PATIENCE) == process.poll() == process.returncode == code
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        warm.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=1.5)
    assert raised.value.stdout == "ready\n" and time.monotonic() - began < 300


# ------------------------------------------------------------------------------------------------------ when things die


@pytest.fixture
def server() -> Iterator[fork_server.Server]:
    with fork_server.Server(["json"]) as started:
        yield started


def start(server: fork_server.Server, folder: Path, program: str) -> Any:
    (folder / "program.py").write_text(program)
    with (folder / "out.txt").open("w") as out, open(os.devnull) as none:
        return server.start(["program"], stdin=none.fileno(), stdout=out.fileno(), stderr=out.fileno(), folder=folder)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


SLOW = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
print("ready", flush=True)
time.sleep(600)
"""


def test_a_variable_that_a_library_has_set_in_the_owner_too_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "sets_it.py").write_text("import os\nos.environ['SET_BY_LIBRARY'] = '1'")
    loaded_with = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with fork_server.Server(["sets_it"], environment=loaded_with) as server, open(os.devnull) as none:
        for value, is_forked in (("1", True), ("2", False)):
            process = server.start(
                ["json.tool", "--help"], stdin=none.fileno(), stdout=2, stderr=2,
                environment={**loaded_with, "SET_BY_LIBRARY": value},
            )  # fmt: skip
            assert process.wait(PATIENCE) == 0
            assert isinstance(process, fork_server.Process) and process.is_forked == is_forked


def test_several_run_at_a_time(server: fork_server.Server, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    slow, quick = start(server, tmp_path / "a", SLOW), start(server, tmp_path / "b", "raise SystemExit(4)")
    assert quick.wait(PATIENCE) == 4 and slow.poll() is None
    assert slow.is_forked and quick.is_forked and slow.pid != quick.pid
    slow.send_signal(signal.SIGKILL)
    assert slow.wait(PATIENCE) == -9


def test_a_killed_server_takes_its_commands_along_and_another_comes(server: fork_server.Server, tmp_path: Path) -> None:
    lost = start(server, tmp_path, SLOW)
    until(lambda: "ready" in (tmp_path / "out.txt").read_text())
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGKILL)
    assert lost.wait(PATIENCE) == -9
    until(lambda: not is_alive(lost.pid))
    assert (new := start(server, tmp_path, "raise SystemExit(4)")).wait(PATIENCE) == 4
    assert new.is_forked


def test_a_library_that_cannot_be_loaded_costs_no_command(tmp_path: Path) -> None:
    with fork_server.Server(["no_such_library"]) as server:
        for _ in range(2):
            process = start(server, tmp_path, "raise SystemExit(4)")
            assert isinstance(process, subprocess.Popen) and process.wait(PATIENCE) == 4


@pytest.mark.parametrize("broken", ["import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
                                    "import sys, types\nsys.modules['torch'] = torch = types.ModuleType('torch')\n"
                                    "torch.cuda = types.SimpleNamespace(_is_in_bad_fork=lambda: True)"])  # fmt: skip
def test_a_library_that_a_fork_would_break_makes_commands_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    (tmp_path / "breaks_forks.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with fork_server.Server(["breaks_forks"]) as server:
        process = start(server, tmp_path, "import sys; sys.exit(4 if 'breaks_forks' not in sys.modules else 5)")
        assert process.wait(PATIENCE) == 4 and isinstance(process, fork_server.Process) and not process.is_forked


def test_a_killed_owner_takes_all_along(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SLOW)
    owner = (
        "import sys, time\nfrom pathlib import Path\nfrom emotion_lightning.tuning import fork_server\n"
        "server = fork_server.Server([])\nout = open('out.txt', 'w')\n"
        "p = server.start(['program'], stdin=0, stdout=out.fileno(), stderr=out.fileno(), new_session=True)\n"
        "print(p.pid, server._process.pid, flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", owner], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    until(lambda: "ready" in (tmp_path / "out.txt").read_text())
    process.kill()
    process.communicate()
    until(lambda: not any(is_alive(pid) for pid in pids))
    assert "stopped" in (tmp_path / "out.txt").read_text()
