"""A folder that a Hugging Face Space runs as it stands: a graph, and a page (`space_app`) that asks it."""

import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from emotion_lightning import config
from emotion_lightning.config import CleaningStep
from emotion_lightning.errors import UserError
from emotion_lightning.inference import exporter, hub_card, space_app
from emotion_lightning.inference.predictor import open_folder
from emotion_lightning.models.hub import REPOSITORY_FILES
from emotion_lightning.models.metadata import Metadata, read_metadata
from emotion_lightning.reports import pages
from emotion_lightning.runs import bounded_files, manifest, run_folder

log = logging.getLogger(__name__)

APP = "app.py"
GRADIO = "6.31.0"
"""The version that a Space installs; the one that the page was tested with."""
REQUIREMENTS = {
    "gradio": f">={GRADIO},<{int(GRADIO.partition('.')[0]) + 1}",
    "numpy": ">=2",
    "onnxruntime": ">=1.22",
    "tokenizers": ">=0.22",
}


def write_space(folder: Path, source: Path, metadata: Metadata, settings: config.Export) -> dict[str, Any]:
    """Write the folder of a Space, and compare the answers of its page with those of `predict`.

    Args:
        folder: the folder to write.
        source: model folder of a run, or of an export with format=onnx or onnx_int8, which is taken as it is.
        metadata: metadata of `source`.
        settings: of the command `export`.

    Returns:
        The results of the checks of the graph, as of `exporter.export_model`.

    Raises:
        UserError: the run cannot become a graph, or it has no tokenizer.json.
        RuntimeError: the page would give other probabilities.
    """
    model = folder / run_folder.MODEL
    model.mkdir()
    if metadata.is_graph:
        if settings.refit:
            raise UserError(f"refit=true: run={settings.run} is a graph already; give the run that it was made from.")
        found = _copy_graph(source, model)
    else:
        found = exporter.export_model(model, source, metadata, settings, config.ExportFormat.onnx)
    base = metadata.base.path
    metadata = read_metadata(model)
    shutil.copyfile(space_app.__file__, folder / APP)
    (folder / "requirements.txt").write_text(_requirements(metadata), encoding="utf-8")
    for name, content in hub_card.notices(metadata, base=base).items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text(_card(metadata), encoding="utf-8")
    _compare(model, metadata)
    return found


def _copy_graph(source: Path, model: Path) -> dict[str, Any]:
    manifest.check_hashes(source, "*")
    for file in (file for kind in (*REPOSITORY_FILES, "README.md") for file in source.glob(kind)):
        shutil.copyfile(file, model / file.name)
    report = model / exporter.REPORT
    return bounded_files.read_json(report) if report.is_file() else {}


def _requirements(metadata: Metadata) -> str:
    needed = REQUIREMENTS | ({"emoji": ">=2"} if CleaningStep.emojis in metadata.cleaning() else {})
    return "".join(f"{name}{bounds}\n" for name, bounds in sorted(needed.items()))


def _card(metadata: Metadata) -> str:
    """The README, with the YAML that tells the hub how to run the Space."""
    licence = hub_card.known_licence(metadata)
    head = {
        "title": "Emotions in text",
        "emoji": "💬",
        "colorFrom": "indigo",
        "colorTo": "pink",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "python_version": "3.12",
        "app_file": APP,
        "pinned": False,
        "short_description": f"Finds {len(metadata.labels)} emotions in texts",
        "tags": ["emotion", "multi-label", "emotion-lightning"],
        **({"license": licence} if licence else {}),
    }
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    body = pages.render_markdown(
        "space_card", {"metadata": metadata, "licence": licence, "texts": space_app.MOST_TEXTS}
    )
    return f"---\n{front}---\n\n{body}\n"


def _compare(model: Path, metadata: Metadata) -> None:
    """Raise an error if the page would answer otherwise than `predict` with the same graph."""
    if not (model / "tokenizer.json").is_file():
        raise UserError("format=space needs a tokenizer with a tokenizer.json, which this run has not.")
    texts = exporter.probe_texts(metadata)
    own = open_folder(model, metadata, accelerator=config.Accelerator.cpu).probabilities(texts).numpy()
    apart = float(abs(space_app.Classifier(model).probabilities(texts) - own).max())
    if not apart <= exporter.TOLERANCE:
        raise RuntimeError(f"the page and predict: probabilities differ by {apart:.2g}; nothing is written")
    log.info("The page gives the probabilities of predict on %d texts, to %.1g.", len(texts), apart)
