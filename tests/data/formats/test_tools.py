import json
from pathlib import Path
from typing import Any

import pytest
from helpers.tables import data_settings, text_columns, write_csv, write_jsonl, write_parquet

from emotion_lightning.data import sources, tables
from emotion_lightning.data.formats import files
from emotion_lightning.data.rows import WHOLE, Corpus
from emotion_lightning.errors import UserError

WORDS = ["anger", "joy", "sadness", "fear"]
COUNT = 24


def chosen(number: int) -> list[str]:
    return [WORDS[number % 4], *([WORDS[(number + 1) % 4]] if number % 3 == 0 else [])]


def text(number: int) -> str:
    return f"text {number}"


def write_json(path: Path, records: list[Any]) -> Path:
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def read(path: Path, **settings: Any) -> Corpus:
    return sources.read_corpus(data_settings(path=path, **settings))


def labels_of(corpus: Corpus) -> list[list[str]]:
    targets = corpus.splits[WHOLE].targets
    assert targets is not None
    return [[name for name, there in zip(corpus.labels, row, strict=True) if there] for row in targets]


def as_expected(corpus: Corpus, tool: str, caplog: pytest.LogCaptureFixture, rows: list[int] | None = None) -> None:
    """Whether texts and labels are those of these rows, and whether it is told who wrote the file."""
    rows = list(range(COUNT)) if rows is None else rows
    assert corpus.splits[WHOLE].texts == [text(i) for i in rows]
    assert labels_of(corpus) == [sorted(chosen(i)) for i in rows]
    assert corpus.decisions.files[0]["tool"].startswith(tool)
    assert f"is read as {tool} exports it" in caplog.text


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


# -------------------------------------------------------------------------------------------------------- Label Studio


