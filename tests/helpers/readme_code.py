"""The code in the README of a model folder that needs no emotion_lightning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def answers_of_readme(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Probabilities that the code gives for the texts, [text, label]."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = (part.partition("```")[0] for part in readme.split("```python\n") if "probabilities =" in part)
    first = 'texts = ["I never thought they would come."]'
    assert first in code and "emotion_lightning import" not in code
    code = code.replace(first, f"texts = {list(texts)!r}").replace('folder = "."', f"folder = {str(folder)!r}")
    found: dict[str, Any] = {}
    exec(code, found)
    return np.asarray(found["probabilities"])
