"""Knowledge distillation: mix the labels with the probabilities that finished runs or a file give for these texts."""

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from textwrap import shorten

import numpy as np
from numpy.typing import NDArray

from emotion_lightning import config
from emotion_lightning.data.formats import files
from emotion_lightning.data.labels import Targets
from emotion_lightning.data.rows import Rows, Text
from emotion_lightning.errors import UserError
from emotion_lightning.inference import ensemble, predictor
from emotion_lightning.models.metadata import METADATA, find_model_folder
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.files import atomic_write

log = logging.getLogger(__name__)

_KEPT = 20
"""Number of entries in the user's cache of teacher probabilities; the least recently used are deleted first."""


def teacher_targets(
    rows: Rows,
    labels: Sequence[str],
    settings: config.Distillation,
    *,
    accelerator: config.Accelerator,
) -> Targets:
    """Return the soft training targets, [row, label], float32.

    A target is (1 - weight) * label + weight * the teachers' mean probability; an open label stays open. Binary
    cross-entropy is linear in its target, so this equals the weighted sum of the two losses of Hinton et al. (2015).
    The temperature is 1, because multi-label probabilities are already soft.

    Args:
        rows: the training split.
        labels: label names of this run.
        settings: the teachers and their weight.
        accelerator: what the teachers run on.

    Raises:
        UserError: a teacher is not a finished run or lacks a label of this run; a file lacks a text or a label, or
            contains a value that is not a probability.
    """
    learned = rows.learned
    assert learned is not None
    if settings.answers is not None:
        taught = _of_file(settings.answers, rows, labels)
    else:
        taught = _of_runs(settings, rows, labels, accelerator=accelerator)
    mixed = (1 - settings.weight) * learned + settings.weight * taught
    return np.asarray(mixed, dtype=np.float32)


def _of_runs(
    settings: config.Distillation,
    rows: Rows,
    labels: Sequence[str],
    *,
    accelerator: config.Accelerator,
) -> NDArray[np.float32]:
    """Return the mean probability of the teacher runs, [row, label]."""
    assert settings.runs is not None
    runs = ensemble.find_members(settings.runs, name=_SETTING)
    metadata = ensemble.combined_metadata(runs, name=_SETTING)
    if missing := [name for name in labels if name not in metadata.labels]:
        raise UserError(
            f"{_SETTING}={settings.runs} knows nothing of {', '.join(missing)}: it was trained on "
            f"{', '.join(metadata.labels)}. Its labels must include all of this run's."
        )
    own = [metadata.labels.index(name) for name in labels]

    def ask() -> NDArray[np.float32]:
        log.info(
            "%d run%s the %s training texts.", len(runs), " labels" if len(runs) == 1 else "s label", f"{len(rows):,}"
        )
        teacher = predictor.open_runs(runs, metadata, accelerator=accelerator.value)
        answers: NDArray[np.float32] = teacher.probabilities(rows.inputs).numpy()
        return answers

    return _kept_answers(_fingerprint(rows.inputs, runs), ask, shape=(len(rows), len(metadata.labels)))[:, own]


def _kept_answers(name: str, ask: Callable[[], NDArray[np.float32]], *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the result of `ask`, from the user's cache if it is there.

    With the cache, runs of one student with different seeds compute the teachers once. Processes that start together
    wait for the first one and then read its result. If the cache cannot be written, a warning is logged.
    """
    from filelock import FileLock
    from platformdirs import user_cache_path

    folder = user_cache_path("emotion_lightning") / "teachers"
    entry = folder / f"{name}.npy"
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(entry.with_suffix(".lock")))
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            log.warning(_NOT_KEPT, folder, error)
            return ask()
        found = _read_answers(entry, shape)
        if found is None:
            found = ask()
            _write_answers(entry, found)
        return found


_NOT_KEPT = "The teachers' answers are not kept in %s: %s"


def _write_answers(entry: Path, answers: NDArray[np.float32]) -> None:
    """Write an entry of the cache and delete the least recently used ones; log a warning if that fails."""
    try:
        with atomic_write(entry) as temporary, temporary.open("wb") as file:
            np.save(file, answers)
        for old in sorted(entry.parent.glob("*.npy"), key=lambda file: file.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
            old.with_suffix(".lock").unlink(missing_ok=True)
    except (OSError, UserError) as error:  # a full disk must not end a run that works without the cache
        log.warning(_NOT_KEPT, entry.parent, error)


def _read_answers(entry: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    try:
        found: NDArray[np.float32] = np.load(entry, allow_pickle=False)
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError("other answers")
        entry.touch()  # the least recently used entry is deleted first
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        log.warning("%s is damaged; the teachers are asked again.", entry)
        return None
    return found


def _of_file(name: str, rows: Rows, labels: Sequence[str]) -> NDArray[np.float32]:
    """Return the probabilities that a file gives for the texts, [row, label]."""
    path = Path(name).expanduser()
    wanted = {text: i for i, text in enumerate(dict.fromkeys(rows.texts))}
    found = np.full((len(wanted), len(labels)), np.nan, dtype=np.float32)
    column: str | None = None
    if path.parent.name == run_folder.PREDICTIONS:
        manifest.check_run_hashes(path.parent.parent, f"{run_folder.PREDICTIONS}/{path.name}")
    for row, record in files.records(path):
        if column is None:
            column = files.text_column(path, list(record), None)
            if missing := [label for label in labels if f"p_{label}" not in record]:
                raise UserError(
                    f"distill.answers={name} has no column p_{missing[0]}; it needs one for each label of this run."
                )
        place = wanted.get(str(record[column]))
        if place is not None:
            found[place] = [_weight(record[f"p_{label}"], path, row, f"p_{label}") for label in labels]
    for text, place in wanted.items():
        if np.isnan(found[place]).any():
            raise UserError(
                f"distill.answers={name} has no row for the training text {shorten(text, 60)!r}; it needs one for each."
            )
    return found[[wanted[text] for text in rows.texts]]


def _weight(cell: object, path: Path, row: int, column: str) -> float:
    try:
        share = float(str(cell))
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(f"{path}, row {row}, column {column}: {cell!r} is no probability, from 0 to 1.")
    return share


_SETTING = "distill.runs"


def _fingerprint(texts: Sequence[Text], runs: Sequence[str]) -> str:
    """Return a hash of the texts and of the teachers' files."""
    parts = [*(part for run in runs for part in _files_of(run)), ""]
    parts += [text if isinstance(text, str) else repr(text) for text in texts]
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _files_of(run: str) -> list[str]:
    """Return the SHA-256 sums that identify a trained model: weights, metadata and the manifest of its base model."""
    folder = find_model_folder(run, name=_SETTING)
    bases = [place / run_folder.BASE / manifest.NAME for place in (folder, folder.parent)]
    known = [folder / METADATA, *(file for file in bases if file.is_file())]
    return [files.sha256(file) for file in sorted([*folder.glob("*.safetensors"), *known])]