def task(number: int, *, annotations: int = 1, cancelled: bool = False, more: str | None = None) -> dict[str, Any]:
    result = [
        {"id": "x", "from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": chosen(number)}}
    ]
    if more:
        result.append({"from_name": more, "to_name": "text", "type": "choices", "value": {"choices": ["news"]}})
    made = [
        {"id": number * 10 + i, "completed_by": i + 1, "was_cancelled": cancelled, "result": result, "lead_time": 3.2}
        for i in range(annotations)
    ]
    return {
        "id": number,
        "data": {"text": text(number), "source": 3},
        "annotations": made,
        "predictions": [],
        "meta": {},
    }


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_label_studio(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    tasks = [task(i) for i in range(COUNT)]
    path = write_json(tmp_path / name, tasks) if name == "a.json" else write_jsonl(tmp_path / name, tasks)
    found = read(path)
    as_expected(found, "Label Studio", caplog)
    assert found.splits[WHOLE].ids[:2] == ["0", "1"]
    assert "data.text=data.text data.id_column=id data.labels_column=mood" in caplog.text
    same = read(path, text="data.text", labels_column="annotations.result.value.choices")
    assert labels_of(same) == labels_of(found)


def test_label_studio_leaves_out_what_was_skipped_or_not_annotated_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [task(i, cancelled=i == 3, annotations=int(i != 5)) for i in range(COUNT)]
    found = read(write_json(tmp_path / "a.json", tasks))
    as_expected(found, "Label Studio", caplog, [i for i in range(COUNT) if i not in (3, 5)])
    assert found.decisions.files[0]["left_out"] == {"skipped": 1, "not annotated": 1}
    assert "not accepted in Label Studio are left out: 1 (skipped), 1 (not annotated)" in caplog.text


def test_an_annotation_without_labels_is_a_row_without_labels(tmp_path: Path) -> None:
    tasks = [task(i) for i in range(COUNT)]
    tasks[2]["annotations"][0]["result"] = []
    assert labels_of(read(write_json(tmp_path / "a.json", tasks)))[2] == []


def test_several_annotators_of_label_studio_are_known_as_such(tmp_path: Path) -> None:
    tasks = [task(i, annotations=3) for i in range(COUNT)]
    for number in range(COUNT):
        tasks[number]["annotations"][2]["result"] = []
    path = write_json(tmp_path / "a.json", tasks)
    with pytest.raises(
        UserError, match=r"as rows of several annotators do \(column annotator\)\. data\.aggregate=majority"
    ):
        read(path)
    found = read(path, aggregate="majority")
    assert labels_of(found) == [sorted(chosen(i)) for i in range(COUNT)]


def test_several_questions_of_label_studio_need_a_choice(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [task(i, more="topic") for i in range(COUNT)])
    with pytest.raises(
        UserError, match=r"several questions in Label Studio: mood, topic\. .* data\.labels_column=mood"
    ):
        read(path)
    assert labels_of(read(path, labels_column="topic")) == [["news"]] * COUNT


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_label_studio_in_short(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    def short(number: int) -> Any:
        labels = chosen(number)
        return labels[0] if len(labels) == 1 else {"choices": labels}

    header = ["text", "id", "mood", "annotator", "annotation_id", "lead_time"]
    rows = [[text(i), i, short(i), 1, i, 3.2] for i in range(COUNT)]
    if name == "a.json":
        path = write_json(tmp_path / name, [dict(zip(header, row, strict=True)) for row in rows])
    else:
        packed = [[json.dumps(cell) if isinstance(cell, dict) else cell for cell in row] for row in rows]
        path = write_csv(tmp_path / name, [header, *packed])
    as_expected(read(path), "Label Studio", caplog)


# ------------------------------------------------------------------------------------------------------------- Argilla


def argilla(number: int, statuses: list[str | None]) -> dict[str, Any]:
    answers = [
        {"value": chosen(number), "user_id": f"u{i}"} | ({"status": status} if status else {})
        for i, status in enumerate(statuses)
    ]
    return {
        "id": f"r{number}", "status": "completed", "fields": {"text": text(number)}, "metadata": {},
        "suggestions": {"emotion": {"value": ["joy"]}}, "responses": {"emotion": answers} if answers else {},
    }  # fmt: skip


@pytest.mark.parametrize("statuses", [[None], ["submitted"]])
def test_argilla(tmp_path: Path, caplog: pytest.LogCaptureFixture, statuses: list[str | None]) -> None:
    found = read(write_json(tmp_path / "a.json", [argilla(i, statuses) for i in range(COUNT)]))
    as_expected(found, "Argilla", caplog)
    assert found.splits[WHOLE].ids[0] == "r0" and found.decisions.text == "fields.text"


def test_argilla_leaves_out_what_was_not_submitted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [argilla(i, {3: ["discarded"], 5: [], 7: ["draft"]}.get(i, ["submitted"])) for i in range(COUNT)]
    found = read(write_jsonl(tmp_path / "a.jsonl", records))
    as_expected(found, "Argilla", caplog, [i for i in range(COUNT) if i not in (3, 5, 7)])
    assert found.decisions.files[0]["left_out"] == {"status discarded": 1, "no response": 1, "status draft": 1}


def test_several_annotators_of_argilla_are_joined_by_majority(tmp_path: Path) -> None:
    records = [argilla(i, ["submitted"] * 3) for i in range(COUNT)]
    for record in records:
        record["responses"]["emotion"][0]["value"] = ["fear"]
    path = write_json(tmp_path / "a.json", records)
    with pytest.raises(UserError, match=r"data\.aggregate=majority"):
        read(path)
    assert labels_of(read(path, aggregate="majority")) == [sorted(chosen(i)) for i in range(COUNT)]


def test_argilla_of_the_first_feedback_data_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [
        {
            "external_id": f"r{i}", "fields": {"text": text(i)},
            "responses": [{"user_id": "u", "status": "submitted", "values": {"emotion": {"value": chosen(i)}}}],
        }
        for i in range(COUNT)
    ]  # fmt: skip
    as_expected(read(write_json(tmp_path / "a.json", records)), "Argilla", caplog)


def test_argilla_as_a_data_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {
        "id": [f"r{i}" for i in range(COUNT)], "text": [text(i) for i in range(COUNT)],
        "emotion.responses": [[chosen(i)] for i in range(COUNT)], "emotion.responses.users": [["u"]] * COUNT,
        "emotion.responses.status": [["submitted"]] * COUNT,
    }  # fmt: skip
    as_expected(read(write_parquet(tmp_path / "a.parquet", columns)), "Argilla", caplog)


@pytest.mark.parametrize("inside", [True, False])
def test_argilla_1(tmp_path: Path, caplog: pytest.LogCaptureFixture, inside: bool) -> None:
    records = [
        ({"inputs": {"text": text(i)}} if inside else {"text": text(i)})
        | {"prediction": None, "annotation": chosen(i), "status": "Validated" if i != 4 else "Default", "id": f"r{i}"}
        for i in range(COUNT)
    ]
    found = read(write_jsonl(tmp_path / "a.jsonl", records))
    as_expected(found, "Argilla", caplog, [i for i in range(COUNT) if i != 4])


# --------------------------------------------------------------------------------------------------- Prodigy, Doccano


@pytest.mark.parametrize("extra", [{"_task_hash": 1, "_input_hash": 2, "options": []}, {"meta": {"source": "x"}}, {}])
def test_prodigy(tmp_path: Path, caplog: pytest.LogCaptureFixture, extra: dict[str, Any]) -> None:
    answers = {3: "reject", 5: "ignore"}
    records = [{"text": text(i), "accept": chosen(i), "answer": answers.get(i, "accept")} | extra for i in range(COUNT)]
    found = read(write_jsonl(tmp_path / "a.jsonl", records))
    as_expected(found, "Prodigy", caplog, [i for i in range(COUNT) if i not in answers])
    assert found.decisions.files[0]["left_out"] == {"answer reject": 1, "answer ignore": 1}


def test_a_question_of_prodigy_for_one_label_that_was_denied_gives_no_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        {"text": text(i), "label": WORDS[i % 4], "answer": ["accept", "reject"][i % 3 == 1], "_task_hash": i}
        for i in range(COUNT)
    ]
    found = read(write_jsonl(tmp_path / "a.jsonl", records))
    assert found.splits[WHOLE].texts == [text(i) for i in range(COUNT) if i % 3 != 1]
    assert "is read as Prodigy exports it (a row asks for one label)" in caplog.text


def test_a_column_called_accept_or_answer_in_another_file_is_no_sign_of_prodigy(tmp_path: Path) -> None:
    rows = [["text", "accept", "answer", "joy"], *([text(i), i % 2, "42", int(i % 3 == 0)] for i in range(COUNT))]
    found = read(write_csv(tmp_path / "a.csv", rows))
    assert len(found.splits[WHOLE]) == COUNT and found.labels == ["accept", "joy"]


@pytest.mark.parametrize("names", [("text", "label"), ("data", "label"), ("text", "labels")])
def test_doccano(tmp_path: Path, caplog: pytest.LogCaptureFixture, names: tuple[str, str]) -> None:
    records = [{"id": i, names[0]: text(i), names[1]: chosen(i), "Comments": []} for i in range(COUNT)]
    as_expected(read(write_jsonl(tmp_path / "a.jsonl", records)), "Doccano", caplog)


def test_spans_of_doccano_are_labels_of_their_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"id": i, "text": text(i), "label": [[0, 2, name] for name in chosen(i)]} for i in range(COUNT)]
    found = read(write_jsonl(tmp_path / "a.jsonl", records))
    assert labels_of(found) == [sorted(chosen(i)) for i in range(COUNT)]
    assert "is read as Doccano exports it (labels of parts of a text are its labels)" in caplog.text


# -------------------------------------------------------------------------------------------------------- new texts


@pytest.mark.parametrize("annotations", [0, 1, 3])
def test_predict_labels_each_task_once(tmp_path: Path, annotations: int) -> None:
    path = write_json(tmp_path / "a.json", [task(i, annotations=annotations) for i in range(COUNT)])
    assert list(tables.read_texts(files.source(path), text_columns())) == [(str(i), text(i)) for i in range(COUNT)]


def test_predict_keeps_the_rows_that_were_not_accepted(tmp_path: Path) -> None:
    records = [{"text": text(i), "accept": [], "answer": "reject", "_task_hash": i} for i in range(4)]
    rows = tables.read_texts(files.source(write_jsonl(tmp_path / "a.jsonl", records)), text_columns())
    assert [read_text for _, read_text in rows] == [text(i) for i in range(4)]


def test_a_file_of_which_nothing_was_accepted_is_refused(tmp_path: Path) -> None:
    records = [{"text": text(i), "accept": [], "answer": "reject", "_task_hash": i} for i in range(4)]
    with pytest.raises(UserError, match="no row was accepted in Prodigy"):
        read(write_jsonl(tmp_path / "a.jsonl", records))
