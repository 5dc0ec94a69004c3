"""Jobs of a multirun in processes of their own: side by side on one machine, and on SLURM."""

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from helpers.servers import PATIENCE

from emotion_lightning.cli import compose, gpu_slots, messages
from emotion_lightning.errors import UserError
from emotion_lightning.runs import slurm

TRAIN = [sys.executable, "-m", "emotion_lightning.train", "-m"]


def states(folder: Path) -> dict[str, str]:
    with (folder / "jobs.csv").open(newline="") as opened:
        return {row["job"]: row["state"] for row in csv.DictReader(opened)}


@pytest.fixture
def in_local_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What submitit's local launcher sets in a job, on a machine with three GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor i in 0 1 2; do echo "GPU $i: NVIDIA H100 (UUID: GPU-$i)"; done\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for name, value in {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_FOLDER": str(tmp_path / "%j"), "SUBMITIT_LOCAL_JOB_ID": "11",
        "SUBMITIT_LOCAL_GLOBALID": "0", "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(gpu_slots._DEVICES, raising=False)
    monkeypatch.setattr(gpu_slots.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpu_slots.os, "setpgid", lambda *_: None)
    return tmp_path


def test_each_job_has_gpus_of_its_own_and_gives_them_back(in_local_job: Path) -> None:
    seen = []
    with gpu_slots.hold_slot(gpus=1, cpus=None, tasks=1):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        with gpu_slots.hold_slot(gpus=1, cpus=None, tasks=1):
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    with gpu_slots.hold_slot(gpus=2, cpus=None, tasks=1):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["0", "1", "0,1"]


