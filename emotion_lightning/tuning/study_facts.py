"""Facts about a study: its trials, the best trials, and the importance of the parameters."""

from dataclasses import dataclass, field
from typing import Any

from emotion_lightning import config
from emotion_lightning.errors import counted

TITLES = {
    config.Objective.f1_macro: "macro F1",
    config.Objective.f1_micro: "micro F1",
    config.Objective.jaccard: "Jaccard",
    config.Objective.map: "mAP",
    config.Objective.lrap: "LRAP",
    config.Objective.loss: "loss",
    config.Objective.soft_bce: "BCE against shares",
    config.Objective.soft_mae: "mean absolute error against shares",
    config.Objective.soft_jensen_shannon: "Jensen-Shannon distance from shares",
    config.Objective.soft_correlation: "correlation with shares",
    config.Objective.intensity_pearson: "Pearson's r of intensities",
    config.Objective.train_seconds: "seconds of training",
    config.Objective.trainable_parameters: "trained parameters",
    config.Objective.peak_memory_bytes: "bytes of memory",
}


_ERRORS = {
    config.Objective.loss,
    config.Objective.soft_bce,
    config.Objective.soft_mae,
    config.Objective.soft_jensen_shannon,
}
"""Scores of which lower ones are better."""

_LEAST, _FOR_EACH = 30, 10
"""Numbers of complete trials (in total, and per parameter) from which parameter importance is reliable.

PED-ANOVA compares the best tenth of the trials with all trials; of 20 trials, a tenth is only two.
"""


def falls(objective: config.Objective) -> bool:
    """Return whether lower values of an objective are better."""
    return objective in config.COSTS | _ERRORS


@dataclass
class Trial:
    """One trial.

    Attributes:
        number: number in the study, from 0.
        state: complete, pruned, failed, lost (worker killed), stopped (by a signal, to be run again), withdrawn (not
            needed), running or waiting.
        parameters: searched values by name.
        values: values of the objectives; None if the trial is not complete.
        curve: first objective by epoch.
        seconds: duration; None if the trial has not ended.
        folder: run folder on the machine of its worker.
        note: why it failed; else empty.
    """

    number: int
    state: str
    parameters: dict[str, Any]
    values: list[float] | None = None
    curve: dict[int, float] = field(default_factory=dict)
    seconds: float | None = None
    folder: str = ""
    note: str = ""


@dataclass
class StudyFacts:
    """Facts about a study.

    Attributes:
        name: of the study.
        objectives: the objectives.
        trials: all trials in order of their numbers.
        best: numbers of the best trials: with one objective the best trial, with several the Pareto front, ordered by
            the first objective.
        importance: importance of each parameter, by objective; empty if there are too few trials.
        parameters: names of the searched parameters, in the order of the search space.
    """

    name: str
    objectives: list[config.Objective]
    trials: list[Trial]
    best: list[int]
    importance: dict[config.Objective, dict[str, float]]
    parameters: list[str]

    def complete(self) -> list[Trial]:
        """Return the complete trials."""
        return [trial for trial in self.trials if trial.values is not None]

    def too_few(self) -> str:
        """Return a warning if there are too few trials to judge parameters; else an empty string."""
        done, due = len(self.complete()), max(_LEAST, _FOR_EACH * len(self.parameters))
        if done >= due:
            return ""
        return (
            f"{counted(done, 'complete trial')} of {counted(len(self.parameters), 'parameter')} are too few to say "
            f"what matters: about {due} are due. Take the shares for a guess, and the order of close trials for chance."
        )

    def count(self, state: str) -> int:
        """Return the number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    def best_so_far(self) -> list[tuple[int, float]]:
        """Return number and value of each complete trial that improved the first objective."""
        steps: list[tuple[int, float]] = []
        for trial in self.complete():
            assert trial.values is not None
            value = trial.values[0]
            if not steps or (value < steps[-1][1] if falls(self.objectives[0]) else value > steps[-1][1]):
                steps.append((trial.number, value))
        return steps


def shown(objective: config.Objective, value: float) -> str:
    """Format the value of an objective with suitable digits.

    >>> shown(config.Objective.f1_macro, 0.51234), shown(config.Objective.trainable_parameters, 7424.0)
    ('0.5123', '7,424')
    """
    if objective is config.Objective.train_seconds:
        return f"{value:,.1f}"
    return f"{value:,.0f}" if objective in config.COSTS else f"{value:.4f}"


def plain(value: Any) -> str:
    """Format the value of a parameter.

    >>> plain(0.0031622776), plain("ia3"), plain(16)
    ('0.003162', 'ia3', '16')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
