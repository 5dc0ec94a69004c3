"""A part of the fuzz of run folders, which `python tests/fuzz_run_folder.py WORK` does whole."""

import sys
from pathlib import Path

import pytest
from helpers import warm


@pytest.mark.slow
def test_a_damaged_run_is_refused_or_answers_as_before(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "fuzz_run_folder", str(tmp_path), "--share", "0.003"]
    raised = warm.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=900)
    assert raised.returncode == 0, raised.stdout + raised.stderr
    counts = raised.stdout.splitlines()
    assert len(counts) == 7 and "refused" in raised.stdout, raised.stdout
    for fault in ("traceback", "exit code", "no end", "other answer"):
        assert fault not in raised.stdout, raised.stdout
