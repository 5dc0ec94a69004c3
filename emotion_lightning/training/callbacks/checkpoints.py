"""When to save and when to stop, so that a run goes on as if it had never been stopped."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from emotion_lightning.training import checkpoint_io


class PatientStopping(EarlyStopping):
    """Stays stopped when a run that it had ended is resumed; Lightning would train another epoch first."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Stop at once where patience was at its end."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


def at_whole_step(trainer: Any, batch_index: int) -> bool:
    """Whether training can be left here and taken up again as if nothing had happened.

    Between two batches of one optimizer step their gradients would be lost; and behind the last batch of an epoch,
    Lightning 2.6 would go on without the epoch's validation. The end of the epoch, a moment later, is whole again.
    """
    accumulated = (batch_index + 1) % trainer.accumulate_grad_batches == 0
    return accumulated and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class KeptCheckpoint(ModelCheckpoint):
    """Knows its best epoch again after a resume, also where the run folder has another place or name by now.

    Lightning forgets which epoch was best when the folder is another one, and takes the next for the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was kept; raise UserError where the file of the best epoch is gone or damaged."""
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        kept = {here(path): score for path, score in state_dict["best_k_models"].items()}
        # The last checkpoint, which is kept without a metric, is what is being read.
        if self.monitor is not None and moved["best_model_path"]:
            checkpoint_io.load(Path(moved["best_model_path"]))
        super().load_state_dict(state_dict | moved | {"best_k_models": kept, "dirpath": self.dirpath})


class LastCheckpoint(KeptCheckpoint):
    """Saves last.ckpt between the ends of epochs."""

    @property
    def state_key(self) -> str:
        """The name of this callback's state in a checkpoint."""
        # Lightning tells its checkpoint callbacks apart by these two; the one at the ends of epochs differs.
        return self._generate_state_key(every=self._every_n_train_steps, interval=str(self._train_time_interval))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Save if it is time, where it can be gone on from."""
        if at_whole_step(trainer, batch_index):
            super().on_train_batch_end(trainer, module, outputs, batch, batch_index)
