"""Which outputs of a fused matrix are queries, keys and values: found by what each of them does in its attention."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emotion_lightning.errors import UserError
from emotion_lightning.models import pooling
from emotion_lightning.models.roles import attention_around


def outputs_of_roles(network: Any, name: str) -> dict[str, Tensor]:
    """The outputs of a matrix that computes queries, keys and values, as a mask for each of these roles.

    How the three are laid out differs: one after the other, by head, or by group of heads. It shows in the attention:
    the query of a token plays a part in that token's result alone, its key and value in that of others too. In a text
    of one token only the value plays a part, because the softmax of a single score is 1.

    Args:
        network: with its weights, without an adapter.
        name: of the matrix.
    """
    others = gradient_of(network, name, tokens=3) != 0
    alone = gradient_of(network, name, tokens=1).abs()
    value = alone > 1e-4 * alone.max()  # kernels leave a rounding error where the softmax has no slope
    return {"query": ~others, "key": others & ~value, "value": others & value}


def gradient_of(network: Any, name: str, *, tokens: int) -> Tensor:
    """Gradient of the attention's result for the last token with respect to the matrix' output for the first one."""
    found: dict[str, Tensor] = {}

    def as_leaf(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        found["made"] = output.detach().clone().requires_grad_()
        return found["made"]

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        found["result"] = output if isinstance(output, Tensor) else output[0]
        raise _Reached

    around = attention_around(name)
    assert around is not None
    hooks = [
        network.get_submodule(name).register_forward_hook(as_leaf),
        network.get_submodule(around).register_forward_hook(stop),
    ]
    device = next(network.parameters()).device
    ids = torch.arange(5, 5 + tokens, device=device).unsqueeze(0)
    was_training = network.training
    network.eval()
    try:
        with torch.enable_grad():
            pooling.backbone_of(network)(input_ids=ids, attention_mask=torch.ones_like(ids))
    except _Reached:
        pass
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    made, result = found["made"], found["result"]
    chance = torch.Generator().manual_seed(1)
    weights = torch.randn(result.shape[-1], generator=chance).to(result)
    (gradient,) = torch.autograd.grad((result.reshape(-1, result.shape[-1])[-1] * weights).sum(), made)
    return gradient.reshape(-1, gradient.shape[-1])[0].detach().cpu()


class _Reached(Exception):
    """The attention has computed its result; the layers above it are not needed."""


def partial_targets(names: Mapping[str, Sequence[str]], targets: Sequence[str]) -> dict[str, set[str]]:
    """Modules that compute a role among the targets together with one that is not, with the roles to adapt.

    Args:
        names: names of the modules of each role.
        targets: roles that are adapted.
    """
    wanted: dict[str, set[str]] = {}
    for role in targets:
        for name in names.get(role, []):
            wanted.setdefault(name, set()).add(role)
    roles_of = {name: {role for role, found in names.items() if name in found} for name in wanted}
    return {name: roles for name, roles in wanted.items() if roles < roles_of[name]}


def masks(network: Any, names: Mapping[str, Sequence[str]], targets: Sequence[str]) -> dict[str, Tensor]:
    """For each module that is adapted in part, which of its outputs are.

    Args:
        network: with its weights, without an adapter.
        names: names of the modules of each role.
        targets: roles whose output is adapted.

    Raises:
        UserError: a part of such a module is not known, as of a feed-forward matrix that holds its gate.
    """
    found: dict[str, Tensor] = {}
    by_layout: dict[tuple[str, int], dict[str, Tensor]] = {}
    for name, roles in partial_targets(names, targets).items():
        if not roles <= {"query", "key", "value"}:
            both = [role for role, modules in names.items() if name in modules]
            raise UserError(
                f"peft.targets names {' and '.join(sorted(roles))}, but {name} computes {' and '.join(both)} in one "
                "matrix, of which IA3 cannot rescale a part: take it out of peft.targets, add the other to it, or "
                "choose peft=lora."
            )
        # Blocks repeat each other, so the first one of a kind answers for all.
        kind = ("".join(part for part in name if not part.isdigit()), _size(network.get_submodule(name)))
        if kind not in by_layout:
            by_layout[kind] = outputs_of_roles(network, name)
        found[name] = torch.stack([by_layout[kind][role] for role in roles]).any(dim=0)
    return found


def _size(module: Any) -> int:
    return int(getattr(module, "out_features", None) or module.nf)


def freeze_outputs(network: Any, chosen: Mapping[str, Tensor]) -> None:
    """Keep IA3's vectors at 1 for the outputs of a module that are not to be rescaled.

    Args:
        network: with IA3 attached.
        chosen: by name of the module in the network without IA3: a mask of the outputs that are rescaled.
    """
    for name, mask in chosen.items():
        vector = network.get_base_model().get_submodule(name).ia3_l["default"]
        kept = mask.reshape(vector.shape).to(vector.device, torch.float32)
        # A gradient of 0 leaves AdamW's step at 0, and vectors have no weight decay.
        vector.register_hook(lambda gradient, kept=kept: gradient * kept)
