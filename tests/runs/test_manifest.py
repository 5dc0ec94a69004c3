"""Files that changed by themselves are noticed before they are used; files are looked at before they are opened."""

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from emotion_lightning.cli import multirun
from emotion_lightning.errors import UserError
from emotion_lightning.models import backbone, safe_loading
from emotion_lightning.runs import bounded_files, manifest, run_folder
from emotion_lightning.runs.files import write_bytes
from emotion_lightning.training import checkpoint_io
from emotion_lightning.tuning import trial


@pytest.fixture(autouse=True)
def with_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are checked, as they are for users."""
    monkeypatch.delenv(manifest.SKIP)


def flip(file: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    file.write_bytes(content)


def test_the_list_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a b.json").write_text("{}")
    (tmp_path / ".part").write_text("hidden")
    manifest.write_hashes(tmp_path)
    assert (tmp_path / manifest.NAME).read_text() == f"{hashlib.sha256(b'{}').hexdigest()}  base/a b.json\n"
    manifest.check_hashes(tmp_path, "*")
    flip(tmp_path / "base" / "a b.json")
    manifest.check_hashes(tmp_path, "*.safetensors")
    with pytest.raises(UserError, match=r"base/a b\.json is not as it was written"):
        manifest.check_hashes(tmp_path, "*.json")


@pytest.mark.parametrize("line", ["", "abc  file", f"{'0' * 64}  ../file", f"{'0' * 64}  /file", f"{'0' * 64}file"])
def test_a_damaged_list_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / manifest.NAME).write_text(f"{'0' * 64}  whole\n{line}\n")
    with pytest.raises(UserError, match="SHA256SUMS, line 2 is damaged"):
        manifest.check_hashes(tmp_path, "*")


def test_the_check_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / manifest.NAME).write_text(f"{'0' * 64}  file\n")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        manifest.check_hashes(tmp_path, "*")
    monkeypatch.setenv(manifest.SKIP, "1")
    manifest.check_hashes(tmp_path, "*")


def test_the_bundled_network_is_as_it_was_written() -> None:
    for folder in (backbone.BUNDLED, backbone.BUNDLED_RUN / run_folder.MODEL):
        listed = manifest.read_hashes(folder / manifest.NAME)
        assert listed.keys() == {file.name for file in folder.iterdir()} - {manifest.NAME}
        manifest.check_hashes(folder, "*")


@pytest.mark.parametrize(
    "name", ["model/adapter_model.safetensors", "model/emotion_lightning.json", "model/tokenizer.json",
             "base/model.safetensors", "base/config.json"],
)  # fmt: skip
def test_a_changed_file_of_a_run_is_named(run: Any, finished: Path, tmp_path: Path, capfd: Any, name: str) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    # A bit of a number or a letter, so that the file can still be read.
    flip(folder / name) if name.endswith("safetensors") else (folder / name).write_text(
        (folder / name).read_text().replace("1", "2", 1)
    )
    assert run("predict", "run=run", "text=We won!") == 2
    assert f"{Path(name).name} is not as it was written" in capfd.readouterr().err


def test_an_older_run_without_a_list_is_read_with_one_line(
    run: Any, finished: Path, tmp_path: Path, capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for file in (folder / "model" / manifest.NAME, folder / "base" / manifest.NAME):
        file.unlink()
    assert run("predict", "run=run", "text=We won!") == 0
    assert "has no SHA256SUMS" in caplog.text + capfd.readouterr().err


# ------------------------------------------------------------------------------------------------------- a run's root


def other_loss(file: Path) -> None:
    content = json.loads(file.read_text())
    content["validation"]["loss"] += 1
    file.write_text(json.dumps(content))


def other_compression(file: Path) -> None:
    """The same rows in other bytes: nothing but the hash tells."""
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(file), file, compression="gzip")


def other_digit(file: Path) -> None:
    head, _, rest = file.read_text().partition(",0.")
    assert rest
    file.write_text(f"{head},0.0{rest}")


def one_more_line(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


def test_a_finished_run_lists_the_files_in_its_root(finished: Path) -> None:
    listed = manifest.read_hashes(finished / manifest.NAME)
    assert {
        "settings.yaml", "environment.json", "history.csv", "metrics.json", "report.html", "outcomes/test.parquet",
        "outcomes/validation.parquet", "predictions/test.csv", "predictions/validation.csv",
    } <= listed.keys()  # fmt: skip
    assert not [name for name in listed if name.startswith(("model/", "base/", "checkpoints/", "train.log", "wandb"))]
    manifest.check_hashes(finished, "*")


COMPARED = ["compare", "runs=[run,other]", "split=validation"]
TRAINED = ["train", "logger=none", "trainer=debug"]


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("metrics.json", other_loss, COMPARED),
        ("settings.yaml", one_more_line, COMPARED),
        ("outcomes/validation.parquet", other_compression, COMPARED),
        ("outcomes/validation.parquet", other_compression, ["evaluate", "run=[run,other]"]),
        ("metrics.json", other_loss, ["export", "run=run", "output=out", "format=adapter"]),
        ("settings.yaml", one_more_line, ["train", "from_run=run", "trainer=debug"]),
        ("settings.yaml", one_more_line, ["train", "resume=run"]),
        ("predictions/test.csv", other_digit, [*TRAINED, "distill.answers=run/predictions/test.csv"]),
    ],
)
def test_a_changed_file_of_a_runs_root_is_named(
    run: Any, finished: Path, tmp_path: Path, capfd: Any, name: str, change: Any, line: list[str]
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.copytree(finished, tmp_path / "other")
    change(folder / name)
    place = [] if "export" in line or "resume=run" in line else ["hydra.run.dir=out"]
    assert run(*line, *place) == 2
    assert f"{name} is not as it was written: its SHA-256" in capfd.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_study_and_a_table_of_jobs_take_no_changed_scores(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    assert trial.measure(folder, "global") and multirun._scores(folder, "global")
    other_loss(folder / "metrics.json")
    with pytest.raises(UserError, match=r"metrics\.json is not as it was written"):
        trial.measure(folder, "global")
    assert multirun._scores(folder, "global") == {}
    assert "metrics.json is not as it was written" in caplog.text


def test_an_older_run_whose_root_has_no_list_is_read_with_one_line(
    run: Any, finished: Path, tmp_path: Path, capfd: Any
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / manifest.NAME).unlink()
    other_compression(folder / "outcomes" / "test.parquet")
    assert run("compare", f"runs=[run,{finished}]", "hydra.run.dir=out") == 0
    assert capfd.readouterr().err.count("has no SHA256SUMS") == 1


def test_what_is_written_again_is_listed_again(run: Any, finished: Path, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        assert run("evaluate", f"run={finished}", f"split={split}", "hydra.run.dir=out") == 0
        listed = manifest.read_hashes(tmp_path / "out" / manifest.NAME)
        assert {"metrics.json", f"predictions/{split}.csv", f"outcomes/{split}.parquet"} <= listed.keys()
        manifest.check_hashes(tmp_path / "out", "*")


def test_scores_that_were_not_written_mark_no_run_as_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text("options: {}\n")
    write = write_bytes

    def full(file: Path, content: bytes) -> None:
        if file.name == "metrics.json":
            raise UserError("the disk is full")
        write(file, content)

    monkeypatch.setattr(manifest, "write_bytes", full)
    with pytest.raises(UserError, match="full"):
        manifest.finish_run(tmp_path, {"validation": {}})
    (tmp_path / "settings.yaml").write_text("options: {a: b}\n")
    manifest.check_run_hashes(tmp_path, "*")  # of a run that goes on
    monkeypatch.undo()
    manifest.finish_run(tmp_path, {"validation": {}})
    manifest.check_hashes(tmp_path, "*")


def test_a_changed_checkpoint_is_noticed(tmp_path: Path) -> None:
    content = {"state_dict": {"weight": torch.zeros(4096)}, "pytorch-lightning_version": "2.6.6"}
    torch.save(content, tmp_path / "last.ckpt")
    assert checkpoint_io.load_checkpoint(tmp_path / "last.ckpt").keys() == content.keys()
    flip(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)  # fails where torch has learned to look at its checksums
    with pytest.raises(UserError, match="is not a whole checkpoint"):
        checkpoint_io.load_checkpoint(tmp_path / "last.ckpt")


def test_weights_of_whole_numbers_are_refused(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 1}')
    safe_loading.check_base(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    file.write_bytes(content[:8] + content[8 : 8 + length].replace(b"F32", b"I32") + content[8 + length :])
    with pytest.raises(UserError, match=r"layer\.weight holds numbers of type I32"):
        safe_loading.check_base(tmp_path)


def test_a_network_of_more_layers_than_tensors_is_refused(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"text_config": {"num_hidden_layers": 100000}}')
    with pytest.raises(UserError, match="num_hidden_layers is 100,000, where the weights have 1 tensors"):
        safe_loading.check_base(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("9" * 5000, "is not valid JSON"),
        ("[" * 10_000 + "]" * 10_000, "nested more than 100 levels"),
        ("[" * 200 + "]" * 200, "nested more than 100 levels"),
        ("{", "is not valid JSON"),
        ("[1]", "holds no JSON object"),
    ],
)
def test_json_is_read_within_bounds(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=message):
        bounded_files.read_json_object(tmp_path / "x.json")


@pytest.mark.parametrize("content", ["a: " + "9" * 5000, "[" * 10_000, "a: [", "a: \x01", "? [a]: 1\n: {"])
def test_yaml_is_read_within_bounds(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=r"x\.yaml (cannot be read|is damaged)"):
        bounded_files.read_yaml(tmp_path / "x.yaml")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "gone.json").symlink_to("nothing")
    with pytest.raises(UserError, match="a named pipe; it is not opened"):
        bounded_files.read_json(tmp_path / "pipe.json")
    with pytest.raises(UserError, match=r"pipe\.json is no regular file|link to nothing"):
        bounded_files.check_folder(tmp_path)
    (tmp_path / "big.json").write_bytes(json.dumps("x" * 100).encode())
    with pytest.raises(UserError, match="has 102 bytes, where 10 are the most"):
        bounded_files.read_text(tmp_path / "big.json", limit=10)
