from pathlib import Path

import pytest
import torch

from emotion_lightning import outcomes, run_folder
from emotion_lightning.errors import UserError
from emotion_lightning.outcomes import RowOutcomes


def rows(targets: torch.Tensor | None) -> RowOutcomes:
    probabilities = torch.tensor([[0.1, 0.2], [1 / 3, 0.9]])
    return RowOutcomes(["a", "b"], ["joy", "the rest, all"], probabilities, targets)


@pytest.mark.parametrize("targets", [None, torch.tensor([[0.0, 1.0], [1.0, 1.0]])])
def test_outcomes_come_back_as_they_were_written(tmp_path: Path, targets: torch.Tensor | None) -> None:
    written = rows(targets)
    outcomes.write(tmp_path, "test", written)
    found = outcomes.read(tmp_path, "test", written.labels)
    assert found is not None
    assert (found.ids, found.labels) == (written.ids, written.labels)
    assert found.probabilities.equal(written.probabilities)
    assert found.targets is None if targets is None else found.targets is not None and found.targets.equal(targets)
    assert outcomes.read(tmp_path, "validation", written.labels) is None


def test_outcomes_of_other_labels_or_a_damaged_file_are_refused(tmp_path: Path) -> None:
    outcomes.write(tmp_path, "test", rows(None))
    with pytest.raises(UserError, match="no column p_fear"):
        outcomes.read(tmp_path, "test", ["joy", "fear"])
    file = tmp_path / run_folder.OUTCOMES / "test.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="test.parquet cannot be read"):
        outcomes.read(tmp_path, "test", ["joy"])


def test_a_run_keeps_the_outcomes_of_its_rows(finished: Path) -> None:
    from emotion_lightning import checkpoint

    card = checkpoint.read_card(finished / run_folder.MODEL)
    found = outcomes.read(finished, "test", card.labels)
    assert found is not None and found.targets is not None
    decided = (finished / "predictions" / "test.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in decided[1:]] == found.ids
    shares = torch.tensor([[float(cell) for cell in line.split(",")[1 + len(card.labels) :]] for line in decided[1:]])
    assert shares.equal(found.probabilities)
