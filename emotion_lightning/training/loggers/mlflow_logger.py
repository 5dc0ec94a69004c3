"""Log runs to MLflow."""

import logging
import os
import re
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import redaction
from emotion_lightning.errors import UserError
from emotion_lightning.reports.run_facts import RunFacts
from emotion_lightning.training.loggers import base

log = logging.getLogger(__name__)


def check_server(uri: str) -> None:
    """Raise UserError if a tracking server does not answer within ten seconds."""
    # MLflow itself would retry for minutes, and only after the data has been read.
    place = urllib.parse.urlsplit(uri)
    if place.scheme not in ("http", "https"):
        return
    try:
        port = place.port or {"http": 80, "https": 443}[place.scheme]
        socket.create_connection((place.hostname or "", port), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"logger.tracking_uri={redaction.hide_secrets(uri)} does not answer ({error}); start it with `mlflow "
            "server`, or keep runs in a file with logger.tracking_uri=sqlite:///mlflow.db."
        ) from error


def tracking_uri(settings: config.MLflow) -> str:
    """Return MLflow's tracking URI: the setting, else MLFLOW_TRACKING_URI, else mlflow.db in the current folder."""
    # An absolute path: MLflow resolves a path once per process, and the current folder may have changed by then.
    return settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"


def _mlflow_name(name: str) -> str:
    """Return a metric name that MLflow accepts.

    Letters, digits, `_`, `-`, `.` and spaces stay. A slash in a label is replaced: a label is one segment of the path.

    >>> _mlflow_name("test/f1/joy"), _mlflow_name("test/f1/a/b & c")
    ('test/f1/joy', 'test/f1/a_2F_b _26_ c')
    """
    parts = name.split("/", 2)
    found = [re.sub(r"[^\w.\- ]", lambda other: f"_{ord(other[0]):X}_", part) for part in parts]
    # MLflow accepts at most 250 characters.
    return "/".join("_2E_" + part[1:] if part in (".", "..") else part for part in found)[:250]


class _MLflowRun(base.Run):
    def __init__(self, lightning_logger: Any, *, log_model: bool) -> None:
        super().__init__(lightning_logger)
        self._client, self._id = lightning_logger.experiment, lightning_logger.run_id
        self._log_model = log_model

    def summary(self, values: dict[str, Any]) -> None:
        super().summary({_mlflow_name(name): value for name, value in values.items() if isinstance(value, int | float)})

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        columned = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        self._client.log_dict(self._id, columned, f"{name}.json")

    def media(self, pictures: dict[str, Path], page: str, facts: RunFacts) -> None:
        for file in pictures.values():
            self._client.log_artifact(self._id, str(file), "pictures")
        self._client.log_text(self._id, page, "report.html")
        self.table("confusion", *base.confusion(facts))

    def model(self, folder: Path) -> None:
        if self._log_model:
            self._client.log_artifacts(self._id, str(folder), "model")


def mlflow_run(
    settings: config.MLflow, folder: Path, *, resolved: dict[str, Any], multirun: bool
) -> Iterator[base.Run]:
    """Open an MLflow run and end it with the block; a resumed run continues the MLflow run of its folder.

    Args:
        settings: of the MLflow logger.
        folder: the run folder.
        resolved: all settings by dotted name, with secrets redacted.
        multirun: whether the run is a job of a multirun.

    Raises:
        UserError: the tracking URI cannot be used.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # no warning on a machine without git
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    id_file = folder / "mlflow" / "id.txt"
    run_id = id_file.read_text().strip() if id_file.exists() else None
    uri = tracking_uri(settings)
    group, name = base.group_and_name(settings, folder, multirun=multirun)
    named = MLFlowLogger(
        experiment_name=redaction.hide_secrets(settings.experiment),
        run_name=redaction.hide_secrets(name),
        tracking_uri=uri,
        tags={"group": redaction.hide_secrets(group)} if group else None,
        run_id=run_id,
    )
    try:
        client = named.experiment
    except mlflow.exceptions.MlflowException as error:
        where = redaction.hide_secrets(uri)
        raise UserError(f"logger.tracking_uri={where} cannot be used: {redaction.hide_secrets(str(error))}") from error
    if run_id is None:
        # Only for a new run: MLflow does not allow parameters to be changed later.
        named.log_hyperparams(resolved)
    else:
        client.update_run(run_id, status="RUNNING")
    id_file.parent.mkdir(parents=True, exist_ok=True)
    id_file.write_text(str(named.run_id))
    log.info("MLflow keeps this run in %s, experiment %s.", redaction.hide_secrets(uri), settings.experiment)
    status = "FAILED"
    try:
        yield _MLflowRun(named, log_model=settings.log_model)
        status = "FINISHED"
    except SystemExit:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(named.run_id, status)
