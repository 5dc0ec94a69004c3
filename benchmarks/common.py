"""What the benchmarks share: the networks, the texts, one measurement as a process of its own, a table of medians.

Every side is measured in a process of its own, one after the other in turns (A B C A B C …), so that what slows the
machine for a while slows all alike; ratios are taken within a turn, and their median is told.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent

NETWORKS = {
    # A small encoder in full, and a decoder whose layers are a third of Gemma-2B's in 4-bit with IA3.
    "minilm": ["model=minilm", "model.pretrained=false", "peft=full"],
    "gemma": [
        "model=gemma", "model.pretrained=false", "model.quantization=nf4", "peft=ia3",
        "model.architecture.num_hidden_layers=8", "model.architecture.hidden_size=768",
        "model.architecture.intermediate_size=3072", "model.architecture.num_attention_heads=8",
        "model.architecture.num_key_value_heads=1", "model.architecture.head_dim=96",
        "model.architecture.vocab_size=32000",
    ],
    # The true shape of gemma-1.1-2b-it, for a GPU.
    "gemma2b": ["model=gemma", "model.pretrained=false", "model.quantization=nf4", "peft=ia3"],
}  # fmt: skip


Side = Callable[[argparse.Namespace], tuple[float, int]]


@dataclass
class Measured:
    """One side in one turn."""

    rate: float
    """Texts per second."""
    peak_bytes: int


@functools.cache
def texts(count: int, data: str | None, *, seed: int = 0) -> tuple[list[str], list[list[float]], list[str]]:
    """Texts with labels, and the labels' names: GoEmotions' training rows of a folder, else the bundled sample's."""
    import numpy as np

    settings = settings_of(["data=goemotions", f"data.dir={data}"] if data else ["data=sample"])
    from emotion_lightning.data import sources

    corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data, tell=False)
    rows = corpus.splits["train"]
    chosen = np.random.default_rng(seed).integers(0, len(rows.texts), count)
    return [rows.texts[i] for i in chosen], rows.targets[chosen].tolist(), corpus.labels


