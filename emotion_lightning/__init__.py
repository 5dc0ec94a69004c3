"""Multi-label emotion detection: fine-tune, evaluate and predict with small trained parts on large language models."""

from typing import TYPE_CHECKING, Any

from emotion_lightning.runs import waiting
from emotion_lightning.version import __version__

waiting.begin()

if TYPE_CHECKING:
    from emotion_lightning.inference.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Late, so that a command can report a wrong setting before torch has loaded.
    if name in ("Prediction", "Predictor", "load"):
        from emotion_lightning.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
