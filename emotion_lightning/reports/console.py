"""Print the results of the commands as tables."""

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from emotion_lightning import terminal
from emotion_lightning.reports.pages import Section
from emotion_lightning.runs.metrics_file import Score, SoftScore, SoftScores, SplitScores, of_protocol
from emotion_lightning.runs.plain_text import printable

if TYPE_CHECKING:
    from rich.text import Text

    from emotion_lightning.data.doctor import Diagnosis
    from emotion_lightning.evaluation.explanations import Explanation

PROTOCOL_METRICS: dict[Score, str] = {
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "jaccard": "Jaccard",
    "f1_samples": "samples F1",
    "subset_accuracy": "subset acc.",
    "label_accuracy": "label acc.",
    "predicted_cardinality": "labels/text",
}


_GROUPS = 40
"""Groups of a column that are printed; metrics.json has all of them."""


def show_scores(
    split: str, scores: SplitScores, *, protocol: str, floors: dict[str, SplitScores] | None = None
) -> None:
    """Print the scores of a split.

    Args:
        split: name of the split.
        scores: its section of metrics.json.
        protocol: threshold protocol of the model.
        floors: scores of trivial baselines by name, shown for comparison.
    """
    from emotion_lightning.evaluation.thresholds import ORACLE  # imported late, because a study's table needs no torch

    console = terminal.console(100)
    emotions = Table(title=f"{split}, {scores['rows']:,} texts, {protocol} thresholds", title_justify="left")
    emotions.add_column("emotion")
    for name in ("support", "precision", "recall", "F1", "threshold"):
        emotions.add_column(name, justify="right")
    main = of_protocol(scores, protocol)
    for label, values in main["labels"].items():
        ratios = [f"{values[name]:.3f}" for name in ("precision", "recall", "f1", "threshold")]
        emotions.add_row(escape(label), f"{values['support']:,}", *ratios)
    console.print(emotions)
    protocols = Table()
    protocols.add_column("thresholds")
    for title in PROTOCOL_METRICS.values():
        protocols.add_column(title, justify="right")
    for name in (protocol, *(other for other in ("fixed", "global", "per_label") if other != protocol)):
        protocols.add_row(name, *[f"{of_protocol(scores, name)[metric]:.3f}" for metric in PROTOCOL_METRICS])
    perfect = [f"{of_protocol(scores, ORACLE)[metric]:.3f}" for metric in PROTOCOL_METRICS]
    protocols.add_row(ORACLE, *perfect, style="dim")
    for name, floor in (floors or {}).items():
        protocols.add_row(
            name, *[f"{of_protocol(floor, protocol)[metric]:.3f}" for metric in PROTOCOL_METRICS], style="dim"
        )
    console.print(protocols)
    loss = f"{scores['loss']:.4f}" if "loss" in scores else "not computed"
    console.print(
        f"mAP {scores['map']:.3f}   LRAP {scores['lrap']:.3f}   loss {loss}   "
        f"ECE {scores['ece']:.3f}   Brier {scores['brier']:.3f} ({scores['probabilities']} probabilities)   "
        f"gold labels/text {main['gold_cardinality']:.3f}"
    )
    if extra := scores.get("extra"):
        shown = "   ".join(f"{name} {value:.4g}" for name, value in extra.items())
        console.print(f"Your own: {shown}", markup=False)
    if soft := scores.get("soft"):
        console.print(soft_table(split, soft))
        told = "   ".join(f"{name} {value:.3f}" for name, value in soft_overall(scores).items())
        console.print(f"Against shares: {told}")
    console.print(f"{ORACLE}: thresholds fitted on these very rows: an upper bound, not a result", style="dim")
    if by := scores.get("thresholds_by"):
        from emotion_lightning.evaluation import group_thresholds

        overall = {label: values["threshold"] for label, values in main["labels"].items()}
        columns, rows = group_thresholds.table(by, overall, protocol)
        _print_tables(console, [Section(f"Thresholds by {by['column']}", columns=columns, rows=rows[:_GROUPS])])
    show_groups(scores)
    if floors:
        console.print(
            f"zeros: predicts no label; prior: predicts each label's rate in train, {protocol} thresholds",
            style="dim",
        )


