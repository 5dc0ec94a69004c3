"""Splits that a dataset lacks: made by stratified sampling with a seed, written to a file, and read back."""

import csv
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from emotion_lightning import config
from emotion_lightning.data import groups
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import SPLITS, WHOLE, Corpus, Rows
from emotion_lightning.errors import UserError
from emotion_lightning.runs.files import atomic_write

log = logging.getLogger(__name__)

Value = TypeVar("Value")


def split_rows(corpus: Corpus, settings: config.Table | config.XED) -> Corpus:
    """Make the splits that a corpus lacks from its other rows: by stratified sampling, or as `data.splits` says.

    Raises:
        UserError: the rows have no labels, are too few, or do not match `data.splits`.
    """
    source = "train" if WHOLE not in corpus.splits else WHOLE
    kept = {name: rows for name, rows in corpus.splits.items() if name != source}
    rows = corpus.splits[source]
    if rows.targets is None:
        raise UserError("Rows without labels cannot be split.")
    if settings.splits is not None:
        parts = _as_written(rows, Path(settings.splits).expanduser(), settings, whole=source == WHOLE)
    else:
        parts = _stratified(rows, settings, whole=source == WHOLE, column=str(corpus.decisions.groups))
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    log.info("%s: %s.", f"Splits as in {settings.splits}" if settings.splits else "New splits", sizes)
    how = f"as in {settings.splits}" if settings.splits else "by the program, stratified by labels"
    if rows.groups is not None and not settings.splits:
        how += f", no {corpus.decisions.groups} cut"
    what = "" if source == WHOLE else ", validation taken from train"
    had = "" if source == WHOLE else f"{corpus.decisions.split}; "
    decisions = replace(corpus.decisions, split=f"{had}{how}{what}")
    return replace(corpus, splits={**parts, **kept}, new_splits=parts, decisions=decisions)


