"""Build the parts of a training run: the classifier and the Trainer's arguments."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_lightning import config

if TYPE_CHECKING:
    import torch

    from emotion_lightning.data.module import EmotionData
    from emotion_lightning.training.classifier import EmotionClassifier

log = logging.getLogger(__name__)


def build_classifier(
    settings: config.Train,
    emotions: "EmotionData",
    *,
    device: "torch.device",
    base_folder: Path,
    method: str,
    starts: bool = True,
) -> "EmotionClassifier":
    """Build the LightningModule: the network with its adapter, the loss and the optimizer settings.

    Args:
        settings: of the run.
        emotions: the texts and labels.
        device: where the network is placed.
        base_folder: where the base model is saved if its weights are random or bundled with the package.
        method: name of the PEFT option, for the log.
        starts: whether training starts anew; False if a checkpoint will be loaded.
    """
    import torch

    from emotion_lightning.data.long_texts import token_limit
    from emotion_lightning.evaluation import group_thresholds
    from emotion_lightning.evaluation.gold import Gold
    from emotion_lightning.evaluation.intensities import Intensities
    from emotion_lightning.models import adapter, backbone, dropout, gated, head_start, liger, losses, pooling, rms_norm
    from emotion_lightning.models.device import compute_dtype
    from emotion_lightning.training import reuse, warm_start
    from emotion_lightning.training.classifier import EmotionClassifier, checkpoint_identity

    network = backbone.build_network(
        settings.model,
        emotions.labels,
        tokenizer=emotions.tokenizer,
        full=isinstance(settings.peft, config.Full),
        device=device,
        spread=settings.trainer.strategy is config.Strategy.fsdp,
        seed=settings.seed,
        base_folder=base_folder,
        max_tokens=token_limit(emotions.settings),
    )
    backbone.check_vocabulary(network, emotions.largest_token, what="A token of the texts")
    head = backbone.head_modules(settings.model)
    network = adapter.attach_adapter(
        network,
        settings.peft,
        roles=settings.model.roles,
        head=head,
        seed=settings.seed,
        unused=backbone.unused_module(settings.model),
    )
    dtype = compute_dtype(settings.model.dtype, device)
    adapter.freeze_idle(network, settings.model.pooling, dtype=dtype)
    # Measure before init_from copies weights of an earlier run: a resumed run skips that copy.
    start = head_start.measure_head(
        network,
        emotions.first_batch(min(8, emotions.settings.batch_size)),
        head=head,
        way=settings.model.pooling,
        dtype=dtype,
    )
    head_factor = head_start.scale_head(start, fresh=network.fresh_head)
    if settings.init_from is not None and starts:
        warm_start.start_from_run(
            network, settings.init_from, settings=settings, labels=emotions.labels, base_folder=base_folder
        )
    if settings.trainer.compile:
        backbone.compile_(network)
    elif device.type == "cpu":
        plain = backbone.plain_attention_may_serve(settings.model.attn_implementation, token_limit(emotions.settings))
        dropout.speed_up_dropout(network, kernels=["eager", "sdpa"] if plain else ["eager"])
    if not settings.trainer.compile:
        pooling.shorten_last_layer(network, settings.model.pooling, dtype=dtype)
        gated.keep_halves(network, dtype=dtype)
        if not liger.use_kernels(network, dtype=dtype):
            rms_norm.keep_inputs(network)
    part = reuse.reuse_frozen(settings, network, emotions, head=head, dtype=dtype)
    log.info(
        "%s of %s parameters are trained (%s), on %s rows, %s.",
        f"{adapter.trained_parameters(network):,}",
        f"{network.num_parameters():,}",
        method,
        f"{emotions.train_rows:,}",
        device,
    )
    intensities = None
    if isinstance(settings.loss, config.Ordinal):
        train = Gold.of(emotions.rows["train"])
        assert train.shares is not None and train.scale is not None
        intensities = Intensities.of_train(
            train.shares,
            torch.ones_like(train.shares, dtype=torch.bool) if train.known is None else train.known,
            scale=train.scale,
            present=round(settings.data.present_level),  # type: ignore[attr-defined]  # checked with the settings
        )
    return EmotionClassifier(
        network,
        labels=emotions.labels,
        loss=losses.build_loss(
            settings.loss,
            label_counts=emotions.label_counts,
            rows=emotions.known_rows,
            labels=emotions.labels,
            masked=emotions.masked,
            known_per_row=emotions.known_per_row if emotions.masked else None,
            intensities=intensities,
        ),  # fmt: skip
        gold=Gold.of(emotions.rows["validation"]),
        thresholds=settings.thresholds,
        optimizer=settings.optimizer,
        method=settings.peft,
        head=head,
        pooling=settings.model.pooling,
        identity=checkpoint_identity(settings, emotions, part),
        frozen=part,
        join=settings.data.join_windows,
        head_factor=head_factor,
        extra_metric=settings.extra_metric,
        groups=group_thresholds.groups_of(emotions.rows["validation"], group_thresholds.column_of(settings.thresholds)),
        cut_lr=settings.loss.cut_lr if isinstance(settings.loss, config.Ordinal) else None,
    )


def trainer_arguments(settings: config.Trainer) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer; settings that only our own code reads are left out."""
    spread = settings.strategy is config.Strategy.fsdp
    return {
        "accelerator": settings.accelerator.value,
        "devices": settings.devices,
        "num_nodes": settings.num_nodes,
        "strategy": _spread_strategy() if spread else settings.strategy.value,
        # Gathered weights that were made in inference mode could not be used in training.
        "inference_mode": not spread,
        "max_epochs": settings.max_epochs,
        "max_steps": -1 if settings.max_steps is None else settings.max_steps,
        "accumulate_grad_batches": settings.accumulate_grad_batches,
        "gradient_clip_val": settings.gradient_clip_val,
        "limit_train_batches": settings.limit_train_batches,
        "limit_val_batches": settings.limit_eval_batches,
        "limit_test_batches": settings.limit_eval_batches,
    }


def _spread_strategy() -> Any:
    from emotion_lightning.training.spread_strategy import SpreadStrategy

    return SpreadStrategy()
