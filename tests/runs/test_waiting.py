"""The line that says what a command is doing before it has anything to tell."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from emotion_lightning import config
from emotion_lightning.runs import waiting

COMMANDS = list(config.COMMANDS)

MARK = """
import sys


class Mark:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            sys.stderr.write("<import " + name + ">\\n")
            {then}


sys.meta_path.insert(0, Mark())
"""
"""A sitecustomize.py, which Python runs at its start: it says in the terminal what is about to be imported."""


def at_terminal(
    folder: Path, *arguments: str, then: str = "pass", names: tuple[str, ...] = ("hydra", "torch"), columns: int = 80,
    before: int | None = None, **environment: str,
) -> tuple[str, int]:  # fmt: skip
    """What a command shows on a terminal, and its exit code.

    Imports of `names` are marked and followed by `then`; with `before`, Ctrl-C is pressed at the first of them.
    """
    # Another one may be written within this second, for which Python would take the compiled file of this one.
    environment = {"PYTHONDONTWRITEBYTECODE": "1", **environment}
    (folder / "sitecustomize.py").write_text(MARK.format(names=names, then=then))
    path = os.pathsep.join([str(folder), str(Path(waiting.__file__).parents[2])])
    main, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=inner, stdout=inner, stderr=inner, cwd=folder,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": path, **environment}, start_new_session=True,
    )  # fmt: skip
    os.close(inner)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux' way to say that nobody has it open any more
            break
        if not piece:
            break
        shown += piece
        if before is not None and b"<import" in shown:
            os.kill(process.pid, before)
            before = None
    os.close(main)
    return shown.decode(), process.wait()


def screen(shown: str) -> list[str]:
    """The lines that stand there at the end."""
    lines = [""]
    column = 0
    for sign in shown:
        if sign == "\n":
            lines.append("")
            column = 0
        elif sign == "\r":
            column = 0
        elif sign == "\b":
            column -= 1
        else:
            lines[-1] = lines[-1][:column].ljust(column) + sign + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


END_THERE = "sys.modules.get('torch') or name != 'torch' or sys.exit(7)"


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_terminal_reads_a_line_before_hydra_and_another_before_torch(tmp_path: Path, command: str) -> None:
    run = f"run={tmp_path}"
    (tmp_path / "model").mkdir()
    shown, _ = at_terminal(
        tmp_path, f"emotion_lightning.{command}", *([run] if command == "evaluate" else []), then=END_THERE
    )
    places = [shown.index(text) for text in ("Reading the settings", "<import hydra>", "PyTorch", "<import torch>")]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_something_before_it_loads_anything(tmp_path: Path, command: str) -> None:
    shown, code = at_terminal(tmp_path, f"emotion_lightning.{command}", "--help")
    assert code == 0
    assert shown.index("Reading the settings") < shown.index("<import hydra>") < shown.index("-m emotion_lightning.")
    # Nothing of it is left when the help has been printed.
    assert not any("Reading" in line for line in screen(shown))


def test_scripts_of_the_installed_package_are_its_commands() -> None:
    assert [waiting.command(["python", f"/venv/bin/emotion-{name}"]) for name in COMMANDS] == COMMANDS
    assert waiting.command(["python", "/home/me/emotion-map.py"]) is None
    assert waiting.command(["python", "/home/me/train.py"]) is None
    assert waiting.command(["python"]) is None


def test_a_pipe_and_a_file_hold_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MARK.format(names=("torch",), then="sys.exit(7)"))
    path = os.pathsep.join([str(tmp_path), str(Path(waiting.__file__).parents[2])])
    for stream in (subprocess.PIPE, (tmp_path / "log").open("w+")):
        done = subprocess.run(
            [sys.executable, "-m", "emotion_lightning.train", "logger=none"], stdout=stream, stderr=stream,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "TERM": "xterm"}, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 7
        if done.stderr is not None:
            assert (done.stdout, done.stderr) == ("", "<import torch>\n")
    assert (tmp_path / "log").read_text() == "<import torch>\n"


def test_other_processes_of_a_job_are_silent(tmp_path: Path) -> None:
    shown, _ = at_terminal(tmp_path, "emotion_lightning.train", "seed=x", LOCAL_RANK="1")
    assert "Reading the settings" not in shown and "seed" in shown


def test_a_program_that_imports_the_package_is_silent(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import emotion_lightning.config\n")
    shown, code = at_terminal(tmp_path, "mine")
    assert (shown, code) == ("", 0)


def test_errors_and_answers_stand_alone(tmp_path: Path) -> None:
    shown, code = at_terminal(tmp_path, "emotion_lightning.train", "sed=1", names=())
    assert code == 2 and "\rReading the settings" in shown
    lines = screen(shown)
    assert lines[0].startswith("Unknown setting sed") and not any("Reading" in line for line in lines)


def test_ctrl_c_while_libraries_load_leaves_nothing(tmp_path: Path) -> None:
    sleep = "import time; time.sleep(60)"
    for name, line in (("hydra", "Reading the settings"), ("torch", "PyTorch")):
        shown, code = at_terminal(tmp_path, "emotion_lightning.train", names=(name,), then=sleep, before=signal.SIGINT)
        assert line in shown and code == 130
        assert [text for text in screen(shown) if text] == [f"<import {name}>"]


def test_a_narrow_terminal_is_not_filled(tmp_path: Path) -> None:
    shown, _ = at_terminal(tmp_path, "emotion_lightning.train", then=END_THERE, columns=20)
    pieces = [piece for piece in re.split(r"[\r\n\b]", shown) if piece.startswith(("Reading", "Loading"))]
    assert len(pieces) > 1 and all(len(piece) < 20 for piece in pieces)


def test_a_dumb_terminal_reads_plain_lines(tmp_path: Path) -> None:
    for term in ("dumb", ""):
        shown, _ = at_terminal(tmp_path, "emotion_lightning.train", then=END_THERE, TERM=term)
        lines = shown.replace("\r\n", "\n").splitlines()
        assert "\r" not in shown.replace("\r\n", "") and "\b" not in shown and "\x1b" not in shown
        assert lines[0] == "Reading the settings ..."
        assert lines.count("Loading libraries, which takes some seconds ...") == 1


def test_a_library_that_is_only_looked_for_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text(
        "import importlib.util, sys\nfrom emotion_lightning.runs import waiting\n"
        "sys.orig_argv = ['python', '-m', 'emotion_lightning.train']\nwaiting.begin_status()\n"
        "importlib.util.find_spec('optuna')\nsys.stderr.write('looked\\n')\nimport peft\n"
    )
    (tmp_path / "peft.py").write_text("")
    shown, code = at_terminal(tmp_path, "looks", names=())
    assert code == 0 and "Optuna" not in shown and "PEFT" in shown


# ------------------------------------------------------------------------------------------------------- in one process


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_line(monkeypatch: pytest.MonkeyPatch) -> tuple[waiting._Line, Terminal]:
    # Not a fixture: pytest changes both streams between a test's preparation and the test.
    both = Terminal()
    monkeypatch.setattr(sys, "stderr", both)
    monkeypatch.setattr(sys, "stdout", both)
    return waiting._Line(both, overwrites=True), both


def test_log_lines_and_half_lines_are_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, both = terminal_line(monkeypatch)
    shown.show("Loading the network")
    print("a line of the log", file=sys.stderr)
    sys.stdout.write(" 30 %|###       |")  # a progress bar, which comes back to its line
    shown.show("Loading more")
    sys.stdout.write("\r100 %|##########|\n")
    shown.show("Loading the rest")
    shown.end()
    assert [text for text in screen(both.getvalue()) if text] == ["a line of the log", "100 %|##########|"]
    assert "Loading more" not in both.getvalue() and "Loading the rest" in both.getvalue()


def test_a_shorter_line_leaves_nothing_of_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, both = terminal_line(monkeypatch)
    shown.show("Loading libraries")
    shown.show("Reading")
    assert screen(both.getvalue()) == ["Reading"]
    both.write("x")
    assert screen(both.getvalue()) == ["x"]


def test_streams_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, both = terminal_line(monkeypatch)
    shown.show("Loading")
    shown.end()
    assert "write" not in vars(both)
    both.write = (own := both.write)  # type: ignore[method-assign]  # as W&B does
    shown.show("Loading")
    assert both.write is not own
    shown.end()
    assert both.write is own
