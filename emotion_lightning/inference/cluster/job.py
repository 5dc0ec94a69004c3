"""A labelling job: many input files to a folder of parts, by workers on a Ray cluster.

The folder begins with `_job.json`, which says what the parts are made from. Each unit of the input becomes a part in
one step, so a part that is there is whole, and a job that goes on does the units without one. `errors.parquet`,
`manifest.json` and `_SUCCESS` come last, in this order.
"""

import dataclasses
import importlib.metadata
import io
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.data import storage, tables, units
from emotion_lightning.data.formats import files as formats
from emotion_lightning.data.rows import Problems
from emotion_lightning.data.storage import Folder
from emotion_lightning.data.text_pieces import TextColumns
from emotion_lightning.data.units import KnownFile, Unit
from emotion_lightning.errors import UserError, counted
from emotion_lightning.evaluation import group_thresholds, prediction_files
from emotion_lightning.inference import ensemble, labelling
from emotion_lightning.inference.cluster import connection, worker
from emotion_lightning.inference.cluster.pool import Pool, value
from emotion_lightning.inference.cluster.worker import ERRORS, Files, Labelled, Model, Worker
from emotion_lightning.models.metadata import Metadata, find_model_folder, read_metadata
from emotion_lightning.runs import environment, ray_cluster, waiting
from emotion_lightning.runs.files import as_json

log = logging.getLogger(__name__)

JOB, MANIFEST, SUCCESS, ERROR_FILE = "_job.json", "manifest.json", "_SUCCESS", "errors.parquet"

CHECKED = 2000
"""Rows of the first file that are checked before anything else is done."""

_LARGE = 64 << 20
"""Bytes of text files from which on they are cut by the cluster."""

_READERS = 32
"""Files whose footers are read at once: a store answers each in tens of milliseconds."""


@dataclass
class Plan:
    """What a job does.

    Attributes:
        metadata: of the run or the ensemble.
        model: how a worker loads it.
        files: how units are read and parts are written.
        inputs: the input files.
        made_from: what the parts are made from; a job that goes on has the same.
    """

    metadata: Metadata
    model: Model
    files: Files
    inputs: list[KnownFile]
    made_from: dict[str, Any]


def label(settings: config.Predict, output: str) -> None:
    """Label the input of a job.

    Args:
        settings: of the command.
        output: path or address of the folder of parts.

    Raises:
        UserError: the settings or the first rows are wrong, or rows could not be read, which is told after all others
            have been labelled.
    """
    ray_cluster.check_installed("engine=ray")
    folder = Folder(output)
    there = _check_output(folder, resume=settings.resume)
    if SUCCESS in there:
        log.info("%s is finished; nothing is left to do.", folder.name)
        return
    waiting.show_status("Checking the first rows")
    plan = prepare(settings, folder)
    if JOB in there:
        check_same(folder, plan.made_from)
    started = time.monotonic()
    with connection.joined(settings) as shares:
        waiting.show_status("Finding the rows")
        todo = _cut(plan, settings)
        waiting.end_status()
        if JOB not in there:
            folder.write(JOB, as_json(plan.made_from))
        plan.model = dataclasses.replace(plan.model, threads=shares.cpus)
        done = kept(folder, todo, plan.files, there)
        _tell_start(plan, todo, done, shares)
        pool: Pool[Unit] = Pool(
            connection.starter(Worker, plan.model, plan.files, shares=shares),
            lambda actor, unit: actor.label.remote(unit),
            count=min(shares.workers, max(1, len(todo) - len(done))),
        )
        try:
            with _Progress(todo, done) as progress:
                for unit, found in pool.results(
                    (unit for unit in todo if unit.name not in done), place=lambda unit: f" ({unit})"
                ):
                    done[unit.name] = found
                    progress.count(found)
        except BaseException:
            counts = f"{len(done):,} of {counted(len(todo), 'part')}"
            log.info("At least %s are in %s; resume=true goes on with the others.", counts, folder.name)
            raise
        finally:
            pool.close()
    finish(folder, plan, todo, done, seconds=time.monotonic() - started, lost=pool.lost)


