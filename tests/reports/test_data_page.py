"""The data card: its numbers against plain counts, its pages, its pictures."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import laid_out
from helpers.tables import data_settings, write_csv

from emotion_lightning import config
from emotion_lightning.data import official
from emotion_lightning.data.labels import positive_weights
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.reports import charts, data_facts, data_page
from emotion_lightning.reports.charts import data as data_charts
from emotion_lightning.reports.data_facts import DataFacts

LABELS = ["joy", "anger|rage", "<b>fear</b>", "grief"]
NASTY = [
    "<script>alert(1)</script>",
    "| a | cell |",
    "# no heading",
    "*no* _markup_ [no](link)",
    "two\nlines",
    "$x$ &amp;",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    from emotion_lightning.models import backbone

    return AutoTokenizer.from_pretrained(backbone.BUNDLED)


def corpus(*, test_labels: bool = True) -> Corpus:
    random = np.random.default_rng(0)
    splits = {}
    for name, size in {"train": 300, "validation": 60, "test": 90}.items():
        targets = (random.random((size, 4)) < [0.5, 0.2, 0.05, 0]).astype(np.float32)
        texts = [f"{NASTY[i % len(NASTY)]} {name} {'long ' * (i % 40)}{i}" for i in range(size)]
        splits[name] = Rows([f"{name}{i}" for i in range(size)], texts, targets)
    splits["train"].texts[1] = splits["train"].texts[0]
    splits["test"].texts[5] = splits["train"].texts[0].upper()
    if not test_labels:
        splits["test"].targets = None
    return Corpus(LABELS, splits, {"train": "abc"})


def build(found: Corpus, tokenizer: Any, *, examples: int = 10, **chosen: Any) -> DataFacts:
    data = data_settings("sample", **chosen)
    weighted = config.WeightedBCE(weights=config.PositiveWeights.neg_pos, clip=10, beta=0.99)
    return data_facts.describe_data(
        found, tokenizer, data=data, weighted=weighted, shown={"option": "sample", "max_tokens": data.max_tokens},
        examples=examples, seed=1, tokenizer_name="tiny",
    )  # fmt: skip


def test_numbers_are_those_of_plain_counts(tokenizer: Any) -> None:
    found = corpus()
    plain = build(found, tokenizer, max_tokens=20).plain()
    for name, rows in found.splits.items():
        assert rows.targets is not None
        raised = plain["splits"][name]
        lengths = [len(tokenizer(text)["input_ids"]) for text in rows.texts]
        assert raised["rows"] == len(rows)
        assert raised["tokens"]["mean"] == pytest.approx(np.mean(lengths))
        assert raised["tokens"]["max"] == max(lengths)
        assert raised["tokens"]["cut"] == pytest.approx(np.mean([length > 20 for length in lengths]))
        assert [raised["labels"][label]["count"] for label in LABELS] == rows.targets.sum(axis=0).tolist()
        assert raised["cardinality"] == pytest.approx(rows.targets.sum() / len(rows))
        assert sum(raised["cardinalities"]) == len(rows)
    assert plain["splits"]["train"]["duplicates"] == 1
    assert [o["rows"] for o in plain["overlaps"] if o["splits"] == ["train", "test"]] == [[2, 1]]
    train = found.splits["train"].targets
    assert train is not None
    assert plain["together"] == (train.T @ train).tolist()


def test_findings_of_a_split_without_labels_do_not_speak_of_its_labels(tokenizer: Any) -> None:
    found = corpus(test_labels=False)
    found.splits["test"].texts[7] = found.splits["test"].texts[5]
    raised = [line for line in build(found, tokenizer).findings() if "test" in line]
    assert raised == [
        "2 texts of test (2.22%) also in train; data.drop_leaks=true takes them out of train.",
        "1 row of test with the text of an earlier row.",
        "No row of test has labels: nothing can be scored on it.",
    ]


def test_the_card_tells_how_the_data_was_read(tokenizer: Any) -> None:
    found = corpus()
    found.decisions.text, found.decisions.split, found.decisions.notes = "body", "column part", ["A note."]
    facts = build(found, tokenizer)
    assert "A note." in facts.findings() and facts.plain()["read"]["splits"]["from"] == "column part"
    assert "| text column | body |" in data_page.markdown(facts) and "How the data was read" in data_page.markdown(
        facts
    )


def test_a_heat_map_of_many_labels_has_no_numbers(tokenizer: Any) -> None:
    """Thousands of numbers too small to read took most of the half minute that `inspect` spent on 120 labels."""
    random = np.random.default_rng(0)
    for count, numbers in ((30, True), (90, False)):
        targets = (random.random((200, count)) < 0.3).astype(np.float32)
        rows = Rows([str(i) for i in range(200)], ["a"] * 200, targets)
        facts = build(Corpus([f"n{i}" for i in range(count)], {"train": rows, "validation": rows}), tokenizer)
        figure = data_charts.co_occurrence(facts)
        assert bool(figure.axes[0].texts) == numbers and figure.get_figwidth() < 24


def test_shift_is_that_of_two_proportions(tokenizer: Any) -> None:
    facts = build(corpus(), tokenizer)
    train, test = facts.splits[0], facts.splits[2]
    assert train.counts is not None and test.counts is not None
    pooled = (train.counts[0] + test.counts[0]) / 390
    error = (pooled * (1 - pooled) * (1 / 300 + 1 / 90)) ** 0.5
    assert facts.shift(test)[0] == pytest.approx((test.counts[0] / 90 - train.counts[0] / 300) / error)
    assert facts.shift(test)[3] == 0  # a label that nobody has
    assert np.all(facts.shift(train) == 0)


def test_a_shift_beyond_chance_is_told(tokenizer: Any) -> None:
    found = corpus()
    assert found.splits["test"].targets is not None
    found.splits["test"].targets[:, 1] = 1
    raised = " ".join(build(found, tokenizer).findings())
    assert "Between train and test rates shift by more than chance: anger|rage" in raised
    assert "joy" not in raised.partition("Between train and test")[2].partition(".")[0]


def test_findings_name_what_would_mend_it(tokenizer: Any) -> None:
    raised = "\n".join(build(corpus(), tokenizer, max_tokens=20).findings())
    assert re.search(r"data\.max_tokens=20 cuts \d+\.\d% of the texts; \d+ would cut hardly any", raised)
    assert "1 text of test (1.11%) also in train" in raised and "data.drop_leaks=true" in raised
    assert "No row of train has grief" in raised
    assert "Validation has fewer than 20 rows with anger|rage, <b>fear</b>, grief" in raised


def test_the_suggested_length_cuts_hardly_any_text_and_eight_tokens_less_would(tokenizer: Any) -> None:
    facts = build(corpus(), tokenizer, max_tokens=20)
    lengths = np.concatenate([split.lengths for split in facts.splits])
    assert facts.suggested_tokens % 8 == 0
    assert np.mean(lengths > facts.suggested_tokens) <= 0.001 < np.mean(lengths > facts.suggested_tokens - 8)


def test_weights_are_those_that_training_takes(tokenizer: Any) -> None:
    found = corpus()
    assert found.splits["train"].targets is not None
    counts = found.splits["train"].targets.sum(axis=0)
    weights = build(found, tokenizer).weights
    assert len(weights) == len(config.PositiveWeights) + 1
    for name, values in weights.items():
        kind, clip = re.fullmatch(r"weights=(\w+) clip=(\w+)", name).groups()  # type: ignore[union-attr]
        settings = config.WeightedBCE(config.PositiveWeights(kind), None if clip == "null" else float(clip), 0.99)
        assert values == positive_weights(settings, label_counts=counts, rows=300).tolist()


def test_examples_have_their_label_and_are_the_same_for_a_seed(tokenizer: Any) -> None:
    found = corpus()
    facts = build(found, tokenizer, examples=7)
    assert list(facts.examples) == [*LABELS[:3], data_facts.NO_LABEL]
    for label, texts in facts.examples.items():
        assert len(texts) == 7 or label == LABELS[2]
        assert all((label in labels) or (label == data_facts.NO_LABEL and not labels) for _, labels in texts)
    assert facts.examples == build(found, tokenizer, examples=7).examples
    assert [len(texts) for texts in build(found, tokenizer, examples=0).examples.values()] == [3, 3, 3, 3]


def test_examples_and_lengths_are_of_cleaned_texts(tokenizer: Any) -> None:
    cleaned = build(corpus(), tokenizer, clean=[config.CleaningStep.html])
    assert "&amp;" not in json.dumps(cleaned.examples)
    assert cleaned.train.lengths.sum() < build(corpus(), tokenizer).train.lengths.sum()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("test_labels", [True, False])
def test_the_page_needs_no_network_and_shows_texts_as_they_are(tokenizer: Any, test_labels: bool) -> None:
    facts = build(corpus(test_labels=test_labels), tokenizer)
    drawn = {name: charts.picture(figure) for name, figure in data_charts.data_pictures(facts).items()}
    page = _Page()
    page.feed(data_page.html(facts, drawn))
    assert page.tags.count("img") == len(drawn) == 4
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert "link" not in page.tags and page.tags.count("script") == 1 and page.tags.count("b") == 5
    shown = "".join(page.text)
    for text in ("<script>alert(1)</script>", "<b>fear</b>", "| a | cell |"):
        assert text in shown


def test_markdown_tables_keep_their_shape_whatever_labels_and_texts_hold(tokenizer: Any) -> None:
    written = data_page.markdown(build(corpus(), tokenizer))
    assert "<script>" not in written and "\n# no heading" not in written and "two\nlines" not in written
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert written.count("![") == 4
    assert "anger\\|rage" in written


@pytest.mark.slow
def test_pictures_are_drawn_for_any_number_of_labels_and_splits(tokenizer: Any) -> None:
    for count in (1, 40):
        random = np.random.default_rng(count)
        targets = (random.random((50, count)) < 0.3).astype(np.float32)
        rows = Rows([str(i) for i in range(50)], ["a"] * 50, targets)
        names = [f"a rather long name of a label, number {i}, $x_{i}$" for i in range(count)]
        facts = build(Corpus(names, {"train": rows, "validation": rows}), tokenizer)
        for figure in data_charts.data_pictures(facts).values():
            assert charts.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["sample", "file", "semeval2018", "goemotions", "hub"])
def test_every_data_option_is_inspected(run: Any, tmp_path: Path, capfd: Any, option: str) -> None:
    arguments = {"sample": [], "semeval2018": ["data.dir=official"], "goemotions": ["data.dir=official"]}.get(
        option, ["data.path=own"]
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "official").mkdir()
    cells = [[f"text {i}", i % 2, (i // 2) % 2] for i in range(40)]
    if option == "file":
        write_csv(tmp_path / "own.csv", [["text", "joy", "anger"], *cells])
        arguments = ["data.path=own.csv"]
    if option == "hub":
        write_csv(tmp_path / "own" / "train.csv", [["text", "joy", "anger"], *cells])
    names = list(official.SEMEVAL_LABELS)
    for name in ("train", "dev", "test"):
        lines = [
            "\t".join(["ID", "Tweet", *names]),
            *(f"{i}\ttweet {i}\t" + "\t".join("01" * 5 + "0") for i in range(9)),
        ]
        (tmp_path / "official" / f"2018-E-c-En-{name}.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / "official" / f"{name}.tsv").write_text("".join(f"{name} {i}\t{i % 2}\tx{i}\n" for i in range(9)))
    (tmp_path / "official" / "labels.txt").write_text("joy\nanger\n")
    assert run("inspect", f"data={option}", *arguments, "hydra.run.dir=out") == 0
    raised = json.loads((tmp_path / "out" / "data_card.json").read_text())
    assert raised["data"]["option"] == option and "train" in raised["splits"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "data_card.md", "data_card.html", "data_card.json", "pictures", "inspect.log",
    }  # fmt: skip
    printed = capfd.readouterr().out
    # Findings stand first, and all of them; the tables are in the card.
    lines = printed.splitlines()
    findings = lines[lines.index("Findings") + 1 :]
    assert " ".join(" ".join(findings).split()) == " ".join(f"- {finding}" for finding in raised["findings"])
    assert "Positive weights" not in printed
    for picture in re.findall(r"\]\((pictures/.*?)\)", (tmp_path / "out" / "data_card.md").read_text()):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_inspect_says_what_train_will_do(run: Any, tmp_path: Path) -> None:
    """The same rows in the same splits, so that what was looked at is what is trained on."""
    from helpers.tables import read_csv

    write_csv(tmp_path / "a.csv", [["id", "text", "joy"], *([f"r{i}", f"text {i}", i % 2] for i in range(60))])
    from conftest import SMALL

    assert run("inspect", "data=file", "data.path=a.csv", "hydra.run.dir=look") == 0
    assert run("train", *SMALL[:-1], "data=file", "data.path=a.csv", "trainer=debug", "hydra.run.dir=out") == 0
    raised = json.loads((tmp_path / "look" / "data_card.json").read_text())
    assert raised["splits"]["test"]["rows"] == len(read_csv(tmp_path / "out" / "predictions" / "test.csv")) == 6


@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_the_page_without_sideways_scrolling(tokenizer: Any, tmp_path: Path, width: int) -> None:
    facts = build(corpus(), tokenizer)
    drawn = {name: charts.picture(figure) for name, figure in data_charts.data_pictures(facts).items()}
    wide, count, loaded = laid_out(data_page.html(facts, drawn), tmp_path, width=width)
    assert wide <= width and (count, loaded) == (4, True)


def test_tables_are_printed_on_request(run: Any, capfd: Any) -> None:
    assert run("inspect", "tables=true", "data.max_rows=80", "hydra.run.dir=out") == 0
    printed = capfd.readouterr()
    places = [printed.out.index(text) for text in ("labels in a row", "Findings", "Splits", "Positive weights")]
    assert places == sorted(places) and "tables=true" not in printed.err
    assert "data_card.html" in printed.err


def test_a_template_is_counted_and_its_cost_is_told(tokenizer: Any) -> None:
    bare, found = (build(corpus(), tokenizer, template=template) for template in (None, "{text} Which of {labels}?"))
    assert found.template is not None and bare.template is None
    added = found.template.length - 1  # without <bos>, which bare texts have too
    assert found.train.lengths.tolist() == [length + added for length in bare.train.lengths]
    told = [
        line for line in found.findings() if line.startswith(f"data.template takes {added + 1} of data.max_tokens=")
    ]
    assert len(told) == 1 and not any("data.template" in line for line in bare.findings())
    assert found.plain()["template"]["tokens"] == added + 1
