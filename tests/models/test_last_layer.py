"""The last layer for the pooled token alone gives the logits and gradients of the whole layer."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.tiny_networks import NAMED, tiny_config
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import Pooling
from emotion_lightning.models import adapter, last_layer, nonfinite, pooling, structure

DECODERS = ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "smollm3"]
ENCODERS = ["bert", "roberta", "xlm-roberta", "camembert", "electra"]
UNDERSTOOD = [*DECODERS, *ENCODERS]
"""Architectures whose layers hand keys and values to transformers' cache. If one is no longer computed for a token
alone, transformers has changed what `last_layer` relies on."""
FEW = ["gemma", "gemma3_text", "qwen2", "bert"]
EVERY = [pytest.param(name, marks=[] if name in FEW else pytest.mark.exhaustive) for name in UNDERSTOOD]
METHODS: dict[str, Any] = {
    "ia3": lambda targets: config.IA3(
        1, 1, targets=targets, layers="all", feedforward=[role for role in targets if role == "feedforward_out"]
    ),
    "lora": lambda targets: config.Lora(1, 1, targets=targets, layers="all", r=2, alpha=4, dropout=0.0, rslora=False,
                                        dora=False),
    "full": lambda targets: config.Full(1, 1),
}  # fmt: skip


def network(
    model_type: str, *, method: str = "ia3", causal: bool = True, kernel: str | None = None, **values: Any
) -> Any:
    """A tiny network with something to train in every layer, in evaluation mode."""
    from transformers import AutoModelForSequenceClassification

    found = structure.read_structure(tiny_config(model_type, **values))
    asked = tiny_config(model_type, **values)
    asked.num_labels = 3
    asked.pad_token_id = getattr(asked, "pad_token_id", None) or 0
    torch.manual_seed(1)
    made = AutoModelForSequenceClassification.from_config(asked, attn_implementation=kernel)
    made.config.use_cache = False
    if not causal:
        made.config.is_causal = False
    own = METHODS[method]([role for role in ("query", "key", "value", "feedforward_out") if role in found.roles])
    unused = None if found.pooling is Pooling.first else found.pooler
    head = [*([str(found.pooler)] if found.pooler and not unused else []), *found.head]
    adapted = adapter.attach_adapter(made, own, roles=found.patterns, head=head, seed=1, unused=unused)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:  # adapters begin where they change nothing
                parameter.add_(0.1 * torch.randn_like(parameter))
    return adapted.eval()


def batch_of(lengths: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.randint(5, 250, mask.shape, generator=generator) * mask
    return {"input_ids": ids} | ({} if bool(mask.all()) else {"attention_mask": mask})


def both_ways(made: Any, batch: dict[str, Tensor], way: Pooling) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Logits and all gradients, as the whole layer gives them and as it gives them for a token alone, by name."""
    found: list[dict[str, Tensor]] = []
    for is_whole in (True, False):
        made.zero_grad()
        if is_whole:
            with last_layer.whole():
                logits = pooling.logits(made, batch, pooling=way)
        else:
            logits = pooling.logits(made, batch, pooling=way)
        logits.square().sum().backward()
        named = {name: value.grad.clone() for name, value in made.named_parameters() if value.grad is not None}
        found.append({"logits": logits.detach(), **named})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        yield name, value, found[1][name]


def check(made: Any, way: Pooling, *, lengths: tuple[list[int], ...] = ([9, 4, 6], [7, 7], [1, 12])) -> None:
    pooling.shorten_last_layer(made, way, dtype=torch.float32)
    assert last_layer.is_installed(pooling.unwrapped(made))
    for some in lengths:
        for name, whole, alone in both_ways(made, batch_of(some), way):
            assert torch.allclose(whole, alone, rtol=1e-5, atol=1e-6 * max(1.0, float(whole.abs().max()))), name


@pytest.mark.parametrize("model_type", EVERY)
def test_logits_and_gradients_are_those_of_the_whole_layer(model_type: str) -> None:
    check(network(model_type), Pooling.first if model_type in ENCODERS else Pooling.last)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("model_type", ["gemma", "roberta"])
