"""A part of the fuzz of the readers, which `python tests/fuzz_readers.py WORK` does whole."""

from pathlib import Path

import fuzz_readers
import pytest


@pytest.mark.parametrize("kind", fuzz_readers.FORMATS)
def test_a_changed_file_is_refused_or_read_as_another_reader_reads_it(tmp_path: Path, kind: str) -> None:
    outcomes = fuzz_readers.run(kind, tmp_path, count=12, seed=1)
    assert set(outcomes) <= set(fuzz_readers.GOOD), outcomes


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", fuzz_readers.FORMATS)
def test_ten_thousand_changed_files_are_refused_or_read_alike(tmp_path: Path, kind: str) -> None:
    outcomes = fuzz_readers.run(kind, tmp_path, count=10_000, seed=0)
    assert set(outcomes) <= set(fuzz_readers.GOOD), outcomes
    assert outcomes["refused"] and outcomes.total() - outcomes["refused"], outcomes


@pytest.mark.parametrize("kind", fuzz_readers.FORMATS)
def test_an_unchanged_file_is_read_alike(tmp_path: Path, kind: str) -> None:
    import random

    name, write, other = fuzz_readers.FORMATS[kind]
    rows = fuzz_readers.table(random.Random(3))
    write(tmp_path / name, rows)
    found = fuzz_readers.ours(tmp_path / name)
    assert found == ([row[1] for row in rows[1:]], [(row[2], row[3]) for row in rows[1:]])
    assert other is fuzz_readers.by_none or found == other(tmp_path / name)
