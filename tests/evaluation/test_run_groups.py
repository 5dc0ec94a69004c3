"""Comparisons: the statistics against plain reimplementations, groups, sentences, files, and what is refused."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import run_in_process
from scipy.stats import ttest_ind
from sklearn.metrics import f1_score, jaccard_score

from emotion_lightning import config
from emotion_lightning.data.label_map import LabelMap
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import bootstrap, metrics, row_outcomes, run_groups, thresholds
from emotion_lightning.evaluation.row_outcomes import RowOutcomes
from emotion_lightning.reports import comparison
from emotion_lightning.runs import bounded_files, run_folder
from emotion_lightning.runs.files import write_json

LABELS = ["joy", "anger", "rare, [x]"]
FAST = "samples=200"


def decided(rows: int, *, seed: int, right: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Decisions of which this share is right, and gold; some rows are empty in both."""
    random = np.random.default_rng(0)
    truth = random.random((rows, 3)) < [0.5, 0.2, 0.02]
    return np.where(np.random.default_rng(seed).random(truth.shape) < right, truth, ~truth), truth


def plain_metrics(decisions: np.ndarray, truth: np.ndarray) -> list[float]:
    """By scikit-learn, in the order of config.Score."""
    return [
        f1_score(truth, decisions, average="macro", zero_division=0),
        f1_score(truth, decisions, average="micro", zero_division=0),
        jaccard_score(truth, decisions, average="samples", zero_division=1),
    ]


def invented(
    folder: Path, *, seed: int = 1, quality: float = 1, rows: int = 300, truth_seed: int = 0, **changed: Any
) -> Path:
    """The folder of a run that never was, with the better probabilities the higher its quality."""
    truth = np.random.default_rng(truth_seed).random((rows, 3)) < [0.5, 0.2, 0.05]
    noise = np.random.default_rng([seed, int(quality * 100)]).normal(size=truth.shape)
    probabilities = torch.sigmoid(torch.from_numpy(quality * (2 * truth - 1) + noise)).float()
    targets = torch.from_numpy(truth).float()
    tree = {
        "options": {"data": "file", "model": "tiny", "peft": "ia3", "thresholds": "global", "logger": "none"},
        "seed": seed,
        "optimizer": {"lr": 0.01},
        "data": {"path": "x.csv", "fold": None},
        "trainer": {"max_epochs": 3, "checkpoint_every": 0},
    }
    for name, value in changed.items():
        part, _, last = name.rpartition("__")
        (tree.setdefault(part, {}) if part else tree)[last] = value
    folder.mkdir(parents=True)
    (folder / run_folder.SETTINGS).write_text(yaml.safe_dump(tree))
    cuts = {name: torch.full((3,), 0.5, dtype=torch.float64) for name in ("fixed", "global")}
    cuts["per_label"] = torch.tensor([0.4, 0.5, 0.7], dtype=torch.float64)
    content: dict[str, Any] = {"cost": {"trainable_parameters": 10, "train_seconds": 2.0 * seed}}
    for split in ("validation", "test"):
        content[split] = metrics.score(probabilities, targets, cuts, LABELS)
        ids = [f"{split}{row}" for row in range(rows)]
        row_outcomes.write_outcomes(folder, split, RowOutcomes(ids, LABELS, probabilities, targets))
    write_json(folder / run_folder.METRICS, content)
    return folder


# ---------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("rows", [1, 7, 200])
def test_metrics_of_any_rows_are_those_of_scikit_learn(rows: int) -> None:
    decisions, truth = decided(rows, seed=1)
    parts = bootstrap.summands(decisions, truth)
    np.testing.assert_allclose(bootstrap.scores([parts])[0], plain_metrics(decisions, truth), atol=1e-12)
    drawn = np.random.default_rng(2).integers(rows, size=rows)
    found = bootstrap.metrics(np.bincount(drawn, minlength=rows) @ parts, rows)
    np.testing.assert_allclose(found, plain_metrics(decisions[drawn], truth[drawn]), atol=1e-12)


def test_metrics_are_those_of_a_report() -> None:
    decisions, truth = decided(200, seed=1)
    raised: Any = metrics.decisions_report(torch.tensor(decisions), torch.tensor(truth), torch.full((3,), 0.5), LABELS)
    found = bootstrap.scores([bootstrap.summands(decisions, truth)])[0]
    assert found.tolist() == pytest.approx([raised[metric.value] for metric in bootstrap.METRICS], abs=1e-12)


