"""Make the network and the classifier bundled with the package. Finished trainings are not repeated."""

import argparse
import csv
import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_lightning.config import schema
from emotion_lightning.data import official
from emotion_lightning.errors import UserError
from emotion_lightning.inference import predictor
from emotion_lightning.models import backbone
from emotion_lightning.models.metadata import METADATA, find_model_folder, read_metadata
from emotion_lightning.runs import bounded_files, manifest, run_folder
from emotion_lightning.runs.files import write_json
from emotion_lightning.tiny import mixtures, train_tokenizer

_FOLDS = 3
_MIXTURES = (8_000, 6_000, 18_000)
"""Numbers of synthetic texts from the sample (per fold), from the sample and GoEmotions (per fold), and from GoEmotions
alone."""


@dataclasses.dataclass
class _Part:
    """Training texts that are labelled by the same teachers.

    Attributes:
        fold: fold of the sample whose rows the texts contain; None if they contain none of the sample.
        texts: the texts.
    """

    fold: int | None
    texts: list[str]


def make(goemotions: str, encoder: str, work: Path) -> None:
    """Run all steps: tokenizer, teachers, texts with the teachers' probabilities, network, classifier.

    Args:
        goemotions: folder of the official files of GoEmotions.
        encoder: folder of all-MiniLM-L6-v2.
        work: folder of the runs and files.
    """
    work.mkdir(parents=True, exist_ok=True)
    tokenizer(goemotions)
    start(encoder, work / "start")
    parts = folds(goemotions, work)
    large = [work / f"goemotions_{seed}" for seed in (1, 2)]
    small = [work / f"sample_{fold}" for fold in range(_FOLDS)]
    for seed, run in enumerate(large, 1):
        _train(run, "experiment=goemotions_minilm_full", f"data.dir={goemotions}", f"model.path={encoder}",
               f"seed={seed}")  # fmt: skip
    for fold, run in enumerate(small):
        _train(run, "experiment=tiny_teacher", f"data.train={work / f'without_{fold}.csv'}",
               f"data.validation={work / 'sample_validation.csv'}", f"model.path={encoder}",
               f"init_from={large[fold % len(large)]}", f"seed={fold + 1}")  # fmt: skip
    answers(goemotions, parts, large, small, work)
    pretrained = work / "pretrained"
    _train(pretrained, "experiment=tiny_pretrain", f"data.train={work / 'train.csv'}",
           f"data.validation={work / 'validation.csv'}", f"distill.answers={work / 'answers.csv'}",
           f"model.path={work / 'start'}")  # fmt: skip
    network(pretrained)
    _train(work / "classifier")
    classifier(work / "classifier")


def _train(folder: Path, *overrides: str) -> None:
    """Run `train`, or resume it; do nothing if the run is finished."""
    if (folder / run_folder.METRICS).is_file():
        return
    begun = (folder / run_folder.SETTINGS).is_file()
    asked = [f"resume={folder}"] if begun else [*overrides, "logger=none", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "emotion_lightning.train", *asked], check=True)


def tokenizer(goemotions: str) -> None:
    """Train the tokenizer on the training texts of GoEmotions and of the sample."""
    corpora = [official.goemotions(goemotions), official.sample()]
    found = [text for corpus in corpora for text in corpus.splits["train"].texts]
    train_tokenizer(found).save_pretrained(backbone.BUNDLED)


def folds(goemotions: str, work: Path) -> list[_Part]:
    """Write the sample's training rows without each fold in turn, and return the texts to train on.

    Each fold is labelled by a teacher that was not trained on it. A teacher that has seen a row gives away the row's
    labels: the network would memorize them, and later fine-tuning on these rows would teach it nothing.
    """
    large, small = official.goemotions(goemotions).splits["train"].texts, official.sample()
    labels = _of_sample(small.labels)
    train = small.splits["train"]
    assert train.targets is not None
    fold_of = np.random.default_rng(0).permutation(len(train.texts)) % _FOLDS
    within, across, without = _MIXTURES
    parts = [_Part(None, [*large, *mixtures(large, large, without, seed=0)])]
    for fold in range(_FOLDS):
        own = [text for text, its in zip(train.texts, fold_of, strict=True) if its == fold]
        rest = np.flatnonzero(fold_of != fold)
        _write(work / f"without_{fold}.csv", labels, [train.texts[i] for i in rest], train.targets[rest])
        made = [mixtures(own, own, within, seed=2 * fold + 1), mixtures(own, large, across, seed=2 * fold + 2)]
        parts.append(_Part(fold, [*own, *itertools.chain(*made)]))
    validation = small.splits["validation"]
    assert validation.targets is not None
    _write(work / "sample_validation.csv", labels, validation.texts, validation.targets)
    return parts


