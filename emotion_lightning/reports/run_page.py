"""The report of a finished run: one self-contained HTML file, and its charts as files."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from emotion_lightning import config, terminal
from emotion_lightning.cli import override_grammar
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import explanations, group_scores, group_thresholds
from emotion_lightning.evaluation.thresholds import ORACLE, PROTOCOLS
from emotion_lightning.reports import console, pages
from emotion_lightning.reports.console import PROTOCOL_METRICS
from emotion_lightning.reports.pages import Section
from emotion_lightning.reports.run_facts import RunFacts
from emotion_lightning.runs import bounded_files, run_folder
from emotion_lightning.runs.metrics_file import RunMetrics, of_protocol, of_split
from emotion_lightning.runs.plain_text import printable

log = logging.getLogger(__name__)

SPLITS = ("validation", "test")


@dataclass
class Report:
    """A written report, for the logger.

    Attributes:
        pictures: files of the charts by name.
        page: HTML for the logger, without texts of the dataset unless the settings allow them.
        facts: the facts shown in the report.
    """

    pictures: dict[str, Path]
    page: str
    facts: RunFacts


def write_run_report(
    folder: Path,
    settings: config.Train,
    rows: dict[str, Rows],
    *,
    split: str,
    scored: Rows,
    probabilities: Tensor,
    threshold: Tensor,
    protocol: str,
    labels: list[str],
    metrics: RunMetrics,
    sends_texts: bool,
    decided: Tensor | None = None,
) -> Report | None:
    """Write report.html and pictures/.

    An error is logged as a warning: a run is worth more than its report.

    Args:
        folder: the run folder.
        settings: of the run.
        rows: rows of every split.
        split: name of the split that is shown.
        scored: rows of `split`.
        probabilities: of these rows, [row, label].
        threshold: thresholds of `protocol`, [label].
        protocol: name of the threshold protocol that makes the decisions.
        labels: label names.
        metrics: future content of metrics.json.
        sends_texts: whether the page for the logger contains texts of the dataset.
        decided: predicted labels of these rows, bool, [row, label]; None: they follow from the thresholds.

    Returns:
        The report for the logger; None if an error occurred.
    """

    def collected() -> RunFacts:
        return RunFacts(
            settings=settings,
            metrics=metrics,
            history=run_folder.read_history(folder / run_folder.HISTORY),
            labels=labels,
            split=split,
            rows=scored,
            probabilities=probabilities.double().numpy(),
            thresholds=threshold.double().numpy(),
            protocol=protocol,
            train_rows=len(rows["train"]),
            test_rows=len(rows.get("test", ())),
            decided=None if decided is None else decided.numpy(),
        )

    return _write(folder, collected, lambda facts, pictures: _content(facts, folder, pictures), sends_texts=sends_texts)


def write_evaluation_report(folder: Path, facts: RunFacts, *, title: str, made: str, line: str, note: str = "") -> None:
    """Write report.html and pictures/ for the evaluation of a finished run; an error is logged as a warning.

    Args:
        folder: of the evaluation.
        facts: facts about the run on the evaluated rows.
        title: title of the report.
        made: line below the title that says when and how the report was made.
        line: the command line.
        note: what else there is to say about how the run was scored.
    """

    def content(facts: RunFacts, pictures: Sequence[str]) -> dict[str, Any]:
        return {
            "title": title,
            "made": made,
            "facts": _facts(facts),
            "command": line,
            "chosen": f"Thresholds and calibration are those of the run; {facts.protocol} thresholds decide.{note}",
            "sections": [
                _protocols(facts),
                _other_scores(facts),
                *_shares(facts),
                *_groups(facts),
                *_pictures(facts, pictures),
                *_words(facts),
            ],
            "split": facts.split,
            "mistakes": facts.mistakes(),
            "settings": "",
        }

    _write(folder, lambda: facts, content, sends_texts=True)


def _write(
    folder: Path,
    collected: Callable[[], RunFacts],
    content: Callable[[RunFacts, Sequence[str]], dict[str, Any]],
    *,
    sends_texts: bool,
) -> Report | None:
    """Draw and write a report; log a warning if drawing fails.

    Args:
        folder: where report.html and pictures/ are written.
        collected: returns what the report shows.
        content: returns the variables of the template, from the facts and the names of the charts.
        sends_texts: whether the page for the logger contains texts of the dataset.

    Returns:
        The report for the logger; None if drawing failed.
    """
    try:
        from emotion_lightning.reports import charts
        from emotion_lightning.reports.charts import names
        from emotion_lightning.reports.charts import run as run_charts

        facts = collected()
        pictures = {name: charts.picture(figure) for name, figure in run_charts.run_pictures(facts).items()}
        shown = content(facts, list(pictures)) | {"numbers": names.numbers(facts.labels)}
        page = pages.render_page("run_report", shown, pictures)
        # Texts are not sent to a logger unless the settings allow it, because many datasets may not be shared.
        sent = page if sends_texts else pages.render_page("run_report", shown | {"mistakes": []}, pictures)
    except Exception as error:
        log.warning("%s is not written: %s: %s", run_folder.REPORT, type(error).__name__, error, exc_info=True)
        return None
    files = run_folder.write_report(folder, page, {name: picture.png for name, picture in pictures.items()})
    return Report(files, sent, facts)


def _content(facts: RunFacts, folder: Path, pictures: Sequence[str]) -> dict[str, Any]:
    assert facts.settings is not None
    tree = run_folder.read_settings(folder)
    options = tree["options"]
    environment = bounded_files.read_json(folder / run_folder.ENVIRONMENT)["starts"]
    return {
        "title": f"{options['model']}, {options['peft']}, on {options['data']}",
        "made": _made(folder, environment),
        "facts": _facts(facts),
        "command": _command(environment[0]["command"]),
        "chosen": _chosen(facts.settings, options),
        "sections": [
            _protocols(facts),
            _other_scores(facts),
            *_shares(facts),
            *_groups(facts),
            *_pictures(facts, pictures),
        ],
        "split": facts.split,
        "mistakes": facts.mistakes(),
        "settings": (folder / run_folder.SETTINGS).read_text(encoding="utf-8"),
    }


def _made(folder: Path, starts: list[dict[str, Any]]) -> str:
    """Return one line with the run's name, time, hardware, torch version and commit."""
    start, folder = starts[-1], folder.resolve()
    hardware, code = start["hardware"], start["git"]
    parts = [
        f"{folder.parent.name}/{folder.name}",
        starts[0]["time"].replace("T", " ").replace("+00:00", " UTC"),
        *([f"resumed {len(starts) - 1} times"] if len(starts) > 2 else ["resumed"] if len(starts) == 2 else []),
        ", ".join(hardware["gpus"]) or f"{hardware['processor']}, {hardware['threads']} threads",
        f"torch {start['versions'].get('torch', 'unknown')}",
        *([f"commit {code['commit'][:10]}{' and changes' if code['changed'] else ''}"] if code else []),
    ]
    return " · ".join(parts)