def test_draws_are_those_of_rows_drawn_one_by_one_and_the_same_for_all_runs() -> None:
    rows, samples = 60, 300  # more than are drawn at once
    runs = [decided(rows, seed=seed) for seed in (1, 2)]
    parts = [bootstrap.summands(*run) for run in runs]
    found = bootstrap.draws(parts, samples=samples, seed=5)
    random = np.random.default_rng(5)
    times = np.concatenate([random.multinomial(rows, [1 / rows] * rows, size=size) for size in (250, 50)])
    for sample in (0, 249, 250, 299):
        drawn = np.repeat(np.arange(rows), times[sample])
        expected = [plain_metrics(decisions[drawn], truth[drawn]) for decisions, truth in runs]
        np.testing.assert_allclose(found[:, sample], expected, atol=1e-12)
    assert np.array_equal(found, bootstrap.draws(parts, samples=samples, seed=5))
    # As wide as theory says: the Jaccard index is a mean over rows.
    error = parts[0][:, -1].std() / rows**0.5
    assert found[0, :, 2].std() == pytest.approx(error, rel=0.15)


def test_a_spread_has_the_sample_deviation_and_one_run_has_none() -> None:
    drawn = np.linspace(0.4, 0.6, 1001)
    values = np.array([0.4, 0.5, 0.9])
    found = bootstrap.spread(bootstrap.Measured(values, drawn, [1, 2, 3]), confidence=0.9)
    assert (found.mean, found.sd) == (pytest.approx(0.6), pytest.approx(np.std(values, ddof=1)))
    assert (found.least, found.most) == (0.4, 0.9)
    assert (found.low, found.high) == (pytest.approx(0.41), pytest.approx(0.59))
    assert bootstrap.spread(bootstrap.Measured(values[:1], drawn, [1]), confidence=0.9).sd is None


def test_the_interval_leaves_zero_out_where_p_is_below_the_rest() -> None:
    random = np.random.default_rng(0)
    for shift in np.linspace(-4, 4, 81):
        drawn = random.normal(size=999) + shift
        low, high = bootstrap.interval(drawn, confidence=0.95)
        p = bootstrap.p_value(drawn)
        assert (low > 0 or high < 0) == (p < 0.05) or abs(p - 0.05) < 0.005


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    # Two noisy readings of the same gold, again and again on other rows.
    chances = []
    for trial in range(200):
        random = np.random.default_rng(trial)
        truth = random.random((150, 3)) < 0.4
        runs = [bootstrap.summands(truth ^ (random.random(truth.shape) < 0.25), truth) for _ in range(2)]
        drawn = bootstrap.draws(runs, samples=199, seed=trial)
        chances.append(bootstrap.p_value(drawn[0, :, 1] - drawn[1, :, 1]))
    assert 0.01 <= np.mean(np.array(chances) <= 0.05) <= 0.1
    assert np.mean(chances) == pytest.approx(0.5, abs=0.07)


def test_differences_are_those_of_means_and_seeds_are_tested_by_welch() -> None:
    random = np.random.default_rng(1)
    ours, theirs = np.array([0.51, 0.52, 0.54]), np.array([0.45, 0.50, 0.43, 0.47])
    drawn = [random.normal(0.5, 0.01, 500), random.normal(0.46, 0.01, 500), random.normal(0.5, 0.01, 500)]
    best = bootstrap.Measured(ours, drawn[0], [1, 2, 3])
    others = [
        bootstrap.Measured(theirs, drawn[1], [1, 2, 3, 4]),
        bootstrap.Measured(ours[:2], drawn[2], [1, 2]),
    ]
    found = bootstrap.differences(best, others, confidence=0.95)
    assert found[0].value == pytest.approx(ours.mean() - theirs.mean())
    assert (found[0].low, found[0].high) == pytest.approx(tuple(np.quantile(drawn[0] - drawn[1], [0.025, 0.975])))
    assert found[0].p_seeds == pytest.approx(ttest_ind(ours, theirs, equal_var=False).pvalue)
    assert found[1].p_seeds is None  # two runs
    assert [one.p_holm for one in found] == bootstrap.holm([one.p for one in found])
    assert found[0].p_holm == min(1, 2 * found[0].p) and found[1].p_holm == found[1].p


