"""Compare groups of runs: mean and spread over seeds, bootstrap intervals over rows, and significant differences.

python -m emotion_lightning.compare runs=outputs/multirun/DATE/TIME
python -m emotion_lightning.compare runs=[A,B,C] split=validation metrics=[jaccard]
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.config import schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import waiting
from emotion_lightning.runs.files import as_json, as_text, write_together

if TYPE_CHECKING:
    from emotion_lightning.evaluation.bootstrap import Array
    from emotion_lightning.evaluation.run_groups import FinishedRun
    from emotion_lightning.reports.comparison import Comparison

log = logging.getLogger(__name__)


def compare(settings: config.Compare, folder: Path) -> None:
    """Compare the groups of runs, print the result, and write compare.md, compare.csv and compare.json.

    Raises:
        UserError: the runs cannot be read or compared.
    """
    from emotion_lightning.data.label_map import LabelMap
    from emotion_lightning.evaluation import run_groups
    from emotion_lightning.reports import comparison, console

    waiting.show_status("Reading the runs")
    folders, left_out = run_groups.find_runs(settings.runs)
    for why in left_out:
        log.warning("Left out: %s.", why)
    protocol = settings.protocol.value if settings.protocol else None
    label_map = LabelMap.of(settings.data)
    runs = run_groups.read_runs(folders, split=settings.split.value, protocol=protocol, label_map=label_map)
    waiting.show_status(f"Comparing {len(runs)} runs by {settings.samples:,} samples of their rows")
    found = weigh(run_groups.group_runs(runs), settings, left_out=left_out)
    write_together(
        {
            folder / "compare.md": as_text(comparison.markdown(found)),
            folder / "compare.csv": as_text(comparison.table(found)),
            folder / "compare.json": as_json(comparison.plain(found, settings=schema.plain(settings))),
        }
    )
    console.show_comparison(comparison.sections(found), comparison.sentences(found), comparison.notes(found))
    log.info("Comparison: %s", folder / "compare.md")


def weigh(
    groups: "dict[str, list[FinishedRun]]", settings: config.Compare, *, left_out: Sequence[str] = ()
) -> "Comparison":
    """Compute mean, spread and interval of each group, and its difference from the best group.

    Args:
        groups: runs by name of their group.
        settings: settings of the command. The first metric ranks the groups.
        left_out: messages for runs that were left out.

    Returns:
        The comparison, with the best group first.
    """
    import numpy as np

    from emotion_lightning.evaluation import bootstrap
    from emotion_lightning.reports import comparison

    runs = [run for members in groups.values() for run in members]
    # scores: [run, metric]. For each group, values: [run, metric], and means: bootstrap draws of its mean,
    # [sample, metric].
    scores = bootstrap.scores([run.parts for run in runs])
    drawn = bootstrap.draws([run.parts for run in runs], samples=settings.samples, seed=settings.seed)
    columns = list(bootstrap.METRICS)
    if set(settings.metrics) & set(config.SOFT_SCORES):
        soft = _with_shares(runs)
        more = bootstrap.draws(soft, samples=settings.samples, seed=settings.seed, measure=bootstrap.soft_metrics)
        scores = np.concatenate([scores, bootstrap.scores(soft, bootstrap.soft_metrics)], axis=1)
        drawn = np.concatenate([drawn, more], axis=2)
        columns += bootstrap.SOFT_METRICS
    ends = np.cumsum([len(members) for members in groups.values()])
    values = np.split(scores, ends[:-1])
    means = [part.mean(0) for part in np.split(drawn, ends[:-1])]
    first = columns.index(settings.metrics[0])
    sign = 1 if config.falls(settings.metrics[0]) else -1
    order = sorted(range(len(groups)), key=lambda i: sign * values[i][:, first].mean())

    found = []
    for i in order:
        name, members = list(groups.items())[i]
        found.append(comparison.Group(name, members, values={}, spreads={}, below={}))
    for metric in settings.metrics:
        column = columns.index(metric)
        of_metric = [
            bootstrap.Measured(values[i][:, column], means[i][:, column], [run.seed for run in group.runs])
            for i, group in zip(order, found, strict=True)
        ]
        apart = bootstrap.differences(of_metric[0], of_metric[1:], confidence=settings.confidence)
        for group, measured in zip(found, of_metric, strict=True):
            group.values[metric] = measured.values.tolist()
            group.spreads[metric] = bootstrap.spread(measured, confidence=settings.confidence)
        for group, difference in zip(found[1:], apart, strict=True):
            group.below[metric] = difference
    return comparison.Comparison(settings, rows=len(runs[0].ids), groups=found, left_out=list(left_out))


def _with_shares(runs: "Sequence[FinishedRun]") -> "list[Array]":
    """What the soft metrics of the runs are computed from.

    Raises:
        UserError: a run has no shares.
    """
    if bare := [str(run.folder) for run in runs if run.soft is None]:
        raise UserError(
            f"{', '.join(bare[:3])} scored no shares, or labels that were united; leave soft scores out of metrics=. "
            "Data with data.targets=shares, data.scale=… or data.aggregate=share has them, with data.harden=true too."
        )
    return [run.soft for run in runs if run.soft is not None]


def main() -> None:
    """Read the command line and compare runs."""
    app.run_command("compare", compare)


if __name__ == "__main__":
    main()
