"""Multi-label emotion detection: fine-tune a language model, with an adapter or in full, evaluate it and predict.

import emotion_lightning as el

run = el.fit(el.compose("peft=ia3", "data=file", "data.path=my.csv"))
el.load(run.folder).predict(["We won!"])
"""

from typing import TYPE_CHECKING, Any

from emotion_lightning.runs import waiting
from emotion_lightning.version import __version__

waiting.begin_status()

if TYPE_CHECKING:
    from emotion_lightning.api import Run, Scores, Settings, compose, fit, score
    from emotion_lightning.errors import UserError
    from emotion_lightning.evaluation.explanations import Explanation
    from emotion_lightning.inference.predictor import Prediction, Predictor, load

__all__ = [
    "Explanation",
    "Prediction",
    "Predictor",
    "Run",
    "Scores",
    "Settings",
    "UserError",
    "__version__",
    "compose",
    "fit",
    "load",
    "score",
]


def __getattr__(name: str) -> Any:
    # Imported late, so that a command can report a wrong setting before torch is loaded.
    if name in ("Prediction", "Predictor", "load"):
        from emotion_lightning.inference import predictor

        return getattr(predictor, name)
    if name == "Explanation":
        from emotion_lightning.evaluation import explanations

        return explanations.Explanation
    if name in ("Run", "Scores", "Settings", "compose", "fit", "score"):
        from emotion_lightning import api

        return getattr(api, name)
    if name == "UserError":
        from emotion_lightning import errors

        return errors.UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
