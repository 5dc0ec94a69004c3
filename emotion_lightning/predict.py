"""Label new texts with a finished run.

python -m emotion_lightning.predict text="I can't believe it, we won (again)!"
python -m emotion_lightning.predict run=outputs/train/DATE/TIME input=new.csv output=labelled.csv
python -m emotion_lightning.predict run=[A,B,C] input=new.csv output=labelled.csv
python -m emotion_lightning.predict run=FOLDER "input=texts/*.parquet" output=labelled engine=ray devices=4
python -m emotion_lightning.predict text="I can't believe it, we won (again)!" explain=true
"""

import dataclasses
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.errors import UserError
from emotion_lightning.runs import waiting

if TYPE_CHECKING:
    from emotion_lightning.data.text_pieces import Piece
    from emotion_lightning.evaluation.prediction_files import Predicted
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
    _check_engine(settings)
    if settings.input is not None and settings.engine is config.Engine.ray:
        from emotion_lightning.inference.cluster import job

        job.label(settings, settings.output or str(folder / "predictions"))
        return
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


def _check_engine(settings: config.Predict) -> None:
    """Raise UserError for settings that the engine does not have."""
    if settings.engine is config.Engine.ray:
        if settings.text is not None:
            raise UserError("engine=ray labels files; leave it out for one text.")
        if settings.explain:
            raise UserError("explain=true runs in one process; leave out engine=ray.")
        if settings.output is not None and Path(settings.output).suffix.lower() in (".csv", ".jsonl", ".parquet"):
            raise UserError(
                f"output={settings.output} names a file, and engine=ray writes a folder of parts; name a folder, or "
                f"leave out engine=ray: devices={settings.devices} labels a file with so many workers."
            )
        return
    if settings.resume:
        raise UserError("resume=true goes on with a job of engine=ray; a single file is labelled anew.")
    if settings.input is not None:
        from emotion_lightning.data import storage
        from emotion_lightning.data.formats import arrow

        if storage.is_several(settings.input) and not arrow.is_saved(Path(settings.input).expanduser()):
            raise UserError(
                f"input={settings.input} is no single file on disk; engine=ray reads folders, patterns and addresses, "
                "and writes a folder of parts."
            )


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
    from emotion_lightning.data import tables
    from emotion_lightning.evaluation import group_thresholds, prediction_files
    from emotion_lightning.inference import ensemble
    from emotion_lightning.models.metadata import find_model_folder, read_metadata

    _check_explain(settings)
    prediction_files.check_output(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"output={output} is the input file; choose another name.")
    if settings.explain and settings.devices > 1:
        raise UserError(f"explain=true runs in one process; leave out devices={settings.devices}.")
    if settings.devices > 1:
        from emotion_lightning.runs import ray_cluster

        ray_cluster.check_installed(f"devices={settings.devices}")
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
        usual=(cards[0].usual_text, cards[0].data.get("id_column")),
        context=ensemble.context_of(runs),
        group=None if by is None else by.column,
        keep=settings.predict.keep or [],
    )

    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from emotion_lightning.data.batches import WINDOW
    from emotion_lightning.inference import labelling

    types = labelling.kept_types(rows.columns.keep, _schema(source))
    largest, of_groups = 0.0, Counter[str]()
    waiting.end_status()
    with (
        _answers(settings, runs) as (metadata, answers, explain),
        prediction_files.writer_for(
            output, metadata.labels, settings.predict, id_column=rows.id_column, explained=settings.explain, kept=types
        ) as writer,
        Progress(
            TextColumn("Predicting {task.completed:,} of {task.total:,} rows"),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as progress,
    ):
        task = progress.add_task("", total=rows.count)
        by_group = metadata.group_thresholds()
        reading = metadata.read_intensities()
        prediction_files.check_intensities(settings.predict, reading, _named(settings, several=len(runs) > 1))
        pieces = _counted(rows.pieces(settings.data.batch_size * WINDOW), of_groups)
        for found in labelling.label(pieces, answers, metadata, intensities=settings.predict.intensities):
            for part in _explained(found, explain) if settings.explain else [found]:
                largest = max([largest, *(one.largest_error for one in part.explanations or ())])
                writer.write(part)
                progress.advance(task, len(part.ids))
    log.info("Wrote %s rows to %s", f"{rows.count:,}", output)
    if by_group is not None:
        told = group_thresholds.unseen(by_group, None if rows.columns.group is None else of_groups)
        if told is not None:
            log.warning("%s", told)
    if settings.explain:
        log.info("The words' attributions add up to the differences of logits, but for %.2g at the most.", largest)


_EXPLAINED_AT_ONCE = 16
"""Explanations take long, so rows are written few at a time."""


def _schema(source: Path) -> Any:
    """Schema of a parquet file; None for other files."""
    if source.suffix.lower() != ".parquet":
        return None
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(source)


def _counted(pieces: "Iterable[Piece]", groups: Counter[str]) -> "Iterator[Piece]":
    """The pieces; the groups of their rows are counted."""
    from emotion_lightning.data import carried

    for piece in pieces:
        groups.update(carried.values(piece.groups or []))
        yield piece


def _explained(found: "Predicted", explain: Callable[..., Any]) -> "Iterator[Predicted]":
    """A piece in small parts, with explanations."""
    for at in range(0, len(found.ids), _EXPLAINED_AT_ONCE):
        part = slice(at, at + _EXPLAINED_AT_ONCE)
        yield dataclasses.replace(
            found, ids=found.ids[part], texts=found.texts[part], decisions=found.decisions[part],
            probabilities=found.probabilities[part], explanations=explain(found.texts[part]),
            intensities=None if found.intensities is None else found.intensities[part],
            kept={name: cells[part] for name, cells in found.kept.items()},
        )  # fmt: skip


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
    from emotion_lightning.inference import ensemble, predictor

    size, budget = settings.data.batch_size, settings.data.batch_tokens
    if settings.devices > 1:
        from emotion_lightning.inference.cluster import one_file

        metadata = ensemble.combined_metadata(runs)
        with one_file.workers(settings) as workers:
            yield metadata, workers.decide, list
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
