"""Every setting: its name, its type and its meaning.

Values live in conf/; there are none here. An option file in conf/ begins with its schema from this module, so Hydra
checks names and types while it composes, and `schema.load` turns the result into the plain dataclasses below. A setting
has one name everywhere: `optimizer.lr` on the command line, in YAML, in sweeps, in W&B and in a run's settings.yaml.
"""

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any


@dataclass(frozen=True)
class Bounds:
    """The range of a number, as a field's annotation; `schema.load` refuses values outside it."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a value lies within; infinities, NaN and whole numbers of more than 64 bits never."""
        return (
            (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value))
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {name: limit for name, limit in dataclasses.asdict(self).items() if limit is not None}
        return " and ".join([f"{name.replace('_', ' ')} {limit:g}" for name, limit in limits.items()] + ["finite"])


# ---------------------------------------------------------------------------------------------------------------- data


@dataclass
class Data:
    """The `data` group: where texts and labels come from."""


class CleaningStep(StrEnum):
    """What may be cleaned out of a text before it is tokenized."""

    html = "html"
    newlines = "newlines"
    users = "users"
    urls = "urls"
    emojis = "emojis"


class EmptyTexts(StrEnum):
    """What becomes of rows without a text."""

    refuse = "refuse"
    keep = "keep"
    drop = "drop"


@dataclass
class Batches(Data):
    """What every source shares."""

    max_tokens: Annotated[int, Bounds(at_least=4)]
    """Longer texts are cut to this many tokens, special ones included. Emotion texts rarely need more than 64."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts in a batch, on each device."""
    batch_tokens: Annotated[int | None, Bounds(at_least=4)]
    """Tokens in a batch at most, padding counted, on each device, instead of batch_size texts: batches of short texts
    then hold many, and each text still counts alike. null: batch_size texts each."""
    sort_window: Annotated[int, Bounds(at_least=1)]
    """Batches of shuffled training texts that are sorted by length together, to pad less: 1 sorts none; with more,
    texts of one length meet more often."""
    max_rows: Annotated[int | None, Bounds(at_least=1)]
    """Keep only the first rows of each split; null keeps all. For a quick look, not for results."""
    workers: Annotated[int, Bounds(at_least=0)]
    """Processes that prepare batches. 0 is fastest for short texts: tokens are in memory already."""
    clean: list[CleaningStep]
    """What is cleaned out of texts, at training and, as it is stored with the model, at prediction: html (&amp; becomes
    &), newlines (a literal \\n becomes a space), users (@name becomes @user), urls (http… becomes http), emojis (each
    becomes its English name: vocabularies such as BERT's know none of them). For tweets."""
    folds: Annotated[int | None, Bounds(at_least=2)]
    """Cross-validation: train and validation together are cut into so many parts, stratified by labels; null: no."""
    fold: Annotated[int | None, Bounds(at_least=1)]
    """Which of the parts is the validation split, counted from 1; the others are train. -m sweep=folds runs all."""
    drop_leaks: bool
    """Leave out of train the texts that stand in validation or test too; their number is told in any case."""


@dataclass
class Sample(Batches):
    """The bundled texts with the 11 labels of SemEval-2018."""


class Language(StrEnum):
    """Languages of SemEval-2018 E-c."""

    En = "En"
    Ar = "Ar"
    Es = "Es"


@dataclass
class SemEval2018(Batches):
    """SemEval-2018 Task 1 E-c, the official files."""

    dir: str | None
    """Folder of the official files; null reads the Hugging Face hub."""
    language: Language
    """English, Arabic or Spanish, as in the official file names."""


@dataclass
class GoEmotions(Batches):
    """GoEmotions, the official files."""

    dir: str | None
    """Folder with train.tsv, dev.tsv, test.tsv and labels.txt (or emotions.txt); null reads the Hugging Face hub."""


