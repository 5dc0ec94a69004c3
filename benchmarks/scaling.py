"""Cost against the number of rows and the length of texts: prediction in a stream, training steps by length.

python benchmarks/scaling.py [--rows 1000,10000,100000] [--lengths 8,16,32,64,128,256]
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import prediction
import training


def main() -> None:
    """Measure, print and write."""
    parser = common.options(__doc__, ["rows", "length"])
    parser.add_argument("--rows", default="1000,10000,100000")
    parser.add_argument("--lengths", default="8,16,32,64,128,256")
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        common.measure(lambda: _steps(asked), asked.device)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prediction.train(folder, asked.network)
        results = {"rows": _rows(folder, asked), "lengths": _lengths(folder, asked)}
    print("written to", common.report("scaling", {"network": asked.network, **results}))


def _rows(folder: Path, asked: argparse.Namespace) -> dict[int, dict[str, float]]:
    """The predict command on files of growing size, start-up included."""
    found = {}
    print("predict, a file of so many rows, the whole command")
    for count in map(int, asked.rows.split(",")):
        source = folder / f"{count}.csv"
        with source.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(["text"])
            writer.writerows([text] for text in common.texts(count, asked.data)[0])
        command = [sys.executable, "-m", "emotion_lightning.predict", f"run={folder / asked.network}",
                   f"input={source}", f"output={folder / 'labelled.csv'}"]  # fmt: skip
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=common.REPO, env=common.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"predict failed: {' '.join(command)}")
        seconds = time.perf_counter() - start
        found[count] = {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024}
        print(
            f"{count:9,} rows {seconds:8.1f} s {count / seconds:8.0f} rows/s {usage.ru_maxrss / 1024:7.0f} MiB",
            flush=True,
        )
    return found


def _lengths(folder: Path, asked: argparse.Namespace) -> dict[int, float]:
    training.base(folder / "bases", asked.network)
    found = {}
    print("training, batches of 32 texts of one length")
    for length in map(int, asked.lengths.split(",")):
        command = [sys.executable, __file__, "--side=length", f"--network={asked.network}", f"--length={length}",
                   f"--folder={folder / 'bases'}", f"--device={asked.device}"]  # fmt: skip
        done = subprocess.run(command, cwd=common.REPO, capture_output=True, text=True, env=common.environment())
        if done.returncode != 0:
            sys.exit(done.stderr[-3000:])
        rate = json.loads(done.stdout.splitlines()[-1])["rate"]
        found[length] = rate
        print(f"{length:5} tokens {rate:8.1f} texts/s {rate * length:9.0f} tokens/s", flush=True)
    return found


def _steps(asked: argparse.Namespace) -> tuple[float, int]:
    """Training steps on random tokens, all texts of one length."""
    import torch

    from emotion_lightning import model, quiet, train
    from emotion_lightning.data import Corpus, EmotionData, Rows

    quiet.libraries()
    settings = common.settings_of(common.NETWORKS[asked.network])
    texts, targets, labels = common.texts(asked.batch_size, None)
    rows = Rows(texts=texts, ids=[str(i) for i in range(len(texts))], targets=torch.tensor(targets).numpy())
    corpus = Corpus(labels=labels, splits={"train": rows, "validation": rows})
    emotions = EmotionData(settings.data, corpus, tokenizer=model.load_tokenizer(settings.model), seed=1)
    device = model.device_for(settings.trainer.accelerator)
    classifier = train.build_classifier(
        settings, emotions, device=device, base_folder=asked.folder / asked.network, method=""
    )
    dtype = model.compute_dtype(settings.model.dtype, device)
    optimizer = torch.optim.AdamW(classifier.trained().values(), lr=1e-5, fused=True)
    batch = {
        "input_ids": torch.randint(5, 4000, (asked.batch_size, asked.length), device=device),
        "targets": torch.tensor(targets, device=device),
    }
    watch = training.Stopwatch(asked.device)
    steps = training.WARM + max(4, 320 // asked.length)
    for _ in range(steps):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
            loss = classifier.loss(classifier(batch), batch["targets"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watch.step()
    return watch.seconds(), (steps - training.WARM) * asked.batch_size


if __name__ == "__main__":
    main()