def test_folds_of_a_seed_and_copies_of_a_run_are_no_seeds_of_their_own() -> None:
    values, drawn = np.array([0.5, 0.6, 0.4, 0.9]), np.zeros(9)
    assert bootstrap.Measured(values, drawn, [2, 2, 1, 7]).by_seed().tolist() == pytest.approx([0.4, 0.55, 0.9])
    assert len(bootstrap.Measured(values, drawn, [None] * 4).by_seed()) == 1
    folds = [bootstrap.Measured(values + shift, drawn, [1, 1, 1, 1]) for shift in (0.2, 0.0)]
    assert bootstrap.differences(folds[0], folds[1:], confidence=0.95)[0].p_seeds is None


def test_a_p_value_counts_the_rarer_side_with_one_sample_added() -> None:
    for samples in (np.repeat([-0.1, 0.1], [3, 16]), np.repeat([0.0, 0.1], [3, 16]), np.repeat([-0.1, 0.1], [16, 3])):
        assert bootstrap.p_value(samples) == 2 * (3 + 1) / (19 + 1)
    assert bootstrap.p_value(np.repeat([-0.1, 0.1], [9, 10])) == 1
    assert bootstrap.p_value(np.ones(1)) == 1


def test_runs_without_a_known_seed_are_one_seed_beside_the_others() -> None:
    measured = bootstrap.Measured(np.array([0.1, 0.3, 0.5, 0.7]), np.zeros(9), [None, None, 0, 1])
    assert measured.by_seed().tolist() == pytest.approx([0.2, 0.5, 0.7])


def test_fewer_than_three_seeds_have_no_test() -> None:
    three, two = np.array([0.4, 0.5, 0.6]), np.array([0.4, 0.5])
    assert bootstrap.p_between_seeds(three, two) is None and bootstrap.p_between_seeds(two, three) is None
    assert bootstrap.p_between_seeds(three, three + 0.01) is not None
    tiny = np.array([0.0, 1e-200, 0.0])  # its variance is too small for float64
    assert bootstrap.p_between_seeds(tiny, tiny[::-1] + 0) is None


def test_seeds_that_change_nothing_have_no_test() -> None:
    same = np.array([0.5, 0.5, 0.5])
    assert bootstrap.p_between_seeds(same, same + 0.1) is None
    assert bootstrap.p_between_seeds(same, np.array([0.4, 0.5, 0.6])) == pytest.approx(1)


def test_holm_never_turns_the_order_around() -> None:
    chances = [0.03, 0.001, 0.02, 0.9, 0.04]
    assert bootstrap.holm(chances) == pytest.approx([0.09, 0.005, 0.08, 0.9, 0.09])
    assert bootstrap.holm([]) == [] and bootstrap.holm([0.3]) == [0.3]


# -------------------------------------------------------------------------------------------------------------- groups


def test_groups_are_named_by_what_differs_and_not_by_what_follows_from_it() -> None:
    base = {"data": "file", "model": "tiny", "peft": "ia3", "peft.lr": 1.0, "optimizer.lr": None, "init_from": None}
    lora = base | {"peft": "lora", "peft.lr": 0.1, "peft.r": 8}
    assert run_groups.group_names([base, lora]) == ["peft=ia3", "peft=lora"]
    assert run_groups.group_names([base, lora, lora | {"peft.r": 16}]) == [
        "peft=ia3",
        "peft=lora peft.r=8",
        "peft=lora peft.r=16",
    ]
    assert run_groups.group_names([base, base | {"optimizer.lr": 0.003}]) == ["optimizer.lr=null", "optimizer.lr=0.003"]
    assert run_groups.group_names([base]) == ["model=tiny peft=ia3"]
    floors = [{"data": "file", "C": 2.0}, {"data": "file", "C": 4.0}]
    assert run_groups.group_names([base, *floors]) == ["model=tiny peft=ia3", "baseline C=2", "baseline C=4"]
    assert run_groups.group_names([base, floors[0]]) == ["model=tiny peft=ia3", "baseline"]
    paths = [base | {"init_from": "/runs/a/x"}, base | {"init_from": "/runs/b/y"}]
    assert run_groups.group_names(paths) == ["init_from=x", "init_from=y"]
    paths[1]["init_from"] = "/runs/b/x"
    assert run_groups.group_names(paths) == ["init_from=/runs/a/x", "init_from=/runs/b/x"]
    upper = base | {"peft.layers": "upper_half", "frozen.reuse": "auto"}
    assert run_groups.group_names([base, upper]) == ["peft.layers=all", "peft.layers=upper_half"]
    assert run_groups.group_names([upper, upper | {"frozen.reuse": "never"}]) == [
        "frozen.reuse=auto", "frozen.reuse=never",
    ]  # fmt: skip
    older = {name: value for name, value in base.items() if name != "init_from"}
    assert run_groups.group_names([base | {"clean": ["html", "urls"]}, older | {"clean": True}, older]) == [
        "clean=[html,urls]", "clean=true", "clean=unset",
    ]  # fmt: skip


