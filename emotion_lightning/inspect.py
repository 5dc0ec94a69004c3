"""Look at a data set before training on it: lengths, labels, shifts, duplicates, leaks, examples; no model is loaded.

python -m emotion_lightning.inspect data=file data.path=my.csv
python -m emotion_lightning.inspect data=goemotions data.dir=FOLDER model=gemma
"""

import logging
from pathlib import Path

from emotion_lightning import command, config, redaction, run_folder, schema, waiting

log = logging.getLogger(__name__)


def inspect(settings: config.Inspect, folder: Path) -> None:
    """Print the data card, and write it as Markdown, HTML and JSON."""
    from emotion_lightning import charts, data_card, model, pages, quiet, report
    from emotion_lightning.charts import data as data_charts
    from emotion_lightning.data import sources

    quiet.libraries()
    model.check_access(settings.model)
    assert isinstance(settings.data, config.Batches)  # schema.load refuses the one that is not
    waiting.says("Reading the data")
    # The card tells of leaks, but for those that were left out before it looked.
    corpus = sources.split(sources.read(settings.data), settings.data, tell=settings.data.drop_leaks)
    waiting.says("Counting tokens and labels")
    card = data_card.build(
        corpus,
        model.load_tokenizer(settings.model),
        data=settings.data,
        weighted=settings.loss,
        shown=redaction.settings({"option": command.options()["data"], **schema.plain(settings.data)}),
        examples=settings.examples,
        seed=settings.seed,
        tokenizer_name=settings.model.path if settings.model.pretrained else "the bundled tokenizer",
    )
    waiting.says("Drawing the pictures")
    pictures = {name: charts.png(figure) for name, figure in data_charts.pictures(card).items()}
    files = {folder / run_folder.PICTURES / f"{name}.png": data for name, data in pictures.items()}
    run_folder.write_together(
        files
        | {
            folder / "data_card.md": run_folder.as_text(pages.markdown(card)),
            folder / "data_card.html": run_folder.as_text(pages.html(card, pictures)),
            folder / "data_card.json": run_folder.as_json(card.plain()),
        }
    )
    report.show_data(pages.sections(card), card.findings(), card.examples)
    log.info("Data card: %s", folder / "data_card.html")


def main() -> None:
    """Read the command line and inspect."""
    command.run("inspect", inspect)


if __name__ == "__main__":
    main()
