"""Label new texts with a finished run.

python -m emotion_lightning.predict run=outputs/train/DATE/TIME input=new.csv output=labelled.csv
python -m emotion_lightning.predict run=outputs/train/DATE/TIME text="I can't believe it, we won (again)!"
"""

import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from emotion_lightning import command, config
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)


def predict(settings: config.Predict, folder: Path) -> None:
    """Print the answer for one text, or write those for a file."""
    if (settings.text is None) == (settings.input is None):
        raise UserError('predict needs either input=FILE (with output=FILE) or text="…".')
    if settings.input is not None:
        _predict_file(settings, Path(settings.input).expanduser(), _output(settings, folder))
        return

    from emotion_lightning import predictor, report

    assert settings.text is not None
    model = predictor.load(settings.run, accelerator=settings.accelerator)
    (answer,) = model.predict([settings.text])
    cuts = model.card.thresholds[model.card.protocol]
    report.show_text(settings.text, answer.labels, answer.probabilities, cuts)


def _output(settings: config.Predict, folder: Path) -> Path:
    return Path(settings.output).expanduser() if settings.output else folder / "predictions.csv"


def _predict_file(settings: config.Predict, source: Path, output: Path) -> None:
    # The input is looked at before a model is loaded.
    from emotion_lightning import predictions
    from emotion_lightning.data import files

    predictions.check_output(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"output={output} is the input file; choose another name.")
    names = files.columns(source)
    text = files.text_column(source, names, settings.data.text)
    identifier = files.id_column(source, [name for name in names if name != text], settings.data.id_column)

    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from emotion_lightning import predictor
    from emotion_lightning.data.batches import WINDOW

    model = predictor.load(settings.run, accelerator=settings.accelerator)
    window = settings.data.batch_size * WINDOW
    with (
        predictions.writer(output, model.card.labels, settings.predict, id_column=identifier or "row") as writer,
        Progress(
            TextColumn("Predicting {task.completed:,} rows"),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as progress,
    ):
        task = progress.add_task("", total=None)
        rows = 0
        for chunk in _chunks(_texts(source, text, identifier), window):
            ids, texts = [identifier for identifier, _ in chunk], [text for _, text in chunk]
            decisions, probabilities = model.decide(texts, batch_size=settings.data.batch_size)
            writer.write(predictions.Predicted(ids, texts, decisions, probabilities))
            rows += len(chunk)
            progress.update(task, completed=rows)
    log.info("Wrote %s rows to %s", f"{rows:,}", output)


def _texts(source: Path, text: str, identifier: str | None) -> Iterator[tuple[str, str]]:
    from emotion_lightning.data import files

    for row, record in files.records(source):
        cell = files.as_text(record.get(text))
        if cell is None:
            raise UserError(f"{source}, row {row}, column {text}: no text; every row needs one.")
        key = files.as_text(record.get(identifier)) if identifier else str(row)
        if key is None:
            raise UserError(f"{source}, row {row}, column {identifier}: no id; every row needs one.")
        yield key, cell


def _chunks(rows: Iterator[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def main() -> None:
    """Read the command line and predict."""
    command.run("predict", predict)


if __name__ == "__main__":
    main()
