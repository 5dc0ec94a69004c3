"""Load the saved model folder as `predict` does and compare its probabilities, before the run counts as finished."""

import gc
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.data.rows import Text
from emotion_lightning.errors import UserError
from emotion_lightning.inference import predictor
from emotion_lightning.models.device import compute_dtype, device_for
from emotion_lightning.models.metadata import read_metadata

log = logging.getLogger(__name__)

TEXTS = 8
"""Number of texts that are compared: one small batch."""

_EXACT, _ROUGH = 1e-3, 0.05
"""Largest difference of probabilities that counts as rounding. _EXACT is for float32. _ROUGH is for half precision and
8-bit products, where padding and kernels change the last digits. Missing weights change more: an untrained head differs
by .1 and more."""


def release_network(trainer: Any, classifier: Any) -> None:
    """Free the memory of the trained network, so that it is not in memory twice while the model folder is loaded."""
    classifier.network, classifier.frozen, classifier._clipped = nn.Identity(), None, None
    # Optimizers and schedulers refer to the trained parameters.
    trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = [], []
    gc.collect()  # modules of a network refer to each other in cycles
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def check_read_back(
    folder: Path, texts: list[Text], logits: Tensor, *, accelerator: config.Accelerator, spread: bool = False
) -> None:
    """Check that a model folder gives the same probabilities as the network that was trained.

    Args:
        folder: the model folder.
        texts: the first TEXTS of them are compared.
        logits: logits of the trained network for these texts, [text, label].
        accelerator: where the network was trained, and where to compute.
        spread: whether its base was spread over processes: it may not fit one device, so the CPU computes.

    Raises:
        UserError: the probabilities differ by more than rounding.
    """
    metadata = read_metadata(folder)
    labeller = predictor.open_folder(folder, metadata, accelerator=config.Accelerator.cpu if spread else accelerator)
    again, _ = labeller.outputs(texts[:TEXTS])
    difference = float((again.sigmoid() - logits[:TEXTS].sigmoid()).abs().max())
    devices = (labeller.device, device_for(accelerator))
    half = any(compute_dtype(metadata.base.dtype, device) is not torch.float32 for device in devices)
    rough = half or metadata.base.quantization is config.Quantization.int8
    if not difference <= (_ROUGH if rough else _EXACT):
        raise UserError(
            f"The model in {folder}, read back, gives other probabilities than the network that was trained (by up to "
            f"{difference:.2g}), so the run is not finished: something that they depend on was not stored, or files of "
            "the base model changed during the run. Name modules that are new in model.head, or repeat the run with "
            "peft=full."
        )
    log.info("The model folder was read back: it gives the same probabilities, to %.1g.", max(difference, 1e-9))
