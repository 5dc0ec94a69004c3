"""Silence messages of libraries that are of no use to the user.

Commands do it for the whole process. `emotion_lightning.load` is called in the process of somebody else: it silences
messages only while a model is loaded.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
    r".*Found \d+ module\(s\) in eval mode.*",  # what is frozen and computed once has no dropout
    r".*os.fork\(\) was called.*",
)


_LEVELS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    "lightning.pytorch.utilities.rank_zero": logging.WARNING,
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    # Matplotlib logs that it builds its font list, and warns about each font with only one weight, such as many Chinese
    # fonts.
    "matplotlib.font_manager": logging.ERROR,
}
_DROPPED_OF = "bitsandbytes.backends.cpu.ops"


class _Drop(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in _SAID)


def quiet_libraries() -> None:
    """Silence the listed messages, and messages below WARNING of Lightning and of the hub client's HTTP library.

    Other warnings are still shown. No library is imported.
    """
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger(_DROPPED_OF).addFilter(_Drop())
    _ignore_warnings()


def _ignore_warnings() -> None:
    for message in _WARNED:
        warnings.filterwarnings("ignore", message=message)


def hide_progress_bars() -> None:
    """Hide the progress bars of transformers, such as the one of loading weights."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


@contextmanager
def while_loading() -> Iterator[None]:
    """Hide progress bars of transformers and the listed warnings in the block; what the caller has set is restored."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    hide_progress_bars()
    try:
        with warnings.catch_warnings():
            _ignore_warnings()
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def while_working() -> Iterator[None]:
    """Silence in the block what `quiet_libraries` silences, and progress bars; what the caller has set is restored."""
    drop = _Drop()
    with while_loading():
        before = {name: logging.getLogger(name).level for name in _LEVELS}
        for name, level in _LEVELS.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger(_DROPPED_OF).addFilter(drop)
        try:
            yield
        finally:
            logging.getLogger(_DROPPED_OF).removeFilter(drop)
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def only_errors(*names: str | None) -> Iterator[None]:
    """Hide messages below ERROR of these loggers; None is the root logger."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
