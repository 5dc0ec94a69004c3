"""The optimizer, its parameter groups and the schedule of its learning rate."""

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from emotion_lightning import config


def build(
    settings: config.AdamW,
    method: config.Peft,
    network: nn.Module,
    *,
    head: list[str],
    steps: int,
    fused: bool = True,
    head_factor: float = 1.0,
) -> tuple[Optimizer, LambdaLR]:
    """AdamW over the trained parameters, and its schedule.

    Args:
        settings: rates, decay, warm-up.
        method: whose rates are taken where `settings` leaves them open.
        network: with its trained parts attached.
        head: modules that learn at the head's rate.
        steps: optimizer steps of the whole training.
        fused: update all parameters in one kernel. On a CPU the plain loop takes a third of a step of MiniLM's full
            fine-tuning.
        head_factor: what the method's rate of the head is multiplied by; a rate in `settings` is taken as it is.
    """
    groups = parameter_groups(
        network,
        head=head,
        lr=method.lr if settings.lr is None else settings.lr,
        head_lr=method.head_lr * head_factor if settings.head_lr is None else settings.head_lr,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )
    optimizer = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=fused)
    return optimizer, LambdaLR(optimizer, schedule(settings, steps=steps))


def parameter_groups(
    network: nn.Module, *, head: list[str], lr: float, head_lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, object]]:
    """Trained parameters by rate and decay; empty groups left out.

    Names are `body`, `head` and `…_no_decay`; where layers have rates of their own, `layer_0` (the embeddings) and up
    take the place of `body`.
    """
    depth = 1 + max(
        (number for name, _ in network.named_parameters() if (number := _layer(name)) is not None), default=0
    )
    groups: dict[str, dict[str, object]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        in_head = bool(set(name.split(".")) & set(head))
        # Vectors are scales, biases and norms; IA3's have a second axis of length one. Decay would pull IA3 from 1,
        # where it changes nothing, towards 0.
        decays = parameter.ndim >= 2 and min(parameter.shape) > 1
        part, rate = ("head", head_lr) if in_head else ("body", lr)
        if not in_head and layer_decay < 1:
            layer = _layer(name)
            # What belongs to no layer and is not an embedding (a last norm) lies above them all.
            below = depth if "embed" in name else depth - 1 - layer if layer is not None else 0
            part, rate = f"layer_{depth - below}", lr * layer_decay**below
        group = part + ("" if decays else "_no_decay")
        found = groups.setdefault(
            group,
            {"name": group, "params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0},
        )
        found["params"].append(parameter)  # type: ignore[attr-defined]  # values of several types
    return [groups[name] for name in sorted(groups)]


def _layer(name: str) -> int | None:
    """The layer that a parameter belongs to, counted from 0 at the bottom."""
    found = re.search(r"\.layers?\.(\d+)\.", name)
    return int(found[1]) if found else None


def schedule(settings: config.AdamW, *, steps: int) -> Callable[[int], float]:
    """Share of the peak rate at each step: up during warm-up, then as `settings.schedule` says."""
    return partial(_share, warmup=round(settings.warmup * steps), steps=steps, kind=settings.schedule)


def _share(step: int, *, warmup: int, steps: int, kind: config.Schedule) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    match kind:
        case config.Schedule.linear:
            return 1 - done
        case config.Schedule.cosine:
            return (1 + math.cos(math.pi * done)) / 2
        case config.Schedule.constant:
            return 1.0
