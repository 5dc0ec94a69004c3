"""Change files of each format at random, read them, and compare what is read with what an independent reader reads.

    python tests/fuzz_readers.py WORK [--count 10000] [--seed 0] [--format csv]

A changed file may be refused with one message, or read as pandas reads it. Counted as faults are any other error, other
texts or labels than those of pandas, and a file that takes longer than `LIMIT`.
"""

import argparse
import collections
import contextlib
import csv
import gzip
import io
import json
import logging
import random
import re
import signal
import sqlite3
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from helpers.tables import data_settings

from emotion_lightning.data import sources
from emotion_lightning.errors import UserError

LIMIT = 20
"""Seconds that a file may take."""

HEADER = ["id", "text", "joy", "anger"]
WORDS = [
    "won",
    "raffle",
    "again",
    "mug",
    "\u00e4rger",
    "\u6012\u308a",
    "\U0001f600",
    "it's",
    "a;b",
    "tab",
    "NA",
    "1e5",
    "\\n",
    "#1",
    "x|y",
]
Rows = list[list[Any]]
Reading = tuple[list[str], list[tuple[int, int]]]
"""Texts, and whether each has joy and anger."""


def table(rng: random.Random) -> Rows:
    """A header and a few rows; the texts hold what readers stumble over."""
    rows = []
    for i in range(rng.randrange(4, 20)):
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.2:
            text += rng.choice([', "quoted"', ",\nnext line", "\ttab"])
        rows.append([f"r{i}", text, i % 2, int(i % 3 == 0)])
    return [HEADER, *rows]


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    records = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def write_json(path: Path, rows: Rows) -> None:
    records = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")


def write_label_studio(path: Path, rows: Rows) -> None:
    def task(row: list[Any]) -> dict[str, Any]:
        chosen = [name for name, value in zip(HEADER[2:], row[2:], strict=True) if value]
        result = [{"from_name": "emotion", "type": "choices", "value": {"choices": chosen}}] if chosen else []
        return {"id": row[0], "data": {"text": row[1]}, "annotations": [{"result": result, "completed_by": 1}]}

    path.write_text(json.dumps([task(row) for row in rows[1:]], ensure_ascii=False), encoding="utf-8")


def write_excel(path: Path, rows: Rows) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def write_sqlite(path: Path, rows: Rows) -> None:
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE posts (id TEXT, text TEXT, joy INTEGER, anger INTEGER)")
        database.executemany("INSERT INTO posts VALUES (?, ?, ?, ?)", rows[1:])


def write_zip(path: Path, rows: Rows) -> None:
    inner = io.StringIO()
    csv.writer(inner, lineterminator="\n").writerows(rows)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("posts.csv", inner.getvalue())


def write_gzip(path: Path, rows: Rows) -> None:
    inner = io.StringIO()
    csv.writer(inner, lineterminator="\n").writerows(rows)
    path.write_bytes(gzip.compress(inner.getvalue().encode(), mtime=0))


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_webanno(path: Path, rows: Rows) -> None:
    lines = ["#FORMAT=WebAnno TSV 3.3", "#T_SP=webanno.custom.Emotion|value", "", ""]
    for number, (_, text, joy, anger) in enumerate(rows[1:], 1):
        labels = "|".join(name for name, value in (("joy", joy), ("anger", anger)) if value) or "_"
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        lines += [f"#Text={escaped}", f"{number}-1\t0-1\tx\t{labels}\t", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


# ------------------------------------------------------------------------------------------------- independent readers


def _labelled(frame: Any) -> Reading | None:
    """The texts and labels of a frame of pandas; None if it lacks the columns, or holds other labels."""
    frame = frame.rename(columns=lambda name: str(name).strip())
    if not {"text", "joy", "anger"} <= set(frame.columns):
        return None
    meaning = {"0": 0, "1": 1, "true": 1, "false": 0, "0.0": 0, "1.0": 1}
    marks = [[meaning.get(str(cell).strip().lower()) for cell in frame[name]] for name in ("joy", "anger")]
    if any(None in column for column in marks):
        return None
    # A column of bytes holds texts too, in UTF-8.
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in frame["text"]]
    return texts, list(zip(*marks, strict=True))


def _frame_of_csv(path: Path, delimiter: str, *, bare: bool = False) -> Any:
    import pandas

    asked = {"dtype": str, "keep_default_na": False, "sep": delimiter, "encoding": "utf-8", "engine": "python"}
    return pandas.read_csv(path, quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL, **asked)


def by_pandas_csv(path: Path) -> Reading | None:
    return _labelled(_frame_of_csv(path, ","))


def by_pandas_tsv(path: Path) -> Reading | None:
    """What pandas reads; without quotes if those would merge lines that are rows without them."""
    quoted = _frame_of_csv(path, "\t")
    with contextlib.suppress(ValueError):  # a line with too many cells
        bare = _frame_of_csv(path, "\t", bare=True)
        if len(bare) > len(quoted) and not bare.isna().any(axis=None):
            return _labelled(bare)
    return _labelled(quoted)


def by_pandas_json(path: Path, *, lines: bool = False) -> Reading | None:
    import pandas

    return _labelled(pandas.read_json(path, lines=lines, dtype=False, convert_dates=False, convert_axes=False))


def by_pandas_jsonl(path: Path) -> Reading | None:
    return by_pandas_json(path, lines=True)


