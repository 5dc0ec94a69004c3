"""Settings of the `loss`, `optimizer`, `callbacks`, `trainer` and `logger` groups."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds


class PositiveWeights(StrEnum):
    """How much a positive counts against a negative."""

    none = "none"
    neg_pos = "neg_pos"
    sqrt = "sqrt"
    effective_number = "effective_number"


@dataclass
class Loss:
    """The `loss` group."""


@dataclass
class BCE(Loss):
    """Binary cross-entropy, one for each label."""


@dataclass
class WeightedBCE(Loss):
    """Binary cross-entropy in which positives of rare labels weigh more."""

    weights: PositiveWeights
    """neg_pos: negatives / positives in train; sqrt: its square root; effective_number: the same ratio of their
    effective numbers (Cui et al., 2019); none: 1."""
    clip: Annotated[float | None, Bounds(at_least=1)]
    """No weight is larger. Unclipped, GoEmotions' grief would weigh 563; null does not clip."""
    beta: Annotated[float, Bounds(at_least=0, below=1)]
    """Of weights=effective_number: 0 is no weight, close to 1 is neg_pos."""


@dataclass
class Focal(Loss):
    """Easy decisions count less (Lin et al., 2017)."""

    gamma: Annotated[float, Bounds(at_least=0)]
    """How fast the loss of easy decisions falls; 0 is plain BCE."""
    alpha: Annotated[float | None, Bounds(above=0, below=1)]
    """Weight of positives against 1 - alpha for negatives; null weighs both 1."""


@dataclass
class Asymmetric(Loss):
    """Easy negatives count less than easy positives (Ridnik et al., 2021)."""

    gamma_positive: Annotated[float, Bounds(at_least=0)]
    """Focusing of positives."""
    gamma_negative: Annotated[float, Bounds(at_least=0)]
    """Focusing of negatives."""
    clip: Annotated[float, Bounds(at_least=0, below=1)]
    """Negatives with a probability below this cost nothing."""


@dataclass
class ZLPR(Loss):
    """All positives of a row against all its negatives, by rank (Su et al., 2022)."""


@dataclass
class Correlated(Loss):
    """Binary cross-entropy beside a term that sets a row's positives above its negatives (SpanEmo)."""

    alpha: Annotated[float, Bounds(at_least=0, at_most=1)]
    """Share of that term; the cross-entropy has the rest."""


class Schedule(StrEnum):
    """What the learning rate does after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


@dataclass
class AdamW:
    """The `optimizer` group: AdamW (Loshchilov and Hutter, 2019)."""

    lr: Annotated[float | None, Bounds(above=0)]
    """Peak learning rate; null takes the `peft` option's own. IA3 wants 10 to 100 times that of full fine-tuning."""
    head_lr: Annotated[float | None, Bounds(above=0)]
    """Peak learning rate of the classification head; null takes the `peft` option's own, divided by a power of two
    where the head is given vectors of an RMS above 2."""
    layer_decay: Annotated[float, Bounds(above=0, at_most=1)]
    """Each layer learns at this share of the rate of the layer above it, the embeddings last (Howard and Ruder, 2018);
    1: all at the same rate. The head keeps its own."""
    weight_decay: Annotated[float, Bounds(at_least=0)]
    """Decoupled decay of weight matrices. Never of vectors, biases and norms: it would pull IA3 from 1 towards 0."""
    beta1: Annotated[float, Bounds(at_least=0, below=1)]
    """Decay of the gradient's running mean."""
    beta2: Annotated[float, Bounds(at_least=0, below=1)]
    """Decay of the squared gradient's running mean."""
    warmup: Annotated[float, Bounds(at_least=0, at_most=1)]
    """Share of the optimizer steps in which the rate rises to its peak."""
    schedule: Schedule
    """What the rate does then: linear or cosine to 0, or constant."""


@dataclass
class Selection:
    """The `callbacks` group: best checkpoint and early stopping."""

    monitor: str
    """The validation metric that names the best epoch: val/f1_macro, val/f1_micro, val/jaccard, val/map, val/lrap (the
    higher the better) or val/loss (the lower)."""
    patience: Annotated[int | None, Bounds(at_least=1)]
    """Stop after this many epochs without a better value; null never stops early."""
    min_delta: Annotated[float, Bounds(at_least=0)]
    """A smaller gain does not count as better for `patience`."""
    ema_decay: Annotated[float | None, Bounds(above=0, below=1)]
    """Score and keep an exponential moving average of the trained parameters (Polyak and Juditsky, 1992), which moves
    by 1 - ema_decay towards them at each optimizer step; 0.99 is the mean of about the last hundred. null: none."""


