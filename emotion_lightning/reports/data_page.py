"""The report about a dataset from the command `inspect`, as Markdown and as one HTML file."""

from typing import TYPE_CHECKING, Any

from emotion_lightning import config
from emotion_lightning.reports import group_facts, pages

if TYPE_CHECKING:
    from emotion_lightning.reports.data_facts import DataFacts


def markdown(facts: "DataFacts", numbers: dict[str, str] | None = None) -> str:
    """Return the report as Markdown; it refers to charts in pictures/."""
    return pages.render_markdown("data_card", _content(facts, numbers))


def html(facts: "DataFacts", pictures: dict[str, pages.Picture], numbers: dict[str, str] | None = None) -> str:
    """Return the report as a self-contained HTML page."""
    return pages.render_page("data_card", _content(facts, numbers), pictures)


def sections(facts: "DataFacts", numbers: dict[str, str] | None = None) -> list[pages.Section]:
    """Return the tables and charts; `numbers` replaces label names that charts could not draw."""
    return [
        *pages.by_number(numbers or {}),
        _read(facts),
        _splits(facts),
        _labels(facts),
        *_annotators(facts),
        *_groups(facts),
        *_pictures(),
        _weights(facts),
        *_near(facts),
    ]


def _content(facts: "DataFacts", numbers: dict[str, str] | None) -> dict[str, Any]:
    chosen = {name: value for name, value in facts.data.items() if value not in (None, [], {}, False)}
    if chosen.get("template") != config.CHAT:
        chosen.pop("question", None)  # only the chat template asks it
    if chosen.get("long_texts") != config.LongTexts.windows:
        for name in ("window_overlap", "max_windows", "join_windows"):
            chosen.pop(name, None)
    if chosen.get("long_texts") == config.LongTexts.cut_end:
        del chosen["long_texts"]
    return {
        "title": facts.data["option"],
        "settings": ", ".join(f"{name}={value}" for name, value in chosen.items() if name != "option"),
        "facts": pages.main_facts(facts),
        "findings": facts.findings(),
        "sections": sections(facts, numbers),
        "examples": facts.examples,
    }


def _read(facts: "DataFacts") -> pages.Section:
    rows = [[name, value] for name, value in facts.read]
    return pages.Section("How the data was read", "The same as in data.json.", columns=["what", "as"], rows=rows)


def _splits(facts: "DataFacts") -> pages.Section:
    rows = [
        [
            split.name,
            f"{split.rows:,}",
            f"{split.cardinality:.2f}" if split.counts is not None else "–",
            f"{split.without_label:.1%}" if split.counts is not None else "–",
            f"{split.lengths.mean():.1f}",
            *[f"{split.quantile(share):,}" for share in (0.5, 0.95, 0.99)],
            f"{int(split.lengths.max()):,}",
            f"{split.truncated(facts.max_tokens):.2%}",
            f"{split.duplicates:,}",
            split.hash[:12],
        ]
        for split in facts.splits
    ]
    columns = ["split", "rows", "labels/row", "no label", "tokens: mean", "median", "95 %", "99 %", "max",
               f"cut at {facts.max_tokens}", "repeated texts", "sha256"]  # fmt: skip
    files = "; ".join(f"{name} sha256 {value}" for name, value in facts.hashes.items())
    note = f"Tokens of {facts.tokenizer}, special ones included. The hash is of ids, texts and labels. Read: {files}."
    return pages.Section("Splits", note, columns=columns, rows=rows)


def _labels(facts: "DataFacts") -> pages.Section:
    columns = ["label"]
    for split in facts.labelled:
        columns += [split.name, "%"] + (["shift"] if split is not facts.train else [])
        columns += (["mean share"] if split.shares is not None else []) + (["open"] if split.open is not None else [])
    rows = []
    for i, name in enumerate(facts.labels):
        row = [name]
        for split in facts.labelled:
            assert split.counts is not None
            row += [f"{split.counts[i]:,}", f"{100 * split.rates[i]:.2f}"]
            if split is not facts.train:
                row.append(f"{facts.shift(split)[i]:+.1f}")
            row += [f"{split.shares[i]:.3f}"] if split.shares is not None else []
            row += [f"{split.open[i]:,}"] if split.open is not None else []
        rows.append(row)
    note = (
        "Rows that have the label and their share. Shift: how far the share is from that of train, in standard errors; "
        "beyond ±3 is more than chance."
    )
    if facts.train.shares is not None:
        note += (
            " Mean share: what is learned, over all rows; a row has the label from the share on that counts as present."
        )
    if facts.train.open is not None:
        note += " Open: rows that do not say whether they have the label; they count in no share."
    return pages.Section("Labels", note, pictures=["label_rates"], columns=columns, rows=rows)


def _annotators(facts: "DataFacts") -> list[pages.Section]:
    """Tables of the agreement of annotators, and of the texts over which they split; empty without annotators."""
    found = facts.annotation
    if found is None:
        return []
    rows = [
        [name, "–" if own.alpha is None else f"{own.alpha:.3f}", f"{own.split:,}", f"{own.split / found.texts:.1%}"]
        for name, own in found.labels.items()
    ]
    note = (
        f"{found.sentence()} Alpha is 1 where they agree on every text and 0 where they agree as by chance. It "
        "is computed over all splits, before rows were joined."
    )
    tables = [pages.Section("Agreement of annotators", note, columns=["label", "alpha", "texts split", "%"], rows=rows)]
    for name, values in found.groups.items() if len(facts.labels) <= group_facts.MANY else ():
        rows = [
            [value, f"{own.texts:,}", *("–" if alpha is None else f"{alpha:.3f}" for alpha in own.alpha.values())]
            for value, own in values.items()
        ]
        note = "Alpha over the texts of each group alone, which groups that differ in their labels do not raise."
        columns = [name, "texts", *facts.labels]
        tables.append(pages.Section(f"Agreement by {name}", note, columns=columns, rows=rows))
    if found.examples:
        shown = [
            [text, ", ".join(f"{name} {share:.2f}" for name, share in shares.items())]
            for text, shares in found.examples
        ]
        note = "The texts over which they split the most, with the share of them who gave each disputed label."
        tables.append(pages.Section("Texts that annotators split over", note, columns=["text", "shares"], rows=shown))
    return tables


def _groups(facts: "DataFacts") -> list[pages.Section]:
    by_split = {split.name: split.groups for split in facts.splits}
    return group_facts.sections(by_split, facts.labels, max_tokens=facts.max_tokens)


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


def _near(facts: "DataFacts") -> list[pages.Section]:
    rows = [
        [f"{near.first}, {near.second}", pair.first, pair.second, f"{pair.similarity:.2f}"]
        for near in facts.near or []
        for pair in near.examples
    ]
    if not rows:
        return []
    note = (
        "Examples for each two splits, from the most to the least similar. Similarity: Jaccard of character trigrams."
    )
    columns = ["splits", "text of the first", "text of the second", "similarity"]
    return [pages.Section("Texts that are nearly the same", note, columns=columns, rows=rows)]


def _weights(facts: "DataFacts") -> pages.Section:
    rows = [[name, *(f"{facts.weights[kind][i]:.2f}" for kind in facts.weights)] for i, name in enumerate(facts.labels)]
    note = "How much a positive counts against a negative, by the settings of loss=weighted_bce."
    return pages.Section("Positive weights", note, columns=["label", *facts.weights], rows=rows)