def answers(goemotions: str, parts: list[_Part], large: list[Path], small: list[Path], work: Path) -> None:
    """Write the texts with the teachers' probabilities for the labels of both datasets.

    Labels in train.csv are the teachers' probabilities rounded at 0.5. So are the labels in validation.csv that the
    dataset of a text does not have.
    """
    if (work / "answers.csv").is_file():
        return
    corpora = official.goemotions(goemotions), official.sample()
    labels = [*corpora[0].labels, *_of_sample(corpora[1].labels)]

    def ask(part: _Part) -> Answers:
        teachers = small if part.fold is None else [small[part.fold]]
        return np.concatenate([_mean(large, corpora[0].labels, part.texts),
                               _mean(teachers, _of_sample(corpora[1].labels), part.texts)], axis=1)  # fmt: skip

    found = np.concatenate([ask(part) for part in parts])
    texts = [text for part in parts for text in part.texts]
    _write(work / "train.csv", labels, texts, found >= 0.5)
    held = [corpus.splits["validation"] for corpus in corpora]
    answered = [ask(_Part(None, split.texts)) >= 0.5 for split in held]
    width = len(corpora[0].labels)
    answered[0][:, :width], answered[1][:, width:] = held[0].targets, held[1].targets
    _write(work / "validation.csv", labels, [text for split in held for text in split.texts], np.concatenate(answered))
    part_file = work / "answers.part"
    _write(part_file, [f"p_{name}" for name in labels], texts, found.astype(float).round(5))
    part_file.rename(work / "answers.csv")


Answers = NDArray[np.float32]
"""[text, label]"""


def _of_sample(labels: list[str]) -> list[str]:
    """Return the label names with a prefix, because GoEmotions has labels with the same names and other meanings."""
    return [f"sample_{name}" for name in labels]


def _mean(runs: list[Path], labels: list[str], texts: list[str]) -> Answers:
    print(f"{', '.join(run.name for run in runs)} answer {len(texts):,} texts.", flush=True)
    teachers = predictor.load(runs)
    found: Answers = teachers.probabilities(texts).numpy()
    return found[:, [teachers.metadata.labels.index(name) for name in labels]]


def _write(file: Path, columns: list[str], texts: Sequence[str], cells: NDArray[Any]) -> None:
    plain = cells.astype(int) if cells.dtype == bool or (cells % 1 == 0).all() else cells
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", *columns])
        writer.writerows([text, *row] for text, row in zip(texts, plain.tolist(), strict=True))


def start(encoder: str, folder: Path) -> None:
    """Initialize a random network with the token embeddings of an encoder.

    The embedding of a token is the mean over the pieces into which the encoder's tokenizer splits it (Gee et al., 2022,
    "Fast vocabulary transfer"). It is projected to the main directions of these means (SVD), as many as the network's
    hidden size.
    """
    import torch
    import yaml
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    own, theirs = AutoTokenizer.from_pretrained(backbone.BUNDLED), AutoTokenizer.from_pretrained(encoder)
    known = AutoModel.from_pretrained(encoder).get_input_embeddings().weight.detach().float()
    words = [own.decode([token]).strip() or theirs.unk_token for token in range(len(own))]
    pieces = theirs(words, add_special_tokens=False)["input_ids"]
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
        # Three times the spread of random embeddings, so that their information passes through the random layers.
        made.get_input_embeddings().weight.copy_(found / found.std() * 3 * architecture.initializer_range)
    made.save_pretrained(folder)
    own.save_pretrained(folder)


def network(run: Path) -> None:
    """Store the network of a run of experiment=tiny_pretrain in the package, without its head, in bfloat16."""
    import torch
    from transformers import AutoModel

    folder = find_model_folder(str(run))
    made = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    made.config.num_labels, made.config.problem_type = 2, None  # there is no head, so reset its labels
    made.save_pretrained(backbone.BUNDLED)
    manifest.write_hashes(backbone.BUNDLED)
    for file in backbone.BUNDLED.iterdir():
        file.chmod(0o644)


def classifier(run: Path) -> None:
    """Store the adapter of a run on that network in the package, without paths of the machine that trained it."""
    folder = find_model_folder(str(run))
    metadata = read_metadata(folder)
    here = backbone.BUNDLED_RUN / run_folder.MODEL
    here.mkdir(exist_ok=True)
    for name in ("adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / name, here / name)
    adapter: dict[str, Any] = bounded_files.read_json(folder / "adapter_config.json")
    (here / "adapter_config.json").write_text(
        json.dumps(adapter | {"base_model_name_or_path": run_folder.BASE}, indent=2) + "\n", encoding="utf-8"
    )
    metadata = dataclasses.replace(
        metadata.with_base(path=run_folder.BASE),
        data=run_folder.without_paths(metadata.data),
        data_hashes=run_folder.without_paths(metadata.data_hashes),
    )
    write_json(here / METADATA, metadata.plain())
    manifest.write_hashes(here)


def main() -> None:
    """Read the command line and run all steps."""
    parser = argparse.ArgumentParser(prog="python -m emotion_lightning.tiny", description=__doc__)
    parser.add_argument("goemotions", metavar="GOEMOTIONS", help="folder of the official files of GoEmotions")
    parser.add_argument("encoder", metavar="ENCODER", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, default=Path("outputs/tiny"), help="folder of the runs (%(default)s)")
    given = parser.parse_args()
    try:
        make(given.goemotions, given.encoder, given.work)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    except subprocess.CalledProcessError as error:
        parser.exit(error.returncode, "The same command goes on from there.\n")


if __name__ == "__main__":
    main()
