"""An Optuna study: its storage, which several machines may share, and a worker that runs trials one after another."""

import logging
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from emotion_lightning import config
from emotion_lightning.config import redaction, schema, stored_settings
from emotion_lightning.errors import Stopped, UserError, first_line
from emotion_lightning.runs import run_folder, slurm
from emotion_lightning.tuning import search_space, study_facts
from emotion_lightning.tuning.trial import OUTPUT, Training, measure

log = logging.getLogger(__name__)

DATABASE = "study.db"
TRIALS = "trials"
_POLL = 0.2
"""Seconds between two checks of a running trial."""
_LOST_AFTER = 4
"""A trial counts as lost after this many missed heartbeats of its worker."""
_WITHDRAWN, _STOPPED, _NOTE = "withdrawn", "stopped", "note"
_SAME_RESULT = (
    "logger",
    "predict",
    "score_test",
    "from_run",
    "trainer.progress_bar",
    "trainer.checkpoint",
    "data.dir",
    "data.workers",
)
"""Settings in which workers may differ, because no result depends on them. Of other paths only the last part counts."""


class _TrialEnded(Exception):
    """A trial ended without a value."""


def identity(settings: config.Tune, base: config.Train) -> dict[str, Any]:
    """Return the settings that must be equal for all workers of a study, as plain values."""
    tree = redaction.settings(schema.plain(base))
    kept = {
        name: Path(value).name if isinstance(value, str) and run_folder.is_path(name) else value
        for name, value in stored_settings.leaves(tree)
        if not name.startswith(_SAME_RESULT)
    }
    return {
        "study.objectives": [objective.value for objective in settings.study.objectives],
        "space.parameters": settings.space.parameters,
        **{name: value for name, value in kept.items() if name not in settings.space.parameters},
    }


