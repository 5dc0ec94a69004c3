"""Which architectures of transformers can be trained here, each tried as a tiny random network.

python tests/helpers/model_table.py            writes docs/models.md
python tests/helpers/model_table.py gpt2 t5    prints the rows of these architectures
"""

import dataclasses
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from emotion_lightning import config
from emotion_lightning.data.batches import Collate, EmotionRows, tokenize
from emotion_lightning.errors import UserError
from emotion_lightning.inference import onnx_graph
from emotion_lightning.models import adapter, auto, backbone, head_start, pooling
from helpers.tiny_networks import NAMED, text_types, tiny_config

METHODS = ("ia3", "lora", "head", "full")
FORMS = ("none", "nf4")
LABELS = ["anger", "joy", "trust"]
TEXTS = ["I never thought they would come.", "No.", "Rain again, and the boiler is out. Lovely start, that."]
CPU = torch.device("cpu")
DOCS = Path(__file__).parents[2] / "docs" / "models.md"


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(backbone.BUNDLED)


@cache
def peft_options() -> dict[str, config.Peft]:
    """Settings of each method, as its option file has them."""
    return {name: compose(f"peft={name}").peft for name in METHODS}


@cache
def model_option() -> config.Model:
    """Settings of model=auto."""
    return compose().model


def compose(*overrides: str) -> Any:
    import hydra
    from hydra import initialize_config_dir

    from emotion_lightning.config import schema

    schema.register()
    with initialize_config_dir(config_dir=str(schema.conf_folder()), version_base="1.3"):
        line = ["model=auto", "model.path=any", "model.dtype=float32", *overrides]
        return schema.load_settings(hydra.compose("train", line), "train")


def checkpoint(model_type: str, folder: Path, **values: Any) -> Path:
    """Save a tiny random network and the bundled tokenizer as a model folder.

    Raises:
        Exception: transformers cannot build this architecture at this size.
    """
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    architecture = tiny_config(model_type, **({"vocab_size": 8192} | values))
    architecture.pad_token_id = architecture.get_text_config().pad_token_id = 0
    architecture.get_text_config().vocab_size = architecture.vocab_size
    network = AutoModelForSequenceClassification.from_config(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:  # a network at its own initial values differs too little from text to text
                parameter.mul_(2)
    place = folder / model_type
    network.save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@dataclasses.dataclass
class Asked:
    """The two parts of a run's settings that the network depends on."""

    model: config.Model
    peft: config.Peft


def batch_of(texts: list[str]) -> dict[str, Any]:
    rows = EmotionRows(tokenize(texts, tokenizer(), max_tokens=64), None)
    return Collate(rows, tokenizer().pad_token_id)(range(len(texts)))


def build(path: Path, method: str, form: str, **changed: Any) -> tuple[Asked, Any]:
    """Settings with what was read from the network, and the network with its adapter."""
    model = dataclasses.replace(model_option(), path=str(path), quantization=config.Quantization(form), **changed)
    asked = auto.resolve(Asked(model, peft_options()[method]))
    network = adapter.attach_adapter(
        base(asked.model, full=method == "full"),
        asked.peft,
        roles=asked.model.roles,
        head=backbone.head_modules(asked.model),
        seed=1,
        unused=backbone.unused_module(asked.model),
    )
    adapter.freeze_idle(network, asked.model.pooling)
    head_start.measure_head(
        network, batch_of(TEXTS), head=backbone.head_modules(asked.model), way=asked.model.pooling, dtype=torch.float32
    )
    return asked, network


def base(model: config.Model, *, full: bool = False) -> Any:
    return backbone.build_network(
        model, LABELS, tokenizer=tokenizer(), full=full, device=CPU, seed=1, base_folder=Path("unused")
    )


def logits(asked: Asked, network: Any, batch: Any) -> torch.Tensor:
    return pooling.logits(network, batch, pooling=asked.model.pooling)


def check(path: Path, method: str, form: str, folder: Path) -> list[str]:
    """Train a tiny network for a few steps and return what is wrong with it.

    Raises:
        UserError: it is refused.
    """
    asked, network = build(path, method, form)
    batch, wrong = batch_of(TEXTS), []
    with torch.no_grad():
        together = logits(asked, network.eval(), batch)
        alone = torch.cat([logits(asked, network, batch_of([text])) for text in TEXTS])
    if not torch.allclose(together, alone, atol=2e-5):
        wrong.append(f"padding changes the logits by {float((together - alone).abs().max()):.1g}")
    if float(together.std(dim=0).max()) < 1e-6:
        wrong.append("all texts get the same logits")

    targets = torch.eye(3)
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    steps = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0)
    measure = torch.nn.functional.binary_cross_entropy_with_logits
    first = float(measure(together, targets))
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # its noise is larger than what a few steps gain
    for step in range(8):
        loss = measure(logits(asked, network, batch), targets)
        steps.zero_grad()
        loss.backward()
        if step == 0 and (idle := [name for name, parameter in trained.items() if parameter.grad is None]):
            shown = ", ".join(re.sub(r"^base_model\.model\.|\.default", "", name) for name in idle[:3])
            wrong.append(f"{len(idle)} trained parameters get no gradient, such as {shown}")
        steps.step()
    with torch.no_grad():
        before = logits(asked, network.eval(), batch)
    if not (last := float(measure(before, targets))) < first:
        wrong.append(f"the loss rises from {first:.3f} to {last:.3f}")
    saved = folder / f"{path.name}-{method}-{form}"
    network.save_pretrained(saved)
    with torch.no_grad():
        after = logits(asked, reloaded(asked, method, saved), batch)
    if not torch.allclose(before, after, atol=1e-5):
        wrong.append(f"the saved model gives other logits, by {float((before - after).abs().max()):.1g}")
    return wrong