def folded(corpus: Corpus, *, folds: int, fold: int, seed: int, clean: Sequence[config.CleaningStep] = ()) -> Corpus:
    """Merge train and validation and divide them into folds; number `fold`, from 1 to `folds`, is the new validation.

    Folds are stratified by labels (Sechidis et al., 2011). Every row is in the validation split of exactly one fold;
    rows whose texts are equal after the cleaning steps are in the same one.

    Raises:
        UserError: the rows have no labels, or there are more folds than rows.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    parts = [corpus.splits[name] for name in ("train", "validation")]
    rows = joined(parts)
    if rows.targets is None:
        raise UserError("Rows without labels cannot be cut into folds.")
    if len(rows) < folds:
        raise UserError(f"data.folds={folds} is more than there are rows ({len(rows)}).")
    if rows.groups is not None:
        named = {str(number): 1 / folds for number in range(1, folds + 1)}
        parts_ = groups.divide(rows, named, str(corpus.decisions.groups), seed=seed, clean=clean)
        validation = parts_[str(fold)]
        return _with_fold(corpus, rows, np.setdiff1d(np.arange(len(rows)), validation), validation, fold, folds)
    same, strata = _grouped(rows, clean)
    if len(strata) < folds:
        raise UserError(f"data.folds={folds} is more than there are different texts ({len(strata)}).")
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    chosen = list(splitter.split(np.zeros(len(strata)), strata))[fold - 1]
    train, validation = (np.flatnonzero(np.isin(same, part)) for part in chosen)
    return _with_fold(corpus, rows, train, validation, fold, folds)


def _with_fold(corpus: Corpus, rows: Rows, train: np.ndarray, validation: np.ndarray, fold: int, folds: int) -> Corpus:
    """The corpus with these rows as train and validation."""
    splits = {"train": rows.take(np.sort(train)), "validation": rows.take(np.sort(validation))}
    log.info("Fold %d of %d: train %s, validation %s.", fold, folds, *(f"{len(part):,}" for part in splits.values()))
    decisions = replace(corpus.decisions, split=f"{corpus.decisions.split}; fold {fold} of {folds} is validation")
    return replace(corpus, splits=corpus.splits | splits, decisions=decisions)


def joined(parts: list[Rows], *, by_id: bool = False) -> Rows:
    """Concatenate rows; if ids repeat, for example because each part counts its rows, prefix them with their part.

    Args:
        parts: rows with the same labels.
        by_id: whether an id of a column means the same text in every part, so that ids stay as they are.
    """
    ids = [identifier for part in parts for identifier in part.ids]
    if len(set(ids)) < len(ids) and not (by_id and parts[0].id_column != files.ROW):
        ids = [f"{number}-{identifier}" for number, part in enumerate(parts, 1) for identifier in part.ids]
    labelled = [part.targets for part in parts if part.targets is not None]
    strata = [part.strata for part in parts if part.strata is not None]
    grouped = any(part.groups is not None for part in parts)
    return Rows(
        ids=ids,
        texts=[text for part in parts for text in part.texts],
        targets=np.concatenate(labelled) if len(labelled) == len(parts) else None,
        id_column=parts[0].id_column,
        before=_all([part.before for part in parts]),
        # Each part may count its conversations from 0.
        conversations=_all(
            [part.conversations and [f"{i}-{name}" for name in part.conversations] for i, part in enumerate(parts, 1)]
        ),
        groups=[value for part in parts for value in part.groups or [None] * len(part)] if grouped else None,
        strata=np.concatenate(strata) if len(strata) == len(parts) else None,
        shares=_stacked([part.shares for part in parts]),
        open=_opened(parts),
        scale=parts[0].scale,
        hardens=parts[0].hardens,
        annotators=_all([part.annotators for part in parts]),
        carried={
            name: [value for part in parts for value in part.carried.get(name) or [None] * len(part)]
            for name in dict.fromkeys(name for part in parts for name in part.carried)
        },
    )


def _opened(parts: list[Rows]) -> npt.NDArray[np.bool_] | None:
    """Which labels the parts leave open, [row, label]; None if they leave none."""
    if all(part.open is None for part in parts):
        return None
    return _stacked(
        [
            np.zeros(part.targets.shape, dtype=bool) if part.open is None and part.targets is not None else part.open
            for part in parts
        ]
    )


def _stacked(parts: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """The parts one below the other; None if one is missing."""
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if len(given) == len(parts) else None


def _all(parts: Sequence[list[Value] | None]) -> list[Value] | None:
    """The parts as one list; None if one is missing."""
    given = [part for part in parts if part is not None]
    return [value for part in given for value in part] if len(given) == len(parts) else None


def _stratified(rows: Rows, settings: config.Table | config.XED, *, whole: bool, column: str) -> dict[str, Rows]:
    test_share = settings.test_share if whole and isinstance(settings, config.DividedTable | config.XED) else 0.0
    if rows.groups is not None:
        shares = {"train": 1 - settings.validation_share - test_share, "validation": settings.validation_share}
        shares |= {"test": test_share} if test_share else {}
        found = groups.divide(rows, shares, column, seed=settings.split_seed, clean=settings.clean)
        return {name: rows.take(positions) for name, positions in found.items()}
    named = settings.train if isinstance(settings, config.File) and settings.train else getattr(settings, "path", None)
    named = settings.dir if isinstance(settings, config.XED) else named
    split = partial(_split_rows, seed=settings.split_seed, source=str(named), clean=settings.clean)
    rest, test = split(rows, test_share)
    # The share refers to all rows, but validation is taken from the rows that are not in test.
    train, validation = split(rest, settings.validation_share / (1 - test_share))
    return {"train": train, "validation": validation} | ({"test": test} if len(test) else {})


def _split_rows(
    rows: Rows, share: float, *, seed: int, source: str, clean: Sequence[config.CleaningStep]
) -> tuple[Rows, Rows]:
    """Split rows in two; the second part has about this share of the rows and of the positives of every label.

    Uses iterative stratification (Sechidis et al., 2011). Rows whose texts are equal after the cleaning steps stay in
    one part: otherwise a network would be scored on texts that it has learned.
    """
    if share == 0:
        return rows, rows.take(range(0))
    same, strata = _grouped(rows, clean)
    wanted = round(share * len(strata))
    if wanted < 1 or len(strata) - wanted < 1:
        what = f"{len(rows)} rows" + (f" of {len(strata)} different texts" if len(strata) < len(rows) else "")
        raise UserError(
            f"{source}: {what} are too few to split off a share of {share:g}; add rows, or give your own "
            "splits with data.train=, data.validation= and data.test=."
        )
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=wanted, random_state=seed)
    kept, taken = _sized(*next(splitter.split(np.zeros(len(strata)), strata)), wanted=wanted, seed=seed)
    return rows.take(np.flatnonzero(np.isin(same, kept))), rows.take(np.flatnonzero(np.isin(same, taken)))


def _grouped(rows: Rows, clean: Sequence[config.CleaningStep]) -> tuple[np.ndarray, np.ndarray]:
    """Group of each row, its conversation or else equal texts, [row], and columns to stratify by, [group, label + 1].

    The columns are every label, which a group has if one of its rows has it, and a column of ones for the number of
    groups. Where no text repeats, each row is a group of its own, in the order of the rows.
    """
    labels = rows.targets if rows.strata is None else rows.strata
    assert labels is not None
    same = groups.kept_together(rows, clean)
    targets = np.zeros((int(same.max(initial=-1)) + 1, labels.shape[1]))
    np.maximum.at(targets, same, labels)
    return same, np.hstack([targets, np.ones((len(targets), 1))]).astype(int)


def _sized(kept: np.ndarray, taken: np.ndarray, *, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Move a few random rows, so that `taken` has the requested size, which the splitter misses with many labels."""
    surplus = len(taken) - wanted
    source = taken if surplus > 0 else kept
    moved = np.random.default_rng(seed).choice(source, size=abs(surplus), replace=False)
    if surplus > 0:
        return np.concatenate([kept, moved]), np.setdiff1d(taken, moved)
    return np.setdiff1d(kept, moved), np.concatenate([taken, moved])


