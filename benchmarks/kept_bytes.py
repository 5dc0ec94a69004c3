"""What a training step keeps for its backward pass, and its time, with and without each way of keeping less.

python benchmarks/kept_bytes.py [--network gemma|minilm] [--dtype bfloat16] [--steps 40] [--setting peft=lora]

All ways start from the same weights and see the same batches, one step of each in turns in one process; told are
medians, on a CPU of the processor's seconds, which other work on the machine changes little.
Bytes are those of all tensors that autograd keeps, each counted once, but for weights. `forward` is a pass
without gradients, as in prediction.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import training

PARTS = {
    "last layer of one token": ("emotion_lightning.models.pooling", "shorten_last_layer"),
    "halves of gated blocks": ("emotion_lightning.models.gated", "keep_halves"),
    "inputs of norms": ("emotion_lightning.models.rms_norm", "keep_inputs"),
}
COUNTED = 4
"""Batches whose bytes are counted."""
WAYS = {"none": [], **{name: [name] for name in PARTS}, "all": list(PARTS)}


def build(asked: Any, parts: list[str], count: int) -> common.Trainee:
    """What is trained, with some of the parts only."""
    with ExitStack() as without:
        for name, (module, function) in PARTS.items():
            if name not in parts:
                without.enter_context(patch(f"{module}.{function}", lambda *_, **__: None))
        more = [*([f"model.dtype={asked.dtype}"] if asked.dtype else []), *asked.setting]
        return common.trainee(asked, count, *more)


def kept(trained: common.Trainee, batch: dict[str, Any]) -> tuple[int, Any]:
    """Bytes that the forward pass of a batch keeps, and its loss."""
    import torch

    found: dict[int, int] = {}
    weights = {value.untyped_storage().data_ptr() for value in trained.classifier.parameters()}

    def keep(value: Any) -> Any:
        place = value.untyped_storage()
        if place.data_ptr() not in weights:
            found[place.data_ptr()] = place.nbytes()
        return value

    # What is kept must stay alive until the end, or its place would be given to another tensor.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), autocast(trained):
        loss = trained.classifier.loss(trained.classifier(batch), batch["targets"])
    return sum(found.values()), loss


def autocast(trained: common.Trainee) -> Any:
    """As in training."""
    import torch

    return torch.autocast(trained.device.type, trained.dtype, enabled=trained.dtype is not torch.float32)


def main() -> None:
    """Measure, print and write."""
    import torch

    parser = common.options(__doc__, ["ours"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--dtype", help="compute dtype; by default that of this machine")
    parser.add_argument("--setting", action="append", default=[], help="of train, as often as wanted")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        asked.folder = Path(name)
        training.base(asked.folder, asked.network)
        sides = {way: build(asked, parts, asked.batch_size * asked.steps) for way, parts in WAYS.items()}
        batches = list(sides["none"].emotions.train_dataloader())
        optimizers = {way: trained.optimizer() for way, trained in sides.items()}
        tokens = sum(int(batch["input_ids"].numel()) for batch in batches[:COUNTED])
        stored = dict.fromkeys(sides, 0)
        losses: dict[str, float] = {}
        for way, trained in sides.items():
            for batch in batches[:COUNTED]:
                stored[way] += kept(trained, batch)[0]
            losses[way] = float(kept(trained, batches[0])[1].detach())
        times: dict[str, list[float]] = {way: [] for way in sides}
        forward: dict[str, list[float]] = {way: [] for way in sides}
        for number, batch in enumerate(batches):
            for way in list(sides) if number % 2 == 0 else list(reversed(sides)):
                trained = sides[way]
                trained.classifier.eval()
                with torch.no_grad(), autocast(trained):
                    forward[way].append(_seconds(partial(trained.classifier, batch), asked.device))
                trained.classifier.train()
                times[way].append(_seconds(partial(trained.step, batch, optimizers[way]), asked.device))
    print(f"{asked.network}, {sides['none'].dtype}, batches of {asked.batch_size} texts, "
          f"{tokens / COUNTED:.0f} tokens each, {asked.setting}")  # fmt: skip
    print(f"{'':26}{'loss':>10}{'KB a token':>12}{'step, ms':>10}{'of none':>9}{'forward, ms':>13}{'of none':>9}")
    result = {}
    for way in sides:
        step, ahead = statistics.median(times[way]), statistics.median(forward[way])
        of_step = statistics.median(a / b for a, b in zip(times[way], times["none"], strict=True))
        of_ahead = statistics.median(a / b for a, b in zip(forward[way], forward["none"], strict=True))
        print(f"{way:26}{losses[way]:10.6f}{stored[way] / tokens / 1000:12.1f}{1000 * step:10.1f}{of_step:9.3f}"
              f"{1000 * ahead:13.1f}{of_ahead:9.3f}")  # fmt: skip
        result[way] = {"bytes_a_token": stored[way] / tokens, "step": step, "of_none": of_step, "forward": ahead,
                       "forward_of_none": of_ahead}  # fmt: skip
    settings = {"network": asked.network, "dtype": str(sides["none"].dtype), "batch_size": asked.batch_size}
    print("written to", common.report("kept_bytes", {"settings": settings, "ways": result}))


def _seconds(work: Callable[[], Any], device: str) -> float:
    import torch

    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
