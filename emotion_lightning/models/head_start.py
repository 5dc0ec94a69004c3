"""Where the head begins and how fast it learns, by the scale of the vectors that it is given.

A logit is a sum over the hidden vector, so its first value, and how far one step of AdamW moves it, grow with that
vector. Most networks end in numbers of a root mean square (RMS) of about 1, which the rates of the options are for.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.data.batches import Batch
from emotion_lightning.models import pooling

log = logging.getLogger(__name__)

_USUAL = 2.0
"""RMS up to which nothing changes. The bundled network has 1.0; vectors behind a tanh, such as those of BERT's pooler
and of RoBERTa's head, cannot have more than 1.

Measured on the bundled network with the weights of its last norm times 5 (RMS 5.1), two seeds, mAP on validation after
epochs 1 to 5: .667 .696 .705 .706 .705 with the factor of 1/4, .652 .686 .699 .701 .702 without it."""


@dataclass
class Start:
    """The output layer before training.

    Attributes:
        layer: the output layer.
        width: numbers in each vector that it is given.
        rms: their root mean square.
        deviation: the standard deviation of its logits.
    """

    layer: nn.Linear
    width: int
    rms: float
    deviation: float

    @property
    def factor(self) -> float:
        """What first weights and learning rate are multiplied by."""
        # A power of two: a run that goes on elsewhere, where sums are rounded otherwise, comes to the same.
        return 1.0 if self.rms <= _USUAL else 2.0 ** -round(math.log2(self.rms))


def measure(network: nn.Module, batch: Batch, *, head: list[str], way: config.Pooling, dtype: torch.dtype) -> Start:
    """What the output layer of a network in training mode is given and gives; no random number is drawn.

    Args:
        network: with its trained parts attached, before anything was trained.
        batch: a few texts.
        head: names of its head's modules.
        way: what the head sees of a text.
        dtype: what the network computes in.
    """
    found: list[Start] = []

    def seen(layer: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
        values = given[0].float()
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
    return found[-1]


def apply(start: Start, *, fresh: bool) -> float:
    """Scale first weights where they are fresh; tell, and return what the head's learning rate is multiplied by."""
    log.info(
        "The first logits have a standard deviation of %.2f; the head is given %d numbers of RMS %.2f.",
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
