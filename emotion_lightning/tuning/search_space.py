"""The search space of a study: settings with ranges and choices, checked before the first trial."""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emotion_lightning import config
from emotion_lightning.cli import override_grammar
from emotion_lightning.config import schema
from emotion_lightning.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna import Trial

_FIXED = ("resume", "from_run", "predict", "logger")
"""Settings of `train` that cannot change a score."""


@dataclass(frozen=True)
class Choices:
    """A setting or option group with a list of possible values."""

    name: str
    values: tuple[Any, ...]

    def suggest(self, trial: "Trial") -> Any:
        """Return a value for a trial."""
        # Optuna stores plain values only, so a list is stored as text.
        by_text = {
            value if not isinstance(value, list) else override_grammar.quoted(value): value for value in self.values
        }
        return by_text[trial.suggest_categorical(self.name, list(by_text))]

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check: if these are valid, all are."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A setting with a range of numbers.

    Attributes:
        name: of the setting.
        low: smallest value.
        high: largest value.
        log: whether to sample on a logarithmic scale.
        step: distance between possible values; None: any value, or 1 for integers.
        whole: whether the setting is an integer.
    """

    name: str
    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def suggest(self, trial: "Trial") -> Any:
        """Return a value for a trial."""
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check: if these are valid, all are."""
        return (self.low, self.high)


@dataclass(frozen=True)
class SearchSpace:
    """The parameters of a study.

    Attributes:
        parameters: the parameters, option groups first.
        owned: names of the settings of each option, by group and option.
    """

    parameters: tuple[Choices | Range, ...]
    owned: dict[str, dict[str, set[str]]]

    def ends(self, name: str) -> tuple[Any, ...]:
        """Return the ends of a parameter's range, or its choices; (0,) if it is not searched."""
        return next((parameter.ends() for parameter in self.parameters if parameter.name == name), (0,))

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Return values for a trial, without settings that the chosen options do not have."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            group, _, field = parameter.name.partition(".")
            if field and group in values and field not in self.owned[group][values[group]]:
                continue
            values[parameter.name] = parameter.suggest(trial)
        return values


def overrides(values: dict[str, Any]) -> list[str]:
    """Format values as command-line arguments of `train`.

    >>> overrides({"peft": "lora", "optimizer.lr": 0.001, "data.clean": ["urls"]})
    ['peft=lora', 'optimizer.lr=0.001', "data.clean=['urls']"]
    """
    return [
        f"{name}={value if isinstance(value, str) else override_grammar.quoted(value)}"
        for name, value in values.items()
    ]


def read_space(space: config.Space, arguments: list[str], *, load: Callable[[list[str]], config.Train]) -> SearchSpace:
    """Build and check the search space.

    Args:
        space: the settings of the space.
        arguments: command-line arguments for `train`.
        load: loads the settings of `train` from arguments; raises UserError if they are wrong.

    Raises:
        UserError: the space is empty, a parameter is unknown or also in `arguments`, or one of its values is not
            valid.
    """
    if not space.parameters:
        raise UserError("space.parameters is empty: there is nothing to search.")
    groups = schema.groups("train")
    typed = {argument.lstrip("+~").partition("=")[0] for argument in arguments}
    parameters: list[Choices | Range] = []
    for name, written in space.parameters.items():
        if name.partition(".")[0] in _FIXED:
            raise UserError(f"space.parameters names {name}, which changes no score; leave it out.")
        if name in typed:
            raise UserError(f"{name} is given and searched (space.parameters); leave one of them out.")
        parameters.append(_read(str(name), written, groups=groups))
    parameters.sort(key=lambda parameter: parameter.name not in groups)

    owned: dict[str, dict[str, set[str]]] = {}
    for parameter in parameters:
        if parameter.name in groups:
            options = owned[parameter.name] = {}
            for option in parameter.ends():
                section = getattr(_loaded(load, arguments, {parameter.name: option}), parameter.name)
                options[option] = {field.name for field in dataclasses.fields(section)}
        else:
            for value in parameter.ends():
                _loaded(load, arguments, _chosen(parameter.name, owned) | {parameter.name: value})
    return SearchSpace(tuple(parameters), owned)


def _loaded(load: Callable[[list[str]], config.Train], arguments: list[str], values: dict[str, Any]) -> config.Train:
    try:
        return load([*arguments, *overrides(values)])
    except UserError as error:
        shown = " ".join(overrides(values))
        raise UserError(f"space.parameters: {shown} is not possible. {error}") from error


def _chosen(name: str, owned: dict[str, dict[str, set[str]]]) -> dict[str, str]:
    """Return an option that has this setting, if its group is searched; else nothing."""
    group, _, field = name.partition(".")
    options = [option for option, fields in owned.get(group, {}).items() if field in fields]
    return {group: options[0]} if options else {}


def _read(name: str, written: Any, *, groups: set[str]) -> Choices | Range:
    hint = str if name in groups else schema.type_of("train", name)
    if hint is None:
        raise UserError(f"space.parameters: {schema.unknown_setting('train', name)}")
    if isinstance(written, list):
        if not written:
            raise UserError(f"space.parameters: {name}=[] has nothing to choose from.")
        twice = [value for i, value in enumerate(written) if value in written[:i]]
        if twice:
            raise UserError(f"space.parameters: {name}={written} names {twice[0]} twice.")
        if any(isinstance(value, dict) for value in written):
            raise UserError(f"space.parameters: {name}={written} must be values, not mappings.")
        return Choices(name, tuple(written))
    if not isinstance(written, dict):
        raise UserError(
            f"space.parameters: {name}={written} is neither a list of choices, [a, b], nor a range, "
            "{low: …, high: …}. A value that stays belongs on the line itself."
        )
    return _range(name, written, kinds=set(_parts(hint)))


def _range(name: str, written: dict[str, Any], *, kinds: set[type]) -> Range:
    shown = f"space.parameters: {name}={{{', '.join(f'{key}: {value}' for key, value in written.items())}}}"
    known = {"low", "high", "log", "step"}
    for key in written:
        if key not in known:
            raise UserError(f"{shown}: unknown {key}{nearest(str(key), known)} A range has low, high, log, step.")
    if not kinds & {int, float}:
        raise UserError(f"{shown}: {name} is no number; give a list of choices, [a, b].")
    missing = [key for key in ("low", "high") if key not in written]
    if missing:
        raise UserError(f"{shown} lacks {' and '.join(missing)}.")
    whole = float not in kinds
    for key in ("low", "high", "step"):
        value = written.get(key)
        if key == "step" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{shown}: {key}={value} is no number.")
        if whole and value != int(value):
            raise UserError(f"{shown}: {name} takes whole numbers, {key}={value} is none.")
    low, high, step = written["low"], written["high"], written.get("step")
    log = written.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{shown}: log={log} must be true or false.")
    if low >= high:
        raise UserError(f"{shown}: low must be below high.")
    if log and low <= 0:
        raise UserError(f"{shown}: a logarithm needs low above 0; raise low or leave log out.")
    if log and step is not None:
        raise UserError(f"{shown}: log and step exclude each other; leave one of them out.")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"{shown}: step must be above 0 and not larger than high - low.")
    if step is not None:
        high = round(low + step * math.floor((high - low) / step + 1e-9), 12)  # the last value that the steps reach
    if whole:
        low, high = int(low), int(high)
    return Range(name, low, high, log, step, whole)


def _parts(hint: Any) -> Iterator[type]:
    yield from typing.get_args(hint) or (hint,)
