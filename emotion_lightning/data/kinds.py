"""Recognises what the cells of possible label columns are: administrative flags, words, intensities, shares."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from emotion_lightning.data.formats import files
from emotion_lightning.data.formats.cells import binary, number, share
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ANNOTATOR = re.compile(r"(annotator|rater|coder|worker|labell?er|judge)(_?(id|name|no|nr))?s?")
_ANSWERS = re.compile(r"(annotator|rater|coder|worker|labell?er|judge)_?\d+")
_ADMINISTRATIVE = re.compile(
    r"(is|has|was|n|num|nr)_.+"
    r"|.+_(id|ids|count|flag|index|idx|num|number|time|timestamp|at|date|hash)"
    r"|(annotat(or|ion)|rater|coder|worker|labell?er|judge|reviewer|user|author)s?(_.+|\d+)?"
    r"|(split|fold|set|subset|partition|train|training|valid|validation|val|dev|test)"
    r"|(index|idx|row|nr|number|id|key|count|length|words|tokens|chars|flag|gold|seed|batch|round|page|line|day|month|year)"
    r"|(verified|retweet|retweeted|favorited|favourited|truncated|protected|deleted|edited|reviewed|duplicate|checked)"
    r"|(timestamp|confidence|agreement|lead_time|possibly_sensitive|unnamed:?_\d+)"
    r"|(.+_)?unclear(_.+)?"
    r"|file(_?name|_?path)?"
)
"""Names of columns that describe a row, its author or its annotation, not the emotions in its text."""

_DIMENSIONS = re.compile(r"v|a|d|(.+_)?(valence|arousal|dominance|pleasure|activation)(_.+)?|(vad|pad)_[vadp]")
"""Names of the dimensions of emotion, whose values are numbers."""

_TRUE_WORDS = {
    "yes": "no", "y": "n", "ja": "nein", "j": "n", "oui": "non", "si": "no", "sí": "no", "sim": "não", "da": "ne",
    "да": "нет", "evet": "hayır", "tak": "nie", "present": "absent", "t": "f", "on": "off", "+": "-", "x": "", "✓": "",
    "✔": "", "checked": "unchecked", "是": "否", "はい": "いいえ",
}  # fmt: skip
"""Usual words for 1, each with its word for 0."""

_MANY = 10
"""From this number on, cells of one kind become one sentence instead of one message each."""

_LARGEST = 100
"""Larger numbers in a column are neither intensities nor counts of annotators."""

_INTENSITIES = 10
"""Largest whole number that is taken for the end of a scale of intensities."""

_Found = tuple[str, str, list[dict[str, Any]]]
"""What some cells are, the settings that read them as text, and the same as ways of `UserError`."""


def is_administrative(name: str) -> bool:
    """Whether the name of a column says that it is no label.

    >>> [is_administrative(name) for name in ("isRetweet", "Annotator ID", "example_very_unclear", "joy", "no emotion")]
    [True, True, True, False, False]
    """
    return bool(_ADMINISTRATIVE.fullmatch(_plain(name)))


def is_annotator(name: str) -> bool:
    """Whether a column is named like one that says who labelled a row."""
    return bool(_ANNOTATOR.fullmatch(_plain(name)))


def annotator_column(names: Iterable[str]) -> str | None:
    """The first column that is named like one that says who labelled a row; None without one."""
    return next(filter(is_annotator, names), None)


def answers(seen: Survey, names: Sequence[str]) -> list[str]:
    """The columns that hold what each of several annotators answered: zeros and ones, or intensities."""
    return [
        name
        for name in names
        if _ANSWERS.fullmatch(_plain(name)) and seen.binary[name] and all(map(_amount, seen.values.get(name, {"": 0})))
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\s.-]+", "_", _CAMEL.sub("_", name)).lower()


def check_kinds(path: Path, seen: Survey, names: Sequence[str]) -> None:
    """Raise UserError if label columns hold many cells of another kind than 0 and 1; the message has the setting.

    Args:
        path: the file, for messages.
        seen: survey of the file.
        names: the label columns.
    """
    _refuse_first((_numbers, _percentages, _words, _blanks, _others), path, seen, names)


def check_unread(path: Path, seen: Survey, names: Sequence[str]) -> None:
    """Raise UserError if columns that are not 0 and 1 look like labels that are written in another way."""
    candidates = [name for name in names if not is_administrative(name) and name in seen.values and seen.values[name]]
    likely = [name for name in candidates if _is_candidate(seen, name)]
    _refuse_first((_one_value, _words, _blanks, _numbers, _percentages), path, seen, likely)


def check_no_regression(path: Path, seen: Survey, names: Sequence[str]) -> None:
    """Raise UserError if columns hold valence, arousal and dominance as numbers, which are no labels."""
    found = [
        name
        for name in names
        if _DIMENSIONS.fullmatch(_plain(name))
        and not seen.looks_binary(name)
        and name in seen.first
        and all(number(value) is not None for value in seen.values.get(name, {str(seen.first[name]): 0}))
    ]
    if len(found) > 1:
        cells = sum(seen.rows - seen.blank[name] for name in found)
        examples = ", ".join(f"{name} {seen.first[name]}" for name in found[:3])
        raise UserError(
            f"{path}: the columns {files.listed(found)} hold {cells:,} numbers ({examples}), as valence, arousal and "
            "dominance do. To predict numbers is regression; this program predicts labels, which are there or not, "
            "and the file has no others. data.labels_column=… or data.labels=[…] names columns of labels."
        )


def _refuse_first(
    finders: Sequence[Callable[[Survey, Sequence[str]], _Found | None]],
    path: Path,
    seen: Survey,
    names: Sequence[str],
) -> None:
    """Raise UserError for the first kind of cells that is found."""
    for find in finders:
        if (found := find(seen, names)) is not None:
            what, setting, ways = found
            raise UserError(f"{path}: {what}. If so, {setting} reads them.", ways=ways)


def half_binary(seen: Survey, names: Sequence[str]) -> list[str]:
    """The columns that hold only numbers of the size of intensities, half of them 0 or 1."""
    return [
        name
        for name in names
        if not is_administrative(name)
        and 2 * seen.binary[name] >= seen.rows
        and all(_amount(value) for value in seen.values.get(name, {"": 0}))
    ]


def _is_candidate(seen: Survey, name: str) -> bool:
    """Whether every cell of a column could be a label's: 0, 1, empty, a usual word, its own name, or a number."""
    values = seen.values[name]
    own = len(values) == 1 and next(iter(values)).casefold() == name.casefold()
    words = set(_TRUE_WORDS) | set(_TRUE_WORDS.values())
    return own or all(
        value.casefold() in words or seen.cells.value(value) is not None or _amount(value) or share(value) is not None
        for value in values
    )