def test_seed_fold_and_what_changes_no_result_do_not_part_a_group(tmp_path: Path) -> None:
    same = [
        invented(tmp_path / "a"),
        invented(
            tmp_path / "b", seed=2, data__fold=3, data__cache_dir="c", data__packing=True, trainer__checkpoint_every=7
        ),
        invented(tmp_path / "c", seed=3, data__splits="a/splits.csv", from_run="a", resume="b", data__new=None),
    ]
    other = invented(tmp_path / "d", trainer__max_epochs=4)
    runs = run_groups.read_runs([*same, other], split="test", protocol=None)
    found = run_groups.group_runs(runs)
    assert {name: [run.folder.name for run in members] for name, members in found.items()} == {
        "trainer.max_epochs=3": ["a", "b", "c"], "trainer.max_epochs=4": ["d"],
    }  # fmt: skip


def test_layers_and_frozen_states_part_a_group_only_where_they_matter(tmp_path: Path) -> None:
    """An earlier version had neither setting, adapted all layers and computed all of them in each step."""
    alike = [
        invented(tmp_path / "a"),
        invented(tmp_path / "b", seed=2, peft__layers="all", frozen__reuse="auto", frozen__memory_gb=4),
        invented(tmp_path / "c", seed=3, peft__layers="all", frozen__reuse="never", frozen__memory_gb=8),
    ]
    upper = [
        invented(tmp_path / "d", peft__layers="upper_half", frozen__reuse="auto", frozen__disk_gb=1),
        invented(tmp_path / "e", seed=2, peft__layers="upper_half", frozen__reuse="auto", frozen__disk_gb=2),
        invented(tmp_path / "f", peft__layers="upper_half", frozen__reuse="never"),
    ]
    runs = run_groups.read_runs([*alike, *upper], split="test", protocol=None)
    found = [[run.folder.name for run in members] for members in run_groups.group_runs(runs).values()]
    assert found == [["a", "b", "c"], ["d", "e"], ["f"]]


def test_runs_are_found_at_any_depth_in_order_and_the_unfinished_are_named(tmp_path: Path) -> None:
    for name in ("date/time/10", "date/time/9", "date/other"):
        invented(tmp_path / name)
    (tmp_path / "date/time/9/checkpoints/deep").mkdir(parents=True)
    (tmp_path / "date/time/2").mkdir()
    (tmp_path / "date/time/2/train.log").write_text("failed early")
    (tmp_path / "date/time/3").mkdir()
    (tmp_path / "date/time/3" / run_folder.SETTINGS).write_text("{}")
    (tmp_path / "date/scored").mkdir()
    (tmp_path / "date/scored" / run_folder.METRICS).write_text("{}")
    invented(tmp_path / "one/two/three/four/five")
    finished, left_out = run_groups.find_runs(str(tmp_path))
    assert [str(run.relative_to(tmp_path)) for run in finished] == ["date/other", "date/time/9", "date/time/10"]
    assert [why.removeprefix(str(tmp_path)) for why in left_out] == [
        "/date/scored is no run of train or baseline (it has no settings.yaml)",
        "/date/time/2 is not finished",
        "/date/time/3 is not finished",
    ]
    twice, _ = run_groups.find_runs(f"[{tmp_path / 'date/other'}, {tmp_path / 'date'}]")
    assert [run.name for run in twice] == ["other", "9", "10"]


