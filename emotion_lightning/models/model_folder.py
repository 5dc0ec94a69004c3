"""What is kept of a trained network: a model folder that stock PEFT loads."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from emotion_lightning import config
from emotion_lightning.config import redaction
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import adapter, backbone, ngrams, safe_loading
from emotion_lightning.models.card import CARD, Card
from emotion_lightning.models.device import compute_dtype
from emotion_lightning.models.readme import readme_text
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.files import follow_umask, write_json

log = logging.getLogger(__name__)


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
    follow_umask(*(file for file in folder.iterdir() if file.is_file()))


def save_ngrams(folder: Path, classifier: ngrams.NgramClassifier, *, card: Card) -> None:
    """Write the model folder of a baseline: its classifier and our card."""
    folder.mkdir(parents=True, exist_ok=True)
    classifier.save(folder)
    write_json(folder / CARD, card.__dict__)
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
    (folder / "README.md").write_text(redaction.text(readme_text(card, method, scores)), encoding="utf-8")
    write_json(folder / CARD, card.__dict__)


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
    compute = compute_dtype(config.Dtype(card.base["dtype"]), device)
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
