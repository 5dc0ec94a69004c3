"""Memory that training takes on each card, for bases of 1 to 70 billion parameters: arithmetic, and a check on the CPU.

python benchmarks/base_memory.py            prints the tables of docs/how-to/large-bases.md
python benchmarks/base_memory.py --check    compares the arithmetic with small networks, on this machine's CPU

Weights and trained parameters are counted in the real networks, built without memory for their weights. Activations are
counted by what autograd keeps for the backward pass of small networks of the same kind. Nothing here was measured on a
GPU.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASES: dict[str, dict[str, Any]] = {
    "gemma-3-1b": dict(model_type="gemma3_text", num_hidden_layers=26, hidden_size=1152, intermediate_size=6912,
                       num_attention_heads=4, num_key_value_heads=1, head_dim=256, vocab_size=262144),
    "gemma-1.1-2b": dict(model_type="gemma", num_hidden_layers=18, hidden_size=2048, intermediate_size=16384,
                         num_attention_heads=8, num_key_value_heads=1, head_dim=256, vocab_size=256000),
    "mistral-7b": dict(model_type="mistral", num_hidden_layers=32, hidden_size=4096, intermediate_size=14336,
                       num_attention_heads=32, num_key_value_heads=8, vocab_size=32000),
    "gemma-2-9b": dict(model_type="gemma2", num_hidden_layers=42, hidden_size=3584, intermediate_size=14336,
                       num_attention_heads=16, num_key_value_heads=8, head_dim=256, vocab_size=256000),
    "gemma-2-27b": dict(model_type="gemma2", num_hidden_layers=46, hidden_size=4608, intermediate_size=36864,
                        num_attention_heads=32, num_key_value_heads=16, head_dim=128, vocab_size=256000),
    "llama-3-70b": dict(model_type="llama", num_hidden_layers=80, hidden_size=8192, intermediate_size=28672,
                        num_attention_heads=64, num_key_value_heads=8, vocab_size=128256),
}  # fmt: skip
"""Sizes from the published config.json of each base."""

CARDS = {"T4": 16, "24 GB": 24, "40 GB": 40, "80 GB": 80, "141 GB": 141}
COUNTS = (1, 2, 4, 8)
TOKENS = 16 * 128
"""Of a batch on each card: 16 texts of 128 tokens."""
FIXED = 1.5e9
"""Assumed: what CUDA, its libraries and NCCL take."""
USABLE = 0.9
"""Assumed: part of a card's memory that can be filled before fragmentation makes an allocation fail."""
BY_HIDDEN, BY_INNER, BY_INPUT = 44.1, 12.0, 4.0
"""Measured by `--check`, for peft=lora in bfloat16: bytes that autograd keeps for a token in a layer, for each unit of
hidden and of intermediate size, with any quantization; with activation checkpointing, for each unit of hidden size."""
STATES = 1 / 64 + 4 / (64 * 256)
"""Bytes of the scales of an NF4 weight, which are whole in each process."""


@dataclass
class Base:
    """What is counted in a network: the numbers behind the arithmetic."""

    architecture: Any
    found: Any
    trained: int

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.architecture.num_hidden_layers)

    def weights(self, form: str, cards: int) -> float:
        """Bytes of the frozen weights that a card keeps, and of those that are gathered at one time."""
        from emotion_lightning.config import Quantization

        whole = self.found.bytes_of(Quantization(form))
        if cards == 1:
            return float(whole)
        states = self.found.linear * STATES if form == "nf4" else 0.0
        embeddings = 2.0 * self.architecture.vocab_size * self.architecture.hidden_size
        layer = (whole - states - embeddings) / self.layers
        # The gathered bytes of the largest unit before and after they are sorted into weights, and the next layer.
        return (whole - states) / cards + states + 2 * max(embeddings, layer) + layer

    def states(self, cards: int) -> float:
        """Bytes of what is trained: weight, gradient and two moments in float32, a copy in 16 bits, and DDP's."""
        return self.trained * (4 + 4 + 8 + 2 + (4 if cards > 1 else 0))

    def activations(self, *, again: bool) -> float:
        """Bytes that are kept for the backward pass; `again`: with model.activation_checkpointing=true."""
        hidden, inner = self.architecture.hidden_size, self.architecture.intermediate_size
        layer = TOKENS * (BY_HIDDEN * hidden + BY_INNER * inner)
        return self.layers * TOKENS * BY_INPUT * hidden + layer if again else self.layers * layer

    def dequantised(self, form: str) -> float:
        """Bytes of the largest matrix while it is computed with, in half precision."""
        return 2.0 * self.architecture.hidden_size * self.architecture.intermediate_size if form == "nf4" else 0.0

    def card(self, form: str, cards: int, *, again: bool = True) -> float:
        """Bytes on each card."""
        of_batch = self.activations(again=again) + self.dequantised(form)
        return self.weights(form, cards) + self.states(cards) + of_batch + FIXED


def base(values: dict[str, Any]) -> Base:
    """Count the parameters of an architecture, and those that peft=lora trains."""
    from transformers import AutoConfig

    from emotion_lightning.models import structure

    asked = dict(values)
    architecture = AutoConfig.for_model(asked.pop("model_type"), **asked)
    found = structure.read_structure(architecture, labels=11)
    return Base(architecture, found, found.trained_by(_settings("peft=lora").peft) or 0)


