"""The frozen part of a network below its lowest trained module: computed by itself, and left out afterwards.

With `peft=head` that is everything below the head; with an adapter in the upper layers, the embeddings and the layers
below it. A text's states where this part ends are the same in every epoch if no dropout acts in it.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.data.batches import Batch
from emotion_lightning.models import last_layer, pooling
from emotion_lightning.models.evaluating import evaluating
from emotion_lightning.models.roles import layers_of

_NO_MATTER = (
    "_name_or_path", "architectures", "id2label", "label2id", "num_labels", "problem_type", "transformers_version",
)  # fmt: skip
"""Values of a config that the states do not depend on."""
_EXACT, _ROUGH = 1e-5, 0.02
"""Largest difference of logits, of their size, that counts as rounding: in float32, and in lower precision."""


@dataclass
class _Passed:
    """A module in a forward pass.

    Attributes:
        first: number of its first call, counted over all modules.
        last: number of its last call.
        calls: how often it was called.
        extra: number of values that it returns beside the states; None: a tensor alone; _UNKNOWN: something else.
    """

    first: int
    last: int
    calls: int = 1
    extra: int | None = None


class FrozenPart:
    """The frozen part of a network, below its head or below one of its layers.

    Args:
        network: in training mode, with its adapter.
        way: pooling of the token vectors.
        dtype: compute dtype.
        layers: modules of the layers below the cut; none if everything below the head is frozen.
        upper: the lowest layer with something to train; None if everything below the head is frozen.
        returns: for each of `layers`, the number of values that it returns beside the states; None: states alone.
        silent: modules that are called below the cut only.
        weights: all modules on whose own weights the states may depend, by name.
        depth: number of all layers.
    """

    def __init__(
        self,
        network: Any,
        *,
        way: config.Pooling,
        dtype: torch.dtype,
        layers: Sequence[nn.Module],
        upper: nn.Module | None,
        returns: Sequence[int | None],
        silent: Sequence[nn.Module],
        weights: dict[str, nn.Module],
        depth: int,
    ) -> None:
        self.network = network
        self.way = way
        self.dtype = dtype
        self.layers = list(layers)
        self.upper = upper
        self.returns = list(returns)
        self.silent = list(silent)
        self.weights = weights
        self.depth = depth

    @property
    def is_pooled(self) -> bool:
        """Whether a text has one vector where the part ends, not one for each token."""
        return self.upper is None

    def describe(self) -> str:
        """Where the part ends, for messages."""
        return "the head" if self.is_pooled else f"layer {len(self.layers)} of {self.depth}"

    def without_dropout(self) -> None:
        """Turn dropout off in the frozen part, where it would give other states in every epoch."""
        for module in self.silent:
            module.training = False

    def shorten(self) -> None:
        """Compute the last layer for the pooled token alone where that is possible, also if it has dropout.

        Without dropout in the part, a training draws other random numbers than one of the whole network anyway.
        """
        last_layer.draw_less(pooling.unwrapped(self.network))

    def states(self, batch: Batch) -> Tensor:
        """Compute the states of a batch where the part ends: [batch, token, hidden], or [batch, hidden] if pooled.

        They are in the dtype in which the network passes them on. No module is in training mode meanwhile.
        """
        with evaluating(self.network, self.dtype):
            if self.upper is None:
                return pooling.head_vectors(self.network, batch, pooling=self.way)
            with _stopped_at(self.upper) as found:
                pooling.logits(self.network, batch, pooling=self.way)
            return found[0]

    def logits(self, batch: Batch) -> Tensor:
        """Compute the logits of a batch, [batch, label], float32, from its `states`; those of padding are of no matter.

        The frozen layers are passed by; embeddings and masks, which cost little, are computed as always.
        """
        given = batch["states"]
        if self.upper is None:
            return pooling.logits_of(self.network, given, batch, pooling=self.way)
        with self._passed_by(given):
            return pooling.logits(self.network, batch, pooling=self.way)

    def is_exact(self, batch: Batch) -> bool:
        """Whether the logits of a batch from its states are those of the whole network."""
        try:
            states = self.states(batch)
            mask = batch.get("attention_mask")
            if mask is not None and not self.is_pooled:
                states = states * mask.unsqueeze(-1).to(states.dtype)
            with evaluating(self.network, self.dtype):
                whole = pooling.logits(self.network, batch, pooling=self.way)
                started = self.logits(batch | {"states": states})
        except Exception:  # each architecture has its own ways
            return False
        size = float(whole.abs().max())
        exact = _EXACT if self.dtype is torch.float32 else _ROUGH
        return bool(((whole - started).abs() <= exact * max(size, 1e-6)).all())

    def fingerprint(self) -> str:
        """A hash of all that the states of given tokens depend on: weights, configuration, dtype, kind of device."""
        own = pooling.unwrapped(self.network)
        total = hashlib.sha256()
        weight = next(own.parameters())
        architecture = {name: value for name, value in own.config.to_dict().items() if name not in _NO_MATTER}
        for fact in (
            type(own).__name__, json.dumps(architecture, sort_keys=True, default=str),
            own.config._attn_implementation, self.dtype, self.way.value if self.is_pooled else len(self.layers),
            weight.device.type, torch.__version__, importlib.metadata.version("transformers"),
        ):  # fmt: skip
            total.update(f"{fact}\n".encode())
        for name, value in sorted(self._tensors(), key=lambda named: named[0]):
            total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return total.hexdigest()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers of the part by name, with what quantised ones keep beside themselves."""
        for name, module in self.weights.items():
            values = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for part, value in values:
                yield f"{name}.{part}", value
                for fact, scale in _scales(value):
                    yield f"{name}.{part}.{fact}", scale

    @contextmanager
    def _passed_by(self, given: Tensor) -> Iterator[None]:
        """Let each layer of the part return what it is given, and the uppermost one the given states."""
        before = [layer.__dict__.get("forward") for layer in self.layers]
        for layer, extra in zip(self.layers, self.returns, strict=True):
            layer.forward = _returning(given if layer is self.layers[-1] else None, extra)
        try:
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                if own is None:
                    del layer.forward
                else:
                    layer.forward = own


