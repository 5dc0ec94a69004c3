"""The real job on a GPU: Gemma-2B's shape in NF4 with IA3 on short texts, with random weights drawn on the card.

python benchmarks/gpu.py                                # all parts, at most 9 minutes
python benchmarks/gpu.py --parts env,train,profile      # about 3 minutes on an H100
python benchmarks/gpu.py --device cpu --shape tiny      # a try without a GPU

env      versions, and which attention kernels serve Gemma's heads
train    texts/s, tokens/s and peak memory: ours; Hugging Face's Trainer at its best, on the same batches; the Trainer
         as PEFT's pages on QLoRA have it
profile  where a step's time goes, gaps between kernels, and the same products alone
graph    a step as one CUDA graph: what launching kernels costs
sweep    ours with larger batches, token budgets, a bfloat16 base, activation checkpointing, packed texts
fp16     steps in float16 on weights that leave its range: the scaler, losses against bfloat16, memory against 16 GB;
         plain float16 must end with a message
load     a base written to disk and loaded as `train` does it: seconds and peak memory

Each result is printed and added at once to benchmarks/results/<card>.jsonl, on a CPU to outputs/bench/cpu.jsonl. A part
that fails says so, and the next goes on; what does not fit `--seconds` is skipped. The exit code is 1 if any failed.
benchmarks/gpu_table.py writes the table of benchmarks/README.md from these files.
"""

import argparse
import os
import re
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import training  # noqa: E402
from gpu_parts import float16, kernels, loading, log, profiling, speed, subject  # noqa: E402

PARTS: dict[str, tuple[log.Part, int]] = {
    "env": (kernels.environment, 10),
    "train": (speed.train, 60),
    "profile": (profiling.profile, 30),
    "graph": (profiling.graph, 20),
    "sweep": (speed.sweep, 20),
    "fp16": (float16.fp16, 90),
    "load": (loading.load, 60),
}
"""What a part does, and the seconds that it needs at least; the most telling parts come first."""


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; the exit code."""
    asked = options(arguments)
    began = datetime.now(UTC)
    told = log.Log(
        asked.output / f"{metadata(asked.device)}.jsonl", run=f"{began:%Y-%m-%dT%H:%M:%SZ}", seconds=asked.seconds
    )
    told.tell("run", metadata=metadata(asked.device), shape=asked.shape, batch=asked.batch_size, steps=asked.steps)
    for name in asked.parts:
        work, least = PARTS[name]
        if not told.fits(0 if asked.shape == "tiny" else least):
            told.tell(name, skipped="no time left")
            continue
        with told.guarded(name):
            work(asked, told)
    return 1 if any("failed" in row for row in told.rows) else 0


def options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shape", choices=list(subject.SHAPES), default="gemma2b")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--fp16-steps", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=540, help="for all parts together")
    parser.add_argument("--data", help="folder of GoEmotions; without it, the bundled sample's texts")
    parser.add_argument("--output", type=Path, help="folder of the results")
    asked = parser.parse_args(arguments)
    asked.parts = asked.parts.split(",")
    if unknown := [part for part in asked.parts if part not in PARTS]:
        parser.error(f"--parts has {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if asked.steps < training.WARM + 1:
        parser.error(f"--steps must be at least {training.WARM + 1}: the first ones are not counted")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; a try without one: --device cpu --shape tiny")
    if asked.output is None:
        asked.output = REPO / ("benchmarks/results" if asked.device == "cuda" else "outputs/bench")
    return asked


def metadata(device: str) -> str:
    """What the file of results is called."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return re.sub(r"\W+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
