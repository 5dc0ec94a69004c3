"""Frozen weights spread over processes: the network computes the same, and each process keeps its part."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SMALL
from helpers import model_table
from torch import distributed

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.models import adapter, auto, backbone, pooling, spread
from emotion_lightning.training.classifier import EmotionClassifier

LABELS = ["anger", "joy", "trust"]
ENCODER = [
    "model=minilm", "model.pretrained=false", "model.architecture.num_hidden_layers=2",
    "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128",
    "model.architecture.num_attention_heads=2", "model.architecture.vocab_size=8192",
]  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process alone, which gathers, frees and gathers again as one of many would."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def first_of_four() -> Iterator[None]:
    """The first of four processes, of which the others do not exist: nothing can be gathered."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield
    distributed.destroy_process_group()


def build(settings: Any, folder: Path, *overrides: str, device: torch.device = CPU) -> Any:
    """A small network with an adapter whose vectors are not those of the start, in training mode."""
    chosen = auto.resolve(settings(*overrides))
    network = backbone.build_network(
        chosen.model, LABELS, tokenizer=backbone.load_tokenizer(chosen.model), full=False, device=device, seed=1,
        base_folder=folder / "base", spread=True,
    )  # fmt: skip
    head = backbone.head_modules(chosen.model)
    network = adapter.attach_adapter(network, chosen.peft, roles=chosen.model.roles, head=head, seed=1)
    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=chance)
    return network


def outcome(network: Any, device: torch.device = CPU) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of two texts, and the gradients of what is trained."""
    torch.manual_seed(3)  # for dropout
    ids = torch.tensor([[5, 6, 7], [6, 7, 8]], device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
        batch: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = pooling.logits(network, batch, pooling=config.Pooling.mean)
    logits.square().sum().backward()
    found = {
        name: parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }
    network.zero_grad()
    return logits.detach(), found


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param([*SMALL, "model.quantization=none", "peft=lora"], id="lora"),
        pytest.param([*SMALL, "peft=ia3"], id="ia3 on 4 bits"),
        pytest.param([*SMALL, "peft=dora"], id="dora on 4 bits"),
        pytest.param([*SMALL, "model.activation_checkpointing=true"], id="computed again"),
        pytest.param([*SMALL, "peft=lora", "peft.layers=[1]"], id="upper layer"),
        pytest.param([*SMALL, "model.quantization=none", "peft=ln_tuning"], id="norms"),
        pytest.param([*SMALL, "peft=vera"], id="vera", marks=pytest.mark.exhaustive),
        pytest.param([*ENCODER, "peft=lora"], id="encoder"),
    ],
)
def test_logits_and_gradients_are_those_of_the_whole_network(
    settings: Any, tmp_path: Path, alone: None, asked: list[str]
) -> None:
    network = build(settings, tmp_path, "model.dtype=float32", *asked)
    whole = outcome(network)
    spread.spread_frozen(network, device=CPU)
    with torch.no_grad():  # as in validation
        assert torch.isfinite(network(input_ids=torch.tensor([[5, 6, 7]])).logits).all()
    for _ in range(2):
        logits, gradients = outcome(network)
        assert torch.equal(logits, whole[0])
        assert gradients.keys() == whole[1].keys() and gradients
        assert all(torch.equal(value, whole[1][name]) for name, value in gradients.items())


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", ["albert", "t5", "gpt2", "distilbert"])
def test_other_architectures_compute_the_same(settings: Any, tmp_path: Path, alone: None, model_type: str) -> None:
    place = model_table.checkpoint(model_type, tmp_path / "checkpoint")
    asked = ["model=auto", f"model.path={place}", "model.quantization=none", "model.dtype=float32", "peft=lora"]
    network = build(settings, tmp_path, *asked)
    whole = outcome(network)
    spread.spread_frozen(network, device=CPU)
    logits, gradients = outcome(network)
    assert torch.equal(logits, whole[0])
    assert gradients.keys() == whole[1].keys() and gradients
    # To rounding: what several layers of T5's decoder give back to its encoder is summed in another order.
    assert all(torch.allclose(value, whole[1][name], rtol=1e-4, atol=1e-6) for name, value in gradients.items())


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_process_keeps_its_part_of_the_frozen_weights_alone(
    settings: Any, tmp_path: Path, first_of_four: None, quantization: str
) -> None:
    asked = [*SMALL, f"model.quantization={quantization}", "peft=lora", "model.dtype=bfloat16"]
    network = build(settings, tmp_path, *asked)
    before = {name: parameter.numel() for name, parameter in network.named_parameters()}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    spread.spread_frozen(network, device=CPU)
    parts = spread.spread_names(network)
    kept = dict(network.named_parameters())
    frozen_head = {name for name in before if "original_module" in name}
    assert set(parts) == before.keys() - trained - frozen_head
    # One dtype, so that the weights of a layer are gathered as they are.
    assert {kept[name].dtype for name in parts} == {torch.bfloat16}
    frozen = 2 * sum(before[name] for name in parts)
    assert spread.kept_bytes(network) == (pytest.approx(frozen / 4, rel=0.01), frozen)
    assert all(kept[name].numel() == before[name] for name in trained)


def test_no_process_computes_alone(settings: Any, tmp_path: Path, first_of_four: None) -> None:
    # The others would not gather with it, and both would wait forever.
    network = build(settings, tmp_path, *SMALL, "model.quantization=none")
    spread.spread_frozen(network, device=CPU)
    module: Any = SimpleNamespace(network=network)
    assert EmotionClassifier.cause_in(module, {"input_ids": torch.tensor([[5]])}) is None  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["trainer.devices=1"], "starts one; set trainer.devices=2"),
        (["peft=full", "model.quantization=none"], "peft=full freezes none"),
        (["model.quantization=int8"], "model.quantization=nf4 or none"),
        (["trainer.compile=true"], "trainer.compile=false"),
        (["frozen.reuse=always"], "Set frozen.reuse=auto"),
        (["model.attn_implementation=flash_attention_2"], "set auto"),
        (["trainer.accelerator=mps"], "trainer.accelerator=cpu"),
    ],
)
def test_what_cannot_be_had_is_refused(settings: Any, asked: list[str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        settings("trainer=fsdp", *asked)
    assert said in str(raised.value)


def test_frozen_layers_are_computed_in_each_step(settings: Any) -> None:
    from emotion_lightning.training import reuse

    asked = settings("trainer=fsdp", "peft=head")
    assert asked.frozen.reuse is config.Reuse.auto
    assert reuse.reuse_frozen(asked, None, None, head=[], dtype=torch.float32) is None  # type: ignore[arg-type]


@pytest.mark.gpu
def test_4_bit_weights_from_main_memory_compute_the_same_on_a_gpu(settings: Any, tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    distributed.init_process_group("nccl", store=distributed.HashStore(), rank=0, world_size=1, device_id=device)
    try:
        network = build(settings, tmp_path, *SMALL, "peft=lora", "model.dtype=bfloat16", device=device)
        spread.spread_frozen(network, device=device)
        network.to(device)
        logits, gradients = outcome(network, device)
        plain = build(settings, tmp_path, *SMALL, "peft=lora", "model.dtype=bfloat16", device=device).to(device)
        expected, by_plain = outcome(plain, device)
    finally:
        distributed.destroy_process_group()
    assert torch.allclose(logits, expected, atol=1e-6)
    assert gradients.keys() == by_plain.keys()
    assert all(torch.allclose(value, by_plain[name], atol=1e-6) for name, value in gradients.items())
