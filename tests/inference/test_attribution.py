"""Attributions add up to the difference of logits: every family of networks, method and form of weights."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_networks import tiny_config
from torch import Tensor

from emotion_lightning import load
from emotion_lightning.config import Pooling
from emotion_lightning.errors import UserError
from emotion_lightning.inference import attribution, predictor
from emotion_lightning.models import adapter, backbone, pooling

pytest.importorskip("captum")
IDS, BASELINE = torch.tensor([5, 7, 9, 11, 13, 8, 17, 6]), torch.tensor([5, 3, 3, 3, 3, 3, 3, 6])
TEXT = "I can't believe it, we won (again)! So happy 😂"
LABELS = ["anger", "joy", "trust"]

# A decoder, encoders whose positions depend on ids, embeddings of other sizes and kinds, decoders beside an encoder,
# texts turned on their side, and texts padded to windows.
FAMILIES = ["gemma", "bert", "roberta", "albert", "deberta-v2", "mpnet", "t5", "bart", "xlnet", "big_bird", "opt"]


def network_of(model_type: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config(model_type, num_labels=3)).eval()


def of_ids(network: Any, *, steps: int = 64, batch_size: int = 32) -> tuple[attribution.Attributed, Tensor, Tensor]:
    """Attributions for three labels, and the logits of the text and of the baseline as `predict` computes them."""
    network.requires_grad_(False)
    way = Pooling.last if pooling.is_decoder(network) else Pooling.first

    def forward(rows: Tensor) -> Tensor:
        return pooling.logits(network, {"input_ids": rows}, pooling=way)

    with torch.inference_mode():  # what a network keeps from a prediction must not stand in the way
        own, nothing = forward(IDS.unsqueeze(0))[0], forward(BASELINE.unsqueeze(0))[0]
    found = attribution.integrated_gradients(
        forward, network, IDS, BASELINE, targets=[0, 2, 1], steps=steps, batch_size=batch_size
    )
    return found, own.clone()[[0, 2, 1]], nothing.clone()[[0, 2, 1]]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attributions_of_any_family_add_up_to_the_difference_of_its_logits(model_type: str) -> None:
    found, own, nothing = of_ids(network_of(model_type))
    torch.testing.assert_close(found.logits.float(), own, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.baseline_logits.float(), nothing, atol=1e-6, rtol=0)
    change = found.logits - found.baseline_logits
    assert change.abs().max() > 0
    # The kinks of T5's ReLU are where the quadrature errs.
    torch.testing.assert_close(found.attributions.sum(1), change, atol=2e-2 * float(change.abs().max()), rtol=0)
    assert found.attributions[:, [0, -1]].abs().max() == 0  # the same in text and baseline
    assert (found.attributions[:, 1:-1].abs().amax(0) > 0).all()


def test_more_steps_have_a_smaller_error() -> None:
    errors = []
    for steps in (2, 8, 64):
        found, *_ = of_ids(network_of("gemma2"), steps=steps)
        errors.append(float((found.attributions.sum(1) - found.logits + found.baseline_logits).abs().max()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-6


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_points_of_a_pass_change_no_number_and_are_bounded(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, sizes = network_of("bert"), []
    whole, *_ = of_ids(network, steps=8)
    table = network.get_input_embeddings()
    hook = table.register_forward_hook(lambda _, args, output: sizes.append(len(args[0])))
    parts, *_ = of_ids(network, steps=8, batch_size=batch_size)
    hook.remove()
    torch.testing.assert_close(parts.attributions, whole.attributions, atol=1e-9, rtol=1e-4)
    assert max(sizes) <= max(2, batch_size)  # text and baseline are computed together
    sizes.clear()
    monkeypatch.setattr(attribution, "_TOKENS_AT_ONCE", 24)  # three texts of eight tokens
    hook = table.register_forward_hook(lambda _, args, output: sizes.append(len(args[0])))
    of_ids(network, steps=8)
    hook.remove()
    assert max(sizes) == 3


def test_a_network_without_a_token_embedding_is_refused() -> None:
    network = network_of("bert")
    network.get_input_embeddings = lambda: None
    with pytest.raises(UserError, match="BertForSequenceClassification turns its tokens into vectors in a way of its"):
        of_ids(network)


def test_a_network_that_does_not_ask_its_embedding_is_refused() -> None:
    network = network_of("bert")
    table = network.get_input_embeddings()
    network.bert.embeddings.word_embeddings = torch.nn.Embedding(256, 32)
    network.get_input_embeddings = lambda: table
    with pytest.raises(UserError, match="cannot be explained"):
        of_ids(network)


METHODS = ["ia3", "ia3_all", "lora", "dora", "vera", "ln_tuning", "head"]
SMALL = ["model.pretrained=false", "model.architecture.num_hidden_layers=2", "model.architecture.hidden_size=64",
         "model.architecture.intermediate_size=128", "model.architecture.num_attention_heads=2",
         "model.architecture.vocab_size=8192", "model.dtype=float32"]  # fmt: skip
DECODER = ["model=gemma", *SMALL, "model.architecture.num_key_value_heads=1", "model.architecture.head_dim=32"]
FORMS = [(method, form) for method in METHODS for form in ("nf4", "int8", "none") if (method, form) != ("dora", "int8")]


@pytest.mark.parametrize(("method", "form"), [*FORMS, ("full", "none")])
def test_gradients_flow_through_every_method_and_form_of_weights(
    settings: Any, tmp_path: Path, method: str, form: str
) -> None:
    more = ["peft.r=8"] if method == "vera" else []
    chosen = settings(*DECODER, f"peft={method}", *more, f"model.quantization={form}")
    tokenizer = backbone.load_tokenizer(chosen.model)
    network = backbone.build_network(
        chosen.model, LABELS, tokenizer=tokenizer, full=method == "full", device=torch.device("cpu"), seed=1,
        base_folder=tmp_path / "base",
    )  # fmt: skip
    network = adapter.attach_adapter(
        network, chosen.peft, roles=chosen.model.roles, head=backbone.head_modules(chosen.model), seed=1,
        unused=backbone.unused_module(chosen.model),
    ).eval()  # fmt: skip
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:  # away from where methods begin, at which many change nothing
                parameter += 0.1 * torch.randn(parameter.shape, generator=chance)
    found, own, _ = of_ids(network)
    torch.testing.assert_close(found.logits.float(), own, atol=1e-5, rtol=0)
    change = found.logits - found.baseline_logits
    # 8-bit weights round what is multiplied with them, so that the logits have steps.
    tolerance = 0.1 if form == "int8" else 1e-3
    torch.testing.assert_close(found.attributions.sum(1), change, atol=tolerance * float(change.abs().max()), rtol=0)


# ------------------------------------------------------------------------------------------------- finished runs


@pytest.fixture(scope="module")
def bundled() -> predictor.Labeller:
    return load(accelerator="cpu")


def test_words_of_the_bundled_classifier_add_up_and_lie_in_the_text(bundled: predictor.Labeller) -> None:
    (found,) = bundled.explain([TEXT])
    (answer,) = bundled.predict([TEXT])
    assert found.labels == answer.labels and found.text == TEXT
    assert all(TEXT[word.start : word.end] == word.text for word in found.words)
    assert [word.text for word in found.words][:3] == ["I", "can't", "believe"]
    logits = dict(zip(bundled.metadata.labels, bundled.outputs([TEXT])[0][0].tolist(), strict=True))
    for label in found.labels:
        total = sum(word.attributions[label] for word in found.words)
        change = found.logits[label] - found.baseline_logits[label]
        assert found.logits[label] == pytest.approx(logits[label], abs=1e-4)
        assert total - change == pytest.approx(found.errors[label], abs=1e-9)
        assert abs(found.errors[label]) < 0.02 * abs(change)


def test_a_word_that_decides_is_the_strongest(bundled: predictor.Labeller) -> None:
    texts = ["The meeting was at noon and I hate it", "The meeting was at noon and I am afraid"]
    for text, label, word in zip(texts, ["anger", "fear"], ["hate", "afraid"], strict=True):
        (found,) = bundled.explain([text], [label], steps=16)
        assert found.strongest(label)[0].text == word and found.strongest(label)[0].attributions[label] > 0


def test_texts_without_a_label_explain_the_most_probable_and_empty_texts_have_no_words(
    bundled: predictor.Labeller,
) -> None:
    empty, blank = bundled.explain(["", "  "], steps=4)
    shares = bundled.probabilities(["", "  "])
    assert empty.labels == [bundled.metadata.labels[int(shares[0].argmax())]] and empty.words == []
    assert empty.logits == empty.baseline_logits and empty.largest_error == 0
    assert [(word.start, word.end) for word in blank.words] == [(0, 2)]


def test_what_cannot_be_explained_is_told(bundled: predictor.Labeller, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="There is no label joyy to explain; the labels are anger, "):
        bundled.explain(["a"], ["joyy"])
    with pytest.raises(UserError, match="explain takes a text or a list of texts, but this is a int"):
        bundled.explain(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="steps=0"):
        bundled.explain(["a"], steps=0)
    monkeypatch.setattr(attribution.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Explanations need Captum: pip install -e .*\[explain\]"):
        bundled.explain(["a"])


def test_a_prediction_in_another_thread_is_not_touched(bundled: predictor.Labeller) -> None:
    expected = bundled.probabilities([TEXT])
    found, stop = [], threading.Event()

    def predict() -> None:
        while not stop.is_set():
            found.append(bundled.probabilities([TEXT]))

    other = threading.Thread(target=predict)
    other.start()
    bundled.explain([TEXT], ["joy", "fear"], steps=8, batch_size=2)
    stop.set()
    other.join()
    assert found and all(torch.allclose(one, expected, atol=1e-5) for one in found)


def test_an_ensemble_gives_the_mean_of_its_networks(bundled: predictor.Labeller, finished: Path) -> None:
    other = load(finished, accelerator="cpu")
    both = predictor.Ensemble([bundled, other], bundled.metadata)
    (found,) = both.explain([TEXT], ["joy"], steps=8)
    parts = [one.explain([TEXT], ["joy"], steps=8)[0] for one in (bundled, other)]
    for word in found.words:
        shares = [w.attributions["joy"] for part in parts for w in part.words if w.start == word.start]
        assert word.attributions["joy"] == pytest.approx(sum(shares) / 2)


def test_a_graph_and_a_baseline_are_refused(bundled: predictor.Labeller) -> None:
    metadata = bundled.metadata
    graph = predictor.GraphPredictor(None, None, metadata=metadata, device=torch.device("cpu"))
    with pytest.raises(UserError, match="An ONNX graph has no gradients .*; take the run that was exported"):
        graph.explain(["a"])
    with pytest.raises(UserError, match="A baseline of n-grams has no gradients"):
        predictor.NgramPredictor(None, metadata=metadata).explain(["a"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="An ONNX graph"):
        predictor.Ensemble([bundled, graph], metadata).explain(["a"])
