"""Write checkpoints atomically and read them without executing code from the file."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from emotion_lightning.errors import UserError, first_line
from emotion_lightning.runs import bounded_files
from emotion_lightning.runs.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint atomically, and reads it without executing code from the file.

    Lightning writes to the system's temporary folder and moves the file. Across file systems a move is a copy, and a
    kill during the copy leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write to a temporary file beside the old checkpoint, then rename it.

        Raises:
            UserError: the file cannot be written, for example because the disk is full.
        """
        try:
            with atomic_write(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:
            # On a full disk torch raises a RuntimeError with the message of its zip writer.
            if isinstance(error, RuntimeError) and not re.search("StreamWriter|iostream|inline_container", str(error)):
                raise
            kept = " The one before it is untouched." if Path(path).exists() else ""
            reason = getattr(error, "strerror", None) or "the disk is full or the folder cannot be written to"
            raise UserError(
                f"The checkpoint {path} cannot be saved: {reason}.{kept} Free some space and resume."
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain Python values only; `weights_only` is ignored."""
        return load_checkpoint(Path(path), map_location=map_location)


def load_checkpoint(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint.

    Raises:
        UserError: the file is missing, damaged or not a checkpoint of this project.
    """
    try:
        bounded_files.check_regular(path)
        with zipfile.ZipFile(path) as records:  # torch 2.13 does not verify the checksums that it writes
            if damaged := records.testzip():
                raise zipfile.BadZipFile(f"{damaged} is not as it was written")
        content = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except UserError as error:
        raise UserError(f"{error} {_MEND}") from None
    except Exception as error:  # a damaged file raises errors of zipfile, pickle and torch
        raise UserError(f"{path} is not a whole checkpoint ({first_line(error)}). {_MEND}") from error
    if not isinstance(content, dict) or not {"state_dict", "pytorch-lightning_version"} <= content.keys():
        raise UserError(f"{path} is no checkpoint of this project. {_MEND}")
    return content


_MEND = "Put back a copy of it, or repeat the run with train from_run=FOLDER."