def tables() -> str:
    """The tables of the documentation, as Markdown."""
    counted = {name: base(values) for name, values in BASES.items()}
    lines = [
        "| base | quantization | weights | trained (LoRA) and its states | activations, with checkpointing | "
        + " | ".join(f"on each of {n}" if n > 1 else "on 1 card" for n in COUNTS) + " |",
        "|---" * (5 + len(COUNTS)) + "|",
    ]  # fmt: skip
    for name, one in counted.items():
        for form in ("nf4", "none"):
            cells = [f"{one.found.parameters / 1e9:.1f} B, `{name}`", f"`{form}`", _gb(one.weights(form, 1)),
                     f"{one.trained / 1e6:.0f} M, {_gb(one.states(1))}",
                     f"{_gb(one.activations(again=False))}, {_gb(one.activations(again=True))}",
                     *(_gb(one.card(form, n)) for n in COUNTS)]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| base | quantization | " + " | ".join(CARDS) + " |", "|---" * (2 + len(CARDS)) + "|"]
    for name, one in counted.items():
        for form in ("nf4", "none"):
            fits = [
                next((str(n) for n in COUNTS if one.card(form, n) <= USABLE * size * 1e9), "–")
                for size in CARDS.values()
            ]
            lines.append(f"| `{name}` | `{form}` | {' | '.join(fits)} |")
    return "\n".join(lines)


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.1f} GB"


# ------------------------------------------------------------------------------------------------------------ the check


def check() -> None:
    """Print what small networks keep, beside the arithmetic."""
    sizes = [(256, 1024), (512, 1024), (256, 2048), (384, 1536)]
    for form in ("nf4", "none"):
        at = {size: _kept(form, *size) for size in sizes}
        h, f = sizes[0]
        by_hidden = (at[2 * h, f] - at[h, f]) / h
        by_inner = (at[h, 2 * f] - at[h, f]) / f
        print(f"{form}: bytes for a token in a layer: {by_hidden:.2f} * hidden + {by_inner:.2f} * intermediate")
        for size in sizes:
            arithmetic = by_hidden * size[0] + by_inner * size[1]
            print(f"  {size}: kept {at[size]:.0f}, arithmetic {arithmetic:.0f} ({at[size] / arithmetic - 1:+.1%})")
        again, layer = _kept(form, *sizes[-1], again=True), BY_INPUT * sizes[-1][0]
        print(f"  {sizes[-1]} with checkpointing: kept {again:.0f}, arithmetic {layer:.0f} ({again / layer - 1:+.1%})")
        for cards in (1, 2, 4):
            held, expected = _held(form, cards)
            print(
                f"  weights on each of {cards}: held {held:,}, arithmetic {expected:,.0f} ({held / expected - 1:+.1%})"
            )


def _network(form: str, hidden: int, inner: int, *, again: bool = False) -> tuple[Any, dict[str, Any]]:
    import torch

    from emotion_lightning.models import adapter, backbone

    values = dict(model_type="gemma", num_hidden_layers=4, hidden_size=hidden, intermediate_size=inner, head_dim=64,
                  num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, vocab_size=4096)  # fmt: skip
    asked = _settings(
        "model=gemma", "model.pretrained=false", "peft=lora", "model.dtype=bfloat16", f"model.quantization={form}",
        "model.attn_implementation=sdpa", f"model.activation_checkpointing={str(again).lower()}",
        *(f"model.architecture.{name}={value}" for name, value in values.items()),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        network = backbone.build_network(
            asked.model, [f"label{i}" for i in range(11)], tokenizer=backbone.load_tokenizer(asked.model), full=False,
            device=torch.device("cpu"), seed=1, base_folder=Path(folder) / "base", spread=True,
        )  # fmt: skip
    return adapter.attach_adapter(network, asked.peft, roles=asked.model.roles, head=["score"], seed=1), values


def _kept(form: str, hidden: int, inner: int, *, again: bool = False) -> float:
    """Bytes that autograd keeps for a token in a layer: the difference between 64 and 128 tokens, without weights."""
    import torch

    network, _ = _network(form, hidden, inner, again=again)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found = []
    for tokens in (64, 128):
        storages: dict[int, int] = {}
        held: list[Any] = []

        def keep(tensor: Any, storages: dict[int, int] = storages, held: list[Any] = held) -> Any:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                storages[place] = tensor.untyped_storage().nbytes()
            held.append(tensor)
            return tensor

        ids = torch.full((1, tokens), 5)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu"):
            network(input_ids=ids, attention_mask=None, use_cache=False)
        found.append(sum(storages.values()))
    return (found[1] - found[0]) / 64 / 4  # layers


def _held(form: str, cards: int) -> tuple[int, float]:
    """Bytes of the frozen weights that the first of several processes holds, and the arithmetic without gathering."""
    import torch
    from torch import distributed
    from torch.distributed.tensor import DTensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from emotion_lightning.config import Quantization
    from emotion_lightning.models import spread

    network, values = _network(form, 384, 1536)
    if cards > 1:
        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=cards)
        spread.spread_frozen(network, device=torch.device("cpu"))
        distributed.destroy_process_group()
    held = 0
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad and "original_module" not in name:
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            held += local.numel() * local.element_size()
    for module in network.modules():
        state = getattr(module, "quant_state", None)
        if state is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes
    counted = base(values).found
    whole = counted.bytes_of(Quantization(form))
    states = counted.linear * STATES if form == "nf4" else 0.0
    return held, (whole - states) / cards + states


def _settings(*overrides: str) -> Any:
    from hydra import compose, initialize_config_dir

    from emotion_lightning.config import schema

    schema.register()
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        return schema.load_settings(compose("train", list(overrides)), "train")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with small networks")
    check() if parser.parse_args().check else print(tables())
