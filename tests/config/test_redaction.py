"""Nothing secret is written: what is found in a text, and that every file of every command is without it."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from helpers.stand_in import trials_by_stand_in

from emotion_lightning.config import redaction


def test_sizes_and_numbers_are_no_secrets() -> None:
    given = {
        "architecture": {"share_att_key": True, "token": "x"},
        "class_key": 3,
        "use_auth": False,
        "password": 12345,
    }
    assert redaction.settings(given) == given | {"password": "<redacted>"}
    assert redaction.argument("model.architecture.share_att_key=true") == "model.architecture.share_att_key=true"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://me:pa/ss@host/x.csv", "https://<redacted>@host/x.csv"),
        ("https:/me:hunter22@host/x.csv does not exist", "https:/<redacted>@host/x.csv does not exist"),
        ("postgresql://me:p/a?s#s w@host/db", "postgresql://me:<redacted>@host/db"),
        ("study.storage=mysql://me:my pass@host/db fails", "study.storage=mysql://me:<redacted>@host/db fails"),
        ("http://me:12/34@host", "http://<redacted>@host"),
        ("nodb://me:hunter2@host, redis://tok@host", "nodb://me:<redacted>@host, redis://<redacted>@host"),
        ("see http://tok@host and http://a:b@c", "see http://<redacted>@host and http://<redacted>@c"),
        ("http://h/?password=a&page=2", "http://h/?password=<redacted>&page=2"),
        ("http://h/x.csv?X-Amz-Signature=a%20b&sig=c", "http://h/x.csv?X-Amz-Signature=<redacted>&sig=<redacted>"),
        ("http://h/#access_token=abc", "http://h/#access_token=<redacted>"),
        # Passwords with spaces and @ among words: words that may be a part of one go with it.
        ("postgresql://me:p@ss w@rd@host/db is down", "postgresql://me:<redacted>@host/db is down"),
        ("mysql://me:a@b c@host fails; ask you@there", "mysql://me:<redacted>@there"),
        (
            "'https://me:a@b c@host/x' and \"http://u:p@h\" fail, ask a@b",
            "'https://<redacted>@host/x' and \"http://<redacted>@h\" fail, ask a@b",
        ),
        ("'mysql://me:it's a@b c@host/db': no route, ask a@b", "'mysql://me:<redacted>@host/db': no route, ask a@b"),
        ("mysql://me:<redacted>@host fails; ask you@there", "mysql://me:<redacted>@host fails; ask you@there"),
        # What holds no secret stays as it is.
        ("postgresql+psycopg://user@host/studies", "postgresql+psycopg://user@host/studies"),
        ("http://127.0.0.1:5000 refused a@b.c", "http://127.0.0.1:5000 refused a@b.c"),
        ("https://host: refused (me@x)", "https://host: refused (me@x)"),
        ("sqlite:////a/b@c:d.db", "sqlite:////a/b@c:d.db"),
        ("git+https://github.com/x/y@main", "git+https://github.com/x/y@main"),
        ("hf:me/x@main C:/x/y@z", "hf:me/x@main C:/x/y@z"),
        ("http://[half", "http://[half"),
    ],
)
def test_urls_in_a_text_lose_passwords_tokens_and_signatures(written: str, kept: str) -> None:
    assert redaction.hide_secrets(written) == kept
    assert redaction.hide_secrets(kept) == kept


def test_a_url_as_the_value_of_a_setting_ends_where_the_value_does() -> None:
    assert redaction.tree("postgresql://me:12 34@host/db") == "postgresql://me:<redacted>@host/db"
    assert redaction.argument("a.uri='http://h/?sig=a b&p=1'") == "a.uri='http://h/?sig=<redacted>&p=1'"


def test_values_of_secret_variables_are_hidden_however_they_are_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY_2", "it's a/key")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")
    monkeypatch.setenv("SHORT_TOKEN", "short")
    monkeypatch.setenv("KEY_OF_PATH_KEY", "/usr")
    for spelled in ("it's a/key", "it%27s%20a%2Fkey", "it%27s+a%2Fkey", "it&#x27;s a/key"):
        assert redaction.hide_secrets(f"outputs/{spelled}/x") == "outputs/<redacted>/x"
    for said in ("TOKENIZERS_PARALLELISM=false-or-true", "a short word", "/usr/lib"):
        assert redaction.hide_secrets(said) == said


def test_a_folder_named_as_a_secret_is_no_reason_to_tell_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hunter22hunter").mkdir()
    monkeypatch.setenv("MY_TOKEN", "hunter22hunter")
    assert redaction.hide_secrets("hunter22hunter/x.csv does not exist") == "<redacted>/x.csv does not exist"


def test_records_of_every_logger_are_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter22hunter")
    before = logging.getLogRecordFactory()
    handler = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("a library")
    logger.addHandler(handler)
    try:
        redaction.in_logs()
        redaction.in_logs()
        try:
            raise ValueError("hunter22hunter")
        except ValueError:
            logger.error("%s and %s", "hunter22hunter", "http://a:b@c", exc_info=True, stack_info=True)
        logger.error("%d hunter22hunter")
        logger.error("joy\x1b[2J %s", "\u202e")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
        handler.close()
    raised = (tmp_path / "log").read_text()
    assert "<redacted> and http://<redacted>@c" in raised and "ValueError: <redacted>" in raised
    assert "hunter22" not in raised
    # The handler is a library's, without our formatter.
    assert "joy\\x1b[2J \\u202e" in raised and "\x1b" not in raised and "\u202e" not in raised


# ------------------------------------------------------------------------------------------------- what commands write

TUNE = ["space=learning_rate", "study.trials=1", "study.pruner=none"]
IN_ENVIRONMENT, IN_PATH = "environment-s3cret", "in-a-path-s3cret"


def leaks(folder: Path, said: str) -> list[str]:
    """Files that hold a planted secret, by name; texts of data are not looked for, which are the user's own."""
    written = {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and not file.is_symlink()}
    written["the terminal"] = said.encode()
    return [name for name, content in written.items() if b"s3cret" in content]


