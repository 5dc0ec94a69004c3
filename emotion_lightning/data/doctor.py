"""Looks for settings that read a file which cannot be read as it is, and says what each of its columns is taken for.

The ways that an error proposes (`UserError.ways`) are tried. Where it proposes none there are guesses: the column with
the longest texts, and columns of few words. A way is told only after the whole file was read with it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import checks, schema
from emotion_lightning.data import kinds, reading, sources, split_column
from emotion_lightning.data.columns import ROW_NUMBERS, Columns, find_columns
from emotion_lightning.data.formats import files, tools
from emotion_lightning.data.formats.cells import as_text, is_blank, number
from emotion_lightning.data.rows import Corpus, Problems, Source
from emotion_lightning.data.survey import Survey
from emotion_lightning.errors import UserError
from emotion_lightning.runs import quiet

_TRIES = 12
"""Readings of the file that are tried at most."""

_TOLD = 3
"""Ways and columns of labels that are told at most."""

_FEW_WORDS = 3
"""A label has hardly more words than this, and a text hardly fewer."""

_LABELS = 60
"""Different labels that a column of labels has at most, as a guess."""

_PLACES = ("path", "train", "validation", "test")
"""Settings that name files."""

_EMOTIONS = {
    "anger", "angry", "annoyance", "anticipation", "disgust", "disgusted", "fear", "fearful", "happiness", "happy",
    "hate", "joy", "joyful", "love", "neutral", "optimism", "pessimism", "sad", "sadness", "scared", "shame",
    "surprise", "surprised", "trust", "worry",
}  # fmt: skip
"""Usual names of emotions. A column that has some of them holds labels rather than a speaker or a topic."""


@dataclass(frozen=True)
class Column:
    """What a column holds and what it is taken for.

    Attributes:
        name: its name.
        taken: text, id, label, labels, split, annotators, or - if it is left aside.
        why: the reason, as part of a sentence.
        blank: fraction of its cells that are empty.
        holds: its most frequent cells with their shares, or an example of a text.
    """

    name: str
    taken: str
    why: str
    blank: float
    holds: str


@dataclass(frozen=True)
class Way:
    """Settings that read the file.

    Attributes:
        settings: names without `data.`, and plain values.
        corpus: what is read with them.
    """

    settings: dict[str, Any]
    corpus: Corpus


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a file that cannot be read as it is.

    Attributes:
        path: the first file.
        about: how it is read: format, encoding, delimiter; empty if nothing of it can be read.
        rows: its number of rows.
        columns: its columns, read with the first way if there is one.
        ways: settings that read it, those with the fewest first.
    """

    path: Path
    about: dict[str, Any]
    rows: int
    columns: list[Column]
    ways: list[Way]


def examine(settings: config.File, error: UserError) -> Diagnosis:
    """Look for settings that read a file.

    Args:
        settings: with which it cannot be read.
        error: why.
    """
    with quiet.only_errors("emotion_lightning.data"):
        ways = _find_ways(settings, error)
        known = changed(settings, ways[0].settings) if ways else settings
        source = _first_source(known)
        if source is None:
            return Diagnosis(_paths(settings)[0], {}, 0, [], ways)
        known = tools.with_roles(known, source.roles)
        seen = reading.survey_table(source, Problems(), known)
        return Diagnosis(source.path, source.about, seen.rows, _columns(source, seen, known), ways)


def changed(settings: config.File, way: Mapping[str, Any]) -> config.File:
    """The settings with those of a way."""
    result: config.File = schema.from_plain(type(settings), schema.plain(settings) | dict(way))
    return result


# ---------------------------------------------------------------------------------------------------------------- ways


def _find_ways(settings: config.File, error: UserError) -> list[Way]:
    """Try what errors propose, one setting more each round, until something reads the file."""
    round_: list[tuple[dict[str, Any], UserError]] = [({}, error)]
    known: list[dict[str, Any]] = [{}]
    tries = 0
    while round_:
        found: list[Way] = []
        failed: list[tuple[dict[str, Any], UserError]] = []
        for before, why in round_:
            for way in why.ways or _guesses(changed(settings, before)):
                merged = before | dict(way)
                if merged in known or tries == _TRIES:
                    continue
                known.append(merged)
                tries += 1
                try:
                    found.append(Way(merged, _read(changed(settings, merged))))
                except UserError as next_error:
                    failed.append((merged, next_error))
        if found:
            return found[:_TOLD]
        round_ = failed
    return []


