"""Model folders: save and load a trained network in a form that PEFT and transformers load on their own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from emotion_lightning import config
from emotion_lightning.config import redaction
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import adapter, backbone, ngrams, pooling, safe_loading
from emotion_lightning.models.device import compute_dtype
from emotion_lightning.models.metadata import METADATA, Metadata
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.files import follow_umask, write_json

log = logging.getLogger(__name__)


def save_model(folder: Path, network: Any, *, tokenizer: Any, metadata: Metadata, readme: str) -> None:
    """Write a model folder: adapter or whole network, tokenizer, metadata and README.

    Args:
        folder: where it is written.
        network: a PEFT model, of which only the adapter is saved, or a whole network.
        tokenizer: the network's tokenizer.
        metadata: metadata.
        readme: content of README.md.
    """
    from peft import PeftModel

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, PeftModel):
        base = Path(metadata.base.path)
        network.peft_config["default"].base_model_name_or_path = redaction.hide_secrets(
            str(base.resolve()) if base.is_dir() else metadata.base.path
        )
        network.peft_config["default"].revision = metadata.base.revision
        network.save_pretrained(folder, save_embedding_layers=False)
    else:
        save_whole(folder, network)
    save_metadata(folder, tokenizer=tokenizer, metadata=metadata, readme=readme)
    manifest.write_hashes(folder)
    follow_umask(*(file for file in folder.iterdir() if file.is_file()))


def save_ngrams(folder: Path, classifier: ngrams.NgramClassifier, *, metadata: Metadata) -> None:
    """Write the model folder of a baseline: its classifier and metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    classifier.save(folder)
    write_json(folder / METADATA, metadata.plain())
    manifest.write_hashes(folder)


def save_whole(folder: Path, network: Any) -> None:
    """Write config.json and the weights of a whole network."""
    if hasattr(network.config, "auto_map"):
        del network.config.auto_map  # names code of the base, which is never run
    network.save_pretrained(folder)


def save_metadata(folder: Path, *, tokenizer: Any, metadata: Metadata, readme: str) -> None:
    """Write the files beside the weights: tokenizer, metadata and README."""
    tokenizer.init_kwargs.pop("auto_map", None)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(redaction.hide_secrets(readme), encoding="utf-8")
    write_json(folder / METADATA, metadata.plain())


def load_model(folder: Path, *, metadata: Metadata, device: torch.device) -> tuple[Any, Any]:
    """Load the network, in evaluation mode, and the tokenizer of a model folder.

    Raises:
        UserError: the folder is damaged, or holds an ONNX graph instead of weights.
    """
    with damaged_as_user_error(folder):
        loaded = _load_model(folder, metadata=metadata, device=device)
    manifest.log_unlisted(folder)
    return loaded


@contextmanager
def damaged_as_user_error(folder: Path) -> Iterator[None]:
    """Turn errors that libraries raise on a damaged folder into a UserError."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise many kinds of errors for a missing or truncated file
        raise UserError(f"{folder} is damaged: {first_line(error)}") from error


def _load_model(folder: Path, *, metadata: Metadata, device: torch.device) -> tuple[Any, Any]:
    whole = not metadata.base.adapter
    if metadata.is_graph:
        raise UserError(f"{folder} holds a graph for onnxruntime and no weights; take another export, or the run.")
    tokenizer = load_tokenizer(folder)
    compute = compute_dtype(metadata.base.dtype, device)
    check_weights(folder, metadata)
    path = str(folder) if whole else base_path(folder, metadata)
    network = load_base(
        path, metadata=metadata, quantization=metadata.base.quantization, compute=compute,
        dtype=torch.float32 if whole and not metadata.format else compute,
        pad_token_id=tokenizer.pad_token_id, device=device,
    )  # fmt: skip
    backbone.keep_in_range(network, compute)
    if metadata.template is not None:
        backbone.check_vocabulary(network, metadata.template.largest_token, what="A token of the template")
    if not whole:
        network = load_adapter(network, folder)
    pooling.shorten_last_layer(network, metadata.base.pooling, dtype=compute)
    return network.eval(), tokenizer


def check_weights(folder: Path, metadata: Metadata) -> None:
    """Raise UserError if the weights are missing, are not safetensors, or have a head for other labels."""
    if metadata.base.adapter:
        safe_loading.load_weights(folder, "adapter_config.json")
        first = safe_loading.load_weights(folder, "adapter_model.safetensors")
    else:
        safe_loading.load_weights(folder, "config.json")
        first = safe_loading.whole_network(folder)
    files = [first] if first.suffix != ".json" else [folder / part for part in sorted(safe_loading.weight_files(first))]
    sizes = set()
    for file in files:
        with damaged_as_user_error(folder), safe_open(file, framework="pt") as stored:
            safe_loading.check_dtypes(file, stored)
            heads = [name for name in stored.keys() if metadata.base.head[-1] in name.split(".")]  # noqa: SIM118
            sizes |= {stored.get_slice(name).get_shape()[0] for name in heads if name.endswith("weight")}
    if len(metadata.labels) not in sizes:
        raise UserError(
            f"{folder} is damaged: its metadata names {len(metadata.labels)} labels, its head has "
            f"{' and '.join(map(str, sorted(sizes))) or 'no'} outputs."
        )


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model folder and set it to pad on the right."""
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json"):
        safe_loading.load_weights(folder, name)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(
    path: str,
    *,
    metadata: Metadata,
    quantization: config.Quantization,
    compute: torch.dtype,
    dtype: torch.dtype,
    pad_token_id: int,
    device: torch.device,
) -> Any:
    """Load the network that the metadata describes, without its adapter.

    Args:
        path: folder or hub id.
        metadata: metadata of the model folder.
        quantization: quantization of the weights.
        compute: compute dtype.
        dtype: dtype of the weights.
        pad_token_id: padding token of the tokenizer.
        device: device of the network.
    """
    kernel = metadata.base.attn_implementation
    return backbone.load_network(
        path,
        revision=None if Path(path).is_dir() else metadata.base.revision,
        quantization=quantization,
        dtype=dtype,
        head=metadata.base.head,
        kept=metadata.base.kept,
        attention=metadata.base.attention,
        attn_implementation=backbone.attention_kernel(kernel, device, compute, max_tokens=metadata.max_tokens),
        labels=metadata.labels,
        pad_token_id=pad_token_id,
        device=device,
    )