@pytest.mark.slow
def test_no_byte_that_a_command_writes_holds_a_secret(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    import csv

    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboard")
    data = tmp_path / IN_PATH
    data.mkdir()
    with (data / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "joy", "anger"], *([f"words {i}", i % 2, i % 3 == 0] for i in range(60))])
    monkeypatch.setenv("MY_TOKEN", IN_PATH)
    monkeypatch.setenv("SERVICE_PASSWORD_1", IN_ENVIRONMENT)
    monkeypatch.setenv("WANDB_MODE", "offline")
    urls = [
        "https://me:pa/s3cret@host/x", "https://me:a?s3cret#b c@host/x", "https://s3cret@host/x",
        "https://host/x?sig=s3cret&p=1", "https://host/x?X-Amz-Signature=s3cret", "https:/me:s3cret@host/x",
        "https://host/x#access_token=s3cret", f"words {IN_ENVIRONMENT} words",
    ]  # fmt: skip
    tags = "[" + ",".join(f"'{url}'" for url in urls) + "]"
    small = [
        *(o for o in SMALL if not o.startswith("logger")), "model.architecture.hidden_size=32", "trainer.max_epochs=1",
        "data=file", f"data.path={data / 'rows.csv'}",
    ]  # fmt: skip
    asked = [
        *small, "logger=wandb", f"logger.tags={tags}", f"logger.notes={urls[0]}", f"logger.group={urls[2]}",
        f"logger.job_type={urls[3]}", f"logger.name={IN_ENVIRONMENT}", "logger.log_model=true",
    ]  # fmt: skip
    rows = ["data=file", f"data.path={data / 'rows.csv'}"]
    mlflow = [
        *small, "logger=mlflow", f"logger.experiment={IN_ENVIRONMENT}", f"logger.group={urls[2]}",
        f"logger.name={urls[3]}", "logger.log_model=true",
    ]  # fmt: skip
    assert run("train", *asked, "hydra.run.dir=out", pictures=True) == 0
    assert run("predict", "run=out", f"input={data / 'rows.csv'}", "output=labelled.csv") == 0
    assert run("evaluate", "run=out", *rows, "hydra.run.dir=scores") == 0
    assert run("export", "run=out", "output=portable", "format=adapter") == 0
    assert run("train", *mlflow, "hydra.run.dir=by_mlflow") == 0
    assert run("train", *small, "logger=tensorboard", "hydra.run.dir=by_tensorboard", pictures=True) == 0
    # Runs that fail, and what they leave behind.
    unreachable = "logger.tracking_uri='http://me:a@s3cret b@127.0.0.1:9/?token=s3cret'"
    assert run("train", *mlflow, unreachable, "hydra.run.dir=not_by_mlflow") == 2
    for i, url in enumerate(urls[:2]):  # and the others in the jobs below
        assert run("train", *small, f"data.path={url}", "logger=none", f"hydra.run.dir=failed{i}") == 2
    assert run("predict", "run=out", f"input={urls[0]}", "output=x.csv", "hydra.run.dir=failed") == 2
    swept = f"data.path={','.join(urls)},{IN_PATH}/gone.csv"
    assert run("train", "-m", *small, swept, "logger=none", "hydra.sweep.dir=swept") == 1
    assert run("tune", *small, f"data.path={urls[0]}", *TUNE, "study.max_failures=1", "hydra.run.dir=lost") == 2
    trials_by_stand_in(monkeypatch)
    assert run("tune", *asked, *TUNE, "hydra.run.dir=study") == 0
    raised = "".join(capfd.readouterr())
    assert "does not exist" in raised and "<redacted>" in raised
    shutil.rmtree(data)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    expected = "out/settings.yaml failed0/train.log swept/jobs.json swept/0/error.txt lost/tune.log study/report.html "
    expected += "by_mlflow/mlflow/id.txt mlflow.db not_by_mlflow/train.log"
    assert list((tmp_path / "by_tensorboard" / "tensorboard").glob("events.*"))
    assert set(expected.split()) <= written
    assert leaks(tmp_path, raised) == []
