"""Charts of a finished run. Each function returns one figure; the caller decides where to save it."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from emotion_lightning.evaluation.calibration import BINS
from emotion_lightning.reports.charts import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    beside_line,
    heat_map,
    legend,
    names,
    one,
    short,
    spot,
    styled,
)
from emotion_lightning.reports.run_facts import RunFacts

_DARK, _GREY = "#222222", "#767676"
_SCORES = {"val/f1_micro": "micro F1", "val/f1_macro": "macro F1", "val/jaccard": "Jaccard", "val/map": "mAP"}
_BESIDE = 12
"""Largest number of labels for two heat maps side by side; with more they would be too small to read."""


def run_pictures(facts: RunFacts) -> dict[str, Figure]:
    """Return all charts of a run by file name."""
    drawn: dict[str, Callable[[RunFacts], Figure]] = {
        "label_scores": label_scores,
        "precision_recall": precision_recall,
        "reliability": reliability,
        "probabilities": probabilities,
        "co_occurrence": co_occurrence,
    }
    if facts.history:
        drawn = {"learning_curves": learning_curves} | drawn
    with names.drawn(facts.labels):
        return {name: draw(facts) for name, draw in drawn.items()}


def learning_curves(facts: RunFacts) -> Figure:
    """Draw the losses and the validation scores by epoch."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        losses, scores = figure.subplots(1, 2)
        _lines(losses, facts, {"train/loss": ("train", BLUE), "val/loss": ("validation", ORANGE)})
        losses.set_title("Loss")
        colours = (BLUE, VERMILLION, GREEN, PURPLE)
        named = {name: (title, colour) for (name, title), colour in zip(_SCORES.items(), colours, strict=True)}
        _lines(scores, facts, named)
        scores.set_title("Scores on validation")
    return figure


def _lines(axes: Axes, facts: RunFacts, named: dict[str, tuple[str, str]]) -> None:
    """Draw one line for each metric of the history, with its name beside the end of the line."""
    marker = "o" if len(facts.history) <= 30 else ""
    ends = []
    for name, (title, colour) in named.items():
        points = [(row["epoch"], row[name]) for row in facts.history if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, linewidth=1.6)
            ends.append((points[-1][1], f"{title} {points[-1][1]:.3f}", colour))
    first, last = facts.history[0]["epoch"], facts.history[-1]["epoch"]
    room = max(0.5, 0.04 * (last - first))
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.margins(y=0.1)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))  # room for the text at the top
    low, high = axes.get_ylim()
    ends.sort()
    heights = _apart([(value - low) / (high - low) for value, _, _ in ends], gap=0.075)
    for height, (_, text, colour) in zip(heights, ends, strict=True):
        # A coloured square marks the line, because text in the line's colour would be too pale to read.
        axes.plot([1.03], [height], "s", color=colour, markersize=5, transform=axes.transAxes, clip_on=False)
        axes.annotate(
            text, (1.03, height), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=8,
        )  # fmt: skip
    for row in facts.history:
        values = [f"{title} {row[name]:.4f}" for name, (title, _) in named.items() if name in row]
        if values:
            span = (row["epoch"] - 0.5, row["epoch"] + 0.5)
            spot(axes, span, axes.get_ylim(), f"Epoch {row['epoch']:g}: {', '.join(values)}")
    best = facts.best()
    if best is not None:
        axes.axvline(best["epoch"], color=_GREY, linestyle="--", linewidth=1, zorder=1)
        beside_line(axes, best["epoch"], f"best: {best['epoch']:.0f}", height=0.94)


def _apart(heights: list[float], *, gap: float) -> list[float]:
    """Move increasing heights (0 to 1) as little as needed to be at least `gap` apart.

    >>> _apart([0.5, 0.5, 0.9], gap=0.1)
    [0.45, 0.55, 0.9]
    """
    groups = [[height] for height in heights]
    merged: list[list[float]] = []
    for group in groups:
        merged.append(group)
        while len(merged) > 1 and _lowest(merged[-1], gap) - _highest(merged[-2], gap) < gap - 1e-9:
            merged[-2:] = [merged[-2] + merged[-1]]
    return [round(_lowest(group, gap) + i * gap, 6) for group in merged for i in range(len(group))]


