"""Pages that need no network: a data card as Markdown and as one HTML file, and what it shares with a run's report."""

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emotion_lightning.config import redaction

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


def markdown(card: "DataCard", numbers: dict[str, str] | None = None) -> str:
    """The card as Markdown; its pictures lie beside it in pictures/."""
    return text("data_card", _content(card, numbers))


def html(card: "DataCard", pictures: dict[str, Picture], numbers: dict[str, str] | None = None) -> str:
    """The card as a page of its own, with the pictures in it."""
    return page("data_card", _content(card, numbers), pictures)


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


def sections(card: "DataCard", numbers: dict[str, str] | None = None) -> list[Section]:
    """The tables and pictures of a card; `numbers` are those of labels that pictures could not name."""
    return [*by_number(numbers or {}), _splits(card), _labels(card), *_pictures(), _weights(card)]


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
        loader=jinja2.PackageLoader("emotion_lightning"), autoescape=escape, trim_blocks=False,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"line": line, "cell": cell, "excerpt": excerpt, "anchor": anchor}
    return environment


def line(text: str) -> str:
    """Text as one line of Markdown in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>#~$&])", r"\\\1", printable(text))


def cell(text: str) -> str:
    """Text as a cell of a Markdown table."""
    return line(text).replace("|", "\\|")


def printable(text: str) -> str:
    """Text as one line without control characters, which a terminal would obey."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", str(text)).split())


def excerpt(text: str, letters: int = 400) -> str:
    """Text as one line of a length that can be read, which says how much it leaves out."""
    line = printable(text)
    return line if len(line) <= letters else f"{line[:letters]}… ({len(line):,} letters)"


def anchor(title: str) -> str:
    """The name that a link within the page finds a heading by.

    >>> anchor("Most wrong")
    'most-wrong'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _content(card: "DataCard", numbers: dict[str, str] | None) -> dict[str, Any]:
    chosen = {name: value for name, value in card.data.items() if value not in (None, [], False)}
    return {
        "title": card.data["option"],
        "settings": ", ".join(f"{name}={value}" for name, value in chosen.items() if name != "option"),
        "facts": facts(card),
        "findings": card.findings(),
        "sections": sections(card, numbers),
        "examples": card.examples,
    }


def _splits(card: "DataCard") -> Section:
    rows = [
        [
            split.name,
            f"{split.rows:,}",
            f"{split.cardinality:.2f}" if split.counts is not None else "–",
            f"{split.without_label:.1%}" if split.counts is not None else "–",
            f"{split.lengths.mean():.1f}",
            *[f"{split.quantile(share):,}" for share in (0.5, 0.95, 0.99)],
            f"{int(split.lengths.max()):,}",
            f"{split.cut(card.max_tokens):.2%}",
            f"{split.duplicates:,}",
            split.hash[:12],
        ]
        for split in card.splits
    ]
    columns = ["split", "rows", "labels/row", "no label", "tokens: mean", "median", "95 %", "99 %", "max",
               f"cut at {card.max_tokens}", "repeated texts", "sha256"]  # fmt: skip
    files = "; ".join(f"{name} sha256 {value}" for name, value in card.hashes.items())
    note = f"Tokens of {card.tokenizer}, special ones included. The hash is of ids, texts and labels. Read: {files}."
    return Section("Splits", note, columns=columns, rows=rows)


def _labels(card: "DataCard") -> Section:
    columns = ["label"]
    for split in card.labelled:
        columns += [split.name, "%"] + (["shift"] if split is not card.train else [])
    rows = []
    for i, name in enumerate(card.labels):
        row = [name]
        for split in card.labelled:
            assert split.counts is not None
            row += [f"{split.counts[i]:,}", f"{100 * split.rates[i]:.2f}"]
            if split is not card.train:
                row.append(f"{card.shift(split)[i]:+.1f}")
        rows.append(row)
    note = (
        "Rows that have the label and their share. Shift: how far the share is from that of train, in standard errors; "
        "beyond ±3 is more than chance."
    )
    return Section("Labels", note, pictures=["label_rates"], columns=columns, rows=rows)


def _pictures() -> list[Section]:
    return [
        Section("Labels per row", pictures=["labels_per_row"]),
        Section("Length of the texts", pictures=["token_lengths"]),
        Section(
            "Labels that go together",
            "Of the rows of train with the label at the left, the share that has the label below too.",
            pictures=["co_occurrence"],
        ),
    ]


def _weights(card: "DataCard") -> Section:
    rows = [[name, *(f"{card.weights[kind][i]:.2f}" for kind in card.weights)] for i, name in enumerate(card.labels)]
    note = "How much a positive counts against a negative, by the settings of loss=weighted_bce."
    return Section("Positive weights", note, columns=["label", *card.weights], rows=rows)
