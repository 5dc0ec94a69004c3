"""Label new texts with a finished run.

python -m emotion_lightning.predict text="I can't believe it, we won (again)!"
python -m emotion_lightning.predict run=outputs/train/DATE/TIME input=new.csv output=labelled.csv
python -m emotion_lightning.predict run=[A,B,C] input=new.csv output=labelled.csv
python -m emotion_lightning.predict text="I can't believe it, we won (again)!" explain=true
"""

import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.errors import UserError
from emotion_lightning.runs import waiting

if TYPE_CHECKING:
    from emotion_lightning.inference.predictor import Labeller, Prediction
    from emotion_lightning.models.metadata import Metadata

log = logging.getLogger(__name__)


def predict(settings: config.Predict, folder: Path) -> None:
    """Print the prediction for one text, or write the predictions for a file.

    Raises:
        UserError: both or none of `text` and `input` are set, or the run or the file cannot be read.
    """
    if (settings.text is None) == (settings.input is None):
        raise UserError('predict needs either input=FILE (with output=FILE) or text="…".')
    if settings.input is not None:
        _predict_file(settings, Path(settings.input).expanduser(), _output(settings, folder))
        return

    from emotion_lightning.reports import console

    assert settings.text is not None
    _check_explain(settings)
    if (
        settings.run is None
        and not settings.explain
        and not settings.predict.intensities
        and settings.accelerator in ("auto", "cpu")
    ):
        from emotion_lightning.models import bundled

        if (quick := bundled.answer(settings.text)) is not None:
            waiting.end_status()
            return console.show_text(
                settings.text, quick.labels, quick.probabilities, quick.thresholds, calibrated=False
            )

    from emotion_lightning.inference import predictor

    model = predictor.load(settings.run, accelerator=settings.accelerator)
    if settings.explain:
        model.check_explainable()
    (answer,) = model.predict([settings.text])
    cuts = model.metadata.thresholds[model.metadata.protocol]
    console.show_text(
        settings.text,
        answer.labels,
        answer.probabilities,
        cuts,
        calibrated=bool(model.metadata.calibration),
        intensities=_intensities(settings, model, answer),
    )
    if settings.explain:
        waiting.show_status("Explaining the answer")
        (found,) = model.explain(
            [settings.text], settings.explain_labels, steps=settings.explain_steps, batch_size=settings.data.batch_size
        )
        waiting.end_status()
        console.show_explanation(found)


def _intensities(settings: config.Predict, model: "Labeller", answer: "Prediction") -> dict[str, float] | None:
    """The expected intensities of an answer by label; None if they are not asked for."""
    if not settings.predict.intensities:
        return None
    import torch

    from emotion_lightning.evaluation import prediction_files

    labels, reading = model.metadata.labels, model.metadata.read_intensities()
    prediction_files.check_intensities(settings.predict, reading, _named(settings))
    assert reading is not None
    found = reading.expected(torch.tensor([[answer.probabilities[name] for name in labels]]))
    return dict(zip(labels, found[0].tolist(), strict=True))


def _named(settings: config.Predict, *, several: bool = False) -> str:
    if several:
        return f"run={settings.run}, whose runs have not learned the same ones,"
    return "the bundled classifier" if settings.run is None else f"run={settings.run}"


def _output(settings: config.Predict, folder: Path) -> Path:
    return Path(settings.output).expanduser() if settings.output else folder / "predictions.csv"


