"""The README.md of a model folder, on this machine and on the hub, and the notices that its licence requires."""

import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from emotion_lightning.config import redaction
from emotion_lightning.errors import UserError
from emotion_lightning.models import stock_code
from emotion_lightning.models.metadata import Metadata
from emotion_lightning.reports import console, pages
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.metrics_file import RunMetrics, Score, SplitScores, of_protocol, of_split, read_metrics

log = logging.getLogger(__name__)

OWN_LICENCE = "apache-2.0"
GEMMA_LICENCE = "gemma"
_GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
"""The notice that section 3.1 of the Gemma Terms of Use requires in a file of each distributed derivative."""
_POORLY_LEARNED = 0.3
"""Labels with a lower F1 are listed as unreliable."""


class Form(StrEnum):
    """What a model folder contains: an adapter, a whole network or an ONNX graph."""

    adapter = "adapter"
    whole = "whole"
    graph = "graph"

    @property
    def library(self) -> str:
        """The hub's name of the library that loads the folder."""
        return {Form.adapter: "peft", Form.whole: "transformers", Form.graph: "onnx"}[self]


@dataclass
class ModelCardFacts:
    """The facts that a model card is made from.

    Attributes:
        repository: user/name on the hub.
        metadata: metadata (labels, thresholds, base model, data) without paths of the machine that trained the model.
        form: what the model folder contains.
        base: hub id of the base model; None if it has none.
        licence: the hub's name of the licence; None if it is unknown.
        scores: content of the run's metrics.json; None if the file is missing.
        settings: of the run; None if they are missing.
        checked: whether the folder has an export.json, which compares the model with its run.
    """

    repository: str
    metadata: Metadata
    form: Form
    base: str | None
    licence: str | None
    scores: RunMetrics | None
    settings: dict[str, Any] | None
    checked: bool = False

    @property
    def split(self) -> str | None:
        """The split whose scores are shown: test, else validation, else None."""
        return next((name for name in ("test", "validation") if name in (self.scores or {})), None)

    @property
    def of_split(self) -> SplitScores | None:
        """The scores of that split."""
        return None if self.scores is None or self.split is None else of_split(self.scores, self.split)


@dataclass
class _Data:
    """Facts about a dataset.

    Attributes:
        name: name for readers.
        hub_id: id on the hub; None if it is not there.
        language: language code of the texts, as the hub spells it; None if it is unknown.
        licence: one sentence about the licence.
    """

    name: str
    hub_id: str | None
    language: str | None
    licence: str


def scores_and_settings(run: Path) -> tuple[RunMetrics | None, dict[str, Any] | None]:
    """Return the scores and settings of a run folder; None for each that is missing."""
    manifest.check_run_hashes(run, run_folder.SETTINGS)
    scores = read_metrics(run) if (run / run_folder.METRICS).is_file() else None
    try:
        settings = run_folder.read_settings(run)
    except UserError:
        settings = None
    if scores is None:
        log.warning("%s holds no %s: the card on the hub will tell no scores.", run, run_folder.METRICS)
    return scores, settings


def folder_readme(metadata: Metadata, *, method: str, scores: str) -> str:
    """Return the README.md of the model folder of a run or an export.

    Args:
        metadata: metadata of the model folder.
        method: training method.
        scores: Markdown table of the scores.
    """
    base = metadata.base
    name = "the small network of emotion_lightning" if base.tiny else Path(base.path).name if base.local else base.path
    form = Form.graph if metadata.is_graph else Form.adapter if base.adapter else Form.whole
    front = [
        f"library_name: {form.library}",
        "pipeline_tag: text-classification",
        "tags: [emotion, multi-label]",
        *([] if base.local else [f"base_model: {base.path}"]),
    ]
    folder = '"."  # this folder: give its path elsewhere'
    content = {"method": method, "base": name, "table": scores, **_code(metadata, form, "", folder, '"."')}
    body = pages.render_markdown("model_card", content)
    return "\n".join(["---", *front, "---", "", body])


def _code(metadata: Metadata, form: Form, here: str, folder: str, model: str) -> dict[str, Any]:
    """Return what both kinds of README need for their code.

    Args:
        metadata: metadata of the model folder.
        form: what the folder contains.
        here: user/name on the hub; empty for a folder on this machine.
        folder: Python expression of the model folder.
        model: Python expression of what a pipeline of transformers loads.
    """
    return {
        "metadata": metadata,
        "form": form,
        "here": here,
        "code": "\n".join(stock_code.block(metadata, folder=folder)),
        "needs": stock_code.needs(metadata),
        "in_float32": stock_code.IN_FLOAT32,
        "pipeline": "\n".join(stock_code.pipeline(model, max_tokens=metadata.max_tokens)),
    }


def card_files(facts: ModelCardFacts) -> dict[str, Path | bytes]:
    """Return README.md and, for Gemma, the NOTICE that its licence requires, by file name."""
    return {
        "README.md": card_text(facts).encode(),
        **notices(facts.metadata, base=facts.base or facts.metadata.base.path),
    }


def notices(metadata: Metadata, *, base: str) -> dict[str, bytes]:
    """Return the files that the licence of the base model requires, by file name.

    Args:
        metadata: metadata of the model folder.
        base: name of the base model for readers.
    """
    if not metadata.is_gemma:
        return {}
    return {"NOTICE": f"{_GEMMA_NOTICE}\n\nThis is a Model Derivative of {base}, modified by fine-tuning.\n".encode()}


def known_licence(metadata: Metadata) -> str | None:
    """Return the hub's name of the licence of a model, as far as it follows from its metadata; else None."""
    if metadata.is_gemma:
        return GEMMA_LICENCE
    return OWN_LICENCE if metadata.is_tiny or not metadata.base.pretrained else None