def _amount(value: str) -> bool:
    found = number(value)
    return found is not None and 0 <= found <= _LARGEST


def _unread(seen: Survey, names: Sequence[str]) -> dict[str, list[str]]:
    """The different cells of each column that are read neither as 0 nor as 1."""
    return {name: [value for value in seen.values.get(name, {}) if seen.cells.value(value) is None] for name in names}


def _cells(seen: Survey, values: dict[str, list[str]]) -> int:
    """Number of cells that have one of these values."""
    return sum(seen.values[name][value][0] for name, own in values.items() for value in own)


def _numbers(seen: Survey, names: Sequence[str]) -> _Found | None:
    """Intensities, counts or shares."""
    wrong = {name: list(filter(_amount, values)) for name, values in _unread(seen, names).items()}
    amounts = [number(value) or 0.0 for values in wrong.values() for value in values]
    cells = _cells(seen, wrong)
    if cells < _MANY:
        return None
    named = files.listed([name for name in wrong if wrong[name]])
    if seen.cells.soft:
        return _beyond(seen, wrong, max(amounts), f"the columns {named} hold {cells:,} numbers")
    shares = max(amounts) < 1
    kind = "shares of annotators" if shares else "intensities or counts"
    whole = all(amount == int(amount) for amount in amounts)
    least = "0.5" if shares or not whole else "1"
    setting = f"data.present_from={least}, with which a label is present from {least} on,"
    ways: list[dict[str, Any]] = [{"present_from": float(least)}]
    if shares:
        setting = f"data.targets=shares, with which they are learned as they are, or {setting}"
        ways.insert(0, {"targets": "shares"})
    elif whole and max(amounts) <= _INTENSITIES:
        setting += f" or data.scale={max(amounts):g}, with which intensities are learned,"
        ways.append({"scale": max(amounts)})
    elif max(amounts) > _INTENSITIES:
        setting += " or, if they are percentages, data.scale=100 data.present_from=50"
        ways.append({"scale": 100.0, "present_from": 50.0})
    what = f"the columns {named} look like {kind}: {cells:,} cells are neither 0 nor 1 ({_examples(seen, wrong)})"
    return what, setting, ways


def _beyond(seen: Survey, wrong: dict[str, list[str]], largest: float, what: str) -> _Found | None:
    """Numbers beyond the shares or intensities that the settings ask for."""
    cells = seen.cells
    if cells.counts:
        return None  # each is told with its row
    examples = f"{what} where {cells.due.rstrip(',')} is due: up to {largest:g} ({_examples(seen, wrong)})"
    if largest > _INTENSITIES:
        ways = [{"targets": "hard", "scale": 100.0, "present_from": 50.0}]
        return examples, "as percentages, data.scale=100 data.present_from=50", ways
    scale = float(math.ceil(largest))
    counts = "" if cells.scale is not None else ", and as counts data.annotators_column=… with data.labels=[…],"
    return examples, f"as intensities, data.scale={scale:g}{counts}", [{"targets": "hard", "scale": scale}]