def test_a_folder_whose_name_looks_like_a_list_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invented(tmp_path / "[a, b]")
    monkeypatch.chdir(tmp_path)
    assert run_groups.find_runs("[a, b]")[0] == [Path("[a, b]")]


def test_an_option_file_of_ones_own_tells_its_protocol_in_the_card(tmp_path: Path) -> None:
    own = invented(tmp_path / "a", options__thresholds="mine")
    with pytest.raises(UserError, match="thresholds=mine, which tells no protocol; choose one with protocol="):
        run_groups.read_runs([own], split="test", protocol=None)
    (own / "model").mkdir()
    (own / "model" / "emotion_lightning.json").write_text('{"protocol": "per_label"}')
    (run,) = run_groups.read_runs([own], split="test", protocol=None)
    raised = bounded_files.read_json(own / run_folder.METRICS)["test"]["per_label"]["f1_macro"]
    assert bootstrap.scores([run.parts])[0, 0] == pytest.approx(raised)


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_a_real_difference_is_told_and_noise_is_called_noise(tmp_path: Path, run: Any, capfd: Any) -> None:
    for seed in (1, 2, 3):
        invented(tmp_path / f"runs/good{seed}", seed=seed, quality=1.5)
        invented(tmp_path / f"runs/bad{seed}", seed=seed, quality=0.5, optimizer__lr=1.0)
        invented(tmp_path / f"runs/like{seed}", seed=seed + 10, quality=1.5, optimizer__lr=0.02)
    assert run("compare", "runs=runs", "hydra.run.dir=out") == 0
    found = bounded_files.read_json(tmp_path / "out" / "compare.json")
    best, like, bad = found["groups"]
    assert {best["name"], like["name"]} == {"optimizer.lr=0.01", "optimizer.lr=0.02"} and bad[
        "name"
    ] == "optimizer.lr=1"
    for name in ("f1_macro", "f1_micro", "jaccard"):
        assert bad["below_best"][name]["low"] > 0.05 and bad["below_best"][name]["p_holm"] < 0.01
        assert bad["below_best"][name]["p_seeds"] < 0.01
    assert like["below_best"]["f1_micro"]["p"] > 0.05
    printed = capfd.readouterr().out
    points = 100 * bad["below_best"]["f1_macro"]["value"]
    assert f"{best['name']} is above optimizer.lr=1 by {points:.1f} points of f1_macro (95 % " in printed
    assert f"{best['name']} and {like['name']} are within noise" in printed
    assert "Holm's method for 2 comparisons" in printed


def test_numbers_of_a_group_are_those_of_its_runs(tmp_path: Path, run: Any) -> None:
    folders = [invented(tmp_path / f"runs/{seed}", seed=seed) for seed in (1, 2, 3, 4)]
    assert (
        run("compare", "runs=runs", "metrics=[jaccard,f1_macro]", "protocol=per_label", FAST, "hydra.run.dir=out") == 0
    )
    raised = [
        bounded_files.read_json(folder / run_folder.METRICS)["test"]["per_label"]["jaccard"] for folder in folders
    ]
    found = bounded_files.read_json(tmp_path / "out" / "compare.json")
    (group,) = found["groups"]
    spread = group["metrics"]["jaccard"]
    assert spread["mean"] == pytest.approx(np.mean(raised)) and spread["sd"] == pytest.approx(np.std(raised, ddof=1))
    assert (spread["least"], spread["most"]) == (pytest.approx(min(raised)), pytest.approx(max(raised)))
    assert spread["low"] < spread["mean"] < spread["high"]
    assert [one["jaccard"] for one in group["runs"]] == pytest.approx(raised)
    assert group["cost"] == {"trainable_parameters": 10, "train_seconds": 5, "peak_memory_bytes": None}
    (line,) = csv.DictReader((tmp_path / "out" / "compare.csv").open(encoding="utf-8"))
    assert float(line["jaccard_mean"]) == spread["mean"] and line["runs"] == "4" and line["peak_memory_bytes"] == ""
    assert line["jaccard_below_best_p"] == ""
    page = (tmp_path / "out" / "compare.md").read_text()
    assert f"{spread['mean']:.3f} ± {spread['sd']:.3f}" in page and "test, 300 texts, per\\_label thresholds" in page


