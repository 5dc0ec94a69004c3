"""Make a folder of a finished run that can be taken elsewhere.

python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=adapter
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=merged
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=onnx_int8
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=adapter push=me/emotions
"""

import logging
from pathlib import Path

from emotion_lightning import command, config, run_folder, waiting
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_GRAPHS = (config.ExportFormat.onnx, config.ExportFormat.onnx_int8)


def export(settings: config.Export, folder: Path) -> None:
    """Write the folder, read it again, and tell how far it answers as the run does."""
    if settings.format in _GRAPHS:
        from emotion_lightning import onnx_graph

        onnx_graph.check_installed()

    from emotion_lightning import checkpoint, hub

    if settings.push is not None:
        hub.check_login(settings.push)  # before the work, which may take minutes
    source = checkpoint.model_folder(hub.fetch(settings.run))
    output = Path(settings.output).expanduser()
    write(settings, source, output)
    if settings.push is not None:
        hub.upload(output, settings.push, private=settings.private, run=source.parent)


def write(settings: config.Export, source: Path, output: Path) -> None:
    """Make the folder `output` of a model folder, whole or not at all; it holds everything that predict needs."""
    from emotion_lightning import checkpoint, portable, quiet, report

    quiet.libraries()
    card = checkpoint.read_card(source)
    if card.is_baseline:
        raise UserError(
            f"run={settings.run} is a baseline, which has no network to export. Its model folder can be copied and "
            "asked as it is."
        )
    if card.is_graph:
        raise UserError(f"run={settings.run} is a graph already, of which no other export can be made; give the run.")
    waiting.says(f"Making the {settings.format.value} folder and comparing its answers with the run's")
    with run_folder.making(output) as part:
        found = portable.write(part, source, card, settings)
        stock = settings.format is not config.ExportFormat.merged or card.base["stock"]
    report.show_export(found)
    if not stock:
        log.warning(
            "Transformers' own class for this model pools or attends otherwise (model.pooling=%s): it opens the folder "
            "and gives other probabilities. Predict with this project, or take format=onnx, which holds the pooling.",
            card.base["pooling"],
        )
    log.info("Wrote %s", output)


def main() -> None:
    """Read the command line and export."""
    command.run("export", export)


if __name__ == "__main__":
    main()
