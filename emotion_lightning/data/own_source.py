"""A dataset that a function of the user's own reads."""

import dataclasses
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import own_parts
from emotion_lightning.data import reading
from emotion_lightning.data.formats import arrow
from emotion_lightning.data.rows import SPLITS, WHOLE, Corpus
from emotion_lightning.errors import UserError, first_line


def read(settings: Any, known: Set[str], usual_text: str | None) -> Corpus:
    """Read the tables that the function returns, as those of the hub are read.

    Args:
        settings: of the option; a `config.Table` and an `OwnPart`.
        known: names of labels that a model has already.
        usual_text: name of the column of texts that a model learned from.

    Raises:
        UserError: the function returns no table and no tables by split, or they are wrong.
    """
    assert isinstance(settings, config.Table) and isinstance(settings, own_parts.OwnPart)
    name = settings.origin.option
    returned = own_parts.build(settings)
    by_split = returned if isinstance(returned, Mapping) else {WHOLE: returned}
    if wrong := [split for split in by_split if split not in (*SPLITS, WHOLE)]:
        raise UserError(
            f"data={name}: {settings.part} returned a split {wrong[0]!r}; the splits are {', '.join(SPLITS)}."
        )
    if WHOLE not in by_split and "train" not in by_split:
        raise UserError(f"data={name}: {settings.part} returned no split train.")
    tables = {split: _dataset(rows, f"data={name}: {settings.part}") for split, rows in by_split.items()}
    sources = {
        split: [arrow.dataset_source(Path(name if split == WHOLE else f"{name}[{split}]"), table)]
        for split, table in tables.items()
    }
    corpus = reading.read_tables(settings, sources, known=known, usual_text=usual_text)
    return dataclasses.replace(
        corpus, hashes={f"{name}[{split}]": arrow.digest(table) for split, table in tables.items()}
    )


def _dataset(rows: Any, place: str) -> Any:
    """A table as a `datasets.Dataset`."""
    import datasets

    try:
        if isinstance(rows, datasets.Dataset):
            return rows
        if hasattr(rows, "to_arrow"):  # polars
            return datasets.Dataset(rows.to_arrow())
        if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
            return datasets.Dataset.from_pandas(rows, preserve_index=False)
        if isinstance(rows, Iterable) and not isinstance(rows, str | bytes):
            records = list(rows)
            if records and all(isinstance(record, Mapping) for record in records):
                # Dataset.from_list has the columns of the first row only.
                columns = list(dict.fromkeys(name for record in records for name in record))
                return datasets.Dataset.from_dict({name: [row.get(name) for row in records] for name in columns})
    except Exception as error:  # pyarrow raises many kinds of errors, for cells of several types
        raise UserError(f"{place} returned no table: {first_line(error)}") from error
    raise UserError(
        f"{place} must return a table, or tables by split: a list of dicts, a DataFrame or a Dataset, with a row for "
        f"each text; it gave {type(rows).__name__}."
    )
