"""Lightning data module: the splits of a corpus, tokenized and in batches."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from emotion_lightning import config
from emotion_lightning.data.batches import (
    Batch,
    Collate,
    EmotionRows,
    ShuffledByLength,
    SortedByLength,
    Tokens,
    tokenize,
    whole_lengths,
)
from emotion_lightning.data.labels import Targets
from emotion_lightning.data.long_texts import Lengths, read_long_texts, token_limit
from emotion_lightning.data.rows import Corpus
from emotion_lightning.data.template import read_context, read_template


class EmotionData(lightning.LightningDataModule):
    """Data module that serves the splits of a corpus in batches.

    Attributes:
        labels: names, in the order of every label axis.
        label_counts: number of positives of each label in train, or the sum of its shares, [label].
        known_rows: number of rows of train, or of those that do not leave a label open, [label].
        rows: texts, ids and targets by split.
        hashes: sha256 of every file read.
        text_column: name of the column of texts; None if the data has no columns.
        template: what stands around every text; None if texts stand by themselves.
        context: how the turns before a text are joined to it; None: texts stand alone.
        long_texts: what becomes of texts that are longer than data.max_tokens; None: their end is cut.
        masked: whether rows may leave labels open.
    """

    def __init__(self, settings: config.Batches, corpus: Corpus, *, tokenizer: Any, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.labels = corpus.labels
        self.rows = corpus.splits
        self.hashes = corpus.hashes
        self.text_column = corpus.decisions.text
        corpus.labelled("train")
        corpus.labelled("validation")
        learned = corpus.splits["train"].learned
        assert learned is not None
        self.masked = any(rows.open is not None for rows in corpus.splits.values())
        counts = np.nansum(learned, axis=0) if self.masked else learned.sum(axis=0)
        self.label_counts = (
            counts.astype(np.int64) if not corpus.splits["train"].learns_shares else counts.astype(float)
        )
        self.known_rows: int | np.ndarray = (~np.isnan(learned)).sum(axis=0) if self.masked else len(learned)
        self.tokenizer = tokenizer
        self.seed = seed
        self.template = read_template(settings, corpus.labels, tokenizer)
        self.long_texts = read_long_texts(settings, around=self.template.length if self.template else 0)
        self.context = read_context(settings, tokenizer)
        self._datasets = {
            name: EmotionRows(
                tokenize(
                    rows.inputs, tokenizer, max_tokens=token_limit(settings), clean=settings.clean,
                    template=self.template, long_texts=self.long_texts, context=self.context,
                ),
                rows.learned,
            )
            for name, rows in corpus.splits.items()
        }  # fmt: skip
        self._train_batches: ShuffledByLength | None = None
        self._resumed: tuple[int, int] | None = None

    def learn(self, targets: Targets) -> None:
        """Replace the labels of the training rows by these targets, [row, label]."""
        self._datasets["train"].targets = targets

    def lengths(self) -> Lengths:
        """How the texts of all splits fit into data.max_tokens."""
        found = [
            whole_lengths(
                self.rows[name].inputs, dataset.tokens, self.tokenizer, max_tokens=token_limit(self.settings),
                clean=self.settings.clean, template=self.template, context=self.context,
            )
            for name, dataset in self._datasets.items()
        ]  # fmt: skip
        around = self.template.length if self.template else 0
        return Lengths(np.concatenate(found), token_limit(self.settings), self.long_texts, around)

    @property
    def tokens(self) -> dict[str, Tokens]:
        """The tokens of each split."""
        return {split: dataset.tokens for split, dataset in self._datasets.items()}

    def start_from(self, states: Mapping[str, Callable[[np.ndarray], torch.Tensor]]) -> None:
        """Put states inside the network into the batches; the function of each split gives those of its rows."""
        for split, of_rows in states.items():
            self._datasets[split].states = of_rows

    @property
    def known_per_row(self) -> float:
        """Mean number of labels that a training row does not leave open."""
        targets = self._datasets["train"].targets
        assert targets is not None
        return float((~np.isnan(targets)).sum(axis=1).mean())

    @property
    def train_rows(self) -> int:
        """Number of rows of the training split."""
        return len(self._datasets["train"])

    @property
    def largest_token(self) -> int:
        """The largest token id in the texts of all splits."""
        return max((int(part.tokens.ids.max()) for part in self._datasets.values() if len(part.tokens.ids)), default=0)

    def first_batch(self, rows: int) -> Batch:
        """The first training rows as a padded batch, in the order of the data."""
        dataset = self._datasets["train"]
        return Collate(dataset, self.tokenizer.pad_token_id)(range(min(rows, len(dataset))))

    @property
    def batches_in_epoch(self) -> int:
        """Number of batches of one process in an epoch."""
        return len(self._shuffled())

    def train_dataloader(self) -> DataLoader[int]:
        """Shuffled batches; their order depends only on seed and epoch."""
        self._train_batches = self._shuffled()
        if self._resumed is not None:
            self._train_batches.epoch, self._train_batches.skip = self._resumed
            self._resumed = None
        return self._loader(self._datasets["train"], self._train_batches, mean_rows=self._train_batches.mean_rows)

    def val_dataloader(self) -> DataLoader[int]:
        """Every validation row once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[int]:
        """Every test row once."""
        return self._evaluation_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Position in the training rows.

        Lightning does not restore the state of a data loader after a learning rate schedule has asked for the number of
        steps (Lightning#20550), so the position is stored here.
        """
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return {"epoch": self.trainer.current_epoch, "batches": progress.ready, "of": len(self._loader_batches())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the last batch that was trained on."""
        epoch, batches = state_dict["epoch"], state_dict["batches"]
        # If it was saved at the end of an epoch, continue at the start of the next one.
        self._resumed = (epoch + 1, 0) if batches >= state_dict["of"] else (epoch, batches)

    def _loader_batches(self) -> ShuffledByLength:
        assert self._train_batches is not None
        return self._train_batches

    def _shuffled(self) -> ShuffledByLength:
        return ShuffledByLength(
            self._datasets["train"].tokens.lengths,
            pieces=self._datasets["train"].tokens.counts,
            batch_size=self.settings.batch_size,
            batch_tokens=self.settings.batch_tokens,
            window=self.settings.sort_window,
            seed=self.seed,
            **self._processes(),
        )

    def _evaluation_loader(self, split: str) -> DataLoader[int]:
        dataset = self._datasets[split]
        batches = SortedByLength(
            dataset.tokens.lengths,
            pieces=dataset.tokens.counts,
            batch_size=self.settings.batch_size,
            batch_tokens=self.settings.batch_tokens,
            **self._processes(),
        )
        return self._loader(dataset, batches)

    def _loader(self, dataset: EmotionRows, batches: Any, *, mean_rows: float | None = None) -> DataLoader[int]:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=Collate(dataset, self.tokenizer.pad_token_id, mean_rows=mean_rows),
            num_workers=self.settings.workers,
            persistent_workers=self.settings.workers > 0,
            # Ask for the device in use, not for a GPU: for training on the CPU, pinned memory would open a CUDA
            # context for nothing.
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # A loader draws a seed for its workers; drawn from the global generator, it would change dropout.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _processes(self) -> dict[str, int]:
        if self.trainer is None:
            return {}
        return {"process": self.trainer.global_rank, "processes": self.trainer.world_size}
