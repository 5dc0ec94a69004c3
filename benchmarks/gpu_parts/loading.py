"""Loading a base of Gemma-2B's size from disk and quantising it, as `train` does."""

import argparse
import tempfile
import time
from pathlib import Path

import common
import torch

from gpu_parts import base, log, subject


def load(asked: argparse.Namespace, told: log.Log) -> None:
    """Write a base in bfloat16, 5 GB at full size, and load it with the project's own code: seconds and peak memory."""
    from emotion_lightning.models import backbone

    device = torch.device("cuda", 0) if asked.device == "cuda" else torch.device("cpu")
    labels = common.texts(1, asked.data)[2]
    random = common.settings_of([*common.NETWORKS["gemma2b"], *subject.overrides(asked)])
    tokenizer = backbone.load_tokenizer(random.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        with base.drawn_weights(device):
            path = backbone.random_base(random.model, labels, tokenizer, 1, folder / "base")
        _write(path, device)
        log.free()
        told.tell("load", written_s=round(time.perf_counter() - start, 1))
        settings = common.settings_of(["model=gemma", f"model.path={path}", *subject.overrides(asked)])
        start = time.perf_counter()
        network = backbone.build_network(
            settings.model, labels, tokenizer=tokenizer, full=False, device=device, seed=1, base_folder=folder / "own"
        )
        log.sync()
        told.tell(
            "load", seconds=round(time.perf_counter() - start, 1), peak_gib=log.peak_gib(),
            held_gib=round(torch.cuda.memory_allocated() / 2**30, 2) if asked.device == "cuda" else None,
            head_sd=round(float(network.score.weight.std()), 4),
        )  # fmt: skip


def _write(path: str, device: torch.device) -> None:
    from transformers import AutoConfig

    network = base.drawn(AutoConfig.from_pretrained(path), device=device, dtype=torch.bfloat16)
    network.save_pretrained(path)
