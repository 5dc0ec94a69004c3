"""Facts about a dataset: text lengths, label rates and shifts, duplicates, leaks, positive weights, examples."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from emotion_lightning import config
from emotion_lightning.data import labels, max_tokens, near_texts, overlap
from emotion_lightning.data.agreement import Agreement
from emotion_lightning.data.batches import tokenize
from emotion_lightning.data.cleaning import cleaner
from emotion_lightning.data.labels import positive_weights
from emotion_lightning.data.long_texts import FEW as FEW_LONG
from emotion_lightning.data.long_texts import Lengths, LongTexts, enough_tokens, read_long_texts, token_limit
from emotion_lightning.data.rows import Corpus, Rows
from emotion_lightning.data.template import Template, read_context, read_template
from emotion_lightning.errors import counted
from emotion_lightning.reports import group_facts
from emotion_lightning.runs import extras

FEW = 20
"""With fewer positives than this, a fitted threshold is mostly chance."""

_EXAMPLES = 3
"""Smallest number of example texts for each label."""

_SHIFT = 3.0
"""Smallest reported difference of two rates, in standard errors; 2 would give a false alarm per split of 28 labels."""


@dataclass
class SplitFacts:
    """Facts about one split.

    Attributes:
        name: train, validation or test.
        rows: number of rows.
        hash: SHA-256 of ids, texts and labels.
        lengths: number of tokens of each text before truncation, [row].
        duplicates: number of rows whose text is also in an earlier row.
        conflicting: how many of these have other labels than the first row with the text; None without labels.
        counts: number of positives, [label]; None if the split has no labels.
        cardinalities: number of rows with 0, 1, 2 … labels; None if the split has no labels.
        open: number of rows that leave each label open, [label]; None if none does.
        shares: mean share of each label, [label]; None if only labels are known.
        groups: facts about the groups of `data.groups`, by column and value.
    """

    name: str
    rows: int
    hash: str
    lengths: np.ndarray
    duplicates: int
    conflicting: int | None
    counts: np.ndarray | None
    cardinalities: np.ndarray | None
    groups: group_facts.ByColumn = field(default_factory=dict)
    open: np.ndarray | None = None
    shares: np.ndarray | None = None

    @property
    def known(self) -> int | np.ndarray:
        """Number of rows, of those that do not leave a label open, [label], if some do."""
        return self.rows if self.open is None else np.maximum(self.rows - self.open, 1)

    @property
    def rates(self) -> np.ndarray:
        """Fraction of the rows that have each label, of those that do not leave it open, [label]."""
        assert self.counts is not None
        return self.counts / self.known

    @property
    def cardinality(self) -> float:
        """Mean number of labels per row."""
        assert self.counts is not None
        return float((self.counts / self.rows).sum())

    @property
    def without_label(self) -> float:
        """Fraction of the rows without a label."""
        assert self.cardinalities is not None
        return float(self.cardinalities[0] / self.rows)

    def quantile(self, share: float) -> int:
        """Return the length in tokens that this fraction of the texts does not exceed."""
        return int(np.quantile(self.lengths, share, method="higher"))

    def truncated(self, max_tokens: int) -> float:
        """Return the fraction of texts that are longer than max_tokens."""
        return float((self.lengths > max_tokens).mean())


@dataclass
class DataFacts:
    """Facts about a dataset.

    Attributes:
        data: the data settings by name.
        labels: label names.
        splits: the existing splits, train first.
        hashes: SHA-256 of each file that was read.
        overlaps: texts that two splits share, for each pair of splits.
        near: texts that are nearly the same in two splits, for each pair of splits; None if they were not looked for.
        together: number of train rows that have both labels, [label, label].
        weights: positive weights, [label], for several settings of loss=weighted_bce.
        max_tokens: longer texts are truncated to this number of tokens.
        tokenizer: name of the tokenizer that counts the tokens.
        clean: names of the cleaning steps.
        examples: texts of train by label, each with all its labels.
        read: how the files were read, as pairs of name and value.
        decisions: the same as plain values, as in data.json.
        notes: sentences about how the files were read that may need attention.
        template: what stands around every text, and counts in its length; None if texts stand by themselves.
        long_texts: what becomes of longer texts; None: their end is cut.
        auto_tokens: what data.max_tokens=auto gives.
        annotation: how far the annotators agree whose rows were joined; None if none were.
    """

    data: dict[str, Any]
    labels: list[str]
    splits: list[SplitFacts]
    hashes: dict[str, str]
    overlaps: list[overlap.Overlap]
    together: np.ndarray
    weights: dict[str, list[float]]
    max_tokens: int
    tokenizer: str
    clean: list[str]
    examples: dict[str, list[tuple[str, list[str]]]]
    read: list[tuple[str, str]]
    decisions: dict[str, Any]
    notes: list[str]
    template: Template | None = None
    long_texts: LongTexts | None = None
    auto_tokens: int | None = None
    near: list[near_texts.Near] | None = None
    annotation: Agreement | None = None

    @property
    def train(self) -> SplitFacts:
        """The training split."""
        return self.splits[0]

    @property
    def labelled(self) -> list[SplitFacts]:
        """The splits that have labels."""
        return [split for split in self.splits if split.counts is not None]

    @property
    def suggested_tokens(self) -> int:
        """The smallest multiple of 8 that truncates at most about 0.1 % of the texts."""
        return enough_tokens(self.all_lengths.tokens)

    @property
    def all_lengths(self) -> Lengths:
        """How the texts of all splits fit into max_tokens."""
        lengths = np.concatenate([split.lengths for split in self.splits])
        return Lengths(lengths, self.max_tokens, self.long_texts, self.template.length if self.template else 0)

    @property
    def truncated(self) -> float:
        """Fraction of all texts that max_tokens truncates."""
        return sum(split.truncated(self.max_tokens) * split.rows for split in self.splits) / sum(
            s.rows for s in self.splits
        )

    def shift(self, split: SplitFacts) -> np.ndarray:
        """Return the difference of a split's label rates from those of train, in standard errors, [label]."""
        assert self.train.counts is not None and split.counts is not None
        pooled = (self.train.counts + split.counts) / (self.train.known + split.known)
        error = np.sqrt(pooled * (1 - pooled) * (1 / self.train.known + 1 / split.known))
        return (split.rates - self.train.rates) / np.where(error > 0, error, 1)

    def given(self) -> np.ndarray:
        """Return the fraction of train rows with label i that also have label j, [i, j]; NaN if no row has label i."""
        return labels.given_labels(self.together)

    def findings(self) -> list[str]:
        """Return sentences about what needs attention in the data."""
        return [*self._length_findings(), *self._repeat_findings(), *self._label_findings()]

    def _length_findings(self) -> list[str]:
        cost = [f"{self.template.cost(self.max_tokens)}."] if self.template and self.template.has_words else []
        in_pieces = self.long_texts is not None and self.long_texts.in_pieces
        found = self.all_lengths
        many = found.share > FEW_LONG or (in_pieces and found.longer > 0)
        auto = f" data.max_tokens=auto gives {self.auto_tokens}." if many and self.auto_tokens else ""
        return [*cost, f"{found.sentence()}{auto}"]

    def _repeat_findings(self) -> list[str]:
        found = []
        for shared in self.overlaps:
            if shared.count:
                mend = "; data.drop_leaks=true takes them out of train" if shared.first == "train" else ""
                same = "" if shared.same_labels is None else f", {shared.same_labels:,} of them with the same labels"
                found.append(
                    f"{counted(shared.count, 'text')} of {shared.second} ({shared.share:.2%}) also in {shared.first}"
                    f"{same}{mend}."
                )
        for near in self.near or []:
            if near.count:
                mend = (
                    ""
                    if near.first != "train"
                    else (
                        f"; data.near_duplicates={near.similarity:g} data.drop_leaks=true takes "
                        f"{counted(len(near.positions), 'row')} out of train"
                    )
                )
                found.append(f"{near.sentence()}{mend}. {near.shown()}")
        if self.near is None:
            why = (
                f"they are more than {near_texts.LOOKED_THROUGH:,}; data.near_duplicates={near_texts.USUAL} asks for it"
                if near_texts.available()
                else f"this needs a package: {extras.install('near')}"
            )
            found.append(f"Texts were not searched for those that are nearly the same: {why}.")
        for split in self.splits:
            if split.duplicates:
                other = "" if split.conflicting is None else f", {split.conflicting:,} of them with other labels"
                found.append(
                    f"{counted(split.duplicates, 'row')} of {split.name} with the text of an earlier row{other}."
                )
        return found

    def _label_findings(self) -> list[str]:
        assert self.train.counts is not None
        found = list(self.notes)
        if self.annotation is not None:
            found.append(self.annotation.sentence())
        if bare := [split.name for split in self.splits if split.counts is None]:
            found.append(f"No row of {' and '.join(bare)} has labels: nothing can be scored on it.")
        absent = [name for name, count in zip(self.labels, self.train.counts, strict=True) if count == 0]
        if absent:
            found.append(f"No row of train has {', '.join(absent)}: nothing can be learned of it.")
        for split in self.labelled[1:]:
            assert split.counts is not None
            few = [name for name, count in zip(self.labels, split.counts, strict=True) if count < FEW]
            if few and split.name == "validation":
                found.append(
                    f"Validation has fewer than {FEW} rows with {', '.join(few)}: a threshold of their own is mostly "
                    "chance; prefer thresholds=global."
                )
            shifted = [
                f"{name} {self.train.rates[i]:.1%} to {split.rates[i]:.1%}"
                for i, name in enumerate(self.labels)
                if abs(self.shift(split)[i]) > _SHIFT
            ]
            if shifted:
                found.append(f"Between train and {split.name} rates shift by more than chance: {', '.join(shifted)}.")
        return found

    def plain(self) -> dict[str, Any]:
        """Return the facts as plain values for JSON."""
        return {
            "data": self.data,
            "read": self.decisions,
            "labels": self.labels,
            "hashes": self.hashes,
            "tokenizer": self.tokenizer,
            "clean": self.clean,
            "max_tokens": {
                "value": self.max_tokens,
                "cut": self.truncated,
                "suggested": self.suggested_tokens,
                "auto": self.auto_tokens,
            },  # fmt: skip
            "long_texts": self.long_texts.plain() if self.long_texts else None,
            "template": self.template.plain() | {"tokens": self.template.length} if self.template else None,
            "splits": {split.name: self._plain_split(split) for split in self.splits},
            "overlaps": [
                {"splits": [o.first, o.second], "rows": [len(o.positions), o.count], "same_labels": o.same_labels}
                for o in self.overlaps
            ],
            "near": None
            if self.near is None
            else [
                {
                    "splits": [near.first, near.second],
                    "rows": [len(near.positions), near.count],
                    "similarity": near.similarity,
                    "examples": [asdict(pair) for pair in near.examples],
                }
                for near in self.near
            ],
            "together": self.together.tolist(),
            "weights": {name: dict(zip(self.labels, values, strict=True)) for name, values in self.weights.items()},
            "findings": self.findings(),
        }

    def _plain_split(self, split: SplitFacts) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "rows": split.rows,
            "sha256": split.hash,
            "tokens": {
                "mean": float(split.lengths.mean()),
                **{f"p{share}": split.quantile(share / 100) for share in (50, 95, 99)},
                "max": int(split.lengths.max()),
                "cut": split.truncated(self.max_tokens),
            },
            "duplicates": split.duplicates,
            "conflicting": split.conflicting,
        }
        if split.groups:
            numbers["groups"] = {
                column: {value: facts.plain(self.labels) for value, facts in by_value.items()}
                for column, by_value in split.groups.items()
            }
        if split.counts is None or split.cardinalities is None:
            return numbers
        return numbers | {
            "cardinality": split.cardinality,
            "cardinalities": split.cardinalities.tolist(),
            "labels": {
                name: {
                    "count": int(split.counts[i]),
                    "rate": float(split.rates[i]),
                    "shift": float(self.shift(split)[i]),
                }
                | ({} if split.open is None else {"open": int(split.open[i])})
                | ({} if split.shares is None else {"mean_share": float(split.shares[i])})
                for i, name in enumerate(self.labels)
            },
        }


