"""Load a finished run, or an ensemble of several, and label texts with it."""

import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from emotion_lightning import config
from emotion_lightning.data import cleaning, words
from emotion_lightning.data.batches import WINDOW, Batch, Collate, EmotionRows, Tokens, by_length, tokenize
from emotion_lightning.data.rows import Text, without_context
from emotion_lightning.errors import UserError, counted
from emotion_lightning.evaluation import calibration, explanations, group_thresholds, thresholds
from emotion_lightning.evaluation.explanations import Explanation, Word
from emotion_lightning.inference import attribution, ensemble, frames, onnx_graph, progress
from emotion_lightning.inference.frames import Frame
from emotion_lightning.inference.threads import CorePool
from emotion_lightning.models import model_folder, ngrams, nonfinite, pooling
from emotion_lightning.models.device import cast_products, compute_dtype, device_for, enough_memory
from emotion_lightning.models.metadata import Metadata, find_model_folder, read_metadata
from emotion_lightning.runs import manifest, quiet, waiting

log = logging.getLogger(__name__)

BATCH_SIZE = 32

Done = Callable[[int], object]
"""Called with the number of texts of each batch that was computed, in one thread."""


def _unseen(_: int) -> None:
    """Show no progress."""


@dataclass
class Prediction:
    """The prediction for one text.

    Attributes:
        labels: names of the predicted labels; may be empty.
        probabilities: probability of every label, by name.
    """

    labels: list[str]
    probabilities: dict[str, float]


