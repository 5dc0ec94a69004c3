"""Recognises the formats in which annotation tools export their work, by the shape of the rows.

Each annotation becomes a row, so that texts with several annotators are known as such. What was not accepted (skipped,
rejected, discarded, not annotated) is marked in the column `LEFT_OUT`, and left out aloud.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emotion_lightning.data.formats import nested
from emotion_lightning.data.formats.files import TEXT_COLUMNS
from emotion_lightning.data.labels import normalised
from emotion_lightning.data.rows import Chunk, Problems, Roles, Source
from emotion_lightning.data.survey import LIST_COLUMNS

log = logging.getLogger(__name__)

LEFT_OUT = "left out because of"
"""Column that says why a row is left out; it is empty in the others."""

ANNOTATOR = "annotator"
"""Column that says who labelled a row."""

_DOCCANO = "Doccano"
_OF_DOCCANO = {"id", "text", "data", "label", "labels", "Comments", "comments", "meta"}
_ANSWERS = {"accept", "reject", "ignore"}
_RESPONSES = ".responses"

Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The format of an annotation tool.

    Attributes:
        tool: its name.
        note: how its labels are read, where that needs a word.
        roles: the columns of texts, ids and labels.
        rows: makes the rows of one record, one for each annotation; None: the record as it is.
        questions: what annotators were asked, if labels come from several questions, so that one must be chosen.
    """

    tool: str
    roles: Roles
    rows: Callable[[Row], Iterable[Row]] | None = None
    questions: tuple[str, ...] = ()
    note: str = ""


def prepared(source: Source, settings: Any, *, usual: Iterable[str | None] = (), labelled: bool = True) -> Source:
    """A source as its annotation tool means it, with the columns that dotted paths in settings and roles lead to.

    Args:
        source: source of rows, the first of which are looked at.
        settings: of the table, or of the input of `predict`.
        usual: further names of columns of one value in a row, which may be paths.
        labelled: whether labels are read. Without them each record stays one row.

    Raises:
        UserError: the source cannot be read.
    """
    source = _shaped(source, labelled=labelled)
    single = [settings.text, settings.id_column, source.roles.text, source.roles.id, *usual]
    several = [getattr(settings, "labels_column", None), source.roles.labels_column]
    columns = getattr(settings, "labels", None) or []
    return nested.with_paths(source, [*single, *several, *columns], single=[*single, *columns])


def with_roles(settings: Any, roles: Roles) -> Any:
    """Settings of a table, with the columns that the format says where no setting does."""
    return dataclasses.replace(
        settings,
        text=settings.text or roles.text,
        id_column=settings.id_column or roles.id,
        labels_column=settings.labels_column or roles.labels_column,
    )


def _shaped(source: Source, *, labelled: bool) -> Source:
    first = next(source.chunks(Problems()), None)
    shape = recognise(first.columns) if first is not None else None
    # A data set of the hub may have Doccano's few columns by chance.
    if shape is None or (shape.tool == _DOCCANO and source.about.get("format") not in ("json", "jsonl")):
        return source
    roles = shape.roles if labelled else dataclasses.replace(shape.roles, labels_column=None)
    named = {"data.text": roles.text, "data.id_column": roles.id, "data.labels_column": roles.labels_column}
    said = " ".join(f"{setting}={name}" for setting, name in named.items() if name is not None)
    note = f" ({shape.note})" if shape.note else ""
    log.info("%s is read as %s exports it%s%s.", source.path, shape.tool, note, f": {said}" if said else "")
    asked = shape.questions if labelled else ()
    about = source.about | {"tool": f"{shape.tool}{note}"}
    found = dataclasses.replace(source, roles=roles, questions=asked, about=about)
    if shape.rows is None or not labelled:
        return found
    return dataclasses.replace(found, chunks=_reshaped(source.chunks, shape.rows))


def _reshaped(
    chunks: Callable[[Problems], Iterator[Chunk]], rows: Callable[[Row], Iterable[Row]]
) -> Callable[[Problems], Iterator[Chunk]]:
    def reshaped(problems: Problems) -> Iterator[Chunk]:
        for chunk in chunks(problems):
            numbers: list[int] = []
            records: list[Row] = []
            for i, number in enumerate(chunk.rows):
                for record in rows({name: cells[i] for name, cells in chunk.columns.items()}):
                    numbers.append(number)
                    records.append(record)
            names = dict.fromkeys(name for record in records for name in record)
            if records:
                yield Chunk(numbers, {name: [record.get(name) for record in records] for name in names})

    return reshaped


def recognise(columns: Mapping[str, list[Any]]) -> Shape | None:
    """The tool that wrote these rows; None if they have the shape of no tool that is known."""
    for find in (_label_studio, _label_studio_short, _argilla, _argilla_table, _argilla_old, _prodigy, _doccano):
        if (found := find(columns)) is not None:
            return found
    return None


def _all(columns: Mapping[str, list[Any]], name: str, kind: type) -> bool:
    """Whether a column has cells, and all that are not null are of a type."""
    cells = [cell for cell in columns.get(name, ()) if cell is not None]
    return bool(cells) and all(isinstance(cell, kind) for cell in cells)


