"""What is measured: Gemma-2B's shape in NF4 with IA3, on random weights, and a small stand-in for a try on a CPU."""

import argparse
import tempfile
from pathlib import Path

import common
import torch

from gpu_parts import base, log

TINY = [
    "model.architecture.num_hidden_layers=2", "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=256", "model.architecture.num_attention_heads=2",
    "model.architecture.head_dim=32", "model.architecture.vocab_size=8192",
]  # fmt: skip

SHAPES = {"gemma2b": [], "tiny": TINY}


def overrides(asked: argparse.Namespace) -> list[str]:
    """The settings of all measurements beside `common.NETWORKS["gemma2b"]`."""
    return [*SHAPES[asked.shape], f"trainer.accelerator={'gpu' if asked.device == 'cuda' else 'cpu'}"]


def trainee(
    asked: argparse.Namespace, batch_size: int, batches: int, *more: str, outliers: bool = False
) -> common.Trainee:
    """What `train` would make of so many batches of texts.

    Args:
        asked: of the command line.
        batch_size: texts in a batch.
        batches: of texts drawn from the sample.
        more: settings, as on the command line.
        outliers: see `base.drawn_weights`.
    """
    device = torch.device("cuda", 0) if asked.device == "cuda" else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, base.drawn_weights(device, outliers=outliers):
        one = argparse.Namespace(network="gemma2b", batch_size=batch_size, data=asked.data, folder=Path(folder))
        trained = common.trainee(one, batch_size * batches, *overrides(asked), *more)
    log.free()  # what building took at most is not training's
    return trained


def batches_of(trained: common.Trainee, number: int) -> list[dict]:
    """The first batches of training, on the device."""
    found = []
    for batch in trained.emotions.train_dataloader():
        found.append({k: v.to(trained.device) if torch.is_tensor(v) else v for k, v in batch.items()})
        if len(found) == number:
            break
    return found