def _check_output(folder: Folder, *, resume: bool) -> set[str]:
    """The files in the output folder.

    Raises:
        UserError: it is not empty, and no job goes on in it.
    """
    there = folder.names()
    if there and not resume:
        raise UserError(
            f"output={folder.name} is not empty; resume=true goes on with the job that began there, or choose another "
            "folder."
        )
    if there and JOB not in there:
        raise UserError(f"output={folder.name} has files, but no job began there (no {JOB}); choose another folder.")
    return there


# ------------------------------------------------------------------------------------------------------------- planning


def prepare(settings: config.Predict, folder: Folder) -> Plan:
    """Check the settings, the run and the first rows; no model is loaded and no worker started.

    Raises:
        UserError: one of these is wrong.
    """
    assert settings.input is not None
    found = storage.find(settings.input)
    if (inside := next((file for file in found if folder.holds(file.place)), None)) is not None:
        raise UserError(f"output={folder.name} holds the input file {inside.name}; choose another folder.")
    runs = ensemble.find_members(settings.run)
    cards = [read_metadata(find_model_folder(run)) for run in runs]
    named = "the bundled classifier" if settings.run is None else f"run={settings.run}"
    for card in cards:
        prediction_files.check_intensities(settings.predict, card.read_intensities(), named)
    context = ensemble.context_of(runs)
    if context is not None and context.columns is None:
        raise UserError(
            f"{named} reads the turns before a text (data.context), which may stand anywhere in a file, and a worker "
            "reads a part of it; label file by file, without engine=ray."
        )
    metadata = ensemble.combined_metadata(runs)
    prediction_files.check_intensities(settings.predict, metadata.read_intensities(), named)
    keep = settings.predict.keep or []
    by = metadata.group_thresholds()
    known = _with_rows(found, settings)
    first = known[-1]
    with units.first_rows(first, settings.data, CHECKED) as source:
        read = tables.read_texts(
            source, settings.data, usual=(cards[0].usual_text, cards[0].data.get("id_column")), context=context,
            group=None if by is None else by.column, keep=keep,
        )  # fmt: skip
    with ThreadPoolExecutor(_READERS) as pool:
        rest = enumerate(found[len(known) :], len(known))
        known += pool.map(lambda pair: units.recognise(pair[1], pair[0], settings.data), rest)
    _check_columns(first, known, read.columns)
    if by is not None and read.columns.group is None:
        log.warning("%s", group_thresholds.unseen(by, None))
    files = Files(
        folder.given, read.columns, None if context is None else context.named(settings.data),
        settings.data.empty_texts, settings.on_error, settings.predict,
        labelling.kept_types(read.columns.keep, _schema(first)), several=len(found) > 1,
    )  # fmt: skip
    prediction_files.column_names(
        folder.name, metadata.labels, settings.predict, id_column=read.columns.id_column, kept=files.kept
    )
    model = Model(
        worker.portable(settings.run), worker.model_hash(runs), settings.accelerator.value, 1,
        settings.data.batch_size, settings.data.batch_tokens,
    )  # fmt: skip
    return Plan(metadata, model, files, known, _made_from(settings, model, known))


def _with_rows(found: Sequence[storage.InputFile], settings: config.Predict) -> list[KnownFile]:
    """The first files, up to one that has rows.

    Raises:
        UserError: none has a row, or one cannot be read.
    """
    known = []
    for number, file in enumerate(found):
        known.append(units.recognise(file, number, settings.data))
        problems = Problems()
        with units.first_rows(known[-1], settings.data, 1) as source:
            if next(source.chunks(problems), None) is not None or problems.count:
                return known
    raise UserError(f"input={settings.input} has no rows.")


def _check_columns(first: KnownFile, known: Sequence[KnownFile], columns: TextColumns) -> None:
    """Raise UserError for a file without the columns of the first one with rows. Rows of jsonl may lack any."""
    wanted = {columns.text: "data.text", columns.id: "data.id_column"} | dict.fromkeys(columns.keep, "predict.keep")
    for one in known:
        has = {*one.names, *(name for name, _ in one.file.values)}
        for name, setting in wanted.items():
            if name is not None and one.kind != "jsonl" and not has & set(units.parents(name)):
                formats.check_column(
                    one.file.name, name, [name for name in one.names if name], example=f"{setting}={{}}",
                    asked_by=f"{setting}, which {first.file.name} has",
                )  # fmt: skip


