"""Settings of the `loss`, `optimizer`, `callbacks`, `trainer` and `logger` groups."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


class PositiveWeights(StrEnum):
    """How the weights of positives are computed."""

    none = "none"
    neg_pos = "neg_pos"
    sqrt = "sqrt"
    effective_number = "effective_number"


@dataclass
class Loss:
    """The `loss` group."""


@dataclass
class BCE(Loss):
    """Binary cross-entropy of each label."""


@dataclass
class PositivesWeighted(Loss):
    """Settings of losses in which the positives of rare labels may have larger weights."""

    weights: PositiveWeights
    """Weight of a label's positives. neg_pos: negatives / positives in train; sqrt: the square root of this ratio;
    effective_number: the ratio of their effective numbers (Cui et al., 2019); none: 1."""
    clip: Annotated[float | None, Bounds(at_least=1)]
    """Maximum weight; null does not clip. Without it, the weight of grief in GoEmotions would be 563."""
    beta: Annotated[float, Bounds(at_least=0, below=1)]
    """Used by weights=effective_number: with 0 all weights are 1; values close to 1 approach neg_pos."""


@dataclass
class WeightedBCE(PositivesWeighted):
    """Binary cross-entropy in which the positives of rare labels have larger weights."""


LEVELS = 20
"""Largest data.scale that loss=ordinal learns."""


@dataclass
class Ordinal(PositivesWeighted):
    """Cumulative logits for intensities, data.scale=N: a label reaches level 1, 2 … N (McCullagh, 1980).

    The network has one logit for each label, that of being present; each further level has a cut point of its own.
    """

    cut_lr: Annotated[float | None, Bounds(above=0)]
    """Peak learning rate of the cut points, N - 1 numbers for each label, which are the same for all texts; null keeps
    them as the frequencies of the levels in train suggest."""


@dataclass
class Focal(Loss):
    """Focal loss: easy decisions have smaller weights (Lin et al., 2017)."""

    gamma: Annotated[float, Bounds(at_least=0)]
    """Focusing parameter: a larger value reduces the loss of easy decisions more. 0 with alpha=null is plain BCE."""
    alpha: Annotated[float | None, Bounds(above=0, below=1)]
    """Weight of positives; negatives have the weight 1 - alpha. null: both have the weight 1."""


@dataclass
class Asymmetric(Loss):
    """Asymmetric loss: focal loss with different focusing of positives and negatives (Ridnik et al., 2021)."""

    gamma_positive: Annotated[float, Bounds(at_least=0)]
    """Focusing parameter of positives."""
    gamma_negative: Annotated[float, Bounds(at_least=0)]
    """Focusing parameter of negatives."""
    clip: Annotated[float, Bounds(at_least=0, below=1)]
    """Negatives with a probability below this value have a loss of 0."""


@dataclass
class ZLPR(Loss):
    """ZLPR: a loss that ranks the positive labels of a row above its negative labels (Su et al., 2022)."""


@dataclass
class Correlated(Loss):
    """Binary cross-entropy plus a term that ranks a row's positives above its negatives (SpanEmo)."""

    alpha: Annotated[float, Bounds(at_least=0, at_most=1)]
    """Weight of the ranking term; the cross-entropy has the weight 1 - alpha."""


class Schedule(StrEnum):
    """Schedule of the learning rate after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


@dataclass
class Optimizer:
    """The `optimizer` group. All optimizers have these settings."""

    lr: Annotated[float | None, Bounds(above=0)]
    """Peak learning rate; null uses the `lr` of the `peft` option. IA3 needs 10 to 100 times the rate of full
    fine-tuning."""
    head_lr: Annotated[float | None, Bounds(above=0)]
    """Peak learning rate of the classification head. null uses the `head_lr` of the `peft` option, divided by a power
    of two if the RMS of the head's input vectors is above 2."""
    layer_decay: Annotated[float, Bounds(above=0, at_most=1)]
    """Factor between the learning rate of a layer and that of the layer above it, down to the embeddings (Howard and
    Ruder, 2018); 1: the same rate for all layers. It does not affect the head."""
    weight_decay: Annotated[float, Bounds(at_least=0)]
    """Decoupled weight decay of matrices. It is not applied to vectors, biases and norms, because it would pull the IA3
    vectors from 1 towards 0."""


