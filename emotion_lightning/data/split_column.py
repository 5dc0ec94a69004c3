"""A column of a file that says of each row whether it belongs to train, validation or test."""

import logging
from collections.abc import Callable
from pathlib import Path

from emotion_lightning import config
from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import as_text
from emotion_lightning.data.rows import SPLITS, Chunk
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

NONE = "none"
"""Value of data.split_column that leaves such a column aside."""

_NAMES = ("split", "splits", "fold", "set", "partition", "subset", "data_split", "dataset_split", "usage")
_VALUES = {
    "train": "train", "training": "train", "trn": "train", "tr": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "development": "validation", "trial": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test",
}  # fmt: skip
"""Usual values, each with the split that it means."""


def find(path: Path, seen: Survey, settings: config.DividedTable) -> str | None:
    """Name of the column of splits: that of the settings, or one with a usual name and usual values; None without one.

    Raises:
        UserError: the column of the settings does not exist, or has another value than the usual ones.
    """
    wanted = settings.split_column
    if wanted is not None and wanted != NONE:
        files.check_column(path, wanted, seen.names, example="data.split_column={}")
        if unknown := _unknown(seen, wanted):
            raise UserError(
                f"{path}, column {wanted}: {unknown} names no split; data.split_column takes train, validation and "
                "test, also as dev, val, training and the like."
            )
        if "train" not in names(seen, wanted):
            raise UserError(f"{path}, column {wanted}: no row belongs to train.")
        return wanted
    if wanted == NONE:
        return None
    used = {settings.text, settings.id_column, settings.labels_column, *(settings.labels or [])}
    for name in seen.names:
        if name.lower().replace(" ", "_") not in _NAMES or name in used or seen.is_blank(name):
            continue
        if settings.splits is not None:
            log.info("%s, column %s: left aside, because data.splits says which row is in which split.", path, name)
        elif _unknown(seen, name) or "train" not in names(seen, name) or len(names(seen, name)) < 2:
            log.warning(
                "%s, column %s: left aside, because its values do not name train, validation and test (%s). The rows "
                "are split anew.", path, name, files.listed(list(seen.values.get(name, {"…": 0}))[:5]),
            )  # fmt: skip
        else:
            return name
    return None


def names(seen: Survey, column: str) -> list[str]:
    """The splits that a column names, train first."""
    found = {_VALUES.get(value.casefold()) for value in seen.values.get(column, {})}
    return [name for name in SPLITS if name in found]


def of_split(column: str, name: str) -> Callable[[Chunk], list[bool]]:
    """Return a function that says for each row of a chunk whether it belongs to a split."""
    return lambda chunk: [
        _VALUES.get((as_text(cell) or "").strip().casefold()) == name for cell in chunk.column(column)
    ]


def _unknown(seen: Survey, column: str) -> str | None:
    """A value that names no split; None if there is none."""
    values = seen.values.get(column)
    if values is None:
        return repr(seen.first.get(column))
    if seen.blank[column]:
        return "an empty cell"
    return next((repr(value) for value in values if value.casefold() not in _VALUES), None)
