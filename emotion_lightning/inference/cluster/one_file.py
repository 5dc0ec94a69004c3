"""Label the texts of one file with several workers, in the order of its rows."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from emotion_lightning import config
from emotion_lightning.data.rows import Text
from emotion_lightning.inference.cluster import connection
from emotion_lightning.inference.cluster.pool import Pool
from emotion_lightning.inference.cluster.worker import Model, Worker, portable
from emotion_lightning.runs import environment


@contextmanager
def workers(settings: config.Predict) -> Iterator["Workers"]:
    """Start the workers, and end them with the block.

    Args:
        settings: of the command.

    Raises:
        UserError: Ray is not installed, or the machine has fewer GPUs than `devices`.
    """
    if settings.accelerator is not config.Accelerator.cpu and settings.ray.address is None:
        environment.check_gpus(settings.devices, torch.cuda.device_count())
    with connection.joined(settings) as shares:
        model = Model(
            portable(settings.run), None, settings.accelerator.value, shares.cpus, settings.data.batch_size,
            settings.data.batch_tokens,
        )  # fmt: skip
        pool: Pool[Sequence[Text]] = Pool(
            connection.starter(Worker, model, None, shares=shares),
            lambda worker, texts: worker.answer.remote(texts),
            count=shares.workers,
            ahead=2,
        )
        try:
            yield Workers(pool)
        finally:
            pool.close()


class Workers:
    """Labels pieces of texts and returns the results in the same order.

    Args:
        pool: the workers.
    """

    def __init__(self, pool: "Pool[Sequence[Text]]") -> None:
        self._pool = pool

    def decide(self, pieces: Iterable[Sequence[Text]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the decisions and probabilities of each piece, [text, label] each.

        Raises:
            UserError: the model cannot be loaded, or a piece killed several workers.
        """
        for _, (decisions, probabilities) in self._pool.results(pieces, in_order=True):
            yield _tensor(decisions), _tensor(probabilities)


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(array.copy())  # Ray's arrays cannot be written to