def _percentages(seen: Survey, names: Sequence[str]) -> _Found | None:
    """Shares of annotators, written as percentages."""
    wrong = {
        name: [value for value in values if value.endswith("%") and share(value) is not None]
        for name, values in _unread(seen, names).items()
    }
    cells = _cells(seen, wrong)
    if cells < _MANY or seen.cells.soft:
        return None
    return (
        f"the columns {files.listed([name for name in wrong if wrong[name]])} look like percentages of annotators: "
        f"{cells:,} cells are neither 0 nor 1 ({_examples(seen, wrong)})",
        "data.targets=shares, with which they are learned as they are,",
        [{"targets": "shares"}],
    )


def _words(seen: Survey, names: Sequence[str]) -> _Found | None:
    """Words such as yes and no."""
    wrong = {
        name: [value for value in values if binary(value) is None and number(value) is None]
        for name, values in _unread(seen, names).items()
    }
    said = {value.casefold() for values in wrong.values() for value in values}
    if seen.cells.soft:
        return None
    yes = sorted(said & _TRUE_WORDS.keys())
    no = sorted(said & {_TRUE_WORDS[word] for word in yes if _TRUE_WORDS[word]})
    if not yes or said - set(yes) - set(no):
        return None
    return _word_settings(seen, wrong, yes, no)


def _others(seen: Survey, names: Sequence[str]) -> _Found | None:
    """Words of which it is not known whether they mean 0 or 1."""
    wrong = _unread(seen, names)
    cells = _cells(seen, wrong)
    if cells < _MANY or seen.cells.soft:
        return None
    return (
        f"{cells:,} cells of {files.listed([name for name in wrong if wrong[name]])} are neither 0 nor 1 "
        f"({_examples(seen, wrong)}), which may be words for 1 and 0",
        "data.true_values=[…] data.false_values=[…]",
        [],
    )


def _one_value(seen: Survey, names: Sequence[str]) -> _Found | None:
    """The name of the label, or nothing."""
    wrong = {
        name: list(seen.values[name])
        for name in names
        if len(seen.values[name]) == 1 and next(iter(seen.values[name])).casefold() == name.casefold()
    }
    return _word_settings(seen, wrong, sorted(name.casefold() for name in wrong), []) if len(wrong) > 1 else None


def _word_settings(seen: Survey, wrong: dict[str, list[str]], yes: list[str], no: list[str]) -> _Found | None:
    named = [name for name in wrong if wrong[name]]
    cells = _cells(seen, wrong)
    if cells < _MANY:
        return None
    blank = sum(seen.blank[name] for name in named)
    settings = [f"data.true_values=[{','.join(yes)}]"]
    way: dict[str, Any] = {"true_values": yes}
    if no:
        settings.append(f"data.false_values=[{','.join(no)}]")
        way["false_values"] = no
    if blank and not (seen.cells.blank_is_zero or seen.cells.blank_is_open):
        settings.append("data.missing=zero")
        way["missing"] = "zero"
    empty = f" and {blank:,} empty ones" if blank else ""
    return (
        f"the columns {files.listed(named)} look like labels written in words: {cells:,} cells{empty} instead of 0 "
        f"and 1 ({_examples(seen, wrong)})",
        " ".join(settings),
        [way],
    )


def _blanks(seen: Survey, names: Sequence[str]) -> _Found | None:
    """1 or nothing."""
    if seen.cells.blank_is_zero or seen.cells.blank_is_open or seen.cells.soft:
        return None
    wrong = [name for name in names if seen.binary[name] and 0 < seen.blank[name] == seen.rows - seen.binary[name]]
    cells = sum(seen.blank[name] for name in wrong)
    if cells < _MANY:
        return None
    ones = int(sum(seen.ones[name] for name in wrong))
    return (
        f"the columns {files.listed(wrong)} look like labels whose zeros are left empty: {cells:,} cells are empty and "
        f"{ones:,} are 1",
        "data.missing=zero, with which an empty cell is 0, or data.missing=mask, which leaves such labels open,",
        [{"missing": "zero"}, {"missing": "mask"}],
    )


def _examples(seen: Survey, wrong: dict[str, list[str]]) -> str:
    """Three of the cells, with their rows."""
    found = [(seen.values[name][value][1], name, value) for name, values in wrong.items() for value in values]
    return ", ".join(f"{value!r} in row {row}, column {name}" for row, name, value in sorted(found)[:3])
