"""Make a folder of a finished run that can be taken elsewhere.

python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=adapter
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=merged
python -m emotion_lightning.export run=outputs/train/DATE/TIME output=emotions format=onnx_int8
"""

import logging
from pathlib import Path

from emotion_lightning import command, config, run_folder
from emotion_lightning.errors import UserError

log = logging.getLogger(__name__)

_GRAPHS = (config.ExportFormat.onnx, config.ExportFormat.onnx_int8)


def export(settings: config.Export, folder: Path) -> None:
    """Write the folder, read it again, and tell how far it answers as the run does."""
    if settings.format in _GRAPHS:
        from emotion_lightning import onnx_graph

        onnx_graph.check_installed()
    write(settings, Path(settings.output).expanduser())


def write(settings: config.Export, output: Path) -> Path:
    """Make the folder `output`, whole or not at all; it holds everything that predict needs."""
    from emotion_lightning import checkpoint, portable, quiet, report

    quiet.libraries()
    source = checkpoint.model_folder(settings.run)
    card = checkpoint.read_card(source)
    if card.is_graph:
        raise UserError(f"run={settings.run} is a graph already, of which no other export can be made; give the run.")
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
    return output


def main() -> None:
    """Read the command line and export."""
    command.run("export", export)


if __name__ == "__main__":
    main()
