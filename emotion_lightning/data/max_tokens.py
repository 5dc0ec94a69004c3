"""data.max_tokens=auto: the smallest number of tokens that is enough for nearly all texts of train."""

import dataclasses
import logging
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.config import checks
from emotion_lightning.data.batches import tokenize
from emotion_lightning.data.long_texts import percent
from emotion_lightning.data.rows import Corpus
from emotion_lightning.data.template import ROOM, Template, read_context, read_template

log = logging.getLogger(__name__)

SHARE = 0.01
"""Share of the texts of train that may be longer than what auto gives."""
MOST = 512
"""Largest number of tokens that auto gives."""
_LEAST = 4
"""Smallest number that data.max_tokens may be."""
_NO_LIMIT = 10**6
"""Numbers from here on are not meant as limits: tokenizers without one have a very large number."""


def auto_tokens(lengths: np.ndarray, *, least: int = _LEAST, positions: int | None = None) -> int:
    """Return the smallest number that cuts at most 1 % of texts of these lengths, within bounds.

    Args:
        lengths: tokens of each text of train, with special tokens and those of the template.
        least: smallest number to return.
        positions: number of tokens that the network has positions for; None if it has no limit.

    >>> auto_tokens(np.arange(1, 201))
    198
    >>> auto_tokens(np.arange(1, 201), positions=128)
    128
    """
    found = int(np.sort(lengths)[len(lengths) - 1 - int(SHARE * len(lengths))])
    return min(max(found, least), MOST, *([] if positions is None else [positions]))


def least(template: Template | None) -> int:
    """Return the smallest number of tokens that leaves room for a text in its template."""
    return _LEAST if template is None else template.length + ROOM


def choose(settings: config.Batches, corpus: Corpus, tokenizer: Any, *, positions: int | None) -> config.Batches:
    """Return data settings with a number in place of max_tokens=auto, and log it.

    Args:
        settings: data settings, with max_tokens=auto.
        corpus: with a split train.
        tokenizer: of the network.
        positions: number of tokens that the network has positions for; None if it is not known.

    Raises:
        UserError: data.batch_tokens is less than a text may then take.
    """
    open_ended = dataclasses.replace(settings, max_tokens=_NO_LIMIT)
    template = read_template(open_ended, corpus.labels, tokenizer)
    lengths = tokenize(
        corpus.splits["train"].inputs, tokenizer, max_tokens=None, clean=settings.clean, template=template,
        context=read_context(settings, tokenizer),
    ).lengths  # fmt: skip
    limit = known_positions(tokenizer, positions)
    found = auto_tokens(lengths, least=least(template), positions=limit)
    longer = float((lengths > found).mean())
    if longer <= SHARE:
        log.info("data.max_tokens=auto is %d: enough for %s of the texts of train.", found, percent(1 - longer))
    else:
        why = "the network has no more positions" if found == limit else "auto gives no more"
        log.info("data.max_tokens=auto is %d: %s.", found, why)
    chosen = dataclasses.replace(settings, max_tokens=found)
    checks.check_token_budget(chosen)
    return chosen


def known_positions(tokenizer: Any, positions: int | None) -> int | None:
    """Return the number of tokens that a text can have, for the network and for its tokenizer; None without a limit."""
    known = [limit for limit in (positions, getattr(tokenizer, "model_max_length", None)) if limit is not None]
    return min((int(limit) for limit in known if limit < _NO_LIMIT), default=None)
