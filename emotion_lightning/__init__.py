"""Multi-label emotion detection: fine-tune a language model, with an adapter or in full, evaluate it and predict."""

from typing import TYPE_CHECKING, Any

from emotion_lightning.runs import waiting
from emotion_lightning.version import __version__

waiting.begin_status()

if TYPE_CHECKING:
    from emotion_lightning.inference.predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Imported late, so that a command can report a wrong setting before torch is loaded.
    if name in ("Prediction", "Predictor", "load"):
        from emotion_lightning.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
