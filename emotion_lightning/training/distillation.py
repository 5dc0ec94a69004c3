"""Learning from probabilities: what finished runs, or a file, say of the training texts stands beside the labels."""

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from numpy.typing import NDArray

from emotion_lightning import config
from emotion_lightning.data.formats import files
from emotion_lightning.data.labels import Targets
from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError
from emotion_lightning.inference import ensemble, predictor
from emotion_lightning.models.card import CARD, find_model_folder
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.files import atomic_write

log = logging.getLogger(__name__)

_KEPT = 20
"""Sets of answers that stay in the user's cache; the longest unused go first."""


def targets(
    rows: Rows,
    labels: Sequence[str],
    settings: config.Distillation,
    *,
    accelerator: config.Accelerator,
) -> Targets:
    """What the network learns of each text, [row, label], float32.

    The labels, and the mean probability that the teachers give, mixed by the teachers' weight. As binary cross-entropy
    is linear in its target, that is the sum of the two losses of Hinton et al. (2015), at a temperature of 1: with
    several labels a text, probabilities are soft already.

    Args:
        rows: of the training split.
        labels: of this run.
        settings: who teaches, and how much it counts.
        accelerator: what the teachers run on.

    Raises:
        UserError: a teacher is no finished run, or lacks a label of this one; a file lacks a text or a label, or holds
            what is no probability.
    """
    assert rows.targets is not None
    if settings.answers is not None:
        taught = _of_file(settings.answers, rows, labels)
    else:
        taught = _of_runs(settings, rows, labels, accelerator=accelerator)
    mixed = (1 - settings.weight) * rows.targets + settings.weight * taught
    return np.asarray(mixed, dtype=np.float32)


def _of_runs(
    settings: config.Distillation,
    rows: Rows,
    labels: Sequence[str],
    *,
    accelerator: config.Accelerator,
) -> NDArray[np.float32]:
    """The mean probability that the runs give, [row, label]."""
    assert settings.runs is not None
    runs = ensemble.members(settings.runs, name=_SETTING)
    card = ensemble.card(runs, name=_SETTING)
    if missing := [name for name in labels if name not in card.labels]:
        raise UserError(
            f"{_SETTING}={settings.runs} knows nothing of {', '.join(missing)}: it was trained on "
            f"{', '.join(card.labels)}. Its labels must include all of this run's."
        )
    own = [card.labels.index(name) for name in labels]

    def ask() -> NDArray[np.float32]:
        log.info(
            "%d run%s the %s training texts.", len(runs), " labels" if len(runs) == 1 else "s label", f"{len(rows):,}"
        )
        teacher = predictor.open_runs(runs, card, accelerator=accelerator.value)
        answers: NDArray[np.float32] = teacher.probabilities(rows.texts).numpy()
        return answers

    return _kept_answers(_fingerprint(rows.texts, runs), ask, shape=(len(rows), len(card.labels)))[:, own]


def _kept_answers(name: str, ask: Callable[[], NDArray[np.float32]], *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """What `ask` gives, from the user's cache where it is there: seeds of one student need not ask again.

    Processes that start together wait for the first of them, then read what it wrote. A cache that cannot be written
    to is a warning.
    """
    from filelock import FileLock
    from platformdirs import user_cache_path

    folder = user_cache_path("emotion_lightning") / "teachers"
    entry = folder / f"{name}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_suffix(".lock")):
            if (found := _read_answers(entry, shape)) is not None:
                return found
            answers = ask()
            with atomic_write(entry) as temporary, temporary.open("wb") as file:
                np.save(file, answers)
            for old in sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)[:-_KEPT]:
                old.unlink(missing_ok=True)
                old.with_suffix(".lock").unlink(missing_ok=True)
            return answers
    except (OSError, NotImplementedError) as error:  # a file system without locks raises the latter
        log.warning("The teachers' answers are not kept in %s: %s", folder, error)
        return ask()


def _read_answers(entry: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    try:
        found: NDArray[np.float32] = np.load(entry, allow_pickle=False)
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError("other answers")
        entry.touch()  # what was used last goes last
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        log.warning("%s is damaged; the teachers are asked again.", entry)
        return None
    return found


def _of_file(name: str, rows: Rows, labels: Sequence[str]) -> NDArray[np.float32]:
    """The probabilities that a file holds for the texts, [row, label]."""
    path = Path(name).expanduser()
    wanted = {text: i for i, text in enumerate(dict.fromkeys(rows.texts))}
    found = np.full((len(wanted), len(labels)), np.nan, dtype=np.float32)
    column: str | None = None
    if path.parent.name == run_folder.PREDICTIONS:
        manifest.check_run(path.parent.parent, f"{run_folder.PREDICTIONS}/{path.name}")
    for row, record in files.records(path):
        if column is None:
            column = files.text_column(path, list(record), None)
            if missing := [label for label in labels if f"p_{label}" not in record]:
                raise UserError(
                    f"distill.answers={name} has no column p_{missing[0]}; it needs one for each label of this run."
                )
        place = wanted.get(str(record[column]))
        if place is not None:
            found[place] = [_share(record[f"p_{label}"], path, row, f"p_{label}") for label in labels]
    for text, place in wanted.items():
        if np.isnan(found[place]).any():
            raise UserError(
                f"distill.answers={name} has no row for the training text {shorten(text, 60)!r}; it needs one for each."
            )
    return found[[wanted[text] for text in rows.texts]]


def _share(cell: object, path: Path, row: int, column: str) -> float:
    try:
        share = float(str(cell))
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(f"{path}, row {row}, column {column}: {cell!r} is no probability, from 0 to 1.")
    return share


_SETTING = "distill.runs"


def _fingerprint(texts: Sequence[str], runs: Sequence[str]) -> str:
    """A name that no other texts and no other teachers have."""
    parts = [*(part for run in runs for part in _files_of(run)), "", *texts]
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _files_of(run: str) -> list[str]:
    """What tells a trained model from another one: its weights, its card, and the list of its base's files, hashed."""
    folder = find_model_folder(run, name=_SETTING)
    bases = [place / run_folder.BASE / manifest.NAME for place in (folder, folder.parent)]
    known = [folder / CARD, *(file for file in bases if file.is_file())]
    return [files.sha256(file) for file in sorted([*folder.glob("*.safetensors"), *known])]
