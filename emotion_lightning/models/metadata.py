"""The metadata of a trained network: emotion_lightning.json, read and checked."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import redaction, schema
from emotion_lightning.data import labels
from emotion_lightning.data.conversations import Context
from emotion_lightning.data.long_texts import LongTexts, token_limit
from emotion_lightning.data.template import Template
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation.calibration import Scaling, from_plain
from emotion_lightning.evaluation.group_thresholds import GroupThresholds
from emotion_lightning.evaluation.intensities import Intensities
from emotion_lightning.evaluation.thresholds import PROTOCOLS
from emotion_lightning.evaluation.thresholds import chosen_protocol as protocol_of
from emotion_lightning.models import ngrams, safe_loading
from emotion_lightning.runs import bounded_files, environment, manifest, run_folder

METADATA = "emotion_lightning.json"
LABELS = 100_000
"""Maximum number of labels in the metadata: to check a million labels would take too long."""


@dataclass(frozen=True)
class Base:
    """The network that was trained: where its base is, and how it is loaded.

    Attributes:
        path: folder or hub id of the base; in an export that contains its base, `base`.
        local: whether `path` is a folder.
        adapter: whether the model folder holds an adapter on the base; otherwise it holds the whole network.
        pretrained: whether the base was trained before; otherwise its weights are random.
        tiny: whether the base is the network that is bundled with the package.
        architecture: `model_type` of the network's config.json.
        revision: branch, tag or commit of the base on the hub; None means main.
        quantization: of the weights.
        dtype: of the computations.
        head: names of the modules that are trained in full; the last one is the output layer.
        kept: name patterns of modules that are never quantised.
        attention: causal or bidirectional.
        attn_implementation: attention kernel.
        pooling: how token vectors become one vector for each text.
        stock: whether transformers' own class gives the same logits.
        other: entries that another version has written; they are written again as they are.
    """

    path: str
    local: bool
    adapter: bool
    pretrained: bool
    tiny: bool
    architecture: str
    revision: str | None
    quantization: config.Quantization
    dtype: config.Dtype
    head: list[str]
    kept: list[str]
    attention: config.Attention
    attn_implementation: config.AttentionKernel
    pooling: config.Pooling
    stock: bool
    other: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "Base":
        """Read what `plain` returns.

        Raises:
            KeyError, TypeError or ValueError: an entry is missing or has an unknown value.
        """
        values = {
            name: content.get(name, _OPTIONAL[name]) if name in _OPTIONAL else content[name] for name in _BASE_ENTRIES
        }
        other = {name: value for name, value in content.items() if name not in _BASE_ENTRIES}
        return dataclasses.replace(schema.from_plain(cls, values), other=other)

    def plain(self) -> dict[str, Any]:
        """Return the form that is stored as JSON."""
        return {name: getattr(self, name) for name in _BASE_ENTRIES} | self.other

    def is_valid(self) -> bool:
        """Whether the entries without a fixed list of values have the right types; the path has a check of its own."""
        return (
            all(type(value) is bool for value in (self.local, self.adapter, self.pretrained, self.stock))
            and all(map(_is_texts, (self.head, self.kept)))
            and isinstance(self.revision, str | None)
            and self.attention is not config.Attention.auto
            and self.pooling is not config.Pooling.auto
        )


_BASE_ENTRIES = tuple(entry.name for entry in dataclasses.fields(Base) if entry.name != "other")
_OPTIONAL = {"path": None, "tiny": False, "architecture": ""}
"""Entries that may be missing. The path has a check of its own."""


_PARTS: dict[str, Any] = {"template": Template, "long_texts": LongTexts, "context": Context}
"""Entries that a file may lack, each with the class that reads it."""
_LATER = ("intensities", "thresholds_by", "text_column")
"""Plain entries that a file lacks where they are empty, so that earlier versions can read it."""


@dataclass
class Metadata:
    """Metadata of a model folder, in addition to what PEFT and transformers store.

    Attributes:
        labels: names, in the order of the logits.
        protocol: name of the thresholds that decide predictions.
        thresholds: maps each protocol to its thresholds by label.
        base_or_none: properties of the network; None in a baseline, which has no network. `base` in the file.
        max_tokens: texts are truncated to this many tokens.
        data: data settings of the run, with the name of their schema under `option`.
        loss: loss settings in the same form, with the label counts that its weights are computed from.
        data_hashes: sha256 of every file that was read.
        versions: versions of the libraries used in training.
        clean: cleaning steps that are applied to texts.
        fitting: settings that the thresholds were fitted with, with the name of their schema under `option`.
        calibration: slope and offset of the logits, by label; empty if probabilities are not calibrated.
        format: a value of config.ExportFormat in a folder written by `export`; empty in a run folder.
        ngrams: only in a baseline, which has no network: shortest and longest n-gram by setting. A baseline does not
            truncate texts.
        template: what stands around every text; None if texts stand by themselves. The file then has no such entry.
        long_texts: what becomes of texts that are longer than `max_tokens`; None, without an entry in the file: the
            tokenizer cuts their end.
        context: which turns of a conversation stand before a text, and how; None, without an entry: texts stand alone.
        intensities: how intensities are read from probabilities, as `Intensities.plain` returns it; empty, without an
            entry, if none were learned. `of_logits` has the cut points of loss=ordinal before the calibration.
        thresholds_by: thresholds of groups, as `GroupThresholds.plain` returns them; empty, without an entry, if they
            are the same for all rows.
        text_column: name of the column of texts in the data of the run; empty, without an entry, if it has no columns.
    """

    labels: list[str]
    protocol: str
    thresholds: dict[str, dict[str, float]]
    base_or_none: Base | None
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
    template: Template | None = None
    long_texts: LongTexts | None = None
    context: Context | None = None
    intensities: dict[str, Any] = field(default_factory=dict)
    thresholds_by: dict[str, Any] = field(default_factory=dict)
    text_column: str = ""

    @classmethod
    def of_training(
        cls,
        settings: config.Train | config.Baseline,
        *,
        labels: list[str],
        thresholds: dict[str, Tensor],
        scaling: Scaling | None,
        base: Base | None,
        loss: dict[str, Any],
        data_hashes: dict[str, str],
        ngrams: dict[str, list[int]] | None = None,
        template: Template | None = None,
        long_texts: LongTexts | None = None,
        context: Context | None = None,
        intensities: Intensities | None = None,
        cuts_of_logits: Intensities | None = None,
        group_thresholds: GroupThresholds | None = None,
        text_column: str | None = None,
    ) -> "Metadata":
        """The metadata of what was trained with these settings.

        Args:
            settings: settings of `train` or `baseline`.
            labels: names, in the order of the logits.
            thresholds: of every protocol, [label].
            scaling: calibration of the logits; None without one.
            base: of a network; None for a baseline.
            loss: the loss with its label counts, as the attribute describes it.
            data_hashes: SHA-256 of each file that was read.
            ngrams: of a baseline.
            template: what stood around every text.
            long_texts: what became of texts that were too long.
            context: which turns stood before a text.
            intensities: how intensities are read from probabilities; None if none were learned.
            cuts_of_logits: the same for uncalibrated probabilities.
            group_thresholds: thresholds of groups; None if they are the same for all rows.
            text_column: name of the column of texts; None if the data has no columns.
        """
        data = run_folder.absolute(redaction.settings(schema.plain(settings.data)))
        fitting = schema.plain(settings.thresholds)
        if fitting["by"] is None:
            del fitting["by"]  # earlier versions know no such setting
        return cls(
            labels=labels,
            protocol=protocol_of(settings.thresholds),
            thresholds={
                name: dict(zip(labels, threshold.tolist(), strict=True)) for name, threshold in thresholds.items()
            },
            base_or_none=base,
            max_tokens=token_limit(settings.data),
            data={"option": schema.schema_of(settings.data), **data},
            loss=loss,
            data_hashes=data_hashes,
            versions=environment.versions(),
            clean=[step.value for step in settings.data.clean],
            fitting={"option": schema.schema_of(settings.thresholds), **fitting},
            calibration={} if scaling is None else scaling.plain(labels),
            ngrams=ngrams or {},
            template=template,
            long_texts=long_texts,
            context=context,
            intensities=_plain(intensities, cuts_of_logits, labels),
            thresholds_by={} if group_thresholds is None else group_thresholds.plain(labels),
            text_column=text_column or "",
        )

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "Metadata":
        """Read what `plain` returns, without checks but those of the base.

        Raises:
            KeyError, TypeError or ValueError: an entry is missing, unknown, or has an unknown value.
        """
        own = {name: value for name, value in content.items() if name not in ("base", *_PARTS)}
        parts = {name: kind.from_plain(content[name]) for name, kind in _PARTS.items() if content.get(name) is not None}
        metadata, base = cls(base_or_none=None, **own, **parts), content["base"]
        if not metadata.is_baseline:
            metadata.base_or_none = Base.from_plain(base)
        elif base or metadata.format:
            raise ValueError("a baseline has neither base nor format")
        return metadata

    def plain(self) -> dict[str, Any]:
        """Return the content of the file."""
        base = {} if self.base_or_none is None else self.base_or_none.plain()
        values = {"base" if name == "base_or_none" else name: value for name, value in self.__dict__.items()}
        parts = {name: values.pop(name) for name in _PARTS}
        # Without these the file is one that earlier versions can read.
        given = {name: part.plain() for name, part in parts.items() if part is not None}
        given |= {name: later for name in _LATER if (later := values.pop(name))}
        return values | {"base": base} | given

    @property
    def usual_text(self) -> str | None:
        """Name of the column of texts that is looked for in other tables first; earlier versions noted no other one."""
        return self.text_column or self.data.get("text")

    @property
    def base(self) -> Base:
        """Properties of the network. A baseline has none."""
        if self.base_or_none is None:
            raise ValueError("a baseline has no network")
        return self.base_or_none

    def with_base(self, **changes: Any) -> "Metadata":
        """Return a copy with changes to its base."""
        return dataclasses.replace(self, base_or_none=dataclasses.replace(self.base, **changes))

    @property
    def is_graph(self) -> bool:
        """Whether the folder holds a graph for onnxruntime instead of weights."""
        return self.format in (config.ExportFormat.onnx, config.ExportFormat.onnx_int8)

    @property
    def is_baseline(self) -> bool:
        """Whether the model is logistic regression on n-grams."""
        return bool(self.ngrams)

    @property
    def is_tiny(self) -> bool:
        """Whether the base is the network bundled with the package."""
        return self.base_or_none is not None and bool(self.base_or_none.tiny)

    @property
    def is_gemma(self) -> bool:
        """Whether the model is derived from Gemma's weights, so that Gemma's terms of use apply."""
        base = self.base_or_none
        return base is not None and base.pretrained and not base.tiny and str(base.architecture).startswith("gemma")

    def threshold_tensor(self, protocol: str | None = None) -> Tensor:
        """Thresholds of a protocol (default: the model's own), [label], float64."""
        chosen = self.thresholds[protocol or self.protocol]
        return torch.tensor([chosen[name] for name in self.labels], dtype=torch.float64)

    def group_thresholds(self) -> GroupThresholds | None:
        """Thresholds of groups, or None if they are the same for all rows."""
        return GroupThresholds.from_plain(self.thresholds_by, self.labels) if self.thresholds_by else None

    def scaling(self) -> Scaling | None:
        """Calibration of the logits, or None if they are not calibrated."""
        return from_plain(self.calibration, self.labels)

    def read_intensities(self, *, of_logits: bool = False) -> Intensities | None:
        """How intensities are read from the probabilities that the run answers, or None if it learned none.

        With `of_logits`, how they are read from uncalibrated ones.
        """
        if not self.intensities:
            return None
        found = dict(self.intensities)
        before = found.pop("of_logits", None)
        return Intensities.from_plain(found | ({"cuts": before} if of_logits and before else {}), self.labels)

    def threshold_settings(self) -> config.Thresholds:
        """Settings that the thresholds were fitted with."""
        values = {"by": None, **self.fitting}
        return schema.from_plain(config.SCHEMAS[f"thresholds/{values.pop('option')}"], values)

    def cleaning(self) -> list[config.CleaningStep]:
        """Cleaning steps that are applied to texts."""
        return [config.CleaningStep(step) for step in self.clean]


def _plain(found: Intensities | None, of_logits: Intensities | None, labels: list[str]) -> dict[str, Any]:
    """The entry `intensities` of the metadata."""
    if found is None:
        return {}
    before = None if of_logits is None else of_logits.plain(labels).get("cuts")
    plain = found.plain(labels)
    return plain | ({"of_logits": before} if before is not None and before != plain["cuts"] else {})


def read_metadata(folder: Path) -> Metadata:
    """Read and check the metadata of a model folder.

    Raises:
        UserError: the metadata is missing or damaged, or the folder is not safe to open.
    """
    file = folder / METADATA
    bounded_files.check_folder(folder)
    content = bounded_files.read_json_object(file)
    if isinstance(named := content.get("labels"), list) and len(named) > LABELS:
        raise UserError(f"{file} is damaged: it names {len(named):,} labels, where {LABELS:,} are the most.")
    safe_loading.check_model_folder(folder)
    manifest.check_hashes(folder, "*.json")
    try:
        metadata = _spelled(Metadata.from_plain(content))
        labels.check_names(metadata.labels, str(file))
        _check_numbers(metadata)
        if metadata.is_baseline:
            _check_ngrams(metadata)
        metadata.cleaning()
        metadata.scaling()
        for before in (True, False):
            metadata.read_intensities(of_logits=before)
        metadata.threshold_settings()
        metadata.group_thresholds()
        required = {
            "text_column": isinstance(metadata.text_column, str),
            "max_tokens": type(metadata.max_tokens) is int and 0 < metadata.max_tokens <= 1_000_000,
            # With a part, it is an option of the user's own, which need not be at hand.
            "data": f"data/{metadata.data['option']}" in config.SCHEMAS or "part" in metadata.data,
            "loss": f"loss/{metadata.loss['option']}" in config.SCHEMAS or "part" in metadata.loss,
            "format": not metadata.format or config.ExportFormat(metadata.format) is not config.ExportFormat.space,
            "base": metadata.base_or_none is None or metadata.base_or_none.is_valid(),
            "template": metadata.template is None or metadata.template.length < metadata.max_tokens,
            "long_texts": metadata.long_texts is None or _fits(metadata.long_texts, metadata),
            "context": metadata.context is None or metadata.long_texts is not None,
        }
        wrong = [name for name, right in required.items() if not right]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged or of another version ({error}).") from error
    if wrong:
        raise UserError(f"{file} is damaged: {', '.join(wrong)}.")
    _check_paths(metadata, file)
    return metadata


def _spelled(metadata: Metadata) -> Metadata:
    """Normalise the label names of the metadata, which older versions stored as they are in the data.

    Names that become equal are found by the checks that follow.
    """

    def by_label(values: dict[str, Any]) -> dict[str, Any]:
        return {labels.normalised(label): value for label, value in values.items()}

    return dataclasses.replace(
        metadata,
        labels=[labels.normalised(label) for label in metadata.labels],
        thresholds={protocol: by_label(cuts) for protocol, cuts in metadata.thresholds.items()},
        calibration=by_label(metadata.calibration),
    )


def _fits(long_texts: LongTexts, metadata: Metadata) -> bool:
    """Whether pieces of long texts have room for their overlap, and their special tokens are known."""
    template = metadata.template
    return template is not None and long_texts.overlap < metadata.max_tokens - template.length


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def _check_numbers(metadata: Metadata) -> None:
    """Raise ValueError if thresholds or calibration do not match the labels or are out of range."""
    if unknown := sorted(metadata.thresholds.keys() - set(PROTOCOLS)):
        raise ValueError(f"{unknown[0]} is no protocol of thresholds")
    if metadata.protocol not in metadata.thresholds:
        raise ValueError(f"it has no thresholds of its protocol {metadata.protocol}")
    by_label: dict[str, dict[str, Any]] = dict(metadata.thresholds)
    if metadata.calibration:
        by_label["calibration"] = metadata.calibration
    for name, values in by_label.items():
        if values.keys() != set(metadata.labels):
            raise ValueError(f"{name} is of {len(values)} labels, not of these {len(metadata.labels)}")
    for protocol, cuts in metadata.thresholds.items():
        for label, threshold in cuts.items():
            if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
                raise ValueError(f"the {protocol} threshold of {label} is {threshold!r}, not a number of 0 to 1")
    for label, parts in metadata.calibration.items():
        for part in parts.values():
            if type(part) not in (int, float) or not math.isfinite(part):
                raise ValueError(f"the calibration of {label} holds {part!r}, not a number")


def _check_ngrams(metadata: Metadata) -> None:
    """Raise ValueError if the n-gram lengths of a baseline are impossible."""
    for name, lengths in metadata.ngrams.items():
        pair = isinstance(lengths, list) and len(lengths) == 2 and all(type(length) is int for length in lengths)
        if name not in ngrams.KINDS or not pair or not 1 <= lengths[0] <= lengths[1] <= ngrams.LONGEST:
            raise ValueError(f"its n-grams {name}={lengths} are of no baseline")


def _check_paths(metadata: Metadata, file: Path) -> None:
    """Raise UserError for paths that leave the folder.

    Absolute paths are allowed in a run, which stores those of the machine that trained it, but not in an export.
    """
    base = metadata.base_or_none
    if base is not None and not base.local and not safe_loading.is_hub_id(base.path):
        raise UserError(f"{file} is damaged: its base {base.path!r} is no id of the hub.")
    named = [base.path] if base is not None and base.local else []
    for value in [*named, *(metadata.data[name] for name in run_folder.PATHS if metadata.data.get(name))]:
        if not isinstance(value, str):
            raise UserError(f"{file} is damaged: {value!r} is no path.")
        for given in map(Path, run_folder.parse_list(value)):
            if ".." in given.parts or (metadata.format and given.is_absolute()):
                raise UserError(f"{file} names {given}, which lies outside its folder; it is not opened.")


def find_model_folder(run: str, *, name: str = "run") -> Path:
    """Find the model folder of a run.

    Args:
        run: the run folder, or the model folder itself.
        name: setting that `run` comes from, for messages.

    Raises:
        UserError: there is no such folder, or it has no trained model.
    """
    folder = Path(run).expanduser()
    for candidate in (folder / run_folder.MODEL, folder):
        if (candidate / METADATA).is_file():
            # Callers look for files beside the folder in its .parent, but the parent of "." is "." again.
            return candidate.resolve() if candidate.name in ("", "..") else candidate
    if not folder.is_dir():
        raise UserError(f"{name}={run} is not a folder.")
    unfinished = (folder / run_folder.SETTINGS).exists() and not (folder / run_folder.METRICS).exists()
    if unfinished:
        raise UserError(f"{name}={run} has not finished training; go on with {run_folder.resume_command(folder)}.")
    raise UserError(
        f"{name}={run} has no trained model: it holds neither {run_folder.MODEL}/{METADATA} nor {METADATA}."
    )
