"""Score a finished run on labelled data.

python -m emotion_lightning.evaluate run=outputs/train/DATE/TIME
python -m emotion_lightning.evaluate run=outputs/train/DATE/TIME data=file data.path=other.csv
python -m emotion_lightning.evaluate run=outputs/multirun/DATE/TIME
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_lightning import config
from emotion_lightning.cli import app, override_grammar
from emotion_lightning.cli.compose import Job, current_job
from emotion_lightning.config import own_parts, schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder, waiting
from emotion_lightning.runs.metrics_file import RunMetrics

if TYPE_CHECKING:
    from torch.nn import Module

    from emotion_lightning.models.metadata import Metadata

log = logging.getLogger(__name__)


def evaluate(settings: config.Evaluate, folder: Path, job: Job | None = None) -> None:
    """Score a run, or an ensemble of runs, with its own thresholds; write metrics, predictions and report.

    Args:
        settings: settings of the command.
        folder: folder for the results.
        job: None: the job that Hydra runs.

    Raises:
        UserError: the run or the data cannot be scored.
    """
    from emotion_lightning.data import conversations
    from emotion_lightning.evaluation import extra_metrics, metrics, prediction_files, row_outcomes
    from emotion_lightning.inference import ensemble, predictor, run_data
    from emotion_lightning.models.metadata import find_model_folder
    from emotion_lightning.reports import console, run_facts, run_page
    from emotion_lightning.runs import manifest, quiet

    job = job or current_job()
    runs = ensemble.find_members(settings.run)
    metadata = ensemble.combined_metadata(runs)
    first = find_model_folder(runs[0])
    given = settings.data
    data = given if isinstance(given, config.Batches) else run_data.data_settings(metadata, first.parent)
    own = data is not given
    if data.clean and set(data.clean) != set(metadata.cleaning()):
        raise UserError(
            f"data.clean={[step.value for step in data.clean]} is not what the run was trained with, {metadata.clean}; "
            "texts are cleaned as in training, so leave it out."
        )
    if metadata.context is not None:
        data = conversations.with_context(data, metadata.context)
    split = settings.split.value
    if own and len(runs) > 1 and split != "test" and data.folds is not None:
        raise UserError(
            f"split={split}: of these folds each was trained on rows that another validated on; the average can be "
            "scored on test, or on other data."
        )
    waiting.show_status("Reading the data")
    corpus, chosen = run_data.read_split(data, split, own=own, labels=metadata.labels)
    rows = corpus.splits[chosen]
    if rows.targets is None:
        raise UserError(f"The {split} split has no labels to score; use predict for it.")
    shared = shared_labels(metadata.labels, corpus.labels)

    import torch

    quiet.hide_progress_bars()
    model = predictor.open_runs(runs, metadata, accelerator=settings.accelerator)
    waiting.show_status(f"Labelling {len(rows):,} texts")
    logits, probabilities = model.outputs(rows.inputs, batch_size=data.batch_size, batch_tokens=data.batch_tokens)
    prediction_files.write_predictions(
        folder / run_folder.PREDICTIONS / f"{split}.csv",
        rows,
        probabilities,
        metadata.threshold_tensor(),
        labels=metadata.labels,
        settings=settings.predict,
    )
    decides = metadata.threshold_tensor()
    ours = [metadata.labels.index(name) for name in shared]
    theirs = [corpus.labels.index(name) for name in shared]
    targets = torch.from_numpy(rows.targets[:, theirs])
    by_protocol = {name: metadata.threshold_tensor(name)[ours] for name in metadata.thresholds}
    scores = metrics.score(
        probabilities[:, ours], targets, by_protocol, shared, calibrated=metadata.scaling() is not None
    )
    row_outcomes.write_outcomes(
        folder, split, row_outcomes.RowOutcomes(rows.ids, shared, probabilities[:, ours], targets)
    )
    if extra := extra_metrics.extra_scores(
        settings.extra_metric, probabilities[:, ours], targets, decides[ours], shared
    ):
        scores["extra"] = extra
    if (loss := run_loss(metadata, ours)) is not None:
        scores["loss"] = float(loss(logits[:, ours], targets))
    waiting.show_status("Drawing the report")
    content: RunMetrics = {split: scores, "run": str(settings.run)}  # type: ignore[misc]  # the name of the split
    scored = run_facts.RunFacts(
        settings=None, metrics=content, history=[], labels=shared, split=split,
        rows=replace(rows, targets=rows.targets[:, theirs]), probabilities=probabilities[:, ours].double().numpy(),
        thresholds=decides[ours].numpy(), protocol=metadata.protocol, train_rows=0,
    )  # fmt: skip
    option = schema.schema_of(data) if own else job.options["data"]
    run_page.write_evaluation_report(
        folder, scored, title=f"{_run_name(runs)}, scored on {option} ({split})",
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {', '.join(runs)}",
        line=override_grammar.shell_line("evaluate", job.arguments[1:]),
    )  # fmt: skip
    manifest.finish_run(folder, content)
    if job.own_process:
        console.show_scores(split, scores, protocol=metadata.protocol)
    log.info("Results: %s", folder)
    if job.own_process:
        app.say_report(folder)


def _run_name(runs: list[str]) -> str:
    if len(runs) > 1:
        return f"the mean of {len(runs)} runs"
    folder = run_folder.of_model(Path(runs[0]).resolve())
    return f"{folder.parent.name}/{folder.name}"


def run_loss(metadata: "Metadata", positions: list[int]) -> "Module | None":
    """The loss that a run was trained with; None, and a warning, if it is the user's own and is not at hand.

    Args:
        metadata: metadata of the run.
        positions: indices of the labels that the loss is built for.
    """
    import numpy as np

    from emotion_lightning.models import losses

    values = dict(metadata.loss)
    counts, rows = np.asarray(values.pop("label_counts")), values.pop("rows")
    node = config.SCHEMAS.get(f"loss/{values['option']}")
    if node is None:
        log.warning(
            "%s Its loss is not computed.",
            own_parts.lacking({f"loss={values['option']}": values.get("part")}, "The run"),
        )
        return None
    del values["option"]
    settings = schema.from_plain(node, values)
    names = [metadata.labels[position] for position in positions]
    return losses.build_loss(settings, label_counts=counts[positions], rows=rows, labels=names)


def shared_labels(model: list[str], data: list[str]) -> list[str]:
    """Labels that model and data have in common, in the model's order; log a warning for all others.

    Raises:
        UserError: they have no label in common.
    """
    shared = [name for name in model if name in data]
    if not shared:
        raise UserError(f"The data has none of the run's labels: {', '.join(data)} against {', '.join(model)}.")
    if missing := [name for name in model if name not in data]:
        log.warning("The data has no labels for %s: these are not scored.", ", ".join(missing))
    if unknown := [name for name in data if name not in model]:
        log.warning("The run does not know the labels %s: these are not scored.", ", ".join(unknown))
    return shared


def main() -> None:
    """Read the command line and evaluate a run."""
    app.run_command("evaluate", evaluate)


if __name__ == "__main__":
    main()
