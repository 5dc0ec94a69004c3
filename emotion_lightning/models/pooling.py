"""Pooling: from the vectors of a text's tokens to its logits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.config import Attention, JoinWindows, Pooling
from emotion_lightning.data.batches import Batch
from emotion_lightning.models import last_layer


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
    if is_generic(own):
        # transformers' decoders apply the head to every token and then select one, which is slow with many labels and
        # long texts. With causal attention, no token sees the padding on its right, so the mask is left out: faster
        # attention kernels can then run.
        causal = getattr(own.config, "is_causal", True)
        with _last_layer_of_one(own, ids, mask, pooling, hides_later=causal) as is_pooled:
            hidden = backbone(input_ids=ids, attention_mask=None if causal else mask).last_hidden_state
        return own.score(hidden[:, 0] if is_pooled else pool(hidden, mask, pooling)).float()
    if own.config.is_encoder_decoder:
        return _through_decoder(own, ids, mask, pooling).float()
    if pooling is Pooling.first and read_by(own).way is Pooling.first:
        with _last_layer_of_one(own, ids, mask, pooling, hides_later=False):
            return network(input_ids=ids, attention_mask=mask).logits.float()
    # Own pooling from the mask, because transformers looks for the last token by its id, which a text may contain.
    with _last_layer_of_one(own, ids, mask, pooling, hides_later=False) as is_pooled:
        hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    vectors = hidden[:, 0] if is_pooled else pool(hidden, mask, pooling)
    return _read(own, ids, mask, vectors.unsqueeze(1).expand(*ids.shape, -1), vectors).float()


def shorten_last_layer(network: Any, way: Pooling, *, dtype: torch.dtype) -> None:
    """Let the last layer be computed for the pooled token alone, where there is one and where that changes no logit.

    Args:
        network: sequence classification network, with or without an adapter, not compiled.
        way: pooling of the token vectors.
        dtype: compute dtype.
    """
    own = unwrapped(network)
    if way is not Pooling.mean and not own.config.is_encoder_decoder:
        last_layer.install(own, partial(logits, network, pooling=way), dtype=dtype)


@contextmanager
def _last_layer_of_one(
    own: Any, ids: Tensor, mask: Tensor | None, pooling: Pooling, *, hides_later: bool
) -> Iterator[bool]:
    """Compute the last layer for the pooled token alone if `shorten_last_layer` allowed it; gives whether it is."""
    if pooling is Pooling.mean or not last_layer.is_installed(own) or ids.shape[1] == 1:
        yield False
        return
    count, tokens = ids.shape
    if pooling is Pooling.first:
        rows = torch.zeros(count, dtype=torch.long, device=ids.device)
    elif mask is None:
        rows = torch.full((count,), tokens - 1, device=ids.device)
    else:
        rows = mask.sum(dim=1) - 1
    # The last token of a text without padding sees all tokens anyway.
    sees_all = pooling is Pooling.last and mask is None
    with last_layer.for_one_token(rows, hides_later=hides_later and not sees_all):
        yield True


def join(logits: Tensor, pieces: Sequence[int], way: JoinWindows) -> Tensor:
    """Join the logits of the pieces of each text, [piece, label], to those of the texts, [text, label].

    Args:
        logits: of all pieces, those of a text one after the other.
        pieces: number of pieces of each text.
        way: maximum or mean over the pieces, for each label.

    >>> join(torch.tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]]), [2, 1], JoinWindows.maximum).tolist()
    [[3.0, 2.0], [5.0, 5.0]]
    """
    # Text by text, so that a text's result has the same rounding in every batch.
    parts = logits.split(list(pieces))
    return torch.stack([part.amax(0) if way is JoinWindows.maximum else part.mean(0) for part in parts])


def head_vectors(network: Any, batch: Batch, *, pooling: Pooling) -> Tensor:
    """Compute the vector of each text that enters the head, or the pooler in front of it, [batch, hidden].

    `logits_of` computes from it the same logits as `logits`. The arguments are those of `logits`.
    """
    own = unwrapped(network)
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    seen, extra = mask, {}
    if is_generic(own) and getattr(own.config, "is_causal", True):
        seen = None
    elif own.config.is_encoder_decoder:
        extra = _decoder_inputs(own, ids)
    hidden = backbone_of(own)(input_ids=ids, attention_mask=seen, **extra).last_hidden_state
    return pool(hidden, mask, pooling)


def logits_of(network: Any, vectors: Tensor, batch: Batch, *, pooling: Pooling) -> Tensor:
    """Compute the logits of a batch, [batch, label], float32, from the vectors that `head_vectors` returned."""
    own = unwrapped(network)
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if is_generic(own):
        return own.score(vectors).float()
    if own.config.is_encoder_decoder:
        (head,) = beside_backbone(own).values()
        return head(vectors).float()
    read = read_by(own)
    # A pooler is a module of the backbone; it reads the first of the vectors that it is given.
    takes_pooler = pooling is Pooling.first and read.way is Pooling.first and read.reads_pooler
    pooled = backbone_of(own).pooler(vectors.unsqueeze(1)) if takes_pooler else vectors
    return _read(own, ids, mask, vectors.unsqueeze(1).expand(*ids.shape, -1), pooled).float()


def _through_decoder(own: Any, ids: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Logits of a network with encoder and decoder, whose decoder reads the text again."""
    # BART's class asks for the same number of </s> in each text, which a text may contain; so the head is called here.
    hidden = backbone_of(own)(input_ids=ids, attention_mask=mask, **_decoder_inputs(own, ids)).last_hidden_state
    (head,) = beside_backbone(own).values()
    return head(pool(hidden, mask, pooling))


