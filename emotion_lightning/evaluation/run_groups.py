"""Finished runs: found in folders, read and checked, put into groups that differ in nothing but seed and fold."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotion_lightning import terminal
from emotion_lightning.config import stored_settings
from emotion_lightning.data.labels import normalised
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import bootstrap, row_outcomes, thresholds
from emotion_lightning.runs import bounded_files, manifest, run_folder

log = logging.getLogger(__name__)

_DEPTH = 4
_IMMATERIAL = re.compile(
    r"seed|resume|from_run|logger(\..+)?|predict\..+|data\.(fold|splits|workers)"
    r"|trainer\.(checkpoint_.+|progress_bar)"
)
"""Settings that runs of one group may differ in: what is averaged over, and what changes no result. data.splits is the
file of an earlier run in runs that repeat it; that the rows are the same is checked on the rows."""


@dataclass
class FinishedRun:
    """What a comparison takes from a run.

    Attributes:
        folder: of the run.
        settings: those that matter to its results, options included, by dotted name.
        seed: of the run.
        protocol: whose thresholds decided.
        labels: names.
        ids: of the rows.
        truth: gold, [row, label].
        parts: what each row adds to the metrics, as `comparison.summands` has it.
        cost: of its metrics.json.
    """

    folder: Path
    settings: dict[str, Any]
    seed: int | None
    protocol: str
    labels: list[str]
    ids: list[str]
    truth: np.ndarray
    parts: bootstrap.Array
    cost: dict[str, Any]


# --------------------------------------------------------------------------------------------------------------- found


def find(runs: str) -> tuple[list[Path], list[str]]:
    """Folders of the finished runs that a setting names, and why others below it are left out.

    Raises:
        UserError: something named holds no finished run.
    """
    finished: dict[Path, Path] = {}
    left_out: list[str] = []
    for named in run_folder.listed(runs):
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise UserError(f"runs={runs}: {named} is not a folder; give run folders as [A,B], or a folder of runs.")
        found = 0
        for candidate in _candidates(folder, _DEPTH):
            why = _why_left_out(candidate)
            if why is None:
                finished.setdefault(candidate.resolve(), candidate)
                found += 1
            elif candidate == folder:
                raise UserError(f"runs={runs}: {why}; leave it out.")
            else:
                left_out.append(why)
        if not found:
            more = "".join(f"\n{why}" for why in left_out)
            raise UserError(f"runs={runs}: {named} holds no finished run, {_DEPTH} folders deep.{more}")
    if not finished:
        raise UserError(f"runs={runs} names no run; give run folders as [A,B], or a folder of runs.")
    return list(finished.values()), left_out


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    """Folders in which a run was started, and not what lies in them."""
    if any((folder / name).exists() for name in (run_folder.METRICS, run_folder.SETTINGS, "train.log", "baseline.log")):
        yield folder
    elif depth:
        for below in sorted((below for below in folder.iterdir() if below.is_dir()), key=run_folder.by_number):
            terminal.know_names(below.name)
            yield from _candidates(below, depth - 1)


def _why_left_out(folder: Path) -> str | None:
    if not (folder / run_folder.METRICS).exists():
        return f"{folder} is not finished"
    if not (folder / run_folder.SETTINGS).exists():
        return f"{folder} is no run of train or baseline (it has no {run_folder.SETTINGS})"
    return None


# ---------------------------------------------------------------------------------------------------------------- read


def read(folders: Sequence[Path], *, split: str, protocol: str | None) -> list[FinishedRun]:
    """The runs in these folders; UserError where one cannot be compared with the first.

    Args:
        folders: of finished runs.
        split: which rows are compared.
        protocol: which thresholds decide; None: those of each run's own `thresholds`.
    """
    runs: list[FinishedRun] = []
    for folder in folders:
        runs.append(_read(folder, split=split, protocol=protocol, like=runs[0].labels if runs else None))
    first = runs[0]
    if others := [run for run in runs if run.ids != first.ids or not np.array_equal(run.truth, first.truth)]:
        hint = " Folds validate each on rows of its own; compare them on test." if split == "validation" else ""
        raise UserError(
            f"Runs are compared on the same rows with the same labels, but on {split} "
            + ", ".join(str(run.folder) for run in others)
            + f" scored other rows, or with other gold labels, than {first.folder}; leave them out.{hint}"
        )
    return runs


def _read(folder: Path, *, split: str, protocol: str | None, like: list[str] | None) -> FinishedRun:
    manifest.check_run(folder, run_folder.SETTINGS, run_folder.METRICS)
    tree = run_folder.read_settings(folder)
    content = bounded_files.read_json(folder / run_folder.METRICS)
    if split not in content:
        raise UserError(f"{folder} has no scores of {split}; choose another split=, or leave it out.")
    protocol = protocol or _own_protocol(folder, tree)
    try:
        scores = content[split][protocol]
        cuts = {normalised(name): float(values["threshold"]) for name, values in scores["labels"].items()}
        told = np.array([float(scores[metric.value]) for metric in bootstrap.METRICS])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / run_folder.METRICS} is damaged or of another version ({error!r}).") from error
    labels = list(cuts) if like is None else like
    if set(labels) != set(cuts):
        raise UserError(
            f"{folder} has the labels {', '.join(cuts)}, where the first run has {', '.join(labels)}; only runs with "
            "the same labels can be compared."
        )
    rows = row_outcomes.read(folder, split, labels)
    if rows is None or rows.targets is None:
        raise UserError(
            f"{folder} keeps no labelled {run_folder.OUTCOMES}/{split}.parquet, from which runs are compared; make the "
            f"run again with from_run={folder}, or leave it out."
        )
    cut = torch.tensor([cuts[name] for name in labels], dtype=torch.float64)
    truth = rows.targets.bool().numpy()
    parts = bootstrap.summands(thresholds.decide(rows.probabilities, cut).numpy(), truth)
    _check(folder, split, protocol, told=told, found=bootstrap.scores([parts])[0])
    return FinishedRun(
        folder, _material(tree), tree.get("seed"), protocol, labels, rows.ids, truth, parts, content.get("cost", {})
    )


def _own_protocol(folder: Path, tree: dict[str, Any]) -> str:
    option = tree["options"].get("thresholds")
    if option in thresholds.PROTOCOLS:
        return str(option)
    # An option file of the user's own; the model's card knows what it is.
    card = folder / run_folder.MODEL / "emotion_lightning.json"
    own = bounded_files.read_json(card).get("protocol") if card.is_file() else None
    if own not in thresholds.PROTOCOLS:
        raise UserError(f"{folder} has thresholds={option}, which tells no protocol; choose one with protocol=…")
    return str(own)


def _check(folder: Path, split: str, protocol: str, *, told: np.ndarray, found: np.ndarray) -> None:
    for metric, one, other in zip(bootstrap.METRICS, told, found, strict=True):
        if not abs(one - other) < 1e-9:
            raise UserError(
                f"{folder}: by {run_folder.OUTCOMES}/{split}.parquet its {metric.value} is {other:.6f} ({protocol} "
                f"thresholds), by {run_folder.METRICS} {one:.6f}; the two are not of one run. Leave it out."
            )


def _material(tree: dict[str, Any]) -> dict[str, Any]:
    """Options and settings that matter to results, by dotted name."""
    settings = {**tree["options"], **dict(stored_settings.leaves({k: v for k, v in tree.items() if k != "options"}))}
    return {name: value for name, value in settings.items() if not _IMMATERIAL.fullmatch(name)}


# -------------------------------------------------------------------------------------------------------------- groups


def group(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs with the same settings under a name made of what the groups differ in."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        # Null is as good as unset: earlier versions lacked some settings, which are null unless used.
        chosen = {name: value for name, value in run.settings.items() if value is not None}
        groups.setdefault(json.dumps(chosen, sort_keys=True, default=str), []).append(run)
    settings = [members[0].settings for members in groups.values()]
    return dict(zip(names(settings), groups.values(), strict=True))


def names(groups: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each group of settings: what differs between them, options before what follows from them.

    >>> names([{"model": "tiny", "peft": "ia3", "peft.lr": 1.0}, {"model": "tiny", "peft": "head", "peft.lr": 0.1}])
    ['peft=ia3', 'peft=head']
    """
    short = [_name(settings, groups, full=False) for settings in groups]
    return short if len(set(short)) == len(short) else [_name(settings, groups, full=True) for settings in groups]


def _name(settings: dict[str, Any], groups: Sequence[dict[str, Any]], *, full: bool) -> str:
    trained = "model" in settings
    alike = [other for other in groups if ("model" in other) == trained]
    shown = []
    for name in dict.fromkeys(name for other in alike for name in other):
        # lr=3 of one method and lr=1 of another follow from the method, which is named.
        option, dot, _ = name.partition(".")
        peers = [other for other in alike if not dot or other.get(option) == settings.get(option)]
        if len({json.dumps(other.get(name), default=str) for other in peers}) > 1:
            shown.append(f"{name}={_plain(settings.get(name, 'unset'), full=full)}")
    if trained and not shown:
        shown = [f"model={settings['model']}", f"peft={settings.get('peft')}"]
    return " ".join(shown if trained else ["baseline", *shown])


def _plain(value: Any, *, full: bool) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ",".join(_plain(part, full=full) for part in value) + "]"
    text = f"{value:g}" if isinstance(value, float) and not full else str(value)
    return Path(text).name if not full and Path(text).is_absolute() else text
