"""Checkpoints and early stopping, made so that a resumed run gives the same result as an uninterrupted one."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from emotion_lightning.training import checkpoint_io


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that also holds when a stopped run is resumed; Lightning would train one more epoch."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Stop at once if the patience was already used up."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


def at_whole_step(trainer: Any, batch_index: int) -> bool:
    """Return whether a checkpoint saved after this batch can be resumed without changing the result.

    It cannot between two batches of one optimizer step, because accumulated gradients would be lost. It also cannot
    after the last batch of an epoch, because Lightning 2.6 would then skip the epoch's validation; a checkpoint at the
    end of the epoch, which follows, is safe.
    """
    accumulated = (batch_index + 1) % trainer.accumulate_grad_batches == 0
    return accumulated and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


class RelocatableCheckpoint(ModelCheckpoint):
    """A checkpoint callback that remembers the best epoch even if the run folder was moved or renamed.

    Lightning resets the best score if the folder has changed, and then takes the next epoch for the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state with paths in the current folder.

        Raises:
            UserError: the checkpoint of the best epoch is missing or damaged.
        """
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        kept = {here(path): score for path, score in state_dict["best_k_models"].items()}
        # A callback without a monitor keeps last.ckpt, which is the file that is being loaded now.
        if self.monitor is not None and moved["best_model_path"]:
            checkpoint_io.load_checkpoint(Path(moved["best_model_path"]))
        super().load_state_dict(state_dict | moved | {"best_k_models": kept, "dirpath": self.dirpath})


class LastCheckpoint(RelocatableCheckpoint):
    """Saves last.ckpt during an epoch."""

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        # Lightning requires a different key for each callback: there may be one by steps and one by minutes.
        return self._generate_state_key(every=self._every_n_train_steps, interval=str(self._train_time_interval))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        """Save a checkpoint if one is due and training can be resumed from this batch."""
        if at_whole_step(trainer, batch_index):
            super().on_train_batch_end(trainer, module, outputs, batch, batch_index)