def _read(settings: config.File) -> Corpus:
    checks.check_targets(settings)  # two ways may contradict each other
    return sources.split_corpus(sources.read_corpus(settings), settings, tell=False)


def _guesses(settings: config.File) -> list[dict[str, Any]]:
    """Ways for an error that proposes none: the column of texts, and columns that may list the labels of a row."""
    source = _first_source(settings)
    if source is None:
        return []
    settings = tools.with_roles(settings, source.roles)
    seen = reading.survey_table(source, Problems(), settings)
    try:
        text = files.text_column(source.path, seen.names, settings.text)
    except UserError:
        longest = _longest_texts(source, seen)
        return [{"text": longest}] if settings.text is None and longest is not None else []
    if settings.labels is not None or settings.labels_column is not None:
        return []
    taken = {text, split_column.find(source.path, seen, settings)}
    return [{"labels_column": name} for name in _lists_of_labels(seen, [n for n in seen.names if n not in taken])]


def _longest_texts(source: Source, seen: Survey) -> str | None:
    """The column with the most words in a cell; None if no column has texts, or several have about as many words."""
    chunk = next(iter(source.chunks(Problems())), None)
    if chunk is None:
        return None
    words = {
        name: sum(len(text.split()) for text in texts) / len(texts)
        for name in seen.names
        if (texts := [text for cell in chunk.column(name) if (text := as_text(cell)) and not is_blank(cell)])
    }
    ordered = sorted(words, key=lambda name: -words[name])
    if not ordered or words[ordered[0]] <= _FEW_WORDS:
        return None
    second = words[ordered[1]] if len(ordered) > 1 else 0.0
    return ordered[0] if words[ordered[0]] >= 2 * second else None


def _lists_of_labels(seen: Survey, names: Sequence[str]) -> list[str]:
    """Columns of few different short words, those with names of emotions first; only these, if there are some."""
    likely = [
        name
        for name in names
        if name in seen.values
        and not kinds.is_administrative(name)
        and 1 < len(seen.values[name]) <= min(_LABELS, seen.rows / 2)
        and all(number(value) is None and len(value.split()) <= _FEW_WORDS for value in seen.values[name])
    ]
    emotions = [name for name in likely if len(_EMOTIONS & {value.casefold() for value in seen.values[name]}) > 1]
    return (emotions or likely)[:_TOLD]


# ------------------------------------------------------------------------------------------------------------- columns


def _columns(source: Source, seen: Survey, settings: config.File) -> list[Column]:
    roles = _roles(source, seen, settings)
    return [
        Column(
            name, *roles.get(name, _left_aside(seen, name)), seen.blank[name] / max(1, seen.rows), _holds(seen, name)
        )
        for name in seen.names
    ]


def _roles(source: Source, seen: Survey, settings: config.File) -> dict[str, tuple[str, str]]:
    """What a column is taken for and why, for those that are used."""
    roles: dict[str, tuple[str, str]] = {}
    try:
        split = split_column.find(source.path, seen, settings)
        columns = find_columns(source, settings, seen, used={split, settings.annotator, settings.annotators_column})
    except UserError:
        return _single_roles(source, seen, settings)
    if split is not None:
        roles[split] = ("split", _given(settings.split_column, "split_column") or "its name and values")
    roles[columns.text] = ("text", _why_text(settings))
    for setting, name in (("annotator", settings.annotator), ("annotators_column", settings.annotators_column)):
        if name is not None:
            roles[name] = ("annotators", f"by data.{setting}")
    if columns.id is not None:
        roles[columns.id] = ("id", _given(settings.id_column, "id_column") or "a usual name")
    return roles | _label_roles(columns, settings)


def _label_roles(columns: Columns, settings: config.File) -> dict[str, tuple[str, str]]:
    if columns.labels_column is not None:
        why = _given(settings.labels_column, "labels_column") or "a usual name"
        return {columns.labels_column: ("labels", f"{why}; {len(columns.labels)} labels")}
    why = _given(settings.labels, "labels") or "0 and 1"
    if settings.labels is None:
        words = [name for name in ("true_values", "scale", "present_from") if getattr(settings, name) is not None]
        words = ["targets"] if settings.targets is config.Targets.shares else words
        why = f"by data.{words[0]}" if words else why
    return {name: ("label", why) for name in columns.labels}


