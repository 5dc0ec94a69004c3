"""Every setting: its name, its type and its meaning.

Values live in conf/; there are none here. An option file in conf/ begins with its schema from this module, so Hydra
checks names and types while it composes, and `load` turns the result into the plain dataclasses below. A setting has
one name everywhere: `optimizer.lr` on the command line, in YAML, in sweeps, in W&B and in a run's settings.yaml.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from emotion_lightning.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """The range of a number, as a field's annotation; `load` refuses values outside it."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a value lies within, infinities and NaN never."""
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {name: limit for name, limit in dataclasses.asdict(self).items() if limit is not None}
        return " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in limits.items()) or "finite"


# ---------------------------------------------------------------------------------------------------------------- data


@dataclass
class Data:
    """The `data` group: where texts and labels come from."""


@dataclass
class Batches(Data):
    """What every source shares."""

    max_tokens: Annotated[int, Bounds(at_least=4)]
    """Longer texts are cut to this many tokens, special ones included. Emotion texts rarely need more than 64."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts in a batch, on each device."""
    max_rows: Annotated[int | None, Bounds(at_least=1)]
    """Keep only the first rows of each split; null keeps all. For a quick look, not for results."""
    workers: Annotated[int, Bounds(at_least=0)]
    """Processes that prepare batches. 0 is fastest for short texts: tokens are in memory already."""


@dataclass
class Sample(Batches):
    """The bundled texts with the 11 labels of SemEval-2018."""


@dataclass
class SemEval2018(Batches):
    """SemEval-2018 Task 1 E-c, the official files."""

    dir: str | None
    """Folder of the official files; null reads the Hugging Face hub."""
    language: str
    """En, Ar or Es, as in the official file names."""


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
    separator: str
    """What stands between labels in a `labels_column` string."""
    id_column: str | None
    """The column that identifies a row in prediction files; null looks for its usual names, then counts rows."""


@dataclass
class File(Table):
    """csv, tsv, jsonl or parquet files of your own."""

    path: str | None
    """One file, split for you (stratified by labels)."""
    train: str | None
    """The training file, where you have splits of your own."""
    validation: str | None
    """The validation file; null takes `validation_share` of the training rows."""
    test: str | None
    """The test file; null: no test."""
    validation_share: Annotated[float, Bounds(above=0, below=1)]
    """Share of `path` that becomes the validation split."""
    test_share: Annotated[float, Bounds(at_least=0, below=1)]
    """Share of `path` that becomes the test split."""
    split_seed: Annotated[int, Bounds(at_least=0)]
    """Seed of that split. Apart from `seed`, so that runs with several seeds are scored on the same rows."""


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
    validation_share: Annotated[float, Bounds(above=0, below=1)]
    """Share of the training rows that becomes the validation split, where there is none."""
    split_seed: Annotated[int, Bounds(at_least=0)]
    """Seed of that split."""


@dataclass
class SameData(Data):
    """Evaluate only: the data that the run was trained on."""


@dataclass
class Columns:
    """Predict only: how the input file is read."""

    text: str | None
    """The text column; null takes the one of the run, else looks for the usual names."""
    id_column: str | None
    """The column that identifies a row; null looks for the usual names, then counts rows."""
    batch_size: Annotated[int, Bounds(at_least=1)]
    """Texts in a batch."""


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


@dataclass
class Model:
    """The `model` group: the pretrained network and which of its modules plays which role."""

    path: str
    """Hub id or local folder."""
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
    head: list[str]
    """Modules that are trained in full with every `peft` option and never quantised."""
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
    """neg_pos: negatives / positives in train; sqrt: its square root; none: 1."""
    clip: Annotated[float | None, Bounds(at_least=1)]
    """No weight is larger. Unclipped, GoEmotions' grief would weigh 563; null does not clip."""


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
    """Peak learning rate of the classification head; null takes the `peft` option's own."""
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
class Thresholds:
    """The `thresholds` group: which protocol decides the prediction files and heads the table."""


