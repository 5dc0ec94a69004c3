"""Warm start: copy the trained weights of an earlier run, and the head's rows for labels that both runs have."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import backbone, model_folder, safe_loading
from emotion_lightning.models.hub import fetch_run
from emotion_lightning.models.metadata import Metadata, find_model_folder, read_metadata
from emotion_lightning.runs import manifest

log = logging.getLogger(__name__)


def start_from_run(network: Any, run: str, *, settings: config.Train, labels: list[str], base_folder: Path) -> None:
    """Copy the trained weights of an earlier run into a network.

    Args:
        network: as `adapter.attach_adapter` returns it.
        run: the earlier run's folder, its model folder, or its name on the hub.
        settings: of this run.
        labels: label names of this run. Rows of the output layer are copied for labels that the earlier run has too;
            the others keep their initial values.
        base_folder: where the base model of this run is saved if its weights are random or bundled with the package.

    Raises:
        UserError: the earlier run has no weights (a baseline or an ONNX graph), or its method, base model or shapes
            differ from this run's.
    """
    folder = find_model_folder(fetch_run(run, setting="init_from"), name="init_from")
    metadata = read_metadata(folder)
    full = isinstance(settings.peft, config.Full)
    if metadata.is_baseline:
        raise UserError(f"init_from={run} is a baseline, which has no weights of a network; give a run of train.")
    if metadata.is_graph:
        raise UserError(
            f"init_from={run} holds a graph for onnxruntime and no weights; take another export, or the run."
        )
    if full == metadata.base.adapter:
        mend = (
            f"model.path={folder} puts an adapter on its weights"
            if not full
            else "train with the peft option of that run, or start from a run of peft=full"
        )
        raise UserError(
            f"init_from={run} was trained with {'peft=full' if not full else 'an adapter'}, this run "
            f"{'is not' if not full else 'is of peft=full'}: {mend}."
        )
    if not full:
        _check_base(metadata, folder, run, settings, base_folder)
    if differing := _read_otherwise(metadata, settings.data):
        log.warning(
            "init_from=%s saw its texts with %s, which this run does otherwise: its weights may help less.",
            run, " and ".join(differing),
        )  # fmt: skip
    own = _trained(network, full=full)
    theirs = _stored(folder, full=full)
    heads = {name for name in own if backbone.head_modules(settings.model)[-1] in name.split(".")}
    values = {name: theirs[name] for name in own.keys() & theirs.keys() - heads}
    if missing := sorted(own.keys() - theirs.keys()):
        raise UserError(
            f"init_from={run} has no {missing[0]}, which this run trains ({len(missing)} such in all); it was trained "
            "with another peft option, targets, model.pooling or model."
        )
    surplus = sorted(theirs.keys() - own.keys())
    if surplus and not full:
        raise UserError(f"init_from={run} has {surplus[0]}, which this run does not train; take the same peft option.")
    for name, value in values.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"init_from={run}: {name} has shape {tuple(value.shape)} there and {tuple(own[name].shape)} here; it "
                "is of another model or of other peft settings."
            )
    known = [name for name in labels if name in metadata.labels]
    with torch.no_grad():
        for name in sorted(heads):
            _copy_head(own[name], theirs[name], here=labels, there=metadata.labels)
        for name, value in values.items():
            own[name].copy_(value)
    log.info(
        "Starts from %s: %d tensors, and the output of %d of %d labels%s.",
        run, len(values), len(known), len(labels), f" ({', '.join(known)})" if 0 < len(known) < len(labels) else "",
    )  # fmt: skip


def _read_otherwise(metadata: Metadata, data: config.Batches) -> list[str]:
    """Return the settings of the earlier run with which the network saw other texts than it does now."""
    here = schema.plain(data)
    there = {"template": None, "question": None, "clean": []} | metadata.data
    here["clean"], there["clean"] = sorted(here["clean"]), sorted(there["clean"])  # their order changes nothing
    names = ["template", *(["question"] if there["template"] == here["template"] == config.CHAT else []), "clean"]
    return [f"data.{name}={there[name]}" for name in names if there[name] != here[name]]


def _copy_head(own: Tensor, value: Tensor, *, here: list[str], there: list[str]) -> None:
    """Copy a tensor of the head: the output layer label by label, another layer as a whole if the shapes are equal."""
    if own.shape[1:] == value.shape[1:] and (len(own), len(value)) == (len(here), len(there)):
        for row, name in enumerate(here):
            if name in there:
                own[row].copy_(value[there.index(name)])
    elif own.shape == value.shape:
        own.copy_(value)


def _check_base(metadata: Metadata, folder: Path, run: str, settings: config.Train, base_folder: Path) -> None:
    theirs = Path(model_folder.base_path(folder, metadata))
    if settings.model.pretrained != metadata.base.pretrained:
        same = False
    elif backbone.has_own_base(settings.model):
        head = backbone.head_modules(settings.model)[-1]
        same = _fingerprint(base_folder, head) == _fingerprint(theirs, head)
    else:
        here = Path(settings.model.path).expanduser()
        same = here.resolve() == theirs.resolve() if here.exists() else settings.model.path == metadata.base.path
        if not same and metadata.format and here.is_dir() and theirs.is_dir():  # an export has a copy of its base model
            same = _fingerprint(here, backbone.head_modules(settings.model)[-1]) == _fingerprint(
                theirs, backbone.head_modules(settings.model)[-1]
            )
    if not same:
        raise UserError(
            f"init_from={run} is an adapter on {metadata.base.path}, this run's base is another; give the same "
            "model.path"
            + ("" if settings.model.pretrained else " (random weights: the same seed and model.architecture)")
            + "."
        )


def _fingerprint(base: Path, head: str) -> str:
    """Return a fingerprint of a network's weights without its head, whose size depends on the labels."""
    from safetensors import safe_open

    total = hashlib.sha256()
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                if head not in name.split("."):
                    total.update(name.encode() + tensors.get_tensor(name).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _trained(network: Any, *, full: bool) -> dict[str, Tensor]:
    if full:
        return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(network, save_embedding_layers=False)


def _stored(folder: Path, *, full: bool) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    values: dict[str, Tensor] = {}
    if full:
        safe_loading.whole_network(folder)
    else:
        safe_loading.load_weights(folder, "adapter_model.safetensors")
    manifest.check_hashes(folder, "*.safetensors")
    try:
        for file in sorted(folder.glob("model*.safetensors" if full else "adapter_model.safetensors")):
            values |= load_file(file)
    except Exception as error:  # safetensors has an error class of its own
        raise UserError(f"{folder} is damaged: {first_line(error)}") from error
    return values
