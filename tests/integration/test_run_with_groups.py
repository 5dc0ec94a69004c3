"""Official datasets of several languages through all commands, with scores of each language."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, run_in_process
from helpers import official

from emotion_lightning import config
from emotion_lightning.cli.compose import settings_of


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with track A in three languages, and a run that learned two of them and was tested on three."""
    work = tmp_path_factory.mktemp("groups")
    official.brighter(work / "BRIGHTER", ["deu", "rus", "swe"], rows=80)
    arguments = [
        "data=brighter", f"data.dir={work / 'BRIGHTER'}", "data.languages=[deu,rus]",
        "data.test_languages=[deu,rus,swe]", "data.max_tokens=32", "trainer.max_epochs=1",
        f"hydra.run.dir={work / 'run'}",
    ]  # fmt: skip
    assert run_in_process("train", *SMALL, *arguments) == 0
    return work


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_training_tells_scores_of_each_language(work: Path) -> None:
    content = metrics(work / "run")
    rows = {
        split: {name: one["rows"] for name, one in content[split]["groups"]["columns"]["language"]["values"].items()}
        for split in ("validation", "test")
    }
    assert rows == {"validation": {"deu": 40, "rus": 40}, "test": {"deu": 32, "rus": 32, "swe": 32}}
    assert content["test"]["groups"]["protocol"] == "global"
    gap = content["test"]["groups"]["columns"]["language"]["gaps"]["f1_macro"]
    assert gap["value"] == pytest.approx(
        max(values := [one["f1_macro"]["value"] for one in by_language(content).values()]) - min(values)
    )
    report = (work / "run" / "report.html").read_text()
    assert "Scores by language" in report and "largest gap in macro F1" in report
    data = json.loads((work / "run" / "data.json").read_text())
    assert data["groups"] == ["language"] and "Not in train, but in test, by language: swe." in data["notes"]
    stored = json.loads((work / "run" / "model" / "emotion_lightning.json").read_text())
    assert len(stored["data_hashes"]) == 7


def by_language(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["test"]["groups"]["columns"]["language"]["values"]
    return found


def test_evaluation_repeats_them_and_takes_other_data(work: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    assert run_in_process("evaluate", "run=run", "hydra.run.dir=again") == 0
    assert metrics(work / "again")["test"]["groups"] == metrics(work / "run")["test"]["groups"]
    assert "By language, the largest gap in macro F1 is" in " ".join(capfd.readouterr().out.split())
    # A file of the user's own, with other columns.
    lines = official.brighter_lines("swe", "test", 70)
    rows = [f"{line},{'genre' if not i else ['news', 'chat', ''][i % 3]}" for i, line in enumerate(lines)]
    official.write(work / "own.csv", rows)
    asked = ["data=file", "data.path=own.csv", "data.groups=[genre]", "hydra.run.dir=own"]
    assert run_in_process("evaluate", "run=run", *asked) == 0
    found = metrics(work / "own")["test"]["groups"]["columns"]
    assert {name: one["rows"] for name, one in found["genre"]["values"].items()} == {
        "(empty)": 23, "chat": 24, "news": 23,
    }  # fmt: skip
    assert found["genre"]["gaps"] == {}
    assert "Scores by genre" in (work / "own" / "report.html").read_text()


def test_columns_for_groups_may_be_named_for_the_evaluation_alone(
    work: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    assert run_in_process("evaluate", "run=run", "data.groups=[dialect]", "hydra.run.dir=none") == 2
    assert "data.groups names dialect; the columns of BRIGHTER for groups are language." in capfd.readouterr().err


def test_a_run_without_columns_refuses_them(finished: Path, run: Any, capfd: Any) -> None:
    assert run("evaluate", f"run={finished}", "data.groups=[language]", "hydra.run.dir=none") == 2
    assert "data.groups=[language]: the data of the run has no columns for groups." in capfd.readouterr().err
    assert "groups" not in json.loads((finished / "metrics.json").read_text())["test"]


def test_prediction_needs_no_column_of_the_language(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    official.write(work / "new.csv", ["id,text", "a,någonting nytt", "b,something new"])
    assert run_in_process("predict", "run=run", "input=new.csv", "output=out.csv") == 0
    with (work / "out.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["id"] for row in rows] == ["a", "b"] and set(official.EMOTIONS) < set(rows[0])


def test_inspection_tells_of_each_language(work: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    official.xed(work / "XED", repeat=6, projected=["de"])
    asked = ["data=xed", "data.dir=XED", "data.languages=null", "data.groups=[language,source]", "tables=true"]
    assert run_in_process("inspect", *asked, "hydra.run.dir=card") == 0
    shown = capfd.readouterr().out
    assert "scored by: language, source" in shown and "Groups by language" in shown and "Labels by source" in shown
    card = json.loads((work / "card" / "data_card.json").read_text())
    rows = {
        name: sum(split["groups"]["language"].get(name, {"rows": 0})["rows"] for split in card["splits"].values())
        for name in ("en", "fi", "de")
    }
    assert rows == {"en": 66, "fi": 66, "de": 48}
    joy = sum(split["groups"]["source"]["annotated"]["labels"]["joy"] for split in card["splits"].values())
    assert joy == 6 * 2 * 2
    assert "Groups by language" in (work / "card" / "data_card.md").read_text()


def test_a_run_on_xed_is_scored_again_on_the_same_splits_and_repeated(
    work: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    official.xed(work / "films", repeat=8, projected=["de"])
    asked = ["data=xed", "data.dir=films", "data.languages=[en,de]", "data.split_seed=3", "data.neutral=label"]
    assert run_in_process("train", *SMALL, *asked, "trainer.max_epochs=1", "hydra.run.dir=xed") == 0
    assert run_in_process("evaluate", "run=xed", "data.groups=[source]", "hydra.run.dir=scored") == 0
    first, again = metrics(work / "xed")["test"], metrics(work / "scored")["test"]
    assert first["rows"] == again["rows"] and first["global"] == again["global"]
    assert set(again["groups"]["columns"]["source"]["values"]) <= {"annotated", "neutral", "projected"}
    stored = settings_of("train", ["from_run=xed", "data.languages=[de]"]).data
    assert isinstance(stored, config.XED)
    assert (stored.languages, stored.neutral, stored.split_seed) == (["de"], config.Neutral.label, 3)


def test_a_baseline_tells_scores_of_each_language(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    asked = ["data=brighter", "data.dir=BRIGHTER", "data.languages=[deu,swe]", "hydra.run.dir=baseline"]
    assert run_in_process("baseline", *asked) == 0
    assert set(by_language(metrics(work / "baseline"))) == {"deu", "swe"}
