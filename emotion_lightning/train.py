"""Fine-tune an emotion classifier, choose its best epoch and thresholds on validation, report on test.

python -m emotion_lightning.train model=gemma peft=ia3
python -m emotion_lightning.train data=file data.path=my.csv
python -m emotion_lightning.train -m optimizer.lr=1e-3,3e-3 seed=1,2,3
python -m emotion_lightning.train resume=auto
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.config import hub_name
from emotion_lightning.errors import UserError
from emotion_lightning.runs import extras, run_folder, slurm, waiting

if TYPE_CHECKING:
    import torch

    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.data.rows import Corpus
    from emotion_lightning.training.classifier import EmotionClassifier

log = logging.getLogger(__name__)


def train(settings: config.Train, folder: Path) -> float | None:
    """Fit, choose, report and export; return the macro F1 on validation, which a sweep maximises."""
    # submitit starts its requeued job with the same settings in the same folder.
    goes_on = bool(settings.resume) or slurm.in_submitit()
    if goes_on and (folder / run_folder.METRICS).exists():
        log.info("The run in %s is finished; there is nothing to resume.", folder)
        return None
    _refuse(settings, folder, goes_on=goes_on)

    # Imported late: a wrong setting is reported before torch has loaded.
    from lightning import Trainer, seed_everything

    from emotion_lightning.data import sources
    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.inference import upload
    from emotion_lightning.models import adapter, backbone
    from emotion_lightning.runs import environment, quiet
    from emotion_lightning.training import callbacks, checkpoint_io, distillation, finalize
    from emotion_lightning.training.loggers import wandb_logger

    quiet.libraries()
    backbone.check_access(settings.model)
    if settings.init_from is not None and not goes_on:
        # The commit is written down: a repetition of the run starts from the same weights.
        import dataclasses  # late: where this runs as a file, it is not found before the package is

        settings = dataclasses.replace(settings, init_from=upload.pinned(settings.init_from, setting="init_from"))
    wandb_logger.check(settings.logger)
    assert isinstance(settings.data, config.Batches)  # schema.load refuses the one that is not
    waiting.says("Reading the data")
    corpus = sources.split(sources.read(settings.data), settings.data)
    seed_everything(settings.seed, workers=True, verbose=False)
    device = backbone.device_for(settings.trainer.accelerator)
    if device.type == "cpu":
        environment.keep_memory()
    adapter.check(settings.peft, settings.model, device)
    waiting.says("Loading the tokenizer and counting tokens")
    tokenizer = backbone.load_tokenizer(settings.model)
    emotions = EmotionData(settings.data, corpus, tokenizer=tokenizer, seed=settings.seed)
    if settings.distill.runs is not None or settings.distill.answers is not None:
        emotions.learn(
            distillation.targets(
                corpus.splits["train"], corpus.labels, settings.distill,
                accelerator=settings.trainer.accelerator,
            )
        )  # fmt: skip
    last = folder / run_folder.CHECKPOINTS / "last.ckpt"
    goes_on = goes_on and last.exists()
    run_folder.sweep(folder / run_folder.CHECKPOINTS)
    method = app.options()["peft"]
    waiting.says("Loading the network")
    classifier = build_classifier(
        settings, emotions, device=device, base_folder=folder / run_folder.BASE, method=method, starts=not goes_on
    )
    resolved = _write_down(settings, folder, corpus)
    clock = callbacks.Clock()
    waiting.end()
    with wandb_logger.run(settings.logger, folder, resolved=resolved, multirun=app.in_multirun()) as run:
        trainer = Trainer(
            **_trainer_arguments(settings.trainer),
            plugins=[
                backbone.precision(backbone.compute_dtype(settings.model.dtype, device), device),
                checkpoint_io.AtomicCheckpointIO(),
                *slurm.lightning_plugins(),
            ],
            logger=run.lightning_logger,
            callbacks=callbacks.build(
                settings.callbacks,
                settings.trainer,
                folder,
                clock=clock,
                logs=bool(run.lightning_logger),
                row_ids=emotions.rows["train"].ids,
            ),
            default_root_dir=folder,
            enable_progress_bar=callbacks.shows_bar(settings.trainer),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            # Each look at the loss waits for the device; a short epoch still has a few points.
            log_every_n_steps=max(1, min(10, emotions.batches_in_epoch // 5)),
        )
        with backbone.enough_memory(
            lambda: classifier.batch_shape, training=True, batch_tokens=settings.data.batch_tokens
        ):
            trainer.fit(classifier, emotions, ckpt_path=last if goes_on else None)
        return finalize.finish(
            settings, folder, trainer=trainer, classifier=classifier, emotions=emotions, clock=clock, run=run,
            method=method,
        )  # fmt: skip


def _refuse(settings: config.Train, folder: Path, *, goes_on: bool) -> None:
    """Raise UserError for what can be told before torch has loaded."""
    if not goes_on:
        run_folder.refuse_used(folder)
    if hub_name.is_hub(settings.init_from):
        hub_name.parse(str(settings.init_from), setting="init_from")
    elif settings.init_from is not None and not Path(settings.init_from).expanduser().is_dir():
        raise UserError(f"init_from={settings.init_from} is not a folder; give that of a finished run.")
    processes = settings.trainer.devices * settings.trainer.num_nodes
    if app.in_multirun() and processes != slurm.processes():
        asked = f"trainer.devices={settings.trainer.devices} and trainer.num_nodes={settings.trainer.num_nodes}"
        if not slurm.in_submitit():
            raise UserError(
                f"{asked} start processes that would each begin the whole multirun again. Run the jobs one by one, or "
                "let a launcher start them: hydra/launcher=local or slurm with "
                f"hydra.launcher.tasks_per_node={settings.trainer.devices}; if it is not installed, "
                + extras.install("slurm")
            )
        raise UserError(
            f"{asked} need {processes} processes, but the launcher started {slurm.processes()}; set "
            f"hydra.launcher.tasks_per_node={settings.trainer.devices} and "
            f"hydra.launcher.nodes={settings.trainer.num_nodes}."
        )


def build_classifier(
    settings: config.Train,
    emotions: "EmotionData",
    *,
    device: "torch.device",
    base_folder: Path,
    method: str,
    starts: bool = True,
) -> "EmotionClassifier":
    """The network with its trained parts, its loss and its optimizer.

    Args:
        settings: of the run.
        emotions: its texts and labels.
        device: where the network goes.
        base_folder: where weights that no hub and no folder holds are saved.
        method: name of the PEFT option, to be told.
        starts: no checkpoint will be loaded.
    """
    from emotion_lightning.models import adapter, backbone, dropout, head_start, losses
    from emotion_lightning.training import finalize, warm_start
    from emotion_lightning.training.classifier import EmotionClassifier

    network = backbone.build(
        settings.model,
        emotions.labels,
        tokenizer=emotions.tokenizer,
        full=isinstance(settings.peft, config.Full),
        device=device,
        seed=settings.seed,
        base_folder=base_folder,
        max_tokens=emotions.settings.max_tokens,
    )
    head = backbone.head_modules(settings.model)
    network = adapter.attach(
        network,
        settings.peft,
        roles=settings.model.roles,
        head=head,
        seed=settings.seed,
        unused=backbone.unused_module(settings.model),
    )
    # Before an earlier run's values are taken over: a run that goes on does not take them again.
    start = head_start.measure(
        network,
        emotions.first_batch(min(8, emotions.settings.batch_size)),
        head=head,
        way=settings.model.pooling,
        dtype=backbone.compute_dtype(settings.model.dtype, device),
    )
    head_factor = head_start.apply(start, fresh=network.fresh_head)
    if settings.init_from is not None and starts:
        warm_start.apply(
            network, settings.init_from, settings=settings, labels=emotions.labels, base_folder=base_folder
        )
    if settings.trainer.compile:
        backbone.compile_(network)
    elif device.type == "cpu":
        plain = backbone.plain_attention_may_serve(settings.model.attn_implementation, emotions.settings.max_tokens)
        dropout.quicken(network, kernels=["eager", "sdpa"] if plain else ["eager"])
    log.info(
        "%s of %s parameters are trained (%s), on %s rows, %s.",
        f"{adapter.trained_parameters(network):,}",
        f"{network.num_parameters():,}",
        method,
        f"{emotions.train_rows:,}",
        device,
    )
    return EmotionClassifier(
        network,
        labels=emotions.labels,
        loss=losses.build(settings.loss, label_counts=emotions.label_counts, rows=emotions.train_rows),
        thresholds=settings.thresholds,
        optimizer=settings.optimizer,
        method=settings.peft,
        head=head,
        pooling=settings.model.pooling,
        identity=finalize.identity(settings, emotions),
        head_factor=head_factor,
    )


def _write_down(settings: config.Train, folder: Path, corpus: "Corpus") -> dict[str, Any]:
    """Write what is needed to go on and to repeat the run; every setting, as it was written."""
    from lightning.pytorch.utilities import rank_zero_only

    from emotion_lightning.data import splitting
    from emotion_lightning.runs import environment

    resolved = run_folder.write_settings(folder, settings, app.options())
    if getattr(rank_zero_only, "rank", 0) == 0:
        environment.record(folder, arguments=sys.argv, data_hashes=corpus.hashes)
    if not app.in_multirun():
        slurm.remember(folder, sys.argv[1:])
    if corpus.cut:
        splitting.write(folder / run_folder.SPLITS, corpus)
    return resolved


def _trainer_arguments(settings: config.Trainer) -> dict[str, Any]:
    """Lightning's own names, but for those that our callbacks read."""
    return {
        "accelerator": settings.accelerator.value,
        "devices": settings.devices,
        "num_nodes": settings.num_nodes,
        "strategy": settings.strategy.value,
        "max_epochs": settings.max_epochs,
        "max_steps": -1 if settings.max_steps is None else settings.max_steps,
        "accumulate_grad_batches": settings.accumulate_grad_batches,
        "gradient_clip_val": settings.gradient_clip_val,
        "limit_train_batches": settings.limit_train_batches,
        "limit_val_batches": settings.limit_eval_batches,
        "limit_test_batches": settings.limit_eval_batches,
    }


def main() -> None:
    """Read the command line and train."""
    app.run("train", train)


if __name__ == "__main__":
    main()
