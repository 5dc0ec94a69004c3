"""Format a comparison of runs as sentences, tables and files."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emotion_lightning import config
from emotion_lightning.evaluation.bootstrap import Difference, Spread
from emotion_lightning.evaluation.run_groups import FinishedRun
from emotion_lightning.reports.pages import Section
from emotion_lightning.runs.plain_text import markdown_cell, markdown_line

_COST = {
    "trainable_parameters": "trained parameters",
    "train_seconds": "training, s",
    "peak_memory_bytes": "peak memory, MiB",
}


@dataclass
class Group:
    """Runs with the same settings.

    Attributes:
        name: the settings in which the group differs from the others.
        runs: the runs.
        values: for each metric, its value for each run.
        spreads: for each metric, mean, standard deviation and interval.
        below: for each metric, the difference between the best group and this one; empty for the best group.
    """

    name: str
    runs: list[FinishedRun]
    values: dict[config.Score, list[float]]
    spreads: dict[config.Score, Spread]
    below: dict[config.Score, Difference]

    def cost(self, name: str) -> float | None:
        """Return the mean of a cost over the runs; None if a run does not have it."""
        costs = [run.cost.get(name) for run in self.runs]
        known = [float(cost) for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        mean = sum(known) / len(known)
        return int(mean) if mean.is_integer() else mean


@dataclass
class Comparison:
    """The result of a comparison.

    Attributes:
        settings: of the command `compare`.
        rows: number of rows that were compared.
        groups: ordered by the first metric, the best group first.
        left_out: runs that were found but not compared, with the reasons.
    """

    settings: config.Compare
    rows: int
    groups: list[Group]
    left_out: list[str]

    @property
    def title(self) -> str:
        """The split, the number of texts and the threshold protocol."""
        protocols = {run.protocol for group in self.groups for run in group.runs}
        protocol = protocols.pop() if len(protocols) == 1 else "each run's own"
        return f"{self.settings.split.value}, {self.rows:,} texts, {protocol} thresholds"


# ----------------------------------------------------------------------------------------------------------- sentences


def sentences(found: Comparison) -> list[str]:
    """Return one sentence for each metric and each group but the best; see `sentence`."""
    best = found.groups[0]
    return [
        sentence(best, other, metric, confidence=found.settings.confidence)
        for other in found.groups[1:]
        for metric in found.settings.metrics
    ]


def sentence(best: Group, other: Group, metric: config.Score, *, confidence: float) -> str:
    """Say whether the best group differs from another one in a metric, and whether other seeds may change this."""
    apart = other.below[metric]
    noise = apart.p_holm > 1 - confidence
    above, shown = ("below", _turned(apart)) if apart.value < 0 and not noise else ("above", apart)
    points = f"{_points(shown.value)} points of {metric.value}"
    bounds = f"{confidence * 100:g} % {_points(shown.low)} to {_points(shown.high)}, {_chance(shown.p_holm)}"
    if noise:
        return f"{best.name} and {other.name} are within noise: {points} ({bounds})"
    seeds = ""
    if apart.p_seeds is not None:
        held = apart.p_seeds <= 1 - confidence
        seeds = f"; between seeds {_chance(apart.p_seeds)}" + ("" if held else ": other seeds may turn it")
    return f"{best.name} is {above} {other.name} by {points} ({bounds}){seeds}"


def notes(found: Comparison) -> list[str]:
    """Return notes that explain the numbers, and the runs that were left out."""
    settings = found.settings
    lines = [
        f"± is the standard deviation between runs, [ ] the {settings.confidence * 100:g} % interval over the rows, of "
        f"{settings.samples:,} bootstrap samples."
    ]
    if len(found.groups) > 1:
        holm = f", corrected by Holm's method for {len(found.groups) - 1} comparisons" if len(found.groups) > 2 else ""
        lines.append(
            f"Differences are to the best group over the same rows (paired bootstrap{holm}): p tells whether other "
            "texts could turn them. Whether other seeds could is told from three seeds each (Welch's t-test)."
        )
    if errors := [metric.value for metric in settings.metrics if config.falls(metric)]:
        lines.append(f"The lowest is the best of {', '.join(errors)}.")
    if merge := settings.data.merge:
        made = "; ".join(f"{new} ({', '.join(members)})" for new, members in merge.items())
        lines.append(f"Labels made of others: {made}. Each counts in gold and prediction where any of them does.")
    if settings.data.rename:
        lines.append(f"Labels renamed: {', '.join(f'{old} is {new}' for old, new in settings.data.rename.items())}.")
    if settings.data.drop_labels:
        lines.append(f"Labels left out: {', '.join(settings.data.drop_labels)}.")
    return lines + [f"Left out: {why}." for why in found.left_out]


def _turned(apart: Difference) -> Difference:
    return dataclasses.replace(apart, value=-apart.value, low=-apart.high, high=-apart.low)


def _points(share: float) -> str:
    # Adding 0 turns -0.0 into 0.0.
    return f"{round(100 * share, 1) + 0:.1f}"


def _chance(p: float) -> str:
    return f"p={p:.3f}" if p >= 0.001 else "p<0.001"


# -------------------------------------------------------------------------------------------------------------- tables


def sections(found: Comparison) -> list[Section]:
    """Return one table for each metric, and one with the costs."""
    return [*[_metric(found, metric) for metric in found.settings.metrics], _costs(found)]


def _metric(found: Comparison, metric: config.Score) -> Section:
    percent = f"{found.settings.confidence * 100:g} %"
    rows = []
    for group in found.groups:
        spread, apart = group.spreads[metric], group.below.get(metric)
        rows.append(
            [
                group.name,
                str(len(group.runs)),
                f"{spread.mean:.3f} ± {'–' if spread.sd is None else f'{spread.sd:.3f}'}",
                f"{spread.least:.3f}..{spread.most:.3f}" if len(group.runs) > 1 else "–",
                f"[{spread.low:.3f}, {spread.high:.3f}]",
                "–" if apart is None else f"{_points(-apart.value)} [{_points(-apart.high)}, {_points(-apart.low)}]",
                "–" if apart is None else _chance(apart.p_holm).removeprefix("p").removeprefix("="),
            ]
        )
    columns = ["group", "runs", "mean ± sd", "min..max", percent, "points against best", "p"]
    return Section(f"{metric.value}: {found.title}", columns=columns, rows=rows)


def _costs(found: Comparison) -> Section:
    rows = []
    for group in found.groups:
        parameters, seconds, memory = (group.cost(name) for name in _COST)
        rows.append(
            [
                group.name,
                "–" if parameters is None else f"{parameters:,.0f}",
                "–" if seconds is None else f"{seconds:,.1f}",
                "–" if memory is None else f"{memory / 2**20:,.0f}",
            ]
        )
    return Section("Cost of a run", columns=["group", *_COST.values()], rows=rows)


# --------------------------------------------------------------------------------------------------------------- files


def markdown(found: Comparison) -> str:
    """Return the sentences, tables, notes and run folders as Markdown."""
    parts = ["# Comparison of runs", "", *[f"- {markdown_line(text)}" for text in sentences(found)], ""]
    for section in sections(found):
        parts += [
            f"## {markdown_line(section.title)}",
            "",
            _row(section.columns),
            "|---|" + "---:|" * (len(section.columns) - 1),
        ]
        parts += [*[_row(row) for row in section.rows], ""]
    parts += [*[f"- {markdown_line(note)}" for note in notes(found)], "", "## Runs", ""]
    parts += [
        f"- {markdown_line(group.name)}: {markdown_line(', '.join(str(run.folder) for run in group.runs))}"
        for group in found.groups
    ]
    return "\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown_cell(text) for text in cells) + " |"


def table(found: Comparison) -> str:
    """Return CSV with one line for each group: metrics with intervals, differences to the best group, costs."""
    lines = []
    for group in found.groups:
        values: dict[str, Any] = {"group": group.name, "runs": len(group.runs)}
        for metric in found.settings.metrics:
            apart = group.below.get(metric)
            for name, number in dataclasses.asdict(group.spreads[metric]).items():
                values[f"{metric.value}_{name}"] = number
            for name in (field.name for field in dataclasses.fields(Difference)):
                values[f"{metric.value}_below_best_{name}"] = None if apart is None else getattr(apart, name)
        lines.append(values | {name: group.cost(name) for name in _COST})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def plain(found: Comparison, *, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the whole comparison as plain values for JSON; `settings` are those of the command."""
    return {
        "settings": settings,
        "rows": found.rows,
        "groups": [
            {
                "name": group.name,
                "settings": group.runs[0].settings,
                "runs": [
                    {"folder": str(run.folder), "seed": run.seed}
                    | {metric.value: group.values[metric][i] for metric in found.settings.metrics}
                    for i, run in enumerate(group.runs)
                ],
                "metrics": {metric.value: dataclasses.asdict(spread) for metric, spread in group.spreads.items()},
                "below_best": {metric.value: dataclasses.asdict(apart) for metric, apart in group.below.items()},
                "cost": {name: group.cost(name) for name in _COST},
            }
            for group in found.groups
        ],
        "sentences": sentences(found),
        "left_out": found.left_out,
    }