def describe_data(
    corpus: Corpus, tokenizer: Any, *, data: config.Batches, weighted: config.Loss, shown: dict[str, Any],
    examples: int, seed: int, tokenizer_name: str, positions: int | None = None,
) -> DataFacts:  # fmt: skip
    """Collect the facts about a corpus.

    Args:
        corpus: must have a labelled split train.
        tokenizer: counts the tokens.
        data: settings of length and cleaning.
        weighted: a loss whose positive weights are added to the standard ones.
        shown: the data settings to display.
        examples: number of example texts for each label, at least three.
        seed: of the choice of examples.
        tokenizer_name: name to display.
        positions: number of tokens that the network has positions for; None if it is not known.
    """
    template = read_template(data, corpus.labels, tokenizer)
    splits = [_split(name, rows, tokenizer, data, template) for name, rows in corpus.splits.items()]
    train = corpus.splits["train"]
    assert train.targets is not None and splits[0].counts is not None
    return DataFacts(
        data=shown,
        labels=corpus.labels,
        splits=splits,
        hashes=corpus.hashes,
        overlaps=overlap.find_overlap(corpus, clean=data.clean),
        together=(train.targets.T @ train.targets).round().astype(int),
        weights=_weights(weighted, train),
        max_tokens=token_limit(data),
        tokenizer=tokenizer_name,
        clean=[step.value for step in data.clean],
        # A few in any case: they show at once if labels are shifted against their texts.
        examples=_examples(train, corpus.labels, count=max(examples, _EXAMPLES), seed=seed, clean=data.clean),
        read=corpus.decisions.lines(),
        decisions=corpus.plain_decisions(),
        notes=corpus.decisions.notes,
        template=template,
        long_texts=read_long_texts(data, around=template.length if template else 0),
        auto_tokens=max_tokens.auto_tokens(
            splits[0].lengths,
            least=max_tokens.least(template),
            positions=max_tokens.known_positions(tokenizer, positions),
        ),
        near=_near(corpus, data),
        annotation=corpus.decisions.annotation,
    )