def by_pandas_excel(path: Path) -> Reading | None:
    """What pandas reads; None for a file with a text in a cell of another type, which openpyxl takes for empty."""
    import pandas

    with zipfile.ZipFile(path) as parts:
        sheets = [parts.read(name) for name in parts.namelist() if name.startswith("xl/worksheets/")]
    if any(b't="inlineStr"' not in cell for sheet in sheets for cell in re.findall(rb"<c ([^>]*)><is>", sheet)):
        return None
    return _labelled(pandas.read_excel(path, engine="openpyxl", dtype=object, keep_default_na=False, na_values=[]))


def by_pandas_sqlite(path: Path) -> Reading | None:
    import pandas

    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        return _labelled(pandas.read_sql_query("SELECT * FROM posts", database))


def by_pandas_parquet(path: Path) -> Reading | None:
    import pandas

    return _labelled(pandas.read_parquet(path))


def by_none(path: Path) -> Reading | None:
    return None


FORMATS: dict[str, tuple[str, Callable[[Path, Rows], None], Callable[[Path], Reading | None]]] = {
    "csv": ("a.csv", write_csv, by_pandas_csv),
    "tsv": ("a.tsv", lambda path, rows: write_csv(path, rows, "\t"), by_pandas_tsv),
    "gzip": ("a.csv.gz", write_gzip, by_pandas_csv),
    "jsonl": ("a.jsonl", write_jsonl, by_pandas_jsonl),
    "json": ("a.json", write_json, by_pandas_json),
    "label studio": ("a.json", write_label_studio, by_none),
    "excel": ("a.xlsx", write_excel, by_pandas_excel),
    "sqlite": ("a.sqlite", write_sqlite, by_pandas_sqlite),
    "zip": ("a.zip", write_zip, by_pandas_csv),
    "parquet": ("a.parquet", write_parquet, by_pandas_parquet),
    "webanno": ("a.tsv", write_webanno, by_none),
}


# ------------------------------------------------------------------------------------------------------------- changes


def change(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three places changed."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        place = rng.randrange(len(data))
        match rng.randrange(7):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                del data[place : place + rng.randrange(1, 12)]
            case 3:
                data[place:place] = bytes(rng.choice(b',;\t\n\r"\\{}[]:0123x \x00') for _ in range(rng.randrange(1, 4)))
            case 4:
                data[place:place] = data[rng.randrange(len(data)) :][: rng.randrange(1, 30)]
            case 5:
                del data[place:]
            case 6:
                start = rng.randrange(len(data))
                data[place : place + 8], data[start : start + 8] = data[start : start + 8], data[place : place + 8]
    return bytes(data)


def changed(path: Path, content: bytes, rng: random.Random) -> bytes:
    """A changed file. In archives and Excel files, half of the time a file in it is changed, so that sums are right."""
    if path.suffix not in (".zip", ".xlsx") or rng.random() < 0.5:
        if path.suffix == ".gz" and rng.random() < 0.5:
            return gzip.compress(change(gzip.decompress(content), rng), mtime=0)
        return change(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        parts = {part.filename: packed.read(part) for part in packed.infolist()}
    name = rng.choice(list(parts))
    parts[name] = change(parts[name], rng)
    packed_again = io.BytesIO()
    with zipfile.ZipFile(packed_again, "w", zipfile.ZIP_DEFLATED) as packed:
        for part, inner in parts.items():
            packed.writestr(part, inner)
    return packed_again.getvalue()


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ours(path: Path) -> Reading | None:
    """The texts and labels that the package reads; None if it finds other labels than joy and anger."""
    corpus = sources.read_corpus(data_settings(path=path))
    if len(corpus.splits) != 1 or set(corpus.labels) != {"joy", "anger"}:
        return None
    (rows,) = corpus.splits.values()
    order = [corpus.labels.index(name) for name in ("joy", "anger")]
    assert rows.targets is not None
    return rows.texts, [(int(row[order[0]]), int(row[order[1]])) for row in rows.targets]


def case(kind: str, work: Path, rng: random.Random) -> str:
    """Change one file and read it; what came of it."""
    name, write, other = FORMATS[kind]
    path = work / name
    write(path, table(rng))
    path.write_bytes(changed(path, path.read_bytes(), rng))
    try:
        with within(LIMIT):
            found = ours(path)
    except UserError as error:
        return "refused" if str(error).strip() else "an empty message"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"error {type(error).__name__}: {error}"[:200]
    try:
        expected = other(path)
    except Exception:
        return "read, by this reader only"
    if found is None or expected is None:
        return "read, nothing to compare"
    return "read alike" if found == expected else "read otherwise"


GOOD = ("refused", "read alike", "read, by this reader only", "read, nothing to compare")


def run(kind: str, work: Path, *, count: int, seed: int, keep: bool = True) -> collections.Counter[str]:
    """Change so many files of a format; how often each outcome came. Files at fault are kept in `work`."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    outcomes: collections.Counter[str] = collections.Counter()
    try:
        for number in range(count):
            outcome = case(kind, work, random.Random(f"{seed} {kind} {number}"))
            outcomes[outcome] += 1
            if outcome not in GOOD and keep:
                file = work / FORMATS[kind][0]
                (work / f"fault {kind.replace(' ', '_')} {number} {file.name}").write_bytes(file.read_bytes())
    finally:
        logging.disable(logging.NOTSET)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=list(FORMATS), action="append")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    faults = 0
    for kind in given.format or FORMATS:
        outcomes = run(kind, given.work, count=given.count, seed=given.seed)
        faults += sum(count for outcome, count in outcomes.items() if outcome not in GOOD)
        print(f"{kind}: " + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()), flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
