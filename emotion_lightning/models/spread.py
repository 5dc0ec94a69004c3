"""Spread the frozen weights of a network over processes, for a base that does not fit one card.

Each process keeps a part of every weight. Before a layer computes, forward and backward, the processes gather its
weights from each other, and free them afterwards: torch's fully_shard (FSDP2). Trained parameters are whole in each
process.
"""

from typing import Any

import torch
from torch import nn

from emotion_lightning.models import pooling, roles


def spread_frozen(network: Any, *, device: torch.device) -> None:
    """Spread the frozen weights of the backbone over all processes, and move them to their devices.

    Call it in each process, after the process group has started. All processes must then compute the same number of
    batches, for each forward pass gathers weights from all of them.

    Args:
        network: with its adapter, the same in all processes; in main memory, or on the device.
        device: of this process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for unit in _units(network):
        _leave_states(unit, device)
        fully_shard(
            unit,
            mesh=mesh,
            # torch would keep the weights of the outermost unit after its forward pass.
            reshard_after_forward=True,
            ignored_params={parameter for parameter in unit.parameters() if parameter.requires_grad},
        )


def is_spread(network: nn.Module) -> bool:
    """Whether the frozen weights of a network are spread over processes."""
    return bool(spread_names(network))


def spread_names(module: nn.Module) -> list[str]:
    """Names of the parameters of which this process holds a part."""
    from torch.distributed.tensor import DTensor

    return [name for name, parameter in module.named_parameters() if isinstance(parameter, DTensor)]


def kept_bytes(network: nn.Module) -> tuple[int, int]:
    """Bytes of the spread weights that this process keeps, and of these weights as a whole."""
    from torch.distributed.tensor import DTensor

    parts = [parameter for parameter in network.parameters() if isinstance(parameter, DTensor)]
    each = [(part.to_local().numel(), part.numel(), part.element_size()) for part in parts]
    return sum(kept * size for kept, _, size in each), sum(whole * size for _, whole, size in each)


def _units(network: Any) -> list[nn.Module]:
    """The modules whose weights are gathered together, inner ones first: embeddings, layers, the rest of the backbone.

    The head is none of them: it is trained.
    """
    own = pooling.unwrapped(network)
    backbone = pooling.backbone_of(network)
    units = [own.get_submodule(name) for parts in roles.layers_of(own) for name in parts]
    try:
        embeddings = own.get_input_embeddings()
    except NotImplementedError:  # CANINE has no vocabulary
        embeddings = None
    # Embeddings may be many weights. As a part of the rest, they would be whole until the last layer has computed.
    if embeddings is not None and embeddings is not backbone and not _is_shared(embeddings, backbone):
        units.append(embeddings)
    return [*units, backbone]


def _is_shared(module: nn.Module, backbone: nn.Module) -> bool:
    """Whether another module has the same weights, as T5's encoder and decoder: torch wants them in one unit."""
    own = {id(parameter) for parameter in module.parameters()}
    inside = set(module.modules())
    others = (part for part in backbone.modules() if part not in inside)
    return any(id(parameter) in own for part in others for parameter in part._parameters.values())


def _leave_states(unit: nn.Module, device: torch.device) -> None:
    """Make ordinary parameters of 4-bit weights and leave their states (scales, codes) to their layers.

    What fully_shard gathers are ordinary parameters, and bitsandbytes' layers then take the state from their attribute
    `quant_state` (bitsandbytes 0.50, `fix_4bit_weight_quant_state_from_module`). States are whole in each process: with
    double quantisation, they are 3 % of the weights.
    """
    for module in unit.modules():
        state = getattr(module._parameters.get("weight"), "quant_state", None)
        if state is not None:
            weight = module._parameters["weight"]
            assert weight is not None
            state.to(device)
            module.quant_state = state
            module.weight = nn.Parameter(weight.detach().as_subclass(torch.Tensor), requires_grad=False)
