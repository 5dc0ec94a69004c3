"""What a worker does: load the model once, then label texts, or units of input files into parts of the output."""

import dataclasses
import hashlib
import io
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_lightning import config
from emotion_lightning.data import tables, units
from emotion_lightning.data.conversations import Context, Turns
from emotion_lightning.data.formats.cells import as_text
from emotion_lightning.data.rows import Chunk, RowProblems, Text
from emotion_lightning.data.storage import Folder
from emotion_lightning.data.text_pieces import TextColumns
from emotion_lightning.data.units import Unit
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import prediction_files
from emotion_lightning.models.metadata import find_model_folder
from emotion_lightning.runs import manifest
from emotion_lightning.runs.run_folder import parse_list

ERRORS = "_errors"
"""Folder in the output, with a file for each part that leaves out rows, until the job ends."""

FILE = "file"
"""Column with the name of the input file, where rows have no id and there are several files."""


@dataclass(frozen=True)
class Model:
    """Which model a worker loads, and how.

    Attributes:
        runs: run folders as absolute paths, or `hf:user/name`; None: the bundled classifier.
        sha256: hash of their files, as `model_hash` returns it; None: not compared.
        accelerator: what to run on.
        threads: cores of the worker.
        batch_size: texts per batch.
        batch_tokens: tokens per batch, instead.
    """

    runs: list[str] | None
    sha256: str | None
    accelerator: str
    threads: int
    batch_size: int
    batch_tokens: int | None


@dataclass(frozen=True)
class Files:
    """How units are read and parts are written.

    Attributes:
        output: folder of the parts.
        columns: columns of every input file.
        context: the turns before a text, in columns of the row; None if texts stand alone.
        empty_texts: whether rows without a text are refused.
        on_error: what happens to a row that cannot be read.
        predict: how parts are written.
        types: type of pyarrow of each column of `columns.keep`; None for text.
        several: whether the input has several files.
    """

    output: str
    columns: TextColumns
    context: Context | None
    empty_texts: config.EmptyTexts
    on_error: config.OnError
    predict: config.LabelledFile
    types: dict[str, Any]
    several: bool

    @property
    def kept(self) -> dict[str, Any]:
        """Type of each column between the id and the labels."""
        tells_file = self.several and self.columns.id is None
        return ({FILE: None} if tells_file else {}) | self.types


@dataclass
class Labelled:
    """What became of a unit.

    Attributes:
        rows: rows in its part.
        errors: rows that could not be read.
        groups: number of rows of each group; None without thresholds of groups, or without their column.
    """

    rows: int
    errors: int
    groups: "Counter[str] | None"


class Worker:
    """Loads the model at the first task, because an error then comes back as the result of that task.

    Args:
        model: which model.
        files: for units; None if only texts are labelled.
    """

    def __init__(self, model: Model, files: Files | None) -> None:
        self._asked = model
        self._files = files
        self._loaded: Any = None

    def ready(self) -> int:
        """Answer that the worker has started, with the number of its process."""
        return os.getpid()

    def answer(self, texts: Sequence[Text]) -> tuple[Any, Any]:
        """The decisions and probabilities of texts, [text, label] each, as arrays of NumPy."""
        ((decisions, probabilities),) = self._decide(iter([texts]))
        return decisions.numpy(), probabilities.numpy()

    def label(self, unit: Unit) -> Labelled:
        """Write the part of a unit; it appears when it is whole.

        Raises:
            UserError: a row cannot be read, and `on_error` refuses that.
        """
        from emotion_lightning.data.batches import WINDOW
        from emotion_lightning.data.carried import values
        from emotion_lightning.inference import labelling

        files = self._files
        assert files is not None
        model, folder, problems = self._model(), Folder(files.output), RowProblems()
        turns = None if files.context is None else Turns()
        pieces = files.columns.pieces(
            _checked(unit, files, problems, turns), self._asked.batch_size * WINDOW, turns=turns,
            left_out=problems.by_row,
        )  # fmt: skip
        by_group = model.metadata.group_thresholds()
        counted = None if by_group is None or files.columns.group is None else Counter[str]()
        rows = 0

        def told() -> Iterator[Any]:
            for piece in pieces:
                if FILE in files.kept:
                    piece.kept[FILE] = [unit.of.file.name] * len(piece)
                if counted is not None:
                    counted.update(values(piece.groups or []))
                yield piece

        with (
            folder.written(f"{unit.name}.{files.predict.parts.value}") as path,
            prediction_files.writer_for(
                path, model.metadata.labels, files.predict, id_column=files.columns.id_column, kept=files.kept
            ) as writer,
        ):
            for found in labelling.label(told(), self._decide, model.metadata, intensities=files.predict.intensities):
                writer.write(found)
                rows += len(found.ids)
            if problems.by_row:  # before the part, so that a part is never there without its errors
                folder.write(f"{ERRORS}/{unit.name}.parquet", _table(unit, problems))
        return Labelled(rows, problems.count, counted)

    def _decide(self, pieces: Iterator[Sequence[Text]]) -> Any:
        asked = self._asked
        return self._model().decide(pieces, batch_size=asked.batch_size, batch_tokens=asked.batch_tokens)

    def _model(self) -> Any:
        if self._loaded is None:
            self._loaded = _load(self._asked)
        return self._loaded


