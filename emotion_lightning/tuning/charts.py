"""Charts of a study. Each function returns one figure; the caller decides where to save it."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from emotion_lightning.config import Objective
from emotion_lightning.reports.charts import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    VERMILLION,
    WIDTH,
    legend,
    one,
    short,
    spot,
    styled,
)
from emotion_lightning.tuning.study_facts import TITLES, StudyFacts, Trial, falls, plain, shown

_GREY, _DARK = "#9a9a9a", "#222222"
_CURVES = 200
"""Largest number of learning curves in one chart; more could not be told apart."""


def study_pictures(facts: StudyFacts) -> dict[str, Figure]:
    """Return all charts for which there are data, by file name; none without a complete trial."""
    if not facts.complete():
        return {}
    drawn = {"history": history(facts), "parameters": parameters(facts)}
    if any(trial.curve for trial in facts.trials):
        drawn["curves"] = curves(facts)
    if any(facts.importance.values()):
        drawn["importance"] = importance(facts)
    if len(facts.objectives) > 1:
        drawn["front"] = front(facts)
    return drawn


def history(facts: StudyFacts) -> Figure:
    """Draw the first objective of each trial in order, and the best value so far."""
    with one(WIDTH, 3.2) as (figure, axes):
        objective = facts.objectives[0]
        _points(axes, [(trial.number, trial) for trial in facts.complete()])
        pruned = [(trial.number, value) for trial in facts.trials if (value := _last(trial)) is not None]
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", color=_GREY, markersize=5, label="pruned, its last epoch")
        failed = [trial.number for trial in facts.trials if trial.state in ("failed", "lost")]
        if failed:
            axes.plot(
                failed, [0.02] * len(failed), "|", color=VERMILLION, markersize=9, markeredgewidth=1.6,
                transform=axes.get_xaxis_transform(), label="failed", clip_on=False,
            )  # fmt: skip
        if len(facts.objectives) == 1:
            steps = facts.best_so_far()
            numbers, values = [number for number, _ in steps], [value for _, value in steps]
            axes.step([*numbers, facts.trials[-1].number], [*values, values[-1]], where="post", color=ORANGE,
                      linewidth=1.6, label="best so far", zorder=1)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for trial in facts.complete():
            assert trial.values is not None
            message = f"Trial {trial.number}: {TITLES[objective]} {shown(objective, trial.values[0])}"
            spot(axes, (trial.number - 0.5, trial.number + 0.5), axes.get_ylim(), message)
        axes.set_xlabel("trial")
        axes.set_ylabel(_title(objective))
        axes.set_title("Trials")
        legend(figure, ncols=4)
    return figure


def _last(trial: Trial) -> float | None:
    return trial.curve[max(trial.curve)] if trial.state == "pruned" and trial.curve else None


def _points(axes: Axes, placed: list[tuple[Any, Trial]]) -> None:
    values = [trial.values[0] for _, trial in placed if trial.values is not None]
    axes.plot([place for place, _ in placed], values, "o", color=BLUE, markersize=4.5, label="complete")


def _title(objective: Objective) -> str:
    return TITLES[objective] + ("" if falls(objective) else " on validation")


def curves(facts: StudyFacts) -> Figure:
    """Draw the score of each trial by epoch; the line of a pruned trial ends early."""
    with one(WIDTH, 3.4) as (figure, axes):
        seen: set[str] = set()
        for trial in [trial for trial in facts.trials if trial.curve][-_CURVES:]:
            best = trial.number in facts.best
            name = "best" if best else "pruned" if trial.state == "pruned" else "complete"
            if name == "complete" and trial.state != "complete":
                continue
            epochs = sorted(trial.curve)
            looks: dict[str, dict[str, Any]] = {
                "best": {"color": ORANGE, "linewidth": 2.4, "zorder": 3},
                "pruned": {"color": _GREY, "linewidth": 1.0, "linestyle": "--"},
                "complete": {"color": SKY, "linewidth": 1.2},
            }
            look = looks[name]
            label = None if name in seen else name
            seen.add(name)
            axes.plot(epochs, [trial.curve[epoch] for epoch in epochs], label=label, **look)
            if name != "complete":
                axes.plot(epochs[-1], trial.curve[epochs[-1]], "o" if best else "x", color=look["color"], markersize=5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel(_title(facts.objectives[0]))
        axes.set_title("Learning curves of the trials")
        legend(figure)
    return figure


def importance(facts: StudyFacts) -> Figure:
    """Draw the importance of each parameter for each objective (PED-ANOVA), in percent."""
    objectives = [objective for objective in facts.objectives if facts.importance[objective]]
    names = sorted(
        facts.parameters, key=lambda name: max(facts.importance[objective].get(name, 0) for objective in objectives)
    )
    height = 0.8 / len(objectives)
    with one(WIDTH, 1.2 + 0.34 * len(names) * max(1, len(objectives) / 2)) as (figure, axes):
        for i, (objective, colour) in enumerate(zip(objectives, (BLUE, ORANGE, GREEN, VERMILLION) * 3, strict=False)):
            places = [place + (len(objectives) - 1) / 2 * height - i * height for place in range(len(names))]
            probabilities = [100 * facts.importance[objective].get(name, 0) for name in names]
            bars = axes.barh(places, probabilities, 0.9 * height, color=colour, label=TITLES[objective])
            axes.bar_label(bars, [f"{share:.0f}" for share in probabilities], padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), [short(name, 32) for name in names])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share, %")
        axes.set_title("What mattered (PED-ANOVA)")
        if len(objectives) > 1:
            legend(figure)
    return figure


def parameters(facts: StudyFacts) -> Figure:
    """Draw the first objective over each parameter, one small chart per parameter."""
    count = len(facts.parameters)
    columns = min(3, count)
    rows = -(-count // columns)
    with styled():
        figure = Figure(figsize=(WIDTH, 0.5 + 2.2 * rows), layout="constrained")
        grid: Any = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for place, name in enumerate(facts.parameters):
            axes = grid[place // columns][place % columns]
            _over(axes, facts, name)
            if place % columns == 0:
                axes.set_ylabel(TITLES[facts.objectives[0]])
        for place in range(count, rows * columns):
            grid[place // columns][place % columns].set_visible(False)
    return figure


def _over(axes: Axes, facts: StudyFacts, name: str) -> None:
    trials = [trial for trial in facts.complete() if name in trial.parameters]
    values = [trial.parameters[name] for trial in trials]
    numeric = bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numeric and min(values) > 0 and max(values) / min(values) > 20:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # matplotlib's default uses its math markup
        axes.xaxis.set_minor_formatter(NullFormatter())
    if not numeric:
        values = [short(plain(value), 14) for value in values]
        axes.tick_params(axis="x", labelrotation=30)
    _points(axes, list(zip(values, trials, strict=True)))
    best = [(value, trial) for value, trial in zip(values, trials, strict=True) if trial.number in facts.best]
    for value, trial in best:
        assert trial.values is not None
        axes.plot([value], [trial.values[0]], "o", color=ORANGE, markeredgecolor=_DARK, markersize=7)
    axes.set_title(short(name, 28), fontsize=9)


def front(facts: StudyFacts) -> Figure:
    """Draw the first objective against each of the others, with the Pareto front."""
    first, *others = facts.objectives
    with styled():
        figure = Figure(figsize=(WIDTH, 3.6 * len(others)), layout="constrained")
        grid: Any = figure.subplots(len(others), 1, squeeze=False)
        for place, objective in enumerate(others, start=1):
            axes = grid[place - 1][0]
            points = [(t.values[place], t.values[0], t) for t in facts.complete() if t.values is not None]
            axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color=BLUE, markersize=4.5)
            best = sorted((x, y, trial.number) for x, y, trial in points if trial.number in facts.best)
            # With three or more objectives, the Pareto front is not a line in the plane of two of them.
            line = "-" if len(others) == 1 else ""
            axes.plot([x for x, _, _ in best], [y for _, y, _ in best], "o", linestyle=line, color=ORANGE,
                      markeredgecolor=_DARK, markersize=7, label="nothing beats these")  # fmt: skip
            for x, y, number in best[:12]:
                axes.annotate(str(number), (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
            axes.set_xlabel(_title(objective))
            axes.set_ylabel(_title(first))
        grid[0][0].set_title("Trade-off, with the numbers of the trials")
        grid[0][0].legend(loc="best")
    return figure