def _predict_file(settings: config.Predict, source: Path, output: Path) -> None:
    # Check the whole input before a model is loaded; otherwise a broken row stops the command after hours.
    from emotion_lightning.data import carried, tables
    from emotion_lightning.evaluation import group_thresholds, prediction_files
    from emotion_lightning.inference import ensemble
    from emotion_lightning.models.metadata import find_model_folder, read_metadata

    _check_explain(settings)
    prediction_files.check_output(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"output={output} is the input file; choose another name.")
    if settings.explain and settings.devices > 1:
        raise UserError(f"explain=true runs in one process; leave out devices={settings.devices}.")
    file = tables.text_file(source, settings.data)
    runs = ensemble.find_members(settings.run)
    cards = [read_metadata(find_model_folder(run)) for run in runs]
    for card in cards:
        prediction_files.check_intensities(settings.predict, card.read_intensities(), _named(settings))
    waiting.show_status("Reading the texts")
    by = cards[0].group_thresholds()
    rows = tables.read_texts(
        file,
        settings.data,
        usual=(cards[0].data.get("text"), cards[0].data.get("id_column")),
        context=ensemble.context_of(runs),
        group=None if by is None else by.column,
    )

    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from emotion_lightning.data.batches import WINDOW
    from emotion_lightning.data.rows import without_context

    window, largest = settings.data.batch_size * WINDOW, 0.0
    waiting.end_status()
    with (
        _answers(settings, runs) as (metadata, answers, explain),
        prediction_files.writer_for(
            output, metadata.labels, settings.predict, id_column=rows.id_column, explained=settings.explain
        ) as writer,
        Progress(
            TextColumn("Predicting {task.completed:,} of {task.total:,} rows"),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as progress,
    ):
        task = progress.add_task("", total=rows.count)
        by_group, cuts = metadata.group_thresholds(), {metadata.protocol: metadata.threshold_tensor()}
        reading = metadata.read_intensities()
        prediction_files.check_intensities(settings.predict, reading, _named(settings, several=len(runs) > 1))
        # Each piece is used twice: its texts are classified, and its ids are written beside the predictions.
        pieces, beside = itertools.tee(rows.pieces(window))
        groups, of_groups = rows.groups(), Counter[str]()
        found = answers([text for _, text in piece] for piece in pieces)
        for (decisions, probabilities), piece in zip(found, beside, strict=True):
            if by_group is not None and rows.group is not None:
                values = carried.values(list(itertools.islice(groups, len(piece))))
                of_groups.update(values)
                decisions = group_thresholds.decide(probabilities, cuts, by_group, values)[metadata.protocol]
            expected = reading.expected(probabilities) if reading and settings.predict.intensities else None
            # Explanations take long, so rows are written few at a time.
            size = _EXPLAINED_AT_ONCE if settings.explain else len(piece)
            for at in range(0, len(piece), size):
                part = slice(at, at + size)
                ids = [identifier for identifier, _ in piece[part]]
                texts = [without_context(text) for _, text in piece[part]]
                why = explain(texts) if settings.explain else None
                largest = max([largest, *(one.largest_error for one in why or ())])
                strong = None if expected is None else expected[part]
                writer.write(prediction_files.Predicted(ids, texts, decisions[part], probabilities[part], why, strong))
                progress.advance(task, len(texts))
    log.info("Wrote %s rows to %s", f"{rows.count:,}", output)
    if by_group is not None:
        told = group_thresholds.unseen(by_group, None if rows.group is None else of_groups)
        if told is not None:
            log.warning("%s", told)
    if settings.explain:
        log.info("The words' attributions add up to the differences of logits, but for %.2g at the most.", largest)


_EXPLAINED_AT_ONCE = 16


def _check_explain(settings: config.Predict) -> None:
    if settings.explain_labels is not None and not settings.explain:
        raise UserError("explain_labels needs explain=true.")
    if settings.explain:
        from emotion_lightning.inference import attribution

        attribution.check_installed()


@contextmanager
def _answers(
    settings: config.Predict, runs: list[str]
) -> Iterator[tuple["Metadata", Callable[..., Iterator[Any]], Callable[..., Any]]]:
    """Yield the metadata, a function that maps chunks of texts to decisions and probabilities, and `explain`."""
    from emotion_lightning.inference import ensemble, parallel, predictor

    size, budget = settings.data.batch_size, settings.data.batch_tokens
    if settings.devices > 1:
        metadata = ensemble.combined_metadata(runs)
        with parallel.workers(runs, accelerator=settings.accelerator, devices=settings.devices) as workers:
            yield metadata, partial(workers.decide, batch_size=size, batch_tokens=budget), list
        return
    model = predictor.load(runs, accelerator=settings.accelerator)
    if settings.explain:
        model.check_explainable()
        model.check_labels(settings.explain_labels or [])
    explain = partial(model.explain, labels=settings.explain_labels, steps=settings.explain_steps, batch_size=size)
    yield model.metadata, partial(model.decide, batch_size=size, batch_tokens=budget), explain


def main() -> None:
    """Read the command line and predict labels."""
    app.run_command("predict", predict)


if __name__ == "__main__":
    main()
