"""Epochs that start above the frozen part of a network, whose outputs were computed once, against whole ones.

python benchmarks/frozen.py [--network tiny|minilm] [--path FOLDER] [--method head|upper] [--turns 3] [--rows 0]

Both sides train in one process, an epoch each in turns, with validation, as the command does but for saving. Told are
the seconds of the processor, which other work on the machine changes little, and those of the clock. `--path` is a
folder with MiniLM's weights; without it they are random. The first epoch of each side is not counted, and neither is
the pass that computes the frozen part, which is told by itself.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import common

METHODS = {"head": ["peft=head"], "upper": ["peft=ia3", "peft.layers=upper_half"]}


@dataclasses.dataclass
class Side:
    """One side: its Trainer goes on by an epoch whenever it is asked.

    Attributes:
        name: shown.
        built: what is trained.
        computed: seconds of the processor that building took.
    """

    name: str
    built: common.Trainee
    computed: float

    def epoch(self) -> tuple[float, float]:
        """Train for an epoch; its seconds of the processor and of the clock, without what surrounds it."""
        from lightning import Callback, Trainer

        from emotion_lightning.models.device import precision

        marks: list[tuple[float, float]] = []

        class Watch(Callback):
            def on_train_epoch_start(self, *_: Any) -> None:
                marks.append((time.process_time(), time.perf_counter()))

            def on_train_epoch_end(self, *_: Any) -> None:
                marks.append((time.process_time(), time.perf_counter()))

        settings = self.built.settings.trainer
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, callbacks=[Watch()],
            plugins=[precision(self.built.dtype, self.built.device)], gradient_clip_val=settings.gradient_clip_val,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            num_sanity_val_steps=0, use_distributed_sampler=False, log_every_n_steps=10,
        )  # fmt: skip
        trainer.fit(self.built.classifier, self.built.emotions)
        return marks[1][0] - marks[0][0], marks[1][1] - marks[0][1]


def side(name: str, asked: argparse.Namespace, *more: str) -> Side:
    """Build a side from the settings of the command."""
    from lightning import seed_everything

    from emotion_lightning.data import sources
    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.models import backbone
    from emotion_lightning.models.device import compute_dtype, device_for
    from emotion_lightning.training.setup import build_classifier

    network = {"tiny": ["model=tiny"], "minilm": ["model=minilm", "model.dtype=float32"]}[asked.network]
    if asked.network == "minilm":
        network += [f"model.path={asked.path}"] if asked.path else ["model.pretrained=false"]
    rows = [f"data.max_rows={asked.rows}"] if asked.rows else []
    source = ["data=goemotions", f"data.dir={asked.data}"] if asked.data else []
    settings = common.settings_of([*network, *source, *rows, *METHODS[asked.method], "frozen.disk_gb=0", *more])
    seed_everything(1, verbose=False)
    corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data, tell=False)
    emotions = EmotionData(settings.data, corpus, tokenizer=backbone.load_tokenizer(settings.model), seed=1)
    device = device_for(settings.trainer.accelerator)
    start = time.process_time()
    classifier = build_classifier(
        settings, emotions, device=device, base_folder=asked.folder / asked.network, method=""
    )
    dtype = compute_dtype(settings.model.dtype, device)
    return Side(name, common.Trainee(settings, emotions, classifier, device, dtype), time.process_time() - start)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["tiny", "minilm"], default="tiny")
    parser.add_argument("--path", help="folder with weights of MiniLM")
    parser.add_argument("--data", help="folder of GoEmotions; without it, the bundled sample")
    parser.add_argument("--method", choices=list(METHODS), default="head")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0, help="at most so many rows of each split; 0: all")
    asked = parser.parse_args()

    import tempfile

    from emotion_lightning.runs import environment, quiet

    quiet.quiet_libraries()
    environment.keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = Path(folder)
        # Built alike but for this setting; the difference of their times is that of the pass over all texts.
        whole = side("whole", asked, "frozen.reuse=never")
        above = side("above", asked, "frozen.reuse=always")
        sides = [above, whole]
        found: dict[str, list[tuple[float, float]]] = {one.name: [] for one in sides}
        for turn in range(asked.turns + 1):
            for one in sides if turn % 2 == 0 else reversed(sides):
                seconds = one.epoch()
                if turn:
                    found[one.name].append(seconds)
    processor = statistics.median(b[0] / a[0] for a, b in zip(found["above"], found["whole"], strict=True))
    clock = statistics.median(b[1] / a[1] for a, b in zip(found["above"], found["whole"], strict=True))
    print(f"{asked.network}, {asked.method}, {whole.built.emotions.train_rows:,} rows")
    for one in sides:
        print(f"{one.name:8}{statistics.median(a for a, _ in found[one.name]):9.3f} s of the processor an epoch")
    print(
        f"ratio {processor:.1f} (of the clock {clock:.1f}); pass over all texts {above.computed - whole.computed:.1f} s"
    )
    results = {
        "settings": {name: str(value) for name, value in vars(asked).items()}, "epochs": found,
        "ratio": processor, "ratio_of_clock": clock, "pass": above.computed - whole.computed,
    }  # fmt: skip
    print("written to", common.report("frozen", results))


if __name__ == "__main__":
    main()
