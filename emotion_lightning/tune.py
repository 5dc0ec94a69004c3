"""Search for the best settings with Optuna: each trial is a run of `train`, on one machine or on several.

python -m emotion_lightning.tune space=ia3 data=file data.path=my.csv
python -m emotion_lightning.tune space=methods study.objectives=[f1_macro,trainable_parameters] study.pruner=none
python -m emotion_lightning.tune space=ia3 engine=ray study.workers=8
python -m emotion_lightning.tune study.name=mine study.storage=postgresql+psycopg://user@host/studies
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_lightning import config
from emotion_lightning.cli import app, override_grammar
from emotion_lightning.cli.compose import chosen_options, settings_of
from emotion_lightning.config import schema
from emotion_lightning.errors import Stopped, UserError
from emotion_lightning.runs import extras, ray_cluster, run_folder
from emotion_lightning.tuning import fork_server, search_space, trial

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


def tune(settings: config.Tune, folder: Path) -> None:
    """Run trials until the study is complete or this worker must stop; write its report and its best settings.

    Raises:
        UserError: a setting is wrong, or too many trials failed.
        Stopped: a signal stopped this worker.
    """
    typed = sys.argv[1:]
    arguments = _of_train(typed)
    base = settings_of("train", arguments)
    space = search_space.read_space(settings.space, arguments, load=lambda line: settings_of("train", line))
    if settings.engine is config.TrialEngine.ray:
        ray_cluster.check_installed("engine=ray")
    _check_optuna()

    # Imported late, so that a wrong setting is reported before the libraries are loaded.
    from emotion_lightning.tuning import side_by_side, study, study_page

    epochs = int(max(base.trainer.max_epochs, *space.ends("trainer.max_epochs")))
    shared = study.identity(settings, base)
    signals = study.Signals()
    with (
        study.open_study(settings.study, folder, shared=shared, epochs=epochs) as opened,
        _starter(settings) as (start, count),
    ):
        run_folder.write_settings(folder, settings, chosen_options())

        def worker(of: "optuna.Study") -> study.Worker:
            return study.Worker(
                of,
                settings.study,
                space,
                folder=folder,
                arguments=lambda values, number: [
                    # Before the other arguments, so that the command line can override it.
                    "score_test=false",
                    *arguments,
                    *search_space.overrides(values),
                    *_named(base.logger, arguments, study=opened.study_name, number=number),
                ],
                protocol=schema.schema_of(base.thresholds),
                start=start,
                signals=signals,
                alone=count == 1,
            )

        others = [study.for_another_worker(opened, settings.study, epochs=epochs) for _ in range(count - 1)]
        go_on = _go_on(typed, folder, storage=settings.study.storage)
        try:
            with signals:
                side_by_side.work([worker(of) for of in (opened, *others)], signals)
        except UserError as error:
            raise UserError(f"{error} {go_on}") from error
        finally:
            study_page.write_study_report(
                folder, study.describe_study(opened, settings.study, space), arguments=arguments, typed=typed
            )
        left = study.left(opened, settings.study)
    if left:
        log.warning("%d of %d trials are left. %s", left, settings.study.trials, go_on)
    log.info("Study folder: %s", folder)
    if signals.received is not None:
        raise Stopped(signals.received)


@contextmanager
def _starter(settings: config.Tune) -> "Iterator[tuple[Callable[[Sequence[str], Path], trial.Training], int]]":
    """What starts a trial, and the number of trials at the same time.

    Raises:
        UserError: Ray is not installed, there is no cluster, or a trial does not fit on a node.
    """
    if settings.engine is config.TrialEngine.local:
        with fork_server.Server(trial.LIBRARIES) as server:
            yield lambda arguments, folder: trial.Training(arguments, folder, server), 1
        return
    from emotion_lightning.tuning import side_by_side

    with ray_cluster.joined(settings.ray.address, setting="ray.address") as nodes:
        gpus = settings.ray.gpus_per_trial
        share = ray_cluster.share_of(
            nodes,
            tasks=settings.study.workers,
            cpus=settings.ray.cpus_per_trial,
            gpus=gpus,
            settings={"cpus": "ray.cpus_per_trial", "gpus": "ray.gpus_per_trial"},
        )
        count = min(settings.study.workers, share.times(nodes))
        log.info("Ray runs %d trials at a time, each with %s.", count, share)
        yield side_by_side.starter(share), count


def _go_on(typed: list[str], folder: Path, *, storage: str) -> str:
    """The sentence that tells the user how to resume a study."""
    if storage == "memory":
        return "Its storage was memory: there is nothing to go on with."
    kept = [argument for argument in typed if storage != "file" or not argument.startswith("hydra.run.dir=")]
    place = [f"hydra.run.dir={folder}"] if storage == "file" else []
    return f"Go on with: {override_grammar.shell_line('tune', [*kept, *place])}"


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError(f"tune needs Optuna: {extras.install('tune')}") from error


def _of_train(typed: list[str]) -> list[str]:
    """The arguments that `train` gets in every trial: all except those of the study itself."""
    own = ("space=", "space.", "study.", "engine=", "ray.", "hydra.run.dir=")
    return [argument for argument in typed if not argument.lstrip("+~").startswith(own)]


def _named(logger: config.Logger, arguments: list[str], *, study: str, number: int) -> list[str]:
    """Overrides that group the trials of a study in W&B or MLflow; those that the user typed are left out."""
    if not isinstance(logger, config.WandB | config.MLflow):
        return []
    named = {"logger.group": study, "logger.name": f"{study}/{number}"}
    typed = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    return [f"{name}={value}" for name, value in named.items() if name not in typed]


def main() -> None:
    """Read the command line and run the study."""
    app.run_command("tune", tune)


if __name__ == "__main__":
    main()
