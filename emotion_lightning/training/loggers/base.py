"""What a logger is told besides Lightning's metrics, and the loggers of MLflow and TensorBoard."""

import importlib.util
import logging
import os
import re
import socket
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.cli import multirun as jobs
from emotion_lightning.config import redaction, schema
from emotion_lightning.errors import UserError
from emotion_lightning.reports import pages
from emotion_lightning.reports.run_facts import RunCard
from emotion_lightning.runs import extras

log = logging.getLogger(__name__)

_MODULES: dict[type[config.Logger], tuple[str, str]] = {
    config.MLflow: ("mlflow", "mlflow-skinny"),
    config.TensorBoard: ("tensorboard", "tensorboard"),
}
"""Module and package of a logger that is not installed with everything else; its extra is named as its option."""


class Run:
    """A logger for Lightning, and the few things that it is told at the end."""

    def __init__(self, lightning_logger: Any) -> None:
        self.lightning_logger = lightning_logger

    def summary(self, values: dict[str, Any]) -> None:
        """Keep final numbers by name."""
        if self.lightning_logger:
            self.lightning_logger.log_metrics({name: value for name, value in values.items() if value is not None})

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Keep a table, where the logger can."""

    def media(self, pictures: dict[str, Path], page: str, card: RunCard) -> None:
        """Keep pictures by name, a page of HTML and what can be drawn of a run, where the logger can."""

    @property
    def sends_texts(self) -> bool:
        """Whether texts may be sent."""
        return False

    def model(self, folder: Path) -> None:
        """Keep the model folder, where the settings say so."""


def confusion(card: RunCard) -> tuple[list[str], list[list[Any]]]:
    """A table: how often each label was found, given wrongly, missed, and rightly left out."""
    truth, decided = card.truth, card.decisions
    cells = [truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided]
    counts = np.stack([cell.sum(axis=0) for cell in cells], axis=1)
    columns = ["emotion", "true_positive", "false_positive", "false_negative", "true_negative"]
    return columns, [[label, *row] for label, row in zip(card.labels, counts.tolist(), strict=True)]


def mistakes(card: RunCard) -> tuple[list[str], list[list[Any]]]:
    """A table: the rows with the largest loss, with their texts."""
    rows: list[list[Any]] = [
        [wrong.identifier, wrong.text, ", ".join(wrong.gold), ", ".join(wrong.predicted), wrong.loss]
        for wrong in card.mistakes()
    ]
    return ["row", "text", "gold", "predicted", "loss"], rows


def thinned(curve: np.ndarray, points: int = 100) -> list[float]:
    """As many points of a curve as a screen can show, both ends among them."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(points, len(curve))).round().astype(int))
    found: list[float] = curve[kept].tolist()
    return found


def check(settings: config.Logger) -> None:
    """Raise UserError for a package that is not installed or a server that does not answer."""
    for kind, (module, package) in _MODULES.items():
        if isinstance(settings, kind) and importlib.util.find_spec(module) is None:
            option = schema.schema_of(settings)
            raise UserError(f"logger={option} needs {package}: {extras.install(option)}")
    if isinstance(settings, config.MLflow):
        _check_server(_tracking_uri(settings))


def _check_server(uri: str) -> None:
    # MLflow would try for minutes, behind the reading of the data.
    place = urllib.parse.urlsplit(uri)
    if place.scheme not in ("http", "https"):
        return
    try:
        port = place.port or {"http": 80, "https": 443}[place.scheme]
        socket.create_connection((place.hostname or "", port), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"logger.tracking_uri={redaction.text(uri)} does not answer ({error}); start it with `mlflow "
            "server`, or keep runs in a file with logger.tracking_uri=sqlite:///mlflow.db."
        ) from error


def _tracking_uri(settings: config.MLflow) -> str:
    # Whole, for MLflow opens a path only once in a process, whichever folder it is in by then.
    return settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def group_and_name(settings: config.WandB | config.MLflow, folder: Path, *, multirun: bool) -> tuple[str | None, str]:
    """What a tracker calls a run: a job of a multirun by what sets it apart, in the multirun's group."""
    found = jobs.name(folder)
    group = found[0] if found else folder.parent.name if multirun else None
    name = found[1] if found else f"{folder.parent.name}/{folder.name}"
    # Folders may be named by others.
    return settings.group or (group and pages.printable(group)), settings.name or pages.printable(name)


