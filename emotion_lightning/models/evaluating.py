"""Compute with a network as in an evaluation, whatever mode it is in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Compute without gradients and dropout, in a compute dtype; each module's mode is put back.

    Args:
        network: with parameters, whose device is computed on.
        dtype: float32 computes in the dtype of the weights.
    """
    modes = [(module, module.training) for module in network.modules()]
    device = next(network.parameters()).device
    network.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
