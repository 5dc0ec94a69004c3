"""What is read from a network equals what its modules do, what the options say, and what PEFT's tables name."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import model_table
from helpers.tiny_networks import NAMED, tiny_config
from transformers import AutoTokenizer

from emotion_lightning import config
from emotion_lightning.errors import UserError
from emotion_lightning.models import adapter, auto, backbone, fused, pooling, roles, structure
from emotion_lightning.training import optimizer

FEW = ["distilbert", "deberta-v2", "modernbert", "gpt2", "t5", "phi3", "roberta-prelayernorm"]
"""Architectures of the default suite: a head of two layers, a pooler in the head, fused matrices, a decoder."""
OPTIONS = {"bert": "bert", "roberta": "roberta", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3"}
SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def pefts_own_targets(model_type: str) -> set[str]:
    """Names of the modules that PEFT's own tables list for IA3 and LoRA in an architecture, to compare with the roles.

    PEFT matches them as the ends of module names.
    """
    from peft.utils import constants

    found: set[str] = set()
    for method in ("IA3", "LORA"):
        table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{method}_TARGET_MODULES_MAPPING")
        named = table.get(model_type, [])
        found |= set(named) if not isinstance(named, str) else set()
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tiny checkpoints, made once for this file."""
    place, made = tmp_path_factory.mktemp("checkpoints"), {}

    def checkpoint(model_type: str, **values: Any) -> Path:
        key = (model_type, *sorted(values))
        if key not in made:
            made[key] = model_table.checkpoint(model_type, place / str(len(made)), **values)
        return made[key]

    return checkpoint


@pytest.mark.parametrize(("model_type", "option"), OPTIONS.items())
def test_the_listed_options_say_what_is_read_from_the_network(settings: Any, model_type: str, option: str) -> None:
    listed = settings(f"model={option}").model
    found = structure.read_structure(auto.architecture_of(
        dataclasses.replace(listed, pretrained=False, architecture=listed.architecture | SIZES)
    ))  # fmt: skip
    names = [name for name, _ in structure.empty_network(tiny_config(model_type)).named_modules()]
    for role, pattern in listed.roles.items():
        assert found.roles[role] == [name for name in names if re.fullmatch(pattern, name)], role
    assert (found.head, found.pooler) == (listed.head, listed.pooler)
    assert (found.pooling, found.attention) == (listed.pooling, listed.attention)


def does_what_its_roles_say(folders: Any, model_type: str) -> None:
    """Queries, keys and values act in the attention as such; a role's pattern matches its modules alone."""
    found = structure.read_structure(tiny_config(model_type))
    names = [name for name, _ in structure.empty_network(tiny_config(model_type)).named_modules()]
    for role, pattern in found.patterns.items():
        assert [name for name in names if re.fullmatch(pattern, name)] == found.roles[role]
    network = model_table.base(asked_of(folders(model_type)))
    if any(role not in found.roles for role in ("query", "key", "value")):
        return
    query, key, value = (found.roles[role][0] for role in ("query", "key", "value"))
    if query == key == value:
        does = fused.outputs_of_roles(network, query)
        assert torch.stack(list(does.values())).sum(dim=0).eq(1).all() and all(rows.any() for rows in does.values())
        return
    others = {name: float(fused.gradient_of(network, name, tokens=3).abs().max()) for name in (query, key, value)}
    alone = {name: float(fused.gradient_of(network, name, tokens=1).abs().max()) for name in (query, key, value)}
    assert others[query] == 0 and others[key] > 0 and others[value] > 0
    assert alone[query] < 1e-4 * alone[value] and (key == value or alone[key] < 1e-4 * alone[value])


def asked_of(path: Path, **changed: Any) -> config.Model:
    model = dataclasses.replace(model_table.model_option(), path=str(path), **changed)
    return auto.resolve(model_table.Asked(model, model_table.peft_options()["head"])).model


@pytest.mark.parametrize("model_type", ["distilbert", "gpt2", "phi3"])
def test_queries_keys_and_values_act_as_such(folders: Any, model_type: str) -> None:
    does_what_its_roles_say(folders, model_type)


@pytest.mark.parametrize("model_type", FEW)
def test_pefts_own_tables_name_modules_that_have_a_role(model_type: str) -> None:
    names_have_roles(model_type)


