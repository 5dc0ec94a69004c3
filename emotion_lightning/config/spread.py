"""Checks of what trainer=fsdp, which spreads the frozen weights over processes, cannot do."""

from emotion_lightning import config
from emotion_lightning.errors import UserError


def check_spread(settings: config.Train) -> None:
    """Raise UserError for settings that cannot be had with trainer.strategy=fsdp."""
    trainer, model = settings.trainer, settings.model
    if trainer.strategy is not config.Strategy.fsdp:
        return
    asked = "trainer.strategy=fsdp"
    if trainer.devices * trainer.num_nodes == 1:
        raise UserError(
            f"{asked} spreads the frozen weights over several processes, and trainer.devices=1 starts one; set "
            "trainer.devices=2 or more, or trainer.strategy=auto."
        )
    if isinstance(settings.peft, config.Full):
        raise UserError(
            f"{asked} spreads frozen weights, and peft=full freezes none; choose an adapter such as peft=lora, or "
            "trainer=ddp."
        )
    if model.quantization is config.Quantization.int8:
        raise UserError(
            f"{asked} cannot spread model.quantization=int8 weights, whose scales bitsandbytes keeps inside of them; "
            "set model.quantization=nf4 or none."
        )
    if trainer.compile:
        raise UserError(
            f"{asked} gathers the weights of a layer when it computes, which trainer.compile=true would compile; set "
            "trainer.compile=false."
        )
    if settings.frozen.reuse is config.Reuse.always:
        raise UserError(
            f"{asked} and frozen.reuse=always: the network could not start above its frozen layers, whose weights are "
            "gathered from the bottom up. Set frozen.reuse=auto, which computes them in each step."
        )
    if model.attn_implementation is config.AttentionKernel.flash_attention_2:
        raise UserError(
            f"{asked} loads and checks the network in main memory, where model.attn_implementation=flash_attention_2 "
            "cannot compute; set auto."
        )
    if trainer.accelerator is config.Accelerator.mps:
        raise UserError(f"{asked} needs several GPUs, or trainer.accelerator=cpu; mps is a single one.")
