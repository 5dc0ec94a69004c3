"""Export a run to a folder that works on other machines: an adapter, a merged network or an ONNX graph.

Each export is checked. These probabilities are compared: those of the run itself, as stored; those of the adapter on an
unquantised base model, before and after merging; and those of the exported folder after loading it again.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.config import own_parts, schema, stored_settings
from emotion_lightning.data import sources
from emotion_lightning.data.rows import Text, without_context
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.evaluation import calibration, group_thresholds, metrics, row_outcomes, thresholds
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.inference import hub_card, onnx_graph, run_data
from emotion_lightning.inference.predictor import BATCH_SIZE, Predictor, open_folder
from emotion_lightning.models import adapter, model_folder, safe_loading
from emotion_lightning.models.device import compute_dtype, device_for
from emotion_lightning.models.hub import check_hub
from emotion_lightning.models.metadata import Metadata
from emotion_lightning.reports import console
from emotion_lightning.runs import bounded_files, manifest, run_folder
from emotion_lightning.runs.files import write_json
from emotion_lightning.runs.metrics_file import Score, of_split, read_metrics

log = logging.getLogger(__name__)

REPORT = "export.json"
"""File with the results of the export's checks."""
TOLERANCE = 1e-4
"""Largest difference of probabilities at which two float32 computations count as equal."""
_HALF_TOLERANCE = 0.1
"""The same if one of them uses 16-bit weights. Smaller differences are reported; larger ones are not rounding."""
_PROBES = 64
"""Number of texts for checks that would take too long on a whole split."""
SCORES: tuple[Score, ...] = ("f1_macro", "f1_micro", "jaccard")


@dataclasses.dataclass
class CheckedRows:
    """The rows on which probabilities are compared.

    Attributes:
        name: "validation" or "bundled sample", for the report.
        texts: of the run's validation split or, if that cannot be read, of the bundled sample.
        gold: what they are scored against; None for the bundled sample.
        answers: the run's stored probabilities, [row, label]; None if it has stored none for these rows.
        groups: group of each row, by which the run has thresholds; None if they are the same for all rows.
    """

    name: str
    texts: Sequence[Text]
    gold: Gold | None
    answers: Tensor | None
    groups: Sequence[str] | None = None

    def probes(self) -> list[int]:
        """Return positions of texts that cover all lengths, from the shortest to the longest."""
        order = np.argsort([len(without_context(text)) for text in self.texts], kind="stable")
        return sorted({int(order[i]) for i in np.linspace(0, len(order) - 1, _PROBES).astype(int)})


@dataclasses.dataclass
class Answers:
    """The outputs of one form of the model (the run, merged, ONNX, …) for the rows.

    Attributes:
        name: name of the form.
        probabilities: [row, label], calibrated if the run is.
        logits: [row, label]; None if they are not stored.
        texts_per_second: speed without the first batch; None if it was not measured.
        size: bytes of the weights, plus those of an adapter's base model if that is a local folder; None if the model
            is only in memory.
    """

    name: str
    probabilities: Tensor
    logits: Tensor | None = None
    texts_per_second: float | None = None
    size: int | None = None


@dataclasses.dataclass
class _Job:
    """Inputs of one export.

    Attributes:
        folder: the folder to write.
        source: the run's model folder.
        run_card: metadata of `source`.
        metadata: metadata of `folder`.
        settings: of the command `export`.
        format: the format to write.
        rows: on which probabilities are compared.
        own: outputs of the run.
    """

    folder: Path
    source: Path
    run_card: Metadata
    metadata: Metadata
    settings: config.Export
    format: config.ExportFormat
    rows: CheckedRows
    own: Answers

    def read_again(self, accelerator: config.Accelerator) -> Predictor:
        """Load the exported folder."""
        manifest.write_hashes(self.folder)  # else loading warns that there are none
        return open_folder(self.folder, self.metadata, accelerator=accelerator)

    def checks(self, *forms: Answers) -> list[dict[str, Any]]:
        """Return the entries of export.json for these forms."""
        return [
            {
                "name": form.name,
                "bytes": form.size,
                "texts_per_second": form.texts_per_second,
                "from_run": None if form is self.own else _difference(form.probabilities, self.own.probabilities),
                **_scores(form.probabilities, self.rows, self.metadata),
            }
            for form in forms
        ]