@dataclass
class Table(Batches):
    """What files and hub data sets share: which column is what."""

    text: str | None
    """The text column; null looks for its usual names."""
    labels: list[str] | None
    """Names of the 0/1 columns; or, beside `labels_column`, the names that its ids or names refer to."""
    labels_column: str | None
    """One column that holds all labels of a row: a list, or a string with `separator`."""
    separator: str | None
    """What stands between labels in a `labels_column` string; null takes the first of | ; , that occurs in it."""
    id_column: str | None
    """The column that identifies a row in prediction files; null looks for its usual names; row counts them."""
    empty_texts: EmptyTexts
    """What becomes of rows without a text: refuse names them, keep takes them, drop leaves them out."""
    validation_share: Annotated[float, Bounds(above=0, below=1)]
    """Share of the rows that becomes the validation split, where there is none."""
    split_seed: Annotated[int, Bounds(at_least=0)]
    """Seed of that split. Apart from `seed`, so that runs with several seeds are scored on the same rows."""
    splits: str | None
    """The splits.csv of an earlier run: each row goes where it went then; null splits anew."""


@dataclass
class File(Table):
    """Files of your own: csv, tsv, jsonl, json, parquet, arrow, or a folder that `datasets` saved."""

    path: str | None
    """One file, split for you (stratified by labels)."""
    train: str | None
    """The training file, where you have splits of your own."""
    validation: str | None
    """The validation file; null takes `validation_share` of the training rows."""
    test: str | None
    """The test file; null: no test."""
    test_share: Annotated[float, Bounds(at_least=0, below=1)]
    """Share of `path` that becomes the test split."""
    encoding: str | None
    """Encoding of csv, tsv, jsonl, json and txt files (cp1252, utf-16 …); null is UTF-8."""


@dataclass
class Hub(Table):
    """Any data set of the Hugging Face hub, or a folder that `datasets` can load."""

    path: str
    """Hub id or folder."""
    name: str | None
    """Configuration of the data set, where it has several."""
    revision: str | None
    """Branch, tag or commit; null is the newest."""
    train: str
    """Name of the training split."""
    validation: str | None
    """Name of the validation split; null takes `validation_share` of the training rows."""
    test: str | None
    """Name of the test split; null: no test."""


@dataclass
class SameData(Data):
    """Evaluate only: the data that the run was trained on."""


@dataclass
class Columns:
    """Predict only: how the input file is read."""

    text: str | None
    """The text column; null takes the one of the run, else looks for the usual names."""
    id_column: str | None
    """The column that identifies a row; null takes the one of the run, else looks for the usual names; row counts
    them."""
    encoding: str | None
    """Encoding of csv, tsv, jsonl, json and txt files (cp1252, utf-16 …); null is UTF-8."""
    empty_texts: EmptyTexts
    """What becomes of rows without a text: refuse names them, keep gives them a prediction like any other."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts in a batch."""
    batch_tokens: Annotated[int | None, Bounds(at_least=1)]
    """Tokens in a batch at most, padding counted, instead of batch_size texts; null: batch_size texts each."""


# --------------------------------------------------------------------------------------------------------------- model


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


# ---------------------------------------------------------------------------------------------------------------- peft


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


# ------------------------------------------------------------------------------------------ loss, optimizer, thresholds


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


class ThresholdMetric(StrEnum):
    """What thresholds are fitted for."""

    macro = "macro"
    micro = "micro"
    jaccard = "jaccard"


class Calibration(StrEnum):
    """How probabilities are brought to mean what they say."""

    none = "none"
    temperature = "temperature"
    per_label = "per_label"


@dataclass
class Thresholds:
    """The `thresholds` group: which protocol decides the prediction files and heads the table.

    All protocols are fitted and reported, with the same care.
    """

    metric: ThresholdMetric
    """What thresholds make highest on validation: macro F1, micro F1 or Jaccard (SemEval's accuracy)."""
    min_support: Annotated[int, Bounds(at_least=0)]
    """A label with fewer positives in validation takes the global threshold also where each label has its own: fitted
    on a handful of rows it would be chance."""
    cross_fit: Annotated[int | None, Bounds(at_least=2)]
    """Thresholds are the mean of those fitted without each of so many parts of validation, which a few odd rows move
    less; null fits once, on all rows."""
    calibration: Calibration
    """Fitted on validation before the thresholds; predicted probabilities are the calibrated ones. temperature: one
    slope for all logits (Guo et al., 2017); per_label: a slope and an offset for each label (Platt, 1999); none: as the
    network gives them, which a weighted loss makes too high."""


@dataclass
class FixedThreshold(Thresholds):
    """The same cut for every label, set in advance."""

    value: Annotated[float, Bounds(at_least=0, at_most=1)]
    """A label is predicted where its probability is greater."""


