"""Training steps per second against Hugging Face's Trainer, subclassed for the weighted loss.

python benchmarks/training.py [--network minilm|gemma] [--steps 60] [--turns 3]
python benchmarks/training.py --method head|upper [--epochs 10]          # MiniLM's shape, of which a part is frozen

A network of billions of weights on a GPU is measured by gpu.py: here they would be drawn on a CPU, saved and loaded
nine times.

Sides: `ours`; `trainer`, with the settings it comes with; `trainer_best`, with batches grouped by length and, where the
machine has it, bfloat16.
All see the same rows in batches of the same size, with the same loss, optimizer, clipping and trained parameters. The
first steps are not counted. With `--method`, whose first epoch is not like the others for us, everything is: loading,
the pass that computes the frozen part, and all epochs.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import common

WARM = 5
"""Steps before the clock starts."""
METHODS = {"head": ["peft=head"], "upper": ["peft=ia3", "peft.layers=upper_half"]}
_UPPER = r".*\.encoder\.layer\.[345]\."


class Stopwatch:
    """Seconds from the end of the first steps to the end of the last."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps = 0
        self.start = 0.0

    def step(self) -> None:
        """A step is done."""
        self.steps += 1
        if self.steps == WARM:
            self.start = self._now()

    def seconds(self) -> float:
        """Time of all steps but the first."""
        return self._now() - self.start

    def _now(self) -> float:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()  # steps may still be under way
        return time.perf_counter()


def ours(asked: argparse.Namespace) -> tuple[float, int]:
    """The command's own parts, without validation."""
    from lightning import Callback

    count = asked.batch_size * asked.steps
    begun = time.perf_counter()
    trained = common.trainee(asked, count, *METHODS.get(asked.method, []))
    if asked.method:
        fit(trained, [], epochs=asked.epochs)
        return time.perf_counter() - begun, count * asked.epochs
    watch = Stopwatch(asked.device)

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            watch.step()

    fit(trained, [Watch()])
    return watch.seconds(), count - WARM * asked.batch_size


def fit(trained: common.Trainee, callbacks: list[Any], *, epochs: int = 1, max_steps: int = -1) -> None:
    """Train for some epochs, or fewer steps, as the command does, but for validation and saving."""
    from lightning import Trainer

    from emotion_lightning.models.device import precision

    settings = trained.settings.trainer
    trainer = Trainer(
        accelerator=settings.accelerator.value, devices=1, max_epochs=epochs, max_steps=max_steps, logger=False,
        callbacks=callbacks, plugins=[precision(trained.dtype, trained.device)],
        gradient_clip_val=settings.gradient_clip_val, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0, use_distributed_sampler=False, log_every_n_steps=10,
    )  # fmt: skip
    trainer.fit(trained.classifier, trained.emotions)


def peer(asked: argparse.Namespace, *, best: bool) -> tuple[float, int]:
    """What a good user of the Trainer would write."""
    import torch
    from peft import IA3Config, get_peft_model
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torch.utils.data import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    count = asked.batch_size * asked.steps
    texts, targets, labels = common.texts(count, asked.data)
    folder = asked.folder / asked.network
    begun = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    encoded = tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    quantised, fast = asked.network != "minilm", common.fast_dtype(asked.device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=fast,
    )  # fmt: skip
    network = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(labels), problem_type="multi_label_classification",
        **({"quantization_config": quantization, "dtype": fast} if quantised else {"dtype": torch.float32}),
    )  # fmt: skip
    if quantised:
        network = get_peft_model(
            network,
            IA3Config(
                task_type="SEQ_CLS", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
            ),
        )
    elif asked.method == "head":
        network.requires_grad_(False)
        network.base_model.pooler.requires_grad_(True)
        network.classifier.requires_grad_(True)
    elif asked.method == "upper":
        out = rf"{_UPPER}output\.dense"
        ia3 = IA3Config(
            task_type="SEQ_CLS", target_modules=rf"{_UPPER}(attention\.self\.(key|value)|output\.dense)",
            feedforward_modules=out, modules_to_save=["classifier", "pooler"],
        )  # fmt: skip
        network = get_peft_model(network, ia3)
    positives = torch.tensor(targets).sum(0)
    weights = torch.where(positives > 0, (count - positives) / positives.clamp(min=1), 1.0)

    class Texts(Dataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, row: int) -> dict[str, Any]:
            return {"input_ids": encoded[row], "labels": targets[row], "length": len(encoded[row])}

    collate = DataCollatorWithPadding(tokenizer)

    def batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
        padded = collate([{"input_ids": row["input_ids"]} for row in rows])
        return {**padded, "labels": torch.tensor([row["labels"] for row in rows])}

    class Weighted(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = binary_cross_entropy_with_logits(
                outputs.logits.float(), labels, pos_weight=weights.to(labels.device)
            )
            return (loss, outputs) if return_outputs else loss

    # Quantised layers need autocast even at the defaults: without it PEFT's IA3 stops at mixed dtypes.
    mixed = best or quantised
    watch = Stopwatch(asked.device)

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

    arguments = TrainingArguments(
        output_dir=str(asked.folder / "trainer"), per_device_train_batch_size=asked.batch_size,
        num_train_epochs=asked.epochs, learning_rate=1e-3 if quantised else 5e-5, warmup_steps=5, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=asked.device == "cpu",
        remove_unused_columns=False,
        bf16=mixed and fast is torch.bfloat16, fp16=mixed and fast is torch.float16,
        train_sampling_strategy="group_by_length" if best else "random",
    )  # fmt: skip
    trainer = Weighted(
        model=network, args=arguments, train_dataset=Texts(), data_collator=batch, callbacks=[Watch()]
    )  # fmt: skip
    trainer.train()
    if asked.method:
        return time.perf_counter() - begun, count * asked.epochs
    return watch.seconds(), count - WARM * asked.batch_size


SIDES: dict[str, common.Side] = {
    "ours": ours,
    "trainer": partial(peer, best=False),
    "trainer_best": partial(peer, best=True),
}


def main() -> None:
    """Compare, print and write."""
    parser = common.options(__doc__, SIDES)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--method", choices=list(METHODS), help="train a part of minilm; without it, all")
    parser.add_argument("--epochs", type=int, default=1)
    asked = parser.parse_args()
    common.run("training", __file__, asked, SIDES, base)


def base(folder: Path, network: str) -> None:
    """The random weights that all sides start from."""
    from emotion_lightning.models import backbone

    settings = common.settings_of(common.NETWORKS[network])
    labels = common.texts(1, None)[2]
    backbone.random_base(settings.model, labels, backbone.load_tokenizer(settings.model), 1, folder / network)


if __name__ == "__main__":
    main()
