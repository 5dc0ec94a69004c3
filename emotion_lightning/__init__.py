"""Multi-label emotion detection: fine-tune, evaluate and predict with small trained parts on large language models."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_lightning.predictor import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Late, so that a command can report a wrong setting before torch has loaded.
    if name == "load":
        from emotion_lightning.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
