"""Outcomes of a run: gold labels and probabilities of each scored row, for comparisons, ensembles and reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from emotion_lightning.data.agreement import Judgements
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.runs import manifest, run_folder
from emotion_lightning.runs.files import atomic_write


@dataclass
class RowOutcomes:
    """Outcomes of a split, in the order of its rows.

    Attributes:
        ids: id of each row, as text.
        labels: names, in the order of the label axes.
        probabilities: the same as in the run's prediction files, [row, label], float32.
        targets: multi-hot, [row, label], float32, 0 where a label is open; None if the rows are not labelled.
        shares: from 0 to 1, [row, label], float32; None if only labels are known.
        known: whether a label is not left open, bool, [row, label]; None if none is.
        expected: shares that were answered, [row, label], float32, where the probabilities are not these; None: they
            are.
        groups: group of each row, where thresholds are fitted by one; None: they are the same for all rows.
    """

    ids: list[str]
    labels: list[str]
    probabilities: Tensor
    targets: Tensor | None
    shares: Tensor | None = None
    known: Tensor | None = None
    expected: Tensor | None = None
    groups: list[str] | None = None

    @classmethod
    def of(
        cls,
        ids: list[str],
        labels: list[str],
        probabilities: Tensor,
        gold: Gold | None,
        *,
        expected: Tensor | None = None,
        groups: list[str] | None = None,
    ) -> "RowOutcomes":
        """Outcomes of rows with this gold; None if they are not labelled."""
        if gold is None:
            return cls(ids, labels, probabilities, None, expected=expected, groups=groups)
        return cls(ids, labels, probabilities, gold.labels, gold.shares, gold.known, expected, groups)


@dataclass
class HeldOut:
    """All rows of a dataset, train first, and what was answered for them.

    Attributes:
        rows: labelled rows; ids are unique.
        splits: the split of each row.
        labels: names, in the order of the label axes.
        probabilities: mean over the runs that did not learn from a row, [row, label]; NaN if all of them did.
        runs: number of runs.
        judgements: what each annotator said of the rows; None if that is not known.
    """

    rows: Rows
    splits: list[str]
    labels: list[str]
    probabilities: npt.NDArray[np.float64]
    runs: int
    judgements: Judgements | None = None

    @property
    def answered(self) -> npt.NDArray[np.int64]:
        """Positions of the rows that have probabilities."""
        return np.flatnonzero(~np.isnan(self.probabilities).any(axis=1))


def write_outcomes(folder: Path, split: str, outcomes: RowOutcomes) -> None:
    """Write `outcomes/<split>.parquet` of a run folder: `id`, and `gold_<label>` (0/1) and `p_<label>` per label.

    A label that is left open is null. Where shares are known, they stand in `share_<label>`, and the shares that were
    answered in `expected_<label>` if the probabilities are others. `group` has the group whose thresholds decided.
    """
    import pyarrow
    import pyarrow.parquet

    columns = {"id": pyarrow.array(list(outcomes.ids), pyarrow.string())}
    open_ = None if outcomes.known is None else ~outcomes.known.numpy()

    def named(prefix: str, values: npt.NDArray[np.generic]) -> dict[str, pyarrow.Array]:
        return {
            f"{prefix}{name}": pyarrow.array(values[:, i], mask=None if open_ is None else open_[:, i])
            for i, name in enumerate(outcomes.labels)
        }

    if outcomes.targets is not None:
        columns |= named("gold_", outcomes.targets.numpy().astype(np.int8))
    if outcomes.shares is not None:
        columns |= named("share_", outcomes.shares.float().numpy())
    shares = outcomes.probabilities.float().numpy()
    columns |= {f"p_{name}": pyarrow.array(shares[:, i]) for i, name in enumerate(outcomes.labels)}
    if outcomes.expected is not None:
        answered = outcomes.expected.float().numpy()
        columns |= {f"expected_{name}": pyarrow.array(answered[:, i]) for i, name in enumerate(outcomes.labels)}
    if outcomes.groups is not None:
        columns["group"] = pyarrow.array(outcomes.groups, pyarrow.string())
    with atomic_write(folder / run_folder.OUTCOMES / f"{split}.parquet") as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


def read_outcomes(folder: Path, split: str, labels: Sequence[str]) -> RowOutcomes | None:
    """Read the outcomes of a split; None if the run has none.

    Raises:
        UserError: the file is damaged, was changed, or has other labels.
    """
    import pyarrow.parquet

    file = folder / run_folder.OUTCOMES / f"{split}.parquet"
    if not file.is_file():
        return None
    manifest.check_run_hashes(folder, f"{run_folder.OUTCOMES}/{split}.parquet")
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}") from error
    # Older versions did not normalise the label names of the data.
    table = table.rename_columns([normalised(name) for name in table.column_names])
    wanted = [f"p_{name}" for name in labels]
    if missing := [name for name in ("id", *wanted) if name not in table.column_names]:
        raise UserError(f"{file} has no column {missing[0]}: it is not of a run with the labels {', '.join(labels)}.")
    gold = [f"gold_{name}" for name in labels]
    labelled = all(name in table.column_names for name in gold)
    shares = [f"share_{name}" for name in labels]
    expected = [f"expected_{name}" for name in labels]
    targets = _matrix(table, gold) if labelled else None
    known = None if targets is None or not bool(targets.isnan().any()) else ~targets.isnan()
    return RowOutcomes(
        ids=[str(identifier) for identifier in table.column("id").to_pylist()],
        labels=list(labels),
        probabilities=_matrix(table, wanted),
        targets=None if targets is None else targets.nan_to_num(0),
        shares=_matrix(table, shares).nan_to_num(0) if all(name in table.column_names for name in shares) else None,
        known=known,
        expected=_matrix(table, expected) if all(name in table.column_names for name in expected) else None,
        groups=[str(group) for group in table.column("group").to_pylist()] if "group" in table.column_names else None,
    )


def _matrix(table: "pyarrow.Table", names: Sequence[str]) -> Tensor:  # type: ignore[name-defined]  # noqa: F821
    return torch.from_numpy(np.column_stack([table.column(name).to_numpy() for name in names]).astype(np.float32))