def test_so_they_are_with_every_method_and_kernel(model_type: str, method: str, kernel: str) -> None:
    way = Pooling.first if model_type == "roberta" else Pooling.last
    check(network(model_type, method=method, kernel=kernel), way)


@pytest.mark.parametrize("way", [Pooling.first, Pooling.last])
@pytest.mark.parametrize("model_type", ["gemma", "gemma3_text", "bert"])
def test_so_they_are_with_attention_to_all_tokens_and_either_pooling(model_type: str, way: Pooling) -> None:
    check(network(model_type, causal=model_type == "bert"), way)


@pytest.mark.parametrize("model_type", ["mistral", "gemma2"])
def test_a_window_of_attention_is_kept(model_type: str) -> None:
    made = network(model_type, sliding_window=4, kernel="eager")
    check(made, Pooling.last, lengths=([9, 4, 6], [12, 12]))


@pytest.mark.parametrize("causal", [True, False])
def test_padding_may_be_on_the_left(causal: bool) -> None:
    made = network("gemma", causal=causal)
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    ids = torch.randint(5, 250, mask.shape, generator=torch.Generator().manual_seed(3)) * mask
    backbone = pooling.backbone_of(made)
    whole = backbone(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]
    with last_layer.for_one_token(torch.tensor([5, 5]), hides_later=causal):
        alone = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    assert alone.shape[1] == 1
    assert torch.allclose(whole, alone[:, 0], atol=1e-6)


def test_products_of_other_tokens_are_left_out() -> None:
    made = network("gemma")
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    seen: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(_: Any, __: Any, output: Tensor) -> None:
            seen[name] = seen.get(name, 0) + output.shape[:2].numel()

        return hook

    for name, module in pooling.unwrapped(made).named_modules():
        if type(module) is torch.nn.Linear and ".layers." in name:
            module.register_forward_hook(note(name.replace(".base_layer", "")))
    pooling.logits(made, batch_of([9, 4, 6]), pooling=Pooling.last)
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
             "mlp.up_proj", "mlp.down_proj"]  # fmt: skip
    assert [seen[f"model.layers.0.{part}"] for part in parts] == [27] * 7
    assert [seen[f"model.layers.1.{part}"] for part in parts] == [3, 27, 27, 3, 3, 3, 3]


@pytest.mark.parametrize("model_type", [name for name in NAMED if name not in UNDERSTOOD])
@pytest.mark.exhaustive
def test_a_layer_that_is_not_understood_is_left_as_it_is(model_type: str) -> None:
    found = structure.read_structure(tiny_config(model_type))
    made = network(model_type)
    batch = batch_of([9, 4, 6])
    before = pooling.logits(made, batch, pooling=found.pooling)
    kinds = [type(module) for module in made.modules()]
    hooks = sum(len(module._forward_hooks) for module in made.modules())
    pooling.shorten_last_layer(made, found.pooling, dtype=torch.float32)
    if not last_layer.is_installed(pooling.unwrapped(made)):
        assert kinds == [type(module) for module in made.modules()]
        assert hooks == sum(len(module._forward_hooks) for module in made.modules())
    after = pooling.logits(made, batch, pooling=found.pooling)
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-6)


def test_mean_pooling_and_an_unknown_layer_are_left_alone() -> None:
    for made, way in ((network("gemma"), Pooling.mean), (network("distilbert"), Pooling.first)):
        pooling.shorten_last_layer(made, way, dtype=torch.float32)
        assert not last_layer.is_installed(pooling.unwrapped(made))


def test_a_layer_whose_result_would_differ_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network("gemma")
    kind = type(pooling.backbone_of(made).layers[-1])
    monkeypatch.setattr(last_layer._Pass, "_row_of", lambda *_: None)
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    assert not last_layer.is_installed(pooling.unwrapped(made))
    assert type(pooling.backbone_of(made).layers[-1]) is kind
    assert not any(module._forward_hooks for module in made.modules())