def _near(corpus: Corpus, data: config.Batches) -> list[near_texts.Near] | None:
    """Texts that are nearly the same in two splits; None if the library is missing, or there are too many to look."""
    many = data.near_duplicates is None and sum(map(len, corpus.splits.values())) > near_texts.LOOKED_THROUGH
    if many or not near_texts.available():
        return None
    return near_texts.find_near(corpus, data.near_duplicates or near_texts.USUAL, clean=data.clean)


def _split(name: str, rows: Rows, tokenizer: Any, data: config.Batches, template: Template | None) -> SplitFacts:
    again, conflicting = overlap.duplicates(rows, clean=data.clean)
    lengths = tokenize(
        rows.inputs,
        tokenizer,
        max_tokens=None,
        clean=data.clean,
        template=template,
        context=read_context(data, tokenizer),
    ).lengths
    return SplitFacts(
        name=name,
        rows=len(rows),
        hash=rows.sha256(),
        lengths=lengths,
        duplicates=again,
        conflicting=conflicting,
        counts=None if rows.targets is None else rows.targets.sum(axis=0).round().astype(int),
        cardinalities=None if rows.targets is None else np.bincount(rows.targets.sum(axis=1).round().astype(int)),
        open=None if rows.open is None else rows.open.sum(axis=0),
        shares=_mean_shares(rows),
        groups=group_facts.groups_of_split(rows, lengths),
    )


