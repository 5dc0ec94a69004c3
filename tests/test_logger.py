"""Loggers: what they keep, that they close, that they hold no secret."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import SMALL

from emotion_lightning import logger, schema
from emotion_lightning.errors import UserError

ASKED = [override for override in SMALL if override != "logger=none"]


def offline_run(folder: Path) -> bytes:
    """The file of an offline W&B run: protocol buffers, with names and values as plain text inside."""
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    # W&B's own process writes it, and may be a moment behind.
    deadline = time.monotonic() + 30
    while file.stat().st_size < 1000 and time.monotonic() < deadline:
        time.sleep(0.1)
    return file.read_bytes()


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes that W&B runs were closed with."""
    codes: list[int] = []
    finish = wandb.finish

    def note(exit_code: int) -> None:
        codes.append(exit_code)
        finish(exit_code=exit_code)

    monkeypatch.setattr(wandb, "finish", note)
    return codes


def test_wandb_run_is_offline_without_a_key_whole_and_without_secrets(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, exit_codes: list[int]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret")
    assert run("train", *ASKED, "trainer.max_epochs=2", "hydra.run.dir=out", pictures=True) == 0
    assert capfd.readouterr().err.count("wandb sync") == 1
    assert (wandb.run, exit_codes) == (None, [0])
    held = offline_run(tmp_path / "out")
    for name in ("train/loss", "val/loss", "val/f1_macro", "val/jaccard", "lr-AdamW", "optimizer.weight_decay",
                 "options.peft", "test/f1_macro", "test/per_label/jaccard", "cost/train_seconds"):  # fmt: skip
        assert name.encode() in held, name
    (table,) = (tmp_path / "out" / "wandb").rglob("labels_*.table.json")
    assert json.loads(table.read_text())["columns"] == ["emotion", "support", "precision", "recall", "f1", "threshold"]
    pictures = (tmp_path / "out" / "wandb").rglob("media/images/pictures/*.png")
    assert {file.name.partition("_")[0] for file in pictures} >= {"learning", "reliability"}
    (page,) = (tmp_path / "out" / "wandb").rglob("media/html/report_*.html")
    assert "Most wrong" in (tmp_path / "out" / "report.html").read_text()
    assert "Reliability" in page.read_text() and "Most wrong" not in page.read_text()  # texts stay here
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"hf_planted_secret" not in file.read_bytes(), file


def test_wandb_run_closes_as_failed_when_training_fails(run: Any, exit_codes: list[int]) -> None:
    code = run("train", *ASKED, "optimizer.lr=1e30", "optimizer.warmup=0", "trainer.gradient_clip_val=null",
               "hydra.run.dir=out")  # fmt: skip
    assert code == 2
    assert (wandb.run, exit_codes) == (None, [1])


def test_each_job_of_a_multirun_has_its_own_wandb_run(run: Any, tmp_path: Path, exit_codes: list[int]) -> None:
    assert run("train", "-m", *ASKED, "trainer=debug", "seed=1,2", "hydra.sweep.dir=jobs_together") == 0
    ids = [(tmp_path / "jobs_together" / job / "wandb" / "id.txt").read_text() for job in "01"]
    assert ids[0] != ids[1]
    assert exit_codes == [0, 0]
    for job in "01":
        assert b"jobs_together" in offline_run(tmp_path / "jobs_together" / job)


def test_csv_logger_writes_metrics_into_the_run_folder(run: Any, tmp_path: Path) -> None:
    assert run("train", *ASKED, "logger=csv", "trainer=debug", "hydra.run.dir=out") == 0
    header = (tmp_path / "out" / "metrics.csv").read_text().splitlines()[0]
    assert "val/f1_macro" in header and "train/loss" in header


def test_online_without_a_key_names_the_two_ways_out(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(UserError, match=r"wandb login.*logger\.mode=offline"):
        logger._offline(settings("logger.mode=online").logger)


def test_settings_are_dotted_so_that_a_swept_group_locks_nothing(settings: Any) -> None:
    flat = logger.dotted(schema.plain(settings()))
    assert flat["peft.lr"] == 0.01 and "peft" not in flat
