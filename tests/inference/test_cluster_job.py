"""Jobs that label many files: what is checked, what parts hold, what goes on. The workers of these work here."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from helpers.tables import read_csv, write_csv, write_jsonl, write_parquet

from emotion_lightning import load
from emotion_lightning.data import units
from emotion_lightning.data.conversations import Context
from emotion_lightning.data.storage import Folder
from emotion_lightning.errors import UserError
from emotion_lightning.inference.cluster import job, worker
from emotion_lightning.runs import ray_cluster

TEXTS = [f"I am so {word} {'and more ' * (i % 7)}number {i}" for i in range(12) for word in ("glad", "sad")]


@pytest.fixture(scope="module")
def model() -> Any:
    return load()


@pytest.fixture
def begin(
    settings: Callable[..., Any], model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Prepare a job in the folder `out`, with the bundled model unless a run is given; the plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "_load", lambda asked: model)

    def prepare(*overrides: str) -> job.Plan:
        chosen = settings("output=out", "engine=ray", "predict.rows_per_part=5", *overrides, command="predict")
        plan = job.prepare(chosen, Folder("out"))
        plan.todo = job._cut(plan, chosen)  # type: ignore[attr-defined]
        return plan

    return prepare


def work(plan: Any) -> list[dict[str, Any]]:
    """Do all units of a job, in a wrong order, and end it; the rows of all parts."""
    own, folder = worker.Worker(plan.model, plan.files), Folder("out")
    folder.write(job.JOB, json.dumps(plan.made_from).encode())
    done = {unit.name: own.label(unit) for unit in reversed(plan.todo)}
    job.finish(folder, plan, plan.todo, done, seconds=1)
    return written()


def written() -> list[dict[str, Any]]:
    parts = sorted(Path("out").glob("part-*"))
    if parts and parts[0].suffix == ".jsonl":
        return [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def write_texts(name: str) -> None:
    match Path(name).suffixes[0]:
        case ".csv":
            write_csv(Path(name), [["id", "text", "user"], *([f"k{i}", text, i] for i, text in enumerate(TEXTS))])
        case ".jsonl":
            write_jsonl(Path(name), [{"id": f"k{i}", "text": t, "user": i} for i, t in enumerate(TEXTS)])
        case _:
            ids = [f"k{i}" for i in range(len(TEXTS))]
            write_parquet(Path(name), {"id": ids, "text": TEXTS, "user": list(range(len(TEXTS)))}, row_group_size=7)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_any_units_give_what_one_process_gives(begin: Any, model: Any, name: str, rows: int) -> None:
    write_texts(name)
    found = work(begin(f"input={name}", f"predict.rows_per_part={rows}", "data.batch_size=4"))
    expected = model.predict(TEXTS)
    assert [row["id"] for row in found] == [f"k{i}" for i in range(len(TEXTS))]
    labels = model.metadata.labels
    assert list(found[0]) == ["id", *labels, *[f"p_{label}" for label in labels]]
    for row, answer in zip(found, expected, strict=True):
        assert [label for label in labels if row[label]] == answer.labels
    shares = torch.tensor([[row[f"p_{label}"] for label in labels] for row in found])
    of_one = torch.tensor([list(answer.probabilities.values()) for answer in expected])
    torch.testing.assert_close(shares, of_one, atol=1e-6, rtol=0)


def test_what_the_job_was_made_from_comes_last(begin: Any) -> None:
    write_texts("a.csv")
    plan = begin("input=a.csv")
    work(plan)
    files = sorted(file.name for file in Path("out").iterdir())
    parts = [f"part-00000-{first:010d}.parquet" for first in (1, 6, 11, 16, 21)]
    assert files == ["_SUCCESS", "_job.json", "manifest.json", *parts]
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert (manifest["rows"], manifest["errors"]) == (24, 0)
    assert [part["name"] for part in manifest["parts"]] == parts
    assert [part["rows"] for part in manifest["parts"]] == [5, 5, 5, 5, 4]
    assert manifest["thresholds"] == plan.metadata.thresholds[manifest["protocol"]]
    assert len(manifest["model"]["sha256"]) == 64 and {"torch", "ray"} <= manifest["versions"].keys()


def test_columns_of_the_input_are_kept_with_their_types(begin: Any) -> None:
    write_texts("a.parquet")
    found = work(begin("input=a.parquet", "predict.keep=[user]"))
    assert [row["user"] for row in found] == list(range(24)) and list(found[0])[:2] == ["id", "user"]


def test_parts_may_be_jsonl(begin: Any) -> None:
    write_texts("a.jsonl")
    found = work(begin("input=a.jsonl", "predict.keep=[user]", "predict.parts=jsonl"))
    assert [row["user"] for row in found] == list(range(24)) and len(list(Path("out").glob("part-*.jsonl"))) == 5


def test_rows_without_an_id_are_told_by_file_and_row(begin: Any) -> None:
    for lang in ("de", "en"):
        Path(f"texts/lang={lang}").mkdir(parents=True)
        write_csv(Path(f"texts/lang={lang}/a.csv"), [["text"], *([text] for text in TEXTS[:6])])
    found = work(begin("input=texts", "predict.keep=[lang]"))
    assert [(row["file"], row["row"], row["lang"]) for row in found] == [
        (f"texts/lang={lang}/a.csv", str(i), lang) for lang in ("de", "en") for i in range(1, 7)
    ]


def test_the_turns_before_a_text_may_stand_in_columns(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(Path("a.jsonl"), [{"text": f"t{i}", "before": f"b{i}"} for i in range(6)])
    plan, seen = begin("input=a.jsonl"), []

    def decide(self: Any, pieces: Any) -> Any:
        for texts in pieces:
            seen.extend(texts)
            yield torch.zeros(len(texts), 11, dtype=torch.bool), torch.zeros(len(texts), 11)

    monkeypatch.setattr(worker.Worker, "_decide", decide)
    context = Context(1, None, None, ["before"])
    files = dataclasses.replace(plan.files, context=context)
    for unit in plan.todo:
        worker.Worker(plan.model, files).label(unit)
    assert seen == [(f"b{i}", f"t{i}") for i in range(6)]
    assert [row["row"] for row in written()] == [str(i) for i in range(1, 7)]


def test_thresholds_of_groups_decide_where_the_input_has_their_column(
    begin: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = model.metadata.labels
    never = {name: dict.fromkeys(labels, 0.999999) for name in ("global", "per_label")}
    by = {"column": "lang", "values": {"de": never}}
    changed = dataclasses.replace(model.metadata, thresholds_by=by, protocol="global")
    monkeypatch.setattr(model, "metadata", changed)
    monkeypatch.setattr(job.ensemble, "combined_metadata", lambda runs: changed)
    write_jsonl(Path("a.jsonl"), [{"text": text, "lang": lang} for text in TEXTS[:6] for lang in ("de", "en")])
    plan = begin("input=a.jsonl")
    found = work(plan)
    assert not any(row[label] for row in found[::2] for label in labels)
    assert any(row[label] for row in found[1::2] for label in labels)
    one = worker.Worker(plan.model, plan.files).label(plan.todo[0])
    assert one.groups == {"de": 3, "en": 2}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_one_process_keeps_columns_too(run: Any, suffix: str) -> None:
    write_texts("a.parquet")
    assert run("predict", "input=a.parquet", f"output=b.{suffix}", "predict.keep=[user]", "predict.text=true") == 0
    match suffix:
        case "csv":
            rows = read_csv(Path("b.csv"))
            assert [row["user"] for row in rows] == [str(i) for i in range(24)]
        case "jsonl":
            rows = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
            assert [row["user"] for row in rows] == list(range(24))
        case _:
            rows = pyarrow.parquet.read_table("b.parquet").to_pylist()
            assert [row["user"] for row in rows] == list(range(24))
    assert list(rows[0])[:3] == ["id", "text", "user"]


# --------------------------------------------------------------------------------------------------------------- errors


BROKEN = "id,text\n1,a\n2,b\n3,c\n4,d\n5,e\n6\n7,g\n8,h\n,i\n10,j\n11,k\n12,l\n"
"""Row 6 lacks a cell, row 9 an id."""


@pytest.fixture
def few_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a wrong row in a small file is not among the first ones. Files are read some hundred rows at a time."""
    monkeypatch.setattr(units.delimited, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(job, "CHECKED", 4)


def test_rows_that_cannot_be_read_are_gathered(begin: Any, few_checked: None, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(BROKEN)
    with pytest.raises(UserError, match=r"^2 rows of 12 could not be read; .*out/errors\.parquet has file, row and"):
        work(begin("input=a.csv"))
    assert [row["id"] for row in written()] == ["1", "2", "3", "4", "5", "7", "8", "10", "11", "12"]
    errors = pyarrow.parquet.read_table("out/errors.parquet").to_pylist()
    assert [(row["file"], row["row"]) for row in errors] == [("a.csv", 6), ("a.csv", 9)]
    assert "1 cells under a header of 2 columns (line 7)" in errors[0]["reason"] and "no id" in errors[1]["reason"]
    assert Path("out/_SUCCESS").exists() and not Path("out/_errors").exists()


def test_a_row_that_cannot_be_read_stops_a_job_that_refuses(begin: Any, few_checked: None, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(BROKEN)
    with pytest.raises(UserError, match=r"^a\.csv, row 6: 1 cells under a header"):
        plan = begin("input=a.csv", "on_error=refuse")
        for unit in plan.todo:
            worker.Worker(plan.model, plan.files).label(unit)
    assert [part.name for part in Path("out").glob("*")] == ["part-00000-0000000001.parquet"]


def test_the_first_rows_are_checked_as_those_of_one_file(begin: Any, run: Any, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "a.csv").write_text(BROKEN)
    with pytest.raises(UserError) as told:
        begin("input=a.csv")
    assert run("predict", "input=a.csv", "output=b.csv") == 2
    assert str(told.value).strip() in capfd.readouterr().err


def test_a_damaged_file_is_read_up_to_the_damage(begin: Any) -> None:
    import gzip

    lines = "".join(f'{{"text": "so good {i} {i * 7919 % 10007}"}}\n' for i in range(3000))
    whole = gzip.compress(lines.encode())
    plan_of = Path("a.jsonl.gz")
    plan_of.write_bytes(whole)
    plan = begin("input=a.jsonl.gz")
    plan_of.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="1 row of .* could not be read"):
        work(plan)
    (error,) = pyarrow.parquet.read_table("out/errors.parquet").to_pylist()
    assert error["row"] == len(written()) + 1 > 500 and error["reason"].endswith("The rows after it are not read.")


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ["input=a.csv", "predict.keep=[usr]"],
            r"has no column usr \(predict.keep\).*did you mean predict.keep=\[user\]",
        ),
        (["input=a.csv", "predict.keep=[id]"], "would have two columns named id; .* leave the column out"),
        (["input=a.csv", "data.text=tweet"], "has no column tweet"),
        (["input=a.csv", "data.table=x"], "data.table=x is for files that hold several tables"),
        (["input=a.csv", "predict.intensities=true"], "the bundled classifier has none"),
        (["input=*.csv"], r"^b\.csv has no column text \(data.text, which a\.csv has\)"),
        (["input=out"], "out holds the input file"),
    ],
)
def test_mistakes_are_told_before_a_worker_starts(begin: Any, asked: list[str], message: str) -> None:
    write_texts("a.csv")
    write_csv(Path("b.csv"), [["id", "tweet"], ["1", "a"]])
    Path("out").mkdir()
    write_csv(Path("out/a.csv"), [["text"], ["a"]])
    with pytest.raises(UserError, match=message):
        begin(*asked)


