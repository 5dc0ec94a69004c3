"""Texts labelled per second against Transformers' pipeline on the same model folder.

python benchmarks/prediction.py [--network minilm|gemma] [--count 3000] [--turns 3]

Sides: `ours`, `load(run).predict(texts)`; `pipeline`, in batches of the same size at its own defaults; `pipeline_best`,
with the texts sorted by length and, where the machine has it, in bfloat16; `int8`, our export of minilm with 8-bit
weights. All give a probability for each label of each text.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import common

WARM = 64
"""Texts that are labelled before the clock starts."""


def ours(asked: argparse.Namespace, *, folder: str | None = None) -> tuple[float, int]:
    """As from Python; the command reads and writes files besides."""
    from emotion_lightning import load

    texts = common.texts(asked.count, asked.data)[0]
    run = load(asked.folder / (folder or asked.network))
    run.predict(texts[:WARM], batch_size=asked.batch_size)
    start = time.perf_counter()
    answers = run.predict(texts, batch_size=asked.batch_size)
    assert len(answers) == asked.count
    return time.perf_counter() - start, asked.count


def peer(asked: argparse.Namespace, *, best: bool) -> tuple[float, int]:
    """What a good user of the pipeline would write."""
    import torch
    from transformers import AutoTokenizer, pipeline

    texts = common.texts(asked.count, asked.data)[0]
    folder = asked.folder / asked.network / "model"
    dtype = common.fast_dtype(asked.device) if best else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    classify = pipeline(
        "text-classification", model=_network(folder, asked, dtype), tokenizer=tokenizer, top_k=None,
        function_to_apply="sigmoid", batch_size=asked.batch_size, device=asked.device, truncation=True, max_length=64,
    )  # fmt: skip
    classify(texts[:WARM])
    start = time.perf_counter()
    ordered = sorted(texts, key=len) if best else texts
    answers = classify(ordered)
    assert len(answers) == asked.count
    return time.perf_counter() - start, asked.count


def _network(folder: Path, asked: argparse.Namespace, dtype: Any) -> Any:
    import json

    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    if asked.network == "minilm":
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    from peft import PeftModel

    metadata = json.loads((folder / "emotion_lightning.json").read_text())
    network = AutoModelForSequenceClassification.from_pretrained(
        folder.parent / "base", num_labels=len(metadata["labels"]), dtype=dtype,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["score"],
        ),
    )  # fmt: skip
    return PeftModel.from_pretrained(network, folder)


def train(folder: Path, network: str) -> None:
    """A run of one step, whose folder both sides load."""
    common.output("-m", "emotion_lightning.train", *common.NETWORKS[network], "trainer.max_steps=1", "logger=none",
                  "data.max_rows=64", f"hydra.run.dir={folder / network}")  # fmt: skip


def train_and_export(folder: Path, network: str) -> None:
    """That run, and what `int8` loads."""
    train(folder, network)
    if network == "minilm":
        common.output("-m", "emotion_lightning.export", f"run={folder / network}", f"output={folder / 'int8'}",
                      "format=onnx_int8")  # fmt: skip


SIDES: dict[str, common.Side] = {
    "ours": ours,
    "pipeline": partial(peer, best=False),
    "pipeline_best": partial(peer, best=True),
    "int8": partial(ours, folder="int8"),
}


def main() -> None:
    """Compare, print and write."""
    parser = common.options(__doc__, SIDES)
    parser.add_argument("--count", type=int, default=3000)
    asked = parser.parse_args()
    sides = {name: side for name, side in SIDES.items() if name != "int8" or asked.network == "minilm"}
    common.run("prediction", __file__, asked, sides, train_and_export)


if __name__ == "__main__":
    main()
