"""Choose model=auto where model.path names a model of another family than the option's."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from emotion_lightning.cli import override_grammar
from emotion_lightning.cli.compose import overrides_of
from emotion_lightning.config import schema
from emotion_lightning.runs import bounded_files

log = logging.getLogger(__name__)

_COMMANDS = ("train", "tune", "inspect")
_CHOOSE = {"model", "experiment", "resume", "from_run", "sweep", "model.pretrained", "space"}
"""Settings that choose the model option themselves, or may do so."""


def with_fitting_option(command: str, arguments: list[str], *, typed: Sequence[str]) -> list[str]:
    """Add model=auto if model.path is given without an option and names a model of another family than the default's.

    Args:
        command: name of the command.
        arguments: the prepared command line.
        typed: the arguments as the user typed them.
    """
    given = {match["name"]: match["value"] for a in typed if (match := override_grammar.ARGUMENT.fullmatch(a))}
    path = override_grammar.unquoted(given.get("model.path"))
    if command not in _COMMANDS or path is None or _CHOOSE & given.keys():
        return arguments
    found = _model_type(path, override_grammar.unquoted(given.get("model.revision")))
    if found is None:
        return arguments
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        bare = [a for a in arguments if not a.startswith(("model.", "+model.", "++model."))]
        default = compose(command, overrides_of([a for a in bare if "(" not in a]))
    if found == default.model.architecture.get("model_type"):
        return arguments
    log.warning(
        "model.path=%s is a %s, so model=auto is used, which reads its structure from the network.", path, found
    )
    return ["model=auto", *arguments]


def _model_type(path: str, revision: str | None) -> str | None:
    """The architecture that a model's config.json names; None if there is no such file to be had."""
    file = Path(path).expanduser() / "config.json"
    try:
        if not file.is_file():
            if Path(path).is_absolute() or path.count("/") != 1 or path.startswith((".", "~")):
                return None
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(path, "config.json", revision=revision))
        named = bounded_files.read_json_object(file).get("model_type")
    except Exception:  # no such model, no network, no access, a damaged file: the command has a message for each
        return None
    return named if isinstance(named, str) else None