def _decoder_inputs(own: Any, ids: Tensor) -> dict[str, Tensor]:
    """The text again, shifted by one, for a backbone that does not shift it itself, as BART's does."""
    shift = getattr(own, "_shift_right", None) or getattr(own, "prepare_decoder_input_ids_from_labels", None)
    return {"decoder_input_ids": shift(ids)} if shift else {}


def beside_backbone(own: Any) -> dict[str, nn.Module]:
    """The modules with weights that a network has beside its backbone, by name: its head."""
    return {
        name: child
        for name, child in own.named_children()
        if name != own.base_model_prefix and any(True for _ in child.parameters())
    }


def is_stock(network: Any, attention: Attention, pooling: Pooling) -> bool:
    """Whether transformers' own class computes the same logits as `logits`."""
    own = unwrapped(network)
    if is_generic(own):
        return attention is Attention.causal and pooling is Pooling.last
    read = read_by(own)
    return read.is_stock and pooling is read.way


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Pool the token vectors, [batch, token, hidden], to one vector for each text, [batch, hidden], without padding.

    >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> [pool(hidden, torch.tensor([[1, 1, 0]]), Pooling(way)).item() for way in ("first", "last", "mean")]
    [1.0, 3.0, 2.0]
    """
    if pooling is Pooling.first:
        return hidden[:, 0]
    if attention_mask is None:
        return hidden[:, -1] if pooling is Pooling.last else hidden.float().mean(dim=1)
    present = attention_mask.to(hidden.device)
    if pooling is Pooling.last:
        # Not len(hidden): that is a fixed number to torch.export, whose first try would fail and a slower one follow.
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), present.sum(dim=1) - 1]
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
    own = unwrapped(network)
    if is_generic(own):
        return True
    read = read_by(own)
    # The last token is the only one that has seen the whole text. XLNet reads the last one too, but also padding: its
    # texts are padded on the left, and its tokens see each other.
    return read.way is Pooling.last and read.is_stock and not own.config.is_encoder_decoder


def is_generic(own: Any) -> bool:
    """Whether the class of a network is transformers' own for decoders, as Gemma's is."""
    from transformers.modeling_layers import GenericForSequenceClassification

    return isinstance(own, GenericForSequenceClassification)


# --------------------------------------------------------------------------------------------------- what a head reads


@dataclass
class Read:
    """What the class of a network reads for its logits.

    Attributes:
        way: the token vectors that it reads.
        reads_pooler: whether it reads the output of the backbone's pooler instead of the token vectors.
        is_stock: whether `pool` gives the same vector, also for a text with padding on its right.
    """

    way: Pooling
    reads_pooler: bool
    is_stock: bool


_READ = "emotion_lightning_read"
"""Attribute of a network in which `read_by` keeps its answer."""


def read_by(own: Any) -> Read:
    """What the class of a network reads; found once for each network."""
    found: Read | None = getattr(own, _READ, None)
    if found is None:
        found = read_head(own)
        setattr(own, _READ, found)
    return found


def read_head(own: Any) -> Read:
    """Find out what the class of a network reads, by giving its head random vectors instead of the backbone's.

    Args:
        own: a network for sequence classification, without its PEFT model. Only its head needs weights.
    """
    if is_generic(own):
        return Read(Pooling.last, reads_pooler=False, is_stock=True)
    weight = next(parameter for child in beside_backbone(own).values() for parameter in child.parameters())
    chance = torch.Generator().manual_seed(1)
    shape = (2, 5, own.config.get_text_config().hidden_size)
    hidden = torch.randn(shape, generator=chance).to(weight.device)
    pooled = torch.randn((2, shape[-1]), generator=chance).to(weight.device)
    ids, mask = _two_texts(own)
    ids, mask = ids.to(weight.device), mask.to(weight.device)
    was_training = own.training
    own.eval()
    try:
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):

            def read(hidden: Tensor, pooled: Tensor) -> Tensor:
                return _read(own, ids, mask, hidden.to(weight.dtype), pooled.to(weight.dtype)).float()

            stock = read(hidden, pooled)
            if not torch.allclose(stock, read(hidden, pooled * 2), atol=1e-4):
                return Read(Pooling.first, reads_pooler=True, is_stock=True)
            for way in (Pooling.first, Pooling.last, Pooling.mean):
                vectors = pool(hidden, mask, way)
                same = (read(vectors.unsqueeze(1).expand(shape), pooled) - stock).abs().amax(dim=1) < 1e-4
                if bool(same[0]):  # the text without padding
                    return Read(way, reads_pooler=False, is_stock=bool(same[1]))
    finally:
        own.train(was_training)
    # A class that averages the logits of all tokens, as EuroBERT's may, comes closest to the mean.
    return Read(Pooling.mean, reads_pooler=False, is_stock=False)


def _two_texts(own: Any) -> tuple[Tensor, Tensor]:
    """Token ids and mask of a text of five tokens and of one of three, which end as the network's texts do."""
    settings = own.config.get_text_config()
    ends = settings.eos_token_id if isinstance(getattr(settings, "eos_token_id", None), int) else None
    pad = settings.pad_token_id or 0
    word = next(number for number in range(10) if number not in (ends, pad))
    end = word if ends is None or ends == pad else ends
    ids = torch.tensor([[word, word, word, word, end], [word, word, end, pad, pad]])
    return ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


class _Output(tuple):
    """Output of a backbone: vectors of tokens and of the pooler, and nothing else that it could hold."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return {"last_hidden_state": self[0], "pooler_output": self[1]}.get(name)


class _Given(nn.Module):
    """Stands in the place of a backbone and gives what it is given."""

    def __init__(self, hidden: Tensor, pooled: Tensor) -> None:
        super().__init__()
        self.output = _Output((hidden, pooled))

    def forward(self, *_: Any, **__: Any) -> _Output:
        return self.output


def _read(own: Any, ids: Tensor, mask: Tensor | None, hidden: Tensor, pooled: Tensor) -> Tensor:
    """Logits that the class of a network computes from the vectors of tokens and the output of a pooler."""
    # A copy that shares all modules but the backbone: other threads may be computing with the network itself.
    copy = object.__new__(type(own))
    copy.__dict__.update(own.__dict__, _modules=own._modules | {own.base_model_prefix: _Given(hidden, pooled)})
    return copy(input_ids=ids, attention_mask=mask).logits