def portable(run: str | None) -> list[str] | None:
    """Runs as other processes find them: `hf:user/name`, or absolute paths."""
    if run is None:
        return None
    return [one if one.startswith("hf:") else os.path.abspath(Path(one).expanduser()) for one in parse_list(run)]


def model_hash(runs: Sequence[str]) -> str:
    """SHA-256 of the model folders of runs; for several, of their SHA-256 one after the other."""
    found = [manifest.folder_digest(find_model_folder(run)) for run in runs]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _load(asked: Model) -> Any:
    import torch

    from emotion_lightning.inference import ensemble, predictor
    from emotion_lightning.runs import quiet, slurm

    slurm.set_local_rank(0)  # Ray shows a worker its own GPU only
    if asked.accelerator == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(asked.threads)
    quiet.quiet_libraries()
    quiet.hide_progress_bars()
    runs = ensemble.find_members(asked.runs)
    if asked.sha256 is not None and model_hash(runs) != asked.sha256:
        raise UserError(
            f"{', '.join(runs)} on {platform.node()} is another model than where the job was started; copy it anew."
        )
    return predictor.load(runs, accelerator=asked.accelerator)


def _checked(unit: Unit, files: Files, problems: RowProblems, turns: Turns | None) -> Iterator[Chunk]:
    """The chunks of a unit, checked. Wrong rows are in `problems`, and turns of each chunk's rows in `turns`."""
    context = [] if files.context is None else list(files.context.columns or [])
    columns = dataclasses.replace(files.columns, keep=tuple(files.types))
    last, of = unit.first - 1, unit.of.file
    try:
        for chunk in tables.checked_chunks(
            units.source(unit, columns, context=context), columns, problems, empty_texts=files.empty_texts
        ):
            last = chunk.rows[-1]
            _refuse(files, problems, unit)
            if turns is not None:
                cells = [[as_text(cell) or "" for cell in chunk.column(name)] for name in context]
                turns.before = dict(zip(chunk.rows, zip(*cells, strict=True), strict=True))
            yield chunk
    except UserError as error:
        if files.on_error is config.OnError.refuse:
            raise UserError(of.told(str(error))) from error
        problems.by_row.setdefault(last + 1, f"{error} The rows after it are not read.")
    _refuse(files, problems, unit)


def _refuse(files: Files, problems: RowProblems, unit: Unit) -> None:
    if files.on_error is config.OnError.refuse and problems.by_row:
        row, why = min(problems.by_row.items())
        name = unit.of.file.name
        raise UserError(unit.of.file.told(why if why.startswith(str(name)) else f"{name}, {why}"))


def _table(unit: Unit, problems: RowProblems) -> bytes:
    """The rows of a unit that could not be read, as a parquet file."""
    import pyarrow
    import pyarrow.parquet

    rows = sorted(problems.by_row.items())
    table = pyarrow.table(
        {
            "file": pyarrow.array([unit.of.file.name] * len(rows), pyarrow.string()),
            "row": pyarrow.array([row for row, _ in rows], pyarrow.int64()),
            "reason": pyarrow.array([unit.of.file.told(why) for _, why in rows], pyarrow.string()),
        }
    )
    written = io.BytesIO()
    pyarrow.parquet.write_table(table, written)
    return written.getvalue()
