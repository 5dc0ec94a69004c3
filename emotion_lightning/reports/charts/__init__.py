"""Charts of datasets and runs: the common style, and the conversion to PNG files."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emotion_lightning.reports.charts.names import shown
from emotion_lightning.reports.pages import Picture, Spot
from emotion_lightning.runs.plain_text import printable

BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
"""The palette of Okabe and Ito, which colour-blind readers can distinguish."""

COLOURS = {"train": BLUE, "validation": ORANGE, "test": GREEN}

WIDTH = 7.5
"""Width of all full-width charts in inches, so that their text has the same size on a page."""

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar sign
}


_SPOTS = "emotion_lightning_spots"
"""Attribute of a figure with its tooltips: axes, corners and text of each area."""


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, with a resolution for high-density screens."""
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn instead
        figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def picture(figure: Figure) -> Picture:
    """Convert a figure to a picture for a page, with its tooltips."""
    data = png(figure)  # first, because only drawing computes the final positions
    spots = []
    for axes, corners, text in vars(figure).get(_SPOTS, []):
        inside = axes.bbox
        (x0, y0), (x1, y1) = np.clip(axes.transData.transform(corners), inside.min, inside.max)
        left, right, low, high = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        if right > left and high > low:
            width, height = figure.bbox.width, figure.bbox.height
            box = (left / width, 1 - high / height, (right - left) / width, (high - low) / height)
            spots.append(Spot(box, printable(text)))
    return Picture(data, spots)


def spot(axes: Axes, x: tuple[float, float], y: tuple[float, float], text: str) -> None:
    """Add a tooltip to a rectangle; `x` and `y` are its limits in data coordinates of the axes."""
    vars(axes.figure).setdefault(_SPOTS, []).append((axes, np.array([(x[0], y[0]), (x[1], y[1])], dtype=float), text))


@contextmanager
def styled() -> Iterator[None]:
    """Use the common style for charts drawn in this block."""
    with matplotlib.rc_context(_STYLE):
        yield


@contextmanager
def one(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure with one axes, in the common style."""
    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def legend(figure: Figure, **how: Any) -> None:
    """Add a legend outside the axes, where it hides nothing."""
    figure.legend(loc="outside upper right", **({"ncols": 3} | how))


def beside_line(axes: Axes, at: float, text: str, *, height: float = 0.9) -> None:
    """Write a text beside a vertical line, on the side that has room."""
    start, end = axes.get_xlim()
    left = at > start + 0.8 * (end - start)
    axes.annotate(
        text, (at, height), xycoords=("data", "axes fraction"), xytext=(-4 if left else 4, 0),
        textcoords="offset points", ha="right" if left else "left", color="#444444",
    )  # fmt: skip


_READABLE = 60
"""With more rows, a heat map has no numbers: they are too small to read, and thousands of them take long to draw."""


def heat_map(axes: Axes, shares: np.ndarray, names: Sequence[str], *, most: float, cell: float) -> Any:
    """Draw a heat map of percentages, with numbers if there is room; cells that are not finite stay empty.

    Args:
        axes: where to draw.
        shares: the percentages, [row, column].
        names: names of the rows, which are also those of the columns.
        most: percentage with the darkest colour.
        cell: width of a column in inches; the font size depends on it.
    """
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=most)
    size = min(9.0, 42 * cell)
    places, shown = range(len(names)), [short(name) for name in names]
    axes.set_xticks(places, shown, rotation=60, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(places, shown, fontsize=size)
    axes.grid(visible=False)
    for row, column in np.argwhere(np.isfinite(shares)):
        value = shares[row, column]
        tooltip = f"Of the rows with {names[row]}, {value:.1f} % also have {names[column]}"
        spot(axes, (column - 0.5, column + 0.5), (row - 0.5, row + 0.5), tooltip)
        if value >= 0.5 and len(names) <= _READABLE:
            colour = "white" if value > 0.6 * most else "#333333"
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=min(7.0, 32 * cell), color=colour,
                in_layout=False,  # inside the axes: measured for the layout, thousands of texts take seconds
            )  # fmt: skip
    return image


def short(name: str, letters: int = 24) -> str:
    """Shorten a name to at most `letters` characters; a name that no font can draw is replaced by its number."""
    name = printable(shown(name))
    return name if len(name) <= letters else name[: letters - 1] + "…"
