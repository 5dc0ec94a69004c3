"""Export a finished run to a folder that another machine can use.

python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=adapter
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=merged
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=onnx_int8
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=adapter push=me/emotions
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=space
"""

import logging
from pathlib import Path

from emotion_lightning import config
from emotion_lightning.cli import app
from emotion_lightning.config import own_parts
from emotion_lightning.errors import UserError
from emotion_lightning.runs import waiting
from emotion_lightning.runs.files import new_folder

log = logging.getLogger(__name__)

_GRAPHS = (config.ExportFormat.onnx, config.ExportFormat.onnx_int8, config.ExportFormat.space)


def export(settings: config.Export, folder: Path) -> None:
    """Export the run, compare the exported model with it, and upload the folder if `push` is set.

    Raises:
        UserError: the run cannot be exported or uploaded.
    """
    kind = _kind(settings)
    if kind in _GRAPHS:
        from emotion_lightning.inference import onnx_graph

        onnx_graph.check_installed()

    from emotion_lightning.inference import upload
    from emotion_lightning.models.hub import fetch_run
    from emotion_lightning.models.metadata import find_model_folder

    if settings.push is not None:
        upload.check_login(settings.push)  # before the export, which may take minutes
    source = find_model_folder(fetch_run(settings.run))
    output = Path(settings.output).expanduser()
    write_export(settings, source, output)
    if settings.push is not None and kind is config.ExportFormat.space:
        upload.upload_space(output, settings.push, private=settings.private)
    elif settings.push is not None:
        upload.upload(output, settings.push, private=settings.private, run=source.parent)


def _kind(settings: config.Export) -> config.ExportFormat | None:
    """Which format of this program is written; None for one of the user's own."""
    return settings.format.kind if isinstance(settings.format, config.BuiltInFormat) else None


def write_export(settings: config.Export, source: Path, output: Path) -> None:
    """Export a model folder atomically to a folder that contains all files that `predict` needs.

    Args:
        settings: settings of the command.
        source: the model folder of the run.
        output: the folder to create.

    Raises:
        UserError: the run is a baseline or a graph, or `output` exists and is not empty.
    """
    from emotion_lightning.inference import exporter
    from emotion_lightning.models.metadata import read_metadata
    from emotion_lightning.reports import console
    from emotion_lightning.runs import quiet

    quiet.hide_progress_bars()
    metadata = read_metadata(source)
    if metadata.is_baseline:
        raise UserError(
            f"run={settings.run} is a baseline, which has no network to export. Its model folder can be copied and "
            "asked as it is."
        )
    kind = _kind(settings)
    if metadata.is_graph and kind is not config.ExportFormat.space:
        raise UserError(f"run={settings.run} is a graph already, of which no other export can be made; give the run.")
    if isinstance(settings.format, own_parts.OwnPart):
        waiting.show_status(f"Making the {settings.format.origin.option} folder")
        with new_folder(output) as part:
            exporter.export_own_format(part, source, metadata, settings)
        log.info("Wrote %s", output)
        return
    assert kind is not None
    waiting.show_status(f"Making the {kind.value} folder and comparing its answers with the run's")
    with new_folder(output) as part:
        if kind is config.ExportFormat.space:
            from emotion_lightning.inference import space

            found = space.write_space(part, source, metadata, settings)
        else:
            found = exporter.export_model(part, source, metadata, settings, kind)
        stock = kind is not config.ExportFormat.merged or metadata.base.stock
    if found:
        console.show_export(found)
    if not stock:
        log.warning(
            "Transformers' own class for this model pools or attends otherwise (model.pooling=%s): it opens the folder "
            "and gives other probabilities. Predict with this project, or take format=onnx, which holds the pooling.",
            metadata.base.pooling,
        )
    log.info("Wrote %s", output)


def main() -> None:
    """Read the command line and export a run."""
    app.run_command("export", export)


if __name__ == "__main__":
    main()
