"""Messages of libraries that tell a user nothing, so that what a command prints is worth reading."""

import logging
import warnings

_SAID = (
    "Failed to load CPU gemm_4bit_forward",  # bitsandbytes: an optional kernel, for a path that we do not take
    "litlogger",  # Lightning: an advertisement
)
_WARNED = (
    r".*is_gradient_checkpointing.*",  # PEFT calls transformers by an old name
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning calls torch by an old name
    r".*does not have many workers.*",  # tokens are in memory; workers would be slower
    r".*number of training batches.*smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",  # resume, or the second of our checkpoint callbacks
    r".*lr_scheduler.step\(\).*before.*optimizer.step\(\).*",  # the gradient scaler skips its first steps in float16
    r".*resuming from a checkpoint that ended before the epoch ended.*",  # data.EmotionData keeps the position
    r".*Be aware that when using `ckpt_path`, callbacks used to create the checkpoint.*",
    r".*sync_dist=True.*",  # every process computes validation metrics of all rows
    r".*os.fork\(\) was called.*",
)


class _Drop(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in _SAID)


def libraries() -> None:
    """Silence them; what warns of something real still comes through."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It tells of its list of fonts, and warns of each font that has but one weight, as many for Chinese do.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_Drop())
    for message in _WARNED:
        warnings.filterwarnings("ignore", message=message)

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def requests() -> None:
    """Silence the hub client's library for HTTP, which tells of every request."""
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