SOFT_METRICS: dict[SoftScore, str] = {
    "bce": "BCE",
    "mae": "MAE",
    "jensen_shannon": "Jensen-Shannon",
    "correlation": "correlation",
}


def soft_overall(scores: SplitScores) -> dict[str, float]:
    """Return the scores over all labels against shares and intensities, by title."""
    if "soft" not in scores:
        return {}
    soft = scores["soft"]
    found = {title: soft[name] for name, title in SOFT_METRICS.items()} | {"ECE": soft["ece"]}
    if "intensity" in scores:
        found["Pearson of intensities"] = scores["intensity"]["pearson"]
        found["of whole ones"] = scores["intensity"]["pearson_rounded"]
        found[f"MAE of 0 to {scores['intensity']['scale']:g}"] = scores["intensity"]["mae"]
    return found


def soft_rows(soft: SoftScores) -> list[list[str]]:
    """Return a row for each label: its mean share and probability, and its scores against shares."""
    return [
        [
            label,
            f"{own['share']:.3f}",
            f"{own['probability']:.3f}",
            *["–" if (value := own[name]) is None else f"{value:.3f}" for name in SOFT_METRICS],
        ]
        for label, own in soft["labels"].items()
    ]


SOFT_COLUMNS = ["emotion", "mean share", "mean probability", *SOFT_METRICS.values()]


def soft_table(split: str, soft: SoftScores) -> Table:
    """Return the table of the scores of each label against shares."""
    table = Table(title=f"{split}, against shares", title_justify="left")
    for i, name in enumerate(SOFT_COLUMNS):
        table.add_column(name, justify="right" if i else "left")
    for row in soft_rows(soft):
        table.add_row(*map(escape, row))
    return table


def show_groups(scores: SplitScores) -> None:
    """Print the scores of groups of a split, if there are some, and the largest gaps between them."""
    if "groups" not in scores:
        return
    from emotion_lightning.evaluation import group_scores

    found = scores["groups"]
    # Tables of scores against shares are wider.
    console = terminal.console(140 if "soft" in scores else 100)
    for name, by_column in found["columns"].items():
        tables = {f"By {name}": group_scores.table(name, by_column)}
        if (soft := group_scores.soft_table(name, by_column)) is not None:
            tables[f"Against shares, by {name}"] = soft
        for title, (columns, rows) in tables.items():
            more = [[f"… and {len(rows) - _GROUPS:,} more", *[""] * (len(columns) - 1)]] if len(rows) > _GROUPS else []
            _print_tables(console, [Section(title, columns=columns, rows=[*rows[:_GROUPS], *more])])
    for sentence in group_scores.sentences(found):
        console.print(sentence, markup=False, highlight=False)


def scores_markdown(split: str, scores: SplitScores) -> str:
    """Return the scores of a split with each threshold protocol as a Markdown table."""
    lines = [f"| {split} | " + " | ".join(PROTOCOL_METRICS.values()) + " |", "|---|" + "---|" * len(PROTOCOL_METRICS)]
    for name in ("fixed", "global", "per_label"):
        cells = [f"{of_protocol(scores, name)[metric]:.3f}" for metric in PROTOCOL_METRICS]
        lines.append(f"| {name} thresholds | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def show_data(
    read: list[tuple[str, str]],
    facts: list[tuple[str, str]],
    findings: list[str],
    sections: list[Section],
    examples: dict[str, list[tuple[str, list[str]]]],
) -> None:
    """Print how a dataset was read, facts and findings and, if given, tables and one example for each label."""
    console = terminal.console(140)
    for name, value in read:
        console.print(f"{name}: {value}", markup=False, highlight=False)
    width = max(len(value) for _, value in facts)
    for name, value in facts:
        console.print(f"{value:>{width}}  {name}", markup=False, highlight=False)
    console.print("\nFindings", markup=False, highlight=False)
    for finding in findings:
        console.print(f"- {finding}", markup=False, highlight=False)
    if sections or examples:
        console.print()
    _print_tables(console, sections)
    for label, texts in examples.items():
        line = printable(texts[0][0])
        console.print(f"{label}: {line[:100]}{'…' if len(line) > 100 else ''}", markup=False, highlight=False)


