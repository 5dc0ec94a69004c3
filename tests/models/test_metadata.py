"""emotion_lightning.json is written as it was read."""

import json
from typing import Any

import pytest

from emotion_lightning.models import backbone
from emotion_lightning.models.metadata import METADATA, Base
from emotion_lightning.runs import run_folder

BASE = json.loads((backbone.BUNDLED_RUN / run_folder.MODEL / METADATA).read_text())["base"]


@pytest.mark.parametrize("more", [{}, {"of another version": [1]}], ids=str)
def test_the_base_is_written_as_it_was_read(more: dict[str, Any]) -> None:
    assert json.dumps(Base.from_plain(BASE | more).plain()) == json.dumps(BASE | more)


def test_entries_that_older_versions_lack_have_a_value_and_others_are_due() -> None:
    older = {name: value for name, value in BASE.items() if name not in ("tiny", "architecture")}
    assert not Base.from_plain(older).tiny
    with pytest.raises(KeyError, match="kept"):
        Base.from_plain({name: value for name, value in BASE.items() if name != "kept"})
    with pytest.raises(ValueError, match="nf5"):
        Base.from_plain(BASE | {"quantization": "nf5"})