def names_have_roles(model_type: str) -> None:
    found = structure.read_structure(tiny_config(model_type))
    known = [name for names in found.roles.values() for name in names]
    for ending in pefts_own_targets(model_type):
        assert any(name.endswith(f".{ending}") for name in known), ending


@pytest.mark.parametrize("model_type", FEW)
def test_trains_and_answers_alike_alone_and_reloaded(folders: Any, tmp_path: Path, model_type: str) -> None:
    method, form = (("ia3", "none"), ("lora", "nf4"))[FEW.index(model_type) % 2]
    assert model_table.check(folders(model_type), method, form, tmp_path) == []


def test_the_backbone_stays_in_its_place_while_the_head_reads(folders: Any) -> None:
    # On a CPU several threads predict with one network.
    asked, network = model_table.build(folders("distilbert"), "head", "none", pooling=config.Pooling.mean)
    backbone, seen = pooling.backbone_of(network), []
    head = network.get_base_model().get_submodule(asked.model.head[0])
    head.register_forward_hook(lambda *_: seen.append(pooling.backbone_of(network) is backbone))
    model_table.logits(asked, network, model_table.batch_of(model_table.TEXTS))
    assert seen and all(seen)


@pytest.mark.parametrize(("model_type", "form"), [("deberta-v2", "nf4"), ("modernbert", "none")])
@pytest.mark.parametrize("way", ["first", "mean", "last"])
def test_any_pooling_reaches_the_head(folders: Any, model_type: str, form: str, way: str) -> None:
    asked, network = model_table.build(folders(model_type), "head", form, pooling=config.Pooling(way))
    texts = model_table.TEXTS
    batch = model_table.batch_of(texts)
    seen = []
    head = network.get_base_model().get_submodule(asked.model.head[0])
    with torch.no_grad():
        hidden = pooling.backbone_of(network.eval())(**{k: batch[k] for k in ("input_ids", "attention_mask")})
        handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model_table.logits(asked, network, batch)
        handle.remove()
    given = seen[0] if seen[0].ndim == 2 else seen[0][:, 0]  # DeBERTa's pooler takes all tokens and reads the first
    expected = pooling.pool(hidden.last_hidden_state, batch["attention_mask"], config.Pooling(way))
    assert torch.allclose(given.float(), expected.float(), atol=1e-5)
    assert pooling.is_stock(network, asked.model.attention, config.Pooling(way)) == (way == "first")


@pytest.mark.parametrize("method", ["ia3", "ia3_all", "lora", "dora", "vera", "ln_tuning", "head"])
def test_the_number_of_trained_parameters_is_known_before_training(folders: Any, method: str) -> None:
    asked = model_table.compose(f"peft={method}")
    model = asked_of(folders("distilbert"))
    found = structure.read_structure(auto.architecture_of(model))
    network = adapter.attach_adapter(model_table.base(model), asked.peft, roles=model.roles, head=model.head, seed=1)
    assert found.trained_by(asked.peft) == adapter.trained_parameters(network)


def test_ia3_rescales_keys_and_values_of_a_fused_matrix_and_leaves_its_queries(folders: Any) -> None:
    asked, network = model_table.build(folders("gpt2"), "ia3", "none")
    batch = model_table.batch_of(model_table.TEXTS)
    model_table.logits(asked, network, batch).square().sum().backward()
    for name, vector in network.named_parameters():
        if name.endswith("c_attn.ia3_l.default"):
            query, key, value = vector.grad.flatten().split(32)  # GPT-2 has them one after the other
            assert not query.any() and key.any() and value.any()


def test_an_adapter_where_the_logits_do_not_depend_on_it_stays_untrained(folders: Any, caplog: Any) -> None:
    _, network = model_table.build(folders("lilt"), "ia3", "none")
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert any("layer.1.output.dense.ia3_l" in name for name in trained)
    assert not any("layer.1.layout_output" in name for name in trained)
    assert "The logits do not depend on 1 parameters (lilt.encoder.layer.1.layout_output.dense.ia3_l" in caplog.text


def test_a_network_that_changes_outputs_in_place_is_refused_in_4_bits(folders: Any) -> None:
    with pytest.raises(UserError, match="changes the outputs of its layers in place.*Set model.quantization=none"):
        model_table.build(folders("longformer"), "ia3", "nf4")


