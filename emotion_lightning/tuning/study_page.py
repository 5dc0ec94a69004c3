"""Files of a study: a report with charts, a table of its trials, and its best settings as experiment files."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from emotion_lightning.cli import override_grammar
from emotion_lightning.config import own_parts, redaction, schema
from emotion_lightning.reports import console, pages
from emotion_lightning.reports.pages import Section
from emotion_lightning.runs import run_folder
from emotion_lightning.runs.files import write_json, write_text
from emotion_lightning.runs.plain_text import excerpt
from emotion_lightning.tuning import search_space
from emotion_lightning.tuning.study_facts import TITLES, StudyFacts, Trial, falls, plain, shown

log = logging.getLogger(__name__)

EXPERIMENT = "experiment"
BEST = "best"
STATES = ("complete", "pruned", "failed", "lost", "stopped")


def write_study_report(folder: Path, facts: StudyFacts, *, arguments: Sequence[str], typed: Sequence[str]) -> None:
    """Write trials.csv, study.json, experiment/, report.html and pictures/; print the trials and the best command.

    Args:
        folder: of the study.
        facts: facts about the study.
        arguments: command-line arguments for `train`.
        typed: all command-line arguments of `tune`.
    """
    best = [facts.trials[number] for number in facts.best]
    lines = {
        trial.number: override_grammar.shell_line("train", [*arguments, *search_space.overrides(trial.parameters)])
        for trial in best
    }
    write_text(folder / "trials.csv", _table(facts))
    write_json(folder / "study.json", _plain(facts, lines, typed))
    for trial in best:
        text = _experiment(facts, trial, arguments)
        if text is not None:
            name = BEST if trial is best[0] else f"trial_{trial.number}"
            write_text(folder / EXPERIMENT / f"{name}.yaml", text)
    _page(folder, facts, lines, typed)
    if not best:
        return
    console.show_study(_best_first(facts))
    log.info("Trial %d again: %s", best[0].number, lines[best[0].number])
    if (folder / EXPERIMENT / f"{BEST}.yaml").exists():
        log.info(
            "The same by a file: %s",
            override_grammar.shell_line("train", [*_place_of_options(folder), f"{EXPERIMENT}={BEST}"]),
        )
    # The folder may be on another machine.
    if best[0].folder and (Path(best[0].folder) / run_folder.MODEL).is_dir():
        log.info(
            "Its scores on test: %s",
            override_grammar.shell_line("evaluate", [*own_parts.folder_arguments(), f"run={best[0].folder}"]),
        )


def _place_of_options(folder: Path) -> list[str]:
    """The arguments with which `train` finds the experiments of a study, and options of the user's own."""
    own = own_parts.folder_arguments()
    return [*own, f"hydra.searchpath=[file://{folder.resolve()}]"] if own else ["--config-dir", str(folder)]


def _values(facts: StudyFacts, trial: Trial) -> str:
    assert trial.values is not None
    pairs = zip(facts.objectives, trial.values, strict=True)
    return ", ".join(f"{TITLES[objective]} {shown(objective, value)}" for objective, value in pairs)


def _table(facts: StudyFacts) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    objectives = [objective.value for objective in facts.objectives]
    writer.writerow(["trial", "state", "best", *objectives, *facts.parameters, "epochs", "seconds", "folder", "note"])
    for trial in facts.trials:
        values: list[Any] = list(trial.values) if trial.values is not None else [""] * len(objectives)
        writer.writerow(
            [
                trial.number, trial.state, int(trial.number in facts.best), *values,
                *[trial.parameters.get(name, "") for name in facts.parameters],
                max(trial.curve, default=""), "" if trial.seconds is None else round(trial.seconds, 1),
                trial.folder, trial.note,
            ]
        )  # fmt: skip
    return text.getvalue()


def _plain(facts: StudyFacts, lines: dict[int, str], typed: Sequence[str]) -> dict[str, Any]:
    return {
        "name": facts.name,
        "command": override_grammar.shell_line("tune", typed),
        "objectives": [objective.value for objective in facts.objectives],
        "trials": {state: facts.count(state) for state in sorted({trial.state for trial in facts.trials})},
        "best": [
            {
                "trial": trial.number,
                "values": dict(zip([o.value for o in facts.objectives], trial.values or [], strict=True)),
                "parameters": trial.parameters,
                "command": lines[trial.number],
                "folder": trial.folder,
            }
            for trial in (facts.trials[number] for number in facts.best)
        ],
        "importance": {objective.value: shares for objective, shares in facts.importance.items()},
    }


