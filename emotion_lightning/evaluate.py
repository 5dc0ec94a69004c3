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

    from emotion_lightning.inference.predictor import Labeller
    from emotion_lightning.models.metadata import Metadata
    from emotion_lightning.reports.run_facts import RunFacts

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
    from emotion_lightning.data.label_map import LabelMap
    from emotion_lightning.evaluation import (
        extra_metrics,
        group_scores,
        group_thresholds,
        mapped_labels,
        metrics,
        prediction_files,
        row_outcomes,
    )
    from emotion_lightning.evaluation.gold import Gold
    from emotion_lightning.inference import ensemble, predictor, run_data
    from emotion_lightning.models.metadata import find_model_folder
    from emotion_lightning.reports import console, run_facts, run_page
    from emotion_lightning.runs import manifest, quiet

    job = job or current_job()
    runs = ensemble.find_members(settings.run)
    metadata = ensemble.combined_metadata(runs)
    first = find_model_folder(runs[0])
    reading = metadata.read_intensities()
    prediction_files.check_intensities(settings.predict, reading, f"run={settings.run}")
    given = settings.data
    own = not isinstance(given, config.Batches)
    # The mapping of this command is for the labels of the run too, and is applied to both below.
    label_map = LabelMap.of(given)
    data = (
        replace(given, rename={}, merge={}, drop_labels=[])
        if isinstance(given, config.Batches)
        else run_data.data_settings(metadata, first.parent)
    )
    if isinstance(given, config.SameData) and given.groups is not None:
        if not isinstance(data, config.Table | config.Multilingual):
            raise UserError(f"data.groups=[{','.join(given.groups)}]: the data of the run has no columns for groups.")
        data = replace(data, groups=given.groups)
    by_group = metadata.group_thresholds()
    if own and by_group is not None and isinstance(data, config.Table | config.Multilingual):
        # Thresholds go by this column, whatever else scores are told for.
        columns = data.groups or []
        data = replace(data, groups=[*columns, *([] if by_group.column in columns else [by_group.column])])
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
    names = {*metadata.labels, *label_map.named}
    corpus, chosen = run_data.read_split(data, split, own=own, labels=names, usual_text=metadata.usual_text)
    rows = corpus.splits[chosen]
    if rows.targets is None:
        raise UserError(f"The {split} split has no labels to score; use predict for it.")
    if not own:
        for run in runs:
            run_data.tell_learned(find_model_folder(run).parent, rows)
    of_run = label_map.applied(metadata.labels, what="the run", also=("the data", corpus.labels))
    of_data = label_map.applied(corpus.labels, what="the data", also=("the run", metadata.labels))
    if settings.explain and of_run.changes:
        raise UserError("explain=true explains labels as the run predicts them; leave out the mapping of its labels.")
    if not own and not label_map:
        warn_of_own_mapping(metadata, corpus.labels)
    shared = shared_labels(of_run.names, of_data.names)
    mapping = mapped_labels.plain(of_run, of_data, label_map)

    quiet.hide_progress_bars()
    model = predictor.open_runs(runs, metadata, accelerator=settings.accelerator)
    if settings.explain:
        model.check_explainable()
    waiting.show_status(f"Labelling {len(rows):,} texts")
    logits, raw = model.outputs(rows.inputs, batch_size=data.batch_size, batch_tokens=data.batch_tokens)
    values = None if by_group is None else group_thresholds.groups_of(rows, by_group.column)
    if by_group is not None:
        mend = f" With data.groups=[{by_group.column}] the data brings it."
        if told := group_thresholds.unseen(by_group, values, mend=mend):
            log.warning("%s", told)
    answers = mapped_labels.Answers(
        raw, {name: metadata.threshold_tensor(name) for name in metadata.thresholds}, by_group, values
    )
    prediction_files.write_decisions(
        folder / run_folder.PREDICTIONS / f"{split}.csv",
        rows,
        answers.probabilities(of_run.members),
        answers.decisions(of_run.members)[metadata.protocol],
        labels=of_run.names,
        settings=settings.predict,
        intensities=None
        if reading is None
        else mapped_labels.Answers(reading.expected(raw)).probabilities(of_run.members),
    )
    ours = [of_run.members[of_run.names.index(name)] for name in shared]
    theirs = [of_data.names.index(name) for name in shared]
    scored_rows = of_data.rows(rows)
    gold = Gold.of(scored_rows)[:, theirs]
    targets = gold.labels
    probabilities, decisions, by_protocol = (
        answers.probabilities(ours),
        answers.decisions(ours),
        answers.thresholds(ours),
    )
    decides = by_protocol[metadata.protocol]
    beside = None if reading is None else reading.shares_beside(raw)
    expected = None if beside is None else mapped_labels.Answers(beside).probabilities(ours)
    scores = metrics.score(
        probabilities, targets, by_protocol, shared, calibrated=metadata.scaling() is not None, decisions=decisions,
        gold=gold, expected=expected,
    )  # fmt: skip
    row_outcomes.write_outcomes(
        folder,
        split,
        row_outcomes.RowOutcomes.of(rows.ids, shared, probabilities, gold, expected=expected, groups=values),
    )
    if by_group is not None and values is not None:
        scores["thresholds_by"] = by_group.of_labels(ours).plain(shared)  # type: ignore[typeddict-item]
    if extra := extra_metrics.extra_scores(
        settings.extra_metric, probabilities, targets, decides, shared, decisions=decisions[metadata.protocol]
    ):
        scores["extra"] = extra
    if groups := group_scores.score_groups(
        rows,
        decisions[metadata.protocol],
        gold,
        shared,
        protocol=metadata.protocol,
        answered=probabilities if expected is None else expected,
    ):
        scores["groups"] = groups
    # What a loss of united labels would be, no loss defines.
    if not of_run.changes:
        positions = [own_members[0] for own_members in ours]
        loss = run_loss(metadata, positions, masked=gold.known is not None)
        levels = metadata.loss["option"] == "ordinal"
        # Labels of 0 and 1, and intensities of another scale, are not the levels of loss=ordinal.
        if loss is not None and not (levels and (gold.shares is None or gold.scale != metadata.intensities["scale"])):
            # Shares are defined for cross-entropy and for a loss of the user's own, which may be made for them.
            soft = levels or metadata.loss["option"] in ("bce", "weighted_bce") or "part" in metadata.loss
            learned = gold.learned if soft else replace(gold, shares=None).learned
            scores["loss"] = float(loss(logits[:, positions], learned).detach())
    content: RunMetrics = {split: scores, "run": str(settings.run)}  # type: ignore[misc]  # the name of the split
    if mapping:
        content["mapping"] = mapping
    scored = run_facts.RunFacts(
        settings=None, metrics=content, history=[], labels=shared, split=split,
        rows=replace(
            rows, targets=targets.numpy(), strata=None,
            shares=None if gold.shares is None else gold.shares.numpy(),
            open=None if gold.known is None else ~gold.known.numpy(),
        ), probabilities=probabilities.double().numpy(),
        thresholds=decides.numpy(), protocol=metadata.protocol, train_rows=0,
        decided=decisions[metadata.protocol].numpy(),
    )  # fmt: skip
    notes = mapped_labels.sentences(mapping)
    if settings.explain:
        waiting.show_status("Explaining the answers")
        _explain(model, scored, settings.explain_rows)
    waiting.show_status("Drawing the report")
    option = schema.schema_of(data) if own else job.options["data"]
    run_page.write_evaluation_report(
        folder, scored, title=f"{_run_name(runs)}, scored on {option} ({split})",
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {', '.join(runs)}",
        line=override_grammar.shell_line("evaluate", job.arguments[1:]), note="".join(f" {note}" for note in notes),
    )  # fmt: skip
    manifest.finish_run(folder, content)
    if job.own_process:
        console.show_scores(split, scores, protocol=metadata.protocol)
    for note in notes:
        log.info("%s", note)
    log.info("Results: %s", folder)
    if job.own_process:
        app.say_report(folder)


