"""Every method on every family of models in every form of weights: what is trained, that it learns, that it reloads."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.data.batches import Collate, EmotionRows, tokenize
from emotion_lightning.errors import UserError
from emotion_lightning.models import adapter, backbone, model_folder, pooling

LABELS = ["anger", "joy", "trust"]
TEXTS = ["I never thought they would come.", "No.", "Rain again, and the boiler is out. Lovely start, that."]
SMALL = [
    "model.pretrained=false",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
    "model.architecture.num_attention_heads=2",
    "model.architecture.vocab_size=8192",
]
DECODER = [*SMALL, "model.architecture.num_key_value_heads=1", "model.architecture.head_dim=32"]
FAMILIES = {
    "gemma": ["model=gemma", *DECODER],
    "gemma2": ["model=gemma2", *DECODER],
    "gemma3": ["model=gemma3", *DECODER],
    "bert": ["model=minilm", *SMALL],
    "roberta": ["model=roberta", *SMALL],
}
METHODS = {
    "ia3": ["peft=ia3"],
    "ia3_all": ["peft=ia3_all"],
    "lora": ["peft=lora"],
    "rslora": ["peft=lora", "peft.rslora=true"],
    "dora": ["peft=dora"],
    "vera": ["peft=vera", "peft.r=8"],
    "ln_tuning": ["peft=ln_tuning"],
    "head": ["peft=head"],
    "full": ["peft=full"],
}
ADDED = {
    "ia3": ["ia3_l.default"],
    "ia3_all": ["ia3_l.default"],
    "lora": ["lora_A.default.weight", "lora_B.default.weight"],
    "rslora": ["lora_A.default.weight", "lora_B.default.weight"],
    "dora": ["lora_A.default.weight", "lora_B.default.weight", "lora_magnitude_vector.default.weight"],
    "vera": ["vera_lambda_b.default", "vera_lambda_d.default"],
    "head": [],
}
"""Names of what a method puts into each module that it targets."""

CPU = torch.device("cpu")
REFUSED = {(method, form) for method in ["full"] for form in ("nf4", "int8")} | {("dora", "int8")}
"""Pairs that are refused, on a CPU at the latest."""

Built = tuple[Any, Any, dict[str, Tensor]]


def build(settings: Any, tmp_path: Path, *overrides: str) -> Built:
    """Settings, a small network with trained parts, and a padded batch."""
    chosen = settings("model.dtype=float32", *overrides)
    tokenizer = backbone.load_tokenizer(chosen.model)
    network = base(chosen, tokenizer, tmp_path)
    network = adapter.attach_adapter(
        network, chosen.peft, roles=chosen.model.roles, head=backbone.head_modules(chosen.model), seed=1,
        unused=backbone.unused_module(chosen.model),
    )  # fmt: skip
    dataset = EmotionRows(tokenize(TEXTS, tokenizer, max_tokens=64), None)
    return chosen, network, Collate(dataset, tokenizer.pad_token_id)([0, 1, 2])


def base(chosen: Any, tokenizer: Any, tmp_path: Path) -> Any:
    full = isinstance(chosen.peft, config.Full)
    return backbone.build_network(
        chosen.model, LABELS, tokenizer=tokenizer, full=full, device=CPU, seed=1, base_folder=tmp_path / "base"
    )


def logits(chosen: Any, network: Any, batch: dict[str, Tensor]) -> Tensor:
    return pooling.logits(network, batch, pooling=chosen.model.pooling)


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def expected(chosen: Any, network: Any, method: str) -> set[str]:
    """Names that the method is to train, from the roles and the modules of the network alone."""
    if method == "full":
        return {
            name
            for name, _ in network.named_parameters()
            if str(backbone.unused_module(chosen.model)) not in name.split(".")
        }
    own = network.get_base_model()
    modules = {name: module for name, module in own.named_modules() if not re.search(r"\.(base_layer|default)", name)}
    prefix = "base_model.model."
    names = set()
    for role in getattr(chosen.peft, "targets", []):
        found = [name for name in modules if re.fullmatch(chosen.model.roles[role], name)]
        assert found, role
        for name in found:
            if method == "ln_tuning":
                weights = [part for part, _ in modules[name].base_layer.named_parameters()]
                names |= {f"{prefix}{name}.ln_tuning_layers.default.{part}" for part in weights}
            else:
                names |= {f"{prefix}{name}.{part}" for part in ADDED[method]}
    for head in backbone.head_modules(chosen.model):
        (place,) = [name for name in modules if name.split(".")[-1] == head]
        parts = [part for part, _ in modules[place].original_module.named_parameters()]
        names |= {f"{prefix}{place}.modules_to_save.default.{part}" for part in parts}
    return names


LAYERS = {"upper_half": [2, 3], "[1,-1]": [1, 3]}
DEEP = "model.architecture.num_hidden_layers=4"


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, marks=[] if family in ("gemma", "bert") else pytest.mark.exhaustive)
        for family in FAMILIES
        for method in METHODS
        if method not in ("head", "full")
    ],
)
def test_an_adapter_sits_in_the_chosen_layers_alone_and_stock_peft_loads_it(
    settings: Any, tmp_path: Path, family: str, method: str, layers: str
) -> None:
    from peft import PeftModel

    form = "model.quantization=nf4" if family == "gemma" and layers == "upper_half" else "model.quantization=none"
    asked = [*FAMILIES[family], *METHODS[method], DEEP, form]
    chosen, network, batch = build(settings, tmp_path, *asked, f"peft.layers={layers}")
    inside = re.compile(rf"\.(layers|layer)\.({'|'.join(map(str, LAYERS[layers]))})\.")
    head = set(backbone.head_modules(chosen.model))
    everywhere = expected(chosen, network, method) if method != "ln_tuning" else None
    found = {name for name in trained(network) if not head & set(name.split("."))}
    assert found and all(inside.search(name) for name in found)
    assert {inside.search(name)[2] for name in found} == set(map(str, LAYERS[layers]))  # type: ignore[index]
    if everywhere is not None:
        assert found == {name for name in everywhere if inside.search(name)}
    moved(network)
    with torch.no_grad():
        before = logits(chosen, network.eval(), batch)
    network.save_pretrained(tmp_path / "saved")
    again = PeftModel.from_pretrained(base(chosen, backbone.load_tokenizer(chosen.model), tmp_path), tmp_path / "saved")
    adapter.keep_dtype(again)
    with torch.no_grad():
        assert torch.allclose(logits(chosen, again.eval(), batch), before, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["peft.layers=[2]"], r"peft.layers=\[2\] names layer 2, but the network has 2 layers, 0 to 1"),
        (["peft.layers=[-3]"], "names layer -3, but the network has 2 layers"),
        (["peft.layers=[1,-1]"], "names a layer twice"),
    ],
)
def test_layers_that_are_not_there_are_refused(settings: Any, tmp_path: Path, asked: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(settings, tmp_path, *FAMILIES["bert"], *asked)


def test_layers_without_a_target_are_refused(settings: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="these layers have no module of peft.targets"):
        build(
            settings, tmp_path, *FAMILIES["bert"], "peft.layers=[1]", r"model.roles.key='.*layer\.0.*\.key'",
            "peft.targets=[key]", "peft.feedforward=[]",
        )  # fmt: skip


def test_layers_of_an_encoder_go_on_in_its_decoder_and_parts_in_lists_make_one_layer() -> None:
    from helpers.tiny_networks import tiny_config

    from emotion_lightning.models import roles, structure

    def layers(model_type: str) -> list[list[str]]:
        return roles.layers_of(structure.empty_network(tiny_config(model_type)))

    blocks = [[f"transformer.{part}.block.{number}"] for part in ("encoder", "decoder") for number in (0, 1)]
    assert layers("t5") == blocks
    assert layers("gemma") == [["model.layers.0"], ["model.layers.1"]]
    assert layers("xlm") == [[f"transformer.{part}.{number}" for part in ("attentions", "ffns")] for number in (0, 1)]
    assert len(layers("albert")) == 1


def moved(network: nn.Module) -> None:
    """Trained parameters away from where they begin, where many methods change nothing."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in trained(network).values():
            parameter.add_(0.1 * torch.randn_like(parameter))