def _command(arguments: list[str]) -> str:
    return override_grammar.shell_line("train", arguments[1:])


def _chosen(settings: config.Train, options: dict[str, str]) -> str:
    """Return one line with the options and the most important settings."""
    rates = {
        name: getattr(settings.peft if getattr(settings.optimizer, name) is None else settings.optimizer, name)
        for name in ("lr", "head_lr")
    }
    trainer, data = settings.trainer, settings.data
    batches = trainer.devices * trainer.num_nodes * trainer.accumulate_grad_batches
    step = f"{data.batch_tokens * batches} tokens" if data.batch_tokens else f"{data.batch_size * batches} rows"
    values = {
        **{group: option for group, option in options.items() if group not in ("experiment", "sweep", "logger")},
        "model.path": settings.model.path if settings.model.pretrained else "(random weights)",
        "model.quantization": settings.model.quantization.value,
        **{f"optimizer.{name}": f"{rate:g}" for name, rate in rates.items()},
        "data.max_tokens": settings.data.max_tokens,
        **({} if settings.data.template is None else {"data.template": terminal.one_line(settings.data.template)}),
        "seed": settings.seed,
    }
    return " · ".join([*(f"{name}={value}" for name, value in values.items()), f"{step} in an optimizer step"])


def _facts(facts: RunFacts) -> list[tuple[str, str]]:
    main = of_protocol(facts.scores, facts.protocol)
    scores = [
        (f"{PROTOCOL_METRICS[name]}, {facts.split}", f"{main[name]:.3f}")
        for name in ("f1_macro", "f1_micro", "jaccard")
    ]
    if facts.settings is None:
        return [*scores, ("rows", f"{facts.scores['rows']:,}"), ("labels", f"{len(facts.labels)}")]
    cost = facts.metrics["cost"]
    rows = [facts.train_rows, *[of_split(facts.metrics, split)["rows"] for split in SPLITS if split in facts.metrics]]
    best = facts.best()
    return [
        *scores,
        ("rows: train / validation" + (" / test" if len(rows) > 2 else ""), " / ".join(f"{count:,}" for count in rows)),
        ("labels", f"{len(facts.labels)}"),
        *([("best epoch", f"{best['epoch']:.0f} of {facts.history[-1]['epoch']:.0f}")] if best else []),
        ("trained parameters", f"{cost['trainable_parameters']:,}"),
        ("of training", _duration(cost["train_seconds"])),
        ("texts a second in training", f"{cost['samples_per_second']:,.0f}"),
        ("of memory at the most", f"{cost['peak_memory_bytes'] / 1e9:.1f} GB"),
    ]


