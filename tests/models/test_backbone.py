"""Access to models: one message with the steps, at once."""

import http.server
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from emotion_lightning.config import AttentionKernel
from emotion_lightning.errors import UserError
from emotion_lightning.models import backbone, first_token


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for a model whose licence was not accepted, or that does not exist."""

    def do_GET(self) -> None:
        gated = "gemma" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    yield address
    server.shutdown()


def test_gemma_without_an_accepted_licence_gets_the_steps(settings: Any, hub: str) -> None:
    with pytest.raises(UserError) as error:
        backbone.check_access(settings("model=gemma").model)
    for step in ("licence", "https://huggingface.co/google/gemma-1.1-2b-it", "hf auth login", "HF_TOKEN", "model.path"):
        assert step in str(error.value)


def test_an_unknown_model_is_said_to_be_unknown(settings: Any, hub: str) -> None:
    with pytest.raises(UserError, match="does not know it"):
        backbone.check_access(settings("model=gemma", "model.path=nobody/nothing").model)


def test_a_misspelt_folder_is_told_with_the_one_that_is_there(
    settings: Any, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"no folder of that name \(did you mean ckpt\?\), and the hub does not know it"
    ):
        backbone.check_access(settings("model=gemma", "model.path=cpkt").model)
    with pytest.raises(UserError, match="no folder of that name, and the hub"):
        backbone.check_access(settings("model=gemma", "model.path=bert-large").model)


def test_no_network_is_said_at_once(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(UserError, match="cannot be reached"):
        backbone.check_access(settings("model=gemma").model)
    assert time.monotonic() - start < 20  # transformers itself would try for 46 s


def test_access_is_checked_before_the_data(run: Any, capfd: Any) -> None:
    assert run("train", "model=gemma", "data=goemotions", "data.dir=nowhere", "logger=none") == 2
    assert "No access to google/gemma-1.1-2b-it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"),
    [("./nowhere", "holds no config.json"), ("a b", "neither a folder nor a hub id"), ("/tmp", "holds no config.json")],
)
def test_a_wrong_model_path_is_refused(settings: Any, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        backbone.check_access(settings("model=gemma", f"model.path='{path}'").model)


def test_gemma_architecture_has_the_shape_of_gemma_2b(settings: Any) -> None:
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForSequenceClassification

    values = dict(settings("model=gemma").model.architecture)
    shape = AutoConfig.for_model(values.pop("model_type"), **values, num_labels=11)
    with init_empty_weights():
        network = AutoModelForSequenceClassification.from_config(shape)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_506_172_416 + 11 * 2048


def test_an_architecture_that_cannot_be_built_is_refused(run: Any, capfd: Any) -> None:
    assert run("train", "model.architecture.model_type=gemmma", "model.pretrained=false", "logger=none") == 2
    assert "model.architecture cannot be built" in capfd.readouterr().err


def test_a_shape_for_a_model_that_has_one_is_refused(run: Any, capfd: Any) -> None:
    assert run("train", "model.architecture.num_hidden_layers=2", "logger=none") == 2
    assert "Add model.pretrained=false for random weights" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "max_tokens", "chosen"),
    [
        ("auto", "cpu", torch.bfloat16, 64, "eager"),
        ("auto", "cpu", torch.float32, 64, "auto"),
        ("auto", "cpu", torch.bfloat16, 512, "auto"),
        ("auto", "cuda", torch.bfloat16, 64, "auto"),
        ("sdpa", "cpu", torch.bfloat16, 64, "sdpa"),
    ],
)
def test_short_texts_on_a_cpu_get_the_faster_attention(
    asked: str, device: str, dtype: torch.dtype, max_tokens: int, chosen: str
) -> None:
    kernel = backbone.attention_kernel(AttentionKernel(asked), torch.device(device), dtype, max_tokens=max_tokens)
    assert kernel is AttentionKernel(chosen)


def test_roles_of_another_family_are_refused_by_name(run: Any, capfd: Any) -> None:
    assert run("train", "model=minilm", "model.pretrained=false", "model.architecture.hidden_size=48",
               "model.architecture.intermediate_size=64", "model.architecture.num_hidden_layers=1",
               "model.architecture.vocab_size=8192", "model.roles.key=.*k_proj", "logger=none",
               "data.max_rows=40") == 2  # fmt: skip
    assert "model.roles.key=.*k_proj" in capfd.readouterr().err


def test_a_gpu_that_is_not_there_is_said(run: Any, capfd: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert run("train", "trainer=gpu", "logger=none") == 2
    assert "torch sees no GPU" in capfd.readouterr().err


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_model_that_was_trained_for_other_labels_gets_a_fresh_head(
    run: Any, tmp_path: Path, quantization: str
) -> None:
    from transformers import AutoModelForSequenceClassification

    labelled = AutoModelForSequenceClassification.from_pretrained(backbone.BUNDLED, num_labels=5)
    labelled.save_pretrained("trained")
    AutoTokenizer.from_pretrained(backbone.BUNDLED).save_pretrained("trained")
    assert run("train", "model.path=trained", f"model.quantization={quantization}", "trainer=debug", "logger=none",
               "data.max_rows=64", "hydra.run.dir=out") == 0  # fmt: skip
    assert run("predict", "run=out", "text=We won!") == 0


@pytest.mark.parametrize("name", ["GemmaTokenizer", "TokenizersBackend"])
@pytest.mark.parametrize(
    ("add", "post", "option", "begins"),
    [
        (True, False, "tiny", True),
        (None, False, "tiny", True),  # Gemma's, whatever its files say
        (False, False, "tiny", False),
        (True, True, "tiny", True),
        (True, False, "bert", True),  # the file says so
        (None, False, "bert", "Gemma"),
    ],
)
def test_a_tokenizer_of_a_decoder_begins_every_text_as_its_model_was_trained(
    settings: Any, tmp_path: Path, name: str, add: bool | None, post: bool, option: str, begins: bool | str
) -> None:
    content = json.loads((backbone.BUNDLED / "tokenizer.json").read_text())
    said = json.loads((backbone.BUNDLED / "tokenizer_config.json").read_text()) | {"tokenizer_class": name}
    shutil.copy(backbone.BUNDLED / "config.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | ({} if post else {"post_processor": None})))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said | ({} if add is None else {"add_bos_token": add})))
    tokenizer = backbone.load_tokenizer(settings(f"model={option}", f"model.path={tmp_path}").model)
    expected = name.startswith("Gemma") if begins == "Gemma" else begins
    assert (tokenizer("joy")["input_ids"][0] == tokenizer.bos_token_id) is expected
    tokenizer.save_pretrained(tmp_path / "kept")  # as a run's model folder does
    kept = AutoTokenizer.from_pretrained(tmp_path / "kept")
    assert kept("joy fear")["input_ids"] == tokenizer("joy fear")["input_ids"]


def test_a_tokenizer_that_cannot_begin_texts_as_its_model_wants_is_refused() -> None:
    class Stubborn:
        bos_token, bos_token_id, cls_token_id, add_bos_token = "<bos>", 2, None, False

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [7]}

    with pytest.raises(UserError, match="<bos> before a text"):
        first_token.ensure_first_token(Stubborn(), str(backbone.BUNDLED), revision="main", model_type="gemma2")


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_that_do_not_fit_their_config_are_named(
    run: Any, tmp_path: Path, capfd: Any, quantization: str
) -> None:
    shutil.copytree(backbone.BUNDLED, tmp_path / "odd")
    raised = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps(raised | {"intermediate_size": 512}))
    (tmp_path / "odd" / "config.json").with_name("SHA256SUMS").unlink(missing_ok=True)
    assert run("train", "model.path=odd", f"model.quantization={quantization}", "trainer=debug", "logger=none",
               "data.max_rows=64") == 2  # fmt: skip
    assert re.search(r"model odd cannot be loaded: .*mlp\.\w+_proj\.weight is \(", capfd.readouterr().err)


def test_a_base_that_lost_its_config_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"base is damaged: it has no config\.json"):
        backbone._kept(tmp_path / "base", lambda part: pytest.fail("it would be written over"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base"]
