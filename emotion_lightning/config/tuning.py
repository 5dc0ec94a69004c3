"""Settings of a hyperparameter study."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from emotion_lightning.config.bounds import Bounds


@dataclass
class Space:
    """The `space` group: the search space of a study."""

    parameters: dict[str, Any]
    """Settings of `train`, each with a range, {low: 1e-4, high: 1e-2, log: true} or {low: 16, high: 64, step: 16}, or
    with choices, [16, 32]; a group can have choices too, as in peft: [ia3, lora]. A setting that only some options have
    is searched only in trials with these options."""


class Objective(StrEnum):
    """What a study optimizes: a score on validation, or a cost."""

    f1_macro = "f1_macro"
    f1_micro = "f1_micro"
    jaccard = "jaccard"
    map = "map"
    lrap = "lrap"
    loss = "loss"
    soft_bce = "soft_bce"
    soft_mae = "soft_mae"
    soft_jensen_shannon = "soft_jensen_shannon"
    soft_correlation = "soft_correlation"
    intensity_pearson = "intensity_pearson"
    train_seconds = "train_seconds"
    trainable_parameters = "trainable_parameters"
    peak_memory_bytes = "peak_memory_bytes"


SOFT = {
    Objective.soft_bce,
    Objective.soft_mae,
    Objective.soft_jensen_shannon,
    Objective.soft_correlation,
    Objective.intensity_pearson,
}
"""Objectives that only data with shares has."""
COSTS = {Objective.train_seconds, Objective.trainable_parameters, Objective.peak_memory_bytes}
"""Objectives that are known only at the end of a run. Lower is better, as for `loss`."""


class Sampler(StrEnum):
    """How the values of a trial are sampled."""

    tpe = "tpe"
    random = "random"


class Pruner(StrEnum):
    """How trials with poor scores are stopped early."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


@dataclass
class Study:
    """Settings of a study and of this worker."""

    name: str | None
    """Name of the study in its storage, with which several workers share it; null: the folder's date and time, for a
    study with one worker."""
    storage: str
    """Where trials are stored: file (study.db in the study's folder), memory (lost when the process ends), or the URL
    of a database for several machines, such as postgresql+psycopg://user@host/name. Put a password into ~/.pgpass or
    PGPASSWORD, or the URL into a variable: ${oc.env:STORAGE}."""
    trials: Annotated[int, Bounds(at_least=1)]
    """Number of completed and pruned trials, of all workers together; failed trials do not count."""
    workers: Annotated[int, Bounds(at_least=1)]
    """Number of trials at the same time; more than one needs engine=ray."""
    hours: Annotated[float | None, Bounds(above=0)]
    """This worker starts no new trial after this many hours; null: no limit."""
    objectives: list[Objective]
    """Scores on validation: f1_macro, f1_micro, jaccard (with the thresholds of the `thresholds` option), map, lrap,
    loss; against shares soft_bce, soft_mae, soft_jensen_shannon, soft_correlation, and with data.scale
    intensity_pearson; or costs: train_seconds, trainable_parameters, peak_memory_bytes. Several objectives give the
    Pareto front."""
    sampler: Sampler
    """tpe learns from earlier trials (Bergstra et al., 2011); random does not."""
    startup_trials: Annotated[int, Bounds(at_least=0)]
    """Number of random trials before tpe starts to learn and before the median pruner stops trials."""
    seed: Annotated[int, Bounds(at_least=0, below=2**31)]
    """Seed of the sampler, combined with the number of the trial."""
    pruner: Pruner
    """Stops a trial at the end of an epoch: median (its best score is below the median of other trials at that epoch)
    or hyperband (Li et al., 2018). none stops no trial; several objectives need none."""
    warmup_epochs: Annotated[int, Bounds(at_least=1)]
    """No trial is pruned before the end of this epoch."""
    max_failures: Annotated[int, Bounds(at_least=1)]
    """Number of consecutive failed trials after which this worker stops."""
    retries: Annotated[int, Bounds(at_least=0)]
    """How often a trial is repeated whose worker was stopped or killed."""
    heartbeat: Annotated[int, Bounds(at_least=1)]
    """Seconds between two heartbeats of a worker; after four intervals without one, its trial counts as lost."""


class TrialEngine(StrEnum):
    """What starts trials."""

    local = "local"
    ray = "ray"


@dataclass
class TrialCluster:
    """The Ray cluster on which trials run, with engine=ray."""

    address: str | None
    """Address of a running cluster: auto finds the one that this machine belongs to, HOST:6379 names it. null starts
    one on this machine and ends it with the command."""
    gpus_per_trial: Annotated[float | None, Bounds(at_least=0)]
    """GPUs of each trial; between 0 and 1, trials share one. null: one if there are any."""
    cpus_per_trial: Annotated[int | None, Bounds(at_least=1)]
    """Cores of each trial. null: those that belong to its GPUs; without GPUs, the cores divided by study.workers."""