class Labeller(ABC):
    """Base class of everything that labels texts: a network, a graph, a baseline or an ensemble.

    `batch_size` is the number of texts in a batch. If `batch_tokens` is given, it is used instead: a batch then holds
    as many texts as fit into this number of tokens, padding included.

    Args:
        metadata: metadata with labels and thresholds.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata

    def __repr__(self) -> str:
        """The kind of model and its labels, for a notebook."""
        labels = self.metadata.labels
        return f"<{type(self).__name__} with {counted(len(labels), 'label')}: {', '.join(labels)}>"

    @abstractmethod
    def tokenize(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the tokens of the texts, one entry per network."""

    @abstractmethod
    def compute(
        self,
        tokens: list[Tokens],
        *,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        done: Done = _unseen,
    ) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities (calibrated if the run is), [text, label] each, float32 on the CPU."""

    def outputs(
        self, texts: Sequence[Text], *, batch_size: int = BATCH_SIZE, batch_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities (calibrated if the run is), [text, label] each, float32 on the CPU."""
        return self.compute(self.tokenize(texts), batch_size=batch_size, batch_tokens=batch_tokens)

    def probabilities(
        self, texts: Sequence[Text], *, batch_size: int = BATCH_SIZE, batch_tokens: int | None = None
    ) -> Tensor:
        """Return the probabilities, [text, label], float32 on the CPU; calibrated if the run is."""
        return self.outputs(texts, batch_size=batch_size, batch_tokens=batch_tokens)[1]

    @overload
    def predict(
        self,
        texts: Sequence[str],
        *,
        context: Sequence[Sequence[str]] | None = None,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        progress_bar: bool = False,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        texts: Frame,
        *,
        text: str | None = None,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        progress_bar: bool = False,
    ) -> Frame: ...

    @overload
    def predict(
        self,
        texts: Any,
        *,
        text: str | None = None,
        context: Sequence[Sequence[str]] | None = None,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        progress_bar: bool = False,
    ) -> Any: ...

    def predict(
        self,
        texts: Any,
        *,
        text: str | None = None,
        context: Sequence[Sequence[str]] | None = None,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        progress_bar: bool = False,
    ) -> Any:
        """Label texts.

        Args:
            texts: a list of texts, or a single one; or a table: a DataFrame or Series of pandas or polars, or a
                Dataset of `datasets`.
            text: text column of a table; None: the text column of the run, or one with a usual name.
            context: for a list of texts and a run with data.context: the turns of the conversation before each text,
                oldest first. A table has them in its columns, under the names that the run was trained with.
            batch_size: texts per batch.
            batch_tokens: tokens per batch, padding included; replaces `batch_size`.
            progress_bar: show a progress bar in a notebook or on a terminal; nowhere else.

        Returns:
            For a list, a `Prediction` for each text, in the order of the texts. For a table, one of the same library
            (a DataFrame for a Series) with a row for each row and the columns of prediction files: 0 or 1 under the
            name of each label, then the probabilities as `p_<label>`. The index of a pandas table is kept. If the run
            has thresholds for each value of a column (thresholds.by), they decide where the table has that column.

        Raises:
            UserError: a table has no such column, a row has no value there, or something else than texts was given.
        """
        table = frames.table(texts)
        if context is not None and (table is not None or self.metadata.context is None):
            raise UserError(
                "context= is for a list of texts; a table has the turns before a text in its columns."
                if table is not None
                else "context= is for a run with data.context; this one was trained on texts that stand alone."
            )
        if table is None:
            given = frames.with_context(frames.texts_of_list(texts), context)
            found = self._decide_all(given, batch_size, batch_tokens, progress_bar)
            return [
                Prediction(
                    labels=[name for name, yes in zip(self.metadata.labels, decided, strict=True) if yes],
                    probabilities=dict(zip(self.metadata.labels, shares, strict=True)),
                )
                for decisions, probabilities in found
                for shares, decided in zip(probabilities.tolist(), decisions.tolist(), strict=True)
            ]
        labels = self.metadata.labels
        frames.check_labels(labels)
        rows = table.texts(text, usual=self.metadata.usual_text, context=self.metadata.context)
        pieces = list(self._decide_all(rows, batch_size, batch_tokens, progress_bar))
        decisions = torch.cat([torch.zeros(0, len(labels), dtype=torch.bool), *[piece for piece, _ in pieces]])
        shares = torch.cat([torch.zeros(0, len(labels)), *[piece for _, piece in pieces]])
        if (by_group := self.metadata.group_thresholds()) is not None:
            groups = table.groups(by_group.column)
            if told := group_thresholds.unseen(by_group, groups):
                log.warning("%s", told)
            cuts = {self.metadata.protocol: self.metadata.threshold_tensor()}
            decisions = group_thresholds.decide(shares, cuts, by_group, groups)[self.metadata.protocol]
        return table.like(frames.columns(labels, decisions, shares))

    def _decide_all(
        self, texts: list[Text], batch_size: int, batch_tokens: int | None, progress_bar: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        size = batch_size * WINDOW
        pieces = (texts[start : start + size] for start in range(0, len(texts), size))
        with progress.counting(len(texts), shown=progress_bar) as done:
            yield from self.decide(pieces, batch_size=batch_size, batch_tokens=batch_tokens, done=done)

    def decide(
        self,
        pieces: Iterable[Sequence[Text]],
        *,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        done: Done = _unseen,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the decisions and probabilities of each piece of texts, [text, label] each.

        The next piece is tokenized in a thread during the computation, because tokenizers release Python's GIL. `done`
        is called after each batch with the number of its texts.
        """
        with ThreadPoolExecutor(1) as beside:
            waiting: Future[list[Tokens]] | None = None
            for piece in itertools.chain(pieces, [None]):
                coming = beside.submit(self.tokenize, piece) if piece is not None else None
                if waiting is not None:
                    _, shares = self.compute(
                        waiting.result(), batch_size=batch_size, batch_tokens=batch_tokens, done=done
                    )
                    yield thresholds.decide(shares, self.metadata.threshold_tensor()), shares
                waiting = coming

    def explain(
        self,
        texts: Sequence[str] | str,
        labels: Sequence[str] | None = None,
        *,
        steps: int = attribution.STEPS,
        batch_size: int = BATCH_SIZE,
    ) -> list[Explanation]:
        """Say how much each word of the texts speaks for or against labels, by integrated gradients on the embeddings.

        The attributions of a text's words to a label add up to the difference between its logit and that of a baseline,
        in which each token of the text is replaced by the mask token, or by the padding token if there is none. Special
        tokens and a template stay in their place. An ensemble gives the mean of its networks.

        Args:
            texts: a list of texts, or a single one.
            labels: labels to explain. None: those that are predicted for each text, or the most probable one if there
                is none.
            steps: points at which gradients are taken: more take longer, and make `errors` smaller.
            batch_size: most points that are computed at once.

        Returns:
            An explanation for each text, in their order.

        Raises:
            UserError: Captum is not installed, a label is unknown, or this is a baseline or an ONNX graph.
        """
        self.check_explainable()
        asked = frames.texts_of_list(texts, name="explain")
        if steps < 1 or batch_size < 1:
            raise UserError(f"steps={steps} and batch_size={batch_size} are at least 1 each.")
        if isinstance(labels, str):
            labels = [labels]
        self.check_labels(labels or [])
        if labels is None:
            found = self.predict(asked)
            chosen = [one.labels or [max(one.probabilities, key=one.probabilities.__getitem__)] for one in found]
        else:
            chosen = [list(dict.fromkeys(labels))] * len(asked)
        return self._explain(asked, chosen, steps, batch_size)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise UserError if one of these is no label of the run."""
        known = self.metadata.labels
        if unknown := [name for name in labels if name not in known]:
            raise UserError(f"There is no label {', '.join(unknown)} to explain; the labels are {', '.join(known)}.")

    def check_explainable(self) -> None:
        """Raise UserError if `explain` is not possible: without Captum, for a baseline, and for an ONNX graph."""
        raise UserError(f"{self._KIND} has no gradients to explain its answers with; {self._MEND}.")

    _KIND, _MEND = "This", "take a run of train"

    def _explain(self, texts: list[str], labels: list[list[str]], steps: int, batch_size: int) -> list[Explanation]:
        """Return what `explain` does, for the labels of each text."""
        raise NotImplementedError


class Predictor(Labeller):
    """A network with its tokenizer, labels and thresholds.

    Args:
        network: in evaluation mode, on `device`.
        tokenizer: of the network.
        metadata: metadata with labels, thresholds and the maximum number of tokens.
        device: where the network is.
    """

    def __init__(self, network: Any, tokenizer: Any, *, metadata: Metadata, device: torch.device) -> None:
        super().__init__(metadata)
        self.network = network
        self.tokenizer = tokenizer
        self.device = device
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._cores = CorePool(threads) if threads > 1 else None

    def tokenize(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the tokens of the texts, cleaned, truncated and put into the template as in training."""
        own = self.metadata
        return [
            tokenize(
                texts, self.tokenizer, max_tokens=own.max_tokens, clean=own.cleaning(), template=own.template,
                long_texts=own.long_texts, context=own.context,
            )
        ]  # fmt: skip

    def compute(
        self,
        tokens: list[Tokens],
        *,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        done: Done = _unseen,
    ) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities (calibrated if the run is), [text, label] each, float32 on the CPU."""
        (own,) = tokens
        # Batches are made of pieces, not of texts, so that a long text needs no more memory than others.
        pieces = own.by_piece()
        logits = self._logits(pieces, batch_size, batch_tokens, _in_proportion(len(pieces), len(own), done))
        if own.counts is not None and self.metadata.long_texts is not None and len(logits) > len(own):
            logits = pooling.join(logits, own.counts.tolist(), self.metadata.long_texts.join)
        return logits, calibration.probabilities(logits, self.metadata.scaling())

    def logits(self, texts: Sequence[Text]) -> Tensor:
        """Return the logits, [text, label], float32 on the CPU."""
        return self.outputs(texts)[0]

    def _logits(self, tokens: Tokens, batch_size: int, batch_tokens: int | None, done: Done) -> Tensor:
        collate = Collate(EmotionRows(tokens, None), self.tokenizer.pad_token_id)
        logits = torch.zeros(len(tokens), len(self.metadata.labels))
        # A text can be longer than batch_tokens if that setting comes from another run than max_tokens.
        budget = None if batch_tokens is None else max(batch_tokens, int(tokens.lengths.max(initial=1)))
        batches = by_length(tokens.lengths, batch_size=batch_size, batch_tokens=budget)

        def answers(rows: list[int]) -> Tensor:
            batch = collate(rows)
            enough = enough_memory(partial(_size, batch), training=False, batch_tokens=budget)
            with torch.inference_mode(), self._precision(), enough:
                return self._forward({n: v for n, v in batch.items() if n in ("input_ids", "attention_mask")})

        found = []
        for rows, answer in zip(
            batches, self._cores.map(answers, batches) if self._cores else map(answers, batches), strict=True
        ):
            found.append(answer)
            done(len(rows))
        # Copy all batches at once, because each copy waits for the device.
        if found:
            logits[[row for rows in batches for row in rows]] = torch.cat(found).cpu()
        if not bool(torch.isfinite(logits).all()):
            raise UserError(self._not_finite(logits, batches, answers))
        return logits

    def check_explainable(self) -> None:
        """Raise UserError if Captum is not installed, or if the network reads more of a text than one piece of it."""
        attribution.check_installed()
        for what, setting in ((self.metadata.long_texts, "long_texts"), (self.metadata.context, "context")):
            if what is not None:
                raise UserError(
                    f"This run was trained with data.{setting}, and its answers cannot be explained yet; explain those "
                    "of a run without."
                )

    def _explain(self, texts: list[str], labels: list[list[str]], steps: int, batch_size: int) -> list[Explanation]:
        own = self.metadata
        self.network.requires_grad_(False)  # gradients of the weights would take memory
        located = words.locate(
            texts, self.tokenizer, max_tokens=own.max_tokens, clean=own.cleaning(), template=own.template
        )
        return [
            self._explain_one(text, tokens, chosen, steps, batch_size)
            for text, tokens, chosen in zip(texts, located, labels, strict=True)
        ]

    def _explain_one(
        self, text: str, tokens: words.LocatedTokens, labels: list[str], steps: int, batch_size: int
    ) -> Explanation:
        ids = torch.tensor(tokens.ids, device=self.device)
        of_text = torch.tensor([word is not None for word in tokens.word_of], dtype=torch.bool, device=self.device)
        nothing = torch.where(of_text, attribution.baseline_token(self.tokenizer), ids)
        enough = enough_memory(lambda: (min(batch_size, steps), len(ids)), training=False)
        with torch.inference_mode(False), self._precision(), enough:
            found = attribution.integrated_gradients(
                lambda rows: self._forward({"input_ids": rows}), self.network, ids, nothing,
                targets=[self.metadata.labels.index(name) for name in labels], steps=steps, batch_size=batch_size,
            )  # fmt: skip
        sums = torch.zeros(len(labels), len(tokens.words), dtype=torch.float64)
        numbers = [word for word in tokens.word_of if word is not None]
        sums.index_add_(1, torch.tensor(numbers, dtype=torch.long), found.attributions[:, of_text.cpu()])
        errors = found.attributions.sum(1) - (found.logits - found.baseline_logits)

        def named(values: Tensor) -> dict[str, float]:
            return dict(zip(labels, values.tolist(), strict=True))

        return Explanation(
            text=text, labels=labels,
            words=[Word(text[a:b], a, b, named(sums[:, n])) for n, (a, b) in enumerate(tokens.words)],
            logits=named(found.logits), baseline_logits=named(found.baseline_logits), errors=named(errors),
        )  # fmt: skip

    def _forward(self, batch: Batch) -> Tensor:
        moved = {name: value.to(self.device) for name, value in batch.items()}
        return pooling.logits(self.network, moved, pooling=self.metadata.base.pooling)

    def _not_finite(self, logits: Tensor, batches: list[Any], answers: Callable[[list[int]], Tensor]) -> str:
        """Return the error message for logits that are not finite; computes one such batch again to find the module."""
        bad = set((~torch.isfinite(logits).all(1)).nonzero().flatten().tolist())
        rows = next(rows for rows in batches if bad.intersection(rows))
        cause = nonfinite.first_nonfinite(self.network, partial(answers, rows))
        known = f" ({cause.text})" if cause else ""
        if cause is not None and cause.dtype is torch.float16:
            # dtype=auto chooses float16 only on a GPU without bfloat16.
            elsewhere = "use accelerator=cpu, or " if self.metadata.base.dtype is config.Dtype.auto else ""
            mend = f"{elsewhere}repeat the run with train from_run=FOLDER model.dtype=float32"
            return f"The network's outputs are not finite{known}; {mend}."
        return f"The network's outputs are not finite{known}: its weights are damaged. Take a whole copy of the run."

    def _precision(self) -> AbstractContextManager[Any]:
        # The same autocast as in training, so that a run's results are reproduced.
        dtype = compute_dtype(self.metadata.base.dtype, self.device)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)


class GraphPredictor(Predictor):
    """A Predictor whose `network` is an ONNX graph."""

    _KIND, _MEND = "An ONNX graph", "take the run that was exported, or an export with format=merged"

    def check_explainable(self) -> None:
        """Raise UserError."""
        Labeller.check_explainable(self)

    def _forward(self, batch: Batch) -> Tensor:
        return self.network.logits(batch)

    def _not_finite(self, logits: Tensor, batches: list[Any], answers: Callable[[list[int]], Tensor]) -> str:
        return "The graph's outputs are not finite: it is damaged. Export the run again."


class NgramPredictor(Labeller):
    """A baseline: logistic regression on n-grams, without a tokenizer.

    Args:
        classifier: the logistic regression.
        metadata: metadata with labels and thresholds.
    """

    _KIND, _MEND = "A baseline of n-grams", "take a run of train"

    def __init__(self, classifier: ngrams.NgramClassifier, *, metadata: Metadata) -> None:
        super().__init__(metadata)
        self._classifier = classifier

    def tokenize(self, texts: Sequence[Text]) -> list[Any]:
        """Return the texts, cleaned as in training, in place of tokens."""
        clean = cleaning.cleaner(self.metadata.cleaning())
        return [[clean(without_context(text)) for text in texts]]

    def compute(
        self,
        tokens: list[Any],
        *,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        done: Done = _unseen,
    ) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, [text, label] each, float32; the batch sizes are ignored."""
        (texts,) = tokens
        logits = torch.from_numpy(self._classifier.logits(texts))
        done(len(texts))
        return logits, calibration.probabilities(logits, self.metadata.scaling())


class Ensemble(Labeller):
    """An ensemble: the mean of several runs' probabilities, with its own thresholds.

    Args:
        members: with the same set of labels; their order may differ.
        metadata: metadata of the ensemble, as `ensemble.combined_metadata` returns it.
    """

    def __init__(self, members: Sequence[Labeller], metadata: Metadata) -> None:
        super().__init__(metadata)
        self.members = members

    def tokenize(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the tokens of the texts, one entry per member."""
        return [tokens for member in self.members for tokens in member.tokenize(texts)]

    def compute(
        self,
        tokens: list[Tokens],
        *,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int | None = None,
        done: Done = _unseen,
    ) -> tuple[Tensor, Tensor]:
        """Return logits of the mean uncalibrated probabilities, and mean probabilities; [text, label] each, float32."""
        raw, shares = [], []
        counted = _in_proportion(len(self.members), 1, done)
        for member, own in zip(self.members, tokens, strict=True):
            logits, probabilities = member.compute(
                [own], batch_size=batch_size, batch_tokens=batch_tokens, done=counted
            )
            order = [member.metadata.labels.index(name) for name in self.metadata.labels]
            raw.append(torch.sigmoid(logits.double())[:, order])
            shares.append(probabilities.double()[:, order])
        return torch.logit(torch.stack(raw).mean(0), eps=1e-12).float(), torch.stack(shares).mean(0).float()

    def check_explainable(self) -> None:
        """Raise UserError if a member cannot be explained."""
        for member in self.members:
            member.check_explainable()

    def _explain(self, texts: list[str], labels: list[list[str]], steps: int, batch_size: int) -> list[Explanation]:
        found = [member._explain(texts, labels, steps, batch_size) for member in self.members]
        return [explanations.mean(of_text) for of_text in zip(*found, strict=True)]


def _size(batch: Batch) -> tuple[int, ...]:
    """Number of texts of a batch, of their pieces, and of the tokens of a piece."""
    return (len(batch["rows"]), *batch["input_ids"].shape)


def _in_proportion(computed: int, texts: int, done: Done) -> Done:
    """Count texts in proportion to what is computed for them, rounded down: pieces of texts, or texts of each member.

    Args:
        computed: number of pieces, or of texts, that will be computed in all.
        texts: number of texts.
        done: is called with the number of texts that are finished now.
    """
    so_far = 0

    def count(more: int) -> None:
        nonlocal so_far
        before, so_far = so_far, so_far + more
        done(so_far * texts // computed - before * texts // computed)

    return done if computed == texts else count


def load(run: str | Path | Sequence[str | Path] | None = None, *, accelerator: str = "auto") -> Labeller:
    """Load a finished run, or an ensemble of several.

    Args:
        run: a run folder, its model folder, or `hf:user/name` on the hub. An ensemble is a list, a text `[A,B]`, or the
            folder of a multirun. None loads the small classifier bundled with the package.
        accelerator: auto, cpu, gpu or mps.

    Raises:
        UserError: a folder contains no trained model, its base model cannot be found, or the runs have different
            labels.
    """
    runs = ensemble.find_members(run)
    with quiet.while_loading():
        return open_runs(runs, ensemble.combined_metadata(runs), accelerator=accelerator)


def open_runs(runs: Sequence[str], metadata: Metadata, *, accelerator: str) -> Labeller:
    """Load runs whose common metadata, from `ensemble.combined_metadata`, is already known."""
    waiting.show_status("Loading the network" if len(runs) == 1 else f"Loading {len(runs)} networks")
    members = [_load(run, accelerator) for run in runs]
    return members[0] if len(members) == 1 else Ensemble(members, metadata)


def _load(run: str, accelerator: str) -> Labeller:
    folder = find_model_folder(run)
    metadata = read_metadata(folder)
    if metadata.is_baseline:
        return NgramPredictor(
            ngrams.load_ngrams(folder, metadata.ngrams, labels=len(metadata.labels)), metadata=metadata
        )
    return open_folder(folder, metadata, accelerator=config.Accelerator(accelerator))


def open_folder(folder: Path, metadata: Metadata, *, accelerator: config.Accelerator) -> Predictor:
    """Load the model folder of a run or of an export."""
    if metadata.is_graph:
        manifest.check_hashes(folder, "*.onnx*")
        graph = onnx_graph.Graph(folder, labels=len(metadata.labels), accelerator=accelerator)
        return GraphPredictor(graph, model_folder.load_tokenizer(folder), metadata=metadata, device=torch.device("cpu"))
    device = device_for(accelerator)
    network, tokenizer = model_folder.load_model(folder, metadata=metadata, device=device)
    cast_products(network, compute_dtype(metadata.base.dtype, device))
    return Predictor(network, tokenizer, metadata=metadata, device=device)
