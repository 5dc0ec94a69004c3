"""Nothing secret is written: what is found in a text, and that every file of every command is without it."""

import logging
from typing import Any

import pytest

from emotion_lightning import redaction


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://me:pa/ss@host/x.csv", "https://<redacted>@host/x.csv"),
        ("https:/me:hunter22@host/x.csv does not exist", "https:/<redacted>@host/x.csv does not exist"),
        ("postgresql://me:p/a?s#s w@host/db", "postgresql://me:<redacted>@host/db"),
        ("study.storage=mysql://me:my pass@host/db fails", "study.storage=mysql://me:<redacted>@host/db fails"),
        ("http://me:12/34@host", "http://<redacted>@host"),
        ("see http://tok@host and http://a:b@c", "see http://<redacted>@host and http://<redacted>@c"),
        ("http://h/?password=a&page=2", "http://h/?password=<redacted>&page=2"),
        ("http://h/x.csv?X-Amz-Signature=a%20b&sig=c", "http://h/x.csv?X-Amz-Signature=<redacted>&sig=<redacted>"),
        ("http://h/#access_token=abc", "http://h/#access_token=<redacted>"),
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
    assert redaction.text(written) == kept
    assert redaction.text(kept) == kept


def test_a_url_as_the_value_of_a_setting_ends_where_the_value_does() -> None:
    assert redaction.tree("postgresql://me:12 34@host/db") == "postgresql://me:<redacted>@host/db"
    assert redaction.argument("a.uri='http://h/?sig=a b&p=1'") == "a.uri='http://h/?sig=<redacted>&p=1'"


def test_values_of_secret_variables_are_hidden_however_they_are_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY_2", "it's a/key")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")
    monkeypatch.setenv("SHORT_TOKEN", "short")
    monkeypatch.setenv("KEY_OF_PATH_KEY", "/usr")
    for spelled in ("it's a/key", "it%27s%20a%2Fkey", "it%27s+a%2Fkey", "it&#x27;s a/key"):
        assert redaction.text(f"outputs/{spelled}/x") == "outputs/<redacted>/x"
    for said in ("TOKENIZERS_PARALLELISM=false-or-true", "a short word", "/usr/lib"):
        assert redaction.text(said) == said


def test_a_folder_named_as_a_secret_is_no_reason_to_tell_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hunter22hunter").mkdir()
    monkeypatch.setenv("MY_TOKEN", "hunter22hunter")
    assert redaction.text("hunter22hunter/x.csv does not exist") == "<redacted>/x.csv does not exist"


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
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
        handler.close()
    told = (tmp_path / "log").read_text()
    assert "<redacted> and http://<redacted>@c" in told and "ValueError: <redacted>" in told
    assert "hunter22" not in told
