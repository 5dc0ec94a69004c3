"""What there is to say of a study: its trials, the best of them, and what mattered."""

from dataclasses import dataclass, field
from typing import Any

from emotion_lightning import config

TITLES = {
    config.Objective.f1_macro: "macro F1",
    config.Objective.f1_micro: "micro F1",
    config.Objective.jaccard: "Jaccard",
    config.Objective.map: "mAP",
    config.Objective.lrap: "LRAP",
    config.Objective.loss: "loss",
    config.Objective.train_seconds: "seconds of training",
    config.Objective.trainable_parameters: "trained parameters",
    config.Objective.peak_memory_bytes: "bytes of memory",
}


_LEAST, _FOR_EACH = 30, 10
"""Complete trials in all, and for each parameter, from which on its share in the results is more than a guess.

PED-ANOVA compares the best tenth of the trials with all of them, which of 20 would be two.
"""


def falls(objective: config.Objective) -> bool:
    """Whether the lower value is the better one."""
    return objective in config.COSTS or objective is config.Objective.loss


@dataclass
class Trial:
    """One trial.

    Attributes:
        number: in the study, from 0.
        state: complete, pruned, failed, stopped (to be run again), withdrawn, running or waiting.
        parameters: searched values by name.
        values: of the objectives, if it is complete.
        curve: of the first objective, by epoch.
        seconds: from its start to its end.
        folder: of the run, on the machine of its worker.
        note: why it failed.
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
class StudyCard:
    """A study.

    Attributes:
        name: of the study.
        objectives: what was made better.
        trials: by number.
        best: numbers of the trials that nothing beats, the best in the first objective first.
        importance: for each objective with enough trials, the share of each parameter in what changed it.
        parameters: names of all that was searched, in the order of the space.
    """

    name: str
    objectives: list[config.Objective]
    trials: list[Trial]
    best: list[int]
    importance: dict[config.Objective, dict[str, float]]
    parameters: list[str]

    def complete(self) -> list[Trial]:
        """Those with values."""
        return [trial for trial in self.trials if trial.values is not None]

    def too_few(self) -> str:
        """Why nothing can be said of which parameter matters; empty where there are trials enough."""
        done, due = len(self.complete()), max(_LEAST, _FOR_EACH * len(self.parameters))
        if done >= due:
            return ""
        return (
            f"{done} complete trial{'' if done == 1 else 's'} of {len(self.parameters)} parameter"
            f"{'' if len(self.parameters) == 1 else 's'} are too few to say what matters: about {due} are due. Take "
            "the shares for a guess, and the order of close trials for chance."
        )

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    def best_so_far(self) -> list[tuple[int, float]]:
        """Number and value of each complete trial that was better than all before, by the first objective."""
        steps: list[tuple[int, float]] = []
        for trial in self.complete():
            assert trial.values is not None
            value = trial.values[0]
            if not steps or (value < steps[-1][1] if falls(self.objectives[0]) else value > steps[-1][1]):
                steps.append((trial.number, value))
        return steps


def shown(objective: config.Objective, value: float) -> str:
    """A value in the digits that it deserves.

    >>> shown(config.Objective.f1_macro, 0.51234), shown(config.Objective.trainable_parameters, 7424.0)
    ('0.5123', '7,424')
    """
    if objective is config.Objective.train_seconds:
        return f"{value:,.1f}"
    return f"{value:,.0f}" if objective in config.COSTS else f"{value:.4f}"


def plain(value: Any) -> str:
    """A searched value as it is shown.

    >>> plain(0.0031622776), plain("ia3"), plain(16)
    ('0.003162', 'ia3', '16')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
