"""BRIGHTER (Muhammad et al., 2025): the official files of SemEval-2025 Task 11, tracks A and B, in 28 languages."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import agreement, annotators, individual, languages, reading, splitting
from emotion_lightning.data.labels import hardened
from emotion_lightning.data.rows import Corpus, Problems, Rows
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

EMOTIONS = ["anger", "disgust", "fear", "joy", "sadness", "surprise"]
"""All labels; some languages lack one."""

_WHERE = (
    "BRIGHTER: clone https://github.com/emotion-analysis-project/SemEval2025-Task11 (no licence lets you pass it on)."
)
_RELEASE = "semeval-2025-task11-dataset"
_ROOTS = (".", _RELEASE, f"task-dataset/{_RELEASE}", "public_data")
_TRACK = "track_a"
_ZERO_SHOT = "track_c"
"""Track C: languages that are only tested on are there."""

_RULES = {
    config.Aggregate.majority: "those of most annotators of a text",
    config.Aggregate.share: "the shares of a text's annotators who saw them",
    config.Aggregate.any: "those of any annotator of a text",
    config.Aggregate.at_least_2: "those of two annotators of a text at least",
}
_PRESENT = 0.5
"""The share from which on a label is present, where shares are learned."""

_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_CELLS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_STRONGEST = 3
_INTENSITIES = {f"{value}{dot}": value for value in range(_STRONGEST + 1) for dot in ("", ".0")}
"""Cells of track B."""


def read(settings: config.Brighter) -> Corpus:
    """Read a track in the languages of the settings, as one set with its official splits.

    Raises:
        UserError: the folder or a file is missing or is none of the track; the message says what was looked for.
    """
    folder = languages.folder_of(settings, option="brighter", where=_WHERE)
    places = _places(folder, f"track_{settings.track.value}")
    known = sorted(path.stem for path in places["train"].glob("*.csv") if path.stem.isalpha())
    train, test = languages.chosen(settings, known)
    problems = Problems()
    parts = [
        _part(split, language, _file(places, split, language, known, folder), problems, settings.track)
        for split, wanted in {"train": train, "validation": train, "test": test}.items()
        for language in wanted
        if split != "test" or _has_test(places, language, settings)
    ]
    problems.raise_any()
    votes, said = _individual(parts, folder, settings) if settings.individual else ({}, [])
    blind = _blind_tests(parts)
    parts = [part for part in parts if part not in blind]
    masked = settings.missing is config.Lacking.mask
    names, left = (_all(parts), {}) if masked else _common(parts)
    corpus = languages.assembled(parts, names, settings)
    if settings.individual:
        corpus.decisions.labels = f"individual annotations, {_RULES[settings.aggregate]}"
    if settings.track is config.Track.b:
        corpus.decisions.labels = f"as in the official files, intensities up to {_STRONGEST}"
    for sentence in filter(None, [_of_blind(blind), _of_left(names, left), *said]):
        log.warning("%s", sentence)
        corpus.decisions.notes.append(sentence)
    if left:
        corpus.decisions.labels += ", those that all languages have"
    if settings.test_languages is not None:
        corpus.decisions.split += f", test in {', '.join(test)}"
    for rows in corpus.splits.values():
        rows.hardens = settings.harden
    if masked:
        corpus.decisions.open = reading.open_labels(corpus)
    return _with_judgements(corpus, votes) if votes else corpus


def _places(folder: Path, track: str) -> dict[str, Path]:
    """The folder of each split of a track, in one of the layouts that the files are handed around in.

    Raises:
        UserError: there is none.
    """
    for root in (folder / name for name in _ROOTS):
        # Files without a folder of their track are of track A.
        for first, second in ((track, "{}"), ("{}", track), *([("{}", ".")] if track == _TRACK else [])):
            found = {name: root / first.format(part) / second.format(part) for name, part in _SPLITS.items()}
            if any(found["train"].glob("*.csv")):
                return found
    raise UserError(
        f"{folder} has no {track}/train/eng.csv, nor another language there; data.dir must name the folder of {_WHERE}"
    )


def _file(places: dict[str, Path], split: str, language: str, known: Sequence[str], folder: Path) -> Path:
    path = places[split] / f"{language}.csv"
    if path.is_file():
        return path
    other = _zero_shot(places, split, language)
    if split == "test" and other.is_file():
        return other
    looked = path.relative_to(folder) if path.is_relative_to(folder) else path
    if language not in known:
        raise languages.unknown(language, known, str(looked), folder)
    raise UserError(f"{folder} has no {looked}, which the language {language} needs; take it from {_WHERE}")


def _zero_shot(places: dict[str, Path], split: str, language: str) -> Path:
    """The file of a language that is only in track C."""
    return Path(str(places[split]).replace(_TRACK, _ZERO_SHOT)) / f"{language}.csv"


def _has_test(places: dict[str, Path], language: str, settings: config.Brighter) -> bool:
    """Whether a test file is to be read: a language that was named for the test must have one."""
    if settings.test_languages is not None or (places["test"] / f"{language}.csv").is_file():
        return True
    log.warning("%s has no %s.csv: the language %s is not in the test split.", places["test"], language, language)
    return False


def _part(split: str, language: str, path: Path, problems: Problems, track: config.Track) -> languages.Part:
    records = languages.records(path, delimiter=",")
    _, header = next(records, (0, []))
    names = [languages.plain_name(name) for name in header]
    found = names[2:]
    if names[:2] != ["id", "text"] or not found or set(found) - set(EMOTIONS) or len(set(found)) < len(found):
        shown = ",".join(header)[:100]
        raise UserError(
            f"{path}: its first line is not that of track {track.value.upper()}, id, text and some of "
            f"{', '.join(EMOTIONS)}, but {shown or 'empty'}; data.dir must name the folder of {_WHERE}"
        )
    ids, texts, cells, numbers, empty = [], [], [], [], 0
    for row, record in ((number - 1, record) for number, record in records):
        if len(record) != len(header):
            problems.add(path, f"{len(record)} cells under a header of {len(header)} columns.", row=row)
            continue
        if not record[1].strip():
            empty += 1
            continue
        ids.append(record[0])
        texts.append(record[1])
        cells.append(record[2:])
        numbers.append(row)
    blind = bool(cells) and all(not any(cell.strip() for cell in record) for record in cells)
    if blind and split != "test":
        raise UserError(f"{path} has no labels, which {split} needs; take the file with labels from {_WHERE}")
    targets = None if blind else _targets(path, cells, numbers, header[2:], problems, track)
    if not ids and not problems.count:
        problems.note(path, f"{path} has a header and no rows.")
    order = sorted(range(len(found)), key=lambda i: EMOTIONS.index(found[i]))
    rows = Rows(ids, texts, None if targets is None else targets[:, order], "id")
    if rows.targets is not None and track is config.Track.b:
        rows.shares, rows.scale = rows.targets / np.float32(_STRONGEST), float(_STRONGEST)
        rows.targets = (rows.targets > 0).astype(np.float32)
    about = {"format": "csv"} | ({"left_out": {"without a text": empty}} if empty else {})
    return languages.Part(split, language, path, rows, [found[i] for i in order], about)


def _targets(
    path: Path, cells: list[list[str]], numbers: list[int], columns: list[str], problems: Problems, track: config.Track
) -> np.ndarray:
    """The labels of track A, or the intensities of track B, [row, column]."""
    meaning, due = (_CELLS, "0 or 1") if track is config.Track.a else (_INTENSITIES, "0 to 3")
    targets = np.zeros((len(cells), len(columns)), np.float32)
    for place, (row, record) in enumerate(zip(numbers, cells, strict=True)):
        for i, cell in enumerate(record):
            value = meaning.get(cell.strip())
            if cell.strip() in ("2", "3") and track is config.Track.a:
                raise UserError(
                    f"{path}, row {row}, column {columns[i]}: {cell.strip()} is an intensity, so this is track B; "
                    f"data.track=b reads its folder, and data.dir must name the folder of {_WHERE}"
                )
            if value is None:
                problems.add(path, f"{cell[:60]!r} where {due} is due.", row=row, column=columns[i])
            targets[place, i] = value or 0
    return targets


def _individual(
    parts: list[languages.Part], folder: Path, settings: config.Brighter
) -> tuple[dict[str, individual.Votes], list[str]]:
    """Give the parts the labels of individual annotations, and leave out texts without them.

    Returns:
        The annotations of each language, and sentences about both.
    """
    masked = settings.missing is config.Lacking.mask
    votes = {name: individual.read(folder, name, _WHERE) for name in dict.fromkeys(part.language for part in parts)}
    bare = agreed = cells = 0
    for part in parts:
        own = votes[part.language]
        names = [name for name in EMOTIONS if name in own.labels]
        seen, asked = own.of(part.rows.texts, names)
        kept = np.flatnonzero((asked > 0).any(axis=1) if masked else (asked > 0).all(axis=1))
        seen, asked = seen[kept], asked[kept]
        bare += len(part.rows) - len(kept)
        official = part.rows.take(kept)
        shares = (seen / np.maximum(asked, 1)).astype(np.float32)
        if settings.soft:
            targets = hardened(shares, _PRESENT)
        else:
            targets = annotators.decided(seen.astype(float), asked.astype(float), settings.aggregate)
        if official.targets is not None:
            shared = [name for name in names if name in part.labels]
            ours = targets[:, [names.index(name) for name in shared]]
            theirs = official.targets[:, [part.labels.index(name) for name in shared]]
            agreed, cells = agreed + int((ours == theirs).sum()), cells + ours.size
        open_ = asked == 0
        part.rows = replace(
            official,
            targets=targets,
            shares=shares if settings.soft else None,
            open=open_ if open_.any() else None,
        )
        part.labels = names
        part.about["annotations"] = [str(path) for path in own.paths]
        if len(part.rows) == 0:
            raise UserError(f"No text of {part.path} has annotations in {own.paths[0]}.")
    rule = _RULES[settings.aggregate]
    found = [f"Labels are {rule}; {agreed / cells:.1%} of them are as in track A."] if cells else []
    if bare:
        found.append(
            f"Texts without individual annotations of {'a' if masked else 'every'} label are left out: {bare:,}."
        )
    return votes, found


def _with_judgements(corpus: Corpus, votes: dict[str, individual.Votes]) -> Corpus:
    """The corpus with what each annotator said of its texts; of texts that stand in it twice, once."""
    texts: dict[str, list[str]] = {}
    for rows in corpus.splits.values():
        for text, language in zip(rows.texts, rows.carried[languages.LANGUAGE], strict=True):
            texts.setdefault(str(language), []).append(text)
    parts, places, start = [], [], 0
    for language, own in texts.items():
        rows, numbers = votes[language].rows(own, corpus.labels)
        rows.carried = {languages.LANGUAGE: [language] * len(rows)}
        parts.append(rows)
        places.append(numbers + start)
        start += int(numbers.max(initial=-1)) + 1
    return agreement.with_judgements(
        corpus,
        {individual.FOLDER: splitting.joined(parts)},
        {individual.FOLDER: np.concatenate(places)},
        column=individual.FOLDER,
    )


def _blind_tests(parts: list[languages.Part]) -> list[languages.Part]:
    """The test files without labels, if others have them: a split has labels or has none."""
    tests = [part for part in parts if part.split == "test"]
    blind = [part for part in tests if part.rows.targets is None]
    return blind if len(blind) < len(tests) else []


def _of_blind(blind: list[languages.Part]) -> str | None:
    if not blind:
        return None
    return f"Test files without labels are not in the test split: {', '.join(str(part.path) for part in blind)}."


def _common(parts: list[languages.Part]) -> tuple[list[str], dict[str, list[str]]]:
    """The labels that all languages have, and for each of the others the languages that lack it."""
    first: dict[str, languages.Part] = {}
    for part in parts:
        other = first.setdefault(part.language, part)
        if part.labels != other.labels:
            raise UserError(
                f"{part.path}: its labels are {', '.join(part.labels)}, those of {other.path} are "
                f"{', '.join(other.labels)}; take both from one copy of {_WHERE}"
            )
    spoken = {language: part.labels for language, part in first.items()}
    lacking = {name: [language for language, own in spoken.items() if name not in own] for name in EMOTIONS}
    kept = [name for name in EMOTIONS if not lacking[name]]
    if not kept:
        raise UserError("The languages have no label in common; choose others with data.languages.")
    return kept, {name: without for name, without in lacking.items() if 0 < len(without) < len(spoken)}


def _all(parts: list[languages.Part]) -> list[str]:
    """The labels that any of the languages has."""
    return [name for name in EMOTIONS if any(name in part.labels for part in parts)]


def _of_left(kept: list[str], left: dict[str, list[str]]) -> str | None:
    if not left:
        return None
    why = "; ".join(
        f"{name}, which {', '.join(without)} {'lacks' if len(without) == 1 else 'lack'}"
        for name, without in left.items()
    )
    return f"Labels are those that all languages have: {', '.join(kept)}. Left out: {why}."
