"""Traps of the libraries, most of them silent, each shown not to bite."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from emotion_lightning import config
from emotion_lightning.data.batches import Collate, EmotionRows, tokenize
from emotion_lightning.data.labels import positive_weights
from emotion_lightning.models import adapter, backbone
from emotion_lightning.models.device import compute_dtype, precision

LABELS = ["anger", "joy", "trust"]
TEXTS = [
    "I never thought they would come.",
    "No.",
    "Rain again, and the boiler is out. Lovely start to the week, that.",
]
SIZE = [
    "model.pretrained=false",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
    "model.architecture.head_dim=32",
    "model.architecture.num_attention_heads=2",
]


def build(settings: Any, tmp_path: Path, *overrides: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A small network with trained parts, and a padded batch."""
    chosen = settings(*([] if any(o.startswith("model=") for o in overrides) else SIZE), *overrides)
    tokenizer = backbone.load_tokenizer(chosen.model)
    network = backbone.build_network(
        chosen.model,
        LABELS,
        tokenizer=tokenizer,
        full=isinstance(chosen.peft, config.Full),
        device=torch.device("cpu"),
        seed=1,
        base_folder=tmp_path / "base",
    )
    network = adapter.attach_adapter(
        network, chosen.peft, roles=chosen.model.roles, head=backbone.head_modules(chosen.model), seed=1
    )
    dataset = EmotionRows(tokenize(TEXTS, tokenizer, max_tokens=64), None)
    return network, Collate(dataset, tokenizer.pad_token_id)([0, 1, 2])


