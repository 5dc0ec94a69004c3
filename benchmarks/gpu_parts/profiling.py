"""Where a step's time goes, what its products take alone, and what launching its kernels costs."""

import argparse
import collections
import re
from typing import Any

import common
import torch

from gpu_parts import log, subject

KINDS = {
    "products": r"gemm|cutlass|xmma|nvjet|wgmma|cublas|sm\d+_|aten::(mm|addmm|bmm)$",
    "dequantising": r"[Dd]equant|4bit",
    "attention": r"flash|fmha|attention|softmax|cudnn",
    "optimizer": r"multi_tensor|[Aa]dam|foreach",
    "reductions": r"reduce|norm",
    "casts and copies": r"copy|Memcpy|Memset|_to_",
    "elementwise": r"elementwise|vectorized|aten::",
}
"""Of kernels, by the first pattern that a name has."""

COUNTED = 5
"""Steps that are looked at, after as many others."""


def profile(asked: argparse.Namespace, told: log.Log) -> None:
    """Shares of a step, at the batch size asked for and at eight times as many texts."""
    for batch in (asked.batch_size, 8 * asked.batch_size):
        if told.fits(0 if asked.shape == "tiny" else 20):
            told.tell("profile", batch=batch, **_profile(asked, batch))
            log.free()


def _profile(asked: argparse.Namespace, batch: int) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    trained = subject.trainee(asked, batch, 2 * COUNTED)
    optimizer, batches = trained.optimizer(), subject.batches_of(trained, 2 * COUNTED)

    def steps(given: list[dict[str, Any]]) -> None:
        for one in given:
            trained.step(one, optimizer)

    steps(batches[:COUNTED])
    seconds = log.seconds_of(lambda: steps(batches[COUNTED:]), warm=0, rounds=1) / COUNTED
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if asked.device == "cuda" else [])]
    with profiler(activities=activities) as found:
        steps(batches[COUNTED:])
        log.sync()
    kinds, busy, launches = _kernels(found) if asked.device == "cuda" else _operations(found)
    tokens = sum(one["input_ids"].numel() for one in batches[COUNTED:]) // COUNTED
    return {
        "tokens_with_padding": tokens,
        "ms_step": round(1000 * seconds, 2),
        # Measured with the profiler on, which slows the launches and not the kernels.
        "busy_ms_step": round(busy / 1000 / COUNTED, 2),
        "gap_share": round(max(0.0, 1 - busy / 1e6 / COUNTED / seconds), 3),
        "launches_step": launches // COUNTED,
        "shares": {kind: round(spent / sum(kinds.values()), 3) for kind, spent in kinds.most_common()},
        **_alone(trained, tokens),
    }


def _kernels(found: Any) -> tuple["collections.Counter[str]", float, int]:
    """Microseconds by kind, microseconds in which any kernel ran, and their number."""
    kinds: collections.Counter[str] = collections.Counter()
    spans = []
    for event in found.events():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        if on_gpu and not getattr(event, "is_user_annotation", False):
            spans.append((event.time_range.start, event.time_range.end))
            kinds[kind_of(event.name)] += event.time_range.elapsed_us()
    return kinds, union(spans), len(spans)


def _operations(found: Any) -> tuple["collections.Counter[str]", float, int]:
    """The same of a CPU, where operations follow each other."""
    kinds: collections.Counter[str] = collections.Counter()
    launches = 0
    for event in found.key_averages():
        kinds[kind_of(event.key)] += event.self_cpu_time_total
        launches += event.count
    return kinds, float(sum(kinds.values())), launches


def kind_of(name: str) -> str:
    """What a kernel counts as."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "other")


def union(spans: list[tuple[float, float]]) -> float:
    """Length of what spans cover together.

    >>> union([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    covered, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, last))
        last = max(last, end)
    return covered


def _alone(trained: common.Trainee, tokens: int) -> dict[str, float]:
    """The step's products, forward and backward to their inputs, and its dequantising, each by itself."""
    import bitsandbytes

    layers = [m for m in trained.classifier.network.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    matrices: list[Any] = [layer.weight for layer in layers]
    sizes = collections.Counter((layer.in_features, layer.out_features) for layer in layers)
    products = 0.0
    for (wide, out), number in sizes.items():
        inputs, weight, gradient = (
            torch.randn(shape, device=trained.device, dtype=trained.dtype)
            for shape in ((tokens, wide), (out, wide), (tokens, out))
        )

        def both(inputs: Any = inputs, weight: Any = weight, gradient: Any = gradient) -> None:
            inputs @ weight.T
            gradient @ weight

        products += number * log.seconds_of(both, warm=2, rounds=5)

    def dequantise() -> None:
        for matrix in matrices:
            bitsandbytes.functional.dequantize_4bit(matrix.data, matrix.quant_state)

    weights = sum(wide * out * number for (wide, out), number in sizes.items())
    # A step dequantises each matrix forward and again backward.
    return {
        "products_alone_ms": round(1000 * products, 2),
        "products_tflops": round(4 * tokens * weights / products / 1e12, 2),
        "dequantising_alone_ms": round(2000 * log.seconds_of(dequantise, warm=2, rounds=5), 2),
    }


def graph(asked: argparse.Namespace, told: log.Log) -> None:
    """A forward and backward pass, launched kernel by kernel and replayed as one CUDA graph."""
    if asked.device == "cpu":
        told.tell("graph", skipped="a CPU has no CUDA graphs")
        return
    trained = subject.trainee(asked, asked.batch_size, 1)
    rows, width = asked.batch_size, 32
    batch = {
        "input_ids": torch.randint(5, 4000, (rows, width), device=trained.device),
        "targets": torch.randint(0, 2, (rows, len(trained.emotions.labels)), device=trained.device).float(),
    }

    def work() -> None:
        with torch.autocast("cuda", dtype=trained.dtype, cache_enabled=False):
            loss = trained.classifier.loss(trained.classifier(batch), batch["targets"])
        loss.backward()

    # As torch asks: a first time on a stream of its own.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    eager = log.seconds_of(work, warm=3, rounds=10)
    for parameter in trained.classifier.trained().values():
        parameter.grad = None
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        work()
    replayed = log.seconds_of(captured.replay, warm=3, rounds=10)
    told.tell("graph", batch=rows, tokens=rows * width, eager_ms=round(1000 * eager, 2),
              graph_ms=round(1000 * replayed, 2))  # fmt: skip
