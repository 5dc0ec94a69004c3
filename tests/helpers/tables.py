"""Files of invented texts, in the formats that the package reads."""

import csv
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from conftest import SMALL

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.data import sources
from emotion_lightning.data.rows import Corpus


def write_csv(path: Path, rows: Iterable[Sequence[Any]], *, delimiter: str = ",", newline: str = "\n") -> Path:
    """Rows as csv (the first is the header), zipped where the name ends in .gz."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return path


def write_jsonl(path: Path, records: Iterable[Any]) -> Path:
    """A record in each line."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]], **options: Any) -> Path:
    """Columns by name."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def emotions(count: int, *, start: int = 0) -> list[list[Any]]:
    """Header and rows with the labels joy and anger: every second row is joy, every third anger."""
    numbers = range(start, start + count)
    return [["text", "joy", "anger"], *([f"text {i}", int(i % 2 == 0), int(i % 3 == 0)] for i in numbers)]


def data_settings(option: str = "file", **chosen: Any) -> Any:
    """Settings of a data option as conf/ has them, but for those chosen; a tenth of the time that Hydra takes."""
    values = yaml.safe_load((schema.conf_folder() / "data" / f"{option}.yaml").read_text())
    shared = [name.partition("@")[0] for name in values.pop("defaults") if name.startswith("/shared/")]
    for name in reversed(shared):
        values = yaml.safe_load((schema.conf_folder() / f"{name[1:]}.yaml").read_text()) | values
    values |= {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}
    return schema.from_plain(config.SCHEMAS[f"data/{option}"], values)


def split(**chosen: Any) -> Corpus:
    """A file of one's own, read and divided as these settings say."""
    settings = data_settings(**chosen)
    return sources.split_corpus(sources.read_corpus(settings), settings)


def ids(corpus: Corpus) -> dict[str, list[str]]:
    """The ids of each split."""
    return {name: rows.ids for name, rows in corpus.splits.items()}


def text_columns() -> config.InputColumns:
    """Settings of `predict` for a file whose columns are recognised."""
    return config.InputColumns(
        text=None, id_column=None, conversation=None, turn=None, context_columns=None, encoding=None, header=None,
        columns=None, table=None,
        empty_texts=config.EmptyTexts.keep, batch_size=32, batch_tokens=None,
    )  # fmt: skip


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a file, by column."""
    with path.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def other_labels(file: Path) -> list[str]:
    """A file whose labels are three of the sample's, in another order, and a new one; settings that read it."""
    names = ["trust", "calm", "anger", "joy"]
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", *names])
        writer.writerows([f"text {i}", *(int(i % (j + 2) == 0) for j in range(4))] for i in range(60))
    return ["data=file", f"data.path={file.name}", *(o for o in SMALL if "max_rows" not in o)]
