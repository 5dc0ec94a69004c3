"""What is kept of a trained network: a model folder that stock PEFT loads."""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import redaction, schema
from emotion_lightning.data import labels
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.evaluation import thresholds
from emotion_lightning.evaluation.calibration import Scaling, from_plain
from emotion_lightning.models import adapter, backbone, ngrams, safe_loading, stock_code
from emotion_lightning.reports import pages
from emotion_lightning.runs import bounded_files, manifest, run_folder

log = logging.getLogger(__name__)

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


def save_model(folder: Path, network: Any, *, tokenizer: Any, card: Card, method: str, scores: str) -> None:
    """Write the model folder: adapter or whole network, tokenizer, our card and the README that hubs show."""
    from peft import PeftModel

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, PeftModel):
        base = Path(card.base["path"])
        network.peft_config["default"].base_model_name_or_path = redaction.text(
            str(base.resolve()) if base.is_dir() else card.base["path"]
        )
        network.peft_config["default"].revision = card.base["revision"]
        network.save_pretrained(folder, save_embedding_layers=False)
    else:
        save_whole(folder, network)
    save_words(folder, tokenizer=tokenizer, card=card, method=method, scores=scores)
    manifest.write(folder)
    run_folder.follow_umask(*(file for file in folder.iterdir() if file.is_file()))


def save_ngrams(folder: Path, classifier: ngrams.NgramClassifier, *, card: Card) -> None:
    """Write the model folder of a baseline: its classifier and our card."""
    folder.mkdir(parents=True, exist_ok=True)
    classifier.save(folder)
    run_folder.write_json(folder / CARD, card.__dict__)
    manifest.write(folder)


def save_whole(folder: Path, network: Any) -> None:
    """Write config.json and weights of a whole network."""
    if hasattr(network.config, "auto_map"):
        del network.config.auto_map  # code that its base came with, which is never run
    network.save_pretrained(folder)


def save_words(folder: Path, *, tokenizer: Any, card: Card, method: str, scores: str) -> None:
    """Write what stands beside the weights: tokenizer, our card and the README that hubs show."""
    tokenizer.init_kwargs.pop("auto_map", None)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(redaction.text(_readme(card, method, scores)), encoding="utf-8")
    run_folder.write_json(folder / CARD, card.__dict__)


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


def model_folder(run: str, *, name: str = "run") -> Path:
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


def load_model(folder: Path, *, card: Card, device: torch.device) -> tuple[Any, Any]:
    """Network in evaluation mode and tokenizer of a model folder, or a UserError that names what is damaged."""
    with damage_told(folder):
        loaded = _load_model(folder, card=card, device=device)
    manifest.tell_unlisted(folder)
    return loaded