def show_diagnosis(found: "Diagnosis", lines: list[str]) -> None:
    """Print what the columns of a file are taken for, and the settings that read it.

    Args:
        found: what is known of the file.
        lines: the command line of each way.
    """
    console = terminal.console(140)
    if found.columns:
        read = ", ".join(
            [
                found.about["format"],
                *(f"{name} {found.about[name]}" for name in ("encoding", "delimiter") if name in found.about),
            ]
        )
        console.print(f"{found.path}: {read}, {found.rows:,} rows", markup=False, highlight=False)
        table = Table()
        for name in ("column", "taken for", "because", "empty", "holds"):
            table.add_column(name, justify="right" if name == "empty" else "left")
        for column in found.columns:
            cells = (column.name, column.taken, column.why, f"{column.blank:.0%}", printable(column.holds))
            table.add_row(*map(escape, cells))
        console.print(table)
    if not found.ways:
        console.print("No other settings were found that read it.", markup=False, highlight=False)
    for way, line in zip(found.ways, lines, strict=True):
        rows = {name: len(part) for name, part in way.corpus.splits.items()}
        counts = sum(part.targets.sum(axis=0) for part in way.corpus.splits.values() if part.targets is not None)
        labels = ", ".join(f"{name} {count:,.0f}" for name, count in zip(way.corpus.labels[:12], counts, strict=False))
        more = f" and {len(way.corpus.labels) - 12} more" if len(way.corpus.labels) > 12 else ""
        splits = ", ".join(f"{name} {count:,}" for name, count in rows.items())
        console.print(f"\nThis reads it ({splits}; {labels}{more}):", markup=False, highlight=False)
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()


def show_structure(tables: list[tuple[str, list[str], list[list[str]]]]) -> None:
    """Print tables, each with a title, names of columns and rows."""
    console = terminal.console(140)
    for title, columns, rows in tables:
        _print_tables(console, [Section(title=title, columns=columns, rows=rows)])


def show_tables(sections: list[Section]) -> None:
    """Print tables."""
    _print_tables(terminal.console(140), sections)


def show_comparison(sections: list[Section], sentences: list[str], notes: list[str]) -> None:
    """Print a comparison of runs: tables, sentences and notes."""
    console = terminal.console(140)
    _print_tables(console, sections)
    for sentence in sentences:
        console.print(f"- {sentence}", markup=False, highlight=False)
    for note in notes:
        console.print(note, markup=False, highlight=False, style="dim")


def show_export(found: dict[str, Any]) -> None:
    """Print the results of an export's checks, which are the content of export.json."""
    console = terminal.console(100)
    table = Table(title=f"{found['rows']}, {found['texts']:,} texts", title_justify="left")
    table.add_column("answers of")
    for name in ("size", "texts/s", "off the run by", "macro F1", "micro F1", "Jaccard"):
        table.add_column(name, justify="right")
    for form in found["weights"]:
        table.add_row(
            form["name"],
            "" if form["bytes"] is None else _bytes(form["bytes"]),
            "" if form["texts_per_second"] is None else f"{form['texts_per_second']:,.0f}",
            "" if form["from_run"] is None else f"{form['from_run']:.1g}",
            *[f"{form[name]:.3f}" if name in form else "" for name in ("f1_macro", "f1_micro", "jaccard")],
        )
    console.print(table)
    for name, words in (
        ("merged_from_unmerged", "Merged and unmerged, on the same unquantised base, differ by at most"),
        ("onnx_from_torch", "The graph and torch differ, in batches of any size, by at most"),
    ):
        if name in found:
            console.print(f"{words} {found[name]:.1g}.")
    if cuts := found.get("thresholds"):
        scores = ", ".join(f"{PROTOCOL_METRICS[name]} {value:.3f}" for name, value in cuts["fitted_anew"].items())
        console.print(
            f"Thresholds are {cuts['are']}; fitted anew they move by at most {cuts['largest_shift']:.3f} ({scores})."
        )


