"""Text as one line that is safe to print, and as Markdown."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def markdown_line(text: str) -> str:
    """Text as one line of Markdown in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>#~$&])", r"\\\1", printable(text))


def markdown_cell(text: str) -> str:
    """Text as a cell of a Markdown table."""
    return markdown_line(text).replace("|", "\\|")


def printable(text: str) -> str:
    """Text as one line without control characters, which a terminal would obey."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", str(text)).split())


def excerpt(text: str, letters: int = 400) -> str:
    """Text as one line of a length that can be read, which says how much it leaves out."""
    line = printable(text)
    return line if len(line) <= letters else f"{line[:letters]}… ({len(line):,} letters)"
