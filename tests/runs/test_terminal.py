"""What commands print and log, and what they leave behind when a write fails."""

import errno
import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import emotions, write_csv

from emotion_lightning import terminal
from emotion_lightning.cli import app, override_grammar
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation.explanations import Explanation, Word
from emotion_lightning.reports import console
from emotion_lightning.reports.pages import Section
from emotion_lightning.runs import run_folder
from emotion_lightning.runs.files import atomic_write, write_bytes

EVIL = "joy\x1b[2J\x07\r\x9b1m\u202e"


@pytest.fixture
def closed_pipe() -> Iterator[io.TextIOWrapper]:
    """Standard output as after `… | head -1`, once a test has set it: pytest sets its own after this fixture."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        yield stream


def goes_nowhere(stream: io.TextIOWrapper) -> bool:
    return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))


def raw(text: str) -> list[str]:
    return [c for c in text if ord(c) < 32 and c not in "\n\t" or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]


def test_tables_and_lines_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_study(Section(EVIL, columns=["a", EVIL], rows=[["1", EVIL]]))
    console.show_comparison([], [EVIL], [EVIL])
    console.show_text(EVIL, [EVIL], {EVIL: 0.5}, {EVIL: 0.5}, calibrated=False)
    values = {EVIL: 0.5}
    console.show_explanation(Explanation(EVIL, [EVIL], [Word(EVIL, 0, len(EVIL), values)], values, values, values))
    terminal.say(EVIL)
    terminal.say(EVIL, error=True)
    printed = capsys.readouterr()
    assert printed.out.count("\\x1b[2J") == 11 and printed.err.count("\\x1b[2J") == 1
    assert raw(printed.out + printed.err) == []


def test_a_label_that_names_an_emoji_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_study(Section("trials", columns=[":joy:"], rows=[["[red]x"]]))
    assert ":joy:" in (printed := capsys.readouterr().out) and "[red]x" in printed


def test_log_lines_hold_no_control_characters() -> None:
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "label %s", (EVIL,), None)
    assert raw(terminal.Formatter("%(message)s").format(record)) == []


def test_a_hostile_file_name_reaches_neither_terminal_nor_log(run: Any, tmp_path: Path, capfd: Any) -> None:
    write_csv(tmp_path / "a\x1b[2Jb.csv", [["text", "lab\x1b[31mel", "joy"], ["a", 1, 0], ["b", 0, 1]])
    assert run("inspect", "data=file", "data.path=a\x1b[2Jb.csv", "hydra.run.dir=out") == 2
    printed = capfd.readouterr()
    log = (tmp_path / "out" / "inspect.log").read_text()
    assert "a\\x1b[2Jb.csv" in printed.err and "a\\x1b[2Jb.csv" in log
    assert raw(printed.out + printed.err + log) == []


def test_a_line_feed_in_the_name_of_a_file_begins_no_line(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    monkeypatch.setattr(terminal, "_odd_names", {})
    place = tmp_path / "a\nINFO b"
    place.mkdir()
    monkeypatch.chdir(place)
    write_csv(place / "in\tc\nERROR d.csv", [["text", "joy"], ["a", 1], ["b", 2]])
    assert run("inspect", "data=file", "data.path=in\tc\nERROR d.csv", "hydra.run.dir=out\nWARN e") == 2
    assert run("inspect", "data=file", "data.path=gone\nERROR f.csv", "hydra.run.dir=out\nWARN g") == 2
    shutil.copytree(finished, place / "runs" / "x\nERROR h" / "y")
    (place / "runs" / "x\nERROR h" / "y" / "metrics.json").unlink()
    assert run("compare", "runs=runs", "hydra.run.dir=compared") == 2
    log = (place / "out\nWARN e" / "inspect.log").read_text()
    raised = capfd.readouterr().err + log
    assert "in\\tc\\nERROR d.csv" in raised and "gone\\nERROR f.csv" in raised and "x\\nERROR h" in raised
    assert not [line for line in raised.splitlines() if line.startswith(("INFO b", "ERROR", "WARN"))]


def test_names_that_are_white_space_change_no_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_odd_names", {})
    terminal.know_names("x/\n/y", "end\n", "plain", "runs/in\nside.csv")
    assert terminal.safe("the end\nof x/\n/y") == "the end\nof x/\\n/y"
    assert terminal.safe("in\nside.csv, in\nside") == "in\\nside.csv, in\nside"


def test_a_terminal_that_lacks_a_character_shows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.prepare()
    console.show_text("caf\u00e9", [], {"joy": 0.5}, {"joy": 0.5}, calibrated=True)
    stream.flush()
    assert b"caf\\xe9" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_work_goes_on_where_its_reader_has_left(closed_pipe: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", closed_pipe)
    terminal.say("a" * 100_000)
    terminal.say("b")
    console.show_study(Section("trials", columns=["a"], rows=[["b"]]))
    assert goes_nowhere(closed_pipe)  # libraries may go on printing, too


def test_rich_tables_go_on_where_their_reader_has_left(
    closed_pipe: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", closed_pipe)
    console.show_study(Section("trials", columns=["a"], rows=[["b"]]))
    terminal.console(80).print("still here")
    assert goes_nowhere(closed_pipe)


# -------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("peft=1", "peft=1 is no option; choose peft= one of"),
        ("data=5", "data=5 is no option; choose data= one of"),
        ("loss=true", "loss=true is no option"),
        ("peft={a:1}", "is no option; choose peft= one of"),
        ("seed=" + "1" * 400, "seed=1.*holds a number of 400 digits"),
        ("seed=" + "1" * 5000, "seed=1.*holds a number of 5000 digits"),
        ("optimizer.lr=" + "1" * 400, "optimizer.lr=1.*holds a number of 400 digits"),
        ("data.batch_size=" + "1" * 250, "data.batch_size=.* is out of range"),
        ("text=\udcff", r"text=\\udcff is not UTF-8"),
    ],
)
def test_what_cannot_be_a_setting_is_told_in_a_sentence(run: Any, capfd: Any, argument: str, said: str) -> None:
    name = "predict" if argument.startswith("text") else "train"
    assert run(name, argument) == 2
    printed = capfd.readouterr().err
    assert "Traceback" not in printed and len(printed.splitlines()) == 1
    assert re.search(said, printed), printed


def test_swept_options_are_checked_each(run: Any, capfd: Any) -> None:
    assert run("train", "-m", "peft=ia3,1") == 2
    assert "peft=ia3,1 is no option" in capfd.readouterr().err


def test_utf8_is_read_where_python_took_it_for_ascii() -> None:
    bytes_as_ascii = "text=caf\u00e9 \u2615".encode().decode("ascii", "surrogateescape")
    assert override_grammar.as_text(bytes_as_ascii) == "text=caf\u00e9 \u2615"
    with pytest.raises(UserError, match="not UTF-8"):
        override_grammar.as_text("text=\udce9")


def test_a_list_of_runs_may_name_a_path_with_a_comma(tmp_path: Path) -> None:
    names = ["a", "b, c", "d's, e", "f"]
    written = run_folder.format_list(names)
    assert written == """[a,'b, c',"d's, e",f]""" and run_folder.parse_list(written) == names
    assert run_folder.expand_runs("[ 'b,c' , \"x\",y z]") == ["b,c", "x", "y z"]
    assert run_folder.parse_list("[it's,[b]") == ["it's", "[b"]


# --------------------------------------------------------------------------------------------- files that stay behind


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    if not (child := os.fork()):
        with atomic_write(tmp_path / "killed.csv") as part:
            part.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    (dead,) = tmp_path.iterdir()
    (own := tmp_path / ".notes.part").write_text("of the user")
    with atomic_write(tmp_path / "slow.csv") as alive:
        alive.write_text("still writing")
        write_bytes(tmp_path / "new.csv", b"x")
        assert alive.exists() and own.exists() and not dead.exists()
    assert {file.name for file in tmp_path.iterdir()} == {"slow.csv", "new.csv", ".notes.part"}


def test_a_full_disk_leaves_nothing_of_an_inspection(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    write_csv(tmp_path / "a.csv", emotions(40))
    written = Path.write_bytes
    calls: list[Path] = []

    def full(file: Path, content: bytes) -> int:
        calls.append(file)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return written(file, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("inspect", "data=file", "data.path=a.csv", "hydra.run.dir=out") == 2
    assert "No space left on device" in capfd.readouterr().err
    assert len(calls) == 6 and [file.name for file in (tmp_path / "out").iterdir()] == ["inspect.log"]


def test_a_failed_write_keeps_folders_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for place in ("old/a.txt", "new/deep/a.txt"):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / place):
            raise ZeroDivisionError
    assert [file.name for file in tmp_path.rglob("*")] == ["old"]


def test_the_entry_point_prepares_the_terminal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(app.terminal, "prepare", lambda: called.append(True))
    assert run("predict", "--help") == 0 and called


def explained(*words: tuple[str, int, float]) -> Explanation:
    parts = [Word(word, start, start + len(word), {"joy": value}) for word, start, value in words]
    return Explanation("so [b]sad[/b]  happy", ["joy"], parts, {"joy": 2.0}, {"joy": -1.0}, {"joy": 0.001})


SO_SAD_HAPPY = explained(("so", 0, 0.01), ("sad", 6, -2.0), ("happy", 15, 5.0))


def test_without_colours_the_words_that_matter_are_followed_by_their_share(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_explanation(SO_SAD_HAPPY)
    assert capsys.readouterr().out.split("\n")[1:] == [
        "joy",
        "so [b]sad[-2.00][/b]  happy[+5.00]",
        "happy +5.00, sad -2.00, so +0.01",
        "all words +3.00: logit -1.00 without them, 2.00 with them (error 0.001)",
        "",
    ]


def test_with_colours_words_for_a_label_and_against_it_have_other_grounds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    console.show_explanation(SO_SAD_HAPPY)
    shown = capsys.readouterr().out
    assert "joy (blue: for it, red: against it)" in shown and "[+5.00]" not in shown
    assert re.search(r"so \[b\]\x1b\[30;48;2;255;201;195msad\x1b\[0m\[/b\]", shown)
    assert re.search(r"\x1b\[1;30;48;2;100;165;255mhappy\x1b\[0m", shown)


def test_a_text_without_words_is_explained_too(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_explanation(explained())
    assert "no word matters" in capsys.readouterr().out
