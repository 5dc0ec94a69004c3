"""Fit and score simple baselines: logistic regression on n-grams, no labels at all, and the label rates of train.

python -m emotion_lightning.baseline data=file data.path=my.csv
python -m emotion_lightning.baseline -m class_weight=none,balanced data=goemotions data.dir=FOLDER
"""

import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.cli.compose import chosen_options
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder, waiting
from emotion_lightning.runs.metrics_file import Cost, SplitScores, of_protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from emotion_lightning.evaluation.scoring import Scored

log = logging.getLogger(__name__)


def baseline(settings: config.Baseline, folder: Path) -> float:
    """Fit the baseline on train and its thresholds on validation, and score all other splits as `train` does.

    Args:
        settings: settings of the command.
        folder: the run folder.

    Returns:
        Macro F1 on validation.

    Raises:
        UserError: the folder already holds a run, or the data cannot be used.
    """
    if (folder / run_folder.METRICS).exists():
        raise UserError(f"{folder} holds a run already; choose another hydra.run.dir.")

    import numpy as np
    import torch

    from emotion_lightning.data import cleaning, sources, splitting
    from emotion_lightning.evaluation import scoring, thresholds
    from emotion_lightning.models import model_folder, ngrams
    from emotion_lightning.models.metadata import Metadata
    from emotion_lightning.reports import console
    from emotion_lightning.runs import environment, manifest

    waiting.show_status("Reading the data")
    corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data)
    settings = dataclasses.replace(settings, data=sources.settled(settings.data, corpus))
    train = corpus.labelled("train")
    learned = corpus.splits["train"]
    known = None if learned.open is None else ~learned.open
    if learned.shares is not None:
        log.info("A baseline learns 0 and 1; shares are scored only.")
    corpus.labelled("validation")
    run_folder.write_settings(folder, settings, chosen_options())
    environment.record(folder, arguments=sys.argv, data_hashes=corpus.hashes)
    sources.write_decisions(folder / run_folder.DATA, corpus)
    if corpus.new_splits:
        splitting.write_splits(folder / run_folder.SPLITS, corpus)

    clean = cleaning.cleaner(settings.data.clean)
    model = ngrams.NgramClassifier({name: getattr(settings, name) for name in ngrams.KINDS})
    waiting.show_status(f"Fitting to {len(train):,} texts")
    since = time.perf_counter()
    model.fit([clean(text) for text in corpus.splits["train"].texts], train, settings, known=known)
    seconds = time.perf_counter() - since
    log.info("%s weights are fitted to %s rows in %.0f s.", f"{model.parameters:,}", f"{len(train):,}", seconds)
    waiting.show_status("Scoring")
    splits = {
        name: scoring.Scored(
            rows,
            torch.from_numpy(model.logits([clean(text) for text in rows.texts])),
        )
        for name, rows in corpus.splits.items()
        if name != "train"
    }
    scores = scoring.score(
        folder,
        splits,
        labels=corpus.labels,
        thresholding=settings.thresholds,
        predict=settings.predict,
        loss=_cross_entropy,
        extra_metric=settings.extra_metric,
    )
    # Metadata, so that predict, evaluate and distill.runs accept the baseline like any run.
    metadata = Metadata.of_training(
        settings,
        labels=corpus.labels,
        thresholds=scores.thresholds,
        scaling=scores.scaling,
        base=None,
        loss={"option": "bce", "label_counts": train.sum(axis=0).tolist(), "rows": len(train)},
        data_hashes=corpus.hashes,
        ngrams=model.lengths,
        group_thresholds=scores.by_group,
        text_column=corpus.decisions.text,
    )
    model_folder.save_ngrams(folder / run_folder.MODEL, model, metadata=metadata)
    rates = train.mean(axis=0) if known is None else train.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    floors = _floors(rates, splits, labels=corpus.labels, thresholding=settings.thresholds)
    cost: Cost = {
        "trainable_parameters": model.parameters,
        "train_seconds": seconds,
        "samples_per_second": len(train) / seconds,
        "peak_memory_bytes": environment.peak_main_memory(),
    }
    manifest.finish_run(folder, {**scores.splits, "floors": floors, "cost": cost})
    protocol = thresholds.chosen_protocol(settings.thresholds)
    shown = "test" if "test" in scores.splits else "validation"
    console.show_scores(
        shown,
        scores.splits[shown],
        protocol=protocol,
        floors={name: floor[shown] for name, floor in floors.items()},
    )
    log.info("Run folder: %s", folder)
    app.say_next_steps(folder)
    return of_protocol(scores.splits["validation"], protocol)["f1_macro"]


def _floors(
    rates: "npt.NDArray[np.float32]", splits: "dict[str, Scored]", *, labels: list[str], thresholding: config.Thresholds
) -> dict[str, dict[str, SplitScores]]:
    """Scores of two classifiers that ignore the text, by classifier and split.

    `zeros` gives each label the probability 0, `prior` the label's rate in train. Thresholds are fitted as usual.
    """
    import torch

    from emotion_lightning.evaluation import metrics, thresholds

    by_floor = {"zeros": torch.zeros(len(labels)), "prior": torch.from_numpy(rates).float()}
    scored = {name: gold for name, split in splits.items() if (gold := split.gold) is not None}
    floors = {}
    for floor, rate in by_floor.items():
        probabilities: dict[str, Tensor] = {name: rate.repeat(len(gold.labels), 1) for name, gold in scored.items()}
        validation = scored["validation"]
        by_protocol = thresholds.fit_thresholds(
            probabilities["validation"], validation.labels, thresholding, known=validation.known
        )
        floors[floor] = {
            name: metrics.score(probabilities[name], gold.labels, by_protocol, labels, gold=gold)
            for name, gold in scored.items()
        }
    return floors


def _cross_entropy(logits: "Tensor", targets: "Tensor") -> float:
    """Mean cross-entropy over what is known, where targets are not NaN."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    known = ~targets.isnan()
    if bool(known.all()):
        return float(binary_cross_entropy_with_logits(logits.double(), targets.double()))
    return float(binary_cross_entropy_with_logits(logits[known].double(), targets[known].double()))


def main() -> None:
    """Read the command line and fit the baselines."""
    app.run_command("baseline", baseline)


if __name__ == "__main__":
    main()