def _schema(file: KnownFile) -> Any:
    if file.kind != "parquet":
        return None
    with storage.open_bytes(file.file.place) as opened:
        return pyarrow.parquet.read_schema(opened)


def _cut(plan: Plan, settings: config.Predict) -> list[Unit]:
    """The units of all files.

    Raises:
        UserError: a file cannot be read.
    """
    rows = settings.predict.rows_per_part
    text = [file for file in plan.inputs if file.kind != "parquet"]
    found: dict[int, list[Unit]] = {}
    # A pass over the lines takes a core, so several large files of text are cut by the cluster.
    if len(text) > 1 and sum(file.file.size for file in text) > _LARGE:
        import ray

        cutting = ray.remote(units.cut).options(num_cpus=1)
        cut = value([cutting.remote(file, rows) for file in text])
        found = {file.number: own for file, own in zip(text, cut, strict=True)}
    rest = [file for file in plan.inputs if file.number not in found]
    with ThreadPoolExecutor(_READERS) as pool:
        found |= zip((file.number for file in rest), pool.map(lambda file: units.cut(file, rows), rest), strict=True)
    return [unit for number in sorted(found) for unit in found[number]]


# ----------------------------------------------------------------------------------------------------------- going on


def _made_from(settings: config.Predict, model: Model, known: Sequence[KnownFile]) -> dict[str, Any]:
    """What decides the content of the parts."""
    data = schema.plain(settings.data)
    return {
        "model": model.sha256,
        "input": [[file.file.name, file.file.size, file.file.changed] for file in known],
        "data": {name: value for name, value in data.items() if name not in ("batch_size", "batch_tokens")},
        "predict": schema.plain(settings.predict),
    }


def check_same(folder: Folder, made_from: dict[str, Any]) -> None:
    """Raise UserError if the job in a folder began with another run, input or setting."""
    before = json.loads(folder.read(JOB) or b"{}")
    now = json.loads(as_json(made_from))
    if before == now:
        return
    for name, what in (("model", "the model is another one"), ("input", "the input files are not the same")):
        if before.get(name) != now[name]:
            raise UserError(f"The job in {folder.name} cannot go on: {what}; begin a new one in another folder.")
    for group in ("data", "predict"):
        for name, chosen in now[group].items():
            earlier = before.get(group, {}).get(name)
            if earlier != chosen:
                raise UserError(
                    f"The job in {folder.name} began with {group}.{name}={_shown(earlier)}, not "
                    f"{group}.{name}={_shown(chosen)}; go on with that, or begin a new one in another folder."
                )
    raise UserError(f"{folder.name}/{JOB} is of another version of this program; begin a new job in another folder.")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def kept(folder: Folder, todo: Sequence[Unit], files: Files, there: set[str]) -> dict[str, Labelled]:
    """What became of the units whose parts are there, by their names."""
    suffix = files.predict.parts.value
    units_ = [unit for unit in todo if f"{unit.name}.{suffix}" in there]

    def rows(unit: Unit) -> int:
        name = f"{unit.name}.{suffix}"
        if files.predict.parts is config.PartFormat.jsonl:
            return (folder.read(name) or b"").count(b"\n")
        with storage.open_bytes(folder / name) as opened:
            return int(pyarrow.parquet.read_metadata(opened).num_rows)

    with ThreadPoolExecutor(_READERS) as pool:
        # Its errors are counted from their file, at the end.
        return {unit.name: Labelled(count, 0, None) for unit, count in zip(units_, pool.map(rows, units_), strict=True)}


# --------------------------------------------------------------------------------------------------------------- ending


