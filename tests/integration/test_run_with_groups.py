"""Official datasets of several languages through all commands, with scores of each language."""

import csv
import json
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import SMALL, run_in_process
from helpers import official
from helpers.tables import read_csv, write_csv

from emotion_lightning import config
from emotion_lightning.cli.compose import settings_of
from emotion_lightning.config import own_parts
from emotion_lightning.errors import UserError
from emotion_lightning.inference import ensemble, exporter
from emotion_lightning.models.metadata import read_metadata
from emotion_lightning.training import finalize


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


# --------------------------------------------------------------------------------------------- thresholds of each group


@pytest.fixture(scope="module")
def by_group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file in two languages, whose labels differ in how often they occur, and a baseline on it."""
    work = tmp_path_factory.mktemp("by_group")
    drawn = random.Random(2)
    words = {"joy": "glad", "fear": "afraid"}
    rows: list[list[Any]] = [["id", "text", "language", *words]]
    for number in range(400):
        language = ("deu", "swe", "rare", "")[0 if number % 2 else 1 if number % 20 else 2 if number % 40 else 3]
        has = {label: drawn.random() < (0.6 if language == "deu" else 0.15) for label in words}
        said = [word for label, word in words.items() if drawn.random() < (0.8 if has[label] else 0.2)]
        rows.append(
            [number, f"text {number} {language} {' '.join(said)}", language, *[int(has[name]) for name in words]]
        )
    data = write_csv(work / "texts.csv", rows)
    asked = ["data=file", f"data.path={data}", "data.groups=[language]", "thresholds.by=language"]
    asked += ["data.validation_share=0.4"]
    assert run_in_process("baseline", *asked, f"hydra.run.dir={work / 'run'}") == 0
    return work


def card_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model" / "emotion_lightning.json").read_text())
    return found


def test_thresholds_of_each_language_are_stored_and_told(by_group: Path) -> None:
    content, stored = metrics(by_group / "run")["test"], card_of(by_group / "run")
    assert content["thresholds_by"] == stored["thresholds_by"]
    assert stored["thresholds_by"]["column"] == "language" and set(stored["thresholds_by"]["values"]) == {"deu", "swe"}
    assert stored["fitting"]["by"] == "language"
    told = (by_group / "run" / "baseline.log").read_text()
    assert "Thresholds by language are fitted for deu, swe; with too few rows or labels in validation: (empty)" in told


def test_evaluate_decides_as_the_run_did_whatever_columns_it_is_given(by_group: Path) -> None:
    for asked in ([], ["data.groups=[language]"]):
        folder = by_group / f"again_{len(asked)}"
        assert run_in_process("evaluate", f"run={by_group / 'run'}", *asked, f"hydra.run.dir={folder}") == 0
        first, again = metrics(by_group / "run")["test"], metrics(folder)["test"]
        assert again["global"] == first["global"] and again["thresholds_by"] == first["thresholds_by"]
        written = [(place / "predictions" / "test.csv").read_text() for place in (by_group / "run", folder)]
        assert written[0] == written[1]
        assert "Thresholds by language" in (folder / "report.html").read_text()


def test_other_data_without_the_column_is_decided_by_the_overall_thresholds(by_group: Path) -> None:
    data = write_csv(by_group / "other.csv", [["text", "joy", "fear"], ["glad", 1, 0], ["afraid", 0, 1]])
    asked = [f"run={by_group / 'run'}", "data=file", f"data.path={data}", f"hydra.run.dir={by_group / 'other'}"]
    assert run_in_process("evaluate", *asked) == 0
    assert (
        "There is no column language, by which the run has thresholds"
        in (by_group / "other" / "evaluate.log").read_text()
    )
    assert "thresholds_by" not in metrics(by_group / "other")["test"]


def test_labels_that_are_united_are_decided_by_the_thresholds_of_their_members(by_group: Path) -> None:
    folder = by_group / "united"
    asked = [f"run={by_group / 'run'}", "data.merge={any: [joy, fear]}", f"hydra.run.dir={folder}"]
    assert run_in_process("evaluate", *asked) == 0
    plain = read_csv(by_group / "run" / "predictions" / "test.csv")
    united = read_csv(folder / "predictions" / "test.csv")
    assert [row["any"] for row in united] == [str(max(int(row["joy"]), int(row["fear"]))) for row in plain]


def test_compare_decides_as_the_run_did(by_group: Path) -> None:
    folder = by_group / "compared"
    asked = [f"runs=[{by_group / 'run'}]", "samples=100", f"hydra.run.dir={folder}"]
    assert run_in_process("compare", *asked) == 0
    (group,) = json.loads((folder / "compare.json").read_text())["groups"]
    assert group["metrics"]["f1_macro"]["mean"] == pytest.approx(
        metrics(by_group / "run")["test"]["global"]["f1_macro"]
    )


def decided_by(
    row: dict[str, Any], values: dict[str, Any], overall: dict[str, float], language: str | None
) -> list[int]:
    cuts = values[language]["global"] if language in values else overall
    return [int(float(row[f"p_{name}"]) > cuts[name]) for name in ("joy", "fear")]


@pytest.mark.parametrize("runs", [1, 2])
def test_predict_uses_the_thresholds_of_the_column_and_says_where_it_has_none(
    by_group: Path, runs: int, capfd: Any
) -> None:
    languages = ["deu", "swe", "fra", "", " swe "]
    texts = write_csv(
        by_group / "new.csv", [["text", "language"], *[["glad and afraid", language] for language in languages] * 3]
    )
    run = str(by_group / "run") if runs == 1 else f"[{by_group / 'run'},{by_group / 'run'}]"
    out = by_group / "out.csv"
    assert run_in_process("predict", f"run={run}", f"input={texts}", f"output={out}", "data.batch_size=1") == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "no thresholds of their own for language (empty), fra: the overall ones decide, for 6 of 15 rows." in said
    assert said.count("the overall ones decide") == 1
    card = card_of(by_group / "run")
    values, overall = card["thresholds_by"]["values"], card["thresholds"]["global"]
    for row, language in zip(read_csv(out), languages * 3, strict=True):
        assert [int(row[name]) for name in ("joy", "fear")] == decided_by(row, values, overall, language.strip())
    found = {(row["joy"], row["fear"]) for row in read_csv(out)}
    assert len(found) > 1  # the same text is decided in two ways
    # Without the column, and for one text, the overall thresholds decide.
    bare = write_csv(by_group / "bare.csv", [["text"], ["glad and afraid"]])
    assert run_in_process("predict", f"run={run}", f"input={bare}", f"output={out}") == 0
    assert "There is no column language" in capfd.readouterr().err
    (row,) = read_csv(out)
    assert [int(row[name]) for name in ("joy", "fear")] == decided_by(row, values, overall, None)


def test_a_table_in_memory_is_decided_by_its_column(by_group: Path, caplog: Any) -> None:
    import pandas as pd

    from emotion_lightning.inference import predictor

    model = predictor.load(by_group / "run")
    frame = pd.DataFrame({"text": ["glad and afraid"] * 3, "language": ["deu", "swe", None]})
    found = model.predict(frame)
    card = card_of(by_group / "run")
    values, overall = card["thresholds_by"]["values"], card["thresholds"]["global"]
    for (_, row), language in zip(found.iterrows(), ["deu", "swe", None], strict=True):
        assert [int(row[name]) for name in ("joy", "fear")] == decided_by(dict(row), values, overall, language)
    assert "no thresholds of their own for language (empty)" in caplog.text
    whole = model.predict(frame["text"])
    assert whole["joy"].nunique() == 1


def test_damaged_thresholds_of_groups_are_refused(by_group: Path, capfd: Any) -> None:
    shutil.copytree(by_group / "run" / "model", by_group / "damaged")
    card = json.loads((by_group / "damaged" / "emotion_lightning.json").read_text())
    card["thresholds_by"]["values"]["deu"]["global"]["joy"] = 7
    (by_group / "damaged" / "emotion_lightning.json").write_text(json.dumps(card))
    assert run_in_process("predict", f"run={by_group / 'damaged'}", "text=glad") == 2
    assert "the threshold of joy with language=deu is 7, not a number of 0 to 1" in capfd.readouterr().err


def test_training_selects_its_epoch_by_the_thresholds_of_groups(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    asked = [
        "data=brighter", "data.dir=BRIGHTER", "data.languages=[deu,rus]", "data.max_tokens=32",
        "trainer.max_epochs=1", "thresholds=per_label", "thresholds.by=language", "hydra.run.dir=by_language",
    ]  # fmt: skip
    assert run_in_process("train", *SMALL, *asked) == 0
    content = metrics(work / "by_language")
    assert set(content["validation"]["thresholds_by"]["values"]) == {"deu", "rus"}
    last = read_csv(work / "by_language" / "history.csv")[-1]
    assert float(last["val/f1_macro"]) == pytest.approx(content["validation"]["per_label"]["f1_macro"], abs=1e-5)
    assert (
        'in card["thresholds_by"]["values"]; these are for all others'
        in (work / "by_language/model/README.md").read_text()
    )
    summary = finalize._summary(content, "per_label")
    assert not any("thresholds_by" in name for name in summary)


@pytest.mark.parametrize(
    ("command", "asked", "message"),
    [
        ("train", ["thresholds.by=language"], "goes by a column of data.groups, and this data has none"),
        (
            "train",
            ["data=file", "data.path=a.csv", "thresholds.by=language"],
            "data.groups. Add it with data.groups=[language].",
        ),
        (
            "baseline",
            ["data=file", "data.path=a.csv", "data.groups=[languages]", "thresholds.by=language"],
            "did you mean languages? Add it with data.groups=[languages,language].",
        ),
        ("train", ["data=brighter", "data.dir=x", "thresholds.by=source"], "data.groups=[language,source]"),
        (
            "tune",
            ["space=ia3", "data=brighter", "data.dir=x", "thresholds=fixed", "thresholds.by=language"],
            "thresholds=fixed fits none",
        ),
    ],
)
def test_columns_that_thresholds_cannot_go_by_are_refused(
    settings: Any, command: str, asked: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        settings(*asked, command=command)


def test_an_average_with_a_run_without_such_thresholds_has_the_overall_ones(by_group: Path, caplog: Any) -> None:
    shutil.copytree(by_group / "run", by_group / "plain")
    card = card_of(by_group / "plain")
    del card["thresholds_by"], card["fitting"]["by"]  # as an earlier version wrote it
    (by_group / "plain" / "model" / "emotion_lightning.json").write_text(json.dumps(card))
    both = ensemble.combined_metadata([str(by_group / "run"), str(by_group / "plain")])
    assert both.group_thresholds() is None
    assert "The thresholds of groups cannot be fitted for the average" in caplog.text
    assert read_metadata(by_group / "plain" / "model").threshold_settings().by is None


def test_a_format_of_ones_own_cannot_carry_them(by_group: Path, tmp_path: Path) -> None:
    class Format(own_parts.OwnPart, config.Format):
        origin = own_parts.Origin("format", "mine", "parts:save", None, "here")

    settings: Any = SimpleNamespace(format=Format("parts:save"))
    source = by_group / "run" / "model"
    with pytest.raises(UserError, match=re.escape("format=mine gets one threshold for each label, and this run has")):
        exporter.export_own_format(tmp_path, source, read_metadata(source), settings)
