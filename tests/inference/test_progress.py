"""Prediction from Python shows its progress if it is asked to, and where a bar can be drawn."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from emotion_lightning import load, terminal
from emotion_lightning.inference import ensemble, predictor, progress

TEXTS = ["so happy", "", "rain again"] * 15


@pytest.fixture(scope="module")
def model(finished: Path) -> predictor.Labeller:
    return load(finished, accelerator="cpu")


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "can_show_bar", lambda: True)


def test_a_bar_is_shown_only_if_asked_for(model: Any, on_a_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = model.predict(TEXTS, batch_size=4)
    assert capsys.readouterr() == ("", "")
    assert model.predict(TEXTS, batch_size=4, progress_bar=True) == quiet
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Predicting: 100%" in shown.err and "45/45" in shown.err


def test_a_log_file_gets_no_bar(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(model.predict(TEXTS, progress_bar=True)) == 45
    assert capsys.readouterr() == ("", "")


def test_the_bar_advances_with_each_batch(model: Any) -> None:
    advanced: list[int] = []
    list(model.decide([TEXTS[:30], [], TEXTS[30:]], batch_size=7, done=advanced.append))
    assert advanced == [7, 7, 7, 7, 2, 7, 7, 1]


def test_an_ensemble_counts_each_text_once(finished: Path) -> None:
    single = load(finished, accelerator="cpu")
    three = predictor.Ensemble([single] * 3, ensemble.combined_metadata([str(finished)]))
    advanced: list[int] = []
    list(three.decide([TEXTS, TEXTS[:1]], batch_size=45, done=advanced.append))
    assert advanced == [15, 15, 15, 0, 0, 1]


def test_a_notebook_draws_its_own_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Bar:
        """What is used of a bar of tqdm."""

        def __init__(self, **given: Any) -> None:
            made.append(given)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, texts: int) -> None:
            made.append({"texts": texts})

    stand_in = ModuleType("tqdm.auto")
    stand_in.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm.auto", stand_in)
    monkeypatch.setattr(terminal, "in_notebook", lambda: True)
    for has_widgets in (True, False):
        monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name, has=has_widgets: has or None)
        with progress.counting(3, shown=True) as done:
            done(3)
    assert made == [{"total": 3, "desc": "Predicting", "unit": "text"}, {"texts": 3}]