def export_model(
    folder: Path, source: Path, metadata: Metadata, settings: config.Export, kind: config.ExportFormat
) -> dict[str, Any]:
    """Export a model folder and check the result.

    Args:
        folder: the folder to write.
        source: the run's model folder.
        metadata: metadata of `source`.
        settings: of the command `export`.
        kind: the format to write.

    Returns:
        The results of the checks, which are also written to export.json.

    Raises:
        UserError: the format does not fit the run, the base model is missing or itself quantised, or refit=true and
            the validation rows cannot be read.
        RuntimeError: the exported model gives other probabilities than the network that it was made from.
    """
    adapter = kind is config.ExportFormat.adapter
    if adapter and not metadata.base.adapter:
        raise UserError(f"run={settings.run} has no adapter: it is a whole network. Take format=merged.")
    if settings.base is not None and not safe_loading.is_hub_id(settings.base):
        raise UserError(f"base={settings.base} is no id of the hub such as google/gemma-1.1-2b-it.")
    manifest.check_hashes(source, "*")
    _base(source, metadata)
    rows = _rows(source, metadata, needed=settings.refit)
    own = _own(source, metadata, rows, settings.accelerator)
    new = dataclasses.replace(metadata, format=kind.value, data=_without_paths(metadata.data))
    job = _Job(folder, source, metadata, new, settings, kind, rows, own)
    content = {"format": kind.value, "rows": rows.name, "texts": len(rows.texts)}
    content |= _adapter(job) if adapter else _whole(job)
    write_json(folder / REPORT, content)
    manifest.write_hashes(folder)
    return content


def export_own_format(folder: Path, source: Path, metadata: Metadata, settings: config.Export) -> None:
    """Let the function of a format of the user's own write a folder; what it writes is not checked.

    The function gets the merged network in float32 on the CPU, in evaluation mode.

    Args:
        folder: the folder to write.
        source: the run's model folder.
        metadata: metadata of `source`.
        settings: of the command `export`.

    Raises:
        UserError: the base model is missing or itself quantised, the function writes nothing, or the run has
            thresholds for each group.
    """
    assert isinstance(settings.format, own_parts.OwnPart)
    if (by_group := metadata.group_thresholds()) is not None:
        raise UserError(
            f"format={settings.format.origin.option} gets one threshold for each label, and this run has others for "
            f"each {by_group.column} (thresholds.by={by_group.column}); export it in a format of this program, or "
            "train without thresholds.by."
        )
    manifest.check_hashes(source, "*")
    if metadata.long_texts is not None and metadata.long_texts.in_pieces:
        log.warning(
            "format=%s gets the network alone, which reads one piece of a text: what uses the folder must divide long "
            "texts and join their logits itself, as data.long_texts=windows does.", settings.format.origin.option,
        )  # fmt: skip
    network, tokenizer, _ = _merged(source, metadata, probe_texts(metadata), torch.device("cpu"))
    own_parts.build(
        settings.format,
        network=network,
        tokenizer=tokenizer,
        folder=folder,
        labels=list(metadata.labels),
        thresholds=dict(metadata.thresholds[metadata.protocol]),
        max_tokens=metadata.max_tokens,
    )
    if not any(folder.iterdir()):
        raise UserError(
            f"format={settings.format.origin.option}: {settings.format.part} wrote no file into its folder."
        )


# ------------------------------------------------------------------------------------------------------------- adapter


def _adapter(job: _Job) -> dict[str, Any]:
    """Copy the adapter, and its base model if that is not on the hub."""
    base = _base(job.source, job.run_card)
    if job.settings.base is not None:
        job.metadata = job.metadata.with_base(path=job.settings.base, local=False)
    elif Path(base).is_dir():
        log.info("Takes along a copy of the base in %s.", base)
        _copy_network(Path(base), job.folder / run_folder.BASE)
        job.metadata = job.metadata.with_base(path=run_folder.BASE, local=True, revision=None)
    shutil.copy(safe_loading.load_weights(job.source, "adapter_model.safetensors"), job.folder)
    method = bounded_files.read_json(safe_loading.load_weights(job.source, "adapter_config.json"))
    method |= {"base_model_name_or_path": job.metadata.base.path, "revision": job.metadata.base.revision}
    write_json(job.folder / "adapter_config.json", method)
    _save_metadata(job)
    if job.settings.base is not None:
        return {"weights": job.checks(job.own)}  # not checked: the hub may not have that base model yet
    again = _answer("the adapter, read again", job.read_again(job.settings.accelerator), job.rows, _size(job.folder))
    return {"weights": job.checks(job.own, again)}


