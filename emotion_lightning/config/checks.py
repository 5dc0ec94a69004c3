"""Checks of settings that types cannot express: ranges of numbers, and settings that contradict each other."""

import dataclasses
import re
import typing
import unicodedata
from typing import Any

from emotion_lightning import config, terminal
from emotion_lightning.config import hub_name, own_parts, redaction, spread
from emotion_lightning.errors import UserError, nearest


def check_ranges(settings: Any, prefix: str = "") -> None:
    """Raise UserError for a number outside its range."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        name, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, name + ".")
            continue
        marks = getattr(hints[field.name], "__metadata__", ())
        bounds = next((mark for mark in marks if isinstance(mark, config.Bounds)), config.Bounds())
        for number in value if isinstance(value, list) and marks else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool) and not bounds.allows(number):
                raise UserError(f"{name}={value} is out of range: it must be {bounds}.")


def check_relations(settings: config.Train) -> None:
    """Raise UserError for training settings that contradict each other."""
    if isinstance(settings.peft, config.Full) and settings.model.quantization is not config.Quantization.none:
        raise UserError(
            f"peft=full cannot train model.quantization={settings.model.quantization.value} weights; "
            "set model.quantization=none, or choose an adapter such as peft=ia3."
        )
    if isinstance(settings.peft, config.IA3) and (extra := set(settings.peft.feedforward) - set(settings.peft.targets)):
        raise UserError(
            f"peft.feedforward={settings.peft.feedforward} names {', '.join(sorted(extra))}, which is not in "
            f"peft.targets={settings.peft.targets}; add it there."
        )
    check_model(settings.model, settings.peft)
    _check_layers(settings.peft)
    _check_frozen(settings)
    spread.check_spread(settings)
    if settings.distill.runs is not None and settings.distill.answers is not None:
        raise UserError("distill.runs and distill.answers both say what to learn; give one of them.")
    has_context = isinstance(settings.data, config.Table) and (settings.data.context or settings.data.context_columns)
    if settings.distill.answers is not None and has_context:
        raise UserError(
            "distill.answers goes by texts, and with data.context a text may stand behind several others; use "
            "distill.runs."
        )
    for teacher in ("runs", "answers"):
        taught = getattr(settings.distill, teacher) is not None
        if taught and not isinstance(settings.loss, config.BCE | config.WeightedBCE):
            raise UserError(
                f"distill.{teacher} gives probabilities to learn, for which only binary cross-entropy is defined; set "
                "loss=weighted_bce or loss=bce."
            )
    _check_loss_of_targets(settings)
    if settings.callbacks.monitor not in config.MONITORS:
        raise UserError(
            f"callbacks.monitor={settings.callbacks.monitor} is not measured; choose one of "
            f"{', '.join(config.MONITORS)}."
        )
    _check_soft_score(settings.data, settings.callbacks.monitor, f"callbacks.monitor={settings.callbacks.monitor}")


def _check_soft_score(data: config.Data, name: str, setting: str) -> None:
    """Raise UserError for a score against shares, or of intensities, that the data does not have."""
    soft, scale = (data.soft, data.scale) if isinstance(data, config.Table | config.Brighter) else (False, None)
    if "soft_" in name and not soft:
        raise UserError(
            f"{setting} is a score against shares, which the data has not; it has them with data.targets=shares, "
            "data.scale=… or data.aggregate=share."
        )
    if "intensity_" in name and not scale:
        raise UserError(f"{setting} is a score of intensities; say with data.scale=… where they end.")


def check_workers(settings: config.Tune) -> None:
    """Raise UserError for several workers of a study without the engine that starts them, or for a share of GPUs."""
    if settings.study.workers > 1 and settings.engine is config.TrialEngine.local:
        raise UserError(f"study.workers={settings.study.workers} needs engine=ray, which runs trials side by side.")
    gpus = settings.ray.gpus_per_trial
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise UserError(f"ray.gpus_per_trial={gpus:g} is not possible: give a whole number, or a part of one GPU.")


def check_objectives(settings: config.Tune) -> None:
    """Raise UserError for an objective that the data of a study does not have."""
    for objective in settings.study.objectives:
        _check_soft_score(settings.data, objective.value, f"study.objectives={objective.value}")


def _check_loss_of_targets(settings: config.Train) -> None:
    """Raise UserError for a loss that cannot learn what the data gives."""
    data, loss = settings.data, settings.loss
    if isinstance(loss, config.Ordinal):
        _check_levels(data)
    if not isinstance(data, config.Table | config.Brighter):
        return
    own = isinstance(loss, own_parts.OwnPart | config.Ordinal)
    if data.soft and not data.harden and not own and not isinstance(loss, config.BCE | config.WeightedBCE):
        raise UserError(
            f"{_soft_setting(data)} gives shares to learn, for which only binary cross-entropy is defined; set "
            f"loss=weighted_bce or loss=bce{'' if data.scale is None else ' (for intensities also loss=ordinal)'}, or "
            "learn 0 and 1 with data.harden=true."
        )
    if data.missing in (config.MissingLabels.mask, config.Lacking.mask) and isinstance(loss, own_parts.OwnPart):
        raise UserError(
            "data.missing=mask leaves labels open, which a loss of your own cannot tell; choose a loss of this "
            f"program, or data.missing={'zero' if isinstance(data, config.Table) else 'drop'}."
        )


def check_thresholds(settings: config.Train | config.Baseline) -> None:
    """Raise UserError for thresholds by a column that the data has not among its groups."""
    by = settings.thresholds.by
    if by is None:
        return
    if isinstance(settings.thresholds, config.FixedThreshold):
        raise UserError(
            f"thresholds.by={by} fits thresholds for each {by}, and thresholds=fixed fits none; set thresholds=global "
            "or thresholds=per_label."
        )
    if not isinstance(settings.data, config.Table | config.Multilingual):
        raise UserError(f"thresholds.by={by} goes by a column of data.groups, and this data has none; leave it out.")
    groups = settings.data.groups or []
    if by not in groups:
        raise UserError(
            f"thresholds.by={by} is none of the columns in data.groups{nearest(by, set(groups))} Add it with "
            f"data.groups=[{','.join([*groups, by])}]."
        )


def check_predictions(settings: Any, command: str) -> None:
    """Raise UserError for settings of prediction files that contradict each other, or the data of a training."""
    predict, data = settings.predict, settings.data
    if not predict.intensities:
        return
    if predict.columns is config.PredictionColumns.decisions:
        raise UserError(
            "predict.columns=decisions writes columns of 0 and 1 only, predict.intensities=true expected intensities; "
            "leave out one of the two."
        )
    if command == "baseline":
        raise UserError("predict.intensities=true: a baseline learns 0 and 1, and no intensities; leave it out.")
    learns = isinstance(data, config.Table | config.Brighter) and data.scale is not None and not data.harden
    if command in ("train", "tune") and not learns:
        hard = getattr(data, "harden", False)
        raise UserError(
            "predict.intensities=true adds expected intensities, and the run learns none; "
            + ("leave out data.harden=true." if hard else "say with data.scale=N where those of the data end.")
        )


def _check_levels(data: config.Data) -> None:
    """Raise UserError for data that does not have the levels of loss=ordinal."""
    scale = data.scale if isinstance(data, config.Table | config.Brighter) else None
    if not isinstance(data, config.Table | config.Brighter) or scale is None:
        raise UserError(
            "loss=ordinal learns intensities, and the data has none; say with data.scale=N where they end (for "
            "data=brighter: data.track=b), or choose another loss."
        )
    if data.harden:
        raise UserError(
            "loss=ordinal learns intensities, and data.harden=true makes 0 and 1 of them; leave out one of the two."
        )
    if not scale.is_integer() or scale > config.LEVELS:
        raise UserError(
            f"loss=ordinal learns each whole intensity as a level, {config.LEVELS} at most, so data.scale={scale:g} is "
            "not for it; loss=bce learns shares of the scale."
        )
    if not data.present_level.is_integer():
        raise UserError(
            f"data.present_from={data.present_level:g} lies between two levels of loss=ordinal, which are whole "
            "numbers; give one of them, or set loss=bce."
        )


def _soft_setting(data: config.Table | config.Brighter) -> str:
    """The setting with which shares are learned."""
    if isinstance(data, config.Brighter):
        return "data.track=b" if data.track is config.Track.b else "data.aggregate=share"
    if data.scale is not None:
        return f"data.scale={data.scale:g}"
    return "data.targets=shares" if data.targets is config.Targets.shares else "data.aggregate=share"


def _check_layers(peft: config.Peft) -> None:
    if not isinstance(peft, config.LayeredPeft) or peft.layers in (config.ALL, config.UPPER_HALF):
        return
    layers = peft.layers
    if not isinstance(layers, list) or not layers or not all(type(number) is int for number in layers):
        raise UserError(
            f"peft.layers={_shown(layers)} must be all, upper_half, or a list of numbers of layers such as [4,5], from "
            "0 at the bottom and from -1 at the top."
        )
    if len(set(layers)) < len(layers):
        raise UserError(f"peft.layers={_shown(layers)} must name each layer once.")


def _shown(layers: Any) -> str:
    return f"[{','.join(map(str, layers))}]" if isinstance(layers, list) else terminal.one_line(str(layers))


def _check_frozen(settings: config.Train) -> None:
    if settings.frozen.reuse is not config.Reuse.always:
        return
    if isinstance(settings.peft, config.Full):
        raise UserError("frozen.reuse=always, but peft=full freezes nothing; set frozen.reuse=auto.")
    if settings.data.long_texts is config.LongTexts.windows:
        raise UserError(
            "frozen.reuse=always and data.long_texts=windows: states are kept of whole texts only. Leave one of them "
            "out."
        )
    if settings.trainer.compile:
        raise UserError(
            "frozen.reuse=always and trainer.compile=true: a compiled network cannot start above its frozen layers. "
            "Leave one of them out."
        )


def check_model(model: config.Model, peft: config.Peft) -> None:
    """Raise UserError for settings of the network and of the training method that contradict each other.

    What is read from the network, as with model=auto, is checked when it was read.
    """
    if model.attention is config.Attention.causal and model.pooling is config.Pooling.first:
        raise UserError(
            "model.pooling=first with model.attention=causal: the first token sees none of the others. Set "
            "model.pooling=last, or model.attention=bidirectional."
        )
    if model.head == []:
        raise UserError("model.head=[] leaves no module to classify with; name the model's own, such as [score].")
    for role in [] if model.is_open else getattr(peft, "targets", []):
        if role not in model.roles:
            raise UserError(
                f"peft.targets names the role {role}, but this model has {', '.join(model.roles)}; "
                f"choose among those or add model.roles.{role}."
            )
    for role, pattern in model.roles.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"model.roles.{role}={pattern} is not a regular expression: {error}.") from error


def check_ngrams(settings: config.Baseline) -> None:
    """Raise UserError for n-gram settings of a baseline that cannot be used."""
    for name in ("word_ngrams", "char_ngrams"):
        lengths = getattr(settings, name)
        if lengths is not None and not (len(lengths) == 2 and 1 <= lengths[0] <= lengths[1]):
            raise UserError(f"{name}={lengths} is no pair of lengths; give the shortest and the longest, as in [1,2].")
    if settings.word_ngrams is None and settings.char_ngrams is None:
        raise UserError("word_ngrams=null and char_ngrams=null leave no features; set one of them.")


def check_scores(settings: config.Compare) -> None:
    """Raise UserError if the metrics of a comparison are empty or repeated."""
    if not settings.metrics or len(set(settings.metrics)) < len(settings.metrics):
        shown = ", ".join(score.value for score in settings.metrics)
        known = ", ".join(score.value for score in config.Score)
        raise UserError(f"metrics=[{shown}] must name each of its metrics once, and one at least, of {known}.")


def check_study(study: config.Study) -> None:
    """Raise UserError for settings of a study that contradict each other."""
    shown = ", ".join(objective.value for objective in study.objectives)
    if not study.objectives or len(set(study.objectives)) < len(study.objectives):
        known = ", ".join(objective.value for objective in config.Objective)
        raise UserError(f"study.objectives=[{shown}] must name each objective once, and one at least, of {known}.")
    if study.pruner is not config.Pruner.none:
        if len(study.objectives) > 1:
            raise UserError(
                f"study.pruner={study.pruner.value} cannot tell which trials are poor by study.objectives=[{shown}]: "
                "of several objectives each may make up for another. Set study.pruner=none."
            )
        if study.objectives[0] in config.COSTS:
            raise UserError(
                f"study.pruner={study.pruner.value} needs a score at each epoch, which study.objectives=[{shown}] has "
                "not. Set study.pruner=none."
            )
    if "://" in study.storage and study.name is None:
        raise UserError(
            f"study.storage={redaction.hide_secrets(study.storage, is_value=True)} may hold several studies; name this "
            "one with study.name=NAME, the same for every worker."
        )
    if study.storage not in ("file", "memory") and "://" not in study.storage:
        raise UserError(
            f"study.storage={study.storage} is none of file, memory, or a database's URL such as "
            "sqlite:///studies.db or postgresql+psycopg://user@host/name."
        )


def check_server(server: config.Server) -> None:
    """Raise UserError for an origin that no browser would send."""
    for origin in server.origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s@?#*]+", origin):
            raise UserError(
                f"serve.origins={server.origins} names {origin}, which is no origin; give scheme, host and port as in "
                "https://example.org or http://localhost:3000, without a path, or [*] for all."
            )


def check_export(settings: config.Export) -> None:
    """Raise UserError for settings of an export that contradict each other."""
    chosen = settings.format.kind if isinstance(settings.format, config.BuiltInFormat) else None
    name = chosen.value if chosen else settings.format.origin.option  # type: ignore[attr-defined]  # of an OwnPart
    if settings.base is not None and chosen is not config.ExportFormat.adapter:
        raise UserError(f"base={settings.base} is for format=adapter; format={name} holds every weight itself.")
    if settings.dtype is not config.Dtype.auto and chosen is not config.ExportFormat.merged:
        raise UserError(f"dtype={settings.dtype.value} is for format=merged; leave it out with format={name}.")
    if chosen is None and (settings.push is not None or settings.refit):
        given = "refit=true" if settings.refit else f"push={settings.push}"
        raise UserError(f"{given} is for the formats of this program; leave it out with format={name}.")
    if settings.refit and chosen is config.ExportFormat.adapter:
        raise UserError("refit=true is not for format=adapter, which is exported as it stands.")
    if settings.push is not None:
        hub_name.parse_repository(settings.push, setting="push")
    elif not settings.private:
        raise UserError("private=false is for push=user/name, which uploads the folder; give both, or neither.")


def check_data(settings: Any, command: str) -> None:
    """Raise UserError for data settings that contradict each other."""
    data = settings.data
    if isinstance(data, config.LabelNames):
        check_label_names(data)
    if isinstance(data, config.Batches):
        _check_batches(data)
        _check_long_texts(data, command)
        _check_template(data, command)
    if isinstance(data, config.DividedTable | config.XED) and not isinstance(data, config.File):
        _check_shares(data)
    if isinstance(data, config.Multilingual):
        _check_languages(data)
    if isinstance(data, config.Brighter):
        _check_individual(data)
    if (groups := getattr(data, "groups", None)) is not None and (not groups or len(set(groups)) < len(groups)):
        raise UserError(f"data.groups=[{','.join(groups)}] must name one column at least, and each of them once.")
    if isinstance(data, config.File):
        _check_file(data, scored=command == "evaluate")
    if isinstance(data, config.File | config.InputColumns) and data.encoding is not None:
        _check_encoding(data.encoding)
    if isinstance(data, config.File | config.InputColumns):
        _check_header(data)
    if isinstance(data, config.Table):
        _check_label_words(data)
        check_targets(data)
        _check_context(data, command)
    if isinstance(data, config.InputColumns) and data.empty_texts is config.EmptyTexts.drop:
        raise UserError("data.empty_texts=drop would leave rows without a prediction; choose keep or refuse.")


def check_label_names(data: config.LabelNames | config.ComparedLabels) -> None:
    """Raise UserError for names of labels that are empty, repeated, or have two fates."""
    rename, merge, drop = data.rename, data.merge, data.drop_labels
    named = [*rename, *rename.values(), *merge, *(name for members in merge.values() for name in members), *drop]
    if not all(name.strip() for name in named):
        raise UserError("data.rename, data.merge and data.drop_labels name labels; an empty name is none.")
    for new in rename.values():
        if len(both := [old for old, name in rename.items() if name == new]) > 1:
            raise UserError(
                f"data.rename gives {' and '.join(both)} the one name {new}. To make one label of them: "
                f"data.merge={{{new}: [{', '.join(both)}]}}."
            )
    for new, members in merge.items():
        if not members:
            raise UserError(f"data.merge={{{new}: []}} makes a label of none; name those that it is made of.")
        if shared := [name for name in members if name in drop and name != new]:
            raise UserError(
                f"{shared[0]} goes into {new} by data.merge and is left out by data.drop_labels; take it out of one."
            )


def _check_batches(data: config.Batches) -> None:
    if data.folds is not None and data.fold is None:
        raise UserError(
            f"data.folds={data.folds} needs data.fold=1 to {data.folds}, the part that validates; -m sweep=folds runs "
            "them all."
        )
    if data.fold is not None and (data.folds is None or data.fold > data.folds):
        raise UserError(
            f"data.fold={data.fold} is no part of data.folds={'null' if data.folds is None else data.folds}."
        )
    check_token_budget(data)


def check_token_budget(data: config.Batches) -> None:
    """Raise UserError if a text may take more tokens than a batch; max_tokens=auto is checked once it is found."""
    if data.batch_tokens is None or not isinstance(data.max_tokens, int):
        return
    pieces = data.max_windows if data.long_texts is config.LongTexts.windows else 1
    if data.batch_tokens < pieces * data.max_tokens:
        most = f"data.max_windows={pieces} pieces of " if pieces > 1 else ""
        raise UserError(
            f"data.batch_tokens={data.batch_tokens} is less than one text may take, {most}data.max_tokens="
            f"{data.max_tokens}; raise the one or lower the other."
        )


def _check_long_texts(data: config.Batches, command: str) -> None:
    if isinstance(data.max_tokens, str) and data.max_tokens != config.AUTO:
        raise UserError(
            f"data.max_tokens={terminal.one_line(data.max_tokens)} is neither a whole number nor {config.AUTO}."
        )
    changed = [f"data.max_tokens={config.AUTO}"] if data.max_tokens == config.AUTO else []
    if data.long_texts is not config.LongTexts.cut_end:
        changed.append(f"data.long_texts={data.long_texts.value}")
    if changed and command == "baseline":
        raise UserError(f"{changed[0]} is for networks; a baseline reads whole texts. Leave it out.")
    if changed and command == "evaluate":
        raise UserError(f"{changed[0]}: texts are read as in training, which is stored with the model; leave it out.")
    if (
        data.long_texts is config.LongTexts.windows
        and isinstance(data.max_tokens, int)
        and data.window_overlap is not None
        and data.window_overlap >= data.max_tokens
    ):
        raise UserError(
            f"data.window_overlap={data.window_overlap} is not smaller than a piece, data.max_tokens="
            f"{data.max_tokens}; lower it, or set null for a quarter of a piece."
        )


def _check_template(data: config.Batches, command: str) -> None:
    if data.template is None:
        return
    if command == "baseline":
        raise UserError("data.template is for networks; a baseline reads the bare texts. Leave it out.")
    if command == "evaluate":
        raise UserError("data.template is that of the run, which is stored with its model; leave it out.")
    chat = data.template == config.CHAT
    name, value = ("data.question", data.question) if chat else ("data.template", data.template)
    text, labels = config.PLACES
    if value.count(text) != 1:
        times = "more than once" if text in value else "nowhere"
        chat_too = "" if chat else f"; {config.CHAT} takes the chat template of the model's tokenizer"
        raise UserError(
            f"{name}={terminal.one_line(value)} has {text} {times}; put it once where a text stands{chat_too}."
        )
    # Everything else that looks like a place is refused: a misspelt one would be given to the network as it is.
    if others := sorted(set(re.findall(r"\{\s*[A-Za-z_][^{}]*\}", value)) - set(config.PLACES)):
        raise UserError(
            f"{name} has {terminal.one_line(others[0])}, which is no place; it may have {text} and {labels}."
        )
    if odd := [sign for sign in value if unicodedata.category(sign) == "Cc" and sign not in "\n\t"]:
        raise UserError(f"{name} has the control character {ascii(odd[0])}; leave it out.")


def _check_context(data: config.Table, command: str) -> None:
    columns = [name for name in ("conversation", "turn") if getattr(data, name) is not None]
    if data.context is not None and data.context_columns is not None:
        raise UserError("data.context takes the turns from other rows, data.context_columns from columns; give one.")
    if (data.context is not None or data.context_columns is not None) and command == "baseline":
        raise UserError("data.context is for networks; a baseline reads the bare texts. Leave it out.")
    if command == "evaluate":
        for name in ("context", "context_separator"):
            if getattr(data, name) is not None:
                raise UserError(f"data.{name} is that of the run, which is stored with its model; leave it out.")
        return
    if data.context is not None and data.conversation is None:
        raise UserError(
            f"data.context={data.context} needs data.conversation=COLUMN, which says which conversation a row belongs "
            "to (and data.turn=COLUMN for the order of its turns)."
        )
    if data.context is None and columns:
        raise UserError(f"data.{columns[0]} is for data.context=N, the number of turns before a text; add it.")
    if data.context_columns is not None and not data.context_columns:
        raise UserError("data.context_columns=[] names no column; name some, or leave it out.")
    if (data.context is not None or data.context_columns is not None) and data.joining is not None:
        raise UserError(
            f"data.aggregate={data.joining.value} joins rows, so the turns before a text would be several; join the "
            "annotators' rows first, or leave out data.context."
        )
    if data.context_separator == "":
        raise UserError("data.context_separator is empty; turns would grow together.")


def _check_encoding(name: str) -> None:
    try:
        b"a b".decode(name, errors="surrogateescape")
    except (LookupError, UnicodeError):
        usual = {"utf-8", "utf-16", "cp1252", "latin-1", "iso-8859-15", "cp1251", "gb18030", "shift_jis", "euc_kr"}
        raise UserError(f"data.encoding={name} is no text encoding that Python knows{nearest(name, usual)}") from None


def _check_header(data: config.File | config.InputColumns) -> None:
    if data.columns is None:
        return
    shown = f"data.columns=[{','.join(data.columns)}]"
    if data.header is not config.Header.none:
        raise UserError(f"{shown} names the columns of files without a header line; add data.header=none.")
    if not data.columns or len(set(data.columns)) < len(data.columns):
        raise UserError(f"{shown} must name each column of the file once.")


def _check_label_words(data: config.Table) -> None:
    shared = {word.casefold() for word in data.true_values or []} & {
        word.casefold() for word in data.false_values or []
    }
    if shared:
        raise UserError(f"data.true_values and data.false_values both contain {', '.join(sorted(shared))}.")


def check_targets(data: config.Table) -> None:
    """Raise UserError for settings of shares, intensities and annotators that contradict each other."""
    shares = data.targets is config.Targets.shares
    if data.annotators_column is not None:
        counts = f"data.annotators_column={data.annotators_column}"
        if not shares:
            raise UserError(f"{counts} makes shares of counts; add data.targets=shares.")
        if data.labels is None:
            raise UserError(f"{counts} needs data.labels=[…], the columns that count the annotators of each label.")
    if data.scale is not None and shares:
        raise UserError(
            f"data.scale={data.scale:g} reads intensities from 0 to {data.scale:g}, data.targets=shares shares from 0 "
            "to 1; leave one out."
        )
    soft = _soft_setting(data) if data.scale is not None or shares else None
    if soft is not None and (data.true_values is not None or data.false_values is not None):
        raise UserError(f"{soft} reads numbers; leave out data.true_values and data.false_values.")
    if soft is not None and data.aggregate not in (None, config.Aggregate.share):
        raise UserError(
            f"data.aggregate={data.aggregate.value} makes labels of 0 and 1, where {soft} learns shares; set "
            f"data.aggregate=share, or leave out {soft}"
            + (" and say with data.present_from from where on a label is present." if data.scale is not None else ".")
        )
    if data.harden and not data.soft:
        raise UserError(
            "data.harden=true makes 0 and 1 of shares, and there are none; add data.targets=shares, data.scale=… or "
            "data.aggregate=share, or leave it out."
        )
    largest = data.scale or 1.0
    if soft is not None and data.present_from is not None and data.present_from > largest:
        raise UserError(
            f"data.present_from={data.present_from:g} is more than {largest:g}, the largest cell with {soft}; no label "
            "would ever be present."
        )


def _check_file(data: config.File, *, scored: bool) -> None:
    given = [data.train, data.validation, data.test] if scored else [data.train]
    if (data.path is None) == all(path is None for path in given):
        raise UserError(
            "data=file needs either data.path=FILE (split for you) or data.train=FILE, with data.validation=FILE and "
            "data.test=FILE where you have them."
        )
    if data.path is not None and (data.validation or data.test):
        raise UserError(
            f"data.path={data.path} is split for you; to give your own splits name the file data.train instead."
        )
    if data.splits is not None and data.path is None and data.validation is not None:
        raise UserError(
            f"data.splits={data.splits} has nothing to split: data.train and data.validation are given. Leave one out."
        )
    if data.split_column not in (None, "none") and data.path is None:
        raise UserError(
            f"data.split_column={data.split_column} and data.train both say how rows are split; leave one out."
        )
    if data.path is not None:
        _check_shares(data)


def _check_languages(data: config.Multilingual) -> None:
    for name, given in (("languages", data.languages), ("test_languages", data.test_languages)):
        if given is not None and (not given or len(set(given)) < len(given)):
            raise UserError(f"data.{name}=[{','.join(given)}] must name one language at least, and each of them once.")


def _check_individual(data: config.Brighter) -> None:
    if data.individual and data.track is config.Track.b:
        raise UserError(
            "data.individual=true reads what annotators said of the texts of track A; leave out data.track=b."
        )
    if data.aggregate is not config.Aggregate.majority and not data.individual:
        raise UserError(
            f"data.aggregate={data.aggregate.value} joins what annotators said; add data.individual=true to read it."
        )
    if data.harden and not data.soft:
        raise UserError(
            "data.harden=true makes 0 and 1 of shares; add data.individual=true data.aggregate=share, or data.track=b."
        )


def _check_shares(data: config.DividedTable | config.XED) -> None:
    if data.validation_share + data.test_share >= 1:
        raise UserError(
            f"data.validation_share={data.validation_share} and data.test_share={data.test_share} leave no rows to "
            "train on; together they must be below 1."
        )
