"""Everything that `predict` takes answers here as it does there, and says what it is."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litserve")

from helpers.hub_server import OWNER, Hub, log_in

from emotion_lightning import config, load
from emotion_lightning.data.long_texts import LongTexts
from emotion_lightning.data.template import Template
from emotion_lightning.inference import upload
from emotion_lightning.models import model_folder
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.serving import classifier
from emotion_lightning.serving.worker import Asked, TokenBatches, _tokenized

TEXTS = ["We won!", "Rain again, and the boiler is out. Lovely start, that. " * 6, "", "No.", "👍 so happy " * 40]


def check_answers(run: str | None) -> dict[str, Any]:
    """Whether requests that are computed together are answered as by `predict`; what is told about the classifier."""
    found = classifier.load(run, "cpu")
    requests = [TEXTS[:1], TEXTS[1:4], TEXTS[4:], TEXTS[::-1]]
    batch: list[Any] = [
        _tokenized(found.model, str(number), {"texts": texts, "thresholds": None, "explain": False})
        for number, texts in enumerate(requests)
    ]
    assert all(isinstance(one, Asked) for one in batch)
    answers = dict(TokenBatches(wait=0, budget=512, timeout=60).answers(found.model, batch))
    given = [one for number in range(len(requests)) for one in answers[str(number)]["predictions"]]
    expected = load(run, accelerator="cpu").predict([text for texts in requests for text in texts])
    for one, wanted in zip(given, expected, strict=True):
        assert one["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
        assert one["labels"] == wanted.labels
    return found.facts


def test_the_bundled_classifier() -> None:
    facts = check_answers(None)
    assert facts["model"] == "bundled classifier" and facts["card"].startswith("#")


def test_a_graph_explains_nothing(graph: Path) -> None:
    facts = check_answers(str(graph))
    assert facts["model"] == "graph" and not facts["explains"] and "onnxruntime" in facts["card"]


def test_an_ensemble_of_a_run_and_a_graph(finished: Path, graph: Path) -> None:
    facts = check_answers(f"[{finished},{graph}]")
    assert facts["model"] == "finished + graph" and not facts["explains"]


def test_a_model_of_the_hub(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as hub:
        log_in(hub, tmp_path, monkeypatch)
        upload.upload(finished, f"{OWNER}/emotions")
        facts = check_answers(f"hf:{OWNER}/emotions")
        assert facts["model"] == f"hf:{OWNER}/emotions"
        both = check_answers(f"[{finished},hf:{OWNER}/emotions]")
        assert both["model"] == f"finished + hf:{OWNER}/emotions" and both["labels"] == facts["labels"]


def test_a_baseline(run: Callable[..., int], finished: Path) -> None:
    assert run("baseline", "data.max_rows=96", "hydra.run.dir=baseline") == 0
    assert check_answers("baseline")["max_tokens"] is None
    assert check_answers(f"[baseline,{finished}]")["labels"]


@pytest.mark.parametrize("way", ["windows", "middle"])
def test_a_run_that_reads_more_than_the_start_of_long_texts(finished: Path, tmp_path: Path, way: str) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    metadata = read_metadata(folder / "model")
    ids = model_folder.load_tokenizer(folder / "model")("a")["input_ids"]
    changed = dataclasses.replace(
        metadata,
        max_tokens=16,
        template=Template(text="{text}", before=ids[:1], space="", after=[]),
        long_texts=LongTexts(config.LongTexts(way), overlap=3, most=4, join=config.JoinWindows.maximum),
    )
    (folder / "model" / METADATA).write_text(json.dumps(changed.plain()))
    check_answers(str(folder))
    if way == "windows":
        long = _tokenized(load(folder, accelerator="cpu"), "0", {"texts": TEXTS, "thresholds": None, "explain": False})
        assert long.tokens_count == len(long.tokens[0].ids) > 4 * 16  # those of every piece
