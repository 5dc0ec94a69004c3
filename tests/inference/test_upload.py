"""Models that go to the Hugging Face hub and come back, against a stand-in for it."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL
from helpers.hub_server import OWNER, READING, TOKEN, Hub, Repository, log_in

from emotion_lightning.errors import UserError
from emotion_lightning.inference import hub_card, upload
from emotion_lightning.models.hub import fetch_run
from emotion_lightning.runs import run_folder

NAME = f"{OWNER}/emotions"
TEXTS = ["We won!", "Rain again, and I am so tired of it.", "I never thought they would come."]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub at which this process is logged in, with an empty cache of its own."""
    with Hub() as found:
        log_in(found, tmp_path, monkeypatch)
        yield found


@pytest.fixture
def pushed(server: Hub, finished: Path) -> Hub:
    """A hub that holds the finished run."""
    upload.upload(finished, NAME)
    return server


def probabilities(run: Any, *arguments: str) -> list[list[float]]:
    """What predict writes for the texts."""
    Path("texts.txt").write_text("\n".join(TEXTS))
    assert run("predict", *arguments, "input=texts.txt", "output=answers.csv") == 0
    with open("answers.csv", newline="") as opened:
        return [[float(cell) for name, cell in row.items() if name.startswith("p_")] for row in csv.DictReader(opened)]


def text_of(repository: Repository) -> dict[str, str]:
    """Every file but the weights."""
    return {path: data.decode() for path, data in repository.files.items() if not path.endswith(".safetensors")}


