"""The settings of each command, and the schema of each option file."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from emotion_lightning.config.bounds import Bounds
from emotion_lightning.config.data import Columns, Data, File, GoEmotions, Hub, SameData, Sample, SemEval2018
from emotion_lightning.config.evaluation import (
    FixedThreshold,
    GlobalThreshold,
    PerLabelThresholds,
    Predictions,
    Protocol,
    Score,
    ScoredSplit,
    Split,
    Thresholds,
)
from emotion_lightning.config.model import IA3, Dtype, Full, Head, LnTuning, Lora, Model, Peft, Vera
from emotion_lightning.config.training import (
    BCE,
    CSV,
    ZLPR,
    Accelerator,
    AdamW,
    Asymmetric,
    Correlated,
    Distillation,
    Focal,
    Logger,
    Loss,
    MLflow,
    NoLogger,
    Selection,
    TensorBoard,
    Trainer,
    WandB,
    WeightedBCE,
)
from emotion_lightning.config.tuning import Space, Study


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
class Tune(Train):
    """`python -m emotion_lightning.tune`: every setting of `train`, and these."""

    space: Space
    study: Study


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