def _mean_shares(rows: Rows) -> np.ndarray | None:
    """Mean share of each label over the rows that know it, [label]; None without shares."""
    if rows.shares is None:
        return None
    known = len(rows) if rows.open is None else np.maximum((~rows.open).sum(axis=0), 1)
    return np.asarray(rows.shares.sum(axis=0, dtype=np.float64) / known)


def _weights(chosen: config.Loss, train: Rows) -> dict[str, list[float]]:
    """Positive weights, [label], by their settings, as they are computed for training."""
    assert train.learned is not None
    counts = np.nan_to_num(train.learned).sum(axis=0, dtype=np.float64)
    rows = len(train) if train.open is None else (~train.open).sum(axis=0)
    beta = chosen.beta if isinstance(chosen, config.WeightedBCE) else None
    settings = {
        f"weights={kind.value} clip=null": config.WeightedBCE(weights=kind, clip=None, beta=beta or 0.0)
        for kind in config.PositiveWeights
        if beta is not None or kind is not config.PositiveWeights.effective_number  # which is undefined without beta
    }
    if isinstance(chosen, config.WeightedBCE) and chosen.clip is not None:
        settings[f"weights={chosen.weights.value} clip={chosen.clip:g}"] = chosen
    return {name: positive_weights(one, label_counts=counts, rows=rows).tolist() for name, one in settings.items()}


def _examples(
    rows: Rows, labels: Sequence[str], *, count: int, seed: int, clean: Sequence[config.CleaningStep]
) -> dict[str, list[tuple[str, list[str]]]]:
    assert rows.targets is not None
    random = np.random.default_rng(seed)
    cleaned = cleaner(clean)
    groups = {name: np.flatnonzero(rows.targets[:, i] > 0) for i, name in enumerate(labels)}
    groups[NO_LABEL] = np.flatnonzero(rows.targets.sum(axis=1) == 0)
    found = {}
    for name, positions in groups.items():
        chosen = np.sort(random.choice(positions, size=min(count, len(positions)), replace=False))
        if len(chosen):
            found[name] = [
                (cleaned(rows.texts[i]), [other for k, other in enumerate(labels) if rows.targets[i, k]])
                for i in chosen
            ]
    return found


NO_LABEL = "(no label)"
"""Key of the examples without labels; parentheses show that it is not a label."""
