"""The LightningModule: a network with trainable parameters, its loss, its optimizer and its outcomes.

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
from emotion_lightning.evaluation import calibration, extra_metrics, group_thresholds, metrics, thresholds
from emotion_lightning.evaluation.gold import Gold
from emotion_lightning.evaluation.intensities import Intensities
from emotion_lightning.models import losses, nonfinite, pooling, spread
from emotion_lightning.models.frozen import FrozenPart
from emotion_lightning.runs import run_folder
from emotion_lightning.training import optimizer


class EmotionClassifier(lightning.LightningModule):
    """Trains the trainable parameters of a network and scores it on validation after each epoch.

    Args:
        network: returns logits for `input_ids` and `attention_mask`; parameters to train have requires_grad=True.
        labels: label names, in the order of the logits.
        loss: computes a scalar loss from logits and targets.
        thresholds: how thresholds are chosen for val/f1_macro, val/f1_micro and val/jaccard.
        optimizer: learning rates, weight decay and schedule.
        method: the PEFT option; its learning rates are used where `optimizer` sets none.
        head: names of the modules that use the head's learning rate.
        pooling: how token vectors are pooled into the head's input.
        join: how the logits of a text's pieces are joined, where texts have several.
        head_factor: factor on the method's learning rate for the head; depends on the scale of the head's inputs.
        extra_metric: metrics of the user's own, logged with those of the program.
        gold: what the validation rows are scored against; None: what batches hold.
        frozen: the part of the network whose outputs batches may hold as `states`.
        groups: group of each validation row, by which thresholds are fitted; None: they are the same for all rows.
        cut_lr: learning rate of the cut points of the loss, if it learns any.
        identity: properties in which a checkpoint must equal this run to be loaded, such as base, labels and method.
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
        optimizer: config.Optimizer,
        method: config.Peft,
        head: list[str],
        pooling: config.Pooling,
        identity: dict[str, Any],
        join: config.JoinWindows = config.JoinWindows.maximum,
        head_factor: float = 1.0,
        extra_metric: config.ExtraMetric | None = None,
        gold: Gold | None = None,
        frozen: FrozenPart | None = None,
        cut_lr: float | None = None,
        groups: list[str] | None = None,
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
        self.join = join
        self.head_factor = head_factor
        self.extra_metric = extra_metric or config.NoExtraMetric()
        self.identity = identity
        self.gold = gold
        self.frozen = frozen
        self.cut_lr = cut_lr
        self.groups = groups
        self.outcomes = metrics.Outcomes()
        self.batch_shape: tuple[int, ...] = (0, 0, 0)
        """Size of the last batch: number of texts, of their pieces, and of the tokens of a piece."""
        self.cause: nonfinite.Cause | None = None
        """The first module whose numbers were not finite on a split; None if there was none or it was not found."""
        self._random_state: dict[str, Any] | None = None
        self._clipped: list[Tensor] | None = None

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of a batch, [batch, label], float32."""
        self.batch_shape = (len(batch["rows"]), *batch["input_ids"].shape)
        if self.frozen is not None and "states" in batch:
            return self.frozen.logits(batch)
        logits = pooling.logits(self.network, batch, pooling=self.pooling)
        return pooling.join(logits, batch["pieces"], self.join) if "pieces" in batch else logits

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch."""
        logits = self(batch)
        loss = losses.batch_loss(self.loss, logits, batch["targets"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(logits))
        return loss * batch.get("weight", 1.0)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the logits and targets of a batch."""
        logits = self(batch)
        self.outcomes.update(batch["rows"], logits, batch.get("targets"))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Fit calibration and thresholds on validation, as at the end of the run, and log the metrics.

        Raises:
            UserError: the logits are not finite.
        """
        rows, logits, learned = self.outcomes.gather()
        assert learned is not None
        if not bool(torch.isfinite(logits).all()):
            self._find_cause(self.trainer.val_dataloaders)
        check_finite(logits, f"step {self.global_step}", self.cause)
        protocol = thresholds.chosen_protocol(self.threshold_settings)
        gold = Gold(learned) if self.gold is None else self.gold[rows]
        targets, known = gold.labels, gold.known
        intensities = self.intensities
        scaling = calibration.fit_calibration(
            self.threshold_settings.calibration, logits, gold.probable(intensities), known=known
        )
        probabilities = calibration.probabilities(logits, scaling)
        by_protocol = thresholds.fit_thresholds(probabilities, targets, self.threshold_settings, known=known)
        threshold = by_protocol[protocol]
        groups = None if self.groups is None else [self.groups[row] for row in rows.tolist()]
        by_group = group_thresholds.fit(
            probabilities, targets, self.threshold_settings, values=groups, overall=by_protocol, known=known
        )
        decisions = group_thresholds.decide(probabilities, {protocol: threshold}, by_group, groups)[protocol]
        scores = metrics.decisions_report(decisions, targets.bool(), threshold, self.labels, known=known)
        rankings = metrics.rankings(probabilities, targets.bool(), known=known)
        self.log_dict(
            {
                "val/loss": self.split_loss(logits, learned),
                "val/f1_micro": scores["f1_micro"],
                "val/jaccard": scores["jaccard"],
                "val/map": rankings["map"],
                "val/lrap": rankings["lrap"],
            }
        )
        self.log("val/f1_macro", scores["f1_macro"], prog_bar=True)
        if intensities is not None and scaling is not None and gold.shares is not None:
            intensities = intensities.calibrated(probabilities, gold.shares, known)
        expected = None if intensities is None else intensities.shares_beside(probabilities)
        soft = metrics.soft_metrics(probabilities, gold, self.labels, expected=expected)
        self.log_dict({f"val/{name}": value for name, value in soft.items()})
        extra = extra_metrics.extra_scores(
            self.extra_metric, probabilities, targets, threshold, self.labels, decisions=decisions
        )
        self.log_dict({f"val/extra/{name}": value for name, value in extra.items()})

    def on_test_epoch_end(self) -> None:
        """Find the module with non-finite outputs while the network is on its device; `finish` raises the error."""
        if not all(bool(torch.isfinite(logits).all()) for logits in self.outcomes.logits):
            self._find_cause(self.trainer.test_dataloaders)

    def cause_in(self, batch: Batch) -> nonfinite.Cause | None:
        """Compute a batch again and return the first module whose output is not finite; None if it cannot be found."""
        if spread.is_spread(self.network):
            return None  # the other processes would have to compute with this one
        with self.trainer.precision_plugin.forward_context():
            return nonfinite.first_nonfinite(self.network, partial(self, batch))

    def _find_cause(self, batches: Any) -> None:
        for batch in batches:
            self.cause = self.cause_in(self.trainer.strategy.batch_to_device(batch))
            if self.cause is not None:
                return

    def split_loss(self, logits: Tensor, targets: Tensor) -> float:
        """Return the loss over a whole split; logits and targets are [row, label]."""
        # Cut points of the loss may have gradients outside of training too.
        return float(self.loss(logits.to(self.device), targets.to(self.device)).detach())

    @property
    def intensities(self) -> Intensities | None:
        """How intensities are read from probabilities, with the cut points as they are now; None without them."""
        return losses.learned_intensities(self.loss)

    def _cut_points(self) -> list[dict[str, object]]:
        """The parameter group of the cut points; empty if the loss has none that are learned."""
        own = [parameter for parameter in self.loss.parameters() if parameter.requires_grad]
        # Decay would pull the levels together.
        return [{"name": "cut_points", "params": own, "lr": self.cut_lr, "weight_decay": 0.0}] if own else []

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, which advances at each optimizer step."""
        chosen, schedule = optimizer.build_optimizer(
            self.optimizer_settings,
            self.method,
            self.network,
            head=self.head,
            head_factor=self.head_factor,
            further=self._cut_points(),
            steps=int(self.trainer.estimated_stepping_batches),
            fused=not self._scales_gradients(),
        )
        return {"optimizer": chosen, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the global norm of all gradients."""
        if self._scales_gradients():
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val is not None:
            # Lightning raises for a fused optimizer under any autocast, although only float16 scales gradients.
            if self._clipped is None:
                # Kept: looking for them in all modules takes longer than a step of the head alone.
                self._clipped = list(self.trained().values())
            nn.utils.clip_grad_norm_(self._clipped, gradient_clip_val)

    def _scales_gradients(self) -> bool:
        return bool(self.trainer.precision == "16-mixed")

    # ------------------------------------------------------------------------------------------------- checkpoints

    def trained(self) -> dict[str, Tensor]:
        """Return the trained parameters by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # no overloads needed
        """Return the trained parameters only: the frozen base takes gigabytes, and 4-bit weights cannot be reloaded."""
        return {name: parameter.detach() for name, parameter in self.trained().items()}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Copy values into the trained parameters.

        Raises:
            UserError: the names or shapes differ from those of this run.
        """
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
        """Add the identity of the run and the random states (used by dropout) to the checkpoint.

        Raises:
            UserError: a trained parameter is not finite.
        """
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
            # Each process has its own random state: dropout draws more numbers for longer batches.
            states = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, state)
        checkpoint["random"] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this run and take its random state.

        Raises:
            UserError: the base, labels, method or number of processes differ; the message says which.
        """
        saved = checkpoint.get("identity", {})
        for name, value in self.identity.items():
            # Earlier versions saved a relative path as it was given.
            before = run_folder.absolute_base(saved[name]) if name == "base" and name in saved else saved.get(name)
            if before != value:
                raise UserError(f"The checkpoint has {name}={saved.get(name)}, this run {name}={value}.")
        states = checkpoint["random"]
        if len(states) != self.trainer.world_size:
            raise UserError(
                f"The checkpoint is of {len(states)} processes, this run has {self.trainer.world_size}. Resume with "
                f"trainer.devices and trainer.num_nodes as they were."
            )
        self._random_state = states[self.trainer.global_rank]

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Restore the random states of the checkpoint, just before the first batch needs them."""
        if self._random_state is None:
            return
        random.setstate(self._random_state["python"])
        torch.set_rng_state(self._random_state["torch"].cpu())
        if self.device.type == "cuda" and self._random_state["cuda"] is not None:
            torch.cuda.set_rng_state(self._random_state["cuda"].cpu(), self.device)
        self._random_state = None


