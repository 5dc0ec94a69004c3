"""The folder of a Hugging Face Space: what it holds, and that its page computes what `predict` does."""

import ast
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("onnxruntime")

from helpers.hub_server import OWNER, TOKEN, Hub, Repository, log_in
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from emotion_lightning import config, load
from emotion_lightning.config import CleaningStep
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.data.long_texts import LongTexts
from emotion_lightning.data.template import Template
from emotion_lightning.errors import UserError
from emotion_lightning.inference import hub_card, space, space_app, upload
from emotion_lightning.models import model_folder
from emotion_lightning.models.metadata import METADATA, Metadata, read_metadata

HOSTILE = ["<img src=x onerror=alert(1)>", "**b** [a](javascript:alert(2))", "a|b", "فرح"]
TEXTS = [
    "We won!",
    "Rain again, and the boiler is out. Lovely start, that. " * 6,
    "No.",
    "👍 <eos> @anna1 &lt;3 www.a.b/c",
]


def export(run: Callable[..., int], source: Path, *more: str) -> Path:
    assert run("export", f"run={source}", "output=space", "format=space", *more) == 0
    return Path("space").absolute()


def changed(graph: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the graph with other metadata."""
    copy = Path(shutil.copytree(graph, folder))
    metadata = dataclasses.replace(read_metadata(copy), **changes)
    (copy / METADATA).write_text(json.dumps(metadata.plain()))
    return copy


def renamed(metadata: Metadata, names: list[str]) -> dict[str, Any]:
    """Changes of the metadata that give the first labels these names."""
    new = dict(zip(metadata.labels, [*names, *metadata.labels[len(names) :]], strict=True))
    cuts = {protocol: {new[name]: cut for name, cut in own.items()} for protocol, own in metadata.thresholds.items()}
    return {"labels": list(new.values()), "thresholds": cuts}


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    return found


# -------------------------------------------------------------------------------------------------------- what it holds


def test_a_graph_becomes_a_space(run: Any, graph: Path) -> None:
    folder = export(run, graph)
    assert {file.name for file in folder.iterdir()} == {"README.md", "app.py", "model", "requirements.txt"}
    assert {file.name for file in (folder / "model").iterdir()} == {file.name for file in graph.iterdir()}
    assert (folder / "app.py").read_bytes() == Path(space_app.__file__).read_bytes()
    head = front_matter(folder)
    assert (head["sdk"], head["app_file"], head["license"]) == ("gradio", "app.py", "apache-2.0")
    needed = {one.name: one for one in map(Requirement, (folder / "requirements.txt").read_text().splitlines())}
    assert needed["gradio"].specifier.contains(head["sdk_version"])
    assert not any("==" in str(one) for one in needed.values())  # a Space or a machine may lack one version
    assert len(head["short_description"]) <= 60  # the hub refuses longer ones
    found, own = load(folder, accelerator="cpu").predict(TEXTS), load(graph, accelerator="cpu").predict(TEXTS)
    assert found == own
    assert run("export", f"run={graph}", "output=space", "format=space") == 2  # it stands already


@pytest.mark.slow
def test_a_run_becomes_a_space(run: Any, finished: Path, graph: Path, capfd: Any) -> None:
    folder = export(run, finished)
    assert "onnx, float32" in capfd.readouterr().out
    assert read_metadata(folder / "model").is_graph
    assert not any(str(finished).encode() in file.read_bytes() for file in folder.rglob("*.*"))
    np.testing.assert_allclose(
        load(folder, accelerator="cpu").probabilities(TEXTS), load(graph, accelerator="cpu").probabilities(TEXTS),
        atol=1e-5,
    )  # fmt: skip


def test_the_page_imports_nothing_that_a_space_lacks() -> None:
    tree = ast.parse(Path(space_app.__file__).read_text(encoding="utf-8"))
    names = {part.name for node in ast.walk(tree) if isinstance(node, ast.Import) for part in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert roots == space.REQUIREMENTS.keys() | {"emoji"}


def test_labels_stay_text_in_the_card(run: Any, graph: Path, tmp_path: Path) -> None:
    source = changed(graph, tmp_path / "graph", **renamed(read_metadata(graph), HOSTILE))
    text = (export(run, source) / "README.md").read_text(encoding="utf-8")
    assert "\\<img src=x onerror=alert(1)\\>" in text and "\\*\\*b\\*\\* \\[a\\](javascript" in text and "a\\|b" in text
    assert "<img" not in text.replace("\\<img", "")


def test_emojis_need_a_package(run: Any, graph: Path, tmp_path: Path) -> None:
    folder = export(run, changed(graph, tmp_path / "graph", clean=["emojis"]))
    assert "emoji>=2\n" in (folder / "requirements.txt").read_text()


def test_gemma_takes_its_notice_along(graph: Path, tmp_path: Path) -> None:
    metadata = read_metadata(graph).with_base(tiny=False, pretrained=True, path="gemma-2b", architecture="gemma")
    assert metadata.is_gemma
    text = space._card(metadata)
    assert "license: gemma" in text and "Gemma Prohibited Use Policy" in text
    assert b"Model Derivative of google/gemma-2b" in hub_card.notices(metadata, base="google/gemma-2b")["NOTICE"]
    other = metadata.with_base(architecture="bert")
    assert "license:" not in space._card(other).split("---\n")[1] and "That of the network" in space._card(other)
    assert hub_card.notices(other, base="bert") == {}


# ------------------------------------------------------------------------------------------------ what it computes


def check_page(folder: Path) -> None:
    """Whether the page gives the probabilities and labels of `predict`."""
    classifier, own = space_app.Classifier(folder), load(folder, accelerator="cpu")
    found = classifier.probabilities(TEXTS)
    np.testing.assert_allclose(found, own.probabilities(TEXTS), atol=1e-5)
    assert [classifier.found(shares) for shares in found] == [one.labels for one in own.predict(TEXTS)]


def test_the_page_answers_as_predict(graph: Path) -> None:
    check_page(graph)
    assert space_app.Classifier(graph).probabilities([]).shape == (0, len(read_metadata(graph).labels))


def test_the_page_cleans_and_calibrates(graph: Path, tmp_path: Path) -> None:
    labels = read_metadata(graph).labels
    scaling = {name: {"slope": 1 + place / 4, "offset": place / 3 - 1} for place, name in enumerate(labels)}
    check_page(changed(graph, tmp_path / "graph", clean=[*map(str, CleaningStep)], calibration=scaling, max_tokens=9))


@pytest.mark.parametrize("way", ["cut_end", "cut_start", "middle", "windows"])
@pytest.mark.parametrize("join", ["maximum", "mean"])
def test_the_page_reads_templates_and_long_texts(graph: Path, tmp_path: Path, way: str, join: str) -> None:
    tokenizer = model_folder.load_tokenizer(graph)
    before, after = tokenizer("Tell:")["input_ids"], tokenizer("?", add_special_tokens=False)["input_ids"]
    template = Template(text="Tell: {text}?", before=before, space=" ", after=after)
    own = LongTexts(config.LongTexts(way), overlap=3, most=4, join=config.JoinWindows(join))
    check_page(changed(graph, tmp_path / "graph", max_tokens=20, template=template, long_texts=own))


@given(st.text() | st.lists(st.sampled_from(
    ["\\n", "\\r", "@anna", "a@b.c", "&lt;", "&#128514;", "👍🏽", "http://a.b/c?d=é", "WWW.x.y", " ", "x", "<", '"']
)).map("".join), st.sets(st.sampled_from(list(CleaningStep))))  # fmt: skip
def test_texts_are_cleaned_as_by_predict(text: str, steps: set[CleaningStep]) -> None:
    assert space_app.cleaned(text, [step.value for step in steps]) == cleaner(list(steps))(text)


@given(st.integers(0, 60), st.integers(2, 20), st.data())
def test_long_texts_are_divided_as_by_predict(length: int, room: int, data: st.DataObject) -> None:
    own = LongTexts(
        data.draw(st.sampled_from(config.LongTexts)), data.draw(st.integers(0, room - 1)), data.draw(st.integers(2, 5)),
        config.JoinWindows.mean,
    )  # fmt: skip
    way = json.loads(json.dumps(own.plain()))
    assert space_app.divided(list(range(length)), room, way) == own.pieces(list(range(length)), room)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_page_that_answers_otherwise_is_not_written(run: Any, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_app, "cleaned", lambda text, steps: text[1:])
    assert run("export", f"run={graph}", "output=space", "format=space") == 1
    assert not Path("space").exists()


def test_what_cannot_become_a_space_is_refused(run: Any, graph: Path, tmp_path: Path, capfd: Any) -> None:
    bare = changed(graph, tmp_path / "graph")
    (bare / "tokenizer.json").rename(bare / "vocabulary.json")
    for source, more, said in (
        (graph, ["refit=true"], "is a graph already; give the run that it was made from"),
        (graph, ["dtype=bfloat16"], "leave it out with format=space"),
        (graph, ["base=a/b"], "format=space holds every weight itself"),
        (bare, [], "tokenizer"),
    ):
        assert run("export", f"run={source}", "output=space", "format=space", *more) == 2
        assert said in capfd.readouterr().err and not Path("space").exists()


# ------------------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as found:
        log_in(found, tmp_path, monkeypatch)
        yield found


def test_a_space_is_pushed_and_pushed_again(run: Any, graph: Path, hub: Hub, capfd: Any) -> None:
    folder = export(run, graph, f"push={OWNER}/page")
    space_there = hub.repositories[f"spaces/{OWNER}/page"]
    assert space_there.sdk == "gradio" and space_there.private and f"{OWNER}/page" not in hub.repositories
    assert {path: data for path, data in space_there.files.items() if path != ".gitattributes"} == {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
    assert f"{hub.url}/spaces/{OWNER}/page (private)" in capfd.readouterr().err
    space_there.commits.append({**space_there.files, "notes.md": b"mine"})
    (folder / "README.md").write_text((folder / "README.md").read_text() + "mine\n")
    upload.upload_space(folder, f"{OWNER}/page")
    assert len(space_there.commits) == 4 and space_there.files["notes.md"] == b"mine"
    assert space_there.files["README.md"].endswith(b"mine\n")


def test_other_spaces_are_left_alone(run: Any, graph: Path, hub: Hub, capfd: Any) -> None:
    folder = export(run, graph)
    other = hub.repositories[f"spaces/{OWNER}/other"] = Repository(private=True, commits=[{"app.py": b"1"}])
    public = hub.repositories[f"spaces/{OWNER}/public"] = Repository()
    for name, said in (("other", "is another Space"), ("public", "is public already")):
        with pytest.raises(UserError, match=said):
            upload.upload_space(folder, f"{OWNER}/{name}")
    with (folder / "app.py").open("a") as app:
        app.write(f"# {TOKEN}\n")
    with pytest.raises(UserError, match=r"app.py, line \d+ holds what looks like a token"):
        upload.upload_space(folder, f"{OWNER}/page")
    hub.asked.clear()
    assert run("export", f"run={graph}", "output=new", "format=space", "push=nobody") == 2
    assert hub.sent() == [] and len(other.commits) == len(public.commits) == 1 and not Path("new").exists()


def test_a_new_space_is_public_where_asked(run: Any, graph: Path, hub: Hub) -> None:
    export(run, graph, f"push={OWNER}/page", "private=false")
    assert not hub.repositories[f"spaces/{OWNER}/page"].private
