"""A run that was stopped, by whatever, goes on as if nothing had happened."""

import contextlib
import errno
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from helpers import warm
from helpers.endings import same_end
from helpers.servers import PATIENCE
from helpers.stops import LORA, Kill, Killed, at_epoch, at_the_end, in_step, stand_in_for_scontrol, stopped

from emotion_lightning.errors import UserError
from emotion_lightning.runs import slurm
from emotion_lightning.training import checkpoint_io
from emotion_lightning.training.callbacks import Clock
from emotion_lightning.training.callbacks.epoch_log import EpochLines
from emotion_lightning.training.classifier import EmotionClassifier

# 96 rows in batches of 32: three batches an epoch.
MOMENTS: dict[str, Kill] = {
    "before the first step": in_step(0),
    "within the first epoch": in_step(2),
    "at the first step of the second": in_step(3),
    "within the second": in_step(5),
    "in validation": at_epoch(EmotionClassifier, "validation_step", 1),
    "before the best is saved": at_epoch(EpochLines, "on_validation_end", 1),
    "between the best and the last": at_epoch(Clock, "on_train_epoch_end", 1),
    "at the end": at_the_end,
}
KINDS: dict[str, list[str]] = {
    "saving each step": ["trainer.checkpoint_every=1"],
    "saving each epoch": [],
    "saving all the time": ["trainer.checkpoint_minutes=1e-6"],
    "with an average": ["trainer.checkpoint_every=1", "callbacks.ema_decay=0.9"],
}


