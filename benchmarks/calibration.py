"""What calibrating the probabilities of finished runs brings and costs: a table, and JSON in outputs/bench/.

python benchmarks/calibration.py FOLDER [FOLDER …]

The runs differ in their seed only and were made with thresholds.calibration=none. Each calibration is fitted on the
stored outcomes of validation, the thresholds after it, with the run's own settings, and test is scored with both.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from emotion_lightning import config
from emotion_lightning.evaluation import calibration, metrics, row_outcomes, thresholds
from emotion_lightning.models.metadata import read_metadata
from emotion_lightning.runs import run_folder

REPO = Path(__file__).resolve().parent.parent
PROTOCOLS = ("fixed", "global", "per_label")
SCORES = ("f1_macro", "f1_micro")


def scored(folder: Path, kind: config.Calibration) -> dict[str, float]:
    """Scores of a run on test with a calibration."""
    metadata = read_metadata(folder / run_folder.MODEL)
    assert not metadata.calibration, f"{folder} is calibrated already"
    found = [row_outcomes.read_outcomes(folder, split, metadata.labels) for split in ("validation", "test")]
    validation, test = (rows for rows in found if rows is not None and rows.targets is not None)
    assert validation.targets is not None and test.targets is not None
    logits = [torch.logit(rows.probabilities.double(), eps=1e-12) for rows in (validation, test)]
    scaling = calibration.fit_calibration(kind, logits[0], validation.targets)
    before, after = (calibration.probabilities(part, scaling) for part in logits)
    by_protocol = thresholds.fit_thresholds(before, validation.targets, metadata.threshold_settings())
    scores = metrics.score(after, test.targets, by_protocol, metadata.labels)
    reached = {f"{name} {score}": scores[name][score] for name in PROTOCOLS for score in SCORES}  # type: ignore[literal-required]
    return {"ece": scores["ece"], "brier": scores["brier"], **reached}


def main() -> None:
    """Read the command line, score, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    runs: list[Path] = parser.parse_args().runs
    found = {kind.value: [scored(run, kind) for run in runs] for kind in config.Calibration}
    names = list(found["none"][0])
    print("| calibration | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for kind, values in found.items():
        numbers = {name: np.array([value[name] for value in values]) for name in names}
        spread = 1 if len(runs) > 1 else 0
        cells = [f"{part.mean():.3f} ± {part.std(ddof=spread):.3f}" for part in numbers.values()]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    file = REPO / "outputs" / "bench" / "calibration.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"runs": [run.name for run in runs], "scores": found}, indent=1))


if __name__ == "__main__":
    main()
