"""Options of the user's own: a function outside this package builds a loss, a callback, a data source and so on.

The file of such an option, in a folder that the command line gives with --config-dir, names its function. An installed
package names functions by entry points. The parameters of the function are the settings of the option, with their
types and defaults, so that they are checked as the settings of this program are.

The function always is that of the option's file or entry point, never one that a stored run names.
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import operator
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion_lightning import config
from emotion_lightning.config import composition
from emotion_lightning.errors import Stopped, UserError, first_line, nearest

HOW_TO = "docs/how-to/extend.md"
SECRET = (
    "{file} holds {name} without its value, because the name is that of a secret. Give it again, with from_run= or "
    "data=, or let your part read it from an environment variable."
)
_RESERVED = ("part", "origin", "passed", "meanings", "defaults")
"""Names that a parameter cannot have: those of `OwnPart`, and Hydra's list."""
_OF_A_BATCH = (
    {"logits", "logit", "input", "inputs", "output", "outputs", "pred", "preds", "predictions", "y_pred"},
    {"targets", "target", "labels", "label", "y", "y_true"},
)
"""Usual names of the two parameters of a loss."""
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Kind:
    """What the options of a group may be extended by.

    Attributes:
        entry_points: name of the group of entry points, after `emotion_lightning.`.
        base: dataclass with the settings that all options of the group have.
        given: parameters of the function that the program passes itself, so that they are no settings.
        shared: files of conf/shared with values of the settings of `base`.
    """

    entry_points: str
    base: type
    given: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


KINDS = {
    "loss": Kind("losses", config.Loss, ("labels", "label_counts", "rows")),
    "extra_callback": Kind("callbacks", config.ExtraCallback, ("folder", "labels")),
    "extra_metric": Kind("metrics", config.ExtraMetric, ("probabilities", "decisions", "targets", "labels")),
    "logger": Kind("loggers", config.Logger, ("folder", "run_settings")),
    "data": Kind("sources", config.DividedTable, shared=("batches", "table", "divided")),
    "optimizer": Kind("optimizers", config.Optimizer, ("parameter_groups", "steps"), shared=("optimizer",)),
    "peft": Kind("peft_methods", config.TargetedPeft, ("target_modules", "modules_to_save", "seed")),
    "format": Kind(
        "export_formats",
        config.Format,
        ("network", "tokenizer", "folder", "labels", "thresholds", "max_tokens"),
    ),
}
"""The groups whose options may name a function."""
MODELS = "models"
"""Group of the entry points for options of `model`: functions without parameters that return values for model=auto."""


@dataclass(frozen=True)
class Origin:
    """Where an option of the user's own comes from.

    Attributes:
        group: its group, such as `loss`.
        option: its name.
        reference: its function, as `module:function`.
        folder: folder of the command line that has its file; None for an entry point.
        place: the file, or the package with the entry point, for messages.
    """

    group: str
    option: str
    reference: str
    folder: Path | None
    place: str


@dataclass
class OwnPart:
    """An option of the user's own, which a function builds. Its settings are the parameters of the function."""

    part: str
    """The function, as module:function. The file of the option names it; it cannot be set elsewhere."""

    origin: ClassVar[Origin]
    passed: ClassVar[tuple[str, ...]]
    meanings: ClassVar[dict[str, str]]


def conf_folder() -> Path:
    """Absolute path of conf/ in the checkout, or of its copy inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "train.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


_names: dict[str, set[str]] = {}
"""Names of all options of the user's own that are known, by group; also of those whose file names no function."""


_of_entry_points: list[tuple[str, str]] = []
"""Group and name of the options that are in Hydra's ConfigStore, in place of a file."""


def option_names(group: str) -> set[str]:
    """Names of the options of a group that are the user's own."""
    return _names.get(group, set())


def folder_arguments() -> list[str]:
    """The arguments that a printed command needs if this one has options of the user's own; none without such."""
    folders = [node.origin.folder for node in config.SCHEMAS.values() if issubclass(node, OwnPart)]
    used = [str(folder) for folder in folders if folder is not None]
    return ["--config-dir", used[-1]] if used else []