@dataclass
class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter, 2019)."""

    beta1: Annotated[float, Bounds(at_least=0, below=1)]
    """Decay rate of the running mean of the gradient."""
    beta2: Annotated[float, Bounds(at_least=0, below=1)]
    """Decay rate of the running mean of the squared gradient."""
    warmup: Annotated[float, Bounds(at_least=0, at_most=1)]
    """Fraction of the optimizer steps for warm-up, in which the learning rate rises to its peak."""
    schedule: Schedule
    """Learning rate after warm-up: linear or cosine decay to 0, or constant."""


@dataclass
class Selection:
    """The `callbacks` group: best checkpoint, early stopping and averaging of the parameters."""

    monitor: str
    """Validation metric that selects the best epoch: val/f1_macro, val/f1_micro, val/jaccard, val/map or val/lrap
    (higher is better), or val/loss (lower is better). Against shares: val/soft_bce,
    val/soft_mae, val/soft_jensen_shannon (lower), val/soft_correlation and, with data.scale, val/intensity_pearson."""
    patience: Annotated[int | None, Bounds(at_least=1)]
    """Stop after this many epochs without improvement; null never stops early."""
    min_delta: Annotated[float, Bounds(at_least=0)]
    """Smallest improvement that counts for `patience`."""
    ema_decay: Annotated[float | None, Bounds(above=0, below=1)]
    """Decay of an exponential moving average of the trained parameters (Polyak and Juditsky, 1992), which is scored and
    saved in their place; 0.99 averages about the last 100 optimizer steps. null: no average."""


@dataclass
class ExtraCallback:
    """The `extra_callback` group: callbacks of your own, beside those of the program."""


@dataclass
class NoExtraCallback(ExtraCallback):
    """No callback of your own."""


class Accelerator(StrEnum):
    """Device type that a network runs on."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    mps = "mps"


class Strategy(StrEnum):
    """How several processes train together."""

    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"


@dataclass
class Trainer:
    """The `trainer` group: device, length of the training, and checkpoint intervals."""

    accelerator: Accelerator
    """Device to run on; auto uses a GPU if there is one."""
    devices: Annotated[int, Bounds(at_least=1)]
    """Number of processes on each machine, each with one device."""
    num_nodes: Annotated[int, Bounds(at_least=1)]
    """Number of machines."""
    strategy: Strategy
    """Strategy for several processes: ddp, each with a copy of the network; fsdp, which spreads the frozen weights over
    them, for a base that does not fit one device. auto for a single process."""
    max_epochs: Annotated[int, Bounds(at_least=1)]
    """Maximum number of epochs."""
    max_steps: Annotated[int | None, Bounds(at_least=1)]
    """Maximum number of optimizer steps; null: only max_epochs limits the training."""
    accumulate_grad_batches: Annotated[int, Bounds(at_least=1)]
    """Number of batches per optimizer step."""
    gradient_clip_val: Annotated[float | None, Bounds(above=0)]
    """Maximum gradient norm; null does not clip."""
    limit_train_batches: Annotated[int | None, Bounds(at_least=1)]
    """Maximum number of training batches per epoch; null uses all."""
    limit_eval_batches: Annotated[int | None, Bounds(at_least=1)]
    """Maximum number of validation and test batches; null uses all."""
    compile: bool
    """Compile the network with torch.compile, once for batches of all sizes. This takes a minute or two at the
    start."""
    checkpoint_every: Annotated[int, Bounds(at_least=0)]
    """Optimizer steps between two saves of last.ckpt; 0 saves only at the end of each epoch."""
    checkpoint_minutes: Annotated[float | None, Bounds(above=0)]
    """Minutes between two saves of last.ckpt, in addition; null turns this off."""
    progress_bar: bool
    """Show a progress bar on a terminal. The metrics of each epoch are logged in any case."""