@dataclass
class FixedThreshold(Thresholds):
    """The same cut for every label, set in advance."""

    value: Annotated[float, Bounds(at_least=0, at_most=1)]
    """A label is predicted where its probability is greater."""


@dataclass
class GlobalThreshold(Thresholds):
    """One cut for all labels, fitted on validation for the highest macro F1."""


@dataclass
class PerLabelThresholds(Thresholds):
    """A cut for each label, fitted on validation for the label's highest F1."""


# ------------------------------------------------------------------------------------------- trainer, callbacks, logger


class Mode(StrEnum):
    """Which way is better."""

    max = "max"
    min = "min"


@dataclass
class Selection:
    """The `callbacks` group: best checkpoint and early stopping."""

    monitor: str
    """The validation metric that names the best epoch: val/f1_macro, val/f1_micro, val/jaccard, val/map, val/loss."""
    mode: Mode
    """max or min, whichever is better for `monitor`."""
    patience: Annotated[int | None, Bounds(at_least=1)]
    """Stop after this many epochs without a better value; null never stops early."""
    min_delta: Annotated[float, Bounds(at_least=0)]
    """A smaller gain does not count as better for `patience`."""


@dataclass
class Trainer:
    """The `trainer` group: how long, on what, and how often it saves."""

    accelerator: str
    """auto, cpu, gpu or mps."""
    devices: Annotated[int, Bounds(at_least=1)]
    """Processes on each machine, one a device."""
    num_nodes: Annotated[int, Bounds(at_least=1)]
    """Machines."""
    strategy: str
    """auto or ddp."""
    max_epochs: Annotated[int, Bounds(at_least=1)]
    """Passes over the training rows at the most."""
    max_steps: Annotated[int, Bounds(at_least=-1)]
    """Optimizer steps at the most; -1 leaves it to max_epochs."""
    accumulate_grad_batches: Annotated[int, Bounds(at_least=1)]
    """Batches that share one optimizer step."""
    gradient_clip_val: Annotated[float | None, Bounds(above=0)]
    """Largest gradient norm; null does not clip."""
    limit_train_batches: Annotated[int | None, Bounds(at_least=1)]
    """Batches of an epoch at the most; null is all."""
    limit_eval_batches: Annotated[int | None, Bounds(at_least=1)]
    """Batches of validation and test at the most; null is all."""
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
    """Name of the run; null: the folder's date and time."""
    tags: list[str]
    """Tags of the run."""
    notes: str | None
    """A longer remark."""


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
    """Put ' before csv cells that a spreadsheet would run as a formula (= + - @). Changes such texts and ids, so it is
    off; turn it on for files that people open in a spreadsheet."""


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
    """The run folder, or its model/."""
    split: Split
    """Which split of `data` is scored. One file without splits (data.path) is scored whole."""
    accelerator: str
    """auto, cpu, gpu or mps."""
    data: Data
    predict: Predictions


@dataclass
class Predict:
    """`python -m emotion_lightning.predict`."""

    run: str
    """The run folder, or its model/."""
    input: str | None
    """File with a text in each row: csv, tsv, jsonl, parquet, or txt with a text in each line."""
    output: str | None
    """Where the predictions go: csv, jsonl or parquet, by suffix."""
    text: str | None
    """One text instead of a file; the answer is printed."""
    accelerator: str
    """auto, cpu, gpu or mps."""
    data: Columns
    predict: Predictions


# ----------------------------------------------------------------------------------------------------------- the schema

SCHEMAS: dict[str, type] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
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
    "optimizer/adamw": AdamW,
    "thresholds/fixed": FixedThreshold,
    "thresholds/global": GlobalThreshold,
    "thresholds/per_label": PerLabelThresholds,
    "callbacks/selection": Selection,
    "trainer/trainer": Trainer,
    "logger/wandb": WandB,
    "logger/csv": CSV,
    "logger/none": NoLogger,
}
"""Schema name, as option files give it in their first line, to its dataclass."""


