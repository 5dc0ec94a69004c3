"""Averaged parameters."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback


class Average(Callback):
    """An exponential moving average of the trained parameters, which is what is scored and kept.

    Polyak averaging (Polyak and Juditsky, 1992) with a decay, over the trained parameters only: Lightning's own copies
    the whole network and writes it into every checkpoint. The `state_dict` of a checkpoint holds the average; what
    training goes on with is kept beside it.

    Args:
        decay: share of the average that stays at each optimizer step; less in the first steps, (1 + step) / (10 + step)
            as in TensorFlow's ExponentialMovingAverage, as the average would else remember the beginning for long.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, torch.Tensor] = {}
        self._training: dict[str, torch.Tensor] | None = None
        """The parameters that training goes on with, while the average stands in their place."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begin with the parameters as they are; in a resumed run, put those of training back in their place."""
        if self._training is not None:
            self._put(module, self._training)
            self._training = None
        if not self.average:
            self.average = _copies(module)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Move the average after an optimizer step."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, parameter in module.trained().items():
                self.average[name].lerp_(parameter, 1 - decay)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Score the average."""
        if trainer.state.fn == "fit":
            self._training = _copies(module)
            self._put(module, self.average)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Go on training. Checkpoint callbacks come later and find the average in `on_save_checkpoint`."""
        if trainer.state.fn == "fit" and self._training is not None:
            self._put(module, self._training)
            self._training = None

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the average as the parameters, and those of training beside it."""
        checkpoint["training_parameters"] = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        checkpoint["state_dict"] = {name: value.clone() for name, value in self.average.items()}

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Take both up again."""
        self.average = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        self._training = checkpoint["training_parameters"]

    def state_dict(self) -> dict[str, Any]:
        """How many steps are in the average."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.steps = state_dict["steps"]

    def _put(self, module: Any, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in module.trained().items():
                parameter.copy_(values[name])


def _copies(module: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.trained().items()}