def register(folders: Sequence[Path], *, is_used: Callable[[str], bool]) -> Iterator[UserError]:
    """Let Hydra compose the options of the user's own.

    Args:
        folders: folders of option files that the user gave on the command line.
        is_used: whether an option may be chosen, by its name. The function of any other option is not imported.

    Yields:
        An error for each option that may be chosen and cannot be built.
    """
    _names.clear()
    for name in [name for name, node in config.SCHEMAS.items() if issubclass(node, OwnPart)]:
        del config.SCHEMAS[name]  # of an earlier command line in this process
    if _of_entry_points:
        composition.forget_options()
    while _of_entry_points:
        group, option = _of_entry_points.pop()
        del ConfigStore.instance().repo[group][f"{option}.yaml"]
    for group, option, found in (*_of_folders(folders), *_of_packages()):
        _names.setdefault(group, set()).add(option)
        if found is None or not is_used(option):
            continue
        try:
            if isinstance(found, UserError):
                raise found
            _add(found)
        except UserError as error:
            yield error


def build(settings: Any, **given: Any) -> Any:
    """Call the function of an option of the user's own with its settings.

    Args:
        settings: the settings of the option, an `OwnPart`.
        given: what the program passes to the functions of this group; each gets what it has a parameter for.
    """
    own = {name: getattr(settings, name) for name in settings.passed if name not in given}
    return _function(settings.origin)(**own, **{name: given[name] for name in settings.passed if name in given})


def check_part(settings: OwnPart, name: str) -> None:
    """Raise UserError if the settings name another function than the option does.

    Args:
        settings: the settings of the option.
        name: name of the group.
    """
    if settings.part != settings.origin.reference:
        raise UserError(
            f"{name}.part={settings.part} is not possible: {name}={settings.origin.option} is built by "
            f"{settings.origin.reference}, as {settings.origin.place} says. Code is never taken from a setting; "
            f"make an option of your own for it ({HOW_TO})."
        )


def lacking(parts: Mapping[str, object], file: object) -> UserError:
    """The error for stored options of the user's own that are not at hand.

    Args:
        parts: the stored function of each, by `group=option`.
        file: file that has them.
    """
    shown = " and ".join(f"{option} (built by {_shown(part)})" for option, part in parts.items())
    are, files = ("are no options", "their files") if len(parts) > 1 else ("is no option", "its file")
    return UserError(
        f"{file} was made with {shown}, which {are} of this program. Give the folder of {files} with --config-dir "
        "FOLDER, or install the package that brings it."
    )


def _shown(text: object) -> str:
    return " ".join(str(text).split())[:80]


# ----------------------------------------------------------------------------------------------------------- discovery


_Found = tuple[str, str, Origin | UserError | None]
"""Group and name of an option, and where it comes from; None if it names no function."""


def _of_folders(folders: Sequence[Path]) -> Iterator[_Found]:
    for folder in folders:
        for file in sorted(folder.glob("*/*.yaml")):
            try:
                content = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                content = None  # Hydra reports it when the option is chosen
            has_part = file.parent.name in KINDS and isinstance(content, dict) and "part" in content
            yield file.parent.name, file.stem, _of_file(file, content, folder) if has_part else None


def _of_file(file: Path, content: dict[str, Any], folder: Path) -> Origin | UserError:
    group, option, reference, lines = file.parent.name, file.stem, content["part"], content.get("defaults")
    if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
        return UserError(f"{file}: part: {_shown(reference)} is no function; name it as module:function.")
    if _is_taken(group, option):
        return UserError(f"{file} has the name of an option of this program; give it another name.")
    first = f"/schema/{group}/{option}@_here_"
    if not isinstance(lines, list) or first not in map(str, lines):
        shared = "".join(f", /shared/{name}@_here_" for name in KINDS[group].shared)
        return UserError(f"{file} must begin with the line\n\ndefaults: [{first}{shared}, _self_]")
    return Origin(group, option, reference, folder, str(file))


