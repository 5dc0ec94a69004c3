"""Jobs of a multirun and trials of a study in processes of their own: side by side with Ray, and on SLURM."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from helpers.clusters import two_nodes
from helpers.servers import PATIENCE
from helpers.stand_in import importable, trials_by_stand_in

from emotion_lightning.cli import compose, jobs, messages, multirun, ray_jobs
from emotion_lightning.errors import Stopped, UserError
from emotion_lightning.runs import ray_cluster, slurm
from emotion_lightning.runs.ray_cluster import Call, Share, share_of

RAY = ["hydra/launcher=ray", "hydra.sweep.dir=out"]
NAMES = {"cpus": "cpus_per_job", "gpus": "gpus_per_job"}


def states(folder: Path) -> dict[str, str]:
    with (folder / "jobs.csv").open(newline="") as opened:
        return {row["job"]: row["state"] for row in csv.DictReader(opened)}


# ---------------------------------------------------------------------------------------------------------- without Ray


@pytest.mark.parametrize(
    ("nodes", "tasks", "asked", "share", "at_once"),
    [
        ([(16, 0)], 4, (None, None), Share(4, 0), 4),
        ([(16, 0)], 40, (None, None), Share(1, 0), 16),
        ([(16, 0)], 1, (None, None), Share(16, 0), 1),
        ([(16, 0)], 4, (8, None), Share(8, 0), 2),
        ([(16, 0), (4, 0)], 2, (None, None), Share(4, 0), 5),
        ([(16, 4)], 40, (None, None), Share(4, 1), 4),
        ([(16, 4)], 40, (None, 2), Share(8, 2), 2),
        ([(16, 4)], 40, (None, 0.5), Share(2, 0.5), 8),
        ([(16, 4)], 40, (2, 0), Share(2, 0), 8),
        ([(32, 0), (16, 4)], 40, (None, None), Share(4, 1), 4),
    ],
)
def test_each_job_gets_its_share(
    nodes: Any, tasks: int, asked: tuple[int | None, float | None], share: Share, at_once: int
) -> None:
    there = [{"CPU": cpus} | ({"GPU": gpus} if gpus else {}) for cpus, gpus in nodes]
    found = share_of(there, tasks=tasks, cpus=asked[0], gpus=asked[1], settings=NAMES)
    assert (found, found.times(there)) == (share, at_once)


@pytest.mark.parametrize(
    ("nodes", "asked", "message"),
    [
        ([(16, 0)], (None, 1), "gpus_per_job=1, but this machine has 0"),
        ([(16, 2)], (None, 4), "gpus_per_job=4, but this machine has 2"),
        ([(16, 2), (8, 0)], (17, 0), "cpus_per_job=17, but the largest node has 16"),
        ([(64, 0), (8, 2)], (9, 1), "cpus_per_job=9, but the largest node has 8"),
    ],
)
def test_a_job_for_which_no_node_has_room_is_refused(nodes: Any, asked: Any, message: str) -> None:
    there = [{"CPU": cpus} | ({"GPU": gpus} if gpus else {}) for cpus, gpus in nodes]
    with pytest.raises(UserError, match=message):
        share_of(there, tasks=2, cpus=asked[0], gpus=asked[1], settings=NAMES)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("hydra.launcher.gpus_per_job=1.5", "a job gets 0, 1, 2, … GPUs, or a part of one such as 0.5"),
        ("hydra.launcher.gpus_per_job=-1", "gpus_per_job=-1 is not possible"),
        ("hydra.launcher.cpus_per_job=0", "cpus_per_job=0 is not possible"),
        ("hydra.launcher.cpus_per_job=many", "cpus_per_job=many is not possible"),
        ("hydra.launcher.address=6379", "address=6379 is not possible: give auto, HOST:6379 or null"),
        (
            "hydra.launcher.gpus_per_node=1",
            "gpus_per_node is no setting of the chosen launcher; hydra/launcher=ray has",
        ),
        ("hydra/launcher=local", "use hydra/launcher=ray"),
        ("hydra/launcher=submitit_local", "use hydra/launcher=ray"),
    ],
)
def test_a_wrong_launcher_is_refused_before_ray_starts(run: Any, capfd: Any, asked: str, message: str) -> None:
    if "submitit" in asked:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    assert run("train", "-m", "seed=1,2", *RAY, asked) == 2
    assert message in capfd.readouterr().err
    assert not Path("out").exists()


def test_without_ray_it_is_told_how_to_install_it(run: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    assert run("train", "-m", "seed=1,2", *RAY) == 2
    assert "hydra/launcher=ray needs Ray; install it: pip install -e" in capfd.readouterr().err
    assert run("tune", "space=ia3", "engine=ray") == 2
    assert "engine=ray needs Ray; install it: pip install -e" in capfd.readouterr().err


def test_an_older_multirun_with_the_launcher_that_is_gone_goes_on_with_another(tmp_path: Path) -> None:
    before = ["hydra/launcher=local", "hydra.launcher.gpus_per_node=1"]
    whole = multirun.Multirun(tmp_path, "train", [], before, "f1_macro", [])
    with pytest.raises(UserError, match=r"jobs.json sets hydra/launcher=local.*use hydra/launcher=ray"):
        multirun.kept_hydra_settings(whole, [])
    assert multirun.kept_hydra_settings(whole, ["hydra/launcher=ray"]) == []


def test_what_ray_was_asked_is_kept_for_a_resume(tmp_path: Path) -> None:
    asked = ["hydra/launcher=ray", "hydra.launcher.gpus_per_job=2", "hydra.launcher.address=10.0.0.1:6379"]
    whole = multirun.Multirun(tmp_path, "train", [], asked, "f1_macro", [])
    assert multirun.kept_hydra_settings(whole, ["hydra.launcher.gpus_per_job=1"]) == [asked[0], asked[2]]
    assert multirun.kept_hydra_settings(whole, ["hydra/launcher=basic"]) == []


def test_a_command_that_a_job_starts_is_not_that_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "job.json"
    told.write_text(json.dumps({"command": "train", "arguments": ["-m", "seed=1,2"]}))
    for command, line, is_job in [
        ("train", ["-m", "seed=1,2"], True),
        ("train", ["-m", "seed=1,2", "hydra.job.name=train_ddp_process_1"], True),
        ("predict", ["-m", "seed=1,2"], False),
        ("train", ["seed=1"], False),
    ]:
        monkeypatch.setenv(ray_cluster.JOB, str(told))
        assert (ray_jobs.told_job(command, line) is not None) is is_job
        assert ray_cluster.in_job() is is_job


def test_a_job_of_ray_starts_its_processes_itself_on_one_machine(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_lightning import train

    job = compose.Job({}, [], multirun=True)
    monkeypatch.setenv(ray_cluster.JOB, "job.json")
    train._refuse(settings("trainer=ddp", "trainer.devices=2"), tmp_path, job, goes_on=False)
    with pytest.raises(UserError, match="a job of hydra/launcher=ray is on one machine"):
        train._refuse(settings("trainer=ddp", "trainer.num_nodes=2"), tmp_path, job, goes_on=False)


def test_several_trials_at_a_time_need_ray(run: Any, capfd: Any) -> None:
    assert run("tune", "space=ia3", "study.workers=8") == 2
    assert "study.workers=8 needs engine=ray" in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------------------- on SLURM


def test_a_missing_launcher_and_a_missing_slurm_are_told() -> None:
    from hydra.errors import MissingConfigException

    missing = MissingConfigException("", missing_cfg_file="hydra/launcher/submitit_slurm", options=["basic"])
    raised = messages.as_user_error("train", missing, [])
    assert raised is not None and "pip install -e" in str(raised) and "[slurm]" in str(raised)
    raised = messages.as_user_error(
        "train", RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?'), []
    )
    assert raised is not None and "hydra/launcher=ray" in str(raised)


def test_without_slurm_nothing_is_begun(run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("train", "-m", "hydra/launcher=slurm", "seed=1,2", "hydra.sweep.dir=out") == 2
    assert "not on this machine" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_jobs_of_slurm_go_on_after_their_time() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose as composed
    from hydra import initialize_config_dir

    from emotion_lightning.config import schema

    schema.register()
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        asked = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=60"]
        found = composed("train", asked, return_hydra_config=True).hydra.launcher
    assert found.gpus_per_node == 1 and found.timeout_min == 60
    assert found.max_num_timeout > 0 and found.signal_delay_s >= 60


def test_only_the_first_process_of_a_job_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm.is_first_process() and slurm.processes() == 1
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert not slurm.is_first_process() and slurm.processes() == 2


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


# ------------------------------------------------------------------------------------------------- on a cluster of Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Ray with two nodes, of two cores and of one."""
    pytest.importorskip("ray")
    with two_nodes(2, 1) as found:
        yield found.address


