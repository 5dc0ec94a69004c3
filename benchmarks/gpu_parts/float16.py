"""Training in float16, as a GPU without bfloat16 must, on weights that leave float16's range."""

import argparse
import contextlib
import time
from typing import Any
from unittest import mock

import numpy as np
import torch
import training

from gpu_parts import log, subject

LIMIT = 16e9
"""Bytes that a T4 has."""


def fp16(asked: argparse.Namespace, told: log.Log) -> None:
    """The scaler's history and the losses beside bfloat16's; then plain float16, which must end with a message."""
    steps = asked.fp16_steps
    losses = {
        "float16": _run(asked, told, "float16", steps),
        "bfloat16": _run(asked, told, "bfloat16", max(8, steps // 3)),
    }
    both = min(map(len, losses.values()))
    if both:
        apart = np.abs(losses["float16"][:both] - losses["bfloat16"][:both])
        told.tell("fp16", compared_steps=both, mean_difference=round(float(apart.mean()), 5),
                  largest_difference=round(float(apart.max()), 5))  # fmt: skip
    _run(asked, told, "float16", 8, plain=True)


def _run(asked: argparse.Namespace, told: log.Log, dtype: str, number: int, *, plain: bool = False) -> np.ndarray:
    """Losses of the first steps: all runs have the same rows, order and schedule."""
    from emotion_lightning.errors import UserError
    from emotion_lightning.models import backbone
    from emotion_lightning.training.callbacks.finite_loss import FiniteLoss
    from emotion_lightning.training.callbacks.skipped_steps import SkippedSteps

    with mock.patch.object(backbone, "keep_in_range", _as_it_is) if plain else contextlib.nullcontext():
        trained = subject.trainee(
            asked, asked.batch_size, asked.fp16_steps + 2, f"model.dtype={dtype}", outliers=True
        )  # fmt: skip
    keep, skips, ended = _keeper(number), SkippedSteps(), None
    start = time.perf_counter()
    ids = trained.emotions.rows["train"].ids
    try:
        training.fit(trained, [FiniteLoss(ids), skips, keep], max_steps=asked.fp16_steps)
    except UserError as error:
        ended = str(error)[:300]
    log.sync()
    seconds, peak = time.perf_counter() - start, log.peak_gib()
    losses = torch.stack(keep.losses).float().cpu().numpy() if keep.losses else np.zeros(0)
    finite = losses[np.isfinite(losses)]
    told.tell(
        "fp16", dtype=dtype, plain=plain, steps=len(losses), ms_step=round(1000 * seconds / max(1, len(losses)), 1),
        skipped_steps=skips.skipped, scales=keep.scales, first_loss=_mean(finite[:10]), last_loss=_mean(finite[-20:]),
        peak_gib=peak, fits_a_t4=None if peak is None else peak * 2**30 < LIMIT, ended=ended,
    )  # fmt: skip
    del trained
    log.free()
    return losses


def _keeper(number: int) -> Any:
    """A callback that keeps losses, and the scale where it changes, and stops after so many steps."""
    from lightning import Callback

    class Keep(Callback):
        def __init__(self) -> None:
            self.losses: list[torch.Tensor] = []
            self.scales: list[tuple[int, float]] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.losses.append(outputs["loss"].detach())
            # A look at the scale waits for the GPU; one in 25 steps costs little.
            if trainer.scaler is not None and index % 25 == 0:
                scale = trainer.scaler.get_scale()
                if not self.scales or self.scales[-1][1] != scale:
                    self.scales.append((index, scale))
            trainer.should_stop = index + 1 >= number

    return Keep()


def _as_it_is(*_: Any) -> None:
    """In the place of `backbone.keep_in_range`."""


def _mean(losses: np.ndarray) -> float | None:
    return round(float(losses.mean()), 4) if len(losses) else None
