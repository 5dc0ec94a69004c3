"""What a finished run came to, compared with that of another, bit by bit."""

import json
from pathlib import Path
from typing import Any

import torch


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """Trained parameters in a checkpoint of a run."""
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)[
        "state_dict"
    ]
    return state


def differences(whole: Path, parts: Path) -> list[str]:
    """What differs between two runs: the last and the best parameters, the model, thresholds, metrics, predictions."""
    found = []
    for name in ("last", "best"):
        one, other = weights(whole, name), weights(parts, name)
        if one.keys() != other.keys():
            found.append(f"the parameters in {name}.ckpt")
        found += [f"{key} in {name}.ckpt" for key in one.keys() & other.keys() if not torch.equal(one[key], other[key])]
    places = [folder / "metrics.json" for folder in (whole, parts)]
    first, second = (_metrics(place) for place in places)
    found += [f"{name} in metrics.json" for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    first, second = (_read(folder / "model" / "emotion_lightning.json") for folder in (whole, parts))
    found += [f"{name} of the card" for name in ("labels", "thresholds", "calibration") if first[name] != second[name]]
    for pattern in ("model/*.safetensors", "predictions/*", "outcomes/*", "splits.csv"):
        names = {file.relative_to(folder) for folder in (whole, parts) for file in folder.glob(pattern)}
        found += [str(name) for name in sorted(names) if _bytes(whole / name) != _bytes(parts / name)]
    return found


def same_end(whole: Path, parts: Path) -> None:
    """Bit by bit: everything in which two runs with the same settings must agree."""
    assert differences(whole, parts) == []


def _metrics(file: Path) -> dict[str, Any]:
    content = _read(file)
    cost = content.pop("cost")
    return {**content, "trained parameters": cost["trainable_parameters"]}


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
