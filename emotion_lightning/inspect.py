"""Inspect a dataset before training: lengths, labels, shifts, duplicates, leaks, examples. No weights are loaded.

python -m emotion_lightning.inspect data=file data.path=my.csv
python -m emotion_lightning.inspect data=goemotions data.dir=FOLDER model=gemma
python -m emotion_lightning.inspect model=auto model.path=FOLDER    also prints what the network is made of
"""

import logging
from pathlib import Path

from emotion_lightning import config
from emotion_lightning.cli import app, override_grammar
from emotion_lightning.cli.compose import chosen_options, settings_of
from emotion_lightning.config import redaction, schema
from emotion_lightning.runs import run_folder, waiting
from emotion_lightning.runs.files import as_json, as_text, write_together

log = logging.getLogger(__name__)


def inspect(settings: config.Inspect, folder: Path) -> None:
    """Print the findings about the data, and write data_card.md, data_card.html and data_card.json.

    Raises:
        UserError: the data or the tokenizer cannot be read.
    """
    from emotion_lightning.data import sources
    from emotion_lightning.models import backbone
    from emotion_lightning.reports import charts, console, data_facts, data_page, pages
    from emotion_lightning.reports.charts import data as data_charts
    from emotion_lightning.reports.charts import names
    from emotion_lightning.runs import quiet

    quiet.hide_progress_bars()
    backbone.check_access(settings.model)
    waiting.show_status("Reading the data")
    # The data card reports leaks. With drop_leaks they are removed before, so the split logs them.
    corpus = sources.split_corpus(sources.read_corpus(settings.data), settings.data, tell=settings.data.drop_leaks)
    if settings.model.is_open:
        _show_structure(settings.model, labels=len(corpus.labels))
    waiting.show_status("Counting tokens and labels")
    facts = data_facts.describe_data(
        corpus,
        backbone.load_tokenizer(settings.model),
        data=settings.data,
        weighted=settings.loss,
        shown=redaction.settings({"option": chosen_options()["data"], **schema.plain(settings.data)}),
        examples=settings.examples,
        seed=settings.seed,
        tokenizer_name=settings.model.path if settings.model.pretrained else "the bundled tokenizer",
    )
    waiting.show_status("Drawing the pictures")
    pictures = {name: charts.picture(figure) for name, figure in data_charts.data_pictures(facts).items()}
    numbers = names.numbers(facts.labels)
    files = {folder / run_folder.PICTURES / f"{name}.png": picture.png for name, picture in pictures.items()}
    write_together(
        files
        | {
            folder / "data_card.md": as_text(data_page.markdown(facts, numbers)),
            folder / "data_card.html": as_text(data_page.html(facts, pictures, numbers)),
            folder / "data_card.json": as_json(facts.plain()),
        }
    )
    tables, examples = (data_page.sections(facts), facts.examples) if settings.tables else ([], {})
    console.show_data(facts.read, pages.main_facts(facts), facts.findings(), tables, examples)
    log.info("Tables, pictures and examples: %s", folder / "data_card.html")
    if not settings.tables:
        log.info("Add tables=true to print the tables here.")


def _show_structure(model: config.Model, *, labels: int) -> None:
    """Print what model=auto reads from the network, and what each option of peft trains."""
    from emotion_lightning.models import auto, structure
    from emotion_lightning.reports import console

    waiting.show_status("Building the network without its weights")
    found = structure.read_structure(auto.architecture_of(model), labels=labels)
    asked = ["model=auto", f"model.path={override_grammar.quote_path(model.path)}"]
    methods = {name: settings_of("train", [*asked, f"peft={name}"]).peft for name in schema.option_files("peft")}
    waiting.end_status()
    console.show_structure(structure.tables(found, methods))


def main() -> None:
    """Read the command line and inspect the data."""
    app.run_command("inspect", inspect)


if __name__ == "__main__":
    main()