@contextmanager
def damage_told(folder: Path) -> Iterator[None]:
    """Turn what libraries say of a damaged folder into a UserError."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries raise errors of many kinds for a file that is missing or cut
        raise UserError(f"{folder} is damaged: {first_line(error)}") from error


def _load_model(folder: Path, *, card: Card, device: torch.device) -> tuple[Any, Any]:
    whole = not card.base["adapter"]
    if card.is_graph:
        raise UserError(f"{folder} holds a graph for onnxruntime and no weights; take another export, or the run.")
    tokenizer = load_tokenizer(folder)
    compute = backbone.compute_dtype(config.Dtype(card.base["dtype"]), device)
    check_weights(folder, card)
    path = str(folder) if whole else base_path(folder, card)
    network = load_base(
        path, card=card, quantization=config.Quantization(card.base["quantization"]), compute=compute,
        dtype=torch.float32 if whole and not card.format else compute,
        pad_token_id=tokenizer.pad_token_id, device=device,
    )  # fmt: skip
    backbone.keep_in_range(network, compute)
    if not whole:
        network = put_adapter(network, folder)
    return network.eval(), tokenizer


def check_weights(folder: Path, card: Card) -> None:
    """Raise UserError where a model folder lacks the weights of its card, in a form that is read."""
    if card.base["adapter"]:
        safe_loading.weights(folder, "adapter_config.json")
        first = safe_loading.weights(folder, "adapter_model.safetensors")
    else:
        safe_loading.weights(folder, "config.json")
        first = safe_loading.whole_network(folder)
    files = [first] if first.suffix != ".json" else [folder / part for part in sorted(safe_loading.parts(first))]
    sizes = set()
    for file in files:
        with damage_told(folder), safe_open(file, framework="pt") as stored:
            safe_loading.check_dtypes(file, stored)
            heads = [name for name in stored.keys() if card.base["head"][-1] in name.split(".")]  # noqa: SIM118
            sizes |= {stored.get_slice(name).get_shape()[0] for name in heads if name.endswith("weight")}
    if len(card.labels) not in sizes:
        raise UserError(
            f"{folder} is damaged: its card names {len(card.labels)} labels, its head has "
            f"{' and '.join(map(str, sorted(sizes))) or 'no'} outputs."
        )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder; it pads on the right."""
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json"):
        safe_loading.weights(folder, name)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(
    path: str,
    *,
    card: Card,
    quantization: config.Quantization,
    compute: torch.dtype,
    dtype: torch.dtype,
    pad_token_id: int,
    device: torch.device,
) -> Any:
    """The network that a card is of, without its adapter.

    Args:
        path: folder or hub id.
        card: of the model folder.
        quantization: how weights are held.
        compute: what is computed in.
        dtype: of the weights.
        pad_token_id: of the tokenizer.
        device: where the network goes.
    """
    kernel = config.AttentionKernel(card.base["attn_implementation"])
    return backbone.load(
        path,
        revision=None if Path(path).is_dir() else card.base["revision"],
        quantization=quantization,
        dtype=dtype,
        head=card.base["head"],
        kept=card.base["kept"],
        attention=config.Attention(card.base["attention"]),
        attn_implementation=backbone.attention_kernel(kernel, device, compute, max_tokens=card.max_tokens),
        labels=card.labels,
        pad_token_id=pad_token_id,
        device=device,
    )


def put_adapter(network: Any, folder: Path) -> Any:
    """A base with the adapter of a model folder on it."""
    from peft import PeftModel

    safe_loading.weights(folder, "adapter_model.safetensors")  # PEFT would take a pickle instead
    manifest.check(folder, "adapter_model.safetensors")
    network = PeftModel.from_pretrained(network, str(folder))
    _check_whole(network, folder)
    adapter.keep_dtype(network)
    return network


def _check_whole(network: Any, folder: Path) -> None:
    """Raise UserError where the file of an adapter lacks a tensor: PEFT would go on with one that was never trained."""
    from peft import get_peft_model_state_dict

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        missing = get_peft_model_state_dict(network, save_embedding_layers=False).keys() - set(stored.keys())
    if missing:
        raise UserError(f"{folder} is damaged: adapter_model.safetensors lacks {min(missing)}.")


def base_path(folder: Path, card: Card) -> str:
    """Where the base is now: where it was, or beside a folder that was moved, or on the hub."""
    if card.format and card.base["local"]:
        safe_loading.weights(folder / run_folder.BASE, "config.json")
        safe_loading.check(folder / run_folder.BASE)
        safe_loading.whole_network(folder / run_folder.BASE)
        return str(folder / run_folder.BASE)
    saved = Path(card.base["path"])
    beside = [folder.parent / run_folder.BASE, folder / run_folder.BASE, folder.parent / saved.name]
    # A run's own base lies in its folder: where that was, another run may have put its own by now.
    places = [saved, *beside] if card.base["pretrained"] and not card.is_tiny else [*beside, saved]
    for place in places:
        if (place / "config.json").is_file():
            if place != saved:
                safe_loading.check_place(folder, place)
            safe_loading.check_base(place)
            return str(place)
    if card.base["local"]:
        raise UserError(
            f"The base model of {folder} is neither at {saved} nor beside it ({folder.parent / run_folder.BASE}); copy "
            "it there."
        )
    return card.base["path"]


