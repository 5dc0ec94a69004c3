"""Finished runs: find them in folders, read and check them, and group those that differ only in seed and fold."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotion_lightning import config, terminal
from emotion_lightning.config import stored_settings
from emotion_lightning.data.label_map import LabelMap
from emotion_lightning.data.labels import normalised
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import bootstrap, row_outcomes, thresholds
from emotion_lightning.evaluation.gold import hide_open
from emotion_lightning.evaluation.group_thresholds import GroupThresholds
from emotion_lightning.runs import bounded_files, manifest, run_folder
from emotion_lightning.runs.metrics_file import of_protocol, of_split, read_metrics

log = logging.getLogger(__name__)

_DEPTH = 4
_LAYERS, _REUSE = "peft.layers", "frozen.reuse"
_IMMATERIAL = re.compile(
    r"seed|resume|from_run|logger(\..+)?|predict\..+|data\.(fold|groups|splits|workers)"
    r"|frozen\.(memory_gb|disk_gb|folder)"
    r"|trainer\.(checkpoint_.+|progress_bar)"
)
"""Settings that may differ within a group: those that the group averages over, and those that change no result.
data.splits is among them because runs that repeat a split name the file of an earlier run; `read_runs` checks that the
rows are the same."""


@dataclass
class FinishedRun:
    """A finished run, as a comparison needs it.

    Attributes:
        folder: run folder.
        settings: options and settings that affect its results, by dotted name.
        seed: seed of the run; None if it is not known.
        protocol: protocol whose thresholds decide.
        labels: names.
        ids: row ids.
        truth: gold labels, [row, label].
        parts: per-row counts, as returned by `bootstrap.summands`.
        soft: per-row sums, as returned by `bootstrap.soft_summands`; None if the rows have no shares.
        shares: the shares, [row, label]; None without.
        cost: `cost` of its metrics.json.
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
    soft: bootstrap.Array | None = None
    shares: np.ndarray | None = None


# ---------------------------------------------------------------------------------------------------------------- find


def find_runs(runs: str) -> tuple[list[Path], list[str]]:
    """Find the finished runs in the folders that the setting `runs` names.

    Returns:
        Folders of the finished runs, and for each other run found the reason why it is left out.

    Raises:
        UserError: a named folder holds no finished run.
    """
    finished: dict[Path, Path] = {}
    left_out: list[str] = []
    for named in run_folder.parse_list(runs):
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
    """Yield folders in which a run was started; their subfolders are not searched."""
    if any((folder / name).exists() for name in (run_folder.METRICS, run_folder.SETTINGS, "train.log", "baseline.log")):
        yield folder
    elif depth:
        for below in sorted((below for below in folder.iterdir() if below.is_dir()), key=run_folder.by_job_number):
            terminal.know_names(below.name)
            yield from _candidates(below, depth - 1)


def _why_left_out(folder: Path) -> str | None:
    if not (folder / run_folder.METRICS).exists():
        return f"{folder} is not finished"
    if not (folder / run_folder.SETTINGS).exists():
        return f"{folder} is no run of train or baseline (it has no {run_folder.SETTINGS})"
    return None


# ---------------------------------------------------------------------------------------------------------------- read


def read_runs(
    folders: Sequence[Path], *, split: str, protocol: str | None, label_map: LabelMap | None = None
) -> list[FinishedRun]:
    """Read runs and check that they can be compared.

    Args:
        folders: folders of finished runs.
        split: split whose rows are compared.
        protocol: protocol whose thresholds decide; None means that of each run's own `thresholds` setting.
        label_map: how labels of the runs are renamed, merged and left out before they are compared.

    Raises:
        UserError: a run is damaged, lacks the split, or has other labels or rows than the first.
    """
    runs: list[FinishedRun] = []
    label_map = label_map or LabelMap()
    every = {name for folder in folders for name in _labels(folder, split)} if label_map else set()
    for folder in folders:
        like = runs[0].labels if runs else None
        runs.append(_read(folder, split=split, protocol=protocol, like=like, label_map=label_map, every=every))
    first = runs[0]
    if others := [run for run in runs if run.ids != first.ids or not np.array_equal(run.truth, first.truth)]:
        hint = " Folds validate each on rows of its own; compare them on test." if split == "validation" else ""
        raise UserError(
            f"Runs are compared on the same rows with the same labels, but on {split} "
            + ", ".join(str(run.folder) for run in others)
            + f" scored other rows, or with other gold labels, than {first.folder}; leave them out.{hint}"
        )
    if others := [run for run in runs if not _same_shares(run, first)]:
        raise UserError(
            f"{', '.join(str(run.folder) for run in others)} scored other shares on {split} than {first.folder}; leave "
            "them out."
        )
    return runs