def write_splits(file: Path, corpus: Corpus) -> None:
    """Write the split of each row, with a fingerprint of its text to detect changes later."""
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["id", "split", "text_sha256"])
        for name, rows in corpus.new_splits.items():
            writer.writerows(
                (identifier, name, _fingerprint(text)) for identifier, text in zip(rows.ids, rows.texts, strict=True)
            )


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def learned_from(file: Path, texts: Sequence[str]) -> int:
    """Number of texts that are in the train split which a file of `write_splits` names."""
    learned = {text_print for split, text_print in _read(file).values() if split == "train"} - {""}
    return sum(_fingerprint(text) in learned for text in texts)


def _as_written(rows: Rows, file: Path, settings: config.Table | config.XED, *, whole: bool) -> dict[str, Rows]:
    """Divide rows into the splits that a file names.

    Args:
        rows: all rows, or the first ones (`data.max_rows`).
        file: file written by `write_splits`.
        settings: table settings; they say whether rows may be missing.
        whole: whether the rows have no split yet; otherwise they are those of train.

    Raises:
        UserError: the file does not match the rows, or leaves a split without rows.
    """
    where = _read(file)
    unknown = next((identifier for identifier in rows.ids if identifier not in where), None)
    if unknown is not None:
        raise UserError(f"{file} has no split for the row {unknown} of this data; it is of another file.")
    positions: dict[str, list[int]] = {name: [] for name in SPLITS}
    changed: list[str] = []
    for position, (identifier, text) in enumerate(zip(rows.ids, rows.texts, strict=True)):
        split, text_print = where.pop(identifier)
        positions[split].append(position)
        if text_print and text_print != _fingerprint(text):
            changed.append(identifier)
    drops = isinstance(settings, config.Table) and settings.empty_texts is config.EmptyTexts.drop
    if where and settings.max_rows is None and not drops:
        raise UserError(
            f"{file} names {len(where):,} rows that this data lacks, {next(iter(where))} among them; it is of another "
            "file."
        )
    if changed and rows.id_column == files.ROW:
        raise UserError(
            f"{file}: the text of row {changed[0]} is another one now ({len(changed):,} rows in all). Rows without ids "
            "are told by their number, so these may have moved from one split to another; split anew without "
            "data.splits, or give the file an id column."
        )
    if changed:
        log.warning("%s: the texts of %s rows have changed, %s among them.", file, f"{len(changed):,}", changed[0])
    found = {name: rows.take(np.array(chosen)) for name, chosen in positions.items() if chosen}
    needed = {"train", "validation"} if whole or "validation" in found else {"train"}
    if missing := [name for name in sorted(needed) if name not in found]:
        raise UserError(f"{file} leaves {' and '.join(missing)} without rows of this data; both are needed to train.")
    return found


def _read(file: Path) -> dict[str, tuple[str, str]]:
    """Split and text fingerprint of each row, by id."""
    where: dict[str, tuple[str, str]] = {}
    for row, record in files.records(file):
        identifier, split = record.get("id"), record.get("split")
        if identifier is None or split not in SPLITS:
            raise UserError(f"{file}, row {row}: not an id and its split; data.splits takes the splits.csv of a run.")
        if identifier in where:
            raise UserError(f"{file}, row {row}: the id {identifier} stands there twice.")
        where[identifier] = (split, str(record.get("text_sha256") or ""))
    return where