def _inside(prefix: str, cells: Iterable[Any]) -> str | None:
    """The path of the text in objects: under a usual name, or the only text; None if that is not clear."""
    kinds: dict[str, bool] = {}
    for cell in cells:
        for name, value in (cell or {}).items():
            kinds[name] = kinds.get(name, True) and (value is None or isinstance(value, str))
    texts = [name for name, is_text in kinds.items() if is_text]
    usual = [name for usual in TEXT_COLUMNS for name in texts if name.lower() == usual]
    name = usual[0] if usual else texts[0] if len(texts) == 1 else None
    return None if name is None else f"{prefix}.{normalised(name)}"


def _asked(questions: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    """The question whose answers are the labels; None and all of them if that is not clear."""
    found = list(dict.fromkeys(questions))
    usual = [name for usual in LIST_COLUMNS for name in found if name.lower() == usual]
    if len(found) == 1 or len(usual) == 1:
        return (usual or found)[0], ()
    return None, tuple(found)


def _first(columns: Mapping[str, list[Any]], *names: str) -> str | None:
    return next((name for name in names if name in columns), None)


# -------------------------------------------------------------------------------------------------------- Label Studio


def _label_studio(columns: Mapping[str, list[Any]]) -> Shape | None:
    if not (_all(columns, "data", dict) and _all(columns, "annotations", list)):
        return None
    kept = set(columns)
    questions = [
        question
        for annotations in columns["annotations"]
        for annotation in annotations or []
        for question in _choices(annotation)
    ]
    question, several = _asked(name for name in questions if name not in kept)
    roles = Roles(_inside("data", columns["data"]), _first(columns, "id"), question)
    return Shape("Label Studio", roles, _label_studio_rows, several)


def _choices(annotation: Any) -> dict[str, list[Any]]:
    """The labels that an annotation of Label Studio chose, by question."""
    found: dict[str, list[Any]] = {}
    results = annotation.get("result") if isinstance(annotation, dict) else None
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, dict) else None
        choices = value.get("choices", value.get("labels")) if isinstance(value, dict) else None
        if isinstance(choices, list):
            found.setdefault(normalised(str(result.get("from_name") or "choices")), []).extend(choices)
    return found


def _label_studio_rows(record: Row) -> Iterator[Row]:
    annotations = record.get("annotations") or []
    if not annotations:
        yield record | {LEFT_OUT: "not annotated"}
    for annotation in annotations:
        if not isinstance(annotation, dict):
            continue
        by = annotation.get("completed_by")
        by = (by.get("email") or by.get("id")) if isinstance(by, dict) else by
        why = "skipped" if annotation.get("was_cancelled") else None
        own = {"annotations": [annotation], ANNOTATOR: by, LEFT_OUT: why}
        yield record | own | {name: labels for name, labels in _choices(annotation).items() if name not in record}


_SHORT = {"annotation_id", "annotator", "lead_time"}


def _label_studio_short(columns: Mapping[str, list[Any]]) -> Shape | None:
    """Its exports JSON_MIN and CSV, in which several choices are an object, or one that is printed."""
    if not set(columns) >= _SHORT:
        return None
    holding = [name for name, cells in columns.items() if any(_unpacked(cell) is not cell for cell in cells)]
    question, several = _asked(holding)
    return Shape("Label Studio", Roles(None, None, question), _label_studio_short_rows, several)


def _label_studio_short_rows(record: Row) -> Iterator[Row]:
    yield {name: _unpacked(cell) for name, cell in record.items()}


def _unpacked(cell: Any) -> Any:
    """The labels in a cell such as {"choices": ["joy", "love"]}; any other cell as it is."""
    if isinstance(cell, str) and cell.startswith('{"choices"'):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    if isinstance(cell, dict) and cell.keys() == {"choices"} and isinstance(cell["choices"], list):
        return cell["choices"]
    return cell


# ------------------------------------------------------------------------------------------------------------- Argilla


def _argilla(columns: Mapping[str, list[Any]]) -> Shape | None:
    """Records of Argilla 2 as JSON, and those of its FeedbackDataset."""
    if not (_all(columns, "fields", dict) and (_all(columns, "responses", dict) or _all(columns, "responses", list))):
        return None
    question, several = _asked(
        name
        for responses in columns["responses"]
        for _, _, answers in _responses(responses)
        for name, value in answers.items()
        if isinstance(value, str | list)
    )
    roles = Roles(_inside("fields", columns["fields"]), _first(columns, "id", "external_id", "_server_id"), question)
    return Shape("Argilla", roles, _argilla_rows, several)


