"""The metadata of a trained network: emotion_lightning.json, read and checked."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.data import labels
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import thresholds
from emotion_lightning.evaluation.calibration import Scaling, from_plain
from emotion_lightning.models import ngrams, safe_loading
from emotion_lightning.runs import bounded_files, manifest, run_folder

CARD = "emotion_lightning.json"
LABELS = 100_000
"""The most labels of a card; those of a million take longer to check than anybody waits for."""


@dataclass
class Card:
    """What a model folder says of itself, beyond what PEFT and Transformers keep.

    Attributes:
        labels: names, in the order of the logits.
        protocol: which thresholds decide.
        thresholds: of every protocol, by label.
        base: path or hub id, revision, quantization, dtype and head modules of the network.
        max_tokens: texts are cut to this many tokens.
        data: the data settings of the run, with the name of their schema under `option`.
        loss: the same of the loss, with the label counts that its weights come from.
        data_hashes: sha256 of every file that was read.
        versions: of the libraries that trained it.
        clean: steps of cleaning that texts go through first.
        fitting: settings that the thresholds were fitted with, with the name of their schema under `option`.
        calibration: slope and offset of each label's logits, by label; empty where probabilities are not calibrated.
        format: of a folder that `export` made, one of config.ExportFormat; empty in a run folder.
        ngrams: of a baseline, which has no network and no base: shortest and longest n-gram by setting. Its texts are
            not cut.
    """

    labels: list[str]
    protocol: str
    thresholds: dict[str, dict[str, float]]
    base: dict[str, Any]
    max_tokens: int
    data: dict[str, Any]
    loss: dict[str, Any]
    data_hashes: dict[str, str]
    versions: dict[str, str]
    clean: list[str] = field(default_factory=list)
    fitting: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    format: str = ""
    ngrams: dict[str, list[int]] = field(default_factory=dict)

    @property
    def is_graph(self) -> bool:
        """Whether the folder holds a graph for onnxruntime instead of weights."""
        return self.format in (config.ExportFormat.onnx, config.ExportFormat.onnx_int8)

    @property
    def is_baseline(self) -> bool:
        """Whether it is logistic regression on n-grams."""
        return bool(self.ngrams)

    @property
    def is_tiny(self) -> bool:
        """Whether its base is the network inside the package."""
        return bool(self.base.get("tiny"))

    @property
    def is_gemma(self) -> bool:
        """Whether it derives from Gemma's weights, and so comes under its terms."""
        return (
            bool(self.base.get("pretrained"))
            and not self.is_tiny
            and str(self.base["architecture"]).startswith("gemma")
        )

    def cuts(self, protocol: str | None = None) -> Tensor:
        """Thresholds of a protocol, [label], float64."""
        chosen = self.thresholds[protocol or self.protocol]
        return torch.tensor([chosen[name] for name in self.labels], dtype=torch.float64)

    def scaling(self) -> Scaling | None:
        """How logits are calibrated, or None."""
        return from_plain(self.calibration, self.labels)

    def threshold_settings(self) -> config.Thresholds:
        """What the thresholds were fitted with."""
        values = dict(self.fitting)
        return schema.from_plain(config.SCHEMAS[f"thresholds/{values.pop('option')}"], values)

    def pooling(self) -> config.Pooling:
        """What the head sees of a text."""
        return config.Pooling(self.base["pooling"])

    def cleaning(self) -> list[config.CleaningStep]:
        """The steps of cleaning."""
        return [config.CleaningStep(step) for step in self.clean]


def read_card(folder: Path) -> Card:
    """The card of a model folder, or a UserError that names what is wrong with it or with its folder."""
    file = folder / CARD
    bounded_files.check_folder(folder)
    content = bounded_files.read_json_object(file)
    if isinstance(named := content.get("labels"), list) and len(named) > LABELS:
        raise UserError(f"{file} is damaged: it names {len(named):,} labels, where {LABELS:,} are the most.")
    safe_loading.check(folder)
    manifest.check(folder, "*.json")
    try:
        card = _spelled(Card(**content))
        labels.check(card.labels, str(file))
        _check_numbers(card)
        if card.is_baseline:
            _check_ngrams(card)
        else:
            config.Quantization(card.base["quantization"])
            config.Dtype(card.base["dtype"])
            config.Attention(card.base["attention"])
            config.AttentionKernel(card.base["attn_implementation"])
            card.pooling()
        card.cleaning()
        card.scaling()
        card.threshold_settings()
        required = {
            "max_tokens": type(card.max_tokens) is int and 0 < card.max_tokens <= 1_000_000,
            "data": f"data/{card.data['option']}" in config.SCHEMAS,
            "loss": f"loss/{card.loss['option']}" in config.SCHEMAS,
            "format": not card.format or config.ExportFormat(card.format),
            "base": card.is_baseline
            or all(type(card.base[name]) is bool for name in ("local", "adapter", "pretrained", "stock"))
            and all(_is_texts(card.base[name]) for name in ("head", "kept"))
            and isinstance(card.base["revision"], str | None),
        }
        wrong = [name for name, right in required.items() if not right]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged or of another version ({error}).") from error
    if wrong:
        raise UserError(f"{file} is damaged: {', '.join(wrong)}.")
    _check_paths(card, file)
    return card


