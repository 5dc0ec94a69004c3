"""Dataclasses that define all settings: name, type and meaning.

The values are in conf/, not here. The first line of each option file in conf/ names its schema from this package, so
that Hydra checks names and types when it composes the settings. `schema.load_settings` converts the result to
these dataclasses.
A setting has the same name everywhere, such as `optimizer.lr`: on the command line, in YAML, in sweeps, in W&B and in
the settings.yaml of a run.
"""

from emotion_lightning.config.bounds import Bounds
from emotion_lightning.config.commands import (
    COMMANDS,
    SCHEMAS,
    Audit,
    Baseline,
    BuiltInFormat,
    ClassWeight,
    Compare,
    Evaluate,
    Export,
    ExportFormat,
    Format,
    Inspect,
    Predict,
    Serve,
    Train,
    Tune,
)
from emotion_lightning.config.data import (
    CHAT,
    PLACES,
    XED,
    Aggregate,
    Batches,
    Brighter,
    CleaningStep,
    ComparedLabels,
    Data,
    DividedTable,
    EmptyTexts,
    File,
    GoEmotions,
    Header,
    Hub,
    InputColumns,
    JoinWindows,
    LabelNames,
    Lacking,
    Language,
    LongTexts,
    MissingLabels,
    Multilingual,
    Neutral,
    SameData,
    Sample,
    SemEval2018,
    Table,
    Targets,
    Track,
)
from emotion_lightning.config.evaluation import (
    SOFT_SCORES,
    Calibration,
    EvaluatedSplit,
    ExtraMetric,
    FixedThreshold,
    GlobalThreshold,
    NoExtraMetric,
    PerLabelThresholds,
    PredictionColumns,
    Predictions,
    Protocol,
    Score,
    ScoredSplit,
    ThresholdMetric,
    Thresholds,
    falls,
)
from emotion_lightning.config.model import (
    ALL,
    AUTO,
    IA3,
    UPPER_HALF,
    Attention,
    AttentionKernel,
    Dtype,
    Full,
    Head,
    LayeredPeft,
    LnTuning,
    Lora,
    Model,
    Peft,
    Pooling,
    Quantization,
    TargetedPeft,
    Vera,
)
from emotion_lightning.config.serving import Server
from emotion_lightning.config.training import (
    BCE,
    CSV,
    MONITORS,
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
    LoggerMode,
    Loss,
    MLflow,
    NoExtraCallback,
    NoLogger,
    Optimizer,
    PositiveWeights,
    Reuse,
    Schedule,
    Selection,
    Strategy,
    TensorBoard,
    Trainer,
    WandB,
    WeightedBCE,
)
from emotion_lightning.config.tuning import COSTS, SOFT, Objective, Pruner, Sampler, Space, Study
from emotion_lightning.config.unions import allow_unions

# A process of submitit's merges settings before anything else of this package runs.
allow_unions()
