"""Pooling: from the vectors of a text's tokens to its logits."""

from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.config import Attention, Pooling
from emotion_lightning.data.batches import Batch


def logits(network: Any, batch: Batch, *, pooling: Pooling) -> Tensor:
    """Compute the logits of a batch.

    Args:
        network: sequence classification network, with or without an adapter.
        batch: as returned by `data.batches.Collate`, padded on the right.
        pooling: how token vectors are combined. With `first`, an encoder runs its own forward pass and pooler.

    Returns:
        [batch, label], float32.
    """
    own = unwrapped(network)
    backbone = backbone_of(own)
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if pooling is Pooling.first and not is_decoder(own):
        return network(input_ids=ids, attention_mask=mask).logits.float()
    # transformers' decoders apply the head to every token and then select one, which is slow with many labels and long
    # texts. With causal attention, no token sees the padding on its right, so the mask is left out: faster attention
    # kernels can then run.
    hidden = backbone(input_ids=ids, attention_mask=None if _is_causal(own) else mask).last_hidden_state
    return _classify(own, pool(hidden, mask, pooling)).float()


def is_stock(network: Any, attention: Attention, pooling: Pooling) -> bool:
    """Whether transformers' own class computes the same logits as `logits`."""
    own = unwrapped(network)
    if is_decoder(own):
        return attention is Attention.causal and pooling is Pooling.last
    return pooling is Pooling.first


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Pool the token vectors, [batch, token, hidden], to one vector for each text, [batch, hidden], without padding.

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
    # In float32: in a bfloat16 sum of many vectors, the last ones would be rounded away.
    weights = present.unsqueeze(-1).float()
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


def unwrapped(network: Any) -> Any:
    """The network inside a PEFT model, or the network itself."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def backbone_of(network: Any) -> Any:
    """The backbone of a network with or without an adapter: the network without its head."""
    own = unwrapped(network)
    return getattr(own, own.base_model_prefix)


def is_decoder(network: Any) -> bool:
    """Whether a sequence classification network is a decoder such as Gemma, with causal attention by default."""
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
    # RoBERTa's head takes all tokens and uses only the first.
    return classifier(vectors.unsqueeze(1))
