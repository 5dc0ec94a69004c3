"""Names of labels, from the file that they stand in to the end of a run."""

import csv
import json
import logging
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from conftest import SMALL
from helpers.tables import data_settings, write_csv, write_jsonl, write_parquet

from emotion_lightning import config
from emotion_lightning.data import batches, labels, sources, tables
from emotion_lightning.data.formats.files import source
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import prediction_files
from emotion_lightning.models import metadata
from emotion_lightning.training.loggers import mlflow_logger

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
SCOTLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000e007f"
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
WRITTEN = [
    "tr\u00e8s\u00a0content",
    FAMILY,
    f" {DECOMPOSED}\u3000",
    SCOTLAND,
    "in\ntwo  lines",
    "a|b*[x](y)<i>",
    '=1+1, "q"',
]
SPELLED = ["tr\u00e8s content", FAMILY, COMPOSED, SCOTLAND, "in two lines", "a|b*[x](y)<i>", '=1+1, "q"']


def rows_of(written: list[str], count: int = 24) -> list[list[Any]]:
    """Header and rows, of which every label has some."""
    numbers = range(len(written))
    return [["text", *written], *([f"text {i}", *[int(i % (n + 2) == 0) for n in numbers]] for i in range(count))]


def write(path: Path, written: list[str]) -> Path:
    header, *rows = rows_of(written)
    match path.suffix:
        case ".csv":
            return write_csv(path, [header, *rows])
        case ".jsonl":
            return write_jsonl(path, [dict(zip(header, row, strict=True)) for row in rows])
        case _:
            return write_parquet(path, {name: [row[i] for row in rows] for i, name in enumerate(header)})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_names_of_columns_are_spelled_by_one_rule(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"odd{suffix}", WRITTEN)
    assert sources.read_corpus(data_settings(path=path)).labels == SPELLED
    asked = data_settings(path=path, labels=WRITTEN[:3], text=" text")
    assert sources.read_corpus(asked).labels == SPELLED[:3]


@pytest.mark.parametrize("wrap", [list, "|".join, json.dumps])
def test_names_in_lists_are_spelled_by_the_same_rule(tmp_path: Path, wrap: Any) -> None:
    cells = [[COMPOSED, "joy"], [DECOMPOSED], ["joy", "tr\u00e8s\u00a0content"]]
    path = write_jsonl(tmp_path / "odd.jsonl", [{"text": f"t{i}", "labels": wrap(c)} for i, c in enumerate(cells)])
    corpus = sources.read_corpus(data_settings(path=path))
    assert corpus.labels == [COMPOSED, "joy", "tr\u00e8s content"]
    targets = corpus.splits["whole"].targets
    assert targets is not None and targets.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 1]]


def test_keys_of_a_jsonl_file_may_be_composed_and_decomposed(tmp_path: Path) -> None:
    records = [{"text": f"t{i}", [COMPOSED, DECOMPOSED][i % 2]: int(i < 3)} for i in range(6)]
    corpus = sources.read_corpus(data_settings(path=write_jsonl(tmp_path / "mixed.jsonl", records)))
    targets = corpus.splits["whole"].targets
    assert corpus.labels == [COMPOSED]
    assert targets is not None and targets[:, 0].tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_two_spellings_of_one_name_in_one_row_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"twice{suffix}", [COMPOSED, DECOMPOSED])
    with pytest.raises(UserError, match=f"(more than one column named|the key) {COMPOSED}"):
        sources.read_corpus(data_settings(path=path))


def test_official_files_follow_the_rule(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"2018-E-c-En-{name}.txt").write_text(f"ID\tTweet\t{DECOMPOSED}\tjoy\n1\ta\t0\t1\n2\tb\t1\t0\n")
    assert sources.read_corpus(data_settings("semeval2018", dir=tmp_path)).labels == [COMPOSED, "joy"]
    for name in ("train", "dev", "test"):
        (tmp_path / f"2018-E-c-En-{name}.txt").write_text("ID\tTweet\tjo\x07y\n1\ta\t0\n")
    with pytest.raises(UserError, match=r"U\+0007"):
        sources.read_corpus(data_settings("semeval2018", dir=tmp_path))


def test_another_spelling_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "told.csv", ["told\u00a0once", "joy"])
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            sources.read_corpus(data_settings(train=path, validation=path, test=path))
    told = [record.getMessage() for record in caplog.records if "single spaces" in record.getMessage()]
    assert told == [r"Label names are read as Unicode NFC with single spaces: 'told\xa0once' is told once."]


@pytest.mark.parametrize(
    ("written", "named"),
    [("joy\x1b[2J", r"U\+001B"), ("j\x00oy", "NUL byte|U\\+0000"), ("joy\u202e", "U\\+202E RIGHT-TO-LEFT OVERRIDE"),
     ("joy\u200b", "U\\+200B ZERO WIDTH SPACE"), ("j\x85y\x9b", "U\\+009B"), ("a\x1fb", "U\\+001F")],
)  # fmt: skip
def test_control_characters_are_refused_by_name(tmp_path: Path, written: str, named: str) -> None:
    path = write(tmp_path / "bad.csv", [written, "joy"])
    with pytest.raises(UserError, match=named) as raised:
        sources.read_corpus(data_settings(path=path))
    assert "bad.csv" in str(raised.value) and not any(unicodedata.category(c) == "Cc" for c in str(raised.value))


def test_a_name_of_joiners_alone_is_empty() -> None:
    with pytest.raises(UserError, match="empty name"):
        labels.check_names(["joy", "\u200d"], "file")


