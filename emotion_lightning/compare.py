"""Compare runs: mean and spread over seeds, intervals over rows, and which differences are more than noise.

python -m emotion_lightning.compare runs=outputs/multirun/DATE/TIME
python -m emotion_lightning.compare runs=[A,B,C] split=validation metrics=[jaccard]
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_lightning import command, config, run_folder, schema, waiting

if TYPE_CHECKING:
    from emotion_lightning.run_groups import FinishedRun
    from emotion_lightning.verdicts import Comparison

log = logging.getLogger(__name__)


def compare(settings: config.Compare, folder: Path) -> None:
    """Print which group of runs is best and how surely; write it as Markdown, csv and JSON."""
    from emotion_lightning import report, run_groups, verdicts

    waiting.says("Reading the runs")
    folders, left_out = run_groups.find(settings.runs)
    for why in left_out:
        log.warning("Left out: %s.", why)
    protocol = settings.protocol.value if settings.protocol else None
    runs = run_groups.read(folders, split=settings.split.value, protocol=protocol)
    waiting.says(f"Comparing {len(runs)} runs by {settings.samples:,} samples of their rows")
    found = weigh(run_groups.group(runs), settings, left_out=left_out)
    run_folder.write_together(
        {
            folder / "compare.md": run_folder.as_text(verdicts.markdown(found)),
            folder / "compare.csv": run_folder.as_text(verdicts.table(found)),
            folder / "compare.json": run_folder.as_json(verdicts.plain(found, settings=schema.plain(settings))),
        }
    )
    report.show_comparison(verdicts.sections(found), verdicts.sentences(found), verdicts.notes(found))
    log.info("Comparison: %s", folder / "compare.md")


def weigh(
    groups: "dict[str, list[FinishedRun]]", settings: config.Compare, *, left_out: Sequence[str] = ()
) -> "Comparison":
    """Spread and interval of each group, the best first, and how far each of the others lies below it."""
    import numpy as np

    from emotion_lightning import comparison, verdicts

    runs = [run for members in groups.values() for run in members]
    # [run, metric] and, of each group, [run, metric] and the draws of its mean, [sample, metric].
    scores = comparison.scores([run.parts for run in runs])
    drawn = comparison.draws([run.parts for run in runs], samples=settings.samples, seed=settings.seed)
    ends = np.cumsum([len(members) for members in groups.values()])
    values = np.split(scores, ends[:-1])
    means = [part.mean(0) for part in np.split(drawn, ends[:-1])]
    first = comparison.METRICS.index(settings.metrics[0])
    order = sorted(range(len(groups)), key=lambda i: -values[i][:, first].mean())

    found = []
    for i in order:
        name, members = list(groups.items())[i]
        found.append(verdicts.Group(name, members, values={}, spreads={}, below={}))
    for metric in settings.metrics:
        column = comparison.METRICS.index(metric)
        of_metric = [
            comparison.Measured(values[i][:, column], means[i][:, column], [run.seed for run in group.runs])
            for i, group in zip(order, found, strict=True)
        ]
        apart = comparison.differences(of_metric[0], of_metric[1:], confidence=settings.confidence)
        for group, measured in zip(found, of_metric, strict=True):
            group.values[metric] = measured.values.tolist()
            group.spreads[metric] = comparison.spread(measured, confidence=settings.confidence)
        for group, difference in zip(found[1:], apart, strict=True):
            group.below[metric] = difference
    return verdicts.Comparison(settings, rows=len(runs[0].ids), groups=found, left_out=list(left_out))


def main() -> None:
    """Read the command line and compare."""
    command.run("compare", compare)


if __name__ == "__main__":
    main()