def _of_packages() -> Iterator[_Found]:
    groups = {kind.entry_points: group for group, kind in KINDS.items()} | {MODELS: "model"}
    installed = entry_points()  # each call reads the metadata of every installed package
    for plural, group in groups.items():
        for point in installed.select(group=f"emotion_lightning.{plural}"):
            place = f"the package {point.dist.name}" if point.dist else "an installed package"
            found: Origin | UserError = Origin(group, point.name, point.value, None, place)
            if not _REFERENCE.fullmatch(point.value):
                found = UserError(f"{place} names {_shown(point.value)} as {group}={point.name}, no module:function.")
            elif _is_taken(group, point.name):
                found = UserError(f"{place} brings {group}={point.name}, the name of an option of this program.")
            yield group, point.name, found


def _is_taken(group: str, option: str) -> bool:
    """Whether the program has an option of this name."""
    return (conf_folder() / group / f"{option}.yaml").is_file()


# -------------------------------------------------------------------------------------------------------------- import


@functools.cache
def _function(origin: Origin) -> Callable[..., Any]:
    """Import the function of an option."""
    named, _, attribute = origin.reference.partition(":")
    if origin.folder is not None:
        _make_importable(origin, named.partition(".")[0])
    try:
        module = importlib.import_module(named)
    except ModuleNotFoundError as error:
        if error.name is None or not (named == error.name or named.startswith(f"{error.name}.")):
            raise UserError(f"{origin.place}: the part {origin.reference} needs the module {error.name}.") from error
        where = f"{origin.folder} has no {named.replace('.', '/')}.py, and " if origin.folder else ""
        raise UserError(f"{origin.place}: {where}no module {named} is installed.") from error
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{origin.place}: {named} cannot be imported: {type(error).__name__}: {first_line(error)} "
            "HYDRA_FULL_ERROR=1 shows where."
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = {name for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
        raise UserError(f"{origin.place}: {named} has no function {attribute}{nearest(attribute, names)}")
    return found


def _make_importable(origin: Origin, top: str) -> None:
    """Make the modules of a folder importable.

    The folder is searched last, so that a `datasets.py` in it hides no library; a module of its own that would be
    hidden by another one is refused.
    """
    assert origin.folder is not None
    folder = origin.folder.resolve()
    if not (folder / f"{top}.py").is_file() and not (folder / top).is_dir():
        return
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    found = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    places = (
        [found.origin] if found and found.origin else list(getattr(found, "submodule_search_locations", None) or [])
    )
    file = Path(places[0]).resolve() if places else None
    if file is None or folder not in file.parents:
        raise UserError(
            f"{origin.place}: Python has another module {top} ({file or 'built in'}) than that in "
            f"{folder}; rename yours."
        )


# -------------------------------------------------------------------------------------------------------------- schema


def _add(origin: Origin) -> None:
    """Register the option, and its schema, in Hydra's ConfigStore."""
    store = ConfigStore.instance()
    if origin.group == "model":
        values = _function(origin)()
        if not isinstance(values, dict):
            raise UserError(f"{origin.reference} of {origin.place} returns no dict of values for model=auto.")
        _add_without_file(origin, {"defaults": ["auto", "_self_"], **values})
        return
    name = f"{origin.group}/{origin.option}"
    node = _schema(origin, KINDS[origin.group])
    config.SCHEMAS[name] = node
    store.store(group=f"schema/{origin.group}", name=origin.option, node=node)
    if origin.folder is None:
        shared = [f"/shared/{part}@_here_" for part in KINDS[origin.group].shared]
        lines = [f"/schema/{name}@_here_", *shared, "_self_"]
        _add_without_file(origin, {"defaults": lines, **_defaults(node)})


def _add_without_file(origin: Origin, content: dict[str, Any]) -> None:
    ConfigStore.instance().store(group=origin.group, name=origin.option, node=content)
    _of_entry_points.append((origin.group, origin.option))


def _defaults(node: type) -> dict[str, Any]:
    """The defaults of a function's parameters that are settings of all options of its group."""
    found = {field.name: field for field in dataclasses.fields(node)}
    return {name: found[name].default for name in node.__annotations__ if found[name].default is not MISSING}


def _schema(origin: Origin, kind: Kind) -> type:
    """The dataclass with the settings of an option: those of its group, and the parameters of its function."""
    function = _function(origin)
    of_group = {field.name: field for field in dataclasses.fields(kind.base)}
    hints = _hints(function)
    fields: list[Any] = [("part", str, origin.reference)]
    passed, text = [], _parameter_texts(function)
    parameters = _parameters(function, origin)
    _check_returns_loss(parameters, origin)
    for name, default in parameters.items():
        passed.append(name)
        if name in kind.given:
            continue
        hint = _settable(hints.get(name, Any)) if name not in of_group else _hints(kind.base)[name]
        if default is None and hint is not Any:
            hint = _settable(hint | None)
        field = dataclasses.field() if default is MISSING else _default(default, name, origin)
        if name not in of_group or default is not MISSING:
            fields.append((name, hint, field))
    namespace = {
        "__doc__": next(iter((function.__doc__ or "").strip().splitlines()), f"Built by {origin.reference}."),
        "__module__": __name__,
        "origin": origin,
        "passed": tuple(passed),
        "meanings": {
            name: text.get(name, f"Parameter of {origin.reference}.")
            for name, _, _ in fields[1:]
            if name not in of_group or name in text
        },
    }
    title = "".join(part.capitalize() for part in origin.option.split("_"))
    node = dataclasses.make_dataclass(title, fields, bases=(OwnPart, kind.base), namespace=namespace, kw_only=True)
    try:
        OmegaConf.structured(node)
    except OmegaConfBaseException as error:
        name = str(getattr(error, "full_key", "") or getattr(error, "key", ""))
        raise UserError(
            f"{origin.place}: the parameter {name} of {origin.reference} has a default of another type: "
            f"{first_line(error)}"
        ) from error
    return node


def _parameters(function: Any, origin: Origin) -> dict[str, Any]:
    """The default of each parameter that takes a value by name; MISSING for those without one."""
    found: dict[str, Any] = {}
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError) as error:  # of a function that is written in C
        raise UserError(f"{origin.place}: Python cannot tell the parameters of {origin.reference}; wrap it.") from error
    of_dataclass = {field.name: field for field in dataclasses.fields(function)} if _is_dataclass(function) else {}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY or name in _RESERVED or name.startswith("_"):
            raise UserError(
                f"{origin.place}: the parameter {name} of {origin.reference} cannot be a setting; rename it."
            )
        default = MISSING if parameter.default is parameter.empty else parameter.default
        factory = of_dataclass[name].default_factory if name in of_dataclass else MISSING
        if factory is not MISSING:
            default = factory()
        found[name] = default
    return found


