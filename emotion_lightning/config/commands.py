"""The settings of each command, and the schema of each option file."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds
from emotion_lightning.config.data import (
    XED,
    Batches,
    Brighter,
    ComparedLabels,
    Data,
    File,
    GoEmotions,
    Hub,
    InputColumns,
    SameData,
    Sample,
    SemEval2018,
)
from emotion_lightning.config.evaluation import (
    EvaluatedSplit,
    ExtraMetric,
    FixedThreshold,
    GlobalThreshold,
    LabelledFile,
    NoExtraMetric,
    PerLabelThresholds,
    Predictions,
    Protocol,
    Score,
    ScoredSplit,
    Thresholds,
)
from emotion_lightning.config.model import IA3, Dtype, Full, Head, LnTuning, Lora, Model, Peft, Vera
from emotion_lightning.config.serving import Server
from emotion_lightning.config.training import (
    BCE,
    CSV,
    ZLPR,
    Accelerator,
    AdamW,
    Asymmetric,
    Correlated,
    Distillation,
    ExtraCallback,
    Focal,
    Frozen,
    Logger,
    Loss,
    MLflow,
    NoExtraCallback,
    NoLogger,
    Optimizer,
    Ordinal,
    Selection,
    TensorBoard,
    Trainer,
    WandB,
    WeightedBCE,
)
from emotion_lightning.config.tuning import Space, Study, TrialCluster, TrialEngine


@dataclass
class Train:
    """`python -m emotion_lightning.train`."""

    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of initial weights, order of the rows and dropout."""
    resume: str | None
    """Run folder to resume, with its own settings. auto: the newest unfinished run."""
    from_run: str | None
    """Run folder whose settings are used for a new run; settings on the command line override them."""
    init_from: str | None
    """Run (folder or hf:user/name) whose trained weights are the initial weights; it must have the same model and peft
    option, but may have other data. Labels that both runs have start with the run's head weights."""
    distill: Distillation
    frozen: Frozen
    score_test: bool
    """Score the test split once, at the end. tune and W&B sweeps turn this off, because test scores must not affect
    the search; score the selected run with evaluate run=FOLDER."""
    data: Batches
    model: Model
    peft: Peft
    loss: Loss
    optimizer: Optimizer
    thresholds: Thresholds
    callbacks: Selection
    extra_callback: ExtraCallback
    extra_metric: ExtraMetric
    trainer: Trainer
    logger: Logger
    predict: Predictions


@dataclass
class Evaluate:
    """`python -m emotion_lightning.evaluate`."""

    run: str
    """Run folder, its model/, or hf:user/name[@revision] on the Hugging Face hub. Several runs, [A,B,C] or the folder
    of a multirun, form an ensemble, which averages their probabilities and fits its thresholds on validation."""
    split: EvaluatedSplit
    """The split of `data` to score. A single file without splits (data.path) is scored completely."""
    explain: bool
    """Show in the report which words decided: the most wrong texts in colours, and for each label the words that spoke
    most for it. Each explained text takes as long as a hundred predictions. Needs the extra `explain`."""
    explain_rows: Annotated[int, Bounds(at_least=0)]
    """Rows, drawn at random, from which the words for each label are gathered."""
    accelerator: Accelerator
    """Device to run on; auto uses a GPU if there is one."""
    data: Data
    extra_metric: ExtraMetric
    predict: Predictions


class Engine(StrEnum):
    """What labels the rows of a file."""

    local = "local"
    ray = "ray"


class OnError(StrEnum):
    """What happens to a row that cannot be read."""

    collect = "collect"
    refuse = "refuse"


@dataclass
class RayCluster:
    """The Ray cluster on which workers run."""

    address: str | None
    """Address of a running cluster: auto finds the one that this machine belongs to, HOST:6379 names it. null starts
    one on this machine and ends it with the command."""


