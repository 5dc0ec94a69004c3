"""The LightningModule: a network with trained parts, its loss, its optimizer and its outcomes.

Shapes: logits, probabilities and targets are [batch, label], over a whole split [row, label].
"""

import random
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.config import schema
from emotion_lightning.data.batches import Batch
from emotion_lightning.data.module import EmotionData
from emotion_lightning.errors import UserError
from emotion_lightning.evaluation import calibration, metrics, thresholds
from emotion_lightning.models import nonfinite, pooling
from emotion_lightning.training import optimizer


class EmotionClassifier(lightning.LightningModule):
    """Trains what is trainable in a network, and scores it on validation after each epoch.

    Args:
        network: gives logits for `input_ids` and `attention_mask`; its trained parameters require gradients.
        labels: names, in the order of the logits.
        loss: logits and targets to one number.
        thresholds: the protocol that val/f1_macro and its like are computed with.
        optimizer: rates, decay and schedule.
        method: whose rates are taken where `optimizer` leaves them open.
        head: modules that learn at the head's rate.
        pooling: what the head sees of a text.
        head_factor: what the method's rate of the head is multiplied by, by the scale of the head's inputs.
        identity: what a checkpoint must have in common with this run to be loaded: base, labels, method …
    """

    # A checkpoint holds trained parameters only; `load_state_dict` checks their names itself.
    strict_loading = False

    def __init__(
        self,
        network: nn.Module,
        *,
        labels: list[str],
        loss: nn.Module,
        thresholds: config.Thresholds,
        optimizer: config.AdamW,
        method: config.Peft,
        head: list[str],
        pooling: config.Pooling,
        identity: dict[str, Any],
        head_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        self.loss = loss
        self.threshold_settings = thresholds
        self.optimizer_settings = optimizer
        self.method = method
        self.head = head
        self.pooling = pooling
        self.head_factor = head_factor
        self.identity = identity
        self.outcomes = metrics.Outcomes()
        self.batch_shape: tuple[int, ...] = (0, 0)
        """Texts and tokens of the last batch."""
        self.cause: nonfinite.Cause | None = None
        """Where the numbers of a split stopped being finite, if they did and it was found."""
        self._random_state: dict[str, Any] | None = None

    def forward(self, batch: Batch) -> Tensor:
        """A batch to logits, [batch, label], float32."""
        self.batch_shape = tuple(batch["input_ids"].shape)
        return pooling.logits(self.network, batch, pooling=self.pooling)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch."""
        logits = self(batch)
        loss = self.loss(logits, batch["targets"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(logits))
        return loss * batch.get("weight", 1.0)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Gather a batch's outcomes."""
        logits = self(batch)
        self.outcomes.update(batch["rows"], logits, batch.get("targets"))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Fit calibration and thresholds on validation, as at the end of the run, and log its metrics."""
        _, logits, targets = self.outcomes.gather()
        assert targets is not None
        if not bool(torch.isfinite(logits).all()):
            self._find_cause(self.trainer.val_dataloaders)
        refuse_not_finite(logits, f"step {self.global_step}", self.cause)
        protocol = thresholds.protocol(self.threshold_settings)
        scaling = calibration.fit(self.threshold_settings, logits, targets)
        probabilities = calibration.probabilities(logits, scaling)
        cut = thresholds.fit(probabilities, targets, self.threshold_settings)[protocol]
        scores = metrics.decisions_report(
            thresholds.decide(probabilities, cut), targets.bool(), cut, self.labels
        ) | metrics.rankings(probabilities, targets.bool())
        logged = {f"val/{name}": scores[name] for name in ("f1_micro", "jaccard", "map", "lrap")}
        self.log_dict({"val/loss": self.split_loss(logits, targets), **logged})
        self.log("val/f1_macro", scores["f1_macro"], prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Look for what is not finite while the network is where it ran; `finish` refuses it."""
        if not all(bool(torch.isfinite(logits).all()) for logits in self.outcomes.logits):
            self._find_cause(self.trainer.test_dataloaders)

    def cause_in(self, batch: Batch) -> nonfinite.Cause | None:
        """What was first not finite in a batch, computed again with every module watched."""
        with self.trainer.precision_plugin.forward_context():
            return nonfinite.first(self.network, partial(self, batch))

    def _find_cause(self, batches: Any) -> None:
        for batch in batches:
            self.cause = self.cause_in(self.trainer.strategy.batch_to_device(batch))
            if self.cause is not None:
                return

    def split_loss(self, logits: Tensor, targets: Tensor) -> float:
        """The loss over a whole split."""
        return float(self.loss(logits.to(self.device), targets.to(self.device)))

    def configure_optimizers(self) -> Any:
        """AdamW with its schedule, stepped with each optimizer step."""
        chosen, schedule = optimizer.build(
            self.optimizer_settings,
            self.method,
            self.network,
            head=self.head,
            head_factor=self.head_factor,
            steps=int(self.trainer.estimated_stepping_batches),
            fused=not self._scales_gradients(),
        )
        return {"optimizer": chosen, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of all gradients together."""
        if self._scales_gradients():
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val is not None:
            # Not by Lightning, which refuses every fused optimizer under autocast; only float16 scales gradients.
            nn.utils.clip_grad_norm_(self.trained().values(), gradient_clip_val)

    def _scales_gradients(self) -> bool:
        return bool(self.trainer.precision == "16-mixed")

    # ------------------------------------------------------------------------------------------------- checkpoints

    def trained(self) -> dict[str, Tensor]:
        """Trained parameters by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # no overloads needed
        """Trained parameters only: the frozen base would make gigabytes of it, and 4-bit weights do not reload."""
        return {name: parameter.detach() for name, parameter in self.trained().items()}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Copy trained parameters; raise UserError unless the names are the same both ways."""
        own = self.trained()
        missing, surplus = sorted(set(own) - set(state_dict)), sorted(set(state_dict) - set(own))
        if missing or surplus:
            raise UserError(
                "The checkpoint holds other parameters than this run trains"
                + (f"; it lacks {', '.join(missing[:3])}" if missing else "")
                + (f"; it has also {', '.join(surplus[:3])}" if surplus else "")
                + ". Resume with the settings that it was saved with."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != state_dict[name].shape:
                    raise UserError(
                        f"The checkpoint's {name} has shape {tuple(state_dict[name].shape)}, this run's "
                        f"{tuple(parameter.shape)}. Resume with the settings that it was saved with."
                    )
                parameter.copy_(state_dict[name])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the checkpoint belongs to, and the random states (dropout); refuse to keep a ruined network."""
        for name, value in checkpoint["state_dict"].items():
            if not bool(torch.isfinite(value).all()):
                raise UserError(
                    f"The parameters {name} are not finite at step {self.global_step}: the last step ruined them. The "
                    "checkpoint before it is kept. Lower optimizer.lr, lengthen optimizer.warmup or set "
                    "trainer.gradient_clip_val."
                )
        checkpoint["identity"] = self.identity
        state = {
            "python": random.getstate(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device).clone() if self.device.type == "cuda" else None,
        }
        states: list[Any] = [state]
        if self.trainer.world_size > 1:
            # Batches of other lengths draw other numbers, so each process has come to its own place.
            states = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, state)
        checkpoint["random"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base, label set or method, naming what differs."""
        saved = checkpoint.get("identity", {})
        for name, value in self.identity.items():
            if saved.get(name) != value:
                raise UserError(f"The checkpoint has {name}={saved.get(name)}, this run {name}={value}.")
        states = checkpoint["random"]
        if len(states) != self.trainer.world_size:
            raise UserError(
                f"The checkpoint is of {len(states)} processes, this run has {self.trainer.world_size}. Resume with "
                f"trainer.devices and trainer.num_nodes as they were."
            )
        self._random_state = states[self.trainer.global_rank]

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Go on with the random states of the checkpoint, just before they are needed."""
        if self._random_state is None:
            return
        random.setstate(self._random_state["python"])
        torch.set_rng_state(self._random_state["torch"].cpu())
        if self.device.type == "cuda" and self._random_state["cuda"] is not None:
            torch.cuda.set_rng_state(self._random_state["cuda"].cpu(), self.device)
        self._random_state = None


def refuse_not_finite(logits: Tensor, when: str, cause: nonfinite.Cause | None) -> None:
    """Raise UserError for a network that training has ruined; its F1 would pass for that of one that says no."""
    if not bool(torch.isfinite(logits).all()):
        raise UserError(f"The network's outputs are not finite at {when}{nonfinite.told(cause)}")


def checkpoint_identity(settings: config.Train, emotions: EmotionData) -> dict[str, Any]:
    """What a checkpoint must share with a run to be loaded into it."""
    return {
        "base": settings.model.path if settings.model.pretrained else "random weights",
        "architecture": str(settings.model.architecture) if not settings.model.pretrained else "",
        "quantization": settings.model.quantization.value,
        "attention": settings.model.attention.value,
        "pooling": settings.model.pooling.value,
        "labels": list(emotions.labels),
        "data (a print of its rows)": {name: rows.sha256()[:12] for name, rows in emotions.rows.items()},
        "peft": str(schema.plain(settings.peft)),
    }
