"""Device and compute dtype of a network, and the message when memory runs out."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.runs import slurm


@contextlib.contextmanager
def enough_memory(
    batch: Callable[[], tuple[int, ...]], *, training: bool, batch_tokens: int | None = None
) -> Iterator[None]:
    """Turn an out-of-memory error into a UserError that names the settings to change.

    Args:
        batch: returns the number of texts of the batch that did not fit, of their pieces, and of the tokens of a piece.
        training: whether it was a training step, for which more settings reduce memory.
        batch_tokens: token budget of a batch; None if batches have a fixed number of texts.

    Raises:
        UserError: the body ran out of memory. Other errors pass through unchanged.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        on_cpu = "DefaultCPUAllocator" in str(error)  # a plain RuntimeError
        if not (on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)):
            raise
        rows, pieces, tokens = batch()
        smaller = f"data.batch_tokens={batch_tokens // 2}" if batch_tokens else f"data.batch_size={max(1, rows // 2)}"
        if training:
            smaller += (
                " with trainer.accumulate_grad_batches=2 (the same optimizer steps), "
                "model.activation_checkpointing=true, model.quantization=nf4 or a smaller "
                + ("data.max_windows" if pieces > rows else "data.max_tokens")
            )
        where = "memory" if on_cpu else "GPU memory"
        of = f"{rows} texts" if pieces == rows else f"{rows} texts in {pieces} pieces"
        raise UserError(f"Out of {where} with a batch of {of} of {tokens} tokens. Try {smaller}.") from error


def device_for(accelerator: config.Accelerator) -> torch.device:
    """Device of this process.

    Raises:
        UserError: a GPU is requested, but torch finds none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            "accelerator=gpu, but torch sees no GPU; choose trainer=cpu (accelerator=cpu) or install a CUDA build."
        )
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return torch.device("mps")
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # A launcher may make only one GPU visible to each process.
    return torch.device("cuda", slurm.local_rank() % torch.cuda.device_count())


def compute_dtype(dtype: config.Dtype, device: torch.device) -> torch.dtype:
    """Compute dtype; `auto` is bfloat16 if the device has it, otherwise float16 on a CUDA GPU and float32 elsewhere."""
    if dtype is not config.Dtype.auto:
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[dtype.value]
    if device.type == "cuda":
        # A T4 emulates bfloat16 slowly; by default, torch counts emulation as support.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "DEFAULT" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def precision(dtype: torch.dtype, device: torch.device) -> Any:
    """Lightning's precision plugin for a compute dtype; trained parameters stay in float32."""
    from lightning.pytorch.plugins import MixedPrecision, Precision

    if dtype is torch.float32:
        return Precision()
    # A plugin, not the string "16-mixed": on a CPU, Lightning 2.6 replaces that string by bfloat16, although torch
    # supports float16 there.
    return MixedPrecision("16-mixed" if dtype is torch.float16 else "bf16-mixed", device.type)


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def cast_products(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of linear layers of a trained network to a dtype; its predictions stay the same.

    Otherwise autocast casts them for each batch, which takes 5 % of the time with batches of 32 short texts.
    """
    for module in network.modules():
        if type(module) is nn.Linear:
            module.to(dtype)
