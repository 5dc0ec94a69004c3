"""The last layer of a network, computed for the pooled token alone.

A head that reads one token of a text needs keys and values of all its tokens from the last layer, but queries,
attention and feed-forward of that one token only. No architecture need be known: the layer's own forward pass runs
twice, once for all tokens until its attention hands keys and values to its cache, and once for the pooled token with a
cache that gives them back. Both ways are compared before the shorter one is used.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.data.batches import Batch
from emotion_lightning.models.evaluating import evaluating
from emotion_lightning.models.patched import become, restore
from emotion_lightning.models.roles import attention_part, layers_of

_INSTALLED = "emotion_lightning_last_layer"
"""Attribute of a network in which `install` keeps what it has found and set."""
_EXACT, _ROUGH = 1e-5, 0.03
"""Largest difference of logits, of their size, that counts as rounding: in float32, and in lower precision."""


class _Stage(Enum):
    KEYS = "keys and values of all tokens"
    TOKEN = "the pooled token"


class _Captured(Exception):
    """Keys and values of all tokens are there; the rest of the layer is not needed for them."""


class _Unknown(Exception):
    """The layer is given or gives something that is not understood."""


class _Pass:
    """A forward pass of a network whose last layer is computed for one token of each text.

    Args:
        rows: the token's number in each text, [batch].
        hides_later: whether a layer that is given no mask hides the tokens behind that one from it.
    """

    def __init__(self, rows: Tensor, *, hides_later: bool) -> None:
        self.rows = rows
        self.hides_later = hides_later
        self.stage: _Stage | None = None
        self.tokens = 0
        self._texts = torch.arange(len(rows), device=rows.device)
        self._captured: tuple[Tensor, Tensor] | None = None

    def through(self, forward: Callable[..., Any], given: dict[str, Any]) -> Tensor:
        """Compute the layer's vector of the pooled token, [batch, 1, hidden].

        Args:
            forward: the layer's own forward pass.
            given: its arguments for all tokens, by name.
        """
        hidden = given["hidden_states"]
        alone = given | {"hidden_states": self._token_of(hidden)} | self._about_token(given, hidden.shape[1])
        try:
            self.stage, self.tokens = _Stage.KEYS, hidden.shape[1]
            with suppress(_Captured):
                forward(**given | {"past_key_values": self})
            self.stage, self.tokens = _Stage.TOKEN, 1
            found = forward(**alone | {"past_key_values": self})
        finally:
            self.stage, self._captured = None, None
        if not isinstance(found, Tensor) or found.shape[1] != 1:
            raise _Unknown
        return found

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Stand in for transformers' cache: take keys and values of all tokens, then give them back."""
        if self.stage is _Stage.KEYS:
            self._captured = keys, values
            raise _Captured
        if self._captured is None:
            raise _Unknown
        return self._captured

    def _about_token(self, given: dict[str, Any], tokens: int) -> dict[str, Any]:
        """The arguments that depend on the token, for the pooled one alone."""
        found: dict[str, Any] = {"attention_mask": self._row_of(given.get("attention_mask"), tokens)}
        for name, value in given.items():
            if name == "position_embeddings" and value is not None:  # cosines and sines
                found[name] = tuple(self._token_of(part) for part in value)
            elif name == "position_ids" and value is not None:
                found[name] = self._token_of(value)
            elif isinstance(value, Tensor) and name not in ("hidden_states", "attention_mask"):
                raise _Unknown
        return found

    def _token_of(self, values: Tensor) -> Tensor:
        """[1 or batch, token, …] to [batch, 1, …]."""
        return values.expand(len(self.rows), *values.shape[1:])[self._texts, self.rows].unsqueeze(1)

    def _row_of(self, mask: Tensor | None, tokens: int) -> Tensor | None:
        """The row of an attention mask, [batch, 1, 1, token], that says which tokens the pooled one sees."""
        if mask is None:
            if not self.hides_later:
                return None
            seen = torch.arange(tokens, device=self.rows.device) <= self.rows.unsqueeze(1)
            return seen[:, None, None]
        if not isinstance(mask, Tensor) or mask.ndim != 4:  # other attention kernels have other masks
            raise _Unknown
        if mask.shape[2] == 1:
            return mask
        every = mask.expand(len(self.rows), -1, -1, -1)
        return every[self._texts, :, self.rows].unsqueeze(2)


_pass: ContextVar[_Pass | None] = ContextVar("last_layer_pass", default=None)
_whole: ContextVar[bool] = ContextVar("last_layer_whole", default=False)


@contextmanager
def for_one_token(rows: Tensor, *, hides_later: bool) -> Iterator[None]:
    """Let a network on which `install` was called compute its last layer for one token of each text, in this thread.

    Its last hidden state is then [batch, 1, hidden].

    Args:
        rows: the token's number in each text, [batch].
        hides_later: whether attention is causal while the network is given no mask, though there may be padding.
    """
    before = _pass.set(_Pass(rows, hides_later=hides_later))
    try:
        yield
    finally:
        _pass.reset(before)


@contextmanager
def whole() -> Iterator[None]:
    """Compute the last layer for all tokens meanwhile, in this thread."""
    before = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(before)


def is_installed(own: Any) -> bool:
    """Whether the last layer of a network is computed for one token where that is possible: see `install`."""
    found: _Installed | None = getattr(own, _INSTALLED, None)
    if found is None or _whole.get():
        return False
    # With dropout one token draws fewer random numbers than all: a training would be another one than with the whole
    # layer, though no worse.
    return found.draws_less or not any(module.training for module in found.droppers)


