"""How near a training step is to the machine's limit: the share of matrix products, and their speed against bare ones.

python benchmarks/limit.py [--network minilm|gemma] [--steps 12]

Prints what a step spends its time on, by kind of operation; the share of matrix products; and the time that the same
products take by themselves, one after the other on fresh matrices of the same sizes and dtype.
"""

import collections
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import training

PRODUCTS = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::matmul",
    "aten::linear",
    "mkldnn::",
    "onednn",
)
ATTENTION = ("scaled_dot_product", "flash_attention")
OPTIMIZER = ("_fused_adam", "foreach", "clip_grad", "linalg_vector_norm")


def kind(name: str) -> str:
    """What an operation counts as."""
    low = name.lower()
    if any(part in low for part in ATTENTION):
        return "attention"
    if any(low.startswith(part) or part in low for part in PRODUCTS):
        return "matrix products"
    if any(part in low for part in OPTIMIZER):
        return "optimizer, clipping"
    if "norm" in low:
        return "norms"
    if "gelu" in low or "tanh" in low or "silu" in low:
        return "activations"
    if "dropout" in low or "bernoulli" in low:
        return "dropout"
    if "copy" in low or "_to" in low:
        return "casts and copies"
    if "dequant" in low or "bitsandbytes" in low:
        return "dequantising"
    if "embedding" in low or "index" in low:
        return "embeddings"
    return "other"


def main() -> None:
    """Profile, print and write."""
    from torch.profiler import ProfilerActivity, profile

    parser = common.options(__doc__, ["ours"])
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        asked.folder = Path(name)
        training.base(asked.folder, asked.network)
        trained = common.trainee(asked, asked.batch_size * (asked.steps + training.WARM))
        batches, optimizer = list(trained.emotions.train_dataloader()), trained.optimizer()
        for batch in batches[: training.WARM]:
            trained.step(batch, optimizer)
        start = time.perf_counter()
        for batch in batches[training.WARM :]:
            trained.step(batch, optimizer)
        seconds = time.perf_counter() - start
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
            for batch in batches[training.WARM :]:
                trained.step(batch, optimizer)
    times: collections.Counter[str] = collections.Counter()
    single: collections.Counter[str] = collections.Counter()
    shapes: collections.Counter[tuple[Any, ...]] = collections.Counter()
    for event in found.events():
        times[kind(event.name)] += event.self_cpu_time_total
        single[event.name] += event.self_cpu_time_total
        if event.name in ("aten::mm", "aten::addmm"):
            # The first operand of addmm is what is added.
            left, right = event.input_shapes[1:3] if event.name == "aten::addmm" else event.input_shapes[:2]
            shapes[tuple(left), tuple(right)] += 1
    whole = sum(times.values())
    count = len(batches) - training.WARM
    print(f"{asked.network}, {1000 * seconds / count:.0f} ms a step without the profiler")
    for name, spent in times.most_common():
        print(f"  {name:22}{spent / whole:6.1%}")
    print("  most of it:", ", ".join(f"{name} {spent / whole:.1%}" for name, spent in single.most_common(14)))
    bare = _bare(shapes, trained.dtype)
    products = times["matrix products"] / whole * seconds
    print(f"matrix products take {products / seconds:.0%} of the step; alone {1000 * bare / count:.0f} ms, here "
          f"{1000 * products / count:.0f} ms: {bare / products:.0%} of a bare product's speed")  # fmt: skip
    result = {"seconds_a_step": seconds / count, "shares": {k: v / whole for k, v in times.items()},
              "bare_seconds_a_step": bare / count, "products_seconds_a_step": products / count}  # fmt: skip
    print("written to", common.report("limit", {"network": asked.network, **result}))


def _bare(shapes: "collections.Counter[tuple[Any, ...]]", dtype: Any) -> float:
    """Seconds that the products take by themselves."""
    import torch

    total = 0.0
    for (left, right), times in shapes.items():
        a, b = torch.randn(left).to(dtype), torch.randn(right).to(dtype)
        a @ b
        rounds = min(times, 20)
        start = time.perf_counter()
        for _ in range(rounds):
            a @ b
        total += (time.perf_counter() - start) / rounds * times
    return total


if __name__ == "__main__":
    main()
