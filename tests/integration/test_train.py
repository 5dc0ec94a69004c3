"""The main job from end to end, on a small network."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL
from helpers.tables import read_csv

METRICS = {
    "f1_micro", "f1_macro", "f1_macro_supported", "jaccard", "f1_samples", "subset_accuracy", "label_accuracy",
    "predicted_cardinality", "gold_cardinality", "labels",
}  # fmt: skip


def checkpoint(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint(folder, name)["state_dict"]


def test_run_folder_holds_what_the_contract_says(finished: Path) -> None:
    for name in (
        "settings.yaml", "metrics.json", "train.log", "model/adapter_config.json", "model/adapter_model.safetensors",
        "model/tokenizer.json", "model/README.md", "model/emotion_lightning.json", "checkpoints/best.ckpt",
        "checkpoints/last.ckpt", "predictions/validation.csv", "predictions/test.csv",
    ):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == {"validation", "test", "cost"}
    for split in ("validation", "test"):
        assert set(metrics[split]) == {
            "rows", "loss", "map", "lrap", "ece", "brier", "probabilities", "fixed", "global", "per_label", "oracle",
        }  # fmt: skip
        for protocol in ("fixed", "global", "per_label"):
            assert set(metrics[split][protocol]) == METRICS
            assert set(metrics[split][protocol]["labels"]["joy"]) == {
                "precision",
                "recall",
                "f1",
                "support",
                "threshold",
            }
    assert set(metrics["cost"]) == {
        "trainable_parameters", "train_seconds", "samples_per_second", "tokens_per_second", "peak_memory_bytes",
    }  # fmt: skip
    assert metrics["test"]["fixed"]["labels"]["joy"]["threshold"] == 0.5
    assert 5 < metrics["cost"]["tokens_per_second"] / metrics["cost"]["samples_per_second"] < 64


def test_predictions_follow_the_input_and_its_decisions_the_thresholds(finished: Path) -> None:
    from emotion_lightning.data import official

    written = read_csv(finished / "predictions" / "test.csv")
    source = read_csv(official.SAMPLE / "test.csv")[: len(written)]
    assert [row["id"] for row in written] == [row["id"] for row in source]
    labels = list(official.SEMEVAL_LABELS)
    assert list(written[0]) == ["id", *labels, *[f"p_{name}" for name in labels]]
    metadata = json.loads((finished / "model" / "emotion_lightning.json").read_text())
    for row in written:
        for name in labels:
            assert int(row[name]) == (float(row[f"p_{name}"]) > metadata["thresholds"]["global"][name])


def test_settings_are_written_with_the_options_chosen(finished: Path) -> None:
    written = yaml.safe_load((finished / "settings.yaml").read_text())
    assert written["options"]["peft"] == "ia3"
    assert written["optimizer"]["lr"] is None
    assert written["peft"]["targets"] == ["key", "value", "feedforward_out"]


@pytest.mark.parametrize("fused", [True, False])
def test_stock_peft_loads_the_model_and_gives_equal_probabilities(finished: Path, fused: bool) -> None:
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

    from emotion_lightning.data import official

    folder = finished / "model"
    base = AutoModelForSequenceClassification.from_pretrained(
        PeftConfig.from_pretrained(folder).base_model_name_or_path,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            llm_int8_skip_modules=["score"],
        ),
        device_map="cpu",
    )
    network = PeftModel.from_pretrained(base, folder).eval()
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu") and not fused:
            # bitsandbytes' own kernel for prediction on such CPUs computes in bfloat16.
            module.support_avx512bf16_for_cpu = False
    written = read_csv(finished / "predictions" / "test.csv")[:8]
    texts = [row["text"] for row in read_csv(official.SAMPLE / "test.csv")[:8]]
    batch = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    ours = torch.tensor([[float(row[f"p_{name}"]) for name in official.SEMEVAL_LABELS] for row in written])
    with torch.no_grad():
        assert torch.allclose(torch.sigmoid(network(**batch).logits), ours, atol=1e-3 if fused else 1e-6)


def test_evaluate_on_the_run_gives_its_own_numbers_again(finished: Path, run: Any, tmp_path: Path) -> None:
    assert run("evaluate", f"run={finished}", "hydra.run.dir=scored") == 0
    again = json.loads((tmp_path / "scored" / "metrics.json").read_text())["test"]
    before = json.loads((finished / "metrics.json").read_text())["test"]
    assert again["global"] == before["global"]
    assert again["loss"] == pytest.approx(before["loss"], abs=1e-6)
    assert again["map"] == pytest.approx(before["map"], abs=1e-6)


def test_evaluate_scores_the_labels_that_other_data_shares(
    finished: Path, run: Any, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "other.csv").write_text("body;joy;boredom\nWe won!;1;0\nRain again.;0;1\nNothing.;0;0\n")
    code = run(
        "evaluate", f"run={finished}", "data=file", "data.path=other.csv", "data.text=body", "hydra.run.dir=scored"
    )
    assert code == 0
    scores = json.loads((tmp_path / "scored" / "metrics.json").read_text())["test"]
    assert list(scores["fixed"]["labels"]) == ["joy"]
    assert scores["rows"] == 3
    assert "boredom" in capfd.readouterr().err


def test_predict_file_equals_the_runs_own_predictions_and_python(finished: Path, run: Any, tmp_path: Path) -> None:
    from emotion_lightning import load
    from emotion_lightning.data import official

    source = read_csv(official.SAMPLE / "test.csv")[:20]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"id": r["id"], "text": r["text"]}) + "\n" for r in source))
    assert run("predict", f"run={finished / 'model'}", "input=new.jsonl", "output=out/labelled.csv") == 0
    written = read_csv(tmp_path / "out" / "labelled.csv")
    own = {row["id"]: row for row in read_csv(finished / "predictions" / "test.csv")}
    answers = load(finished).predict([row["text"] for row in source])
    for row, answer in zip(written, answers, strict=True):
        for name, value in own[row["id"]].items():
            assert float(row[name]) == pytest.approx(float(value), abs=1e-6)
        assert answer.labels == [name for name in official.SEMEVAL_LABELS if row[name] == "1"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "txt", "csv.gz"])
def test_predict_reads_every_format_and_skips_no_row(finished: Path, run: Any, tmp_path: Path, suffix: str) -> None:
    import gzip

    import pyarrow
    import pyarrow.parquet

    texts = ["NA", "null", "", "We won, again!", "1e5"]
    file = tmp_path / f"new.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file)
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif suffix == "txt":
        file.write_text("\n".join(texts) + "\n")
    else:
        lines = "text\n" + "".join(f'"{text}"\n' for text in texts)
        file.write_bytes(gzip.compress(lines.encode()) if suffix.endswith("gz") else lines.encode())
    assert run("predict", f"run={finished}", f"input={file}", "output=out.csv", "predict.text=true") == 0
    written = read_csv(tmp_path / "out.csv")
    assert [row["text"] for row in written] == texts
    assert [row["row"] for row in written] == ["1", "2", "3", "4", "5"]


def test_predict_takes_a_text_literally(finished: Path, run: Any, capfd: Any) -> None:
    assert run("predict", f"run={finished}", "text=I can't believe it, we won (again)! {a: [1,2]} = null") == 0
    assert "I can't believe it, we won (again)! {a: [1,2]} = null" in capfd.readouterr().out


def test_predict_of_a_broken_file_names_the_row_and_leaves_no_output(
    finished: Path, run: Any, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "new.csv").write_text("text,x\nfine,1\nbroken,2,3\n")
    assert run("predict", f"run={finished}", "input=new.csv", "output=out/labelled.csv") == 2
    assert "new.csv, row 2" in capfd.readouterr().err
    assert list((tmp_path / "out").glob("*")) == []


def test_predict_checks_the_last_row_before_it_loads_a_model(
    finished: Path, run: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_lightning.inference import predictor

    monkeypatch.setattr(predictor, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "new.csv").write_text("text,x\n" + "fine,1\n" * 9000 + 'broken,"x\n')
    assert run("predict", f"run={finished}", "input=new.csv", "output=out.csv") == 2
    assert "new.csv, line 9002" in capfd.readouterr().err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("choice", "code", "raised"), [("keep", 0, "without a text kept: 2"), ("refuse", 2, "row 2, column text: no text")]
)
def test_predict_keeps_or_refuses_rows_without_a_text(
    finished: Path, run: Any, tmp_path: Path, capfd: Any, choice: str, code: int, raised: str
) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "a"}\n{"text": null}\n{"text": " "}\n')
    asked = [f"run={finished}", "input=new.jsonl", "output=out.csv", f"data.empty_texts={choice}"]
    assert run("predict", *asked) == code
    assert raised in capfd.readouterr().err
    assert (tmp_path / "out.csv").exists() == (code == 0)
    if code == 0:
        assert [row["row"] for row in read_csv(tmp_path / "out.csv")] == ["1", "2", "3"]


def test_predict_of_a_column_without_any_text_is_refused(finished: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "new.csv").write_text("text,body\n,so happy\n,so sad\n")
    assert run("predict", f"run={finished}", "input=new.csv", "output=out.csv") == 2
    assert "column text: no row has a text; name another column as data.text" in capfd.readouterr().err


def test_predict_reads_an_encoding_that_is_named(finished: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "new.csv").write_bytes("text\nfröhlich\n".encode("cp1252"))
    asked = [f"run={finished}", "input=new.csv", "output=out.csv", "predict.text=true"]
    assert run("predict", *asked) == 2
    assert "data.encoding=cp1252" in capfd.readouterr().err
    assert run("predict", *asked, "data.encoding=cp1252") == 0
    assert read_csv(tmp_path / "out.csv")[0]["text"] == "fröhlich"


def test_predict_takes_the_text_column_of_the_run(run: Any, tmp_path: Path) -> None:
    lines = [f"x,words {i},{i % 2},{(i // 2) % 2},k{i}" for i in range(60)]
    (tmp_path / "a.csv").write_text("text,body,joy,anger,code\n" + "\n".join(lines) + "\n")
    asked = [*SMALL[:-1], "data=file", "data.path=a.csv", "data.text=body", "data.id_column=code", "trainer=debug"]
    assert run("train", *asked, "hydra.run.dir=out") == 0
    assert run("predict", "run=out", "input=a.csv", "output=all.csv", "predict.text=true") == 0
    written = read_csv(tmp_path / "all.csv")
    assert [row["text"] for row in written] == [f"words {i}" for i in range(60)]
    assert [row["code"] for row in written] == [f"k{i}" for i in range(60)]
    assert run("predict", "run=out", "input=a.csv", "output=counted.csv", "data.id_column=row") == 0
    assert [row["row"] for row in read_csv(tmp_path / "counted.csv")] == [str(i + 1) for i in range(60)]


@pytest.mark.parametrize("command", ["train", "baseline"])
def test_a_text_column_that_was_found_is_read_again_where_another_has_a_usual_name(
    run: Any, tmp_path: Path, command: str, capfd: Any
) -> None:
    import pandas as pd

    from emotion_lightning import load

    lines = [f"words {i},{i % 2},{(i // 2) % 2}" for i in range(60)]
    (tmp_path / "a.csv").write_text("comment,joy,anger\n" + "\n".join(lines) + "\n")
    small = [*SMALL[:-1], "trainer=debug"] if command == "train" else []
    assert run(command, *small, "data=file", "data.path=a.csv", "hydra.run.dir=out") == 0
    both = "text,comment,joy,anger\n" + "".join(f"someone,{line}\n" for line in lines)
    (tmp_path / "both.csv").write_text(both)
    assert run("predict", "run=out", "input=both.csv", "output=all.csv", "predict.text=true") == 0
    assert [row["text"] for row in read_csv(tmp_path / "all.csv")] == [f"words {i}" for i in range(60)]
    asked = ["data=file", "data.path=both.csv", "predict.text=true"]
    assert run("evaluate", "run=out", *asked, "hydra.run.dir=again") == 0
    (written,) = (tmp_path / "again").rglob("*.csv")
    assert {row["text"] for row in read_csv(written)} == {f"words {i}" for i in range(60)}
    learned = [row["split"] for row in read_csv(tmp_path / "out" / "splits.csv")].count("train")
    assert f"{learned} of 60 texts were learned from by the run" in capfd.readouterr().err
    assert repr(load(tmp_path / "out")).endswith("with 2 labels: joy, anger>")
    found = load(tmp_path / "out").predict(pd.DataFrame({"text": ["a", "b"], "comment": ["words 1", "words 2"]}))
    alone = load(tmp_path / "out").predict(pd.DataFrame({"comment": ["words 1", "words 2"]}))
    assert found.equals(alone)


def test_norms_trained_on_a_bfloat16_base_are_loaded_as_they_were_trained(run: Any, tmp_path: Path, capfd: Any) -> None:
    from emotion_lightning import load

    asked = [*SMALL, "peft=ln_tuning", "model.quantization=none", "model.dtype=bfloat16", "optimizer.lr=0.1"]
    assert run("train", *asked, "trainer.max_epochs=1", "hydra.run.dir=out") == 0
    (told,) = re.findall(r"gives the same probabilities, to (\S+)", capfd.readouterr().err)
    assert float(told.rstrip(".")) < 1e-4
    loaded: Any = load(tmp_path / "out", accelerator="cpu")
    norms = [value.dtype for name, value in loaded.network.named_parameters() if "ln_tuning_layers" in name]
    assert norms and set(norms) == {torch.float32}


def test_a_run_is_repeated_in_another_folder_than_its_relative_base_was_given_in(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", *SMALL, "trainer=debug", "hydra.run.dir=first") == 0
    (tmp_path / "ckpt").symlink_to(tmp_path / "first" / "base")
    asked = ["model.path=ckpt", "logger=none", "data.max_rows=96", "trainer.max_steps=2"]
    assert run("train", *asked, "hydra.run.dir=second") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("train", f"from_run={tmp_path / 'second'}", "hydra.run.dir=third") == 0
    base = str((tmp_path / "first" / "base").resolve())
    assert yaml.safe_load((tmp_path / "second" / "settings.yaml").read_text())["model"]["path"] == base
    for file in ("best", "last"):
        assert checkpoint(tmp_path / "second", file)["identity"]["base"] == base
    assert run("train", f"resume={tmp_path / 'second'}") == 0


def test_label_names_that_look_like_markup_are_shown_as_they_are(run: Any, tmp_path: Path, capfd: Any) -> None:
    lines = [f"words {i},{i % 2},{(i // 2) % 2}" for i in range(60)]
    (tmp_path / "a.csv").write_text("text,[/x],[red]joy[/red]\n" + "\n".join(lines) + "\n")
    assert run("train", *SMALL[:-1], "data=file", "data.path=a.csv", "trainer=debug", "hydra.run.dir=out") == 0
    printed = capfd.readouterr().out
    assert "[/x]" in printed and "[red]joy[/red]" in printed


def test_predict_reads_a_folder_that_datasets_saved(finished: Path, run: Any, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"id": ["x", "y"], "text": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    assert run("predict", f"run={finished}", "input=saved", "output=out.csv") == 0
    assert [row["id"] for row in read_csv(tmp_path / "out.csv")] == ["x", "y"]


def test_texts_are_cleaned_alike_in_training_and_prediction(run: Any, tmp_path: Path, capfd: Any) -> None:
    from emotion_lightning import load

    lines = [f"r{i},@ann{i} is so https://t.co/{i} &lt;{i},{i % 2},{(i // 2) % 2}" for i in range(60)]
    (tmp_path / "tweets.csv").write_text("id,text,joy,anger\n" + "\n".join(lines) + "\n")
    asked = [*SMALL[:-1], "data=file", "data.path=tweets.csv", "data.clean=[html,users,urls]", "trainer=debug"]
    assert run("train", *asked, "predict.text=true", "hydra.run.dir=out") == 0
    written = read_csv(tmp_path / "out" / "predictions" / "test.csv")
    predictor = load(tmp_path / "out")
    assert predictor.metadata.clean == ["html", "users", "urls"]
    as_written = predictor.probabilities([row["text"] for row in written])
    by_hand = predictor.probabilities([f"@user is so http <{int(row['id'][1:])}" for row in written])
    assert torch.equal(as_written, by_hand)
    assert torch.allclose(as_written[:, 0], torch.tensor([float(row["p_joy"]) for row in written]), atol=1e-6)
    assert all(row["text"].startswith("@ann") for row in written)  # as they came
    assert run("evaluate", "run=out", "data=file", "data.path=tweets.csv", "data.clean=[users]") == 2
    assert "is not what the run was trained with, ['html', 'users', 'urls']" in capfd.readouterr().err
    assert run("evaluate", "run=out", "hydra.run.dir=again") == 0
    first, again = (json.loads((tmp_path / f / "metrics.json").read_text())["test"] for f in ("out", "again"))
    assert first["global"] == again["global"]


def test_moved_run_folder_still_predicts(finished: Path, run: Any, tmp_path: Path) -> None:
    from emotion_lightning import load

    before = load(finished).predict(["We won!"])[0]
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished, moved)
    metadata = json.loads((moved / "model" / "emotion_lightning.json").read_text())
    metadata["base"]["path"] = "/gone/base"
    (moved / "model" / "emotion_lightning.json").write_text(json.dumps(metadata))
    (moved / "model" / "emotion_lightning.json").with_name("SHA256SUMS").unlink(missing_ok=True)
    assert load(moved).predict(["We won!"])[0] == before


def test_a_used_folder_is_refused_and_a_finished_run_says_so(finished: Path, run: Any, capfd: Any) -> None:
    before = (finished / "metrics.json").read_bytes()
    assert run("train", *SMALL, f"hydra.run.dir={finished}") == 2
    assert f"resume={finished}" in capfd.readouterr().err
    assert run("train", f"resume={finished}") == 0
    assert "finished" in capfd.readouterr().err
    assert (finished / "metrics.json").read_bytes() == before


def test_from_run_repeats_a_run_bit_by_bit(finished: Path, run: Any, tmp_path: Path) -> None:
    assert run("train", f"from_run={finished}", "hydra.run.dir=again") == 0
    for name, value in weights(finished).items():
        assert torch.equal(value, weights(tmp_path / "again")[name]), name
    first, second = (json.loads((f / "metrics.json").read_text()) for f in (finished, tmp_path / "again"))
    assert first["test"] == second["test"]


def test_from_run_takes_changed_settings_and_options(finished: Path, run: Any, tmp_path: Path) -> None:
    assert run("train", f"from_run={finished}", "peft=head", "seed=7", "hydra.run.dir=again") == 0
    written = yaml.safe_load((tmp_path / "again" / "settings.yaml").read_text())
    assert (written["options"]["peft"], written["seed"], written["data"]["max_rows"]) == ("head", 7, 96)


def test_resume_refuses_other_settings_and_another_base(finished: Path, run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("train", f"resume={finished}", "optimizer.lr=1") == 2
    assert "optimizer.lr" in capfd.readouterr().err
    changed = tmp_path / "changed"
    shutil.copytree(finished, changed)
    (changed / "metrics.json").unlink()
    settings = (changed / "settings.yaml").read_text()
    (changed / "settings.yaml").write_text(settings.replace("quantization: nf4", "quantization: int8"))
    assert run("train", f"resume={changed}") == 2
    assert "quantization=nf4" in capfd.readouterr().err


def test_multirun_runs_the_other_jobs_after_a_failed_one(run: Any, tmp_path: Path, capfd: Any) -> None:
    code = run("train", "-m", *SMALL, "trainer.max_epochs=1", "optimizer.lr=1e-3,1e39", "peft=ia3,head",
               "optimizer.warmup=0", "trainer.gradient_clip_val=null", "hydra.sweep.dir=sweep")  # fmt: skip
    assert code == 1
    done = {folder.name for folder in (tmp_path / "sweep").iterdir() if (folder / "metrics.json").exists()}
    assert {"0", "1", "3"} <= done and "2" not in done
    message = capfd.readouterr().err
    assert "The loss is" in message and "Failed jobs" in message


def test_a_wrong_value_in_a_sweep_is_refused_before_its_first_job(run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("train", "-m", *SMALL, "optimizer.lr=1e-3,-1", "hydra.sweep.dir=sweep") == 2
    assert "optimizer.lr=-1" in capfd.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_tweets_without_labels_are_predicted_not_scored(run: Any, tmp_path: Path, capfd: Any) -> None:
    from emotion_lightning.data import official

    header = "\t".join(["ID", "Tweet", *official.SEMEVAL_LABELS])
    folder = tmp_path / "tweets"
    folder.mkdir()
    for split in ("train", "dev"):
        lines = [
            f"2018-En-{i}\tTweet number {i} &amp; more\t" + "\t".join("01"[(i + k) % 2] for k in range(11))
            for i in range(40)
        ]
        (folder / f"2018-E-c-En-{split}.txt").write_text("\n".join([header, *lines]) + "\n")
    (folder / "2018-E-c-En-test.txt").write_text(f"{header}\n2018-En-99\tWhat now?\t" + "\t".join(["NONE"] * 11) + "\n")
    code = run("train", *SMALL, "data=semeval2018", "data.dir=tweets", "trainer=debug", "hydra.run.dir=out")
    assert code == 0
    assert "test" not in json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [row["ID"] for row in read_csv(tmp_path / "out" / "predictions" / "test.csv")] == ["2018-En-99"]
    assert "no labels" in capfd.readouterr().err


def test_own_file_trains_with_one_setting(run: Any, tmp_path: Path) -> None:
    lines = [f"Row {i} says something about day {i};{i % 2};{(i // 2) % 2};{i}" for i in range(60)]
    (tmp_path / "my file, (1).csv").write_text("message;calm;upset;page\n" + "\n".join(lines) + "\n")
    code = run("train", *SMALL[:-1], "data=file", "data.path=my file, (1).csv", "trainer=debug", "hydra.run.dir=out")
    assert code == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics["test"]["fixed"]["labels"]) == ["calm", "upset"]
    assert run("evaluate", "run=out", "hydra.run.dir=again") == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["test"]["rows"] == 6


def test_full_training_saves_the_whole_model_which_transformers_loads(run: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from emotion_lightning import load

    asked = [*SMALL, "peft=full", "model.quantization=none", "trainer=debug", "hydra.run.dir=out"]
    assert run("train", *asked) == 0
    predictor: Any = load(tmp_path / "out")
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "model").eval()
    batch = predictor.tokenizer(["We won!"], return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(network(**batch).logits, predictor.logits(["We won!"]), atol=1e-5)


@pytest.mark.parametrize(
    ("peft", "quantization"),
    [
        pytest.param(
            peft, form, marks=[] if (peft, form) in {("lora", "nf4"), ("head", "none")} else pytest.mark.exhaustive
        )
        for peft in ("ia3_all", "lora", "dora", "vera", "ln_tuning", "head")
        for form in ("nf4", "none")
    ],
)
def test_every_method_reloads_to_equal_probabilities(run: Any, tmp_path: Path, peft: str, quantization: str) -> None:
    from emotion_lightning import load
    from emotion_lightning.data import official

    asked = [*SMALL, f"peft={peft}", f"model.quantization={quantization}", "trainer=debug", "optimizer.lr=0.01"]
    assert run("train", *asked, "hydra.run.dir=out") == 0
    written = read_csv(tmp_path / "out" / "predictions" / "test.csv")
    texts = {row["id"]: row["text"] for row in read_csv(official.SAMPLE / "test.csv")}
    again = load(tmp_path / "out").probabilities([texts[row["id"]] for row in written])
    ours = torch.tensor([[float(row[f"p_{name}"]) for name in official.SEMEVAL_LABELS] for row in written])
    assert torch.allclose(again, ours, atol=1e-5)


def test_a_network_that_its_last_step_ruins_is_not_called_finished(run: Any, tmp_path: Path, capfd: Any) -> None:
    asked = [*SMALL, "trainer=debug", "optimizer.head_lr=3e37", "optimizer.warmup=0", "trainer.gradient_clip_val=null",
             "trainer.limit_train_batches=1"]  # fmt: skip
    assert run("train", *asked, "hydra.run.dir=out") == 2
    assert "not finite" in capfd.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists() and not (tmp_path / "out" / "checkpoints").exists()


def test_max_steps_may_end_before_the_first_epoch_does(run: Any, tmp_path: Path, capfd: Any) -> None:
    assert run("train", *SMALL, "trainer.max_steps=2", "hydra.run.dir=out") == 0
    assert "the last weights are kept" in capfd.readouterr().err
    assert torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 2
    assert (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize("test", ["text\nWhat now?\nAnd then?\n", "text,joy,anger\nWhat now?,,\nAnd then?,,\n"])
def test_a_test_file_without_labels_is_predicted_not_scored(run: Any, tmp_path: Path, test: str) -> None:
    lines = [f"text {i},{i % 2},{(i // 2) % 2}" for i in range(40)]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.csv").write_text("text,joy,anger\n" + "\n".join(lines) + "\n")
    (tmp_path / "test.csv").write_text(test)
    own = [f"data.{name}={name}.csv" for name in ("train", "validation", "test")]
    assert run("train", *SMALL, "data=file", *own, "trainer=debug", "hydra.run.dir=out") == 0
    assert "test" not in json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(read_csv(tmp_path / "out" / "predictions" / "test.csv")) == 2


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
             "emotion_lightning.json"]
)  # fmt: skip
def test_a_damaged_model_folder_is_said_to_be_damaged(
    finished: Path, run: Any, tmp_path: Path, capfd: Any, name: str, damage: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(finished, copied)
    file = copied / "model" / name
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    assert run("predict", f"run={copied}", "text=hi") == 2
    message = capfd.readouterr().err
    assert "Traceback" not in message and str(copied) in message and len(message.splitlines()) == 1


def test_dora_on_8_bit_weights_is_refused_on_a_cpu(run: Any, tmp_path: Path, capfd: Any) -> None:
    asked = [*SMALL, "peft=dora", "model.quantization=int8", "trainer.accelerator=cpu", "hydra.run.dir=out"]
    assert run("train", *asked) == 2
    assert "choose peft=lora" in capfd.readouterr().err
    assert not (tmp_path / "out" / "base").exists()


# ------------------------------------------------------------------------------------------------- batches of all kinds


def test_batches_of_equal_tokens_count_each_row_alike(run: Any, tmp_path: Path) -> None:
    found = {}
    for tokens in ("300", "null"):
        assert run("train", *SMALL, "trainer.max_epochs=2", "model.dtype=float32", "model.quantization=none",
                   f"data.batch_tokens={tokens}", f"hydra.run.dir=of_{tokens}") == 0  # fmt: skip
        found[tokens] = json.loads((tmp_path / f"of_{tokens}" / "metrics.json").read_text())["cost"]
    # Two epochs, so that it is the same of both: neither counts padding, and each row is seen once in each.
    per_row = [cost["tokens_per_second"] / cost["samples_per_second"] for cost in found.values()]
    assert per_row[0] == pytest.approx(per_row[1])
    page = (tmp_path / "of_300" / "report.html").read_text()
    assert "300 tokens in an optimizer step" in page