@dataclass
class Predict:
    """`python -m emotion_lightning.predict`."""

    run: str | None
    """Run folder, its model/, or hf:user/name[@revision] on the Hugging Face hub. Several runs, [A,B,C] or the folder
    of a multirun, form an ensemble, which averages their probabilities and fits its thresholds on validation. null: the
    small bundled classifier, which predicts the 11 emotions of the sample."""
    input: str | None
    """File with one text per row: csv, tsv, jsonl, json, parquet, arrow, xlsx, sqlite, a zip file with one of these, or
    a folder that `datasets` saved; or txt with one text per line. With engine=ray: a csv, tsv, jsonl or parquet file, a
    folder or a pattern (texts/*.parquet) of these, or an address in an object store (s3://bucket/texts)."""
    output: str | None
    """File for the predictions; its suffix selects the format: csv, jsonl or parquet. With engine=ray: a folder, or an
    address in an object store."""
    text: str | None
    """One text instead of a file; its prediction is printed."""
    explain: bool
    """Also show how much each word speaks for or against each emotion found (or the most probable one, if none is): in
    colours for one text, as a column `explanation` in a file. It takes about a hundred times as long as a prediction.
    Needs the extra `explain`."""
    explain_labels: list[str] | None
    """Labels to explain, whether they are found or not; null explains those that are found."""
    explain_steps: Annotated[int, Bounds(at_least=1)]
    """Points at which gradients are taken. With more of them, the words' shares add up more exactly but take longer."""
    accelerator: Accelerator
    """Device to run on; auto uses a GPU if there is one."""
    devices: Annotated[int, Bounds(at_least=1)]
    """Number of workers that label an input side by side, each with its own copy of the model: one for each GPU, or
    sharing the cores of the CPU. More than one needs the extra `ray`."""
    engine: Engine
    """local: one file in, one file out, in the order of its rows. ray: many files in, a folder of parts out, labelled
    by workers on this machine or a Ray cluster (ray.address); a stopped job can go on. Needs the extra `ray`."""
    cpus_per_worker: Annotated[int | None, Bounds(at_least=1)]
    """Cores of each worker. null: the cores of this machine divided by `devices`; on a cluster that was joined, 1."""
    on_error: OnError
    """With engine=ray, for rows that cannot be read: collect writes them to errors.parquet with file, row and reason,
    labels all others and ends with exit code 2; refuse stops the job at the first one."""
    resume: bool
    """With engine=ray: go on with a stopped job in its output folder; finished parts are kept."""
    ray: RayCluster
    data: InputColumns
    predict: LabelledFile


@dataclass
class Serve:
    """`python -m emotion_lightning.serve`."""

    run: str | None
    """Run folder, its model/, an exported folder, or hf:user/name[@revision] on the Hugging Face hub. Several runs,
    [A,B,C] or the folder of a multirun, form an ensemble. null: the small bundled classifier, which predicts the 11
    emotions of the sample."""
    accelerator: Accelerator
    """Device to run on; auto uses a GPU if there is one."""
    devices: Annotated[int, Bounds(at_least=1)]
    """Number of GPUs to use, each with processes of its own. A CPU counts as one device, whose cores `serve.workers`
    share."""
    serve: Server


class ExportFormat(StrEnum):
    """What an exported folder contains."""

    adapter = "adapter"
    merged = "merged"
    onnx = "onnx"
    onnx_int8 = "onnx_int8"
    space = "space"


@dataclass
class Format:
    """The `format` group: what `export` writes."""


@dataclass
class BuiltInFormat(Format):
    """A format of this program."""

    kind: ExportFormat
    """adapter: the trained weights, unchanged. merged: the complete network as a Transformers model folder. onnx: a
    graph for onnxruntime, including the pooling. onnx_int8: the same with 8-bit weights, smaller and less exact. space:
    a Hugging Face Space, a page that labels texts with such a graph in its folder model."""


@dataclass
class Export:
    """`python -m emotion_lightning.export`."""

    run: str
    """Run folder, its model/, or hf:user/name. With format=space also an export with format=onnx or onnx_int8."""
    output: str
    """Folder to create; it may exist if it is empty."""
    base: str | None
    """With format=adapter: hub id of a base model that the run loaded from a folder. The export then refers to this id
    and contains no copy of the base."""
    dtype: Dtype
    """With format=merged: dtype of the weights; auto is float32. The 16-bit dtypes halve the size of the folder."""
    refit: bool
    """Fit thresholds and calibration again on the run's validation rows, with the exported model's probabilities."""
    push: str | None
    """Repository user/name on the Hugging Face hub to upload the folder to; null uploads nothing."""
    private: bool
    """Create a new repository as private, and do not upload to an existing public one."""
    accelerator: Accelerator
    """Device for the checks; auto uses a GPU if there is one."""
    format: Format


