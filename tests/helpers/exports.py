"""What the exports of a run answer, and the code of their READMEs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from emotion_lightning import load
from emotion_lightning.models.metadata import Metadata, read_metadata
from helpers.readme_code import answers_of_readme

FORMS = ["adapter", "merged", pytest.param("onnx", marks=pytest.mark.exhaustive)]


def probabilities(folder: Path | str, texts: Sequence[str], **batches: int) -> np.ndarray:
    """Probabilities of texts, [text, label]."""
    found: np.ndarray = load(folder, accelerator="cpu").probabilities(list(texts), **batches).numpy()
    return found


def check_export(run: Callable[..., int], source: Path, form: str, texts: Sequence[str]) -> Metadata:
    """Export a run into the folder `form`, and compare its answers, and those of its README's code, with the run's.

    Returns:
        The metadata of the export.
    """
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    assert run("export", f"run={source}", f"output={form}", f"format={form}") == 0
    whole = probabilities(source, texts)
    np.testing.assert_allclose(probabilities(form, texts, batch_size=2), whole, atol=1e-4)
    np.testing.assert_allclose(answers_of_readme(Path(form), texts), whole, atol=1e-4)
    return read_metadata(Path(form))
