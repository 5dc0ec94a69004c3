"""Networks with random weights that are drawn, and quantised, on the device where they will run.

A network of Gemma-2B's size is there in about two seconds, without a file and without a copy in main memory. The
architecture is built on the meta device; then each matrix is drawn and quantised, so that never more than one of them
is held unquantised.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

_USUAL = 0.02
"""Standard deviation of random weights, as Gemma's config has it."""

_LARGE = 450.0
"""Length of the large rows: a normed token times two of them is 450 each, and their product leaves float16's range."""


@contextlib.contextmanager
def drawn_weights(device: torch.device, *, outliers: bool = False) -> Iterator[None]:
    """Within this context, whatever loads a network for sequence classification gets one with random weights.

    The project's own code runs unchanged: `backbone.random_base` writes a config and a tokenizer but no weights, and
    `from_pretrained` reads that config.

    Args:
        device: where the network goes.
        outliers: make some weights so large that the network leaves the range of float16.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    def from_config(config: Any, **_: Any) -> Any:
        return _NoWeights(config)

    def from_pretrained(
        path: str | Path, *, config: Any = None, num_labels: int = 2, dtype: torch.dtype = torch.float32,
        quantization_config: Any = None, attn_implementation: str | None = None, output_loading_info: bool = False,
        **_: Any,
    ) -> Any:  # fmt: skip
        network = drawn(
            config or AutoConfig.from_pretrained(path, num_labels=num_labels), device=device, dtype=dtype,
            quantization=quantization_config, attention=attn_implementation, outliers=outliers,
        )  # fmt: skip
        # A pretrained decoder lacks the head, which is new.
        head = [name for name, _ in network.named_parameters() if name.startswith("score.")]
        found = {"missing_keys": head, "unexpected_keys": [], "mismatched_keys": []}
        return (network, found) if output_loading_info else network

    with (
        mock.patch.object(AutoModelForSequenceClassification, "from_config", from_config),
        mock.patch.object(AutoModelForSequenceClassification, "from_pretrained", from_pretrained),
    ):
        yield


class _NoWeights:
    """What `backbone.random_base` saves in the place of a network."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def save_pretrained(self, folder: Path) -> None:
        self.config.save_pretrained(folder)


def drawn(
    config: Any, *, device: torch.device, dtype: torch.dtype, quantization: Any = None, attention: str | None = None,
    outliers: bool = False,
) -> Any:  # fmt: skip
    """A network for sequence classification with random weights.

    Args:
        config: its architecture, as transformers has it.
        device: where its weights are drawn and stay.
        dtype: what they are held in, where they are not quantised.
        quantization: a BitsAndBytesConfig of 4 bits, or None.
        attention: name of the attention kernel; None leaves it to transformers.
        outliers: see `drawn_weights`.
    """
    from accelerate import init_empty_weights
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    from transformers.quantizers import AutoHfQuantizer

    # Not AutoModelForSequenceClassification: `drawn_weights` has replaced its method.
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    chosen = {"attn_implementation": attention} if attention else {}
    with init_empty_weights(include_buffers=False):
        network = kind._from_config(config, dtype=dtype, **chosen)
    quantizer = None
    if quantization is not None:
        quantizer = AutoHfQuantizer.from_config(quantization)
        quantizer.preprocess_model(model=network, dtype=dtype, device_map={"": device})
    large = _large_layers(config.num_hidden_layers) if outliers else None
    factor = _LARGE / (_USUAL * config.hidden_size**0.5)
    for name, meta in list(network.named_parameters()):
        # Drawn in float32, so that every dtype gets the same weights. Gemma adds 1 to the weights of its norms.
        value = torch.zeros(meta.shape, device=device) if "norm" in name else _normal(meta.shape, device)
        if large is not None and large.search(name):
            value.mul_(factor)
        module = network.get_submodule(name.rpartition(".")[0])
        module._parameters[name.rpartition(".")[2]] = _parameter(value.to(dtype), network, name, meta, quantizer)
    for module in network.modules():
        for key, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[key] = buffer.to(device)
    if quantizer is not None:
        network.hf_quantizer = quantizer
        quantizer.postprocess_model(network)
    return network.eval()


def _parameter(value: torch.Tensor, network: Any, name: str, meta: nn.Parameter, quantizer: Any) -> nn.Parameter:
    if quantizer is None or not quantizer.param_needs_quantization(network, name):
        return nn.Parameter(value, requires_grad=quantizer is None)
    import bitsandbytes

    return bitsandbytes.nn.Params4bit(value, requires_grad=False, **meta.__dict__).to(value.device)


def _normal(shape: torch.Size, device: torch.device) -> torch.Tensor:
    return torch.randn(shape, device=device).mul_(_USUAL)


def _large_layers(layers: int) -> re.Pattern[str]:
    """The gated products of the first layer and of one a third of the way up, which leave float16's range first."""
    return re.compile(rf"layers\.(0|{max(1, layers // 3)})\.mlp\.(gate|up)_proj")