@contextmanager
def open_study(settings: config.Study, folder: Path, *, shared: dict[str, Any], epochs: int) -> Iterator[optuna.Study]:
    """Create the study, or load it if it exists.

    Args:
        settings: of the study.
        folder: of this worker.
        shared: settings that must be equal for all workers, from `identity`.
        epochs: largest number of epochs of a trial.

    Raises:
        UserError: the storage cannot be used, or the study was started with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    with _storage_errors(settings):
        storage = _storage(settings, folder)
        # The folder may have been renamed: take the study in its file, whatever its name.
        kept = optuna.get_all_study_names(storage) if settings.storage == "file" else []
        study = optuna.create_study(
            storage=storage,
            study_name=settings.name or next(iter(kept), f"{folder.parent.name}/{folder.name}"),
            load_if_exists=True,
            directions=[
                "minimize" if study_facts.falls(objective) else "maximize" for objective in settings.objectives
            ],
            sampler=_NumberedSampler(settings),
            pruner=_pruner(settings, epochs=epochs),
        )
        _refuse_other(study, settings, shared)
        yield study


def for_another_worker(study: optuna.Study, settings: config.Study, *, epochs: int) -> optuna.Study:
    """The same study for one more worker of this process: a sampler works at one trial at a time."""
    return optuna.load_study(
        study_name=study.study_name,
        storage=study._storage,
        sampler=_NumberedSampler(settings),
        pruner=_pruner(settings, epochs=epochs),
    )


def _refuse_other(study: optuna.Study, settings: config.Study, shared: dict[str, Any]) -> None:
    """Raise UserError if the study was started with other settings: its trials would not be comparable."""
    before = study.user_attrs.get("shared")
    if before is None:
        study.set_user_attr("shared", shared)
        return
    for name in [*before, *(name for name in shared if name not in before)]:
        if before.get(name) != shared.get(name):
            raise UserError(
                f"The study {study.study_name} has {name}={before.get(name)}, this line {name}={shared.get(name)}. "
                "Give the line that it was begun with, or another study.name."
            )


def _storage(settings: config.Study, folder: Path) -> optuna.storages.BaseStorage:
    if settings.storage == "memory":
        return optuna.storages.InMemoryStorage()
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{(folder / DATABASE).resolve()}" if settings.storage == "file" else settings.storage
    # A server may close the connection during a trial of hours; pool_pre_ping then reconnects.
    engine = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in range(5):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=engine,
                heartbeat_interval=settings.heartbeat,
                grace_period=_LOST_AFTER * settings.heartbeat,
                heartbeat_stale_trial_callback=_again(settings),
            )
        except Exception as error:
            # If workers start at the same time with an empty database, one creates the tables and the others fail.
            if attempt == 4 or type(error).__name__ not in ("ProgrammingError", "IntegrityError", "OperationalError"):
                raise
            if "exist" not in str(error) and "duplicate" not in str(error).lower() and "UNIQUE" not in str(error):
                raise
            time.sleep(0.5)
    raise AssertionError


def _again(settings: config.Study) -> optuna.storages.RetryHeartbeatStaleTrialCallback:
    return optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=settings.retries)


@contextmanager
def _storage_errors(settings: config.Study) -> Iterator[None]:
    """Turn errors of the database (wrong URL, missing driver, lost connection) into a UserError."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    where = f"study.storage={redaction.hide_secrets(settings.storage)}"
    try:
        yield
    except (NoSuchModuleError, ArgumentError, ValueError) as error:
        if isinstance(error, ValueError) and "storage" not in str(error).lower():
            raise
        raise UserError(f"{where} is no URL of a database: {first_line(error)}.") from error
    except ImportError as error:
        raise UserError(
            f"{where} needs a driver that is not installed, such as pip install 'psycopg[binary]' for "
            "postgresql+psycopg://…"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(f"{where} cannot be used: {redaction.hide_secrets(reason)}") from error


class _NumberedSampler(BaseSampler):
    """A sampler whose seed depends on the number of the trial.

    With a constant seed, each worker and each restart would begin with the same random numbers and repeat values.
    """

    def __init__(self, settings: config.Study) -> None:
        self._settings = settings
        self._inner = self._build(0)

    def _build(self, number: int) -> BaseSampler:
        seed = self._settings.seed + number
        if self._settings.sampler is config.Sampler.random:
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._settings.startup_trials)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Create the sampler for this trial."""
        self._inner = self._build(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Delegate to this trial's sampler."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Delegate to this trial's sampler."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any) -> Any:
        """Delegate to this trial's sampler."""
        return self._inner.sample_independent(study, trial, param_name, distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Delegate to this trial's sampler."""
        self._inner.after_trial(study, trial, state, values)


def _pruner(settings: config.Study, *, epochs: int) -> optuna.pruners.BasePruner:
    match settings.pruner:
        case config.Pruner.median:
            return optuna.pruners.MedianPruner(
                n_startup_trials=settings.startup_trials, n_warmup_steps=settings.warmup_epochs
            )
        case config.Pruner.hyperband:
            if settings.warmup_epochs > epochs:
                raise UserError(
                    f"study.warmup_epochs={settings.warmup_epochs} leaves study.pruner=hyperband nothing of "
                    f"trainer.max_epochs={epochs}; lower the one or raise the other."
                )
            return optuna.pruners.HyperbandPruner(min_resource=settings.warmup_epochs, max_resource=epochs)
        case _:
            return optuna.pruners.NopPruner()


class Signals:
    """Records the first Ctrl-C, SIGTERM or preemption signal; a second signal exits at once.

    Attributes:
        received: number of the signal; None before it.
        is_over: whether workers are to stop: a signal came, or one of several workers has failed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.is_over = False

    def __enter__(self) -> "Signals":
        numbers = {signal.SIGINT, signal.SIGTERM, slurm.preemption_signal()} - {None}
        self._before = {number: signal.signal(number, self._note) for number in numbers if number is not None}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if self.received is not None:
            raise Stopped(number)
        self.received, self.is_over = number, True


class Worker:
    """Runs trials one after another until the study has enough; other workers may do the same.

    Args:
        study: the study.
        settings: of the study.
        space: the search space.
        folder: of this worker; contains the folders of its trials.
        arguments: returns the arguments of `train` for a trial's values and number.
        protocol: name of the threshold protocol whose scores are the objectives.
        start: starts a training with these arguments in this folder.
        signals: those that stop it.
        alone: whether it is the only worker of this process.
    """

    def __init__(
        self,
        study: optuna.Study,
        settings: config.Study,
        space: search_space.SearchSpace,
        *,
        folder: Path,
        arguments: Callable[[dict[str, Any], int], list[str]],
        protocol: str,
        start: Callable[[Sequence[str], Path], Training],
        signals: Signals,
        alone: bool = True,
    ) -> None:
        self.study = study
        self.settings = settings
        self.space = space
        self.folder = folder
        self.arguments = arguments
        self.protocol = protocol
        self.start = start
        self.failures: list[str] = []
        """Messages of the failures since the last trial that did not fail."""
        self._signals = signals
        self._alone = alone

    def work(self) -> None:
        """Run trials until there are enough, the time is over or `signals` says so.

        Raises:
            UserError: too many trials failed in a row.
        """
        deadline = None if self.settings.hours is None else time.monotonic() + 3600 * self.settings.hours
        logged: set[int] = set()
        while not self._signals.is_over:
            ended, running = self._count()
            if len(ended) >= self.settings.trials:
                return
            if len(ended) + len(running) >= self.settings.trials:
                # Other workers run the last trials. If a worker is killed, this one runs its trial.
                if running != logged and self._alone:
                    log.info("Waiting for trials of other workers: %s", ", ".join(map(str, sorted(running))))
                    logged = running
                optuna.storages.fail_stale_trials(self.study)
                self._rest(min(1.0, self.settings.heartbeat))
                continue
            if deadline is not None and time.monotonic() > deadline:
                log.info("study.hours=%g are over.", self.settings.hours)
                return
            self._one()
            if len(self.failures) >= self.settings.max_failures:
                raise UserError(
                    f"{len(self.failures)} trials failed in a row, the last with: {self.failures[-1]} What they "
                    f"printed is in {self.folder / TRIALS}/*/{OUTPUT}; study.max_failures= allows more."
                )

    def _one(self) -> None:
        try:
            self.study.optimize(self._run, n_trials=1, catch=(_TrialEnded,))
        except ValueError as error:
            # Optuna raises this if another worker has marked the trial as lost, after a pause or a lost connection.
            if "Cannot tell a" not in str(error):
                raise
            log.warning("Another worker has taken a trial of this one for lost: %s", error)

    def _count(self) -> tuple[set[int], set[int]]:
        """Return the numbers of the complete or pruned trials, and of the running trials."""
        trials = self.study.get_trials(deepcopy=False)
        ended = {trial.number for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)}
        return ended, {trial.number for trial in trials if trial.state is TrialState.RUNNING}

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._signals.is_over and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _POLL))

    def _run(self, trial: optuna.Trial) -> list[float]:
        """Run one trial and return the values of the objectives.

        Raises:
            _TrialEnded: the trial failed, was stopped or was not needed.
            optuna.TrialPruned: the trial was pruned.
        """
        ended, running = self._count()
        if sum(number < trial.number for number in ended | running) >= self.settings.trials:
            # Two workers started the last trial at the same time; the trial with the lower number counts.
            trial.set_user_attr(_WITHDRAWN, True)
            raise _TrialEnded
        values = self.space.suggest(trial)
        folder = self.folder / TRIALS / str(trial.number)
        trial.set_user_attr("folder", str(folder))
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        shown = "  ".join(f"{name}={study_facts.plain(value)}" for name, value in values.items())
        log.info("trial %d: %s", trial.number, shown)
        training = self.start(self.arguments(values, trial.number), folder)
        try:
            code = self._watch(trial, training)
            if code != 0:
                raise UserError(training.failure(code))
            found = measure(folder, self.protocol)
        except UserError as error:
            note = redaction.hide_secrets(str(error))
            self.failures.append(note)
            trial.set_user_attr(_NOTE, note)
            log.warning("trial %d failed: %s", trial.number, note)
            raise _TrialEnded from error
        finally:
            training.kill()
        self.failures = []
        trial.set_user_attr("measured", {objective.value: value for objective, value in found.items()})
        result = [found[objective] for objective in self.settings.objectives]
        log.info("trial %d: %s", trial.number, _result(self.settings.objectives, result))
        return result

    def _watch(self, trial: optuna.Trial, training: Training) -> int:
        """Report the scores of a training to the study and return its exit code; raise if it is stopped or pruned."""
        objective = self.settings.objectives[0]
        scored = len(self.settings.objectives) == 1 and objective not in config.COSTS
        while True:
            code = training.wait(_POLL)
            for row in training.new_rows() if scored else []:
                value, epoch = row[f"val/{objective.value}"], int(row["epoch"])
                trial.report(value, epoch)
                # Check this also after the end of the training: pruning must not depend on the time of the check.
                if trial.should_prune():
                    training.stop()
                    self.failures = []
                    log.info("trial %d: pruned at epoch %d with %s", trial.number, epoch, _result([objective], [value]))
                    raise optuna.TrialPruned
            if code is not None:
                return code
            if self._signals.is_over:
                self._give_back(trial, training)

    def _give_back(self, trial: optuna.Trial, training: Training) -> None:
        """Stop the training and queue its values for another worker."""
        log.warning("Stopping trial %d; a second signal leaves at once.", trial.number)
        training.stop()
        frozen = self.study.get_trials()[trial.number]
        _again(self.settings)(self.study, frozen)
        trial.set_user_attr(_STOPPED, True)
        raise _TrialEnded


def _result(objectives: Sequence[config.Objective], values: Sequence[float]) -> str:
    pairs = zip(objectives, values, strict=True)
    return "  ".join(f"{objective.value} {study_facts.shown(objective, value)}" for objective, value in pairs)


def describe_study(
    study: optuna.Study, settings: config.Study, space: search_space.SearchSpace
) -> study_facts.StudyFacts:
    """Return the facts about a study in its current state."""
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = sorted(
        study.best_trials if complete else [],
        key=lambda trial: trial.values[0] * (1 if study.directions[0] is StudyDirection.MINIMIZE else -1),
    )
    if len(settings.objectives) == 1:
        best = best[:1]
    return study_facts.StudyFacts(
        name=study.study_name,
        objectives=settings.objectives,
        trials=[_trial(trial) for trial in trials],
        best=[trial.number for trial in best],
        importance={objective: _importance(study, i) for i, objective in enumerate(settings.objectives)},
        parameters=[parameter.name for parameter in space.parameters],
    )


def _trial(trial: FrozenTrial) -> study_facts.Trial:
    state = trial.state.name.lower()
    if trial.state is TrialState.FAIL:
        marks = [mark for mark in (_WITHDRAWN, _STOPPED) if trial.user_attrs.get(mark)]
        state = marks[0] if marks else "failed" if trial.user_attrs.get(_NOTE) else "lost"
    return study_facts.Trial(
        number=trial.number,
        state=state,
        parameters=dict(trial.params),
        values=list(trial.values) if trial.state is TrialState.COMPLETE else None,
        curve=dict(trial.intermediate_values),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        folder=str(trial.user_attrs.get("folder", "")),
        note=str(trial.user_attrs.get(_NOTE, "")),
    )


def _importance(study: optuna.Study, place: int) -> dict[str, float]:
    try:
        with warnings.catch_warnings():
            # With too few trials Optuna warns and would rate all parameters as equal; raise instead.
            warnings.filterwarnings("error", message="The number of trials is too small")
            sign = 1 if study.directions[place] is StudyDirection.MINIMIZE else -1  # low values count as good
            warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
            found = optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[place])
    except (ValueError, RuntimeError, UserWarning):
        return {}  # fewer than two trials, or all with the same value
    shares = {name: float(share) for name, share in found.items()}
    return shares if any(shares.values()) else {}


def left(study: optuna.Study, settings: config.Study) -> int:
    """Return the number of trials that are still to be run."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return max(0, settings.trials - len(study.get_trials(deepcopy=False, states=states)))
