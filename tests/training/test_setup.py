"""A training gets the ways of computing and keeping less, and a compiled one goes without."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL

from emotion_lightning.models import gated, last_layer, pooling, rms_norm


def built(settings: Any, tmp_path: Path, *asked: str) -> Any:
    from emotion_lightning.data import sources
    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.models import backbone
    from emotion_lightning.training.setup import build_classifier

    chosen = settings(*SMALL, *asked)
    corpus = sources.split_corpus(sources.read_corpus(chosen.data), chosen.data)
    emotions = EmotionData(chosen.data, corpus, tokenizer=backbone.load_tokenizer(chosen.model), seed=1)
    device = torch.device("cpu")
    made = build_classifier(chosen, emotions, device=device, base_folder=tmp_path / "base", method="")
    return pooling.unwrapped(made.network)


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler"))])  # fmt: skip
def test_less_is_computed_and_kept_unless_the_network_is_compiled(
    settings: Any, tmp_path: Path, is_compiled: bool
) -> None:
    own = built(settings, tmp_path, f"trainer.compile={str(is_compiled).lower()}")
    parts = list(own.modules())
    assert last_layer.is_installed(own) != is_compiled
    assert any(isinstance(part, gated._KeepsHalves) for part in parts) != is_compiled
    assert any(isinstance(part, rms_norm._KeepsInput) for part in parts) != is_compiled
    assert all(part.training for part in parts)


def test_mean_pooling_computes_the_last_layer_as_a_whole(settings: Any, tmp_path: Path) -> None:
    assert not last_layer.is_installed(built(settings, tmp_path, "model.pooling=mean"))
