"""A multirun: each job in its place, a table at the end, and after any stop it goes on where it was."""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, run_in_process
from helpers import warm
from helpers.servers import PATIENCE
from helpers.stops import stand_in_for_scontrol

from emotion_lightning.cli import multirun
from emotion_lightning.errors import UserError
from emotion_lightning.training.classifier import EmotionClassifier

ASKED = [*SMALL, "peft=lora", "trainer.max_epochs=1", "trainer.checkpoint_every=1"]
DIVERGES = ["optimizer.warmup=0", "trainer.gradient_clip_val=null"]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "jobs.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same_end(one: Path, other: Path) -> None:
    mine, yours = weights(one), weights(other)
    assert [name for name in mine if not torch.equal(mine[name], yours[name])] == []
    assert (one / "predictions" / "test.csv").read_bytes() == (other / "predictions" / "test.csv").read_bytes()


def interrupted(patch: pytest.MonkeyPatch, *, seed: int, step: int, by: int | None) -> None:
    """A signal in a training step of the job with this seed; None stands for a kill, by which nothing more is done."""
    original = EmotionClassifier.training_step

    def training_step(self: Any, of: Any, index: int) -> Any:
        folder = Path(self.trainer.default_root_dir)
        if self.trainer.global_step == step and f"seed: {seed}\n" in (folder / "settings.yaml").read_text():
            if by is None:
                raise SystemExit(137)
            os.kill(os.getpid(), by)
        return original(self, of, index)

    patch.setattr(EmotionClassifier, "training_step", training_step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multirun of three seeds that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "seeds"
    assert run_in_process("train", "-m", *ASKED, "seed=1,2,3", f"hydra.sweep.dir={folder}") == 0
    return folder


def test_jobs_are_named_by_what_differs_and_the_table_has_the_best_first(whole: Path) -> None:
    found = multirun.read_jobs(whole)
    assert [job.name for job in found.jobs] == ["seed=1", "seed=2", "seed=3"]
    rows = table(whole)
    assert sorted(row["seed"] for row in rows) == ["1", "2", "3"]
    assert {row["state"] for row in rows} == {"finished"}
    scores = [float(row["validation/f1_macro"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows:
        written = json.loads((whole / row["folder"] / "metrics.json").read_text())
        assert float(row["test/jaccard"]) == written["test"]["global"]["jaccard"]


@pytest.mark.parametrize("by", [signal.SIGTERM, None], ids=["SIGTERM", "kill"])
def test_a_stopped_multirun_goes_on_and_repeats_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, whole: Path, by: int | None
) -> None:
    with monkeypatch.context() as planted:
        interrupted(planted, seed=2, step=1, by=by)
        code = run("train", "-m", *ASKED, "seed=1,2,3", "hydra.sweep.dir=parts")
    assert code == (137 if by is None else 128 + by)
    assert {row["seed"]: row["state"] for row in table(tmp_path / "parts")} == {
        "1": "finished", "2": "stopped", "3": "not started",
    }  # fmt: skip
    raised = capfd.readouterr()
    if by is not None:
        assert "go on with: python -m emotion_lightning.train -m sweep.resume=parts" in raised.err
        assert "not started" in raised.out
    # The step in which the signal came is finished and saved; of a kill the one before it is.
    saved = torch.load(tmp_path / "parts" / "1" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert saved == (1 if by is None else 2)
    before = (tmp_path / "parts" / "0" / "metrics.json").stat().st_mtime_ns
    assert run("train", "-m", "sweep.resume=parts") == 0
    assert (tmp_path / "parts" / "0" / "metrics.json").stat().st_mtime_ns == before
    for job in "012":
        same_end(whole / job, tmp_path / "parts" / job)
    starts = [len(json.loads((tmp_path / "parts" / job / "environment.json").read_text())["starts"]) for job in "012"]
    assert starts == [1, 2, 1]
    # Once more there is nothing to do.
    capfd.readouterr()
    assert run("train", "sweep.resume=parts") == 0
    assert "nothing to resume" in capfd.readouterr().err


def test_a_multirun_in_a_job_of_slurm_that_is_requeued_goes_on_by_itself(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", stand_in_for_scontrol(tmp_path))
    for name, value in {"JOB_ID": "4711", "NTASKS": "1", "JOB_NAME": "sweep", "PROCID": "0", "LOCALID": "0",
                        "NODEID": "0"}.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    line = ["-m", *ASKED, "seed=1,2"]
    with monkeypatch.context() as planted:
        interrupted(planted, seed=2, step=1, by=signal.SIGUSR1)
        assert run("train", *line) == 143
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    assert run("train", *line) == 0
    (folder,) = tmp_path.glob("outputs/multirun/*/*")
    assert {row["state"] for row in table(folder)} == {"finished"}
    starts = [len(json.loads((folder / job / "environment.json").read_text())["starts"]) for job in "01"]
    assert starts == [1, 2]


def test_what_goes_on_is_what_was_asked_for_then(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Relative paths, presets and the place of the folder may have changed in between."""
    rows = ["text,joy,anger", *(f"text {i},{i % 2},{i % 3 // 2}" for i in range(60))]
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n")
    asked = [*SMALL, "trainer=debug", "data=file", "data.path=my.csv", "data.split_seed=7", "sweep=folds",
             "data.folds=3", "hydra.sweeper.params={data.fold: '1,2,3'}"]  # fmt: skip
    with monkeypatch.context() as planted:
        interrupted(planted, seed=1, step=0, by=signal.SIGTERM)
        assert run("train", "-m", *asked, "hydra.sweep.dir=first") == 143
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "first").rename(tmp_path / "elsewhere" / "my folds")
    monkeypatch.chdir(tmp_path / "elsewhere")
    # The preset may stand in the line again, as may all of it.
    assert run_in_process("train", "-m", "sweep=folds", "sweep.resume=my folds") == 0
    assert [row["state"] for row in table(Path("my folds"))] == ["finished"] * 3
    assert "sweep.resume" not in (Path("my folds") / "2" / "settings.yaml").read_text()
    assert "'run=my folds/" in capfd.readouterr().out


def test_failed_jobs_are_told_kept_in_the_table_and_tried_again(run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("train", "-m", *ASKED, *DIVERGES, "optimizer.lr=1e30,1e-3", "hydra.sweep.dir=out") == 1
    raised = capfd.readouterr()
    assert "Failed jobs:\n  0: optimizer.lr=1e+30: The loss is" in raised.err
    assert "-m sweep.resume=out" in raised.err and "predict run=out/1 input=FILE" in raised.out
    rows = table(tmp_path / "out")
    assert [(row["job"], row["state"]) for row in rows] == [("1", "finished"), ("0", "failed")]
    assert "The loss is" in rows[1]["error"]
    assert run("train", "-m", "sweep.resume=out") == 1
    assert "1 of 2 jobs are finished" in capfd.readouterr().err


def test_other_settings_folders_and_commands_are_refused(whole: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    for arguments, message in {
        ("-m", f"sweep.resume={whole}", "seed=1,2,3,4"): "leave out seed=1,2,3,4",
        ("-m", f"sweep.resume={whole}", "sweep=seeds"): "leave out sweep=seeds",
        ("-m", f"sweep.resume={whole / '0'}"): "no folder of a multirun",
        ("-m", "sweep.resume=nowhere"): "sweep.resume=nowhere is no folder",
        ("-m", "sweep.resume="): "is no folder",
        ("-m", "sweep.resume=auto"): "found no unfinished multirun",
        ("-m", "sweep.resum=x"): "did you mean sweep.resume?",
        ("-m", *ASKED, "seed=1,2", f"hydra.sweep.dir={whole}"): "already holds a multirun. Resume it with -m sweep",
    }.items():  # fmt: skip
        assert run("train", *arguments) == 2, arguments
        assert message in capfd.readouterr().err, arguments
    assert run("baseline", "-m", f"sweep.resume={whole}") == 2
    assert "is a multirun of train" in capfd.readouterr().err


def test_nothing_runs_twice_at_a_time(whole: Path, run: Any, capfd: Any) -> None:
    with multirun.locked(whole, "The multirun in"):
        assert run("train", "-m", f"sweep.resume={whole}") == 0  # finished: nothing to be doubled
    (whole / "1" / "metrics.json").rename(whole / "1" / "kept.json")
    try:
        with multirun.locked(whole, "The multirun in"):
            assert run("train", "-m", f"sweep.resume={whole}") == 2
        with multirun.locked(whole / "1", "The run in"):
            assert run("train", "-m", f"sweep.resume={whole}") == 2
            assert run("train", f"resume={whole / '1'}") == 2
    finally:
        (whole / "1" / "kept.json").rename(whole / "1" / "metrics.json")
    raised = capfd.readouterr().err
    assert raised.count("is at work in another process") == 2
    assert "still at work: seed=2" in raised


def test_a_multirun_of_baselines_has_a_table_too_and_goes_on(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from emotion_lightning.models import ngrams

    original = ngrams.NgramClassifier.fit

    def fit(self: Any, *args: Any, **named: Any) -> Any:
        if (tmp_path / "out" / "1").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **named)

    with monkeypatch.context() as planted:
        planted.setattr(ngrams.NgramClassifier, "fit", fit)
        assert run("baseline", "-m", "data.max_rows=96", "C=1,2", "hydra.sweep.dir=out") == 143
    assert "emotion_lightning.baseline -m sweep.resume=out" in capfd.readouterr().err
    assert run("baseline", "-m", "sweep.resume=out") == 0
    assert {row["C"]: row["state"] for row in table(tmp_path / "out")} == {"1": "finished", "2": "finished"}
    assert "Predict with it" in capfd.readouterr().out


def test_a_metric_that_thresholds_are_fitted_for_puts_jobs_in_order(run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("baseline", "-m", "data.max_rows=96", "C=1,2", "thresholds.metric=jaccard", "hydra.sweep.dir=out") == 0
    assert "best first by Jaccard on validation (validation/jaccard)" in capfd.readouterr().out
    scores = [float(row["validation/jaccard"]) for row in table(tmp_path / "out")]
    assert scores == sorted(scores, reverse=True)


def test_names_of_groups_and_jobs_for_wandb(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "multirun" / "2026-01-02" / "03-04-05"
    jobs = [
        multirun.Job(number, str(number), differs, {"options": {}}, "global")
        for number, differs in enumerate(
            multirun.differences([["peft=ia3", "data.path='a b.csv'"], ["peft=lora", "data.path='" + 200 * "c" + "'"]])
        )
    ]
    multirun.write_jobs(multirun.Multirun(folder, "train", [], [], "f1_macro", jobs))
    assert multirun.wandb_names(folder / "0") == ("2026-01-02_03-04-05", "peft=ia3,data.path=a b.csv")
    (_, long) = multirun.wandb_names(folder / "1") or ("", "")
    assert len(long) == 128  # W&B refuses longer ones
    assert multirun.wandb_names(tmp_path / "run") is None


def test_a_damaged_list_of_jobs_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text('{"command": "train"}')
    with pytest.raises(UserError, match="damaged or of another version"):
        multirun.read_jobs(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)])
def test_a_process_that_is_really_killed(tmp_path: Path, whole: Path, by: int) -> None:
    line = [sys.executable, "-m", "emotion_lightning.train", "-m"]
    process = warm.Popen([*line, *ASKED, "seed=1,2,3", "hydra.sweep.dir=out"], cwd=tmp_path)
    last = tmp_path / "out" / "1" / "checkpoints" / "last.ckpt"
    while process.poll() is None and not last.exists():
        time.sleep(0.1)
    process.send_signal(by)
    assert process.wait(timeout=PATIENCE) == (-by if by == signal.SIGKILL else 128 + by)
    assert warm.run([*line, "sweep.resume=out"], cwd=tmp_path, timeout=PATIENCE).returncode == 0
    for job in "012":
        same_end(whole / job, tmp_path / "out" / job)
