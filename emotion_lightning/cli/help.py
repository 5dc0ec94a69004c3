"""The text of `--help`: example calls of a command, its options, and each setting with its value and meaning."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from enum import Enum
from typing import Any

import yaml

from emotion_lightning import config, terminal
from emotion_lightning.config import schema
from emotion_lightning.config.own_parts import OwnPart

USAGE = {
    "train": """Fine-tune an emotion classifier, choose epoch and thresholds on validation, report on test.

  python -m emotion_lightning.train                                   the bundled model and texts
  python -m emotion_lightning.train model=gemma peft=ia3              4-bit Gemma on a GPU
  python -m emotion_lightning.train data=file data.path=my.csv        your own file
  python -m emotion_lightning.train -m peft=ia3,lora seed=1,2,3       a sweep
  python -m emotion_lightning.train resume=auto                       go on after a stop
  python -m emotion_lightning.train -m sweep.resume=FOLDER            go on with a stopped sweep (or auto)""",
    "evaluate": """Score a finished run on labelled data.

  python -m emotion_lightning.evaluate run=FOLDER                             its own test split
  python -m emotion_lightning.evaluate run=FOLDER data=file data.path=my.csv  other data""",
    "predict": """Label new texts with a finished run.

  python -m emotion_lightning.predict run=FOLDER input=new.csv output=labelled.csv
  python -m emotion_lightning.predict run=FOLDER input=texts output=labelled engine=ray devices=4
  python -m emotion_lightning.predict run=FOLDER text="I can't believe it, we won (again)!\"""",
    "export": """Make a folder of a finished run that can be taken elsewhere.

  python -m emotion_lightning.export run=FOLDER output=FOLDER format=adapter     what was trained
  python -m emotion_lightning.export run=FOLDER output=FOLDER format=merged      a whole network for Transformers
  python -m emotion_lightning.export run=FOLDER output=FOLDER format=onnx        a graph for onnxruntime
  python -m emotion_lightning.export run=FOLDER output=FOLDER format=adapter push=user/name    to the hub as well""",
    "inspect": """Look at a data set before training on it: lengths, labels, shifts, duplicates, leaks, examples.

  python -m emotion_lightning.inspect data=file data.path=my.csv
  python -m emotion_lightning.inspect data=goemotions data.dir=FOLDER model=gemma""",
    "baseline": """Fit logistic regression on n-grams, which a network has to beat, and score it as `train` does.

  python -m emotion_lightning.baseline data=file data.path=my.csv
  python -m emotion_lightning.baseline -m class_weight=none,balanced data=goemotions data.dir=FOLDER""",
    "compare": """Compare runs: mean and spread over seeds, intervals, and which differences are more than noise.

  python -m emotion_lightning.compare runs=outputs/multirun/DATE/TIME
  python -m emotion_lightning.compare runs=[A,B,C] split=validation metrics=[jaccard]""",
    "audit": """List labels that look wrong, or the texts of a file that are worth labelling next.

  python -m emotion_lightning.audit run=FOLDER                     the validation and test rows of a run
  python -m emotion_lightning.audit run=outputs/multirun/DATE/TIME all rows that folds validated on
  python -m emotion_lightning.audit run=FOLDER input=new.csv rows=200""",
    "serve": """Answer over HTTP: a page to try in a browser, and an interface for programs (POST /predict).

  python -m emotion_lightning.serve                                   the bundled classifier, at http://127.0.0.1:8000
  python -m emotion_lightning.serve run=FOLDER serve.port=9000
  python -m emotion_lightning.serve run=[A,B,C] serve.host=0.0.0.0    an ensemble, for other machines""",
    "tune": """Search settings by trials of `train` that learn from each other; every setting of train may be given too.

  python -m emotion_lightning.tune space=ia3 data=file data.path=my.csv
  python -m emotion_lightning.tune space=methods study.objectives=[f1_macro,trainable_parameters] study.pruner=none
  python -m emotion_lightning.tune study.name=mine study.storage=postgresql+psycopg://user@host/studies""",
}

_OVERLAYS = {
    "train": ("experiment", "template", "mapping", "sweep"),
    "tune": ("experiment", "template", "mapping"),
    "inspect": ("template", "mapping"),
    "baseline": ("mapping",),
    "evaluate": ("mapping",),
    "compare": ("mapping",),
}
"""Groups that give values to settings of other groups, and of which no option need be chosen."""
_CLOSING = """Give settings as name=value, options as group=option. -m runs every combination of comma-separated values.
hydra.run.dir=FOLDER places the run elsewhere. --cfg job prints the settings as YAML; --version tells the version of
this program and those of torch, transformers, peft and bitsandbytes; --hydra-help lists Hydra's own flags. Exit codes:
0 done, 2 a setting or file to mend, 130 Ctrl-C, 143 SIGTERM, 1 anything else."""


def meanings(settings: type) -> dict[str, str]:
    """The docstring of each field of a dataclass in `config`, including the fields of its base classes."""
    found: dict[str, str] = {}
    for node in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(node):
            continue
        if issubclass(node, OwnPart) and node is not OwnPart:  # made from a function, without source
            found |= node.meanings
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(node))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                assert isinstance(text.value, ast.Constant)
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def show_help(command: str, cfg: Any, chosen: dict[str, str]) -> None:
    """Print the help of a command for a composed configuration.

    Args:
        command: one of config.COMMANDS.
        cfg: the composed configuration.
        chosen: the chosen option of each group.
    """
    terminal.say(USAGE[command])
    if chosen or command in _OVERLAYS:
        terminal.say("\nOptions (* is chosen)")
        for group, option in chosen.items():
            names = [f"*{name}" if name == option else name for name in schema.option_files(group, command)]
            terminal.say(f"  {group + '=':12} {'  '.join(names)}")
        for group in _OVERLAYS.get(command, ()):
            terminal.say(f"  {group + '=':12} {'  '.join(schema.option_files(group))}")
    terminal.say("\nSettings")
    for name, node, value in _settings(config.SCHEMAS[command], cfg):
        lead = f"  {name}={_plain(value)}"
        text = meanings(node)[name.rpartition(".")[2]]
        terminal.say(lead)
        terminal.say(textwrap.fill(text, width=110, initial_indent="      ", subsequent_indent="      "))
    terminal.say("\n" + _CLOSING)


def _settings(settings: type, cfg: Any, prefix: str = "") -> list[tuple[str, type, Any]]:
    from omegaconf import OmegaConf

    rows: list[tuple[str, type, Any]] = []
    for field in dataclasses.fields(settings):
        name = prefix + field.name
        if OmegaConf.is_missing(cfg, field.name):
            if not dataclasses.is_dataclass(typing.get_type_hints(settings)[field.name]):  # a group, listed as options
                rows.append((name, settings, "???"))
            continue
        value = cfg[field.name]
        node = OmegaConf.get_type(cfg, field.name) if OmegaConf.is_config(value) else None
        if node is not None and dataclasses.is_dataclass(node):
            rows += _settings(node, value, name + ".")
        else:
            rows.append((name, settings, value))
    return rows


def _plain(value: Any) -> str:
    from omegaconf import OmegaConf

    if value == "???":
        return "(required)"
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, enum_to_str=True)
    value = value.name if isinstance(value, Enum) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
