"""The token that a decoder expects at the start of every text, such as Gemma's `<bos>`."""

import logging
from typing import Any

from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


def ensure_first_token(tokenizer: Any, path: str, *, revision: str, model_type: str) -> None:
    """Make a tokenizer put its bos token before every text if the model expects it.

    transformers 5 reads only tokenizer.json and ignores `add_bos_token` of tokenizer_config.json. A tokenizer.json
    without a post-processor then adds no bos token, and Gemma's predictions become far worse without an error.

    Args:
        tokenizer: as transformers loads it; changed in place.
        path: folder or hub id of the tokenizer.
        revision: branch, tag or commit on the hub.
        model_type: transformers' name of the architecture; Gemma gets the token even if no file asks for it.

    Raises:
        UserError: the token is expected but cannot be added.
    """
    # Encoders start with a cls token instead.
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