def reloaded(asked: Asked, method: str, saved: Path) -> Any:
    from peft import PeftModel

    if method == "full":
        return base(dataclasses.replace(asked.model, path=str(saved)), full=True).eval()
    network = PeftModel.from_pretrained(base(asked.model), str(saved))
    adapter.keep_dtype(network)
    return network.eval()


def exports(model_type: str, folder: Path) -> dict[str, str]:
    """Train IA3 for a few steps, merge it, and write the network as a graph; what each gives: yes, or why not."""
    path = checkpoint(model_type, folder)
    check(path, "ia3", "none", folder)
    asked, _ = build(path, "ia3", "none")
    network = reloaded(asked, "ia3", folder / f"{path.name}-ia3-none")
    with torch.no_grad():
        trained = logits(asked, network, batch_of(TEXTS))
    merged = adapter.merge_adapter(network).eval()
    return {
        "merged": _tried(lambda: _merged(asked, merged, trained, folder / f"{path.name}-merged")),
        "onnx": _tried(lambda: _graph(asked, merged, trained, folder / f"{path.name}-onnx")),
    }


def _merged(asked: Asked, merged: Any, trained: torch.Tensor, saved: Path) -> list[str]:
    """What is wrong with the merged network, saved and opened by transformers alone where its class pools so."""
    from transformers import AutoModelForSequenceClassification

    wrong, batch, found = [], batch_of(TEXTS), None
    with torch.no_grad():
        if not torch.allclose(logits(asked, merged, batch), trained, atol=1e-5):
            wrong.append("merging changes the logits")
        merged.save_pretrained(saved)
        if pooling.is_stock(merged, asked.model.attention, asked.model.pooling):
            stock = AutoModelForSequenceClassification.from_pretrained(saved).eval()
            with suppress(ValueError):  # T5 needs an end token, which the tokenizer of this table does not add
                found = stock(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        if found is None:
            found = logits(asked, base(dataclasses.replace(asked.model, path=str(saved)), full=True).eval(), batch)
    if not torch.allclose(found, trained, atol=1e-5):
        wrong.append(f"the merged model, read again, gives other logits, by {float((found - trained).abs().max()):.1g}")
    return wrong


def _graph(asked: Asked, merged: Any, trained: torch.Tensor, folder: Path) -> list[str]:
    """What is wrong with the network as a graph, in batches of several sizes and lengths."""
    folder.mkdir()
    onnx_graph.write_graph(merged, folder, way=asked.model.pooling)
    graph = onnx_graph.Graph(folder, labels=len(LABELS), accelerator=config.Accelerator.cpu)
    together = graph.logits(batch_of(TEXTS))
    alone = torch.cat([graph.logits(batch_of([text])) for text in TEXTS])
    found = max(float((answer - trained).abs().max()) for answer in (together, alone))
    return [] if found < 1e-4 else [f"the graph gives other logits, by {found:.1g}"]


def _tried(do: Callable[[], list[str]]) -> str:
    try:
        return "; ".join(do()) or "yes"
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"


def row(model_type: str, folder: Path) -> dict[str, str]:
    """What each method gives in each form of weights: yes, or why not."""
    try:
        path = checkpoint(model_type, folder)
    except Exception as error:  # whatever the architecture lacks
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"all": f"not tried: transformers does not build it at this size ({lines[0][:90]})"}
    found: dict[str, str] = {}
    for method in METHODS:
        for form in FORMS if method != "full" else FORMS[:1]:
            found[method if form == "none" else f"{method}, {form}"] = _tried(
                partial(check, path, method, form, folder)
            )
    return found


def rows(model_types: list[str], of: Callable[[str, Path], dict[str, str]] = row) -> dict[str, dict[str, str]]:
    """What `row` or `exports` gives for each of these architectures."""
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for model_type in model_types:
            found[model_type] = of(model_type, Path(folder))
            if __name__ == "__main__":
                print(model_type, "all yes" if set(found[model_type].values()) == {"yes"} else found[model_type],
                      file=sys.stderr, flush=True)  # fmt: skip
        return found


COLUMNS = ["ia3", "ia3, nf4", "lora", "lora, nf4", "head", "head, nf4", "full"]
"""The columns of the table: `peft`, and the quantization where there is one."""


def trains(found: dict[str, str]) -> bool:
    """Whether a network trains with every method in every form of weights."""
    return set(found.values()) == {"yes"}