def combinations() -> list[Any]:
    """Each family with each method in one form of weights: every pair of values occurs. The rest is exhaustive."""
    forms = ("nf4", "int8", "none")
    return [
        pytest.param(family, method, form, marks=[] if (i + j) % len(forms) == k else pytest.mark.exhaustive)
        for i, family in enumerate(FAMILIES)
        for j, method in enumerate(METHODS)
        for k, form in enumerate(forms)
    ]


@pytest.mark.parametrize(("family", "method", "form"), combinations())
def test_trains_what_it_should_in_float32_and_reloads_to_equal_logits(
    settings: Any, tmp_path: Path, family: str, method: str, form: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    asked = [*FAMILIES[family], *METHODS[method], f"model.quantization={form}"]
    if (method, form) in REFUSED:
        with pytest.raises(UserError, match=r"model\.quantization=(nf4 or )?none"):
            chosen = settings(*asked)
            adapter.check_peft(chosen.peft, chosen.model, CPU)
        return
    chosen, network, batch = build(settings, tmp_path, *asked)
    adapter.check_peft(chosen.peft, chosen.model, CPU)
    assert set(trained(network)) == expected(chosen, network, method)
    assert {parameter.dtype for parameter in trained(network).values()} == {torch.float32}
    moved(network)

    with torch.no_grad():
        before = logits(chosen, network.eval(), batch)
    logits(chosen, network.train(), batch).square().sum().backward()
    assert [name for name, parameter in trained(network).items() if parameter.grad is None] == []
    assert all(bool(parameter.grad.abs().sum() > 0) for name, parameter in trained(network).items() if _reached(name))

    network.save_pretrained(tmp_path / "saved")
    if method == "full":
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    else:
        again = PeftModel.from_pretrained(
            base(chosen, backbone.load_tokenizer(chosen.model), tmp_path), tmp_path / "saved"
        )
        adapter.keep_dtype(again)
    with torch.no_grad():
        assert torch.allclose(logits(chosen, again.eval(), batch), before, atol=1e-6)
    assert before.std() > 0


def _reached(name: str) -> bool:
    # Rows of tokens and positions that no text has, and the bias of keys, which a softmax takes out, have no slope.
    return not re.search(r"embed|key\.bias", name)


@pytest.mark.parametrize("family", ["bert", "gemma"])
def test_norms_are_trained_and_loaded_without_a_warning(settings: Any, tmp_path: Path, family: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        chosen, network, _ = build(settings, tmp_path, *FAMILIES[family], "peft=ln_tuning", "model.quantization=none")
        network.save_pretrained(tmp_path / "saved")
        model_folder.load_adapter(base(chosen, backbone.load_tokenizer(chosen.model), tmp_path), tmp_path / "saved")
        with adapter.norms_are_known():
            warnings.warn("Unsupported layer type '<class 'torch.nn.Linear'>' encountered", UserWarning, stacklevel=1)
    unsupported = [str(one.message) for one in warned if "Unsupported layer type" in str(one.message)]
    assert unsupported == ["Unsupported layer type '<class 'torch.nn.Linear'>' encountered"]


@pytest.mark.parametrize("form", ["nf4", "none"])
@pytest.mark.parametrize("way", ["last", "mean"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_pooler_that_is_passed_by_is_not_trained(
    settings: Any, tmp_path: Path, family: str, way: str, form: str
) -> None:
    asked = [*FAMILIES[family], f"model.pooling={way}", f"model.quantization={form}"]
    for method in ("ia3", "full") if form == "none" else ("ia3",):
        chosen, network, batch = build(settings, tmp_path, *asked, *METHODS[method])
        assert not any("pooler" in name for name in trained(network))
        assert set(trained(network)) == expected(chosen, network, method)
        logits(chosen, network, batch).sum().backward()
        assert all(parameter.grad is not None for parameter in trained(network).values())


# -------------------------------------------------------------------------------------------------- attention, pooling

KERNELS = {
    "gemma": ["eager", "sdpa", "flex_attention"],
    "gemma2": ["eager", "flex_attention"],  # transformers 5.23 has no sdpa for it: its scores are capped
    "gemma3": ["eager", "sdpa", "flex_attention"],
    "bert": ["eager", "sdpa", "flex_attention"],
    "roberta": ["eager", "sdpa", "flex_attention"],
}


def ways() -> list[Any]:
    """Families with their kernels, attentions and poolings; flex_attention compiles for a minute: exhaustive."""
    return [
        pytest.param(*way, marks=pytest.mark.exhaustive if way[1] == "flex_attention" else [])
        for family, kernels in KERNELS.items()
        for kernel in kernels
        for attention in (["causal", "bidirectional"] if "gemma" in family else ["bidirectional"])
        for pooled in (["last", "mean"] if attention == "causal" else ["first", "last", "mean"])
        for way in [(family, kernel, attention, pooled)]
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    # flex_attention compiles its masks, and torch stops after eight of a kind.
    torch._dynamo.reset()


def reading(settings: Any, tmp_path: Path, family: str, kernel: str, attention: str, way: str) -> Built:
    """A network that is frozen but for its head, which reads as asked for."""
    return build(
        settings, tmp_path, *FAMILIES[family], "peft=head", "model.quantization=none", f"model.attention={attention}",
        f"model.attn_implementation={kernel}", f"model.pooling={way}",
    )  # fmt: skip


@pytest.mark.parametrize(("family", "kernel", "attention", "way"), ways())
def test_a_text_alone_equals_the_text_in_a_padded_batch(
    settings: Any, tmp_path: Path, family: str, kernel: str, attention: str, way: str
) -> None:
    chosen, network, batch = reading(settings, tmp_path, family, kernel, attention, way)
    assert network.config._attn_implementation == kernel
    with torch.no_grad():
        together = logits(chosen, network.eval(), batch)
        for row in range(len(TEXTS)):
            length = int(batch["attention_mask"][row].sum())
            alone = {name: batch[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")}
            assert torch.allclose(together[row], logits(chosen, network, alone)[0], atol=5e-6)


@pytest.mark.parametrize(
    ("family", "kernel"),
    [
        pytest.param(family, kernel, marks=pytest.mark.exhaustive if kernel == "flex_attention" else [])
        for family, kernels in KERNELS.items()
        for kernel in kernels
    ],
)
def test_the_first_token_sees_the_last_where_attention_is_bidirectional_alone(
    settings: Any, tmp_path: Path, family: str, kernel: str
) -> None:
    for attention in ["causal", "bidirectional"] if "gemma" in family else ["bidirectional"]:
        chosen, network, batch = build(
            settings, tmp_path, *FAMILIES[family], "peft=head", "model.quantization=none",
            f"model.attention={attention}", f"model.attn_implementation={kernel}",
        )  # fmt: skip
        own = network.eval().get_base_model()
        backbone = getattr(own, own.base_model_prefix)
        for mask in (batch["attention_mask"], torch.ones_like(batch["attention_mask"]), None):
            changed = batch["input_ids"].clone()
            last = changed.shape[1] - 1 if mask is None else int(mask[1].sum()) - 1
            changed[1, last] += 1
            with torch.no_grad():
                before, after = (
                    backbone(input_ids=ids, attention_mask=mask).last_hidden_state[1, 0]
                    for ids in (batch["input_ids"], changed)
                )
            assert torch.equal(before, after) == (attention == "causal")


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
def test_own_pooling_of_the_last_token_equals_that_of_transformers(settings: Any, tmp_path: Path, family: str) -> None:
    chosen, network, batch = build(settings, tmp_path, *FAMILIES[family], "model.quantization=none")
    moved(network)
    with torch.no_grad():
        stock = network.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(logits(chosen, network, batch), stock, atol=1e-6)
    assert pooling.is_stock(network, chosen.model.attention, chosen.model.pooling)
    assert not pooling.is_stock(network, chosen.model.attention, config.Pooling.mean)


def test_pooling_leaves_padding_out() -> None:
    hidden = torch.arange(12.0).reshape(1, 4, 3)
    for mask, last in (([1, 1, 0, 0], 1), ([1, 1, 1, 1], 3), (None, 3)):
        present = None if mask is None else torch.tensor([mask])
        assert torch.equal(pooling.pool(hidden, present, config.Pooling.first), hidden[:, 0])
        assert torch.equal(pooling.pool(hidden, present, config.Pooling.last), hidden[:, last])
        mean = hidden[:, : last + 1].mean(dim=1)
        assert torch.allclose(pooling.pool(hidden, present, config.Pooling.mean), mean)


@pytest.mark.parametrize(("family", "kernel", "attention", "way"), ways())
def test_rows_of_one_length_need_no_mask(
    settings: Any, tmp_path: Path, family: str, kernel: str, attention: str, way: str
) -> None:
    chosen, network, batch = reading(settings, tmp_path, family, kernel, attention, way)
    whole = {"input_ids": batch["input_ids"][:, : int(batch["attention_mask"].sum(1).min())]}
    with torch.no_grad():
        without = logits(chosen, network.eval(), whole)
        with_mask = logits(chosen, network, whole | {"attention_mask": torch.ones_like(whole["input_ids"])})
    assert torch.allclose(without, with_mask, atol=5e-6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["model.pooling=first"], "the first token sees none of the others"),
        (["peft=full"], "set model.quantization=none, or choose an adapter such as peft=ia3"),
        (["model=minilm", *SMALL, "model.attention=causal", "model.pooling=last"], "was trained to see all tokens"),
        (
            ["model=gemma2", *DECODER, "model.quantization=none", "model.attn_implementation=sdpa"],
            "Try model.attn_impl",
        ),
        (["model.attn_implementation=flash_attention_2"], "Try model.attn_implementation=auto"),
        (["peft=dora", "model.quantization=int8", "trainer.accelerator=cpu"], "Set model.quantization=nf4 or none"),
    ],
)
def test_impossible_pairs_are_refused_with_one_that_works(
    run: Any, capfd: Any, tmp_path: Path, asked: list[str], message: str
) -> None:
    assert run("train", "logger=none", "data.max_rows=40", *asked, "hydra.run.dir=out") == 2
    raised = capfd.readouterr().err
    assert message in raised and "Traceback" not in raised
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_attention_and_pooling_are_stored_with_the_model(run: Any, tmp_path: Path) -> None:
    import csv

    from conftest import SMALL as TINY

    from emotion_lightning import load
    from emotion_lightning.data import official

    asked = [*TINY, "trainer=debug", "model.attention=bidirectional", "model.pooling=mean", "hydra.run.dir=out"]
    assert run("train", *asked) == 0
    predictor: Any = load(tmp_path / "out")
    assert predictor.network.config.is_causal is False
    with (tmp_path / "out" / "predictions" / "test.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    with (official.SAMPLE / "test.csv").open(newline="", encoding="utf-8") as file:
        texts = {row["id"]: row["text"] for row in csv.DictReader(file)}
    again = predictor.probabilities([texts[row["id"]] for row in written])
    ours = torch.tensor([[float(row[f"p_{name}"]) for name in official.SEMEVAL_LABELS] for row in written])
    assert torch.allclose(again, ours, atol=1e-6)
    assert "Load it with this project" in (tmp_path / "out" / "model" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param("bert", marks=pytest.mark.exhaustive), "gemma"])
def test_a_compiled_network_gives_the_same_logits_for_every_length_and_is_compiled_once(
    settings: Any, tmp_path: Path, family: str
) -> None:
    chosen, network, batch = build(
        settings, tmp_path, *FAMILIES[family], "model.architecture.num_hidden_layers=1", "peft=ia3",
        "model.quantization=none",
    )  # fmt: skip
    names = [name for name, _ in network.named_parameters()]
    lengths = range(5, int(batch["attention_mask"].sum(1).max()) + 1)
    cut = [
        {name: batch[name][:, :length].contiguous() for name in ("input_ids", "attention_mask")} for length in lengths
    ]
    with torch.no_grad():
        before = [logits(chosen, network.eval(), one) for one in cut]
        backbone.compile_(network)
        logits(chosen, network, cut[0])
        torch._dynamo.utils.counters.clear()
        after = [logits(chosen, network, one) for one in cut]
    assert len(cut) > 5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert [name for name, _ in network.named_parameters()] == names
    logits(chosen, network.train(), batch).sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