def _copy_network(source: Path, target: Path) -> None:
    """Copy the configuration and weights of a network, and no other files of its folder."""
    target.mkdir()
    first = safe_loading.whole_network(source)
    names = {first.name, "config.json"}
    if first.suffix == ".json":
        names |= safe_loading.weight_files(first)
    for name in sorted(names):
        shutil.copy(source / name, target / name)


# ----------------------------------------------------------------------------------------------------- merged and ONNX


def _whole(job: _Job) -> dict[str, Any]:
    """Write the merged network, in Transformers' format or as an ONNX graph."""
    rows, cpu, graph = job.rows, config.Accelerator.cpu, job.metadata.is_graph
    device = device_for(cpu if graph else job.settings.accelerator)
    merged, tokenizer, moved = _merged(job.source, job.run_card, [rows.texts[i] for i in rows.probes()], device)
    dtype = job.settings.dtype if job.settings.dtype is not config.Dtype.auto else config.Dtype.float32
    job.metadata = metadata = job.metadata.with_base(
        adapter=False, quantization=config.Quantization.none, dtype=dtype, revision=None,
        attn_implementation=config.AttentionKernel.auto, path=Path(job.metadata.base.path).name, local=True,
        stock=job.metadata.base.stock and not graph,
    )  # fmt: skip
    tokenizer.model_max_length = metadata.max_tokens  # truncation=True then truncates as the run did
    found: dict[str, Any] = {} if moved is None else {"merged_from_unmerged": moved}
    forms = [job.own]
    if graph:
        in_torch = _answer("torch, float32", Predictor(merged, tokenizer, metadata=metadata, device=device), rows)
        onnx_graph.write_graph(merged, job.folder, way=metadata.base.pooling)
        del merged
        _save_metadata(job, tokenizer)
        found["onnx_from_torch"] = _same_in_any_batch(job.read_again(cpu), in_torch, rows)
        forms += [in_torch, _answer("onnx, float32", job.read_again(cpu), rows, _size(job.folder))]
        if job.format is config.ExportFormat.onnx_int8:
            onnx_graph.quantize_graph(job.folder)
            forms.append(_answer("onnx, int8", job.read_again(cpu), rows, _size(job.folder)))
    else:
        probes = [rows.texts[i] for i in rows.probes()]
        exact = metadata.with_base(dtype=config.Dtype.float32)
        before = Predictor(merged, tokenizer, metadata=exact, device=device).probabilities(probes)
        model_folder.save_whole(job.folder, merged.to(compute_dtype(dtype, device)))
        del merged
        _save_metadata(job, tokenizer)
        again = job.read_again(job.settings.accelerator)
        _must_be_close(
            again.probabilities(probes), before, "the folder, read again, and the network that was saved",
            tolerance=TOLERANCE if dtype is config.Dtype.float32 else _HALF_TOLERANCE,
        )  # fmt: skip
        forms.append(_answer(f"merged, {dtype.value}", again, rows, _size(job.folder)))
    found["weights"] = job.checks(*forms)
    if rows.gold is not None:
        found["thresholds"] = _refitted(job, forms[-1])
        if job.settings.refit:
            _save_metadata(job, tokenizer)
    return found


def _merged(
    source: Path, metadata: Metadata, texts: Sequence[Text], device: torch.device
) -> tuple[Any, Any, float | None]:
    """Load the network in float32 and merge its adapter.

    Args:
        source: the run's model folder.
        metadata: its metadata.
        texts: on which the probabilities before and after merging are compared.
        device: where the network is placed.

    Returns:
        The network, its tokenizer, and the largest change of a probability by merging (None without an adapter).
    """
    tokenizer = model_folder.load_tokenizer(source)
    path = _base(source, metadata)
    with model_folder.damaged_as_user_error(source):
        network = model_folder.load_base(
            path, metadata=metadata, quantization=config.Quantization.none, compute=torch.float32, dtype=torch.float32,
            pad_token_id=tokenizer.pad_token_id, device=device,
        )  # fmt: skip
    if getattr(network, "is_quantized", False):
        raise UserError(f"The base {path} is quantised itself: what was trained cannot be merged into it.")
    if not metadata.base.adapter:
        return network.eval(), tokenizer, None
    exact = metadata.with_base(dtype=config.Dtype.float32)

    def answers(of: Any) -> Tensor:
        return Predictor(of.eval(), tokenizer, metadata=exact, device=device).probabilities(texts)

    with model_folder.damaged_as_user_error(source):
        network = model_folder.load_adapter(network, source)
    before = answers(network)
    network = adapter.merge_adapter(network)
    return network, tokenizer, _must_be_close(answers(network), before, "merged and unmerged")