def test_many_labels_are_checked_at_once() -> None:
    names = [f"label {i}" for i in range(30_000)]  # took minutes while each was looked for in a list
    labels.check_names(names, "file")
    with pytest.raises(UserError, match="label 7"):
        labels.check_names([*names, "label 7"], "file")


@pytest.mark.slow
def test_metadata_of_too_many_labels_are_refused(
    run: Any, finished: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metadata.LABELS == 100_000  # reading that many takes seconds
    monkeypatch.setattr(metadata, "LABELS", 100)
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    file = folder / "model" / "emotion_lightning.json"
    content = json.loads(file.read_text())
    for count, message in ((101, "where 100 are the most"), (100, "its head has 11 outputs")):
        names = [f"l{i}" for i in range(count)]
        cuts = dict.fromkeys(names, 0.5)
        file.write_text(
            json.dumps(content | {"labels": names, "thresholds": dict.fromkeys(content["thresholds"], cuts)})
        )
        assert run("predict", "run=run", "text=hi") == 2
        told = capfd.readouterr().err
        assert message in told and len(told.splitlines()) == 1 and len(told) < 1000


def test_the_header_is_safe_in_spreadsheets_too(tmp_path: Path) -> None:
    chosen = config.Predictions(
        text=False, columns=config.PredictionColumns.decisions, intensities=False, csv_safe=True
    )
    with prediction_files.writer_for(tmp_path / "p.csv", ["=1+1", "joy"], chosen, id_column="row"):
        pass
    assert (tmp_path / "p.csv").read_text() == "row,'=1+1,joy\n"


def test_metric_names_are_such_as_mlflow_takes() -> None:
    check = pytest.importorskip("mlflow.utils.validation")._validate_metric_name
    for label in [*SPELLED, "joy/love", "..", ".", "/", "a//b", "\U0001f600" * 100]:
        check(mlflow_logger._mlflow_name(f"test/f1/{label}"))


def test_predict_finds_columns_by_the_rule(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [[f"my {DECOMPOSED}", "other"], ["hello", "1"]])
    read = tables.read_texts(source(path), data_settings(path=path), usual=(f"my\u00a0{DECOMPOSED}", None))
    assert list(read) == [("1", "hello")]


@pytest.mark.slow
def test_a_run_takes_every_printable_label_to_the_end(run: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.csv", WRITTEN)
    assert run("train", *SMALL, "data=file", f"data.path={path}", "trainer.max_epochs=1", "model.quantization=none",
               "hydra.run.dir=out") == 0  # fmt: skip
    metadata = json.loads((tmp_path / "out" / "model" / "emotion_lightning.json").read_text())
    assert metadata["labels"] == SPELLED
    assert "a|b\\*\\[x\\](y)\\<i\\>" in (tmp_path / "out" / "model" / "README.md").read_text()
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "out" / "model").iterdir()} == {oct(_new_mode())}
    assert run("predict", "run=out", f"input={path}", "output=answers.csv", "predict.columns=decisions") == 0
    with (tmp_path / "answers.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["row", *SPELLED]
    assert run("evaluate", "run=out", "hydra.run.dir=scored") == 0
    assert run("evaluate", "run=out", "data=file", "data.path=odd.csv", "hydra.run.dir=scored2") == 0
    assert list(json.loads((tmp_path / "scored2/metrics.json").read_text())["test"]["fixed"]["labels"]) == SPELLED
    assert run("export", "run=out", "output=away", "format=adapter") == 0
    assert run("predict", "run=away", "text=hello") == 0


def test_a_run_from_before_the_rule_is_read_by_it(run: Any, tmp_path: Path, capfd: Any) -> None:
    path = write(tmp_path / "odd.csv", [COMPOSED, "joy"])
    asked = [*SMALL, "data=file", f"data.path={path}", "thresholds.calibration=per_label", "trainer.max_epochs=1"]
    assert run("train", *asked, "hydra.run.dir=new") == 0
    old = Path(shutil.copytree("new", "old"))
    for name in ("model/emotion_lightning.json", "metrics.json"):
        text = (old / name).read_text()
        assert COMPOSED in text
        (old / name).write_text(text.replace(COMPOSED, DECOMPOSED))
    for file in (old / "outcomes").iterdir():
        table = pyarrow.parquet.read_table(file)
        names = [name.replace(COMPOSED, DECOMPOSED) for name in table.column_names]
        pyarrow.parquet.write_table(table.rename_columns(names), file)
    for file in old.rglob("SHA256SUMS"):
        file.unlink()
    for name in ("new", "old"):
        assert run("evaluate", f"run={name}", "hydra.run.dir=scored_" + name) == 0
    scores = [json.loads(Path(f"scored_{name}/metrics.json").read_text())["test"] for name in ("new", "old")]
    assert scores[0] == scores[1] and COMPOSED in scores[0]["fixed"]["labels"]
    assert "are not scored" not in capfd.readouterr().err
    assert run("evaluate", "run=[new,old]", "hydra.run.dir=both") == 0
    assert run("compare", "runs=[new,old]", "hydra.run.dir=compared") == 0


def _new_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def test_half_a_character_is_no_text() -> None:
    def tokenizer(texts: list[str], **_: Any) -> Any:
        raise TypeError("TextInputSequence must be str")

    with pytest.raises(UserError, match=r"Text 2 is 'a\\udcff'"):
        batches.tokenize(["fine", "a\udcff"], tokenizer, max_tokens=None)
