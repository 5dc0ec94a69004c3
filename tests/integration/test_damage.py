"""What was moved goes on; what is damaged, lost or full is told in one line, with what would mend it."""

import csv
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL
from helpers.endings import same_end
from helpers.stops import LORA, at_epoch, in_step, stopped
from safetensors.torch import load_file, save_file

from emotion_lightning.cli import messages, multirun
from emotion_lightning.cli.jobs import _without_log_file
from emotion_lightning.models import backbone, model_folder
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.training.callbacks import Clock

STILL = [*SMALL, "optimizer.lr=1e-12", "optimizer.head_lr=1e-12", "trainer.max_epochs=3"]
"""Every epoch scores the same, so the first one stays the best."""


def test_a_moved_run_remembers_its_best_epoch(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("train", *STILL, "hydra.run.dir=whole") == 0
    stopped(run, "parts", at_epoch(Clock, "on_train_epoch_start", 1), monkeypatch, *STILL)
    moved = tmp_path / "another folder" / "run=1"
    moved.parent.mkdir()
    shutil.move("parts", moved)
    assert run("train", f"resume={moved}") == 0
    same_end(tmp_path / "whole", moved)
    assert torch.load(moved / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 0


def test_a_run_whose_settings_are_gone_resumes_evaluates_and_predicts(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    stopped(run, "old", at_epoch(Clock, "on_train_epoch_start", 1), monkeypatch, *SMALL, "trainer.max_epochs=2")
    written = tmp_path / "old" / "settings.yaml"
    settings = yaml.safe_load(written.read_text())
    settings["data"] |= {"packing": False, "cache_dir": None, "cache_gb": 2.0}
    written.write_text(yaml.safe_dump(settings))
    capfd.readouterr()
    assert run("train", "resume=old") == 0
    told = capfd.readouterr()
    line = "settings.yaml sets data.cache_dir, data.cache_gb, data.packing, which this version no longer has"
    assert (told.out + told.err).count(line) == 1
    metadata = json.loads((tmp_path / "old" / "model" / "emotion_lightning.json").read_text())
    metadata["data"] |= {"packing": False, "cache_dir": None, "cache_gb": 2.0}
    (tmp_path / "old" / "model" / "emotion_lightning.json").write_text(json.dumps(metadata))
    assert run("evaluate", "run=old", "hydra.run.dir=scored") == 0
    assert run("predict", "run=old", "text=We won!") == 0
    assert run("train", "from_run=old", "hydra.run.dir=again") == 0
    same_end(tmp_path / "old", tmp_path / "again")
    assert "packing" not in yaml.safe_load((tmp_path / "again" / "settings.yaml").read_text())["data"]


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
@pytest.mark.parametrize("damage", ["empty", "cut", "another file"])
def test_a_damaged_checkpoint_stops_a_resume_before_it_trains(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, name: str, damage: str
) -> None:
    stopped(run, "parts", at_epoch(Clock, "on_train_epoch_start", 1), monkeypatch, *SMALL, "trainer.max_epochs=2")
    file = tmp_path / "parts" / "checkpoints" / name
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(file.read_bytes()[:-1000])
        case _:
            torch.save({"weights": torch.ones(2)}, file)
    capfd.readouterr()
    assert run("train", "resume=parts") == 2
    told = capfd.readouterr().err
    assert name in told and "Put back a copy of it" in told and "Traceback" not in told and "epoch 2" not in told


def test_a_lost_best_checkpoint_stops_a_resume(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    stopped(run, "parts", at_epoch(Clock, "on_train_epoch_start", 1), monkeypatch, *SMALL, "trainer.max_epochs=2")
    (tmp_path / "parts" / "checkpoints" / "best.ckpt").unlink()
    assert run("train", "resume=parts") == 2
    assert "best.ckpt does not exist" in capfd.readouterr().err


def test_metrics_csv_goes_on_without_lost_or_doubled_rows(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    asked = [*(o for o in LORA if o != "logger=none"), "logger=csv", "trainer.max_epochs=2"]
    assert run("train", *asked, "hydra.run.dir=whole") == 0
    assert "will be deleted" not in capfd.readouterr().err
    stopped(run, "parts", in_step(4), monkeypatch, *asked)
    assert run("train", "resume=parts") == 0

    def rows(folder: str) -> list[dict[str, str]]:
        with (tmp_path / folder / "metrics.csv").open() as file:
            found = [
                {name: cell for name, cell in row.items() if cell and "cost" not in name}
                for row in csv.DictReader(file)
            ]
        return [row for row in found if row]

    assert rows("parts") == rows("whole")


def test_leavings_of_a_killed_save_are_swept(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(run, "parts", in_step(4), monkeypatch, *SMALL, "trainer.max_epochs=2")
    left = tmp_path / "parts" / "checkpoints" / ".last.ckpt.abcd_123.part"
    left.write_bytes(b"half")
    assert run("train", "resume=parts") == 0
    assert not left.exists()


def test_the_loss_that_is_told_does_not_depend_on_accumulation(run: Any, tmp_path: Path) -> None:
    for steps in (1, 3):
        assert run("train", *STILL[:-1], "trainer.max_epochs=1", "data.batch_size=8",
                   f"trainer.accumulate_grad_batches={steps}", f"hydra.run.dir=out{steps}") == 0  # fmt: skip
    losses = [
        float(next(csv.DictReader((tmp_path / f"out{steps}" / "history.csv").open()))["train/loss"]) for steps in (1, 3)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy")) / "model"


def test_an_adapter_that_lacks_a_tensor_is_refused(finished: Path, tmp_path: Path, run: Any, capfd: Any) -> None:
    file = copy(finished, tmp_path) / "adapter_model.safetensors"
    values = load_file(file)
    lost = next(name for name in values if "ia3" in name)
    save_file({name: value for name, value in values.items() if name != lost}, file)
    assert run("predict", "run=copy", "text=hello") == 2
    assert f"lacks {lost}" in capfd.readouterr().err


def test_weights_that_are_not_finite_predict_nothing(finished: Path, tmp_path: Path, run: Any, capfd: Any) -> None:
    file = copy(finished, tmp_path) / "adapter_model.safetensors"
    values = load_file(file)
    save_file({name: value * float("nan") for name, value in values.items()}, file)
    assert run("predict", "run=copy", "text=hello") == 2
    assert "outputs are not finite" in capfd.readouterr().err


def test_a_card_with_an_impossible_length_is_refused(finished: Path, tmp_path: Path, run: Any, capfd: Any) -> None:
    file = copy(finished, tmp_path) / METADATA
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_tokens": -4}))
    file.with_name("SHA256SUMS").unlink(missing_ok=True)
    assert run("predict", "run=copy", "text=hello") == 2
    assert "is damaged: max_tokens" in capfd.readouterr().err


def test_a_threshold_that_is_no_number_is_refused(finished: Path, tmp_path: Path, run: Any, capfd: Any) -> None:
    file = copy(finished, tmp_path) / METADATA
    content = json.loads(file.read_text())
    content["thresholds"]["global"]["joy"] = float("nan")
    file.write_text(json.dumps(content))
    file.with_name("SHA256SUMS").unlink(missing_ok=True)
    assert run("predict", "run=copy", "text=hello") == 2
    assert "the global threshold of joy is nan" in capfd.readouterr().err


def test_a_copied_run_takes_its_own_base_and_not_what_lies_at_the_old_place(finished: Path, tmp_path: Path) -> None:
    folder = copy(finished, tmp_path)
    assert model_folder.base_path(folder, read_metadata(folder)) == str(tmp_path / "copy" / "base")
    shutil.rmtree(tmp_path / "copy" / "base")
    assert model_folder.base_path(folder, read_metadata(folder)) == str(finished / "base")


def deep(cause: BaseException) -> BaseException:
    error = ValueError("Unable to configure handler 'file'")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Error while serializing: IoError: No space left on device (os error 28)"), "No space left"),
        (RuntimeError("I/O error: File too large (os error 27)"), "File too large"),
        (Exception("No space left on device"), "the disk is full"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "No space left on device"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG), "x.bin"), "x.bin: File too large"),
        (deep(OSError(errno.EROFS, os.strerror(errno.EROFS), "train.log")), "train.log: Read-only file system"),
    ],
)
def test_full_disks_are_told_whoever_wrote(error: BaseException, reason: str) -> None:
    told = messages.as_user_error("train", error, [])
    assert told is not None and reason in str(told) and "free some space" in str(told)


def test_other_errors_stay_ours() -> None:
    assert messages.as_user_error("train", RuntimeError("(os error 2)"), []) is None
    assert messages.as_user_error("train", deep(KeyError("x")), []) is None


def test_flags_may_stand_anywhere_in_the_line(run: Any, tmp_path: Path) -> None:
    arguments = [*SMALL, "trainer=debug", "-m", "seed=1,2", "hydra.sweep.dir=out"]
    assert run("train", *arguments) == 0
    assert sorted(folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()) == ["0", "1"]


def test_a_base_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: Any, target: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copytree", partial(shutil.copytree, copy_function=copy))
    with pytest.raises(shutil.Error) as raised:
        backbone._copy_of_tiny(tmp_path / "out" / "base")
    assert "No space left on device" in str(messages.as_user_error("train", raised.value, []))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_log_file_on_a_full_disk_is_told_once(tmp_path: Path, capfd: Any, caplog: Any) -> None:
    handler = logging.FileHandler(tmp_path / "evaluate.log")
    handler.handleError = partial(_without_log_file, handler)  # type: ignore[method-assign]
    handler.setStream(open("/dev/full", "w"))  # noqa: SIM115  every write to it finds the disk full
    root = logging.getLogger()
    root.addHandler(handler)
    root.error("first")
    root.error("second")
    assert handler not in root.handlers
    assert caplog.text.count("evaluate.log is not written any further: No space left on device") == 1
    assert "Logging error" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "compare", "inspect", "train", "baseline"])
def test_a_second_process_in_a_folder_is_refused_and_leaves_the_first_alone(
    run: Any, tmp_path: Path, capfd: Any, name: str
) -> None:
    given = {"evaluate": ["run=x"], "compare": ["runs=[x]"]}.get(name, [])
    with multirun.locked(tmp_path / "out", ""):
        (tmp_path / "out" / f"{name}.log").write_text("of the first\n")
        assert run(name, *given, "hydra.run.dir=out") == 2
        assert (tmp_path / "out" / f"{name}.log").read_text() == "of the first\n"
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert capfd.readouterr().err.count("is at work in another process") == 1


def test_a_lock_that_a_killed_process_left_does_not_block(tmp_path: Path) -> None:
    holds = f"from pathlib import Path; from filelock import FileLock; FileLock('{tmp_path}/.lock').acquire(); "
    subprocess.run([sys.executable, "-c", f"{holds} import os; os.kill(os.getpid(), 9)"], check=False)
    assert (tmp_path / ".lock").exists() and not multirun.is_locked(tmp_path)
    with multirun.locked(tmp_path, ""):
        assert multirun.is_locked(tmp_path)


def test_a_look_at_a_folder_does_not_refuse_the_process_that_begins_there(tmp_path: Path) -> None:
    begun = threading.Event()

    def look() -> None:
        with multirun.locked(tmp_path, ""):
            begun.set()
            time.sleep(0.2)

    looking = threading.Thread(target=look)
    looking.start()
    begun.wait()
    with multirun.locked(tmp_path, ""):
        pass
    looking.join()
