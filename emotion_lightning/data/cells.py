"""What a cell of a table says: a text, a yes or no, or the labels of a row."""

import ast
import math
from typing import Any

import numpy as np

_BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}


def as_text(cell: Any) -> str | None:
    """A cell as text; None where it holds nothing or a structure."""
    if isinstance(cell, str):
        return cell
    if cell is None or isinstance(cell, dict | list) or is_nan(cell):
        return None
    return str(cell)


def is_nan(cell: Any) -> bool:
    """Whether a cell is the number that pandas writes for nothing."""
    return isinstance(cell, float) and math.isnan(cell)


def is_blank(cell: Any) -> bool:
    """Whether a cell says nothing."""
    return cell is None or cell == "" or (isinstance(cell, str) and cell.isspace()) or is_nan(cell)


def binary(cell: Any) -> int | None:
    """0 or 1 for a cell that says so, as number, text or truth value; else None.

    >>> [binary(cell) for cell in (1, "0", True, "false", 1.0, "yes", 2, 0.5, "")]
    [1, 0, 1, 0, 1, None, None, None, None]
    """
    return _BINARY.get(str(cell).strip().lower())


def spelled(cell: Any) -> str | None:
    """How a cell says 0 or 1, in words; None where it does not."""
    if binary(cell) is None:
        return None
    return "true and false" if str(cell).strip().lower() in ("true", "false") else "0 and 1"


def split_labels(cell: Any, separator: str) -> list[str]:
    """Names or ids in a cell: a list, or text with a separator.

    >>> split_labels("joy | love", "|"), split_labels([3, 7], ","), split_labels(None, ",")
    (['joy', 'love'], ['3', '7'], [])
    """
    if cell is None or is_nan(cell):
        return []
    if isinstance(cell, str) and is_written_list(cell):
        cell = _written_list(cell)
    parts = cell if isinstance(cell, list | tuple | np.ndarray) else str(cell).split(separator)
    return [str(part).strip() for part in parts if str(part).strip()]


def is_written_list(cell: str) -> bool:
    """Whether a cell looks like a list that was printed."""
    return cell.strip().startswith("[") and cell.strip().endswith("]")


def _written_list(cell: str) -> Any:
    """The list that pandas wrote into a csv cell as Python would print it; the cell itself where it is none."""
    try:
        parts = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return parts if isinstance(parts, list) else cell