def _returning(given: Tensor | None, extra: int | None) -> Callable[..., Any]:
    def forward(*arguments: Any, **named: Any) -> Any:
        states = given if given is not None else _states_among(arguments, named)
        return states if extra is None else (states, *[None] * extra)

    return forward


def _states_among(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return arguments[0] if arguments else named["hidden_states"]


def _scales(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors that belong to a quantised weight of bitsandbytes and are none of its module's."""
    for holder in (value, getattr(value, "quant_state", None)):
        for name in ("SCB", "absmax", "code", "offset"):
            if isinstance(scale := getattr(holder, name, None), Tensor):
                yield name, scale
    nested = getattr(getattr(value, "quant_state", None), "state2", None)
    for name in ("absmax", "code"):
        if isinstance(scale := getattr(nested, name, None), Tensor):
            yield f"state2.{name}", scale


class _Reached(Exception):
    """The states have entered the lowest trained layer."""


@contextmanager
def _stopped_at(layer: nn.Module) -> Iterator[list[Tensor]]:
    """End the forward pass of the block where it enters a layer, and keep the states."""
    found: list[Tensor] = []

    def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append(_states_among(arguments, named))
        raise _Reached

    hook = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield found
    except _Reached:
        pass
    finally:
        hook.remove()


def frozen_part(
    network: Any, batch: Batch, *, head: Sequence[str], way: config.Pooling, dtype: torch.dtype
) -> FrozenPart | None:
    """Find the frozen part of a network; None if its lowest layer is trained, or if the part cannot be told.

    What is called when is seen in a forward pass, so that no architecture need be known.

    Args:
        network: with its adapter.
        batch: a few texts.
        head: names of the modules of the head.
        way: pooling of the token vectors.
        dtype: compute dtype.
    """
    own = pooling.unwrapped(network)
    named = {name: part for name, part in own.named_modules() if not set(name.split(".")) & set(head)}
    whole = FrozenPart(
        network, way=way, dtype=dtype, layers=[], upper=None, returns=[], silent=[], weights=named, depth=0
    )
    passed = _calls(whole, batch)
    trained = [name for name, parameter in own.named_parameters() if parameter.requires_grad]
    layers = layers_of(own)
    whole.depth = len(layers)
    if all(set(name.split(".")) & set(head) for name in trained):
        backbone = pooling.backbone_of(own)
        whole.silent = [module for module in backbone.modules() if module in set(named.values())]
        return whole
    if own.config.is_encoder_decoder or any(len(parts) > 1 for parts in layers):
        return None  # a decoder reads the encoder's states too
    lowest = min(_first_call(own, name, passed) for name in trained)
    modules = [own.get_submodule(parts[0]) for parts in layers]
    below: list[nn.Module] = []
    for layer, above in zip(modules, modules[1:], strict=False):
        calls, next_calls = passed.get(layer), passed.get(above)
        if calls is None or next_calls is None or calls.calls > 1 or next_calls.calls > 1:
            break
        if next_calls.first > lowest or next_calls.first < calls.last:
            break
        below.append(layer)
    if not below:
        return None
    returns = [passed[layer].extra for layer in below]
    if any(extra == _UNKNOWN for extra in returns):
        return None
    upper = modules[len(below)]
    silent = [module for module, calls in passed.items() if calls.last < passed[upper].first and module is not own]
    around = {module for module in own.modules() if any(part is upper for part in module.modules())}
    places = [f"{parts[0]}." for parts in layers[len(below) :]]
    named = {name: part for name, part in named.items() if not any(f"{name}.".startswith(place) for place in places)}
    return FrozenPart(
        network, way=way, dtype=dtype, layers=below, upper=upper, returns=returns,
        silent=[module for module in silent if module not in around], weights=named, depth=len(modules),
    )  # fmt: skip


_UNKNOWN = -1


def _extras(output: Any) -> int | None:
    """Number of values that a layer returns beside its states, None if it returns a tensor."""
    if isinstance(output, Tensor):
        return None
    plain = isinstance(output, tuple) and isinstance(output[0], Tensor) and all(part is None for part in output[1:])
    return len(output) - 1 if plain else _UNKNOWN


def _calls(part: FrozenPart, batch: Batch) -> dict[nn.Module, _Passed]:
    """When each module is called in a forward pass."""
    own = pooling.unwrapped(part.network)
    if not pooling.is_generic(own):
        pooling.read_by(own)  # which calls the head when it is first asked
    passed: dict[nn.Module, _Passed] = {}
    count = iter(range(1 << 62))

    def before(module: nn.Module, _: Any) -> None:
        now = next(count)
        if module in passed:
            passed[module].last = now
            passed[module].calls += 1
        else:
            passed[module] = _Passed(now, now)

    def after(module: nn.Module, _: Any, output: Any) -> None:
        passed[module].extra = _extras(output)

    hooks = [hook for module in own.modules() for hook in (
        module.register_forward_pre_hook(before), module.register_forward_hook(after),
    )]  # fmt: skip
    try:
        with evaluating(part.network, part.dtype):
            pooling.logits(part.network, batch, pooling=part.way)
    finally:
        for hook in hooks:
            hook.remove()
    return passed


def _first_call(own: nn.Module, parameter: str, passed: dict[nn.Module, _Passed]) -> int:
    """When the module that holds a parameter is first called, or the nearest one around it that is called at all."""
    place = parameter
    while place:
        place = place.rpartition(".")[0]
        if (calls := passed.get(own.get_submodule(place))) is not None:
            return calls.first
    return -1