def front_matter(readme: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(readme.split("---\n")[1])
    return found


# ------------------------------------------------------------------------------------------------------- there and back


def test_a_pushed_run_answers_the_same_from_the_hub(run: Any, server: Hub, finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    own = probabilities(run, f"run={moved}")
    assert upload.upload(moved, NAME) == f"{server.url}/{NAME}"
    shutil.rmtree(moved)
    repository = server.repositories[NAME]
    assert repository.private
    assert {"README.md", "adapter_model.safetensors", "base/model.safetensors"} < repository.files.keys()
    assert probabilities(run, f"run=hf:{NAME}") == own
    assert run("predict", f"run=hf:{NAME}", "text=We won!") == 0


def test_predict_averages_and_evaluate_scores_what_lies_on_the_hub(
    run: Any, pushed: Hub, finished: Path, tmp_path: Path
) -> None:
    assert probabilities(run, f"run=[{finished},hf:{NAME}]") == probabilities(run, f"run={finished}")
    assert run("evaluate", f"run=hf:{NAME}", "data=sample", "data.max_rows=96", "hydra.run.dir=scored") == 0
    scored, own = (
        json.loads((folder / "metrics.json").read_text())["test"] for folder in (tmp_path / "scored", finished)
    )
    assert scored["global"] == own["global"]


def test_a_run_starts_from_the_hub_and_writes_down_the_commit(run: Any, pushed: Hub, tmp_path: Path) -> None:
    arguments = [*SMALL, "trainer=debug", "hydra.run.dir=out"]
    assert run("train", *arguments, f"init_from=hf:{NAME}") == 0
    commit = pushed.repositories[NAME].sha(1)
    assert run_folder.read_settings(tmp_path / "out")["init_from"] == f"hf:{NAME}@{commit}"


def test_a_revision_is_what_it_was(run: Any, pushed: Hub, finished: Path, tmp_path: Path) -> None:
    repository = pushed.repositories[NAME]
    repository.tags["v1"] = 1
    before = probabilities(run, f"run={finished}")
    metadata = json.loads(repository.files["emotion_lightning.json"])
    metadata["max_tokens"] = 4
    changed = {**repository.files, "emotion_lightning.json": json.dumps(metadata).encode()}
    del changed["SHA256SUMS"]  # of the card as it was
    repository.commits.append(changed)
    assert probabilities(run, f"run=hf:{NAME}@v1") == before
    assert probabilities(run, f"run=hf:{NAME}@{repository.sha(1)}") == before
    assert probabilities(run, f"run=hf:{NAME}") != before
    assert probabilities(run, f"run=hf:{NAME}@main") != before


def test_what_is_no_data_is_not_fetched(run: Any, pushed: Hub) -> None:
    repository = pushed.repositories[NAME]
    hostile = {
        "pytorch_model.bin": b"p",
        "training_args.bin": b"p",
        "modeling.py": b"p",
        "x.pt": b"p",
        "base/a.ckpt": b"p",
    }
    repository.commits.append({**repository.files, **hostile})
    folder = Path(fetch_run(f"hf:{NAME}"))
    assert {file.suffix or file.name for file in folder.rglob("*") if file.is_file()} == {
        ".json",
        ".safetensors",
        "SHA256SUMS",
    }
    assert not any(path in line for path in hostile for line in pushed.asked)


def test_the_cache_answers_without_the_hub(run: Any, pushed: Hub, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from huggingface_hub import constants

    first = probabilities(run, f"run=hf:{NAME}")
    pushed.broken = True
    assert probabilities(run, f"run=hf:{NAME}") == first
    assert "taken from the cache" in capfd.readouterr().err
    pushed.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert probabilities(run, f"run=hf:{NAME}") == first
    assert pushed.asked == []
    assert run("predict", "run=hf:me/other", "text=We won!") == 2
    assert "HF_HUB_OFFLINE=1 forbids" in capfd.readouterr().err
    blobs = Path(constants.HF_HUB_CACHE, "models--me--emotions")
    next(blobs.rglob("adapter_model.safetensors")).unlink()
    assert run("predict", f"run=hf:{NAME}", "text=We won!") == 2
    assert "or not all of it" in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------------- what is told


def test_the_card_tells_a_stranger_what_it_is(pushed: Hub, finished: Path) -> None:
    readme = pushed.repositories[NAME].files["README.md"].decode()
    front = front_matter(readme)
    assert front["license"] == "apache-2.0" and front["pipeline_tag"] == "text-classification"
    assert front["library_name"] == "peft" and front["language"] == "en"
    scores = json.loads((finished / "metrics.json").read_text())["test"]
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test"
    raised = {(m["type"], m["args"]["average"], m["args"].get("thresholds")): m["value"] for m in result["metrics"]}
    for protocol in ("fixed", "global", "per_label"):
        assert raised["f1", "macro", protocol] == pytest.approx(scores[protocol]["f1_macro"], abs=1e-4)
        assert raised["jaccard", "samples", protocol] == pytest.approx(scores[protocol]["jaccard"], abs=1e-4)
    assert result["metrics"][0]["name"] == "macro F1, one threshold, fitted on validation"
    for heading in (
        "What it is for",
        "Limits",
        "Use it",
        "Labels and thresholds",
        "Scores",
        "Data",
        "Training",
        "Licence",
    ):
        assert f"\n## {heading}\n" in readme
    assert f"hf:{NAME}" in readme and "random weights" in readme
    threshold = json.loads((finished / "model" / "emotion_lightning.json").read_text())["thresholds"]["global"]["joy"]
    assert re.search(rf"\n\| joy \| \d+ \| {threshold:.3f} \| ", readme)
    # Blank lines would end a table.
    assert not re.search(r"\|\n\n\|", readme)


def test_the_card_s_code_gives_the_run_s_answers_without_this_project(
    pushed: Hub, finished: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_lightning import load

    readme = pushed.repositories[NAME].files["README.md"].decode()
    code = next(part for part in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "PeftModel" in part)
    found: dict[str, Any] = {}
    exec(code, found)
    (own,) = load(finished, accelerator="cpu").predict(["I never thought they would come."])
    # bitsandbytes' own kernel for prediction computes in bfloat16 on some CPUs.
    assert found["probabilities"][0].tolist() == pytest.approx(list(own.probabilities.values()), abs=2e-3)


def test_nothing_that_is_uploaded_tells_of_this_machine(server: Hub, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    metadata = json.loads((run / "model" / "emotion_lightning.json").read_text())
    metadata["data"] |= {"option": "file", "path": "/home/jane/clients/acme/my.csv", "cache_dir": "~/cache"}
    metadata["data_hashes"] = {"/home/jane/clients/acme/my.csv": "0" * 64}
    (run / "model" / "emotion_lightning.json").write_text(json.dumps(metadata))
    (run / "model" / "SHA256SUMS").unlink()  # of the card as it was
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["data"]["path"] = "C:\\Users\\jane\\my.csv"
    settings["logger"] |= {"entity": "janes-team", "project": "secret-project"}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    upload.upload(run, NAME)
    for path, text in text_of(server.repositories[NAME]).items():
        for trace in (
            str(tmp_path),
            str(finished.parent),
            str(Path.home()) + "/",
            "jane",
            "acme",
            "secret-project",
            TOKEN,
        ):
            assert trace not in text, (path, trace)
    adapter = json.loads(server.repositories[NAME].files["adapter_config.json"])
    assert adapter["base_model_name_or_path"] == "base"
    assert front_matter(server.repositories[NAME].files["README.md"].decode()).get("language") is None


def test_a_model_of_gemma_goes_with_its_notice(finished: Path) -> None:
    from emotion_lightning.models.metadata import read_metadata

    metadata = read_metadata(finished / "model")
    metadata = metadata.with_base(pretrained=True, local=False, path="google/gemma-1.1-2b-it", revision=None)
    metadata.data |= {"option": "semeval2018", "language": "Es"}
    facts = hub_card.ModelCardFacts(
        NAME, metadata, hub_card.Form.adapter, metadata.base.path, hub_card.GEMMA_LICENCE, None, None
    )
    files = hub_card.card_files(facts)
    readme, notice = (bytes(files[name]).decode() for name in ("README.md", "NOTICE"))
    words = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    assert words in readme and words in notice
    assert "https://ai.google.dev/gemma/prohibited_use_policy" in readme
    front = front_matter(readme)
    assert front["license"] == "gemma" and front["base_model"] == "google/gemma-1.1-2b-it"
    assert front["base_model_relation"] == "adapter" and front["language"] == "es"
    assert front["datasets"] == ["SemEvalWorkshop/sem_eval_2018_task_1"]
    assert "may not be passed on" in readme and "scores were not at hand" in readme


@pytest.mark.parametrize(
    ("option", "languages", "name", "told", "language"),
    [
        ("xed", ["fi"], "Helsinki-NLP/xed_en_fi", "CC BY 4.0", "fi"),
        ("brighter", ["deu", "swe"], None, "no licence that lets others pass it on", None),
    ],
)
def test_a_model_of_an_official_dataset_names_its_licence(
    finished: Path, option: str, languages: list[str], name: str | None, told: str, language: str | None
) -> None:
    from emotion_lightning.models.metadata import read_metadata

    metadata = read_metadata(finished / "model")
    metadata.data |= {"option": option, "languages": languages}
    facts = hub_card.ModelCardFacts(NAME, metadata, hub_card.Form.adapter, metadata.base.path, None, None, None)
    readme = bytes(hub_card.card_files(facts)["README.md"]).decode()
    front = front_matter(readme)
    assert told in readme and front.get("language") == language
    assert front.get("datasets") == (None if name is None else [name])


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "name", ["emotions", "a/b/c", "me/", "/emotions", "me/emo tions", "me/..", "hf:me/emotions", ""]
)
def test_a_name_that_is_none_is_refused_before_anything_else(server: Hub, finished: Path, name: str) -> None:
    with pytest.raises(UserError, match="give user/name"):
        upload.upload(finished, name)
    assert server.asked == []


@pytest.mark.parametrize("run_name", ["hf:emotions", "hf:", "hf://me/emotions", "hf:me/emotions@", "hf:me/a b"])
def test_a_run_that_is_no_name_is_refused_before_the_hub_is_asked(
    run: Any, server: Hub, run_name: str, capfd: Any
) -> None:
    assert run("predict", f"run={run_name}", "text=We won!") == 2
    assert f"run={run_name} " in capfd.readouterr().err
    assert run("train", *SMALL, f"init_from={run_name}", "hydra.run.dir=out") == 2
    assert f"init_from={run_name} " in capfd.readouterr().err
    assert server.asked == []


def test_a_folder_without_a_whole_model_is_not_pushed(server: Hub, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "metrics.json").rename(run / "kept.json")
    with pytest.raises(UserError, match="has not finished training"):
        upload.upload(run, NAME)
    (run / "kept.json").rename(run / "metrics.json")
    weights = run / "model" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is damaged"):
        upload.upload(run, NAME)
    weights.unlink()
    with pytest.raises(UserError, match="its weights is missing"):
        upload.upload(run / "model", NAME)
    (run / "model" / "emotion_lightning.json").unlink()
    with pytest.raises(UserError, match="no trained model"):
        upload.upload(run, NAME)
    assert server.asked == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("notes.txt", "token: hf_" + "Q7" * 17),
        (".env", "OPENAI_API_KEY=sk-" + "x9" * 20),
        ("emotion_lightning.json", "https://jane:hunter22@example.org/data.csv"),
        ("emotion_lightning.json", "the value of the variable"),
        ("adapter_model.safetensors", "ghp_" + "Z4" * 18),
    ],
)
def test_nothing_is_uploaded_from_a_folder_that_holds_a_secret(
    server: Hub, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("OTHER_API_KEY", "the value of the variable")
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    place = run / "model" / file
    if file == "emotion_lightning.json":
        metadata = json.loads(place.read_text())
        metadata["data"]["path"] = content
        place.write_text(json.dumps(metadata))
    elif file.endswith(".safetensors"):
        save_file(load_file(place), place, metadata={"by": content})
    else:
        place.write_text(f"# notes\n{content}\n")
    with pytest.raises(UserError, match=re.escape(file)) as refused:
        upload.upload(run, NAME)
    assert content not in str(refused.value)
    assert server.sent() == [] and NAME not in server.repositories


def test_who_may_not_write_gets_the_steps(
    server: Hub, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token, name, reason in [
        (None, NAME, "nobody is logged in"),
        ("hf_" + "z" * 34, NAME, "does not accept your token"),
        (READING, NAME, "may not write there"),
        (TOKEN, "someone/emotions", "may not write there"),
    ]:
        log_in(server, tmp_path, monkeypatch, token)
        with pytest.raises(UserError) as refused:
            upload.upload(finished, name)
        for words in (f"No access to {name}: ", reason, "hf auth login", "HF_TOKEN", "may write"):
            assert words in str(refused.value), (token, words)
    assert server.repositories == {}
    log_in(server, tmp_path, monkeypatch)
    server.broken = True
    with pytest.raises(UserError, match="cannot be reached, or fails"):
        upload.upload(finished, NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE=1 forbids"):
        upload.upload(finished, NAME)


def test_who_may_not_read_gets_the_steps(
    run: Any, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    server.repositories |= {"me/private": Repository(private=True), "them/gated": Repository(gated=True)}
    server.repositories["them/other"] = Repository()
    for token, name, words in [
        (None, "me/private", "it is private"),
        (TOKEN, "them/none", "does not know it"),
        ("hf_" + "z" * 34, "me/private", "does not accept your token"),
        (None, "them/gated", "terms must be accepted"),
        (TOKEN, "them/gated", f"Accept them on {server.url}/them/gated"),
    ]:
        log_in(server, tmp_path, monkeypatch, token)
        assert run("predict", f"run=hf:{name}", "text=We won!") == 2
        raised = capfd.readouterr().err
        assert raised.startswith(f"No access to {name}: ") and "Traceback" not in raised, raised
        for part in (words, "hf auth login", "HF_TOKEN", "run=FOLDER"):
            assert part in raised, (name, part)
    assert run("predict", "run=hf:them/other", "text=We won!") == 2
    assert "is not a model of this project" in capfd.readouterr().err
    assert run("train", *SMALL, "init_from=hf:them/other@v9", "hydra.run.dir=out") == 2
    assert "them/other has no branch, tag or commit v9" in capfd.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run("predict", "run=hf:them/other", "text=We won!") == 2
    assert "cannot be reached" in capfd.readouterr().err


def test_a_second_push_is_a_new_commit_and_leaves_files_of_others(pushed: Hub, finished: Path, tmp_path: Path) -> None:
    repository = pushed.repositories[NAME]
    repository.commits.append({**repository.files, "notes.md": b"mine", "sub/chart.png": b"p"})
    pushed.asked.clear()
    upload.upload(finished, NAME)
    assert len(repository.commits) == 3  # nothing has changed, so there is no fourth
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    metadata = json.loads((run / "model" / "emotion_lightning.json").read_text())
    metadata["thresholds"]["global"]["joy"] = 0.123
    (run / "model" / "emotion_lightning.json").write_text(json.dumps(metadata))
    (run / "model" / "SHA256SUMS").unlink()
    upload.upload(run, NAME)
    assert len(repository.commits) == 4
    assert repository.files["notes.md"] == b"mine" and "sub/chart.png" in repository.files
    assert "0.123" in repository.files["README.md"].decode()
    assert not any(line.startswith("PUT") for line in pushed.asked)  # the weights are there already


def test_a_place_that_is_taken_is_left_alone(server: Hub, finished: Path) -> None:
    server.repositories |= {
        "me/public": Repository(private=False),
        "me/bert": Repository(private=True, commits=[{"config.json": b"{}", "model.safetensors": b"w"}]),
        "me/merged": Repository(private=True, commits=[{"emotion_lightning.json": b"{}", "config.json": b"{}"}]),
    }
    for name, words in [
        ("me/public", "is public already: push it with private=false"),
        ("me/bert", r"holds another model \(config.json\)"),
        ("me/merged", r"holds it in another form \(config.json\)"),
    ]:
        with pytest.raises(UserError, match=words):
            upload.upload(finished, name)
        assert len(server.repositories[name].commits) == 1
    upload.upload(finished, "me/public", private=False)
    assert "README.md" in server.repositories["me/public"].files


def test_a_new_public_repository_is_public(server: Hub, finished: Path) -> None:
    upload.upload(finished, NAME, private=False)
    assert not server.repositories[NAME].private


# ------------------------------------------------------------------------------------------------------------ exported


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_export_pushes_what_it_wrote(run: Any, server: Hub, finished: Path, tmp_path: Path, form: str) -> None:
    line = ["export", f"run={finished}", "output=out", f"format={form}", f"push={NAME}", "accelerator=cpu"]
    assert run(*line) == 0
    repository = server.repositories[NAME]
    assert repository.private
    readme = repository.files["README.md"].decode()
    assert front_matter(readme)["library_name"] == {"adapter": "peft", "merged": "transformers"}[form]
    assert front_matter(readme)["model-index"] and "`export.json`" in readme
    assert not any(str(tmp_path) in text or str(finished) in text for text in text_of(repository).values())
    assert probabilities(run, f"run=hf:{NAME}") == probabilities(run, "run=out")


def test_export_refuses_what_cannot_be_pushed_before_it_works(
    run: Any, server: Hub, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    log_in(server, tmp_path, monkeypatch, None)
    for arguments, words in [
        (["push=emotions"], "push=emotions is no name on the hub"),
        (["private=false"], "private=false is for push=user/name"),
        ([f"push={NAME}"], "nobody is logged in"),
    ]:
        assert run("export", f"run={finished}", "output=out", "format=adapter", *arguments) == 2
        assert words in capfd.readouterr().err
        assert not Path("out").exists()
    assert server.asked == []


def test_large_files_that_models_of_the_cache_share_are_read(run: Any, pushed: Hub, tmp_path: Path) -> None:
    folder = Path(fetch_run(f"hf:{NAME}"))
    before = probabilities(run, f"run={folder}")
    # As the client lays out what comes by xet, which the stand-in does not speak.
    for weights in folder.rglob("*.safetensors"):
        blob = weights.resolve()
        shared = tmp_path / "hub" / "blobs" / blob.name[:2] / blob.name
        shared.parent.mkdir(parents=True, exist_ok=True)
        blob.rename(shared)
        blob.symlink_to(Path("..", "..", "blobs", blob.name[:2], blob.name))
    assert probabilities(run, f"run=hf:{NAME}") == before
