"""A run taken elsewhere: what each format holds, that it answers as the run does, and what is refused."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, run_in_process
from safetensors.torch import load_file

from emotion_lightning import load
from emotion_lightning.inference import exporter, onnx_graph
from emotion_lightning.inference.predictor import GraphPredictor
from emotion_lightning.models import model_folder, pooling
from emotion_lightning.models.metadata import METADATA, read_metadata
from emotion_lightning.runs import bounded_files, extras

TEXTS = ["I never thought they would come.", "No.", "Rain again, and the boiler is out. Lovely start, that."]
ENCODER = [o for o in SMALL if "head_dim" not in o] + [
    "model.pretrained=false", "model.architecture.vocab_size=8192", "model.dtype=float32", "trainer=debug",
]  # fmt: skip


def export(run: Any, source: Path, form: str, *settings: str, output: str = "out") -> dict[str, Any]:
    assert run("export", f"run={source}", f"output={output}", f"format={form}", *settings) == 0
    found: dict[str, Any] = bounded_files.read_json(Path(output) / exporter.REPORT)
    return found


def answers(folder: Path | str, **batches: int) -> torch.Tensor:
    return load(folder, accelerator="cpu").probabilities(TEXTS, **batches)


def nothing_of_this_machine(folder: Path, *places: Path) -> bool:
    """Whether no file of a folder names one of these places."""
    return not any(str(place).encode() in file.read_bytes() for place in places for file in folder.rglob("*.*"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that pools by the mean, which Transformers' own class does not."""
    folder = tmp_path_factory.mktemp("runs") / "encoder"
    assert run_in_process("train", "model=minilm", "model.pooling=mean", *ENCODER, f"hydra.run.dir={folder}") == 0
    return folder


# ------------------------------------------------------------------------------------------------------------- adapter


def test_an_adapter_answers_without_its_run(run: Any, finished: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(finished, tmp_path / "run"))
    before = answers(moved)
    found = export(run, moved, "adapter")
    shutil.rmtree(moved)
    assert answers("out").equal(before)
    assert nothing_of_this_machine(Path("out"), moved, finished)
    assert found["weights"][-1]["from_run"] < 1e-6
    trained, base = (Path("out", f"{name}.safetensors").stat().st_size for name in ("adapter_model", "base/model"))
    assert [form["bytes"] for form in found["weights"]] == [trained + base] * 2
    assert found["weights"][0]["f1_macro"] == pytest.approx(found["weights"][1]["f1_macro"])
    again = export(run, Path("out"), "adapter", output="again")
    assert again["weights"][0]["bytes"] == trained + base
    assert answers("again").equal(before) and again["rows"] == "validation"  # the sample's rows are at hand anywhere


def test_an_adapter_names_a_base_of_the_hub_instead_of_a_copy(run: Any, finished: Path) -> None:
    export(run, finished, "adapter", "base=somebody/gemma")
    metadata = read_metadata(Path("out"))
    assert metadata.base.path == "somebody/gemma" and not metadata.base.local and not Path("out/base").exists()
    assert bounded_files.read_json(Path("out/adapter_config.json"))["base_model_name_or_path"] == "somebody/gemma"


# -------------------------------------------------------------------------------------------------------------- merged


def test_a_merged_folder_answers_in_a_stock_pipeline(run: Any, finished: Path, capfd: Any) -> None:
    found = export(run, finished, "merged")
    assert found["merged_from_unmerged"] < 1e-5
    # The adapter was trained on 4-bit weights, which the merged ones are not.
    assert 0 < found["weights"][-1]["from_run"] < 0.1
    raised = capfd.readouterr()
    assert "Merged and unmerged" in raised.out and "pools or attends otherwise" not in raised.err
    from transformers import pipeline

    emotions = pipeline("text-classification", model="out", top_k=None, function_to_apply="sigmoid", device="cpu")
    names = read_metadata(Path("out")).labels
    for found, own in zip(emotions(TEXTS), answers("out"), strict=True):
        stock = {answer["label"]: answer["score"] for answer in found}
        np.testing.assert_allclose([stock[name] for name in names], own, atol=1e-5)
    long = "again " * 400
    (threshold,) = emotions([long], truncation=True)
    own = load("out", accelerator="cpu").predict([long])[0].probabilities
    assert {answer["label"]: answer["score"] for answer in threshold} == pytest.approx(own, abs=1e-5)
    assert nothing_of_this_machine(Path("out"), finished)


