"""A network that starts above its frozen layers gives the logits and gradients of the whole network."""

from typing import Any

import pytest
import torch
from helpers.tiny_networks import NAMED, tiny_config
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.models import adapter, frozen, pooling, structure

FEW = ["bert", "distilbert", "modernbert", "gemma2", "gpt2", "deberta-v2"]
"""Architectures of the default suite: learned, rotary and relative positions, layers that return tensors and tuples."""
NOT_UPPER = {"albert", "t5", "roformer"}
"""Architectures that cannot start at a layer: one layer used again and again, a decoder that reads the encoder's
states, layers that hand on more than their states."""
NOT_HEAD = {"albert"}
"""Architectures whose pooler takes another form than all others: they are computed as a whole."""


def network(model_type: str, *, layers: Any, **values: Any) -> tuple[Any, config.Pooling, list[str]]:
    """A tiny network with IA3 in some layers, or frozen but for its head where `layers` is None."""
    from transformers import AutoModelForSequenceClassification

    found = structure.read_structure(tiny_config(model_type, **values))
    asked = tiny_config(model_type, **values)
    for name in ("hidden_dropout_prob", "attention_dropout", "dropout", "resid_pdrop"):
        if hasattr(asked, name):
            setattr(asked, name, 0.2)
    asked.num_labels = 3
    if getattr(asked, "pad_token_id", None) is None:
        asked.pad_token_id = 0
    torch.manual_seed(1)
    made = AutoModelForSequenceClassification.from_config(asked)
    targets = [role for role in ("key", "value", "feedforward_out") if role in found.roles]
    inside = [role for role in targets if role == "feedforward_out"]
    method = (
        config.Head(1, 1) if layers is None else config.IA3(1, 1, targets=targets, layers=layers, feedforward=inside)
    )
    uses_pooler = found.pooler is not None and found.pooling is config.Pooling.first
    head = [*([str(found.pooler)] if uses_pooler else []), *found.head]
    adapted = adapter.attach_adapter(
        made, method, roles=found.patterns, head=head, seed=1, unused=None if uses_pooler else found.pooler
    )
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:  # IA3 begins at ones, where it changes nothing
                parameter.add_(0.1 * torch.randn_like(parameter))
    return adapted, found.pooling, head


