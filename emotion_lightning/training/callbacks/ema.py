"""Exponential moving average (EMA) of the trained parameters."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback


class WeightAverage(Callback):
    """Exponential moving average of the trained parameters. Validation and checkpoints use the average.

    This is Polyak averaging (Polyak and Juditsky, 1992) with a decay. It covers the trained parameters only, because
    Lightning's own callback copies the whole network and writes it into every checkpoint. A checkpoint holds the
    average as `state_dict` and the parameters that training continues with as `training_parameters`.

    Args:
        decay: weight of the old average at each optimizer step. Early steps use min(decay, (1 + step) / (10 + step)) as
            in TensorFlow's ExponentialMovingAverage, because the average would otherwise stay near the initial values.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, torch.Tensor] = {}
        self._training: dict[str, torch.Tensor] | None = None
        """The training parameters, kept here while the network holds the average."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Start the average from the current parameters; in a resumed run, restore the training parameters."""
        if self._training is not None:
            self._put(module, self._training)
            self._training = None
        if not self.average:
            self.average = _copies(module)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Update the average after an optimizer step."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, parameter in module.trained().items():
                self.average[name].lerp_(parameter, 1 - decay)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Put the average into the network for validation."""
        if trainer.state.fn == "fit":
            self._training = _copies(module)
            self._put(module, self.average)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Put the training parameters back; `on_save_checkpoint` writes the average into later checkpoints."""
        if trainer.state.fn == "fit" and self._training is not None:
            self._put(module, self._training)
            self._training = None

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the average as `state_dict` and the training parameters beside it."""
        checkpoint["training_parameters"] = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        checkpoint["state_dict"] = {name: value.clone() for name, value in self.average.items()}

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the average and the training parameters."""
        self.average = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        self._training = checkpoint["training_parameters"]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps in the average."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of steps."""
        self.steps = state_dict["steps"]

    def _put(self, module: Any, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in module.trained().items():
                parameter.copy_(values[name])


def _copies(module: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.trained().items()}
