"""Settings of the `model` and `peft` groups: the network, and which of its weights are trained."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from emotion_lightning.config.bounds import Bounds

AUTO = "auto"
"""Value of `model.pooler` that is read from the network."""

TINY = "tiny"
"""Value of `model.path` for the network bundled with the package."""


class Quantization(StrEnum):
    """Quantization of the frozen weights."""

    nf4 = "nf4"
    int8 = "int8"
    none = "none"


class Dtype(StrEnum):
    """Dtype that the network computes in."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class Attention(StrEnum):
    """Which tokens a token attends to."""

    auto = "auto"
    causal = "causal"
    bidirectional = "bidirectional"


class AttentionKernel(StrEnum):
    """Implementation of attention, as transformers names it."""

    auto = "auto"
    eager = "eager"
    sdpa = "sdpa"
    flex_attention = "flex_attention"
    flash_attention_2 = "flash_attention_2"


class Pooling(StrEnum):
    """How the token vectors of a text are combined into one vector."""

    auto = "auto"
    first = "first"
    last = "last"
    mean = "mean"


@dataclass
class Model:
    """The `model` group: the pretrained network, and the roles of its modules."""

    path: str
    """Hub id or local folder; tiny: the bundled network."""
    revision: str | None
    """Branch, tag or commit on the hub; null is the newest."""
    pretrained: bool
    """false: build the network from `architecture`, with random weights and the bundled tokenizer, without the hub."""
    quantization: Quantization
    """nf4 (4-bit with double quantisation), int8, or none. Quantised weights are frozen."""
    dtype: Dtype
    """Dtype that the network computes in; trained parameters are always float32. auto: bfloat16 if the device supports
    it, else float16 on a GPU and float32 on a CPU."""
    activation_checkpointing: bool
    """Recompute activations in the backward pass. Training is about a third slower and needs much less memory."""
    attention: Attention
    """causal: a token attends to itself and the tokens before it, as in Gemma's pretraining; bidirectional: to all
    tokens, as in BERT. Gemma can be fine-tuned with either. auto: as the network was trained."""
    attn_implementation: AttentionKernel
    """Attention implementation, as transformers names it; auto selects the fastest for the model and the device."""
    pooling: Pooling
    """Input of the head: the vector of the first token, the vector of the last token, or the mean of all. If first or
    last is the model's own pooling, plain Transformers and PEFT compute the same probabilities from the adapter. auto:
    the model's own pooling."""
    head: list[str] | None
    """Modules that every `peft` option trains in full and that are never quantised; the last one is the classifier.
    All modules that are not in the pretrained weights must be in this list. null: read from the network."""
    pooler: str | None
    """Module between the first token and the head, trained like the head; pooling=last and mean do not use it.
    auto: read from the network."""
    roles: dict[str, str]
    """Regular expression for the full module names of each role. `peft` options refer to roles, so each option works
    with every model. Roles that are not given with model.head=null are read from the network."""
    architecture: dict[str, Any]
    """Values of the transformers config for `pretrained=false`."""

    @property
    def is_open(self) -> bool:
        """Whether a setting has to be read from the network, as all of model=auto."""
        enums = self.attention is Attention.auto or self.pooling is Pooling.auto
        return enums or self.head is None or self.pooler == AUTO


@dataclass
class Peft:
    """The `peft` group: which weights are trained. All methods have these settings."""

    lr: Annotated[float, Bounds(above=0)]
    """Peak learning rate for this method; `optimizer.lr` overrides it."""
    head_lr: Annotated[float, Bounds(above=0)]
    """Peak learning rate of the classification head for this method; `optimizer.head_lr` overrides it."""


ALL, UPPER_HALF = "all", "upper_half"
"""Values of `peft.layers` beside a list of numbers."""


@dataclass
class LayeredPeft(Peft):
    """A method that adapts modules inside the layers of a network."""

    targets: list[str]
    """Roles of the modules that are adapted."""
    layers: Any
    """Layers that are adapted: all, upper_half, or a list of numbers, from 0 at the bottom and from -1 at the top, as
    in [4,5]. In a network with encoder and decoder, the numbers go on in the decoder. Where the lowest layers are
    frozen, they can be computed once (`frozen.reuse`). Modules outside the layers, such as the last norm, are adapted
    with all only."""


@dataclass
class TargetedPeft(Peft):
    """A method of your own, which trains something in the modules of some roles."""

    targets: list[str]
    """Roles of the modules that the method changes."""


@dataclass
class IA3(LayeredPeft):
    """Learned vectors that rescale activations (Liu et al., 2022)."""

    feedforward: list[str]
    """Roles among `targets` whose input is rescaled, not their output, as in the paper's feed-forward block."""


@dataclass
class Lora(LayeredPeft):
    """Low-rank updates (Hu et al., 2021), optionally with rsLoRA and DoRA."""

    r: Annotated[int, Bounds(at_least=1)]
    """Rank of the update."""
    alpha: Annotated[float, Bounds(above=0)]
    """The update is scaled by alpha / r, or with rsLoRA by alpha / sqrt(r)."""
    dropout: Annotated[float, Bounds(at_least=0, below=1)]
    """Dropout before the update."""
    rslora: bool
    """rsLoRA: rank-stabilised scale (Kalajdzievski, 2023)."""
    dora: bool
    """DoRA: learn magnitude and direction of the weights separately (Liu et al., 2024)."""


@dataclass
class Vera(LayeredPeft):
    """Shared random projections with learned scales (Kopiczko et al., 2023)."""

    r: Annotated[int, Bounds(at_least=1)]
    """Rank of the shared projections."""
    dropout: Annotated[float, Bounds(at_least=0, below=1)]
    """Dropout before the update."""


@dataclass
class LnTuning(LayeredPeft):
    """Train only the layer norms (Zhao et al., 2023)."""


@dataclass
class Head(Peft):
    """Train only the classification head (a linear probe)."""


@dataclass
class Full(Peft):
    """Train every weight; needs model.quantization=none."""