def _base(source: Path, metadata: Metadata) -> str:
    """Return the path or hub id of an adapter's base model, or the folder of a whole network.

    Raises:
        UserError: it cannot be found.
    """
    model_folder.check_weights(source, metadata)
    if not metadata.base.adapter:
        return str(source)
    path = model_folder.base_path(source, metadata)
    if not Path(path).is_dir():
        check_hub(path, metadata.base.revision)
    return path


def _same_in_any_batch(graph: Predictor, reference: Answers, rows: CheckedRows) -> float:
    """Return the largest difference between a graph and torch, over batches of other sizes and lengths than traced."""
    few = rows.probes()
    texts = [rows.texts[i] for i in few]
    return max(
        _must_be_close(
            graph.probabilities(texts, batch_size=size), reference.probabilities[few], f"graph and torch, by {size}"
        )
        for size in (1, 5, 32)
    )


# --------------------------------------------------------------------------------------------------------- comparisons


def _rows(source: Path, metadata: Metadata, *, needed: bool) -> CheckedRows:
    """Return the run's validation rows with its stored probabilities; if they cannot be read, the bundled sample."""
    try:
        corpus, split = run_data.read_split(
            run_data.data_settings(metadata, source.parent), "validation", own=True, labels=metadata.labels
        )
        rows = corpus.splits[split]
        if rows.targets is None or set(metadata.labels) - set(corpus.labels):
            raise UserError("they are not labelled as the run's were")
    except UserError as error:
        why = first_line(error).rstrip(".")
        if needed:
            raise UserError(f"refit=true needs the run's validation rows: {why}. Leave it out.") from error
        log.warning("The run's validation rows are not at hand (%s): answers are compared on bundled texts.", why)
        return CheckedRows("bundled sample", probe_texts(metadata), None, None)
    order = [corpus.labels.index(name) for name in metadata.labels]
    kept = None if metadata.format else row_outcomes.read_outcomes(source.parent, "validation", metadata.labels)
    answers = kept.probabilities if kept is not None and kept.ids == list(rows.ids) else None
    by_group = metadata.group_thresholds()
    groups = None if by_group is None else group_thresholds.groups_of(rows, by_group.column)
    return CheckedRows("validation", rows.inputs, Gold.of(rows)[:, order], answers, groups)


def probe_texts(metadata: Metadata) -> list[str]:
    """Return texts of the bundled sample."""
    return list(sources.read_corpus(_sample(metadata)).splits["validation"].texts[:_PROBES])


def _sample(metadata: Metadata) -> config.Sample:
    stored = stored_settings.with_added(metadata.data)
    values = {field.name: stored.get(field.name) for field in dataclasses.fields(config.Sample)}
    sample: config.Sample = schema.from_plain(config.Sample, values | {"max_rows": None, "folds": None, "fold": None})
    return sample


def _own(source: Path, metadata: Metadata, rows: CheckedRows, accelerator: config.Accelerator) -> Answers:
    """Return the run's outputs for the rows: the stored probabilities, else computed again."""
    size = _size(source)
    if metadata.base.adapter:
        base = Path(model_folder.base_path(source, metadata))
        size += _size(base) if base.is_dir() and source not in base.parents else 0
    if rows.answers is not None:
        return Answers("the run", rows.answers, size=size)
    return _answer("the run", open_folder(source, metadata, accelerator=accelerator), rows, size)


def _answer(name: str, predictor: Predictor, rows: CheckedRows, size: int | None = None) -> Answers:
    predictor.outputs(rows.texts[:BATCH_SIZE])  # warm-up, which is not timed
    start = time.perf_counter()
    logits, probabilities = predictor.outputs(rows.texts)
    return Answers(name, probabilities, logits, len(rows.texts) / (time.perf_counter() - start), size)


