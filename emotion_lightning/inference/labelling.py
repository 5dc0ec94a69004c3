"""Label pieces of rows: from texts to the rows of a prediction file."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from emotion_lightning.data import carried
from emotion_lightning.data.rows import Text, without_context
from emotion_lightning.data.text_pieces import Piece
from emotion_lightning.evaluation import group_thresholds
from emotion_lightning.evaluation.prediction_files import Predicted
from emotion_lightning.models.metadata import Metadata

Decide = Callable[[Iterator[Sequence[Text]]], Iterator[tuple[Tensor, Tensor]]]
"""Yields decisions and probabilities of each piece of texts, [text, label] each."""


def label(pieces: Iterable[Piece], decide: Decide, metadata: Metadata, *, intensities: bool) -> Iterator[Predicted]:
    """Yield the predictions of each piece, with the thresholds of each row's group if the run has them.

    Args:
        pieces: rows; they are read a piece or two ahead.
        decide: labels texts.
        metadata: of the run or the ensemble.
        intensities: whether expected intensities are asked for, which the run has learned.
    """
    by_group, cuts = metadata.group_thresholds(), {metadata.protocol: metadata.threshold_tensor()}
    reading = metadata.read_intensities() if intensities else None
    # Each piece is used twice: its texts are classified, and its ids are written beside the predictions.
    given, beside = itertools.tee(pieces)
    for (decisions, probabilities), piece in zip(decide(piece.texts for piece in given), beside, strict=True):
        if by_group is not None and piece.groups is not None:
            values = carried.values(piece.groups)
            decisions = group_thresholds.decide(probabilities, cuts, by_group, values)[metadata.protocol]
        yield Predicted(
            piece.ids, [without_context(text) for text in piece.texts], decisions, probabilities,
            intensities=None if reading is None else reading.expected(probabilities), kept=piece.kept,
        )  # fmt: skip


def kept_types(names: Sequence[str], schema: Any) -> dict[str, Any]:
    """Type of each column that is written beside the predictions; None, for text, where it is not known.

    Args:
        names: of the columns.
        schema: schema of the parquet file that they come from; None for other files.
    """
    from emotion_lightning.data.labels import normalised

    types = {} if schema is None else {normalised(field.name): field.type for field in schema}
    return {name: types.get(name) for name in names}
