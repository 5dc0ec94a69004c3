"""Weak labels: a text has an emotion if it has one of the emotion's words."""

import csv
import re
from pathlib import Path
from typing import Any


def read(texts: str, lexicon: str, max_tokens: int = 128) -> list[dict[str, Any]]:
    """Label texts by a lexicon.

    Args:
        texts: Path of a file with one text in each line.
        lexicon: Path of a csv with the columns word and emotion.
        max_tokens: Maximum number of tokens per text; longer texts are truncated.
    """
    with Path(lexicon).expanduser().open(encoding="utf-8", newline="") as file:
        emotions = [(row["word"].lower(), row["emotion"]) for row in csv.DictReader(file)]
    names = sorted({emotion for _, emotion in emotions})
    rows = []
    for line in Path(texts).expanduser().read_text(encoding="utf-8").splitlines():
        words = set(re.findall(r"\w+", line.lower()))
        found = {emotion for word, emotion in emotions if word in words}
        rows.append({"text": line, **{name: int(name in found) for name in names}})
    return rows
