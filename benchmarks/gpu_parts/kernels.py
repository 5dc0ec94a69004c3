"""What the machine has: versions, number formats, and which attention kernels serve Gemma's heads."""

import argparse
from importlib.metadata import version

import torch

from gpu_parts import log

KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


def environment(asked: argparse.Namespace, told: log.Log) -> None:
    """Versions, and on a GPU the microseconds that attention takes forward and backward with each kernel."""
    values = {name: version(name) for name in ("torch", "lightning", "transformers", "peft", "bitsandbytes")}
    if asked.device == "cpu":
        told.tell("env", **values)
        return
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    told.tell(
        "env", **values, capability=torch.cuda.get_device_capability(), bfloat16=bfloat16,
        memory_gib=round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        attention_us=_attention(torch.bfloat16 if bfloat16 else torch.float16),
    )  # fmt: skip


def _attention(dtype: torch.dtype) -> dict[str, int | str]:
    """32 texts of 32 tokens, 8 query heads of 256 on one key and value head, as Gemma-2B has it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    query = torch.randn(32, 8, 32, 256, device="cuda", dtype=dtype, requires_grad=True)
    one = [torch.randn(32, 1, 32, 256, device="cuda", dtype=dtype, requires_grad=True) for _ in ("key", "value")]
    mask = torch.ones(32, 1, 32, 32, device="cuda", dtype=torch.bool).tril()
    ways = {
        "causal": (one, {"is_causal": True, "enable_gqa": True}),
        "masked": ([head.expand(-1, 8, -1, -1) for head in one], {"attn_mask": mask}),
    }
    found: dict[str, int | str] = {}
    for kernel in KERNELS:
        for way, ((key, value), extra) in ways.items():

            def work(key=key, value=value, extra=extra) -> None:
                scaled_dot_product_attention(query, key, value, **extra).sum().backward(retain_graph=True)

            try:
                with sdpa_kernel(getattr(SDPBackend, kernel)):
                    found[f"{kernel}, {way}"] = round(1e6 * log.seconds_of(work, warm=3, rounds=20))
            except RuntimeError as error:
                found[f"{kernel}, {way}"] = f"no: {str(error).splitlines()[0][:80]}"
    return found
