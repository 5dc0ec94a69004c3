"""float16 gives what float32 gives, also where plain float16 leaves its range; what is not finite is named."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import nn

from emotion_lightning import load
from emotion_lightning.errors import UserError
from emotion_lightning.models import backbone, float16, nonfinite
from emotion_lightning.models.device import precision
from emotion_lightning.training.callbacks.skipped_steps import SkippedSteps

SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 256,
    "head_dim": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
LABELS = ["anger", "joy", "trust"]
CPU = torch.device("cpu")
TINY = [
    "model.architecture.num_hidden_layers=2", "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128", "model.architecture.num_attention_heads=2",
    "model.architecture.head_dim=32", "model.architecture.vocab_size=8192", "trainer=cpu", "data.max_rows=96",
    "data.batch_size=8",
]  # fmt: skip


def gemma(
    kind: str = "gemma", *, feedforward: float = 1.0, embeddings: float = 1.0, norms: float = 0.0, words: int = 4096
) -> Any:
    """A small Gemma whose weights, all of which float16 can hold, are larger than random ones by these factors."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(1)
    architecture = AutoConfig.for_model(
        kind, **SHAPE, vocab_size=words, num_labels=len(LABELS), pad_token_id=0, use_cache=False
    )
    network = AutoModelForSequenceClassification.from_config(architecture, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(feedforward if ".mlp." in name else embeddings if "embed" in name else 1.0)
            if "norm" in name:
                parameter.fill_(norms)
            parameter.copy_(parameter.half())
    return network


def in_half(network: Any, *, wide: bool) -> Any:
    """A copy in float16 with a float32 head, with or without our way of computing in it."""
    import copy

    network = copy.deepcopy(network).half()
    network.score.float()
    network.score.__class__ = backbone.Float32Linear
    if wide:
        backbone.keep_in_range(network, torch.float16)
    return network


IDS = torch.randint(1, 4096, (3, 12), generator=torch.Generator().manual_seed(1))


def logits(network: Any) -> torch.Tensor:
    with torch.autocast("cpu", torch.float16):
        return network(input_ids=IDS).logits


BEYOND = {
    "the sum through the layers": {"embeddings": 4e5},
    "the product of gate and up": {"feedforward": 500.0},
    "norms": {"norms": 2e4, "feedforward": 30.0},
}


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("where", BEYOND)
def test_where_float16_overflows_ours_gives_what_float32_gives(kind: str, where: str) -> None:
    network = gemma(kind, **BEYOND[where])
    with torch.no_grad():
        exact = network(input_ids=IDS).logits
        plain, wide = (logits(in_half(network, wide=wide)) for wide in (False, True))
    assert torch.isfinite(exact).all() and not torch.isfinite(plain).all()
    assert float((wide - exact).abs().max() / exact.abs().max()) < 4e-3


def test_gradients_are_those_of_float32_too() -> None:
    gradients = {}
    for dtype in (torch.float32, torch.float16):
        network = gemma(feedforward=300.0)
        if dtype is torch.float16:
            network = in_half(network, wide=True)
        network.requires_grad_(False)
        vectors = [layer.input_layernorm.weight for layer in network.model.layers] + [network.score.weight]
        for vector in vectors:
            vector.data = vector.data.float()
            vector.requires_grad = True
        with torch.autocast("cpu", torch.float16, enabled=dtype is torch.float16):
            loss = network(input_ids=IDS).logits.square().mean()
        (loss * 2.0**16).backward()  # what the gradient scaler begins with
        gradients[dtype] = [vector.grad / 2.0**16 for vector in vectors]
    for exact, ours in zip(*gradients.values(), strict=True):
        assert float((ours - exact).norm() / exact.norm()) < 0.02


def test_queries_keys_and_values_share_one_range(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    own = float16.within_range

    def counted(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(id(vectors))
        return own(vectors)

    monkeypatch.setattr(float16, "within_range", counted)
    with torch.no_grad():
        logits(in_half(gemma(), wide=True))
    # In each of two layers: what the attention reads, what its last layer reads, and twice in the gated block.
    assert len(asked) == 2 * 4
    assert float16._known.get() is None


def test_tokens_in_range_stay_as_they_are_and_others_lose_nothing_but_a_power_of_two() -> None:
    vectors = torch.tensor([[1.0, -2.0], [3e9, 1.5e9], [0.0, 0.0]])
    small, power = float16.within_range(vectors)
    assert small.dtype is torch.float16
    assert power.flatten().tolist() == [1.0, 2.0**24, 1.0]
    torch.testing.assert_close(small.float() * power, vectors, rtol=2**-11, atol=0)


# ------------------------------------------------------------------------------------------------ trained and labelled


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that plain float16 cannot compute, as if it came from the hub."""
    folder = tmp_path_factory.mktemp("models") / "beyond"
    gemma(feedforward=600.0, embeddings=4.0, words=8192).model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(backbone.BUNDLED / name, folder / name)
    return folder


def asked(beyond: Path, *more: str) -> list[str]:
    own = ["model.pretrained=true", f"model.path={beyond}", "model.dtype=float16"]
    return [*own, "trainer.accelerator=cpu", "trainer.max_epochs=1", "data.max_rows=96", "logger=none",
            "hydra.run.dir=out", *more]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_model_beyond_float16_trains_in_it_and_labels_the_same_afterwards(
    run: Any, beyond: Path, tmp_path: Path, quantization: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("train", *asked(beyond, f"model.quantization={quantization}")) == 0
    assert "skipped" not in caplog.text
    written = (tmp_path / "out" / "predictions" / "test.csv").read_text().splitlines()
    from emotion_lightning.data import official

    again = ["predict", "run=out", f"input={official.SAMPLE / 'test.csv'}", "output=again.csv", "accelerator=cpu"]
    assert run(*again) == 0
    header, *rows = (tmp_path / "again.csv").read_text().splitlines()
    assert header == written[0]
    probabilities = {row.split(",")[0]: [float(cell) for cell in row.split(",")[-11:]] for row in rows}
    for row in written[1:]:
        identifier, *cells = row.split(",")
        assert probabilities[identifier] == pytest.approx([float(cell) for cell in cells[-11:]], abs=2e-3)


def test_plain_float16_ends_with_the_module_that_overflowed(
    run: Any, beyond: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(backbone, "keep_in_range", lambda network, compute: None)
    assert run("train", *asked(beyond, "model.quantization=none")) == 2
    raised = capfd.readouterr().err
    assert "The loss is nan at step 1" in raised
    assert "model.layers.0.mlp computed infinity in float16 for model.layers.0.mlp.down_proj" in raised
    assert "model.dtype=bfloat16" in raised and "Traceback" not in raised
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.slow
def test_labelling_in_plain_float16_names_the_module_too(
    run: Any, beyond: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    assert run("train", *asked(beyond, "trainer=debug", "model.quantization=none")) == 0
    monkeypatch.setattr(backbone, "keep_in_range", lambda network, compute: None)
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.down_proj gave infinity in float16.*; repeat the run"):
        load(tmp_path / "out", accelerator="cpu").predict(["so happy"])


# ------------------------------------------------------------------------------------------------- what is not finite


class Wrong(nn.Module):
    """Infinite in a module, or between two."""

    def __init__(self, *, within: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.within = within
        if within:
            self.first.weight.data.fill_(3e38)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vectors = self.first(x)
        return self.second(vectors if self.within else vectors / 0)


@pytest.mark.parametrize(
    ("within", "text"),
    [
        (True, "first gave infinity in float32 for input up to 10"),
        (False, "the network computed infinity in float32 for second"),
    ],
)
def test_the_first_module_is_named_and_no_hook_stays(within: bool, text: str) -> None:
    network = Wrong(within=within)
    cause = nonfinite.first_nonfinite(network, lambda: network(torch.full((1, 2), 10.0)))
    assert cause is not None and cause.text == text
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    network.second.weight.data[0, 0] = torch.nan
    cause = nonfinite.first_nonfinite(network, lambda: network(torch.full((1, 2), 10.0)))
    assert cause is not None and cause.text == "the parameters second.weight are not finite"
    network = Wrong(within=False).double()
    assert nonfinite.first_nonfinite(network, lambda: network.first(torch.ones(1, 2).double())) is None


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_that_is_not_finite_names_the_module(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any, split: str
) -> None:
    from emotion_lightning.training.classifier import EmotionClassifier

    step = getattr(EmotionClassifier, f"{split}_step")

    def ruined(self: Any, batch: Any, batch_index: int) -> None:
        self.network.base_model.model.model.layers[1].mlp.down_proj.ia3_l["default"].data.fill_(torch.nan)
        step(self, batch, batch_index)

    monkeypatch.setattr(EmotionClassifier, f"{split}_step", ruined)
    assert run("train", *SMALL, "trainer=debug", "trainer.accelerator=cpu", "hydra.run.dir=out") == 2
    raised = capfd.readouterr().err
    assert "outputs are not finite at" in raised
    assert "model.layers.1.mlp.down_proj" in raised and "Lower optimizer.lr" in raised


# --------------------------------------------------------------------------------------------------------- the scaler


def train_with_scaler(bad: list[bool]) -> SkippedSteps:
    """Steps with a real gradient scaler, of which some have gradients that are not finite."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.number = nn.Parameter(torch.ones(1))

        def training_step(self, batch: torch.Tensor, batch_index: int) -> torch.Tensor:
            # The root's slope at 0 is infinite, and the loss is not.
            return torch.sqrt(self.number * (1 - batch[0].float())).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    counter = SkippedSteps()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[counter], plugins=[precision(torch.float16, CPU)],
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.tensor(bad), batch_size=1))
    return counter


def test_skipped_steps_are_counted_and_a_few_are_no_storm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "emotion_lightning")
    counter = train_with_scaler([True] * 5 + [False] * 60)
    assert (counter.steps, counter.skipped) == (65, 5)
    assert "5 of 65 optimizer steps were skipped" in caplog.text
    assert "of the last" not in caplog.text


