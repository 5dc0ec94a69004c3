"""The report about a dataset from the command `inspect`, as Markdown and as one HTML file."""

from typing import TYPE_CHECKING, Any

from emotion_lightning.reports import pages

if TYPE_CHECKING:
    from emotion_lightning.reports.data_facts import DataCard


def markdown(card: "DataCard", numbers: dict[str, str] | None = None) -> str:
    """Return the report as Markdown; it refers to charts in pictures/."""
    return pages.text("data_card", _content(card, numbers))


def html(card: "DataCard", pictures: dict[str, pages.Picture], numbers: dict[str, str] | None = None) -> str:
    """Return the report as a self-contained HTML page."""
    return pages.page("data_card", _content(card, numbers), pictures)


def sections(card: "DataCard", numbers: dict[str, str] | None = None) -> list[pages.Section]:
    """Return the tables and charts; `numbers` replaces label names that charts could not draw."""
    return [*pages.by_number(numbers or {}), _splits(card), _labels(card), *_pictures(), _weights(card)]


def _content(card: "DataCard", numbers: dict[str, str] | None) -> dict[str, Any]:
    chosen = {name: value for name, value in card.data.items() if value not in (None, [], False)}
    return {
        "title": card.data["option"],
        "settings": ", ".join(f"{name}={value}" for name, value in chosen.items() if name != "option"),
        "facts": pages.facts(card),
        "findings": card.findings(),
        "sections": sections(card, numbers),
        "examples": card.examples,
    }


def _splits(card: "DataCard") -> pages.Section:
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
    return pages.Section("Splits", note, columns=columns, rows=rows)


def _labels(card: "DataCard") -> pages.Section:
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
    return pages.Section("Labels", note, pictures=["label_rates"], columns=columns, rows=rows)


def _pictures() -> list[pages.Section]:
    return [
        pages.Section("Labels per row", pictures=["labels_per_row"]),
        pages.Section("Length of the texts", pictures=["token_lengths"]),
        pages.Section(
            "Labels that go together",
            "Of the rows of train with the label at the left, the share that has the label below too.",
            pictures=["co_occurrence"],
        ),
    ]


def _weights(card: "DataCard") -> pages.Section:
    rows = [[name, *(f"{card.weights[kind][i]:.2f}" for kind in card.weights)] for i, name in enumerate(card.labels)]
    note = "How much a positive counts against a negative, by the settings of loss=weighted_bce."
    return pages.Section("Positive weights", note, columns=["label", *card.weights], rows=rows)