@dataclass
class GlobalThreshold(Thresholds):
    """One cut for all labels, fitted on validation."""


@dataclass
class PerLabelThresholds(Thresholds):
    """A cut for each label, fitted on validation."""


# ------------------------------------------------------------------------------------------- trainer, callbacks, logger


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


class PredictionColumns(StrEnum):
    """What a prediction file holds."""

    all = "all"
    decisions = "decisions"


@dataclass
class Predictions:
    """How prediction files are written."""

    text: bool
    """Add the text."""
    columns: PredictionColumns
    """all: decisions and probabilities; decisions: 0/1 columns only (a Kaggle submission)."""
    csv_safe: bool
    """Put ' before csv cells that a spreadsheet would run as a formula (= + - @). Changes such texts, ids and names of
    labels, so it is off; turn it on for files that people open in a spreadsheet."""


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


# ------------------------------------------------------------------------------------------------------------- commands


@dataclass
class Train:
    """`python -m emotion_lightning.train`."""

    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of initial weights, order of the rows and dropout."""
    resume: str | None
    """Go on in this run folder with its settings; auto: the newest unfinished one."""
    from_run: str | None
    """Repeat this run from its settings; other settings on the command line change them."""
    init_from: str | None
    """Start from the weights that this run trained, a folder or hf:user/name, on any data: the same peft option on the
    same model. Labels that both know start from what was learned of them."""
    distill: Distillation
    score_test: bool
    """Score the test split at the end, once. Searches (tune, W&B sweeps) leave it out, as what is chosen must not hang
    on it: evaluate run=FOLDER scores the chosen run."""
    data: Data
    model: Model
    peft: Peft
    loss: Loss
    optimizer: AdamW
    thresholds: Thresholds
    callbacks: Selection
    trainer: Trainer
    logger: Logger
    predict: Predictions


class Split(StrEnum):
    """Which rows are scored."""

    train = "train"
    validation = "validation"
    test = "test"


@dataclass
class Evaluate:
    """`python -m emotion_lightning.evaluate`."""

    run: str
    """The run folder, its model/, or hf:user/name (hf:user/name@revision) of the Hugging Face hub. Of several, [A,B,C]
    or the folder of a multirun, probabilities are averaged, and thresholds fitted on the average of their validation
    rows."""
    split: Split
    """Which split of `data` is scored. One file without splits (data.path) is scored whole."""
    accelerator: Accelerator
    """What to run on; auto takes a GPU where there is one."""
    data: Data
    predict: Predictions


@dataclass
class Predict:
    """`python -m emotion_lightning.predict`."""

    run: str | None
    """The run folder, its model/, or hf:user/name (hf:user/name@revision) of the Hugging Face hub. Of several, [A,B,C]
    or the folder of a multirun, probabilities are averaged, and thresholds fitted on the average of their validation
    rows. null: the small classifier inside the package, which knows the 11 emotions of the sample."""
    input: str | None
    """File with a text in each row: csv, tsv, jsonl, json, parquet, arrow, a folder that `datasets` saved; or txt, with
    a text in each line."""
    output: str | None
    """Where the predictions go: csv, jsonl or parquet, by suffix."""
    text: str | None
    """One text instead of a file; the answer is printed."""
    accelerator: Accelerator
    """What to run on; auto takes a GPU where there is one."""
    devices: Annotated[int, Bounds(at_least=1)]
    """Processes that label a file side by side: one a GPU, or sharing the cores of a CPU."""
    data: Columns
    predict: Predictions


class ExportFormat(StrEnum):
    """What a folder that is taken elsewhere holds."""

    adapter = "adapter"
    merged = "merged"
    onnx = "onnx"
    onnx_int8 = "onnx_int8"


@dataclass
class Export:
    """`python -m emotion_lightning.export`."""

    run: str
    """The run folder, its model/, or hf:user/name."""
    output: str
    """The folder to make; it may stand, empty."""
    format: ExportFormat
    """adapter: what was trained, as it stands. merged: a whole network in Transformers' own form. onnx: a graph for
    onnxruntime, pooling included. onnx_int8: the same with 8-bit weights, smaller and less exact."""
    base: str | None
    """Adapter only: hub id of a base that the run read from a folder. It is named then, and no copy taken along."""
    dtype: Dtype
    """Merged only: what weights are kept and computed in; auto is float32. The others halve the folder."""
    refit: bool
    """Fit thresholds and calibration anew on the run's validation rows, by the probabilities of what is exported."""
    push: str | None
    """user/name of the Hugging Face hub, where the folder is uploaded to; null uploads nothing."""
    private: bool
    """A new repository on the hub is seen by you alone, and a public one is not written to."""
    accelerator: Accelerator
    """What to run the checks on; auto takes a GPU where there is one."""