def _mlflow_name(name: str) -> str:
    """A name of a number that MLflow takes: letters, digits and _-.: with spaces, and a label as one part of a path.

    >>> _mlflow_name("test/f1/joy"), _mlflow_name("test/f1/a/b & c")
    ('test/f1/joy', 'test/f1/a_2F_b _26_ c')
    """
    parts = name.split("/", 2)
    found = [re.sub(r"[^\w.\- ]", lambda other: f"_{ord(other[0]):X}_", part) for part in parts]
    # The longest that MLflow takes.
    return "/".join("_2E_" + part[1:] if part in (".", "..") else part for part in found)[:250]


class _MLflowRun(Run):
    def __init__(self, lightning_logger: Any, *, log_model: bool) -> None:
        super().__init__(lightning_logger)
        self._client, self._id = lightning_logger.experiment, lightning_logger.run_id
        self._log_model = log_model

    def summary(self, values: dict[str, Any]) -> None:
        super().summary({_mlflow_name(name): value for name, value in values.items() if isinstance(value, int | float)})

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        columned = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        self._client.log_dict(self._id, columned, f"{name}.json")

    def media(self, pictures: dict[str, Path], page: str, card: RunCard) -> None:
        for file in pictures.values():
            self._client.log_artifact(self._id, str(file), "pictures")
        self._client.log_text(self._id, page, "report.html")
        self.table("confusion", *confusion(card))

    def model(self, folder: Path) -> None:
        if self._log_model:
            self._client.log_artifacts(self._id, str(folder), "model")


def mlflow_run(settings: config.MLflow, folder: Path, *, resolved: dict[str, Any], multirun: bool) -> Iterator[Run]:
    """An MLflow run that is ended with the block; one that the folder began goes on.

    Args:
        settings: where it is kept.
        folder: the run folder.
        resolved: every setting by dotted name, secrets redacted.
        multirun: whether the run is a job of a multirun.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # no git is no reason to complain
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    id_file = folder / "mlflow" / "id.txt"
    run_id = id_file.read_text().strip() if id_file.exists() else None
    uri = _tracking_uri(settings)
    group, name = group_and_name(settings, folder, multirun=multirun)
    named = MLFlowLogger(
        experiment_name=redaction.text(settings.experiment),
        run_name=redaction.text(name),
        tracking_uri=uri,
        tags={"group": redaction.text(group)} if group else None,
        run_id=run_id,
    )
    try:
        client = named.experiment
    except mlflow.exceptions.MlflowException as error:
        where = redaction.text(uri)
        raise UserError(f"logger.tracking_uri={where} cannot be used: {redaction.text(str(error))}") from error
    if run_id is None:
        # Of a run that goes on they are known, and MLflow lets none be changed.
        named.log_hyperparams(resolved)
    else:
        client.update_run(run_id, status="RUNNING")
    id_file.parent.mkdir(parents=True, exist_ok=True)
    id_file.write_text(str(named.run_id))
    log.info("MLflow keeps this run in %s, experiment %s.", redaction.text(uri), settings.experiment)
    status = "FAILED"
    try:
        yield _MLflowRun(named, log_model=settings.log_model)
        status = "FINISHED"
    except SystemExit:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(named.run_id, status)


class _TensorBoardRun(Run):
    def summary(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self.lightning_logger.experiment.add_scalar(name, value, 0)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        shown = [[f"{cell:.4f}" if isinstance(cell, float) else pages.cell(cell) for cell in row] for row in rows]
        lines += ["| " + " | ".join(cells) + " |" for cells in shown]
        self.lightning_logger.experiment.add_text(name, "\n".join(lines))

    def media(self, pictures: dict[str, Path], page: str, card: RunCard) -> None:
        from matplotlib.image import imread

        writer = self.lightning_logger.experiment
        for name, file in pictures.items():
            writer.add_image(f"pictures/{name}", imread(file), dataformats="HWC")
        for i, label in enumerate(card.labels):
            writer.add_pr_curve(f"precision_recall/{label}", card.truth[:, i], card.probabilities[:, i])
        self.table("confusion", *confusion(card))


def tensorboard_run(folder: Path, *, resolved: dict[str, Any], step: int | None) -> Iterator[Run]:
    """Event files in the run folder.

    Args:
        folder: the run folder.
        resolved: every setting by dotted name, secrets redacted.
        step: that the run goes on from; what was logged behind it is dropped. None of a new run.
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
