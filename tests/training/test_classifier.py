"""The step of the classifier: what it learns of a batch."""

import math
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.models import losses
from emotion_lightning.training.classifier import EmotionClassifier

LABELS = ["joy", "anger", "fear"]


class Linear(EmotionClassifier):
    """The classifier on a linear network, whose inputs are vectors."""

    def forward(self, batch: Any) -> Tensor:
        logits: Tensor = self.network(batch["vectors"])
        return logits

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.network.parameters(), lr=0.5)

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        pass


def learned(vectors: Tensor, targets: Tensor, sizes: list[int], *, weighted: bool = False) -> Tensor:
    """The weights after one step over batches of these sizes, whose gradients are accumulated."""
    network = nn.Linear(vectors.shape[1], len(LABELS)).double()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    given: Any = {"thresholds": None, "optimizer": None, "method": None, "pooling": config.Pooling.mean}
    masked = bool(targets.isnan().any())
    classifier = Linear(
        network,
        labels=LABELS,
        loss=losses.build_loss(
            config.BCE(),
            label_counts=targets.nansum(0).numpy(),
            rows=len(targets),
            masked=masked,
            known_per_row=float((~targets.isnan()).sum(1).double().mean()) if masked else None,
        ),
        head=[],
        identity={},
        **given,
    )
    parts = zip(vectors.split(sizes), targets.split(sizes), strict=True)
    batches = [
        {"vectors": own, "targets": labels} | ({"weight": len(own) * len(sizes) / sum(sizes)} if weighted else {})
        for own, labels in parts
    ]
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=len(sizes), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(classifier, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert trainer.global_step == 1
    return network.weight.detach()


@pytest.mark.parametrize("sizes", [[8, 8, 8], [4, 20]])
@pytest.mark.parametrize("is_open", [False, True])
def test_accumulated_gradients_are_those_of_the_whole_batch(sizes: list[int], is_open: bool) -> None:
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(24, 5, generator=random, dtype=torch.float64)
    targets = (torch.rand(24, 3, generator=random) < 0.4).double()
    if is_open:
        targets[2:8] = math.nan  # the first batch knows little
        targets[9::4, 1] = math.nan
    weighted = len(set(sizes)) > 1
    found = learned(vectors, targets, sizes, weighted=weighted)
    torch.testing.assert_close(found, learned(vectors, targets, [24]))
    assert found.abs().max() > 0.01
