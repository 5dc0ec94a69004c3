"""Where metrics go besides the run folder: Weights & Biases, MLflow, TensorBoard, a CSV file, or nowhere."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import extras
from emotion_lightning.training.loggers import base, csv_logger, mlflow_logger, tensorboard_logger, wandb_logger
from emotion_lightning.training.loggers.base import Run

_MODULES: dict[type[config.Logger], tuple[str, str]] = {
    config.MLflow: ("mlflow", "mlflow-skinny"),
    config.TensorBoard: ("tensorboard", "tensorboard"),
}
"""Module and package of a logger that is not installed with everything else; its extra is named as its option."""


def check_tracker(settings: config.Logger) -> None:
    """Raise UserError for a package that is not installed or a server that does not answer."""
    for kind, (module, package) in _MODULES.items():
        if isinstance(settings, kind) and importlib.util.find_spec(module) is None:
            option = schema.schema_of(settings)
            raise UserError(f"logger={option} needs {package}: {extras.install(option)}")
    if isinstance(settings, config.MLflow):
        mlflow_logger.check_server(mlflow_logger.tracking_uri(settings))


def check(settings: config.Logger) -> None:
    """Raise UserError, before any other work, if the logger cannot work as asked."""
    if isinstance(settings, config.WandB):
        wandb_logger.is_offline(settings)
    else:
        check_tracker(settings)


@contextmanager
def run(settings: config.Logger, folder: Path, *, resolved: dict[str, Any], multirun: bool) -> Iterator[Run]:
    """A logger that is closed when training ends, also by an error, and before the next job of a multirun.

    Args:
        settings: which logger.
        folder: the run folder.
        resolved: every setting, secrets redacted.
        multirun: the run is a job of a multirun, whose folder then names the W&B group.
    """
    from lightning.pytorch.utilities import rank_zero_only

    match settings:
        case _ if getattr(rank_zero_only, "rank", 0) != 0:
            yield Run(False)  # of several processes the first alone logs
        case config.WandB():
            yield from wandb_logger.wandb_run(settings, folder, resolved=resolved, multirun=multirun)
        case config.MLflow():
            yield from mlflow_logger.mlflow_run(settings, folder, resolved=base.dotted(resolved), multirun=multirun)
        case config.TensorBoard():
            yield from tensorboard_logger.tensorboard_run(
                folder, resolved=base.dotted(resolved), step=csv_logger.last_step(folder)
            )
        case config.CSV():
            logger = csv_logger.csv_logger(folder)
            try:
                yield Run(logger)
            finally:
                logger.finalize("finished")
        case _:
            yield Run(False)
