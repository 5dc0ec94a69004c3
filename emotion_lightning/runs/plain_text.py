"""Convert text to one printable line, and escape it for Markdown."""

import re


def markdown_line(text: str) -> str:
    """Text as one line, with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>#~$&])", r"\\\1", printable(text))


def markdown_cell(text: str) -> str:
    """Text as a cell of a Markdown table, escaped."""
    return markdown_line(text).replace("|", "\\|")


def printable(text: str) -> str:
    """Text as one line without control characters, which a terminal would execute."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", str(text)).split())


def excerpt(text: str, letters: int = 400) -> str:
    """The first `letters` characters of a text as one line; if it is longer, the full length is appended."""
    line = printable(text)
    return line if len(line) <= letters else f"{line[:letters]}… ({len(line):,} letters)"