@pytest.mark.parametrize(
    "method",
    [
        "ia3_all",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("dora", "vera", "full")),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("lora", "ln_tuning", "head")),
    ],
)
def test_every_method_can_be_merged(run: Any, tmp_path: Path, method: str) -> None:
    form = "none" if method == "full" else "nf4"
    rates = ["optimizer.lr=0.05", "optimizer.head_lr=0.05"]  # so that what was trained shows
    assert run("train", *SMALL, *rates, "trainer=debug", f"peft={method}", f"model.quantization={form}",
               "hydra.run.dir=run") == 0  # fmt: skip
    found = export(run, tmp_path / "run", "merged")
    assert load_file("out/model.safetensors").keys() == load_file("run/base/model.safetensors").keys()
    assert ("merged_from_unmerged" in found) == (method != "full")
    if method == "full":
        torch.testing.assert_close(answers("out"), answers("run"), atol=1e-6, rtol=0)
    else:
        torch.testing.assert_close(answers("out"), answers("run"), atol=0.05, rtol=0)


def test_other_pooling_than_transformers_is_told(run: Any, encoder: Path, capfd: Any) -> None:
    export(run, encoder, "merged")
    assert "take format=onnx, which holds the pooling" in capfd.readouterr().err
    assert "would give other probabilities" in " ".join(Path("out/README.md").read_text().split())
    torch.testing.assert_close(answers("out"), answers(encoder), atol=1e-5, rtol=0)


def test_thresholds_are_fitted_anew_where_asked(run: Any, finished: Path) -> None:
    export(run, finished, "merged", output="kept")
    found = export(run, finished, "merged", "refit=true")
    own, kept, fitted = (read_metadata(Path(f)).thresholds for f in (finished / "model", "kept", "out"))
    assert kept == own and fitted["per_label"] != own["per_label"]
    assert found["thresholds"]["are"] == "fitted anew"


def test_half_the_size_where_asked(run: Any, finished: Path) -> None:
    export(run, finished, "merged", "dtype=bfloat16")
    assert {value.dtype for value in load_file("out/model.safetensors").values()} == {torch.bfloat16}
    torch.testing.assert_close(answers("out"), answers(finished), atol=0.05, rtol=0)


def test_a_merged_folder_is_scored_and_started_from(run: Any, finished: Path) -> None:
    export(run, finished, "merged")
    assert run("evaluate", "run=out", "data.max_rows=50", "data=sample", "hydra.run.dir=scored") == 0
    full = [*SMALL, "peft=full", "model.quantization=none", "trainer=debug"]
    assert run("train", *full, "init_from=out", "hydra.run.dir=next") == 0


def test_an_adapter_is_started_from(run: Any, finished: Path) -> None:
    export(run, finished, "adapter")
    assert run("train", *SMALL, "trainer=debug", "init_from=out", "hydra.run.dir=next") == 0


# ---------------------------------------------------------------------------------------------------------------- ONNX


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", pytest.param("onnx_int8", marks=pytest.mark.exhaustive)])
def test_a_graph_answers_as_the_network_in_batches_of_any_size(
    run: Any, finished: Path, encoder: Path, graph: Path, form: str
) -> None:
    for source in (finished, encoder):
        output = f"{source.name}_{form}"
        if source == finished and form == "onnx":
            output = str(graph)
            found = bounded_files.read_json(graph / exporter.REPORT)
        else:
            found = export(run, source, form, output=output)
        assert found["onnx_from_torch"] < 1e-5
        forms = {entry["name"]: entry for entry in found["weights"]}
        assert forms["onnx, float32"]["f1_macro"] == pytest.approx(forms["torch, float32"]["f1_macro"], abs=1e-9)
        together = answers(output)
        torch.testing.assert_close(together, answers(source), atol=0.05, rtol=0)
        if form == "onnx":
            torch.testing.assert_close(together, answers(output, batch_size=1), atol=1e-5, rtol=0)
        else:
            assert forms["onnx, int8"]["bytes"] < 0.6 * forms["onnx, float32"]["bytes"]
        assert nothing_of_this_machine(Path(output), source)
        assert sorted(f.name for f in Path(output).iterdir() if "onnx" in f.name) == ["model.onnx"]
        assert run("predict", f"run={output}", "text=We won!", "accelerator=cpu") == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", ["onnx", "onnx_int8"])
def test_a_graph_too_large_for_one_file_has_its_weights_beside_it(
    run: Any, finished: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_graph, "_ONE_FILE", 0)
    export(run, finished, form)
    names = sorted(file.name for file in Path("out").iterdir() if "onnx" in file.name)
    assert names == ["model.onnx", "model.onnx.data"]
    torch.testing.assert_close(answers("out"), answers(finished), atol=0.05, rtol=0)


