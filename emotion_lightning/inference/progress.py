"""A progress bar for functions that notebooks and other programs call."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emotion_lightning import terminal


@contextmanager
def counting(total: int, *, shown: bool) -> Iterator[Callable[[int], object]]:
    """Show a progress bar during the block, and yield the function that advances it by a number of texts.

    Args:
        total: number of texts.
        shown: whether the caller asked for it. Nothing is shown where there is neither a terminal nor a notebook.
    """
    if not (shown and terminal.can_show_bar()):
        yield lambda texts: None
        return
    # Without ipywidgets, tqdm.auto warns before it falls back to characters.
    if terminal.in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    with tqdm(total=total, desc="Predicting", unit="text") as bar:
        yield bar.update