def markdown(found: dict[str, dict[str, str]], exported: dict[str, dict[str, str]]) -> str:
    """The page docs/models.md, from what `rows` returns for all architectures and for the exports of some."""
    import transformers

    whole = [name for name in found if trains(found[name])]
    partly = [name for name in found if not trains(found[name]) and "yes" in found[name].values()]
    notes: dict[str, list[str]] = {}
    lines = []
    for name, answers in found.items():
        cells = []
        for column in COLUMNS:
            answer = answers.get(column, answers.get("all", ""))
            if answer != "yes":
                notes.setdefault(_reason(name, answer), []).append(f"{name}: {column}")
            cells.append("yes" if answer == "yes" else "no")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    reasons: dict[str, list[str]] = {}
    for reason, places in notes.items():
        name = places[0].partition(":")[0]
        columns = [place.partition(": ")[2] for place in places]
        reasons.setdefault(name, []).append(
            f"{'all' if len(columns) == len(COLUMNS) else '; '.join(columns)}: {reason.partition(chr(0))[2]}"
        )
    text_lines = [f"- `{name}`, {line}" for name, parts in reasons.items() for line in parts]
    return PAGE.format(
        version=transformers.__version__,
        count=len(found),
        whole=len(whole),
        partly=len(partly),
        rest=len(found) - len(whole) - len(partly),
        head=" | ".join(f"`peft={c.partition(',')[0]}`{c.partition(',')[2]}" for c in COLUMNS),
        line="|".join(["---"] * (1 + len(COLUMNS))),
        rows="\n".join(lines),
        exports=exports_markdown(exported),
        reasons="\n".join(text_lines),
    )


def exports_markdown(found: dict[str, dict[str, str]]) -> str:
    """The table of exports, and why some are not possible."""
    lines = ["| architecture | `format=merged` | `format=onnx` |", "|---|---|---|"]
    why = []
    for name, answers in found.items():
        cells = ["yes" if answer == "yes" else "no" for answer in answers.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
        why += [f"- `{name}`, {form}: {answer}" for form, answer in answers.items() if answer != "yes"]
    return "\n".join([*lines, "", *why]).strip()


def _reason(name: str, answer: str) -> str:
    answer = re.sub(r"/\S*/(\w[\w-]*)", r"\1", answer)  # folders of this machine
    return f"{name}\0{answer.strip()}"


PAGE = """# Which models can be trained

`model=auto model.path=FOLDER_OR_HUB_ID` takes any model for which transformers'
`AutoModelForSequenceClassification` has a class. Before training it builds the network without its weights and
reads from it:

- the roles of its linear layers: query, key, value, output, gate, feedforward_in, feedforward_out, and its norms;
- its head, and the pooler if the head reads one; both are trained in full and are never quantised;
- which token vectors its class reads (first, last, or the mean of all), and whether its attention is causal.

`python -m emotion_lightning.inspect model=auto model.path=…` prints all of it, with the number of parameters that
each option of `peft` trains and the memory of the weights in each quantization. The run's settings.yaml holds what
was found, so resuming, evaluating and predicting read nothing anew (its `model.architecture` is that of a network with
random weights, and says nothing about a given one). Every setting can be given by hand as well,
such as `model.pooling=mean`; what a network cannot do ends with exit code 2 and a sentence that says what it has.

If `model.path` is given without `model`, and its config.json is not of the family of the default option,
`model=auto` is used, and the log says so.

Some networks compute queries, keys and values in one matrix (`c_attn`, `query_key_value`, `qkv_proj`, `Wqkv`).
LoRA, DoRA and VeRA adapt the whole matrix. IA3 rescales the outputs that belong to the targeted roles and leaves
the others as they are; which outputs these are is found by what they do in the attention. A matrix that computes
the feed-forward block's gate too (`gate_up_proj`) is rescaled only as a whole: `peft=ia3` does not need it,
`peft=ia3_all` is refused.

In a mixture of experts, such as `mixtral` or `qwen3_moe`, the experts of a block are one tensor. Only `peft=full`
trains them. The other methods adapt the attention, and the expert that all tokens pass where there is one, as in
`qwen2_moe`; the router stays as it is.

## The table

Each architecture of transformers {version} that classifies texts, as a network with two layers and random weights.
`yes` means: the loss falls on one batch, every trained parameter has a gradient, a text gets the same logits alone
and in a padded batch, and the saved model gives the same logits when it is loaded.

Of {count} architectures, {whole} train with every method here, {partly} with some of them, and {rest} with none.
`python tests/helpers/model_table.py` writes this page.

| architecture | {head} |
|{line}|
{rows}

## Exports

The architectures that emotion classifiers are mostly made of, with IA3. `yes` under `format=merged` means: with its
adapter merged, saved and opened again, the network gives the same logits, opened by transformers alone where
`model.pooling` is what its class does. Under `format=onnx`: onnxruntime gives them too, in batches of other sizes and
lengths than the graph was made with.

{exports}

## Why not

{reasons}
"""


if __name__ == "__main__":
    asked = sys.argv[1:]
    answers = rows(asked or text_types())
    exported = rows(asked or NAMED, exports)
    if not asked:
        DOCS.write_text(markdown(answers, exported), encoding="utf-8")
