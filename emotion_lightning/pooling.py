"""From the vectors of a text's tokens to its logits."""

from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.config import Attention, Pooling


def logits(network: Any, input_ids: Tensor, attention_mask: Tensor, *, pooling: Pooling) -> Tensor:
    """Logits of each label.

    Args:
        network: for sequence classification, with or without an adapter.
        input_ids: [batch, token].
        attention_mask: 1 for tokens, 0 for padding at either end, [batch, token].
        pooling: what the head sees. `first` of an encoder goes through the model's own pooler.

    Returns:
        [batch, label], float32.
    """
    own = network.get_base_model() if hasattr(network, "get_base_model") else network
    if pooling is Pooling.first and not is_decoder(own):
        return network(input_ids=input_ids, attention_mask=attention_mask).logits.float()
    backbone = getattr(own, own.base_model_prefix)
    # Stock decoders put the head on every token and then pick one: with many labels and long texts that is work.
    hidden = backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return _classify(own, pool(hidden, attention_mask, pooling)).float()


def is_stock(network: Any, attention: Attention, pooling: Pooling) -> bool:
    """Whether transformers' own class computes the same logits."""
    own = network.get_base_model() if hasattr(network, "get_base_model") else network
    if is_decoder(own):
        return attention is Attention.causal and pooling is Pooling.last
    return pooling is Pooling.first


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector for each text, [batch, hidden], from those of its tokens, [batch, token, hidden]; padding left out.

    >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> [pool(hidden, torch.tensor([[1, 1, 0]]), way).item() for way in Pooling]
    [1.0, 3.0, 2.0]
    """
    present = attention_mask.to(hidden.device)
    rows = torch.arange(len(hidden), device=hidden.device)
    match pooling:
        case Pooling.first:
            return hidden[rows, present.argmax(dim=1)]
        case Pooling.last:
            places = torch.arange(present.shape[1], device=hidden.device)
            return hidden[rows, (present * places).argmax(dim=1)]
        case Pooling.mean:
            # In float32: a sum of many bfloat16 vectors loses the last of them.
            weights = present.unsqueeze(-1).float()
            return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def is_decoder(network: Any) -> bool:
    """Whether a network for sequence classification reads from left to right by itself, as Gemma does."""
    from transformers.modeling_layers import GenericForSequenceClassification

    return isinstance(network, GenericForSequenceClassification)


def _classify(own: Any, vectors: Tensor) -> Tensor:
    if is_decoder(own):
        return own.score(vectors)
    classifier = own.classifier
    if isinstance(getattr(classifier, "original_module", classifier), nn.Linear):
        return classifier(own.dropout(vectors))
    # RoBERTa's head takes all tokens and looks at the first.
    return classifier(vectors.unsqueeze(1))
