from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import nn

from emotion_lightning.models import dropout


def layer(rate: float) -> nn.Dropout:
    network = nn.Sequential(nn.Dropout(rate))
    dropout.speed_up_dropout(network)
    assert type(network[0]) is not nn.Dropout
    return network[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_share_of_the_elements_is_dropped_and_the_mean_is_kept(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.full((1001, 333), 3.0, dtype=dtype)
    out = layer(rate)(values)
    assert out.dtype is dtype and out.shape == values.shape
    dropped = (out == 0).float()
    # Five standard deviations of the share, over all, over rows and over columns.
    for shares, count in ((dropped.mean(), 333_333), (dropped.mean(0), 1001), (dropped.mean(1), 333)):
        assert (shares - rate).abs().max() < 5 * (rate * (1 - rate) / count) ** 0.5
    (kept,) = out[out != 0].unique().tolist()
    assert kept == pytest.approx(3 / (1 - rate), rel=0.004 if dtype is torch.bfloat16 else 1e-4)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (layer(0.5)(torch.ones(400_000)) == 0).float() - 0.5
    for step in range(1, 9):  # four elements share a random number
        assert (4 * (dropped[step:] * dropped[:-step]).mean()).abs() < 0.01


def test_gradients_are_dropped_where_the_values_are() -> None:
    values = torch.randn(7, 5, requires_grad=True)
    out = layer(0.3)(values)
    out.sum().backward()
    assert torch.allclose(values.grad * values.detach(), out.detach())


def test_the_seed_tells_what_is_dropped() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(layer(0.5)(torch.ones(999)))
    assert found[0].equal(found[1]) and not found[0].equal(found[2])


def test_evaluation_and_rate_zero_change_nothing_and_rate_one_drops_all() -> None:
    values = torch.randn(3, 4)
    assert layer(0.5).eval()(values) is values
    assert layer(0.0)(values) is values
    assert not layer(1.0)(values).any()
    assert layer(0.5)(torch.zeros(0, 4)).shape == (0, 4)


SIZES = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 50,
    "attn_implementation": "eager",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "architecture",
    [
        {"model_type": "bert", "attention_probs_dropout_prob": 0.3, "hidden_dropout_prob": 0.0},
        {"model_type": "gemma", "attention_dropout": 0.3, "num_key_value_heads": 1, "head_dim": 8},
        # The soft cap is low, so that the small scores of random weights feel it.
        {
            "model_type": "gemma2",
            "attention_dropout": 0.3,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 1e-3,
            "initializer_range": 0.5,
        },
    ],
    ids=["bert", "gemma", "gemma2"],
)
def test_attention_is_that_of_transformers_but_for_what_it_drops(
    architecture: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    network = AutoModel.from_config(AutoConfig.for_model(**architecture, **SIZES)).train()
    ids = torch.randint(4, 50, (3, 7))
    mask = torch.ones(3, 7, dtype=torch.int64)
    mask[1, 4:] = 0

    def run() -> list[torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            hidden = network(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden.float().square().sum().backward()
        return [hidden.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "dropout", lambda values, *_, **__: values)
        stock = run()
    dropout.speed_up_dropout(network)
    assert network.config._attn_implementation != "eager"
    dropping = run()
    assert not torch.equal(dropping[0], stock[0])
    with monkeypatch.context() as patch:
        patch.setattr(dropout, "dropped_out", lambda values, rate: values)
        for ours, theirs in zip(run(), stock, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5 if dtype is torch.float32 else 0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["s_aux", "sinks", "position_bias"])
def test_attention_with_learned_scores_is_left_to_the_network_s_own_function(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.gemma import modeling_gemma

    monkeypatch.setattr(modeling_gemma, "eager_attention_forward", lambda *_, **given: (given["dropout"], given[name]))
    module = modeling_gemma.GemmaAttention.__new__(modeling_gemma.GemmaAttention)
    nothing = torch.zeros(1, 1, 1, 1)
    found = dropout._attention(module, nothing, nothing, nothing, None, dropout=0.25, **{name: 7})
    assert found == (0.25, 7)


@pytest.mark.parametrize(("rate", "kernel", "kept"), [(0.0, "eager", True), (0.1, "sdpa", False), (0.1, "flex", True)])
def test_only_attention_that_drops_by_a_kernel_that_may_be_replaced_gets_another(
    rate: float, kernel: str, kept: bool
) -> None:
    from transformers import AutoConfig, AutoModel

    network = AutoModel.from_config(
        AutoConfig.for_model("gemma", **SIZES, num_key_value_heads=1, head_dim=8, attention_dropout=rate)
    )
    network.config._attn_implementation = kernel
    dropout.speed_up_dropout(network)
    assert (network.config._attn_implementation == kernel) is (kept or kernel == "sdpa")
    dropout.speed_up_dropout(network, kernels=["eager", "sdpa"])
    assert (network.config._attn_implementation == kernel) is kept


@pytest.mark.parametrize(("asked", "max_tokens", "kernel"), [("auto", 64, "eager_with_quick_dropout"),
                                                             ("sdpa", 64, "sdpa"), ("auto", 512, "sdpa")])  # fmt: skip
def test_training_draws_attentions_dropout_itself_where_the_kernel_is_open_and_texts_are_short(
    run: Any, monkeypatch: pytest.MonkeyPatch, asked: str, max_tokens: int, kernel: str
) -> None:
    found: list[str] = []
    quicken = dropout.speed_up_dropout

    def watched(network: Any, **options: Any) -> None:
        quicken(network, **options)
        found.append(network.config._attn_implementation)

    monkeypatch.setattr(dropout, "speed_up_dropout", watched)
    assert run("train", "model=minilm", "peft=head", *[o for o in SMALL if "head_dim" not in o], "trainer=debug",
               "model.architecture.vocab_size=8192", "model.dtype=float32", f"model.attn_implementation={asked}",
               f"data.max_tokens={max_tokens}", "hydra.run.dir=out") == 0  # fmt: skip
    assert found == [kernel]
