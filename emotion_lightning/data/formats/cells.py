"""Parses the cells of a table: as text, as 0 or 1, or as the labels of a row."""

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from emotion_lightning.data.labels import normalised

_BINARY = {"0": 0, "1": 1, "true": 1, "false": 0}
_ZEROS = re.compile(r"([01])\.0+")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)


def as_text(cell: Any) -> str | None:
    """A cell as text; None for null, NaN, a list or a dict."""
    if isinstance(cell, str):
        return cell
    if cell is None or isinstance(cell, dict | list) or is_nan(cell):
        return None
    return str(cell)


def is_nan(cell: Any) -> bool:
    """Whether a cell is NaN, which pandas writes for a missing value."""
    return isinstance(cell, float) and math.isnan(cell)


def is_blank(cell: Any) -> bool:
    """Whether a cell is null, NaN, empty or white space."""
    return cell is None or cell == "" or (isinstance(cell, str) and cell.isspace()) or is_nan(cell)


def binary(cell: Any) -> int | None:
    """0 or 1 if a cell has that value as number, text or bool; otherwise None.

    >>> [binary(cell) for cell in (1, "0", True, "false", 1.0, "yes", 2, 0.5, "")]
    [1, 0, 1, 0, 1, None, None, None, None]
    """
    said = str(cell).strip().lower()
    whole = _ZEROS.fullmatch(said)
    return _BINARY.get(whole[1] if whole else said)


def number(cell: Any) -> float | None:
    """The finite value of a cell that is a number, or that is text that looks like one; otherwise None."""
    if isinstance(cell, bool | list | dict) or cell is None:
        return None
    try:
        value = float(str(cell).strip().replace(",", ".")) if _NUMBER.fullmatch(str(cell).strip()) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def share(cell: Any) -> float | None:
    """The share that a cell says, from 0 to 1: a number, or a percentage with its sign; otherwise None.

    >>> [share(cell) for cell in (0.5, "60%", "0,25", True, "7", "-1", "")]
    [0.5, 0.6, 0.25, 1.0, None, None, None]
    """
    said = str(cell).strip()
    value = number(said[:-1].strip()) if said.endswith("%") else number(cell)
    if value is None:
        whole = binary(cell)
        return None if whole is None else float(whole)
    value = value / 100 if said.endswith("%") else value
    return value if 0 <= value <= 1 else None


@dataclass(frozen=True)
class LabelCells:
    """How cells of label columns are read: as 0 or 1, or as shares.

    Attributes:
        true_values: words that mean 1, in lower case.
        false_values: words that mean 0, in lower case.
        blank_is_zero: whether an empty cell means 0.
        blank_is_open: whether an empty cell leaves its label open.
        present_from: a number means 1 from this value on; None: only 0 and 1 are allowed.
        shares: whether cells are shares from 0 to 1.
        scale: largest intensity, if cells are intensities, which are read as shares of it.
        counts: whether cells are numbers of annotators.
    """

    true_values: frozenset[str] = frozenset()
    false_values: frozenset[str] = frozenset()
    blank_is_zero: bool = False
    blank_is_open: bool = False
    present_from: float | None = None
    shares: bool = False
    scale: float | None = None
    counts: bool = False

    @property
    def soft(self) -> bool:
        """Whether cells hold more than 0 and 1."""
        return self.shares or self.scale is not None or self.counts

    @property
    def due(self) -> str:
        """What a cell must be, for a message."""
        if self.scale is not None:
            return f"a number from 0 to {self.scale:g} (data.scale)"
        if self.counts:
            return "a whole number of annotators"
        return "a share from 0 to 1, or a percentage such as 60%," if self.shares else "0 or 1"

    def value(self, cell: Any) -> float | None:
        """0 or 1, a share or a count; None for a cell that is none.

        >>> cells = LabelCells(true_values=frozenset({"x"}), blank_is_zero=True)
        >>> [cells.value(cell) for cell in ("X", "", "1", "y")]
        [1, 0, 1, None]
        >>> [LabelCells(scale=4).value(cell) for cell in ("1", 4, "5", "")]
        [0.25, 1.0, None, None]
        """
        if self.blank_is_zero and is_blank(cell):
            return 0
        if self.scale is not None:
            intensity = number(cell)
            return intensity / self.scale if intensity is not None and 0 <= intensity <= self.scale else None
        if self.counts:
            count = number(cell)
            return count if count is not None and count >= 0 and count == int(count) else None
        if self.shares:
            return share(cell)
        if self.true_values or self.false_values:
            said = str(cell).strip().casefold()
            if said in self.true_values or said in self.false_values:
                return int(said in self.true_values)
        if self.present_from is not None and (value := number(cell)) is not None:
            return int(value >= self.present_from) if value >= 0 else None
        return binary(cell)

    def words(self, cell: Any) -> str | None:
        """How a cell writes 0 or 1, for a message; None if it is neither, or may stand beside other ways of writing."""
        if self.soft or self.present_from is not None:
            return None
        if str(cell).strip().casefold() in self.true_values | self.false_values:
            return None
        return spelled(cell)


