"""Fine-tune an emotion classifier, select its best epoch and thresholds on validation, and score it on test.

python -m emotion_lightning.train model=gemma peft=ia3
python -m emotion_lightning.train data=file data.path=my.csv
python -m emotion_lightning.train -m optimizer.lr=1e-3,3e-3 seed=1,2,3
python -m emotion_lightning.train resume=auto
"""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.cli.compose import Job, current_job
from emotion_lightning.config import hub_name
from emotion_lightning.errors import UserError
from emotion_lightning.runs import extras, ray_cluster, run_folder, slurm, waiting
from emotion_lightning.runs.files import remove_partial
from emotion_lightning.training.setup import build_classifier, trainer_arguments

if TYPE_CHECKING:
    from emotion_lightning.data.rows import Corpus

log = logging.getLogger(__name__)


def train(settings: config.Train, folder: Path, job: Job | None = None) -> float | None:
    """Train a classifier, select the best epoch, score it, and write its model folder.

    Args:
        settings: settings of the command.
        folder: the run folder.
        job: None: the job that Hydra runs.

    Returns:
        Macro F1 on validation, which a sweep maximises; None if the run is already finished.

    Raises:
        UserError: a setting, a file or an access right is wrong.
    """
    job = job or current_job()
    # submitit restarts a requeued job with the same settings in the same folder.
    goes_on = bool(settings.resume) or (job.own_process and slurm.in_submitit())
    if goes_on and (folder / run_folder.METRICS).exists():
        log.info("The run in %s is finished; there is nothing to resume.", folder)
        return None
    _refuse(settings, folder, job, goes_on=goes_on)

    # Imported late, so that a wrong setting is reported before torch is loaded.
    from lightning import Trainer, seed_everything

    from emotion_lightning.data import max_tokens, sources
    from emotion_lightning.data.long_texts import token_limit
    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.models import adapter, auto, backbone
    from emotion_lightning.models.device import compute_dtype, device_for, enough_memory, precision
    from emotion_lightning.models.hub import pinned_run
    from emotion_lightning.runs import environment, quiet
    from emotion_lightning.training import callbacks, checkpoint_io, distillation, finalize, loggers

    quiet.hide_progress_bars()
    if job.own_process:
        environment.skip_libraries_in_collections()
    backbone.check_access(settings.model)
    settings = auto.resolve(settings)
    if settings.init_from is not None and not goes_on:
        # Store the commit, so that a repetition of the run starts from the same weights.
        settings = dataclasses.replace(settings, init_from=pinned_run(settings.init_from, setting="init_from"))
    loggers.check_logger(settings.logger)
    waiting.show_status("Reading the data")
    corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data)
    settings = dataclasses.replace(settings, data=sources.settled(settings.data, corpus))
    seed_everything(settings.seed, workers=True, verbose=False)
    device = device_for(settings.trainer.accelerator)
    if device.type == "cpu" and job.own_process:
        environment.keep_memory()
    adapter.check_peft(settings.peft, settings.model, device)
    waiting.show_status("Loading the tokenizer and counting tokens")
    tokenizer = backbone.load_tokenizer(settings.model)
    if settings.data.max_tokens == config.AUTO:
        found = max_tokens.choose(settings.data, corpus, tokenizer, positions=auto.positions(settings.model))
        settings = dataclasses.replace(settings, data=found)
    emotions = EmotionData(settings.data, corpus, tokenizer=tokenizer, seed=settings.seed)
    if emotions.template is not None and settings.data.template is not None:
        log.info("%s.", emotions.template.cost(token_limit(settings.data)))
    emotions.lengths().tell()
    if settings.distill.runs is not None or settings.distill.answers is not None:
        emotions.learn(
            distillation.teacher_targets(
                corpus.splits["train"], corpus.labels, settings.distill,
                accelerator=settings.trainer.accelerator,
            )
        )  # fmt: skip
    last = folder / run_folder.CHECKPOINTS / "last.ckpt"
    goes_on = goes_on and last.exists()
    if settings.resume and not goes_on:
        log.warning("There is no %s: the training starts from the beginning.", last)
    remove_partial(folder / run_folder.CHECKPOINTS)
    method = job.options["peft"]
    waiting.show_status("Loading the network")
    classifier = build_classifier(
        settings, emotions, device=device, base_folder=folder / run_folder.BASE, method=method, starts=not goes_on
    )
    resolved = _write_down(settings, folder, corpus, job)
    clock = callbacks.Clock()
    waiting.end_status()
    with loggers.open_logger(settings.logger, folder, resolved=resolved, multirun=job.multirun) as run:
        trainer = Trainer(
            **trainer_arguments(settings.trainer),
            plugins=[
                precision(compute_dtype(settings.model.dtype, device), device),
                checkpoint_io.AtomicCheckpointIO(),
                *slurm.lightning_plugins(),
            ],
            logger=run.lightning_logger,
            callbacks=callbacks.build_callbacks(
                settings.callbacks,
                settings.trainer,
                folder,
                clock=clock,
                logs=bool(run.lightning_logger),
                row_ids=emotions.rows["train"].ids,
                requeues=job.own_process,
                extra=settings.extra_callback,
                labels=emotions.labels,
            ),
            default_root_dir=folder,
            enable_progress_bar=callbacks.shows_bar(settings.trainer),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            # Reading the loss synchronizes with the device, so it is logged every 10 steps at most. In a short epoch it
            # is logged more often.
            log_every_n_steps=max(1, min(10, emotions.batches_in_epoch // 5)),
        )
        with enough_memory(lambda: classifier.batch_shape, training=True, batch_tokens=settings.data.batch_tokens):
            trainer.fit(classifier, emotions, ckpt_path=last if goes_on else None)
        return finalize.finish(
            settings, folder, trainer=trainer, classifier=classifier, emotions=emotions, clock=clock, run=run,
            method=method, shows=job.own_process,
        )  # fmt: skip


def _refuse(settings: config.Train, folder: Path, job: Job, *, goes_on: bool) -> None:
    """Raise UserError for errors that can be found before torch is loaded."""
    if not goes_on:
        run_folder.check_unused(folder)
    if hub_name.is_hub(settings.init_from):
        hub_name.parse(str(settings.init_from), setting="init_from")
    elif settings.init_from is not None and not Path(settings.init_from).expanduser().is_dir():
        raise UserError(f"init_from={settings.init_from} is not a folder; give that of a finished run.")
    processes = settings.trainer.devices * settings.trainer.num_nodes
    if not job.own_process and processes > 1:
        raise UserError(
            f"trainer.devices={settings.trainer.devices} and trainer.num_nodes={settings.trainer.num_nodes} start this "
            "program again in further processes; from Python, train on one device, or run the command "
            "`python -m emotion_lightning.train`."
        )
    if job.multirun:
        _refuse_processes(settings.trainer, processes)


def _refuse_processes(trainer: config.Trainer, processes: int) -> None:
    """Raise UserError if the launcher of a multirun does not start a job with this number of processes."""
    asked = f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes}"
    if ray_cluster.in_job():
        if trainer.num_nodes > 1:
            raise UserError(
                f"trainer.num_nodes={trainer.num_nodes}, but a job of hydra/launcher=ray is on one machine; choose "
                "trainer.num_nodes=1, or hydra/launcher=slurm."
            )
        return  # it has a process of its own, which starts the others as a single run does
    if processes == slurm.processes():
        return
    if not slurm.in_submitit():
        raise UserError(
            f"{asked} start processes that would each begin the whole multirun again. Run the jobs one by one, or let "
            f"a launcher start them: hydra/launcher=ray with hydra.launcher.gpus_per_job={trainer.devices}, or "
            f"hydra/launcher=slurm with hydra.launcher.tasks_per_node={trainer.devices}; if it is not installed, "
            + extras.install("ray")
        )
    raise UserError(
        f"{asked} need {processes} processes, but the launcher started {slurm.processes()}; set "
        f"hydra.launcher.tasks_per_node={trainer.devices} and hydra.launcher.nodes={trainer.num_nodes}."
    )


def _write_down(settings: config.Train, folder: Path, corpus: "Corpus", job: Job) -> dict[str, Any]:
    """Write the files that are needed to resume and to repeat the run.

    Returns:
        The content of settings.yaml.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from emotion_lightning.data import sources, splitting
    from emotion_lightning.runs import environment

    resolved = run_folder.write_settings(folder, settings, job.options)
    if getattr(rank_zero_only, "rank", 0) == 0:
        environment.record(folder, arguments=job.arguments, data_hashes=corpus.hashes)
        sources.write_decisions(folder / run_folder.DATA, corpus)
    if job.own_process and not job.multirun:
        slurm.remember(folder, job.arguments[1:])
    if corpus.new_splits:
        splitting.write_splits(folder / run_folder.SPLITS, corpus)
    return resolved


def main() -> None:
    """Read the command line and train a classifier."""
    app.run_command("train", train)


if __name__ == "__main__":
    main()