def test_lora_names_the_layers_of_a_mixture_that_it_can_adapt(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, methods = folders("hunyuan_v1_moe"), model_table.peft_options()
    with pytest.raises(UserError, match=r"Try peft.targets=\[query,key,value,output\], or choose another") as raised:
        model_table.build(path, "lora", "none")
    targets = re.findall(r"targets=\[(.*?)\]", str(raised.value))[0].split(",")
    lora = dataclasses.replace(methods["lora"], targets=targets)  # type: ignore[call-arg]
    monkeypatch.setattr(model_table, "peft_options", lambda: methods | {"lora": lora})
    _, network = model_table.build(path, "lora", "none")
    adapted = {name.split(".lora_A")[0] for name, _ in network.named_parameters() if ".lora_A." in name}
    assert {name.rpartition(".")[2] for name in adapted} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_network_that_reads_no_text_is_refused(folders: Any) -> None:
    with pytest.raises(UserError, match="gets the same numbers for every text, so there is nothing to learn"):
        model_table.build(folders("mra"), "head", "none")


@pytest.mark.parametrize(("model_type", "embeddings"), [("gpt2", 2), ("t5", 1), ("distilbert", 4), ("roberta", 5)])
def test_every_layer_has_a_rate_of_its_own_whatever_it_is_called(
    folders: Any, model_type: str, embeddings: int
) -> None:
    _, network = model_table.build(folders(model_type), "full", "none")
    found = optimizer.parameter_groups(
        network, head=["score", "classifier", "pre_classifier", "classification_head"], lr=1.0, head_lr=9.0,
        weight_decay=0.0, layer_decay=0.5,
    )  # fmt: skip
    rates = {str(group["name"]).removesuffix("_no_decay"): group["lr"] for group in found}
    assert rates == {"layer_0": 0.25, "layer_1": 0.5, "layer_2": 1.0, "head": 9.0}
    lowest = [group["params"] for group in found if str(group["name"]).startswith("layer_0")]
    assert sum(map(len, lowest)) == embeddings


def test_parameters_that_the_logits_do_not_depend_on_are_not_trained_in_full(folders: Any) -> None:
    _, network = model_table.build(folders("big_bird"), "full", "none")
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"bert.pooler.weight", "bert.pooler.bias"}


