"""The token that a decoder was trained to find before every text."""

import logging
from typing import Any

from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


def ensure(tokenizer: Any, path: str, *, revision: str, model_type: str) -> None:
    """Let a tokenizer begin every text with its token for that (Gemma's `<bos>`), where the model wants it.

    transformers 5 takes that token from tokenizer.json alone and passes by `add_bos_token` of tokenizer_config.json, so
    a tokenizer.json without a post-processor gives none, and Gemma's answers are far worse without a word.

    Args:
        tokenizer: as transformers loads it; changed in place.
        path: folder or hub id that it came from.
        revision: on the hub.
        model_type: transformers' name of the architecture; Gemma wants the token also where no file says so.

    Raises:
        UserError: the token is wanted and cannot be added.
    """
    # Encoders begin with a token of another kind, and have no say here.
    if tokenizer.bos_token_id is None or tokenizer.cls_token_id is not None or _begins(tokenizer):
        return
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    gemma = model_type.startswith("gemma") or type(tokenizer).__name__.startswith("Gemma")
    if not get_tokenizer_config(path, revision=revision).get("add_bos_token", gemma):
        return
    tokenizer.add_bos_token = True  # transformers writes a new post-processor
    if not _begins(tokenizer):
        raise UserError(
            f"The tokenizer of {path} does not put {tokenizer.bos_token} before a text, which its model was trained "
            "with. Give its tokenizer.json a post_processor that does."
        )
    log.info(
        "The tokenizer.json of %s does not put %s before a text, as its model was trained; it is put there now.",
        path, tokenizer.bos_token,
    )  # fmt: skip


def _begins(tokenizer: Any) -> bool:
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