@dataclass
class Inspect:
    """`python -m emotion_lightning.inspect`."""

    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed for drawing the examples."""
    examples: Annotated[int, Bounds(at_least=0)]
    """Number of example texts per label in the data card."""
    tables: bool
    """Also print the tables and one example per label, which the data card contains in any case."""
    data: Batches
    model: Model
    loss: Loss


class ClassWeight(StrEnum):
    """Weight of the rows with a label relative to the rows without it."""

    none = "none"
    balanced = "balanced"


@dataclass
class Baseline:
    """`python -m emotion_lightning.baseline`."""

    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of the order in which the solver visits the rows; it hardly affects the results."""
    word_ngrams: list[int] | None
    """Shortest and longest word n-gram, such as [1, 2]; null uses no word n-grams."""
    char_ngrams: list[int] | None
    """Shortest and longest character n-gram within words; null uses no character n-grams."""
    min_df: Annotated[int, Bounds(at_least=1)]
    """Minimum number of training texts that contain an n-gram; rarer n-grams are not used."""
    max_features: Annotated[int | None, Bounds(at_least=1)]
    """Maximum number of n-grams of each kind; the most frequent are kept. null keeps all."""
    C: Annotated[float, Bounds(above=0)]
    """Inverse strength of the L2 penalty, as in scikit-learn: a larger value fits train more closely."""
    class_weight: ClassWeight
    """balanced: rows with a label and rows without it have the same total weight; none: all rows weigh the same."""
    data: Batches
    thresholds: Thresholds
    extra_metric: ExtraMetric
    predict: Predictions


@dataclass
class Compare:
    """`python -m emotion_lightning.compare`."""

    runs: str
    """Run folders: [A,B,C], or a folder that contains runs, such as a multirun. Runs that differ only in seed and fold
    are one group."""
    split: ScoredSplit
    """Split to compare; all runs must have scored the same rows of it."""
    protocol: Protocol | None
    """Threshold protocol: fixed, global or per_label. null: for each run the one of its own `thresholds` option."""
    metrics: list[Score]
    """Metrics to compare; the first one ranks the groups. soft_bce, soft_mae, soft_jensen_shannon (lower is better) and
    soft_correlation are for runs on data with shares, which data.harden=true has too."""
    samples: Annotated[int, Bounds(at_least=100)]
    """Number of bootstrap samples of the rows. More samples take longer and give a more precise last digit."""
    confidence: Annotated[float, Bounds(above=0.5, below=1)]
    """Confidence level of the intervals, such as 0.95. A difference is significant if its corrected p-value is at most
    1 - confidence."""
    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of the bootstrap."""
    data: ComparedLabels


@dataclass
class Audit:
    """`python -m emotion_lightning.audit`."""

    run: str | None
    """Run folder: its validation and test rows are audited. The folder of a multirun of folds (-m sweep=folds): all
    rows that the folds validate on are. With input, any run that predict takes; null: the small bundled classifier."""
    input: str | None
    """File without labels: choose the rows of it that are worth labelling next. null: audit the labels of the run's own
    data."""
    rows: Annotated[int, Bounds(at_least=1)]
    """Number of rows to show on the page, or, with input, to choose."""
    seed: Annotated[int, Bounds(at_least=0, below=2**32)]
    """Seed of the clusters from which the rows of input are chosen."""
    accelerator: Accelerator
    """Device to run on, with input; auto uses a GPU if there is one."""
    data: InputColumns


@dataclass
class Tune(Train):
    """`python -m emotion_lightning.tune`: all settings of `train`, and in addition those of the study."""

    space: Space
    study: Study
    engine: TrialEngine
    """local: trials are processes that this one starts, one after another. ray: they are tasks of Ray, study.workers at
    the same time, on this machine or a Ray cluster (ray.address). Needs the extra `ray`."""
    ray: TrialCluster


SCHEMAS: dict[str, type] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "inspect": Inspect,
    "baseline": Baseline,
    "compare": Compare,
    "audit": Audit,
    "tune": Tune,
    "serve": Serve,
    "space/space": Space,
    "data/sample": Sample,
    "data/semeval2018": SemEval2018,
    "data/goemotions": GoEmotions,
    "data/xed": XED,
    "data/brighter": Brighter,
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
    "loss/ordinal": Ordinal,
    "loss/focal": Focal,
    "loss/asymmetric": Asymmetric,
    "loss/zlpr": ZLPR,
    "loss/correlated": Correlated,
    "optimizer/adamw": AdamW,
    "thresholds/fixed": FixedThreshold,
    "thresholds/global": GlobalThreshold,
    "thresholds/per_label": PerLabelThresholds,
    "callbacks/selection": Selection,
    "extra_callback/none": NoExtraCallback,
    "extra_metric/none": NoExtraMetric,
    "format/built_in": BuiltInFormat,
    "trainer/trainer": Trainer,
    "logger/wandb": WandB,
    "logger/mlflow": MLflow,
    "logger/tensorboard": TensorBoard,
    "logger/csv": CSV,
    "logger/none": NoLogger,
}
"""The dataclass of each command and option, by the name that the first line of its file in conf/ uses."""

COMMANDS = tuple(name for name in SCHEMAS if "/" not in name)
"""Names of the commands."""