def _lowest(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _highest(group: list[float], gap: float) -> float:
    return _lowest(group, gap) + gap * (len(group) - 1)


def label_scores(facts: RunFacts) -> Figure:
    """Draw F1, precision, recall and threshold of each label, with the most frequent label first."""
    order = facts.by_support()
    found = [facts.of_label(label) for label in order]
    places = np.arange(len(order))
    with one(WIDTH, 1.1 + 0.24 * len(order)) as (figure, axes):
        marks: list[Any] = [axes.barh(places, [values["f1"] for values in found], 0.62, color=SKY, label="F1")]
        looks: dict[Literal["precision", "recall", "threshold"], dict[str, Any]] = {
            "precision": {"marker": ">", "color": VERMILLION},
            "recall": {"marker": "<", "color": BLUE},
            "threshold": {"marker": "|", "color": _DARK, "markersize": 11, "markeredgewidth": 1.6},
        }
        for name, look in looks.items():
            numbers = [values[name] for values in found]
            marks += axes.plot(numbers, places, linestyle="", label=name, **({"markersize": 5} | look))
        ticks = [
            f"{short(facts.labels[label])}  {values['support']:,}" for label, values in zip(order, found, strict=True)
        ]
        axes.set_yticks(places, ticks)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(-0.015, 1.015)
        for place, label, values in zip(places, order, found, strict=True):
            shares = ", ".join(
                f"{'F1' if name == 'f1' else name} {values[name]:.3f}"
                for name in ("f1", "precision", "recall", "threshold")
            )
            message = f"{facts.labels[label]}: {shares}, in {values['support']:,} rows"
            spot(axes, (-0.015, 1.015), (place - 0.5, place + 0.5), message)
        axes.grid(axis="y", visible=False)
        axes.set_title(f"Scores by label ({facts.split})")
        legend(figure, handles=marks, ncols=4)
    return figure


def precision_recall(facts: RunFacts) -> Figure:
    """Draw precision over recall, one small chart per label, with the most frequent label first."""
    count = len(facts.labels)
    columns = min(4, count)
    lines = -(-count // columns)
    # Positions are computed here in inches: Matplotlib's layout of 28 charts takes longer than drawing them.
    left, right, bottom, top, between, above = 0.45, 0.1, 0.4, 0.55, 0.16, 0.3
    wide = (WIDTH - left - right - between * (columns - 1)) / columns
    tall = min(wide, 1.5 if count > 2 else 2.6)
    height = bottom + top + lines * tall + (lines - 1) * above
    with styled():
        figure = Figure(figsize=(WIDTH, height))
        for place, label in enumerate(facts.by_support()):
            line, column = divmod(place, columns)
            from_left, from_bottom = left + column * (wide + between), height - top - line * (tall + above) - tall
            axes = figure.add_axes((from_left / WIDTH, from_bottom / height, wide / WIDTH, tall / height))
            _precision_recall(axes, facts, label, letters=56 // columns)
            below = place + columns >= count
            axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"] if below else [])
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"] if column == 0 else [])
            axes.tick_params(length=0, labelsize=7, pad=2)
            if place == (lines - 1) * columns:
                axes.set_xlabel("recall", fontsize=8, loc="left", labelpad=1)
            if place == 0:
                axes.set_ylabel("precision", fontsize=8, labelpad=1)
        figure.text(
            0.1 / WIDTH,
            1 - 0.08 / height,
            f"Precision and recall ({facts.split})",
            va="top",
            weight="bold",
            fontsize=11,
        )
        marks = [
            Line2D([], [], color=ORANGE, marker="o", linestyle="", markeredgecolor=_DARK, label="at the threshold"),
            Line2D([], [], color=_GREY, linestyle=":", label="share of rows that have it"),
        ]
        figure.legend(handles=marks, loc="upper right", ncols=2, fontsize=8, borderaxespad=0.1)
    return figure


def _precision_recall(axes: Axes, facts: RunFacts, label: int, *, letters: int) -> None:
    axes.set_xlim(-0.02, 1.04)
    axes.set_ylim(-0.02, 1.04)
    axes.set_title(short(facts.labels[label], letters), fontsize=8, pad=3)
    curve = facts.curve(label)
    if curve is None:
        axes.text(0.5, 0.5, "no row has it", ha="center", va="center", color=_GREY, fontsize=8)
        return
    axes.set_title(f"AP {curve.average:.2f}", fontsize=8, loc="right", weight="normal", pad=3)
    for point in _spread(len(curve.recall), 20):
        left = curve.recall[point[0] - 1] if point[0] else 0.0
        message = (
            f"{facts.labels[label]}: recall {curve.recall[point[-1]]:.2f}, precision {curve.precision[point[-1]]:.2f}"
        )
        spot(axes, (left, curve.recall[point[-1]]), (0, 1), message)
    axes.axhline(float(facts.truth[facts.known[:, label], label].mean()), color=_GREY, linestyle=":", linewidth=1)
    axes.step(
        np.append(0, curve.recall),
        np.append(curve.precision[0], curve.precision),
        where="pre",
        color=BLUE,
        linewidth=1.3,
    )
    if facts.decisions[:, label].any():
        chosen = facts.of_label(label)
        axes.plot(
            chosen["recall"], chosen["precision"], "o", color=ORANGE, markeredgecolor=_DARK, markeredgewidth=0.7,
            markersize=5, clip_on=False, zorder=3,
        )  # fmt: skip
    else:
        axes.text(0.97, 0.95, "never predicted", ha="right", va="top", color=_GREY, fontsize=7)


def _spread(count: int, parts: int) -> list[np.ndarray]:
    """Split the numbers from 0 to count - 1 into at most `parts` parts of about equal length."""
    return np.array_split(np.arange(count), min(count, parts))


def reliability(facts: RunFacts) -> Figure:
    """Draw a reliability diagram: of the rows with a predicted probability of 30 %, do 30 % have the label?"""
    count, mean, positive = facts.bins()
    some = count > 0
    middles, width = (np.arange(BINS) + 0.5) / BINS, 1 / BINS
    with styled():
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1.2)
        above.bar(middles[some], positive[some], width * 0.94, color=SKY, alpha=0.55)
        low, high = _interval(positive[some], count[some])
        above.vlines(mean[some], low, high, color=BLUE, linewidth=1.2)
        above.plot(mean[some], positive[some], "o", color=BLUE, markersize=5)
        above.set_xlim(0, 1)
        above.set_ylim(0, 1)
        for place in np.flatnonzero(some):
            message = (
                f"Probability {mean[place]:.3f} on average: {positive[place]:.3f} have the label, of {count[place]:,}"
            )
            for axes, most in ((above, 1.0), (below, 2.0 * count.max())):
                spot(axes, (place / BINS, (place + 1) / BINS), (0.5 if axes is below else 0.0, most), message)
        above.set_ylabel("share that has the label")
        scores = facts.scores
        above.set_title(
            f"Reliability ({facts.split}): ECE {scores['ece']:.3f}, Brier {scores['brier']:.3f}, "
            f"{scores['probabilities']} probabilities"
        )
        below.bar(middles[some], count[some], width * 0.94, color=COLOURS[facts.split])
        below.set_yscale("log")
        below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")  # Matplotlib's default uses its math markup
        below.yaxis.set_minor_formatter(NullFormatter())
        below.set_ylim(0.5, count.max() * 2)
        below.set_ylabel("how many")
        below.set_xlabel("probability")
    return figure


def _interval(share: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of the 95 % interval of a proportion (Wilson, 1927)."""
    z = 1.96
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * np.sqrt(share * (1 - share) / rows + (z / rows) ** 2 / 4) / (1 + z**2 / rows)
    return middle - half, middle + half


def probabilities(facts: RunFacts) -> Figure:
    """Draw the probabilities of rows with and without each label, with the most frequent label first."""
    order = facts.by_support()
    with one(WIDTH, 1.3 + 0.36 * len(order)) as (figure, axes):
        for have, name, offset, colour in ((True, "have the label", -0.18, BLUE), (False, "do not", 0.18, ORANGE)):
            groups = [facts.of_rows(label, have) for label in order]
            places = np.array([place + offset for place, group in enumerate(groups) if len(group)])
            spread = np.array([np.quantile(group, [0.05, 0.25, 0.5, 0.75, 0.95]) for group in groups if len(group)])
            if len(places):
                least, lower, middle, upper, most = spread.T
                axes.hlines(places, least, most, color=colour, linewidth=1)
                axes.barh(places, upper - lower, 0.28, left=lower, color=colour, label=name)
                axes.plot(middle, places, "o", color=colour, markerfacecolor="white", markersize=5)
        cuts = facts.thresholds[order]
        places = np.arange(len(order))
        axes.vlines(cuts, places - 0.42, places + 0.42, color=_DARK, linewidth=1.6, label="threshold")
        axes.set_yticks(places, [short(facts.labels[label]) for label in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlim(-0.015, 1.015)
        for place, label in enumerate(order):
            message = f"{facts.labels[label]}: threshold {facts.thresholds[label]:.3f}"
            for have, name in ((True, "with it"), (False, "without it")):
                group = facts.of_rows(label, have)
                if len(group):
                    lower, middle, upper = np.quantile(group, [0.25, 0.5, 0.75])
                    message += f"; rows {name}: median {middle:.3f}, middle half {lower:.3f} to {upper:.3f}"
            spot(axes, (-0.015, 1.015), (place - 0.5, place + 0.5), message)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(
            "probability (bar: the middle half of the rows, dot: the median, line: all but 5 % at either end)"
        )
        axes.set_title(f"Probabilities ({facts.split})")
        legend(figure)
    return figure


def co_occurrence(facts: RunFacts) -> Figure:
    """Draw for each pair of labels the percentage of rows with the first that have the second: gold and predicted."""
    parts = [100 * shares for shares in facts.given()]
    for shares in parts:
        np.fill_diagonal(shares, np.nan)  # the diagonal is always 100 % and would dominate the colour scale
    finite = np.concatenate([shares[np.isfinite(shares)] for shares in parts])
    most = float(max(finite.max(initial=0), 1))
    count = len(facts.labels)
    beside = count <= _BESIDE
    cell = (WIDTH / 2 - 1.2) / count if beside else (WIDTH - 2.2) / count
    side = max(1.5, count * min(cell, 0.34)) + 1.3
    with styled():
        size = (WIDTH, side) if beside else (WIDTH, 2 * side)
        figure = Figure(figsize=size, layout="constrained")
        axes: Any = figure.subplots(*((1, 2) if beside else (2, 1)))
        for place, shares, title in zip(axes, parts, ("gold", "predicted"), strict=True):
            place.set_facecolor("#eeeeee")
            image = heat_map(place, shares, facts.labels, most=most, cell=min(cell, 0.34))
            place.set_title(f"Labels that go together: {title}" if place is axes[0] else title.capitalize())
        figure.colorbar(image, ax=list(axes), shrink=0.6 if beside else 0.3, pad=0.01, aspect=30, label="%")
    return figure
