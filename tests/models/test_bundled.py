"""The bundled classifier in NumPy gives the answers of the whole program, without importing it."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from emotion_lightning import config, load
from emotion_lightning.data import sources
from emotion_lightning.inference import run_data
from emotion_lightning.models import backbone, bundled
from emotion_lightning.models.metadata import read_metadata

AWKWARD = ["", "  ", "We won :)", "x " * 200, "<bos> hi <pad> <eos>", "नमस्ते 😂👩‍👩‍👧‍👦", "a\x00b\r\n", "é" * 300]


@pytest.mark.slow
def test_the_answers_are_those_of_the_whole_program(settings: Any) -> None:
    data = settings("data=sample").data
    corpus = sources.split_corpus(sources.read_corpus(data), data, tell=False)
    texts = [*AWKWARD, *corpus.splits["test"].texts]
    assert len(texts) > 200
    run = load(accelerator="cpu")
    for text, expected in zip(texts, run.predict(texts), strict=True):
        found = bundled.answer(text)
        assert found is not None and found.labels == expected.labels
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert found.thresholds == run.metadata.thresholds[run.metadata.protocol]


def test_weights_are_rounded_as_bitsandbytes_rounds_them() -> None:
    from bitsandbytes import functional

    weight = np.random.default_rng(1).normal(size=(128, 256)).astype(np.float32)
    packed, state = functional.quantize_4bit(torch.from_numpy(weight), quant_type="nf4", compress_statistics=True)
    expected = functional.dequantize_4bit(packed, state).numpy()
    np.testing.assert_allclose(bundled.four_bit(weight), expected, atol=1e-6)
    assert not np.allclose(expected, weight, atol=0.05)


def test_what_it_does_not_know_is_left_to_the_whole_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled.answer("a \ud800") is None
    read = bundled.bounded_files.read_json
    monkeypatch.setattr(bundled.bounded_files, "read_json", lambda file: read(file) | {"calibration": {"joy": 1}})
    assert bundled.answer("We won") is None


def test_the_command_answers_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['predict', 'text=We won :)']\n"
        "from emotion_lightning import predict\n"
        "try:\n    predict.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes', 'sklearn', 'pyarrow'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Emotions: joy" in done.stdout and "The probabilities are not calibrated" in done.stdout


def test_the_files_are_those_of_the_bundled_run() -> None:
    assert bundled.RUN == backbone.BUNDLED_RUN


def test_the_data_of_the_bundled_run_can_be_read_though_it_is_older_than_some_settings() -> None:
    metadata = read_metadata(bundled.RUN / "model")
    assert "sort_window" not in metadata.data
    data = run_data.data_settings(metadata, bundled.RUN)
    assert isinstance(data, config.Sample) and data.sort_window == 16
