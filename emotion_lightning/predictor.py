"""A finished run, or the mean of several, ready to label texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emotion_lightning import average, calibration, checkpoint, config, model, pooling, quiet, thresholds
from emotion_lightning.data.batches import WINDOW, Collate, EmotionRows, Tokens, by_length, tokenize
from emotion_lightning.errors import UserError


@dataclass
class Prediction:
    """The answer for one text.

    Attributes:
        labels: names of the emotions found; may be empty.
        probabilities: of every label, by name.
    """

    labels: list[str]
    probabilities: dict[str, float]


class Labeller(ABC):
    """What labels texts: one network, or the mean of several.

    Args:
        card: labels and thresholds.
    """

    def __init__(self, card: checkpoint.Card) -> None:
        self.card = card

    @abstractmethod
    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """Logits, and probabilities, calibrated if the run is; [text, label] each, float32 on the CPU."""

    def predict(self, texts: Sequence[str], *, batch_size: int = 32) -> list[Prediction]:
        """Emotions of each text, in the order of the texts."""
        if isinstance(texts, str):
            texts = [texts]
        predictions = []
        for start in range(0, len(texts), batch_size * WINDOW):
            decisions, probabilities = self.decide(texts[start : start + batch_size * WINDOW], batch_size=batch_size)
            for shares, found in zip(probabilities.tolist(), decisions.tolist(), strict=True):
                predictions.append(
                    Prediction(
                        labels=[name for name, yes in zip(self.card.labels, found, strict=True) if yes],
                        probabilities=dict(zip(self.card.labels, shares, strict=True)),
                    )
                )
        return predictions

    def probabilities(self, texts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """Probability of each label, calibrated if the run is, [text, label], float32 on the CPU."""
        return self.outputs(texts, batch_size=batch_size)[1]

    def decide(self, texts: Sequence[str], *, batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """Decisions and probabilities, [text, label]."""
        probabilities = self.probabilities(texts, batch_size=batch_size)
        return thresholds.decide(probabilities, self.card.cuts()), probabilities


class Predictor(Labeller):
    """A network with its tokenizer, labels and thresholds.

    Args:
        network: in evaluation mode, on its device.
        tokenizer: of the network.
        card: labels, thresholds and the length that texts are cut to.
        device: where the network is.
    """

    def __init__(self, network: Any, tokenizer: Any, *, card: checkpoint.Card, device: torch.device) -> None:
        super().__init__(card)
        self.network = network
        self.tokenizer = tokenizer
        self.device = device

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """Logits, and probabilities, calibrated if the run is; [text, label] each, float32 on the CPU."""
        logits = self.logits(texts, batch_size=batch_size)
        return logits, calibration.probabilities(logits, self.card.scaling())

    def logits(self, texts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """[text, label], float32 on the CPU; texts of similar length are computed together."""
        dataset = EmotionRows(self._tokenize(texts), None)
        collate = Collate(dataset, self.tokenizer.pad_token_id)
        logits = torch.zeros(len(texts), len(self.card.labels))
        with torch.inference_mode(), self._precision():
            for rows in by_length(dataset.tokens.lengths, batch_size=batch_size):
                batch = collate(rows)
                with model.enough_memory(partial(tuple, batch["input_ids"].shape), training=False):
                    moved = {n: v.to(self.device) for n, v in batch.items() if n in ("input_ids", "attention_mask")}
                    logits[rows] = pooling.logits(self.network, moved, pooling=self.card.pooling()).cpu()
        if not bool(torch.isfinite(logits).all()):
            raise UserError(
                "The network's outputs are not finite: its weights are damaged, or overflow in this dtype. Take a "
                "whole copy of the run."
            )
        return logits

    def _tokenize(self, texts: Sequence[str]) -> Tokens:
        return tokenize(texts, self.tokenizer, max_tokens=self.card.max_tokens, clean=self.card.cleaning())

    def _precision(self) -> AbstractContextManager[Any]:
        # The same autocast as in training, so that a run's own numbers come out again.
        dtype = model.compute_dtype(config.Dtype(self.card.base["dtype"]), self.device)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)


class Average(Labeller):
    """The mean of several runs' probabilities, with thresholds of its own.

    Args:
        members: of the same labels, in any order.
        card: labels and thresholds of the average, as `average.card` makes it.
    """

    def __init__(self, members: Sequence[Predictor], card: checkpoint.Card) -> None:
        super().__init__(card)
        self.members = members

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """The logit of the mean raw probability, and the mean probability; [text, label] each, float32 on the CPU."""
        raw, shares = [], []
        for member in self.members:
            logits, probabilities = member.outputs(texts, batch_size=batch_size)
            order = [member.card.labels.index(name) for name in self.card.labels]
            raw.append(torch.sigmoid(logits.double())[:, order])
            shares.append(probabilities.double()[:, order])
        return torch.logit(torch.stack(raw).mean(0), eps=1e-12).float(), torch.stack(shares).mean(0).float()


def load(run: str | Path | Sequence[str | Path], *, accelerator: str = "auto") -> Labeller:
    """Load a finished run, or several whose probabilities are averaged.

    Args:
        run: the run folder, or its model/; several as a list, as `[A,B]`, or as the folder of a multirun.
        accelerator: auto, cpu, gpu or mps.

    Raises:
        UserError: a folder holds no trained model, its base model cannot be found, or runs have other labels.
    """
    runs = average.members(run)
    return open_runs(runs, average.card(runs), accelerator=accelerator)


def open_runs(runs: Sequence[str], card: checkpoint.Card, *, accelerator: str) -> Labeller:
    """What `load` gives, of runs whose common card, `average.card`, is known already."""
    quiet.libraries()
    members = [_load(run, accelerator) for run in runs]
    return members[0] if len(members) == 1 else Average(members, card)


def _load(run: str, accelerator: str) -> Predictor:
    folder = checkpoint.model_folder(run)
    card = checkpoint.read_card(folder)
    device = model.device_for(config.Accelerator(accelerator))
    network, tokenizer = checkpoint.load_model(folder, card=card, device=device)
    return Predictor(network, tokenizer, card=card, device=device)