def _single_roles(source: Source, seen: Survey, settings: config.File) -> dict[str, tuple[str, str]]:
    """What can be said of single columns where they do not make a whole."""
    roles: dict[str, tuple[str, str]] = {}
    try:
        text = files.text_column(source.path, seen.names, settings.text)
        roles[text] = ("text", _why_text(settings))
        identifier = files.id_column(source.path, seen.names, settings.id_column, text=text)
        if identifier is not None:
            roles[identifier] = ("id", "a usual name")
    except UserError:
        pass
    zeros_and_ones = [name for name in seen.names if seen.looks_binary(name) and not kinds.is_administrative(name)]
    return roles | {name: ("label", "0 and 1") for name in zeros_and_ones if name not in roles}


def _why_text(settings: config.File) -> str:
    return _given(settings.text, "text") or "a usual name"


def _given(value: object, setting: str) -> str | None:
    return None if value is None else f"by data.{setting}"


def _left_aside(seen: Survey, name: str) -> tuple[str, str]:
    if ROW_NUMBERS.match(name):
        return "-", "row numbers that pandas wrote"
    if seen.is_blank(name):
        return "-", "empty in every row"
    if seen.looks_binary(name):
        if kinds.is_administrative(name):
            return "-", "0 and 1, but its name describes a row"
        return "-", "0 and 1, but the same in every row" if seen.is_constant(name) else "0 and 1, but no label"
    if kinds.is_administrative(name):
        return "-", "its name describes a row"
    values = seen.values.get(name)
    if values is None:
        return "-", "many different cells"
    kind = "number" if all(number(value) is not None for value in values) else "word"
    return "-", f"the same {kind} in every row" if len(values) == 1 else f"{len(values)} different {kind}s, not 0 and 1"


def _holds(seen: Survey, name: str) -> str:
    """The most frequent cells of a column with their shares of all rows, or the first cell of a column of texts."""
    values = seen.values.get(name)
    if not values:
        return _short(as_text(seen.first.get(name)) or ("…" if name in seen.first else ""), 40)
    counts = Counter({value: count for value, (count, _) in values.items()})
    if len(values) > seen.rows / 2:
        return ", ".join(_short(value, 15) for value in list(values)[:3]) + (", …" if len(values) > 3 else "")
    shown = [f"{_short(value, 15)} {count / seen.rows:.0%}" for value, count in counts.most_common(4)]
    return ", ".join(shown) + (", …" if len(counts) > 4 else "")


def _short(text: str, letters: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


# --------------------------------------------------------------------------------------------------------------- files


def _paths(settings: config.File) -> list[Path]:
    given = next((path for name in _PLACES if (path := getattr(settings, name))), None)
    return reading.paths(given) if given else [Path()]


def _first_source(settings: config.File) -> Source | None:
    """The first file; None if nothing of it can be read."""
    try:
        source = next(iter(sources.file_sources(settings, Problems()).values()))[0]
        source = tools.prepared(source, settings)
        next(iter(source.chunks(Problems())), None)
    except (UserError, StopIteration, IndexError):
        return None
    return source


def option_file(settings: config.File, way: Mapping[str, Any]) -> dict[str, Any]:
    """The content of an option file of the data group that reads the file in this way.

    Paths are absolute, so that the option works from any folder.
    """
    default = schema.option_values("shared/batches", "shared/table", "shared/divided", "data/file")
    values = schema.plain(changed(settings, way))
    own = {name: value for name, value in values.items() if value != default.get(name)}
    for name in _PLACES:
        if own.get(name):
            paths = [str(path.absolute()) for path in reading.paths(own[name])]
            own[name] = paths[0] if len(paths) == 1 else f"[{','.join(paths)}]"
    places = {name: own.pop(name) for name in _PLACES if name in own}
    return {"defaults": ["file", "_self_"], **places, **own}


def free_name(folder: Path, data: Path) -> Path:
    """The name of an option file that does not exist yet, after the name of the data."""
    stem = re.sub(r"\W+", "_", data.name.split(".")[0]).strip("_").lower() or "mine"
    taken = set(schema.option_files("data"))
    names = (stem, *(f"{stem}_{number}" for number in range(2, 1000)))
    return next(
        folder / f"{name}.yaml" for name in names if name not in taken and not (folder / f"{name}.yaml").exists()
    )
