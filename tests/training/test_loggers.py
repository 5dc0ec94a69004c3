"""Loggers: what they keep, that they close, that they hold no secret."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import SMALL, run_in_process
from helpers import wandb_server
from helpers.servers import PATIENCE, answers, free_port

from emotion_lightning.config import schema
from emotion_lightning.errors import UserError
from emotion_lightning.runs import run_folder
from emotion_lightning.training import loggers
from emotion_lightning.training.loggers import base, wandb_logger

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


@pytest.mark.slow
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
                 "options.peft", "test/f1_macro", "test/f1/joy", "test/per_label/jaccard", "cost/train_seconds",
                 "precision_recall"):  # fmt: skip
        assert name.encode() in held, name
    (table,) = (tmp_path / "out" / "wandb").rglob("labels_*.table.json")
    assert json.loads(table.read_text())["columns"] == ["emotion", "support", "precision", "recall", "f1", "threshold"]
    (table,) = (tmp_path / "out" / "wandb").rglob("confusion_*.table.json")
    counts = [row[1:] for row in json.loads(table.read_text())["data"]]
    assert [sum(row) for row in counts] == [96] * len(counts)
    assert list((tmp_path / "out" / "wandb").rglob("mistakes_*")) == [] and b"model-" not in held
    pictures = (tmp_path / "out" / "wandb").rglob("media/images/pictures/*.png")
    assert {file.name.partition("_")[0] for file in pictures} >= {"learning", "reliability"}
    (page,) = (tmp_path / "out" / "wandb").rglob("media/html/report_*.html")
    assert "Most wrong" in (tmp_path / "out" / "report.html").read_text()
    assert "Reliability" in page.read_text() and "Most wrong" not in page.read_text()  # texts stay here
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"hf_planted_secret" not in file.read_bytes(), file


def test_wandb_run_closes_as_failed_when_training_fails(run: Any, exit_codes: list[int]) -> None:
    code = run("train", *ASKED, "optimizer.lr=1e39", "optimizer.warmup=0", "trainer.gradient_clip_val=null",
               "hydra.run.dir=out")  # fmt: skip
    assert code == 2
    assert (wandb.run, exit_codes) == (None, [1])


@pytest.mark.slow
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
        wandb_logger.is_offline(settings("logger.mode=online").logger)


def test_settings_are_dotted_so_that_a_swept_group_locks_nothing(settings: Any) -> None:
    flat = base.dotted(schema.plain(settings()))
    assert flat["peft.lr"] == 0.01 and "peft" not in flat


@pytest.fixture(scope="module")
def sends_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An offline run that is to send texts and the adapter too, and one picture for all."""
    from matplotlib.figure import Figure

    folder = tmp_path_factory.mktemp("sends_all") / "out"
    asked = ["trainer=debug", "logger.log_texts=true", "logger.log_model=true", f"hydra.run.dir={folder}"]
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("emotion_lightning.reports.charts.run.run_pictures", lambda facts: {"one": Figure()})
        assert run_in_process("train", *ASKED, *asked, pictures=True) == 0
    return folder


def test_texts_and_the_adapter_are_sent_where_the_settings_say_so(sends_all: Path) -> None:
    (table,) = (sends_all / "wandb").rglob("mistakes_*.table.json")
    rows = json.loads(table.read_text())["data"]
    texts = (sends_all / "report.html").read_text()
    assert len(rows) == 30 and "Most wrong" in texts
    (page,) = (sends_all / "wandb").rglob("media/html/report_*.html")
    assert page.read_text() == texts
    held = offline_run(sends_all)
    assert b"adapter_model.safetensors" in held and b"base/" not in held


def test_an_offline_run_is_sent_later_whole(sends_all: Path) -> None:
    (kept,) = (sends_all / "wandb").glob("offline-run-*")
    run_id = (sends_all / "wandb" / "id.txt").read_text()
    with wandb_server.Server({}) as server:
        done = subprocess.run(
            [Path(sys.executable).with_name("wandb"), "sync", kept], env={**os.environ, **server.environment()},
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 0 and server.unknown == [], done.stderr
    sent = server.runs.pop(run_id)
    assert server.runs == {} and sent.exit_code == 0
    metrics = json.loads((sends_all / "metrics.json").read_text())
    (epoch,) = run_folder.read_history(sends_all / run_folder.HISTORY)
    assert sent.logged("val/f1_macro") == pytest.approx([epoch["val/f1_macro"]])
    assert sent.summary["test/f1_macro"] == metrics["test"]["global"]["f1_macro"]
    assert sent.config["options.peft"] == "ia3" and sent.config["optimizer.weight_decay"] == 0.01
    media = {str(file.relative_to(kept / "files")): file for file in kept.glob("files/media/**/*") if file.is_file()}
    assert {Path(name).parts[1] for name in media} == {"html", "images", "table"}
    assert {name: sent.files[name] for name in media} == {name: file.read_bytes() for name, file in media.items()}
    model = server.artifacts[f"model-{run_id}"]
    assert model.committed and {artifact.committed for artifact in server.artifacts.values()} == {True}
    assert model.files.pop("manifest")
    assert model.files == {file.name: file.read_bytes() for file in (sends_all / run_folder.MODEL).iterdir()}


SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_plantedplantedplanted",
    "AWS_SECRET_ACCESS_KEY": "aws/planted+secret/0123456789",
}


