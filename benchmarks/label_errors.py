"""How many planted label errors `audit` finds among the first hundred rows: a table, and JSON in outputs/bench/.

python benchmarks/label_errors.py [--data FOLDER] [--seeds 3] [--share 0.05]

In a share of the rows, one label is flipped: half of the time one that the row has is taken away, otherwise one that it
lacks is added. Five folds of TF-IDF with logistic regression then answer all rows. Without --data the texts are those
of the bundled sample, with it the development split of GoEmotions in that folder.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from emotion_lightning.cli.compose import settings_of
from emotion_lightning.config import schema
from emotion_lightning.data import official, splitting
from emotion_lightning.data.rows import Rows
from emotion_lightning.evaluation import label_errors
from emotion_lightning.models import ngrams

REPO = Path(__file__).resolve().parent.parent
FIRST = 100
Array = np.ndarray


def rows_of(folder: str | None) -> Rows:
    """All labelled rows that are audited."""
    if folder is not None:
        return official.goemotions(folder).splits["validation"]
    return splitting.joined(list(official.sample().splits.values()))


def planted(targets: Array, *, share: float, seed: int) -> tuple[Array, Array]:
    """Labels with errors, and where these are, [row, label] each."""
    draws = np.random.default_rng(seed)
    changed, wrong = targets.copy(), np.zeros(targets.shape, dtype=bool)
    for row in draws.choice(len(targets), int(share * len(targets)), replace=False):
        given, others = np.flatnonzero(targets[row]), np.flatnonzero(targets[row] == 0)
        label = draws.choice(given if len(given) and draws.random() < 0.5 else others)
        changed[row, label] = 1 - changed[row, label]
        wrong[row, label] = True
    return changed, wrong


def answers(texts: list[str], targets: Array, *, seed: int) -> Array:
    """Probabilities of each row from a fold that did not learn from it, [row, label]."""
    schema.register()
    settings = settings_of("baseline", [f"seed={seed}"])
    found = np.zeros(targets.shape)
    folds = MultilabelStratifiedKFold(n_splits=5, shuffle=True, random_state=seed)
    for learned, held_out in folds.split(np.zeros(len(targets)), targets):
        model = ngrams.NgramClassifier({name: getattr(settings, name) for name in ngrams.KINDS})
        model.fit([texts[row] for row in learned], targets[learned], settings)
        logits = model.logits([texts[row] for row in held_out])
        found[held_out] = torch.sigmoid(torch.from_numpy(logits).double()).numpy()
    return found


def rankings(probabilities: Array, targets: Array) -> dict[str, Array]:
    """Ways to rank labels by how wrong they look, [row, label] each, higher is worse."""
    calibrated = label_errors.calibrated(probabilities, targets)
    doubts = label_errors.doubts(calibrated, targets)
    with_label = np.array([shares[yes].mean() for shares, yes in zip(calibrated.T, targets.T > 0, strict=True)])
    without = np.array([(1 - shares)[~yes].mean() for shares, yes in zip(calibrated.T, targets.T > 0, strict=True)])
    usual = np.where(targets > 0, with_label, without)
    return {
        "audit": doubts,
        "the loss alone, uncalibrated": label_errors.doubts(probabilities, targets),
        "related to the mean of the class": doubts - (1 - usual),
    }


def precision(ranking: Array, wrong: Array) -> tuple[float, float]:
    """Share of errors among the first hundred labels, and of rows with an error among the first hundred rows."""
    labels = np.argsort(-ranking.ravel(), kind="stable")[:FIRST]
    rows = np.argsort(-ranking.max(axis=1), kind="stable")[:FIRST]
    return float(wrong.ravel()[labels].mean()), float(wrong.any(axis=1)[rows].mean())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of GoEmotions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05, help="share of the rows that get an error")
    given = parser.parse_args()
    rows = rows_of(given.data)
    assert rows.targets is not None
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(given.seeds):
        targets, wrong = planted(rows.targets, share=given.share, seed=seed)
        found.setdefault("chance", []).append((float(wrong.mean()), float(wrong.any(axis=1).mean())))
        for name, ranking in rankings(answers(rows.texts, targets, seed=seed), targets).items():
            found.setdefault(name, []).append(precision(ranking, wrong))
    print(f"{len(rows):,} rows, {rows.targets.shape[1]} labels, {given.seeds} seeds; among the first {FIRST}:")
    for name, values in found.items():
        labels, of_rows = np.mean(values, axis=0)
        print(f"{name:<34} labels {labels:.3f}   rows {of_rows:.3f}")
    file = REPO / "outputs" / "bench" / "label_errors.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"data": given.data or "sample", "share": given.share, "found": found}, indent=2))


if __name__ == "__main__":
    main()