def _same_shares(run: FinishedRun, first: FinishedRun) -> bool:
    """Whether two runs have the same shares, as far as both have any."""
    return run.shares is None or first.shares is None or np.array_equal(run.shares, first.shares)


def _labels(folder: Path, split: str) -> list[str]:
    """Labels that a run was scored with; empty if there are none, which reading the run reports."""
    scores = read_metrics(folder).get(split)
    by_label = scores.get("fixed", {}).get("labels") if isinstance(scores, dict) else None
    return [normalised(name) for name in by_label] if isinstance(by_label, dict) else []


def _read(
    folder: Path, *, split: str, protocol: str | None, like: list[str] | None, label_map: LabelMap, every: set[str]
) -> FinishedRun:
    manifest.check_run_hashes(folder, run_folder.SETTINGS)
    content = read_metrics(folder)
    tree = run_folder.read_settings(folder)
    if split not in content:
        raise UserError(f"{folder} has no scores of {split}; choose another split=, or leave it out.")
    protocol = protocol or _own_protocol(folder, tree)
    try:
        scores: dict[str, Any] = {**of_protocol(of_split(content, split), protocol)}
        by_label = {normalised(name): float(values["threshold"]) for name, values in scores["labels"].items()}
        stored = of_split(content, split).get("thresholds_by")
        by_group = None if stored is None else GroupThresholds.from_plain(dict(stored), list(by_label))
        reported = np.array([float(scores[metric.value]) for metric in bootstrap.METRICS])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / run_folder.METRICS} is damaged or of another version ({error!r}).") from error
    own = list(by_label)
    mapped = label_map.applied(own, what=str(folder), also=("another run", every))
    labels = mapped.names if like is None else like
    if set(labels) != set(mapped.names):
        raise UserError(
            f"{folder} has the labels {', '.join(mapped.names)}, where the first run has {', '.join(labels)}; only "
            f"runs with the same labels can be compared. {_how_to_unite(mapped.names, labels)}"
        )
    rows = row_outcomes.read_outcomes(folder, split, own)
    if rows is None or rows.targets is None:
        raise UserError(
            f"{folder} keeps no labelled {run_folder.OUTCOMES}/{split}.parquet, from which runs are compared; make the "
            f"run again with from_run={folder}, or leave it out."
        )
    threshold = torch.tensor(list(by_label.values()), dtype=torch.float64)
    if by_group is not None and rows.groups is not None:
        threshold = by_group.of_rows({protocol: threshold}, rows.groups)[protocol]
    gold = rows.targets.bool()
    probabilities = hide_open(rows.probabilities, rows.known)
    parts = bootstrap.summands(thresholds.decide(probabilities, threshold).numpy(), gold.numpy())
    _check(folder, split, protocol, reported=reported, found=bootstrap.scores([parts])[0])
    members = [mapped.members[mapped.names.index(name)] for name in labels]
    truth = thresholds.any_of(gold, members).numpy()
    parts = bootstrap.summands(thresholds.decide_any(probabilities, threshold, members).numpy(), truth)
    return FinishedRun(
        folder,
        _material(tree),
        tree.get("seed"),
        protocol,
        labels,
        rows.ids,
        truth,
        parts,
        dict(content.get("cost", {})),
        *_soft(rows, members),
    )


def _soft(
    rows: row_outcomes.RowOutcomes, members: Sequence[Sequence[int]]
) -> tuple[bootstrap.Array | None, np.ndarray | None]:
    """What soft metrics are computed from, and the shares; None if there are no shares, or labels were united."""
    if rows.shares is None or any(len(own) > 1 for own in members):
        return None, None
    order = [own[0] for own in members]
    known = None if rows.known is None else rows.known[:, order]
    shares = rows.shares[:, order]
    answered = rows.probabilities if rows.expected is None else rows.expected
    return bootstrap.soft_summands(answered[:, order], shares, known), shares.numpy()


