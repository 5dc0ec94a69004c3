"""The end of a training run: score the best checkpoint and write metrics, predictions, model folder and report."""

import logging
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.config import schema
from emotion_lightning.data.module import EmotionData
from emotion_lightning.evaluation import scoring, thresholds
from emotion_lightning.evaluation.intensities import Intensities
from emotion_lightning.inference import hub_card
from emotion_lightning.models import adapter, backbone, model_folder, pooling
from emotion_lightning.models.metadata import Base, Metadata
from emotion_lightning.reports import console, run_page
from emotion_lightning.runs import manifest, run_folder, waiting
from emotion_lightning.runs.metrics_file import GroupMetric, RunMetrics, SplitScores, of_protocol
from emotion_lightning.training import checkpoint_io, read_back
from emotion_lightning.training.callbacks import Clock
from emotion_lightning.training.classifier import EmotionClassifier, check_finite
from emotion_lightning.training.loggers.wandb_logger import Run

log = logging.getLogger(__name__)


def finish(
    settings: config.Train,
    folder: Path,
    *,
    trainer: Any,
    classifier: EmotionClassifier,
    emotions: EmotionData,
    clock: Clock,
    run: Run,
    method: str,
    shows: bool,
) -> float:
    """Score the best checkpoint and write all files of a finished run.

    metrics.json is written last, because it marks the run as finished. If `shows`, the scores are printed.

    Returns:
        Macro F1 on validation with the chosen thresholds.

    Raises:
        UserError: logits are not finite, or the saved model folder gives other probabilities.
    """
    checkpoints = folder / run_folder.CHECKPOINTS
    if not (checkpoints / "best.ckpt").exists():
        log.warning("Training ended before its first validation: the last weights are kept.")
        for name in ("last.ckpt", "best.ckpt"):
            trainer.save_checkpoint(checkpoints / name, weights_only=False)
    classifier.load_state_dict(checkpoint_io.load_checkpoint(checkpoints / "best.ckpt")["state_dict"])
    protocol = thresholds.chosen_protocol(settings.thresholds)
    gathered = {"validation": _gather(trainer, classifier, emotions, "validation")}
    if settings.score_test and "test" in emotions.rows:
        gathered["test"] = _gather(trainer, classifier, emotions, "test")
    if not trainer.is_global_zero:
        return float(trainer.callback_metrics.get("val/f1_macro", 0.0))

    for split, (_, logits, _) in gathered.items():
        check_finite(logits, f"the end, on {split}", classifier.cause)
    splits = {
        split: scoring.Scored(emotions.rows[split].take(numbers.numpy()), logits)
        for split, (numbers, logits, _) in gathered.items()
    }
    scores = scoring.score(
        folder,
        splits,
        labels=emotions.labels,
        thresholding=settings.thresholds,
        predict=settings.predict,
        loss=classifier.split_loss,
        extra_metric=settings.extra_metric,
        intensities=_intensities(classifier, emotions),
    )
    network: Any = classifier.network
    content: RunMetrics = {
        **scores.splits,  # type: ignore[typeddict-item]  # the names of the splits
        "cost": clock.cost(adapter.trained_parameters(network)),
    }
    shown = "test" if "test" in content else "validation"
    shown_scores = scores.splits[shown]
    metadata = _metadata(settings, folder, emotions, scores, classifier)
    model_folder.save_model(
        folder / run_folder.MODEL,
        network,
        tokenizer=emotions.tokenizer,
        metadata=metadata,
        readme=hub_card.folder_readme(metadata, method=method, scores=console.scores_markdown(shown, shown_scores)),
    )
    del network
    read_back.release_network(trainer, classifier)
    waiting.show_status("Reading the saved model back")
    validation = splits["validation"]
    read_back.check_read_back(
        folder / run_folder.MODEL,
        validation.rows.inputs,
        validation.logits,
        accelerator=settings.trainer.accelerator,
        spread=settings.trainer.strategy is config.Strategy.fsdp,
    )
    waiting.end_status()
    run.model(folder / run_folder.MODEL)
    run.summary(_summary(content, protocol))
    run.table("labels", *_label_table(shown_scores, protocol))
    waiting.show_status("Drawing the report")
    drawn = run_page.write_run_report(
        folder, settings, emotions.rows, split=shown, scored=splits[shown].rows,
        probabilities=scores.probabilities[shown], threshold=scores.thresholds[protocol],
        protocol=protocol, labels=emotions.labels, metrics=content,
        sends_texts=run.sends_texts, decided=scores.decided[shown],
    )  # fmt: skip
    if drawn is not None:
        run.media(drawn.pictures, drawn.page, drawn.facts)
    manifest.finish_run(folder, content)
    waiting.end_status()
    if shows:
        console.show_scores(shown, shown_scores, protocol=protocol)
    log.info("Run folder: %s", folder)
    if shows:
        app.say_next_steps(folder)
    return of_protocol(content["validation"], protocol)["f1_macro"]