@dataclass
class Trainee:
    """What is trained, made of the parts that the command itself is made of.

    Attributes:
        settings: of the run.
        emotions: its texts and labels.
        classifier: the LightningModule.
        device: where it is.
        dtype: what it computes in.
    """

    settings: Any
    emotions: Any
    classifier: Any
    device: Any
    dtype: Any

    def optimizer(self) -> Any:
        """For `step`; the rate is of no matter."""
        import torch

        return torch.optim.AdamW(self.classifier.trained().values(), lr=1e-5, fused=True)

    def step(self, batch: dict[str, Any], optimizer: Any) -> None:
        """A training step without the Trainer around it."""
        import torch

        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            loss = self.classifier.loss(self.classifier(batch), batch["targets"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.classifier.trained().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def trainee(asked: argparse.Namespace, count: int, *more: str) -> Trainee:
    """What `train` would make of so many texts, from the random weights that `training.base` left in the folder.

    Args:
        asked: network, batch_size, data and folder.
        count: of texts.
        more: settings, as on the command line.
    """
    import numpy as np
    from lightning import seed_everything

    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.data.rows import Corpus, Rows
    from emotion_lightning.models import backbone
    from emotion_lightning.models.device import compute_dtype, device_for
    from emotion_lightning.runs import environment, quiet
    from emotion_lightning.training.setup import build_classifier

    quiet.quiet_libraries()
    named = {setting.partition("=")[0] for setting in more}
    network = [setting for setting in NETWORKS[asked.network] if setting.partition("=")[0] not in named]
    settings = settings_of([*network, f"data.batch_size={asked.batch_size}", *more])
    found, targets, labels = texts(count, asked.data)
    rows = Rows(texts=found, ids=[str(i) for i in range(count)], targets=np.array(targets, np.float32))
    # Nothing is validated; of a frozen network the states of these rows would be computed too.
    few = Rows(texts=found[:1], ids=["0"], targets=rows.targets[:1])
    seed_everything(1, verbose=False)
    corpus = Corpus(labels=labels, splits={"train": rows, "validation": few})
    emotions = EmotionData(settings.data, corpus, tokenizer=backbone.load_tokenizer(settings.model), seed=1)
    device = device_for(settings.trainer.accelerator)
    if device.type == "cpu":
        environment.keep_memory()
    classifier = build_classifier(
        settings, emotions, device=device, base_folder=asked.folder / asked.network, method=""
    )
    return Trainee(settings, emotions, classifier, device, compute_dtype(settings.model.dtype, device))


def settings_of(overrides: Sequence[str]) -> Any:
    """Typed settings, as on the command line of train."""
    from hydra import compose, initialize_config_dir

    from emotion_lightning.config import schema

    schema.register()
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        return schema.load_settings(compose("train", [*overrides, "logger=none"]), "train")


def fast_dtype(device: str) -> Any:
    """What a good user of this machine computes in: bfloat16 where it has it, as our own `model.dtype=auto`."""
    import torch

    from emotion_lightning import config
    from emotion_lightning.models.device import compute_dtype

    return compute_dtype(config.Dtype.auto, torch.device(device))


def peak_bytes(device: str) -> int:
    """Most bytes held at once by this process."""
    from emotion_lightning.runs import environment

    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return environment.peak_main_memory()


def options(description: str | None, sides: Sequence[str]) -> argparse.ArgumentParser:
    """The command line of a benchmark against peers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(NETWORKS), default="minilm")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--data", help="folder of GoEmotions; without it, the bundled sample's texts")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", choices=list(sides), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def compare(script: str, asked: argparse.Namespace, sides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Measure all sides in turns; the first is ours. Prints a table and returns what it shows."""
    passed = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(asked).items()
        if name not in ("side", "folder", "turns") and value is not None
    ]
    found: dict[str, list[Measured]] = {side: [] for side in sides}
    for turn in range(asked.turns):
        # The order is turned round each time, so that none always follows the same one.
        for side in sides if turn % 2 == 0 else list(reversed(sides)):
            found[side].append(measured(script, *passed, f"--side={side}", f"--folder={folder}"))
    ours = found[sides[0]]
    table = {}
    print(f"{'':18}{'texts/s':>9}{'min..max':>18}{'ours is':>10}{'peak MiB':>10}")
    for side in sides:
        rates = [one.rate for one in found[side]]
        ratio = statistics.median(a.rate / b.rate for a, b in zip(ours, found[side], strict=True))
        peak = max(one.peak_bytes for one in found[side])
        print(
            f"{side:18}{statistics.median(rates):9.1f}{min(rates):9.1f}..{max(rates):<8.1f}"
            f"{'' if side == sides[0] else f'{ratio:.2f} x':>9}{peak / 2**20:10.0f}",
            flush=True,
        )
        table[side] = {"rates": rates, "ours_over_this": ratio, "peak_bytes": peak}
    return table


def measured(script: str, *arguments: str) -> Measured:
    """What `measure` printed in a process of its own."""
    return Measured(**json.loads(output(script, *arguments).splitlines()[-1]))


def output(*arguments: str) -> str:
    """What a Python program printed; what it complained of, and the end, where it fails."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=environment())
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def environment() -> dict[str, str]:
    """The environment of a measured process: no network, no chatter."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "benchmarks")]), "PYTHONWARNINGS": "ignore",
    }  # fmt: skip


def report(name: str, results: Any) -> Path:
    """Write results as JSON into outputs/bench/."""
    import torch

    machine = {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }
    file = REPO / "outputs" / "bench" / f"{name}_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n", encoding="utf-8")
    return file


def run(
    name: str, script: str, asked: argparse.Namespace, sides: dict[str, Side], base: Callable[[Path, str], None]
) -> None:
    """Measure one side, where that is asked for; else all in turns, printed and written.

    Args:
        name: of the benchmark.
        script: its file.
        asked: from its command line.
        sides: by name, ours first; each gives seconds and texts.
        base: leaves in a folder what all sides start from.
    """
    if asked.side:
        measure(lambda: sides[asked.side](asked), asked.device)
        return
    with tempfile.TemporaryDirectory() as folder:
        base(Path(folder), asked.network)
        print(f"{name}, {asked.network}, batches of {asked.batch_size}, {asked.device}")
        table = compare(script, asked, list(sides), Path(folder))
    print("written to", report(name, {"settings": vars(asked), "sides": table}))


def measure(side: Callable[[], tuple[float, int]], device: str) -> None:
    """In a process of its own: run one side, which gives seconds and texts, and print what `compare` reads."""
    seconds, count = side()
    print(json.dumps({"rate": count / seconds, "peak_bytes": peak_bytes(device)}))
