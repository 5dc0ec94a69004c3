"""Texts come back labelled in their order, however they are put into batches."""

import logging
import warnings
from pathlib import Path

import pytest
import torch

from emotion_lightning import load
from emotion_lightning.errors import UserError

TEXTS = [f"word {'again ' * (i % 13)}number {i}" for i in range(90)]


@pytest.mark.parametrize("batches", [{"batch_size": 7}, {"batch_tokens": 100}, {"batch_tokens": 1}])
def test_batches_of_any_kind_give_the_same_answers(finished: Path, batches: dict[str, int]) -> None:
    run = load(finished, accelerator="cpu")
    # Products of other sizes round differently in bfloat16.
    torch.testing.assert_close(run.probabilities(TEXTS, **batches), run.probabilities(TEXTS), atol=5e-3, rtol=0)


def test_pieces_come_back_one_by_one_in_order(finished: Path) -> None:
    run = load(finished, accelerator="cpu")
    taken: list[int] = []

    def pieces():
        for start in range(0, 90, 30):
            taken.append(start)
            yield TEXTS[start : start + 30]

    answers = run.decide(pieces())
    first, shares = next(answers)
    assert taken == [0, 30]  # the next is prepared, no more: memory stays flat
    torch.testing.assert_close(shares, run.probabilities(TEXTS[:30]))
    assert first.equal(shares > run.metadata.threshold_tensor().float())
    rest = torch.cat([shares for _, shares in answers])
    torch.testing.assert_close(rest, torch.cat([run.probabilities(TEXTS[30:60]), run.probabilities(TEXTS[60:])]))


def test_no_texts_have_no_answers(finished: Path) -> None:
    run = load(finished, accelerator="cpu")
    assert run.predict([]) == []
    assert [shares.shape for _, shares in run.decide([[], ["so happy"]])] == [(0, 11), (1, 11)]


def test_what_fails_beside_is_told(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(finished, accelerator="cpu")

    def broken(texts: list[str]) -> None:
        raise UserError("no tokens")

    monkeypatch.setattr(run, "tokenize", broken)
    with pytest.raises(UserError, match="no tokens"):
        run.predict(["so happy"])


def test_loading_is_silent_and_leaves_the_logging_and_the_warnings_of_the_process_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "httpx", "matplotlib.font_manager")]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        load(accelerator="cpu")
        assert not shown and not capfd.readouterr().err
        assert transformers_logging.is_progress_bar_enabled()
        assert not any(message and "sync_dist" in message.pattern for _, message, *_ in warnings.filters)
    assert [logger.level for logger in loggers] == [logging.DEBUG] * 3