@dataclass
class Inspect:
    """`python -m emotion_lightning.inspect`."""

    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of the examples that are drawn."""
    examples: Annotated[int, Bounds(at_least=0)]
    """Texts of each label in the data card."""
    tables: bool
    """Print the tables and an example of each label too, which stand in the data card anyway."""
    data: Data
    model: Model
    loss: Loss


class ClassWeight(StrEnum):
    """How much the rows with a label count against those without."""

    none = "none"
    balanced = "balanced"


@dataclass
class Baseline:
    """`python -m emotion_lightning.baseline`."""

    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of the order in which the solver takes the rows; results hardly depend on it."""
    word_ngrams: list[int] | None
    """Shortest and longest run of words that counts as a feature; null: no words."""
    char_ngrams: list[int] | None
    """The same for characters within words; null: none."""
    min_df: Annotated[int, Bounds(at_least=1)]
    """Texts of train that an n-gram must stand in to be a feature."""
    max_features: Annotated[int | None, Bounds(at_least=1)]
    """The most frequent n-grams of each kind that are kept; null keeps all."""
    C: Annotated[float, Bounds(above=0)]
    """Inverse strength of the L2 penalty, as in scikit-learn: the greater, the closer to train."""
    class_weight: ClassWeight
    """balanced: the rows with a label weigh as much, together, as those without; none: each row the same."""
    data: Data
    thresholds: Thresholds
    predict: Predictions


# As a class it could not have a member named by a word of Python's own.
Protocol = StrEnum("Protocol", {"fixed": "fixed", "global": "global", "per_label": "per_label"})


class Score(StrEnum):
    """What runs are compared by."""

    f1_macro = "f1_macro"
    f1_micro = "f1_micro"
    jaccard = "jaccard"


class ScoredSplit(StrEnum):
    """Which rows of a run are compared."""

    validation = "validation"
    test = "test"


@dataclass
class Compare:
    """`python -m emotion_lightning.compare`."""

    runs: str
    """Run folders: [A,B,C], or a folder with runs in it, such as that of a multirun. Runs that differ in nothing but
    seed and fold make a group."""
    split: ScoredSplit
    """Which rows are compared; all runs must have scored the same ones."""
    protocol: Protocol | None
    """Which thresholds decide: fixed, global or per_label; null: for each run those that its own `thresholds` names."""
    metrics: list[Score]
    """What is compared; the first puts the groups in order."""
    samples: Annotated[int, Bounds(at_least=100)]
    """Times that rows are drawn anew (bootstrap). Twice as many take twice as long and steady the last digit."""
    confidence: Annotated[float, Bounds(above=0.5, below=1)]
    """Share of the draws that an interval covers; a difference with p below the rest is told as one."""
    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of the draws."""


@dataclass
class Space:
    """The `space` group: what a study searches."""

    parameters: dict[str, Any]
    """Settings of `train` by name, each with a range, {low: 1e-4, high: 1e-2, log: true} or {low: 16, high: 64, step:
    16}, or with a list of choices, [16, 32]; an option group takes choices too, as in peft: [ia3, lora]. A setting that
    only some of them have is searched where one of those is chosen."""


class Objective(StrEnum):
    """What a study makes better: scores on validation, and costs."""

    f1_macro = "f1_macro"
    f1_micro = "f1_micro"
    jaccard = "jaccard"
    map = "map"
    lrap = "lrap"
    loss = "loss"
    train_seconds = "train_seconds"
    trainable_parameters = "trainable_parameters"
    peak_memory_bytes = "peak_memory_bytes"


COSTS = {Objective.train_seconds, Objective.trainable_parameters, Objective.peak_memory_bytes}
"""Those that are known at the end of a run only, and the lower the better; so is loss."""


class Sampler(StrEnum):
    """How values are chosen."""

    tpe = "tpe"
    random = "random"


class Pruner(StrEnum):
    """How trials that look poor are ended early."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


