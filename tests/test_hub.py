"""Models that go to the Hugging Face hub and come back, against a stand-in for it."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, run_in_process
from hub_server import OWNER, READING, TOKEN, Hub, Repository

from emotion_lightning import hub, hub_card, run_folder
from emotion_lightning.errors import UserError

NAME = f"{OWNER}/emotions"
TEXTS = ["We won!", "Rain again, and I am so tired of it.", "I never thought they would come."]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub at which this process is logged in, with an empty cache of its own."""
    with Hub() as found:
        log_in(found, tmp_path, monkeypatch)
        yield found


def log_in(server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
    from huggingface_hub import constants

    # What the client reads from the environment when it is loaded, which in this process was long ago.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


@pytest.fixture
def pushed(server: Hub, finished: Path) -> Hub:
    """A hub that holds the finished run."""
    hub.upload(finished, NAME)
    return server


def probabilities(run: Any, *arguments: str) -> list[list[float]]:
    """What predict writes for the texts."""
    Path("texts.txt").write_text("\n".join(TEXTS))
    assert run("predict", *arguments, "input=texts.txt", "output=answers.csv") == 0
    with open("answers.csv", newline="") as opened:
        return [[float(cell) for name, cell in row.items() if name.startswith("p_")] for row in csv.DictReader(opened)]


def text_of(repository: Repository) -> dict[str, str]:
    """Every file but the weights."""
    return {path: data.decode() for path, data in repository.files.items() if not path.endswith(".safetensors")}


def front_matter(readme: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(readme.split("---\n")[1])
    return found


# ------------------------------------------------------------------------------------------------------ there and back


def test_a_pushed_run_answers_the_same_from_the_hub(run: Any, server: Hub, finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    own = probabilities(run, f"run={moved}")
    assert hub.upload(moved, NAME) == f"{server.url}/{NAME}"
    shutil.rmtree(moved)
    repository = server.repositories[NAME]
    assert repository.private
    assert {"README.md", "adapter_model.safetensors", "base/model.safetensors"} < repository.files.keys()
    assert probabilities(run, f"run=hf:{NAME}") == own
    assert run("predict", f"run=hf:{NAME}", "text=We won!") == 0


def test_predict_averages_and_evaluate_scores_what_lies_on_the_hub(
    run: Any, pushed: Hub, finished: Path, tmp_path: Path
) -> None:
    assert probabilities(run, f"run=[{finished},hf:{NAME}]") == probabilities(run, f"run={finished}")
    assert run("evaluate", f"run=hf:{NAME}", "data=sample", "data.max_rows=96", "hydra.run.dir=scored") == 0
    scored, own = (
        json.loads((folder / "metrics.json").read_text())["test"] for folder in (tmp_path / "scored", finished)
    )
    assert scored["global"] == own["global"]


def test_a_run_starts_from_the_hub_and_writes_down_the_commit(run: Any, pushed: Hub, tmp_path: Path) -> None:
    arguments = [*SMALL, "trainer=debug", "hydra.run.dir=out"]
    assert run("train", *arguments, f"init_from=hf:{NAME}") == 0
    commit = pushed.repositories[NAME].sha(1)
    assert run_folder.read_settings(tmp_path / "out")["init_from"] == f"hf:{NAME}@{commit}"


def test_a_revision_is_what_it_was(run: Any, pushed: Hub, finished: Path, tmp_path: Path) -> None:
    repository = pushed.repositories[NAME]
    repository.tags["v1"] = 1
    before = probabilities(run, f"run={finished}")
    card = json.loads(repository.files["emotion_lightning.json"])
    card["max_tokens"] = 4
    repository.commits.append({**repository.files, "emotion_lightning.json": json.dumps(card).encode()})
    assert probabilities(run, f"run=hf:{NAME}@v1") == before
    assert probabilities(run, f"run=hf:{NAME}@{repository.sha(1)}") == before
    assert probabilities(run, f"run=hf:{NAME}") != before
    assert probabilities(run, f"run=hf:{NAME}@main") != before


def test_what_is_no_data_is_not_fetched(run: Any, pushed: Hub) -> None:
    repository = pushed.repositories[NAME]
    hostile = {
        "pytorch_model.bin": b"p",
        "training_args.bin": b"p",
        "modeling.py": b"p",
        "x.pt": b"p",
        "base/a.ckpt": b"p",
    }
    repository.commits.append({**repository.files, **hostile})
    folder = Path(hub.fetch(f"hf:{NAME}"))
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} == {".json", ".safetensors"}
    assert not any(path in line for path in hostile for line in pushed.asked)


def test_the_cache_answers_without_the_hub(run: Any, pushed: Hub, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from huggingface_hub import constants

    first = probabilities(run, f"run=hf:{NAME}")
    pushed.broken = True
    assert probabilities(run, f"run=hf:{NAME}") == first
    assert "taken from the cache" in capfd.readouterr().out
    pushed.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert probabilities(run, f"run=hf:{NAME}") == first
    assert pushed.asked == []
    assert run("predict", "run=hf:me/other", "text=We won!") == 2
    assert "HF_HUB_OFFLINE=1 forbids" in capfd.readouterr().err
    blobs = Path(constants.HF_HUB_CACHE, "models--me--emotions")
    next(blobs.rglob("adapter_model.safetensors")).unlink()
    assert run("predict", f"run=hf:{NAME}", "text=We won!") == 2
    assert "or not all of it" in capfd.readouterr().err
