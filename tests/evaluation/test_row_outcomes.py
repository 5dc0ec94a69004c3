from pathlib import Path

import pytest
import torch

from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import row_outcomes
from emotion_lightning.evaluation.row_outcomes import RowOutcomes
from emotion_lightning.runs import run_folder


def rows(targets: torch.Tensor | None) -> RowOutcomes:
    probabilities = torch.tensor([[0.1, 0.2], [1 / 3, 0.9]])
    return RowOutcomes(["a", "b"], ["joy", "the rest, all"], probabilities, targets)


@pytest.mark.parametrize("targets", [None, torch.tensor([[0.0, 1.0], [1.0, 1.0]])])
def test_outcomes_come_back_as_they_were_written(tmp_path: Path, targets: torch.Tensor | None) -> None:
    written = rows(targets)
    row_outcomes.write_outcomes(tmp_path, "test", written)
    found = row_outcomes.read_outcomes(tmp_path, "test", written.labels)
    assert found is not None
    assert (found.ids, found.labels) == (written.ids, written.labels)
    assert found.probabilities.equal(written.probabilities)
    assert found.targets is None if targets is None else found.targets is not None and found.targets.equal(targets)
    assert row_outcomes.read_outcomes(tmp_path, "validation", written.labels) is None


def test_expected_shares_and_groups_come_back_where_they_were_written(tmp_path: Path) -> None:
    written = rows(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    written.expected, written.groups = torch.tensor([[0.25, 0.5], [0.75, 1.0]]), ["deu", "(empty)"]
    row_outcomes.write_outcomes(tmp_path, "test", written)
    found = row_outcomes.read_outcomes(tmp_path, "test", written.labels)
    assert found is not None and found.expected is not None and found.expected.equal(written.expected)
    assert found.groups == written.groups


def test_outcomes_of_other_labels_or_a_damaged_file_are_refused(tmp_path: Path) -> None:
    row_outcomes.write_outcomes(tmp_path, "test", rows(None))
    with pytest.raises(UserError, match="no column p_fear"):
        row_outcomes.read_outcomes(tmp_path, "test", ["joy", "fear"])
    file = tmp_path / run_folder.OUTCOMES / "test.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="test.parquet cannot be read"):
        row_outcomes.read_outcomes(tmp_path, "test", ["joy"])


def test_a_run_keeps_the_outcomes_of_its_rows(finished: Path) -> None:
    from emotion_lightning.models.metadata import read_metadata

    metadata = read_metadata(finished / run_folder.MODEL)
    found = row_outcomes.read_outcomes(finished, "test", metadata.labels)
    assert found is not None and found.targets is not None
    decided = (finished / "predictions" / "test.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in decided[1:]] == found.ids
    shares = torch.tensor(
        [[float(cell) for cell in line.split(",")[1 + len(metadata.labels) :]] for line in decided[1:]]
    )
    assert shares.equal(found.probabilities)