def _gather(
    trainer: Any, classifier: EmotionClassifier, emotions: EmotionData, split: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return row numbers, logits and targets of a split, collected from all processes."""
    loader = emotions.val_dataloader() if split == "validation" else emotions.test_dataloader()
    trainer.test(classifier, dataloaders=loader, verbose=False)
    return classifier.outcomes.gather()


def _metadata(
    settings: config.Train,
    folder: Path,
    emotions: EmotionData,
    scores: scoring.Scores,
    classifier: EmotionClassifier,
) -> Metadata:
    network: Any = classifier.network
    own = backbone.has_own_base(settings.model)
    local = own or Path(settings.model.path).expanduser().is_dir()
    path = str(folder / run_folder.BASE) if own else settings.model.path
    return Metadata.of_training(
        settings,
        labels=emotions.labels,
        thresholds=scores.thresholds,
        scaling=scores.scaling,
        base=Base(
            path=str(Path(path).expanduser().resolve()) if local else path,
            local=local,
            adapter=not isinstance(settings.peft, config.Full),
            pretrained=settings.model.pretrained,
            tiny=own and settings.model.pretrained,
            architecture=network.config.model_type,
            revision=settings.model.revision,
            quantization=settings.model.quantization,
            dtype=settings.model.dtype,
            head=backbone.head_modules(settings.model),
            kept=backbone.kept_modules(settings.model),
            attention=settings.model.attention,
            attn_implementation=settings.model.attn_implementation,
            pooling=settings.model.pooling,
            stock=pooling.is_stock(network, settings.model.attention, settings.model.pooling),
        ),
        loss={
            "option": schema.schema_of(settings.loss),
            **schema.plain(settings.loss),
            "label_counts": emotions.label_counts.tolist(),
            "rows": emotions.known_rows if isinstance(emotions.known_rows, int) else emotions.known_rows.tolist(),
        },
        data_hashes=emotions.hashes,
        template=emotions.template,
        long_texts=emotions.long_texts,
        context=emotions.context,
        intensities=scores.intensities,
        cuts_of_logits=_intensities(classifier, emotions),
        group_thresholds=scores.by_group,
        text_column=emotions.text_column,
    )


def _intensities(classifier: EmotionClassifier, emotions: EmotionData) -> Intensities | None:
    """How intensities are read from uncalibrated probabilities; None if none were learned."""
    train = emotions.rows["train"]
    if train.scale is None or not train.learns_shares:
        return None
    return classifier.intensities or Intensities(train.scale)


def _summary(content: RunMetrics, protocol: str) -> dict[str, Any]:
    """Flatten the final metrics: test/f1_macro uses the chosen protocol, test/fixed/f1_macro the protocol `fixed`."""
    flat: dict[str, Any] = {f"cost/{name}": value for name, value in content["cost"].items()}
    splits: dict[str, Any] = {name: content[name] for name in ("validation", "test") if name in content}
    for split, scores in splits.items():
        for name, value in scores.items():
            if not isinstance(value, dict):
                flat[f"{split}/{name}"] = value
                continue
            if name in ("groups", "thresholds_by"):
                flat |= _of_groups(split, scores) if name == "groups" else {}
                continue
            for metric, number in value.items():
                if not isinstance(number, dict):
                    flat[f"{split}/{name}/{metric}"] = number
                    if name == protocol:
                        flat[f"{split}/{metric}"] = number
            if name == protocol:
                flat |= {f"{split}/f1/{label}": found["f1"] for label, found in value["labels"].items()}
    return flat


def _of_groups(split: str, scores: SplitScores) -> dict[str, float]:
    """The scores of groups by name, as test/language/deu/f1_macro."""
    flat: dict[str, float] = {}
    for column, by_column in scores["groups"]["columns"].items():
        for value, found in by_column["values"].items():
            place = f"{split}/{column}/{value}"
            flat |= {f"{place}/{metric}": found[metric]["value"] for metric in ("f1_macro", "f1_micro", "jaccard")}
            for kind in ("soft", "intensity"):
                of_kind: dict[str, GroupMetric] = cast("dict[str, GroupMetric]", found.get(kind, {}))
                flat |= {f"{place}/{kind}/{metric}": own["value"] for metric, own in of_kind.items()}
    return flat


def _label_table(scores: SplitScores, protocol: str) -> tuple[list[str], list[list[Any]]]:
    names: tuple[Literal["support", "precision", "recall", "f1", "threshold"], ...]
    names = ("support", "precision", "recall", "f1", "threshold")
    by_label = of_protocol(scores, protocol)["labels"]
    rows = [[label, *[values[name] for name in names]] for label, values in by_label.items()]
    return ["emotion", *names], rows
