"""A run on conversations: what it reads before a text is stored, and found again in other files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL
from helpers.readme_code import answers_of_readme
from helpers.tables import read_csv, write_csv

from emotion_lightning import load
from emotion_lightning.models.metadata import read_metadata

MOODS = {"joy": ["I love this!", "We won!"], "anger": ["Go away!", "I hate this."]}


def test_new_files_are_read_with_their_turns(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(1)
    rows = []
    for talk in range(30):
        for turn in range(3):
            mood = ["joy", "anger"][talk % 2]
            said = "Okay." if turn == 2 else str(random.choice(MOODS[mood]))
            rows.append([f"{talk}-{turn}", said, mood, talk, turn])
    random.shuffle(rows)  # type: ignore[arg-type]
    write_csv(Path("talks.csv"), [["id", "said", "Emotion", "talk", "turn"], *rows])
    columns = [
        "data.text=said",
        "data.labels_column=Emotion",
        "data.conversation=talk",
        "data.turn=turn",
        "data.context=2",
    ]
    data = ["data=file", "data.path=talks.csv", *columns]
    small = [override for override in SMALL if "max_rows" not in override]
    chosen = [*small, *data, "trainer=cpu", "trainer.max_epochs=1", "model.quantization=none", "model.dtype=float32"]
    assert run("train", *chosen, "hydra.run.dir=out") == 0
    metadata = read_metadata(Path("out/model"))
    assert metadata.context is not None and metadata.context.used == ["talk", "turn"] and metadata.context.separator
    readme = Path("out/model/README.md").read_text()
    assert "up to 2 turns stand before a text" in readme and "leaves them out" in readme

    own = {row["id"]: float(row["p_joy"]) for row in read_csv(Path("out/predictions/test.csv"))}
    assert run("predict", "run=out", "input=talks.csv", "output=again.csv", "accelerator=cpu") == 0
    again = {row["id"]: float(row["p_joy"]) for row in read_csv(Path("again.csv"))}
    assert own == {name: pytest.approx(again[name], abs=1e-5) for name in own}
    assert len({round(share, 4) for name, share in again.items() if name.endswith("-2")}) > 2  # "Okay." each time

    write_csv(Path("other.csv"), [["id", "said", "Emotion", "dialogue", "turn"], *rows])
    capfd.readouterr()
    assert run("predict", "run=out", "input=other.csv", "output=x.csv") == 2
    assert "other.csv has no column talk, from which the turns before a text come" in capfd.readouterr().err
    assert not Path("x.csv").exists()
    named = ["data.text=said", "data.labels_column=Emotion", "data.conversation=dialogue"]
    assert (
        run("evaluate", "run=out", "data=file", "data.path=other.csv", *named, "accelerator=cpu", "hydra.run.dir=ev")
        == 0
    )
    scored = {row["id"]: float(row["p_joy"]) for row in read_csv(Path("ev/predictions/test.csv"))}
    assert scored == {name: pytest.approx(share, abs=1e-5) for name, share in again.items()}

    texts = ["Okay.", "We won!"]
    found = load("out", accelerator="cpu").probabilities(texts).numpy()
    np.testing.assert_allclose(answers_of_readme(Path("out/model"), texts), found, atol=1e-5)
