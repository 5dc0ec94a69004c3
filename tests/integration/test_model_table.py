"""Every architecture that transformers can classify texts with, tried as a tiny random network: docs/models.md."""

import re

import pytest
from helpers import model_table
from helpers.tiny_networks import NAMED, text_types


def test_the_page_has_a_row_for_every_architecture_and_its_counts_are_those_of_its_rows() -> None:
    page = model_table.DOCS.read_text(encoding="utf-8")
    table = page.partition("## Exports")[0]
    rows = {name: cells for name, cells in re.findall(r"^\| `([\w-]+)` \| (.*) \|$", table, re.MULTILINE)}
    whole = [name for name, cells in rows.items() if set(cells.split(" | ")) == {"yes"}]
    partly = [name for name, cells in rows.items() if len(set(cells.split(" | "))) == 2]
    assert set(NAMED) <= set(whole)
    counts = f"Of {len(rows)} architectures, {len(whole)} train with every method here, {len(partly)} with some of them"
    assert counts in page and len(whole) >= 50
    exported = dict(re.findall(r"^\| `([\w-]+)` \| (\w+ \| \w+) \|$", page, re.MULTILINE))
    assert set(exported) == set(NAMED)


@pytest.mark.exhaustive
def test_the_page_is_what_the_networks_do() -> None:
    found, exported = model_table.rows(text_types()), model_table.rows(NAMED, model_table.exports)
    assert model_table.markdown(found, exported) == model_table.DOCS.read_text(encoding="utf-8")
