"""Make what is inside the package; see the package's own docstring for the order."""

import argparse
import dataclasses
import json
import shutil
from typing import Any

from emotion_lightning import checkpoint, model, run_folder, schema
from emotion_lightning.data import official
from emotion_lightning.errors import UserError
from emotion_lightning.tiny import train_tokenizer

START = "tiny_start"


def tokenizer(goemotions: str) -> None:
    """Train the tokenizer on the training texts of GoEmotions and of the sample."""
    corpora = [official.goemotions(goemotions), official.sample()]
    texts = [text for corpus in corpora for text in corpus.splits["train"].texts]
    train_tokenizer(texts).save_pretrained(model.BUNDLED)


def start(encoder: str) -> None:
    """Give a network of random weights the word embeddings of an encoder, in the folder `tiny_start`.

    A token starts as the mean of the pieces that the encoder's tokenizer makes of it (Gee et al., 2022, "Fast
    vocabulary transfer"), in the encoder's main directions, as many as this network has.
    """
    import torch
    import yaml
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    own, theirs = AutoTokenizer.from_pretrained(model.BUNDLED), AutoTokenizer.from_pretrained(encoder)
    known = AutoModel.from_pretrained(encoder).get_input_embeddings().weight.detach().float()
    texts = [own.decode([token]).strip() or theirs.unk_token for token in range(len(own))]
    pieces = theirs(texts, add_special_tokens=False)["input_ids"]
    means = torch.stack([known[ids or [theirs.unk_token_id]].mean(0) for ids in pieces])
    means -= means.mean(0)
    settings = yaml.safe_load((schema.conf_folder() / "model" / "tiny.yaml").read_text(encoding="utf-8"))
    architecture = AutoConfig.for_model(
        **settings["architecture"],
        pad_token_id=own.pad_token_id, bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    made = AutoModel.from_config(architecture)
    directions = torch.linalg.svd(means, full_matrices=False)[2][: architecture.hidden_size]
    found = means @ directions.T
    with torch.no_grad():
        # Three times as far apart as random ones: what they tell has to be heard through the layers.
        made.get_input_embeddings().weight.copy_(found / found.std() * 3 * architecture.initializer_range)
    made.save_pretrained(START)
    own.save_pretrained(START)
    print(f"Wrote {START}; go on with model.path={START}.")


def network(run: str) -> None:
    """Take the network of a run of experiment=tiny_pretrain, without its head, in bfloat16."""
    import torch
    from transformers import AutoModel

    folder = checkpoint.model_folder(run)
    if checkpoint.read_card(folder).base["adapter"]:
        raise UserError(f"run={run} trained an adapter; take one of experiment=tiny_pretrain.")
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(model.BUNDLED)


def classifier(run: str) -> None:
    """Take the adapter of a run on that network, without what tells of the machine that trained it."""
    folder = checkpoint.model_folder(run)
    card = checkpoint.read_card(folder)
    if (card.base["path"], card.base.get("weights")) != (model.TINY, model.tiny_print()):
        raise UserError(f"run={run} is no adapter on the model=tiny of this package.")
    model.BUNDLED_RUN.mkdir(exist_ok=True)
    for name in ("adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / name, model.BUNDLED_RUN / name)
    adapter: dict[str, Any] = run_folder.read_json(folder / "adapter_config.json")
    (model.BUNDLED_RUN / "adapter_config.json").write_text(
        json.dumps(adapter | {"base_model_name_or_path": model.TINY}, indent=2) + "\n", encoding="utf-8"
    )
    data = card.data | {"cache_dir": None}
    run_folder.write_json(model.BUNDLED_RUN / checkpoint.CARD, dataclasses.replace(card, data=data).__dict__)


def main() -> None:
    """Read the command line and make a part."""
    parser = argparse.ArgumentParser(prog="python -m emotion_lightning.tiny", description=__doc__)
    parts = parser.add_subparsers(required=True, metavar="PART")
    for make, needs in ((tokenizer, "GOEMOTIONS"), (start, "ENCODER"), (network, "RUN"), (classifier, "RUN")):
        part = parts.add_parser(make.__name__, help=make.__doc__, description=make.__doc__)
        part.add_argument("source", metavar=needs, type=str)
        part.set_defaults(make=make)
    given = parser.parse_args()
    try:
        given.make(given.source)
    except UserError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
