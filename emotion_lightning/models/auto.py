"""Settings that `model=auto` leaves open, filled from the network itself."""

import dataclasses
import logging
from typing import Any

from emotion_lightning import config
from emotion_lightning.config import Attention, Pooling, checks
from emotion_lightning.errors import UserError, first_line
from emotion_lightning.models import backbone
from emotion_lightning.models.structure import Structure, longest_text, read_structure

log = logging.getLogger(__name__)


def resolve(settings: Any) -> Any:
    """The settings of a training with all that model=auto leaves open read from the network.

    Args:
        settings: of `train`; returned as they are if nothing is open.

    Raises:
        UserError: the network cannot be read or trained with these settings; the message says what it has.
    """
    if not settings.model.is_open:
        return settings
    found = read_structure(architecture_of(settings.model))
    model = fill(settings.model, found)
    peft = known_targets(settings.peft, found, model)
    checks.check_model(model, peft)
    log.info("%s", describe(found, model))
    return dataclasses.replace(settings, model=model, peft=peft)


def architecture_of(settings: config.Model) -> Any:
    """The transformers config of a model.

    Raises:
        UserError: there is none, or transformers does not know it.
    """
    from transformers import AutoConfig

    try:
        if not settings.pretrained:
            values = dict(settings.architecture)
            return AutoConfig.for_model(values.pop("model_type"), **values)
        return AutoConfig.from_pretrained(
            backbone.local(settings.path), revision=settings.revision or "main", trust_remote_code=False
        )
    except KeyError as error:
        raise UserError(
            "model.architecture names no architecture that transformers knows; give model.architecture.model_type=TYPE "
            "and its sizes."
        ) from error
    except Exception as error:  # each architecture checks its config in its own way
        raise UserError(
            f"The config of model.path={settings.path} cannot be read: {first_line(error)[:200]}"
        ) from error


def positions(settings: config.Model) -> int | None:
    """Number of tokens that the network has positions for; None if it sets no limit.

    Raises:
        UserError: the config of the network cannot be read.
    """
    return longest_text(architecture_of(settings))


def fill(settings: config.Model, found: Structure) -> config.Model:
    """Put what was found in the place of what the settings leave open."""
    return dataclasses.replace(
        settings,
        attention=found.attention if settings.attention is Attention.auto else settings.attention,
        pooling=found.pooling if settings.pooling is Pooling.auto else settings.pooling,
        head=found.head if settings.head is None else settings.head,
        pooler=found.pooler if settings.pooler == config.AUTO else settings.pooler,
        roles={**found.patterns, **settings.roles},
    )


def known_targets(peft: config.Peft, found: Structure, model: config.Model) -> config.Peft:
    """The training method, aimed at the roles that the network has.

    Raises:
        UserError: the network has none of them.
    """
    targets = list(getattr(peft, "targets", []))
    there = [role for role in targets if role in model.roles]
    if there == targets:
        return peft
    lacking = ", ".join(role for role in targets if role not in there)
    if not there:
        raise UserError(
            f"peft.targets={targets}, but {found.model_type} computes {lacking} in no linear layer or norm that PEFT "
            f"can adapt{_alternatives(found)}"
        )
    log.warning(
        "%s computes %s in no linear layer that PEFT can adapt; peft.targets is %s.", found.model_type, lacking,
        ", ".join(there),
    )  # fmt: skip
    changed: dict[str, Any] = {"targets": there}
    if isinstance(peft, config.IA3):
        changed["feedforward"] = [role for role in peft.feedforward if role in there]
    return dataclasses.replace(peft, **changed)


def _alternatives(found: Structure) -> str:
    roles = [role for role in found.roles if role != "norm"]
    ways = [f"peft.targets=[{','.join(roles)}]"] if roles else []
    ways += ["peft=ln_tuning"] if "norm" in found.roles else []
    return f"; choose {', '.join([*ways, 'peft=head'])} or peft=full."


def describe(found: Structure, model: config.Model) -> str:
    """What was found, as one line for the log."""
    head = ", ".join([*([f"{model.pooler} (pooler)"] if model.pooler else []), *(model.head or [])])
    return (
        f"Read from the network: {found.class_name}, {found.parameters:,} parameters, attention "
        f"{model.attention.value}, pooling {model.pooling.value}, head {head}, roles {', '.join(model.roles)}."
    )
