"""Multi-label emotion detection: fine-tune, evaluate and predict with small trained parts on large language models."""

import os
import sys
from typing import TYPE_CHECKING, Any

from emotion_lightning.runs import waiting
from emotion_lightning.version import __version__

# `python emotion_lightning/train.py` puts this folder first on the path, where inspect.py would hide Python's own.
if sys.path and os.path.abspath(sys.path[0] or ".") == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

# noqa: E402  behind the lines above
# noqa: E402

waiting.begin()

if TYPE_CHECKING:
    from emotion_lightning.inference.predictor import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Late, so that a command can report a wrong setting before torch has loaded.
    if name == "load":
        from emotion_lightning.inference.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