@pytest.mark.parametrize("option", ["wandb", "tensorboard", "mlflow"])
@pytest.mark.slow
def test_no_file_of_a_run_holds_a_secret(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    said = "see https://me:hunter22@host/x"
    planted = {
        "wandb": ["logger.mode=offline", "logger.group=${oc.env:HF_TOKEN}", f"logger.notes={said}",
                  "logger.job_type=${oc.env:AWS_SECRET_ACCESS_KEY}"],
        "mlflow": ["logger.name=${oc.env:HF_TOKEN}", f"logger.group={said} ${{oc.env:AWS_SECRET_ACCESS_KEY}}"],
        "tensorboard": [],
    }[option]  # fmt: skip
    assert run("train", *ASKED, f"logger={option}", "trainer=debug", "hydra.run.dir=out", *planted) == 0
    hidden = [value.encode() for value in SECRETS.values()] + [b"hunter22"]
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 10
    if option == "wandb":
        assert any(file.name == "debug.log" for file in written)
    found = [(str(file), secret) for file in written for secret in hidden if secret in file.read_bytes()]
    assert found == []


# ---------------------------------------------------------------------------------------------- TensorBoard and MLflow


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert {tag.rpartition("/")[2] for tag in events.Tags()["images"]} >= {"reliability", "precision_recall"}
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def stopped_and_resumed(run: Any, monkeypatch: pytest.MonkeyPatch, *asked: str) -> None:
    """A run of two epochs that is killed in the second, and goes on."""
    from helpers.stops import in_step, stopped

    stopped(run, "out", in_step(5), monkeypatch, *ASKED, "trainer.max_epochs=2", "trainer.checkpoint_every=1", *asked)
    assert run("train", "resume=out", pictures=True) == 0


@pytest.mark.slow
def test_tensorboard_has_every_step_once_also_after_a_resume(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_and_resumed(run, monkeypatch, "logger=tensorboard")
    kept = scalars(tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rate = next(tag for tag in kept if tag.startswith("lr-AdamW"))
    steps = [step for step, _ in kept[rate]]
    assert steps == sorted(set(steps)) and len(steps) >= 2
    assert len(kept["val/f1_macro"]) == 2
    assert kept["test/f1_macro"][0][1] == pytest.approx(metrics["test"]["global"]["f1_macro"], abs=1e-6)


@pytest.mark.slow
def test_mlflow_keeps_one_run_over_a_resume(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stopped_and_resumed(run, monkeypatch, "logger=mlflow", "logger.log_model=true")
    check_mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "out")


def check_mlflow(uri: str, folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("emotion_lightning")
    (kept,) = client.search_runs([experiment.experiment_id])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert kept.info.status == "FINISHED"
    assert kept.data.metrics["test/f1_macro"] == pytest.approx(metrics["test"]["global"]["f1_macro"])
    assert kept.data.params["optimizer.weight_decay"] == "0.01"
    assert len(client.get_metric_history(kept.info.run_id, "val/f1_macro")) == 2
    files = {file.path for file in client.list_artifacts(kept.info.run_id)}
    assert {"pictures", "report.html", "labels.json", "confusion.json", "model"} <= files
    model = {file.path for file in client.list_artifacts(kept.info.run_id, "model")}
    assert "model/adapter_model.safetensors" in model


@pytest.mark.slow
def test_mlflow_server_of_its_own_keeps_a_run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys
    import urllib.request

    pytest.importorskip("flask_cors")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--artifacts-destination", "kept"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        answers(
            server, lambda: urllib.request.urlopen(f"{uri}/health", timeout=5).close(), unlike=OSError, seconds=PATIENCE
        )
        stopped_and_resumed(run, monkeypatch, "logger=mlflow", "logger.log_model=true", f"logger.tracking_uri={uri}")
        check_mlflow(uri, tmp_path / "out")
    finally:
        import os
        import signal

        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_a_server_that_does_not_answer_is_told_at_once(run: Any, capfd: Any, tmp_path: Path) -> None:
    assert (
        run("train", *ASKED, "logger=mlflow", "logger.tracking_uri=http://me:hunter22@127.0.0.1:9", "hydra.run.dir=o")
        == 2
    )
    said = capfd.readouterr().err
    assert "does not answer" in said and "mlflow server" in said and "hunter22" not in said


@pytest.mark.parametrize("option", ["mlflow", "tensorboard"])
def test_a_missing_package_is_named_with_what_installs_it(
    settings: Any, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"logger={option} needs .*: pip install -e .*\[{option}\]"):
        loggers.check_logger(settings(f"logger={option}").logger)
