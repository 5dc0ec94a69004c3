"""Initial weights and learning rate of the head, scaled for the size of its input vectors.

A logit is a sum over the hidden vector. Its initial value, and its change in one step of AdamW, therefore grow with
that vector. Most networks end in vectors with a root mean square (RMS) of about 1; the learning rates of the options
are for these.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.data.batches import Batch
from emotion_lightning.errors import UserError
from emotion_lightning.models import pooling

log = logging.getLogger(__name__)

_USUAL = 2.0
"""RMS up to which nothing is scaled. The bundled network has 1.0. The outputs of a tanh, as in BERT's pooler and in
RoBERTa's head, have at most 1.

Measured on the bundled network with the weights of its last norm times 5 (RMS 5.1), two seeds, validation mAP after
epochs 1 to 5: .667 .696 .705 .706 .705 with the factor of 1/4, .652 .686 .699 .701 .702 without it."""


@dataclass
class Start:
    """The output layer before training, with statistics of its inputs and logits.

    Attributes:
        layer: the output layer.
        width: size of its input vectors.
        rms: root mean square of its inputs.
        deviation: standard deviation of its logits.
    """

    layer: nn.Linear
    width: int
    rms: float
    deviation: float

    @property
    def factor(self) -> float:
        """Factor for the initial weights and the learning rate."""
        if not math.isfinite(self.rms):
            return 1.0  # float16 has left its range; training stops with a message about it
        # A power of two, so that a run resumed on another machine, where sums round differently, gets the same factor.
        return 1.0 if self.rms <= _USUAL else 2.0 ** -round(math.log2(self.rms))


def measure_head(
    network: nn.Module, batch: Batch, *, head: list[str], way: config.Pooling, dtype: torch.dtype
) -> Start:
    """Measure inputs and logits of the output layer on one batch, without drawing random numbers.

    Args:
        network: in training mode, with its adapter attached, before training.
        batch: a few texts.
        head: names of the head's modules.
        way: pooling of the token vectors.
        dtype: compute dtype.

    Raises:
        UserError: the head gets the same vector for different texts.
    """
    found: list[Start] = []
    same: list[bool] = []

    def seen(layer: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
        values = given[0].float()
        same.append(len(values) > 1 and bool((values == values[:1]).all()))
        rms = float(values.square().mean().sqrt())
        found.append(Start(layer, values.shape[-1], rms, float(out.float().std(correction=0))))

    hooks = [
        module.register_forward_hook(seen)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and set(name.split(".")) & set(head)
    ]
    device = next(network.parameters()).device
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    network.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
            pooling.logits(network, moved, pooling=way)
    finally:
        network.train()
        for hook in hooks:
            hook.remove()
    if same[-1] and bool((batch["input_ids"] != batch["input_ids"][:1]).any()):
        raise UserError(
            "The head of this network gets the same numbers for every text, so there is nothing to learn. Its weights "
            "may be damaged, or its architecture needs a library that is not installed; choose another model."
        )
    return found[-1]


def scale_head(start: Start, *, fresh: bool) -> float:
    """Scale the initial weights of the head if they are new (`fresh`), log it, and return the learning rate factor."""
    log.info(
        "The first logits have a standard deviation of %.2f; the %d inputs of the head have an RMS of %.2f.",
        start.deviation, start.width, start.rms,
    )  # fmt: skip
    if start.factor != 1:
        if fresh:
            with torch.no_grad():
                start.layer.weight.mul_(start.factor)
        log.info(
            "These are large: its learning rate%s multiplied by %g. optimizer.head_lr sets a rate of your own.",
            " and its first weights are" if fresh else " is", start.factor,
        )  # fmt: skip
    return start.factor
