"""Ensembles: find the member runs, and fit the thresholds of their mean probabilities."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion_lightning.data.conversations import Context
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import group_thresholds, row_outcomes, thresholds
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.models import backbone
from emotion_lightning.models.hub import fetch_run
from emotion_lightning.models.metadata import Metadata, find_model_folder, read_metadata
from emotion_lightning.runs import run_folder

log = logging.getLogger(__name__)


def find_members(run: str | Path | Sequence[str | Path] | None, *, name: str = "run") -> list[str]:
    """Return the folders of the runs in `run`; runs on the hub are downloaded.

    Args:
        run: one run, several, or the folder of a multirun. None: the classifier bundled with the package.
        name: the setting that holds `run`, for error messages.

    Raises:
        UserError: `run` names no run.
    """
    if run is None:
        return [str(backbone.BUNDLED_RUN)]
    given = [run] if isinstance(run, str | Path) else list(run)
    found = [fetch_run(one) for part in given for one in run_folder.expand_runs(str(part))]
    if not found:
        raise UserError(f"{name}={run} names no run.")
    return found


def context_of(runs: Sequence[str]) -> Context | None:
    """Return which turns the runs read before a text, as many as one of them does; None if all read texts alone.

    Raises:
        UserError: they take the turns from different columns.
    """
    return _shared_context([read_metadata(find_model_folder(run)) for run in runs])


def _shared_context(cards: Sequence[Metadata]) -> Context | None:
    found = [card.context for card in cards if card.context is not None]
    if not found:
        return None
    if other := next((one for one in found if one.used != found[0].used), None):
        raise UserError(
            f"The runs take the turns before a text from different columns, {', '.join(found[0].used)} and "
            f"{', '.join(other.used)}: they cannot be averaged."
        )
    return max(found, key=lambda context: context.turns)


def combined_metadata(runs: Sequence[str], *, name: str = "run") -> Metadata:
    """Return the metadata of a run or of an ensemble; no network is loaded.

    The thresholds of an ensemble are fitted on validation probabilities. If all runs validated on the same rows, their
    mean is used. If no two runs share a row, as with cross-validation folds, the rows are concatenated. Otherwise the
    thresholds are the mean of the runs' thresholds, and a warning is logged.

    Raises:
        UserError: the runs have different labels.
    """
    folders = [find_model_folder(run, name=name) for run in runs]
    cards = [read_metadata(folder) for folder in folders]
    first = cards[0]
    if len(cards) == 1:
        return first
    for run, other in zip(runs, cards, strict=True):
        if set(other.labels) != set(first.labels):
            raise UserError(
                f"{run} has the labels {', '.join(other.labels)}, {runs[0]} has {', '.join(first.labels)}: they cannot "
                "be averaged."
            )
    log.info("The probabilities of %d runs are averaged: %s.", len(runs), ", ".join(runs))
    rows = [row_outcomes.read_outcomes(folder.parent, "validation", first.labels) for folder in folders]
    columns = {card.thresholds_by.get("column") for card in cards}
    by_group: dict[str, Any] = {}
    found = _pooled([part for part in rows if part is not None and part.targets is not None], len(rows))
    if found is None:
        log.warning(
            "The runs validated on other rows, or keep no outcomes: the average takes the mean of their thresholds."
        )
        orders = [[other.labels.index(name) for name in first.labels] for other in cards]
        by_protocol = {
            name: torch.stack(
                [other.threshold_tensor(name)[order] for other, order in zip(cards, orders, strict=True)]
            ).mean(0)
            for name in first.thresholds
        }
    else:
        probabilities, gold, groups = found
        fitting = first.threshold_settings()
        by_protocol = thresholds.fit_thresholds(probabilities, gold.labels, fitting, known=gold.known)
        of_groups = group_thresholds.fit(
            probabilities, gold.labels, fitting, values=groups if len(columns) == 1 else None, overall=by_protocol,
            known=gold.known,
        )  # fmt: skip
        by_group = {} if of_groups is None else of_groups.plain(first.labels)
    if columns != {None} and not by_group:
        log.warning(
            "The thresholds of groups cannot be fitted for the average: the runs have them by different columns, or "
            "their validation rows are not at hand. The overall ones decide."
        )
    return dataclasses.replace(
        first,
        context=_shared_context(cards),
        intensities=_shared_intensities(cards),
        thresholds_by=by_group,
        thresholds={
            name: dict(zip(first.labels, threshold.tolist(), strict=True)) for name, threshold in by_protocol.items()
        },
    )


def _shared_intensities(cards: Sequence[Metadata]) -> dict[str, Any]:
    """How intensities are read from the mean probabilities; empty if the runs learned none, or different ones.

    Cut points are the mean of the runs'.
    """
    first, labels = cards[0], cards[0].labels
    found: dict[str, Any] = {}
    for of_logits in (True, False):
        read = [card.read_intensities(of_logits=of_logits) for card in cards]
        known = [one for one in read if one is not None]
        if len({(one.scale, one.present, one.cuts is None) for one in known}) != 1 or len(known) < len(cards):
            return {}
        orders = [[card.labels.index(name) for name in labels] for card in cards]
        cuts = [one.of_labels(order).cuts for one, order in zip(known, orders, strict=True)]
        given = [one for one in cuts if one is not None]
        if not given:
            return first.intensities
        mean = dataclasses.replace(known[0], cuts=torch.stack(given).mean(0)).plain(labels)
        found = mean if not found else mean | {"of_logits": found["cuts"]}
    return found


def _pooled(rows: list[row_outcomes.RowOutcomes], runs: int) -> tuple[Tensor, Gold, list[str] | None] | None:
    """Return probabilities, [row, label], gold labels to fit thresholds on, and the groups of the rows.

    The groups are None if the outcomes have none. Return None if a run has no stored outcomes, or if the runs share
    only some of their rows.
    """
    if len(rows) < runs:
        return None
    first = rows[0]
    ids = [identifier for part in rows for identifier in part.ids]
    if len(set(ids)) == len(ids):
        known = None
        if any(part.known is not None for part in rows):
            known = torch.cat(
                [
                    torch.ones_like(_targets(part), dtype=torch.bool) if part.known is None else part.known
                    for part in rows
                ]
            )
        gold = Gold(torch.cat([_targets(part) for part in rows]), known=known)
        groups = [group for part in rows for group in part.groups or []]
        return torch.cat([part.probabilities for part in rows]), gold, groups if len(groups) == len(ids) else None
    if all(part.ids == first.ids and _targets(part).equal(_targets(first)) for part in rows):
        gold = Gold(_targets(first), known=first.known)
        return torch.stack([part.probabilities.double() for part in rows]).mean(0).float(), gold, first.groups
    return None


def _targets(rows: row_outcomes.RowOutcomes) -> Tensor:
    assert rows.targets is not None
    return rows.targets
