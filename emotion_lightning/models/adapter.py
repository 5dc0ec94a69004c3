"""PEFT adapters (IA3, LoRA and others): attach to a frozen network, merge into it."""

import functools
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning import config
from emotion_lightning.config import own_parts
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import fused, pooling, safe_loading
from emotion_lightning.models.roles import chosen_layers, is_linear, layers_of, names_pattern

log = logging.getLogger(__name__)


def attach_adapter(
    network: Any,
    settings: config.Peft,
    *,
    roles: dict[str, str],
    head: list[str],
    seed: int,
    unused: str | None = None,
) -> Any:
    """Attach the adapter of a training method to a network and freeze all other parameters.

    Trained parameters are in float32. The network is returned in training mode.

    Args:
        network: as returned by `backbone.build_network`.
        settings: training method. With `config.Full`, all parameters are trained and there is no adapter.
        roles: maps each role to a regular expression that matches full module names.
        head: modules that are trained in full.
        seed: seed of random projections and initial weights.
        unused: module that the forward pass does not use; it stays frozen.

    Raises:
        UserError: no module of the network matches a role that the method needs.
    """
    if isinstance(settings, config.Full):
        for name, parameter in network.named_parameters():
            parameter.requires_grad = unused is None or unused not in name.split(".")
    else:
        from peft import get_peft_model

        torch.manual_seed(seed)
        _check_roles(network, getattr(settings, "targets", []), roles)
        roles = in_layers(network, settings, roles)
        chosen = _adapted_outputs(network, settings, roles)
        asked = _peft_config(settings, roles, head, seed, has_turned_layers=_has_turned_layers(network))
        try:
            with norms_are_known():
                network = get_peft_model(network, asked)
        except ValueError as error:  # a layer of a kind that the method does not know, experts that are one tensor
            raise UserError(
                f"PEFT cannot adapt these layers: {first_line(error)[:200]} {_fewer_targets(settings)}, or choose "
                "another option of peft."
            ) from error
        if isinstance(settings, own_parts.OwnPart):
            _check_layers(network, asked.peft_type.value)
        keep_dtype(network)
        fused.freeze_outputs(network, chosen)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    # from_pretrained returns a network in evaluation mode, and Lightning no longer calls train(). Without this call,
    # dropout and activation checkpointing would be off.
    network.train()
    return network


