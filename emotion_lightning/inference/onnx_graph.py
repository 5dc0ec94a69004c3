"""ONNX graphs: write a network with its pooling as a graph for any batch size and length, and run it."""

import importlib.util
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.data.batches import Batch
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import pooling, safe_loading
from emotion_lightning.runs import extras, quiet

FILE = "model.onnx"
DATA = "model.onnx.data"
"""File for the weights of a graph that is too large for one file."""
_ONE_FILE = 1_500_000_000
"""Largest size of weights, in bytes, that is stored in the graph's file; the ONNX format is limited to 2 GiB."""


def check_installed() -> None:
    """Raise UserError if packages of the extra `onnx` are missing."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: {extras.install('onnx')}")


class _WithPooling(nn.Module):
    """Computes logits from tokens, as `pooling.logits` does."""

    def __init__(self, network: Any, way: config.Pooling) -> None:
        super().__init__()
        self.network = network
        self.way = way

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        return pooling.logits(self.network, batch, pooling=self.way)


def write_graph(network: Any, folder: Path, *, way: config.Pooling) -> None:
    """Write model.onnx.

    Args:
        network: without an adapter, float32, in evaluation mode, on the CPU.
        folder: where the file is written.
        way: how token vectors are pooled.

    Raises:
        UserError: torch.onnx cannot write this network.
    """
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    ids = torch.full((3, 11), 5)
    mask = torch.ones_like(ids)
    mask[0, 7:] = 0
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(
                _WithPooling(network, way).eval(),
                kwargs={"input_ids": ids, "attention_mask": mask},
                f=str(folder / FILE),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": dynamic, "attention_mask": dynamic},
                dynamo=True,
                external_data=weights > _ONE_FILE,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        why = first_line(error.__cause__ or error)
        raise UserError(
            f"torch.onnx cannot write {network.config.model_type} as a graph for batches of any size and length; take "
            f"format=merged ({why})."
        ) from error


def quantize_graph(folder: Path) -> None:
    """Replace model.onnx by a graph with 8-bit weights; activations are quantised dynamically."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(folder / FILE, load_external_data=False)
    # Delete the intermediate shapes; quantization infers them again, strictly. torch 2.9 stores the shapes that weights
    # had before it transposed them.
    del graph.graph.value_info[:]
    onnx.save(graph, folder / FILE)
    large = (folder / DATA).exists()
    small = folder / "int8"
    small.mkdir()
    with _quiet():
        quantize_dynamic(
            folder / FILE,
            small / FILE,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )
    (folder / DATA).unlink(missing_ok=True)
    for file in small.iterdir():
        file.replace(folder / file.name)
    small.rmdir()


def _quiet() -> AbstractContextManager[None]:
    """Hide the progress messages of the exporters, which use their own loggers and the root logger."""
    return quiet.only_errors(None, "onnx_ir", "onnxscript", "torch.onnx")


class Graph:
    """A loaded model.onnx.

    Args:
        folder: the folder that contains it.
        labels: the expected number of logits.
        accelerator: auto and cpu run on the CPU; gpu needs an onnxruntime with CUDA; mps is not supported.

    Raises:
        UserError: the extra `onnx` is not installed, the accelerator is not available, or the file is damaged or has
            other inputs or outputs.
    """

    def __init__(self, folder: Path, *, labels: int, accelerator: config.Accelerator) -> None:
        check_installed()
        import onnxruntime

        file = safe_loading.load_weights(folder, FILE)
        _check_data(file)
        provider = "CPUExecutionProvider"
        if accelerator in (config.Accelerator.gpu, config.Accelerator.mps):
            provider = "CUDAExecutionProvider"
            if accelerator is config.Accelerator.mps or provider not in onnxruntime.get_available_providers():
                raise UserError(
                    f"accelerator={accelerator.value}, but this onnxruntime runs on the CPU; choose accelerator=cpu."
                )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # batches run in parallel, each on one core
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
        except Exception as error:  # onnxruntime has an error class for each error code
            raise UserError(f"{folder} is damaged: {FILE} cannot be read ({first_line(error)}).") from error
        inputs = {value.name for value in self._session.get_inputs()}
        outputs = [(value.name, value.shape[-1]) for value in self._session.get_outputs()]
        if inputs != {"input_ids", "attention_mask"} or outputs != [("logits", labels)]:
            raise UserError(
                f"{file} does not belong to its metadata: it gives {outputs} of {sorted(inputs)}, not {labels} "
                "logits of input_ids and attention_mask."
            )

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of a right-padded batch, [batch, label], float32 on the CPU."""
        ids = batch["input_ids"].numpy()
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).numpy()
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        return torch.from_numpy(logits)


def _check_data(file: Path) -> None:
    """Raise UserError if a graph takes weights from any file but the model.onnx.data in its folder."""
    import onnx
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    try:
        graph = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf has its own error class
        raise UserError(f"{file} is damaged: {first_line(error)}") from error
    for tensor in _get_all_tensors(graph):
        if uses_external_data(tensor):
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            if places != [DATA]:
                raise UserError(f"{file} names weights in {places}, which lies outside its folder; it is not opened.")