def _explain(model: "Labeller", facts: "RunFacts", count: int) -> None:
    """Explain the most wrong texts, each for its most wrong label, and the predicted labels of `count` random rows."""
    import numpy as np

    for row in facts.wrong_rows():
        (facts.wrong[row],) = model.explain(facts.rows.texts[row], [facts.most_wrong_label(row)])
    decisions, chosen = facts.decisions, np.random.default_rng(1).permutation(len(facts.rows))[:count].tolist()
    for row in chosen:
        if labels := [facts.labels[label] for label in np.flatnonzero(decisions[row])]:
            facts.explained += model.explain(facts.rows.texts[row], labels)


def _run_name(runs: list[str]) -> str:
    if len(runs) > 1:
        return f"the mean of {len(runs)} runs"
    folder = run_folder.of_model(Path(runs[0]).resolve())
    return f"{folder.parent.name}/{folder.name}"


def run_loss(metadata: "Metadata", positions: list[int], *, masked: bool = False) -> "Module | None":
    """The loss that a run was trained with; None, and a warning, if it is the user's own and is not at hand.

    Args:
        metadata: metadata of the run.
        positions: indices of the labels that the loss is built for.
        masked: whether targets may be NaN, for labels that are left open.
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
    if masked and "part" in values:
        log.warning("Labels are left open, which a loss of your own cannot tell: it is not computed.")
        return None
    del values["option"]
    rows = np.asarray(rows)[positions] if isinstance(rows, list) else rows
    settings = schema.from_plain(node, values)
    names = [metadata.labels[position] for position in positions]
    intensities = metadata.read_intensities(of_logits=True)
    return losses.build_loss(
        settings,
        label_counts=counts[positions],
        rows=rows,
        labels=names,
        masked=masked,
        intensities=None if intensities is None else intensities.of_labels(positions),
    )


def warn_of_own_mapping(metadata: "Metadata", data: list[str]) -> None:
    """Log a warning if data has labels that the run learned under other names, or united."""
    from emotion_lightning.data.label_map import LabelMap
    from emotion_lightning.data.labels import merging

    learned = LabelMap.stored(metadata.data)
    lists = {new: [old] for old, new in learned.rename.items()} | learned.merge
    known = {name for members in lists.values() for name in members if name in data and name not in metadata.labels}
    if known:
        log.warning(
            "The data has the labels %s, which the run learned under other names; as they stand, its labels are scored "
            "without them. What it was trained with: %s.", ", ".join(sorted(known)), merging(lists),
        )  # fmt: skip


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
