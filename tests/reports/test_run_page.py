"""The report of a run: its numbers against plain counts, its page, its pictures, and what it must not do."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, run_in_process
from helpers.browser import driven, laid_out
from helpers.tables import write_csv
from sklearn.metrics import f1_score

from emotion_lightning.data.rows import Rows
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import metrics, thresholds
from emotion_lightning.evaluation.explanations import Explanation, Word
from emotion_lightning.reports import charts, run_page
from emotion_lightning.reports.charts import names as chart_names
from emotion_lightning.reports.charts import run as run_charts
from emotion_lightning.reports.run_facts import RunFacts
from emotion_lightning.runs import environment, run_folder
from emotion_lightning.training.callbacks import history
from emotion_lightning.training.loggers.wandb_logger import Run

PICTURES = {
    "learning_curves", "label_scores", "precision_recall", "reliability", "probabilities", "co_occurrence",
}  # fmt: skip
ODD_NAMES = ["<b>fear</b>", "anger|$x_1$ & rage", "怒り", "دلق", "joy 😀", "long " * 40, "two\nlines"]
ODD_TEXTS = [
    "<script>alert(1)</script> & <b>bold</b>",
    "مرحبا بالعالم",
    "😀👩‍👩‍👧 \u202e turned",
    "x" * 10_000,
    "two\nlines\x00\x1b[31m",
    "half a pair \ud83d",
]
HISTORY: list[history.Row] = [
    {"epoch": epoch, "step": 9 * epoch, "train/loss": 1 / epoch, "val/loss": 0.9, "val/f1_macro": f1,
     "val/f1_micro": 0.5, "val/jaccard": 0.5, "val/map": 0.5, "val/lrap": 0.5}
    for epoch, f1 in ((1, 0.2), (2, 0.4), (3, 0.4))
]  # fmt: skip


def rows(count: int, labels: int, *, texts: list[str] = ODD_TEXTS) -> tuple[Rows, torch.Tensor]:
    """Rows with odd texts and probabilities that are often right; of several labels no row has the last."""
    random = np.random.default_rng(labels)
    rates = np.full(labels, 0.3)
    if labels > 1:
        rates[-1] = 0
    targets = (random.random((count, labels)) < rates).astype(np.float32)
    shares = torch.from_numpy(1 / (1 + np.exp(-random.normal(2 * targets - 1, 1.5)))).float()
    return Rows(
        [f"r{i}" for i in range(count)], [f"{texts[i % len(texts)]} {i}" for i in range(count)], targets
    ), shares


def scores(found: Rows, shares: torch.Tensor, names: list[str], settings: Any) -> tuple[dict[str, Any], torch.Tensor]:
    targets = torch.from_numpy(found.targets)
    cuts = thresholds.fit_thresholds(shares, targets, settings.thresholds)
    raised = metrics.score(shares, targets, cuts, names) | {"loss": 0.5}
    cost = {"trainable_parameters": 7, "train_seconds": 61.0, "samples_per_second": 5.0, "tokens_per_second": 50.0,
            "peak_memory_bytes": 10**9}  # fmt: skip
    return {"validation": raised, "test": raised, "cost": cost}, cuts["global"]


def facts(settings: Any, count: int, names: list[str], *, lines: list[history.Row] | None = None) -> RunFacts:
    found, shares = rows(count, len(names))
    raised, threshold = scores(found, shares, names, settings)
    return RunFacts(
        settings=settings, metrics=raised, history=HISTORY if lines is None else lines, labels=names, split="test",
        rows=found, probabilities=shares.double().numpy(), thresholds=threshold.numpy(), protocol="global",
        train_rows=9,
    )  # fmt: skip


@pytest.fixture
def write(settings: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Write the report of invented rows; the page."""

    def write(count: int = 40, names: list[str] = ODD_NAMES, run: Run | None = None) -> Path:
        typed = settings()
        found, shares = rows(count, len(names))
        raised, threshold = scores(found, shares, names, typed)
        run_folder.write_settings(tmp_path, typed, {"model": "tiny", "peft": "ia3", "data": "sample"})
        environment.record(tmp_path, arguments=["train.py", "seed=2"], data_hashes={})
        history.write_history(tmp_path / "history.csv", HISTORY)
        drawn = run_page.write_run_report(
            tmp_path, typed, {"train": found, "validation": found, "test": found}, split="test", scored=found,
            probabilities=shares, threshold=threshold, protocol="global", labels=names, metrics=raised,
            sends_texts=run is not None and run.sends_texts,
        )  # fmt: skip
        if run is not None:
            assert drawn is not None
            run.media(drawn.pictures, drawn.page, drawn.facts)
        return tmp_path / "report.html"

    return write


