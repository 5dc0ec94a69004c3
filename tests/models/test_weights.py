"""Weights that a checkpoint lacks, holds beside its network's, or keeps behind a prefix."""

import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from emotion_lightning import config
from emotion_lightning import load as load_run
from emotion_lightning.errors import UserError
from emotion_lightning.models import backbone

SIZES: dict[str, Any] = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 50,
    "max_position_embeddings": 40,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bert": {}, "roberta": {}, "deberta-v2": {"pooler_hidden_size": 32}, "llama": {"num_key_value_heads": 2},
    "modernbert": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
}  # fmt: skip
LABELS = ["anger", "joy", "trust"]


def checkpoint(folder: Path, kind: str, *, of: str = "AutoModel", changed: Callable[..., Any] | None = None) -> Path:
    """A folder with a small pretrained network, whose tensors by name `changed` may change."""
    import transformers

    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(kind, **SIZES, **KINDS[kind])
    getattr(transformers, of).from_config(settings).save_pretrained(folder)
    if changed is not None:
        tensors = changed(load_file(folder / "model.safetensors"))
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def load(folder: Path, *, head: str, pooler: bool = False, nf4: bool = False, full: bool = False) -> Any:
    heads = [*(["pooler"] if pooler else []), *head.split(",")]
    kept = [*heads, *([r".*\.pooler"] if pooler else [])]
    return backbone.load_network(
        str(folder), revision=None, dtype=torch.float32, head=heads, kept=kept, labels=LABELS,
        quantization=config.Quantization.nf4 if nf4 else config.Quantization.none, pad_token_id=0, full=full,
        attention=config.Attention.causal if "score" in heads else config.Attention.bidirectional,
        attn_implementation=config.AttentionKernel.auto, device=torch.device("cpu"),
    )  # fmt: skip


def behind(*prefixes: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {prefix + name: value.clone() for prefix in prefixes for name, value in tensors.items()}


@pytest.mark.parametrize("nf4", [False, True])
@pytest.mark.parametrize("prefix", ["module.", "encoder_q.", "_orig_mod.model."])
@pytest.mark.parametrize(
    ("kind", "of", "head"),
    [("bert", "AutoModel", "classifier"), ("bert", "AutoModelForMaskedLM", "classifier"),
     ("llama", "AutoModelForCausalLM", "score"), ("roberta", "AutoModelForMaskedLM", "classifier")],
)  # fmt: skip
def test_weights_behind_a_prefix_are_taken_without_it_aloud(
    tmp_path: Path, caplog: Any, kind: str, of: str, head: str, prefix: str, nf4: bool
) -> None:
    plain = load(checkpoint(tmp_path / "plain", kind, of=of), head=head, pooler=kind == "bert", nf4=nf4)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        found = load(
            checkpoint(tmp_path / "odd", kind, of=of, changed=behind(prefix)), head=head, pooler=kind == "bert", nf4=nf4
        )
    assert prefix in caplog.text
    ids = torch.tensor([[5, 6, 7]])
    for network in (plain, found):
        network.eval()
    parts = [getattr(network, network.base_model_prefix) for network in (plain, found)]
    hidden = [part(input_ids=ids).last_hidden_state for part in parts]
    torch.testing.assert_close(*hidden)


@pytest.mark.parametrize("nf4", [False, True])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (behind("encoder_q.", "encoder_k."), r"lacks 20 weights \(model\.embed_tokens\.weight, .* and 17 more\)"),
        (lambda t: {n: v for n, v in t.items() if ".1." not in n}, r"lacks 9 weights \(.*layers\.1\..* and 6 more"),
        (lambda t: {n: v for n, v in t.items() if n != "model.norm.weight"}, r"lacks 1 weight \(model\.norm\.weight\)"),
        (lambda t: t | {n.replace(".1.", ".2."): v.clone() for n, v in t.items()},
         r"holds 9 weights \(model\.layers\.2\..*no place"),
        (lambda t: t | {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, r"holds 1 weight \(.*q_norm"),
    ],
    ids=["two networks", "no layer 1", "no norm", "a layer more", "another norm"],
)  # fmt: skip
def test_weights_that_are_missing_or_too_many_are_refused_with_names_and_counts(
    tmp_path: Path, changed: Any, message: str, nf4: bool
) -> None:
    def named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return changed({f"model.{name}" if not name.startswith("model.") else name: v for name, v in tensors.items()})

    with pytest.raises(UserError, match=message):
        load(checkpoint(tmp_path / "odd", "llama", changed=named), head="score", nf4=nf4)


def test_heads_for_other_tasks_and_old_buffers_are_passed_by(tmp_path: Path) -> None:
    def changed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors | {"qa_outputs.weight": torch.ones(2, 32), "embeddings.position_ids": torch.arange(40)}

    network = load(checkpoint(tmp_path / "odd", "bert", changed=changed), head="classifier", pooler=True)
    assert not any("qa_outputs" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize(("kind", "module"), [("deberta-v2", "pooler"), ("modernbert", "head")])
def test_new_modules_are_trained_and_stored_or_refused(tmp_path: Path, kind: str, module: str) -> None:
    folder = checkpoint(tmp_path / "base", kind)
    with pytest.raises(UserError, match=rf"{module}\.dense\.weight.*model\.head=\[{module},classifier\]"):
        load(folder, head="classifier")
    load(folder, head=f"{module},classifier")
    load(folder, head="classifier", full=True)


def test_a_run_refuses_a_module_that_would_stay_random_and_keeps_one_that_is_named(
    tmp_path: Path, run: Any, capfd: Any
) -> None:
    base = checkpoint(tmp_path / "base", "deberta-v2")
    settings = json.loads((base / "config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(backbone.BUNDLED / name, base)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**settings | {"vocab_size": 8192})).save_pretrained(base)
    line = ["train", "model=roberta", "peft=head", "model.path=base", "trainer=debug", "logger=none",
            "data.max_rows=64", "data.max_tokens=32", "predict.text=true", "hydra.run.dir=out"]  # fmt: skip
    assert run(*line) == 2
    assert "model.head=[pooler,classifier]" in capfd.readouterr().err
    assert run(*line, "model.head=[pooler,classifier]", "model.dtype=float32") == 0
    stored = load_file(tmp_path / "out" / "model" / "adapter_model.safetensors")
    assert any("pooler.dense.weight" in name for name in stored)
    with (tmp_path / "out" / "predictions" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = load_run(tmp_path / "out", accelerator="cpu").predict([row["text"] for row in rows])
    for row, prediction in zip(rows, found, strict=True):
        for label, share in prediction.probabilities.items():
            assert float(row[f"p_{label}"]) == pytest.approx(share, abs=1e-5)