def _responses(responses: Any) -> list[tuple[Any, str | None, Row]]:
    """The annotator, the status and the answers of each response, by question."""
    found: dict[Any, tuple[Any, str | None, Row]] = {}
    if isinstance(responses, dict):  # the answers of each question
        for question, answers in responses.items():
            for number, answer in enumerate(answers if isinstance(answers, list) else []):
                if not isinstance(answer, dict):
                    continue
                by = answer.get("user_id")
                key = str(by) if by is not None else number
                _, status, own = found.get(key, (by, answer.get("status"), {}))
                found[key] = (by, status, own | {normalised(question): answer.get("value")})
        return list(found.values())
    return [
        (response.get("user_id"), response.get("status"), _values(response.get("values")))
        for response in (responses if isinstance(responses, list) else [])
        if isinstance(response, dict)
    ]


def _values(values: Any) -> Row:
    given = values if isinstance(values, dict) else {}
    return {
        normalised(question): answer.get("value") if isinstance(answer, dict) else answer
        for question, answer in given.items()
    }


def _argilla_rows(record: Row) -> Iterator[Row]:
    yield from _answered(record, _responses(record.get("responses")))


def _answered(record: Row, responses: list[tuple[Any, str | None, Row]]) -> Iterator[Row]:
    if not responses:
        yield record | {LEFT_OUT: "no response"}
    for by, status, answers in responses:
        why = None if status in (None, "submitted") else f"status {status}"
        yield record | answers | {ANNOTATOR: None if by is None else str(by), LEFT_OUT: why}


def _argilla_table(columns: Mapping[str, list[Any]]) -> Shape | None:
    """Records of Argilla 2 that were exported as a dataset: a column of responses for each question."""
    questions = [
        name.removesuffix(_RESPONSES)
        for name in columns
        if name.endswith(_RESPONSES) and f"{name}.users" in columns and _all(columns, name, list)
    ]
    if not questions:
        return None
    question, several = _asked(questions)
    return Shape("Argilla", Roles(None, _first(columns, "id"), question), _argilla_table_rows, several)


def _argilla_table_rows(record: Row) -> Iterator[Row]:
    found: dict[Any, tuple[Any, str | None, Row]] = {}
    for name in [name for name in record if name.endswith(_RESPONSES)]:
        users = record.get(f"{name}.users") or []
        states = record.get(f"{name}.status") or []
        for number, value in enumerate(record[name] or []):
            by = users[number] if number < len(users) else None
            status = states[number] if number < len(states) else None
            _, status, own = found.get(by or number, (by, status, {}))
            found[by or number] = (by, status, own | {name.removesuffix(_RESPONSES): value})
    yield from _answered(record, list(found.values()))


def _argilla_old(columns: Mapping[str, list[Any]]) -> Shape | None:
    """Text classification of Argilla 1 and of Rubrix."""
    if not (set(columns) >= {"annotation", "prediction", "status"} and {"text", "inputs"} & set(columns)):
        return None
    text = "text" if _all(columns, "text", str) else _inside("inputs", filter(_is_dict, columns.get("inputs", ())))
    return Shape("Argilla", Roles(text, _first(columns, "id"), "annotation"), _argilla_old_rows)


def _is_dict(cell: Any) -> bool:
    return isinstance(cell, dict)


def _argilla_old_rows(record: Row) -> Iterator[Row]:
    status = record.get("status")
    yield record | {LEFT_OUT: None if status == "Validated" else f"status {status}"}


# --------------------------------------------------------------------------------------------------- Prodigy, Doccano


def _prodigy(columns: Mapping[str, list[Any]]) -> Shape | None:
    if not {cell for cell in columns.get("answer", ()) if isinstance(cell, str)} & _ANSWERS or "text" not in columns:
        return None
    if "accept" in columns and not _all(columns, "accept", int):
        return Shape("Prodigy", Roles("text", None, "accept"), _prodigy_rows)
    if "_task_hash" in columns and _all(columns, "label", str):
        return Shape("Prodigy", Roles("text", None, "label"), _prodigy_rows, note="a row asks for one label")
    return None


def _prodigy_rows(record: Row) -> Iterator[Row]:
    answer = record.get("answer")
    yield record | {LEFT_OUT: None if answer == "accept" else f"answer {answer}"}


def _doccano(columns: Mapping[str, list[Any]]) -> Shape | None:
    labels = _first(columns, "label", "labels")
    text = _first(columns, "text", "data")
    if labels is None or text is None or "id" not in columns or set(columns) - _OF_DOCCANO:
        return None
    if not _all(columns, labels, list) or not _all(columns, text, str):
        return None
    spans = [cell for cells in columns[labels] for cell in cells or []]
    if spans and all(map(_is_span, spans)):
        note = "labels of parts of a text are its labels"
        return Shape(_DOCCANO, Roles(text, None, labels), _doccano_rows, note=note)
    if not all(isinstance(part, str) for part in spans):
        return None
    return Shape(_DOCCANO, Roles(text, None, labels))


def _is_span(part: Any) -> bool:
    """Whether a label is one of a part of the text: its start, its end and its name."""
    return isinstance(part, list) and len(part) == 3 and [type(p) for p in part] == [int, int, str]


def _doccano_rows(record: Row) -> Iterator[Row]:
    labels = "label" if "label" in record else "labels"
    cells = record.get(labels) or []
    yield record | {labels: [part[2] if _is_span(part) else part for part in cells]}
