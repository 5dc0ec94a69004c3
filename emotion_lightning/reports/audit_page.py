"""The result of an audit of labels: a table to mend, a page, sentences."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emotion_lightning.data.formats.files import ROW
from emotion_lightning.data.overlap import groups_of
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import label_errors, odd_annotators, prediction_files
from emotion_lightning.evaluation.row_outcomes import HeldOut
from emotion_lightning.reports import pages
from emotion_lightning.runs.plain_text import excerpt

_SHOWN_DOUBT = 0.5
"""A label is named as doubtful from this probability of being wrong on; the most doubtful of a row always is."""

_COLUMNS = ("split", "suspicion", "doubts", "same_text_as")
"""Columns of audit.csv beside id, text and labels."""


@dataclass
class Audit:
    """Rows with their doubts, the most suspicious first.

    Attributes:
        found: the rows and the probabilities for them.
        run: what was audited.
        shown: number of rows on the page.
        doubts: probability that each label is wrong, [row, label]; NaN without an answer.
        suspicion: that of the most doubtful label of each row, [row]; NaN without an answer.
        order: positions of all rows, the most suspicious first, those without an answer last.
        errors: for each label, the number of rows that look wrong.
        twins: for each row whose text other rows have with other labels, the position of the first of them.
        annotators: those who labelled, who differ most first; None if the data does not say who did.
    """

    found: HeldOut
    run: str
    shown: int
    doubts: npt.NDArray[np.float64]
    suspicion: npt.NDArray[np.float64]
    order: list[int]
    errors: list[label_errors.LabelErrors]
    twins: dict[int, int]
    annotators: odd_annotators.OddAnnotators | None = None

    @classmethod
    def of(cls, found: HeldOut, *, run: str, shown: int) -> "Audit":
        """Compute the doubts of all rows.

        Raises:
            UserError: no row has an answer.
        """
        answered = found.answered
        targets = found.rows.targets
        assert targets is not None
        if not len(answered):
            raise UserError(f"run={run} has answered no labelled row that it did not learn from.")
        known = None if found.rows.open is None else ~found.rows.open[answered]
        shares = label_errors.calibrated(found.probabilities[answered], targets[answered], known=known)
        doubts = np.full(found.probabilities.shape, np.nan)
        doubts[answered] = label_errors.doubts(shares, targets[answered], known=known)
        suspicion = doubts.max(axis=1)
        # Stable, so that rows that are equally suspicious stay in the order of the data.
        order = np.argsort(-np.nan_to_num(suspicion, nan=-1.0), kind="stable")
        errors = label_errors.count_errors(shares, targets[answered], known=known)
        annotators = None if found.judgements is None else odd_annotators.rank(found.judgements)
        return cls(found, run, shown, doubts, suspicion, order.tolist(), errors, _twins(found), annotators)

    def named(self, row: int) -> str:
        """The doubtful labels of a row in words; empty without an answer."""
        if np.isnan(self.suspicion[row]):
            return ""
        assert self.found.rows.targets is not None
        order = np.argsort(-self.doubts[row], kind="stable")
        worth = [int(label) for label in order if self.doubts[row, label] >= _SHOWN_DOUBT] or [int(order[0])]
        return "; ".join(
            f"{self.found.labels[label]} {'unwarranted' if self.found.rows.targets[row, label] else 'missing'} "
            f"{self.doubts[row, label]:.2f}"
            for label in worth
        )

    def given(self, row: int) -> str:
        """The labels of a row."""
        assert self.found.rows.targets is not None
        return ", ".join(name for name, yes in zip(self.found.labels, self.found.rows.targets[row], strict=True) if yes)


def _twins(found: HeldOut) -> dict[int, int]:
    """For each row whose text stands elsewhere with other labels, the position of the first of those rows."""
    assert found.rows.targets is not None
    groups = groups_of(found.rows.texts)
    order = np.argsort(groups, kind="stable")
    twins: dict[int, int] = {}
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(members) < 2:
            continue
        for row in members:
            others = [other for other in members if (found.rows.targets[other] != found.rows.targets[row]).any()]
            if others:
                twins[int(row)] = int(others[0])
    return twins


def column_names(id_column: str, labels: Sequence[str], others: Sequence[str]) -> list[str]:
    """Names of the columns of a table to mend or to fill in, which `data=file` reads back.

    Raises:
        UserError: a label or the id column has the name of another column.
    """
    # A column of row numbers is called id, because data=file would not take one called row for the ids.
    names = ["id" if id_column == ROW else id_column, "text", *labels, *others]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UserError(f"The table would have two columns named {', '.join(sorted(repeated))}; rename the label.")
    return names


def table(audit: Audit) -> bytes:
    """audit.csv: every row, the most suspicious first, with its labels as zeros and ones; one left open is empty.

    Raises:
        UserError: a label or the id column has the name of another column.
    """
    rows, labels = audit.found.rows, audit.found.labels
    assert rows.targets is not None
    names = column_names(rows.id_column, labels, _COLUMNS)
    file = io.StringIO(newline="")
    writer = prediction_files.csv_writer(file)
    writer.writerow(names)
    for row in audit.order:
        suspicion = "" if np.isnan(audit.suspicion[row]) else f"{audit.suspicion[row]:.4f}"
        twin = rows.ids[audit.twins[row]] if row in audit.twins else ""
        cells: list[int | str] = [int(cell) for cell in rows.targets[row]]
        if rows.open is not None:
            cells = ["" if is_open else cell for cell, is_open in zip(cells, rows.open[row], strict=True)]
        writer.writerow(
            [rows.ids[row], rows.texts[row], *cells, audit.found.splits[row], suspicion, audit.named(row), twin]
        )
    return file.getvalue().encode()


def annotator_table(audit: Audit) -> bytes | None:
    """annotators.csv: everybody who labelled, who differ most first; None if the data does not say who did."""
    if audit.annotators is None:
        return None
    names, rows = odd_annotators.table(audit.annotators)
    file = io.StringIO(newline="")
    writer = prediction_files.csv_writer(file)
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue().encode()


def sections(audit: Audit, *, shown: int) -> list[pages.Section]:
    """The tables: the most suspicious rows, labels, equal texts with other labels, and annotators who differ."""
    rows = audit.found.rows
    doubtful = _answered(audit)[:shown]
    first = pages.Section(
        "Rows in doubt",
        "How likely it is, by a calibrated model that did not learn from the row, that a label of it is wrong. A row "
        "that the model does not understand looks the same as one that is labelled wrongly: read it.",
        columns=["text", "labels", "in doubt", "suspicion", "row"],
        rows=[
            [excerpt(rows.texts[row], 160), audit.given(row) or "none", audit.named(row), f"{audit.suspicion[row]:.2f}",
             rows.ids[row]]
            for row in doubtful
        ],
    )  # fmt: skip
    labels = pages.Section(
        "By label",
        "Rows that look wrong: their probability is as high as the mean of the rows that are labelled the other way "
        "(confident learning, Northcutt et al., 2021).",
        columns=["label", "rows with it", "look unwarranted", "look missing"],
        rows=[
            [name, f"{one.given:,}", f"{one.unwarranted:,}", f"{one.missing:,}"]
            for name, one in zip(audit.found.labels, audit.errors, strict=True)
        ],
    )
    twins = [row for row in sorted(audit.twins) if audit.twins[row] > row][:shown]
    same = pages.Section(
        "Equal texts with other labels",
        "Equal but for case and white space.",
        columns=["text", "labels", "row", "other labels", "other row"],
        rows=[
            [excerpt(rows.texts[row], 160), audit.given(row) or "none", rows.ids[row], audit.given(other) or "none",
             rows.ids[other]]
            for row, other in ((row, audit.twins[row]) for row in twins)
        ],
    )  # fmt: skip
    return [part for part in (first, labels, same, *_annotators(audit, shown)) if part.rows]


def _annotators(audit: Audit, shown: int) -> list[pages.Section]:
    """The table of the annotators who are ranked; empty if nobody is known."""
    found = audit.annotators
    if found is None:
        return []
    meaning = (
        "Cohen's kappa with the other annotators of the same texts, all labels together: 1 if they agree on every "
        "text, 0 as by chance."
    )
    if not found.paired:
        meaning += (
            " Beside it that of the others among themselves on these texts: where it is low too, the texts are hard. "
            f"Annotators are ranked by the upper end of the {100 * odd_annotators.CONFIDENCE:.0f} % interval of the "
            "difference, so that few texts put nobody first. Of forty who are all alike, about one is below 0 by "
            "chance; and to differ is not to be wrong."
        )
    rows = []
    for one in [one for one in found.annotators if one.ranked][:shown]:
        kappas = [] if found.paired else [_kappa(one.others), _kappa(one.difference)]
        cells = [_kappa(one.kappa), *kappas, f"{_kappa(one.low)} to {_kappa(one.high)}"]
        differences = "; ".join(odd_annotators.most_different(one, found.labels)) or "–"
        rows.append([one.name, f"{one.texts:,}", *cells, differences])
    columns = ["annotator", "texts", "kappa", *([] if found.paired else ["others", "difference"]), "interval"]
    note = f"{meaning} {' '.join(odd_annotators.sentences(found))}"
    title = "Annotators by agreement" if found.paired else "Annotators who differ"
    return [pages.Section(title, note, columns=[*columns, "rates that differ most"], rows=rows)]


def _kappa(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"  # without a minus before zero


def sentences(audit: Audit) -> list[str]:
    """What the audit covers."""
    answered, rows = len(audit.found.answered), len(audit.found.rows)
    covered = f"{answered:,} of {rows:,} rows were answered by a network that did not learn from them."
    if answered < rows:
        covered += " The others are not audited; folds (train -m sweep=folds) answer all rows of train and validation."
    return [covered, *odd_annotators.sentences(audit.annotators)]


def html(audit: Audit) -> str:
    """The page."""
    answered = len(audit.found.answered)
    likely = int((np.nan_to_num(audit.suspicion, nan=0.0) >= _SHOWN_DOUBT).sum())
    content = {
        "title": audit.run,
        "facts": [
            ("rows audited", f"{answered:,}"),
            ("of them rather wrong than right in a label", f"{likely:,}"),
            ("rows whose text stands elsewhere with other labels", f"{len(audit.twins):,}"),
            ("runs", f"{audit.found.runs}"),
        ],
        "sentences": sentences(audit),
        "sections": sections(audit, shown=audit.shown),
    }
    return pages.render_page("audit", content, {})


def plain(audit: Audit) -> dict[str, Any]:
    """The content of audit.json."""
    return {
        "run": audit.run,
        "runs": audit.found.runs,
        "rows": len(audit.found.rows),
        "audited": len(audit.found.answered),
        "equal_texts_with_other_labels": len(audit.twins),
        "labels": {
            name: {"rows": one.given, "look_unwarranted": one.unwarranted, "look_missing": one.missing}
            for name, one in zip(audit.found.labels, audit.errors, strict=True)
        },
        "most_suspicious": [_plain_row(audit, row) for row in _answered(audit)[: audit.shown]],
        "annotators": None if audit.annotators is None else odd_annotators.plain(audit.annotators),
    }


def _answered(audit: Audit) -> list[int]:
    """Rows with an answer, the most suspicious first."""
    return [row for row in audit.order if not np.isnan(audit.suspicion[row])]


def _plain_row(audit: Audit, row: int) -> dict[str, Any]:
    return {
        "id": audit.found.rows.ids[row],
        "split": audit.found.splits[row],
        "suspicion": float(audit.suspicion[row]),
        "doubts": {name: float(value) for name, value in zip(audit.found.labels, audit.doubts[row], strict=True)},
    }
