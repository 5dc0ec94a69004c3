"""The small network bundled with the package, the classifier on it, and the code that made both.

    python -m emotion_lightning.tiny GOEMOTIONS ENCODER

GOEMOTIONS is the folder of the official files, ENCODER that of all-MiniLM-L6-v2. README.md in this folder describes the
steps and the effect of each.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

VOCABULARY = 8192
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
"""In Gemma's order, so that ids 0 to 3 have the same meaning as there."""


def train_tokenizer(texts: Iterable[str]) -> Any:
    """Train a byte-level BPE tokenizer. It adds <bos> in front of a text, as Gemma's does, and never needs <unk>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )


def mixtures(first: Sequence[str], second: Sequence[str], count: int, *, seed: int) -> Iterator[str]:
    """Yield synthetic texts for distillation, made of pieces of one or two real texts.

    A small network learns most from many texts with its teachers' probabilities, even if the texts are artificial
    (Beyer et al., 2022, "Knowledge distillation: a good teacher is patient and consistent").

    Args:
        first: texts to take pieces from.
        second: more texts to take pieces from; may be `first`.
        count: number of texts; empty ones are left out afterwards.
        seed: of all random choices.
    """
    chance = random.Random(seed)
    for _ in range(count):
        if chance.random() < _ALONE:
            parts = [_piece(chance.choice(first if chance.random() < 0.5 else second), chance)]
        else:
            parts = [_piece(chance.choice(first), chance), _piece(chance.choice(second), chance)]
            chance.shuffle(parts)
        text = " ".join(parts)
        if chance.random() < 0.5:
            text = " ".join(word for word in text.split() if chance.random() >= _DROPPED)
        if text.strip():
            yield text


_ALONE = 0.3
"""Fraction of the synthetic texts that are made from one text."""
_DROPPED = 0.08
"""Fraction of the words that is removed from half of the synthetic texts."""
_END = re.compile(r"(?<=[.!?,;:…])\s+")


def _piece(text: str, chance: random.Random) -> str:
    """Return some consecutive clauses of a text; from a text with one clause, the whole text or consecutive words."""
    clauses = _END.split(text)
    if len(clauses) == 1:
        words = text.split()
        if len(words) < 7 or chance.random() < 0.5:
            return text
        return " ".join(_neighbours(words, len(words) // 2, chance))
    return " ".join(_neighbours(clauses, 1, chance))


def _neighbours(parts: list[str], least: int, chance: random.Random) -> list[str]:
    count = chance.randint(least, len(parts))
    start = chance.randint(0, len(parts) - count)
    return parts[start : start + count]