def finish(
    folder: Folder, plan: Plan, todo: Sequence[Unit], done: dict[str, Labelled], *, seconds: float, lost: int = 0
) -> None:
    """Write errors.parquet, manifest.json and _SUCCESS, and tell what was done.

    Raises:
        UserError: rows could not be read.
    """
    errors = _gather_errors(folder, {unit.name for unit in todo})
    suffix = plan.files.predict.parts.value
    rows = sum(found.rows for found in done.values())
    metadata = plan.metadata
    manifest = {
        "rows": rows,
        "errors": errors,
        "parts": [
            {
                "name": f"{unit.name}.{suffix}", "file": unit.of.file.name, "first_row": unit.first,
                "rows": done[unit.name].rows,
            }
            for unit in todo
        ],
        "model": {"run": plan.model.runs, "sha256": plan.model.sha256, "labels": metadata.labels},
        "protocol": metadata.protocol,
        "thresholds": metadata.thresholds[metadata.protocol],
        "thresholds_by": metadata.thresholds_by or None,
        "predict": plan.made_from["predict"],
        "data": plan.made_from["data"],
        "versions": environment.versions() | {"ray": importlib.metadata.version("ray")},
        "seconds": round(seconds, 1),
        "workers_lost": lost,
    }  # fmt: skip
    folder.write(MANIFEST, as_json(manifest))
    folder.write(SUCCESS, b"")
    folder.remove(ERRORS)
    log.info("Wrote %s rows in %s parts to %s", f"{rows:,}", f"{len(todo):,}", folder.name)
    groups = [found.groups for found in done.values() if found.groups is not None]
    by = metadata.group_thresholds()
    if by is not None and groups and (told := group_thresholds.unseen(by, sum(groups, Counter()))) is not None:
        log.warning("%s", told)
    if errors:
        raise UserError(
            f"{counted(errors, 'row')} of {rows + errors:,} could not be read; {folder.name}/{ERROR_FILE} has file, "
            "row and reason of each. All others are labelled."
        )


def _gather_errors(folder: Folder, names: set[str]) -> int:
    """Write errors.parquet from the errors of the parts; the number of rows."""
    tables_ = []
    for name in sorted(folder.names(ERRORS)):
        if name.removesuffix(".parquet") in names and (content := folder.read(f"{ERRORS}/{name}")) is not None:
            tables_.append(pyarrow.parquet.read_table(io.BytesIO(content)))
    if not tables_:
        return 0
    whole = pyarrow.concat_tables(tables_)
    written = io.BytesIO()
    pyarrow.parquet.write_table(whole, written)
    folder.write(ERROR_FILE, written.getvalue())
    return int(whole.num_rows)


# -------------------------------------------------------------------------------------------------------------- telling


def _tell_start(plan: Plan, todo: Sequence[Unit], done: dict[str, Labelled], shares: connection.Shares) -> None:
    known = [unit.rows for unit in todo if unit.rows is not None]
    rows = f"{sum(known):,} rows" + (" and more" if len(known) < len(todo) else "")
    log.info(
        "%s in %s make %s%s; %s on %s.", rows, counted(len(plan.inputs), "file"), counted(len(todo), "part"),
        f", of which {len(done):,} are there" if done else "", counted(shares.workers, "worker"),
        "this machine" if shares.nodes == 1 else counted(shares.nodes, "machine"),
    )  # fmt: skip


class _Progress:
    """Tells how many rows are labelled: in a line that changes on a terminal, and once a minute elsewhere."""

    _SECONDS = 60

    def __init__(self, todo: Sequence[Unit], done: dict[str, Labelled]) -> None:
        self._parts, self._of = len(done), len(todo)
        self._rows = sum(found.rows for found in done.values())
        self._new = 0
        self._first: float | None = None
        self._told = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        waiting.end_status()

    def count(self, found: Labelled) -> None:
        """Count a part."""
        now = time.monotonic()
        self._parts, self._rows = self._parts + 1, self._rows + found.rows
        line = f"{self._rows:,} rows, {self._parts:,} of {self._of:,} parts"
        # From the first part on, because workers load the model before it.
        if self._first is None:
            self._first = now
        else:
            self._new += found.rows
            line += f", {self._new / max(now - self._first, 1e-9):,.0f} rows/s"
        if sys.stderr.isatty():
            waiting.show_status(line)
        elif now - self._told >= self._SECONDS:
            self._told = now
            log.info("%s", line)