def _bytes(count: int) -> str:
    """Format a number of bytes in kB, MB or GB; adapters take kilobytes, base models gigabytes.

    >>> [_bytes(count) for count in (0, 30_408, 23_700_000, 5_012_000_000)]
    ['0.0 kB', '30.4 kB', '23.7 MB', '5.0 GB']
    """
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if count >= unit), (1e3, "kB"))
    return f"{count / unit:,.1f} {name}"


def show_study(trials: Section) -> None:
    """Print the trials of a study."""
    _print_tables(terminal.console(140), [trials])


def _print_tables(console: Any, sections: list[Section]) -> None:
    for section in sections:
        if section.rows:
            table = Table(title=escape(section.title), title_justify="left")
            for i, name in enumerate(section.columns):
                table.add_column(escape(name), justify="right" if i else "left")
            for row in section.rows:
                table.add_row(*map(escape, row))
            console.print(table)


def show_text(
    text: str,
    labels: list[str],
    probabilities: dict[str, float],
    cuts: dict[str, float],
    *,
    calibrated: bool,
    intensities: dict[str, float] | None = None,
) -> None:
    """Print the prediction for one text: a bar for each label, the most probable first; predicted labels are marked.

    Args:
        text: as it was given.
        labels: that are predicted.
        probabilities: by label.
        cuts: threshold by label.
        calibrated: whether the probabilities are, which the line below the bars says.
        intensities: expected intensity by label; None: not shown.
    """
    console = terminal.console(80)
    console.print(text, markup=False, highlight=False)
    width = max(len(name) for name in probabilities)
    for name, share in sorted(probabilities.items(), key=lambda item: -item[1]):
        bar = "█" * round(share * 30)
        mark = "●" if name in labels else " "
        strong = "" if intensities is None else f", intensity {intensities[name]:.2f}"
        console.print(
            f"{mark} {name:<{width}} {share:.3f} {bar:<30} (threshold {cuts[name]:.2f}{strong})",
            markup=False, highlight=False, soft_wrap=intensities is not None,
        )  # fmt: skip
    how = "calibrated on validation" if calibrated else "not calibrated: 0.9 need not mean nine in ten"
    console.print(f"The probabilities are {how}.", markup=False, highlight=False, style="dim")
    console.print(f"Emotions: {', '.join(labels) or 'none'}", markup=False, highlight=False)


def show_explanation(found: "Explanation") -> None:
    """Print a text once for each explained label, its words coloured by how much they speak for or against the label.

    Where there are no colours, as in a file, the words that matter are followed by their share in brackets.
    """
    console = terminal.console(80)
    coloured = console.color_system is not None and not console.no_color
    for label in found.labels:
        console.print()
        meaning = " (blue: for it, red: against it)" if coloured else ""
        console.print(f"{label}{meaning}", markup=False, highlight=False, style="bold")
        console.print(_marked(found, label, coloured=coloured), soft_wrap=True)
        strongest = [word for word in found.strongest(label)[:5] if abs(word.attributions[label]) >= 0.005]
        start, end = found.baseline_logits[label], found.logits[label]
        told = ", ".join(f"{printable(word.text)} {word.attributions[label]:+.2f}" for word in strongest)
        console.print(
            f"{told or 'no word matters'}\n"
            f"all words {end - start:+.2f}: logit {start:.2f} without them, {end:.2f} with them "
            f"(error {abs(found.errors[label]):.2g})",
            markup=False, highlight=False, soft_wrap=True, style="dim",
        )  # fmt: skip


def _marked(found: "Explanation", label: str, *, coloured: bool) -> "Text":
    """Return the text with its words marked for a label."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    text = Text()
    for part in found.parts(label):
        if part.colour is None:
            text.append(part.text)
        elif coloured:
            # Dark letters on a ground of their own, whatever the terminal's colours are.
            text.append(part.text, Style(color="black", bgcolor=Color.from_rgb(*part.colour), bold=part.share > 0.5))
        else:
            text.append(f"{part.text}[{part.value:+.2f}]")
    return text