@pytest.mark.parametrize("where", ["lora", "attention"])
def test_with_dropout_a_training_stays_the_same_and_evaluation_is_shorter(where: str) -> None:
    if where == "lora":
        made = network("gemma", method="lora")
        for module in made.modules():
            for dropout in getattr(module, "lora_dropout", {}).values():
                dropout.__class__ = torch.nn.Dropout
                dropout.p, dropout.inplace = 0.3, False
    else:
        made = network("gemma", attention_dropout=0.3)
    batch = batch_of([9, 4, 6])
    own = pooling.unwrapped(made)

    def in_training() -> Tensor:
        made.train()
        torch.manual_seed(7)
        return pooling.logits(made, batch, pooling=Pooling.last)

    before = in_training()
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    assert torch.equal(before, in_training())
    assert not last_layer.is_installed(own)
    made.eval()
    assert last_layer.is_installed(own)


def test_dropout_may_act_on_the_one_token_where_that_is_asked_for() -> None:
    """With the pooled token alone, the last layer drops a share of that token's numbers, and scales the others."""
    made = network("gemma", method="lora")
    last = pooling.backbone_of(pooling.unwrapped(made)).layers[-1]
    droppers = [module.lora_dropout["default"] for module in last.modules() if hasattr(module, "lora_dropout")]
    assert droppers
    for dropout in droppers:
        dropout.__class__ = torch.nn.Dropout
        dropout.p, dropout.inplace = 0.3, False
    batch, own = batch_of([9, 4, 6]), pooling.unwrapped(made)
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    made.train()
    seen: list[tuple[int, ...]] = []
    droppers[-1].register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[:2])))

    def logits(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return pooling.logits(made, batch, pooling=Pooling.last)

    logits(1)
    assert seen.pop() == (3, 9)
    last_layer.draw_less(own)
    assert last_layer.is_installed(own)
    assert torch.equal(logits(1), logits(1)) and not torch.equal(logits(1), logits(2))
    assert seen.pop() == (3, 1)
    for dropout in droppers:
        dropout.p = 0.0
    with last_layer.whole():
        expected = logits(1)
    assert torch.allclose(logits(1), expected, rtol=1e-5, atol=1e-6)


def test_checkpointed_layers_give_the_same_gradients() -> None:
    made = network("gemma", method="full")
    batch = batch_of([9, 4, 6])
    made.train()
    plain = {name: alone for name, _, alone in both_ways(made, batch, Pooling.last)}
    enable = getattr(made, "activation_checkpointing_enable", None) or made.gradient_checkpointing_enable
    enable()
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    assert last_layer.is_installed(made)
    for name, _, alone in both_ways(made, batch, Pooling.last):
        assert torch.allclose(plain[name], alone, rtol=1e-5, atol=1e-6), name


def test_a_copy_computes_with_its_own_weights_and_the_network_still_gives_all_tokens() -> None:
    made = network("gemma", method="full")
    batch = batch_of([9, 4, 6])
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    again = copy.deepcopy(made)
    with torch.no_grad():
        made.model.layers[-1].mlp.down_proj.weight.zero_()
    assert not torch.allclose(
        pooling.logits(made, batch, pooling=Pooling.last), pooling.logits(again, batch, pooling=Pooling.last)
    )
    states = made.model(input_ids=batch["input_ids"], output_hidden_states=True)
    assert states.last_hidden_state.shape[1] == states.hidden_states[-1].shape[1] == 9


def test_the_module_with_a_bad_number_is_still_found() -> None:
    made = network("gemma", method="full")
    pooling.shorten_last_layer(made, Pooling.last, dtype=torch.float32)
    layer = made.model.layers[-1].self_attn
    layer.o_proj.register_forward_hook(lambda *_: _[-1] * float("inf"))
    batch = batch_of([9, 4, 6])
    found = nonfinite.first_nonfinite(made, lambda: pooling.logits(made, batch, pooling=Pooling.last))
    assert found is not None
    assert "layers.1.self_attn.o_proj gave" in found.text


def test_a_finished_run_is_loaded_so(finished: Any) -> None:
    from emotion_lightning import load

    run: Any = load(finished)
    assert last_layer.is_installed(pooling.unwrapped(run.network))
    texts = ["I never thought they would come.", "No.", "Rain again, and the boiler is out. Lovely start, that."]
    alone = run.logits(texts)
    last_layer.remove(pooling.unwrapped(run.network))
    assert torch.allclose(alone, run.logits(texts), atol=1e-5)
