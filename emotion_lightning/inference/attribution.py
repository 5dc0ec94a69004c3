"""Attributions: how much each token of a text adds to the logits of a network.

Integrated gradients (Sundararajan et al., 2017, "Axiomatic Attribution for Deep Networks"), by Captum, on the vectors
that the network's embedding gives its tokens.
"""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.errors import UserError
from emotion_lightning.models import pooling
from emotion_lightning.runs import extras

STEPS = 32
"""Points at which gradients are taken, unless the caller asks for another number."""
_TOKENS_AT_ONCE = 4096
"""Most tokens in one pass. The memory of a pass forward and back grows with them, and long texts need fewer points."""


def check_installed() -> None:
    """Raise UserError if Captum is missing."""
    if importlib.util.find_spec("captum") is None:
        raise UserError(f"Explanations need Captum: {extras.install('explain')}")


def baseline_token(tokenizer: Any) -> int:
    """The token that stands for a text's tokens where nothing is said.

    It is the mask token if there is one: an encoder has learned to take it for any word. Otherwise it is the padding
    token. A vector of zeros is no place to start from: the norms of a network such as Gemma divide by the length of a
    vector, so that its logits jump near zero, and the sum of the gradients is far off with any number of steps.
    """
    found = tokenizer.mask_token_id
    return int(tokenizer.pad_token_id if found is None else found)


@dataclass
class Attributed:
    """What the tokens of one text add to some logits.

    Attributes:
        attributions: [target, token], float64.
        logits: of the text, [target], float64.
        baseline_logits: of its baseline, [target], float64.
    """

    attributions: Tensor
    logits: Tensor
    baseline_logits: Tensor


def integrated_gradients(
    forward: Callable[[Tensor], Tensor],
    network: Any,
    ids: Tensor,
    baseline_ids: Tensor,
    *,
    targets: Sequence[int],
    steps: int,
    batch_size: int,
) -> Attributed:
    """Attribute logits of one text to its tokens.

    Gradients are taken at points on the straight line between the vectors of the baseline's tokens and those of the
    text's, at the places and with the weights of the Gauss-Legendre quadrature. Memory is bounded: at most `batch_size`
    points, and no more than 4,096 tokens, are computed at once.

    Args:
        forward: computes the logits, [row, label], of token ids, [row, token].
        network: sequence classification network that `forward` uses, in evaluation mode.
        ids: token ids of the text, [token], on the network's device.
        baseline_ids: token ids of its baseline, [token]: where they are equal to `ids`, attributions are 0.
        targets: indices of the logits to attribute.
        steps: number of points.
        batch_size: most points in one pass.

    Raises:
        UserError: the network has no token embedding, or reads its tokens in another way.
    """
    from captum.attr import IntegratedGradients

    vectors = _TokenVectors(network, ids)
    with torch.no_grad():
        end, start = vectors.of(ids), vectors.of(baseline_ids)

    def logits(given: Tensor) -> Tensor:
        with vectors.replaced(given):
            return forward(ids.expand(len(given), -1))

    with torch.no_grad():
        both = logits(torch.cat([end, start]))[:, list(targets)].double().cpu()
    rows = max(1, min(batch_size, _TOKENS_AT_ONCE // len(ids)))
    method = IntegratedGradients(logits)
    parts = []
    for first in range(0, len(targets), rows):
        some = list(targets[first : first + rows])
        found = method.attribute(
            end.expand(len(some), -1, -1), baselines=start.expand(len(some), -1, -1), target=some, n_steps=steps,
            internal_batch_size=rows,
        )  # fmt: skip
        parts.append(found.detach().double().sum(-1).cpu())
    return Attributed(torch.cat(parts), both[0], both[1])


class _TokenVectors:
    """The token embedding of a network, whose results can be replaced while a text is computed.

    The network gets the ids of the text all the while, so that what depends on these, such as the positions of RoBERTa,
    stays the same.

    Args:
        network: with or without an adapter.
        ids: token ids of the text, [token].
    """

    def __init__(self, network: Any, ids: Tensor) -> None:
        own = pooling.unwrapped(network)
        self._name = type(own).__name__
        try:
            table = own.get_input_embeddings()
        except (NotImplementedError, AttributeError):
            table = None
        if not isinstance(table, nn.Module):
            raise self._unusual()
        self._table = table
        # A decoder beside an encoder may look its tokens up in a module of its own that shares the matrix.
        matrix = getattr(table, "weight", None)
        self._modules = [
            module
            for module in own.modules()
            if module is table or (matrix is not None and getattr(module, "weight", None) is matrix)
            and isinstance(module, nn.Embedding)
        ]  # fmt: skip
        self._ids = ids

    def of(self, ids: Tensor) -> Tensor:
        """The vectors of token ids, [1, token, hidden], float32."""
        found = self._table(ids.unsqueeze(0))
        if not isinstance(found, Tensor):  # I-BERT's gives the scale of its integers too
            raise self._unusual()
        return found.float()

    def _unusual(self) -> UserError:
        return UserError(
            f"{self._name} turns its tokens into vectors in a way of its own; its answers cannot be explained."
        )

    @contextmanager
    def replaced(self, vectors: Tensor) -> Iterator[None]:
        """Let the embedding return these vectors, [row, token, hidden], for the text, but in this thread only.

        Raises:
            UserError: the block ended, and the network has not asked for the vectors of the text.
        """
        thread, used = threading.get_ident(), []

        def replace(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            # Another thread may be predicting with the same network.
            if threading.get_ident() != thread or not isinstance(output, Tensor):
                return None
            asked = args[0] if args else kwargs.get("input", kwargs.get("input_ids"))
            found = self._in_place(asked, vectors.to(output.dtype), output)
            if found is not None:
                used.append(True)
            return found

        hooks = [module.register_forward_hook(replace, with_kwargs=True) for module in self._modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if not used:
            raise self._unusual()

    def _in_place(self, asked: Any, vectors: Tensor, output: Tensor) -> Tensor | None:
        """The vectors in the place of the tokens that the network asks for; None if these are other tokens."""
        if not isinstance(asked, Tensor) or asked.ndim != 2:
            return None
        length = len(self._ids)
        if asked.shape[1] >= length and _same(asked[:, :length], self._ids):
            # Some networks pad a text to the length of their windows.
            return vectors if asked.shape[1] == length else torch.cat([vectors, output[:, length:]], dim=1)
        if asked.shape[1] == length and _same(asked[:, 1:], self._ids[:-1]):
            # The decoder of T5 or BART reads the text behind a token that begins it.
            return torch.cat([output[:, :1], vectors[:, :-1]], dim=1)
        if asked.shape[0] == length and _same(asked.T, self._ids):  # XLNet
            return vectors.transpose(0, 1)
        return None


def _same(asked: Tensor, ids: Tensor) -> bool:
    return bool((asked == ids).all())
