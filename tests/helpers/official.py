"""Folders in the layouts of official datasets, with a few invented lines."""

from collections.abc import Iterable, Sequence
from pathlib import Path

XED_LINES = [
    ("I told you not to open it !", "1"),
    ("we will know tomorrow", "2"),
    ("the soup has a hair in it", "3"),
    ("someone is at the window", "4, 7"),
    ("she said yes", "5"),
    ("he never wrote again", "6"),
    ("I did not expect the two of you", "7"),
    ("leave the keys with me", "8, 5"),
]
XED_NEUTRAL = ["the train leaves at nine", "it is on the second floor", "two sugars, please"]


def xed(folder: Path, *, repeat: int = 1, neutral: bool = True, projected: Iterable[str] = ("de",)) -> Path:
    """Write a folder of XED: en and fi, and projections of other languages."""
    for place in ("AnnotatedData", "Projections"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for language in ("en", "fi"):
        lines = [
            f"{language} {number} {text}\t{labels}" for number in range(repeat) for text, labels in XED_LINES
        ]  # fmt: skip
        write(folder / "AnnotatedData" / f"{language}-annotated.tsv", lines, newline="\r\n")
        if neutral:
            # English lines have a number and the text, Finnish ones three cells more.
            more = "\t2\t428\tfi/1965/1/2.xml.gz" if language == "fi" else ""
            texts = [f"9\t{language} {number} {text}{more}" for number in range(repeat) for text in XED_NEUTRAL]
            write(folder / "AnnotatedData" / f"neu_{language}.txt", texts)
    for language in projected:
        write(
            folder / "Projections" / f"{language}-projections.tsv",
            [f"{language} {number} {text}\t{labels}" for number in range(repeat) for text, labels in XED_LINES],
        )
    return folder


def write(path: Path, lines: Sequence[str], *, newline: str = "\n") -> Path:
    """Write lines into a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + newline for line in lines).encode())
    return path


EMOTIONS = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
LACKING = {"eng": "disgust", "afr": "surprise"}
"""The column that a language lacks, as in the official files."""


def brighter(
    folder: Path, languages: Sequence[str] = ("deu", "eng"), *, rows: int = 6, layout: str = "track_a/{}"
) -> Path:
    """Write a folder of track A; row i has the labels i and 2 i + 1, counted around."""
    for split, part in (("train", rows), ("dev", max(rows // 2, 3)), ("test", max(rows // 2, 3))):
        for language in languages:
            write(folder / layout.format(split) / f"{language}.csv", brighter_lines(language, split, part))
    return folder


def brighter_lines(language: str, split: str, rows: int, *, labelled: bool = True) -> list[str]:
    """The lines of a file of track A."""
    names = [name for name in EMOTIONS if name != LACKING.get(language)]
    lines = [",".join(["id", "text", *names])]
    for i in range(rows):
        has = {EMOTIONS[i % 6], EMOTIONS[(2 * i + 1) % 6]}
        cells = [str(int(name in has)) if labelled else "" for name in names]
        text = f'"{language} {split}, sentence {i}"'
        lines.append(",".join([f"{language}_{split}_track_a_{i:05}", text, *cells]))
    return lines