@contextmanager
def norms_are_known() -> Iterator[None]:
    """Silence PEFT's warning in the block that norms, which peft=ln_tuning trains, are layers of an unsupported type.

    PEFT 0.21 warns of any layer whose sizes it does not find, also where the method needs none.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Unsupported layer type '<class '[\w.]*Norm\w*'>' encountered")
        yield


def freeze_idle(network: Any, way: config.Pooling, *, dtype: torch.dtype = torch.float32) -> None:
    """Freeze trained parameters that the logits do not depend on.

    An architecture may have parts for other tasks, such as an encoder of pictures.

    Args:
        network: with its adapter attached, if it has one.
        way: how token vectors are pooled.
        dtype: compute dtype.

    Raises:
        UserError: the network cannot be trained in this form of weights.
    """
    device = next(network.parameters()).device
    ids = torch.tensor([[5, 6, 7], [6, 7, 8]], device=device)
    # In evaluation mode no random numbers are drawn, so the run stays the same.
    network.eval()
    try:
        with (
            torch.enable_grad(),
            torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32),
        ):
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            pooling.logits(network, batch, pooling=way).sum().backward()
    except RuntimeError as error:
        if "is being modified inplace" not in str(error):
            raise
        raise UserError(
            "This network changes the outputs of its layers in place, which bitsandbytes' layers do not allow in "
            "training. Set model.quantization=none, or choose peft=lora."
        ) from error
    finally:
        network.train()
    idle = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            idle.append(re.sub(r"^base_model\.model\.", "", name))
            parameter.requires_grad = False
        parameter.grad = None
    if idle:
        log.warning("The logits do not depend on %s, which stay untrained.", _shortened(idle))


def check_peft(settings: config.Peft, network: config.Model, device: torch.device) -> None:
    """Raise UserError if the device cannot train this method on weights of this quantization."""
    if device.type != "cpu":
        return
    doubled = isinstance(settings, config.Lora) and settings.dora
    if doubled and network.quantization is config.Quantization.int8:
        raise UserError(
            "peft=dora cannot train model.quantization=int8 weights on a CPU: bitsandbytes gives it no weights to take "
            "the norm of. Set model.quantization=nf4 or none, or choose peft=lora."
        )


def _peft_config(
    settings: config.Peft, roles: dict[str, str], head: list[str], seed: int, *, has_turned_layers: bool
) -> Any:
    import peft
    from peft.utils.constants import DUMMY_TARGET_MODULES

    def pattern(names: list[str]) -> str:
        return "|".join(f"({roles[name]})" for name in names)

    if isinstance(settings, own_parts.OwnPart):
        assert isinstance(settings, config.TargetedPeft)
        return _own_method(settings, target_modules=pattern(settings.targets), head=head, seed=seed)
    shared: dict[str, Any] = {"task_type": "SEQ_CLS", "modules_to_save": list(head)}
    # GPT-2's layers store their weights the other way round; PEFT would find it out itself, with a warning.
    turned = {"fan_in_fan_out": True} if has_turned_layers else {}
    match settings:
        case config.IA3():
            return peft.IA3Config(
                **shared,
                **turned,
                target_modules=pattern(settings.targets),
                # PEFT's defaults differ from the paper (q instead of k for Gemma), so both are always set.
                feedforward_modules=pattern(settings.feedforward) if settings.feedforward else [],
            )
        case config.Lora():
            return peft.LoraConfig(
                **shared,
                **turned,
                target_modules=pattern(settings.targets),
                r=settings.r,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                use_rslora=settings.rslora,
                use_dora=settings.dora,
            )
        case config.Vera():
            return peft.VeraConfig(
                **shared,
                **turned,
                target_modules=pattern(settings.targets),
                r=settings.r,
                vera_dropout=settings.dropout,
                projection_prng_key=seed,
            )
        case config.LnTuning():
            return peft.LNTuningConfig(**shared, target_modules=pattern(settings.targets))
        case config.Head():
            return peft.LoraConfig(**shared, target_modules=DUMMY_TARGET_MODULES)
    raise TypeError(f"no PEFT method for {type(settings).__name__}")


def in_layers(network: Any, settings: config.Peft, roles: dict[str, str]) -> dict[str, str]:
    """The patterns of the roles, matching modules in the layers of `peft.layers` alone.

    PEFT's own `layers_to_transform` is not used: IA3 and LN tuning lack it, and for the others it takes no patterns.

    Args:
        network: without an adapter.
        settings: training method.
        roles: maps each role to a regular expression that matches full module names.

    Raises:
        UserError: the network has no such layers, or they have no module that the method adapts.
    """
    if not isinstance(settings, config.LayeredPeft) or settings.layers == config.ALL:
        return roles
    layers = layers_of(network)
    numbers = chosen_layers(settings.layers, len(layers))
    places = names_pattern([name for number in numbers for name in layers[number]])
    inside = {role: rf"(?=(?:{places})\.)(?:{pattern})" for role, pattern in roles.items()}
    names = [name for name, _ in network.named_modules()]
    if not any(re.fullmatch(inside[role], name) for role in settings.targets for name in names):
        raise UserError(
            f"peft.layers={settings.layers}: these layers have no module of peft.targets={settings.targets}; "
            f"choose others of the {len(layers)} layers."
        )
    return inside


def _own_method(settings: own_parts.OwnPart, *, target_modules: str, head: list[str], seed: int) -> Any:
    import peft

    found = own_parts.build(settings, target_modules=target_modules, modules_to_save=list(head), seed=seed)
    if not isinstance(found, peft.PeftConfig):
        raise UserError(
            f"peft={settings.origin.option}: {settings.part} must return a configuration of PEFT; it gave "
            f"{type(found).__name__}."
        )
    if sorted(getattr(found, "modules_to_save", None) or []) != sorted(head):
        raise UserError(f"peft={settings.origin.option}: {settings.part} must pass modules_to_save on, {head}.")
    found.task_type = peft.TaskType.SEQ_CLS
    named = {"peft_type": found.peft_type.value, "task_type": found.task_type.value}
    safe_loading.check_method(found.to_dict() | named, f"peft={settings.origin.option}: what {settings.part} returns")
    return found


def _check_layers(network: nn.Module, method: str) -> None:
    """Raise UserError if PEFT put layers that need whole weights around quantised ones, where their products fail."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in network.modules():
        if isinstance(module, BaseTunerLayer) and not type(module).__module__.endswith(".bnb"):
            base = type(module.get_base_layer()).__name__
            if base in ("Linear4bit", "Linear8bitLt"):
                raise UserError(f"PEFT has no layers of {method} for quantised weights; set model.quantization=none.")


