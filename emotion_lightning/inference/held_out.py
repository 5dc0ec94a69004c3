"""The rows of a run's data, with the probabilities of networks that did not learn from them.

A run has answered its validation and test rows. The folds of a cross-validation together have answered all rows but
those that no fold validates on.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import sources, splitting
from emotion_lightning.data.rows import SPLITS, Corpus, Rows
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import row_outcomes
from emotion_lightning.evaluation.row_outcomes import HeldOut
from emotion_lightning.inference import ensemble, run_data
from emotion_lightning.models.metadata import find_model_folder, read_metadata
from emotion_lightning.runs import quiet


def read_held_out(run: str) -> HeldOut:
    """Read the data of a run, or of several, again, and put the stored probabilities beside its rows.

    Args:
        run: run folder, several, or the folder of a multirun such as the folds of a cross-validation.

    Raises:
        UserError: the runs have other labels or data, the data has changed, or a run keeps no outcomes.
    """
    runs = ensemble.find_members(run)
    models = [find_model_folder(one) for one in runs]
    folders = [model.parent for model in models]
    metadata = [read_metadata(model) for model in models]
    settings = [run_data.data_settings(one, folder) for one, folder in zip(metadata, folders, strict=True)]
    unfolded = [dataclasses.replace(one, folds=None, fold=None, drop_leaks=False) for one in settings]
    labels = metadata[0].labels
    for one, other, known in zip(runs, unfolded, metadata, strict=True):
        # splits.csv lies in each run's own folder; whether the rows agree is checked below.
        if _without_splits(other) != _without_splits(unfolded[0]):
            raise UserError(f"{one} was trained on other data, or read it in another way, than {runs[0]}.")
        if known.labels != labels:
            raise UserError(f"{one} has the labels {', '.join(known.labels)}, {runs[0]} has {', '.join(labels)}.")
    with quiet.only_errors("emotion_lightning.data"):
        return _beside(runs, folders, settings, unfolded[0], labels)


def _beside(
    runs: Sequence[str],
    folders: Sequence[Path],
    settings: Sequence[config.Batches],
    unfolded: config.Batches,
    labels: list[str],
) -> HeldOut:
    """Put the stored probabilities of the runs beside the rows of their data; see `read_held_out`."""
    whole = sources.read_corpus(unfolded, known=set(labels))
    base = sources.split_corpus(whole, unfolded, tell=False)
    if base.labels != labels:
        raise UserError(f"The data of {runs[0]} has the labels {', '.join(base.labels)} now; it has changed.")
    rows, splits = _labelled(base)
    totals, counts = np.zeros((len(rows), len(labels))), np.zeros(len(rows))
    for folder, own in zip(folders, settings, strict=True):
        corpus = base if own.folds is None else sources.split_corpus(whole, own, tell=False)
        for name in ("validation", "test"):
            if name not in corpus.splits or corpus.splits[name].targets is None:
                continue
            positions = _positions(base, own, name, corpus.splits[name].ids)
            found = row_outcomes.read_outcomes(folder, name, labels)
            if found is None or found.ids != corpus.splits[name].ids:
                why = "keeps no outcomes" if found is None else "has scored other rows than the data has now"
                raise UserError(f"{folder} {why} of {name}; train it again on this data.")
            totals[positions] += found.probabilities.numpy()
            counts[positions] += 1
    with np.errstate(invalid="ignore"):
        return HeldOut(rows, splits, labels, totals / counts[:, None], len(runs), whole.judgements)


def _without_splits(settings: config.Batches) -> config.Batches:
    return dataclasses.replace(settings, splits=None) if isinstance(settings, config.Table | config.XED) else settings


def _labelled(base: Corpus) -> tuple[Rows, list[str]]:
    """The labelled rows of all splits with unique ids, and the split of each."""
    names = _names(base)
    parts = [base.splits[name] for name in names]
    return splitting.joined(parts), [name for name, part in zip(names, parts, strict=True) for _ in range(len(part))]


def _names(base: Corpus) -> list[str]:
    return [name for name in SPLITS if name in base.splits and base.splits[name].targets is not None]


def _positions(base: Corpus, settings: config.Batches, split: str, ids: Sequence[str]) -> list[int]:
    """The positions of rows of a split, or of a fold, among all rows."""
    names = _names(base)
    starts = dict(zip(names, np.cumsum([0, *(len(base.splits[name]) for name in names)]).tolist(), strict=False))
    if settings.folds is None or split == "test":
        return [starts[split] + place for place in range(len(ids))]
    # A fold has the ids that joining train and validation gave them.
    pool = splitting.joined([base.splits["train"], base.splits["validation"]])
    where = {identifier: place for place, identifier in enumerate(pool.ids)}
    return [where[identifier] for identifier in ids]