class Reuse(StrEnum):
    """Whether the frozen layers below the lowest trained one are computed once."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass
class Frozen:
    """The frozen layers below the lowest trained one, whose outputs for a text are the same in every epoch."""

    reuse: Reuse
    """always: compute these layers once for each text of all splits, before the first step, and start from their
    outputs from then on; their dropout is off. never: compute them anew in each step, with dropout. auto: always if
    there is such a layer, the training has two epochs or more of all rows, and trainer.compile=false."""
    memory_gb: Annotated[float, Bounds(at_least=0)]
    """Outputs of up to this size, in GB of 10^9 bytes, are kept in main memory, by each process; larger ones are read
    from their file."""
    disk_gb: Annotated[float, Bounds(at_least=0)]
    """Maximum size of all files with such outputs in `folder`, in GB; those used least recently are deleted. 0: no
    files."""
    folder: str | None
    """Folder of these files, which runs share; null: the user's cache folder."""


class LoggerMode(StrEnum):
    """Whether W&B uploads a run or stores it locally."""

    auto = "auto"
    online = "online"
    offline = "offline"


@dataclass
class Logger:
    """The `logger` group: where metrics are logged in addition to the run folder."""


@dataclass
class WandB(Logger):
    """Weights & Biases."""

    mode: LoggerMode
    """online, or offline to upload the run later with `wandb sync`. auto: online if an API key is set, else offline."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B user or team; null is your default."""
    group: str | None
    """Name of a group of runs; null: the name of the multirun's folder, or no group."""
    job_type: str | None
    """Type of the run."""
    name: str | None
    """Name of the run; null: the settings in which a job differs from others of its multirun, or the folder's date and
    time."""
    tags: list[str]
    """Tags of the run."""
    notes: str | None
    """Longer description of the run."""
    id: str | None
    """Id of the W&B run; set it to continue a run that another folder started. null creates a new id and stores it in
    the run folder for a resumed run."""
    log_model: bool
    """Upload model/ as an artifact: the adapter with tokenizer and metadata, but not the base model; with peft=full
    the complete model."""
    log_texts: bool
    """Upload the texts with the largest errors, as a table and in the report. Many datasets must not be shared."""


@dataclass
class MLflow(Logger):
    """MLflow, with a server or a local database."""

    tracking_uri: str | None
    """Server such as http://host:5000 or database such as sqlite:///mlflow.db; null: MLFLOW_TRACKING_URI, or mlflow.db
    in the working directory."""
    experiment: str
    """Name of the MLflow experiment."""
    group: str | None
    """Name of a group of runs, logged as the tag `group`; null: the name of the multirun's folder, or no group."""
    name: str | None
    """Name of the run; null: the settings in which a job differs from others of its multirun, or the folder's date and
    time."""
    log_model: bool
    """Upload model/: the adapter with tokenizer and metadata, but not the base model; with peft=full the complete
    model."""


@dataclass
class TensorBoard(Logger):
    """TensorBoard event files in tensorboard/ of the run folder."""


@dataclass
class CSV(Logger):
    """metrics.csv in the run folder."""


@dataclass
class NoLogger(Logger):
    """No logger: only the files of the run folder."""


@dataclass
class Distillation:
    """Distillation (Hinton et al., 2015): learn from labels and from probabilities of finished runs or of a file."""

    runs: str | None
    """Teachers: a run folder, or an ensemble, [A,B,C] or a folder with runs. null: none. They must not be trained on
    rows that are validation or test here."""
    answers: str | None
    """File with probabilities for the training texts, instead of runs: the text column and a column p_LABEL for each
    label, as `predict predict.text=true` writes; fractions of annotators are possible too. null: none."""
    weight: Annotated[float, Bounds(above=0, at_most=1)]
    """Weight of the probabilities in the loss; the labels have the weight 1 - weight."""


MONITORS = {
    "val/f1_macro": "max",
    "val/f1_micro": "max",
    "val/jaccard": "max",
    "val/map": "max",
    "val/lrap": "max",
    "val/loss": "min",
    "val/soft_bce": "min",
    "val/soft_mae": "min",
    "val/soft_jensen_shannon": "min",
    "val/soft_correlation": "max",
    "val/intensity_pearson": "max",
}
"""Metrics that can select the best epoch, and whether the highest or the lowest value is best."""