def batch_of(lengths: list[int], *, seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.randint(5, 250, mask.shape, generator=generator) * mask
    return {"input_ids": ids} | ({} if bool(mask.all()) else {"attention_mask": mask})


def part_of(model_type: str, layers: Any, **values: Any) -> frozen.FrozenPart | None:
    made, way, head = network(model_type, layers=layers, **values)
    return frozen.frozen_part(made, batch_of([9, 4, 6]), head=head, way=way, dtype=torch.float32)


def stored(part: frozen.FrozenPart, batch: dict[str, Tensor]) -> Tensor:
    """The states as they come from a store: padding is zero."""
    states = part.states(batch)
    mask = batch.get("attention_mask")
    return states if mask is None or part.is_pooled else states * mask.unsqueeze(-1)


def gradients(part: frozen.FrozenPart, compute: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in training, with dropout above the part, and the gradients of all that is trained."""
    part.network.zero_grad()
    torch.manual_seed(5)
    logits = compute()
    logits.square().sum().backward()
    named = part.network.named_parameters()
    return logits.detach(), {name: value.grad.clone() for name, value in named if value.requires_grad}


CASES = [
    pytest.param(name, layers, marks=[] if name in FEW else pytest.mark.exhaustive)
    for name in NAMED
    for layers in (None, "upper_half")
]


@pytest.mark.parametrize(("model_type", "layers"), CASES)
def test_logits_and_gradients_from_stored_states_are_those_of_the_whole_network_bit_by_bit(
    model_type: str, layers: Any
) -> None:
    if layers and model_type == "albert":
        with pytest.raises(UserError, match="has a single layer"):
            network(model_type, layers=layers)
        return
    part = part_of(model_type, layers)
    if layers and model_type in NOT_UPPER:
        assert part is None
        return
    assert part is not None
    if not layers and model_type in NOT_HEAD:
        assert not part.is_exact(batch_of([9, 4, 6]))
        return
    assert part.describe() == ("layer 1 of 2" if layers else "the head")
    part.without_dropout()
    for lengths in ([9, 4, 6], [7, 7], [3, 12, 1, 5]):
        batch = batch_of(lengths)
        assert part.is_exact(batch)
        states = stored(part, batch)
        whole, by_name = gradients(part, lambda batch=batch: pooling.logits(part.network, batch, pooling=part.way))
        started, again = gradients(part, lambda batch=batch, states=states: part.logits(batch | {"states": states}))
        assert torch.equal(whole, started)
        assert by_name.keys() == again.keys()
        assert all(torch.equal(value, again[name]) for name, value in by_name.items())
        assert any(bool(value.abs().sum() > 0) for value in by_name.values())


def test_states_of_other_texts_give_other_logits() -> None:
    part = part_of("bert", "upper_half")
    assert part is not None
    batch, others = batch_of([9, 4, 6]), batch_of([9, 4, 6], seed=4)
    own = part.logits(batch | {"states": stored(part, batch)})
    assert not torch.allclose(own, part.logits(batch | {"states": stored(part, others)}))


def test_the_network_is_whole_again_after_it_started_above() -> None:
    part = part_of("bert", "upper_half")
    assert part is not None
    batch = batch_of([9, 4, 6])
    part.network.eval()
    before = pooling.logits(part.network, batch, pooling=part.way)
    names = [name for module in part.network.modules() for name in module.__dict__ if name == "forward"]
    part.logits(batch | {"states": stored(part, batch)})
    assert torch.equal(before, pooling.logits(part.network, batch, pooling=part.way))
    assert [name for module in part.network.modules() for name in module.__dict__ if name == "forward"] == names


def test_dropout_is_off_below_alone_and_modes_are_put_back() -> None:
    part = part_of("bert", "upper_half")
    assert part is not None
    part.network.train()
    part.without_dropout()
    modes = {name: module.training for name, module in part.network.named_modules()}
    states = part.states(batch_of([9, 4, 6]))
    assert modes == {name: module.training for name, module in part.network.named_modules()}
    assert torch.equal(states, part.states(batch_of([9, 4, 6])))
    still = {name for name, training in modes.items() if not training}
    assert any("embeddings.dropout" in name for name in still) and any("layer.0." in name for name in still)
    assert not any("layer.1" in name or "classifier" in name or name.endswith("encoder") for name in still)


def test_an_adapter_in_the_lowest_layer_leaves_nothing_to_compute_once() -> None:
    assert part_of("bert", "all") is None
    assert part_of("bert", [0]) is None


@pytest.mark.parametrize("layers", [None, "upper_half"])
def test_the_fingerprint_is_of_all_that_states_depend_on_and_of_nothing_else(layers: Any) -> None:
    def printed(change: Any = None) -> str:
        part = part_of("bert", layers)
        assert part is not None
        if change:
            with torch.no_grad():
                change(part.network.get_base_model())
        return part.fingerprint()

    before = printed()
    assert printed() == before
    assert printed(lambda own: own.bert.encoder.layer[0].output.dense.weight[0, 0].add_(1)) != before
    assert printed(lambda own: own.bert.embeddings.position_embeddings.weight[3].add_(1)) != before
    assert printed(lambda own: setattr(own.config, "hidden_act", "relu")) != before
    above = printed(lambda own: own.bert.encoder.layer[1].output.dense.weight[0, 0].add_(1))
    assert (above == before) == (layers is not None)
    head = printed(lambda own: own.classifier.modules_to_save["default"].weight[0, 0].add_(1))
    assert head == before and printed(lambda own: setattr(own.config, "id2label", {0: "x"})) == before
    assert part_of("bert", [1]).fingerprint() == printed() if layers else True  # type: ignore[union-attr]


def test_a_network_that_reads_all_layers_is_not_started_above() -> None:
    """As one that sums the states of all layers, which no list of architectures would tell."""
    part = part_of("llama", [-1], num_hidden_layers=4)
    assert part is not None and part.describe() == "layer 3 of 4" and part.is_exact(batch_of([9, 4, 6]))
    stack = pooling.backbone_of(part.network)
    seen: dict[str, Tensor] = {}
    stack.layers[0].register_forward_hook(lambda layer, given, output: seen.update(lowest=output))
    stack.norm.register_forward_pre_hook(lambda norm, given: (given[0] + seen["lowest"],))
    assert not part.is_exact(batch_of([9, 4, 6]))


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_several_layers_are_passed_by(model_type: str) -> None:
    part = part_of(model_type, [3], num_hidden_layers=4)
    assert part is not None and len(part.layers) == 3
    part.without_dropout()
    batch = batch_of([9, 4, 6])
    states = stored(part, batch)
    called: list[int] = []
    for layer in part.layers:
        layer.register_forward_hook(lambda layer, given, output: called.append(len(given)))
        for inner in layer.children():
            inner.register_forward_pre_hook(lambda inner, given: pytest.fail("it is computed"))
    started, by_name = gradients(part, lambda: part.logits(batch | {"states": states}))
    assert len(called) == 3 and by_name
    for layer in part.layers:
        for inner in layer.children():
            inner._forward_pre_hooks.clear()
    whole, again = gradients(part, lambda: pooling.logits(part.network, batch, pooling=part.way))
    assert torch.equal(whole, started) and all(torch.equal(value, again[name]) for name, value in by_name.items())