def load_adapter(network: Any, folder: Path) -> Any:
    """Load the adapter of a model folder onto its base."""
    from peft import PeftModel, get_peft_model_state_dict

    safe_loading.load_weights(folder, "adapter_model.safetensors")  # PEFT would load a pickle instead
    manifest.check_hashes(folder, "adapter_model.safetensors")
    with adapter.norms_are_known():
        network = PeftModel.from_pretrained(network, str(folder))
    trained = get_peft_model_state_dict(network, save_embedding_layers=False)
    _check_whole(trained, folder)
    _load_in_float32(network, trained, folder)
    adapter.keep_dtype(network)
    return network


def _load_in_float32(network: Any, trained: dict[str, torch.Tensor], folder: Path) -> None:
    """Load trained weights as they were trained where PEFT has rounded them to the dtype of the base.

    peft 0.21 does so with norms (`peft=ln_tuning`) on a bfloat16 base (issue 21).
    """
    from peft import set_peft_model_state_dict

    rounded = {value.data_ptr() for value in trained.values() if value.dtype in (torch.bfloat16, torch.float16)}
    if not rounded:
        return
    for parameter in network.parameters():
        if parameter.data_ptr() in rounded:
            parameter.data = parameter.data.float()
    set_peft_model_state_dict(network, load_file(folder / "adapter_model.safetensors"))


def _check_whole(trained: dict[str, torch.Tensor], folder: Path) -> None:
    """Raise UserError if the file of an adapter lacks a tensor: PEFT would keep an untrained one without an error."""
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        missing = trained.keys() - set(stored.keys())
    if missing:
        raise UserError(f"{folder} is damaged: adapter_model.safetensors lacks {min(missing)}.")


def base_path(folder: Path, metadata: Metadata) -> str:
    """Find the base of an adapter.

    An export has its base inside its folder. The base of a run is at the stored path, beside the model folder if the
    run was moved, or on the hub.

    Returns:
        A folder or a hub id.

    Raises:
        UserError: the base is missing, damaged, or a link to another place.
    """
    if metadata.format and metadata.base.local:
        safe_loading.load_weights(folder / run_folder.BASE, "config.json")
        safe_loading.check_model_folder(folder / run_folder.BASE)
        safe_loading.whole_network(folder / run_folder.BASE)
        return str(folder / run_folder.BASE)
    saved = Path(metadata.base.path)
    beside = [folder.parent / run_folder.BASE, folder / run_folder.BASE, folder.parent / saved.name]
    # For a run's own base, the stored path comes last: it may hold the base of another run by now.
    places = [saved, *beside] if metadata.base.pretrained and not metadata.is_tiny else [*beside, saved]
    for place in places:
        if (place / "config.json").is_file():
            if place != saved:
                safe_loading.check_location(folder, place)
            safe_loading.check_base(place)
            return str(place)
    if metadata.base.local:
        raise UserError(
            f"The base model of {folder} is neither at {saved} nor beside it ({folder.parent / run_folder.BASE}); copy "
            "it there."
        )
    return metadata.base.path