def test_jobs_take_those_gpus_that_the_multirun_may_use(in_local_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu_slots._DEVICES, "5,GPU-abc")
    with gpu_slots.hold_slot(gpus=1, cpus=None, tasks=1), gpu_slots.hold_slot(gpus=1, cpus=None, tasks=1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-abc"
    with (
        pytest.raises(UserError, match="gpus_per_node=3, but there are 2"),
        gpu_slots.hold_slot(gpus=3, cpus=None, tasks=1),
    ):
        pass


def test_a_job_waits_until_a_gpu_is_free(in_local_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu_slots._DEVICES, "7")
    waited = []
    holder = gpu_slots.hold_slot(gpus=1, cpus=None, tasks=1)
    holder.__enter__()

    def sleep(_: float) -> None:
        waited.append(1)
        if len(waited) == 2:
            holder.__exit__(None, None, None)

    monkeypatch.setattr(gpu_slots.time, "sleep", sleep)
    with gpu_slots.hold_slot(gpus=1, cpus=None, tasks=1):
        assert (os.environ["CUDA_VISIBLE_DEVICES"], len(waited)) == ("7", 2)


def test_the_processes_of_one_job_share_its_place(in_local_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_slots.hold_slot(gpus=2, cpus=None, tasks=2):
        monkeypatch.setenv("SUBMITIT_LOCAL_GLOBALID", "1")
        with gpu_slots.hold_slot(gpus=2, cpus=None, tasks=2):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
        monkeypatch.setenv("SUBMITIT_LOCAL_GLOBALID", "0")


def test_a_process_waits_for_the_first_of_its_own_job(in_local_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        (in_local_job / "%j" / "place-12.txt").write_text("2")

    monkeypatch.setattr(gpu_slots.time, "sleep", sleep)
    with gpu_slots.hold_slot(gpus=1, cpus=None, tasks=2):
        monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "12")
        monkeypatch.setenv("SUBMITIT_LOCAL_GLOBALID", "1")
        with gpu_slots.hold_slot(gpus=1, cpus=None, tasks=2):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"  # not the place of job 11
        monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "11")
        monkeypatch.setenv("SUBMITIT_LOCAL_GLOBALID", "0")


def test_without_gpus_jobs_share_the_cores(in_local_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_slots.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv(gpu_slots._DEVICES, "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    with gpu_slots.hold_slot(gpus=1, cpus=4, tasks=1), gpu_slots.hold_slot(gpus=1, cpus=4, tasks=1):
        assert os.environ["OMP_NUM_THREADS"] == "4"
    taken = sorted(file.stem for file in in_local_job.glob("emotion_lightning-*/cores*"))
    assert taken == ["cores-0", "cores-1"]


def test_a_missing_launcher_and_a_missing_slurm_are_told() -> None:
    from hydra.errors import MissingConfigException

    missing = MissingConfigException("", missing_cfg_file="hydra/launcher/submitit_slurm", options=["basic"])
    raised = messages.as_user_error("train", missing, [])
    assert raised is not None and "pip install -e" in str(raised) and "[slurm]" in str(raised)
    raised = messages.as_user_error(
        "train", RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?'), []
    )
    assert raised is not None and "hydra/launcher=local" in str(raised)


def test_without_slurm_nothing_is_begun(run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("train", "-m", "hydra/launcher=slurm", "seed=1,2", "hydra.sweep.dir=out") == 2
    assert "not on this machine" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_every_launcher_composes_and_jobs_of_slurm_go_on_after_their_time(launcher: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose, initialize_config_dir

    from emotion_lightning.config import schema

    schema.register()
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        asked = ["hydra/launcher=" + launcher, "hydra.launcher.timeout_min=60"]
        found = compose("train", asked, return_hydra_config=True).hydra.launcher
    assert found.gpus_per_node == 1 and found.timeout_min == 60
    assert launcher == "local" or (found.max_num_timeout > 0 and found.signal_delay_s >= 60)


def test_only_the_first_process_of_a_job_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm.is_first_process() and slurm.processes() == 1
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert not slurm.is_first_process() and slurm.processes() == 2


@pytest.mark.exhaustive
def test_jobs_side_by_side_of_two_processes_each(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = subprocess.run(
        [*TRAIN, *SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1", "seed=1,2",
         "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "hydra.launcher.cpus_per_task=1",
         "hydra.sweep.dir=out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert states(tmp_path / "out") == {"0": "finished", "1": "finished"}
    assert "Best: job" in done.stdout
    for job in "01":
        (start,) = json.loads((tmp_path / "out" / job / "environment.json").read_text())["starts"]
        assert start["variables"]["WORLD_SIZE"] == "2"
        rows = (tmp_path / "out" / job / "predictions" / "validation.csv").read_text().splitlines()
        assert len(rows) == 97  # each row once


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)])
def test_a_stop_reaches_the_jobs_side_by_side_and_they_go_on(tmp_path: Path, by: int) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    process = subprocess.Popen(
        [*TRAIN, *SMALL, "trainer.max_epochs=300", "callbacks=no_early_stopping", "seed=1,2", "hydra/launcher=local",
         "hydra.launcher.cpus_per_task=1", "hydra.sweep.dir=out"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    first = tmp_path / "out" / "0" / "checkpoints" / "last.ckpt"
    while process.poll() is None and not first.exists():
        time.sleep(0.1)
    # As a terminal sends Ctrl-C: to the whole group of processes.
    os.killpg(process.pid, by) if by == signal.SIGINT else process.send_signal(by)
    _, raised = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + by
    assert "-m sweep.resume=out" in raised
    assert "Stopped by SIGINT" in (tmp_path / "out" / "0" / "train.log").read_text()
    assert "finished" not in states(tmp_path / "out").values()


def test_jobs_need_as_many_processes_as_the_launcher_starts(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_lightning import train

    job = compose.Job({}, [], multirun=True)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    train._refuse(settings("trainer=ddp"), tmp_path, job, goes_on=False)
    for asked in (["trainer=ddp", "trainer.devices=4"], []):
        with pytest.raises(UserError, match="the launcher started 2; set hydra.launcher.tasks_per_node"):
            train._refuse(settings(*asked), tmp_path, job, goes_on=False)