def test_conversations_are_refused(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts("a.csv")
    monkeypatch.setattr(job.ensemble, "context_of", lambda runs: Context(2, "dialogue", None, None))
    with pytest.raises(UserError, match="label file by file, without engine=ray"):
        begin("input=a.csv")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["text=so good"], "engine=ray labels files"),
        (["input=a.csv", "output=b.csv"], "output=b.csv names a file, and engine=ray writes a folder"),
        (["input=a.csv", "explain=true"], "explain=true runs in one process; leave out engine=ray"),
        (["input=a.csv", "engine=local", "resume=true"], "resume=true goes on with a job of engine=ray"),
        (["input=s3://bucket/a.csv", "engine=local", "output=b.csv"], "is no single file on disk; engine=ray reads"),
        (["input=*.csv", "engine=local", "output=b.csv"], "is no single file on disk; engine=ray reads"),
    ],
)
def test_settings_that_do_not_fit_are_refused(run: Any, capfd: Any, asked: list[str], message: str) -> None:
    assert run("predict", "engine=ray", *asked) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("asked", [["engine=ray", "output=out"], ["devices=2", "output=b.csv"]])
def test_without_ray_it_is_said_how_to_install_it(
    run: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    write_texts("a.csv")
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    assert run("predict", "input=a.csv", *asked) == 2
    assert f"{asked[0]} needs Ray; install it: pip install" in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------------------ going on


def test_a_job_goes_on_with_the_parts_that_are_there(begin: Any) -> None:
    write_texts("a.csv")
    plan, folder = begin("input=a.csv"), Folder("out")
    own = worker.Worker(plan.model, plan.files)
    for unit in plan.todo[:2]:
        own.label(unit)
    there = job.kept(folder, plan.todo, plan.files, folder.names())
    assert {name: found.rows for name, found in there.items()} == {unit.name: 5 for unit in plan.todo[:2]}
    job.finish(folder, plan, plan.todo, there | {unit.name: own.label(unit) for unit in plan.todo[2:]}, seconds=1)
    assert [row["id"] for row in written()] == [f"k{i}" for i in range(24)]
    assert json.loads(Path("out/manifest.json").read_text())["rows"] == 24


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        (None, ["data.batch_size=8", "devices=3"], None),
        (None, ["predict.rows_per_part=7"], "began with predict.rows_per_part=5, not predict.rows_per_part=7"),
        (None, ["predict.keep=[user]"], r"began with predict.keep=null, not predict.keep=\[user\]"),
        (None, ["data.id_column=user"], "began with data.id_column=null, not data.id_column=user"),
        (lambda: Path("a.csv").write_text("id,text\n1,a\n"), [], "the input files are not the same"),
    ],
)
def test_another_job_does_not_go_on(begin: Any, change: Any, asked: list[str], message: str | None) -> None:
    write_texts("a.csv")
    folder = Folder("out")
    folder.write(job.JOB, json.dumps(begin("input=a.csv").made_from).encode())
    if change is not None:
        change()
    now = begin("input=a.csv", *asked).made_from
    if message is None:
        job.check_same(folder, now)
        return
    with pytest.raises(UserError, match=message):
        job.check_same(folder, now)


def test_another_model_does_not_go_on(begin: Any, finished: Path) -> None:
    write_texts("a.csv")
    Folder("out").write(job.JOB, json.dumps(begin("input=a.csv").made_from).encode())
    with pytest.raises(UserError, match="the model is another one"):
        job.check_same(Folder("out"), begin("input=a.csv", f"run={finished}").made_from)


def test_a_worker_with_another_model_says_so(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    asked = worker.Model([str(tmp_path / "copy")], worker.model_hash([str(finished)]), "cpu", 1, 32, None)
    (tmp_path / "copy" / "model" / "more.txt").write_text("changed")
    with pytest.raises(UserError, match="is another model than where the job was started"):
        worker._load(asked)


def test_a_folder_with_files_is_refused_or_goes_on(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    assert job._check_output(folder, resume=False) == job._check_output(folder, resume=True) == set()
    folder.write("a.txt", b"")
    with pytest.raises(UserError, match="is not empty; resume=true goes on"):
        job._check_output(folder, resume=False)
    with pytest.raises(UserError, match="has files, but no job began there"):
        job._check_output(folder, resume=True)
    folder.write(job.JOB, b"{}")
    assert job._check_output(folder, resume=True) == {"a.txt", job.JOB}
