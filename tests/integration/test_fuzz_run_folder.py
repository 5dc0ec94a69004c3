"""A part of the fuzz of run folders, which `python tests/fuzz_run_folder.py WORK` does whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_damaged_run_is_refused_or_answers_as_before(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "fuzz_run_folder.py"
    line = [sys.executable, str(script), str(tmp_path), "--share", "0.003"]
    raised = subprocess.run(line, capture_output=True, text=True, timeout=900, check=False, env={**os.environ})
    assert raised.returncode == 0, raised.stdout + raised.stderr
    counts = raised.stdout.splitlines()
    assert len(counts) == 7 and "refused" in raised.stdout, raised.stdout
    for fault in ("traceback", "exit code", "no end", "other answer"):
        assert fault not in raised.stdout, raised.stdout
