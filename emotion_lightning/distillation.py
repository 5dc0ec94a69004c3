"""Learning from finished runs: what they say of the training texts stands beside the labels."""

import logging
from collections.abc import Sequence

import numpy as np

from emotion_lightning import average, checkpoint, config, predictor
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
        UserError: a teacher is no finished run, or lacks a label of this one.
    """
    assert settings.runs is not None and rows.targets is not None
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
    taught = cache.arrays(name, ask, settings=data, fits=fits)["probabilities"][:, own]
    mixed = (1 - settings.weight) * rows.targets + settings.weight * taught
    return np.asarray(mixed, dtype=np.float32)


_SETTING = "distill.runs"


def _print_of(run: str) -> list[str]:
    """What tells a trained model from another one: its weights and its card."""
    folder = checkpoint.model_folder(run, name=_SETTING)
    return [files.sha256(file) for file in sorted([*folder.glob("*.safetensors"), folder / checkpoint.CARD])]