class Page(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.cells: list[list[str]] = []
        self.looks: list[str] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.cells.append([])
            self.looks.append(dict(attrs).get("class", ""))
        if tag == "td":
            self.cells[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags[-1:] == ["td"] and data.strip():
            self.cells[-1][-1] += data

    def row(self, name: str) -> tuple[list[str], str]:
        """The cells of a table's row by the first one, and its looks."""
        (found,) = [(cells, look) for cells, look in zip(self.cells, self.looks, strict=True) if cells[:1] == [name]]
        return found


# ------------------------------------------------------------------------------------------------------------- numbers


def test_curves_have_the_average_precision_of_metrics(settings: Any) -> None:
    found = facts(settings(), 80, list("abcd"))
    found.probabilities = found.probabilities.round(1)  # many rows alike
    averages = []
    for label in range(3):
        curve = found.curve(label)
        assert curve is not None
        averages.append(curve.average)
    shares = torch.from_numpy(found.probabilities).float()
    raised = metrics.rankings(shares, torch.from_numpy(found.truth))["map"]
    assert np.mean(averages) == pytest.approx(raised, abs=1e-6)
    assert found.curve(3) is None


def test_the_point_of_the_threshold_lies_on_the_curve_and_decisions_are_those_of_the_metrics(settings: Any) -> None:
    found = facts(settings(), 80, list("abcd"))
    for label in range(3):
        curve, raised = found.curve(label), found.of_label(label)
        assert curve is not None
        distance = np.hypot(curve.recall - raised["recall"], curve.precision - raised["precision"])
        assert distance.min() < 1e-12
        assert raised["f1"] == pytest.approx(f1_score(found.truth[:, label], found.decisions[:, label]))


def test_bins_hold_every_probability_once(settings: Any) -> None:
    found = facts(settings(), 80, list("abcd"))
    found.probabilities[0] = [0, 1, 1 / 15, 0.5]
    count, mean, positive = found.bins()
    assert count.sum() == found.probabilities.size and len(count) == 15
    inside = (found.probabilities >= 7 / 15) & (found.probabilities < 8 / 15)
    assert (count[7], mean[7], positive[7]) == pytest.approx(
        (inside.sum(), found.probabilities[inside].mean(), found.truth[inside].mean())
    )


def test_the_texts_most_wrong_come_first_with_the_labels_concerned(settings: Any) -> None:
    found = facts(settings(), 3, ["joy", "anger"])
    found.rows.targets = np.array([[1, 0], [1, 0], [0, 0]], dtype=np.float32)
    found.probabilities = np.array([[0.9, 0.2], [0.0, 1.0], [0.4, 0.3]])
    found.thresholds = np.array([0.5, 0.5])
    first, *others = found.mistakes()
    assert (first.identifier, first.gold, first.predicted) == ("r1", {"joy": 0.0}, {"anger": 1.0})
    assert np.isfinite(first.loss)
    assert others[0].loss == pytest.approx(-(np.log(0.6) + np.log(0.7)) / 2)
    assert [mistake.identifier for mistake in others] == ["r2", "r0"]


def test_explained_texts_are_shown_with_their_words_and_hostile_ones_stay_text(settings: Any, tmp_path: Path) -> None:
    found = facts(settings(), 3, ["joy", "anger"])
    found.settings = None
    found.metrics = {"test": found.metrics["test"]}  # type: ignore[typeddict-item]
    found.probabilities = np.array([[0.9, 0.2], [0.0, 1.0], [0.4, 0.3]])
    found.rows.targets = np.array([[1, 0], [1, 0], [0, 0]], dtype=np.float32)
    found.rows.texts = ["fine", "<b>so</b> glad", "glad"]
    assert found.most_wrong_label(1) == "joy" and found.wrong_rows(2) == [1, 2]
    words = [Word("<b>so</b>", 0, 9, {"joy": -2.0}), Word("glad", 10, 14, {"joy": 1.0})]
    zero = {"joy": 0.0}
    found.wrong[1] = Explanation(found.rows.texts[1], ["joy"], words, zero, zero, zero)
    found.explained = [
        found.wrong[1],
        Explanation("Glad", ["joy"], [Word("Glad", 0, 4, {"joy": 3.0})], zero, zero, zero),
    ]
    run_page.write_evaluation_report(tmp_path, found, title="t", made="m", line="l")
    page = (tmp_path / "report.html").read_text()
    assert 'title="joy -2.00">&lt;b&gt;so&lt;/b&gt;</mark> <mark' in page and 'title="joy +1.00">glad</mark>' in page
    assert "coloured for joy" in page and "<b>so" not in page
    assert "glad +2.0 (2)" in page and 'href="#words-for-each-label"' in page
    found.wrong, found.explained = {}, []
    run_page.write_evaluation_report(tmp_path, found, title="t", made="m", line="l")
    plain = (tmp_path / "report.html").read_text()
    assert "<mark" not in plain and "Words for each label" not in plain and "&lt;b&gt;so&lt;/b&gt; glad" in plain


def test_the_best_epoch_is_the_first_of_the_best(settings: Any) -> None:
    best = facts(settings(), 5, ["joy"]).best()
    assert best is not None and best["epoch"] == 2
    assert facts(settings(), 5, ["joy"], lines=[]).best() is None
    lowest = facts(settings("callbacks.monitor=val/loss"), 5, ["joy"]).best()
    assert lowest is not None and lowest["epoch"] == 1


# ------------------------------------------------------------------------------------------------------------ the page


def test_a_run_writes_its_report_with_the_numbers_of_its_metrics(finished: Path) -> None:
    raised = json.loads((finished / "metrics.json").read_text())
    page = Page(finished / "report.html")
    for split in ("validation", "test"):
        for protocol, name, look in (
            ("fixed", "fixed", ""),
            ("global", "global ●", "main"),
            ("per_label", "per_label", ""),
            ("oracle", "oracle (fitted on itself)", "aside"),
        ):
            cells, found = page.row(f"{split}, {name}")
            assert found == look
            assert cells[1:4] == [
                f"{raised[split][protocol][name]:.3f}" for name in ("f1_macro", "f1_micro", "jaccard")
            ]
        cells, _ = page.row(split)
        assert cells[1:] == [*(f"{raised[split][name]:.4f}" for name in ("map", "lrap", "loss", "ece", "brier")), "raw"]
    values = raised["test"]["global"]["labels"]["joy"]
    cells, _ = page.row("joy")
    assert cells[1:5] == [str(values["support"]), *(f"{values[name]:.3f}" for name in ("precision", "recall", "f1"))]
    assert "Run: tiny, ia3, on sample" in page.text and "model=tiny" in page.text and "1 of 1" in page.text
    assert {file.stem for file in (finished / "pictures").iterdir()} == PICTURES
    assert page.tags.count("img") == len(PICTURES)
    assert (finished / "report.html").read_text().count('<li><div dir="auto">') == 30


def test_the_page_needs_no_network_and_shows_texts_and_names_as_they_are(write: Any) -> None:
    page = Page(file := write())
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert not {"link", "iframe"} & set(page.tags)
    # The page's own: what the slider computes from, and page.js. None of the texts'.
    assert page.tags.count("script") == 2 and "<script>alert" not in file.read_text()
    for shown in (
        "<script>alert(1)</script> & <b>bold</b>", "مرحبا بالعالم", "👩‍👩‍👧", f"{'x' * 400}… (10,00", "two lines [31m",
        "<b>fear</b>", "anger|$x_1$ & rage", "怒り",
    ):  # fmt: skip
        assert shown in page.text
    assert "x" * 401 not in page.text


@pytest.mark.parametrize("count,labels", [(2, 1), (2, 28), (40, 7)])
@pytest.mark.slow
def test_pictures_are_drawn_for_any_number_of_labels_and_rows(settings: Any, count: int, labels: int) -> None:
    found = facts(settings(), count, [*ODD_NAMES, *(f"label {i}" for i in range(labels))][:labels], lines=HISTORY[:1])
    for name, figure in run_charts.run_pictures(found).items():
        assert charts.png(figure).startswith(b"\x89PNG"), name
    found.thresholds[:] = 1.0  # nothing is predicted
    assert charts.png(run_charts.co_occurrence(found)).startswith(b"\x89PNG")


@pytest.mark.parametrize("test", ["none", "unlabelled"])
def test_without_a_labelled_test_split_validation_is_drawn(run: Any, tmp_path: Path, test: str) -> None:
    """A label, few rows, and steps that end before the first validation."""
    write_csv(tmp_path / "train.csv", [["text", "joy"], *([f"text {i}", i % 2] for i in range(64))])
    write_csv(tmp_path / "validation.csv", [["text", "joy"], ["yes", 1], ["no", 0]])
    write_csv(tmp_path / "test.csv", [["text"], ["perhaps"]])
    code = run("train", *SMALL[:-1], "data=file", "data.train=train.csv", "data.validation=validation.csv",
               "trainer.max_steps=1", *(["data.test=test.csv"] if test == "unlabelled" else []),
               "hydra.run.dir=out", pictures=True)  # fmt: skip
    assert code == 0
    page = Page(tmp_path / "out" / "report.html")
    assert ("1 rows of test have no labels" in page.text, "There is no test split" in page.text) == (
        test == "unlabelled",
        test == "none",
    )
    assert page.row("validation, global ●")
    assert "test, global" not in page.text and "2 texts of validation" in page.text
    assert {file.stem for file in (tmp_path / "out" / "pictures").iterdir()} == PICTURES - {"learning_curves"}
    assert not (tmp_path / "out" / "history.csv").exists()


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_an_error_in_drawing_is_told_and_leaves_nothing(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: RunFacts) -> None:
        raise ZeroDivisionError("no such ink")

    monkeypatch.setattr(run_charts, "reliability", fail)
    assert not write().exists() and not (tmp_path / "pictures").exists()
    assert "report.html is not written: ZeroDivisionError: no such ink" in caplog.text


def test_a_folder_that_takes_no_pictures_is_the_users_to_mend(write: Any, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file stands in the way")
    with pytest.raises(UserError, match="pictures.*cannot be written"):
        write()
    assert not (tmp_path / "report.html").exists()


def test_loggers_get_pictures_and_the_page_without_its_texts(write: Any, tmp_path: Path) -> None:
    sent: list[tuple[dict[str, Path], str]] = []

    class Noting(Run):
        def media(self, pictures: dict[str, Path], page: str, facts: Any) -> None:
            sent.append((pictures, page))

    write(run=Noting(False))
    ((pictures, page),) = sent
    assert set(pictures) == PICTURES and all(file.is_file() for file in pictures.values())
    assert "Scores" in page and "data:image/png" in page
    assert "Most wrong" not in page and "alert(1)" not in page


# --------------------------------------------------------------------------------------------------------- in a browser


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_the_report_without_sideways_scrolling(write: Any, tmp_path: Path, width: int) -> None:
    wide, count, loaded = laid_out(write().read_text(encoding="utf-8"), tmp_path, width=width)
    assert wide <= width and (count, loaded) == (len(PICTURES), True)


# ---------------------------------------------------------------------------------------------- a finished run, scored


def test_an_evaluation_has_a_report_of_its_own(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [f"run={finished}", "data.max_rows=60", "data=sample", "hydra.run.dir=scored"]
    assert run_in_process("evaluate", *arguments, pictures=True) == 0
    raised = json.loads((tmp_path / "scored" / "metrics.json").read_text())["test"]
    page = Page(tmp_path / "scored" / "report.html")
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []
    cells, look = page.row("test, global ●")
    assert look == "main" and cells[1] == f"{raised['global']['f1_macro']:.3f}"
    assert "scored on sample (test)" in page.text and "Learning curves" not in page.text
    assert "emotion_lightning.evaluate" in page.text and "Most wrong" in page.text
    drawn = {file.stem for file in (tmp_path / "scored" / "pictures").iterdir()}
    assert drawn == PICTURES - {"learning_curves"}
    # The run's own report is as it was.
    assert "scored on sample" not in (finished / "report.html").read_text()


# -------------------------------------------------------------------------------------------------- the page is worked

TABLE = """
const table = document.querySelector('.slider').parentElement.querySelector('table');
const cells = () => [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent));
"""


def test_the_slider_gives_the_scores_of_scikit_learn(write: Callable[..., Path], tmp_path: Path) -> None:
    labels = ["fear", "joy", "rage", "none"]
    script = """
        const range = document.querySelector('.slider input');
        const before = cells();
        range.value = 30;
        range.dispatchEvent(new Event('input'));
        const found = {cells: cells(), told: document.querySelector('.told').textContent};
        document.querySelector('.slider button').click();
        found.back = JSON.stringify(cells()) === JSON.stringify(before);
        document.title = JSON.stringify(found);
    """
    page = write(names=labels, count=60).read_text(encoding="utf-8")
    found = json.loads(driven(page, TABLE + script, tmp_path))
    own, shares = rows(60, 4)
    decided = shares.double().numpy() > 0.3
    truth = np.asarray(own.targets) > 0.5
    for cells in found["cells"]:
        place = labels.index(cells[0])
        assert cells[4] == f"{f1_score(truth[:, place], decided[:, place], zero_division=0):.3f}"
        assert cells[5] == "0.300"
    union = (truth | decided).sum(1)
    jaccard = np.where(union > 0, (truth & decided).sum(1) / np.maximum(union, 1), 1).mean()
    assert found["told"].split("   ") == [
        f"macro F1 {f1_score(truth, decided, average='macro', zero_division=0):.3f}",
        f"micro F1 {f1_score(truth, decided, average='micro', zero_division=0):.3f}",
        f"Jaccard {jaccard:.3f}",
        f"labels/text {decided.sum(1).mean():.3f}",
    ]
    assert found["back"]


def test_a_click_sorts_a_table(write: Callable[..., Path], tmp_path: Path) -> None:
    script = """
        const column = i => cells().map(row => row[i]);
        const heads = table.tHead.rows[0].cells;
        const found = [];
        heads[4].click(); found.push(column(4));
        heads[4].click(); found.push(column(4));
        heads[6].click(); found.push(column(6));
        heads[0].click(); found.push(column(0));
        document.title = JSON.stringify(found);
    """
    page = write(names=["b", "a", "d", "c"], count=60).read_text(encoding="utf-8")
    down, up, with_none, texts = json.loads(driven(page, TABLE + script, tmp_path))
    assert [float(x) for x in down] == sorted(map(float, down), reverse=True) and up == down[::-1]
    assert with_none[-1] == "–"  # the label that no row has
    assert texts == ["a", "b", "c", "d"]


def test_contents_lead_to_every_heading(write: Callable[..., Path]) -> None:
    text = write().read_text(encoding="utf-8")
    links = re.findall(r'<a href="#([^"]+)">', text)
    assert links == re.findall(r'<h2 id="([^"]+)">', text) and "labels" in links and "most-wrong" in links
    assert "http" not in text.partition("<style>")[2].partition("</style>")[0] + text.rpartition("<script>")[2]


def test_pictures_show_values_where_they_are_pointed_at(settings: Any) -> None:
    found = facts(settings(), 80, list("abcd"))
    drawn = {name: charts.picture(figure) for name, figure in run_charts.run_pictures(found).items()}
    for name in PICTURES:
        assert drawn[name].spots, name
        for spot in drawn[name].spots:
            left, top, width, height = spot.box
            assert min(spot.box) >= 0 and left + width <= 1.001 and top + height <= 1.001
    by_text = {spot.text.partition(":")[0]: spot for spot in drawn["label_scores"].spots}
    values = found.of_label(1)
    assert f"F1 {values['f1']:.3f}, precision {values['precision']:.3f}" in by_text["b"].text
    # The first label of the picture stands above the second, and no two share a line.
    tops = [by_text[found.labels[label]].box[1] for label in found.by_support()]
    assert tops == sorted(tops) and len(set(tops)) == 4
    together = [spot.text for spot in drawn["co_occurrence"].spots]
    assert f"Of the rows with a, {100 * found.given()[0][0, 1]:.1f} % also have b" in together


# ------------------------------------------------------------------------------------------------------ names' letters


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Matplotlib's own fonts, without those of this machine."""
    from matplotlib import font_manager

    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    chart_names._ways.cache_clear()
    yield font_manager
    chart_names._ways.cache_clear()


def test_letters_that_no_font_has_are_numbers_that_the_page_explains(
    fonts: Any, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["joy", "怒り", "기쁨", "fear"]
    page = Page(write(names=labels))
    assert "no. 2 怒り" in page.text and "no. 3 기쁨" in page.text and "no. 1" not in page.text
    raised = [record.getMessage() for record in caplog.records if "No installed font" in record.getMessage()]
    assert len(raised) == 1 and "of 2 labels (怒り, 기쁨)" in raised[0]
    assert chart_names.shown("怒り") == "怒り"
    with chart_names.drawn(labels):
        assert [charts.short(label) for label in labels] == ["joy", "no. 2", "no. 3", "fear"]
    assert not any("Glyph" in record.getMessage() for record in caplog.records)


def test_emoji_that_no_font_has_are_shown_by_their_names(fonts: Any) -> None:
    labels = ("🫠 melt", "🫡", "saluting face", "怒り🫠", "joy")
    with chart_names.drawn(labels):
        # The name of the second is that of another label, and the fourth has other letters that no font has.
        assert [charts.short(label) for label in labels] == [
            "melting face melt", "no. 2", "saluting face", "no. 4", "joy",
        ]  # fmt: skip
    assert chart_names.numbers(labels) == {"🫡": "no. 2", "怒り🫠": "no. 4"}


def test_letters_of_another_installed_font_are_drawn_by_it(fonts: Any) -> None:
    import matplotlib

    plain = chart_names._letters(fonts.findfont("DejaVu Sans"))
    math = chart_names._letters(fonts.findfont("STIXGeneral"))
    letter = next(letter for letter in sorted(math - plain) if letter.isprintable() and not letter.isspace())
    assert chart_names.numbers(["joy", letter]) == {}
    with chart_names.drawn(["joy", letter]):
        families = matplotlib.rcParams["font.family"]
        assert len(families) == 2 and letter in chart_names._letters(fonts.findfont(families[-1]))