def logits(network: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def trained(network: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("peft", ["ia3", "ia3_all", "lora", "dora", "vera", "ln_tuning", "head"])
def test_everything_trained_has_a_gradient_after_an_evaluation_pass(
    settings: Any, tmp_path: Path, peft: str, dtype: str
) -> None:
    # bitsandbytes repacks 4-bit weights in an evaluation pass on CPUs with AVX512_BF16; that path has no backward.
    network, batch = build(settings, tmp_path, f"peft={peft}", f"model.dtype={dtype}")
    with torch.no_grad():
        network.eval()
        logits(network, batch)
    network.train()
    with torch.autocast("cpu", torch.float16 if dtype == "float16" else torch.bfloat16, enabled=dtype != "float32"):
        logits(network, batch).float().square().sum().backward()
    without = [name for name, parameter in trained(network).items() if parameter.grad is None]
    assert trained(network)
    assert without == []


@pytest.mark.parametrize("peft", ["ia3", "lora", "ln_tuning", "head"])
def test_trained_parameters_are_float32_and_the_rest_is_frozen(settings: Any, tmp_path: Path, peft: str) -> None:
    network, _ = build(settings, tmp_path, f"peft={peft}", "model.dtype=bfloat16")
    assert {parameter.dtype for parameter in trained(network).values()} == {torch.float32}
    marks = {"ia3": "ia3_l", "lora": "lora_", "ln_tuning": "ln_tuning_layers", "head": "score"}
    assert all(marks[peft] in name or "score" in name for name in trained(network))
    assert any("score.modules_to_save" in name for name in trained(network))


def test_ia3_trains_key_value_and_feedforward_vectors_and_the_head_only(settings: Any, tmp_path: Path) -> None:
    network, _ = build(settings, tmp_path)
    parts = {name.split(".")[-3] for name in trained(network) if "ia3_l" in name}
    assert parts == {"k_proj", "v_proj", "down_proj"}
    assert len(trained(network)) == 2 * 3 + 1


def test_network_is_in_training_mode_throughout(settings: Any, tmp_path: Path) -> None:
    # from_pretrained leaves it in evaluation mode: no dropout, no activation checkpointing.
    network, _ = build(settings, tmp_path)
    assert all(module.training for module in network.modules())


def test_activation_checkpointing_of_older_transformers_has_another_name(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    enabled: list[Any] = []
    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable")
    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_enable", lambda self: enabled.append(self))
    build(settings, tmp_path, "model.activation_checkpointing=true")
    assert len(enabled) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_activation_checkpointing_gives_the_same_gradients(settings: Any, tmp_path: Path, dtype: str) -> None:
    gradients = []
    for switch in ("false", "true"):
        network, batch = build(settings, tmp_path, f"model.activation_checkpointing={switch}", f"model.dtype={dtype}")
        with torch.autocast("cpu", torch.float16, enabled=dtype == "float16"):
            logits(network, batch).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in trained(network).items()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("autocast", [False, True])
def test_ia3_keeps_the_residual_stream_in_the_compute_dtype(
    settings: Any, tmp_path: Path, autocast: bool, quantization: str
) -> None:
    network, batch = build(settings, tmp_path, "model.dtype=bfloat16", f"model.quantization={quantization}")
    seen = []
    for layer in network.base_model.model.model.layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = logits(network, batch)
    assert seen == [torch.bfloat16] * 2
    assert torch.isfinite(out).all()


def test_ia3_in_float32_gives_peft_own_numbers(settings: Any, tmp_path: Path) -> None:
    network, batch = build(settings, tmp_path)
    with torch.no_grad():
        for name, parameter in trained(network).items():
            if "ia3_l" in name:
                parameter.uniform_(0.5, 1.5)
        ours = logits(network, batch)
        for module in network.modules():
            if isinstance(module, adapter._KeepsDtype):
                module.__class__ = type(module).__mro__[2]
        assert type(network.base_model.model.model.layers[0].mlp.down_proj).__module__ == "peft.tuners.ia3.bnb"
        assert torch.allclose(ours, logits(network, batch), atol=1e-6)


@pytest.mark.parametrize("peft", ["ia3", "lora", "head"])
def test_head_computes_in_float32_inside_autocast_and_is_not_quantised(
    settings: Any, tmp_path: Path, peft: str
) -> None:
    network, batch = build(settings, tmp_path, "model.dtype=bfloat16", f"peft={peft}")
    with torch.autocast("cpu", torch.bfloat16):
        assert logits(network, batch).dtype is torch.float32


BERT = [*SIZE[:4], "model.architecture.num_attention_heads=2"]
SHAPES = {
    "gemma in nf4": SIZE,
    "gemma": [*SIZE, "model.quantization=none"],
    "gemma3": ["model=gemma3", *SIZE, "model.quantization=none"],
    "bert": ["model=minilm", *BERT],
    "roberta": ["model=roberta", *BERT],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_alone_equals_the_row_in_a_padded_batch(settings: Any, tmp_path: Path, shape: str) -> None:
    overrides = [*SHAPES[shape], "model.dtype=float32", "model.architecture.vocab_size=8192"]
    network, together = build(settings, tmp_path, *overrides)
    network.eval()
    with torch.no_grad():
        whole = logits(network, together)
        for row in range(len(TEXTS)):
            length = int(together["attention_mask"][row].sum())
            alone = {name: together[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")}
            assert torch.allclose(whole[row], logits(network, alone)[0], atol=2e-6)


def test_lists_reach_peft_as_lists_and_its_config_is_json(finished: Path) -> None:
    saved = json.loads((finished / "model" / "adapter_config.json").read_text())
    assert "score" in saved["modules_to_save"]
    assert isinstance(saved["target_modules"], str)


def test_checkpoint_holds_trained_parameters_only_and_loads_without_code(finished: Path) -> None:
    checkpoint = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    names = checkpoint["state_dict"]
    assert all("ia3_l" in name or "score.modules_to_save" in name for name in names)
    assert (
        sum(tensor.numel() for tensor in names.values())
        == json.loads((finished / "metrics.json").read_text())["cost"]["trainable_parameters"]
    )
    assert (finished / "checkpoints" / "last.ckpt").stat().st_size < 200_000


def test_feedforward_pattern_of_bert_does_not_hit_its_attention_output(settings: Any) -> None:
    import re

    roles = settings("model=minilm").model.roles
    assert re.fullmatch(roles["feedforward_out"], "bert.encoder.layer.3.output.dense")
    assert not re.fullmatch(roles["feedforward_out"], "bert.encoder.layer.3.attention.output.dense")
    assert re.fullmatch(roles["output"], "bert.encoder.layer.3.attention.output.dense")


def test_a_loss_that_is_not_a_number_ends_the_run_and_is_never_best(run: Any, tmp_path: Path, capfd: Any) -> None:
    from conftest import SMALL

    code = run("train", *SMALL, "optimizer.lr=1e30", "optimizer.head_lr=1e30", "optimizer.warmup=0",
               "trainer.gradient_clip_val=null", "trainer.max_epochs=3", "hydra.run.dir=out")  # fmt: skip
    message = capfd.readouterr().err
    assert code == 2
    assert "The loss is" in message and "optimizer.lr" in message
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_compute_dtype_follows_the_device() -> None:
    cpu = torch.device("cpu")
    assert compute_dtype(config.Dtype.float16, cpu) is torch.float16
    assert compute_dtype(config.Dtype.auto, cpu) in (torch.bfloat16, torch.float32)
    assert precision(torch.float16, cpu).precision == "16-mixed"


def test_label_without_positives_has_a_finite_weight(settings: Any) -> None:
    weights = positive_weights(settings("loss.clip=null").loss, label_counts=torch.tensor([0, 5]).numpy(), rows=10)
    assert weights.tolist() == [1.0, 1.0]
    assert all(math.isfinite(weight) for weight in weights)


@pytest.mark.gpu
def test_gemma_shape_trains_a_step_in_4_bit_on_a_gpu(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from gpu_parts import base

    chosen = settings("model=gemma", "model.pretrained=false")
    tokenizer = backbone.load_tokenizer(chosen.model)
    device = torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats()
    with base.drawn_weights(device):
        network = backbone.build_network(chosen.model, LABELS, tokenizer=tokenizer, full=False, device=device, seed=1,
                              base_folder=tmp_path / "base")  # fmt: skip
    network = adapter.attach_adapter(network, chosen.peft, roles=chosen.model.roles, head=chosen.model.head, seed=1)
    dataset = EmotionRows(tokenize(TEXTS, tokenizer, max_tokens=64), None)
    collated = Collate(dataset, tokenizer.pad_token_id)([0, 1, 2])
    batch = {name: value.to(device) for name, value in collated.items() if torch.is_tensor(value)}
    with torch.autocast("cuda", compute_dtype(chosen.model.dtype, device)):
        logits(network, batch).float().sum().backward()
    assert all(parameter.grad is not None for parameter in trained(network).values())
    assert torch.cuda.max_memory_allocated() < 12e9
