"""The bundled tokenizer, and how it was made: `python -m emotion_lightning.tiny`."""

from collections.abc import Iterable
from typing import Any

VOCABULARY = 4096
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