def _duration(seconds: float) -> str:
    """Format a duration.

    >>> _duration(75), _duration(7200), _duration(8.13)
    ('1 min 15 s', '2 h 0 min', '8.1 s')
    """
    whole = round(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _protocols(facts: RunFacts) -> Section:
    table = Section("Scores", columns=["thresholds", *PROTOCOL_METRICS.values()])
    for split in SPLITS:
        if split not in facts.metrics:
            continue
        scores = of_split(facts.metrics, split)
        for protocol in (*PROTOCOLS, ORACLE):
            name = f"{split}, {protocol}"
            if protocol == ORACLE:
                table.looks[len(table.rows)] = "aside"
                name = f"{split}, {ORACLE} (fitted on itself)"
            if protocol == facts.protocol:
                table.looks[len(table.rows)] = "main"
                name += " ●"
            table.rows.append([name, *[f"{of_protocol(scores, protocol)[metric]:.3f}" for metric in PROTOCOL_METRICS]])
    table.note = (
        f"● decides the prediction files. Global and per_label thresholds are fitted on {_fitted_on(facts)}, the "
        "oracle's on the very rows that they are scored on: what perfect ones would bring, and no result. Gold "
        "labels/text: "
        + ", ".join(
            f"{split} {of_protocol(of_split(facts.metrics, split), facts.protocol)['gold_cardinality']:.3f}"
            for split in SPLITS
            if split in facts.metrics
        )
        + "."
    )
    if facts.settings is not None and "test" not in facts.metrics:
        table.note += f" {_why_no_test(facts)}"
    return table


def _fitted_on(facts: RunFacts) -> str:
    return "validation" if facts.settings is not None else "the run's own validation rows"


def _why_no_test(facts: RunFacts) -> str:
    assert facts.settings is not None
    if not facts.test_rows:
        return "There is no test split."
    if not facts.settings.score_test:
        return f"The {facts.test_rows:,} rows of test were left out (score_test=false)."
    return f"The {facts.test_rows:,} rows of test have no labels: they are predicted, not scored."


def _other_scores(facts: RunFacts) -> Section:
    names = {"map": "mAP", "lrap": "LRAP", "loss": "loss", "ece": "ECE", "brier": "Brier"}
    splits: dict[str, dict[str, Any]] = {
        split: dict(of_split(facts.metrics, split)) for split in SPLITS if split in facts.metrics
    }
    rows = [
        [split, *[f"{scores[name]:.4f}" if name in scores else "" for name in names], scores["probabilities"]]
        for split, scores in splits.items()
    ]
    note = "What needs no thresholds. Raw probabilities of a weighted loss are too high on purpose."
    return Section("Rankings and calibration", note, columns=["split", *names.values(), "probabilities"], rows=rows)


def _shares(facts: RunFacts) -> list[Section]:
    """Return tables of the scores against shares, over all labels and for each; empty without shares."""
    splits = {split: of_split(facts.metrics, split) for split in SPLITS if split in facts.metrics}
    overall = {split: console.soft_overall(scores) for split, scores in splits.items() if "soft" in scores}
    if not overall:
        return []
    names = list(next(iter(overall.values())))
    note = (
        "How well probabilities match the shares. Cross-entropy (BCE), mean absolute error, and the Jensen-Shannon "
        "distance are best at 0, a correlation at 1; that over all labels is the mean of theirs."
    )
    rows = [[split, *[f"{found[name]:.4f}" for name in names]] for split, found in overall.items()]
    tables = [Section("Against shares", note, columns=["split", *names], rows=rows)]
    if "soft" in (scores := facts.scores):
        tables.append(
            Section(
                f"Labels against shares, {facts.split}",
                columns=console.SOFT_COLUMNS,
                rows=console.soft_rows(scores["soft"]),
            )
        )
    return tables


def _group_thresholds(facts: RunFacts) -> list[Section]:
    found = facts.scores.get("thresholds_by")
    if found is None:
        return []
    labels = of_protocol(facts.scores, facts.protocol)["labels"]
    overall = {name: scores["threshold"] for name, scores in labels.items()}
    columns, rows = group_thresholds.table(found, overall, facts.protocol)
    note = (
        f"{facts.protocol} thresholds, fitted on {_fitted_on(facts)} of each {found['column']}. Groups with too few "
        "rows there, and new ones, have those of all others, which are fitted on all rows; other tables show these."
    )
    return [Section(f"Thresholds by {found['column']}", note, columns=columns, rows=rows)]


def _groups(facts: RunFacts) -> list[Section]:
    sections = _group_thresholds(facts)
    found = facts.scores.get("groups")
    if found is None:
        return sections
    for (name, by_column), sentence in zip(found["columns"].items(), group_scores.sentences(found), strict=True):
        columns, rows = group_scores.table(name, by_column)
        note = (
            f"{facts.split}, {found['protocol']} thresholds; in brackets, {100 * found['confidence']:.0f} % intervals "
            f"over rows. {sentence}"
        )
        sections.append(Section(f"Scores by {name}", note, columns=columns, rows=rows))
        if (soft := group_scores.soft_table(name, by_column)) is not None:
            columns, rows = soft
            sections.append(Section(f"Against shares, by {name}", columns=columns, rows=rows))
    return sections


def _pictures(facts: RunFacts, drawn: Sequence[str]) -> list[Section]:
    scored = [
        [
            facts.labels[label],
            f"{values['support']:,}",
            *[f"{values[name]:.3f}" for name in ("precision", "recall", "f1", "threshold")],
            f"{curve.average:.3f}" if (curve := facts.curve(label)) else "–",
        ]
        for label in facts.by_support()
        if (values := facts.of_label(label))
    ]
    monitor = facts.settings.callbacks.monitor if facts.settings else ""
    sections = [
        Section(
            "Learning curves",
            f"The epoch with the best {monitor} was kept. Loss of train: the mean over the steps of the epoch, while "
            "its weights change.",
            ["learning_curves"],
        ),
        Section(
            "Labels",
            f"With {facts.protocol} thresholds; the most frequent label first, beside its name the rows of "
            f"{facts.split} that have it.",
            ["label_scores"],
            ["label", "support", "precision", "recall", "F1", "threshold", "average precision"],
            scored,
            slider=_slider(facts),
        ),
        Section(
            "Precision and recall",
            "AP: average precision, the area under the steps. The dot is where the threshold stands.",
            ["precision_recall"],
        ),
        Section(
            "Reliability",
            "Of the labels that were given such a probability, the share that is there, over all labels together; the "
            "upright lines hold 95 of 100 such shares. Dots below the diagonal: probabilities are too high. ECE is "
            "computed for each label, then averaged.",
            ["reliability"],
        ),
        Section("Probabilities", "The further apart the two are, the better a label is told.", ["probabilities"]),
        Section(
            "Labels that go together",
            f"Of the rows of {facts.split} with the label at the left, the share that has the label below too, in gold "
            "and as predicted. Grey: no row has the label.",
            ["co_occurrence"],
        ),
    ]
    return [section for section in sections if set(section.pictures) <= set(drawn)]


def _words(facts: RunFacts, count: int = 12) -> list[Section]:
    """Return a table of the words that spoke most for each label; empty if nothing was explained."""
    if not facts.explained:
        return []
    rows = []
    for label in facts.by_support():
        name = facts.labels[label]
        found = explanations.words_for(facts.explained, name)[:count]
        texts = sum(name in one.labels for one in facts.explained)
        told = ", ".join(f"{printable(word)} {value:+.1f} ({times})" for word, value, times in found)
        rows.append([name, f"{texts:,}", told])
    note = (
        f"From {len(facts.explained):,} texts of {facts.split}, drawn at random, and their predicted labels: words of "
        "two texts or more, with what they add to the label's logit on average, and the number of texts. Integrated "
        "gradients."
    )
    return [Section("Words for each label", note, columns=["label", "texts", "words"], rows=rows)]


_STEPS = 100


def _slider(facts: RunFacts) -> dict[str, Any]:
    """Return the counts from which page.js recomputes the table of labels for each threshold of a grid from 0 to 1."""
    right, wrong, jaccard = [], [], []
    for step in range(_STEPS + 1):
        decided = (facts.probabilities > step / _STEPS) & facts.known
        both = decided & facts.truth
        right.append(both.sum(axis=0))
        wrong.append((decided & ~facts.truth).sum(axis=0))
        shared, either = both.sum(axis=1), (decided | facts.truth).sum(axis=1)
        jaccard.append(float(np.where(either > 0, shared / np.maximum(either, 1), 1.0).mean()))
    gold = facts.truth.sum(axis=0)
    return {
        "steps": _STEPS,
        "columns": [2, 3, 4, 5],
        "rows": len(facts.rows),
        "jaccard": [round(value, 6) for value in jaccard],
        "labels": [
            {
                "gold": int(gold[label]),
                "right": [int(counts[label]) for counts in right],
                "wrong": [int(counts[label]) for counts in wrong],
            }
            for label in facts.by_support()
        ],
    }
