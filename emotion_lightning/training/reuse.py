"""Compute what is frozen once: decide whether a training does, and put the states of the texts into its batches."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.data import states
from emotion_lightning.errors import UserError
from emotion_lightning.models import frozen

if TYPE_CHECKING:
    from emotion_lightning.data.module import EmotionData

log = logging.getLogger(__name__)


def reuse_frozen(
    settings: config.Train, network: Any, emotions: "EmotionData", *, head: list[str], dtype: torch.dtype
) -> frozen.FrozenPart | None:
    """Find the frozen part of a network, compute it once for all texts, and give the states to the batches.

    If the states can be kept nowhere, the batches have none, and the part is computed in each step without dropout, so
    that the run trains the same network in any case.

    Args:
        settings: of the run.
        network: with its adapter, in training mode. Dropout of the part is turned off.
        emotions: the texts.
        head: names of the modules of the head.
        dtype: compute dtype.

    Returns:
        None if the network is trained as a whole in each step, as always.

    Raises:
        UserError: `frozen.reuse=always`, but there is no such part.
    """
    always = settings.frozen.reuse is config.Reuse.always
    if settings.frozen.reuse is config.Reuse.never or (not always and not _pays(settings, emotions)):
        return None
    batch = _on(emotions.first_batch(8), network)
    part = frozen.frozen_part(network, batch, head=head, way=settings.model.pooling, dtype=dtype)
    if part is None:
        if always:
            raise UserError(
                "frozen.reuse=always, but no layer is known to be frozen as a whole: something is trained in the "
                "lowest one, or this architecture cannot start above it. Set peft.layers=upper_half, choose peft=head, "
                "or set frozen.reuse=auto."
            )
        return None
    if not all(part.is_exact(some) for some in (batch, _on(emotions.first_batch(2), network))):
        log.warning(
            "%s started at %s does not give the logits of the whole network, so the frozen layers are computed in each "
            "step.", type(network).__name__, part.describe(),
        )  # fmt: skip
        return None
    part.without_dropout()
    part.shorten()
    texts = states.Texts(emotions.tokens)
    start = time.perf_counter()
    found = states.obtain(
        texts,
        lambda some: part.states(_on(some, network)),
        network=part.fingerprint(),
        is_pooled=part.is_pooled,
        pad_token_id=emotions.tokenizer.pad_token_id,
        place=_place(settings.frozen),
    )
    if found is not None:
        log.info(
            "What is frozen below %s is computed once, without dropout: %s states of %s texts (%.1f MB, %s, %.1f s). "
            "frozen.reuse=never computes it in each step.",
            part.describe(), f"{len(found.values):,}", f"{len(texts.tokens):,}", found.values.nbytes / 1e6,
            "in a file" if found.file else "in memory", time.perf_counter() - start,
        )  # fmt: skip
        emotions.start_from(states.splits_of(found, texts, list(emotions.tokens)))
    return part


def _pays(settings: config.Train, emotions: "EmotionData") -> bool:
    """Whether a training reads its texts at least twice.

    It depends on settings and data only, so that a resumed run decides the same.
    """
    limits = settings.trainer
    if settings.data.long_texts is config.LongTexts.windows:
        return False
    if (
        limits.strategy is config.Strategy.fsdp
        or limits.compile
        or limits.limit_train_batches is not None
        or isinstance(settings.peft, config.Full)
    ):
        return False
    steps = limits.max_steps
    epochs = limits.max_epochs
    if steps is not None:
        epochs = min(epochs, steps * limits.accumulate_grad_batches // emotions.batches_in_epoch)
    return epochs >= 2


def _place(settings: config.Frozen) -> states.Place:
    from platformdirs import user_cache_path

    folder = user_cache_path("emotion_lightning") / "frozen" if settings.folder is None else Path(settings.folder)
    return states.Place(folder.expanduser(), memory=settings.memory_gb * 1e9, disk=settings.disk_gb * 1e9)


def _on(batch: dict[str, Any], network: Any) -> dict[str, Any]:
    device = next(network.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