def _check_returns_loss(parameters: Mapping[str, Any], origin: Origin) -> None:
    """Raise UserError if the function of a loss is the loss itself: it cannot be called before there is a batch."""
    needed = [name for name, default in parameters.items() if default is MISSING]
    if origin.group != "loss" or len(needed) < 2:
        return
    if needed[0] in _OF_A_BATCH[0] and needed[1] in _OF_A_BATCH[1]:
        module, _, name = origin.reference.partition(":")
        builder = "build" if name != "build" else "build_loss"
        raise UserError(
            f"{origin.place}: the function of a part is called with the settings of the part and must return the loss. "
            f"{origin.reference} looks like the loss itself: its parameters are {needed[0]} and {needed[1]}. Write a "
            f"function that returns it ({HOW_TO}), such as\n\ndef {builder}():\n    return {name}\n\nand name that "
            f"one, as part: {module}:{builder}."
        )


def _is_dataclass(function: Any) -> bool:
    return isinstance(function, type) and dataclasses.is_dataclass(function)


def _hints(function: Any) -> dict[str, Any]:
    """The types of the parameters of a function or class, or of the fields of a dataclass."""
    if isinstance(function, functools.partial):
        return _hints(function.func)
    if isinstance(function, type):
        function = function if dataclasses.is_dataclass(function) else inspect.getattr_static(function, "__init__")
    elif not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError):  # a name that only type checkers import, such as that of Tensor
        known = getattr(inspect.unwrap(function), "__globals__", None)
        if known is None:
            known = vars(sys.modules[function.__module__])
        return {
            name: hint
            for name, given in getattr(function, "__annotations__", {}).items()
            if (hint := _resolved(given, known))
        }


