"""Batches side by side, each on a core of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from emotion_lightning.errors import UserError
from emotion_lightning.inference import predictor
from emotion_lightning.inference.threads import CorePool


@pytest.fixture(scope="module")
def cores() -> Iterator[CorePool]:
    threads = torch.get_num_threads()
    yield CorePool(2)
    torch.set_num_threads(threads)


def test_each_core_works_alone_and_the_process_keeps_its_threads(cores: CorePool) -> None:
    assert list(cores.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == 2


def test_results_come_in_order_and_errors_come_through(cores: CorePool) -> None:
    def work(part: int) -> int:
        if part == 7:
            raise UserError("seven")
        return part * part

    assert list(cores.map(work, range(5))) == [0, 1, 4, 9, 16]
    with pytest.raises(UserError, match="seven"):
        list(cores.map(work, range(9)))


def test_predictions_are_the_same_on_one_core_and_on_several(finished: Path, cores: CorePool) -> None:
    one = predictor.load(finished, accelerator="cpu")
    assert isinstance(one, predictor.Predictor)
    texts = [f"I am so {'very ' * (i % 7)}happy {i}" for i in range(150)]
    one._cores = None
    alone = one.outputs(texts)[0]
    one._cores = cores
    torch.testing.assert_close(one.outputs(texts)[0], alone, atol=1e-6, rtol=0)


def test_weights_cast_once_give_the_same_answers_as_those_cast_for_each_batch() -> None:
    from torch import nn

    from emotion_lightning.models import backbone
    from emotion_lightning.models.device import cast_products

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), backbone.Float32Linear(8, 3))
    values = torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        before = network(values)
        cast_products(network, torch.bfloat16)
        assert torch.equal(network(values), before)
    assert [part.weight.dtype for part in network] == [torch.bfloat16, torch.float32, torch.float32]
