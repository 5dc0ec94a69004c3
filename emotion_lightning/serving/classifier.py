"""The classifier that answers, and what is told about it."""

import re
from pathlib import Path
from typing import Any

from emotion_lightning.inference import ensemble, predictor
from emotion_lightning.models import backbone
from emotion_lightning.models import metadata as stored
from emotion_lightning.runs import bounded_files, quiet, run_folder
from emotion_lightning.serving import words
from emotion_lightning.serving.worker import Classifier

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)
"""What the hub reads of a model card."""


def load(run: str | None, accelerator: str) -> Classifier:
    """Load a run, or several.

    Args:
        run: as `predictor.load` takes it.
        accelerator: auto, cpu, gpu or mps.

    Raises:
        UserError: it cannot be loaded.
    """
    runs = ensemble.find_members(run)
    with quiet.while_loading():
        model = predictor.open_runs(runs, ensemble.combined_metadata(runs), accelerator=accelerator)
    return Classifier(model, _facts(model, run, runs))


def _facts(model: Any, run: str | None, runs: list[str]) -> dict[str, Any]:
    """What `GET /info` tells about a classifier. Paths of this machine are not among it."""
    own = model.metadata
    if run is None:
        card, name = backbone.BUNDLED_RUN / "README.md", "bundled classifier"
    else:
        card = stored.find_model_folder(runs[0]) / "README.md"
        given = run_folder.expand_runs(run)
        name = " + ".join(one if one.startswith("hf:") else shown_name(Path(one)) for one in given)
    return {
        "model": name,
        "labels": own.labels,
        "protocol": own.protocol,
        "thresholds": own.thresholds,
        "calibrated": bool(own.calibration),
        "max_tokens": None if own.is_baseline else own.max_tokens,
        "explains": words.can_explain(model),
        "card": _FRONT_MATTER.sub("", bounded_files.read_text(card)) if card.is_file() else None,
        "versions": own.versions,
    }


def shown_name(folder: Path) -> str:
    """The last names of a folder that tell it from others: date and time of a run.

    >>> shown_name(Path("/home/me/outputs/train/2026-11-28/19-30-00/model"))
    '2026-11-28/19-30-00'
    """
    parts = [part for part in folder.parts if part not in ("/", ".", "..")]
    parts = parts[:-1] if parts[-1:] == ["model"] and len(parts) > 1 else parts
    if not parts:
        return "run"
    return "/".join(parts[-2:] if re.fullmatch(r"[\d.-]+", parts[-1]) else parts[-1:])
