"""The check of the real job on a GPU, in small on a CPU; the table that is made of what it found."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_with_the_tiny_shape(tmp_path: Path) -> None:
    import gpu

    small = ["--batch-size=4", "--steps=6", "--turns=1", "--fp16-steps=8"]
    assert gpu.main(["--device=cpu", "--shape=tiny", f"--output={tmp_path}", *small]) == 0
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines_of(tmp_path / "cpu.jsonl"):
        found.setdefault(line["part"], []).append(line)
    assert set(found) == {"run", "ratio", *gpu.PARTS}
    assert [line["side"] for line in found["train"]] == ["ours", "trainer_best", "trainer"]
    assert all(line["samples_s"] > 0 and line["tokens_s"] > line["samples_s"] for line in found["train"])
    # The same batches: as many texts and tokens in as many steps.
    ours, best, _ = found["train"]
    assert ours["tokens_s"] / ours["samples_s"] == pytest.approx(best["tokens_s"] / best["samples_s"], rel=0.02)
    assert found["ratio"][0]["over_trainer_best"] == pytest.approx(ours["samples_s"] / best["samples_s"], abs=0.01)
    assert [line["batch"] for line in found["profile"]] == [4, 32]
    assert all(sum(line["shares"].values()) == pytest.approx(1, abs=0.01) for line in found["profile"])
    assert "skipped" in found["graph"][0]
    assert len(found["sweep"]) == 8 and all(line["samples_s"] > 0 for line in found["sweep"])
    half, brain, compared, plain = found["fp16"]
    assert (half["dtype"], half["steps"], half["ended"]) == ("float16", 8, None)
    assert (brain["dtype"], brain["steps"]) == ("bfloat16", 8)
    assert compared["compared_steps"] == 8 and compared["mean_difference"] < 0.05
    assert plain["plain"] and plain["ended"] is not None and "float16" in plain["ended"]
    assert found["load"][1]["head_sd"] == pytest.approx(0.02, abs=0.005)


def test_a_part_that_fails_is_told_and_the_rest_is_skipped_when_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu

    def fails(*_: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gpu, "PARTS", {"env": (fails, 0), "load": (fails, 60)})
    arguments = ["--device=cpu", "--parts=env,load", "--seconds=30", f"--output={tmp_path}"]
    assert gpu.main(arguments) == 1
    _, failed, skipped = lines_of(tmp_path / "cpu.jsonl")
    assert failed["part"] == "env" and failed["failed"] == "RuntimeError: out of luck"
    assert skipped["part"] == "load" and skipped["skipped"] == "no time left"


@pytest.mark.parametrize(
    ("argument", "raised"),
    [("--parts=env,trian", "--parts has trian; there are env, train"), ("--steps=5", "--steps must be at least 6")],
)
def test_a_wrong_argument_is_refused(argument: str, raised: str, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu

    with pytest.raises(SystemExit) as stop:
        gpu.main(["--device=cpu", argument])
    assert stop.value.code == 2
    assert raised in capsys.readouterr().err


def test_drawn_weights_are_quantised_and_quantised_layers_are_those_that_loading_makes(tmp_path: Path) -> None:
    import bitsandbytes
    import torch
    from gpu_parts import base
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, GemmaConfig

    config = GemmaConfig(
        num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, vocab_size=256, pad_token_id=0,
    )  # fmt: skip
    config.num_labels = 3
    four = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=["score"],
    )  # fmt: skip
    cpu = torch.device("cpu")
    torch.manual_seed(1)
    base.drawn(config, device=cpu, dtype=torch.bfloat16).save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, dtype=torch.bfloat16, quantization_config=four, device_map={"": cpu}
    )
    torch.manual_seed(1)
    drawn = base.drawn(config, device=cpu, dtype=torch.bfloat16, quantization=four)
    batch = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(drawn(batch).logits, loaded(batch).logits)
    quantised = [name for name, module in drawn.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert quantised == [n for n, module in loaded.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(quantised) == 14  # 7 products in each layer; the head stays as it is
    assert drawn.is_loaded_in_4bit and drawn.is_quantized and not drawn.training


# ------------------------------------------------------------------------------------------------------------- table

TRAIN = {"part": "train", "batch": 32, "tokens_s": 20000, "weights_gib": 2.0, "build_s": 2.0}
INVENTED = [
    {"run": "1", "part": "run", "card": "a", "shape": "gemma2b"},
    {"run": "1", **TRAIN, "side": "ours", "turn": 0, "samples_s": 600.0, "peak_gib": 4.0},
    {"run": "1", **TRAIN, "side": "ours", "turn": 1, "samples_s": 800.0, "peak_gib": 4.5},
    {"run": "1", **TRAIN, "side": "trainer_best", "turn": 0, "samples_s": 400.0, "peak_gib": 6.0},
    {"run": "1", **TRAIN, "side": "trainer", "turn": 0, "samples_s": 200.0, "peak_gib": 5.0},
    {"run": "1", "part": "ratio", "turns": 2, "over_trainer_best": 1.75, "memory_over_trainer_best": 0.75,
     "over_trainer": 3.5, "memory_over_trainer": 0.9},
    {"run": "1", "part": "graph", "batch": 32, "tokens": 1024, "eager_ms": 37.25, "graph_ms": 20.5},
    {"run": "1", "part": "sweep", "batch": 64, "more": ["data.batch_tokens=4096"], "samples_s": 1500.0,
     "tokens_s": 30000, "peak_gib": 7.0},
    {"run": "1", "part": "profile", "batch": 32, "ms_step": 37.2, "gap_share": 0.31, "launches_step": 4100,
     "shares": {"products": 0.6, "elementwise": 0.395, "other": 0.005}, "products_alone_ms": 12.0,
     "products_tflops": 410.0, "dequantising_alone_ms": 3.0},
    {"run": "1", "part": "fp16", "dtype": "float16", "plain": False, "steps": 500, "skipped_steps": 2, "ms_step": 51.0,
     "peak_gib": 5.5, "ended": None},
    {"run": "1", "part": "fp16", "dtype": "bfloat16", "plain": False, "steps": 166, "skipped_steps": 0, "ms_step": 37.0,
     "peak_gib": 5.0, "ended": None},
    {"run": "1", "part": "fp16", "compared_steps": 166, "mean_difference": 0.0021, "largest_difference": 0.01},
    {"run": "1", "part": "fp16", "dtype": "float16", "plain": True, "steps": 0, "skipped_steps": 0, "ms_step": 37.0,
     "peak_gib": 5.0, "ended": "The loss is not finite."},
    {"run": "1", "part": "load", "written_s": 20.0},
    {"run": "1", "part": "load", "seconds": 16.4, "peak_gib": 3.2, "held_gib": 2.1, "head_sd": 0.02},
    # A newer run at full size replaces a part that it finished, and no other; one in small counts for nothing.
    {"run": "2", "part": "run", "card": "a", "shape": "gemma2b"},
    {"run": "2", "part": "graph", "batch": 32, "tokens": 1024, "eager_ms": 30.0, "graph_ms": 19.0},
    {"run": "2", "part": "load", "failed": "OSError: no space left"},
    {"run": "3", "part": "run", "card": "a", "shape": "tiny"},
    {"run": "3", "part": "graph", "batch": 4, "tokens": 128, "eager_ms": 1.0, "graph_ms": 0.5},
]  # fmt: skip


def test_the_table_tells_the_newest_finished_run_of_each_part(tmp_path: Path) -> None:
    import gpu_table

    (tmp_path / "card-a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in INVENTED))
    (tmp_path / "card-b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in INVENTED[:6]))
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in gpu_table.table(tmp_path).splitlines()]
    assert rows[0] == ["", "card-a", "card-b"] and rows[1] == ["---"] * 3
    table = {name: one for name, one, _ in rows[2:]}
    assert table["training, ours"] == "700 texts/s, 20,000 tokens/s, 4.50 GiB"
    assert table["training, the Trainer as QLoRA has it"] == "200 texts/s, 20,000 tokens/s, 5.00 GiB"
    assert table["ours over the Trainer at its best"] == "1.75 x, with 0.75 of the memory"
    assert table["forward and backward, 32 texts"] == "30.0 ms" and table["the same as a CUDA graph"] == "19.0 ms"
    assert table["ours, `data.batch_size=64`, `data.batch_tokens=4096`"] == "1,500 texts/s, 30,000 tokens/s, 7.00 GiB"
    assert table["a step of 32 texts"] == "37 ms, of which gaps 31%"
    assert table["its kernels (32 texts)"] == "4,100: products 60%, elementwise 40%"
    assert table["float16"] == "500 steps, 2 skipped, 51 ms each, 5.50 GiB"
    assert table["float16's losses beside bfloat16's"] == "0.0021 apart in the mean of 166 steps"
    assert table["plain float16"] == "ends with its message"
    assert table["loading 5 GB from disk"] == "16 s, 3.20 GiB at most, 2.10 GiB after"
    assert [row[2] for row in rows if row[0] == "the same as a CUDA graph"] == [""]


def test_the_readme_has_the_table_of_the_results_that_are_there() -> None:
    import gpu_table

    text = (BENCHMARKS / "README.md").read_text()
    assert gpu_table.replaced(text, gpu_table.table(BENCHMARKS / "results")) == text
    with pytest.raises(SystemExit, match="begin"):
        gpu_table.replaced("no marks", "a table")


# ------------------------------------------------------------------------------------------------------------ bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is packed of Hydra and of what it needs."""
    import gpu_packages
    from packaging.requirements import Requirement

    monkeypatch.setattr(
        gpu_packages, "roots", lambda: [Requirement("hydra-core>=1.3.8"), Requirement("omegaconf>=2.3")]
    )
    gpu_packages.pack(tmp_path / "packages")
    return tmp_path / "packages"


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    """Another machine, which has these versions."""
    for name, version in packages.items():
        (folder / f"{name}.dist-info").mkdir(parents=True)
        (folder / f"{name}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(folder)])


def test_of_the_bundle_is_taken_what_a_machine_lacks_or_has_too_old(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_packages

    # PyYAML is compiled for one Python; the others run with any.
    assert {one.name for one in bundle.iterdir()} == {"hydra-core", "omegaconf", "antlr4-python3-runtime", "packaging"}
    machine(tmp_path / "machine", monkeypatch, PyYAML="6.0", omegaconf="2.0", packaging="25.0")
    gpu_packages.choose(bundle)
    assert capsys.readouterr().out.split() == [str(tmp_path / "site")]
    site = {one.name for one in (tmp_path / "site").iterdir()}
    assert {"hydra", "omegaconf", "antlr4"} <= site and "packaging" not in site


def test_what_neither_the_machine_nor_the_bundle_has_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_packages

    machine(tmp_path / "machine", monkeypatch, PyYAML="4.0")
    with pytest.raises(SystemExit, match=r"PyYAML>=5.1.0, for omegaconf: version 4.0 is there"):
        gpu_packages.choose(bundle)
