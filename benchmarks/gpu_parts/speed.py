"""Training: ours against Hugging Face's Trainer on the same batches, and ours in other settings."""

import argparse
import statistics
import tempfile
import time
from typing import Any

import common
import numpy as np
import torch
import training

from gpu_parts import base, log, subject

SIDES = ("ours", "trainer_best", "trainer")


class Meter(training.Stopwatch):
    """Texts and tokens per second, without those of the first steps."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.texts = self.tokens = 0

    def step_of(self, texts: int, tokens: int) -> None:
        """A step with so many texts, and tokens without padding, is done."""
        self.step()
        if self.steps > training.WARM:
            self.texts += texts
            self.tokens += tokens

    def rates(self) -> dict[str, float]:
        """What a line tells of a side."""
        seconds = self.seconds()
        return {
            "samples_s": round(self.texts / seconds, 1),
            "tokens_s": round(self.tokens / seconds),
            "ms_step": round(1000 * seconds / (self.steps - training.WARM), 1),
            "peak_gib": log.peak_gib(),
        }


def train(asked: argparse.Namespace, told: log.Log) -> None:
    """All sides in turns; then the ratios within turns, and their medians."""
    turns: list[dict[str, dict[str, Any]]] = []
    for turn in range(asked.turns):
        began, rates = told.spent(), {}
        for side in SIDES if turn % 2 == 0 else reversed(SIDES):
            measure = ours if side == "ours" else peer
            rates[side] = measure(asked, side)
            told.tell("train", side=side, turn=turn, batch=asked.batch_size, **rates[side])
            log.free()
        turns.append(rates)
        if not told.fits(told.spent() - began):
            break
    ratios: dict[str, float | None] = {}
    for side in SIDES[1:]:
        ratios[f"over_{side}"] = round(_median(turns, side, "samples_s"), 2)
        ratios[f"memory_over_{side}"] = round(_median(turns, side, "peak_gib"), 2) if log.peak_gib() else None
    told.tell("ratio", turns=len(turns), batch=asked.batch_size, **ratios)


def _median(turns: list[dict[str, dict[str, Any]]], side: str, value: str) -> float:
    return statistics.median(turn["ours"][value] / turn[side][value] for turn in turns)


def ours(asked: argparse.Namespace, side: str, *more: str, batch: int = 0, steps: int = 0) -> dict[str, Any]:
    """The project's own parts under Lightning."""
    from lightning import Callback

    batch, steps = batch or asked.batch_size, steps or asked.steps
    start = time.perf_counter()
    # A token budget makes other batches than so many texts: there are more texts than the steps can use.
    spare = 8 if any("batch_tokens" in setting for setting in more) else 1
    trained = subject.trainee(asked, batch, spare * steps, *more)
    built, weights = time.perf_counter() - start, _held_gib()
    meter = Meter(asked.device)

    class Count(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, given: Any, index: int) -> None:
            meter.step_of(len(given["rows"]), given["tokens"])

    training.fit(trained, [Count()], max_steps=steps)
    return {**meter.rates(), "weights_gib": weights, "build_s": round(built, 1)}


def peer(asked: argparse.Namespace, side: str) -> dict[str, Any]:
    """What a good user of the Trainer would write, at its best or as PEFT's pages on QLoRA have it.

    At its best it gets the very batches of ours; else the same texts, shuffled.
    """
    from peft import IA3Config, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoModelForSequenceClassification,
        BitsAndBytesConfig,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    best, batch, steps = side == "trainer_best", asked.batch_size, asked.steps
    start = time.perf_counter()
    trained = subject.trainee(asked, batch, steps)
    device, dtype, tokenizer = trained.device, trained.dtype, trained.emotions.tokenizer
    texts, targets, labels = common.texts(batch * steps, asked.data)
    order = [[int(row) for row in rows] for rows in trained.emotions.train_dataloader().batch_sampler]
    if not best:
        order = np.random.default_rng(1).permutation(batch * steps).reshape(steps, batch).tolist()
    config = trained.classifier.network.config
    del trained
    log.free()
    encoded = tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    torch.manual_seed(1)
    with base.drawn_weights(device):
        network = AutoModelForSequenceClassification.from_pretrained(
            "", config=_fresh(config), dtype=dtype,
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=["score"],
            ),
        )  # fmt: skip
    if not best:  # norms in float32, activations computed again in the backward pass
        network = prepare_model_for_kbit_training(network)
    network = get_peft_model(
        network,
        IA3Config(
            task_type="SEQ_CLS", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
    )
    log.free()
    built, weights_gib = time.perf_counter() - start, _held_gib()
    gold = torch.tensor(targets)
    positives = gold.sum(0)
    weights = torch.where(positives > 0, (len(gold) - positives) / positives.clamp(min=1), 1.0).clamp(max=10).to(device)
    pad = DataCollatorWithPadding(tokenizer)

    def collate(rows: list[int]) -> dict[str, Any]:
        return {**pad([{"input_ids": encoded[row]} for row in rows]), "labels": gold[rows]}

    class Weighted(Trainer):
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(
                range(len(encoded)), batch_sampler=order, collate_fn=collate, pin_memory=device.type == "cuda"
            )

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            wanted = inputs.pop("labels")
            return torch.nn.functional.binary_cross_entropy_with_logits(
                model(**inputs).logits.float(), wanted, pos_weight=weights
            )

    meter = Meter(asked.device)

    class Count(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            rows = order[meter.steps]
            meter.step_of(len(rows), sum(len(encoded[row]) for row in rows))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, learning_rate=1e-3, warmup_steps=5,
            report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            use_cpu=device.type == "cpu", bf16=dtype is torch.bfloat16, fp16=dtype is torch.float16,
            **({"optim": "adamw_torch_fused", "tf32": True if device.type == "cuda" else None} if best else {}),
        )  # fmt: skip
        trainer = Weighted(model=network, args=arguments, train_dataset=range(len(encoded)), callbacks=[Count()])
        trainer.remove_callback(PrinterCallback)  # it would write between the lines of JSON
        trainer.train()
    return {**meter.rates(), "weights_gib": weights_gib, "build_s": round(built, 1)}


def sweep(asked: argparse.Namespace, told: log.Log) -> None:
    """Ours with larger batches, token budgets, weights in bfloat16, and activations computed again."""
    few, batch = max(training.WARM + 3, asked.steps // 3), asked.batch_size
    plans: list[tuple[int, list[str]]] = [
        (2 * batch, []), (4 * batch, []), (8 * batch, []),
        (batch, [f"data.batch_tokens={128 * batch}"]), (batch, [f"data.batch_tokens={512 * batch}"]),
        (batch, ["model.quantization=none"]), (8 * batch, ["model.quantization=none"]),
        (8 * batch, ["model.activation_checkpointing=true"]),
    ]  # fmt: skip
    longest = 0.0
    for size, more in plans:
        if not told.fits(longest):
            told.tell("sweep", batch=size, more=more, skipped="no time left")
            continue
        began = told.spent()
        with told.guarded("sweep", batch=size, more=more):
            told.tell("sweep", batch=size, more=more, **ours(asked, "ours", *more, batch=size, steps=few))
        longest = max(longest, told.spent() - began)


def _fresh(config: Any) -> Any:
    """The architecture alone: what was quantised before says so in its config."""
    values = config.to_dict()
    values.pop("quantization_config", None)
    fresh = type(config).from_dict(values)
    fresh.use_cache = False
    return fresh


def _held_gib() -> float | None:
    return round(torch.cuda.memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None
