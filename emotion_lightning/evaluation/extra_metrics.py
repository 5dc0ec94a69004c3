"""Metrics of the user's own, beside those of the program."""

import logging
import math
from collections.abc import Mapping

from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import own_parts
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import thresholds

log = logging.getLogger(__name__)


def extra_scores(
    settings: config.ExtraMetric, probabilities: Tensor, targets: Tensor, threshold: Tensor, labels: list[str],
    *, decisions: Tensor | None = None,
) -> dict[str, float]:  # fmt: skip
    """The user's own metrics of a split, by name; empty without such.

    Args:
        settings: of the group `extra_metric`.
        probabilities: [row, label]; calibrated if those of the program are.
        targets: multi-hot, [row, label].
        threshold: thresholds of the protocol that decides, [label].
        labels: names.
        decisions: [row, label], where they do not follow from the thresholds.

    Raises:
        UserError: the function returns something else than a number or numbers by name.
    """
    if not isinstance(settings, own_parts.OwnPart):
        return {}
    found = own_parts.build(
        settings,
        probabilities=probabilities,
        decisions=thresholds.decide(probabilities, threshold) if decisions is None else decisions,
        targets=targets.bool(),
        labels=list(labels),
    )
    by_name = found if isinstance(found, Mapping) else {settings.origin.option: found}
    try:
        numbers = {str(name): float(value) for name, value in by_name.items()}
    except (TypeError, ValueError) as error:
        raise UserError(
            f"extra_metric={settings.origin.option}: {settings.part} must return a number, or numbers by name: {error}."
        ) from error
    if lost := [name for name, number in numbers.items() if not math.isfinite(number)]:
        log.warning("extra_metric=%s: %s is not finite, and left out.", settings.origin.option, ", ".join(lost))
    return {name: number for name, number in numbers.items() if math.isfinite(number)}
