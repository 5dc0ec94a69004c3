"""Explanations: how much each word of a text speaks for or against a label."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Word:
    """A word of a text, and how much it speaks for each explained label.

    Attributes:
        text: the word, `explanation.text[start:end]`.
        start: its first character in the text as it was given.
        end: the character after its last one.
        attributions: by label, in logits: positive for the label, negative against it.
    """

    text: str
    start: int
    end: int
    attributions: dict[str, float]


@dataclass
class Part:
    """A part of a text.

    Attributes:
        text: the part.
        value: its attribution; 0 for what is no word.
        share: its absolute attribution as a share of the largest of the text, 0 to 1.
    """

    text: str
    value: float = 0.0
    share: float = 0.0

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """Red, green and blue of its ground: blue for the label, red against it, paler for less; None for little."""
        if self.share < 0.1:
            return None
        full = (100, 165, 255) if self.value > 0 else (255, 120, 105)
        red, green, blue = (round(255 + (part - 255) * self.share) for part in full)
        return red, green, blue


@dataclass
class Explanation:
    """Why a network gives a text its labels.

    For each label, the attributions of the words add up to `logits - baseline_logits`, except for `errors`.

    Attributes:
        text: the text as it was given.
        labels: the labels that are explained.
        words: the words of the text, in their order. Words that the network has not read, because the text is longer
            than `data.max_tokens`, are missing.
        logits: the network's logit of each explained label, before any calibration.
        baseline_logits: the same where each token of the text is replaced by one that says nothing.
        errors: for each explained label, the sum of the attributions minus `logits - baseline_logits`. It shrinks with
            more steps.
    """

    text: str
    labels: list[str]
    words: list[Word]
    logits: dict[str, float]
    baseline_logits: dict[str, float]
    errors: dict[str, float]

    def strongest(self, label: str) -> list[Word]:
        """Return the words, those first that change the logit of a label most, for or against it."""
        return sorted(self.words, key=lambda word: -abs(word.attributions[label]))

    def parts(self, label: str) -> list[Part]:
        """Return the text in parts: words, each with its attribution to a label, and what is between them."""
        most = max((abs(word.attributions[label]) for word in self.words), default=0.0)
        found, at = [], 0
        for word in self.words:
            value = word.attributions[label]
            found += [Part(self.text[at : word.start]), Part(word.text, value, abs(value) / most if most else 0.0)]
            at = word.end
        return [part for part in [*found, Part(self.text[at:])] if part.text]

    @property
    def largest_error(self) -> float:
        """The largest absolute error of its labels; 0 without labels."""
        return max(map(abs, self.errors.values()), default=0.0)


def mean(members: Sequence[Explanation]) -> Explanation:
    """Return the mean of what several networks say about one text and the same labels.

    Words that overlap, because one network's tokenizer joins what another's divides, become one.

    Args:
        members: at least one.
    """
    first, share = members[0], 1 / len(members)

    def average(values: Sequence[dict[str, float]]) -> dict[str, float]:
        return {label: sum(part[label] for part in values) * share for label in first.labels}

    words: list[Word] = []
    for word in sorted((word for member in members for word in member.words), key=lambda word: word.start):
        parts = {label: value * share for label, value in word.attributions.items()}
        if words and word.start < words[-1].end or words and (word.start, word.end) == (words[-1].start, words[-1].end):
            last = words[-1]
            last.end = max(last.end, word.end)
            last.text = first.text[last.start : last.end]
            last.attributions = {label: last.attributions[label] + value for label, value in parts.items()}
        else:
            words.append(Word(word.text, word.start, word.end, parts))
    return Explanation(
        text=first.text, labels=first.labels, words=words,
        logits=average([member.logits for member in members]),
        baseline_logits=average([member.baseline_logits for member in members]),
        errors=average([member.errors for member in members]),
    )  # fmt: skip


def words_for(found: Sequence[Explanation], label: str, *, least: int = 2) -> list[tuple[str, float, int]]:
    """Return the words that speak most for a label over many texts.

    Args:
        found: explanations, of which those count that explain the label.
        label: the label.
        least: texts in which a word must stand.

    Returns:
        Lower-cased words, each with its mean attribution where it is positive, and the number of its texts; the largest
        first.
    """
    values: dict[str, list[float]] = {}
    for explanation in found:
        if label in explanation.labels:
            of_text: dict[str, float] = {}
            for word in explanation.words:
                name = word.text.lower()
                of_text[name] = of_text.get(name, 0.0) + word.attributions[label]
            for name, value in of_text.items():
                values.setdefault(name, []).append(value)
    means = [(name, sum(own) / len(own), len(own)) for name, own in values.items() if len(own) >= least]
    return sorted((one for one in means if one[1] > 0), key=lambda one: -one[1])