def test_equal_runs_differ_by_nothing_with_p_1(tmp_path: Path, run: Any) -> None:
    invented(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    settings = tmp_path / "b" / run_folder.SETTINGS
    settings.write_text(settings.read_text().replace("lr: 0.01", "lr: 0.1"))
    assert run("compare", "runs=[a,b]", FAST, "hydra.run.dir=out") == 0
    other = bounded_files.read_json(tmp_path / "out" / "compare.json")["groups"][1]["below_best"]
    for name in ("f1_macro", "f1_micro", "jaccard"):
        assert other[name] == {"value": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1, "p_seeds": None}
    assert "0.0 points of jaccard (95 % 0.0 to 0.0, p=1.000)" in (tmp_path / "out" / "compare.md").read_text()


@pytest.mark.parametrize(
    ("apart", "text"),
    [
        ((0.018, 0.006, 0.03, 0.004, None), "A is above B by 1.8 points of f1_macro (95 % 0.6 to 3.0, p=0.004)"),
        ((-0.018, -0.03, -0.006, 0.0001, None), "A is below B by 1.8 points of f1_macro (95 % 0.6 to 3.0, p<0.001)"),
        ((0.003, -0.006, 0.012, 0.5, None), "A and B are within noise: 0.3 points of f1_macro (95 % -0.6 to 1.2, p="),
        ((0.018, 0.006, 0.03, 0.004, 0.2), "p=0.004); between seeds p=0.200: other seeds may turn it"),
        ((0.018, 0.006, 0.03, 0.004, 0.02), "(95 % 0.6 to 3.0, p=0.004); between seeds p=0.020"),
        ((-0.0001, -0.01, 0.01, 0.9, 0.9), "A and B are within noise: 0.0 points"),
    ],
)  # fmt: skip
def test_sentences(apart: tuple[Any, ...], text: str) -> None:
    value, low, high, p, seeds = apart
    metric = config.Score.f1_macro
    below = {metric: bootstrap.Difference(value, low, high, p, p, seeds)}
    best, other = (comparison.Group(name, [], {}, {}, below) for name in "AB")
    found = comparison.sentence(best, other, metric, confidence=0.95)
    assert text in found


def test_unfinished_jobs_are_told_and_left_out(tmp_path: Path, run: Any, capfd: Any) -> None:
    invented(tmp_path / "runs/0")
    (tmp_path / "runs/1").mkdir()
    (tmp_path / "runs/1/train.log").write_text("")
    assert run("compare", "runs=runs", FAST, "hydra.run.dir=out") == 0
    assert "Left out: runs/1 is not finished" in capfd.readouterr().err
    assert "Left out: runs/1 is not finished" in (tmp_path / "out" / "compare.md").read_text()
    assert bounded_files.read_json(tmp_path / "out" / "compare.json")["left_out"] == ["runs/1 is not finished"]


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "runs is not set; give it as runs=VALUE."),
        (["runs=gone"], "runs=gone: gone is not a folder"),
        (["runs=[a,gone]"], "runs=[a,gone]: gone is not a folder"),
        (["runs=[]"], "runs=[] names no run"),
        (["runs=empty"], "runs=empty: empty holds no finished run, 4 folders deep"),
        (["runs=[a,unfinished]"], "unfinished is not finished; leave it out"),
        (["runs=unfinished"], "unfinished is not finished"),
        (["runs=failed"], "failed/0 is not finished"),
        (["runs=scored"], "scored is no run of train or baseline"),
        (["runs=[a,rows]"], "on test rows scored other rows, or with other gold labels, than a; leave them out"),
        (["runs=[a,gold]", "split=validation"], "Folds validate each on rows of its own; compare them on test."),
        (["runs=[a,labels]"], "labels has the labels joy, anger, fear, where the first run has joy, anger, rare, [x]"),
        (["runs=[a,bare]"], "bare keeps no labelled outcomes/test.parquet"),
        (["runs=[a,untested]"], "untested has no scores of test; choose another split="),
        (["runs=[a,edited]"], "edited: by outcomes/test.parquet its f1_macro is 0."),
        (["runs=[a,old]"], "metrics.json is damaged or of another version"),
        (["runs=a", "protocol=oracle"], "protocol takes one of fixed, global, per_label or null"),
        (["runs=a", "split=train"], "split takes one of validation, test"),
        (["runs=a", "metrics=[]"], "metrics=[] must name each of its metrics once, and one at least"),
        (["runs=a", "metrics=[jaccard,jaccard]"], "metrics=[jaccard, jaccard] must name each of its metrics once"),
        (["runs=a", "metrics=[f1]"], "metrics takes a list of f1_macro, f1_micro, jaccard"),
        (["runs=a", "samples=10"], "samples=10 is out of range"),
        (["runs=a", "confidence=95"], "confidence=95.0 is out of range"),
        (["runs=a", "data=sample"], "Unknown setting data"),
    ],
)
def test_mistakes_are_named(run: Any, tmp_path: Path, capfd: Any, arguments: list[str], message: str) -> None:
    a = invented(tmp_path / "a", rows=40)
    for name in ("empty", "unfinished", "scored", "failed/0"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "unfinished" / run_folder.SETTINGS).write_text("{}")
    (tmp_path / "failed/0/baseline.log").write_text("")
    (tmp_path / "scored" / run_folder.METRICS).write_text("{}")
    invented(tmp_path / "rows", rows=41)
    invented(tmp_path / "gold", rows=40, truth_seed=1)
    for name in ("bare", "untested", "edited", "labels", "old"):
        shutil.copytree(a, tmp_path / name)
    (tmp_path / "bare" / "outcomes" / "test.parquet").unlink()
    content = json.loads((a / run_folder.METRICS).read_text())
    score = content["test"]["global"]["f1_macro"]
    (tmp_path / "edited" / run_folder.METRICS).write_text(json.dumps(content).replace(str(score), str(score + 1e-6)))
    (tmp_path / "labels" / run_folder.METRICS).write_text(json.dumps(content).replace("rare, [x]", "fear"))
    (tmp_path / "untested" / run_folder.METRICS).write_text(json.dumps({"validation": content["validation"]}))
    (tmp_path / "old" / run_folder.METRICS).write_text(json.dumps({"test": {"global": {}}, "cost": {}}))
    assert run("compare", *arguments) == 2
    printed = capfd.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not list(tmp_path.glob("outputs/compare/*/*/compare.[mcj]*"))