@pytest.mark.parametrize(
    ("model_type", "changed", "message"),
    [
        ("openai-gpt", {"attention": config.Attention.bidirectional}, "gives openai-gpt causal attention alone; set"),
        ("gpt2", {"pooling": config.Pooling.first}, "model.pooling=first with model.attention=causal"),
        ("distilbert", {"attention": config.Attention.causal, "pooling": config.Pooling.last},
         "distilbert was trained to see all tokens"),
        ("distilbert", {"head": ["score"]}, "no such module: beside its backbone it has pre_classifier, classifier"),
        ("distilbert", {"pooler": "pooler"}, "model.pooler names pooler"),
        ("distilbert", {"roles": {"key": "x", "value": "y"}}, "model.roles.key=x, model.roles.value=y; its linear"),
    ],
)  # fmt: skip
def test_what_a_network_cannot_do_is_refused_with_what_it_has(
    folders: Any, model_type: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        model_table.build(folders(model_type), "ia3", "none", **changed)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("model_type", "method", "message"),
    [
        ("fnet", "head", "fnet has no attention mask"),
        ("perceiver", "head", "perceiver has no head outside its backbone"),
        ("squeezebert", "lora", "choose peft=ln_tuning, peft=head or peft=full"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(model_type: str, method: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        found = structure.read_structure(tiny_config(model_type))
        auto.known_targets(model_table.peft_options()[method], found, auto.fill(model_table.model_option(), found))


def test_a_token_without_a_vector_is_refused_before_training(folders: Any) -> None:
    path = folders("distilbert", vocab_size=64)
    network = model_table.base(asked_of(path))
    with pytest.raises(UserError, match="padding token has the id 64, but the network has vectors for 64 tokens"):
        backbone.check_vocabulary(network, 64, what="The tokenizer's padding token")
    backbone.check_vocabulary(network, 63, what="A token of the texts")


def test_a_model_path_of_another_family_takes_auto(run: Any, folders: Any, tmp_path: Path, caplog: Any) -> None:
    import yaml

    from emotion_lightning import load

    line = [f"model.path={folders('distilbert')}", "logger=none", "trainer=debug", "data.max_rows=40"]
    assert run("train", *line, "hydra.run.dir=out") == 0
    assert "is a distilbert, so model=auto is used" in caplog.text
    stored = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text())
    assert stored["options"]["model"] == "auto" and stored["model"]["head"] == ["pre_classifier", "classifier"]
    assert set(stored["model"]["roles"]) == {*roles.ROLES} - {"gate"}
    assert load(tmp_path / "out").probabilities(["Well."]).shape == (1, 11)


def test_a_vocabulary_smaller_than_the_tokenizers_ends_before_training(
    run: Any, folders: Any, tmp_path: Path, capfd: Any
) -> None:
    line = [f"model.path={folders('distilbert', vocab_size=64)}", "logger=none", "trainer=debug", "data.max_rows=40"]
    assert run("train", *line, "hydra.run.dir=out") == 2
    assert "the network has vectors for 64 tokens only" in capfd.readouterr().err
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("option", ["auto", "distilbert"])
def test_inspect_refuses_a_padding_token_without_a_vector_as_train_does(
    run: Any, folders: Any, tmp_path: Path, capfd: Any, option: str
) -> None:
    shutil.copytree(folders("distilbert"), tmp_path / "checkpoint")
    known = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    known.add_special_tokens({"pad_token": "[A NEW PAD]"})
    known.save_pretrained(tmp_path / "checkpoint")
    line = [f"model={option}", f"model.path={tmp_path / 'checkpoint'}", "data.max_rows=40"]
    for command, more in (("train", ["logger=none", "trainer=debug"]), ("inspect", [])):
        assert run(command, *line, *more, "hydra.run.dir=out") == 2
        raised = capfd.readouterr().err
        assert f"The tokenizer's padding token has the id {known.pad_token_id}, but the network has vectors" in raised


def test_settings_with_dashes_are_told_how_they_are_given(run: Any, capfd: Any) -> None:
    assert run("train", "--peft=ia3", "--optimizer.lr=1e-3") == 2
    raised = capfd.readouterr().err
    assert "peft=ia3 optimizer.lr=1e-3" in raised and "${args_no_hyphens}" in raised


def test_inspect_prints_what_a_network_is_made_of(run: Any, folders: Any, capfd: Any) -> None:
    assert run("inspect", "model=auto", f"model.path={folders('gpt2')}", "data.max_rows=40") == 0
    shown = capfd.readouterr().out
    for part in ("GPT2ForSequenceClassification", "transformer.h.N.attn.c_attn", "ln_tuning", "nf4"):
        assert part in shown


@pytest.mark.slow
@pytest.mark.parametrize("model_type", NAMED)
def test_every_architecture_that_must_train_is_read_right(folders: Any, model_type: str) -> None:
    does_what_its_roles_say(folders, model_type)
    names_have_roles(model_type)


NEW = {
    "distilbert": ("bidirectional", "first", ["pre_classifier", "classifier"]),
    "deberta": ("bidirectional", "first", ["pooler", "classifier"]),
    "deberta_large": ("bidirectional", "first", ["pooler", "classifier"]),
    "mdeberta": ("bidirectional", "first", ["pooler", "classifier"]),
    "modernbert": ("bidirectional", "first", ["head", "classifier"]),
    "electra": ("bidirectional", "first", ["classifier"]),
    "xlm_roberta": ("bidirectional", "first", ["classifier"]),
    "qwen3": ("causal", "last", ["score"]),
    "llama": ("causal", "last", ["score"]),
    "gemma3_270m": ("causal", "last", ["score"]),
    "gemma3_1b": ("causal", "last", ["score"]),
    "embeddinggemma": ("bidirectional", "mean", ["score"]),
}
"""Options on top of auto, with attention, pooling and head of their networks."""


@pytest.mark.parametrize("option", NEW)
def test_options_on_top_of_auto_are_filled_from_their_network(settings: Any, option: str) -> None:
    chosen = settings(f"model={option}", "model.pretrained=false", "peft=lora")
    layers = "n_layers" if option == "distilbert" else "num_hidden_layers"
    chosen.model.architecture[layers] = 1  # one layer is read as quickly as the network is built
    model = auto.resolve(chosen).model
    attention, way, head = NEW[option]
    assert (model.attention.value, model.pooling.value, model.head, model.is_open) == (attention, way, head, False)
    assert {"query", "key", "value", "output", "feedforward_in", "feedforward_out", "norm"} <= set(model.roles)
