"""What is kept of a trained network: checkpoints to resume from, and a model folder that stock PEFT loads."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from emotion_lightning import adapter, config, labels, model, run_folder, schema
from emotion_lightning.calibration import Scaling, from_plain
from emotion_lightning.errors import UserError, first_line

CARD = "emotion_lightning.json"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step, and reads it without running code.

    Lightning writes to the system's temporary folder and moves the file: across file systems that is a copy, and a kill
    in the middle leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write beside the old one, then rename."""
        try:
            with run_folder.replacing(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:
            # torch tells of a full disk in words of its writer's.
            if isinstance(error, RuntimeError) and not re.search("StreamWriter|iostream|inline_container", str(error)):
                raise
            kept = " The one before it is untouched." if Path(path).exists() else ""
            reason = getattr(error, "strerror", None) or "the disk is full or the folder cannot be written to"
            raise UserError(
                f"The checkpoint {path} cannot be saved: {reason}.{kept} Free some space and resume."
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain values only."""
        return load(Path(path), map_location=map_location)


def load(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint, or a UserError that names the file."""
    try:
        content = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. {_MEND}") from None
    except Exception as error:  # a damaged file raises errors of zipfile, pickle and torch
        raise UserError(f"{path} is not a whole checkpoint ({first_line(error)}). {_MEND}") from error
    if not isinstance(content, dict) or not {"state_dict", "pytorch-lightning_version"} <= content.keys():
        raise UserError(f"{path} is no checkpoint of this project. {_MEND}")
    return content


_MEND = "Put back a copy of it, or repeat the run with train from_run=FOLDER."


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
        network.peft_config["default"].base_model_name_or_path = (
            str(base.resolve()) if base.is_dir() else card.base["path"]
        )
        network.peft_config["default"].revision = card.base["revision"]
        network.save_pretrained(folder, save_embedding_layers=False)
    else:
        network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(_readme(card, method, scores), encoding="utf-8")
    run_folder.write_json(folder / CARD, card.__dict__)


def read_card(folder: Path) -> Card:
    """The card of a model folder, or a UserError that names what is wrong with it."""
    file = folder / CARD
    content = run_folder.read_json(file)
    try:
        card = Card(**content)
        labels.check(card.labels, str(file))
        for protocol in (*card.thresholds, card.protocol):
            if not bool(torch.isfinite(card.cuts(protocol)).all()):
                raise ValueError(f"a threshold of {protocol} is not finite")
        config.Quantization(card.base["quantization"])
        config.Dtype(card.base["dtype"])
        card.cleaning()
        card.pooling()
        card.scaling()
        card.threshold_settings()
        required = {
            "max_tokens": isinstance(card.max_tokens, int) and card.max_tokens > 0,
            "data": card.data["option"],
            "loss": card.loss["option"],
        }
        wrong = [name for name, right in required.items() if not right]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged or of another version ({error}).") from error
    if wrong:
        raise UserError(f"{file} is damaged: {', '.join(wrong)}.")
    return card


def model_folder(run: str, *, name: str = "run") -> Path:
    """The model folder of a run, given as the run folder or as its model/ in the setting `name`."""
    folder = Path(run).expanduser()
    for candidate in (folder / run_folder.MODEL, folder):
        if (candidate / CARD).is_file():
            return candidate
    if not folder.is_dir():
        raise UserError(f"{name}={run} is not a folder.")
    unfinished = (folder / run_folder.SETTINGS).exists() and not (folder / run_folder.METRICS).exists()
    if unfinished:
        raise UserError(f"{name}={run} has not finished training; go on with {run_folder.resume(folder)}.")
    raise UserError(f"{name}={run} has no trained model: it holds neither {run_folder.MODEL}/{CARD} nor {CARD}.")


def load_model(folder: Path, *, card: Card, device: torch.device) -> tuple[Any, Any]:
    """Network in evaluation mode and tokenizer of a model folder, or a UserError that names what is damaged."""
    try:
        return _load_model(folder, card=card, device=device)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries raise errors of many kinds for a file that is missing or cut
        raise UserError(f"{folder} is damaged: {first_line(error)}") from error


def _load_model(folder: Path, *, card: Card, device: torch.device) -> tuple[Any, Any]:
    from peft import PeftModel
    from transformers import AutoTokenizer

    whole = not card.base["adapter"]
    needed = ["config.json"] if whole else ["adapter_config.json", "adapter_model.safetensors"]
    for name in (*needed, "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is damaged: {name} is missing.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "right"
    compute = model.compute_dtype(config.Dtype(card.base["dtype"]), device)
    kernel = config.AttentionKernel(card.base["attn_implementation"])
    network = model.load(
        str(folder) if whole else base_path(folder, card),
        revision=None if whole else card.base["revision"],
        quantization=config.Quantization(card.base["quantization"]),
        dtype=torch.float32 if whole else compute,
        head=card.base["head"],
        kept=card.base["kept"],
        attention=config.Attention(card.base["attention"]),
        attn_implementation=model.attention_kernel(kernel, device, compute, max_tokens=card.max_tokens),
        labels=card.labels,
        pad_token_id=tokenizer.pad_token_id,
        device=device,
    )
    model.keep_in_range(network, compute)
    if not whole:
        network = PeftModel.from_pretrained(network, str(folder))
        _check_whole(network, folder)
        adapter.keep_dtype(network)
    return network.eval(), tokenizer


def _check_whole(network: Any, folder: Path) -> None:
    """Raise UserError where the file of an adapter lacks a tensor: PEFT would go on with one that was never trained."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        missing = get_peft_model_state_dict(network, save_embedding_layers=False).keys() - set(stored.keys())
    if missing:
        raise UserError(f"{folder} is damaged: adapter_model.safetensors lacks {min(missing)}.")


def base_path(folder: Path, card: Card) -> str:
    """Where the base is now: where it was, or beside a folder that was moved, or on the hub."""
    saved = Path(card.base["path"])
    beside = [folder.parent / run_folder.BASE, folder / run_folder.BASE, folder.parent / saved.name]
    # Random weights lie in the run's own folder: where that was, another run may have put its own by now.
    places = [saved, *beside] if card.base["pretrained"] else [*beside, saved]
    for place in places:
        if (place / "config.json").is_file():
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
    adapter_only = method != "full"
    lines = [
        "---",
        f"library_name: {'peft' if adapter_only else 'transformers'}",
        "pipeline_tag: text-classification",
        "tags: [emotion, multi-label]",
        *([] if card.base["local"] else [f"base_model: {base}"]),
        "---",
        "",
        f"# Emotions in text: {method} on {name}",
        "",
        f"Gives each of {len(card.labels)} emotions a probability; a text may have any number of them.",
        f"Labels: {', '.join(card.labels)}.",
        "",
        *(_GEMMA_NOTICE if card.base["pretrained"] and card.base["architecture"].startswith("gemma") else []),
        scores,
        "",
        "```python",
        "from emotion_lightning import load",
        "",
        'load("this folder").predict(["I never thought they would come."])',
        "```",
        "",
        f"Decisions use the {card.protocol} thresholds in `{CARD}`, fitted on validation. Texts are cut to",
        f"{card.max_tokens} tokens{' after cleaning: ' + ', '.join(card.clean) if card.clean else ''}.",
        "",
        *(_stock_loading(card, base) if adapter_only and card.base["stock"] else []),
        *([] if card.base["stock"] else _OWN_POOLING),
    ]
    return "\n".join(lines)


_GEMMA_NOTICE = [
    "This is a Model Derivative of Gemma. Gemma is provided under and subject to the Gemma Terms of Use found at",
    "ai.google.dev/gemma/terms.",
    "",
]


_OWN_POOLING = [
    "Load it with this project: transformers' own class for sequence classification pools or attends otherwise, and",
    "would give other probabilities.",
    "",
]


def _stock_loading(card: Card, base: str) -> list[str]:
    options = {
        "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
        f"llm_int8_skip_modules={card.base['kept']})",
        "int8": f"BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules={card.base['kept']})",
        "none": "None",
    }
    return [
        "Without this project (the sigmoid of the logits is the probability):",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig",
        "",
        "base = AutoModelForSequenceClassification.from_pretrained(",
        f'    "{base}",',
        f"    num_labels={len(card.labels)},",
        f"    quantization_config={options[card.base['quantization']]},",
        ")",
        'model = PeftModel.from_pretrained(base, "this folder").eval()',
        "```",
        "",
    ]