def draw_less(own: Any) -> None:
    """Compute the last layer for one token in training too where dropout acts in it, if `install` found a way."""
    found: _Installed | None = getattr(own, _INSTALLED, None)
    if found is not None:
        found.draws_less = True
        _spare_checkpoint(next(module for module in own.modules() if isinstance(module, _Alone)))


@dataclass
class _Installed:
    """What `install` has found in a last layer and set there.

    Attributes:
        hooks: to be removed.
        droppers: modules that apply dropout in training.
        draws_less: whether the layer is computed for one token although these act.
    """

    hooks: list[Any]
    droppers: list[nn.Module]
    draws_less: bool = False


def install(own: Any, logits: Callable[[Batch], Tensor], *, dtype: torch.dtype) -> bool:
    """Let a network compute its last layer for the pooled token alone, if that gives the same logits.

    Where dropout acts in that layer, it is computed as a whole in training, unless `draw_less` is called, and for the
    token alone in evaluation mode.
    Do not use this for compiled networks: they would be split where the first pass ends.

    Args:
        own: network without its PEFT model, with its adapter and weights.
        logits: computes the logits of a batch with it, and calls `for_one_token` where `is_installed`.
        dtype: compute dtype.

    Returns:
        Whether it does; if not, the network is as it was.
    """
    layers = layers_of(own)
    if not layers or len(layers[-1]) != 1:
        return False
    *below, last = (own.get_submodule(name) for parts in layers for name in parts)
    kind: Any = type(last)  # mypy finds classes not hashable
    if not {"hidden_states", "past_key_values"} <= set(_parameters(kind)):
        return False
    become(last, _Alone)
    droppers = [module for module in last.modules() if _rate(module) > 0]
    setattr(own, _INSTALLED, _Installed(_leave_out(last), droppers))
    try:
        same = _is_same(own, logits, below, dtype)
    except Exception:  # each architecture has its own ways
        same = False
    if not same:
        remove(own)
        return False
    if not droppers:
        _spare_checkpoint(last)
    return True


def remove(own: Any) -> None:
    """Let a network compute its last layer as transformers does."""
    for hook in getattr(own, _INSTALLED).hooks:
        hook.remove()
    delattr(own, _INSTALLED)
    restore(next(module for module in own.modules() if isinstance(module, _Alone)))


def _spare_checkpoint(last: Any) -> None:
    # The second pass belongs to this thread's context, which is gone when a checkpointed layer is computed again. With
    # one token a layer keeps little besides its keys and values.
    last.gradient_checkpointing = False


class _Alone(nn.Module):
    """A layer that is computed for one token while `for_one_token` says so."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Vectors of all tokens, [batch, token, hidden], or of one, [batch, 1, hidden]."""
        asked = _pass.get()
        if asked is None:
            return super().forward(*arguments, **named)
        kind: Any = type(self)
        names = _parameters(kind)
        return asked.through(super().forward, dict(zip(names, arguments, strict=False)) | named)


@cache
def _parameters(layer: Any) -> list[str]:
    """Names of the parameters of a layer's own forward pass, in their order."""
    own = layer.own_class if issubclass(layer, _Alone) else layer
    return [name for name in inspect.signature(own.forward).parameters if name != "self"]


def _rate(module: nn.Module) -> float:
    """The largest rate of dropout that a module itself applies in training."""
    own = [value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
    return max([module.p if isinstance(module, nn.Dropout) else 0.0, *own])


def _leave_out(layer: nn.Module) -> list[Any]:
    """Set hooks that spare the products whose results are not used: queries of all tokens, keys and values of one."""
    hooks = []
    for name, module in layer.named_modules():
        part = attention_part(name)
        if part is not None:
            stage = _Stage.KEYS if part == "query" else _Stage.TOKEN
            hooks.append(module.register_forward_pre_hook(partial(_no_tokens, stage)))
            hooks.append(module.register_forward_hook(partial(_zeros, stage)))
    return hooks


def _no_tokens(stage: _Stage, _: nn.Module, arguments: tuple[Any, ...]) -> Any:
    asked = _pass.get()
    if asked is None or asked.stage is not stage:
        return None
    return (arguments[0][:, :0], *arguments[1:])


def _zeros(stage: _Stage, _: nn.Module, __: Any, output: Tensor) -> Any:
    asked = _pass.get()
    if asked is None or asked.stage is not stage:
        return None
    return output.new_zeros(()).expand(len(output), asked.tokens, output.shape[-1])


def _is_same(own: Any, logits: Callable[[Batch], Tensor], below: Sequence[Any], dtype: torch.dtype) -> bool:
    """Whether the logits of short texts, with padding and without, are the same both ways, lower layers left out."""
    device = next(own.parameters()).device
    pad = own.config.pad_token_id or 0
    ids = torch.tensor([[5, 6, 7, 8, 9], [8, 7, 6, pad, pad]], device=device)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
    exact = _EXACT if dtype is torch.float32 else _ROUGH
    with evaluating(own, dtype), _passed_by(below):
        for batch in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids[:1]}):
            alone = logits(batch)
            with whole():
                expected = logits(batch)
            if not bool(((alone - expected).abs() <= exact * expected.abs().max()).all()):
                return False
    return True


@contextmanager
def _passed_by(layers: Sequence[Any]) -> Iterator[None]:
    """Let layers return what they are given."""

    def given(*arguments: Any, **named: Any) -> Any:
        return arguments[0] if arguments else named["hidden_states"]

    for layer in layers:
        layer.forward = given
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