def kills() -> Iterator[Any]:
    """Every moment with one kind of saving, and each kind with at least two moments; the rest is exhaustive."""
    kinds = list(KINDS)
    for i, kind in enumerate(kinds):
        for j, moment in enumerate(MOMENTS):
            marks = [] if j % len(kinds) == i else pytest.mark.exhaustive
            yield pytest.param(kind, moment, id=f"{kind}-{moment}", marks=marks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of an uninterrupted run with these settings."""
    from conftest import run_in_process

    made: dict[tuple[str, ...], Path] = {}

    def get(*asked: str) -> Path:
        if asked not in made:
            made[asked] = tmp_path_factory.mktemp("whole") / "run"
            assert run_in_process("train", *asked, f"hydra.run.dir={made[asked]}") == 0
        return made[asked]

    return get


@pytest.mark.parametrize(("kind", "moment"), kills())
def test_a_killed_run_ends_as_an_uninterrupted_one(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any, kind: str, moment: str
) -> None:
    asked = [*LORA, *KINDS[kind], "trainer.max_epochs=3"]
    stopped(run, "parts", MOMENTS[moment], monkeypatch, *asked)
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(in_step(1, batch=0), id="whole step", marks=pytest.mark.exhaustive),
        pytest.param(in_step(1, batch=1), id="between two batches of a step"),
        pytest.param(in_step(2), id="epoch's end", marks=pytest.mark.exhaustive),
        pytest.param(in_step(3, batch=1), id="second epoch"),
    ],
)
@pytest.mark.parametrize(
    "saving",
    ["trainer.checkpoint_every=1", pytest.param("trainer.checkpoint_minutes=1e-6", marks=pytest.mark.exhaustive)],
)
def test_a_killed_run_with_accumulated_gradients_and_workers_ends_alike(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any, kill: Kill, saving: str
) -> None:
    # 12 batches of 8, three in each step, read ahead by two processes.
    more = ["data.batch_size=8", "trainer.accumulate_grad_batches=3", "data.workers=2", "trainer.max_epochs=2"]
    asked = [*LORA, *more, saving]
    stopped(run, "parts", kill, monkeypatch, *asked)
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")


def test_a_killed_run_on_pieces_of_long_texts_ends_as_an_uninterrupted_one(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    pieces = ["data.max_tokens=16", "data.long_texts=windows", "data.join_windows=mean"]
    asked = [*LORA, *pieces, "trainer.checkpoint_every=1", "trainer.max_epochs=2"]
    stopped(run, "parts", in_step(4), monkeypatch, *asked)
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")


def test_a_run_that_was_stopped_early_stays_stopped(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    asked = [*LORA, "callbacks.patience=1", "callbacks.min_delta=1", "trainer.max_epochs=9"]
    stopped(run, "parts", at_the_end, monkeypatch, *asked)
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1


def test_a_run_may_be_killed_again_and_again(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    asked = [*LORA, "trainer.checkpoint_every=1", "trainer.max_epochs=3"]
    stopped(run, "parts", in_step(1), monkeypatch, *asked)
    for kill in (in_step(2), at_epoch(EmotionClassifier, "validation_step", 0), in_step(5), at_the_end):
        with monkeypatch.context() as planted:
            kill(planted)
            assert run("train", "resume=parts") == 1
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")
    starts = json.loads((tmp_path / "parts" / "environment.json").read_text())["starts"]
    assert len(starts) == 6


def test_resume_auto_takes_the_newest_unfinished_run(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    asked = [*LORA, "trainer.checkpoint_every=1", "trainer.max_epochs=3"]
    stopped(run, "outputs/train/day/older", in_step(1), monkeypatch, *asked)
    stopped(run, "outputs/train/day/newer", in_step(2), monkeypatch, *asked)
    assert run("train", "resume=auto") == 0
    same_end(whole(*asked), tmp_path / "outputs/train/day/newer")
    assert not (tmp_path / "outputs/train/day/older/metrics.json").exists()


def test_half_a_base_that_a_kill_left_behind_is_made_anew(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    from transformers import PreTrainedModel

    asked = [*LORA, "trainer.max_epochs=3"]
    original = PreTrainedModel.save_pretrained

    def half(self: Any, folder: Path, *args: Any, **kwargs: Any) -> None:
        original(self, folder, *args, **kwargs)
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise Killed

    def kill(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(PreTrainedModel, "save_pretrained", half)

    stopped(run, "parts", kill, monkeypatch, *asked)
    assert run("train", *asked, "hydra.run.dir=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")


def test_a_run_does_not_go_on_with_other_rows(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def write(mended: str) -> None:
        for name in ("train", "validation"):
            lines = [f"k{i},{name} {i} {mended if i == 7 else ''},{i % 2},{(i // 2) % 2}" for i in range(40)]
            (tmp_path / f"{name}.csv").write_text("id,text,joy,anger\n" + "\n".join(lines) + "\n")

    write("")
    asked = [*SMALL[:-1], "data=file", "data.train=train.csv", "data.validation=validation.csv",
             "trainer.checkpoint_every=1", "data.batch_size=8"]  # fmt: skip
    stopped(run, "parts", in_step(3), monkeypatch, *asked)
    write("mended")
    assert run("train", "resume=parts") == 2
    assert "The checkpoint has data (a print of its rows)=" in capfd.readouterr().err
    write("")
    assert run("train", "resume=parts") == 0


def test_the_wandb_run_goes_on_under_its_id(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [*(o for o in LORA if o != "logger=none"), "trainer.checkpoint_every=1", "trainer.max_epochs=2"]
    stopped(run, "parts", in_step(4), monkeypatch, *asked)
    (first,) = (tmp_path / "parts" / "wandb").glob("offline-run-*")
    time.sleep(1.1)  # W&B names folders by the second
    assert run("train", "resume=parts") == 0
    folders = list((tmp_path / "parts" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert {folder.name.rpartition("-")[2] for folder in folders} == {first.name.rpartition("-")[2]}


# ------------------------------------------------------------------------------------------------------------- signals


def start(folder: Path, *asked: str, **variables: str) -> warm.Popen:
    return warm.Popen(
        ["emotion_lightning.train", *LORA, "callbacks=no_early_stopping", *asked],
        cwd=folder,
        stderr=warm.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


def after_first_save(folder: Path, process: warm.Popen) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + PATIENCE
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None


# The other tests of SIGTERM stay in this process.
@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_a_signal_saves_and_leaves_with_its_code(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "trainer.max_epochs=400", "hydra.run.dir=out")
    after_first_save(tmp_path / "out", process)
    process.send_signal(number)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert f"Stopped by {number.name} at step" in message and "Traceback" not in message
    assert f"go on with python -m emotion_lightning.train resume={tmp_path}/out" in message
    saved = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)
    assert f"at step {saved['global_step']};" in message


@pytest.mark.parametrize(
    "moment",
    ["step", *(pytest.param(m, marks=pytest.mark.exhaustive) for m in ("between", "last batch")), "validation",
     pytest.param("last epoch", marks=pytest.mark.exhaustive)],
)  # fmt: skip
def test_a_signal_at_any_moment_leaves_a_run_that_goes_on(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any, moment: str
) -> None:
    asked = [*LORA, "data.batch_size=8", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=2"]
    original = {hook: getattr(EmotionClassifier, hook) for hook in ("training_step", "validation_step")}
    batch = {"step": 3, "between": 4, "last batch": 11, "last epoch": 11}.get(moment)

    def training_step(self: Any, of: Any, index: int) -> Any:
        if index == batch and self.trainer.current_epoch == (moment == "last epoch"):
            os.kill(os.getpid(), signal.SIGTERM)
        return original["training_step"](self, of, index)

    def validation_step(self: Any, of: Any, index: int) -> Any:
        first = index == 0 and self.trainer.current_epoch == 0 and self.trainer.state.fn == "fit"
        if moment == "validation" and first:
            os.kill(os.getpid(), signal.SIGTERM)
        return original["validation_step"](self, of, index)

    with monkeypatch.context() as planted:
        planted.setattr(EmotionClassifier, "training_step", training_step)
        planted.setattr(EmotionClassifier, "validation_step", validation_step)
        assert run("train", *asked, "hydra.run.dir=parts") == 143
    saved = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert saved == {"step": 2, "between": 2, "last batch": 4, "validation": 4, "last epoch": 8}[moment]
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")


def test_a_second_signal_leaves_at_once(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(self: Any, of: Any, index: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one should have left")

    monkeypatch.setattr(EmotionClassifier, "training_step", twice)
    assert run("train", *LORA, "hydra.run.dir=out") == 130


def test_a_signal_that_a_library_swallows_before_training_still_stops_it(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def swallow(self: Any) -> None:
        with contextlib.suppress(SystemExit):  # as a bare `except:` around an import does
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EmotionClassifier, "on_fit_start", swallow, raising=False)
    monkeypatch.setattr(EmotionClassifier, "training_step", lambda *_: steps.append(1))
    assert run("train", *LORA, "hydra.run.dir=out") == 143
    assert not steps


# ------------------------------------------------------------------------------------------------------------ clusters


def test_slurm_warns_the_run_saves_is_requeued_and_goes_on_in_its_folder(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, whole: Any
) -> None:
    asked = [*LORA, "trainer.checkpoint_every=1", "trainer.max_epochs=3"]
    uninterrupted = whole(*asked)
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "emotions", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": stand_in_for_scontrol(tmp_path),
    }  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    original = EmotionClassifier.training_step

    def training_step(self: Any, of: Any, index: int) -> Any:
        if self.trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, of, index)

    with monkeypatch.context() as planted:
        planted.setattr(EmotionClassifier, "training_step", training_step)
        assert run("train", *asked) == 143
    message = capfd.readouterr().err
    assert "Stopped by SIGUSR1 at step 5" in message and "in the queue again" in message
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    # SLURM starts the job with the same line, at another time.
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run("train", *asked) == 0
    assert "started before: it goes on in" in capfd.readouterr().err
    (folder,) = tmp_path.glob("outputs/train/*/*")
    same_end(uninterrupted, folder)


def test_another_command_line_of_the_same_job_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text("")
    slurm.remember(tmp_path / "run", ["seed=1"])
    assert slurm.remembered(["seed=1"], "settings.yaml") == tmp_path / "run"
    assert slurm.remembered(["seed=2"], "settings.yaml") is None
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert slurm.remembered(["seed=1"], "settings.yaml") is None


@pytest.mark.parametrize(
    ("variables", "job", "number"),
    [
        ({}, None, None),
        ({"SLURM_JOB_ID": "7"}, "7", signal.SIGUSR1),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "7_2", signal.SIGUSR1),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash"}, None, None),
        ({"SLURM_JOB_ID": "7", "SUBMITIT_EXECUTOR": "slurm"}, None, signal.SIGUSR2),
        ({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_PREEMPT_SIGNAL": "USR1"}, None, signal.SIGUSR1),
    ],
)
def test_jobs_and_their_signals_are_known(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], job: str | None, number: int | None
) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (slurm.job(), slurm.preemption_signal()) == (job, number)


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_that_cannot_be_requeued_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", stand_in_for_scontrol(tmp_path, 1) if code else str(tmp_path))
    slurm.requeue()
    assert ("no such job" if code else "no scontrol") in caplog.text


def test_under_submitit_the_run_saves_and_leaves_requeueing_to_it(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    places = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_FOLDER": str(tmp_path), "SUBMITIT_LOCAL_JOB_ID": "1"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    asked = [*LORA, "trainer.checkpoint_every=1", "trainer.max_epochs=3"]
    calls = []

    def own(number: int, _: Any) -> None:
        calls.append((number, (tmp_path / "parts" / "checkpoints" / "last.ckpt").exists()))
        sys.exit(255)  # as submitit does after it has requeued

    before = signal.signal(signal.SIGUSR2, own)
    original = EmotionClassifier.training_step

    def training_step(self: Any, of: Any, index: int) -> Any:
        if self.trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGUSR2)
        return original(self, of, index)

    try:
        with monkeypatch.context() as planted:
            planted.setattr(EmotionClassifier, "training_step", training_step)
            assert run("train", *asked, "hydra.run.dir=parts") == 255
        assert calls == [(signal.SIGUSR2, True)]
        assert signal.getsignal(signal.SIGUSR2) is own
        # submitit starts the job with the same line in the same folder.
        assert run("train", *asked, "hydra.run.dir=parts") == 0
    finally:
        signal.signal(signal.SIGUSR2, before)
    same_end(whole(*asked), tmp_path / "parts")


# ------------------------------------------------------------------------------------------- ruined steps, full disks


def test_a_ruined_loss_names_the_step_the_rows_and_the_rates(run: Any, tmp_path: Path, capfd: Any) -> None:
    lines = [f"k{i},text {i},{i % 2},{(i // 2) % 2}" for i in range(60)]
    (tmp_path / "a.csv").write_text("id,text,joy,anger\n" + "\n".join(lines) + "\n")
    asked = [*SMALL[:-1], "data=file", "data.path=a.csv", "data.batch_size=4", "hydra.run.dir=out"]
    asked += ["optimizer.lr=1e30", "optimizer.head_lr=1e30", "optimizer.warmup=0", "trainer.gradient_clip_val=null"]
    assert run("train", *asked) == 2
    raised = capfd.readouterr().err
    assert re.search(r"The loss is (nan|inf) at step \d \(epoch 1\), at learning rates", raised)
    assert re.search(r"on the training rows k\d+, k\d+, k\d+, k\d+[. ]", raised)
    assert "(the parameters model.layers" in raised and "Lower optimizer.lr" in raised


def test_ruined_parameters_are_never_kept(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = EmotionClassifier.training_step

    def training_step(self: Any, of: Any, index: int) -> Any:
        if self.trainer.global_step == 2:
            # The loss of this step is still fine; what it leaves behind is not.
            next(iter(self.trained().values())).data.fill_(float("inf"))
            return original(self, of, index).detach().nan_to_num(0.0).requires_grad_()
        return original(self, of, index)

    monkeypatch.setattr(EmotionClassifier, "training_step", training_step)
    assert run("train", *SMALL, "trainer.checkpoint_every=1", "data.batch_size=8", "hydra.run.dir=out") == 2
    assert "not finite at step 3: the last step ruined them. The checkpoint before it is kept" in capfd.readouterr().err
    saved = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in saved["state_dict"].values())


def test_a_full_disk_leaves_the_last_checkpoint_untouched(tmp_path: Path) -> None:
    keeper, file = checkpoint_io.AtomicCheckpointIO(), tmp_path / "last.ckpt"
    keeper.save_checkpoint({"state_dict": {"a": torch.zeros(10)}}, file)
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the same answer as a full disk's
    try:
        with pytest.raises(UserError, match=r"last\.ckpt cannot be saved: .* The one before it is untouched"):
            keeper.save_checkpoint({"state_dict": {"a": torch.zeros(100_000)}}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == before
    assert [other.name for other in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_in_training_is_told_and_resumed_from(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    asked = [*LORA, "trainer.checkpoint_every=1", "trainer.max_epochs=3"]
    save = torch.save

    def full(content: Any, file: Any) -> None:
        if content["global_step"] == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        save(content, file)

    with monkeypatch.context() as planted:
        planted.setattr(torch, "save", full)
        assert run("train", *asked, "hydra.run.dir=parts") == 2
    raised = capfd.readouterr().err
    assert "last.ckpt cannot be saved: No space left on device. The one before it is untouched" in raised
    assert run("train", "resume=parts") == 0
    same_end(whole(*asked), tmp_path / "parts")


def test_a_folder_that_cannot_be_written_to_is_named(run: Any, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "file").write_text("")
    assert run("train", *SMALL, "hydra.run.dir=file/run") == 2
    assert "file" in capfd.readouterr().err


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_names_the_batch_and_the_settings_that_help(
    run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from emotion_lightning import load
    from emotion_lightning.models import pooling

    original = pooling.logits

    def logits(network: Any, batch: Any, *, pooling: Any) -> Any:
        if len(batch["input_ids"]) > 16:
            raise error
        return original(network, batch, pooling=pooling)

    with monkeypatch.context() as planted:
        planted.setattr(pooling, "logits", logits)
        assert run("train", *SMALL, "hydra.run.dir=out") == 2
        raised = capfd.readouterr().err
        assert (
            "with a batch of 32 texts of" in raised
            and "data.batch_size=16 with trainer.accumulate_grad_batches=2" in raised
        )
        assert run("train", *SMALL, "data.batch_size=16", "trainer=debug", "hydra.run.dir=smaller") == 0
        with pytest.raises(UserError, match=r"with a batch of 20 texts of \d+ tokens\. Try data\.batch_size=10\."):
            load(tmp_path / "smaller").predict(["so happy"] * 20)
