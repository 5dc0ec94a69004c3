"""Checks on a model folder before a library opens it: a folder from elsewhere may hold data but no code.

Weights are read from safetensors (or an ONNX graph), everything else from JSON. transformers and PEFT fall back to
pickles, which can run code when they are opened, and accept names of modules, kernels and files from JSON.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from emotion_lightning import terminal
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.runs import bounded_files

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CODE = ("_target_", "auto_map", "custom_pipelines")
"""JSON keys that name code to run: one of Hydra, two of transformers."""
_CONFIG = (
    "attn_implementation",  # may name a kernel on the hub, which would be downloaded and run
    "experts_implementation",
    "use_kernels",
    "fusion_config",  # replaces modules
    "transformers_weights",  # names the file of the weights, which may be a pickle
    # Imports the package of the quantization method. Saved weights are not quantised; the metadata says how to do it.
    "quantization_config",
)
_METHODS = ("IA3", "LORA", "VERA", "LN_TUNING")
_FURTHER = ("LOHA", "LOKR", "OFT", "BOFT", "HRA", "FOURIERFT", "VBLORA", "ROAD", "MISS", "RANDLORA", "DELORA")
"""Methods for parts of the user's own. Their fields that are numbers choose sizes and seeds, and no file or code."""
_OF_METHODS = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "target_modules",
    "feedforward_modules",
    "fan_in_fan_out",  # of GPT-2's layers, which store their weights the other way round
    "modules_to_save",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "vera_dropout",
    "projection_prng_key",
    "peft_version",
}
"""Fields that our methods set in adapter_config.json; every other field must have PEFT's default value."""


def check_model_folder(folder: Path) -> None:
    """Raise UserError if a model folder has links that leave it, or JSON that names code or files elsewhere."""
    _check_links(folder)
    for file in sorted(folder.glob("*.json")):
        if file.name == "tokenizer.json":
            continue  # read by the tokenizers library, which runs no code from it
        content = bounded_files.read_json_object(file)
        for key, value in _entries(content):
            if key in _CODE and value:
                raise UserError(f"{file} names code to run ({key}), which no model folder may; it is not opened.")
        _CHECKS.get(file.name, lambda *_: None)(file, content)


def check_base(folder: Path) -> None:
    """Raise UserError if a folder cannot be a base: it holds an adapter, lacks weights or is damaged.

    Unlike a model folder, a base on this machine may name code, because that code is never run.
    """
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds an adapter (adapter_config.json) and can be the base of none.")
    whole_network(folder)
    check_size(folder)


def check_architecture(architecture: Any, path: str) -> None:
    """Raise UserError if a transformers configuration names a kernel on the hub or a file of weights.

    Args:
        architecture: the configuration.
        path: where it comes from, for the message.
    """
    if getattr(architecture, "transformers_weights", None):
        raise UserError(f"{path} names a file of weights (transformers_weights), which is not read.")
    for name in ("attn_implementation", "experts_implementation"):
        kernel = getattr(architecture, f"_{name}", None)
        if kernel is not None and not re.fullmatch(r"\w+", str(kernel)):
            raise UserError(
                f"{path} asks for the kernel {terminal.one_line(str(kernel))} ({name}), which would be downloaded and "
                "run."
            )


def check_location(folder: Path, base: Path) -> None:
    """Raise UserError if the base beside a model folder is a link to another place."""
    if not base.resolve().is_relative_to(folder.resolve().parent):
        raise UserError(f"{base} is a link that leaves the run's folder; put what it links to in its place.")


def load_weights(folder: Path, *names: str) -> Path:
    """Return the first of these files that exists in a folder, never a pickle.

    Raises:
        UserError: the folder has none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if pickles := sorted(file.name for file in folder.glob("*") if file.suffix in _PICKLES):
        raise UserError(
            f"{folder} has no {names[0]}, only {pickles[0]}: a pickle may run any code when it is opened and is never "
            "read. Ask for safetensors, or convert it where you trust it."
        )
    raise UserError(f"{folder} is damaged: {names[0]} is missing.")


def whole_network(folder: Path) -> Path:
    """Path of a whole network's weights, or of the index of their parts."""
    return load_weights(folder, "model.safetensors", "model.safetensors.index.json")


