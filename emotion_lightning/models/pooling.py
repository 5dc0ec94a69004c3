"""From the vectors of a text's tokens to its logits."""

from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.config import Attention, Pooling
from emotion_lightning.data.batches import Batch


def logits(network: Any, batch: Batch, *, pooling: Pooling) -> Tensor:
    """Logits of each label.

    Args:
        network: for sequence classification, with or without an adapter.
        batch: as `data.batches.Collate` makes it: padded on the right.
        pooling: what the head sees. `first` of an encoder goes through the model's own pooler.

    Returns:
        [batch, label], float32.
    """
    own = unwrapped(network)
    backbone = backbone_of(own)
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if pooling is Pooling.first and not is_decoder(own):
        return network(input_ids=ids, attention_mask=mask).logits.float()
    # Stock decoders put the head on every token and then pick one: with many labels and long texts that is work.
    # Reading from left to right, a text never sees the padding behind it; without a mask the faster kernels serve.
    hidden = backbone(input_ids=ids, attention_mask=None if _is_causal(own) else mask).last_hidden_state
    return _classify(own, pool(hidden, mask, pooling)).float()


def is_stock(network: Any, attention: Attention, pooling: Pooling) -> bool:
    """Whether transformers' own class computes the same logits."""
    own = unwrapped(network)
    if is_decoder(own):
        return attention is Attention.causal and pooling is Pooling.last
    return pooling is Pooling.first


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: Pooling) -> Tensor:
    """One vector for each text, [batch, hidden], from those of its tokens, [batch, token, hidden]; padding left out.

    >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> [pool(hidden, torch.tensor([[1, 1, 0]]), way).item() for way in Pooling]
    [1.0, 3.0, 2.0]
    """
    if pooling is Pooling.first:
        return hidden[:, 0]
    if attention_mask is None:
        return hidden[:, -1] if pooling is Pooling.last else hidden.float().mean(dim=1)
    present = attention_mask.to(hidden.device)
    if pooling is Pooling.last:
        return hidden[torch.arange(len(hidden), device=hidden.device), present.sum(dim=1) - 1]
    # In float32: a sum of many bfloat16 vectors loses the last of them.
    weights = present.unsqueeze(-1).float()
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


def unwrapped(network: Any) -> Any:
    """A network without the adapter around it."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def backbone_of(network: Any) -> Any:
    """A network without its head, with or without an adapter around it."""
    own = unwrapped(network)
    return getattr(own, own.base_model_prefix)


def is_decoder(network: Any) -> bool:
    """Whether a network for sequence classification reads from left to right by itself, as Gemma does."""
    from transformers.modeling_layers import GenericForSequenceClassification

    return isinstance(network, GenericForSequenceClassification)


def _is_causal(own: Any) -> bool:
    return is_decoder(own) and getattr(own.config, "is_causal", True)


def _classify(own: Any, vectors: Tensor) -> Tensor:
    if is_decoder(own):
        return own.score(vectors)
    classifier = own.classifier
    if isinstance(getattr(classifier, "original_module", classifier), nn.Linear):
        return classifier(own.dropout(vectors))
    # RoBERTa's head takes all tokens and looks at the first.
    return classifier(vectors.unsqueeze(1))
