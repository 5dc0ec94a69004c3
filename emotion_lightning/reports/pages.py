"""Pages that need no network: a data card as Markdown and as one HTML file, and what it shares with a run's report."""

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emotion_lightning.config import redaction
from emotion_lightning.runs.plain_text import excerpt, markdown_cell, markdown_line

if TYPE_CHECKING:
    from emotion_lightning.reports.data_facts import DataCard


@dataclass
class Section:
    """A heading with pictures and a table under it.

    Attributes:
        title: the heading.
        note: how to read it.
        pictures: names of their files, without the ending.
        columns: heads of the table.
        rows: its cells.
        looks: classes of page.css by the row that has them.
        warning: what must be known before anything here is believed.
        slider: what page.js computes the table from, where one threshold can be chosen for all labels.
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
    """A part of a picture that shows a value when it is pointed at.

    Attributes:
        box: left, top, width and height, as shares of the picture.
        text: what it shows.
    """

    box: tuple[float, float, float, float]
    text: str

    @property
    def place(self) -> str:
        """The same as a style of HTML."""
        names = ("left", "top", "width", "height")
        return ";".join(f"{name}:{100 * share:.2f}%" for name, share in zip(names, self.box, strict=True))


@dataclass
class Picture:
    """A picture, and what its parts say.

    Attributes:
        png: the file.
        spots: parts with a value.
    """

    png: bytes
    spots: list[Spot] = field(default_factory=list)


def text(name: str, content: dict[str, Any]) -> str:
    """A Markdown page from the template of this name."""
    return redaction.values_of_environment(_environment(escape=False).get_template(f"{name}.md.j2").render(content))


def page(name: str, content: dict[str, Any], pictures: dict[str, Picture]) -> str:
    """A page of its own from the template of this name, with the pictures in it."""
    encoded = {
        name: {"png": base64.b64encode(picture.png).decode(), "spots": picture.spots}
        for name, picture in pictures.items()
    }
    made = _environment(escape=True).get_template(f"{name}.html.j2").render(content, pictures=encoded)
    return redaction.values_of_environment(made)


def facts(card: "DataCard") -> list[tuple[str, str]]:
    """What a data set is, each part with its value."""
    train = card.train
    return [
        ("rows: " + " / ".join(split.name for split in card.splits), " / ".join(f"{s.rows:,}" for s in card.splits)),
        ("labels", f"{len(card.labels)}"),
        ("labels in a row of train", f"{train.cardinality:.2f}"),
        ("of train without a label", f"{train.without_label:.1%}"),
        (f"tokens in 95 % of the texts ({card.tokenizer})", f"≤ {train.quantile(0.95)}"),
    ]


def by_number(numbers: dict[str, str]) -> list[Section]:
    """The table that explains the numbers in pictures, if there are any."""
    note = "No installed font has the letters of these labels: the pictures on this page show their numbers."
    rows = [[number, name] for name, number in numbers.items()]
    return [Section("Labels by number", note, columns=["number", "label"], rows=rows)] if rows else []


def _environment(*, escape: bool) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("emotion_lightning.reports"), autoescape=escape, trim_blocks=False,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"line": markdown_line, "cell": markdown_cell, "excerpt": excerpt, "anchor": anchor}
    return environment


def anchor(title: str) -> str:
    """The name that a link within the page finds a heading by.

    >>> anchor("Most wrong")
    'most-wrong'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")
