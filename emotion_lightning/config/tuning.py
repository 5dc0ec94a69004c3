"""Settings of a study."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from emotion_lightning.config.bounds import Bounds


@dataclass
class Space:
    """The `space` group: what a study searches."""

    parameters: dict[str, Any]
    """Settings of `train` by name, each with a range, {low: 1e-4, high: 1e-2, log: true} or {low: 16, high: 64, step:
    16}, or with a list of choices, [16, 32]; an option group takes choices too, as in peft: [ia3, lora]. A setting that
    only some of them have is searched where one of those is chosen."""


class Objective(StrEnum):
    """What a study makes better: scores on validation, and costs."""

    f1_macro = "f1_macro"
    f1_micro = "f1_micro"
    jaccard = "jaccard"
    map = "map"
    lrap = "lrap"
    loss = "loss"
    train_seconds = "train_seconds"
    trainable_parameters = "trainable_parameters"
    peak_memory_bytes = "peak_memory_bytes"


COSTS = {Objective.train_seconds, Objective.trainable_parameters, Objective.peak_memory_bytes}
"""Those that are known at the end of a run only, and the lower the better; so is loss."""


class Sampler(StrEnum):
    """How values are chosen."""

    tpe = "tpe"
    random = "random"


class Pruner(StrEnum):
    """How trials that look poor are ended early."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


@dataclass
class Study:
    """How a study goes."""

    name: str | None
    """Name of the study in its storage, by which several workers find it; null: the folder's date and time, which will
    do for a storage that nobody shares."""
    storage: str
    """Where trials are kept: file (study.db in the study's folder), memory (gone with the process), or the URL of a
    database that many machines share, such as postgresql+psycopg://user@host/name. A password belongs into ~/.pgpass
    or PGPASSWORD, or into a variable: ${oc.env:STORAGE}."""
    trials: Annotated[int, Bounds(at_least=1)]
    """Trials that end well or are pruned, of all workers together; failed ones are made up for."""
    hours: Annotated[float | None, Bounds(above=0)]
    """This worker starts no trial after so many hours; null: no limit."""
    objectives: list[Objective]
    """What is made better: f1_macro, f1_micro, jaccard (with the thresholds that `thresholds` names), map, lrap, loss,
    all on validation, or a cost: train_seconds, trainable_parameters, peak_memory_bytes. Of several, the trials are
    told that nothing beats in all of them at once."""
    sampler: Sampler
    """tpe learns from the trials before (Bergstra et al., 2011); random does not."""
    startup_trials: Annotated[int, Bounds(at_least=0)]
    """Trials at random before tpe begins to learn, and before the median pruner prunes."""
    seed: Annotated[int, Bounds(at_least=0, below=2**31)]
    """Seed of the values that are chosen, together with the number of the trial."""
    pruner: Pruner
    """What ends a trial early, at the end of an epoch: median (its best score is below the median of the others at that
    epoch), hyperband (Li et al., 2018), none. With several objectives none alone is possible."""
    warmup_epochs: Annotated[int, Bounds(at_least=1)]
    """No trial is pruned before the end of this epoch."""
    max_failures: Annotated[int, Bounds(at_least=1)]
    """So many failed trials in a row stop this worker."""
    retries: Annotated[int, Bounds(at_least=0)]
    """How often a trial is run again whose worker was stopped or killed."""
    heartbeat: Annotated[int, Bounds(at_least=1)]
    """Seconds between two signs of life of a worker; after four without one, others take its trial for lost."""