def _refitted(job: _Job, form: Answers) -> dict[str, Any]:
    """Refit the thresholds on validation and compare them with the run's; refit=true puts them into the metadata."""
    gold = job.rows.gold
    assert form.logits is not None and gold is not None
    metadata, settings = job.metadata, job.metadata.threshold_settings()
    before = metadata.read_intensities(of_logits=True)
    scaling = calibration.fit_calibration(settings.calibration, form.logits, gold.probable(before), known=gold.known)
    probabilities = calibration.probabilities(form.logits, scaling)
    intensities = metadata.intensities
    if before is not None and scaling is not None and gold.shares is not None:
        found = before.calibrated(probabilities, gold.shares, gold.known)
        intensities = intensities | found.plain(metadata.labels)
    by_protocol = thresholds.fit_thresholds(probabilities, gold.labels, settings, known=gold.known)
    by_group = group_thresholds.fit(
        probabilities, gold.labels, settings, values=job.rows.groups, overall=by_protocol, known=gold.known
    )
    fitted = dataclasses.replace(
        metadata,
        thresholds_by=metadata.thresholds_by if by_group is None else by_group.plain(metadata.labels),
        thresholds={
            name: dict(zip(metadata.labels, threshold.tolist(), strict=True)) for name, threshold in by_protocol.items()
        },
        calibration={} if scaling is None else scaling.plain(metadata.labels),
        intensities=intensities,
    )
    shift = float((fitted.threshold_tensor() - metadata.threshold_tensor()).abs().max())
    scores = _scores(probabilities, job.rows, fitted)
    if job.settings.refit:
        job.metadata = fitted
    return {"are": "fitted anew" if job.settings.refit else "the run's", "largest_shift": shift, "fitted_anew": scores}


def _scores(probabilities: Tensor, rows: CheckedRows, metadata: Metadata) -> dict[str, float]:
    """Return the scores with the metadata's thresholds; empty if the rows have no labels."""
    if rows.gold is None:
        return {}
    overall = {metadata.protocol: metadata.threshold_tensor()}
    decisions = group_thresholds.decide(probabilities, overall, metadata.group_thresholds(), rows.groups)
    found = metrics.decisions_report(
        decisions[metadata.protocol],
        rows.gold.labels.bool(),
        metadata.threshold_tensor(),
        metadata.labels,
        known=rows.gold.known,
    )
    return {name: found[name] for name in SCORES}


def _must_be_close(one: Tensor, other: Tensor, what: str, *, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference of two tensors of probabilities.

    Raises:
        RuntimeError: it is larger than `tolerance`.
    """
    found = _difference(one, other)
    if not found <= tolerance:  # a NaN is not close either
        raise RuntimeError(f"{what}: answers differ by {found:.2g}, more than {tolerance:g}; nothing is written")
    return found


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def _size(folder: Path) -> int:
    files = (path for kind in ("*.safetensors", "*.onnx", "*.onnx.data") for path in folder.rglob(kind))
    return sum(path.stat().st_size for path in files)


# ------------------------------------------------------------------------------------------------------- other files


def _without_paths(data: dict[str, Any]) -> dict[str, Any]:
    """Remove absolute paths from data settings: they mean nothing on other machines and may reveal a user name."""
    return {
        name: None
        if name in run_folder.PATHS
        and isinstance(value, str)
        and any(Path(path).is_absolute() for path in run_folder.parse_list(value))
        else value
        for name, value in data.items()
    }


def _save_metadata(job: _Job, tokenizer: Any = None) -> None:
    """Write the tokenizer, the metadata and the README with the run's scores."""
    tokenizer = tokenizer or model_folder.load_tokenizer(job.source)
    source, run = job.source, job.source.parent
    stands_alone = job.run_card.format or not (run / run_folder.SETTINGS).is_file()
    file = source / "README.md"
    old = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if not stands_alone and (run / run_folder.METRICS).is_file():
        manifest.check_run_hashes(run, run_folder.SETTINGS)
        content = read_metrics(run)
        split = "test" if "test" in content else "validation"
        scores = console.scores_markdown(split, of_split(content, split))
        method = str(run_folder.read_settings(run)["options"].get("peft", "fine-tuned"))
    else:
        scores = "\n".join(line for line in old.splitlines() if line.startswith("|"))
        title = next((line for line in old.splitlines() if line.startswith("# Emotions in text: ")), "")
        method = title.removeprefix("# Emotions in text: ").partition(" ")[0] or "fine-tuned"
    readme = hub_card.folder_readme(job.metadata, method=method, scores=scores)
    model_folder.save_metadata(job.folder, tokenizer=tokenizer, metadata=job.metadata, readme=readme)
