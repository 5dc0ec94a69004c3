"""Log runs to Weights & Biases."""

import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import redaction
from emotion_lightning.errors import Stopped, UserError
from emotion_lightning.reports.run_facts import RunFacts
from emotion_lightning.runs import slurm
from emotion_lightning.training.loggers import base
from emotion_lightning.training.loggers.base import Run

log = logging.getLogger(__name__)


class _WandbRun(Run):
    def __init__(self, lightning_logger: Any, settings: config.WandB) -> None:
        super().__init__(lightning_logger)
        self.settings = settings

    def summary(self, values: dict[str, Any]) -> None:
        self.lightning_logger.experiment.summary.update(values)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        import wandb

        self.lightning_logger.experiment.log({name: wandb.Table(columns=columns, data=rows)})

    def media(self, pictures: dict[str, Path], page: str, facts: RunFacts) -> None:
        import wandb

        images = {f"pictures/{name}": wandb.Image(str(file)) for name, file in pictures.items()}
        # inject=False: do not load W&B's style sheet from the network.
        html = wandb.Html(page, inject=False, data_is_not_path=True)
        curves = {facts.labels[i]: curve for i in facts.by_support() if (curve := facts.curve(i)) is not None}
        drawn = wandb.plot.line_series(
            xs=[base.thinned(curve.recall) for curve in curves.values()],
            ys=[base.thinned(curve.precision) for curve in curves.values()],
            keys=list(curves),
            title=f"Precision and recall ({facts.split})",
            xname="recall",
        )
        self.lightning_logger.experiment.log({"report": html, "precision_recall": drawn, **images})
        self.table("confusion", *base.confusion(facts))
        if self.sends_texts:
            self.table("mistakes", *base.mistakes(facts))

    @property
    def sends_texts(self) -> bool:
        return self.settings.log_texts

    def model(self, folder: Path) -> None:
        import wandb

        if not self.settings.log_model:
            return
        experiment = self.lightning_logger.experiment
        artifact = wandb.Artifact(f"model-{experiment.id}", type="model")
        artifact.add_dir(str(folder))
        experiment.log_artifact(artifact)


def wandb_run(settings: config.WandB, folder: Path, *, resolved: dict[str, Any], multirun: bool) -> Iterator[Run]:
    """Open a W&B run and close it with the block; a resumed run continues the W&B run of its folder."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    offline = is_offline(settings)
    id_file = folder / "wandb" / "id.txt"
    run_id = settings.id or (id_file.read_text().strip() if id_file.exists() else None)
    # Any of these texts may contain a secret from an environment variable: ${oc.env:…} is already resolved.
    said = redaction.settings(dataclasses.asdict(settings))
    group, name = base.group_and_name(settings, folder, multirun=multirun)
    # Call wandb.init here: WandbLogger(offline=True) sets an environment variable that the next job would inherit.
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    with _redacted_command():
        experiment = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=group and redaction.hide_secrets(group),
            job_type=said["job_type"],
            name=redaction.hide_secrets(name),
            tags=said["tags"] or None,
            notes=said["notes"],
            dir=folder,
            id=run_id,
            resume="allow" if run_id else None,
            mode="offline" if offline else "online",
            # A sweep locks the keys that it varies. A config group that is swept (`model`) would collide with the
            # nested dict of the same name; dotted names never collide.
            config=base.dotted(resolved),
            settings=wandb.Settings(silent=True, console="off"),
        )
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    code = 1
    try:
        id_file.write_text(str(experiment.id))
        if offline:
            log.info("W&B keeps this run offline; send it later with: wandb sync %s", Path(experiment.dir).parent)
        else:
            log.info("W&B: %s", experiment.url)
        yield _WandbRun(WandbLogger(experiment=experiment, save_dir=folder), settings)
        code = 0
    except Stopped:
        # A run that a W&B sweep stopped early has not failed: the search uses its scores.
        code = 0 if slurm.in_wandb_sweep() else 1
        raise
    finally:
        # If the run stayed open, the next job of a multirun would write into it.
        wandb.finish(exit_code=code)


@contextmanager
def _redacted_command() -> Iterator[None]:
    """Redact secrets in sys.argv, because W&B stores the command line."""
    typed = sys.argv
    sys.argv = [typed[0], *map(redaction.argument, typed[1:])]
    try:
        yield
    finally:
        sys.argv = typed


def is_offline(settings: config.WandB) -> bool:
    """Return whether W&B keeps the run on this machine only.

    Raises:
        UserError: the setting is mode=online, but there is no API key.
    """
    import wandb

    if os.environ.get("WANDB_MODE", "") in ("offline", "dryrun", "disabled"):
        return True
    if settings.mode is config.LoggerMode.offline:
        return True
    has_key = bool(os.environ.get("WANDB_API_KEY")) or wandb.login(prompt=False, verify=False)
    if settings.mode is config.LoggerMode.online and not has_key:
        raise UserError(
            "logger.mode=online needs a W&B key: run `wandb login` or set WANDB_API_KEY, or keep the run here with "
            "logger.mode=offline."
        )
    return not has_key
