"""Learning from probabilities: what finished runs, or a file, say of the training texts stands beside the labels."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from numpy.typing import NDArray

from emotion_lightning import average, checkpoint, config, manifest, predictor, run_folder
from emotion_lightning.data import cache, files
from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError
from emotion_lightning.labels import Targets

log = logging.getLogger(__name__)

_VERSION = "1"
"""Changes with what an entry of the cache holds."""


def targets(
    rows: Rows,
    labels: Sequence[str],
    settings: config.Distillation,
    *,
    data: config.Batches,
    accelerator: config.Accelerator,
) -> Targets:
    """What the network learns of each text, [row, label], float32.

    The labels, and the mean probability that the teachers give, mixed by the teachers' weight. As binary cross-entropy
    is linear in its target, that is the sum of the two losses of Hinton et al. (2015), at a temperature of 1: with
    several labels a text, probabilities are soft already.

    Args:
        rows: of the training split.
        labels: of this run.
        settings: who teaches, and how much it counts.
        data: where the teachers' answers are kept for the next run on the same texts.
        accelerator: what the teachers run on.

    Raises:
        UserError: a teacher is no finished run, or lacks a label of this one; a file lacks a text or a label, or holds
            what is no probability.
    """
    assert rows.targets is not None
    if settings.answers is not None:
        taught = _of_file(settings.answers, rows, labels)
    else:
        taught = _of_runs(settings, rows, labels, data=data, accelerator=accelerator)
    mixed = (1 - settings.weight) * rows.targets + settings.weight * taught
    return np.asarray(mixed, dtype=np.float32)


def _of_runs(
    settings: config.Distillation,
    rows: Rows,
    labels: Sequence[str],
    *,
    data: config.Batches,
    accelerator: config.Accelerator,
) -> NDArray[np.float32]:
    """The mean probability that the runs give, [row, label]."""
    assert settings.runs is not None
    runs = average.members(settings.runs, name=_SETTING)
    card = average.card(runs, name=_SETTING)
    if missing := [name for name in labels if name not in card.labels]:
        raise UserError(
            f"{_SETTING}={settings.runs} knows nothing of {', '.join(missing)}: it was trained on "
            f"{', '.join(card.labels)}. Its labels must include all of this run's."
        )
    own = [card.labels.index(name) for name in labels]

    def ask() -> cache.Arrays:
        log.info(
            "%d run%s the %s training texts.", len(runs), " labels" if len(runs) == 1 else "s label", f"{len(rows):,}"
        )
        teacher = predictor.open_runs(runs, card, accelerator=accelerator.value)
        return {"probabilities": teacher.probabilities(rows.texts).numpy()}

    def fits(found: cache.Arrays) -> bool:
        return found["probabilities"].shape == (len(rows), len(card.labels))

    name = cache.name_of(rows.texts, "teachers", _VERSION, *map(_print_of, runs))
    return cache.arrays(name, ask, settings=data, fits=fits)["probabilities"][:, own]


def _of_file(name: str, rows: Rows, labels: Sequence[str]) -> NDArray[np.float32]:
    """The probabilities that a file holds for the texts, [row, label]."""
    path = Path(name).expanduser()
    wanted = {text: i for i, text in enumerate(dict.fromkeys(rows.texts))}
    found = np.full((len(wanted), len(labels)), np.nan, dtype=np.float32)
    column: str | None = None
    if path.parent.name == run_folder.PREDICTIONS:
        manifest.check_run(path.parent.parent, f"{run_folder.PREDICTIONS}/{path.name}")
    for row, record in files.records(path):
        if column is None:
            column = files.text_column(path, list(record), None)
            if missing := [label for label in labels if f"p_{label}" not in record]:
                raise UserError(
                    f"distill.answers={name} has no column p_{missing[0]}; it needs one for each label of this run."
                )
        place = wanted.get(str(record[column]))
        if place is not None:
            found[place] = [_share(record[f"p_{label}"], path, row, f"p_{label}") for label in labels]
    for text, place in wanted.items():
        if np.isnan(found[place]).any():
            raise UserError(
                f"distill.answers={name} has no row for the training text {shorten(text, 60)!r}; it needs one for each."
            )
    return found[[wanted[text] for text in rows.texts]]


def _share(cell: object, path: Path, row: int, column: str) -> float:
    try:
        share = float(str(cell))
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(f"{path}, row {row}, column {column}: {cell!r} is no probability, from 0 to 1.")
    return share


_SETTING = "distill.runs"


def _print_of(run: str) -> list[str]:
    """What tells a trained model from another one: its weights, its card, and the list of its base's files."""
    folder = checkpoint.model_folder(run, name=_SETTING)
    bases = [place / run_folder.BASE / manifest.NAME for place in (folder, folder.parent)]
    known = [folder / checkpoint.CARD, *(file for file in bases if file.is_file())]
    return [files.sha256(file) for file in sorted([*folder.glob("*.safetensors"), *known])]
