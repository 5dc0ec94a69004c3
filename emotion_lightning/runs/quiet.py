"""Silence messages of libraries that are of no use to the user."""

import logging
import warnings

_SAID = (
    "Failed to load CPU gemm_4bit_forward",  # bitsandbytes: an optional kernel that this program does not use
    "litlogger",  # Lightning: an advertisement
)
_WARNED = (
    r".*is_gradient_checkpointing.*",  # PEFT uses a deprecated name of transformers
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning uses a deprecated name of torch
    r".*does not have many workers.*",  # the tokens are in memory, so workers would be slower
    r".*number of training batches.*smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run, or our second checkpoint callback
    r".*lr_scheduler.step\(\).*before.*optimizer.step\(\).*",  # the gradient scaler skips its first steps in float16
    r".*resuming from a checkpoint that ended before the epoch ended.*",  # EmotionData stores its position
    r".*Be aware that when using `ckpt_path`, callbacks used to create the checkpoint.*",
    r".*sync_dist=True.*",  # every process computes the validation metrics over all rows
    r".*os.fork\(\) was called.*",
)


class _Drop(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in _SAID)


def quiet_libraries() -> None:
    """Silence the listed messages, and messages below WARNING of Lightning; other warnings are still shown."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Matplotlib logs that it builds its font list, and warns about each font with only one weight, such as many
    # Chinese fonts.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_Drop())
    for message in _WARNED:
        warnings.filterwarnings("ignore", message=message)

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def quiet_requests() -> None:
    """Silence the HTTP library of the hub client, which logs every request."""
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
