"""Find the options of the user's own that a command line may choose."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from emotion_lightning.cli import override_grammar
from emotion_lightning.cli.compose import option_folders
from emotion_lightning.config import own_parts

log = logging.getLogger(__name__)

_EARLIER = {"resume", "from_run", "init_from", "run", "sweep.resume"}
"""Settings that name an earlier run, whose options may be the user's own."""
_OF_NETWORKS = {"predict", "compare"}
"""Commands that use only what a finished run has stored."""


def register(command: str, arguments: Sequence[str]) -> None:
    """Let Hydra compose the options of the user's own that a command line may choose.

    An option may be chosen if its name stands in the command line or in an option file of the user, or if the command
    line names an earlier run.

    Args:
        command: name of the command.
        arguments: the command line, as the user typed it.

    Raises:
        UserError: --config-dir names no folder, an option of the user's own is damaged, or its function cannot be
            imported.
    """
    folders = option_folders([override_grammar.as_text(argument) for argument in arguments])
    names = {match["name"] for a in arguments if (match := override_grammar.ARGUMENT.fullmatch(a))}
    words = {word for text in (*arguments, *_texts(folders)) for word in re.findall(r"[\w-]+", text)}
    for error in own_parts.register(folders, is_used=lambda option: option in words):
        raise error
    if names & _EARLIER and command not in _OF_NETWORKS:
        for error in own_parts.register(folders, is_used=lambda option: True):
            log.warning("%s", error)  # the run may use another one


def _texts(folders: Sequence[Path]) -> list[str]:
    """The option files of folders that name no function, such as experiments, which may choose other options."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for at in folders for file in at.glob("*/*.yaml")]
    return [text for text in texts if not re.search(r"^part:", text, re.MULTILINE)]
