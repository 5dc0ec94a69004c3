"""The optimizer, its parameter groups and its learning-rate schedule."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from emotion_lightning import config
from emotion_lightning.config import own_parts
from emotion_lightning.errors import UserError


def build_optimizer(
    settings: config.Optimizer,
    method: config.Peft,
    network: nn.Module,
    *,
    head: list[str],
    steps: int,
    fused: bool = True,
    head_factor: float = 1.0,
    further: Sequence[dict[str, object]] = (),
) -> tuple[Optimizer, LRScheduler]:
    """Return the optimizer of the trained parameters, and its schedule.

    Args:
        settings: learning rates, weight decay and warm-up.
        method: the PEFT option; its learning rates are used where `settings` sets none.
        network: with its adapter attached, if it has one.
        head: names of the modules that use the head's learning rate.
        steps: optimizer steps of the whole training.
        fused: update all parameters in one kernel. In full fine-tuning of MiniLM on a CPU, the unfused loop takes a
            third of a training step.
        head_factor: factor on the method's learning rate for the head; a rate in `settings` is not multiplied.
        further: groups of parameters that are not the network's, such as `cut_points`.

    Raises:
        UserError: an optimizer of the user's own is none.
    """
    groups = parameter_groups(
        network,
        head=head,
        lr=method.lr if settings.lr is None else settings.lr,
        head_lr=method.head_lr * head_factor if settings.head_lr is None else settings.head_lr,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )
    groups += further
    if isinstance(settings, own_parts.OwnPart):
        return _own_optimizer(settings, groups, steps)
    assert isinstance(settings, config.AdamW)
    optimizer = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=fused)
    return optimizer, LambdaLR(optimizer, schedule(settings, steps=steps))


def _own_optimizer(
    settings: own_parts.OwnPart, groups: list[dict[str, object]], steps: int
) -> tuple[Optimizer, LRScheduler]:
    found = own_parts.build(settings, parameter_groups=groups, steps=steps)
    optimizer, rates = found if isinstance(found, tuple) and len(found) == 2 else (found, lambda step: 1.0)
    if isinstance(rates, ReduceLROnPlateau):
        raise UserError(
            f"optimizer={settings.origin.option}: ReduceLROnPlateau waits for a metric, and the schedule advances at "
            "each step; take another one."
        )
    if isinstance(optimizer, Optimizer) and isinstance(rates, LRScheduler):
        return optimizer, rates
    if not isinstance(optimizer, Optimizer) or not callable(rates):
        raise UserError(
            f"optimizer={settings.origin.option}: {settings.part} must return a torch.optim.Optimizer, or a pair of "
            "one and a schedule: an LRScheduler, or a function from the step to the factor on the learning rate."
        )
    return optimizer, LambdaLR(optimizer, rates)


def parameter_groups(
    network: nn.Module, *, head: list[str], lr: float, head_lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, object]]:
    """Return AdamW's parameter groups: trained parameters by learning rate and weight decay, without empty groups.

    Groups are named `body`, `head`, `body_no_decay` and `head_no_decay`. With layer_decay below 1, `layer_0` (the
    embeddings), `layer_1` (the lowest layer) and so on replace `body`.
    """
    layers = _layers(network)
    depth = 1 + max(layers.values(), default=0)
    groups: dict[str, dict[str, object]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        in_head = bool(set(name.split(".")) & set(head))
        # Vectors (scales, biases, norms) get no weight decay. IA3's vectors have a second axis of length 1. Decay would
        # pull them from 1, where IA3 changes nothing, towards 0.
        decays = parameter.ndim >= 2 and min(parameter.shape) > 1
        part, rate = ("head", head_lr) if in_head else ("body", lr)
        if not in_head and layer_decay < 1:
            layer = layers.get(name)
            # A parameter that is neither in a layer nor an embedding (the final norm) lies above all layers.
            embeds = "embed" in name or isinstance(network.get_submodule(name.rpartition(".")[0]), nn.Embedding)
            below = depth - 1 - layer if layer is not None else depth if embeds else 0
            part, rate = f"layer_{depth - below}", lr * layer_decay**below
        group = part + ("" if decays else "_no_decay")
        found = groups.setdefault(
            group,
            {"name": group, "params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0},
        )
        found["params"].append(parameter)  # type: ignore[attr-defined]  # values of several types
    return [groups[name] for name in sorted(groups)]


def _layers(network: nn.Module) -> dict[str, int]:
    """Return the number of the layer of each parameter that is in one, from 0 at the bottom, by the parameter's name.

    The layers are the modules of the outermost lists, whatever their names are (`layers`, `h`, `block` …); encoder and
    decoder count apart.
    """
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    found = {}
    for name, _ in network.named_parameters():
        place = next((one for one in outermost if name.startswith(f"{one}.")), None)
        if place is not None:
            found[name] = int(name.removeprefix(f"{place}.").partition(".")[0])
    return found


def schedule(settings: config.AdamW, *, steps: int) -> Callable[[int], float]:
    """Return the factor on the peak learning rate as a function of the step: linear warm-up, then the schedule."""
    return partial(_rate_factor, warmup=round(settings.warmup * steps), steps=steps, kind=settings.schedule)


def _rate_factor(step: int, *, warmup: int, steps: int, kind: config.Schedule) -> float:
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