def check_dtypes(file: Path, tensors: Any) -> None:
    """Raise UserError if weights are not floating point: saved weights are never quantised.

    Args:
        file: the file of the weights, for the message.
        tensors: that file, opened with `safetensors.safe_open`.
    """
    for name in tensors.keys():  # noqa: SIM118 (no mapping)
        dtype = tensors.get_slice(name).get_dtype()
        if name.endswith(("weight", "bias")) and not dtype.startswith(("F", "BF")):
            raise UserError(f"{file} is damaged: {name} holds numbers of type {dtype}, where floating point is due.")


def check_size(folder: Path) -> None:
    """Raise UserError if config.json has more layers than the weights have tensors.

    transformers creates all layers before it reads weights, which would take forever with a wrong number of layers.
    """
    content = bounded_files.read_json_object(load_weights(folder, "config.json"))
    file = whole_network(folder)
    files = [file] if file.suffix != ".json" else [folder / part for part in sorted(weight_files(file))]
    tensors = 0
    for part in files:
        try:
            with safe_open(part, framework="pt") as opened:
                check_dtypes(part, opened)
                tensors += len(opened.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{part} is damaged: {first_line(error)}") from error
    for name, value in _entries(content):
        if "layers" in name and type(value) is int and value > tensors:
            raise UserError(
                f"{folder / 'config.json'} is damaged: {name} is {value:,}, where the weights have {tensors:,} tensors."
            )


def weight_files(index: Path) -> set[str]:
    """Names of the files in an index of weights; raises UserError unless they lie beside the index."""
    named = bounded_files.read_json_object(index).get("weight_map")
    found = {str(part) for part in named.values()} if isinstance(named, dict) else {""}
    for part in found:
        if not re.fullmatch(r"[\w-]+\.safetensors", part):
            raise UserError(
                f"{index} names {terminal.one_line(part) or 'no file'} as part of the weights; parts are safetensors "
                "beside it."
            )
    return found


def is_hub_id(path: Any) -> bool:
    """Whether a value is a hub id such as google/gemma-1.1-2b-it and not a path."""
    return isinstance(path, str) and bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path)) and ".." not in path


def _check_links(folder: Path) -> None:
    inside = [folder.resolve()]
    # In the hub's cache, every file is a link into a folder of blobs. A base lies inside the model's folder, so the
    # snapshots folder is one or two levels up.
    snapshots = next((parent for parent in list(folder.parents)[:2] if parent.name == "snapshots"), None)
    if snapshots is not None:
        model = snapshots.parent
        # All models in the cache share large files.
        inside += [(model / "blobs").resolve(), (model.parent / "blobs").resolve()]
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not any(path.resolve().is_relative_to(allowed) for allowed in inside):
                raise UserError(f"{path} is a link that leaves the folder; put what it links to in its place.")


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key at any depth, with its value."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_config(file: Path, content: dict[str, Any]) -> None:
    if (file.parent / "adapter_config.json").is_file():
        raise UserError(f"{file.parent} holds both a whole network and an adapter; a model folder is one of them.")
    for key, value in _entries(content):
        if value and key.lstrip("_").removesuffix("_internal") in _CONFIG:
            raise UserError(f"{file} sets {key}, which no model folder may: what computes it is chosen here.")


def _check_tokenizer(file: Path, content: dict[str, Any]) -> None:
    for key, value in content.items():
        if key.endswith("_file") and value and Path(str(value)).name != value:
            raise UserError(f"{file} names a file elsewhere ({terminal.one_line(f'{key}={value}')}).")


def _check_adapter(file: Path, content: dict[str, Any]) -> None:
    check_method(content, str(file))


def check_method(content: dict[str, Any], place: str) -> None:
    """Raise UserError if PEFT might read another file, or run code, for the configuration of a method.

    Args:
        content: of adapter_config.json.
        place: what has it, for messages.
    """
    method = content.get("peft_type")
    if method not in _METHODS + _FURTHER or content.get("task_type") != "SEQ_CLS":
        raise UserError(
            f"{place} is of no method that is opened here: {method} for {content.get('task_type')}. These are: "
            f"{', '.join(_METHODS + _FURTHER)}."
        )
    import peft

    defaults = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method)]()
    for key, value in content.items():
        # PEFT ignores fields that its version does not know.
        is_harmless = key in _OF_METHODS or (method in _FURTHER and isinstance(value, bool | int | float))
        if not is_harmless and hasattr(defaults, key) and value and value != getattr(defaults, key):
            raise UserError(f"{place} sets {key}, which no method of this project does.")


_CHECKS = {
    "config.json": _check_config,
    "tokenizer_config.json": _check_tokenizer,
    "model.safetensors.index.json": lambda file, _: weight_files(file),
    "adapter_config.json": _check_adapter,
}
