"""A run reads the model folder that it wrote, as `predict` would, before it says that it is finished."""

import gc
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.inference import predictor
from emotion_lightning.models.card import read_card
from emotion_lightning.models.device import compute_dtype

log = logging.getLogger(__name__)

TEXTS = 8
"""Texts that are labelled again: one small batch."""

_EXACT, _ROUGH = 1e-3, 0.05
"""Differences of probabilities that are rounding: in float32, and with half precision or 8-bit products, where padding
and kernels change the last of few digits. What is lost changes more: an untrained head is off by .1 and up."""


def release(trainer: Any, classifier: Any) -> None:
    """Let go of the trained network, so that a large one is not held twice while it is read back."""
    classifier.network = nn.Identity()
    # They hold what was trained.
    trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = [], []
    gc.collect()  # parts of a network refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def check(folder: Path, texts: list[str], logits: Tensor, *, accelerator: config.Accelerator) -> None:
    """Raise UserError unless a model folder gives the probabilities of the network that was trained.

    Args:
        folder: the model folder.
        texts: of which a few are labelled.
        logits: of these texts by the network that was trained, [text, label].
        accelerator: where to compute.
    """
    card = read_card(folder)
    labeller = predictor.open_folder(folder, card, accelerator=accelerator)
    again, _ = labeller.outputs(texts[:TEXTS])
    difference = float((again.sigmoid() - logits[:TEXTS].sigmoid()).abs().max())
    half = compute_dtype(config.Dtype(card.base["dtype"]), labeller.device) is not torch.float32
    rough = half or config.Quantization(card.base["quantization"]) is config.Quantization.int8
    if not difference <= (_ROUGH if rough else _EXACT):
        raise UserError(
            f"The model in {folder}, read back, gives other probabilities than the network that was trained (by up to "
            f"{difference:.2g}), so the run is not finished: something that they depend on was not stored, or files of "
            "the base model changed during the run. Name modules that are new in model.head, or repeat the run with "
            "peft=full."
        )
    log.info("The model folder was read back: it gives the same probabilities, to %.1g.", max(difference, 1e-9))