PLAIN = LabelCells()
"""Only 0, 1, true and false."""


def spelled(cell: Any) -> str | None:
    """How a cell writes 0 or 1, for a message; None if it is neither."""
    if binary(cell) is None:
        return None
    return "true and false" if str(cell).strip().lower() in ("true", "false") else "0 and 1"


def shown(cell: Any) -> str:
    """A cell for a message: shortened, and in quotes if it is text."""
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:50]} … ({len(text):,} characters)"


def split_labels(cell: Any, separator: str) -> list[str]:
    """Label names or ids in a cell, which may be a list, a printed list, or text with a separator.

    Raises:
        ValueError: the cell is a dict, or a list with null or a nested structure.

    >>> split_labels("joy | love", "|"), split_labels([3, 7], ","), split_labels(None, ",")
    (['joy', 'love'], ['3', '7'], [])
    >>> split_labels("['joy' 'love']", ","), split_labels('["joy", "love"]', ","), split_labels("(2, 7)", ",")
    (['joy', 'love'], ['joy', 'love'], ['2', '7'])
    """
    if is_blank(cell) or cell in ("nan", "NaN"):  # pandas writes these for a missing value
        return []
    if isinstance(cell, dict):
        raise ValueError("is a mapping, not a list of labels")
    if isinstance(cell, str):
        printed = _printed_list(cell.strip())
        if printed is None:
            return [normalised(part) for part in cell.split(separator) if part.strip()]
        cell = printed
    return [_name(part) for part in (cell if isinstance(cell, list | tuple) else [cell]) if str(part).strip()]


def _name(part: Any) -> str:
    if part is None or is_nan(part):
        raise ValueError("has a null among its labels")
    if isinstance(part, list | tuple | dict):
        raise ValueError("has a list among its labels")
    whole = isinstance(part, bool) or (isinstance(part, float) and part.is_integer())
    return str(int(part)) if whole else normalised(str(part))


def is_odd(name: str) -> bool:
    """Whether a name has quotes or brackets of a list that was not parsed.

    >>> [is_odd(name) for name in ("joy", "joy (mild)", "('joy'", "'love')", "[3 10]", "don't know")]
    [False, False, True, True, True, False]
    """
    unbalanced = any(name.count(first) != name.count(last) for first, last in ("()", "[]", "{}"))
    return unbalanced or name[:1] in "'\"[{" or name[-1:] in "'\"]}"


_PAIRS = {"[": "]", "(": ")", "{": "}"}
_NO_COMMA = re.compile(r"""(?<=['"\d.])\s+(?=['"\d-])""")


def _printed_list(text: str) -> list[Any] | None:
    """Parse a list that JSON, Python or numpy printed; None if the text is not such a list."""
    if text[-1] != _PAIRS.get(text[0]):
        return None
    # numpy prints no commas, and Python would read two adjacent strings as one.
    for read, source in ((json.loads, text), (ast.literal_eval, _NO_COMMA.sub(", ", text))):
        try:
            parts = read(source)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return sorted(parts) if isinstance(parts, set) else list(parts) if isinstance(parts, list | tuple) else None
    inner = text[1:-1]
    return None if re.search(r"[\[\](){}'\"]", inner) else inner.split(",")
