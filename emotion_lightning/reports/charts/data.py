"""Charts of a dataset. Each function returns one figure; the caller decides where to save it."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from emotion_lightning.reports.charts import COLOURS, WIDTH, beside_line, heat_map, legend, names, one, short, spot
from emotion_lightning.reports.data_facts import DataFacts


def data_pictures(facts: DataFacts) -> dict[str, Figure]:
    """Return all charts of a dataset by file name."""
    drawn: dict[str, Callable[[DataFacts], Figure]] = {
        "label_rates": label_rates,
        "labels_per_row": labels_per_row,
        "token_lengths": token_lengths,
        "co_occurrence": co_occurrence,
    }
    with names.drawn(facts.labels):
        return {name: draw(facts) for name, draw in drawn.items()}


def label_rates(facts: DataFacts) -> Figure:
    """Draw the rate of each label in each split, with the most frequent label of train first."""
    order = np.argsort(-facts.train.rates, kind="stable")
    places = np.arange(len(order))
    height = 0.8 / len(facts.labelled)
    with one(WIDTH, 1.1 + 0.16 * len(order) * (1 + len(facts.labelled) / 2)) as (figure, axes):
        for i, split in enumerate(facts.labelled):
            offset = (i - (len(facts.labelled) - 1) / 2) * height
            axes.barh(places + offset, 100 * split.rates[order], height, label=split.name, color=COLOURS[split.name])
        axes.set_yticks(places, [short(facts.labels[i]) for i in order])
        most = max(100 * float(split.rates.max()) for split in facts.labelled) * 1.05
        for place, i in zip(places, order, strict=True):
            rates = ", ".join(f"{split.name} {100 * split.rates[i]:.2f} %" for split in facts.labelled)
            spot(axes, (0, most), (place - 0.5, place + 0.5), f"{facts.labels[i]}: {rates} of the rows")
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("rows that have the label, %")
        axes.set_title("Label rates")
        legend(figure)
    return figure


def labels_per_row(facts: DataFacts) -> Figure:
    """Draw the distribution of the number of labels per row."""
    most = max(len(split.cardinalities) for split in facts.labelled if split.cardinalities is not None)
    width = 0.8 / len(facts.labelled)
    with one(WIDTH, 3.2) as (figure, axes):
        for i, split in enumerate(facts.labelled):
            assert split.cardinalities is not None
            shares = np.pad(split.cardinalities, (0, most - len(split.cardinalities))) / split.rows
            offset = (i - (len(facts.labelled) - 1) / 2) * width
            name = f"{split.name} (mean {split.cardinality:.2f})"
            axes.bar(np.arange(most) + offset, 100 * shares, width, label=name, color=COLOURS[split.name])
        axes.set_xticks(range(most))
        for labels in range(most):
            message = ", ".join(
                f"{split.name} {100 * split.cardinalities[labels] / split.rows:.2f} %"
                for split in facts.labelled
                if split.cardinalities is not None and labels < len(split.cardinalities)
            )
            spot(axes, (labels - 0.5, labels + 0.5), axes.get_ylim(), f"{labels} labels in a row: {message}")
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("labels in a row")
        axes.set_ylabel("rows, %")
        axes.set_title("Labels per row")
        legend(figure)
    return figure


def token_lengths(facts: DataFacts) -> Figure:
    """Draw the distribution of text lengths in tokens, and the limit data.max_tokens."""
    # The last bar contains all longer texts; otherwise a few very long ones would squeeze the others into one bar.
    most = max(int(split.lengths.max()) for split in facts.splits)
    end = max(facts.max_tokens, facts.suggested_tokens) + 8
    width = -(-min(most + 1, end) // 50)
    edges = np.arange(0, min(most + 1, end) + width, width)
    with one(WIDTH, 3.2) as (figure, axes):
        for split in facts.splits:
            axes.hist(
                np.minimum(split.lengths, edges[-1] - 0.5),
                bins=edges.tolist(),
                weights=np.full(split.rows, 100 / split.rows),
                histtype="step",
                linewidth=1.5,
                color=COLOURS[split.name],
                label=split.name,
            )
        axes.set_xlim(0, edges[-1])
        if facts.max_tokens <= edges[-1]:
            axes.axvline(facts.max_tokens, color="#444444", linestyle="--", linewidth=1)
            beside_line(axes, facts.max_tokens, f"data.max_tokens={facts.max_tokens}")
        axes.set_xlabel("tokens in a text" + (" (the last bar: and more)" if most >= edges[-1] else ""))
        axes.set_ylabel("texts, %")
        axes.set_title("Length of the texts")
        legend(figure)
    return figure


def co_occurrence(facts: DataFacts) -> Figure:
    """Draw for each pair of labels the percentage of train rows with the first label that also have the second."""
    shares = 100 * facts.given()
    np.fill_diagonal(shares, np.nan)  # the diagonal is always 100 % and would dominate the colour scale
    count = len(facts.labels)
    # With many labels, columns become narrower instead of the picture wider: one of 120 labels took half a minute.
    cell = 0.34 if count <= 60 else 20 / count
    side = max(4.0, 2.4 + cell * count)
    with one(side, side - 0.2) as (figure, axes):
        most = float(np.nanmax(shares)) if np.isfinite(shares).any() else 1.0
        image = heat_map(axes, shares, facts.labels, most=most, cell=cell)
        axes.set_xlabel("also has, %")
        axes.set_ylabel("rows with")
        axes.set_title("Labels that go together (train)")
        figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01, aspect=30, label="%")
    return figure