# --------------------------------------------------------------------------------------------------------- end to end


def test_a_multirun_of_baselines_in_a_folder_with_spaces(run: Any, tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "my runs"
    arguments = ["data.max_rows=200", "char_ngrams=null", "class_weight=none,balanced", "seed=1,2"]
    assert run_in_process("baseline", "-m", *arguments, f"hydra.sweep.dir={folder}") == 0
    folder = folder.rename(tmp_path / "my runs, (1) = [a]")
    assert run("compare", f"runs={folder}", FAST, "hydra.run.dir=out") == 0
    found = bounded_files.read_json(tmp_path / "out" / "compare.json")
    assert {group["name"] for group in found["groups"]} == {
        "baseline class_weight=none", "baseline class_weight=balanced",
    }  # fmt: skip
    assert [len(group["runs"]) for group in found["groups"]] == [2, 2]
    raised = bounded_files.read_json(folder / "0" / run_folder.METRICS)["test"]["global"]["f1_micro"]
    assert raised in [one["f1_micro"] for group in found["groups"] for one in group["runs"]]
    assert "Comparison: " in capfd.readouterr().err


def test_a_training_run_is_compared_with_a_baseline(finished: Path, run: Any, tmp_path: Path) -> None:
    assert run("baseline", "data.max_rows=96", "hydra.run.dir=floor") == 0
    for split in ("validation", "test"):
        assert run("compare", f"runs=[{finished},floor]", f"split={split}", FAST, f"hydra.run.dir={split}") == 0
        found = bounded_files.read_json(tmp_path / split / "compare.json")
        assert {group["name"] for group in found["groups"]} == {"model=tiny peft=ia3", "baseline"}
        assert found["rows"] == 96
    assert set(thresholds.PROTOCOLS) == {protocol.value for protocol in config.Protocol}


# ------------------------------------------------------------------------------------------------------- other labels


def of_fewer_labels(fine: Path, folder: Path) -> Path:
    """A run on the rows of another one, in which joy and anger were one label, `any`, from the start."""
    content = json.loads((fine / run_folder.METRICS).read_text())
    names = ["any", "rare, [x]"]
    for split in ("validation", "test"):
        rows = row_outcomes.read_outcomes(fine, split, LABELS)
        assert rows is not None and rows.targets is not None
        targets = torch.stack([rows.targets[:, :2].amax(1), rows.targets[:, 2]], dim=1)
        probabilities = torch.stack([rows.probabilities[:, :2].mean(1), rows.probabilities[:, 2]], dim=1)
        cuts = {name: torch.full((2,), 0.5, dtype=torch.float64) for name in thresholds.PROTOCOLS}
        content[split] = metrics.score(probabilities, targets, cuts, names)
        row_outcomes.write_outcomes(folder, split, RowOutcomes(rows.ids, names, probabilities, targets))
    shutil.copy(fine / run_folder.SETTINGS, folder / run_folder.SETTINGS)
    tree = yaml.safe_load((folder / run_folder.SETTINGS).read_text())
    tree["data"]["merge"] = {"any": ["joy", "anger"]}
    (folder / run_folder.SETTINGS).write_text(yaml.safe_dump(tree))
    write_json(folder / run_folder.METRICS, content)
    return folder


@pytest.mark.parametrize("protocol", thresholds.PROTOCOLS)
def test_a_merged_label_counts_where_any_member_does_with_its_own_threshold(tmp_path: Path, protocol: str) -> None:
    fine = invented(tmp_path / "fine")
    coarse = of_fewer_labels(fine, tmp_path / "coarse")
    merge = LabelMap(merge={"any": ["joy", "anger"]})
    runs = run_groups.read_runs([fine, coarse], split="test", protocol=protocol, label_map=merge)
    rows = row_outcomes.read_outcomes(fine, "test", LABELS)
    assert rows is not None and rows.targets is not None
    cuts = {"per_label": [0.4, 0.5, 0.7]}.get(protocol, [0.5] * 3)
    decided, gold = rows.probabilities.double().numpy() > cuts, rows.targets.numpy() > 0
    truth = np.stack([gold[:, 0] | gold[:, 1], gold[:, 2]], axis=1)
    expected = plain_metrics(np.stack([decided[:, 0] | decided[:, 1], decided[:, 2]], axis=1), truth)
    assert bootstrap.scores([runs[0].parts])[0] == pytest.approx(expected, abs=1e-12)
    assert [run.labels for run in runs] == [["any", "rare, [x]"]] * 2
    assert np.array_equal(runs[0].truth, truth)


def test_runs_of_other_labels_are_compared_once_they_are_united(run: Any, tmp_path: Path, capfd: Any) -> None:
    of_fewer_labels(invented(tmp_path / "fine"), tmp_path / "coarse")
    assert run("compare", "runs=[fine,coarse]", FAST) == 2
    message = capfd.readouterr().err
    assert "coarse has the labels any, rare, [x], where the first run has joy, anger, rare, [x]" in message
    assert "data.merge, or an option of mapping, unites labels; data.drop_labels=[anger,any,joy] leaves out" in message
    for order in ("[fine,coarse]", "[coarse,fine]"):
        code = run("compare", f"runs={order}", FAST, "data.merge={any: [joy, anger]}", f"hydra.run.dir=out{order[1]}")
        assert code == 0
    printed = capfd.readouterr().out
    assert "Labels made of others: any (joy, anger)." in printed
    found = [bounded_files.read_json(tmp_path / f"out{first}" / "compare.json") for first in "fc"]
    assert found[0]["groups"][0]["metrics"] == found[1]["groups"][0]["metrics"]
    assert found[0]["settings"]["data"]["merge"] == {"any": ["joy", "anger"]}
    assert "data.merge={any}" in found[0]["groups"][0]["name"] + found[0]["groups"][1]["name"]
    assert run("compare", "runs=[fine,coarse]", "data.merge={any: [joy, angr]}") == 2
    assert "data.merge names the label angr, which neither" in capfd.readouterr().err


def test_labels_that_only_one_run_has_can_be_left_out(run: Any, tmp_path: Path) -> None:
    of_fewer_labels(invented(tmp_path / "fine"), tmp_path / "coarse")
    code = run("compare", "runs=[fine,coarse]", FAST, "data.drop_labels=[joy,anger,any]", "hydra.run.dir=out")
    assert code == 0
    groups = bounded_files.read_json(tmp_path / "out" / "compare.json")["groups"]
    assert groups[0]["metrics"]["f1_macro"] == groups[1]["metrics"]["f1_macro"]
