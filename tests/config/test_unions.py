"""OmegaConf 2.3 cannot merge settings of several types without the patch."""

from dataclasses import dataclass
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from emotion_lightning.config import unions


@dataclass
class Part:
    """A part with a number or a word."""

    size: int | str


@dataclass
class Whole:
    """Holds the part."""

    part: Part


@pytest.mark.parametrize("value", [3, "auto"])
def test_a_number_or_a_word_is_merged(value: Any) -> None:
    unions.allow_unions()
    merged = OmegaConf.unsafe_merge(OmegaConf.structured(Whole), {"part": {"size": value}})
    assert OmegaConf.to_object(merged) == Whole(Part(value))


def test_other_types_are_refused() -> None:
    unions.allow_unions()
    with pytest.raises(ValidationError):
        OmegaConf.unsafe_merge(OmegaConf.structured(Whole), {"part": {"size": [1]}})