def _readme(card: Card, method: str, scores: str) -> str:
    base = card.base["path"]
    name = Path(base).name if card.base["local"] else base
    if not card.base["pretrained"]:
        name = f"a {card.base['architecture']} with random weights"
    if card.is_tiny:
        name = "the small network of emotion_lightning"
    library = "onnx" if card.is_graph else "peft" if card.base["adapter"] else "transformers"
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: text-classification",
        "tags: [emotion, multi-label]",
        *([] if card.base["local"] else [f"base_model: {base}"]),
        "---",
        "",
        f"# Emotions in text: {method} on {name}",
        "",
        f"Gives each of {len(card.labels)} emotions a probability; a text may have any number of them.",
        f"Labels: {', '.join(map(pages.line, card.labels))}.",
        "",
        *(_GEMMA_NOTICE if card.is_gemma else _TINY_NOTICE if card.is_tiny else []),
        scores,
        "",
        "```python",
        "from emotion_lightning import load",
        "",
        f'print(load(".").predict(["{stock_code.TEXT}"]))  # "." is this folder: give its path elsewhere',
        "```",
        "",
        f"Decisions use the {card.protocol} thresholds in `{CARD}`, fitted on validation. Texts are cut to",
        f"{card.max_tokens} tokens{' after cleaning: ' + ', '.join(card.clean) if card.clean else ''}.",
        "",
        *_without_project(card),
    ]
    return "\n".join(lines)


def _without_project(card: Card) -> list[str]:
    """How a folder answers without this project, or that it does not."""
    if not card.base["stock"] and not card.is_graph:
        return _OWN_POOLING
    lines = [
        f"Without this project, with {stock_code.needs(card.base, graph=card.is_graph)}:",
        "",
        *stock_block(card, folder='"."  # this folder: give its path elsewhere'),
        "",
        *([] if card.is_graph else [stock_code.IN_FLOAT32, ""]),
    ]
    if not card.is_graph and not card.base["adapter"]:
        lines += [
            f"Or, for raw probabilities by name{f' (calibration is in `{CARD}`)' if card.calibration else ''}:",
            "",
            *stock_code.pipeline('"."', max_tokens=card.max_tokens),
            "",
        ]
    return lines


def stock_block(card: Card, *, folder: str) -> list[str]:
    """Markdown lines with code that loads a model folder without this project; `folder` is the folder as Python."""
    return stock_code.block(
        card.base,
        folder=folder,
        place=_place(card) if card.base["adapter"] else None,
        labels=len(card.labels),
        max_tokens=card.max_tokens,
        graph=card.is_graph,
        calibrated=bool(card.calibration),
    )


def _place(card: Card) -> str:
    """Where the base of an adapter is, as stock code finds it: from the folder, so that both may be moved together."""
    if not card.base["local"]:
        revision = card.base["revision"]
        return json.dumps(card.base["path"]) + (f", revision={json.dumps(revision)}" if revision else "")
    if card.format:
        return f'f"{{folder}}/{run_folder.BASE}"'
    if card.is_tiny or not card.base["pretrained"]:
        return f'f"{{folder}}/../{run_folder.BASE}"'
    return json.dumps(card.base["path"], ensure_ascii=False)


_GEMMA_NOTICE = [
    "This is a Model Derivative of Gemma. Gemma is provided under and subject to the Gemma Terms of Use found at",
    "ai.google.dev/gemma/terms.",
    "",
]


_TINY_NOTICE = [
    "That network has Gemma's architecture and none of its weights: it was trained on GoEmotions (Demszky et al.,",
    "2020; CC BY 4.0), taught by networks on all-MiniLM-L6-v2 (Apache-2.0).",
    "",
]


_OWN_POOLING = [
    "Load it with this project: transformers' own class for sequence classification pools or attends otherwise, and",
    "would give other probabilities.",
    "",
]