def _has_turned_layers(network: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in network.modules())


def _check_roles(network: nn.Module, targets: list[str], roles: dict[str, str]) -> None:
    names = [name for name, _ in network.named_modules()]
    lacking = [role for role in targets if not any(re.fullmatch(roles[role], name) for name in names)]
    if lacking:
        layers = {re.sub(r"\b\d+\b", "N", name): None for name, part in network.named_modules() if is_linear(part)}
        shown = ", ".join(list(layers)[:_SHOWN]) + (" …" if len(layers) > _SHOWN else "")
        raise UserError(
            f"No module of the model matches {', '.join(f'model.roles.{role}={roles[role]}' for role in lacking)}; its "
            f"linear layers are {shown}. The model option and model.path are of different families: choose model=auto, "
            "which reads the roles from the network, or set them."
        )


def _fewer_targets(settings: config.Peft) -> str:
    """What to try where PEFT cannot adapt the targeted layers: the attention alone, if others are targeted too."""
    targets = getattr(settings, "targets", [])
    attention = [role for role in targets if role in ("query", "key", "value", "output")]
    # IA3 names its feed-forward layers in another setting as well, so this one alone would not do.
    if isinstance(settings, config.Lora) and attention and len(attention) < len(targets):
        return f"Try peft.targets=[{','.join(attention)}]"
    return "Change peft.targets"


def _shortened(names: list[str]) -> str:
    return f"{len(names)} parameters ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"


_SHOWN = 12
"""Number of names of layers in a message."""


def _adapted_outputs(network: nn.Module, settings: config.Peft, roles: dict[str, str]) -> dict[str, Tensor]:
    """Of each matrix that IA3 rescales in part, which outputs it rescales: those of the targeted roles."""
    if not isinstance(settings, config.IA3):
        return {}
    names = [name for name, _ in network.named_modules()]
    by_role = {role: [name for name in names if re.fullmatch(pattern, name)] for role, pattern in roles.items()}
    return fused.masks(network, by_role, [role for role in settings.targets if role not in settings.feedforward])


def merge_adapter(network: Any) -> Any:
    """Merge an adapter into the weights of its network and return the network without PEFT's layers."""
    from peft.utils import ModulesToSaveWrapper

    own = network.get_base_model()
    # The head first: with peft 0.21, merge_and_unload leaves the head of LNTuning in its wrapper, and fails for the
    # other methods if the head has several layers.
    for name, module in list(own.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, last = name.rpartition(".")
            head = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            setattr(own.get_submodule(parent), last, head)
    return network.merge_and_unload(safe_merge=True)


def trained_parameters(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


# ------------------------------------------------------------------------------------------- IA3 on quantised weights


def keep_dtype(network: nn.Module) -> None:
    """Make PEFT's IA3 layers on quantised weights return the dtype of their input.

    PEFT's own layers (peft 0.21, tuners/ia3/bnb.py) return float32. Without autocast, a bfloat16 Gemma then fails with
    "Expected query, key, and value to have the same dtype"; with autocast, its residual stream becomes float32
    (peft#864).
    """
    layers = _quantised_ia3_layers()
    for module in network.modules():
        if type(module) in layers:
            module.__class__ = layers[type(module)]


class _KeepsDtype:
    """Forward pass of an IA3 layer: multiplies by the IA3 vector in float32, returns the dtype of the input."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters:
            return self.base_layer(x, *args, **kwargs)
        scaling = torch.ones(1, device=x.device)
        for adapter in self.active_adapters:
            if adapter in self.ia3_l:
                scaling = scaling * self.ia3_l[adapter].flatten()
        if self.is_feedforward:
            return self.base_layer((x.float() * scaling).to(x.dtype), *args, **kwargs).to(x.dtype)
        return (self.base_layer(x, *args, **kwargs).float() * scaling).to(x.dtype)


@functools.cache
def _quantised_ia3_layers() -> dict[type, type]:
    from peft.tuners.ia3 import bnb

    layers = [getattr(bnb, name) for name in ("Linear4bit", "Linear8bitLt") if hasattr(bnb, name)]
    # Keep PEFT's class names, so that a printed network looks the same as with PEFT.
    return {layer: type(layer.__name__, (_KeepsDtype, layer), {}) for layer in layers}