def _how_to_unite(ours: Sequence[str], first: Sequence[str]) -> str:
    alone = sorted(set(ours) ^ set(first))
    return (
        f"data.merge, or an option of mapping, unites labels; data.drop_labels=[{','.join(alone[:5])}"
        f"{',…' if len(alone) > 5 else ''}] leaves out what only one of them has."
    )


def _own_protocol(folder: Path, tree: dict[str, Any]) -> str:
    option = tree["options"].get("thresholds")
    if option in thresholds.PROTOCOLS:
        return str(option)
    # The option file is the user's own; the metadata of the model names its protocol.
    metadata = folder / run_folder.MODEL / "emotion_lightning.json"
    own = bounded_files.read_json(metadata).get("protocol") if metadata.is_file() else None
    if own not in thresholds.PROTOCOLS:
        raise UserError(f"{folder} has thresholds={option}, which tells no protocol; choose one with protocol=…")
    return str(own)


def _check(folder: Path, split: str, protocol: str, *, reported: np.ndarray, found: np.ndarray) -> None:
    for metric, one, other in zip(bootstrap.METRICS, reported, found, strict=True):
        if not abs(one - other) < 1e-9:
            raise UserError(
                f"{folder}: by {run_folder.OUTCOMES}/{split}.parquet its {metric.value} is {other:.6f} ({protocol} "
                f"thresholds), by {run_folder.METRICS} {one:.6f}; the two are not of one run. Leave it out."
            )


def _material(tree: dict[str, Any]) -> dict[str, Any]:
    """Options and settings that affect results, by dotted name."""
    settings = {**tree["options"], **dict(stored_settings.stored_values(tree))}
    if settings.get(_LAYERS) == config.ALL:
        del settings[_LAYERS]  # runs of earlier versions have no such setting, and adapt all layers
    if _LAYERS not in settings and settings.get("peft") != "head":
        settings.pop(_REUSE, None)  # no layer is frozen as a whole
    return {name: value for name, value in settings.items() if not _IMMATERIAL.fullmatch(name)}


# -------------------------------------------------------------------------------------------------------------- groups


def group_runs(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Group runs with the same settings; the name of a group lists the settings in which the groups differ."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        # Treat null as unset: runs of earlier versions lack some settings, which are null by default.
        chosen = {name: value for name, value in run.settings.items() if value is not None}
        groups.setdefault(json.dumps(chosen, sort_keys=True, default=str), []).append(run)
    settings = [members[0].settings for members in groups.values()]
    return dict(zip(group_names(settings), groups.values(), strict=True))


def group_names(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Name each group by the settings that differ between groups; a setting that follows from an option is left out.

    >>> group_names([{"model": "tiny", "peft": "ia3", "peft.lr": 1.0}, {"model": "tiny", "peft": "head"}])
    ['peft=ia3', 'peft=head']
    """
    short = [_name(settings, groups, full=False) for settings in groups]
    return short if len(set(short)) == len(short) else [_name(settings, groups, full=True) for settings in groups]


def _name(settings: dict[str, Any], groups: Sequence[dict[str, Any]], *, full: bool) -> str:
    trained = "model" in settings
    alike = [other for other in groups if ("model" in other) == trained]
    shown = []
    for name in dict.fromkeys(name for other in alike for name in other):
        # Compare a setting only between groups with the same option: lr=3 of one method and lr=1 of another follow
        # from the method, which is in the name already.
        option, dot, _ = name.partition(".")
        peers = [other for other in alike if not dot or other.get(option) == settings.get(option)]
        if name == _REUSE:  # which only networks have of which whole layers are frozen
            peers = [other for other in peers if name in other] if name in settings else []
        if len({json.dumps(other.get(name), default=str) for other in peers}) > 1:
            absent = config.ALL if name == _LAYERS else "unset"
            shown.append(f"{name}={_plain(settings.get(name, absent), full=full)}")
    if trained and not shown:
        shown = [f"model={settings['model']}", f"peft={settings.get('peft')}"]
    return " ".join(shown if trained else ["baseline", *shown])


def _plain(value: Any, *, full: bool) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        some = list(value) if full else list(value)[:3]
        shown = [f"{key}:{_plain(value[key], full=full)}" if full else key for key in some]
        return "{" + ",".join(shown) + (",…" if len(some) < len(value) else "") + "}"
    if isinstance(value, list):
        return "[" + ",".join(_plain(part, full=full) for part in value) + "]"
    text = f"{value:g}" if isinstance(value, float) and not full else str(value)
    return Path(text).name if not full and Path(text).is_absolute() else text