def _spelled(card: Card) -> Card:
    """The card with its labels as they are spelled everywhere: one from before there was a rule has them as its data.

    What is no text, or names one label twice, is left to the checks.
    """

    def by_label(values: dict[str, Any]) -> dict[str, Any]:
        return {labels.normalised(label): value for label, value in values.items()}

    return dataclasses.replace(
        card,
        labels=[labels.normalised(label) for label in card.labels],
        thresholds={protocol: by_label(cuts) for protocol, cuts in card.thresholds.items()},
        calibration=by_label(card.calibration),
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def _check_numbers(card: Card) -> None:
    """Raise ValueError for thresholds and calibration that are not of these labels, or out of range."""
    if unknown := sorted(card.thresholds.keys() - set(thresholds.PROTOCOLS)):
        raise ValueError(f"{unknown[0]} is no protocol of thresholds")
    if card.protocol not in card.thresholds:
        raise ValueError(f"it has no thresholds of its protocol {card.protocol}")
    by_label: dict[str, dict[str, Any]] = dict(card.thresholds)
    if card.calibration:
        by_label["calibration"] = card.calibration
    for name, values in by_label.items():
        if values.keys() != set(card.labels):
            raise ValueError(f"{name} is of {len(values)} labels, not of these {len(card.labels)}")
    for protocol, cuts in card.thresholds.items():
        for label, cut in cuts.items():
            if type(cut) not in (int, float) or not 0 <= cut <= 1:
                raise ValueError(f"the {protocol} threshold of {label} is {cut!r}, not a number of 0 to 1")
    for label, parts in card.calibration.items():
        for part in parts.values():
            if type(part) not in (int, float) or not math.isfinite(part):
                raise ValueError(f"the calibration of {label} holds {part!r}, not a number")


def _check_ngrams(card: Card) -> None:
    """Raise ValueError for a baseline that has a base too, or lengths of n-grams that none has."""
    if card.base or card.format:
        raise ValueError("a baseline has neither base nor format")
    for name, lengths in card.ngrams.items():
        pair = isinstance(lengths, list) and len(lengths) == 2 and all(type(length) is int for length in lengths)
        if name not in ngrams.KINDS or not pair or not 1 <= lengths[0] <= lengths[1] <= ngrams.LONGEST:
            raise ValueError(f"its n-grams {name}={lengths} are of no baseline")


def _check_paths(card: Card, file: Path) -> None:
    """Raise UserError for paths that leave the folder; a run's own are those of the machine that trained it."""
    path = card.base.get("path")
    if not card.is_baseline and not card.base["local"] and not safe_loading.is_hub_id(path):
        raise UserError(f"{file} is damaged: its base {path!r} is no id of the hub.")
    named = [path] if card.base.get("local") else []
    for value in [*named, *(card.data[name] for name in run_folder.PATHS if card.data.get(name))]:
        if not isinstance(value, str):
            raise UserError(f"{file} is damaged: {value!r} is no path.")
        given = Path(value)
        if ".." in given.parts or (card.format and given.is_absolute()):
            raise UserError(f"{file} names {value}, which lies outside its folder; it is not opened.")


def find_model_folder(run: str, *, name: str = "run") -> Path:
    """The model folder of a run, given as the run folder or as its model/ in the setting `name`."""
    folder = Path(run).expanduser()
    for candidate in (folder / run_folder.MODEL, folder):
        if (candidate / CARD).is_file():
            # What lies beside it is asked for by its parent, which of "." would be "." again.
            return candidate.resolve() if candidate.name in ("", "..") else candidate
    if not folder.is_dir():
        raise UserError(f"{name}={run} is not a folder.")
    unfinished = (folder / run_folder.SETTINGS).exists() and not (folder / run_folder.METRICS).exists()
    if unfinished:
        raise UserError(f"{name}={run} has not finished training; go on with {run_folder.resume(folder)}.")
    raise UserError(f"{name}={run} has no trained model: it holds neither {run_folder.MODEL}/{CARD} nor {CARD}.")