def test_a_storm_is_told_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    counter = train_with_scaler([True, False, False] * 40)
    assert counter.skipped == 40
    assert caplog.text.count("optimizer steps were skipped: their gradients were not finite in float16") == 1
    assert "20 of the last 58" in caplog.text and "model.dtype=bfloat16" in caplog.text
    again = SkippedSteps()
    again.load_state_dict(json.loads(json.dumps(counter.state_dict())))
    assert again.state_dict() == counter.state_dict()


def test_steps_that_are_all_skipped_end_the_run() -> None:
    with pytest.raises(UserError, match="100 of the last 100 optimizer steps were skipped"):
        train_with_scaler([True] * 120)


@pytest.mark.parametrize(
    "shape", [pytest.param([], marks=pytest.mark.gpu, id="gemma2b"), pytest.param(TINY, id="tiny")]
)
def test_gemma_in_float16_trains_without_a_storm_in_the_memory_of_a_t4(
    shape: list[str], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from gpu_parts import base

    from emotion_lightning.training import checkpoint_io, read_back

    monkeypatch.setattr(read_back, "check_read_back", lambda *_, **__: None)  # the base has no weights on disk

    device, steps = (CPU, 4) if shape else (torch.device("cuda", 0), 60)
    if not shape:
        torch.cuda.reset_peak_memory_stats()
    # 32 texts of up to 64 tokens a step on the GPU, as by default.
    asked = ["model=gemma", "model.pretrained=false", "model.dtype=float16", f"trainer.max_steps={steps}", *shape]
    with base.drawn_weights(device):
        assert run("train", *asked, "trainer.max_epochs=20", "trainer.limit_eval_batches=2", "logger=none",
                   "callbacks=no_early_stopping", "hydra.run.dir=out") == 0  # fmt: skip
    state = checkpoint_io.load_checkpoint(tmp_path / "out" / "checkpoints" / "last.ckpt")["callbacks"]["SkippedSteps"]
    assert state["steps"] == steps
    assert state["skipped"] < steps / 4
    cost = json.loads((tmp_path / "out" / "metrics.json").read_text())["cost"]
    # A T4 has 16 GB, of which some are CUDA's own. Without a GPU this is the memory of the process.
    assert shape or cost["peak_memory_bytes"] < 15e9
