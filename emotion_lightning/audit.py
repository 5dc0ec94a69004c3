"""List the labels of a dataset that look wrong, or the texts of a file that are worth labelling next.

python -m emotion_lightning.audit run=outputs/train/DATE/TIME
python -m emotion_lightning.audit run=outputs/multirun/DATE/TIME
python -m emotion_lightning.audit run=outputs/train/DATE/TIME input=new.csv rows=200
"""

import logging
from pathlib import Path

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.errors import UserError
from emotion_lightning.runs import waiting
from emotion_lightning.runs.files import as_json, as_text, write_together

log = logging.getLogger(__name__)

AUDIT = "audit.csv"
ANNOTATORS = "annotators.csv"
TO_LABEL = "to_label.csv"


def audit(settings: config.Audit, folder: Path) -> None:
    """Audit the labels of a run's data, or choose rows of a file that are worth labelling.

    Raises:
        UserError: the run or the file cannot be read.
    """
    if settings.input is not None:
        choose_rows(settings, Path(settings.input).expanduser(), folder)
    elif settings.run is None:
        raise UserError(
            "audit needs a run: run=FOLDER audits the labels of its data, input=FILE chooses rows of a file."
        )
    else:
        audit_labels(settings.run, folder, rows=settings.rows)


def audit_labels(run: str, folder: Path, *, rows: int) -> None:
    """Write audit.csv, with every row of the run's data, audit.html and audit.json.

    Where the data says who labelled, annotators.csv has everybody who did.

    Args:
        run: run folder, or the folder of a multirun.
        folder: folder for the results.
        rows: number of rows to show on the page.
    """
    from emotion_lightning.inference import held_out
    from emotion_lightning.reports import audit_page, console

    waiting.show_status("Reading the data and what the run says of it")
    found = audit_page.Audit.of(held_out.read_held_out(run), run=run, shown=rows)
    files = {
        folder / AUDIT: audit_page.table(found),
        folder / "audit.html": as_text(audit_page.html(found)),
        folder / "audit.json": as_json(audit_page.plain(found)),
    }
    if (annotators := audit_page.annotator_table(found)) is not None:
        files[folder / ANNOTATORS] = annotators
    write_together(files)
    console.show_tables(audit_page.sections(found, shown=min(rows, 10)))
    for sentence in audit_page.sentences(found):
        log.info("%s", sentence)
    if annotators is not None:
        log.info("All annotators: %s", folder / ANNOTATORS)
    log.info("To look at: %s", folder / "audit.html")
    log.info("To mend, and to train on with data=file data.path=…: %s", folder / AUDIT)


def choose_rows(settings: config.Audit, source: Path, folder: Path) -> None:
    """Write to_label.csv: texts of a file that the run is unsure of and that differ from each other."""
    from emotion_lightning.data import tables
    from emotion_lightning.data.batches import WINDOW
    from emotion_lightning.data.rows import without_context
    from emotion_lightning.evaluation import next_rows, prediction_files
    from emotion_lightning.inference import ensemble, predictor
    from emotion_lightning.reports import audit_page
    from emotion_lightning.runs.files import atomic_write

    columns = settings.data
    waiting.show_status("Reading the texts")
    runs = ensemble.find_members(settings.run)
    rows = tables.read_texts(tables.text_file(source, columns), columns, context=ensemble.context_of(runs))
    model = predictor.load(runs, accelerator=settings.accelerator)
    names = audit_page.column_names(rows.id_column, model.metadata.labels, ["uncertainty"])
    pool = next_rows.Pool(settings.rows)
    waiting.show_status(f"Labelling {rows.count:,} texts")
    for piece in rows.pieces(columns.batch_size * WINDOW):
        shares = model.probabilities(piece.texts, batch_size=columns.batch_size, batch_tokens=columns.batch_tokens)
        pool.add(piece.ids, [without_context(text) for text in piece.texts], shares.double().numpy())
    waiting.show_status("Choosing rows")
    chosen = next_rows.choose(pool.best(), settings.rows, seed=settings.seed)
    blank = [""] * len(model.metadata.labels)
    with atomic_write(folder / TO_LABEL) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = prediction_files.csv_writer(file)
        writer.writerow(names)
        writer.writerows([one.id, one.text, *blank, f"{one.uncertainty:.4g}"] for one in chosen)
    log.info("Chose %d of %s rows: %s", len(chosen), f"{rows.count:,}", folder / TO_LABEL)


def main() -> None:
    """Read the command line and audit labels."""
    app.run_command("audit", audit)


if __name__ == "__main__":
    main()
