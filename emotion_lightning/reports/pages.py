"""Render Markdown and self-contained HTML pages from templates."""

import base64
import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emotion_lightning.config import redaction
from emotion_lightning.runs.plain_text import excerpt, markdown_cell, markdown_line

if TYPE_CHECKING:
    from emotion_lightning.reports.data_facts import DataFacts


@dataclass
class Section:
    """A section of a page: a heading with charts and a table.

    Attributes:
        title: the heading.
        note: explanation of the content.
        pictures: file names of the charts without extension.
        columns: column names of the table.
        rows: cells of the table.
        looks: CSS class of a row (see page.css) by row number.
        warning: warning to show above the content.
        slider: data from which page.js recomputes the table for one threshold for all labels; None without a slider.
    """

    title: str
    note: str = ""
    pictures: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    looks: dict[int, str] = field(default_factory=dict)
    warning: str = ""
    slider: dict[str, Any] | None = None


@dataclass
class Spot:
    """An area of a picture with a tooltip.

    Attributes:
        box: left, top, width and height, as fractions of the picture.
        text: text of the tooltip.
    """

    box: tuple[float, float, float, float]
    text: str

    @property
    def place(self) -> str:
        """The box as a CSS style."""
        names = ("left", "top", "width", "height")
        return ";".join(f"{name}:{100 * share:.2f}%" for name, share in zip(names, self.box, strict=True))


@dataclass
class Picture:
    """A picture with tooltips.

    Attributes:
        png: bytes of the PNG file.
        spots: areas with tooltips.
    """

    png: bytes
    spots: list[Spot] = field(default_factory=list)


def render_markdown(name: str, content: dict[str, Any]) -> str:
    """Render a Markdown page from the template `name`, with secrets redacted."""
    return redaction.values_of_environment(_environment(escape=False).get_template(f"{name}.md.j2").render(content))


def render_page(name: str, content: dict[str, Any], pictures: dict[str, Picture]) -> str:
    """Render a self-contained HTML page from the template `name`, with secrets redacted."""
    encoded = {
        name: {"png": base64.b64encode(picture.png).decode(), "spots": picture.spots}
        for name, picture in pictures.items()
    }
    made = _environment(escape=True).get_template(f"{name}.html.j2").render(content, pictures=encoded)
    return redaction.values_of_environment(made)


def main_facts(facts: "DataFacts") -> list[tuple[str, str]]:
    """Return the main facts about a dataset as pairs of name and value."""
    train = facts.train
    return [
        ("rows: " + " / ".join(split.name for split in facts.splits), " / ".join(f"{s.rows:,}" for s in facts.splits)),
        ("labels", f"{len(facts.labels)}"),
        ("labels in a row of train", f"{train.cardinality:.2f}"),
        ("of train without a label", f"{train.without_label:.1%}"),
        (f"tokens in 95 % of the texts ({facts.tokenizer})", f"≤ {train.quantile(0.95)}"),
    ]


def by_number(numbers: dict[str, str]) -> list[Section]:
    """Return a table that explains the numbers shown in charts instead of labels; empty if there are none."""
    note = "No installed font has the letters of these labels: the pictures on this page show their numbers."
    rows = [[number, name] for name, number in numbers.items()]
    return [Section("Labels by number", note, columns=["number", "label"], rows=rows)] if rows else []


@functools.cache
def _environment(*, escape: bool) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("emotion_lightning.reports"), autoescape=escape, trim_blocks=False,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"line": markdown_line, "cell": markdown_cell, "excerpt": excerpt, "anchor": anchor}
    return environment


def anchor(title: str) -> str:
    """Return the HTML id of a heading, for links within the page.

    >>> anchor("Most wrong")
    'most-wrong'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")
