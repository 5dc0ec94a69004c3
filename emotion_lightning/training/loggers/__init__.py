"""Loggers: Weights & Biases, MLflow, TensorBoard, a CSV file, or none."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import own_parts, schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import extras
from emotion_lightning.training.loggers import base, csv_logger, mlflow_logger, tensorboard_logger, wandb_logger
from emotion_lightning.training.loggers.base import Run

_MODULES: dict[type[config.Logger], tuple[str, str]] = {
    config.MLflow: ("mlflow", "mlflow-skinny"),
    config.TensorBoard: ("tensorboard", "tensorboard"),
}
"""Module and package of each logger that is not installed by default; its extra has the name of its option."""


def check_tracker(settings: config.Logger) -> None:
    """Raise UserError if the logger's package is not installed or its server does not answer."""
    for kind, (module, package) in _MODULES.items():
        if isinstance(settings, kind) and importlib.util.find_spec(module) is None:
            option = schema.schema_of(settings)
            raise UserError(f"logger={option} needs {package}: {extras.install(option)}")
    if isinstance(settings, config.MLflow):
        mlflow_logger.check_server(mlflow_logger.tracking_uri(settings))


def check_logger(settings: config.Logger) -> None:
    """Raise UserError if the logger cannot work as configured; called before any other work."""
    if isinstance(settings, config.WandB):
        wandb_logger.is_offline(settings)
    else:
        check_tracker(settings)


def _own_run(settings: own_parts.OwnPart, folder: Path, resolved: dict[str, Any]) -> Iterator[Run]:
    from lightning.pytorch.loggers import Logger

    logger = own_parts.build(settings, folder=folder, run_settings=resolved)
    if not isinstance(logger, Logger):
        raise UserError(
            f"logger={settings.origin.option}: {settings.part} must return a lightning.pytorch Logger; it gave "
            f"{type(logger).__name__}."
        )
    logger.log_hyperparams(base.dotted(resolved))
    try:
        yield Run(logger)
    except BaseException:
        logger.finalize("failed")
        raise
    logger.finalize("success")


@contextmanager
def open_logger(settings: config.Logger, folder: Path, *, resolved: dict[str, Any], multirun: bool) -> Iterator[Run]:
    """Open a logger and close it when training ends, also after an error.

    Args:
        settings: the logger's settings.
        folder: the run folder.
        resolved: all settings, with secrets redacted.
        multirun: whether the run is a job of a multirun; its folder then names the group in W&B and MLflow.
    """
    from lightning.pytorch.utilities import rank_zero_only

    match settings:
        case _ if getattr(rank_zero_only, "rank", 0) != 0:
            yield Run(False)  # with several processes, only the first one logs
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
        case own_parts.OwnPart():
            yield from _own_run(settings, folder, resolved)
        case _:
            yield Run(False)
