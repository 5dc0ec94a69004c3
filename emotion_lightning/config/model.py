"""Settings of the `model` and `peft` groups: the network, and what is trained of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from emotion_lightning.config.bounds import Bounds


class Quantization(StrEnum):
    """How the frozen weights are held."""

    nf4 = "nf4"
    int8 = "int8"
    none = "none"


class Dtype(StrEnum):
    """What the network computes in."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class Attention(StrEnum):
    """What a token sees."""

    causal = "causal"
    bidirectional = "bidirectional"


class AttentionKernel(StrEnum):
    """What computes attention."""

    auto = "auto"
    eager = "eager"
    sdpa = "sdpa"
    flex_attention = "flex_attention"
    flash_attention_2 = "flash_attention_2"


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    first = "first"
    last = "last"
    mean = "mean"


@dataclass
class Model:
    """The `model` group: the pretrained network and which of its modules plays which role."""

    path: str
    """Hub id or local folder; tiny: the network inside the package."""
    revision: str | None
    """Branch, tag or commit on the hub; null is the newest."""
    pretrained: bool
    """False builds `architecture` with random weights and the bundled tokenizer, without a hub call."""
    quantization: Quantization
    """nf4 (4-bit with double quantisation), int8, or none. Quantised weights are frozen."""
    dtype: Dtype
    """What the network computes in; trained parameters are float32 always. auto: bfloat16 where the device has it,
    else float16 on a GPU and float32 on a CPU."""
    activation_checkpointing: bool
    """Recompute activations in the backward pass: about a third slower, a fraction of the memory."""
    attention: Attention
    """causal: a token sees those before it, as Gemma was trained; bidirectional: all of them, as in BERT. Gemma can be
    fine-tuned to either."""
    attn_implementation: AttentionKernel
    """What computes attention, by the names of transformers; auto is the fastest that model and device have."""
    pooling: Pooling
    """What the head sees of a text: the first token's vector, the last one's, or the mean of all. Stock loading of the
    adapter gives the same probabilities with the first two where they are the model's own."""
    head: list[str]
    """Modules that are trained in full with every `peft` option and never quantised; the last of them classifies.
    Every module that is not in the pretrained checkpoint has to be among them."""
    pooler: str | None
    """Module between the first token and the head, trained with it; pooling=last and mean pass it by."""
    roles: dict[str, str]
    """Role to a pattern for whole module names. PEFT options name roles, so each works with every model."""
    architecture: dict[str, Any]
    """Values of the transformers config that `pretrained=false` builds."""


@dataclass
class Peft:
    """The `peft` group: what is trained. This much every method shares."""

    lr: Annotated[float, Bounds(above=0)]
    """Peak learning rate that suits this method; `optimizer.lr` overrides it."""
    head_lr: Annotated[float, Bounds(above=0)]
    """The same for the classification head; `optimizer.head_lr` overrides it."""


@dataclass
class IA3(Peft):
    """Learned vectors that rescale activations (Liu et al., 2022)."""

    targets: list[str]
    """Roles whose activations are rescaled."""
    feedforward: list[str]
    """Those of `targets` that are rescaled at their input, as the paper does in the feed-forward block."""


@dataclass
class Lora(Peft):
    """Low-rank updates (Hu et al., 2021), with rsLoRA and DoRA as switches."""

    targets: list[str]
    """Roles whose weights get an update."""
    r: Annotated[int, Bounds(at_least=1)]
    """Rank of the update."""
    alpha: Annotated[float, Bounds(above=0)]
    """Scale of the update: alpha / r, with rsLoRA alpha / sqrt(r)."""
    dropout: Annotated[float, Bounds(at_least=0, below=1)]
    """Dropout before the update."""
    rslora: bool
    """Rank-stabilised scale (Kalajdzievski, 2023)."""
    dora: bool
    """Learn the magnitude apart from the direction (Liu et al., 2024)."""


@dataclass
class Vera(Peft):
    """Shared random projections with learned scales (Kopiczko et al., 2023)."""

    targets: list[str]
    """Roles whose weights get an update."""
    r: Annotated[int, Bounds(at_least=1)]
    """Rank of the shared projections."""
    dropout: Annotated[float, Bounds(at_least=0, below=1)]
    """Dropout before the update."""


@dataclass
class LnTuning(Peft):
    """Train the layer norms only (Zhao et al., 2023)."""

    targets: list[str]
    """Roles that are trained."""


@dataclass
class Head(Peft):
    """Train the classification head alone (a linear probe)."""


@dataclass
class Full(Peft):
    """Train every weight; needs model.quantization=none."""