def schema_of(settings: Any) -> str:
    """Name of the schema of an option, without its group: `ia3` for peft=ia3 and peft=ia3_all."""
    return next(name.partition("/")[2] for name, node in SCHEMAS.items() if node is type(settings))


COMMANDS: dict[str, type] = {"train": Train, "evaluate": Evaluate, "predict": Predict}


def conf_folder() -> Path:
    """Absolute path of conf/: the checkout's, else the copy inside an installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "train.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        group, _, option = f"schema/{name}".rpartition("/")
        store.store(group=group, name=option, node=node)


def option_files(group: str) -> list[str]:
    """Names of the options that conf/ ships for a group."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


def fields_of(settings: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every setting below a command, whichever options are chosen."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        name = prefix + field.name
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            for schema in (hint, *_subclasses(hint)):
                yield from fields_of(schema, name + ".")
        else:
            yield name, hint


def text_settings(command: str) -> set[str]:
    """Settings whose value is one text or path, which the command line takes literally."""
    return {name for name, hint in fields_of(COMMANDS[command]) if hint is str or hint == (str | None)}


def groups(command: str) -> set[str]:
    """Config groups of a command."""
    hints = typing.get_type_hints(COMMANDS[command])
    return {
        name
        for name, hint in hints.items()
        if any(
            schema.startswith(name + "/") and issubclass(node, hint)
            for schema, node in SCHEMAS.items()
            if isinstance(hint, type)
        )
    }


def nearest(name: str, names: set[str]) -> str:
    """` did you mean …?` with the most similar name, or nothing."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."


def unknown_setting(command: str, name: str) -> UserError:
    """The message for a setting that does not exist, or not with the options chosen."""
    known = {known for known, _ in fields_of(COMMANDS[command])}
    if name in known:
        group, _, field = name.partition(".")
        owners = [
            schema.partition("/")[2]
            for schema, node in SCHEMAS.items()
            if schema.startswith(group + "/") and field in {f.name for f in dataclasses.fields(node)}
        ]
        return UserError(
            f"{name} is not a setting of the chosen {group} option; it belongs to {group}={' or '.join(owners)}."
        )
    return UserError(f"Unknown setting {name}{nearest(name, known | groups(command))}")


def load(cfg: DictConfig, command: str = "train") -> Any:
    """Typed settings, or a UserError that names the setting that is wrong.

    Below this call there is no OmegaConf: dataclasses, lists, dicts, enums and numbers only.
    """
    _reject_unknown(cfg, command)
    for name in _missing(cfg):
        raise UserError(f"{name} is not set; give it as {name}=VALUE.")
    settings = OmegaConf.to_object(cfg)
    if isinstance(settings, dict):
        raise UserError("The main configuration lacks its schema line: defaults: [schema/train@_here_, …].")
    _check_ranges(settings)
    if isinstance(settings, Train):
        _check_relations(settings)
    return settings


def describe(hint: Any) -> str:
    """What values a setting takes, in words."""
    if isinstance(hint, types.UnionType):
        return " or ".join("null" if part is type(None) else describe(part) for part in typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    origin = typing.get_origin(hint) or hint
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(origin, "a list, as in [a, b]" if origin is list else "a mapping, as in {a: b}")


def type_of(command: str, name: str) -> Any:
    """The declared type of a setting, or None where there is no such setting."""
    return dict(fields_of(COMMANDS[command])).get(name)


def plain(settings: Any) -> Any:
    """Settings as dicts, lists, strings and numbers, ready for YAML, JSON and W&B."""
    if isinstance(settings, Enum):
        return settings.value
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, dict):
        return {key: plain(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [plain(value) for value in settings]
    return settings


def from_plain(schema: type, values: dict[str, Any]) -> Any:
    """Settings from what `plain` made of them; enums come back from their values."""
    hints = typing.get_type_hints(schema)
    return schema(
        **{
            name: hints[name](value) if isinstance(hints[name], type) and issubclass(hints[name], Enum) else value
            for name, value in values.items()
        }
    )


_SECRET = re.compile(r"(^|_)(token|api_?key|key|secret|password)$", re.IGNORECASE)


def redacted(tree: Any) -> Any:
    """A copy in which values under secret-looking names (token, api_key, password …) are hidden."""
    if isinstance(tree, dict):
        # A mapping of roles has a `key` too, whose value is a pattern and no secret.
        return {name: value if name == "roles" else _hidden(name, value) for name, value in tree.items()}
    return [redacted(value) for value in tree] if isinstance(tree, list) else tree


def _hidden(name: str, value: Any) -> Any:
    return "<redacted>" if value is not None and _SECRET.search(name) else redacted(value)


def _subclasses(node: type) -> Iterator[type]:
    children: list[type] = node.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _reject_unknown(cfg: DictConfig, command: str, prefix: str = "") -> None:
    # Hydra lets `+name=value` add keys even to a schema; this closes that hole.
    node = OmegaConf.get_type(cfg)
    if not dataclasses.is_dataclass(node):
        return
    known = {field.name for field in dataclasses.fields(node)}
    for key in map(str, cfg):
        if key not in known:
            raise unknown_setting(command, f"{prefix}{key}")
        child: Any = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _reject_unknown(child, command, f"{prefix}{key}.")


def _missing(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    node = OmegaConf.get_type(cfg)
    if not dataclasses.is_dataclass(node):
        return
    for field in dataclasses.fields(node):
        name = f"{prefix}{field.name}"
        if field.name not in cfg or OmegaConf.is_missing(cfg, field.name):
            yield name
        else:
            child: Any = cfg._get_node(field.name)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from _missing(child, name + ".")


def _check_ranges(settings: Any, prefix: str = "") -> None:
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _check_ranges(value, name + ".")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            bounds = next(
                (b for b in getattr(hints[field.name], "__metadata__", ()) if isinstance(b, Bounds)), Bounds()
            )
            if not bounds.allows(value):
                raise UserError(f"{name}={value} is out of range: it must be {bounds}.")


def _check_relations(settings: Train) -> None:
    if isinstance(settings.data, SameData):
        raise UserError("data=same is for evaluate, where it means the data of the run; choose another data=.")
    if isinstance(settings.peft, Full) and settings.model.quantization is not Quantization.none:
        raise UserError(
            f"peft=full cannot train model.quantization={settings.model.quantization.value} weights; "
            "set model.quantization=none, or choose an adapter such as peft=ia3."
        )
    if isinstance(settings.peft, IA3) and (extra := set(settings.peft.feedforward) - set(settings.peft.targets)):
        raise UserError(
            f"peft.feedforward={settings.peft.feedforward} names {', '.join(sorted(extra))}, which is not in "
            f"peft.targets={settings.peft.targets}; add it there."
        )
    targets = getattr(settings.peft, "targets", [])
    for role in targets:
        if role not in settings.model.roles:
            raise UserError(
                f"peft.targets names the role {role}, but this model has {', '.join(settings.model.roles)}; "
                f"choose among those or add model.roles.{role}."
            )
    for role, pattern in settings.model.roles.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"model.roles.{role}={pattern} is not a regular expression: {error}.") from error
    if isinstance(settings.data, File):
        _check_file(settings.data)


def _check_file(data: File) -> None:
    if (data.path is None) == (data.train is None):
        raise UserError(
            "data=file needs either data.path=FILE (split for you) or data.train=FILE, with data.validation=FILE and "
            "data.test=FILE where you have them."
        )
    if data.path is not None and (data.validation or data.test):
        raise UserError(
            f"data.path={data.path} is split for you; to give your own splits name the file data.train instead."
        )
    if data.path is not None and data.validation_share + data.test_share >= 1:
        raise UserError(
            f"data.validation_share={data.validation_share} and data.test_share={data.test_share} leave no rows to "
            "train on; together they must be below 1."
        )
