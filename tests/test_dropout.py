import pytest
import torch
from torch import nn

from emotion_lightning import dropout


def layer(rate: float) -> nn.Dropout:
    network = nn.Sequential(nn.Dropout(rate))
    dropout.quicken(network)
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