def check_finite(logits: Tensor, when: str, cause: nonfinite.Cause | None) -> None:
    """Raise UserError if logits are not finite; their F1 would look like that of a network that predicts no label."""
    if not bool(torch.isfinite(logits).all()):
        raise UserError(f"The network's outputs are not finite at {when}{nonfinite.describe(cause)}")


def checkpoint_identity(
    settings: config.Train, emotions: EmotionData, part: FrozenPart | None = None
) -> dict[str, Any]:
    """Return the properties in which a checkpoint and a run must be equal."""
    # A tokenizer's chat template may have changed since the run started. Checkpoints from before have no such entry.
    own = emotions.template
    template = {"data.template": own.text} if own is not None and own.has_words else {}
    # Nor have they an entry of these, which mean what was always done.
    frozen = {} if part is None else {"frozen, without dropout": f"all below {part.describe()}"}
    peft = schema.plain(settings.peft)
    if peft.get("layers") == config.ALL:
        del peft["layers"]
    return (
        template
        | frozen
        | {
            "base": run_folder.absolute_base(settings.model.path) if settings.model.pretrained else "random weights",
            "architecture": str(settings.model.architecture) if not settings.model.pretrained else "",
            "quantization": settings.model.quantization.value,
            "attention": settings.model.attention.value,
            "pooling": settings.model.pooling.value,
            "labels": list(emotions.labels),
            "data (a print of its rows)": {name: rows.sha256()[:12] for name, rows in emotions.rows.items()},
            "peft": str(peft),
        }
    )
