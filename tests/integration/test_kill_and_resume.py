"""A part of what `python tests/kill_and_resume.py WORK` does whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.servers import PATIENCE


# Signals to a process of its own are in test_stopping; here real kills at random moments.
@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", ["plain", "several"])
def test_a_training_stopped_at_random_moments_ends_as_one_that_was_not(tmp_path: Path, settings: str) -> None:
    script = Path(__file__).parents[1] / "kill_and_resume.py"
    line = [sys.executable, str(script), str(tmp_path), "--kills", "1", "--signals", "1", "--settings", settings]
    raised = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ})
    assert raised.returncode == 0, raised.stdout + raised.stderr
    assert "2 stops of" in raised.stdout and "\n0 faults" in raised.stdout, raised.stdout
    assert "1 SIGKILL" in raised.stdout and "1 SIGTERM" in raised.stdout, raised.stdout