def test_shapes_that_an_exporter_wrote_wrongly_do_not_stop_quantising(
    finished: Path, graph: Path, tmp_path: Path
) -> None:
    import onnx

    out = Path(shutil.copytree(graph, tmp_path / "out"))
    whole = onnx.load(out / "model.onnx")
    product = next(node for node in whole.graph.node if node.op_type == "MatMul")
    kept = [value for value in whole.graph.value_info if value.name != product.output[0]]
    del whole.graph.value_info[:]
    wrong = onnx.helper.make_tensor_value_info(product.output[0], onnx.TensorProto.FLOAT, [7])
    whole.graph.value_info.extend([*kept, wrong])
    onnx.save(whole, out / "model.onnx")
    onnx_graph.quantize_graph(out)
    (out / "SHA256SUMS").unlink()
    torch.testing.assert_close(answers(out), answers(finished), atol=0.05, rtol=0)


EXACT = ["model.quantization=none", "model.dtype=float32"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["model=gemma2", "model.pretrained=false", *SMALL, "model.architecture.vocab_size=8192",
                      "model.architecture.num_key_value_heads=1", "trainer=debug", *EXACT],
                     marks=pytest.mark.exhaustive),
        pytest.param(["model=gemma3", "model.pretrained=false", *SMALL, "model.architecture.vocab_size=8192",
                      "trainer=debug", "model.attention=bidirectional", "model.pooling=mean", *EXACT],
                     marks=pytest.mark.exhaustive),
        ["model=roberta", *ENCODER],
        pytest.param(["model=bert", *ENCODER], marks=pytest.mark.exhaustive),
    ],
    ids=lambda options: options[0],
)  # fmt: skip
@pytest.mark.slow
def test_every_family_becomes_a_graph(run: Any, tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert run("train", *options, "hydra.run.dir=run") == 0
    assert export(run, tmp_path / "run", "onnx")["onnx_from_torch"] < 1e-5
    torch.testing.assert_close(answers("out", batch_size=2), answers("run"), atol=1e-5, rtol=0)


def test_a_graph_answers_on_several_cores_as_on_one(graph: Path, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    found = []
    for cores in (1, 2):
        torch.set_num_threads(cores)
        labeller = load(graph, accelerator="cpu")
        assert isinstance(labeller, GraphPredictor) and (labeller._cores is None) is (cores == 1)
        found.append(labeller.outputs(TEXTS, batch_size=2)[0])
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=0)


def test_the_readme_of_a_graph_holds_code_that_runs(graph: Path, monkeypatch: Any) -> None:
    code = (graph / "README.md").read_text().split("```python")[2].split("```")[0]
    found: dict[str, Any] = {}
    monkeypatch.chdir(graph)
    exec(code, found)
    np.testing.assert_allclose(found["probabilities"][0], answers(graph)[0], atol=1e-5)


def test_a_missing_extra_is_told_before_anything_is_made(
    run: Any, finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    find = onnx_graph.importlib.util.find_spec
    monkeypatch.setattr(
        onnx_graph.importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a)
    )
    assert run("export", f"run={finished}", "output=out", "format=onnx") == 2
    assert f"ONNX needs onnxscript: {extras.install('onnx')}" in capfd.readouterr().err
    assert not Path("out").exists()


# ------------------------------------------------------------------------------------------------------------- refused


def test_what_cannot_be_exported_is_told_and_nothing_is_left(
    run: Any, finished: Path, encoder: Path, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    lost = Path(shutil.copytree(finished / "model", tmp_path / "lost" / "model"))
    metadata = json.loads((lost / METADATA).read_text())
    metadata["base"]["path"] = str(tmp_path / "nowhere")
    (lost / METADATA).write_text(json.dumps(metadata))
    (lost / METADATA).with_name("SHA256SUMS").unlink(missing_ok=True)
    hub = Path(shutil.copytree(lost, tmp_path / "hub" / "model"))
    metadata["base"] |= {"path": "nobody/nothing", "local": False, "pretrained": True}
    (hub / METADATA).write_text(json.dumps(metadata))
    (hub / METADATA).with_name("SHA256SUMS").unlink(missing_ok=True)
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments, message in [
        ([f"run={finished}", "output=used", "format=merged"], "used stands already and is not empty"),
        ([f"run={finished}", "output=used/mine.txt", "format=merged"], "mine.txt stands already"),
        (
            [f"run={finished}", "output=new", "format=pickle"],
            "Unknown option format=pickle. Options of format: adapter, merged, onnx, onnx_int8, space.",
        ),
        ([f"run={finished}", "output=new"], "format is not set"),
        ([f"run={finished}", "format=merged"], "output is not set"),
        (["run=empty", "output=new", "format=merged"], "run=empty has no trained model"),
        (["run=nothing", "output=new", "format=merged"], "run=nothing is not a folder"),
        (["run=lost", "output=new", "format=merged"], "The base model of lost/model is neither at"),
        (["run=lost", "output=new", "format=adapter"], "The base model of lost/model is neither at"),
        (["run=hub", "output=new", "format=merged"], "No access to nobody/nothing"),
        ([f"run={finished}", "output=new", "format=onnx", "base=a/b"], "base=a/b is for format=adapter"),
        ([f"run={finished}", "output=new", "format=adapter", "base=../x"], "base=../x is no id of the hub"),
        ([f"run={finished}", "output=new", "format=onnx", "dtype=float16"], "dtype=float16 is for format=merged"),
        ([f"run={finished}", "output=new", "format=adapter", "refit=true"], "refit=true is not for format=adapter"),
    ]:
        assert run("export", *arguments, "hydra.run.dir=logs") == 2, arguments
        raised = capfd.readouterr().err
        assert message in raised and "Traceback" not in raised, raised
    shutil.rmtree(tmp_path / "logs", ignore_errors=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert run("export", f"run={finished}", "output=empty", "format=adapter") == 0  # it stands, and is empty


def test_an_export_that_fails_leaves_nothing(
    run: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    part = tmp_path / ".out.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"of one that was killed")

    def wrong(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(model_folder, "save_whole", wrong)
        assert run("export", f"run={finished}", "output=out", "format=merged") == 2
    assert "No space left" in capfd.readouterr().err
    assert not part.exists() and not Path("out").exists()
    monkeypatch.setattr(exporter, "_difference", lambda *_: 0.5)
    assert run("export", f"run={finished}", "output=out", "format=merged") == 1
    assert "merged and unmerged: answers differ by 0.5" in capfd.readouterr().err
    assert not [path.name for path in tmp_path.iterdir() if "out." in path.name or path.name == "out"]


def test_a_network_that_torch_onnx_cannot_write_is_told(
    run: Any, finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    pytest.importorskip("onnxruntime")

    def cannot(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("This is step 3/3.\nA report follows.") from ValueError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", cannot)
    assert run("export", f"run={finished}", "output=out", "format=onnx") == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "torch.onnx cannot write gemma as a graph" in said and "format=merged (no such operator)" in said
    assert "Traceback" not in said and not Path("out").exists()


def test_without_the_runs_data_answers_are_compared_on_bundled_texts(
    run: Any, finished: Path, tmp_path: Path, capfd: Any
) -> None:
    run_copy = Path(shutil.copytree(finished, tmp_path / "run"))
    file = run_copy / "model" / METADATA
    metadata = json.loads(file.read_text())
    fields = {"path": "/nowhere/my.csv"} | dict.fromkeys(
        ["text", "labels", "labels_column", "separator", "id_column", "train", "validation", "test", "splits",
         "encoding"]
    )  # fmt: skip
    metadata["data"] = metadata["data"] | fields | {
        "option": "file", "empty_texts": "refuse", "validation_share": 0.1, "test_share": 0.1, "split_seed": 1,
    }  # fmt: skip
    file.write_text(json.dumps(metadata))
    file.with_name("SHA256SUMS").unlink(missing_ok=True)
    found = export(run, run_copy, "merged")
    raised = capfd.readouterr()
    assert "validation rows are not at hand" in raised.err and found["rows"] == "bundled sample"
    assert "f1_macro" not in found["weights"][0] and found["weights"][-1]["from_run"] < 0.1
    assert run("export", "run=run", "output=again", "format=merged", "refit=true") == 2
    assert "refit=true needs the run's validation rows" in capfd.readouterr().err
    assert run("evaluate", "run=out") == 2
    assert "An export does not know where the data of its run lies" in capfd.readouterr().err


def test_a_graph_is_no_start_and_no_source(run: Any, graph: Path, capfd: Any) -> None:
    assert run("export", f"run={graph}", "output=again", "format=onnx") == 2
    assert "is a graph already" in capfd.readouterr().err
    assert run("train", *SMALL, "trainer=debug", f"init_from={graph}", "hydra.run.dir=next") == 2
    assert "holds a graph for onnxruntime and no weights" in capfd.readouterr().err
    assert run("predict", f"run={graph}", "text=hi", "accelerator=mps") == 2
    assert "this onnxruntime runs on the CPU" in capfd.readouterr().err


def test_stock_is_what_transformers_computes(finished: Path, encoder: Path) -> None:
    for folder, stock in ((finished, True), (encoder, False)):
        metadata = read_metadata(folder / "model")
        network, _ = model_folder.load_model(folder / "model", metadata=metadata, device=torch.device("cpu"))
        batch = {"input_ids": torch.tensor([[2, 9, 8, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
        ours = pooling.logits(network, batch, pooling=metadata.base.pooling)
        assert torch.allclose(ours, network(**batch).logits, atol=1e-4) == stock == metadata.base.stock