class Jobs:
    """Jobs of a multirun, by stand-ins that do as they are told."""

    def __init__(self, folder: Path, does: list[str]) -> None:
        self.folder = folder
        self.record = multirun.Multirun(
            folder, "train", [], [], "f1_macro",
            [multirun.Job(n, str(n), {"does": one}, {}, "global") for n, one in enumerate(does)],
        )  # fmt: skip
        environment = {**ray_cluster.own_environment(), "PYTHONPATH": importable()}
        environment.pop("OMP_NUM_THREADS", None)
        self.calls = {
            n: Call(["stand_in_job", str(folder / str(n)), one], str(folder), str(ray_jobs.output_of(folder, n)),
                    environment, Share(1, 0))
            for n, one in enumerate(does)
        }  # fmt: skip

    def run(self, address: str) -> dict[str, str]:
        """Run them, and give their states."""
        work = jobs.Work("train", lambda settings, folder: None, [], self.record, [])
        with jobs.stop_on_signals(), ray_cluster.joined(address, setting="hydra.launcher.address"):
            ray_jobs.run_calls(work, self.folder, self.calls)
        multirun.write_table(self.record)
        return states(self.folder)


def when(what: Callable[[], Any], then: Callable[[], Any]) -> None:
    """Do something in a thread as soon as something is so."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE
        while not what() and time.monotonic() < deadline:
            time.sleep(0.02)
        then()

    threading.Thread(target=wait, daemon=True).start()


def by(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.slow
def test_a_job_that_fails_or_is_killed_says_so_and_the_others_go_on(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # of the multirun, which is no matter of its jobs
    told = Jobs(tmp_path, ["end", "kill", "fail", "end", "end"])
    told.calls[4] = Call(told.calls[4].line, "/nowhere", *list(vars(told.calls[4]).values())[2:])
    assert "SLURM_JOB_ID" not in told.calls[0].environment
    assert told.run(cluster) == {"0": "finished", "1": "failed", "2": "failed", "3": "finished", "4": "failed"}
    reasons = [told.record.reason(job) for job in told.record.jobs]
    assert reasons[1].startswith("killed by SIGKILL, as the system does where memory ends; what it printed is in")
    assert reasons[2] == "The library fell over."
    assert "has no folder /nowhere; all nodes must share it" in reasons[4]
    _, *share = (tmp_path / "0" / "began").read_text().split(" ")
    assert share == ["1", ""]  # threads, GPUs


@pytest.mark.slow
def test_a_signal_reaches_the_jobs_at_work_and_the_others_never_begin(cluster: str, tmp_path: Path) -> None:
    told = Jobs(tmp_path, ["wait"] * 5)
    when(lambda: len(list(tmp_path.glob("*/began"))) == 3, by(signal.SIGINT))  # side by side, on both nodes
    with pytest.raises(Stopped) as stopped:
        told.run(cluster)
    assert stopped.value.code == 130
    assert len(list(tmp_path.glob("*/stopped"))) == 3
    assert sorted(told.record.state(job) for job in told.record.jobs) == ["not started"] * 2 + ["stopped"] * 3


@pytest.mark.slow
def test_a_second_signal_ends_jobs_that_do_not_stop(cluster: str, tmp_path: Path) -> None:
    import psutil

    told = Jobs(tmp_path, ["deaf"])
    when((tmp_path / "0" / "began").exists, by(signal.SIGTERM))
    when((tmp_path / "0" / "stopped").exists, by(signal.SIGTERM))
    with pytest.raises(Stopped) as stopped:
        told.run(cluster)
    assert stopped.value.code == 143
    number = int((tmp_path / "0" / "began").read_text().split(" ")[0])
    deadline = time.monotonic() + PATIENCE
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_stopped_job_has_saved_and_goes_on_with_another_launcher(
    run: Any, cluster: str, tmp_path: Path, capfd: Any
) -> None:
    last = tmp_path / "out" / "0" / "checkpoints" / "last.ckpt"
    when(last.exists, by(signal.SIGTERM))
    asked = [*RAY, f"hydra.launcher.address={cluster}", "hydra.launcher.cpus_per_job=2"]
    asked += ["trainer.max_epochs=6", "trainer.checkpoint_every=1", "callbacks=no_early_stopping"]
    assert run("train", "-m", *SMALL, *asked, "seed=1") == 143
    told = capfd.readouterr().err
    assert "Starting 1 jobs with Ray, up to 1 at a time, each with 2 cores" in told
    assert "Stopped; go on with: python -m emotion_lightning.train -m sweep.resume=out" in told
    assert "Stopped by SIGTERM at step" in (tmp_path / "out" / "0" / "train.log").read_text()
    assert states(tmp_path / "out") == {"0": "stopped"}
    assert run("train", "-m", "sweep.resume=out", "hydra/launcher=basic") == 0
    assert states(tmp_path / "out") == {"0": "finished"}


@pytest.mark.slow
def test_jobs_that_can_never_start_are_refused(run: Any, cluster: str, tmp_path: Path, capfd: Any) -> None:
    for asked, message in [
        (
            [f"hydra.launcher.address={cluster}", "hydra.launcher.cpus_per_job=3"],
            "the largest node has 2; ask for fewer",
        ),
        (
            [f"hydra.launcher.address={cluster}", "hydra.launcher.gpus_per_job=1"],
            "gpus_per_job=1, but the largest node",
        ),
        (["hydra.launcher.address=127.0.0.1:9"], "there is no Ray cluster that can be joined"),
    ]:
        assert run("train", "-m", *SMALL, "seed=1,2", *RAY, *asked) == 2
        assert message in capfd.readouterr().err
        assert not (tmp_path / "out" / "jobs.json").exists()


@pytest.mark.slow
def test_trials_by_ray_are_those_of_one_process_and_several_run_at_a_time(
    run: Any, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials_by_stand_in(monkeypatch)
    asked = ["space=learning_rate", "logger=none", "study.trials=4", "study.startup_trials=2", "study.storage=memory"]
    ray = ["engine=ray", f"ray.address={cluster}"]
    assert run("tune", *asked, "hydra.run.dir=local") == 0
    assert run("tune", *asked, *ray, "hydra.run.dir=one") == 0
    monkeypatch.setenv("STAND_IN_TOGETHER", "3")
    assert run("tune", *asked, *ray, "study.workers=3", "study.pruner=none", "hydra.run.dir=three") == 0
    kept = {}
    for name in ("local", "one", "three"):
        with (tmp_path / name / "trials.csv").open(newline="") as opened:
            kept[name] = [(row["state"], row["optimizer.lr"], row["f1_macro"]) for row in csv.DictReader(opened)]
    assert kept["one"] == kept["local"]
    assert [state for state, *_ in kept["three"]] == ["complete"] * 4


@pytest.mark.slow
def test_a_signal_stops_all_trials_and_their_values_are_tried_again(
    run: Any, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials_by_stand_in(monkeypatch)
    asked = ["space=learning_rate", "logger=none", "study.trials=3", "study.pruner=none", "hydra.run.dir=out"]
    asked += ["engine=ray", f"ray.address={cluster}", "study.workers=3"]
    monkeypatch.setenv("STAND_IN_PAUSE", "600")
    when(lambda: len(list(tmp_path.glob("out/trials/*/output.txt"))) == 3, by(signal.SIGTERM))
    assert run("tune", *asked) == 143
    monkeypatch.setenv("STAND_IN_PAUSE", "0")
    assert run("tune", *asked) == 0
    with (tmp_path / "out" / "trials.csv").open(newline="") as opened:
        rows = [(row["state"], row["optimizer.lr"]) for row in csv.DictReader(opened)]
    assert [state for state, _ in rows] == ["stopped"] * 3 + ["complete"] * 3
    assert {rate for _, rate in rows[:3]} == {rate for _, rate in rows[3:]}


@pytest.mark.exhaustive
def test_jobs_of_two_processes_each(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-m", "emotion_lightning.train", "-m", *SMALL, "trainer=ddp", "trainer.accelerator=cpu",
         "trainer.max_epochs=1", "seed=1,2", *RAY, "hydra.launcher.cpus_per_job=2"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert states(tmp_path / "out") == {"0": "finished", "1": "finished"}
    assert "Best: job" in done.stdout
    for job in "01":
        (start,) = json.loads((tmp_path / "out" / job / "environment.json").read_text())["starts"]
        assert start["variables"]["WORLD_SIZE"] == "2"
        rows = (tmp_path / "out" / job / "predictions" / "validation.csv").read_text().splitlines()
        assert len(rows) == 97  # each row once