@dataclass
class Study:
    """How a study goes."""

    name: str | None
    """Name of the study in its storage, by which several workers find it; null: the folder's date and time, which will
    do for a storage that nobody shares."""
    storage: str
    """Where trials are kept: file (study.db in the study's folder), memory (gone with the process), or the URL of a
    database that many machines share, such as postgresql+psycopg://user@host/name. A password belongs into ~/.pgpass
    or PGPASSWORD, or into a variable: ${oc.env:STORAGE}."""
    trials: Annotated[int, Bounds(at_least=1)]
    """Trials that end well or are pruned, of all workers together; failed ones are made up for."""
    hours: Annotated[float | None, Bounds(above=0)]
    """This worker starts no trial after so many hours; null: no limit."""
    objectives: list[Objective]
    """What is made better: f1_macro, f1_micro, jaccard (with the thresholds that `thresholds` names), map, lrap, loss,
    all on validation, or a cost: train_seconds, trainable_parameters, peak_memory_bytes. Of several, the trials are
    told that nothing beats in all of them at once."""
    sampler: Sampler
    """tpe learns from the trials before (Bergstra et al., 2011); random does not."""
    startup_trials: Annotated[int, Bounds(at_least=0)]
    """Trials at random before tpe begins to learn, and before the median pruner prunes."""
    seed: Annotated[int, Bounds(at_least=0, below=2**31)]
    """Seed of the values that are chosen, together with the number of the trial."""
    pruner: Pruner
    """What ends a trial early, at the end of an epoch: median (its best score is below the median of the others at that
    epoch), hyperband (Li et al., 2018), none. With several objectives none alone is possible."""
    warmup_epochs: Annotated[int, Bounds(at_least=1)]
    """No trial is pruned before the end of this epoch."""
    max_failures: Annotated[int, Bounds(at_least=1)]
    """So many failed trials in a row stop this worker."""
    retries: Annotated[int, Bounds(at_least=0)]
    """How often a trial is run again whose worker was stopped or killed."""
    heartbeat: Annotated[int, Bounds(at_least=1)]
    """Seconds between two signs of life of a worker; after four without one, others take its trial for lost."""


@dataclass
class Tune(Train):
    """`python -m emotion_lightning.tune`: every setting of `train`, and these."""

    space: Space
    study: Study


# ----------------------------------------------------------------------------------------------------------- the schema

SCHEMAS: dict[str, type] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "inspect": Inspect,
    "baseline": Baseline,
    "compare": Compare,
    "tune": Tune,
    "space/space": Space,
    "data/sample": Sample,
    "data/semeval2018": SemEval2018,
    "data/goemotions": GoEmotions,
    "data/file": File,
    "data/hub": Hub,
    "data/same": SameData,
    "model/model": Model,
    "peft/ia3": IA3,
    "peft/lora": Lora,
    "peft/vera": Vera,
    "peft/ln_tuning": LnTuning,
    "peft/head": Head,
    "peft/full": Full,
    "loss/bce": BCE,
    "loss/weighted_bce": WeightedBCE,
    "loss/focal": Focal,
    "loss/asymmetric": Asymmetric,
    "loss/zlpr": ZLPR,
    "loss/correlated": Correlated,
    "optimizer/adamw": AdamW,
    "thresholds/fixed": FixedThreshold,
    "thresholds/global": GlobalThreshold,
    "thresholds/per_label": PerLabelThresholds,
    "callbacks/selection": Selection,
    "trainer/trainer": Trainer,
    "logger/wandb": WandB,
    "logger/mlflow": MLflow,
    "logger/tensorboard": TensorBoard,
    "logger/csv": CSV,
    "logger/none": NoLogger,
}
"""Schema name, as option files give it in their first line, to its dataclass."""


MONITORS = {
    "val/f1_macro": "max",
    "val/f1_micro": "max",
    "val/jaccard": "max",
    "val/map": "max",
    "val/lrap": "max",
    "val/loss": "min",
}
"""What the best epoch can be chosen by, and which way is better."""

COMMANDS: dict[str, type] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "inspect": Inspect,
    "baseline": Baseline,
    "compare": Compare,
    "tune": Tune,
}
