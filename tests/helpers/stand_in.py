"""Let the trials of a study be the quick stand-in for `train` that lies beside this file."""

import os
from pathlib import Path

import pytest

from emotion_lightning.tuning import trial

STAND_IN = "stand_in_train"


def importable() -> str:
    """PYTHONPATH with which processes find the stand-in."""
    return os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def trials_by_stand_in(patch: pytest.MonkeyPatch) -> None:
    """Start the stand-in in place of `train`; it needs none of the libraries."""
    patch.setattr(trial, "TRAIN", STAND_IN)
    patch.setattr(trial, "LIBRARIES", ())
    patch.setenv("PYTHONPATH", importable())