class Accelerator(StrEnum):
    """What a network runs on."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    mps = "mps"


class Strategy(StrEnum):
    """How processes work together."""

    auto = "auto"
    ddp = "ddp"


@dataclass
class Trainer:
    """The `trainer` group: how long, on what, and how often it saves."""

    accelerator: Accelerator
    """What to run on; auto takes a GPU where there is one."""
    devices: Annotated[int, Bounds(at_least=1)]
    """Processes on each machine, one a device."""
    num_nodes: Annotated[int, Bounds(at_least=1)]
    """Machines."""
    strategy: Strategy
    """How several processes work together: ddp; auto for one."""
    max_epochs: Annotated[int, Bounds(at_least=1)]
    """Passes over the training rows at the most."""
    max_steps: Annotated[int | None, Bounds(at_least=1)]
    """Optimizer steps at the most; null leaves it to max_epochs."""
    accumulate_grad_batches: Annotated[int, Bounds(at_least=1)]
    """Batches that share one optimizer step."""
    gradient_clip_val: Annotated[float | None, Bounds(above=0)]
    """Largest gradient norm; null does not clip."""
    limit_train_batches: Annotated[int | None, Bounds(at_least=1)]
    """Batches of an epoch at the most; null is all."""
    limit_eval_batches: Annotated[int | None, Bounds(at_least=1)]
    """Batches of validation and test at the most; null is all."""
    compile: bool
    """Compile the network with torch.compile, once for batches of all sizes. It takes a minute or two at the start."""
    checkpoint_every: Annotated[int, Bounds(at_least=0)]
    """Save last.ckpt every so many optimizer steps; 0 saves at the end of each epoch only."""
    checkpoint_minutes: Annotated[float | None, Bounds(above=0)]
    """Save last.ckpt every so many minutes; null does not."""
    progress_bar: bool
    """Show a bar on a terminal. Lines for each epoch are logged in any case."""


class LoggerMode(StrEnum):
    """Whether W&B sends or keeps."""

    auto = "auto"
    online = "online"
    offline = "offline"


@dataclass
class Logger:
    """The `logger` group: where metrics go besides the run folder."""


@dataclass
class WandB(Logger):
    """Weights & Biases."""

    mode: LoggerMode
    """auto: online where a key is set, else offline, to be sent later with `wandb sync`."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B user or team; null is your default."""
    group: str | None
    """Runs that belong together; null: the folder of a multirun, else none."""
    job_type: str | None
    """What kind of run it is."""
    name: str | None
    """Name of the run; null: what sets it apart from the other jobs of a multirun, else the folder's date and time."""
    tags: list[str]
    """Tags of the run."""
    notes: str | None
    """A longer remark."""
    id: str | None
    """Id of the run, to go on with one that another folder began; null: a new one, kept in the run folder, where a
    resumed run finds it."""
    log_model: bool
    """Send model/ as an artifact: the adapter with its tokenizer and card, never the base; with peft=full the whole
    model."""
    log_texts: bool
    """Send the texts that are most wrong, as a table and in the report. Many data sets may not be passed on."""


@dataclass
class MLflow(Logger):
    """MLflow, a server's or a file's."""

    tracking_uri: str | None
    """Where runs are kept: http://host:5000, or a database such as sqlite:///mlflow.db; null: MLFLOW_TRACKING_URI, or
    else mlflow.db in the working directory."""
    experiment: str
    """Name of the MLflow experiment."""
    group: str | None
    """Runs that belong together, as the tag `group`; null: the folder of a multirun, else none."""
    name: str | None
    """Name of the run; null: what sets it apart from the other jobs of a multirun, else the folder's date and time."""
    log_model: bool
    """Send model/ too: the adapter with its tokenizer and card, never the base; with peft=full the whole model."""


@dataclass
class TensorBoard(Logger):
    """Event files in the run folder's tensorboard/."""


@dataclass
class CSV(Logger):
    """metrics.csv in the run folder."""


@dataclass
class NoLogger(Logger):
    """Nothing but the run folder's own files."""


@dataclass
class Distillation:
    """Learning from probabilities, those of finished runs or of a file, beside the labels (Hinton et al., 2015)."""

    runs: str | None
    """The teachers: a run folder, or several, [A,B,C] or a folder with runs in it, whose probabilities are averaged;
    null: none. Runs of a larger network, or of this one with other seeds. They must not have been trained on rows that
    are validation or test here."""
    answers: str | None
    """File with probabilities for the training texts, instead of runs: a column of the texts and one, p_LABEL, for each
    label, as `predict predict.text=true` writes; the shares of annotators who saw an emotion are such too. null:
    none."""
    weight: Annotated[float, Bounds(above=0, at_most=1)]
    """Share of the loss that the probabilities have; the labels have the rest."""


MONITORS = {
    "val/f1_macro": "max",
    "val/f1_micro": "max",
    "val/jaccard": "max",
    "val/map": "max",
    "val/lrap": "max",
    "val/loss": "min",
}
"""What the best epoch can be chosen by, and which way is better."""