def _experiment(facts: StudyFacts, trial: Trial, arguments: Sequence[str]) -> str | None:
    """Return a file of the `experiment` group with a trial's settings, both typed and searched.

    Return None if from_run= was typed, because from_run is read from the command line only.
    """
    groups = schema.groups("train")
    options: list[Any] = []
    tree: dict[str, Any] = {}
    settings = [argument for argument in arguments if "=" in argument and not argument.startswith(("--", "~"))]
    given = override_grammar.quote_texts("train", settings, multirun=False)
    for override in OverridesParser.create().parse_overrides([*given, *search_space.overrides(trial.parameters)]):
        name, value = override.key_or_group, _unquoted(override.value())
        if name == "from_run":
            return None
        if name == EXPERIMENT:
            options.insert(0, value)
        elif name in groups:
            options.append({f"override /{name}": value})
        elif not name.startswith("hydra."):
            *parents, last = name.split(".")
            section = tree
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
    head = f"# @package _global_\n# Trial {trial.number} of the study {facts.name}: {_values(facts, trial)}.\n"
    content = ({"defaults": [*options, "_self_"]} if options else {}) | redaction.settings(tree)
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _unquoted(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_unquoted(part) for part in value]
    if isinstance(value, dict):
        return {str(_unquoted(name)): _unquoted(part) for name, part in value.items()}
    return value


def _page(folder: Path, facts: StudyFacts, lines: dict[int, str], typed: Sequence[str]) -> None:
    # An error in drawing is only a warning: the trials are worth more than their charts.
    try:
        from emotion_lightning.reports import charts
        from emotion_lightning.tuning import charts as study_charts

        pictures = {name: charts.picture(figure) for name, figure in study_charts.study_pictures(facts).items()}
        page = pages.render_page("study_report", _content(facts, lines, typed, list(pictures)), pictures)
    except Exception as error:
        log.warning("%s is not written: %s: %s", run_folder.REPORT, type(error).__name__, error, exc_info=True)
        return
    run_folder.write_report(folder, page, {name: picture.png for name, picture in pictures.items()})


def _content(facts: StudyFacts, lines: dict[int, str], typed: Sequence[str], drawn: Sequence[str]) -> dict[str, Any]:
    best = [facts.trials[number] for number in facts.best]
    counts = [(f"{state} trials", f"{facts.count(state)}") for state in STATES]
    first = [
        (f"{TITLES[objective]}, best trial ({best[0].number})", shown(objective, value))
        for objective, value in zip(facts.objectives, (best[0].values or []) if best else [], strict=False)
    ]
    return {
        "title": facts.name,
        "facts": [*first, *[count for count in counts if count[1] != "0" or count[0].startswith("complete")]],
        "command": override_grammar.shell_line("tune", typed),
        "best": [(f"Trial {trial.number}: {_values(facts, trial)}", lines[trial.number]) for trial in best],
        "warning": facts.too_few(),
        "sections": [*[section for section in _pictures(facts) if set(section.pictures) <= set(drawn)], _trials(facts)],
    }


def _pictures(facts: StudyFacts) -> list[Section]:
    return [
        Section(
            "Trade-off",
            "Each dot is a trial. Of those that are joined, none is better than another in every objective.",
            ["front"],
        ),
        Section("History", "Scores are those of the epoch that each trial kept, on validation.", ["history"]),
        Section(
            "What mattered",
            "The share of each parameter in what sets good trials apart (PED-ANOVA; Watanabe et al., 2023).",
            ["importance"],
            warning=facts.too_few(),
        ),
        Section("Parameters", "The best trials are marked.", ["parameters"]),
        Section("Learning curves", "Pruned trials end where their line does.", ["curves"]),
    ]


def _trials(facts: StudyFacts) -> Section:
    """Return the table of all trials: the best, then the other complete ones by the first objective, then the rest."""
    others = [trial for trial in facts.complete() if trial.number not in facts.best]
    others.sort(key=lambda trial: (trial.values or [0.0])[0], reverse=not falls(facts.objectives[0]))
    order = [*(facts.trials[number] for number in facts.best), *others]
    order += [trial for trial in facts.trials if trial.values is None]
    rows, looks = [], {}
    for i, trial in enumerate(order):
        if trial.number in facts.best:
            looks[i] = "main"
        elif trial.values is None:
            looks[i] = "aside"
        values = [
            shown(objective, value) for objective, value in zip(facts.objectives, trial.values or [], strict=False)
        ] or ["–"] * len(facts.objectives)
        parameters = [plain(trial.parameters[name]) if name in trial.parameters else "–" for name in facts.parameters]
        seconds = "–" if trial.seconds is None else f"{trial.seconds:,.0f}"
        rows.append([str(trial.number), trial.state, *values, *parameters, seconds, excerpt(trial.note, 200)])
    columns = ["trial", "state", *[TITLES[o] for o in facts.objectives], *facts.parameters, "seconds", "note"]
    note = "A trial is lost whose worker was killed, stopped where it was asked to; both are run again."
    return Section("Trials", note, columns=columns, rows=rows, looks=looks)


def _best_first(facts: StudyFacts) -> Section:
    """Return the table that is printed: the best complete trials, at most ten, without notes."""
    table = _trials(facts)
    complete = {str(trial.number) for trial in facts.complete()}
    counts = ", ".join(f"{facts.count(state)} {state}" for state in STATES if facts.count(state))
    rows = [row[:-1] for row in table.rows if row[0] in complete]
    return Section(f"{facts.name}: {counts}", columns=table.columns[:-1], rows=rows[:10])