def card_text(facts: ModelCardFacts) -> str:
    """Return the model card in Markdown, with the hub's YAML metadata at the top."""
    metadata, data, scores, here = facts.metadata, _data(facts.metadata), facts.of_split, facts.repository
    by_label = of_protocol(scores, metadata.protocol)["labels"] if scores else {}
    body = pages.render_markdown(
        "model_card",
        {
            "facts": facts,
            "data": data,
            "base": facts.base or metadata.base.path,
            "gemma": _GEMMA_NOTICE if metadata.is_gemma else None,
            "method": _method(facts),
            "protocol": _PROTOCOLS[metadata.protocol],
            "counts": dict(zip(metadata.labels, metadata.loss["label_counts"], strict=True)),
            "by_label": by_label,
            "poor": [name for name, found in by_label.items() if found["f1"] < _POORLY_LEARNED],
            "table": console.scores_markdown(facts.split, scores) if facts.split and scores else None,
            "cost": facts.scores.get("cost") if facts.scores else None,
            "settings": _settings(facts),
            **_code(metadata, facts.form, here, f"snapshot_download({json.dumps(here)})", json.dumps(here)),
        },
    )
    return f"---\n{_metadata(facts, data)}\n---\n\n{body}"


def _metadata(facts: ModelCardFacts, data: _Data) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    metadata, scores = facts.metadata, facts.of_split
    named: list[tuple[str, str, float, dict[str, str]]] = []
    if scores is not None:
        # The model's own protocol comes first, because the hub shows the first result.
        for protocol in sorted(_PROTOCOLS, key=lambda name: name != metadata.protocol):
            for kind, metric, title, args in _METRICS:
                name = f"{title}, {_PROTOCOLS[protocol]}"
                named.append((kind, name, of_protocol(scores, protocol)[metric], args | {"thresholds": protocol}))
        named.append(("mAP", "mean average precision, no thresholds", scores["map"], {"average": "macro"}))
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Multi-label emotion classification",
            dataset_type=data.hub_id or metadata.data["option"],
            dataset_name=data.name,
            dataset_split=facts.split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(value), 4),
            metric_args=args,
        )
        for kind, name, value, args in named
    ]
    relation = {Form.adapter: "adapter", Form.whole: "finetune", Form.graph: "finetune"}[facts.form]
    return str(
        ModelCardData(
            language=data.language,
            license=facts.licence,
            library_name=facts.form.library,
            pipeline_tag="text-classification",
            tags=["emotion", "multi-label", "emotion-lightning"],
            base_model=facts.base,
            base_model_relation=relation if facts.base else None,
            datasets=[data.hub_id] if data.hub_id else None,
            metrics=["f1"] if results else None,
            model_name=facts.repository.partition("/")[2],
            eval_results=results or None,
        ).to_yaml()
    )


_PROTOCOLS = {
    "fixed": "all thresholds 0.5",
    "global": "one threshold, fitted on validation",
    "per_label": "a threshold for each label, fitted on validation",
}
_METRICS: list[tuple[str, Score, str, dict[str, str]]] = [
    ("f1", "f1_macro", "macro F1", {"average": "macro"}),
    ("f1", "f1_micro", "micro F1", {"average": "micro"}),
    ("jaccard", "jaccard", "Jaccard (samples)", {"average": "samples"}),
]


def _method(facts: ModelCardFacts) -> str:
    """Return the name of the method that trained the model."""
    if facts.settings is not None and "peft" in facts.settings["options"]:
        return str(facts.settings["options"]["peft"])
    return "an adapter" if facts.metadata.base.adapter else "fine-tuning"


def _settings(facts: ModelCardFacts) -> str | None:
    """Return the run's settings as YAML, without secrets, paths and account names; None if they are missing."""
    if facts.settings is None:
        return None
    chosen = ("options", "seed", "data", "model", "peft", "loss", "optimizer", "thresholds", "callbacks", "trainer")
    kept = {name: facts.settings[name] for name in chosen if name in facts.settings}
    plain = run_folder.without_paths(redaction.settings(kept))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110).rstrip()


def _data(metadata: Metadata) -> _Data:
    option = metadata.data["option"]
    if option == "sample":
        return _Data(
            "the bundled sample of emotion_lightning", None, "en", "They come with emotion_lightning (Apache-2.0)."
        )
    if option == "goemotions":
        licence = "GoEmotions (Demszky et al., 2020) is under CC BY 4.0: name its authors."
        return _Data("GoEmotions", "google-research-datasets/go_emotions", "en", licence)
    if option == "semeval2018":
        language = str(metadata.data.get("language", "En")).lower()
        licence = (
            "Its tweets (Mohammad et al., 2018) are for research and may not be passed on; none are in this repository."
        )
        return _Data("SemEval-2018 Task 1 E-c", "SemEvalWorkshop/sem_eval_2018_task_1", language, licence)
    if option in ("xed", "brighter"):
        languages = metadata.data.get("languages") or []
        spoken = str(languages[0]) if len(languages) == 1 else None
        if option == "xed":
            licence = "XED (Öhman et al., 2020) is under CC BY 4.0: name its authors."
            return _Data("XED", "Helsinki-NLP/xed_en_fi", spoken, licence)
        licence = "BRIGHTER (Muhammad et al., 2025) has no licence that lets others pass it on; none of it is here."
        return _Data("BRIGHTER (SemEval-2025 Task 11)", None, spoken, licence)
    path = str(metadata.data.get("path") or "")
    if option == "hub" and path.count("/") == 1:
        return _Data(path, path, None, f"See https://huggingface.co/datasets/{path} for its licence.")
    return _Data("files of the authors' own", None, None, "They are not in this repository; ask its owner for them.")
