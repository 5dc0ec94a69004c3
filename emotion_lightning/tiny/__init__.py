"""What is inside the package, a small network and a classifier on it, and how it was made.

    python -m emotion_lightning.tiny GOEMOTIONS ENCODER

GOEMOTIONS is the folder of the official files, ENCODER that of all-MiniLM-L6-v2. README.md beside this file tells the
steps and what each brought.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

VOCABULARY = 8192
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
"""In Gemma's order, so that ids 0 to 3 mean what they mean there."""


def train_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer that puts <bos> in front of a text, as Gemma's does; no text is unknown to it."""
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
    """Texts made of pieces of two texts, one of each list, for teachers to answer.

    A small network learns most from many texts that its teachers answer, even if nobody wrote them (Beyer et al.,
    2022, "Knowledge distillation: a good teacher is patient and consistent").

    Args:
        first: texts to take pieces of.
        second: the same; may be `first`.
        count: how many to make.
        seed: of every choice.
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
"""Share that comes from one text."""
_DROPPED = 0.08
"""Share of the words that half of them lose."""
_END = re.compile(r"(?<=[.!?,;:…])\s+")


def _piece(text: str, chance: random.Random) -> str:
    """Neighbouring clauses of a text, or words of one that has a single clause."""
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