def _resolved(given: Any, known: dict[str, Any]) -> Any:
    """An annotation that may be a text; None if it names something that is not there."""
    holder = type("Holder", (), {"__annotations__": {"it": given}})
    try:
        return typing.get_type_hints(holder, globalns=known, include_extras=True)["it"]
    except Exception:  # whatever an annotation does when it is evaluated
        return None


def _settable(hint: Any) -> Any:
    """The type if settings can have it, else Any. `Annotated[int, Bounds()] | None` keeps its bounds."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        marked = [part for part in typing.get_args(hint) if typing.get_origin(part) is typing.Annotated]
        if len(marked) == 1 and len(typing.get_args(hint)) == 2 and type(None) in typing.get_args(hint):
            plain, *marks = typing.get_args(marked[0])
            return typing.Annotated[_settable(plain | None), *marks]
    if typing.get_origin(hint) is typing.Annotated:
        plain, *marks = typing.get_args(hint)
        kept = _settable(plain)
        return kept if kept is Any else typing.Annotated[kept, *marks]
    plain = hint
    if plain in (bool, int, float, str) or (isinstance(plain, type) and issubclass(plain, Enum)):
        return hint
    parts = typing.get_args(plain)
    if typing.get_origin(plain) in (types.UnionType, typing.Union):
        simple = all(part in (bool, int, float, str, type(None)) for part in parts)
        if any(typing.get_origin(part) is dict for part in parts):
            return Any  # omegaconf 2.3.1 fails with an AttributeError when a mapping replaces None
        alone = len(parts) == 2 and type(None) in parts and all(_settable(p) is p for p in parts if p is not type(None))
        return functools.reduce(operator.or_, parts) if simple or alone else Any
    if typing.get_origin(plain) in (list, dict) and _settable(parts[-1]) is parts[-1]:
        return hint
    return Any


def _default(value: Any, name: str, origin: Origin) -> Any:
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list | dict):
        return dataclasses.field(default_factory=lambda: type(value)(value))
    if not isinstance(value, bool | int | float | str | Enum | None):
        raise UserError(
            f"{origin.place}: the default of the parameter {name} of {origin.reference} is no plain value "
            f"({type(value).__name__}); a setting is a number, a text, a list or a mapping."
        )
    return dataclasses.field(default=value)


def _parameter_texts(function: Any) -> dict[str, str]:
    """What a docstring says of each parameter below `Args:`, or of each attribute of a class."""
    texts = "\n".join(filter(None, [function.__doc__, getattr(function.__init__, "__doc__", None)]))
    found: dict[str, str] = {}
    last = ""
    indent = 0
    for line in texts.splitlines():
        entry = re.fullmatch(r"(\s+)(\w+)(?: \([^)]*\))?: (\S.*)", line)
        if entry and (not indent or len(entry[1]) <= indent):
            last, indent = entry[2], len(entry[1])
            found[last] = entry[3]
        elif last and line.strip() and len(line) - len(line.lstrip()) > indent:
            found[last] += f" {line.strip()}"
        else:
            last, indent = "", 0
    return {name: text if text.endswith((".", ")")) else f"{text}." for name, text in found.items()}
