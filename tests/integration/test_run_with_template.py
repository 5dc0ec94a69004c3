"""A run with a template: stored with the model, and the same at prediction, in exports and in stock code."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, run_in_process
from helpers import exports
from helpers.readme_code import answers_of_readme

from emotion_lightning import load
from emotion_lightning.data.template import Template
from emotion_lightning.errors import UserError
from emotion_lightning.models import model_folder
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import run_folder
from emotion_lightning.training import checkpoint_io

TEXTS = ["I never thought they would come.", "No.", "<eos> Rain again, " + "and the boiler is out. " * 20]
LINES = "Text: {text}\nEmotions ({labels}):"


@pytest.fixture(scope="module")
def run_with_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run in full precision whose template has two lines, quotes and braces in it."""
    folder = tmp_path_factory.mktemp("runs") / "template"
    chosen = ["template=question", "model.quantization=none", "trainer=debug", "data.max_tokens=80"]
    assert run_in_process("train", *SMALL, *chosen, f"hydra.run.dir={folder}") == 0
    return folder


def answers(folder: Path | str, **batches: int) -> np.ndarray:
    return exports.probabilities(folder, TEXTS, **batches)


def test_the_template_is_told_and_stored_with_the_model(run_with_template: Path) -> None:
    metadata = read_metadata(run_with_template / "model")
    template = metadata.template
    assert template is not None and metadata.data["template"] == LINES
    assert template.text == LINES.replace("{labels}", ", ".join(metadata.labels))
    told = (
        f"data.template takes {template.length} of data.max_tokens=80, and leaves {80 - template.length} for the text."
    )
    assert told in (run_with_template / "train.log").read_text()
    (tokens,) = load(run_with_template, accelerator="cpu").tokenize(TEXTS)
    for ids in (tokens[i] for i in range(len(TEXTS))):
        assert ids[: len(template.before)].tolist() == template.before
        assert ids[-len(template.after) :].tolist() == template.after
    assert tokens.lengths.max() == 80
    last = checkpoint_io.load_checkpoint(run_with_template / "checkpoints" / "last.ckpt")
    assert last["identity"]["data.template"] == template.text  # so that it goes on with no other
    # Where the template is lost, the answers are others.
    before = answers(run_with_template)
    without = load(run_with_template, accelerator="cpu")
    without.metadata.template = None
    assert np.abs(without.probabilities(TEXTS).numpy() - before).max() > 1e-4


def test_a_run_is_repeated_with_its_template_or_with_another(settings: Any, run_with_template: Path) -> None:
    from emotion_lightning.cli.compose import settings_of

    source = f"from_run={run_with_template}"
    assert settings_of("train", [source]).data.template == LINES
    assert settings_of("train", [source, "template=chat"]).data.template == "chat"
    assert settings_of("train", [source, "data.template=null"]).data.template is None
    assert "template" not in run_folder.read_settings(run_with_template)["options"]


def test_transformers_alone_gives_the_same_answers_with_the_code_of_the_readme(run_with_template: Path) -> None:
    folder = run_with_template / "model"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    template = read_metadata(folder).template
    assert template is not None and "    Text: {text}\n    Emotions (" in readme
    np.testing.assert_allclose(answers_of_readme(folder, TEXTS), answers(run_with_template), atol=1e-5)


@pytest.mark.parametrize("form", exports.FORMS)
def test_exports_answer_as_the_run_does(run: Any, run_with_template: Path, form: str) -> None:
    exported = exports.check_export(run, run_with_template, form, TEXTS)
    assert exported.template == read_metadata(run_with_template / "model").template
    assert "pipeline(" not in Path(form, "README.md").read_text()  # which gives it the bare texts


def test_a_folder_without_a_template_has_no_such_entry(finished: Path) -> None:
    assert "template" not in json.loads((finished / "model" / METADATA).read_text())
    assert read_metadata(finished / "model").template is None
    assert "template" not in (finished / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"before": [1] * 80}, "is damaged: template"),
        ({"after": ["x"]}, "the template holds something other than token ids"),
        ({"before": [90_000]}, "A token of the template has the id 90000, but the network has vectors for"),
    ],
)
def test_a_damaged_template_is_named(
    run_with_template: Path, tmp_path: Path, damage: dict[str, Any], message: str
) -> None:
    copy = Path(shutil.copytree(run_with_template / "model", tmp_path / "run" / "model"))
    shutil.copytree(run_with_template / "base", tmp_path / "run" / "base")
    content = json.loads((copy / METADATA).read_text())
    content["template"] |= damage
    (copy / METADATA).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load(copy, accelerator="cpu")


def test_members_of_an_ensemble_read_their_own_templates(run_with_template: Path, finished: Path) -> None:
    both = load([run_with_template, finished], accelerator="cpu")
    mean = (torch.tensor(answers(run_with_template)).double() + torch.tensor(answers(finished)).double()) / 2
    torch.testing.assert_close(both.probabilities(TEXTS).double(), mean, atol=1e-6, rtol=0)
    first, second = both.tokenize(["No."])
    assert len(first[0]) > len(second[0])


def test_the_tokenizer_of_the_folder_is_not_changed_by_a_template(run_with_template: Path) -> None:
    tokenizer = model_folder.load_tokenizer(run_with_template / "model")
    assert tokenizer("<eos>", add_special_tokens=False)["input_ids"] == [tokenizer.eos_token_id]
    assert isinstance(read_metadata(run_with_template / "model").template, Template)
