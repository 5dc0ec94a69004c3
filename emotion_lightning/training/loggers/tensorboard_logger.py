"""Log runs to TensorBoard."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emotion_lightning.reports.run_facts import RunFacts
from emotion_lightning.runs.plain_text import markdown_cell
from emotion_lightning.training.loggers import base

log = logging.getLogger(__name__)


class _TensorBoardRun(base.Run):
    def summary(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self.lightning_logger.experiment.add_scalar(name, value, 0)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        shown = [[f"{cell:.4f}" if isinstance(cell, float) else markdown_cell(cell) for cell in row] for row in rows]
        lines += ["| " + " | ".join(cells) + " |" for cells in shown]
        self.lightning_logger.experiment.add_text(name, "\n".join(lines))

    def media(self, pictures: dict[str, Path], page: str, facts: RunFacts) -> None:
        from matplotlib.image import imread

        writer = self.lightning_logger.experiment
        for name, file in pictures.items():
            writer.add_image(f"pictures/{name}", imread(file), dataformats="HWC")
        for i, label in enumerate(facts.labels):
            known = facts.known[:, i]
            writer.add_pr_curve(f"precision_recall/{label}", facts.truth[known, i], facts.probabilities[known, i])
        self.table("confusion", *base.confusion(facts))


def tensorboard_run(folder: Path, *, resolved: dict[str, Any], step: int | None) -> Iterator[base.Run]:
    """Write TensorBoard event files into the run folder.

    Args:
        folder: the run folder.
        resolved: all settings by dotted name, with secrets redacted.
        step: the step that a resumed run continues from; later events are dropped. None for a new run.
    """
    from lightning.pytorch.loggers import TensorBoardLogger

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        logger = TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=step)
    logger.log_hyperparams(resolved)
    log.info("TensorBoard: tensorboard --logdir %s", folder / "tensorboard")
    try:
        yield _TensorBoardRun(logger)
    finally:
        logger.experiment.flush()
        logger.experiment.close()
